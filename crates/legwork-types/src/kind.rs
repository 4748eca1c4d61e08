//! What is known of each kind of event and reference record, beside its columns.

use std::fmt;
use std::str::FromStr;

use crate::Kind;

/// How the events of a kind combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each event stands for itself; duplicates are removed.
    Fact,
    /// The newest version (event_time, sequence, event_id) of an id counts.
    Entity,
    /// A patch as of its event time: null leaves a value, `cleared` sets fields to nothing.
    Patch,
    /// A reference record: the newest record of its key counts, a tombstone deletes it.
    Reference,
}

pub(crate) struct KindInfo {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    pub(crate) topic: &'static str,
    pub(crate) key: &'static str,
    pub(crate) record: &'static str,
    pub(crate) shape: Shape,
    pub(crate) avro: &'static str,
}

impl Kind {
    /// Short name, as in `--input gps=FILE` and `[topics.gps]`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Name of the SQL table that holds the accepted events (or the reference records) themselves.
    pub const fn table(self) -> &'static str {
        self.info().table
    }

    /// Default topic.
    pub const fn topic(self) -> &'static str {
        self.info().topic
    }

    /// Field that is the record key.
    pub const fn key(self) -> &'static str {
        self.info().key
    }

    /// Name of the Avro record in namespace `legwork.v1`.
    pub const fn record(self) -> &'static str {
        self.info().record
    }

    /// How its events combine.
    pub const fn shape(self) -> Shape {
        self.info().shape
    }

    /// Avro schema (JSON), the reader's schema of every decoder.
    pub const fn avro(self) -> &'static str {
        self.info().avro
    }

    /// Whether this is reference data rather than an event.
    pub const fn is_reference(self) -> bool {
        matches!(self.shape(), Shape::Reference)
    }

    /// The kinds that are events.
    pub fn events() -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| !kind.is_reference())
    }

    /// The kinds that are reference data.
    pub fn references() -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| kind.is_reference())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No kind has this name.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind {found:?}: expected one of {}", Kind::ALL.map(Kind::name).join(", "))]
pub struct UnknownKind {
    found: String,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        let dashed = text.replace('_', "-");
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name().replace('_', "-") == dashed)
            .ok_or_else(|| UnknownKind { found: text.to_owned() })
    }
}
