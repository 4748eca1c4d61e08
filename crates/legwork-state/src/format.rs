//! How values are written: a format byte, a checksum, a payload.
//!
//! Every format, now and later, begins with the same five bytes: the format, then CRC-32 (IEEE, little endian) over format, key and payload.
//! So damage is told from a newer format whatever that one looks like, and a value under another value's key is damage, too.

use std::collections::BTreeMap;

use legwork_types::LaneId;
use serde::{Deserialize, Serialize};

use crate::{Head, PendingRows, StoreError};

/// The newest format, which is the one written.
pub const FORMAT: u8 = 1;

/// Bytes before the payload.
const ENVELOPE: usize = 5;

/// Puts `parts`, one after the other, into an envelope.
pub(crate) fn seal(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut value = Vec::with_capacity(ENVELOPE + parts.iter().map(|part| part.len()).sum::<usize>());
    value.push(FORMAT);
    value.extend_from_slice(&checksum(FORMAT, key, parts).to_le_bytes());
    parts.iter().for_each(|part| value.extend_from_slice(part));
    value
}

/// The payload of `value`, which stood under `key`.
pub(crate) fn open<'a>(lane: &LaneId, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let (Some(&format), Some(crc)) = (value.first(), value.get(1..ENVELOPE)) else {
        return Err(damaged(lane, key, format_args!("{} bytes are too few", value.len())));
    };
    let payload = &value[ENVELOPE..];
    if checksum(format, key, &[payload]).to_le_bytes() != crc {
        return Err(damaged(lane, key, format_args!("its checksum is wrong")));
    }
    match format {
        FORMAT => Ok(payload),
        0 => Err(damaged(lane, key, format_args!("there is no format 0"))),
        found => Err(StoreError::NewerFormat { lane: lane.clone(), found, known: FORMAT }),
    }
}

fn checksum(format: u8, key: &[u8], parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[format]);
    crc.update(key);
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize()
}

/// Keys may name people's devices, so an error names only what kind of value it was.
pub(crate) fn damaged(lane: &LaneId, key: &[u8], how: impl std::fmt::Display) -> StoreError {
    let what = match key.first() {
        Some(b'm') => "the head",
        Some(b'h') => "a hot value",
        Some(b'c') => "a cold value",
        Some(b'r') => "pending rows",
        _ => "a value of unknown kind",
    };
    StoreError::Damaged { lane: lane.clone(), detail: format!("{what}: {how}") }
}

/// [`Head`] in format 1, as postcard.
#[derive(Serialize, Deserialize)]
struct HeadV1 {
    number: u32,
    topic_id: Option<String>,
    next_offset: i64,
    n_partitions: i32,
    newest_us: i64,
    counts: Vec<i64>,
    settings: String,
    lake_through: u32,
    lake_tables: BTreeMap<String, u32>,
}

/// A head's value.
pub(crate) fn seal_head(key: &[u8], head: &Head) -> Vec<u8> {
    let head = head.clone();
    let wire = HeadV1 {
        number: head.number,
        topic_id: head.topic_id,
        next_offset: head.next_offset,
        n_partitions: head.n_partitions,
        newest_us: head.newest_us,
        counts: head.counts,
        settings: head.settings,
        lake_through: head.lake_through,
        lake_tables: head.lake_tables,
    };
    let payload = postcard::to_stdvec(&wire).expect("integers, strings and lists of them always serialize");
    seal(key, &[&payload])
}

/// The head in a value.
pub(crate) fn open_head(lane: &LaneId, key: &[u8], value: &[u8]) -> Result<Head, StoreError> {
    let payload = open(lane, key, value)?;
    let (wire, rest) = postcard::take_from_bytes::<HeadV1>(payload).map_err(|error| damaged(lane, key, error))?;
    if !rest.is_empty() {
        return Err(damaged(lane, key, format_args!("{} bytes follow it", rest.len())));
    }
    Ok(Head {
        number: wire.number,
        topic_id: wire.topic_id,
        next_offset: wire.next_offset,
        n_partitions: wire.n_partitions,
        newest_us: wire.newest_us,
        counts: wire.counts,
        settings: wire.settings,
        lake_through: wire.lake_through,
        lake_tables: wire.lake_tables,
    })
}

/// The value of a table's rows: the length of the table's name (16 bits, little endian), the name, the rows.
pub(crate) fn seal_rows(key: &[u8], table: &str, rows: &[u8]) -> Vec<u8> {
    let length = u16::try_from(table.len()).expect("tables have short names");
    seal(key, &[&length.to_le_bytes(), table.as_bytes(), rows])
}

/// The rows in a value that stood under a key with `number`.
pub(crate) fn open_rows(lane: &LaneId, key: &[u8], number: u32, value: &[u8]) -> Result<PendingRows, StoreError> {
    let payload = open(lane, key, value)?;
    let split = || {
        let (length, rest) = payload.split_first_chunk::<2>()?;
        let (table, rows) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        Some((std::str::from_utf8(table).ok()?, rows))
    };
    let (table, rows) = split().ok_or_else(|| damaged(lane, key, format_args!("the table's name cannot be read")))?;
    Ok(PendingRows { number, table: table.to_owned(), rows: rows.to_vec() })
}
