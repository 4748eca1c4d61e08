//! Delivery: checkpoints into the lane's store, rows into the lake, each once.
//!
//! A checkpoint is the only commit point of a lane: it holds the offset, the state and the rows that the lake does not hold yet. The lake
//! follows: every so often one commit a table for all lanes, each with the number of the newest checkpoint that it holds, so that
//! repeating a commit changes nothing. What lives here: when and what. What does not: how stores and lakes do it.

mod commit;
mod encoded;
mod keeper;
mod pending;
mod recover;
mod stored;
mod versions;

use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use legwork_operators::OperatorConfig;
use legwork_state::{Head, StateStore, StoreError};
use legwork_types::{Kind, LaneId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{ClaimPartition, StartAt};

pub(crate) use commit::{Covered, LanePending, Outcome, commit};
pub(crate) use encoded::{EncodedRows, Held, HeldBytes};
pub(crate) use keeper::{Durable, Keeper, Taken, TakenRows};
pub(crate) use pending::{Part, Pending};
pub(crate) use recover::{Recovered, Refused, recover};
pub use recover::{lake_tables, settings};
pub use stored::{StoredLane, StoredLanes};
#[cfg(test)]
pub(crate) use versions::newest;

/// How long the assignment of a partition waits for its claim.
const CLAIM_MAX: Duration = Duration::from_secs(10);

/// A list of lanes is taken for current for so long.
const LISTED_AGE_MAX: Duration = Duration::from_secs(10);

/// Rows of one lane for a table of the lake.
#[derive(Clone, Debug)]
pub struct LakeRows {
    /// Lane.
    pub lane: LaneId,
    /// Newest checkpoint among the rows: the lane's transaction number from now on.
    pub through: u32,
    /// Versions, or events, *shape* as of the table, each batch with the number of the checkpoint that brings it: batches up to what the
    /// table holds already are left out.
    pub rows: Vec<(u32, RecordBatch)>,
    /// More rows, as [`LakeSink::encode`] made them, with numbers likewise.
    pub files: Vec<(u32, Bytes)>,
}

/// What became of a lane's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// The lake holds them since this commit.
    Done,
    /// It held that checkpoint before: a process that was believed dead was faster.
    AlreadyThere,
    /// It holds a newer checkpoint of the lane than there can be: somebody else writes with another store, or state was lost.
    Ahead {
        /// Number of that checkpoint.
        at: u32,
    },
}

/// The lake as lanes see it.
#[async_trait]
pub trait LakeSink: Send + Sync + Debug {
    /// Commits rows of several lanes to a table at once, each lane's together with its transaction number, so that nothing is written
    /// twice however often it is called and by whom.
    ///
    /// *Errors:* what is wrong and the way out; whether it happened is not known then, and it is tried again.
    async fn commit(&self, table: &str, lanes: Vec<LakeRows>) -> Result<Vec<(LaneId, Landed)>, String>;

    /// Newest checkpoint of each lane in a table; none for a table that does not exist.
    ///
    /// *Errors:* what is wrong and the way out.
    async fn transactions(&self, table: &str) -> Result<Option<HashMap<LaneId, u32>>, String>;

    /// A lane's rows of a table as Parquet files that a commit can take as they are: one for each UTC day among them.
    ///
    /// *Errors:* they are no rows of this table.
    fn encode(&self, table: &str, lane: &LaneId, rows: &[RecordBatch]) -> Result<Vec<Bytes>, String>;
}

/// Where a pipeline delivers to, and how often.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// Store of the lanes.
    pub store: Arc<dyn StateStore>,
    /// The lake.
    pub lake: Arc<dyn LakeSink>,
    /// How often a lane that changes makes a checkpoint.
    pub checkpoint_every: Duration,
    /// How often rows go into the lake.
    pub commit_every: Duration,
    /// How often open rows go into the lake, too.
    pub open_rows_every: Duration,
    /// With so many bytes of rows waiting in all lanes together, they read no further. With half as many, checkpoints are made and the lake
    /// takes them without waiting for their time.
    pub waiting_bytes_max: usize,
    /// With so many bytes of rejects and late events since the last checkpoint, a lane does not wait for the time of the next one, and reads
    /// no further until it is taken.
    pub logged_bytes_max: u64,
    /// So many rows of a table in a checkpoint are encoded as Parquet, fewer as Arrow. Raw events are when there are eight times as many,
    /// without waiting for a checkpoint.
    pub encoded_rows_min: usize,
    /// Of lanes that have read so many messages since their last checkpoint, one at a time makes the next: until it is durable, it takes
    /// several times the memory of what it holds.
    pub large_checkpoint: i64,
    /// Runs what waits for stores.
    pub runtime: tokio::runtime::Handle,
}

