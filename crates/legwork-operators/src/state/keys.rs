//! Record keys with their clocks, and facts that count once.

use legwork_types::StateError;

use super::persist::{Dirty, Loader, Refs, Saver, damaged, opt_time};
use super::{DedupConfig, Interner, Outcome, Seen, seen::Mark};

/// Keys by dense number, and the newest event time accepted for each.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) names: Interner,
    pub(crate) clocks_us: Vec<i64>,
    dirty: Dirty,
}

impl Keys {
    /// Number of a key.
    #[inline]
    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        let key = self.names.intern(name);
        if key as usize == self.clocks_us.len() {
            self.clocks_us.push(i64::MIN);
            self.dirty.mark(key);
        }
        key
    }

    /// Number of a key that is known.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.names.number(name)
    }

    /// Moves a key's clock; never back.
    #[inline]
    pub(crate) fn advance(&mut self, key: u32, event_time_us: i64) {
        let clock_us = &mut self.clocks_us[key as usize];
        if *clock_us < event_time_us {
            *clock_us = event_time_us;
            self.dirty.mark(key);
        }
    }

    /// Writes what changed since the last checkpoint, names into section `section` and clocks into the one after.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver) {
        self.names.save(section, saver);
        let blocks = self.dirty.take(self.clocks_us.len());
        // None for a key of which no event was accepted.
        let clock = |key: u32| opt_time(self.clocks_us[key as usize]);
        saver.blocks(section + 1, &blocks, self.clocks_us.len(), clock);
    }

    /// Takes up what was written.
    pub(crate) fn load(section: u8, loader: &mut Loader<'_>) -> Result<Keys, StateError> {
        let names = loader.interner(section)?;
        let clocks = loader.blocks::<Option<i64>>(section + 1)?;
        if clocks.len() != names.len() {
            return Err(damaged(section + 1, 0, format!("{} clocks of {} keys", clocks.len(), names.len())));
        }
        let mut keys = Keys { names, ..Keys::default() };
        keys.clocks_us = clocks.into_iter().map(|clock_us| clock_us.unwrap_or(i64::MIN)).collect();
        keys.dirty.take(0);
        Ok(keys)
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.names.memory_bytes() + 8 * self.clocks_us.capacity() + self.dirty.memory_bytes()
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

    /// No fact of a key before this time will be accepted.
    pub(crate) fn horizon_us(&self, key: u32) -> i64 {
        self.keys.clocks_us[key as usize].saturating_sub(self.late_horizon_us)
    }

    /// Takes a fact of a key that [`Keys::intern`] numbered.
    #[inline]
    pub(crate) fn offer(&mut self, key: u32, source: &str, event_id: &str, event_time_us: i64) -> Outcome {
        let mark = Mark::new(source, event_id);
        if self.seen.contains(mark, |key| self.keys.clocks_us[key as usize]) {
            return Outcome::Duplicate;
        }
        let clock_us = self.keys.clocks_us[key as usize];
        if event_time_us < self.horizon_us(key) {
            return Outcome::Late;
        }
        self.keys.advance(key, event_time_us);
        let clocks_us = &self.keys.clocks_us;
        self.seen.insert(mark, key, event_time_us, |key| clocks_us[key as usize]);
        Outcome::Accepted { is_reordered: event_time_us < clock_us }
    }

    /// Writes what changed since the last checkpoint, into sections `section` and the three after.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver) {
        self.keys.save(section, saver);
        self.seen.save(section + 2, saver);
    }

    /// Takes up what was written.
    pub(crate) fn load(&mut self, section: u8, loader: &mut Loader<'_>) -> Result<(), StateError> {
        self.keys = Keys::load(section, loader)?;
        let (refs, clocks_us) = (Refs { section: section + 3, n: self.keys.names.len() }, &self.keys.clocks_us);
        self.seen.load(section + 2, loader, refs, |key| clocks_us[key as usize])
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.seen.memory_bytes()
    }
}
