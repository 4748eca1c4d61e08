//! How a pipeline is set up. The program makes it from its configuration file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use legwork_codec::Format;
use legwork_operators::OperatorConfig;
use legwork_types::{Kind, Reject};

use crate::Delivery;

/// A topic and what its messages are.
#[derive(Clone, Debug)]
pub struct TopicConfig {
    /// Name of the topic.
    pub name: Arc<str>,
    /// Kind of its events.
    pub kind: Kind,
    /// How its messages are encoded.
    pub format: Format,
    /// Events older than this at their arrival are rejected; none for no limit.
    pub past_max_us: Option<i64>,
}

/// Partition that a key belongs to among so many, by the partitioner that producers use; none where the key does not decide it.
pub type PartitionOf = fn(key: &[u8], n_partitions: i32) -> Option<i32>;

/// Takes rejected messages to where others can find them.
pub trait DeadLetterSink: Send + Sync {
    /// Takes the rejects of one partition; waits, within bounds, when its queue is full.
    fn send(&self, source_topic: &str, partition: i32, rejects: &[Reject]);

    /// Completes when everything taken so far was acknowledged, or given up with a log line: `rejected_events` is the truth.
    fn flushed(&self) -> BoxFuture<'static, ()>;
}

/// What lanes need to know.
#[derive(Clone)]
pub struct LaneConfig {
    /// Operators and time.
    pub operators: OperatorConfig,
    /// An event stamped later than this after its arrival is rejected.
    pub future_skew_us_max: i64,
    /// A lane that heard nothing for so long is idle.
    pub lane_idle_after: Duration,
    /// How often a lane's revision advances while it changes.
    pub revision_every: Duration,
    /// Largest message.
    pub message_bytes_max: usize,
    /// Name of this instance, shown as the owner of its lanes.
    pub owner: Arc<str>,
    /// Partitioner that keys are checked against; none for no check.
    pub partition_of: Option<PartitionOf>,
    /// Which kinds keep their accepted events as a table.
    pub raw_events: RawEvents,
    /// Where events beyond the memory's share are kept, and how much.
    pub spill: SpillConfig,
    /// Where rejected messages go besides the table.
    pub dead_letters: Option<Arc<dyn DeadLetterSink>>,
    /// Where state and rows are made durable; none: they live in memory, and are rebuilt from the source.
    pub delivery: Option<Arc<Delivery>>,
}

impl std::fmt::Debug for LaneConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneConfig")
            .field("operators", &self.operators)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Which accepted events are kept as tables of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawEvents {
    /// Those of every kind.
    All,
    /// Those of these kinds.
    Only(Vec<Kind>),
}

impl RawEvents {
    pub(crate) fn keeps(&self, kind: Kind) -> bool {
        match self {
            RawEvents::All => true,
            RawEvents::Only(kinds) => kinds.contains(&kind),
        }
    }
}

/// Bounds of the logs of events: first memory, then a folder that may be lost at any time.
#[derive(Clone, Debug)]
pub struct SpillConfig {
    /// Folder; emptied when a pipeline starts.
    pub dir: PathBuf,
    /// Bytes in memory over all lanes of this process.
    pub memory_bytes_max: usize,
    /// Bytes on disk over all lanes of this process; beyond it the oldest raw events go.
    pub disk_bytes_max: u64,
}
