//! Rows as they are now beside rows as they were handed over: new versions and retractions.

use arrow::array::RecordBatch;
use legwork_types::Table;
use legwork_types::time::{DAY_US, LaneClock, TimeConfig, window_start};

use crate::track::chunk::{Body, Chunk};
use crate::track::coverage::Part;
use crate::track::device::Device;
use crate::track::fold::Params;
use crate::track::handed::Handed;
use crate::track::ping::Ping;
use crate::track::rows::{Row, Stay, Trip};
use crate::track::tables::{Of, Source, TableRow, batch, is_ahead, is_live};

/// New versions of rows, by table.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    pub(crate) movement: Vec<Of<Row>>,
    pub(crate) positions: Vec<Of<Ping>>,
    pub(crate) stays: Vec<Of<Stay>>,
    pub(crate) trips: Vec<Of<Trip>>,
}

impl Versions {
    /// How many there are of a table.
    pub(crate) fn n_rows(&self, table: Table) -> usize {
        match table {
            Table::DeviceMovement => self.movement.len(),
            Table::RepPositions => self.positions.len(),
            Table::Stays => self.stays.len(),
            Table::Trips => self.trips.len(),
            // Those follow from what chunks cover.
            _ => 0,
        }
    }

    /// Those of a table, as Arrow.
    pub(crate) fn batch(&self, source: &Source<'_>, table: Table) -> RecordBatch {
        let schema = table.version_schema();
        match table {
            Table::DeviceMovement => batch(source, schema, &self.movement),
            Table::RepPositions => batch(source, schema, &self.positions),
            Table::Stays => batch(source, schema, &self.stays),
            Table::Trips => batch(source, schema, &self.trips),
            _ => RecordBatch::new_empty(schema),
        }
    }
}

/// A device beside what was handed over of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) id: u32,
    pub(crate) device: &'a Device,
    pub(crate) then: &'a Handed,
    pub(crate) time: &'a TimeConfig,
    pub(crate) clock: &'a LaneClock,
}

