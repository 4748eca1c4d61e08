//! Event-time operators: synchronous and pure.
//!
//! Each is a function of the *set* of events it accepted: not of their order of arrival, of how they were cut into batches, of the
//! wall clock, of other topics or of reference data. At every moment its tables equal the batch answer over those events.

pub mod activity;
mod build;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod checkpoints;
pub mod deals;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod golden;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod measure;
pub mod records;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod testing;
pub mod track;

pub use build::{OperatorConfig, operator_for};
pub use state::DedupConfig;
pub use track::TrackConfig;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use legwork_types::time::LaneClock;
use legwork_types::{Changes, EventBatch, Lookup, StateEntry, StateError, Table, TableSnapshot, Verdicts};

/// What cold state may be needed for.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// Verdicts on a batch that is about to be applied: whether an event that comes late is one that was counted long ago. A batch applied
    /// without gives the same tables, but may take such a duplicate for accepted.
    Batch(&'a EventBatch),
    /// Tables that are up to date: what came late is to be put in its place.
    Tables,
    /// An answer.
    Lookup(&'a Lookup),
}

/// Keeps tables up to date from the events of one lane.
///
/// Its state lives in memory, and, piece by piece, in the lane's store, which it does not know: at a checkpoint it hands over what has
/// changed ([`Operator::checkpoint`]); when the lane starts again it is given its hot state ([`Operator::restore`]); cold state may leave
/// memory once it is durable ([`Operator::committed`]) and is asked for when it is needed ([`Operator::wanted`], [`Operator::supply`]).
/// An operator that is never checkpointed keeps everything in memory.
pub trait Operator: Send + Debug {
    /// Takes a batch of guarded events and says what became of each. `clock` already counts the batch.
    fn apply(&mut self, events: &EventBatch, clock: &LaneClock) -> Verdicts;

    /// Takes tombstones: record keys whose records are deleted. Only reference data knows them.
    fn delete(&mut self, _keys: &[&[u8]], _clock: &LaneClock) {}

    /// Names of the tables it fills.
    fn tables(&self) -> Vec<&'static str>;

    /// What a table holds now. None for a table that it does not fill.
    fn snapshot(&mut self, table: &str, clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>>;

    /// Answers a question about one key. None when the question is for another operator.
    fn lookup(&mut self, _lookup: &Lookup, _clock: &LaneClock) -> Option<RecordBatch> {
        None
    }

    /// Bytes of state held, estimated.
    fn memory_bytes(&self) -> usize;

    /// Hands over everything that changed since the last call, in keys of its own. The caller settles what is [`Operator::wanted`] before.
    /// Rows carry `clock.revision`; a row whose newest version says the same is left out. A row that is open no more, though none of its
    /// events came, has changed.
    fn checkpoint(&mut self, _clock: &LaneClock) -> Changes {
        Changes::default()
    }

    /// Versions of the rows of a table that a checkpoint now would hand over, *shape:* [`Table::version_schema`]; none where none changed.
    /// Changes nothing.
    fn fresh(&mut self, _table: Table, _clock: &LaneClock) -> Option<RecordBatch> {
        None
    }

    /// The checkpoint with this revision, and all before it, are durable: what they hold may leave memory where it can be read back.
    fn committed(&mut self, _revision: u32) {}

    /// Takes up hot state of earlier checkpoints, in the order of keys, before the first event.
    ///
    /// *Errors:* state of a newer format, or damaged.
    fn restore(&mut self, _hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        Ok(())
    }

    /// Goes as far as memory reaches with what waits. *Returns* keys of cold state without which `need` cannot be met; none: it is met.
    /// Asked again after they were supplied.
    fn wanted(&mut self, _need: Need<'_>, _clock: &LaneClock) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Takes cold state that was wanted; what the store does not hold has no value.
    ///
    /// *Errors:* state of a newer format, or damaged, or missing.
    fn supply(&mut self, _cold: Vec<StateEntry>) -> Result<(), StateError> {
        Ok(())
    }
}
