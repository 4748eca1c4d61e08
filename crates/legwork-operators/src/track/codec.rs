//! Pings in few bits, without loss.
//!
//! Each field is written as its difference from what is expected after the ping before: the same step in time, the same place (in units
//! of 1e-7 degrees where both coordinates are whole multiples of them, else in units of the last place of the doubles), the same
//! accuracy and speed (in hundredths where both are whole ones). A difference takes as many bits as the one
//! before in its field, or says how many it takes. What a ping has at all is said when it changes.
//! *Source* of the idea: Pelkonen et al., "Gorilla: a fast, scalable, in-memory time series database", 2015.

mod reader;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub(crate) use crate::track::codec::reader::{Mark, Reader};
use crate::track::ping::{NO_REP, NO_TIME, Ping};
use crate::track::rope::{Bytes, Rope};

const HAS_SENT: u8 = 1;
const HAS_ACCURACY: u8 = 2;
const HAS_SPEED: u8 = 4;
const HAS_ODOMETER: u8 = 8;
const IS_MOCK: u8 = 16;
const IS_DECIMAL: u8 = 32;
/// Accuracy and speed, where present, are whole hundredths.
const IS_SHORT: u8 = 64;
/// A rep follows.
const NEW_REP: u8 = 128;

/// Units of a decimal coordinate in a degree.
const UNITS: f64 = 1e7;

const TIME: usize = 0;
const LAT: usize = 1;
const LON: usize = 2;
const ACCURACY: usize = 3;
const SPEED: usize = 4;
const ODOMETER: usize = 5;
const SENT: usize = 6;

/// What is expected of the next ping.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Context {
    time_us: i64,
    step_us: i64,
    sent_lag_us: i64,
    lat: f64,
    lon: f64,
    odometer_m: f64,
    accuracy_m: f32,
    speed_mps: f32,
    rep: u32,
    flags: u8,
    /// Bits of the last difference by field, in steps of [`WIDTH_STEP`].
    widths: [u8; 7],
}

/// Times are nearer to 1970 than this, 9,133 years.
const TIME_US_MAX: i64 = 1 << 58;

/// Widths are multiples of so many bits.
const WIDTH_STEP: u32 = 4;

#[inline(always)]
fn n_bits(width: u8) -> u32 {
    (u32::from(width) * WIDTH_STEP).min(u64::BITS)
}

const START: Context = Context {
    time_us: 0,
    step_us: 0,
    sent_lag_us: 0,
    lat: 0.0,
    lon: 0.0,
    odometer_m: 0.0,
    accuracy_m: 0.0,
    speed_mps: 0.0,
    rep: NO_REP,
    flags: 0,
    widths: [0; 7],
};

#[inline(always)]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline(always)]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[inline(always)]
fn units(degrees: f64) -> i64 {
    // Not `round`, which is a call without SSE 4.1: what is not exactly this many units is told apart by its caller anyway.
    (degrees * UNITS + 0.5_f64.copysign(degrees)) as i64
}

/// Whether units hold the value exactly; not so for -0.
#[inline(always)]
fn is_decimal(degrees: f64) -> bool {
    (units(degrees) as f64 / UNITS).to_bits() == degrees.to_bits()
}

/// Difference of coordinates, in units or in last places.
#[inline(always)]
fn difference(from: f64, to: f64, decimal: bool) -> u64 {
    zigzag(if decimal {
        units(to).wrapping_sub(units(from))
    } else {
        (to.to_bits() as i64).wrapping_sub(from.to_bits() as i64)
    })
}

#[inline(always)]
fn moved(from: f64, difference: u64, decimal: bool) -> f64 {
    let difference = unzigzag(difference);
    if decimal {
        units(from).wrapping_add(difference) as f64 / UNITS
    } else {
        f64::from_bits((from.to_bits() as i64).wrapping_add(difference) as u64)
    }
}

/// Whether hundredths hold the value exactly.
#[inline(always)]
fn is_short(value: f32) -> bool {
    (hundredths(value) as f32 / 100.0).to_bits() == value.to_bits()
}

#[inline(always)]
fn hundredths(value: f32) -> i64 {
    (value * 100.0).round_ties_even() as i64
}

