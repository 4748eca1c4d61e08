//! W1, the reference workload: fixes of many reps over some hours, arriving in slight disorder, as small Confluent-framed messages.
//!
//! It comes slice by slice of event time: memory holds one slice and what of earlier ones has not arrived yet.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use legwork_types::time::{HOUR_US, MINUTE_US, SECOND_US};
use legwork_types::{Kind, gps};

use crate::dice::Dice;

/// Avro schema (JSON) with which [`W1::framed`] writes: what a frugal phone would send. `event_id` and `source` are absent, so the
/// message's place and topic stand in.
pub const W1_SCHEMA: &str = r#"{"type":"record","name":"GpsPing","namespace":"legwork.v1","fields":[
{"name":"device_id","type":"string"},
{"name":"rep_id","type":["null","string"],"default":null},
{"name":"event_time","type":{"type":"long","logicalType":"timestamp-micros"}},
{"name":"lat","type":"double"},
{"name":"lon","type":"double"},
{"name":"accuracy_m","type":["null","float"],"default":null},
{"name":"speed_mps","type":["null","float"],"default":null}]}"#;

/// Metres in 1e-7 degrees of a meridian.
const E7_PER_METRE: f64 = 1e7 * 180.0 / (legwork_types::geo::EARTH_RADIUS_M * std::f64::consts::PI);
/// How much of a speed is left at the next fix, and how much may be added, metres per second: never above 57.
const KEPT_SPEED: f64 = 0.9;
const FRESH_SPEED_MPS: f64 = 4.0;

/// Size and shape of the workload.
#[derive(Clone, Debug, PartialEq)]
pub struct W1Config {
    /// Seed of all chance.
    pub seed: u64,
    /// Reps, each with one device.
    pub n_reps: u32,
    /// Fixes of each rep.
    pub pings_per_rep: u32,
    /// Event time of the beginning, microseconds since 1970-01-01 UTC.
    pub start_us: i64,
    /// Event time covered, microseconds.
    pub span_us: i64,
    /// A fix arrives up to so much after its event time, microseconds; the order of arrival is that of the sums.
    pub disorder_us: i64,
    /// Share of the fixes that arrive later than that.
    pub late_share: f64,
    /// Those arrive up to so much after their event time, microseconds.
    pub late_us_max: i64,
    /// Rows of a batch.
    pub batch_rows: usize,
}

impl Default for W1Config {
    /// 5,000,000 fixes: 10,000 reps with 500 each in 2 h from 2026-01-05T08:00:00Z on, up to 30 s late, none of them later.
    fn default() -> W1Config {
        W1Config {
            seed: 1,
            n_reps: 10_000,
            pings_per_rep: 500,
            start_us: 1_767_600_000 * SECOND_US,
            span_us: 2 * HOUR_US,
            disorder_us: 30 * SECOND_US,
            late_share: 0.0,
            late_us_max: 6 * HOUR_US,
            batch_rows: 65_536,
        }
    }
}

impl W1Config {
    /// Fixes in all.
    pub fn n_pings(&self) -> u64 {
        u64::from(self.n_reps) * u64::from(self.pings_per_rep)
    }
}

/// Takes key, value and event time (microseconds) of a framed message.
pub type FramedSink<'a> = &'a mut dyn FnMut(&[u8], &[u8], i64);

/// One fix, in arrival order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct W1Ping {
    /// Number of the rep; its ids are `r<number>` and `d<number>`.
    pub rep: u32,
    /// Event time, microseconds since 1970-01-01 UTC.
    pub event_time_us: i64,
    /// When it arrives, microseconds since 1970-01-01 UTC; never falling from one fix to the next.
    pub arrival_us: i64,
    /// Latitude, 1e-7 degrees.
    pub lat_e7: i32,
    /// Longitude, 1e-7 degrees.
    pub lon_e7: i32,
    /// Accuracy, metres.
    pub accuracy_m: f32,
    /// Speed, metres per second.
    pub speed_mps: f32,
}

#[derive(Debug)]
struct Walker {
    last_us: i64,
    lat_e7: f64,
    lon_e7: f64,
    /// 1e-7 degrees of longitude in a metre.
    lon_e7_per_m: f64,
    east_mps: f64,
    north_mps: f64,
}

/// The workload from a configuration: fixes one by one, canonical batches, or framed messages; whichever is asked takes from the same
/// stream.
#[derive(Debug)]
pub struct W1 {
    config: W1Config,
    dice: Dice,
    walkers: Vec<Walker>,
    /// Fixes of each rep made so far.
    n_made: u32,
    /// Made and not yet handed out, latest arrival first.
    waiting: Vec<W1Ping>,
    /// Those at the end of `waiting` that can have no one before them any more.
    n_ready: usize,
}

