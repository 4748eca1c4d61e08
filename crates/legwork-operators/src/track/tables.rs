//! The tables as Arrow, made when they are read.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Table, TableSnapshot};

use crate::track::block::Block;
use crate::track::coverage::Part;
use crate::track::device::Device;
use crate::track::fold::Params;
use crate::track::names::Names;
use crate::track::ping::{NO_REP, Ping};
use crate::track::rows::{Row, Stay, Trip};

/// Rows that a chunk aims at.
const CHUNK_LEN: usize = 4096;

/// What rows are written with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) devices: &'a Names,
    pub(crate) reps: &'a Names,
    pub(crate) time: &'a TimeConfig,
}

/// A row with its device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of<T> {
    pub(crate) id: u32,
    /// The lane's number.
    pub(crate) rep: Option<u32>,
    pub(crate) is_open: bool,
    pub(crate) is_deleted: bool,
    pub(crate) revision: u32,
    pub(crate) row: T,
}

/// A row of some table.
pub(crate) trait TableRow: Sized {
    /// A column of rows that is not in every table.
    fn column(source: &Source<'_>, rows: &[Of<Self>], column: &str) -> ArrayRef;

    /// The device's number of the rep.
    fn rep(&self) -> u32 {
        NO_REP
    }
}

/// A column of rows.
fn column<T: TableRow>(source: &Source<'_>, rows: &[Of<T>], column: &str) -> ArrayRef {
    match column {
        "device_id" => texts(rows.iter().map(|r| Some(source.devices.get(r.id)))),
        "rep_id" => texts(rows.iter().map(|r| r.rep.map(|rep| source.reps.get(rep)))),
        "is_open" => flags(rows.iter().map(|r| r.is_open)),
        "revision" => counts(rows.iter().map(|r| r.revision)),
        "is_deleted" => flags(rows.iter().map(|r| r.is_deleted)),
        other => T::column(source, rows, other),
    }
}

/// Rows in the columns of a schema.
pub(crate) fn batch<T: TableRow>(source: &Source<'_>, schema: SchemaRef, rows: &[Of<T>]) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| column(source, rows, field.name())).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, columns, &options).expect("columns are built after the schema")
}

impl TableRow for Row {
    fn column(source: &Source<'_>, rows: &[Of<Row>], column: &str) -> ArrayRef {
        let window_us = source.time.window_us;
        match column {
            "window_start" => times(rows.iter().map(|r| Some(r.row.window_us))),
            "window_end" => times(rows.iter().map(|r| Some(r.row.window_us + window_us))),
            "n_pings" => counts(rows.iter().map(|r| r.row.n_pings)),
            "raw_m" => measures(rows.iter().map(|r| r.row.raw_m)),
            "distance_m" => measures(rows.iter().map(|r| r.row.distance_m)),
            "gap_m" => measures(rows.iter().map(|r| r.row.rare.gap_m)),
            "moving_s" => measures(rows.iter().map(|r| seconds(r.row.moving_us))),
            "stationary_s" => measures(rows.iter().map(|r| seconds(r.row.still_us))),
            "gap_s" => measures(rows.iter().map(|r| seconds(r.row.rare.gap_us))),
            "speed_mps_max" => opt_measures(rows.iter().map(|r| f64::from(r.row.speed_mps_max))),
            "first_fix_time" => times(rows.iter().map(|r| Some(r.row.first_us))),
            "last_fix_time" => times(rows.iter().map(|r| Some(r.row.last_us))),
            "n_filtered_accuracy" => counts(rows.iter().map(|r| r.row.rare.n_filtered_accuracy)),
            "n_filtered_speed" => counts(rows.iter().map(|r| r.row.rare.n_filtered_speed)),
            "n_filtered_mock" => counts(rows.iter().map(|r| r.row.rare.n_filtered_mock)),
            "odometer_m" => opt_measures(rows.iter().map(|r| r.row.rare.odometer_m.unwrap_or(f64::NAN))),
            other => unreachable!("device_movement has no column {other}"),
        }
    }