/// Difference of accuracies or speeds: in hundredths, or the bits in which they differ, reversed since the last ones are often zero.
#[inline(always)]
fn mixed(before: f32, now: f32, short: bool) -> u64 {
    if short {
        zigzag(hundredths(now).wrapping_sub(hundredths(before)))
    } else {
        u64::from((before.to_bits() ^ now.to_bits()).reverse_bits())
    }
}

#[inline(always)]
fn unmixed(before: f32, mix: u64, short: bool) -> f32 {
    if short {
        hundredths(before).wrapping_add(unzigzag(mix)) as f32 / 100.0
    } else {
        f32::from_bits(before.to_bits() ^ (mix as u32).reverse_bits())
    }
}

/// Bytes that a ping takes at most: flags, rep and seven fields of 70 bits, behind a begun byte and rounded up.
const PING_BYTES_MAX: usize = 80;

/// The bits of one ping, gathered four bytes at a time.
struct Bits {
    bytes: [u8; PING_BYTES_MAX],
    n_bytes: usize,
    word: u64,
    /// Bits in `word`, fewer than 32.
    n: u32,
}

impl Bits {
    /// Appends `n_bits` bits, at most 32. `value` has no others.
    #[inline(always)]
    fn put(&mut self, value: u64, n_bits: u32) {
        self.word |= value << self.n;
        self.n += n_bits;
        if self.n >= 32 {
            self.write_word();
            self.n_bytes += 4;
            self.word >>= 32;
            self.n -= 32;
        }
    }

    #[inline(always)]
    fn write_word(&mut self) {
        self.bytes[self.n_bytes..self.n_bytes + 4].copy_from_slice(&(self.word as u32).to_le_bytes());
    }

    /// All bytes, and how many bits are free in the last one.
    #[inline(always)]
    fn end(&mut self) -> (&[u8], u32) {
        self.write_word();
        let n_rest = self.n.div_ceil(8);
        (&self.bytes[..self.n_bytes + n_rest as usize], n_rest * 8 - self.n)
    }

    /// Appends a difference; `before` is the width of the last one.
    #[inline(always)]
    fn field(&mut self, before: &mut u8, value: u64) {
        let width = (u64::BITS - value.leading_zeros()).div_ceil(WIDTH_STEP) as u8;
        // One step less than before is not worth saying so.
        if width == *before || width + 1 == *before {
            self.put(0, 1);
        } else {
            *before = width;
            self.put(1 | u64::from(width) << 1, 6);
        }
        let n_bits = n_bits(*before);
        self.put(value & u64::from(u32::MAX), n_bits.min(32));
        if n_bits > 32 {
            self.put(value >> 32, n_bits - 32);
        }
    }
}

/// Where a [`Writer`] stands: with it one goes on without reading what was written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    n_free: u32,
    first_us: i64,
    context: Context,
}

impl End {
    /// Whether a writer can stand there, as far as that can be told without reading.
    fn is_plausible(&self) -> bool {
        let times = -TIME_US_MAX..TIME_US_MAX;
        self.n_free < 8
            && self.first_us <= self.context.time_us
            && [self.first_us, self.context.time_us].iter().all(|time| times.contains(time))
    }
}

/// Pings after each other.
#[derive(Clone, Debug)]
pub(crate) struct Writer<B = Rope> {
    bytes: B,
    /// Free bits in the last byte.
    n_free: u32,
    /// Time of the first ping; none is as early as before there is one.
    first_us: i64,
    context: Context,
}

impl Context {
    /// Whether the next ping is written in the same bits.
    #[inline]
    fn is_same(&self, other: &Context) -> bool {
        let numbers = |c: &Context| (c.time_us, c.step_us, c.sent_lag_us, c.rep, c.flags, c.widths);
        let measures = |c: &Context| {
            (c.lat.to_bits(), c.lon.to_bits(), c.odometer_m.to_bits(), c.accuracy_m.to_bits(), c.speed_mps.to_bits())
        };
        numbers(self) == numbers(other) && measures(self) == measures(other)
    }

