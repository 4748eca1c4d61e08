//! Rows of movement that are done, in few bytes and without loss.
//!
//! A row is written after the one before it: mostly of the next window, of the same rep and revision, standing still for the time that
//! was not spent moving since then. What is as expected takes a bit, what is not says so.

use std::borrow::Cow;

use crate::track::ping::NO_REP;
use crate::track::rope::Rope;
use crate::track::rows::{Rare, Row};
use crate::track::varint::{Take, put, put_signed};

const HAS_RARE: u8 = 1;
const NEW_REP: u8 = 2;
const NEW_REVISION: u8 = 4;
/// Not the next window.
const JUMPS: u8 = 8;
/// A speed in whole hundredths follows.
const SHORT_SPEED: u8 = 16;
/// A speed follows.
const LONG_SPEED: u8 = 32;
/// No metres, no time of moving.
const STANDS: u8 = 64;
/// `distance_m` is `raw_m`.
const IS_RAW: u8 = 128;

const HAS_GAP: u8 = 1;
const HAS_ODOMETER: u8 = 2;
const HAS_COUNTS: u8 = 4;

/// What is expected of the next row.
#[derive(Clone, Copy, Debug)]
struct Context {
    last_us: i64,
    rep: u32,
    revision: u32,
}

const START: Context = Context { last_us: 0, rep: NO_REP, revision: 0 };

impl Context {
    fn after(row: &Row) -> Context {
        Context { last_us: row.last_us, rep: row.rep, revision: row.revision }
    }

    /// Time since the row before that was not spent moving.
    fn still_us(&self, last_us: i64, moving_us: i64) -> i64 {
        last_us.wrapping_sub(self.last_us).wrapping_sub(moving_us)
    }
}

/// Rows after each other, in windows of one width.
#[derive(Clone, Debug)]
pub(crate) struct RowWriter {
    bytes: Rope,
    n_rows: u32,
    context: Context,
}

impl Default for RowWriter {
    fn default() -> RowWriter {
        RowWriter { bytes: Rope::default(), n_rows: 0, context: START }
    }
}

fn hundredths(speed_mps: f32) -> i64 {
    (speed_mps * 100.0).round_ties_even() as i64
}

/// Bytes that most rows take at most.
const ROW_BYTES: usize = 48;

impl RowWriter {
    pub(crate) fn push(&mut self, width_us: i64, row: &Row) {
        let context = self.context;
        let window_before_us = legwork_types::time::window_start(context.last_us, width_us);
        let step = (row.window_us - window_before_us) / width_us;
        let is_short = (hundredths(row.speed_mps_max) as f32 / 100.0).to_bits() == row.speed_mps_max.to_bits();
        let stands = row.distance_m.to_bits() == 0 && row.moving_us == 0;
        let is_raw = row.distance_m.to_bits() == row.raw_m.to_bits();
        let has = |condition: bool, flag: u8| if condition { flag } else { 0 };
        let flags = has(row.rare != Rare::default(), HAS_RARE)
            | has(row.rep != context.rep, NEW_REP)
            | has(row.revision != context.revision, NEW_REVISION)
            | has(step != 1, JUMPS)
            | has(!row.speed_mps_max.is_nan(), if is_short { SHORT_SPEED } else { LONG_SPEED })
            | has(stands, STANDS)
            | has(is_raw && !stands, IS_RAW);
        let bytes = &mut Vec::with_capacity(ROW_BYTES);
        bytes.push(flags);
        if flags & NEW_REP != 0 {
            put(bytes, u64::from(row.rep.wrapping_add(1)));
        }
        if flags & NEW_REVISION != 0 {
            put_signed(bytes, i64::from(row.revision) - i64::from(context.revision));
        }
        if flags & JUMPS != 0 {
            put_signed(bytes, step);
        }
        let still_as_expected = row.still_us == context.still_us(row.last_us, row.moving_us);
        put(bytes, u64::from(row.n_pings) << 1 | u64::from(still_as_expected));
        put(bytes, (row.first_us - row.window_us) as u64);
        if row.n_pings > 1 {
            put(bytes, (row.window_us + width_us - row.last_us) as u64);
        }
        bytes.extend_from_slice(&row.raw_m.to_le_bytes());
        if flags & STANDS == 0 {
            put_signed(bytes, row.moving_us);
            if flags & IS_RAW == 0 {
                bytes.extend_from_slice(&row.distance_m.to_le_bytes());
            }
        }
        if !still_as_expected {
            put_signed(bytes, row.still_us);
        }
        if flags & SHORT_SPEED != 0 {
            put_signed(bytes, hundredths(row.speed_mps_max));
        }
        if flags & LONG_SPEED != 0 {
            bytes.extend_from_slice(&row.speed_mps_max.to_le_bytes());
        }
        if flags & HAS_RARE != 0 {
            put_rare(bytes, &row.rare);
        }
        self.bytes.extend(bytes);
        self.n_rows += 1;
        self.context = Context::after(row);
    }

