//! How SQL reaches the lake.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use futures::future::BoxFuture;
use legwork_types::LaneId;

/// The lake's tables, each at a version of its own.
pub trait History: Send + Sync + Debug {
    /// The newest version of `table`, held until what is returned is dropped; none when the lake has no such table yet. Queries ask it
    /// once a table, before they ask the lanes for what they hold beyond it.
    fn pin<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Option<PinnedTable>, HistoryError>>;
}

/// A table of the lake at one version.
#[derive(Debug)]
pub struct PinnedTable {
    /// Its rows at that version. *Shape:* versions of rows, [`legwork_types::Table::version_schema`] with `lane` (`topic/partition`)
    /// and `day` (Date32), or events with `day`. Columns that an older table lacks are null, other types of strings are welcome.
    pub provider: Arc<dyn TableProvider>,
    /// The version.
    pub version: i64,
    /// Each lane's newest checkpoint whose rows the version holds.
    pub through: HashMap<LaneId, u32>,
    /// Every day of which it has rows, as days since 1970-01-01 UTC; empty when that is not known: then all days are resolved when read,
    /// in one piece. Not needed for events.
    pub days: BTreeMap<i32, LakeDay>,
}

/// A day of a lake table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LakeDay {
    /// Versions of rows in its files.
    pub n_rows: u64,
    /// It holds one version a key and no retractions, so that it reads as it is.
    pub is_resolved: bool,
}

/// Why the lake cannot be read. A query then fails; it never answers without the lake's rows.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HistoryError {
    /// The object store does not answer, or not in time.
    #[error("table {table} of the lake cannot be read: {detail}; try again, or look at lake.url and the object store")]
    Unavailable {
        /// Its name.
        table: String,
        /// What was said.
        detail: String,
    },
    /// It is there, and not as this binary expects it: a newer format, columns of other types, a damaged file.
    #[error("table {table} of the lake is not as expected: {detail}")]
    Refused {
        /// Its name.
        table: String,
        /// What was expected, what was found.
        detail: String,
    },
}