    /// The ping after which it is this.
    #[inline(always)]
    fn ping(&self) -> Ping {
        let has = |flag: u8| self.flags & flag != 0;
        let held = |flag: u8, value: f32| if has(flag) { value } else { f32::NAN };
        Ping {
            time_us: self.time_us,
            sent_us: if has(HAS_SENT) { self.time_us.wrapping_add(self.sent_lag_us) } else { NO_TIME },
            lat: self.lat,
            lon: self.lon,
            odometer_m: if has(HAS_ODOMETER) { self.odometer_m } else { f64::NAN },
            accuracy_m: held(HAS_ACCURACY, self.accuracy_m),
            speed_mps: held(HAS_SPEED, self.speed_mps),
            battery_pct: f32::NAN,
            rep: self.rep,
            mock: has(IS_MOCK),
        }
    }
}

impl Writer<Vec<u8>> {
    /// One that writes in one piece, for pings of which the chunk is made at once.
    pub(crate) fn in_one_piece(n_pings: usize) -> Writer<Vec<u8>> {
        // Most take fewer; the list is cut to its length in the end.
        Writer { bytes: Vec::with_capacity(16 * n_pings), n_free: 0, first_us: i64::MIN, context: START }
    }

    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.bytes.into_boxed_slice()
    }

    /// One that goes on after it.
    pub(crate) fn into_pieces(self) -> Writer {
        let Writer { bytes, n_free, first_us, context } = self;
        Writer { bytes: Rope::from(&*bytes), n_free, first_us, context }
    }
}

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer { bytes: Rope::default(), n_free: 0, first_us: i64::MIN, context: START }
    }

    /// Goes on after pings that were written before. None when they are damaged.
    pub(crate) fn after(bytes: &[u8], n_pings: u32) -> Option<Writer> {
        // A ping takes four bits at least.
        if n_pings as usize > 2 * bytes.len() {
            return None;
        }
        let mut reader = Reader::new(bytes, n_pings);
        let (mut first_us, mut before_us) = (i64::MIN, -TIME_US_MAX);
        for ping in reader.by_ref() {
            if ping.time_us <= before_us || ping.time_us >= TIME_US_MAX {
                return None;
            }
            if first_us == i64::MIN {
                first_us = ping.time_us;
            }
            before_us = ping.time_us;
        }
        let n_free = (reader.at_bit.next_multiple_of(8) - reader.at_bit) as u32;
        let is_whole = reader.at_bit.div_ceil(8) == bytes.len();
        is_whole.then(|| Writer { bytes: Rope::from(bytes), n_free, first_us, context: reader.context })
    }

    /// Goes on where another stood that had written these bytes: their checksum was compared. None when that cannot be.
    pub(crate) fn resume(bytes: &[u8], n_pings: u32, end: End) -> Option<Writer> {
        let End { n_free, first_us, context } = end;
        // A ping takes four bits at least.
        let can_be = end.is_plausible() && (1..=2 * bytes.len()).contains(&(n_pings as usize));
        can_be.then(|| Writer { bytes: Rope::from(bytes), n_free, first_us, context })
    }

    /// None before the first ping.
    pub(crate) fn end(&self) -> Option<End> {
        let Writer { n_free, first_us, context, .. } = *self;
        (first_us != i64::MIN).then_some(End { n_free, first_us, context })
    }

    /// The bytes, as [`Reader`] takes them.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        self.bytes.bytes()
    }

    pub(crate) fn bytes_from(&self, first: usize) -> Cow<'_, [u8]> {
        self.bytes.bytes_from(first)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.memory_bytes()
    }

    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.bytes.bytes().into()
    }
}

impl<B: Bytes> Writer<B> {
    /// The last ping written, without its battery. Meaningless before the first.
    #[inline]
    pub(crate) fn last(&self) -> Ping {
        self.context.ping()
    }

    #[inline]
    pub(crate) fn last_time_us(&self) -> i64 {
        self.context.time_us
    }

    #[inline]
    pub(crate) fn first_us(&self) -> i64 {
        self.first_us
    }

    /// The last byte: reading it fetches what is written to next.
    #[inline(always)]
    pub(crate) fn last_byte(&self) -> u8 {
        self.bytes.last().unwrap_or(0)
    }

    /// Begins after what is written.
    #[inline(always)]
    fn begin(&mut self, time_us: i64) -> Bits {
        let last = self.bytes.last();
        if last.is_none() {
            self.first_us = time_us;
        }
        let (n, word) = if self.n_free > 0 { (8 - self.n_free, u64::from(last.unwrap_or(0))) } else { (0, 0) };
        Bits { bytes: [0; PING_BYTES_MAX], n_bytes: 0, word, n }
    }

