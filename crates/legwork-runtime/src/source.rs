//! Where messages come from.

use std::sync::Arc;
use std::time::Duration;

use legwork_types::MessageBatch;

/// A log of partitions: Kafka, or a script in a simulation. One thread calls [`LogSource::poll`] in a loop; the readers it hands out
/// are read on other threads.
pub trait LogSource: Send {
    /// Waits up to `timeout` for something to happen.
    fn poll(&mut self, timeout: Duration) -> Vec<SourceEvent>;

    /// Stores the offsets up to which lanes have read, for monitoring: (topic, partition, next offset).
    fn commit(&mut self, offsets: &[(Arc<str>, i32, i64)]);

    /// Leaves the group. All readers have been dropped.
    fn close(&mut self);
}

/// Something happened at the source.
pub enum SourceEvent {
    /// Partitions were assigned.
    Assigned(Vec<Box<dyn PartitionReader>>),
    /// Partitions are being taken away. Their readers must be dropped, then `done` be called: the source waits for it.
    Revoked {
        /// (topic, partition).
        partitions: Vec<(Arc<str>, i32)>,
        /// Lets them go.
        done: Box<dyn FnOnce() + Send>,
    },
    /// A hop does not answer; the source goes on trying.
    Trouble {
        /// Which: `broker localhost:9092`, `topic field.gps-pings.v1`.
        hop: String,
        /// What is wrong and what to do about it.
        message: String,
    },
    /// A hop that had trouble is well again.
    Recovered {
        /// Which.
        hop: String,
    },
    /// It cannot go on: wrong configuration, authentication refused for good.
    Fatal {
        /// What is wrong and the way out.
        message: String,
    },
}

impl std::fmt::Debug for SourceEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceEvent::Assigned(readers) => write!(f, "Assigned({} partitions)", readers.len()),
            SourceEvent::Revoked { partitions, .. } => write!(f, "Revoked({partitions:?})"),
            SourceEvent::Trouble { hop, message } => write!(f, "Trouble({hop}: {message})"),
            SourceEvent::Recovered { hop } => write!(f, "Recovered({hop})"),
            SourceEvent::Fatal { message } => write!(f, "Fatal({message})"),
        }
    }
}

/// How much a batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    /// Messages.
    pub n_messages_max: usize,
    /// Bytes of keys and values; one larger message still fits alone.
    pub n_bytes_max: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many messages were appended; zero when none were there.
    Messages(usize),
    /// The partition can be read no further: the message names the cause and what to do. The lane halts; others go on.
    Gone,
}

/// Reads one partition; owned by one lane.
pub trait PartitionReader: Send {
    /// Topic.
    fn topic(&self) -> &Arc<str>;

    /// Partition.
    fn partition(&self) -> i32;

    /// Partitions of the topic.
    fn n_partitions(&self) -> i32;

    /// Appends what is there, without waiting, up to `limit`.
    fn read(&mut self, into: &mut MessageBatch, limit: BatchLimit) -> ReadOutcome;

    /// Why the last read said [`ReadOutcome::Gone`], and the way out.
    fn gone_because(&self) -> Option<String>;

    /// End of the partition as last heard.
    fn end_offset(&self) -> Option<i64>;

    /// Bytes fetched and not yet read.
    fn queued_bytes(&self) -> usize;

    /// Calls `wake` whenever messages arrive in an empty queue.
    fn on_ready(&mut self, wake: Arc<dyn Fn() + Send + Sync>);

    /// Stops and resumes fetching, while the lane waits for something else than messages.
    fn set_paused(&mut self, paused: bool);
}
