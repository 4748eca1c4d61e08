//! One device: its pings in event-time order, the fold's state, its rows.

use std::collections::BTreeMap;

use legwork_types::Verdict;

use crate::track::codec::{Reader, Writer};
use crate::track::coverage::Coverage;
use crate::track::explain::{Explained, Trace};
use crate::track::fold::{Params, Silent, State, step};
use crate::track::names::Names;
use crate::track::ping::{NO_REP, Ping};
use crate::track::rows::{DeviceRows, Mark};

/// Pings of a device that wait to be put among the others.
const DEFERRED_MAX: usize = 64;
/// A device with more pings is not frozen; each is folded again when it thaws.
const FROZEN_PINGS_MAX: u32 = 64;
/// Bytes before the revisions: lane_then, battery, numbers of pings and rows.
const FROZEN_HEAD: usize = 14;

/// What became of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the newest of its device. Whether a chunk was closed, so that [`Device::forget`] may find something.
    InOrder(bool),
    /// It is accepted, older than the newest or in its place, and waits for [`Device::settle`].
    Deferred,
    /// It is not accepted.
    Refused(Verdict),
}

/// Where the fold stood at the start of a chunk.
#[derive(Clone, Debug, Default)]
struct Start {
    state: State,
    mark: Mark,
    before: Option<Ping>,
}

impl Start {
    /// Whether all that follows will be the same as after `other`.
    fn is_same(&self, other: &Start) -> bool {
        let place = |start: &Start| start.before.map(|ping| (ping.time_us, ping.lat, ping.lon));
        self.state == other.state && self.mark.is_same(&other.mark) && place(self) == place(other)
    }
}

/// Pings that nothing is appended to.
#[derive(Clone, Debug)]
struct Chunk {
    /// None at the very beginning.
    start: Option<Box<Start>>,
    bytes: Box<[u8]>,
    n_pings: u32,
    first_us: i64,
}

/// What only a device with many pings has.
#[derive(Clone, Debug, Default)]
struct Past {
    chunks: Vec<Chunk>,
    /// Start of the open chunk.
    open_start: Option<Box<Start>>,
    /// Of pings that are no longer held.
    coverage: Vec<Coverage>,
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    open: Writer,
    n_open: u32,
    /// Of the newest ping.
    battery_pct: f32,
    open_first_us: i64,
    /// The lane's newest event time when the device's last event was read.
    pub(crate) lane_then_us: i64,
    state: State,
    pub(crate) rows: DeviceRows,
    past: Option<Box<Past>>,
    /// Accepted pings that are not among the others yet.
    #[allow(clippy::box_collection, reason = "few devices have any, all have the field")]
    deferred: Option<Box<Vec<Ping>>>,
}

fn rep_name(reps: &Names, rep: u32) -> Option<&str> {
    (rep != NO_REP).then(|| reps.get(rep))
}

