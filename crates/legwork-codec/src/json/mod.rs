//! JSON messages, one object each, to canonical columns.
//!
//! Field names are those of the Avro schema. Unknown fields are ignored; of a field that comes twice the last counts. Times are
//! RFC 3339 or integers in microseconds, dates `YYYY-MM-DD` or days, decimals numbers or strings, both exactly.

mod builder;
mod cell;

use std::collections::HashMap;

use legwork_types::{Kind, RejectReason};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use self::builder::ColumnBuilder;
use self::cell::{Cell, CellError};
use crate::columns::{Columns, stands_in_for_null};

/// Decodes the JSON messages of one kind.
#[derive(Debug)]
pub(crate) struct JsonDecoder {
    kind: Kind,
    columns: HashMap<String, usize>,
    builders: Vec<ColumnBuilder>,
    rows: Vec<u32>,
}

impl JsonDecoder {
    pub(crate) fn new(kind: Kind) -> JsonDecoder {
        let schema = kind.schema();
        let columns = schema.fields().iter().enumerate().map(|(idx, field)| (field.name().clone(), idx)).collect();
        let builders = schema.fields().iter().map(|field| ColumnBuilder::new(field.data_type())).collect();
        JsonDecoder { kind, columns, builders, rows: Vec::new() }
    }

    /// Decodes one message. *Errors:* the reason and what was found where; the message then leaves no trace.
    pub(crate) fn push(&mut self, message_idx: u32, value: &[u8]) -> Result<(), (RejectReason, String)> {
        let object = parse(value, &self.columns)?;
        let schema = self.kind.schema();
        let mut cells = Vec::with_capacity(object.len());
        for (column_idx, (raw, field)) in object.into_iter().zip(schema.fields()).enumerate() {
            let raw = raw.map(RawValue::get).filter(|&text| text != "null");
            let cell = match raw {
                Some(text) => cell::parse(text, field.data_type()).map_err(|error| describe(error, field.name()))?,
                None if field.is_nullable() => Cell::Null,
                None if stands_in_for_null(self.kind, column_idx) => Cell::Text("".into()),
                None => {
                    return Err((RejectReason::MissingField, format!("field {} is missing or null", field.name())));
                }
            };
            cells.push(cell);
        }
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.append(cell);
        }
        self.rows.push(message_idx);
        Ok(())
    }

    /// The canonical columns of all messages since the last call.
    pub(crate) fn finish(&mut self) -> Columns {
        let arrays = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        Columns { kind: self.kind, arrays, message_rows: std::mem::take(&mut self.rows), faults: Vec::new() }
    }
}

fn describe(error: CellError, name: &str) -> (RejectReason, String) {
    match error {
        CellError::WrongType(expected) => (RejectReason::WrongType, format!("field {name}: expected {expected}")),
        CellError::InvalidValue(what) => (RejectReason::InvalidValue, format!("field {name}: {what}")),
    }
}

/// Raw values of one object, by column.
type Object<'a> = Vec<Option<&'a RawValue>>;

fn parse<'a>(value: &'a [u8], columns: &HashMap<String, usize>) -> Result<Object<'a>, (RejectReason, String)> {
    let mut deserializer = serde_json::Deserializer::from_slice(value);
    let object = (&mut deserializer).deserialize_any(ObjectVisitor { columns });
    // Serde's texts may quote the message; positions do not.
    let describe = |error: serde_json::Error| {
        let at = format!("at line {} column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Eof => (RejectReason::Truncated, format!("the text ends {at}")),
            serde_json::error::Category::Data => (RejectReason::Malformed, "the message is no JSON object".to_owned()),
            _ => (RejectReason::Malformed, format!("the text is no JSON {at}")),
        }
    };
    let object = object.map_err(describe)?;
    deserializer.end().map_err(|_| (RejectReason::TrailingBytes, "text follows the object".to_owned()))?;
    Ok(object)
}

struct ObjectVisitor<'c> {
    columns: &'c HashMap<String, usize>,
}

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = vec![None; self.columns.len()];
        while let Some(column) = map.next_key_seed(KeySeed { columns: self.columns })? {
            match column {
                // Raw values and ignored ones are scanned without recursion, so that no depth overflows the stack.
                Some(column_idx) => object[column_idx] = Some(map.next_value::<&'de RawValue>()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(object)
    }
}

struct KeySeed<'c> {
    columns: &'c HashMap<String, usize>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.columns.get(name).copied())
    }
}

#[cfg(test)]
mod tests;
