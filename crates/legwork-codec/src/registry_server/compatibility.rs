//! Levels of compatibility and what they ask of a new schema.

use std::fmt;
use std::str::FromStr;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

/// What a new schema must be compatible with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Nothing.
    None,
    /// It reads what the latest one wrote.
    #[default]
    Backward,
    /// It reads what any earlier one wrote.
    BackwardTransitive,
    /// The latest one reads what it writes.
    Forward,
    /// Every earlier one reads what it writes.
    ForwardTransitive,
    /// Backward and forward.
    Full,
    /// Backward and forward, with every earlier one.
    FullTransitive,
}

impl Level {
    /// Every level.
    pub const ALL: [Level; 7] = [
        Level::None,
        Level::Backward,
        Level::BackwardTransitive,
        Level::Forward,
        Level::ForwardTransitive,
        Level::Full,
        Level::FullTransitive,
    ];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::None => "NONE",
            Level::Backward => "BACKWARD",
            Level::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Level::Forward => "FORWARD",
            Level::ForwardTransitive => "FORWARD_TRANSITIVE",
            Level::Full => "FULL",
            Level::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether every earlier schema counts, not only the latest.
    pub(crate) const fn is_transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    const fn is_backward(self) -> bool {
        matches!(self, Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive)
    }

    const fn is_forward(self) -> bool {
        matches!(self, Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = super::RegistryError;

    fn from_str(text: &str) -> Result<Level, super::RegistryError> {
        Level::ALL
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(text))
            .ok_or(super::RegistryError::InvalidLevel)
    }
}

/// What speaks against a new schema beside an earlier one; nothing when they go together.
pub(crate) fn objections(level: Level, new: &Schema, earlier: &Schema) -> Vec<String> {
    let mut objections = Vec::new();
    if level.is_backward() {
        objections.extend(
            cannot_read(new, earlier).map(|why| format!("the new schema cannot read the old one's data: {why}")),
        );
    }
    if level.is_forward() {
        objections.extend(
            cannot_read(earlier, new).map(|why| format!("the old schema cannot read the new one's data: {why}")),
        );
    }
    objections
}

/// Why a reader cannot read *everything* that a writer may write, if so.
fn cannot_read(reader: &Schema, writer: &Schema) -> Option<String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some("a union branch or an enum's symbol is missing from the reader".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
