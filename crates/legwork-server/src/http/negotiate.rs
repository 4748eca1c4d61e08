//! Which format an answer gets: `Accept` (RFC 9110, section 12.5.1).

/// A format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
    Arrow,
    Parquet,
}

impl Format {
    /// In order of preference when a client takes any.
    pub(crate) const ALL: &[Format] = &[Format::Json, Format::Csv, Format::Arrow, Format::Parquet];

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Csv => "text/csv",
            Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            other => other.media_type(),
        }
    }

    /// The format that an `Accept` wants most; none when it wants none of ours. Without `Accept`, JSON.
    pub(crate) fn accepted(accept: Option<&str>) -> Option<Format> {
        let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return Some(Format::Json) };
        let mut best: Option<(f32, Format)> = None;
        for &format in Format::ALL {
            let quality = quality(accept, format.media_type());
            if quality > 0.0 && best.is_none_or(|(best, _)| quality > best) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format)
    }
}

/// Of the most specific range that covers the media type; 0 when none does.
fn quality(accept: &str, media_type: &str) -> f32 {
    let mut found = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specificity = match name.as_str() {
            "*/*" => 1,
            name if name == media_type => 3,
            name => match name.strip_suffix("/*") {
                Some(family) if media_type.split('/').next() == Some(family) => 2,
                _ => 0,
            },
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        if specificity > found.0 {
            found = (specificity, quality);
        }
    }
    found.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_wanted_is_chosen() {
        let accepted = |accept: &str| Format::accepted(Some(accept));
        assert_eq!(Format::accepted(None), Some(Format::Json));
        assert_eq!(accepted(""), Some(Format::Json));
        assert_eq!(accepted("*/*"), Some(Format::Json));
        assert_eq!(accepted("text/*"), Some(Format::Csv));
        assert_eq!(accepted("text/html, application/json;q=0.5, text/csv;q=0.9"), Some(Format::Csv));
        assert_eq!(accepted("application/json;q=0, */*;q=0.1"), Some(Format::Csv));
        assert_eq!(accepted("application/vnd.apache.arrow.stream"), Some(Format::Arrow));
        assert_eq!(accepted("Application/Vnd.Apache.Parquet"), Some(Format::Parquet));
        assert_eq!(accepted("text/html"), None);
    }
}
