//! One device: its pings in event-time order, the fold's state, its rows.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use legwork_types::Verdict;
use legwork_types::time::TimeConfig;

use crate::track::chunk::{Body, Chunk, PackedStart, Start};
use crate::track::codec::{Reader, Writer};
use crate::track::coverage::{Coverage, Part};
use crate::track::deferred::Deferred;
use crate::track::explain::{Explained, Trace};
use crate::track::fold::{Params, Silent, State, step};
use crate::track::handed::Handed;
use crate::track::names::Names;
use crate::track::ping::Ping;
use crate::track::reps::Reps;
use crate::track::rows::{DeviceRows, Row, Stay, Trip};
use crate::track::tables::is_ahead;

/// After so many pings of a device wait to be put among the others, they are.
const DEFERRED_STEP: usize = 64;

/// What became of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the newest of its device. Whether a chunk was closed.
    InOrder(bool),
    /// It is accepted, older than the newest or in its place, and waits for [`Device::settle`].
    Deferred,
    /// It is not accepted.
    Refused(Verdict),
}

/// What only a device with many pings has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    pub(crate) chunks: Vec<Chunk>,
    /// Start of the open chunk.
    pub(crate) open_start: Option<PackedStart>,
    /// Rows of chunks behind the late horizon, where there is no store that has them.
    pub(crate) gone: Vec<Arc<Body>>,
    /// What those covered, by day and cell, and the time of the first ping among them.
    pub(crate) gone_coverage: Vec<Coverage>,
    pub(crate) gone_first_us: i64,
    /// Rows of chunks that are only in the store, by the chunk's first ping, that were handed over as open.
    pub(crate) recent: Vec<(i64, Row)>,
    /// Whether the list of chunks has changed since it was handed over.
    pub(crate) is_changed: bool,
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) open: Writer,
    pub(crate) n_open: u32,
    /// Of the newest ping.
    pub(crate) battery_pct: f32,
    /// The lane's newest event time when the device's last event was read.
    pub(crate) lane_then_us: i64,
    pub(crate) reps: Reps,
    pub(crate) state: State,
    /// Since the open chunk began.
    pub(crate) rows: DeviceRows,
    pub(crate) past: Option<Box<Past>>,
    /// Accepted pings that are not among the others yet.
    pub(crate) deferred: Option<Box<Deferred>>,
    /// What was handed over of it last, once it was touched since.
    pub(crate) handed: Option<Box<Handed>>,
    /// Whether something of it was heard lately, as far as was handed over: rows that its own clock has not passed are open then.
    pub(crate) was_live: bool,
}

impl Device {
    pub(crate) fn new() -> Device {
        Device {
            open: Writer::new(),
            n_open: 0,
            battery_pct: f32::NAN,
            lane_then_us: i64::MIN,
            reps: Reps::new(),
            state: State::default(),
            rows: DeviceRows::default(),
            past: None,
            deferred: None,
            handed: None,
            was_live: false,
        }
    }

    /// Time of the newest ping.
    #[inline]
    pub(crate) fn clock_us(&self) -> Option<i64> {
        (self.n_open > 0).then(|| self.open.last_time_us())
    }

    pub(crate) fn newest(&self) -> Option<Ping> {
        (self.n_open > 0).then(|| Ping { battery_pct: self.battery_pct, ..self.open.last() })
    }

    /// Reads a bit of each part of the hull.
    #[inline(always)]
    pub(crate) fn touch(&self) -> i64 {
        self.lane_then_us ^ self.open.last_time_us() ^ self.state.touch() ^ self.rows.n_open() as i64
    }

    /// Reads the ends of what is appended to.
    #[inline(always)]
    pub(crate) fn touch_ends(&self) -> i64 {
        i64::from(self.open.last_byte()) ^ self.rows.touch()
    }

    pub(crate) fn chunks(&self) -> &[Chunk] {
        self.past.as_ref().map_or(&[], |past| &past.chunks)
    }

    /// Chunks that nothing is appended to; the number of the open one.
    pub(crate) fn n_sealed(&self) -> usize {
        self.chunks().len()
    }

    /// Pings in memory that are in their place.
    pub(crate) fn n_pings(&self) -> usize {
        let held = self.chunks().iter().filter(|chunk| chunk.body.is_some());
        held.map(|chunk| chunk.n_pings as usize).sum::<usize>() + self.n_open as usize
    }

    fn gone(&self) -> &[Arc<Body>] {
        self.past.as_ref().map_or(&[], |past| &past.gone)
    }

    fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.gone().iter().chain(self.chunks().iter().filter_map(|chunk| chunk.body.as_ref())).map(AsRef::as_ref)
    }

    /// Rows of `device_movement` that are in memory.
    pub(crate) fn movement(&self, width_us: i64) -> impl Iterator<Item = Row> {
        self.bodies().flat_map(move |body| body.movement(width_us)).chain(self.rows.movement(width_us))
    }

    pub(crate) fn n_movement(&self) -> usize {
        self.bodies().map(|body| body.n_rows as usize).sum::<usize>() + self.rows.n_movement()
    }

    /// Stays that are in memory, with the one that lasts.
    pub(crate) fn stays(&self) -> impl Iterator<Item = Stay> {
        let ended = self.bodies().flat_map(|body| &body.stays).chain(self.rows.stays());
        ended.copied().chain(self.state.under_way().0)
    }

    /// Trips that are in memory, with the one under way.
    pub(crate) fn trips(&self) -> impl Iterator<Item = Trip> {
        let ended = self.bodies().flat_map(|body| &body.trips).chain(self.rows.trips());
        ended.copied().chain(self.state.under_way().1)
    }

    /// Takes a ping. One that is the newest is folded at once; others wait, since putting one among the pings costs about as much as
    /// putting many.
    #[inline]
    pub(crate) fn take(&mut self, params: &Params, names: &Names, mut ping: Ping, revision: u32) -> Taken {
        match self.clock_us() {
            Some(clock_us) if ping.time_us <= clock_us => {
                if ping.time_us < clock_us.saturating_sub(params.late_horizon_us) {
                    return Taken::Refused(Verdict::Late);
                }
                ping.rep = self.reps.local(ping.rep);
                if !self.defer(&ping, names) {
                    return Taken::Refused(Verdict::Duplicate);
                }
                if self.waiting().len().is_multiple_of(DEFERRED_STEP) {
                    self.settle(params, names, revision);
                }
                Taken::Deferred
            }
            _ => {
                ping.rep = self.reps.local(ping.rep);
                let is_full = self.is_full(params);
                self.append(params, &ping, revision);
                Taken::InOrder(is_full)
            }
        }
    }

    /// Which of two pings with the same time stays.
    pub(crate) fn order_of_equals(&self, names: &Names, ping: &Ping, held: &Ping) -> std::cmp::Ordering {
        ping.order_of_equals(held, |rep| self.reps.name(names, rep))
    }

    /// Puts a ping aside, unless one with the same time wins against it. Where the chunk is not in memory, the ping is put aside in any
    /// case: which of them stays is then seen when the chunk comes.
    fn defer(&mut self, ping: &Ping, names: &Names) -> bool {
        let is_newest = self.clock_us() == Some(ping.time_us);
        // Of a ping that is not the newest the battery is kept by nobody, so it decides nothing.
        let battery_pct = |held_pct: f32| if is_newest { held_pct } else { f32::NAN };
        let mut same = self.held(ping.time_us);
        if let Some(held) = &mut same {
            held.battery_pct = battery_pct(self.battery_pct);
        }
        let compared = Ping { battery_pct: battery_pct(ping.battery_pct), ..*ping };
        let waiting = self.waiting().iter().filter(|held| held.time_us == ping.time_us);
        let waiting = waiting.map(|held| Ping { battery_pct: battery_pct(held.battery_pct), ..*held });
        let wins = same.into_iter().chain(waiting).all(|held| self.order_of_equals(names, &compared, &held).is_gt());
        if wins {
            self.deferred.get_or_insert_default().pings.push(*ping);
        }
        wins
    }

    /// The ping at a time among those that are in their place and in memory.
    fn held(&mut self, time_us: i64) -> Option<Ping> {
        let chunk_idx = self.chunk_of(time_us);
        let past = self.past.as_ref().map_or(&[][..], |past| &past.chunks);
        let (first_us, sealed, n_pings) = match past.get(chunk_idx) {
            Some(chunk) => (chunk.first_us, Some(&*chunk.body.as_ref()?.pings), chunk.n_pings),
            None => (self.open_first_us(), None, self.n_open),
        };
        let open = &self.open;
        let bytes_from = |first: usize| match sealed {
            Some(bytes) => Cow::Borrowed(bytes.get(first..).unwrap_or_default()),
            None => open.bytes_from(first),
        };
        if self.deferred.as_mut().is_some_and(|others| !others.may_have(first_us, n_pings, time_us, bytes_from)) {
            return None;
        }
        Reader::new(bytes_from(0), n_pings).find(|held| held.time_us >= time_us).filter(|held| held.time_us == time_us)
    }

    /// Accepted pings that are not among the others yet.
    pub(crate) fn waiting(&self) -> &[Ping] {
        self.deferred.as_ref().map_or(&[], |deferred| &deferred.pings)
    }

    #[inline]
    pub(crate) fn append(&mut self, params: &Params, ping: &Ping, revision: u32) {
        if self.is_full(params) {
            self.seal(params);
        }
        let n_rows = self.rows.n_open();
        self.fold(params, ping, revision);
        if n_rows > 0 && self.rows.n_open() > n_rows {
            self.rows.retire(params.window_us, self.state.open_from_us(params, ping.time_us));
        }
    }

    /// Folds and writes the next ping.
    #[inline]
    pub(crate) fn fold(&mut self, params: &Params, ping: &Ping, revision: u32) {
        let before = match &self.past {
            _ if self.n_open > 0 => Some(self.open.last()),
            Some(past) => past.open_start.as_ref().and_then(|start| start.open().before),
            None => None,
        };
        step(params, &mut self.state, &mut self.rows, before.as_ref(), ping, revision, &mut Silent);
        self.open.push(ping);
        self.n_open += 1;
        self.battery_pct = ping.battery_pct;
    }

    /// Whether the next ping begins a chunk. Chunks differ in length by when they began, so that devices that ping in step do not seal
    /// theirs between the same two checkpoints.
    #[inline]
    fn is_full(&self, params: &Params) -> bool {
        let spread = params.chunk_len / 4;
        self.n_open >= params.chunk_len - spread && {
            let scattered = (self.open_first_us() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            u64::from(self.n_open - (params.chunk_len - spread)) >= scattered % u64::from(2 * spread + 1)
        }
    }

    /// Closes the open chunk.
    fn seal(&mut self, params: &Params) {
        let before = self.open.last();
        let open_from_us = self.state.open_from_us(params, before.time_us);
        let (rows, stays, trips) = self.rows.seal(params.window_us, open_from_us);
        let open = self.rows.open_from(open_from_us);
        let start = Start { state: self.state.clone(), open, before: Some(before) }.pack();
        let first_us = self.open_first_us();
        let past = self.past.get_or_insert_default();
        let mut body = Body {
            start: past.open_start.replace(start),
            pings: std::mem::replace(&mut self.open, Writer::new()).into_bytes(),
            stays: stays.into(),
            trips: trips.into(),
            ..Body::default()
        };
        body.set_rows(rows);
        let n_pings = std::mem::take(&mut self.n_open);
        past.chunks.push(Chunk { first_us, n_pings, stored: 0, body: Some(Arc::new(body)) });
        past.is_changed = true;
    }

    /// Time of the first ping of the open chunk.
    pub(crate) fn open_first_us(&self) -> i64 {
        self.open.first_us()
    }

    /// Time of the first ping of a chunk, the open one among them; none behind it.
    pub(crate) fn first_us_of(&self, chunk_idx: usize) -> Option<i64> {
        match self.chunks().get(chunk_idx) {
            Some(chunk) => Some(chunk.first_us),
            None => (chunk_idx == self.n_sealed()).then(|| self.open_first_us()),
        }
    }

    /// Chunks at the front that lie wholly behind the late horizon: no ping reaches them any more.
    pub(crate) fn n_behind(&self, params: &Params) -> usize {
        let horizon_us = self.clock_us().unwrap_or(i64::MIN).saturating_sub(params.late_horizon_us);
        self.chunks().partition_point(|chunk| chunk.first_us <= horizon_us).saturating_sub(1)
    }

    /// Lets go of the pings of chunks wholly behind the late horizon. Their rows stay. For devices without a store.
    pub(crate) fn forget(&mut self, params: &Params) {
        let n_behind = self.n_behind(params);
        if n_behind == 0 {
            return;
        }
        let Some(past) = &mut self.past else { return };
        if past.gone.is_empty() {
            past.gone_first_us = past.chunks[0].first_us;
        }
        for chunk in past.chunks.drain(..n_behind) {
            Coverage::merge(&mut past.gone_coverage, chunk.coverage(params));
            let Some(body) = chunk.body else { continue };
            let mut body = Arc::unwrap_or_clone(body);
            (body.start, body.pings, body.coverage) = (None, Box::default(), OnceLock::new());
            past.gone.push(Arc::new(body));
        }
    }

    /// The pings of a chunk; the open one is the last. None while it is only in the store.
    pub(crate) fn pings(&self, chunk_idx: usize) -> Option<Reader<'_>> {
        match self.chunks().get(chunk_idx) {
            Some(chunk) => chunk.pings(),
            None => Some(Reader::new(self.open.bytes(), self.n_open)),
        }
    }

    /// Where the fold stood before a chunk; nothing at the very beginning. None while the chunk is only in the store.
    pub(crate) fn start_of(&self, chunk_idx: usize) -> Option<Option<&PackedStart>> {
        match self.chunks().get(chunk_idx) {
            Some(chunk) => chunk.body.as_ref().map(|body| body.start.as_ref()),
            None => Some(self.past.as_ref().and_then(|past| past.open_start.as_ref())),
        }
    }

    /// The chunk that a time falls in.
    pub(crate) fn chunk_of(&self, time_us: i64) -> usize {
        let chunks = self.chunks();
        if chunks.is_empty() || time_us >= self.open_first_us() {
            return chunks.len();
        }
        chunks.partition_point(|chunk| chunk.first_us <= time_us).saturating_sub(1)
    }

    /// The pings of some chunks, the open one among them, with what each adds, and those behind them until nothing changes any more of
    /// what is said of the pings before `until_us`. Where a chunk behind is not in memory it ends there, and gives the chunk's first ping
    /// besides. Chunks in front that are not in memory are left out.
    pub(crate) fn explain(
        &self,
        params: &Params,
        chunks: std::ops::RangeInclusive<usize>,
        until_us: i64,
    ) -> (Vec<Explained>, Option<i64>) {
        let Some(first) = chunks.clone().find(|idx| self.pings(*idx).is_some()) else { return (Vec::new(), None) };
        let start = self.start_of(first).flatten().map_or_else(Start::default, PackedStart::open);
        let (mut state, mut rows, mut before) = (start.state, DeviceRows::of(&start.open), start.before);
        let mut trace = Trace::default();
        for chunk_idx in first..=self.n_sealed() {
            if chunk_idx > *chunks.end() && state.is_settled(until_us) {
                break;
            }
            let Some(pings) = self.pings(chunk_idx) else { return (trace.pings, self.first_us_of(chunk_idx)) };
            for ping in pings {
                step(params, &mut state, &mut rows, before.as_ref(), &ping, 0, &mut trace);
                before = Some(ping);
            }
        }
        (trace.pings, None)
    }

    /// What the pings in memory covered: by chunk, the open one last.
    pub(crate) fn coverage(&self, params: &Params) -> Vec<Part> {
        let mut parts = Vec::new();
        if let Some(past) = &self.past {
            let part_us = past.gone_first_us;
            parts.extend(past.gone_coverage.iter().map(|coverage| Part { part_us, coverage: *coverage }));
        }
        parts.extend(self.chunks().iter().flat_map(|chunk| chunk.parts(params)));
        parts.extend(self.open_coverage(params));
        parts
    }

    /// What the pings of the open chunk cover, the fix that is not judged yet among them.
    pub(crate) fn open_coverage(&self, params: &Params) -> Vec<Part> {
        let part_us = self.open_first_us();
        let start = self.past.as_ref().and_then(|past| past.open_start.as_ref()).map(PackedStart::open);
        let pings = Reader::new(self.open.bytes(), self.n_open);
        let covered = Coverage::of_open(params, start.as_ref(), pings);
        covered.into_iter().map(|coverage| Part { part_us, coverage }).collect()
    }

    /// Rows of chunks as they were handed over that were ahead of the device's clock as it was at some time, by the chunk's first ping.
    pub(crate) fn recent(&self, time: &TimeConfig, clock_us: Option<i64>) -> Vec<(i64, Row)> {
        let Some(past) = &self.past else { return Vec::new() };
        let mut next_us = self.open_first_us();
        let mut rows = Vec::new();
        for chunk in past.chunks.iter().rev() {
            if !is_ahead(time, clock_us, next_us.saturating_add(time.window_us)) {
                break;
            }
            next_us = chunk.first_us;
            match &chunk.body {
                Some(body) if chunk.stored != 0 => {
                    rows.extend(body.movement(time.window_us).map(|row| (chunk.first_us, row)));
                }
                Some(_) => {}
                None => rows.extend(past.recent.iter().filter(|(first_us, _)| *first_us == chunk.first_us)),
            }
        }
        rows.retain(|(_, row)| is_ahead(time, clock_us, row.window_us + time.window_us));
        rows
    }

    /// Bytes held beside the device itself: (pings with their states, rows).
    pub(crate) fn heap_bytes(&self) -> (usize, usize) {
        let mut pings = self.open.memory_bytes() + self.state.heap_bytes() + self.reps.heap_bytes();
        let mut rows = self.rows.memory_bytes();
        if let Some(past) = &self.past {
            pings += size_of::<Past>()
                + past.chunks.capacity() * size_of::<Chunk>()
                + past.gone_coverage.capacity() * size_of::<Coverage>()
                + past.recent.capacity() * size_of::<(i64, Row)>()
                + past.open_start.as_ref().map_or(0, PackedStart::memory_bytes);
        }
        for body in self.bodies() {
            rows += body.row_bytes();
            pings += body.memory_bytes() - body.row_bytes();
        }
        pings += self.deferred.as_ref().map_or(0, |deferred| deferred.memory_bytes());
        pings += self.handed.as_ref().map_or(0, |handed| handed.memory_bytes());
        (pings, rows)
    }
}
