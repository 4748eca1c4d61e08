//! Reading what was written.

use std::borrow::Cow;

use super::{
    ACCURACY, Context, HAS_ACCURACY, HAS_ODOMETER, HAS_SENT, HAS_SPEED, IS_DECIMAL, IS_SHORT, LAT, LON, NEW_REP,
    ODOMETER, SENT, SPEED, START, TIME, moved, n_bits, unmixed, unzigzag,
};
use crate::track::ping::Ping;

/// Bits of a word that begins within a byte.
const PEEKED_BITS: u32 = u64::BITS - 7;

/// Where a [`Reader`] stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(super) at_bit: usize,
    pub(super) context: Context,
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
    pub(super) n_before: usize,
    pub(super) at_bit: usize,
    n_left: u32,
    pub(super) context: Context,
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
        self.peek_at(self.at_bit)
    }

    #[inline(always)]
    pub(super) fn peek_at(&self, at_bit: usize) -> u64 {
        let (byte, shift) = (at_bit / 8, at_bit % 8);
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
