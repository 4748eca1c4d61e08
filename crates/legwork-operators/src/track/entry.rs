//! Devices and chunks as entries of the lane's store.
//!
//! `d` device: what is hot of it. `i` device: its sealed chunks. `c` device, first ping (big-endian, from the smallest up): a chunk. Numbers
//! of reps are the device's; its entry names them. The store keeps checksums; what does not parse is an error all the same.
//!
//! A device's entry has format 2: behind all that one of format 1 has it says where the writer of its pings stands, so that a lane goes on
//! without reading them. The others have format 1.

use std::borrow::Cow;
use std::sync::OnceLock;

use legwork_types::time::{DAY_US, TimeConfig};
use legwork_types::{StateError, StateValue};
use serde::{Deserialize, Serialize, Serializer};

use crate::track::chunk::{Body, Chunk, PackedStart};
use crate::track::codec::{End, Writer};
use crate::track::coverage::Coverage;
use crate::track::deferred::Deferred;
use crate::track::device::{Device, Past};
use crate::track::fold::{Params, State};
use crate::track::names::{Interner, Names};
use crate::track::ping::Ping;
use crate::track::row_codec::{RowReader, RowWriter};
use crate::track::rows::{DeviceRows, Row, Stay, Trip};
use crate::track::varint::{Take, put, put_signed};

/// The format of what is not a device.
const FORMAT: u8 = 1;
/// The format of devices. Those of format 1 are read, too.
const DEVICE_FORMAT: u8 = 2;

/// Low bits of a cell of the resolution that is used: none is told by them.
const CELL_BITS: u32 = 18;
const CELL_LOW: u64 = (1 << CELL_BITS) - 1;

/// What a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Device(&'a str),
    Index(&'a str),
    Chunk(&'a str, i64),
}

impl Key<'_> {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let (kind, device) = match self {
            Key::Device(device) => (b'd', device),
            Key::Index(device) => (b'i', device),
            Key::Chunk(device, _) => (b'c', device),
        };
        let mut bytes = Vec::with_capacity(device.len() + 9);
        bytes.push(kind);
        bytes.extend_from_slice(device.as_bytes());
        if let Key::Chunk(_, first_us) = self {
            bytes.extend_from_slice(&(first_us ^ i64::MIN).to_be_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Key<'_>, StateError> {
        let (kind, device) = bytes.split_first().ok_or_else(|| damaged(bytes, "an empty key"))?;
        let text = |device| std::str::from_utf8(device).map_err(|_| damaged(bytes, "a device id that is not UTF-8"));
        match kind {
            b'd' => Ok(Key::Device(text(device)?)),
            b'i' => Ok(Key::Index(text(device)?)),
            b'c' => {
                let (device, first) =
                    device.split_last_chunk().ok_or_else(|| damaged(bytes, "a key without a time"))?;
                Ok(Key::Chunk(text(device)?, i64::from_be_bytes(*first) ^ i64::MIN))
            }
            _ => Err(damaged(bytes, "a key of an unknown kind")),
        }
    }
}

/// An entry that does not say what it should.
pub(crate) fn damaged(key: &[u8], detail: impl Into<String>) -> StateError {
    StateError::Damaged { what: format!("track/{}", key.escape_ascii()), detail: detail.into() }
}

/// The format of a value, and what follows it.
fn checked<'a>(key: &[u8], value: &'a [u8], known: u8) -> Result<(u8, &'a [u8]), StateError> {
    match value.split_first() {
        Some((found, rest)) if (FORMAT..=known).contains(found) => Ok((*found, rest)),
        Some((&found, _)) if found > known => {
            Err(StateError::NewerFormat { what: format!("track/{}", key.escape_ascii()), found, known })
        }
        Some((found, _)) => Err(damaged(key, format!("an unknown format {found}"))),
        None => Err(damaged(key, "no bytes")),
    }
}

/// All that the bytes say.
fn parsed<'a, T: Deserialize<'a>>(key: &[u8], bytes: &'a [u8]) -> Result<T, StateError> {
    let (parsed, rest) = postcard::take_from_bytes(bytes).map_err(|error| damaged(key, error.to_string()))?;
    if rest.is_empty() { Ok(parsed) } else { Err(damaged(key, "more bytes than it needs")) }
}

/// Bytes of an entry beside its lists of bytes, mostly.
const ENTRY_BYTES: usize = 512;

/// `n_bytes`: how many its lists of bytes have.
fn written<T: Serialize>(format: u8, n_bytes: usize, wire: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n_bytes + ENTRY_BYTES);
    bytes.push(format);
    postcard::to_extend(wire, bytes).expect("what is written has a length and grows a list")
}

/// As one piece, not byte by byte.
fn piece<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