    /// The bytes, as [`RowReader`] takes them.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        self.bytes.bytes()
    }

    pub(crate) fn n_rows(&self) -> u32 {
        self.n_rows
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.memory_bytes()
    }

    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.bytes.bytes().into()
    }

    /// Goes on after rows that were written before. None when they are damaged.
    pub(crate) fn after(width_us: i64, bytes: &[u8], n_rows: u32) -> Option<RowWriter> {
        let mut reader = RowReader::new(width_us, bytes, n_rows);
        let context = reader.by_ref().last().map_or(START, |row| Context::after(&row));
        reader.is_at_end().then(|| RowWriter { bytes: Rope::from(bytes), n_rows, context })
    }
}

fn put_rare(bytes: &mut Vec<u8>, rare: &Rare) {
    let counts = [rare.n_filtered_accuracy, rare.n_filtered_speed, rare.n_filtered_mock];
    let has = |condition: bool, flag: u8| if condition { flag } else { 0 };
    let flags = has(rare.gap_m.to_bits() != 0 || rare.gap_us != 0, HAS_GAP)
        | has(rare.odometer_m.is_some(), HAS_ODOMETER)
        | has(counts != [0; 3], HAS_COUNTS);
    bytes.push(flags);
    if flags & HAS_GAP != 0 {
        bytes.extend_from_slice(&rare.gap_m.to_le_bytes());
        put_signed(bytes, rare.gap_us);
    }
    if let Some(odometer_m) = rare.odometer_m {
        bytes.extend_from_slice(&odometer_m.to_le_bytes());
    }
    if flags & HAS_COUNTS != 0 {
        counts.iter().for_each(|count| put(bytes, u64::from(*count)));
    }
}

fn take_rare(take: &mut Take<'_>) -> Option<Rare> {
    let flags = take.byte()?;
    let mut rare = Rare::default();
    if flags & HAS_GAP != 0 {
        (rare.gap_m, rare.gap_us) = (take.f64()?, take.signed()?);
    }
    if flags & HAS_ODOMETER != 0 {
        rare.odometer_m = Some(take.f64()?);
    }
    if flags & HAS_COUNTS != 0 {
        (rare.n_filtered_accuracy, rare.n_filtered_speed) = (take.u32()?, take.u32()?);
        rare.n_filtered_mock = take.u32()?;
    }
    Some(rare)
}

/// Reads what a [`RowWriter`] wrote; ends early where it is damaged.
#[derive(Clone, Debug)]
pub(crate) struct RowReader<'a> {
    bytes: Cow<'a, [u8]>,
    /// Those before it have been read.
    n_read: usize,
    width_us: i64,
    n_left: u32,
    context: Context,
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(width_us: i64, bytes: impl Into<Cow<'a, [u8]>>, n_rows: u32) -> RowReader<'a> {
        RowReader { bytes: bytes.into(), n_read: 0, width_us, n_left: n_rows, context: START }
    }

    /// Whether all that there was has been read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.n_left == 0 && self.n_read == self.bytes.len()
    }

    fn row(&mut self) -> Option<Row> {
        let (take, context) = (&mut Take(self.bytes.get(self.n_read..)?), &self.context);
        let flags = take.byte()?;
        let rep = if flags & NEW_REP != 0 { take.u32()?.wrapping_sub(1) } else { context.rep };
        let revision = if flags & NEW_REVISION != 0 {
            u32::try_from(i64::from(context.revision).checked_add(take.signed()?)?).ok()?
        } else {
            context.revision
        };
        let step = if flags & JUMPS != 0 { take.signed()? } else { 1 };
        let before_us = legwork_types::time::window_start(context.last_us, self.width_us);
        let window_us = step.checked_mul(self.width_us)?.checked_add(before_us)?;
        let counts = take.number()?;
        let n_pings = u32::try_from(counts >> 1).ok()?;
        let first_us = window_us.checked_add(i64::try_from(take.number()?).ok()?)?;
        let last_us = if n_pings > 1 {
            window_us.checked_add(self.width_us)?.checked_sub(i64::try_from(take.number()?).ok()?)?
        } else {
            first_us
        };
        let raw_m = take.f64()?;
        let (mut moving_us, mut distance_m) = (0, 0.0);
        if flags & STANDS == 0 {
            moving_us = take.signed()?;
            distance_m = if flags & IS_RAW != 0 { raw_m } else { take.f64()? };
        }
        let still_us = if counts & 1 == 1 { context.still_us(last_us, moving_us) } else { take.signed()? };
        let speed_mps_max = if flags & SHORT_SPEED != 0 {
            take.signed()? as f32 / 100.0
        } else if flags & LONG_SPEED != 0 {
            f32::from_le_bytes(take.array()?)
        } else {
            f32::NAN
        };
        let rare = if flags & HAS_RARE != 0 { take_rare(take)? } else { Rare::default() };
        self.n_read = self.bytes.len() - take.0.len();
        let row = Row {
            window_us,
            first_us,
            last_us,
            moving_us,
            still_us,
            raw_m,
            distance_m,
            speed_mps_max,
            rep,
            n_pings,
            revision,
            rare,
        };
        row.is_plausible().then_some(row)
    }
}

