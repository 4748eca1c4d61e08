//! The track of each device: how far it really travelled, where it stood, where it is.
//!
//! In event-time order over the pings of a device, unique by time (of two with the same time the larger by sent time, then content, stays):
//! what is filtered, what is a gap, what is standing still, what is movement, with each parameter and its source: `docs/track.md`. Why it is
//! so: `docs/decisions/0007-jitter-by-how-fixes-follow.md`.
//!
//! A device's past lies in chunks: its pings, compressed, with the rows, stays and trips that were done when the chunk ended, and the fold's
//! state where it began. A late ping folds its chunk again, and those after it until the state is what it was.
//!
//! What lives here: the fold over pings, the pings themselves, and the rows. What does not: who carries the device, where accounts are.

mod block;
mod cell;
mod chunk;
mod codec;
mod config;
mod coverage;
mod deferred;
mod device;
mod entry;
mod explain;
mod fold;
mod frozen;
mod handed;
mod input;
mod lookup;
mod names;
mod ping;
mod place;
mod refold;
mod reps;
mod rope;
mod row_codec;
mod rows;
mod store;
mod tables;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod varint;
mod versions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, Lookup, StateEntry, StateError, Table, TableSnapshot, Verdicts};

pub use config::TrackConfig;

use crate::track::block::Blocks;
use crate::track::device::Taken;
use crate::track::fold::Params;
use crate::track::handed::Handed;
use crate::track::input::Columns;
use crate::track::names::{Interner, TOGETHER};
use crate::track::store::Stored;
use crate::track::tables::TrackSnapshot;
use crate::{Need, Operator};

/// The tables that the track fills.
const TABLES: [Table; 5] =
    [Table::DeviceMovement, Table::RepPositions, Table::Stays, Table::Trips, Table::DeviceCoverage];

/// Pings in a chunk, by a quarter more or less: the state at its start is spread over so many, and a late ping folds about half as many again.
const CHUNK_LEN: u32 = 128;

/// Pings that wait to be put among the others, in all devices: so many may in any case.
const UNSETTLED_MIN: usize = 65_536;

/// More may where more are held: one in so many. To put them among the others takes folding most of these again, which pays for many at
/// once: where one ping in twenty is late, by whatever time, each is folded again about once. Those that wait take up to a third of the
/// memory of these.
const HELD_PER_UNSETTLED: usize = 16;

/// Devices that are fetched into the cache together: one after the other, most of the time would be spent waiting for memory.
const GROUP_LEN: usize = 16;

/// Bytes of state held, estimated.
#[derive(Clone, Copy, Debug)]
pub struct TrackMemory {
    /// Pings, with what is remembered to fold some of them again.
    pub pings_bytes: usize,
    /// Rows, stays and trips.
    pub rows_bytes: usize,
    /// Devices, with the names of theirs and of reps.
    pub devices_bytes: usize,
}

/// The track operator.
#[derive(Debug)]
pub struct Track {
    time: TimeConfig,
    params: Params,
    devices: Interner,
    reps: Interner,
    blocks: Blocks,
    /// Devices with pings that wait to be put among the others.
    unsettled: Vec<u32>,
    /// So many may wait as far as is known.
    unsettled_max: usize,
    /// Revision of the last batch, or the next where a checkpoint came since.
    revision: u32,
    stored: Stored,
}

impl Track {
    /// An operator that has seen nothing.
    pub fn new(time: TimeConfig, config: TrackConfig) -> Track {
        let (window_us, late_horizon_us) = (time.window_us, time.late_horizon_us);
        let params = Params { track: config, window_us, late_horizon_us, chunk_len: CHUNK_LEN };
        Track {
            time,
            params,
            devices: Interner::default(),
            reps: Interner::default(),
            blocks: Blocks::default(),
            unsettled: Vec::new(),
            unsettled_max: UNSETTLED_MIN,
            revision: 0,
            stored: Stored::default(),
        }
    }

    /// Bytes of state held, by what they are for.
    pub fn memory(&self) -> TrackMemory {
        let (pings_bytes, rows_bytes, hulls_bytes) = self.blocks.memory_bytes();
        let names_bytes = self.devices.memory_bytes() + self.reps.memory_bytes();
        TrackMemory { pings_bytes, rows_bytes, devices_bytes: hulls_bytes + names_bytes }
    }
}