impl W1 {
    /// Places the reps; makes no fixes yet.
    pub fn new(config: W1Config) -> W1 {
        let mut dice = Dice::new(config.seed, 41);
        let walkers = (0..config.n_reps)
            .map(|_| {
                let (lat, lon) = (dice.between(-55.0, 60.0), dice.between(-170.0, 170.0));
                Walker {
                    last_us: config.start_us,
                    lat_e7: (lat * 1e7).round(),
                    lon_e7: (lon * 1e7).round(),
                    lon_e7_per_m: E7_PER_METRE / lat.to_radians().cos(),
                    east_mps: dice.between(-8.0, 8.0),
                    north_mps: dice.between(-8.0, 8.0),
                }
            })
            .collect();
        W1 { config, dice, walkers, n_made: 0, waiting: Vec::new(), n_ready: 0 }
    }

    /// The configuration.
    pub fn config(&self) -> &W1Config {
        &self.config
    }

    /// The next fix in arrival order.
    pub fn next_ping(&mut self) -> Option<W1Ping> {
        while self.n_ready == 0 {
            if self.n_made == self.config.pings_per_rep {
                self.n_ready = self.waiting.len();
                break;
            }
            self.make_slice();
        }
        let ping = self.waiting.pop()?;
        self.n_ready -= 1;
        Some(ping)
    }

    /// Hands the rest out as Confluent-framed Avro of [`W1_SCHEMA`]: `sink` gets key, value and event time, microseconds. The slices
    /// live only during the call.
    pub fn framed(&mut self, schema_id: u32, sink: FramedSink<'_>) {
        let mut value = Vec::with_capacity(64);
        let mut key = Vec::with_capacity(16);
        while let Some(ping) = self.next_ping() {
            key.clear();
            key.push(b'd');
            push_decimal(&mut key, ping.rep);
            value.clear();
            value.push(0);
            value.extend_from_slice(&schema_id.to_be_bytes());
            push_body(&mut value, &key, &ping);
            sink(&key, &value, ping.event_time_us);
        }
    }

    /// Makes the next fixes of every rep. Event time is cut into as many cells as a rep has fixes, one fix in each, so that those of a
    /// slice all lie before those of the next.
    fn make_slice(&mut self) {
        let config = &self.config;
        let cell_us = (config.span_us / i64::from(config.pings_per_rep)).max(1);
        let n_cells = (MINUTE_US / cell_us).clamp(1, i64::from(config.pings_per_rep - self.n_made)) as u32;
        for (rep, walker) in self.walkers.iter_mut().enumerate() {
            for cell in self.n_made..self.n_made + n_cells {
                // The last fifth of a cell stays empty: two fixes are never so close that rounding looks like speed.
                let within_us = self.dice.between_i64(0, (cell_us * 4 / 5).max(1));
                let event_time_us = config.start_us + cell_us * i64::from(cell) + within_us;
                // Who asks for no late ones gets the fixes that he got before there were any.
                let is_late = config.late_share > 0.0 && self.dice.chance(config.late_share);
                let late_us_max = if is_late { config.late_us_max } else { config.disorder_us };
                let late_us = self.dice.between_i64(0, late_us_max.max(1));
                self.waiting.push(walker.walk(rep as u32, event_time_us, event_time_us + late_us, &mut self.dice));
            }
        }
        self.n_made += n_cells;
        self.waiting.sort_unstable_by_key(|ping| std::cmp::Reverse((ping.arrival_us, ping.rep, ping.event_time_us)));
        let next_slice_us = self.config.start_us + cell_us * i64::from(self.n_made);
        self.n_ready = self.waiting.len() - self.waiting.partition_point(|ping| ping.arrival_us >= next_slice_us);
    }