impl Comparison<'_> {
    fn of<T: TableRow>(&self, row: T, is_open: bool, is_deleted: bool) -> Of<T> {
        let rep = self.device.reps.global(row.rep());
        Of { id: self.id, rep, is_open, is_deleted, revision: self.clock.revision, row }
    }

    /// Whether what ends at a time is open now, and whether it was.
    fn is_open(&self, end_us: i64) -> (bool, bool) {
        let now = is_live(self.time, self.clock, self.device.lane_then_us)
            && is_ahead(self.time, self.device.clock_us(), end_us);
        let then = self.device.was_live && is_ahead(self.time, self.then.clock_us, end_us);
        (now, then)
    }

    /// Chunks that are not as they were handed over.
    fn changed(&self) -> impl Iterator<Item = (i64, &Body)> {
        let chunks = self.device.chunks().iter().filter(|chunk| chunk.stored == 0);
        chunks.filter_map(|chunk| chunk.body.as_ref().map(|body| (chunk.first_us, body.as_ref())))
    }

    pub(crate) fn all(&self, out: &mut Versions) {
        self.movement(&mut out.movement);
        self.positions(&mut out.positions);
        self.stays(&mut out.stays);
        self.trips(&mut out.trips);
    }

    pub(crate) fn movement(&self, out: &mut Vec<Of<Row>>) {
        let width_us = self.time.window_us;
        for (_, row) in self.device.recent(self.time, self.then.clock_us) {
            let (now, then) = self.is_open(row.window_us + width_us);
            if now != then {
                out.push(self.of(row, now, false));
            }
        }
        let mut rows: Vec<Row> = self.changed().flat_map(|(_, body)| body.movement(width_us)).collect();
        rows.extend(self.device.rows.movement(width_us));
        for row in &rows {
            let held = self.then.rows.iter().find(|held| (held.window_us, held.rep) == (row.window_us, row.rep));
            let is_new = held.is_none() && row.revision >= self.clock.revision;
            let is_changed = held.is_some_and(|held| !held.is_same(row));
            let (now, then) = self.is_open(row.window_us + width_us);
            if is_new || is_changed || now != then {
                out.push(self.of(*row, now, false));
            }
        }
        for held in &self.then.rows {
            let first = rows.partition_point(|row| row.window_us < held.window_us);
            let mut same_window = rows[first..].iter().take_while(|row| row.window_us == held.window_us);
            if !same_window.any(|row| row.rep == held.rep) {
                out.push(self.of(*held, self.is_open(held.window_us + width_us).1, true));
            }
        }
    }

    pub(crate) fn positions(&self, out: &mut Vec<Of<Ping>>) {
        let Some(now) = self.device.newest() else { return };
        let Some(then) = self.then.newest else {
            out.push(self.of(now, false, false));
            return;
        };
        let floats = |ping: &Ping| {
            let f32s = [ping.accuracy_m, ping.speed_mps, ping.battery_pct];
            (ping.lat.to_bits(), ping.lon.to_bits(), f32s.map(|value| (!value.is_nan()).then_some(value.to_bits())))
        };
        if (now.time_us, now.rep, floats(&now)) == (then.time_us, then.rep, floats(&then)) {
            return;
        }
        if window_start(now.time_us, DAY_US) != window_start(then.time_us, DAY_US) {
            out.push(self.of(then, false, true));
        }
        out.push(self.of(now, false, false));
    }

    pub(crate) fn stays(&self, out: &mut Vec<Of<Stay>>) {
        let now = self.changed().flat_map(|(_, body)| &body.stays).chain(self.device.rows.stays()).copied();
        let now = now.chain(self.device.state.under_way().0);
        let version = |stay: Stay, is_deleted| self.of(stay, false, is_deleted);
        compare(now.collect(), self.then.stays.clone(), |stay| stay.start_us, version, out);
    }

    pub(crate) fn trips(&self, out: &mut Vec<Of<Trip>>) {
        let now = self.changed().flat_map(|(_, body)| &body.trips).chain(self.device.rows.trips()).copied();
        let now = now.chain(self.device.state.under_way().1);
        let now = now.map(|trip| Trip { is_open: trip.is_open && self.is_open(trip.end_us).0, ..trip });
        let then = self.then.trips.iter().copied();
        let then = then.map(|trip| Trip { is_open: trip.is_open && self.is_open(trip.end_us).1, ..trip });
        let version = |trip: Trip, is_deleted| self.of(trip, trip.is_open, is_deleted);
        compare(now.collect(), then.collect(), |trip| trip.start_us, version, out);
    }

    /// Sealed chunks of which what they cover is to be compared. None where there are none.
    pub(crate) fn recovered(&self) -> Option<Covered> {
        let changed = self.device.chunks().iter().filter(|chunk| chunk.stored == 0 && chunk.body.is_some());
        let (now, then): (Vec<Chunk>, _) = (changed.cloned().collect(), self.then.chunks.clone());
        (!now.is_empty() || !then.is_empty()).then_some(Covered { id: self.id, now, then })
    }
}

/// Chunks of a device as they are now, and those in whose place they are.
#[derive(Debug)]
pub(crate) struct Covered {
    id: u32,
    now: Vec<Chunk>,
    then: Vec<Chunk>,
}

impl Covered {
    /// Hands over what they cover that the others did not, and retracts what they do no more.
    pub(crate) fn versions(&self, params: &Params, revision: u32, out: &mut Vec<Of<Part>>) {
        let parts = |chunks: &[Chunk]| chunks.iter().flat_map(|chunk| chunk.parts(params)).collect();
        let key = |part: &Part| (part.part_us, part.coverage.day_us, part.coverage.cell);
        let version = |row, is_deleted| Of { id: self.id, rep: None, is_open: false, is_deleted, revision, row };
        compare(parts(&self.now), parts(&self.then), key, version, out);
    }
}

/// Hands over what is new or other than it was, and retracts what is no more.
fn compare<T: Copy + PartialEq, K: Ord>(
    mut now: Vec<T>,
    mut then: Vec<T>,
    key: impl Fn(&T) -> K,
    version: impl Fn(T, bool) -> Of<T>,
    out: &mut Vec<Of<T>>,
) {
    now.sort_by_key(&key);
    then.sort_by_key(&key);
    let find = |list: &[T], row: &T| list.binary_search_by_key(&key(row), &key).ok().map(|at| list[at]);
    out.extend(now.iter().filter(|row| find(&then, row) != Some(**row)).map(|row| version(*row, false)));
    out.extend(then.iter().filter(|row| find(&now, row).is_none()).map(|row| version(*row, true)));
}
