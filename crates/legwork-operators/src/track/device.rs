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

/// A device with more pings is not frozen; each is folded again when it thaws.
const FROZEN_PINGS_MAX: u32 = 64;
/// Bytes before the revisions: lane_then, battery, numbers of pings and rows.
const FROZEN_HEAD: usize = 14;

/// What became of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the newest of its device. Whether a chunk was closed, so that [`Device::forget`] may find something.
    InOrder(bool),
    /// It is not, and must be handed to [`Device::merge`] at the end of the batch.
    OutOfOrder,
    /// It is too old.
    Late,
}

/// A ping out of order, with its row in the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Straggler {
    pub(crate) device: u32,
    pub(crate) row: u32,
    pub(crate) is_older: bool,
    pub(crate) ping: Ping,
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

    /// Takes a ping. One that is the newest is folded at once.
    pub(crate) fn take(&mut self, params: &Params, ping: &Ping, revision: u32) -> Taken {
        match self.clock_us() {
            Some(clock_us) if ping.time_us < clock_us.saturating_sub(params.late_horizon_us) => Taken::Late,
            Some(clock_us) if ping.time_us <= clock_us => Taken::OutOfOrder,
            _ => {
                let is_full = self.n_open >= params.chunk_len;
                self.append(params, ping, revision);
                Taken::InOrder(is_full)
            }
        }
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

    /// Lets go of chunks wholly behind the late horizon. No ping reaches them any more, once those of the batch are merged.
    pub(crate) fn forget(&mut self, params: &Params) {
        let horizon_us = self.clock_us().unwrap_or(i64::MIN).saturating_sub(params.late_horizon_us);
        while self.past.as_ref().is_some_and(|past| past.chunks.len() > 1 && past.chunks[1].first_us <= horizon_us) {
            self.forget_oldest(params);
        }
    }

    /// Lets go of the oldest chunk. Its rows stay.
    fn forget_oldest(&mut self, params: &Params) {
        let explained = self.explain_chunks(params, 2);
        let Some(past) = &mut self.past else { return };
        let behind_us = past.chunks[1].first_us;
        Coverage::add_all(&mut past.coverage, explained.iter().filter(|e| e.ping.time_us < behind_us));
        past.chunks.remove(0);
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

    /// Puts pings out of order among the others, and folds again what they change. Gives the rows that were duplicates and the number
    /// of those that are older than the newest. `late`: in the order of arrival, sorted by time here.
    pub(crate) fn merge(
        &mut self,
        params: &Params,
        late: &mut [Straggler],
        reps: &Names,
        revision: u32,
        refused: &mut Vec<(u32, Verdict)>,
    ) -> u64 {
        late.sort_by_key(|straggler| straggler.ping.time_us);
        let mut changed = BTreeMap::new();
        let (mut n_refused_older, mut from) = (0, 0);
        while from < late.len() {
            let chunk_idx = self.chunk_of(late[from].ping.time_us);
            let n = late[from..].partition_point(|s| self.chunk_of(s.ping.time_us) == chunk_idx);
            let mut is_changed = false;
            let merged = self.merged(chunk_idx, &late[from..from + n], reps, |straggler, is_accepted| {
                if is_accepted {
                    is_changed = true;
                } else {
                    n_refused_older += u64::from(straggler.is_older);
                    refused.push((straggler.row, Verdict::Duplicate));
                }
            });
            if is_changed {
                if let Some(newest) = merged.last().filter(|_| chunk_idx == self.n_sealed()) {
                    self.battery_pct = newest.battery_pct;
                }
                changed.insert(chunk_idx, merged);
            }
            from += n;
        }
        if !changed.is_empty() {
            self.fold_again(params, changed, revision);
        }
        n_refused_older
    }

    /// The pings of a chunk with others among them.
    fn merged(
        &self,
        chunk_idx: usize,
        late: &[Straggler],
        reps: &Names,
        mut heard: impl FnMut(&Straggler, bool),
    ) -> Vec<Ping> {
        let mut held: Vec<Ping> = self.pings(chunk_idx).collect();
        if let Some(newest) = held.last_mut().filter(|_| chunk_idx == self.n_sealed()) {
            newest.battery_pct = self.battery_pct;
        }
        let mut merged: Vec<Ping> = Vec::with_capacity(held.len() + late.len());
        let mut held = held.into_iter().peekable();
        for straggler in late {
            let ping = straggler.ping;
            while let Some(older) = held.next_if(|held| held.time_us <= ping.time_us) {
                merged.push(older);
            }
            match merged.last_mut().filter(|last| last.time_us == ping.time_us) {
                Some(same) => {
                    let is_accepted = ping.order_of_equals(same, |rep| rep_name(reps, rep)).is_gt();
                    if is_accepted {
                        *same = ping;
                    }
                    heard(straggler, is_accepted);
                }
                None => {
                    merged.push(ping);
                    heard(straggler, true);
                }
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
        if self.past.is_some() || self.n_open > FROZEN_PINGS_MAX || self.rows.n_movement() > usize::from(u8::MAX) {
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
        self.explain_chunks(params, self.n_sealed() + 1)
    }

    fn explain_chunks(&self, params: &Params, n_chunks: usize) -> Vec<Explained> {
        let oldest = self.past.as_ref().and_then(|past| match past.chunks.first() {
            Some(chunk) => chunk.start.as_deref(),
            None => past.open_start.as_deref(),
        });
        let start = oldest.cloned().unwrap_or_default();
        let (mut state, mut rows, mut before) = (start.state, DeviceRows::of(&start.mark), start.before);
        let mut trace = Trace::default();
        for ping in (0..n_chunks).flat_map(|chunk_idx| self.pings(chunk_idx)) {
            step(params, &mut state, &mut rows, before.as_ref(), &ping, 0, &mut trace);
            before = Some(ping);
        }
        trace.pings
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
        (self.open.capacity() + past + self.state.heap_bytes(), self.rows.memory_bytes())
    }
}

impl Start {
    fn heap_bytes(&self) -> usize {
        self.state.heap_bytes() + self.mark.heap_bytes()
    }
}