impl Device {
    pub(crate) fn new() -> Device {
        Device {
            open: Writer::new(),
            n_open: 0,
            battery_pct: f32::NAN,
            open_first_us: i64::MIN,
            lane_then_us: i64::MIN,
            state: State::default(),
            rows: DeviceRows::default(),
            past: None,
            deferred: None,
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
        self.lane_then_us ^ self.open.last_time_us() ^ self.state.touch() ^ self.rows.n_movement() as i64
    }

    /// Reads the ends of what is appended to.
    #[inline(always)]
    pub(crate) fn touch_ends(&self) -> i64 {
        self.open.bytes().last().map_or(0, |byte| i64::from(*byte)) ^ self.rows.touch()
    }

    /// Pings of the open chunk.
    pub(crate) fn n_pings(&self) -> u32 {
        self.n_open
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Coverage of pings that are no longer held.
    pub(crate) fn past_coverage(&self) -> &[Coverage] {
        self.past.as_ref().map_or(&[], |past| &past.coverage)
    }

    /// Takes a ping. One that is the newest is folded at once; others wait, since putting one among the pings costs about as much as
    /// putting many.
    #[inline]
    pub(crate) fn take(&mut self, params: &Params, reps: &Names, ping: &Ping, revision: u32) -> Taken {
        match self.clock_us() {
            Some(clock_us) if ping.time_us <= clock_us => {
                if ping.time_us < clock_us.saturating_sub(params.late_horizon_us) {
                    return Taken::Refused(Verdict::Late);
                }
                if !self.defer(ping, reps) {
                    return Taken::Refused(Verdict::Duplicate);
                }
                if self.deferred.as_ref().is_some_and(|deferred| deferred.len() >= DEFERRED_MAX) {
                    self.settle(params, reps, revision);
                }
                Taken::Deferred
            }
            _ => {
                let is_full = self.n_open >= params.chunk_len;
                self.append(params, ping, revision);
                Taken::InOrder(is_full)
            }
        }
    }

    /// Puts a ping aside, unless one with the same time wins against it.
    fn defer(&mut self, ping: &Ping, reps: &Names) -> bool {
        let is_newest = self.clock_us() == Some(ping.time_us);
        let mut same = self.pings(self.chunk_of(ping.time_us)).find(|held| held.time_us >= ping.time_us);
        same = same.filter(|held| held.time_us == ping.time_us);
        if let Some(held) = same.as_mut().filter(|_| is_newest) {
            held.battery_pct = self.battery_pct;
        }
        let deferred = self.deferred.get_or_insert_default();
        let mut rivals = same.iter().chain(deferred.iter().filter(|held| held.time_us == ping.time_us));
        let wins = rivals.all(|held| ping.order_of_equals(held, |rep| rep_name(reps, rep)).is_gt());
        if wins {
            deferred.push(*ping);
        }
        if deferred.is_empty() {
            self.deferred = None;
        }
        wins
    }

    fn append(&mut self, params: &Params, ping: &Ping, revision: u32) {
        let before = (self.n_open > 0).then(|| self.open.last());
        if self.n_open >= params.chunk_len {
            self.seal(params);
        }
        if self.n_open == 0 {
            self.open_first_us = ping.time_us;
        }
        step(params, &mut self.state, &mut self.rows, before.as_ref(), ping, revision, &mut Silent);
        self.open.push(ping);
        self.n_open += 1;
        self.battery_pct = ping.battery_pct;
    }

    fn here(&self, params: &Params, before: Option<Ping>) -> Start {
        let open_from_us = before.map_or(i64::MIN, |before| self.state.open_from_us(params, before.time_us));
        Start { state: self.state.clone(), mark: self.rows.mark(open_from_us), before }
    }

    /// Closes the open chunk.
    fn seal(&mut self, params: &Params) {
        let start = Box::new(self.here(params, Some(self.open.last())));
        let past = self.past.get_or_insert_default();
        let chunk = Chunk {
            start: past.open_start.replace(start),
            bytes: std::mem::replace(&mut self.open, Writer::new()).into_bytes(),
            n_pings: std::mem::take(&mut self.n_open),
            first_us: self.open_first_us,
        };
        past.chunks.push(chunk);
    }

    /// Lets go of chunks wholly behind the late horizon, whose fixes are judged for good: no ping reaches them any more. Their rows stay.
    pub(crate) fn forget(&mut self, params: &Params) {
        let horizon_us = self.clock_us().unwrap_or(i64::MIN).saturating_sub(params.late_horizon_us);
        let first_us = |past: &Past, idx: usize| past.chunks.get(idx).map(|chunk| chunk.first_us);
        while let Some(behind_us) = self.past.as_ref().and_then(|past| first_us(past, 1)).filter(|us| *us <= horizon_us)
        {
            let (explained, pending_us) = self.explain_until(params, horizon_us);
            if pending_us.is_some_and(|pending_us| pending_us < behind_us) {
                return;
            }
            let Some(past) = &mut self.past else { return };
            Coverage::add_all(&mut past.coverage, explained.iter().filter(|e| e.ping.time_us < behind_us));
            past.chunks.remove(0);
        }
    }

    /// The pings of a chunk; the open one is the last.
    fn pings(&self, chunk_idx: usize) -> Reader<'_> {
        match self.past.as_ref().and_then(|past| past.chunks.get(chunk_idx)) {
            Some(chunk) => Reader::new(&chunk.bytes, chunk.n_pings),
            None => Reader::new(self.open.bytes(), self.n_open),
        }
    }

    fn n_sealed(&self) -> usize {
        self.past.as_ref().map_or(0, |past| past.chunks.len())
    }

    /// The chunk that a time falls in.
    fn chunk_of(&self, time_us: i64) -> usize {
        let chunks = self.past.as_ref().map_or(&[][..], |past| &past.chunks);
        if time_us >= self.open_first_us {
            return chunks.len();
        }
        chunks.partition_point(|chunk| chunk.first_us <= time_us).saturating_sub(1)
    }

    /// Puts the pings that wait among the others, and folds again what they change.
    pub(crate) fn settle(&mut self, params: &Params, reps: &Names, revision: u32) {
        let Some(mut late) = self.deferred.take() else { return };
        late.sort_by_key(|ping| ping.time_us);
        let mut changed = BTreeMap::new();
        let mut rest = &late[..];
        while let Some(first) = rest.first() {
            let chunk_idx = self.chunk_of(first.time_us);
            let (here, behind) = rest.split_at(rest.partition_point(|ping| self.chunk_of(ping.time_us) == chunk_idx));
            changed.insert(chunk_idx, self.merged(chunk_idx, here, reps));
            rest = behind;
        }
        if let Some(newest) = changed.get(&self.n_sealed()).and_then(|pings| pings.last()) {
            self.battery_pct = newest.battery_pct;
        }
        self.fold_again(params, changed, revision);
    }

    /// The pings of a chunk with others among them; of two with the same time the larger.
    fn merged(&self, chunk_idx: usize, late: &[Ping], reps: &Names) -> Vec<Ping> {
        let mut held: Vec<Ping> = self.pings(chunk_idx).collect();
        if let Some(newest) = held.last_mut().filter(|_| chunk_idx == self.n_sealed()) {
            newest.battery_pct = self.battery_pct;
        }
        let mut merged: Vec<Ping> = Vec::with_capacity(held.len() + late.len());
        let mut held = held.into_iter().peekable();
        for ping in late {
            while let Some(older) = held.next_if(|held| held.time_us <= ping.time_us) {
                merged.push(older);
            }
            match merged.last_mut().filter(|last| last.time_us == ping.time_us) {
                Some(same) if ping.order_of_equals(same, |rep| rep_name(reps, rep)).is_gt() => *same = *ping,
                Some(_) => {}
                None => merged.push(*ping),
            }
        }
        merged.extend(held);
        merged
    }

    /// Folds again from the first changed chunk until the state is what it was at the start of a later one.
    fn fold_again(&mut self, params: &Params, mut changed: BTreeMap<usize, Vec<Ping>>, revision: u32) {
        let first = changed.keys().next().copied().unwrap_or_default();
        let n_sealed = self.n_sealed();
        let past = self.past.get_or_insert_default();
        let mut again: Vec<Chunk> = past.chunks.split_off(first);
        again.push(Chunk {
            start: past.open_start.take(),
            bytes: self.open.bytes().into(),
            n_pings: self.n_open,
            first_us: self.open_first_us,
        });
        let begun = again[0].start.clone().map_or_else(Start::default, |start| *start);
        let since = self.rows.rewind(&begun.mark);
        let last_state = std::mem::replace(&mut self.state, begun.state);
        let mut before = begun.before;
        let mut again = again.into_iter().enumerate().map(|(idx, chunk)| (first + idx, chunk));
        for (chunk_idx, mut chunk) in again.by_ref() {
            if chunk_idx > first {
                let now = self.here(params, before);
                let then = chunk.start.as_deref().expect("a chunk after the first has a start");
                if changed.is_empty() && now.is_same(then) {
                    self.rows.resume(&since, &begun.mark, &now.mark, &then.mark);
                    self.rows.keep_revisions(begun.mark.n_rows, now.mark.n_rows, &since, revision);
                    self.state = last_state;
                    let (now, then) = (now.mark, then.mark.clone());
                    let rest = std::iter::once(chunk).chain(again.map(|(_, chunk)| chunk)).map(|mut chunk| {
                        if let Some(start) = &mut chunk.start {
                            start.mark.shift(&then, &now);
                        }
                        chunk
                    });
                    let mut rest: Vec<Chunk> = rest.collect();
                    let open = rest.pop().expect("the open chunk is the last");
                    let past = self.past.get_or_insert_default();
                    past.open_start = open.start;
                    past.chunks.append(&mut rest);
                    return;
                }
                chunk.start = Some(Box::new(now));
            }
            let is_open = chunk_idx == n_sealed;
            before = match changed.remove(&chunk_idx) {
                Some(pings) => self.write_again(params, chunk.start, &pings, before, is_open, revision),
                None => self.read_again(params, chunk, before, is_open, revision),
            };
        }
        self.rows.keep_revisions(begun.mark.n_rows, self.rows.n_movement(), &since, revision);
        self.past = self.past.take().filter(|past| past.open_start.is_some() || !past.chunks.is_empty());
    }

    /// Folds an unchanged chunk after changed ones.
    fn read_again(
        &mut self,
        params: &Params,
        chunk: Chunk,
        mut before: Option<Ping>,
        is_open: bool,
        revision: u32,
    ) -> Option<Ping> {
        for ping in Reader::new(&chunk.bytes, chunk.n_pings) {
            step(params, &mut self.state, &mut self.rows, before.as_ref(), &ping, revision, &mut Silent);
            before = Some(ping);
        }
        let past = self.past.get_or_insert_default();
        if is_open {
            past.open_start = chunk.start;
        } else {
            past.chunks.push(chunk);
        }
        before
    }

    /// Folds and writes the pings of a changed chunk, which may have become several.
    fn write_again(
        &mut self,
        params: &Params,
        mut start: Option<Box<Start>>,
        pings: &[Ping],
        mut before: Option<Ping>,
        is_open: bool,
        revision: u32,
    ) -> Option<Ping> {
        let n_chunks = (pings.len() / params.chunk_len as usize).max(1);
        let per_chunk = pings.len().div_ceil(n_chunks).max(1);
        let mut pieces = pings.chunks(per_chunk).peekable();
        while let Some(piece) = pieces.next() {
            let mut writer = Writer::new();
            for ping in piece {
                step(params, &mut self.state, &mut self.rows, before.as_ref(), ping, revision, &mut Silent);
                writer.push(ping);
                before = Some(*ping);
            }
            let (first_us, n_pings) = (piece[0].time_us, piece.len() as u32);
            let past = self.past.get_or_insert_default();
            if is_open && pieces.peek().is_none() {
                past.open_start = start.take();
                (self.open, self.n_open, self.open_first_us) = (writer, n_pings, first_us);
            } else {
                past.chunks.push(Chunk { start: start.take(), bytes: writer.into_bytes(), n_pings, first_us });
                if pieces.peek().is_some() {
                    start = Some(Box::new(self.here(params, before)));
                }
            }
        }
        before
    }

    /// Itself in few bytes, where it holds so few pings that folding them again costs little.
    pub(crate) fn freeze(&self) -> Option<Box<[u8]>> {
        let is_settled = self.past.is_none() && self.deferred.is_none();
        if !is_settled || self.n_open > FROZEN_PINGS_MAX || self.rows.n_movement() > usize::from(u8::MAX) {
            return None;
        }
        let mut bytes = Vec::with_capacity(FROZEN_HEAD + 4 * self.rows.n_movement() + self.open.bytes().len());
        bytes.extend_from_slice(&self.lane_then_us.to_le_bytes());
        bytes.extend_from_slice(&self.battery_pct.to_le_bytes());
        bytes.push(self.n_open as u8);
        bytes.push(self.rows.n_movement() as u8);
        self.rows.revisions().for_each(|revision| bytes.extend_from_slice(&revision.to_le_bytes()));
        bytes.extend_from_slice(self.open.bytes());
        Some(bytes.into_boxed_slice())
    }

    /// What [`Device::freeze`] made few bytes of.
    pub(crate) fn thaw(params: &Params, frozen: &[u8]) -> Device {
        let (head, rest) = frozen.split_at(FROZEN_HEAD);
        let (revisions, pings) = rest.split_at(4 * usize::from(head[13]));
        let mut device = Device::new();
        for ping in Reader::new(pings, u32::from(head[12])) {
            device.append(params, &ping, 0);
        }
        for (row_idx, revision) in revisions.as_chunks::<4>().0.iter().enumerate() {
            device.rows.set_revision(row_idx, u32::from_le_bytes(*revision));
        }
        let (lane_then, _) = head.split_first_chunk().expect("the head is longer");
        device.lane_then_us = i64::from_le_bytes(*lane_then);
        let (battery, _) = head[8..].split_first_chunk().expect("the head is longer");
        device.battery_pct = f32::from_le_bytes(*battery);
        device
    }

    /// Every ping that is held, with what it adds.
    pub(crate) fn explain(&self, params: &Params) -> Vec<Explained> {
        self.explain_until(params, i64::MAX).0
    }

    /// The pings up to a time, as if there were no others; and the time of one that is not judged for good.
    fn explain_until(&self, params: &Params, until_us: i64) -> (Vec<Explained>, Option<i64>) {
        let oldest = self.past.as_ref().and_then(|past| match past.chunks.first() {
            Some(chunk) => chunk.start.as_deref(),
            None => past.open_start.as_deref(),
        });
        let start = oldest.cloned().unwrap_or_default();
        let (mut state, mut rows, mut before) = (start.state, DeviceRows::of(&start.mark), start.before);
        let mut trace = Trace::default();
        let pings = (0..=self.n_sealed()).flat_map(|chunk_idx| self.pings(chunk_idx));
        for ping in pings.take_while(|ping| ping.time_us <= until_us) {
            step(params, &mut state, &mut rows, before.as_ref(), &ping, 0, &mut trace);
            before = Some(ping);
        }
        (trace.pings, state.pending_us())
    }

    /// Bytes held beside the device itself: (pings with their states, rows).
    pub(crate) fn heap_bytes(&self) -> (usize, usize) {
        let start = |start: &Option<Box<Start>>| start.as_ref().map_or(0, |s| size_of::<Start>() + s.heap_bytes());
        let past = self.past.as_ref().map_or(0, |past| {
            let chunks = past.chunks.iter().map(|chunk| chunk.bytes.len() + start(&chunk.start)).sum::<usize>();
            size_of::<Past>()
                + past.chunks.capacity() * size_of::<Chunk>()
                + past.coverage.capacity() * size_of::<Coverage>()
                + start(&past.open_start)
                + chunks
        });
        let deferred = self.deferred.as_ref().map_or(0, |late| 24 + late.capacity() * size_of::<Ping>());
        (self.open.capacity() + past + deferred + self.state.heap_bytes(), self.rows.memory_bytes())
    }
}

impl Start {
    fn heap_bytes(&self) -> usize {
        self.state.heap_bytes() + self.mark.heap_bytes()
    }
}
