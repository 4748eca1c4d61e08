//! Lanes: the loop that decodes, guards, operates and answers snapshots; log sources.

mod source;

pub use source::{BatchLimit, LogSource, PartitionReader, ReadOutcome, SourceEvent};
