//! One snapshot and one version of the lake per table and query, however often the query names the table.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result as DataFusionResult;
use legwork_types::{LiveError, LiveTables, TableSnapshot};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::lake::{Fresh, History, HistoryError, PinnedTable};

/// What the lanes held, one element a lane.
pub(crate) type Snapshots = Arc<[Arc<dyn TableSnapshot>]>;

/// A version of a lake table; none when the lake has no such table yet.
pub(crate) type Pinned = Option<Arc<PinnedTable>>;

/// A table of the lake at one version, and what the lanes held beyond it when they were asked, which was later.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) pinned: Pinned,
    pub(crate) fresh: Arc<Fresh>,
}

/// One answer a table.
type Cells<T> = Mutex<HashMap<String, Arc<OnceCell<T>>>>;

/// What a query has asked for so far. Lives in the session configuration of the query.
#[derive(Debug, Default)]
pub(crate) struct QueryPin {
    tables: Cells<Snapshots>,
    lake: Cells<Pinned>,
    views: Cells<View>,
}

impl QueryPin {
    /// The query's snapshot of `table`: asked for once.
    pub(crate) async fn snapshot(&self, live: &dyn LiveTables, table: &str) -> Result<Snapshots, LiveError> {
        let cell = self.tables.lock().entry(table.to_owned()).or_default().clone();
        cell.get_or_try_init(|| snapshot(live, table)).await.cloned()
    }

    /// The query's version of `table` in the lake: asked for once.
    pub(crate) async fn pinned(&self, history: &dyn History, table: &str) -> Result<Pinned, HistoryError> {
        let cell = self.lake.lock().entry(table.to_owned()).or_default().clone();
        cell.get_or_try_init(|| pinned(history, table)).await.cloned()
    }

    /// The query's view of `table`: made once.
    pub(crate) async fn view(
        &self,
        table: &str,
        make: impl Future<Output = DataFusionResult<View>>,
    ) -> DataFusionResult<View> {
        let cell = self.views.lock().entry(table.to_owned()).or_default().clone();
        cell.get_or_try_init(|| make).await.cloned()
    }
}

/// A snapshot of `table` now. A table that no lane fills is empty.
pub(crate) async fn snapshot(live: &dyn LiveTables, table: &str) -> Result<Snapshots, LiveError> {
    or_empty(live.snapshot(table).await)
}

/// The newest version of `table` in the lake.
pub(crate) async fn pinned(history: &dyn History, table: &str) -> Result<Pinned, HistoryError> {
    Ok(history.pin(table).await?.map(Arc::new))
}

/// An unknown table has no rows.
pub(crate) fn or_empty(answer: Result<Vec<Arc<dyn TableSnapshot>>, LiveError>) -> Result<Snapshots, LiveError> {
    match answer {
        Ok(snapshots) => Ok(snapshots.into()),
        Err(LiveError::UnknownTable { .. }) => Ok(Arc::from([])),
        Err(error) => Err(error),
    }
}
