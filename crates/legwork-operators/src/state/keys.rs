//! Record keys with their clocks, and facts that count once.

use super::{DedupConfig, Interner, Outcome, Seen, seen::Mark};

/// Keys by dense number, and the newest event time accepted for each.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) names: Interner,
    pub(crate) clocks_us: Vec<i64>,
}

impl Keys {
    /// Number of a key.
    #[inline]
    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        let key = self.names.intern(name);
        if key as usize == self.clocks_us.len() {
            self.clocks_us.push(i64::MIN);
        }
        key
    }

    /// Moves a key's clock; never back.
    #[inline]
    pub(crate) fn advance(&mut self, key: u32, event_time_us: i64) {
        let clock_us = &mut self.clocks_us[key as usize];
        *clock_us = (*clock_us).max(event_time_us);
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.names.memory_bytes() + 8 * self.clocks_us.capacity()
    }
}

/// Facts: each counts once per (source, event_id), and not beyond the late horizon of its key. Of two that carry the same
/// (source, event_id) and different contents within the dedup horizon the first one accepted counts.
#[derive(Debug)]
pub(crate) struct FactLog {
    pub(crate) keys: Keys,
    seen: Seen,
    late_horizon_us: i64,
}

impl FactLog {
    /// Empty; `late_horizon_us` is `i64::MAX` for facts that are never late.
    pub(crate) fn new(dedup: &DedupConfig, late_horizon_us: i64) -> FactLog {
        FactLog { keys: Keys::default(), seen: Seen::new(dedup), late_horizon_us }
    }

    /// Takes a fact of a key that [`Keys::intern`] numbered.
    #[inline]
    pub(crate) fn offer(&mut self, key: u32, source: &str, event_id: &str, event_time_us: i64) -> Outcome {
        let mark = Mark::new(source, event_id);
        if self.seen.contains(mark) {
            return Outcome::Duplicate;
        }
        let clock_us = self.keys.clocks_us[key as usize];
        if event_time_us < clock_us.saturating_sub(self.late_horizon_us) {
            return Outcome::Late;
        }
        self.keys.advance(key, event_time_us);
        let clocks_us = &self.keys.clocks_us;
        self.seen.insert(mark, key, event_time_us, |key| clocks_us[key as usize]);
        Outcome::Accepted { is_reordered: event_time_us < clock_us }
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.seen.memory_bytes()
    }
}
