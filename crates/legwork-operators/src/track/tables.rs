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
use crate::track::coverage::Coverage;
use crate::track::device::Device;
use crate::track::fold::Params;
use crate::track::names::Names;
use crate::track::ping::{NO_REP, Ping};
use crate::track::rows::{Row, Stay, Trip};

/// Rows that a chunk aims at.
const CHUNK_LEN: usize = 4096;

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

/// A row with its device.
struct Of<'a, T> {
    id: u32,
    device: &'a Device,
    row: T,
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

    fn is_open(&self, device: &Device, window_end_us: i64) -> bool {
        let clock_us = device.clock_us().unwrap_or(i64::MIN);
        self.clock.is_open(&self.time, window_end_us, clock_us, device.lane_then_us)
    }

    fn movement(&self, rows: &[Of<'_, Row>], column: &str) -> ArrayRef {
        let end = |row: &Row| row.window_us + self.time.window_us;
        match column {
            "device_id" => texts(rows.iter().map(|r| Some(self.devices.get(r.id)))),
            "rep_id" => texts(rows.iter().map(|r| rep_name(&self.reps, r.row.rep))),
            "window_start" => times(rows.iter().map(|r| Some(r.row.window_us))),
            "window_end" => times(rows.iter().map(|r| Some(end(&r.row)))),
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
            "is_open" => flags(rows.iter().map(|r| self.is_open(r.device, end(&r.row)))),
            "revision" => counts(rows.iter().map(|r| r.row.revision)),
            other => unreachable!("device_movement has no column {other}"),
        }
    }

    fn positions(&self, rows: &[Of<'_, Ping>], column: &str) -> ArrayRef {
        match column {
            "device_id" => texts(rows.iter().map(|r| Some(self.devices.get(r.id)))),
            "rep_id" => texts(rows.iter().map(|r| rep_name(&self.reps, r.row.rep))),
            "event_time" => times(rows.iter().map(|r| Some(r.row.time_us))),
            "lat" => measures(rows.iter().map(|r| r.row.lat)),
            "lon" => measures(rows.iter().map(|r| r.row.lon)),
            "accuracy_m" => opt_measures(rows.iter().map(|r| f64::from(r.row.accuracy_m))),
            "speed_mps" => opt_measures(rows.iter().map(|r| f64::from(r.row.speed_mps))),
            "battery_pct" => opt_measures(rows.iter().map(|r| f64::from(r.row.battery_pct))),
            other => unreachable!("rep_positions has no column {other}"),
        }
    }

    fn stays(&self, rows: &[Of<'_, Stay>], column: &str) -> ArrayRef {
        match column {
            "device_id" => texts(rows.iter().map(|r| Some(self.devices.get(r.id)))),
            "rep_id" => texts(rows.iter().map(|r| rep_name(&self.reps, r.row.rep))),
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

    fn trips(&self, rows: &[Of<'_, Trip>], column: &str) -> ArrayRef {
        match column {
            "device_id" => texts(rows.iter().map(|r| Some(self.devices.get(r.id)))),
            "rep_id" => texts(rows.iter().map(|r| rep_name(&self.reps, r.row.rep))),
            "trip_start" => times(rows.iter().map(|r| Some(r.row.start_us))),
            "trip_end" => times(rows.iter().map(|r| Some(r.row.end_us))),
            "distance_m" => measures(rows.iter().map(|r| r.row.distance_m)),
            "n_pings" => counts(rows.iter().map(|r| r.row.n_pings)),
            "is_open" => flags(rows.iter().map(|r| r.row.is_open && self.is_open(r.device, r.row.end_us))),
            other => unreachable!("trips has no column {other}"),
        }
    }

    fn coverage(&self, rows: &[Of<'_, Coverage>], column: &str) -> ArrayRef {
        match column {
            "device_id" => texts(rows.iter().map(|r| Some(self.devices.get(r.id)))),
            "day" => times(rows.iter().map(|r| Some(r.row.day_us))),
            "h3_cell" => {
                let cells: Vec<String> = rows.iter().map(|r| format!("{:x}", r.row.cell)).collect();
                texts(cells.iter().map(|cell| Some(cell.as_str())))
            }
            "n_pings" => counts(rows.iter().map(|r| r.row.n_pings)),
            "first_fix_time" => times(rows.iter().map(|r| Some(r.row.first_us))),
            "last_fix_time" => times(rows.iter().map(|r| Some(r.row.last_us))),
            other => unreachable!("device_coverage has no column {other}"),
        }
    }

    fn columns(&self, chunk: Range<usize>, names: &[&str]) -> (usize, Vec<ArrayRef>) {
        let devices: Vec<(u32, Cow<'_, Device>)> = self.devices_of(chunk).collect();
        let devices = || devices.iter().map(|(id, device)| (*id, device.as_ref()));
        match self.table {
            Table::DeviceMovement => {
                let rows: Vec<_> = devices()
                    .flat_map(|(id, device)| device.rows.movement().map(move |row| Of { id, device, row }))
                    .collect();
                (rows.len(), names.iter().map(|name| self.movement(&rows, name)).collect())
            }
            Table::RepPositions => {
                let rows: Vec<_> =
                    devices().filter_map(|(id, device)| device.newest().map(|row| Of { id, device, row })).collect();
                (rows.len(), names.iter().map(|name| self.positions(&rows, name)).collect())
            }
            Table::Stays => {
                let of = |(id, device): (u32, _)| all_stays(device).map(move |row| Of { id, device, row });
                let rows: Vec<_> = devices().flat_map(of).collect();
                (rows.len(), names.iter().map(|name| self.stays(&rows, name)).collect())
            }
            Table::Trips => {
                let of = |(id, device): (u32, _)| all_trips(device).map(move |row| Of { id, device, row });
                let rows: Vec<_> = devices().flat_map(of).collect();
                (rows.len(), names.iter().map(|name| self.trips(&rows, name)).collect())
            }
            _ => {
                let of =
                    |(id, device)| coverage_of(device, &self.params).into_iter().map(move |row| Of { id, device, row });
                let rows: Vec<_> = devices().flat_map(of).collect();
                (rows.len(), names.iter().map(|name| self.coverage(&rows, name)).collect())
            }
        }
    }
}

fn n_rows_of(table: Table, device: &Device) -> usize {
    match table {
        Table::RepPositions => usize::from(device.clock_us().is_some()),
        Table::Stays => device.rows.stays().len() + usize::from(device.state().under_way().0.is_some()),
        Table::Trips => device.rows.trips().len() + usize::from(device.state().under_way().1.is_some()),
        _ => device.rows.n_movement(),
    }
}

fn all_stays(device: &Device) -> impl Iterator<Item = Stay> {
    device.rows.stays().iter().copied().chain(device.state().under_way().0)
}

fn all_trips(device: &Device) -> impl Iterator<Item = Trip> {
    device.rows.trips().iter().copied().chain(device.state().under_way().1)
}

/// Kept fixes by day and cell.
fn coverage_of(device: &Device, params: &Params) -> Vec<Coverage> {
    let mut list = device.past_coverage().to_vec();
    Coverage::add_all(&mut list, device.explain(params).iter());
    list
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
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let (n_rows, columns) = self.columns(self.chunks[chunk_idx].clone(), &names);
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        RecordBatch::try_new_with_options(schema, columns, &options).expect("columns are built after the schema")
    }
}

pub(crate) fn rep_name(reps: &Names, rep: u32) -> Option<&str> {
    (rep != NO_REP).then(|| reps.get(rep))
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
