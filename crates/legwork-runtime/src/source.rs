//! Where messages come from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_types::MessageBatch;

/// A log of partitions: Kafka, or a script in a simulation. One thread calls [`LogSource::poll`] in a loop; the readers it hands out
/// are read on other threads.
pub trait LogSource: Send {
    /// Waits up to `timeout` for something to happen.
    fn poll(&mut self, timeout: Duration) -> Vec<SourceEvent>;

    /// Stores the offsets up to which lanes have read, for monitoring: (topic, partition, next offset).
    fn commit(&mut self, offsets: &[(Arc<str>, i32, i64)]);

    /// Which partitions there are, and what has become of them.
    fn standing(&self) -> Standing;

    /// Leaves the group. All readers have been dropped.
    fn close(&mut self);
}

/// What a source knows of its partitions.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Partitions of each topic that was found, as last heard.
    pub n_partitions: HashMap<Arc<str>, i32>,
    /// Those that were assigned and are not handed out yet: their claims are under way.
    pub claiming: HashSet<(Arc<str>, i32)>,
    /// Whether it has been told which are its own. Not before it has joined its group, nor after that has gone on without it.
    pub is_assigned: bool,
}

/// Something happened at the source.
pub enum SourceEvent {
    /// Partitions were assigned.
    Assigned(Vec<Box<dyn PartitionReader>>),
    /// Partitions are being taken away. Their readers must be dropped, then `done` be called: the source waits for it. Also names
    /// partitions that were claimed ([`ClaimPartition`]) and never handed out: what was claimed for them is let go.
    Revoked {
        /// (topic, partition).
        partitions: Vec<(Arc<str>, i32)>,
        /// They are taken away already, and may be read by others: their readers give nothing any more, and nothing may be written for
        /// them, no checkpoint either.
        lost: bool,
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
            SourceEvent::Revoked { partitions, lost: false, .. } => write!(f, "Revoked({partitions:?})"),
            SourceEvent::Revoked { partitions, lost: true, .. } => write!(f, "Lost({partitions:?})"),
            SourceEvent::Trouble { hop, message } => write!(f, "Trouble({hop}: {message})"),
            SourceEvent::Recovered { hop } => write!(f, "Recovered({hop})"),
            SourceEvent::Fatal { message } => write!(f, "Fatal({message})"),
        }
    }
}

/// What is known of a partition before its first message is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// The broker's id of the topic: another one after the topic was deleted and made anew. None where the broker has none.
    pub topic_id: Option<String>,
    /// Oldest offset in the log.
    pub begin_offset: i64,
    /// Offset of the next message to be written.
    pub end_offset: i64,
    /// Partitions of the topic.
    pub n_partitions: i32,
}

/// Where a partition starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Where the source is configured to start.
    Default,
    /// At this offset, from a checkpoint. Where the log does not hold it, the reader says [`ReadOutcome::Gone`].
    Offset(i64),
    /// Nowhere: the partition is held and not read. Its reader says [`ReadOutcome::Gone`] with this text: the cause and the way out.
    Halt(String),
}

/// Claims a partition that was assigned, and says where it starts. Called on a thread of its own, which may wait, for several partitions
/// at once, but never twice at the same time for one. Each call is followed by the partition's reader in [`SourceEvent::Assigned`], or,
/// where the partition was taken away meanwhile, by a [`SourceEvent::Revoked`] that names it.
pub type ClaimPartition = Arc<dyn Fn(&PartitionFacts) -> StartAt + Send + Sync>;

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

    /// The broker's id of the topic, as [`PartitionFacts::topic_id`].
    fn topic_id(&self) -> Option<String>;

    /// Whether the topic is known to have been the one of [`PartitionReader::topic_id`] at some moment after `since`, so that all that
    /// was read before then was its own; true where the broker has no ids. Where that is not known, it is asked for: call again a little
    /// later. A topic that is deleted, made anew and filled beyond the lane's offset within a few seconds goes on giving messages under
    /// the old offsets until its id is looked at, so that nothing may be made durable before this says yes.
    fn confirm_topic(&self, since: Instant) -> bool;

    /// Oldest offset in the log as last heard.
    fn begin_offset(&self) -> Option<i64>;

    /// Appends what is there, without waiting, up to `limit`.
    fn read(&mut self, into: &mut MessageBatch, limit: BatchLimit) -> ReadOutcome;

    /// Goes on at this offset, earlier or later: the next message handed out is the first at or after it. A partition that is
    /// [`ReadOutcome::Gone`] stays so.
    fn seek(&mut self, offset: i64);

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