    fn batch(&self, pings: &[W1Ping]) -> RecordBatch {
        let schema = Kind::Gps.schema();
        let mut columns: Vec<ArrayRef> =
            schema.fields().iter().map(|field| new_null_array(field.data_type(), pings.len())).collect();
        let texts = |prefix: &str| {
            let mut texts = StringBuilder::with_capacity(pings.len(), pings.len() * 7);
            for ping in pings.iter().filter(|_| !prefix.is_empty()) {
                write!(texts, "{prefix}{}", ping.rep).expect("writing into memory does not fail");
                texts.append_value("");
            }
            (0..pings.len()).filter(|_| prefix.is_empty()).for_each(|_| texts.append_value(""));
            Arc::new(texts.finish()) as ArrayRef
        };
        let degrees = |e7: fn(&W1Ping) -> i32| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(pings.iter().map(|ping| f64::from(e7(ping)) / 1e7)))
        };
        let times = TimestampMicrosecondArray::from_iter_values(pings.iter().map(|ping| ping.event_time_us));
        columns[gps::EVENT_ID] = texts("");
        columns[gps::SOURCE] = texts("");
        columns[gps::EVENT_TIME] = Arc::new(times.with_timezone("UTC"));
        columns[gps::DEVICE_ID] = texts("d");
        columns[gps::REP_ID] = texts("r");
        columns[gps::LAT] = degrees(|ping| ping.lat_e7);
        columns[gps::LON] = degrees(|ping| ping.lon_e7);
        columns[gps::ACCURACY_M] = Arc::new(Float32Array::from_iter_values(pings.iter().map(|ping| ping.accuracy_m)));
        columns[gps::SPEED_MPS] = Arc::new(Float32Array::from_iter_values(pings.iter().map(|ping| ping.speed_mps)));
        RecordBatch::try_new(schema, columns).expect("the columns are canonical")
    }
}

/// Canonical batches of `batch_rows` rows in arrival order; the last may be shorter.
impl Iterator for W1 {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let n_rows = self.config.batch_rows.max(1);
        let pings: Vec<W1Ping> = std::iter::from_fn(|| self.next_ping()).take(n_rows).collect();
        (!pings.is_empty()).then(|| self.batch(&pings))
    }
}

impl Walker {
    fn walk(&mut self, rep: u32, event_time_us: i64, arrival_us: i64, dice: &mut Dice) -> W1Ping {
        let seconds = (event_time_us - self.last_us) as f64 / 1e6;
        self.last_us = event_time_us;
        // Two throws and the accuracy out of one number.
        let bits = dice.bits();
        let throw = |bits: u64| (bits & 0xf_ffff) as f64 / f64::from(1 << 20);
        self.east_mps = self.east_mps * KEPT_SPEED + FRESH_SPEED_MPS * (2.0 * throw(bits) - 1.0);
        self.north_mps = self.north_mps * KEPT_SPEED + FRESH_SPEED_MPS * (2.0 * throw(bits >> 20) - 1.0);
        self.lat_e7 += (self.north_mps * seconds * E7_PER_METRE).round();
        self.lon_e7 += (self.east_mps * seconds * self.lon_e7_per_m).round();
        let speed_mps = (self.east_mps * self.east_mps + self.north_mps * self.north_mps).sqrt();
        W1Ping {
            rep,
            event_time_us,
            arrival_us,
            lat_e7: self.lat_e7 as i32,
            lon_e7: self.lon_e7 as i32,
            accuracy_m: 4.0 + ((bits >> 40) & 0x1f) as f32 / 4.0,
            speed_mps: (speed_mps * 10.0).round() as f32 / 10.0,
        }
    }
}