#[derive(Serialize, Deserialize)]
struct DeviceWire<'a> {
    lane_then_us: i64,
    was_live: bool,
    battery_pct: f32,
    #[serde(borrow)]
    reps: Vec<&'a str>,
    state: Cow<'a, State>,
    n_pings: u32,
    #[serde(serialize_with = "piece")]
    pings: &'a [u8],
    n_rows: u32,
    #[serde(serialize_with = "piece")]
    rows: &'a [u8],
    open: Vec<Row>,
    stays: Cow<'a, [Stay]>,
    trips: Cow<'a, [Trip]>,
    start: Option<Cow<'a, PackedStart>>,
    recent: Vec<(i64, Row)>,
    deferred: Cow<'a, [Ping]>,
}

#[derive(Serialize, Deserialize)]
struct ChunkWire<'a> {
    n_pings: u32,
    #[serde(serialize_with = "piece")]
    pings: &'a [u8],
    n_rows: u32,
    #[serde(serialize_with = "piece")]
    rows: &'a [u8],
    stays: Cow<'a, [Stay]>,
    trips: Cow<'a, [Trip]>,
    start: Option<Cow<'a, PackedStart>>,
    #[serde(serialize_with = "piece")]
    coverage: &'a [u8],
}

/// What is hot of a device. Its chunks are in entries of their own.
pub(crate) fn device_value(device: &Device, time: &TimeConfig, names: &Names) -> Vec<u8> {
    let (done, open) = device.rows.parts();
    let (pings, rows) = (device.open.bytes(), done.bytes());
    written(
        DEVICE_FORMAT,
        pings.len() + rows.len(),
        &(
            DeviceWire {
                lane_then_us: device.lane_then_us,
                was_live: device.was_live,
                battery_pct: device.battery_pct,
                reps: device.reps.iter().map(|rep| names.get(rep)).collect(),
                state: Cow::Borrowed(&device.state),
                n_pings: device.n_open,
                pings: &pings,
                n_rows: done.n_rows(),
                rows: &rows,
                open,
                stays: device.rows.stays().into(),
                trips: device.rows.trips().into(),
                start: device.past.as_ref().and_then(|past| past.open_start.as_ref()).map(Cow::Borrowed),
                recent: device.recent(time, device.clock_us()),
                deferred: device.waiting().into(),
            },
            device.open.end(),
        ),
    )
}

/// Whether rows can be held and folded on.
fn are_plausible(rows: &[Row]) -> bool {
    rows.iter().all(Row::is_plausible) && rows.is_sorted_by_key(|row| row.window_us)
}

/// What [`device_value`] wrote.
pub(crate) fn device(params: &Params, reps: &mut Interner, key: &[u8], value: &[u8]) -> Result<Device, StateError> {
    let (wire, end): (DeviceWire<'_>, Option<End>) = match checked(key, value, DEVICE_FORMAT)? {
        (FORMAT, bytes) => (parsed(key, bytes)?, None),
        (_, bytes) => parsed(key, bytes)?,
    };
    if !are_plausible(&wire.open) || !wire.recent.iter().all(|(_, row)| row.is_plausible()) {
        return Err(damaged(key, "rows that cannot be"));
    }
    let mut device = Device::new();
    let open = match end {
        Some(end) => Writer::resume(wire.pings, wire.n_pings, end),
        None => Writer::after(wire.pings, wire.n_pings),
    };
    device.open = open.ok_or_else(|| damaged(key, "pings that cannot be read"))?;
    let done = RowWriter::after(params.window_us, wire.rows, wire.n_rows);
    let done = done.ok_or_else(|| damaged(key, "rows that cannot be read"))?;
    device.rows = DeviceRows::from_parts(done, &wire.open, wire.stays.into_owned(), wire.trips.into_owned());
    for name in wire.reps {
        device.reps.local(reps.intern(name));
    }
    (device.lane_then_us, device.was_live) = (wire.lane_then_us, wire.was_live);
    (device.battery_pct, device.n_open) = (wire.battery_pct, wire.n_pings);
    device.state = wire.state.into_owned();
    if let Some(start) = wire.start {
        let open_start = Some(start.into_owned());
        device.past = Some(Box::new(Past { open_start, recent: wire.recent, ..Past::default() }));
    }
    device.deferred = (!wire.deferred.is_empty()).then(|| Box::new(Deferred::of(wire.deferred.into_owned())));
    Ok(device)
}

/// The sealed chunks of a device: first ping and number of pings of each.
pub(crate) fn index_value(chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    let mut before_us = 0;
    for chunk in chunks {
        put_signed(&mut bytes, chunk.first_us.wrapping_sub(before_us));
        put(&mut bytes, u64::from(chunk.n_pings));
        before_us = chunk.first_us;
    }
    bytes
}