    fn rep(&self) -> u32 {
        self.rep
    }
}

impl TableRow for Ping {
    fn column(_source: &Source<'_>, rows: &[Of<Ping>], column: &str) -> ArrayRef {
        match column {
            "event_time" => times(rows.iter().map(|r| Some(r.row.time_us))),
            "lat" => measures(rows.iter().map(|r| r.row.lat)),
            "lon" => measures(rows.iter().map(|r| r.row.lon)),
            "accuracy_m" => opt_measures(rows.iter().map(|r| f64::from(r.row.accuracy_m))),
            "speed_mps" => opt_measures(rows.iter().map(|r| f64::from(r.row.speed_mps))),
            "battery_pct" => opt_measures(rows.iter().map(|r| f64::from(r.row.battery_pct))),
            other => unreachable!("rep_positions has no column {other}"),
        }
    }

    fn rep(&self) -> u32 {
        self.rep
    }
}

impl TableRow for Stay {
    fn column(_source: &Source<'_>, rows: &[Of<Stay>], column: &str) -> ArrayRef {
        match column {
            "stay_start" => times(rows.iter().map(|r| Some(r.row.start_us))),
            "stay_end" => times(rows.iter().map(|r| r.row.has_ended.then_some(r.row.last_us))),
            "lat" => measures(rows.iter().map(|r| r.row.lat)),
            "lon" => measures(rows.iter().map(|r| r.row.lon)),
            "radius_m" => measures(rows.iter().map(|r| r.row.radius_m)),
            "n_pings" => counts(rows.iter().map(|r| r.row.n_pings)),
            "last_fix_time" => times(rows.iter().map(|r| Some(r.row.last_us))),
            other => unreachable!("stays has no column {other}"),
        }
    }

    fn rep(&self) -> u32 {
        self.rep
    }
}

impl TableRow for Trip {
    fn column(_source: &Source<'_>, rows: &[Of<Trip>], column: &str) -> ArrayRef {
        match column {
            "trip_start" => times(rows.iter().map(|r| Some(r.row.start_us))),
            "trip_end" => times(rows.iter().map(|r| Some(r.row.end_us))),
            "distance_m" => measures(rows.iter().map(|r| r.row.distance_m)),
            "n_pings" => counts(rows.iter().map(|r| r.row.n_pings)),
            other => unreachable!("trips has no column {other}"),
        }
    }

    fn rep(&self) -> u32 {
        self.rep
    }
}

impl TableRow for Part {
    fn column(_source: &Source<'_>, rows: &[Of<Part>], column: &str) -> ArrayRef {
        match column {
            "day_start" => times(rows.iter().map(|r| Some(r.row.coverage.day_us))),
            "h3_cell" => {
                let cells: Vec<String> = rows.iter().map(|r| format!("{:x}", r.row.coverage.cell)).collect();
                texts(cells.iter().map(|cell| Some(cell.as_str())))
            }
            "part" => times(rows.iter().map(|r| Some(r.row.part_us))),
            "n_pings" => counts(rows.iter().map(|r| r.row.coverage.n_pings)),
            "first_fix_time" => times(rows.iter().map(|r| Some(r.row.coverage.first_us))),
            "last_fix_time" => times(rows.iter().map(|r| Some(r.row.coverage.last_us))),
            other => unreachable!("device_coverage has no column {other}"),
        }
    }
}

/// What a table held at one moment. It shares the writer's blocks; the writer copies those that it changes meanwhile.
#[derive(Debug)]
pub(crate) struct TrackSnapshot {
    table: Table,
    params: Params,
    time: TimeConfig,
    clock: LaneClock,
    blocks: Vec<Arc<Block>>,
    devices: Names,
    reps: Names,
    chunks: Vec<Range<usize>>,
    n_rows: OnceLock<usize>,
}

impl TrackSnapshot {
    pub(crate) fn new(
        table: Table,
        params: Params,
        time: TimeConfig,
        clock: LaneClock,
        blocks: Vec<Arc<Block>>,
        devices: Names,
        reps: Names,
    ) -> TrackSnapshot {
        let mut chunks = Vec::new();
        let (mut start, mut n_rows) = (0, 0);
        for (block_idx, block) in blocks.iter().enumerate() {
            // Coverage has about as many rows as movement.
            n_rows += block.devices(&params).map(|(_, device)| n_rows_of(table, &device)).sum::<usize>();
            if n_rows >= CHUNK_LEN || block_idx + 1 == blocks.len() {
                chunks.push(start..block_idx + 1);
                (start, n_rows) = (block_idx + 1, 0);
            }
        }
        TrackSnapshot { table, params, time, clock, blocks, devices, reps, chunks, n_rows: OnceLock::new() }
    }