fn push_body(out: &mut Vec<u8>, device_id: &[u8], ping: &W1Ping) {
    // Ids are shorter than 64 bytes, so their lengths take one byte.
    out.push((device_id.len() as u8) << 1);
    out.extend_from_slice(device_id);
    out.push(2);
    out.push((device_id.len() as u8) << 1);
    out.push(b'r');
    out.extend_from_slice(&device_id[1..]);
    let mut zigzag = ((ping.event_time_us << 1) ^ (ping.event_time_us >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
    out.extend_from_slice(&(f64::from(ping.lat_e7) / 1e7).to_le_bytes());
    out.extend_from_slice(&(f64::from(ping.lon_e7) / 1e7).to_le_bytes());
    out.push(2);
    out.extend_from_slice(&ping.accuracy_m.to_le_bytes());
    out.push(2);
    out.extend_from_slice(&ping.speed_mps.to_le_bytes());
}

fn push_decimal(out: &mut Vec<u8>, number: u32) {
    let mut digits = [0u8; 10];
    let mut first = digits.len();
    let mut left = number;
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use apache_avro::Schema;
    use apache_avro::types::Value;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float32Type, Float64Type, TimestampMicrosecondType};
    use legwork_types::geo::haversine_m;

    use super::*;

    fn small() -> W1Config {
        W1Config { n_reps: 1_000, pings_per_rep: 50, span_us: 12 * MINUTE_US, batch_rows: 777, ..W1Config::default() }
    }

    #[test]
    fn counts_order_and_disorder_are_as_promised() {
        let config = small();
        let mut w1 = W1::new(config.clone());
        let pings: Vec<W1Ping> = std::iter::from_fn(|| w1.next_ping()).collect();
        assert_eq!(pings.len() as u64, config.n_pings());
        assert!(pings.is_sorted_by_key(|ping| ping.arrival_us));
        let lateness = |ping: &W1Ping| ping.arrival_us - ping.event_time_us;
        assert!(pings.iter().all(|ping| (0..config.disorder_us).contains(&lateness(ping))));
        assert!(pings.iter().any(|ping| lateness(ping) > config.disorder_us * 99 / 100));
        let late = W1Config { late_share: 0.05, late_us_max: HOUR_US, ..config.clone() };
        let mut w1 = W1::new(late);
        let with_late: Vec<W1Ping> = std::iter::from_fn(|| w1.next_ping()).collect();
        assert_eq!(with_late.len() as u64, config.n_pings());
        assert!(with_late.is_sorted_by_key(|ping| ping.arrival_us));
        let n_late = with_late.iter().filter(|ping| lateness(ping) >= config.disorder_us).count() as u64;
        assert!((config.n_pings() / 25..config.n_pings() / 18).contains(&n_late), "{n_late}");
        let span = config.start_us..config.start_us + config.span_us;
        assert!(pings.iter().all(|ping| span.contains(&ping.event_time_us)));
        let mut by_rep = pings;
        by_rep.sort_by_key(|ping| (ping.rep, ping.event_time_us));
        for pair in by_rep.chunk_by(|a, b| a.rep == b.rep) {
            assert_eq!(pair.len(), 50);
            for legs in pair.windows(2) {
                let seconds = (legs[1].event_time_us - legs[0].event_time_us) as f64 / 1e6;
                let degrees = |e7: i32| f64::from(e7) / 1e7;
                let [a, b] = [&legs[0], &legs[1]].map(|ping| (degrees(ping.lat_e7), degrees(ping.lon_e7)));
                assert!(seconds > 2.0);
                assert!(haversine_m(a.0, a.1, b.0, b.1) / seconds < 60.0);
            }
        }
    }

    #[test]
    fn batches_are_the_same_whatever_their_size() {
        let whole = W1::new(W1Config { batch_rows: usize::MAX, ..small() }).next().unwrap();
        let parts: Vec<RecordBatch> = W1::new(small()).collect();
        assert!(parts.iter().rev().skip(1).all(|batch| batch.num_rows() == 777));
        assert_eq!(arrow::compute::concat_batches(&whole.schema(), &parts).unwrap(), whole);
    }

    #[test]
    fn framed_messages_decode_to_the_rows_and_have_about_fifty_bytes() {
        let batch = W1::new(W1Config { batch_rows: usize::MAX, ..small() }).next().unwrap();
        let schema = Schema::parse_str(W1_SCHEMA).unwrap();
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
        let (mut row, mut n_bytes) = (0, 0);
        W1::new(small()).framed(258, &mut |key, value, event_time_us| {
            assert_eq!(value[..5], [0, 0, 0, 1, 2]);
            let mut body = &value[5..];
            let Value::Record(fields) = reader.read_value(&mut body).unwrap() else { panic!() };
            assert!(body.is_empty());
            let some = |value| Value::Union(1, Box::new(value));
            let text = |column: usize| Value::String(batch.column(column).as_string::<i32>().value(row).to_owned());
            let f64s = |column: usize| Value::Double(batch.column(column).as_primitive::<Float64Type>().value(row));
            let f32s = |column: usize| Value::Float(batch.column(column).as_primitive::<Float32Type>().value(row));
            let time_us = batch.column(gps::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().value(row);
            let expected = [
                text(gps::DEVICE_ID),
                some(text(gps::REP_ID)),
                Value::TimestampMicros(time_us),
                f64s(gps::LAT),
                f64s(gps::LON),
                some(f32s(gps::ACCURACY_M)),
                some(f32s(gps::SPEED_MPS)),
            ];
            assert!(fields.into_iter().map(|(_, value)| value).eq(expected));
            assert_eq!(key, batch.column(gps::DEVICE_ID).as_string::<i32>().value(row).as_bytes());
            assert_eq!(event_time_us, time_us);
            row += 1;
            n_bytes += value.len();
        });
        assert_eq!(row as u64, small().n_pings());
        assert!((45..=55).contains(&(n_bytes / row)), "{} bytes a message", n_bytes / row);
    }

    #[test]
    fn another_seed_is_another_workload() {
        let first = |seed| W1::new(W1Config { seed, ..small() }).next().unwrap();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
