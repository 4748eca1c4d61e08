//! What can go wrong with a table of the lake, and what the caller does then.

use deltalake::kernel::transaction::TransactionError;
use deltalake::{DeltaTableError, ObjectStoreError};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Retry,
    /// Somebody has to change configuration, the binary or the table.
    Config,
    /// Bytes are not what was written.
    Corrupt,
    /// A mistake of the program.
    Bug,
}

/// Why the lake did not do what it was asked for. Whatever it is, asking again is safe: a lane's rows are taken once.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LakeError {
    /// The address cannot be used.
    #[error("the lake cannot be opened at {url}: {detail}; expected file:///path, s3://bucket/path, gs:// or az://")]
    Address {
        /// As configured, without its secrets.
        url: String,
        /// Why.
        detail: String,
    },
    /// The object store does not answer or refuses. What was under way may have happened.
    #[error("lake table {table} cannot be {action}: {detail}")]
    Unavailable {
        /// Table.
        table: String,
        /// Which step.
        action: &'static str,
        /// What was seen.
        detail: String,
    },
    /// Other writers were faster, each time.
    #[error("lake table {table} was changed by others in each of {n_attempts} attempts to commit")]
    Contended {
        /// Table.
        table: String,
        /// How often it was tried.
        n_attempts: usize,
    },
    /// A newer writer has made it what this binary cannot write safely.
    #[error(
        "lake table {table} needs a newer binary: {detail}; start the version that wrote it, or a newer one, or set lake.url to another place"
    )]
    Newer {
        /// Table.
        table: String,
        /// What it asks for.
        detail: String,
    },
    /// A column has another type than rows have.
    #[error(
        "column {column} of lake table {table} is {found}, expected {expected}: move the table away, or set lake.url to another place"
    )]
    ColumnType {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Its type in the table.
        found: String,
        /// Its type in rows.
        expected: String,
    },
    /// The table is not as Legwork lays it out.
    #[error("lake table {table} is not laid out as expected: {detail}")]
    Layout {
        /// Table.
        table: String,
        /// How, and the way out.
        detail: String,
    },
    /// The clock of this machine is not to be trusted with deleting.
    #[error(
        "this machine's clock is {ahead_s} s ahead of the lake's object store: set it right, nothing was deleted or compacted"
    )]
    Clock {
        /// By how much, seconds.
        ahead_s: i64,
    },
    /// Bytes are not what was written.
    #[error("lake table {table} is damaged: {detail}")]
    Damaged {
        /// Table.
        table: String,
        /// How.
        detail: String,
    },
    /// The rows handed over do not fit the table.
    #[error("rows for lake table {table} do not fit it: {detail}")]
    Rows {
        /// Table.
        table: String,
        /// How.
        detail: String,
    },
}

impl LakeError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LakeError::Unavailable { .. } | LakeError::Contended { .. } => ErrorKind::Retry,
            LakeError::Address { .. }
            | LakeError::Clock { .. }
            | LakeError::Newer { .. }
            | LakeError::ColumnType { .. }
            | LakeError::Layout { .. } => ErrorKind::Config,
            LakeError::Damaged { .. } => ErrorKind::Corrupt,
            LakeError::Rows { .. } => ErrorKind::Bug,
        }
    }

    pub(crate) fn unavailable(table: &str, action: &'static str, detail: impl ToString) -> LakeError {
        LakeError::Unavailable { table: table.to_owned(), action, detail: detail.to_string() }
    }

    pub(crate) fn rows(table: &str, detail: impl ToString) -> LakeError {
        LakeError::Rows { table: table.to_owned(), detail: detail.to_string() }
    }

    pub(crate) fn damaged(table: &str, detail: impl ToString) -> LakeError {
        LakeError::Damaged { table: table.to_owned(), detail: detail.to_string() }
    }

    /// Of what delta-rs says. What this binary does not know is told apart from a store that does not answer by the words of the
    /// kernel's error, whose type delta-rs does not hand out.
    pub(crate) fn delta(table: &str, action: &'static str, error: DeltaTableError) -> LakeError {
        let owned = table.to_owned();
        match error {
            DeltaTableError::Transaction { source: TransactionError::UnsupportedTableFeatures(features) } => {
                LakeError::Newer { table: owned, detail: format!("table features {features:?}") }
            }
            DeltaTableError::Transaction { source: error @ TransactionError::TableFeaturesRequired(_) } => {
                LakeError::Newer { table: owned, detail: error.to_string() }
            }
            DeltaTableError::ObjectStore { source } => LakeError::unavailable(table, action, source),
            DeltaTableError::InvalidJsonLog { version, json_err, .. } => LakeError::Damaged {
                table: owned,
                detail: format!("commit {version} of its log is not JSON, line {}", json_err.line()),
            },
            error => {
                let text = error.to_string();
                let lower = text.to_lowercase();
                let is_newer = ["unsupported", "unknown", "not supported"].iter().any(|word| lower.contains(word))
                    && ["feature", "protocol", "reader version", "writer version"]
                        .iter()
                        .any(|word| lower.contains(word));
                match is_newer {
                    true => LakeError::Newer { table: owned, detail: text },
                    false => LakeError::unavailable(table, action, text),
                }
            }
        }
    }

    pub(crate) fn store(table: &str, action: &'static str, error: &ObjectStoreError) -> LakeError {
        LakeError::unavailable(table, action, error)
    }
}
