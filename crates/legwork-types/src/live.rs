//! How SQL reaches the live tables: a call in one process, a wire between several.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::{LaneId, TableSnapshot};

/// Snapshots of one table, one a lane.
pub type SnapshotFuture = Pin<Box<dyn Future<Output = Result<Answer<Arc<dyn TableSnapshot>>, LiveError>> + Send>>;

/// What lanes hold that the lake may not hold yet.
pub type FreshFuture = Pin<Box<dyn Future<Output = Result<Answer<FreshRows>, LiveError>> + Send>>;

/// What the lanes of a table answered, and which of them did not.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// From lanes that could.
    pub found: Vec<T>,
    /// Lanes whose rows are not, or not all, among those found.
    pub missing: Vec<MissingLane>,
}

impl<T> From<Vec<T>> for Answer<T> {
    /// Of lanes that are all there.
    fn from(found: Vec<T>) -> Answer<T> {
        Answer { found, missing: Vec::new() }
    }
}

/// A lane that cannot answer for its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLane {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition; none for all of the topic, as long as it is not known how many those are.
    pub partition: Option<i32>,
    /// Why, in words that may be the same for several lanes.
    pub reason: String,
    /// Whether it is on its way: then for how long already.
    pub coming_for: Option<Duration>,
}

/// Rows of one lane that the lake may not hold yet, each with the number of the checkpoint that it belongs to. The lane keeps them until a
/// version of the lake holds them, and a while longer, if there is room, for queries that pinned an older one.
#[derive(Clone, Debug)]
pub struct FreshRows {
    /// Lane.
    pub lane: LaneId,
    /// *Shape:* [`crate::Table::version_schema`], of several versions of a row the largest `revision` counts; events as their table has them.
    pub rows: Vec<(u32, RecordBatch)>,
    /// All rows that a version of the lake lacks whose transaction number of this lane is at least this one. A query that pinned an older
    /// version pins again.
    pub after: u32,
    /// The newest checkpoint that the lane knows to be durable. A version of the lake with a larger transaction number of this lane was
    /// written by another owner: this one has lost its claim and has not heard of it, so its rows are not those of the lane any more.
    pub durable: u32,
}

/// Why live rows cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LiveError {
    /// No lane knows this table.
    #[error("no live table is called {table:?}")]
    UnknownTable {
        /// Its name.
        table: String,
    },
    /// State that the answer needs cannot be read.
    #[error("the live rows cannot be had now: {detail}")]
    Unavailable {
        /// Why.
        detail: String,
    },
    /// Only lanes that run know it.
    #[error("nothing runs that could tell: {detail}")]
    OnlyLive {
        /// What, and how to be told.
        detail: String,
    },
    /// The pipeline has ended.
    #[error("the pipeline is shutting down")]
    ShuttingDown,
}

/// The live tables of a pipeline.
pub trait LiveTables: Send + Sync + Debug {
    /// Asks every lane that fills `table` for what it holds now, between two of its batches.
    fn snapshot(&self, table: &str) -> SnapshotFuture;

    /// Asks every lane that fills `table` for what the lake may not hold yet. For pipelines that have a lake.
    fn fresh(&self, table: &str) -> FreshFuture {
        let table = table.to_owned();
        Box::pin(std::future::ready(Err(LiveError::UnknownTable { table })))
    }

    /// Asks the lanes for rows of one key, computed for the asking: a track explained ping by ping, fixes near a time.
    fn lookup(&self, lookup: Lookup) -> SnapshotFuture;

    /// Lanes that fill `table`, or answer look-ups under its name, and cannot answer now, as last heard. Asks nobody.
    fn missing(&self, _table: &str) -> Vec<MissingLane> {
        Vec::new()
    }

    /// Newest event time over all lanes, microseconds; none before the first event.
    fn newest_event_time_us(&self) -> Option<i64>;
}

/// A question about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// What is asked for, such as `explain_track`.
    pub table: String,
    /// Key: a device, a deal.
    pub key: String,
    /// From this event time on, microseconds, inclusive.
    pub from_us: i64,
    /// Until this event time, microseconds, exclusive.
    pub to_us: i64,
}

impl Lookup {
    /// Every [`Lookup::table`] that there is.
    pub const TABLES: [&'static str; 2] = ["explain_track", "track_at"];
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Reading.
    Running,
    /// Waiting for something named in the detail: a registry that is down, a broker that is lost.
    Paused,
    /// Stopped until somebody acts; the detail names what to do.
    Halted,
    /// Its bounded input has ended.
    Ended,
    /// Its partition went to another instance.
    Released,
}

impl LaneState {
    /// Name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            LaneState::Running => "running",
            LaneState::Paused => "paused",
            LaneState::Halted => "halted",
            LaneState::Ended => "ended",
            LaneState::Released => "released",
        }
    }
}

/// One row of `pipeline_lanes`.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneStatus {
    /// Topic, or the file's name.
    pub topic: Arc<str>,
    /// Partition; 0 for files.
    pub partition: i32,
    /// What it is doing.
    pub state: LaneState,
    /// Why, when it does not run; empty otherwise.
    pub detail: String,
    /// Instance that owns it.
    pub owner: Arc<str>,
    /// Offset of the next message.
    pub next_offset: i64,
    /// End of the partition as last heard.
    pub end_offset: Option<i64>,
    /// Newest event time minus the reorder bound, microseconds.
    pub watermark_us: Option<i64>,
    /// Newest event time, microseconds.
    pub last_event_time_us: Option<i64>,
    /// Nothing came for `lane_idle_after`.
    pub is_idle: bool,
    /// Number of the lane's newest checkpoint.
    pub checkpoint_seq: Option<i64>,
    /// Messages read: the sum of the next five.
    pub n_read: i64,
    /// Events accepted.
    pub n_accepted: i64,
    /// Events beyond the late horizon.
    pub n_late: i64,
    /// Messages rejected.
    pub n_rejected: i64,
    /// Duplicates dropped.
    pub n_duplicates: i64,
    /// Messages with a key and no value.
    pub n_tombstones: i64,
    /// Accepted events older than the newest of their key.
    pub n_reordered: i64,
    /// Accepted events whose key belongs to another partition.
    pub n_misrouted: i64,
}

impl LaneStatus {
    /// Of a lane of which nothing is known.
    pub fn new(topic: Arc<str>, partition: i32) -> LaneStatus {
        LaneStatus {
            topic,
            partition,
            state: LaneState::Released,
            detail: String::new(),
            owner: Arc::from(""),
            next_offset: 0,
            end_offset: None,
            watermark_us: None,
            last_event_time_us: None,
            is_idle: false,
            checkpoint_seq: None,
            n_read: 0,
            n_accepted: 0,
            n_late: 0,
            n_rejected: 0,
            n_duplicates: 0,
            n_tombstones: 0,
            n_reordered: 0,
            n_misrouted: 0,
        }
    }
}
