//! NDJSON: one object a line. Values stay text until they reach the builder of their column, so that amounts stay exact.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use legwork_types::{Reject, RejectReason};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::bind::{bind, field_named};
use super::builder::{Cell, Fault, RowBuilder};
use super::csv::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, read_error};
use super::input::Bytes;
use super::lines::{Line, Lines};
use super::places::Places;
use super::{FileBatch, FileError, RowSource, Target};

/// Lines looked at to learn which keys a file has.
const SAMPLE_LINES: usize = 1_000;
/// Bytes looked at for the same.
const SAMPLE_BYTES: usize = 128 * 1024;

pub(crate) struct JsonRows {
    target: Arc<Target>,
    lines: Lines,
    keys: Keys,
    rows: RowBuilder,
    places: Places,
    /// An error that came after good rows.
    pending: Option<FileError>,
}

impl JsonRows {
    pub(crate) fn open(input: Bytes, target: Arc<Target>, map: &[(String, String)]) -> Result<JsonRows, FileError> {
        let mut lines = Lines::new(input, None);
        let io = |source| read_error(&target, "NDJSON", source);
        if lines.peek(3).map_err(io)?.starts_with(b"\xef\xbb\xbf") {
            lines.skip(3);
        }
        let sample = lines.peek(SAMPLE_BYTES).map_err(io)?;
        if sample.trim_ascii_start().starts_with(b"[") {
            return Err(FileError::Corrupt {
                path: target.path.clone(),
                format: "NDJSON",
                detail: "it is one JSON array, where one object a line is expected (jq -c '.[]' makes them)".to_owned(),
            });
        }
        let mut sampled = sampled_keys(sample);
        if !lines.holds_all() {
            // A key that may be missing from a row may be missing from the sample.
            for (field, column) in map {
                let field_idx = field_named(target.kind, field, column)?;
                if target.kind.schema().field(field_idx).is_nullable() && !sampled.contains(column) {
                    sampled.push(column.clone());
                }
            }
        }
        let schema = target.kind.schema();
        if !sampled.is_empty() {
            bind(&target, map, &sampled)?;
        }
        let keys = Keys::new(&target, map)?;
        let rows = RowBuilder::new(schema.clone(), 0..schema.fields().len());
        let places = Places::new(&target.path, "line");
        Ok(JsonRows { target, lines, keys, rows, places, pending: None })
    }

    fn row(&mut self, line: &Line, rejects: &mut Vec<Reject>) -> usize {
        let text = self.lines.bytes(line);
        let fault = if line.is_cut {
            Some(Fault::new(RejectReason::Oversized, "the row is longer than 8 MiB"))
        } else {
            object(text, Row { keys: &mut self.keys, rows: &mut self.rows }).err()
        };
        let row = self.rows.row();
        self.places.note(row, line.number);
        if let Err(fault) = self.rows.end_row(fault) {
            let payload = text[..text.len().min(PAYLOAD_BYTES_MAX)].to_vec();
            rejects.push(self.target.reject(row, fault, payload));
        }
        text.len()
    }
}

impl RowSource for JsonRows {
    fn next_batch(&mut self) -> Option<Result<FileBatch, FileError>> {
        if let Some(error) = self.pending.take() {
            return Some(Err(error));
        }
        let mut rejects = Vec::new();
        let mut n_bytes = 0;
        while self.rows.n_rows() < self.target.batch_rows && n_bytes < BATCH_BYTES_MAX {
            match self.lines.next() {
                Ok(Some(line)) if self.lines.bytes(&line).trim_ascii().is_empty() => {}
                Ok(Some(line)) => n_bytes += self.row(&line, &mut rejects),
                Ok(None) => break,
                Err(source) => {
                    self.pending = Some(read_error(&self.target, "NDJSON", source));
                    break;
                }
            }
        }
        if self.rows.n_rows() == 0 {
            return self.pending.take().map(Err);
        }
        let (columns, offsets) = self.rows.finish();
        Some(Ok(self.target.batch(columns, offsets, rejects, self.places.take())))
    }
}