    #[inline(always)]
    fn take(&mut self, mut bits: Bits) {
        let (mut bytes, n_free) = bits.end();
        if self.n_free > 0 {
            self.bytes.set_last(bytes[0]);
            bytes = &bytes[1..];
        }
        self.bytes.extend(bytes);
        self.n_free = n_free;
    }

    /// Writes the ping that `reader` read last: as [`Writer::push`] does, but copies its bits where the same was expected of it.
    #[inline]
    pub(crate) fn copy(&mut self, ping: &Ping, reader: &Reader<'_>, before: &Mark) {
        if !self.context.is_same(&before.context) {
            return self.push(ping);
        }
        let mut bits = self.begin(ping.time_us);
        let (mut at_bit, end_bit) = (before.at_bit - 8 * reader.n_before, reader.at_bit);
        while at_bit < end_bit {
            let n_bits = (end_bit - at_bit).min(32);
            bits.put(reader.peek_at(at_bit) & ((1 << n_bits) - 1), n_bits as u32);
            at_bit += n_bits;
        }
        self.context = reader.context;
        self.take(bits);
    }

    /// Writes a ping later than the one before. Its battery is not kept.
    pub(crate) fn push(&mut self, ping: &Ping) {
        let before = self.context;
        let mut flags = 0;
        let has = |condition: bool, flag: u8| if condition { flag } else { 0 };
        flags |= has(ping.sent_us != NO_TIME, HAS_SENT);
        flags |= has(!ping.accuracy_m.is_nan(), HAS_ACCURACY);
        flags |= has(!ping.speed_mps.is_nan(), HAS_SPEED);
        flags |= has(!ping.odometer_m.is_nan(), HAS_ODOMETER);
        flags |= has(ping.mock, IS_MOCK);
        let decimal = is_decimal(ping.lat) && is_decimal(ping.lon);
        flags |= has(decimal, IS_DECIMAL);
        let has_short = |value: f32| value.is_nan() || is_short(value);
        let short = has_short(ping.accuracy_m) && has_short(ping.speed_mps);
        flags |= has(short, IS_SHORT);
        flags |= has(ping.rep != before.rep, NEW_REP);
        let mut bits = self.begin(ping.time_us);
        let now = &mut self.context;
        if flags == before.flags {
            bits.put(0, 1);
        } else {
            bits.put(1 | u64::from(flags) << 1, 9);
        }
        if flags & NEW_REP != 0 {
            bits.put(u64::from(ping.rep), 32);
        }
        (now.time_us, now.lat, now.lon) = (ping.time_us, ping.lat, ping.lon);
        (now.rep, now.flags) = (ping.rep, flags & !NEW_REP);
        now.step_us = ping.time_us.wrapping_sub(before.time_us);
        bits.field(&mut now.widths[TIME], zigzag(now.step_us.wrapping_sub(before.step_us)));
        bits.field(&mut now.widths[LAT], difference(before.lat, ping.lat, decimal));
        bits.field(&mut now.widths[LON], difference(before.lon, ping.lon, decimal));
        if flags & HAS_ACCURACY != 0 {
            now.accuracy_m = ping.accuracy_m;
            bits.field(&mut now.widths[ACCURACY], mixed(before.accuracy_m, ping.accuracy_m, short));
        }
        if flags & HAS_SPEED != 0 {
            now.speed_mps = ping.speed_mps;
            bits.field(&mut now.widths[SPEED], mixed(before.speed_mps, ping.speed_mps, short));
        }
        if flags & HAS_ODOMETER != 0 {
            now.odometer_m = ping.odometer_m;
            bits.field(&mut now.widths[ODOMETER], difference(before.odometer_m, ping.odometer_m, false));
        }
        if flags & HAS_SENT != 0 {
            now.sent_lag_us = ping.sent_us.wrapping_sub(ping.time_us);
            bits.field(&mut now.widths[SENT], zigzag(now.sent_lag_us.wrapping_sub(before.sent_lag_us)));
        }
        self.take(bits);
    }
}
