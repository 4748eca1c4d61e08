//! Pings that came late are put among the others, and what they change is folded again.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::slice;
use std::sync::Arc;

use crate::track::chunk::{Body, Chunk, PackedStart, Start};
use crate::track::codec::{Mark, Reader, Writer};
use crate::track::device::Device;
use crate::track::fold::{Params, Silent, State, step};
use crate::track::names::Names;
use crate::track::ping::Ping;
use crate::track::row_codec::RowWriter;
use crate::track::rows::{DeviceRows, Done, Row};

/// Why pings still wait: the chunk with this first ping is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) first_us: i64,
}

/// A chunk folded again.
struct Piece {
    start: Option<PackedStart>,
    first_us: i64,
    n_pings: u32,
    pings: Box<[u8]>,
    done: Done,
}

/// The open chunk folded again.
struct Opened {
    start: Option<PackedStart>,
    writer: Writer,
    n_pings: u32,
    battery_pct: f32,
}

/// The pings of a chunk with late ones among them, both in order of time; of those with the same time the largest.
struct Merged<'a, O> {
    held: Reader<'a>,
    /// The next of those held, and where the reader stood before it.
    next: Option<(Ping, Mark)>,
    late: Peekable<slice::Iter<'a, Ping>>,
    order_of_equals: O,
    /// The newest ping of the device, where it is among those held, and its battery.
    newest: Option<(i64, f32)>,
}

impl<'a, O: Fn(&Ping, &Ping) -> Ordering> Merged<'a, O> {
    fn new(held: Reader<'a>, late: &'a [Ping], order_of_equals: O, newest: Option<(i64, f32)>) -> Merged<'a, O> {
        let mut merged = Merged { held, next: None, late: late.iter().peekable(), order_of_equals, newest };
        merged.read();
        merged
    }

    fn read(&mut self) {
        let before = self.held.mark();
        self.next = self.held.next().map(|ping| match self.newest {
            Some((time_us, battery_pct)) if time_us == ping.time_us => (Ping { battery_pct, ..ping }, before),
            _ => (ping, before),
        });
    }

    /// Time of the next.
    fn time_us(&mut self) -> Option<i64> {
        let held_us = self.next.as_ref().map(|(held, _)| held.time_us);
        let late_us = self.late.peek().map(|late| late.time_us);
        held_us.into_iter().chain(late_us).min()
    }

    /// Writes the next, which is at `time_us`.
    fn write(&mut self, writer: &mut Writer<Vec<u8>>, time_us: i64) -> Option<Ping> {
        let held = self.next.filter(|(held, _)| held.time_us == time_us);
        let mut ping = match &held {
            Some((held, _)) => *held,
            None => *self.late.next()?,
        };
        let mut is_held = held.is_some();
        while let Some(same) = self.late.next_if(|late| late.time_us == time_us) {
            if (self.order_of_equals)(same, &ping).is_gt() {
                (ping, is_held) = (*same, false);
            }
        }
        match &held {
            Some((_, before)) if is_held => writer.copy(&ping, &self.held, before),
            _ => writer.push(&ping),
        }
        if held.is_some() {
            self.read();
        }
        Some(ping)
    }
}

/// Chunks folded again, from the first that changed until the state is what it was at the start of a later one.
struct Refold<'a> {
    params: &'a Params,
    revision: u32,
    state: State,
    /// None of them retired.
    rows: DeviceRows,
    before: Option<Ping>,
    pieces: Vec<Piece>,
    opened: Option<Opened>,
}

impl Device {
    /// Puts the pings that wait among the others, and folds again what they change; all of it, or, where a chunk that it takes is not in
    /// memory, nothing.
    pub(crate) fn settle(&mut self, params: &Params, names: &Names, revision: u32) -> Vec<Missing> {
        let Some(mut deferred) = self.deferred.take() else { return Vec::new() };
        deferred.pings.sort_by_key(|ping| ping.time_us);
        match self.merge(params, names, revision, &deferred.pings) {
            Ok(()) => Vec::new(),
            Err(missing) => {
                self.deferred = Some(deferred);
                missing
            }
        }
    }