impl Iterator for RowReader<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.n_left == 0 {
            return None;
        }
        let row = self.row()?;
        self.n_left -= 1;
        self.context = Context::after(&row);
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.n_left as usize))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::track::rows::DeviceRows;

    const WIDTH_US: i64 = 300_000_000;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), 0.0f64..1e6, (0u32..5).prop_map(f64::from)]
    }

    prop_compose! {
        fn rare()(gap_m in number(), gap_us in prop_oneof![Just(0), 0i64..1 << 40], odometer_m in proptest::option::of(number()),
                  counts in [0u32..3, 0u32..3, 0u32..3], any in any::<bool>()) -> Rare {
            let [n_filtered_accuracy, n_filtered_speed, n_filtered_mock] = counts;
            let rare = Rare { gap_m, gap_us, odometer_m, n_filtered_accuracy, n_filtered_speed, n_filtered_mock };
            if any { rare } else { Rare::default() }
        }
    }

    prop_compose! {
        fn row()(step in prop_oneof![Just(1i64), 0i64..1000], first in 0..WIDTH_US, length in 0..WIDTH_US, n_pings in 1u32..50,
                 times in (0i64..1 << 42, proptest::option::of(prop_oneof![0i64..1 << 40, 0i64..1 << 58])), metres in (number(), number()),
                 speed in prop_oneof![Just(f32::NAN), 0.0f32..80.0, (0u16..9000).prop_map(|n| f32::from(n) / 100.0)],
                 rep in prop_oneof![Just(NO_REP), 0u32..3], revision in 0u32..4, rare in rare()) -> (i64, bool, Row) {
            let last_us = if n_pings == 1 { first } else { (first + length).min(WIDTH_US - 1) };
            let row = Row {
                window_us: 0, first_us: first, last_us, moving_us: times.0, still_us: times.1.unwrap_or(0), raw_m: metres.0,
                distance_m: metres.1, speed_mps_max: speed, rep, n_pings, revision, rare,
            };
            (step, times.1.is_none(), row)
        }
    }

    /// Rows with windows in order, some with the time of standing still that is expected.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec(row(), 0..40).prop_map(|rows| {
            let mut before: Option<Row> = None;
            let place = |(step, as_expected, row): (i64, bool, Row)| {
                let window_us = before.map_or(5_000_000 * WIDTH_US, |before| before.window_us) + step * WIDTH_US;
                let mut row =
                    Row { window_us, first_us: row.first_us + window_us, last_us: row.last_us + window_us, ..row };
                if as_expected && let Some(before) = before {
                    row.still_us = (row.last_us - before.last_us - row.moving_us).max(0);
                }
                before = Some(row);
                row
            };
            rows.into_iter().map(place).collect()
        })
    }

    fn write(rows: &[Row]) -> RowWriter {
        let mut writer = RowWriter::default();
        rows.iter().for_each(|row| writer.push(WIDTH_US, row));
        writer
    }

    fn bits(row: &Row) -> impl PartialEq + std::fmt::Debug + use<> {
        (format!("{row:?}"), row.raw_m.to_bits(), row.distance_m.to_bits(), row.speed_mps_max.to_bits())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in rows(), cut in 0usize..40) {
            let writer = write(&rows);
            let read: Vec<_> = RowReader::new(WIDTH_US, writer.bytes(), writer.n_rows()).map(|row| bits(&row)).collect();
            prop_assert_eq!(read, rows.iter().map(bits).collect::<Vec<_>>());
            let plain: Vec<Row> = rows.iter().map(|row| Row { rare: Rare::default(), ..*row }).collect();
            let held: Vec<_> = DeviceRows::of(&plain).open_rows().map(|row| bits(&row)).collect();
            prop_assert_eq!(held, plain.iter().map(bits).collect::<Vec<_>>());
            // One that goes on writes the same.
            let first = write(&rows[..cut.min(rows.len())]);
            let mut again = RowWriter::after(WIDTH_US, &first.bytes(), first.n_rows()).unwrap();
            rows.iter().skip(cut).for_each(|row| again.push(WIDTH_US, row));
            prop_assert_eq!(again.bytes(), writer.bytes());
        }

        #[test]
        fn damage_ends_it(rows in rows(), at in any::<prop::sample::Index>(), xor in 1u8..=255) {
            let writer = write(&rows);
            let mut bytes = writer.bytes().to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= xor;
            }
            let mut reader = RowReader::new(WIDTH_US, &*bytes, writer.n_rows());
            prop_assert!(reader.by_ref().count() <= rows.len());
            let _ = RowWriter::after(WIDTH_US, &bytes, writer.n_rows());
        }
    }
}