/// A row of a batch, and when its turn comes.
#[derive(Clone, Copy, Debug)]
struct Turn {
    device: u32,
    row: u32,
    time_us: i64,
    /// Whether a newer ping of the device came before it.
    is_older: bool,
}

/// Marks the rows of one device before which a newer ping had come, in this batch or before it. Where some are so far apart that one
/// of them may make another late, the rows return to their order of arrival.
fn order(turns: &mut [Turn], newest_us: Option<i64>, late_horizon_us: i64) {
    let (first_us, last_us) = (turns[0].time_us, turns[turns.len() - 1].time_us);
    // Of all later times: the first row in the order of arrival.
    let mut first_row = u32::MAX;
    for turns in turns.chunk_by_mut(|a, b| a.time_us == b.time_us).rev() {
        for turn in turns.iter_mut() {
            turn.is_older = first_row < turn.row || newest_us.is_some_and(|newest_us| newest_us > turn.time_us);
        }
        first_row = first_row.min(turns[0].row);
    }
    if last_us.saturating_sub(first_us) > late_horizon_us {
        turns.sort_unstable_by_key(|turn| turn.row);
    }
}

impl Track {
    /// The rows of a batch, device by device, each device's in event-time order, and in the order of arrival where times are equal: what
    /// is out of order only within a batch costs nothing then, and a device's state is fetched once.
    fn turns(&mut self, columns: &Columns<'_>, n_rows: usize) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::with_capacity(n_rows);
        for first in (0..n_rows).step_by(TOGETHER) {
            let rows = first..n_rows.min(first + TOGETHER);
            self.devices.touch(rows.clone().map(|row| columns.device(row)));
            turns.extend(rows.map(|row| Turn {
                device: self.devices.intern(columns.device(row)),
                row: row as u32,
                time_us: columns.time_us(row),
                is_older: false,
            }));
        }
        turns.sort_unstable_by_key(|turn| (turn.device, turn.time_us, turn.row));
        turns
    }

    /// Puts pings that came out of order among the others, as of the batch that brought them. Nothing is read before. *Returns* chunks
    /// without which some cannot be placed, by device and first ping.
    fn settle(&mut self) -> Vec<(u32, i64)> {
        let mut unsettled = std::mem::take(&mut self.unsettled);
        unsettled.sort_unstable();
        unsettled.dedup();
        let mut missing = Vec::new();
        for id in unsettled {
            self.touch(id);
            let device = self.blocks.get_mut(&self.params, id);
            let of_device = device.settle(&self.params, self.reps.names(), self.revision);
            if !of_device.is_empty() {
                missing.extend(of_device.into_iter().map(|missing| (id, missing.first_us)));
                self.unsettled.push(id);
            }
        }
        missing
    }

    /// The same, as of a moment at or after the last batch.
    fn settle_at(&mut self, clock: &LaneClock) -> Vec<(u32, i64)> {
        let missing = self.settle();
        self.revision = self.revision.max(clock.revision);
        missing
    }

    /// Keeps what was handed over of a device before it changes.
    #[inline]
    fn touch(&mut self, id: u32) {
        if self.params.track.has_store {
            let device = self.blocks.get_mut(&self.params, id);
            if device.handed.is_none() {
                device.handed = Some(Box::new(Handed::of(device)));
                self.stored.touched.push(id);
            }
        }
    }
}

