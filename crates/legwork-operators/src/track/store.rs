//! What the track hands over at checkpoints, takes up again, and lets go of where the store has it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use legwork_types::time::LaneClock;
use legwork_types::{Changes, EventBatch, LazySnapshot, Lookup, StateEntry, StateError, Table, TableSnapshot};

use crate::track::chunk::Body;
use crate::track::codec::Reader;
use crate::track::device::{Device, Past};
use crate::track::entry::{self, ChunkValue, Key, damaged};
use crate::track::fold::Params;
use crate::track::handed::Handed;
use crate::track::input::Columns;
use crate::track::tables::{Of, Source, batch, is_ahead, is_live};
use crate::track::versions::{Comparison, Versions};
use crate::track::{TABLES, Track, lookup};

/// What is known of the store.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Devices that are not as they were handed over.
    pub(crate) touched: Vec<u32>,
    /// Devices whose rows were handed over as open, by when the lane heard of them last.
    live: BTreeSet<(i64, u32)>,
    /// Chunks in memory that the store has or will have, in the order in which they were changed or brought: device, first ping, bytes.
    resident: VecDeque<(u32, i64, u32)>,
    resident_bytes: usize,
    /// Every chunk that is only in the store ends before this time.
    evicted_until_us: Option<i64>,
    /// The newest checkpoint that is durable.
    durable: u32,
}

impl Stored {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.touched.capacity() * 4 + self.live.len() * 24 + self.resident.capacity() * 24
    }

    fn keep(&mut self, id: u32, first_us: i64, body: &Body) {
        let n_bytes = body.memory_bytes();
        self.resident.push_back((id, first_us, u32::try_from(n_bytes).unwrap_or(u32::MAX)));
        self.resident_bytes += n_bytes;
    }

    fn has_evicted(&mut self, until_us: i64) {
        self.evicted_until_us = Some(self.evicted_until_us.map_or(until_us, |before_us| before_us.max(until_us)));
    }
}

impl Track {
    /// Devices of which nothing was heard for so long that what was handed over as open is open no more.
    fn idle(&self, clock: &LaneClock) -> Vec<u32> {
        let live = self.stored.live.iter();
        let idle = live.take_while(|(lane_then_us, _)| !is_live(&self.time, clock, *lane_then_us));
        let is_untouched = |id: &u32| self.blocks.get(&self.params, *id).handed.is_none();
        idle.map(|(_, id)| *id).filter(is_untouched).collect()
    }

    /// Compares devices with what was handed over of them.
    fn compare(&self, ids: &[u32], clock: &LaneClock, mut with: impl FnMut(Comparison<'_>)) {
        for id in ids {
            let device = self.blocks.get(&self.params, *id);
            let untouched;
            let then = match &device.handed {
                Some(handed) => handed.as_ref(),
                None => {
                    untouched = Handed::of(&device);
                    &untouched
                }
            };
            with(Comparison { id: *id, device: &device, then, time: &self.time, clock });
        }
    }

    fn source(&self) -> Source<'_> {
        Source { devices: self.devices.names(), reps: self.reps.names(), time: &self.time }
    }

    pub(super) fn take_changes(&mut self, clock: &LaneClock) -> Changes {
        self.settle_at(clock);
        let (mut changes, mut versions, mut covered) = (Changes::default(), Versions::default(), Vec::new());
        for id in self.changed(clock) {
            self.compare(&[id], clock, |comparison| {
                comparison.all(&mut versions);
                covered.extend(comparison.recovered());
            });
            self.hand_over(id, clock, &mut changes);
        }
        let versions = Arc::new(versions);
        for table in TABLES.into_iter().filter(|table| versions.n_rows(*table) > 0) {
            let versions = versions.clone();
            changes.rows_later.push(self.later(table, move |source| versions.batch(source, table)));
        }
        if !covered.is_empty() {
            let (params, revision) = (self.params, clock.revision);
            // Cells take long to find.
            changes.rows_later.push(self.later(Table::DeviceCoverage, move |source| {
                let mut versions = Vec::new();
                covered.iter().for_each(|covered| covered.versions(&params, revision, &mut versions));
                batch(source, Table::DeviceCoverage.version_schema(), &versions)
            }));
        }
        self.stored.touched.clear();
        self.revision = clock.revision.saturating_add(1);
        changes
    }

