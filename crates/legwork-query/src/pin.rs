//! One snapshot and one version of the lake per table and query, however often the query names the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::Session;
use datafusion::common::Result as DataFusionResult;
use legwork_types::{Answer, LiveError, LiveTables, MissingLane, TableSnapshot};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::lake::{Fresh, History, HistoryError, PinnedTable};
use crate::notices;

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

/// Between two looks whether lanes have come.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// What a query has asked for so far. Lives in the session configuration of the query.
#[derive(Debug, Default)]
pub(crate) struct QueryPin {
    tables: Cells<Snapshots>,
    lake: Cells<Pinned>,
    views: Cells<View>,
    patience: Option<Patience>,
    missing: Mutex<Vec<MissingLane>>,
}

/// How a query waits for lanes that are on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Longest time that a lane gets; those that are on their way for longer are not waited for.
    pub(crate) lanes_wait: Duration,
    /// When the query goes on without them.
    pub(crate) until: Instant,
}

impl QueryPin {
    pub(crate) fn new(patience: Patience) -> QueryPin {
        QueryPin { patience: Some(patience), ..QueryPin::default() }
    }

    /// Of the query that is planned with this session.
    pub(crate) fn of(session: &dyn Session) -> Arc<QueryPin> {
        session.config().get_extension::<QueryPin>().unwrap_or_default()
    }

    /// The query's snapshot of `table`: asked for once.
    pub(crate) async fn snapshot(&self, live: &dyn LiveTables, table: &str) -> Result<Snapshots, LiveError> {
        let cell = self.tables.lock().entry(table.to_owned()).or_default().clone();
        let ask = || async {
            self.wait(live, table).await;
            self.found(live.snapshot(table).await).map(Snapshots::from)
        };
        cell.get_or_try_init(ask).await.cloned()
    }

    /// The query's version of `table` in the lake: asked for once.
    pub(crate) async fn pinned(&self, history: &dyn History, table: &str) -> Result<Pinned, HistoryError> {
        let cell = self.lake.lock().entry(table.to_owned()).or_default().clone();
        cell.get_or_try_init(|| async { Ok(history.pin(table).await?.map(Arc::new)) }).await.cloned()
    }

    /// The next who asks for the query's version of `table` gets a newer one.
    pub(crate) fn forget_pinned(&self, table: &str) {
        self.lake.lock().remove(table);
    }

    /// Waits for lanes of `table` that are on their way, within the query's patience. Before the lake is pinned: lanes keep what it has taken
    /// since then for a while only.
    pub(crate) async fn wait(&self, live: &dyn LiveTables, table: &str) {
        let Some(Patience { lanes_wait, until }) = self.patience else { return };
        let is_awaited = |lane: &MissingLane| lane.coming_for.is_some_and(|coming_for| coming_for < lanes_wait);
        while live.missing(table).iter().any(is_awaited) && Instant::now() < until {
            tokio::time::sleep(LOOK_AFTER).await;
        }
    }

    /// What lanes answered; those that did not are noted. An unknown table has no rows.
    pub(crate) fn found<T>(&self, answer: Result<Answer<T>, LiveError>) -> Result<Vec<T>, LiveError> {
        match answer {
            Ok(Answer { found, missing }) => {
                self.missing.lock().extend(missing);
                Ok(found)
            }
            Err(LiveError::UnknownTable { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What the client must know: whose rows its answer may lack, and why.
    pub(crate) fn notices(&self) -> Vec<String> {
        notices::of(&self.missing.lock())
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