/// What [`index_value`] wrote; what the chunks hold stays in the store.
pub(crate) fn index(key: &[u8], value: &[u8]) -> Result<Vec<Chunk>, StateError> {
    let mut take = Take(checked(key, value, FORMAT)?.1);
    let (mut chunks, mut before_us) = (Vec::new(), 0i64);
    while !take.0.is_empty() {
        let (step, n_pings) = take.signed().zip(take.u32()).ok_or_else(|| damaged(key, "a list that breaks off"))?;
        let first_us = before_us.wrapping_add(step);
        if !chunks.is_empty() && first_us <= before_us {
            return Err(damaged(key, "chunks that are not in order"));
        }
        chunks.push(Chunk { first_us, n_pings, stored: 1, body: None });
        before_us = first_us;
    }
    chunks.shrink_to_fit();
    Ok(chunks)
}

fn coverage_bytes(coverage: &[Coverage]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(coverage.len() * 16);
    let (mut day, mut cell) = (0, 0);
    for covered in coverage {
        put_signed(&mut bytes, covered.day_us / DAY_US - day);
        put_signed(&mut bytes, (covered.cell >> CELL_BITS) as i64 - cell);
        put(&mut bytes, u64::from(covered.n_pings));
        put_signed(&mut bytes, covered.first_us - covered.day_us);
        put_signed(&mut bytes, covered.last_us - covered.first_us);
        (day, cell) = (covered.day_us / DAY_US, (covered.cell >> CELL_BITS) as i64);
    }
    bytes
}

fn covered(bytes: &[u8]) -> Option<Vec<Coverage>> {
    let (mut take, mut list) = (Take(bytes), Vec::new());
    let (mut day, mut cell) = (0i64, 0i64);
    while !take.0.is_empty() {
        day = day.checked_add(take.signed()?)?;
        cell = cell.checked_add(take.signed()?)?;
        let n_pings = take.u32()?;
        let day_us = day.checked_mul(DAY_US)?;
        let first_us = day_us.checked_add(take.signed()?)?;
        let last_us = first_us.checked_add(take.signed()?)?;
        let cell = u64::try_from(cell).ok()?.checked_mul(1 << CELL_BITS)? | CELL_LOW;
        list.push(Coverage { day_us, cell, n_pings, first_us, last_us });
    }
    Some(list)
}

/// A chunk as the store takes it, with what it covers.
#[derive(Debug)]
pub(crate) struct ChunkValue {
    pub(crate) params: Params,
    pub(crate) chunk: Chunk,
}

impl StateValue for ChunkValue {
    fn to_bytes(&self) -> Vec<u8> {
        let coverage = coverage_bytes(self.chunk.coverage(&self.params));
        let body = self.chunk.body.as_ref().expect("a chunk is handed over while it is in memory");
        chunk_value(self.chunk.n_pings, body, &coverage)
    }
}

fn chunk_value(n_pings: u32, body: &Body, coverage: &[u8]) -> Vec<u8> {
    let n_bytes = body.pings.len() + body.rows.len() + coverage.len();
    written(
        FORMAT,
        n_bytes,
        &ChunkWire {
            n_pings,
            pings: &body.pings,
            n_rows: body.n_rows,
            rows: &body.rows,
            stays: Cow::Borrowed(&body.stays),
            trips: Cow::Borrowed(&body.trips),
            start: body.start.as_ref().map(Cow::Borrowed),
            coverage,
        },
    )
}

/// What a [`ChunkValue`] wrote.
pub(crate) fn chunk(params: &Params, key: &[u8], value: &[u8]) -> Result<(u32, Body), StateError> {
    let wire: ChunkWire<'_> = parsed(key, checked(key, value, FORMAT)?.1)?;
    if wire.n_pings == 0 || Writer::after(wire.pings, wire.n_pings).is_none() {
        return Err(damaged(key, "pings that cannot be read"));
    }
    let mut rows = RowReader::new(params.window_us, wire.rows, wire.n_rows);
    let are_rows_right = rows.by_ref().map(|row| row.window_us).is_sorted();
    if !are_rows_right || !rows.is_at_end() {
        return Err(damaged(key, "rows that cannot be read"));
    }
    let coverage = covered(wire.coverage).ok_or_else(|| damaged(key, "coverage that cannot be read"))?;
    let body = Body {
        start: wire.start.map(Cow::into_owned),
        pings: wire.pings.into(),
        rows: wire.rows.into(),
        n_rows: wire.n_rows,
        stays: wire.stays.into_owned().into(),
        trips: wire.trips.into_owned().into(),
        coverage: OnceLock::from(Box::from(coverage)),
    };
    Ok((wire.n_pings, body))
}
