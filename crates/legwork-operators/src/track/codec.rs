//! Pings in few bits, without loss.
//!
//! Each field is written as its difference from what is expected after the ping before: the same step in time, the same place (in units
//! of 1e-7 degrees where both coordinates are whole multiples of them, else in units of the last place of the doubles), the same
//! accuracy and speed (in hundredths where both are whole ones). A difference takes as many bits as the one
//! before in its field, or says how many it takes. What a ping has at all is said when it changes.
//! *Source* of the idea: Pelkonen et al., "Gorilla: a fast, scalable, in-memory time series database", 2015.

use std::borrow::Cow;

use crate::track::ping::{NO_REP, NO_TIME, Ping};
use crate::track::rope::Rope;

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
#[derive(Clone, Copy, Debug)]
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

/// Times are nearer to 1970 than this, 570 years.
const TIME_US_MAX: i64 = 1 << 54;

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

/// Pings after each other.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    bytes: Rope,
    /// Free bits in the last byte.
    n_free: u32,
    /// Time of the first ping; none is as early as before there is one.
    first_us: i64,
    context: Context,
}

impl Context {
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

impl Writer {
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

    /// The bytes, as [`Reader`] takes them.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        self.bytes.bytes()
    }

    pub(crate) fn bytes_from(&self, first: usize) -> Cow<'_, [u8]> {
        self.bytes.bytes_from(first)
    }

    /// The last byte: reading it fetches what is written to next.
    #[inline(always)]
    pub(crate) fn last_byte(&self) -> u8 {
        self.bytes.last().unwrap_or(0)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.memory_bytes()
    }

    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.bytes.bytes().into()
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
        let (n, word) = if self.n_free > 0 { (8 - self.n_free, u64::from(self.last_byte())) } else { (0, 0) };
        let mut bits = Bits { bytes: [0; PING_BYTES_MAX], n_bytes: 0, word, n };
        if self.bytes.is_empty() {
            self.first_us = ping.time_us;
        }
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
        let (mut bytes, n_free) = bits.end();
        if self.n_free > 0 {
            self.bytes.set_last(bytes[0]);
            bytes = &bytes[1..];
        }
        self.bytes.extend(bytes);
        self.n_free = n_free;
    }
}

/// Bits of a word that begins within a byte.
const PEEKED_BITS: u32 = u64::BITS - 7;

/// Where a [`Reader`] stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at_bit: usize,
    context: Context,
}

impl Mark {
    /// The byte that is read next.
    pub(crate) fn byte(&self) -> usize {
        self.at_bit / 8
    }
}

impl Default for Mark {
    fn default() -> Mark {
        Mark { at_bit: 0, context: START }
    }
}

