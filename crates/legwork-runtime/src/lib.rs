//! Lanes: the loop that decodes, guards, operates and answers snapshots; log sources.
//!
//! A [`Pipeline`] reads a [`LogSource`] with one thread that polls it and some that run lanes; [`run_files`] runs bounded input
//! through the same lanes. Both answer questions about their tables between two batches. What does not live here: Kafka, SQL, and
//! what the events mean.

mod accounting;
mod bounded;
mod committer;
mod config;
mod delay;
mod delivery;
mod event_log;
mod guard;
mod lane;
mod metrics;
mod pipeline;
mod record_log;
mod reference;
mod rows;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod simulation;
mod source;
mod stream_lane;
mod vital;
mod worker;

pub use bounded::{EndedLane, FileProgress, run_files, run_files_to_rows};
pub use config::{DeadLetterSink, LaneConfig, PartitionOf, RawEvents, SpillConfig, TopicConfig};
pub use delivery::{
    Delivery, DeliveryOptions, LakeRows, LakeSink, Landed, StoredLane, StoredLanes, lake_tables as lane_tables,
    settings as lane_settings,
};
pub use event_log::event_table_schema;
pub use metrics::PipelineMetrics;
pub use pipeline::{Pipeline, PipelineHealth};
pub use reference::{ReferenceDir, ReferenceError, ReferenceTables};
pub use source::{
    BatchLimit, ClaimPartition, LogSource, PartitionFacts, PartitionReader, ReadOutcome, SourceEvent, Standing, StartAt,
};
