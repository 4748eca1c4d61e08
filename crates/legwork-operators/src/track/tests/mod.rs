//! The operator against a naive one, against itself in other orders of arrival, on recorded and on simulated tracks.

mod checkpoints;
mod geolife;
mod gpx;
mod measure;
mod oracle;
mod properties;
mod simulated;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{EventBatch, Kind, Table, Verdicts, gps};

use super::{TABLES, Track, TrackConfig};
use crate::Operator;

/// A ping as a test writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Event {
    pub(super) device: String,
    pub(super) rep: Option<String>,
    pub(super) time_us: i64,
    pub(super) sent_us: Option<i64>,
    pub(super) lat: f64,
    pub(super) lon: f64,
    pub(super) accuracy_m: Option<f32>,
    pub(super) speed_mps: Option<f32>,
    pub(super) odometer_m: Option<f64>,
    pub(super) battery_pct: Option<f32>,
    pub(super) mock: Option<bool>,
}

pub(super) fn batch(events: &[Event]) -> EventBatch {
    let schema = Kind::Gps.schema();
    let times = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let f32s =
        |get: fn(&Event) -> Option<f32>| -> ArrayRef { Arc::new(events.iter().map(get).collect::<Float32Array>()) };
    let mut columns: Vec<ArrayRef> =
        schema.fields().iter().map(|f| new_null_array(f.data_type(), events.len())).collect();
    let empty: ArrayRef = Arc::new(StringArray::from(vec![""; events.len()]));
    columns[gps::EVENT_ID] = empty.clone();
    columns[gps::SOURCE] = empty;
    columns[gps::EVENT_TIME] = times(events.iter().map(|e| Some(e.time_us)).collect());
    columns[gps::SENT_TIME] = times(events.iter().map(|e| e.sent_us).collect());
    columns[gps::DEVICE_ID] = Arc::new(StringArray::from_iter_values(events.iter().map(|e| &e.device)));
    columns[gps::REP_ID] = Arc::new(events.iter().map(|e| e.rep.as_deref()).collect::<StringArray>());
    columns[gps::LAT] = Arc::new(Float64Array::from_iter_values(events.iter().map(|e| e.lat)));
    columns[gps::LON] = Arc::new(Float64Array::from_iter_values(events.iter().map(|e| e.lon)));
    columns[gps::ACCURACY_M] = f32s(|e| e.accuracy_m);
    columns[gps::SPEED_MPS] = f32s(|e| e.speed_mps);
    columns[gps::BATTERY_PCT] = f32s(|e| e.battery_pct);
    columns[gps::ODOMETER_M] = Arc::new(events.iter().map(|e| e.odometer_m).collect::<Float64Array>());
    columns[gps::MOCK] = Arc::new(events.iter().map(|e| e.mock).collect::<BooleanArray>());
    EventBatch {
        kind: Kind::Gps,
        topic: "gps".into(),
        partition: 0,
        columns: RecordBatch::try_new(schema, columns).unwrap(),
        offsets: (0..events.len() as i64).collect(),
        arrival_us: events.iter().map(|e| e.time_us).collect(),
        keys: None,
    }
}

/// An operator with the clock of its lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) track: Track,
    pub(super) clock: LaneClock,
}

impl Lane {
    pub(super) fn new(time: TimeConfig, config: TrackConfig) -> Lane {
        Lane { track: Track::new(time, config), clock: LaneClock::START }
    }

    /// With chunks of another length, so that boundaries fall elsewhere.
    pub(super) fn with_chunks(time: TimeConfig, config: TrackConfig, chunk_len: u32) -> Lane {
        let mut lane = Lane::new(time, config);
        lane.track.params.chunk_len = chunk_len;
        lane
    }

    pub(super) fn apply(&mut self, events: &[Event]) -> Verdicts {
        let newest = events.iter().map(|e| e.time_us).max().unwrap_or(i64::MIN);
        self.clock.newest_us = self.clock.newest_us.max(newest);
        self.track.apply(&batch(events), &self.clock)
    }

    /// All rows of a table.
    pub(super) fn rows(&mut self, table: &str) -> Vec<Vec<Cell>> {
        let clock = LaneClock { ended: true, ..self.clock };
        let snapshot = self.track.snapshot(table, &clock).unwrap();
        let batches: Vec<_> = (0..snapshot.n_chunks()).map(|chunk| snapshot.chunk(chunk, None)).collect();
        assert_eq!(snapshot.n_rows(), batches.iter().map(RecordBatch::num_rows).sum::<usize>());
        let mut rows: Vec<_> = batches.iter().flat_map(cells).collect();
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows
    }

    /// All tables, without the revision; coverage summed over its parts.
    pub(super) fn tables(&mut self) -> Vec<(&'static str, Vec<Vec<Cell>>)> {
        let mut tables = Vec::new();
        for table in TABLES {
            let mut rows = self.rows(table.name());
            if table == Table::DeviceCoverage {
                rows = covered(&rows);
            }
            if let Ok(column) = table.schema().index_of("revision") {
                rows.iter_mut().for_each(|row| row[column] = Cell::Null);
            }
            tables.push((table.name(), rows));
        }
        tables
    }
}

/// Coverage summed over its parts.
pub(super) fn covered(rows: &[Vec<Cell>]) -> Vec<Vec<Cell>> {
    let mut sums: BTreeMap<String, Vec<Cell>> = BTreeMap::new();
    for row in rows {
        let key = format!("{:?}", &row[..3]);
        let sum = sums.entry(key).or_insert_with(|| {
            let mut sum = row.clone();
            (sum[3], sum[4]) = (Cell::Null, Cell::Int(0));
            sum
        });
        sum[4] = Cell::Int((sum[4].float() + row[4].float()) as i64);
        sum[5] = Cell::Int((sum[5].float()).min(row[5].float()) as i64);
        sum[6] = Cell::Int((sum[6].float()).max(row[6].float()) as i64);
    }
    sums.into_values().collect()
}

/// A value of a table.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(super) enum Cell {
    Null,
    Text(String),
    Int(i64),
    Float(f64),
    Flag(bool),
}

impl Cell {
    pub(super) fn float(&self) -> f64 {
        match self {
            Cell::Float(value) => *value,
            Cell::Int(value) => *value as f64,
            other => panic!("expected a number, found {other:?}"),
        }
    }
}

/// A batch by rows.
pub(super) fn cells(batch: &RecordBatch) -> Vec<Vec<Cell>> {
    let cell = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => Cell::Null,
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Timestamp(..) => Cell::Int(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Int64 => Cell::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => Cell::Flag(column.as_boolean().value(row)),
        other => panic!("no table has {other}"),
    };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect()).collect()
}

/// Sum of a column over the rows of a device.
pub(super) fn sum(lane: &mut Lane, table: legwork_types::Table, device: &str, column: &str) -> f64 {
    let column = table.schema().index_of(column).unwrap();
    let rows = lane.rows(table.name());
    rows.iter().filter(|row| row[0] == Cell::Text(device.into())).map(|row| row[column].float()).sum()
}

/// Random numbers, the same on every machine. *Source:* SplitMix64, Steele et al. 2014.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// In 0..1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1, Box and Muller.
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Metres in a degree of latitude.
pub(super) const DEGREE_M: f64 = 111_195.08;

/// A position so many metres north and east of 52 N, 13 E.
pub(super) fn place(north_m: f64, east_m: f64) -> (f64, f64) {
    (52.0 + north_m / DEGREE_M, 13.0 + east_m / (DEGREE_M * 52f64.to_radians().cos()))
}