/// Keys of the first objects, in the order in which they come.
fn sampled_keys(sample: &[u8]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for line in sample.split(|&byte| byte == b'\n').take(SAMPLE_LINES) {
        let Ok(object) = serde_json::from_slice::<HashMap<String, IgnoredAny>>(line) else { continue };
        let mut new: Vec<String> = object.into_keys().filter(|key| !keys.contains(key)).collect();
        new.sort_unstable();
        keys.append(&mut new);
    }
    keys
}

/// Which key feeds which columns of the builder (all fields have one).
struct Keys {
    mapped: HashMap<String, Vec<usize>>,
    /// Fields that no map names, with their lower-case names.
    by_name: HashMap<String, usize>,
    /// Keys in the order of the last row: rows of one file mostly have the same.
    last: Vec<(Box<str>, Vec<usize>)>,
}

impl Keys {
    fn new(target: &Target, map: &[(String, String)]) -> Result<Keys, FileError> {
        let mut mapped: HashMap<String, Vec<usize>> = HashMap::new();
        let mut by_name: HashMap<String, usize> =
            target.kind.schema().fields().iter().enumerate().map(|(at, f)| (f.name().clone(), at)).collect();
        for (field, column) in map {
            let field_idx = field_named(target.kind, field, column)?;
            by_name.remove(field);
            mapped.entry(column.clone()).or_default().push(field_idx);
        }
        Ok(Keys { mapped, by_name, last: Vec::new() })
    }

    /// *Returns* where in `last` the columns of the key stand that comes at this place of its row.
    fn resolve(&mut self, place: usize, key: &str) -> usize {
        if self.last.get(place).is_none_or(|(last, _)| **last != *key) {
            let mut columns = self.mapped.get(key).cloned().unwrap_or_default();
            // An exact name and one in another case are the same field; a row with both gives it twice.
            columns.extend(self.by_name.get(key).or_else(|| self.by_name.get(&key.to_ascii_lowercase())));
            let entry = (Box::from(key), columns);
            if place < self.last.len() {
                self.last[place] = entry;
            } else {
                self.last.push(entry);
                return self.last.len() - 1;
            }
        }
        place
    }
}

struct Row<'b> {
    keys: &'b mut Keys,
    rows: &'b mut RowBuilder,
}

/// Pushes the values of one object.
fn object(text: &[u8], row: Row<'_>) -> Result<(), Fault> {
    let malformed = |error: serde_json::Error| {
        // The library's own text may quote the value, so only the place is kept.
        Fault::new(
            RejectReason::Malformed,
            format!("no JSON object: {:?} error at byte {}", error.classify(), error.column()),
        )
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    row.deserialize(&mut json).map_err(malformed)?;
    json.end().map_err(malformed)
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut place = 0;
        while let Some(known) = entries.next_key_seed(Key { keys: self.keys, place })? {
            if self.keys.last[known].1.is_empty() {
                entries.next_value::<IgnoredAny>()?;
            } else {
                let value = entries.next_value::<&'de RawValue>()?;
                for &column in &self.keys.last[known].1 {
                    push(self.rows, column, value.get());
                }
            }
            place += 1;
        }
        Ok(())
    }
}

fn push(rows: &mut RowBuilder, column: usize, json: &str) {
    match json.as_bytes() {
        b"null" => rows.push(column, Cell::Null),
        [b'"', text @ .., b'"'] if memchr::memchr(b'\\', text).is_none() => rows.push(column, Cell::Text(text)),
        [b'"', ..] => match serde_json::from_str::<String>(json) {
            Ok(text) => rows.push(column, Cell::Text(text.as_bytes())),
            // A lone surrogate is JSON and no text.
            Err(_) => rows.push(column, Cell::Text(b"\xff")),
        },
        [b'[' | b'{', ..] => rows.push(column, Cell::JsonArray(json)),
        text => rows.push(column, Cell::Text(text)),
    }
}

struct Key<'k> {
    keys: &'k mut Keys,
    place: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<usize, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<usize, E> {
        Ok(self.keys.resolve(self.place, key))
    }
}