/// Lanes of the store, and when they were listed.
type Listed = (Instant, Arc<[(LaneId, Result<Head, StoreError>)]>);

/// Delivery of one pipeline.
#[derive(Debug)]
pub struct Delivery {
    options: DeliveryOptions,
    /// Lanes claimed before their readers came.
    claimed: Mutex<HashMap<LaneId, Recovered>>,
    /// Lanes of the store as last listed, and when.
    known: tokio::sync::Mutex<Option<Listed>>,
    /// Held while rows go into the lake: of two rounds at once one would find itself outrun. The end of the pipeline holds it for good.
    pub(crate) round: tokio::sync::Mutex<()>,
    /// Rows of all lanes that wait for the lake.
    pub(crate) held: HeldBytes,
    /// Whoever makes a large checkpoint has this.
    pub(crate) large: Arc<Semaphore>,
}

impl Delivery {
    /// With these options.
    pub fn new(options: DeliveryOptions) -> Arc<Delivery> {
        Arc::new(Delivery {
            options,
            claimed: Mutex::default(),
            known: Default::default(),
            round: Default::default(),
            held: HeldBytes::default(),
            large: Arc::new(Semaphore::new(1)),
        })
    }

    /// What claims a partition while it is being assigned, so that nothing is fetched in vain. `kinds`: what the topics hold.
    pub fn claim_partition(
        self: &Arc<Self>,
        kinds: HashMap<Arc<str>, Kind>,
        operators: OperatorConfig,
    ) -> ClaimPartition {
        let delivery = self.clone();
        Arc::new(move |facts| {
            let Some(&kind) = kinds.get(&facts.topic).filter(|kind| !kind.is_reference()) else {
                return StartAt::Default;
            };
            let lane = LaneId::new(facts.topic.clone(), facts.partition);
            let settings = settings(kind, &operators);
            let recovering = recover(&delivery, (&lane, kind), facts, &settings);
            match delivery.runtime.block_on(async { tokio::time::timeout(CLAIM_MAX, recovering).await }) {
                Ok(Ok(recovered)) => {
                    let start =
                        recovered.head.as_ref().map_or(StartAt::Default, |head| StartAt::Offset(head.next_offset));
                    delivery.claimed.lock().insert(lane, recovered);
                    start
                }
                Ok(Err(Refused::Halt(detail))) => StartAt::Halt(detail),
                // The lane tries again by itself and says why it waits.
                Ok(Err(Refused::Retry(_))) | Err(_) => StartAt::Default,
            }
        })
    }

    /// Lanes of the store, listed once for all that start together.
    async fn known_lanes(&self) -> Result<Arc<[(LaneId, Result<Head, StoreError>)]>, StoreError> {
        let mut known = self.known.lock().await;
        if let Some((_, lanes)) = known.as_ref().filter(|(at, _)| at.elapsed() < LISTED_AGE_MAX) {
            return Ok(lanes.clone());
        }
        let lanes: Arc<[_]> = self.store.lanes().await?.into();
        *known = Some((Instant::now(), lanes.clone()));
        Ok(lanes)
    }

    /// Whether little room is left for rows that wait for the lake.
    pub(crate) fn is_tight(&self) -> bool {
        self.held.get() > self.waiting_bytes_max / 2
    }

    /// What was claimed for a lane before its reader came.
    pub(crate) fn take_claimed(&self, lane: &LaneId) -> Option<Recovered> {
        self.claimed.lock().remove(lane)
    }
}

impl Deref for Delivery {
    type Target = DeliveryOptions;

    fn deref(&self) -> &DeliveryOptions {
        &self.options
    }
}
