//! Event-time operators: synchronous and pure.
//!
//! Each is a function of the *set* of events it accepted: not of their order of arrival, of how they were cut into batches, of the
//! wall clock, of other topics or of reference data. At every moment its tables equal the batch answer over those events.

pub mod track;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use legwork_types::time::LaneClock;
use legwork_types::{EventBatch, Lookup, TableSnapshot, Verdicts};

/// Keeps tables up to date from the events of one lane.
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
}
