//! What can be wrong with a file as a whole.

use std::path::PathBuf;

use arrow::datatypes::DataType;
use legwork_types::Kind;

/// Names of columns are shown up to here.
const NAMES_CHARS_MAX: usize = 500;

/// A file cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The ending tells no format.
    #[error(
        "cannot tell the format of {} by its ending: expected .csv, .ndjson, .jsonl, .json, .avro or .gpx (each also with .gz) or .parquet",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not of the format that the ending says, or are damaged.
    #[error("{} is damaged or no {format}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Format expected.
        format: &'static str,
        /// Where and why.
        detail: String,
    },
    /// GPX holds fixes of devices and nothing else.
    #[error("{} is GPX, which holds only kind gps, and its columns cannot be mapped: found kind {kind}", path.display())]
    GpxOnlyGps {
        /// The file.
        path: PathBuf,
        /// Kind asked for.
        kind: Kind,
    },
    /// Columns that the kind needs are missing.
    #[error(
        "{} lacks {} for kind {kind}: its columns are {}; {}",
        path.display(), missing.join(", "), shown(columns), way_out(columns)
    )]
    MissingColumns {
        /// The file.
        path: PathBuf,
        /// Kind asked for.
        kind: Kind,
        /// Fields without a column.
        missing: Vec<String>,
        /// Columns of the file.
        columns: Vec<String>,
    },
    /// A map names a field that the kind does not have.
    #[error("--map {field}={column}: kind {kind} has no field {field}{}", did_you_mean(nearest))]
    UnknownField {
        /// Kind asked for.
        kind: Kind,
        /// Field named.
        field: String,
        /// Column named.
        column: String,
        /// A field with a similar name.
        nearest: Option<String>,
    },
    /// A map names a column that the file does not have.
    #[error("--map {field}={column}: {} has no column {column}{}", path.display(), did_you_mean(nearest))]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// Field named.
        field: String,
        /// Column named.
        column: String,
        /// A column with a similar name.
        nearest: Option<String>,
    },
    /// Two maps name the same field.
    #[error("--map names the field {field} twice")]
    MappedTwice {
        /// The field.
        field: String,
    },
    /// A column's type cannot become the field's.
    #[error("column {column} of {} is of type {found}, which cannot become {expected} for the field {field}", path.display())]
    UnsupportedColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The field.
        field: String,
        /// Its type.
        found: Box<DataType>,
        /// The field's type.
        expected: Box<DataType>,
    },
}

impl FileError {
    /// Whether the user asked for something that cannot be (rather than the file or the system failing).
    pub fn is_usage(&self) -> bool {
        !matches!(self, FileError::Io { .. } | FileError::Corrupt { .. })
    }
}

/// A header of one cell that has other separators in it is a file of another kind than ours.
fn way_out(columns: &[String]) -> &'static str {
    match columns {
        [only] if only.contains(';') => "cells are separated by commas here, and these seem to be by semicolons",
        [only] if only.contains('\t') => "cells are separated by commas here, and these seem to be by tabs",
        _ => "name the right ones with --map FIELD=COLUMN",
    }
}

/// Names of columns for a person: a file that is no such file may have any bytes for them, and any number.
fn shown(columns: &[String]) -> String {
    let escaped = columns.join(", ").escape_debug().to_string();
    match escaped.char_indices().nth(NAMES_CHARS_MAX) {
        Some((end, _)) => format!("{} ...", &escaped[..end]),
        None => escaped,
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}
