//! Chunks of a device's pings: where the fold stood when each began, and what it adds.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

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

    pub(crate) fn heap_bytes(&self) -> usize {
        self.state.heap_bytes() + self.open.len() * size_of::<Row>()
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
    pub(crate) start: Option<Box<Start>>,
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
            + self.start.as_ref().map_or(0, |start| size_of::<Start>() + start.heap_bytes())
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
        let make = || Coverage::of_chunk(params, body.start.as_deref(), Reader::new(&*body.pings, self.n_pings));
        body.coverage.get_or_init(|| make().into())
    }

    /// The same, as rows.
    pub(crate) fn parts(&self, params: &Params) -> impl Iterator<Item = Part> {
        self.coverage(params).iter().map(|coverage| Part { part_us: self.first_us, coverage: *coverage })
    }
}