    /// Versions of rows, made when they are first read: by another thread, mostly.
    fn later(
        &self,
        table: Table,
        make: impl FnOnce(&Source<'_>) -> RecordBatch + Send + 'static,
    ) -> (Table, Arc<dyn TableSnapshot>) {
        let (devices, reps, time) = (self.devices.names().clone(), self.reps.names().clone(), self.time);
        let make = move || make(&Source { devices: &devices, reps: &reps, time: &time });
        (table, Arc::new(LazySnapshot::new(table.version_schema(), make)))
    }

    /// Devices of which something is to be handed over.
    fn changed(&self, clock: &LaneClock) -> Vec<u32> {
        let mut ids = self.stored.touched.clone();
        ids.extend(self.idle(clock));
        ids.sort_unstable();
        ids
    }

    /// Writes the entries of a device that has changed; from here on it is as it was handed over.
    fn hand_over(&mut self, id: u32, clock: &LaneClock, changes: &mut Changes) {
        let name = self.devices.names().get(id);
        let device = self.blocks.get_mut(&self.params, id);
        let handed = device.handed.take();
        let lane_then_us = handed.as_ref().map_or(device.lane_then_us, |handed| handed.lane_then_us);
        self.stored.live.remove(&(lane_then_us, id));
        device.was_live = is_live(&self.time, clock, device.lane_then_us);
        if device.was_live {
            self.stored.live.insert((device.lane_then_us, id));
        }
        let n_behind = n_forgotten(device, &self.params, &self.time);
        let replaced = handed.map_or_else(Vec::new, |handed| handed.chunks);
        let mut gone: Vec<i64> = replaced.iter().map(|chunk| chunk.first_us).collect();
        if let Some(past) = &mut device.past {
            gone.extend(past.chunks.drain(..n_behind).filter(|chunk| chunk.stored != 0).map(|chunk| chunk.first_us));
            past.is_changed |= n_behind > 0;
            for chunk in past.chunks.iter_mut().filter(|chunk| chunk.stored == 0) {
                let Some(body) = &chunk.body else { continue };
                let key = Key::Chunk(name, chunk.first_us).to_bytes();
                self.stored.keep(id, chunk.first_us, body);
                chunk.stored = clock.revision.max(1);
                let value = ChunkValue { params: self.params, chunk: chunk.clone() };
                changes.cold_later.push((key, Arc::new(value)));
            }
            if !past.recent.is_empty() {
                let clock_us = device.n_open.ge(&1).then(|| device.open.last_time_us());
                past.recent.retain(|(_, row)| is_ahead(&self.time, clock_us, row.window_us + self.time.window_us));
            }
            if std::mem::take(&mut past.is_changed) {
                let value = (!past.chunks.is_empty()).then(|| entry::index_value(&past.chunks));
                changes.hot.push(StateEntry { key: Key::Index(name).to_bytes(), value });
            }
        }
        gone.retain(|first_us| device.chunks().binary_search_by_key(first_us, |chunk| chunk.first_us).is_err());
        gone.sort_unstable();
        gone.dedup();
        let deleted = |first_us: i64| StateEntry { key: Key::Chunk(name, first_us).to_bytes(), value: None };
        changes.cold.extend(gone.into_iter().map(deleted));
        let value = Some(entry::device_value(device, &self.time, self.reps.names()));
        changes.hot.push(StateEntry { key: Key::Device(name).to_bytes(), value });
        // Many devices are heard of once.
        if device.n_open == 1 {
            self.blocks.freeze(&self.params, id);
        }
    }

    pub(super) fn fresh_rows(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        self.settle_at(clock);
        let ids = self.changed(clock);
        if table == Table::DeviceCoverage {
            return self.fresh_coverage(&ids, clock);
        }
        let mut versions = Versions::default();
        self.compare(&ids, clock, |comparison| match table {
            Table::DeviceMovement => comparison.movement(&mut versions.movement),
            Table::RepPositions => comparison.positions(&mut versions.positions),
            Table::Stays => comparison.stays(&mut versions.stays),
            _ => comparison.trips(&mut versions.trips),
        });
        (versions.n_rows(table) > 0).then(|| versions.batch(&self.source(), table))
    }

    /// What changed chunks cover, and all open ones.
    fn fresh_coverage(&self, ids: &[u32], clock: &LaneClock) -> Option<RecordBatch> {
        let (params, mut versions) = (&self.params, Vec::new());
        self.compare(ids, clock, |comparison| {
            if let Some(covered) = comparison.recovered() {
                covered.versions(params, clock.revision, &mut versions);
            }
        });
        for (id, device) in self.blocks.list.iter().flat_map(|block| block.devices(params)) {
            let of = |row| Of { id, rep: None, is_open: false, is_deleted: false, revision: clock.revision, row };
            versions.extend(device.open_coverage(params).into_iter().map(of));
        }
        let rows = batch(&self.source(), Table::DeviceCoverage.version_schema(), &versions);
        (rows.num_rows() > 0).then_some(rows)
    }

    pub(super) fn make_durable(&mut self, revision: u32) {
        self.stored.durable = self.stored.durable.max(revision);
        for _ in 0..self.stored.resident.len() {
            if self.stored.resident_bytes as u64 <= self.params.track.memory_bytes_max {
                break;
            }
            let Some((id, first_us, n_bytes)) = self.stored.resident.pop_front() else { break };
            match self.evict(id, first_us) {
                Some(until_us) => {
                    self.stored.resident_bytes -= n_bytes as usize;
                    if let Some(until_us) = until_us {
                        self.stored.has_evicted(until_us);
                    }
                }
                None => self.stored.resident.push_back((id, first_us, n_bytes)),
            }
        }
    }

    /// Lets a chunk leave memory. *Returns* none where it may not yet; when it ends, if it was there.
    fn evict(&mut self, id: u32, first_us: i64) -> Option<Option<i64>> {
        let (durable, time) = (self.stored.durable, &self.time);
        let device = self.blocks.get(&self.params, id);
        let Ok(chunk_idx) = device.chunks().binary_search_by_key(&first_us, |chunk| chunk.first_us) else {
            return Some(None);
        };
        let chunk = &device.chunks()[chunk_idx];
        if chunk.body.is_none() {
            return Some(None);
        }
        let clock_us = device.handed.as_ref().map_or(device.clock_us(), |handed| handed.clock_us);
        let next_us = device.chunks().get(chunk_idx + 1).map_or_else(|| device.open_first_us(), |next| next.first_us);
        let may_close = is_ahead(time, clock_us, next_us.saturating_add(time.window_us));
        if chunk.stored == 0 || chunk.stored > durable || may_close {
            return None;
        }
        drop(device);
        if let Some(past) = &mut self.blocks.get_mut(&self.params, id).past {
            past.chunks[chunk_idx].body = None;
        }
        Some(Some(next_us))
    }

    pub(super) fn take_up(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match Key::parse(key)? {
            Key::Device(name) => {
                let device = entry::device(&self.params, &mut self.reps, key, value)?;
                let n_known = self.devices.len();
                let id = self.devices.intern(name);
                if id < n_known {
                    return Err(damaged(key, "a device that comes twice"));
                }
                if device.was_live {
                    self.stored.live.insert((device.lane_then_us, id));
                }
                if device.deferred.is_some() {
                    self.unsettled.push(id);
                }
                *self.blocks.get_mut(&self.params, id) = device;
            }
            Key::Index(name) => {
                let chunks = entry::index(key, value)?;
                let id = self.devices.find(name).ok_or_else(|| damaged(key, "chunks of an unknown device"))?;
                let device = self.blocks.get_mut(&self.params, id);
                let open_first_us = device.open_first_us();
                if chunks.last().is_some_and(|chunk| chunk.first_us >= open_first_us) || device.n_open == 0 {
                    return Err(damaged(key, "chunks behind the open one"));
                }
                device.past.get_or_insert_with(|| Box::new(Past::default())).chunks = chunks;
                self.stored.has_evicted(open_first_us);
            }
            Key::Chunk(..) => return Err(damaged(key, "cold state among the hot")),
        }
        Ok(())
    }

    /// Keys of chunks of a device that are not in memory.
    fn keys(&self, id: u32, first_us: impl IntoIterator<Item = i64>) -> Vec<Vec<u8>> {
        let name = self.devices.names().get(id);
        first_us.into_iter().map(|first_us| Key::Chunk(name, first_us).to_bytes()).collect()
    }

    pub(super) fn wanted_for_tables(&mut self, clock: &LaneClock) -> Vec<Vec<u8>> {
        let missing = self.settle_at(clock);
        missing.into_iter().flat_map(|(id, first_us)| self.keys(id, [first_us])).collect()
    }

    pub(super) fn wanted_for_lookup(&mut self, lookup: &Lookup, clock: &LaneClock) -> Vec<Vec<u8>> {
        let wants = match lookup.table.as_str() {
            "explain_track" => lookup::explain_wants,
            "track_at" => lookup::track_at_wants,
            _ => return Vec::new(),
        };
        let missing = self.settle_at(clock);
        let Some(id) = self.devices.find(&lookup.key) else { return Vec::new() };
        let unsettled: Vec<i64> =
            missing.into_iter().filter(|(other, _)| *other == id).map(|(_, first_us)| first_us).collect();
        let first_us = if unsettled.is_empty() {
            wants(lookup, &self.blocks.get(&self.params, id), &self.params)
        } else {
            unsettled
        };
        self.keys(id, first_us)
    }

    /// Chunks in which late pings of a batch may find others with the same time.
    pub(super) fn wanted_for_batch(&self, events: &EventBatch) -> Vec<Vec<u8>> {
        let Some(until_us) = self.stored.evicted_until_us else { return Vec::new() };
        let columns = Columns::of(events);
        let mut wanted = BTreeSet::new();
        for row in (0..events.n_rows()).filter(|row| columns.time_us(*row) < until_us) {
            let Some(id) = self.devices.find(columns.device(row)) else { continue };
            let device = self.blocks.get(&self.params, id);
            let time_us = columns.time_us(row);
            let horizon_us = device.clock_us().unwrap_or(i64::MIN).saturating_sub(self.params.late_horizon_us);
            let chunk = device.chunks().get(device.chunk_of(time_us)).filter(|_| time_us >= horizon_us);
            wanted.extend(chunk.filter(|chunk| chunk.body.is_none()).map(|chunk| (id, chunk.first_us)));
        }
        wanted.into_iter().flat_map(|(id, first_us)| self.keys(id, [first_us])).collect()
    }

    pub(super) fn take_chunk(&mut self, entry: &StateEntry) -> Result<(), StateError> {
        let key = entry.key.as_slice();
        let Key::Chunk(name, first_us) = Key::parse(key)? else { return Err(damaged(key, "hot state among the cold")) };
        let Some(id) = self.devices.find(name) else { return Ok(()) };
        let device = self.blocks.get_mut(&self.params, id);
        let Some(past) = &mut device.past else { return Ok(()) };
        let Ok(chunk_idx) = past.chunks.binary_search_by_key(&first_us, |chunk| chunk.first_us) else { return Ok(()) };
        let chunk = &mut past.chunks[chunk_idx];
        if chunk.body.is_some() {
            return Ok(());
        }
        let value = entry.value.as_deref().ok_or_else(|| damaged(key, "the store does not have it"))?;
        let (n_pings, body) = entry::chunk(&self.params, key, value)?;
        let begins_us = Reader::new(&*body.pings, n_pings).next().map(|ping| ping.time_us);
        if n_pings != chunk.n_pings || begins_us != Some(first_us) {
            return Err(damaged(key, "another chunk than the list names"));
        }
        self.stored.keep(id, first_us, &body);
        chunk.body = Some(Arc::new(body));
        Ok(())
    }
}

/// Chunks at the front that no ping reaches any more, and whose rows change no more.
fn n_forgotten(device: &Device, params: &Params, time: &legwork_types::time::TimeConfig) -> usize {
    if device.deferred.is_some() {
        return 0;
    }
    let chunks = &device.chunks()[..device.n_behind(params)];
    let next = device.chunks().iter().skip(1);
    let is_closed = |next_us: i64| !is_ahead(time, device.clock_us(), next_us.saturating_add(time.window_us));
    chunks.iter().zip(next).take_while(|(_, next)| is_closed(next.first_us)).count()
}
