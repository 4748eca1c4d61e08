//! Event time, windows, kinds of events, canonical schemas and tables.
//!
//! What lives here: the vocabulary that all other crates share. What does not: input and output, clocks, operators.
//! The Avro files under `schemas/` are the source of truth; [`Kind`] and the column positions are generated from them.

mod changes;
mod event;
#[rustfmt::skip]
mod generated;
pub mod geo;
mod kind;
mod live;
mod message;
mod schema;
mod snapshot;
mod tables;
pub mod time;

pub use changes::{Changes, LaneId, StateEntry, StateError, StateValue};
pub use event::{EventBatch, Reject, RejectReason, Verdict, Verdicts, all_but};
pub use generated::*;
pub use kind::{Shape, UnknownKind};
pub use live::{
    Answer, FreshFuture, FreshRows, LaneState, LaneStatus, LiveError, LiveTables, Lookup, MissingLane, SnapshotFuture,
};
pub use message::{Message, MessageBatch};
pub use schema::money;
pub use snapshot::{BatchSnapshot, LazySnapshot, TableSnapshot};
pub use tables::{Column, ColumnType, Openness, Table, TableDef};
