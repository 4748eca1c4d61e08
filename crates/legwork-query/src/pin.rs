//! One snapshot per table and query, however often the query names the table.

use std::collections::HashMap;
use std::sync::Arc;

use legwork_types::{LiveError, LiveTables, TableSnapshot};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// What the lanes held, one element a lane.
pub(crate) type Snapshots = Arc<[Arc<dyn TableSnapshot>]>;

/// The snapshots that a query has asked for so far. Lives in the session configuration of the query.
#[derive(Debug, Default)]
pub(crate) struct QueryPin {
    tables: Mutex<HashMap<String, Arc<OnceCell<Snapshots>>>>,
}

impl QueryPin {
    /// The query's snapshot of `table`: asked for once.
    pub(crate) async fn snapshot(&self, live: &dyn LiveTables, table: &str) -> Result<Snapshots, LiveError> {
        let cell = self.tables.lock().entry(table.to_owned()).or_default().clone();
        cell.get_or_try_init(|| snapshot(live, table)).await.cloned()
    }
}

/// A snapshot of `table` now. A table that no lane fills is empty.
pub(crate) async fn snapshot(live: &dyn LiveTables, table: &str) -> Result<Snapshots, LiveError> {
    or_empty(live.snapshot(table).await)
}

/// An unknown table has no rows.
pub(crate) fn or_empty(answer: Result<Vec<Arc<dyn TableSnapshot>>, LiveError>) -> Result<Snapshots, LiveError> {
    match answer {
        Ok(snapshots) => Ok(snapshots.into()),
        Err(LiveError::UnknownTable { .. }) => Ok(Arc::from([])),
        Err(error) => Err(error),
    }
}
