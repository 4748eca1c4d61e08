//! Chance: one seeded stream of numbers and the few distributions that behaviour needs.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of chance. Equal seeds give equal throws.
#[derive(Debug)]
pub(crate) struct Dice {
    rng: ChaCha8Rng,
}

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Dice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice { rng }
    }

    #[inline]
    pub(crate) fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in [0, 1).
    #[inline]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    #[inline]
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in [low, high), whole numbers; `low` when the range is empty.
    #[inline]
    pub(crate) fn between_i64(&mut self, low: i64, high: i64) -> i64 {
        let width = u128::from(high.saturating_sub(low).max(1).unsigned_abs());
        low + ((u128::from(self.bits()) * width) >> 64) as i64
    }

    /// Uniform in 0..n; 0 when n is 0.
    #[inline]
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.bits() as u32) * u64::from(n)) >> 32) as u32
    }

    #[inline]
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Nearly standard normal, within -3.46 to 3.46: the sum of four uniforms (Irwin-Hall), so that no throw is absurd.
    #[inline]
    pub(crate) fn normal(&mut self) -> f64 {
        let bits = self.bits();
        let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
        (sum as f64 / 65_536.0 - 2.0) * 3f64.sqrt()
    }

    /// Exponential with this mean, at most ten times it.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        (-(1.0 - self.unit()).ln()).min(10.0) * mean
    }
}

/// A fixed pseudo-random number of these three, for facts that must not depend on the order of throws.
pub(crate) fn hash(a: u64, b: u64, c: u64) -> u64 {
    // SplitMix64's finaliser, Steele, Lea and Flood 2014.
    let mut z = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ c.wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// As [`hash`], uniform in [0, 1).
pub(crate) fn hash_unit(a: u64, b: u64, c: u64) -> f64 {
    (hash(a, b, c) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
