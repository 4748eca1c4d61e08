//! The lane's store: one owner at a time, one atomic checkpoint at a time, read lazily.
//!
//! A lane that is claimed belongs to the newest claimant; the next commit of an older one fails and it must let go. A checkpoint is
//! everything that changed in a lane since the one before, or nothing of it. What lives here: the store behind a trait, in memory and on
//! an object store; formats and checksums; the decisions of recovery as pure functions. What does not: what the bytes mean.

mod format;
mod layout;
mod liveness;
mod memory;
pub mod recovery;
#[cfg(feature = "slate")]
pub mod slate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use legwork_types::{LaneId, StateEntry};

pub use format::FORMAT;
pub use memory::{Faults, MemoryStore, Operation};

/// What a checkpoint says of its lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of the checkpoint, from 1, each larger than the one before; by one, except where a halt was accepted ([`recovery::accept`]).
    /// It is the `revision` of the rows that it holds.
    pub number: u32,
    /// Identity of the topic as the broker tells it, where it does: a topic made anew has another.
    pub topic_id: Option<String>,
    /// Offset of the next message.
    pub next_offset: i64,
    /// Partitions of the topic.
    pub n_partitions: i32,
    /// The lane's clock: newest guarded event time, microseconds; `i64::MIN` before the first event.
    pub newest_us: i64,
    /// Counts of what became of the messages read, in an order that the lane knows, and [`Head::renewals`].
    pub counts: Vec<i64>,
    /// Settings that state depends on, such as the window, as the lane writes them: state made under others is refused.
    pub settings: String,
    /// The newest revision whose rows are all in the lake, or carried.
    pub lake_through: u32,
    /// For each table of the lake that holds rows of this lane: the transaction number that it is known to have reached. A table that has
    /// a smaller one, or is gone, has lost rows that the store dropped: [`recovery::decide`] then halts. Tables left out are not judged.
    pub lake_tables: BTreeMap<String, u32>,
}

impl Head {
    /// Place of [`Head::renewals`] among the counts.
    pub const RENEWALS: usize = 8;

    /// How often the lane went on with a topic that had been made anew ([`recovery::accept`]): its offsets stand for other messages since.
    pub fn renewals(&self) -> i64 {
        self.counts.get(Head::RENEWALS).copied().unwrap_or(0)
    }
}

/// Rows of a table that are not in the lake yet, as Arrow IPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRows {
    /// Number of the checkpoint that they belong to.
    pub number: u32,
    /// Table.
    pub table: String,
    /// Rows.
    pub rows: Vec<u8>,
}

/// What a lane's newest checkpoint says, read without claiming it: its owner goes on meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The newest checkpoint.
    pub head: Head,
    /// Rows that are not in the lake yet, or that the store has not heard to be there, by number.
    pub pending: Vec<PendingRows>,
}

/// One atomic step of a lane.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Replaces the head before it.
    pub head: Head,
    /// Changed hot state.
    pub hot: Vec<StateEntry>,
    /// Changed cold state.
    pub cold: Vec<StateEntry>,
    /// Rows of this checkpoint: (table, Arrow IPC).
    pub rows: Vec<(String, Vec<u8>)>,
    /// Pending rows up to and including this number are dropped, then `carried` stands in their place, under this number.
    pub drop_rows_through: Option<u32>,
    /// Rows among those dropped that the lake left out, open ones: (table, Arrow IPC). Without a drop they stand under number 0.
    pub carried: Vec<(String, Vec<u8>)>,
}

/// Why a store did not do what it was asked for. After any of these the claim is dead: claim the lane again,
/// and read what the newest checkpoint is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer owner has claimed the lane.
    #[error("another instance has claimed lane {lane}")]
    Fenced {
        /// Lane.
        lane: LaneId,
    },
    /// Whether it happened is not known.
    #[error("the store of lane {lane} did not answer, and what it did is not known: {detail}")]
    Unknown {
        /// Lane.
        lane: LaneId,
        /// What was seen.
        detail: String,
    },
    /// A newer binary wrote it.
    #[error(
        "the state of lane {lane} has format {found}, this binary reads up to {known}: start the version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// Lane.
        lane: LaneId,
        /// Its format.
        found: u8,
        /// The newest format known here.
        known: u8,
    },
    /// Bytes are not what was written.
    #[error(
        "the state of lane {lane} is damaged: {detail}; put lanes/{lane} of the store back from a copy, or, while no instance runs, move it away \
         and run legwork lanes accept {lane}, which says what would be lost before it does anything"
    )]
    Damaged {
        /// Lane.
        lane: LaneId,
        /// How.
        detail: String,
    },
    /// The store cannot be reached or refuses: nothing was written.
    #[error("the store cannot be used: {detail}")]
    Unavailable {
        /// Why, and the way out.
        detail: String,
    },
}

/// A store of lanes.
#[async_trait]
pub trait StateStore: Send + Sync + Debug {
    /// Makes the caller the owner of a lane, whoever owned it before.
    async fn claim(&self, lane: &LaneId) -> Result<Claimed, StoreError>;

    /// Lanes that have state, each with its head, or why that cannot be read; nothing is claimed. *Errors:* they cannot be listed.
    async fn lanes(&self) -> Result<Vec<(LaneId, Result<Head, StoreError>)>, StoreError>;

    /// Forgets a lane's state, so that it starts anew: what `legwork lanes accept` does.
    async fn remove(&self, lane: &LaneId) -> Result<(), StoreError>;
}

/// A claimed lane with what its newest checkpoint left.
#[derive(Debug)]
pub struct Claimed {
    /// The claim.
    pub lane: Arc<dyn LaneStore>,
    /// None for a lane without a checkpoint.
    pub head: Option<Head>,
    /// Rows that are not in the lake yet, by number.
    pub pending: Vec<PendingRows>,
    /// Hot state, by key.
    pub hot: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The store of a lane that was claimed. One commit at a time; reads go on beside it.
#[async_trait]
pub trait LaneStore: Send + Sync + Debug {
    /// Makes a checkpoint durable, wholly or not at all.
    async fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError>;

    /// Cold entries, in the order of their keys asked for.
    async fn read(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Lets go in good order, so that the next owner starts fast.
    async fn release(&self) -> Result<(), StoreError>;
}