/// Reads what a [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: Cow<'a, [u8]>,
    /// Bytes before those.
    n_before: usize,
    at_bit: usize,
    n_left: u32,
    context: Context,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: impl Into<Cow<'a, [u8]>>, n_pings: u32) -> Reader<'a> {
        Reader::resume(bytes, n_pings, Mark::default())
    }

    /// Reads the next pings after those that another reader has read. `bytes` begin with the mark's.
    pub(crate) fn resume(bytes: impl Into<Cow<'a, [u8]>>, n_pings: u32, mark: Mark) -> Reader<'a> {
        let (n_before, at_bit) = (mark.byte(), mark.at_bit % 8);
        Reader { bytes: bytes.into(), n_before, at_bit, n_left: n_pings, context: mark.context }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { at_bit: 8 * self.n_before + self.at_bit, context: self.context }
    }

    #[inline]
    fn bits(&mut self, n_bits: u32) -> u64 {
        if n_bits == 0 {
            return 0;
        }
        let mut value = self.peek();
        let (byte, shift) = (self.at_bit / 8, (self.at_bit % 8) as u32);
        self.at_bit += n_bits as usize;
        if n_bits + shift > 64 {
            value |= self.bytes.get(byte + 8).map_or(0, |byte| u64::from(*byte)) << (64 - shift);
        }
        if n_bits == 64 { value } else { value & ((1 << n_bits) - 1) }
    }

    /// The next bits, [`PEEKED_BITS`] at least; zeros behind the last byte.
    #[inline(always)]
    fn peek(&self) -> u64 {
        let (byte, shift) = (self.at_bit / 8, self.at_bit % 8);
        let word =
            self.bytes.get(byte..).and_then(<[u8]>::first_chunk).map_or_else(|| self.last_word(byte), |word| *word);
        u64::from_le_bytes(word) >> shift
    }

    /// The last bytes. Behind damaged ones there may be none.
    #[cold]
    fn last_word(&self, byte: usize) -> [u8; 8] {
        let rest = self.bytes.get(byte..).unwrap_or(&[]);
        std::array::from_fn(|at| rest.get(at).copied().unwrap_or(0))
    }

    #[inline]
    fn field(&mut self, field: usize) -> u64 {
        let ahead = self.peek();
        let n_head = if ahead & 1 == 1 {
            self.context.widths[field] = (ahead >> 1 & 31) as u8;
            6
        } else {
            1
        };
        self.at_bit += n_head as usize;
        let n_bits = n_bits(self.context.widths[field]);
        if n_head + n_bits <= PEEKED_BITS {
            self.at_bit += n_bits as usize;
            ahead >> n_head & ((1 << n_bits) - 1)
        } else {
            self.bits(n_bits)
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = Ping;

    fn next(&mut self) -> Option<Ping> {
        self.n_left = self.n_left.checked_sub(1)?;
        let flags = if self.bits(1) == 1 { self.bits(8) as u8 } else { self.context.flags };
        if flags & NEW_REP != 0 {
            self.context.rep = self.bits(32) as u32;
        }
        self.context.flags = flags & !NEW_REP;
        let (decimal, short) = (flags & IS_DECIMAL != 0, flags & IS_SHORT != 0);
        let step = unzigzag(self.field(TIME));
        self.context.step_us = self.context.step_us.wrapping_add(step);
        self.context.time_us = self.context.time_us.wrapping_add(self.context.step_us);
        let lat = self.field(LAT);
        self.context.lat = moved(self.context.lat, lat, decimal);
        let lon = self.field(LON);
        self.context.lon = moved(self.context.lon, lon, decimal);
        if flags & HAS_ACCURACY != 0 {
            let mix = self.field(ACCURACY);
            self.context.accuracy_m = unmixed(self.context.accuracy_m, mix, short);
        }
        if flags & HAS_SPEED != 0 {
            let mix = self.field(SPEED);
            self.context.speed_mps = unmixed(self.context.speed_mps, mix, short);
        }
        if flags & HAS_ODOMETER != 0 {
            let difference = self.field(ODOMETER);
            self.context.odometer_m = moved(self.context.odometer_m, difference, false);
        }
        if flags & HAS_SENT != 0 {
            let lag = unzigzag(self.field(SENT));
            self.context.sent_lag_us = self.context.sent_lag_us.wrapping_add(lag);
        }
        Some(self.context.ping())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            (-1_800_000_000i64..1_800_000_000).prop_map(|n| n as f64 / 1e7),
            Just(0.0),
            Just(-0.0)
        ]
    }

    fn small() -> impl Strategy<Value = f32> {
        prop_oneof![any::<f32>(), (0u16..2000).prop_map(|n| f32::from(n) / 8.0), Just(f32::NAN)]
    }

    prop_compose! {
        fn ping()(time_us in any::<i64>(), sent in proptest::option::of(any::<i64>()), lat in number(), lon in number(),
                  odometer_m in number(), accuracy_m in small(), speed_mps in small(), rep in 0u32..3, mock in any::<bool>()) -> Ping {
            Ping { time_us, sent_us: sent.unwrap_or(NO_TIME), lat, lon, odometer_m, accuracy_m, speed_mps, battery_pct: f32::NAN, rep, mock }
        }
    }

    /// All of a ping; any NaN is one missing value.
    fn content(ping: &Ping) -> impl PartialEq + std::fmt::Debug + use<> {
        let f32s = |v: f32| (!v.is_nan()).then_some(v.to_bits());
        let f64s = |v: f64| (!v.is_nan()).then_some(v.to_bits());
        (
            (ping.time_us, ping.sent_us, ping.lat.to_bits(), ping.lon.to_bits(), f64s(ping.odometer_m)),
            (f32s(ping.accuracy_m), f32s(ping.speed_mps), ping.rep, ping.mock),
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pings in proptest::collection::vec(ping(), 0..40)) {
            let mut writer = Writer::new();
            pings.iter().for_each(|ping| writer.push(ping));
            let read: Vec<_> = Reader::new(writer.bytes(), pings.len() as u32).map(|ping| content(&ping)).collect();
            prop_assert_eq!(read, pings.iter().map(content).collect::<Vec<_>>());
        }

        #[test]
        fn one_that_goes_on_writes_the_same(mut pings in proptest::collection::vec(ping(), 0..40), cut in 0usize..40) {
            pings.iter_mut().for_each(|ping| ping.time_us >>= 10);
            pings.sort_by_key(|ping| ping.time_us);
            pings.dedup_by_key(|ping| ping.time_us);
            let (mut whole, mut first) = (Writer::new(), Writer::new());
            pings.iter().for_each(|ping| whole.push(ping));
            pings.iter().take(cut).for_each(|ping| first.push(ping));
            let mut again = Writer::after(&first.bytes(), cut.min(pings.len()) as u32).unwrap();
            pings.iter().skip(cut).for_each(|ping| again.push(ping));
            prop_assert_eq!(again.bytes(), whole.bytes());
        }

        #[test]
        fn damage_does_not_panic(pings in proptest::collection::vec(ping(), 1..20), at in any::<prop::sample::Index>(), xor in 1u8..=255, n_pings in 0u32..40) {
            let mut writer = Writer::new();
            pings.iter().for_each(|ping| writer.push(ping));
            let mut bytes = writer.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            prop_assert_eq!(Reader::new(&*bytes, n_pings).count(), n_pings as usize);
            let _ = Writer::after(&bytes[..at], n_pings);
        }
    }
}