impl Operator for Track {
    fn apply(&mut self, events: &EventBatch, clock: &LaneClock) -> Verdicts {
        let columns = Columns::of(events);
        let mut verdicts = Verdicts::default();
        if clock.revision != self.revision {
            self.settle();
            self.revision = clock.revision;
        }
        let mut grown = Vec::new();
        let n_known = self.devices.len();
        let mut turns = self.turns(&columns, events.n_rows());
        let mut devices: Vec<&mut [Turn]> = turns.chunk_by_mut(|a, b| a.device == b.device).collect();
        for group in devices.chunks_mut(GROUP_LEN) {
            let mut ids = [0; GROUP_LEN];
            ids.iter_mut().zip(group.iter()).for_each(|(id, turns)| *id = turns[0].device);
            self.blocks.touch(&ids[..group.len()]);
            for turns in group {
                let id = turns[0].device;
                self.touch(id);
                let device = self.blocks.get_mut(&self.params, id);
                order(turns, device.clock_us(), self.time.late_horizon_us);
                for turn in turns.iter() {
                    let ping = columns.ping(turn.row as usize, &mut self.reps);
                    match device.take(&self.params, self.reps.names(), ping, clock.revision) {
                        Taken::InOrder(is_full) => {
                            verdicts.n_reordered += u64::from(turn.is_older);
                            if is_full {
                                grown.push(id);
                            }
                        }
                        Taken::Deferred => {
                            verdicts.n_reordered += u64::from(turn.is_older);
                            self.unsettled.push(id);
                        }
                        Taken::Refused(verdict) => verdicts.refused.push((turn.row, verdict)),
                    }
                }
                device.lane_then_us = clock.newest_us;
            }
        }
        verdicts.refused.sort_unstable_by_key(|(row, _)| *row);
        if self.unsettled.len() > self.unsettled_max {
            self.unsettled_max = UNSETTLED_MIN.max(self.blocks.n_pings() / HELD_PER_UNSETTLED);
            if self.unsettled.len() > self.unsettled_max {
                self.settle();
            }
        }
        if !self.params.track.has_store {
            for id in grown {
                let device = self.blocks.get_mut(&self.params, id);
                if device.n_behind(&self.params) > 0 {
                    device.settle(&self.params, self.reps.names(), clock.revision);
                    device.forget(&self.params);
                }
            }
            // Many devices are heard of once.
            for id in n_known..self.devices.len() {
                if self.blocks.get(&self.params, id).n_open == 1 {
                    self.blocks.freeze(&self.params, id);
                }
            }
        }
        let idle_since_us = clock.newest_us.saturating_sub(self.time.idle_close_us);
        self.blocks.sweep(&self.params, 1 + events.n_rows() / 64, idle_since_us);
        verdicts
    }

    fn tables(&self) -> Vec<&'static str> {
        TABLES.iter().map(|table| table.name()).collect()
    }

    fn snapshot(&mut self, table: &str, clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        let table = *TABLES.iter().find(|known| known.name() == table)?;
        self.settle();
        let (devices, reps) = (self.devices.names().clone(), self.reps.names().clone());
        let snapshot =
            TrackSnapshot::new(table, self.params, self.time, *clock, self.blocks.list.clone(), devices, reps);
        Some(Arc::new(snapshot))
    }

    fn lookup(&mut self, lookup: &Lookup, _clock: &LaneClock) -> Option<RecordBatch> {
        let answer = match lookup.table.as_str() {
            "explain_track" => lookup::explain_track,
            "track_at" => lookup::track_at,
            _ => return None,
        };
        self.settle();
        let device = self.devices.find(&lookup.key).map(|id| self.blocks.get(&self.params, id));
        Some(answer(lookup, device.as_deref(), &self.params, self.reps.names()))
    }

    fn memory_bytes(&self) -> usize {
        let TrackMemory { pings_bytes, rows_bytes, devices_bytes } = self.memory();
        pings_bytes + rows_bytes + devices_bytes + self.stored.memory_bytes()
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        if self.params.track.has_store { self.take_changes(clock) } else { Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        let has_rows = self.params.track.has_store && TABLES.contains(&table);
        if has_rows { self.fresh_rows(table, clock) } else { None }
    }

    fn committed(&mut self, revision: u32) {
        self.make_durable(revision);
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        for (key, value) in hot {
            self.take_up(&key, &value)?;
        }
        Ok(())
    }

    fn wanted(&mut self, need: Need<'_>, clock: &LaneClock) -> Vec<Vec<u8>> {
        match need {
            Need::Tables => self.wanted_for_tables(clock),
            Need::Lookup(lookup) => self.wanted_for_lookup(lookup, clock),
            Need::Batch(events) => self.wanted_for_batch(events),
        }
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        cold.iter().try_for_each(|entry| self.take_chunk(entry))
    }
}