    fn merge(&mut self, params: &Params, names: &Names, revision: u32, late: &[Ping]) -> Result<(), Vec<Missing>> {
        let (mut changed, mut missing) = (BTreeMap::new(), Vec::new());
        let mut rest = late;
        while let Some(first) = rest.first() {
            let chunk_idx = self.chunk_of(first.time_us);
            let next_us = self.first_us_of(chunk_idx + 1);
            let (here, others) = rest.split_at(rest.partition_point(|ping| next_us.is_none_or(|us| ping.time_us < us)));
            if self.pings(chunk_idx).is_none() {
                missing.push(Missing { first_us: self.chunks()[chunk_idx].first_us });
            }
            changed.insert(chunk_idx, here);
            rest = others;
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let first = changed.keys().next().copied().unwrap_or_default();
        let (refold, end) = self.refold(params, names, changed, revision).map_err(|missing| vec![missing])?;
        self.replace(first, end, refold);
        Ok(())
    }

    /// Folds again from the first changed chunk. *Returns* what it gives, and the first chunk that stays as it is.
    fn refold<'a>(
        &self,
        params: &'a Params,
        names: &Names,
        mut changed: BTreeMap<usize, &[Ping]>,
        revision: u32,
    ) -> Result<(Refold<'a>, usize), Missing> {
        let (first, n_sealed) = (changed.keys().next().copied().unwrap_or_default(), self.n_sealed());
        let missing = |chunk_idx: usize| Missing { first_us: self.chunks()[chunk_idx].first_us };
        let packed = self.start_of(first).ok_or_else(|| missing(first))?;
        let begun = packed.map(PackedStart::open);
        let (state, before) = begun.as_ref().map_or_else(Default::default, |begun| (begun.state.clone(), begun.before));
        let rows = DeviceRows::of(begun.as_ref().map_or(&[], |begun| &begun.open));
        let mut start = packed.cloned();
        let mut refold = Refold { params, revision, state, rows, before, pieces: Vec::new(), opened: None };
        for chunk_idx in first..=n_sealed {
            if chunk_idx > first {
                let now = refold.here();
                if changed.is_empty() {
                    let then = self.start_of(chunk_idx).ok_or_else(|| missing(chunk_idx))?;
                    if then.is_some_and(|then| now.is_same(&then.open())) {
                        return Ok((refold, chunk_idx));
                    }
                }
                start = Some(now.pack());
            }
            let is_open = chunk_idx == n_sealed;
            let (bytes, n_pings) = match self.chunks().get(chunk_idx) {
                Some(chunk) => {
                    let body = chunk.body.as_ref().ok_or_else(|| missing(chunk_idx))?;
                    (Cow::Borrowed(&*body.pings), chunk.n_pings)
                }
                None => (self.open.bytes(), self.n_open),
            };
            match changed.remove(&chunk_idx) {
                Some(late) => {
                    let newest = self.clock_us().filter(|_| is_open).map(|time_us| (time_us, self.battery_pct));
                    let order_of_equals = |a: &Ping, b: &Ping| self.order_of_equals(names, a, b);
                    let pings = Merged::new(Reader::new(bytes, n_pings), late, order_of_equals, newest);
                    refold.write(start.take(), pings, n_pings as usize + late.len(), is_open);
                }
                None if is_open => refold.read_open(start.take(), &self.open, n_pings, self.battery_pct),
                None => refold.read(start.take(), &bytes, n_pings, self.chunks()[chunk_idx].first_us),
            }
        }
        Ok((refold, n_sealed + 1))
    }

    /// Puts what was folded again in the place of chunks from `first` until before `end`. Rows that say the same keep their revision.
    fn replace(&mut self, first: usize, end: usize, refold: Refold<'_>) {
        let Refold { params, revision, state, mut rows, mut pieces, opened, .. } = refold;
        let n_sealed = self.n_sealed();
        let sealed_end = end.min(n_sealed);
        let replaced = &self.chunks()[first..sealed_end];
        let bodies = replaced.iter().filter_map(|chunk| chunk.body.as_ref());
        let mut old: Vec<Row> = bodies.flat_map(|body| body.movement(params.window_us)).collect();
        if opened.is_some() {
            old.extend(self.rows.movement(params.window_us));
        }
        let mut new_keys: Vec<Row> = pieces.iter().flat_map(|piece| piece.done.rows.iter().copied()).collect();
        if opened.is_some() {
            new_keys.extend(rows.open_rows());
        }
        if let Some(handed) = &mut self.handed {
            let chunks = self.past.as_ref().map_or(&[][..], |past| &past.chunks[first..sealed_end]);
            chunks.iter().for_each(|chunk| handed.keep_chunk(chunk));
            let is_lost =
                |row: &&Row| row.revision < revision && !find(&new_keys, row).is_some_and(|new| new.is_same(row));
            old.iter().filter(is_lost).for_each(|row| handed.keep_row(row));
        }
        let revision_of =
            |row: &Row| find(&old, row).filter(|old| old.is_same(row)).map_or(revision, |old| old.revision);
        for row in pieces.iter_mut().flat_map(|piece| &mut piece.done.rows) {
            row.revision = revision_of(row);
        }
        if let Some(opened) = opened {
            for row_idx in 0..rows.n_open() {
                let revision = revision_of(&rows.load(row_idx));
                rows.set_revision(row_idx, revision);
            }
            rows.retire(params.window_us, state.open_from_us(params, opened.writer.last_time_us()));
            (self.open, self.n_open, self.battery_pct) = (opened.writer, opened.n_pings, opened.battery_pct);
            (self.state, self.rows) = (state, rows);
            if opened.start.is_some() || self.past.is_some() {
                self.past.get_or_insert_default().open_start = opened.start;
            }
        }
        if first < sealed_end || !pieces.is_empty() {
            let past = self.past.get_or_insert_default();
            past.chunks.splice(first..sealed_end, pieces.into_iter().map(|piece| piece.into_chunk(params.window_us)));
            past.is_changed = true;
        }
    }
}

