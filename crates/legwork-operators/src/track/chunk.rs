//! Chunks of a device's pings: where the fold stood when each began, and what it adds.

use std::sync::{Arc, OnceLock};

use serde::de::Error as _;
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::track::codec::Reader;
use crate::track::coverage::{Coverage, Part};
use crate::track::fold::{Params, State};
use crate::track::ping::Ping;
use crate::track::row_codec::{RowReader, RowWriter};
use crate::track::rows::{Row, Stay, Trip};

/// Where the fold stood before the first ping of a chunk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) state: State,
    /// Rows that may still change, as they were.
    pub(crate) open: Box<[Row]>,
    pub(crate) before: Option<Ping>,
}

impl Start {
    /// Whether all that follows will be the same as after `other`.
    pub(crate) fn is_same(&self, other: &Start) -> bool {
        let place = |start: &Start| start.before.map(|ping| (ping.time_us, ping.lat, ping.lon));
        let are_rows_same =
            self.open.len() == other.open.len() && self.open.iter().zip(&other.open).all(|(a, b)| a.is_same(b));
        self.state == other.state && are_rows_same && place(self) == place(other)
    }

    /// Itself in few bytes.
    pub(crate) fn pack(&self) -> PackedStart {
        PackedStart(postcard::to_allocvec(self).expect("it has a length").into())
    }
}

/// A [`Start`] in few bytes, since every chunk has one: a fifth of what it takes at hand.
#[derive(Clone, Debug)]
pub(crate) struct PackedStart(Box<[u8]>);

impl PackedStart {
    pub(crate) fn open(&self) -> Start {
        postcard::from_bytes(&self.0).expect("it was packed here")
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.len()
    }
}

/// As the start itself, which it holds in the same format: of a tuple, only the elements are written, and of a float, its eight bytes.
impl Serialize for PackedStart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (words, rest) = self.0.as_chunks();
        let mut tuple = serializer.serialize_tuple(words.len() + rest.len())?;
        words.iter().try_for_each(|word| tuple.serialize_element(&f64::from_le_bytes(*word)))?;
        rest.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for PackedStart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PackedStart, D::Error> {
        let start = Start::deserialize(deserializer)?;
        if !start.open.iter().all(Row::is_plausible) {
            return Err(D::Error::custom("rows that cannot be"));
        }
        Ok(start.pack())
    }
}

/// A chunk that nothing is appended to.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Time of its first ping.
    pub(crate) first_us: i64,
    pub(crate) n_pings: u32,
    /// Revision of the checkpoint that handed it over as it is; 0 until then.
    pub(crate) stored: u32,
    /// None while it is only in the store.
    pub(crate) body: Option<Arc<Body>>,
}

/// What a chunk holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    /// None at the very beginning.
    pub(crate) start: Option<PackedStart>,
    pub(crate) pings: Box<[u8]>,
    /// Rows that were done when the chunk ended, and not before.
    pub(crate) rows: Box<[u8]>,
    pub(crate) n_rows: u32,
    /// What ended in it.
    pub(crate) stays: Box<[Stay]>,
    pub(crate) trips: Box<[Trip]>,
    /// Once it was asked for.
    pub(crate) coverage: OnceLock<Box<[Coverage]>>,
}

impl Body {
    pub(crate) fn set_rows(&mut self, rows: RowWriter) {
        self.n_rows = rows.n_rows();
        self.rows = rows.into_bytes();
    }

    pub(crate) fn movement(&self, width_us: i64) -> RowReader<'_> {
        RowReader::new(width_us, &*self.rows, self.n_rows)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let coverage = self.coverage.get().map_or(0, |coverage| size_of_val(&**coverage));
        size_of::<Body>()
            + self.start.as_ref().map_or(0, PackedStart::memory_bytes)
            + self.pings.len()
            + coverage
            + self.row_bytes()
    }

    /// Of those, what rows, stays and trips take.
    pub(crate) fn row_bytes(&self) -> usize {
        self.rows.len() + size_of_val(&*self.stays) + size_of_val(&*self.trips)
    }
}

impl Chunk {
    pub(crate) fn pings(&self) -> Option<Reader<'_>> {
        self.body.as_ref().map(|body| Reader::new(&*body.pings, self.n_pings))
    }

    /// What it covers. Nothing while it is only in the store.
    pub(crate) fn coverage(&self, params: &Params) -> &[Coverage] {
        let Some(body) = &self.body else { return &[] };
        let make = || {
            let start = body.start.as_ref().map(PackedStart::open);
            Coverage::of_chunk(params, start.as_ref(), Reader::new(&*body.pings, self.n_pings))
        };
        body.coverage.get_or_init(|| make().into())
    }

    /// The same, as rows.
    pub(crate) fn parts(&self, params: &Params) -> impl Iterator<Item = Part> {
        self.coverage(params).iter().map(|coverage| Part { part_us: self.first_us, coverage: *coverage })
    }
}