    fn devices_of(&self, chunk: Range<usize>) -> impl Iterator<Item = (u32, Cow<'_, Device>)> {
        self.blocks[chunk].iter().flat_map(|block| block.devices(&self.params))
    }

    /// The rows that `rows` gives of each device of a chunk, as Arrow. `open` gives the end of what may be open.
    fn batch<T: TableRow, I: IntoIterator<Item = T>>(
        &self,
        chunk: Range<usize>,
        schema: SchemaRef,
        rows: impl Fn(&Device) -> I,
        open: impl Fn(&T) -> Option<i64>,
        revision: impl Fn(&T) -> u32,
    ) -> RecordBatch {
        let devices: Vec<(u32, Cow<'_, Device>)> = self.devices_of(chunk).collect();
        let mut list = Vec::new();
        for (id, device) in &devices {
            let (clock_us, is_live) = (device.clock_us(), is_live(&self.time, &self.clock, device.lane_then_us));
            list.extend(rows(device).into_iter().map(|row| Of {
                id: *id,
                rep: device.reps.global(row.rep()),
                is_open: open(&row).is_some_and(|end_us| is_live && is_ahead(&self.time, clock_us, end_us)),
                is_deleted: false,
                revision: revision(&row),
                row,
            }));
        }
        batch(&Source { devices: &self.devices, reps: &self.reps, time: &self.time }, schema, &list)
    }

    fn rows(&self, chunk: Range<usize>, schema: SchemaRef) -> RecordBatch {
        let (params, width_us) = (&self.params, self.time.window_us);
        match self.table {
            Table::DeviceMovement => self.batch(
                chunk,
                schema,
                |device| device.movement(width_us).collect::<Vec<_>>(),
                |row| Some(row.window_us + width_us),
                |row| row.revision,
            ),
            Table::RepPositions => self.batch(chunk, schema, Device::newest, |_| None, |_| 0),
            Table::Stays => self.batch(chunk, schema, |device| device.stays().collect::<Vec<_>>(), |_| None, |_| 0),
            Table::Trips => {
                let open = |trip: &Trip| trip.is_open.then_some(trip.end_us);
                self.batch(chunk, schema, |device| device.trips().collect::<Vec<_>>(), open, |_| 0)
            }
            _ => self.batch(chunk, schema, |device| device.coverage(params), |_| None, |_| 0),
        }
    }
}

/// Whether the lane has heard of a device lately.
pub(crate) fn is_live(time: &TimeConfig, clock: &LaneClock, lane_then_us: i64) -> bool {
    clock.is_open(time, i64::MAX, i64::MIN, lane_then_us)
}

/// Whether what ends at `end_us` may still grow by a device's own clock.
pub(crate) fn is_ahead(time: &TimeConfig, clock_us: Option<i64>, end_us: i64) -> bool {
    clock_us.unwrap_or(i64::MIN) < end_us.saturating_add(time.reorder_bound_us)
}

fn n_rows_of(table: Table, device: &Device) -> usize {
    match table {
        Table::RepPositions => usize::from(device.clock_us().is_some()),
        Table::Stays => device.stays().count(),
        Table::Trips => device.trips().count(),
        _ => device.n_movement(),
    }
}

impl TableSnapshot for TrackSnapshot {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn n_chunks(&self) -> usize {
        self.chunks.len()
    }

    fn n_rows(&self) -> usize {
        *self.n_rows.get_or_init(|| match self.table {
            Table::DeviceCoverage => (0..self.n_chunks()).map(|idx| self.chunk(idx, Some(&[])).num_rows()).sum(),
            table => self.devices_of(0..self.blocks.len()).map(|(_, device)| n_rows_of(table, &device)).sum(),
        })
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema().project(columns).expect("projected columns exist")),
            None => self.schema(),
        };
        self.rows(self.chunks[chunk_idx].clone(), schema)
    }
}

pub(crate) fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

pub(crate) fn texts<'a>(values: impl ExactSizeIterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 12);
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

pub(crate) fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

pub(crate) fn measures(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// NaN becomes null.
pub(crate) fn opt_measures(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(values.map(|value| (!value.is_nan()).then_some(value)).collect::<Float64Array>())
}

pub(crate) fn counts(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(i64::from)))
}

pub(crate) fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}
