//! Calls that PostgreSQL understands otherwise than DataFusion does, rewritten to what PostgreSQL answers: formats of `to_char`, times to the
//! minute, and parts of the difference of two times, of which DataFusion drops what is less than a second and sums up days as hours, hours as
//! minutes. Source: PostgreSQL's manual, "Data Type Formatting Functions" and "EXTRACT, date_part".

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, TryCast, cast, lit};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

/// A time to the minute: `0` for any digit.
const MINUTES: &str = "0000-00-00 00:00";

/// What stands for a call; none when DataFusion's meaning is PostgreSQL's. *Errors:* `Plan` for formats that are not known.
pub(crate) fn rewritten(call: &ScalarFunction, schema: &DFSchema) -> Result<Option<Expr>> {
    match (call.func.name(), call.args.as_slice()) {
        ("date_part", [Expr::Literal(part, _), of]) => match (part.try_as_str().flatten(), of.get_type(schema)?) {
            (Some(part), DataType::Duration(_)) => Ok(part_of_span(part, of.clone())),
            _ => Ok(None),
        },
        ("to_char", [time, Expr::Literal(format, _)]) => match format.try_as_str().flatten() {
            Some(format) if !format.contains('%') && !matches!(time.get_type(schema)?, DataType::Duration(_)) => {
                let args = vec![time.clone(), lit(ScalarValue::from(strftime(format)?))];
                Ok(Some(Expr::ScalarFunction(ScalarFunction::new_udf(call.func.clone(), args))))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Gives the text that is cast to a time its seconds where it ends with minutes, which DataFusion refuses. *Returns* whether it did.
pub(crate) fn fill_seconds(cast: &mut Expr, data_type: &DataType) -> bool {
    let (Expr::Cast(Cast { expr: text, .. }) | Expr::TryCast(TryCast { expr: text, .. })) = cast else { return false };
    let (Expr::Literal(text, _), DataType::Timestamp(..)) = (text.as_mut(), data_type) else { return false };
    let (ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text))) = text
    else {
        return false;
    };
    let is_like = |(byte, pattern): (u8, u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        b' ' => byte == b' ' || byte == b'T',
        pattern => byte == pattern,
    };
    let has_minutes = text.len() >= MINUTES.len() && text.bytes().zip(MINUTES.bytes()).all(is_like);
    let ends = text.as_bytes().get(MINUTES.len()).is_none_or(|byte| b"+-Z ".contains(byte));
    if has_minutes && ends {
        text.insert_str(MINUTES.len(), ":00");
    }
    has_minutes && ends
}

/// A part of a span of days, hours, minutes and seconds: `Float64` for the whole of it in seconds, else `Int32`.
fn part_of_span(part: &str, span: Expr) -> Option<Expr> {
    let us = || cast(cast(span.clone(), DataType::Duration(TimeUnit::Microsecond)), DataType::Int64);
    let within = |whole_us: i64, unit_us: i64| cast((us() % lit(whole_us)) / lit(unit_us), DataType::Int32);
    Some(match part.to_ascii_lowercase().as_str() {
        "epoch" => cast(us(), DataType::Float64) / lit(1e6),
        "day" | "days" => cast(us() / lit(DAY_US), DataType::Int32),
        "hour" | "hours" => within(DAY_US, HOUR_US),
        "minute" | "minutes" => within(HOUR_US, MINUTE_US),
        "second" | "seconds" => within(MINUTE_US, SECOND_US),
        _ => return None,
    })
}

/// Patterns of PostgreSQL, the longer ones first, whatever their case, with and without `FM`.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("HH24", "%H", "%-H"),
    ("HH12", "%I", "%-I"),
    ("HH", "%I", "%-I"),
    ("MI", "%M", "%-M"),
    ("MM", "%m", "%-m"),
    ("MS", "%3f", "%3f"),
    ("SS", "%S", "%-S"),
    ("US", "%6f", "%6f"),
    ("YYYY", "%Y", "%-Y"),
    ("IYYY", "%G", "%-G"),
    ("YY", "%y", "%-y"),
    ("DDD", "%j", "%-j"),
    ("DD", "%d", "%-d"),
    ("IW", "%V", "%-V"),
    ("ID", "%u", "%u"),
    ("Q", "%q", "%q"),
];
/// The same, of which the case counts. Names are not padded with blanks, `FM` or not.
const NAMES: &[(&str, &str)] = &[
    ("Month", "%B"),
    ("Mon", "%b"),
    ("Day", "%A"),
    ("Dy", "%a"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
    ("TZ", "%Z"),
    ("OF", "%:z"),
];
/// Patterns that have no counterpart, whatever their case.
const UNKNOWN: &[&str] = &[
    "MONTH", "MON", "DAY", "DY", "AM", "PM", "A.M.", "P.M.", "TZ", "OF", "SSSS", "YYY", "Y,YYY", "Y", "IYY", "IY", "I",
    "BC", "AD", "B.C.", "A.D.", "WW", "W", "D", "CC", "J", "RM", "FF", "TH", "SP", "TM",
];

/// A format of PostgreSQL as one of `strftime`. *Errors:* `Plan` for a pattern that has no counterpart.
fn strftime(format: &str) -> Result<String> {
    let (mut made, mut rest, mut is_filled) = (String::new(), format, true);
    let starts =
        |rest: &str, pattern: &str| rest.get(..pattern.len()).is_some_and(|start| start.eq_ignore_ascii_case(pattern));
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            made += text;
            rest = after;
        } else if starts(rest, "FM") {
            (is_filled, rest) = (false, &rest[2..]);
        } else if let Some((pattern, specifier)) = NAMES.iter().find(|(pattern, _)| rest.starts_with(pattern)) {
            made += specifier;
            (is_filled, rest) = (true, &rest[pattern.len()..]);
        } else if let Some((pattern, filled, bare)) = NUMBERS.iter().find(|(pattern, ..)| starts(rest, pattern)) {
            made += if is_filled { filled } else { bare };
            (is_filled, rest) = (true, &rest[pattern.len()..]);
        } else if let Some(pattern) = UNKNOWN.iter().find(|pattern| starts(rest, pattern)) {
            return plan_err!(
                "to_char does not know {} in {format:?}: write it as strftime does, such as %Y-%m-%d %H:%M:%S, or put text between double quotes",
                &rest[..pattern.len()]
            );
        } else {
            made.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(made)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_strftime() {
        for (format, expected) in [
            ("YYYY-MM-DD", "%Y-%m-%d"),
            ("yyyy-mm-dd hh24:mi:ss.ms", "%Y-%m-%d %H:%M:%S.%3f"),
            ("YYYY-MM-DD\"T at \"HH24:MI", "%Y-%m-%dT at %H:%M"),
            ("FMDD. FMMonth YY, HH12 PM", "%-d. %B %y, %I %p"),
            ("Dy DD Mon", "%a %d %b"),
            ("IYYY-IW Q", "%G-%V %q"),
            ("é", "é"),
        ] {
            assert_eq!(strftime(format).unwrap(), expected, "{format}");
        }
        for format in ["DD MONTH", "J", "YYY", "ddth", "Ww"] {
            assert!(strftime(format).unwrap_err().to_string().contains("strftime"), "{format}");
        }
    }
}