/// The row of the same window and rep, of rows by window.
fn find<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Row> {
    let first = rows.partition_point(|other| other.window_us < row.window_us);
    rows[first..].iter().take_while(|other| other.window_us == row.window_us).find(|other| other.rep == row.rep)
}

impl Piece {
    fn into_chunk(self, width_us: i64) -> Chunk {
        let mut rows = RowWriter::default();
        self.done.rows.iter().for_each(|row| rows.push(width_us, row));
        let mut body = Body {
            start: self.start,
            pings: self.pings,
            stays: self.done.stays.into(),
            trips: self.done.trips.into(),
            ..Body::default()
        };
        body.set_rows(rows);
        Chunk { first_us: self.first_us, n_pings: self.n_pings, stored: 0, body: Some(Arc::new(body)) }
    }
}

impl Refold<'_> {
    fn open_from_us(&self) -> i64 {
        self.before.map_or(i64::MIN, |before| self.state.open_from_us(self.params, before.time_us))
    }

    /// Where the fold stands.
    fn here(&self) -> Start {
        Start { state: self.state.clone(), open: self.rows.open_from(self.open_from_us()), before: self.before }
    }

    #[inline]
    fn step(&mut self, ping: &Ping) {
        let (state, rows) = (&mut self.state, &mut self.rows);
        step(self.params, state, rows, self.before.as_ref(), ping, self.revision, &mut Silent);
        self.before = Some(*ping);
    }

    fn push(&mut self, start: Option<PackedStart>, first_us: i64, n_pings: u32, pings: Box<[u8]>) {
        let done = self.rows.take_done(self.open_from_us());
        self.pieces.push(Piece { start, first_us, n_pings, pings, done });
    }

    /// Folds an unchanged chunk after changed ones.
    fn read(&mut self, start: Option<PackedStart>, bytes: &[u8], n_pings: u32, first_us: i64) {
        Reader::new(bytes, n_pings).for_each(|ping| self.step(&ping));
        self.push(start, first_us, n_pings, bytes.into());
    }

    fn read_open(&mut self, start: Option<PackedStart>, writer: &Writer, n_pings: u32, battery_pct: f32) {
        Reader::new(writer.bytes(), n_pings).for_each(|ping| self.step(&ping));
        self.opened = Some(Opened { start, writer: writer.clone(), n_pings, battery_pct });
    }

    /// Folds and writes the pings of a changed chunk, which may have become several. `n_max`: how many they are at most.
    fn write(
        &mut self,
        mut start: Option<PackedStart>,
        mut pings: Merged<'_, impl Fn(&Ping, &Ping) -> Ordering>,
        n_max: usize,
        is_open: bool,
    ) {
        let n_chunks = (n_max / self.params.chunk_len as usize).max(1);
        let per_chunk = n_max.div_ceil(n_chunks).max(1);
        while let Some(first_us) = pings.time_us() {
            let mut writer = Writer::in_one_piece(per_chunk);
            let (mut n_pings, mut battery_pct) = (0, f32::NAN);
            while let Some(time_us) = pings.time_us().filter(|_| n_pings < per_chunk)
                && let Some(ping) = pings.write(&mut writer, time_us)
            {
                self.step(&ping);
                n_pings += 1;
                battery_pct = ping.battery_pct;
            }
            let n_pings = n_pings as u32;
            if is_open && pings.time_us().is_none() {
                let writer = writer.into_pieces();
                self.opened = Some(Opened { start: start.take(), writer, n_pings, battery_pct });
            } else {
                let here = self.here();
                self.push(start.take(), first_us, n_pings, writer.into_bytes());
                start = Some(here.pack());
            }
        }
    }
}
