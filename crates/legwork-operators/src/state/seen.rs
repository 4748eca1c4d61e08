//! Memory of the events already counted, bounded in time and in bytes.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use legwork_types::time::{HOUR_US, MINUTE_US};

/// How duplicates are found; the section `[dedup]` of the configuration.
///
/// An event is remembered by 96 bits of hash over (source, event_id), about 30 bytes in all, until its key's clock has passed its
/// event time by `horizon_us`: until then a duplicate is found whatever lies between. Beyond the horizon a duplicate may be counted
/// again. When `memory_bytes_max` is reached the events oldest in event time are forgotten first, horizon or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupConfig {
    /// How far behind its key's clock an event is surely remembered, microseconds.
    pub horizon_us: i64,
    /// Bytes that one operator's memory of duplicates may take.
    pub memory_bytes_max: usize,
}

impl Default for DedupConfig {
    fn default() -> DedupConfig {
        DedupConfig { horizon_us: 48 * HOUR_US, memory_bytes_max: 256 << 20 }
    }
}

/// What stands for (source, event_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark([u32; 3]);

impl Mark {
    #[inline]
    pub(crate) fn new(source: &str, event_id: &str) -> Mark {
        let a = FixedState::with_seed(0x5ee0_0001).hash_one((source, event_id));
        let b = FixedState::with_seed(0x5ee0_0002).hash_one((event_id, source));
        Mark([(a >> 32) as u32, a as u32, b as u32])
    }

    #[inline]
    fn hash(&self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mark: Mark,
    key: u32,
    /// Minutes since 1970 plus 2^31.
    minute: u32,
}

/// Bytes a bucket of the hash table: the entry and its control byte.
const BUCKET_BYTES: usize = size_of::<Entry>() + 1;
const N_ENTRIES_MIN: usize = 1024;
/// Some 4,000 years before 1970: what lies before shares the first minute.
const MINUTE_MIN_US: i64 = -(1 << 31) * MINUTE_US;

/// Events counted, by [`Mark`].
#[derive(Debug)]
pub(crate) struct Seen {
    entries: HashTable<Entry>,
    horizon_us: i64,
    n_entries_max: usize,
    sweep_at: usize,
}

impl Seen {
    pub(crate) fn new(config: &DedupConfig) -> Seen {
        // While the table doubles, the old half lives beside the new one; buckets are a power of two, filled to 7/8.
        let n_buckets_max = (config.memory_bytes_max / (BUCKET_BYTES * 3 / 2)).max(2 * N_ENTRIES_MIN);
        let n_buckets_max = (n_buckets_max + 1).next_power_of_two() / 2;
        Seen {
            entries: HashTable::new(),
            horizon_us: config.horizon_us,
            n_entries_max: n_buckets_max / 8 * 7,
            sweep_at: N_ENTRIES_MIN,
        }
    }

    /// Whether the event is remembered.
    #[inline]
    pub(crate) fn contains(&self, mark: Mark) -> bool {
        self.entries.find(mark.hash(), |entry| entry.mark == mark).is_some()
    }

    /// Remembers an event that is not remembered yet. `clock_us` gives the clock of any key.
    #[inline]
    pub(crate) fn insert(&mut self, mark: Mark, key: u32, event_time_us: i64, clock_us: impl Fn(u32) -> i64) {
        if self.entries.len() >= self.sweep_at {
            self.sweep(clock_us);
        }
        let entry = Entry { mark, key, minute: minute(event_time_us) };
        self.entries.insert_unique(mark.hash(), entry, |entry| entry.mark.hash());
    }

    /// Forgets what is beyond the horizon; then, if there is still too much, the oldest. Done whenever the number has doubled, so
    /// that it costs little per event.
    fn sweep(&mut self, clock_us: impl Fn(u32) -> i64) {
        let horizon_us = self.horizon_us;
        let is_near =
            |entry: &Entry| entry.minute >= minute(clock_us(entry.key).saturating_sub(horizon_us).max(MINUTE_MIN_US));
        let mut kept: Vec<Entry> = self.entries.drain().filter(is_near).collect();
        if kept.len() > self.n_entries_max / 4 * 3 {
            let half = kept.len() / 2;
            kept.select_nth_unstable_by_key(half, |entry| entry.minute);
            kept.drain(..half);
        }
        self.sweep_at = (2 * kept.len()).clamp(N_ENTRIES_MIN, self.n_entries_max);
        // Filled anew, since the marks that removals leave behind would make the table grow beyond its bound.
        self.entries = HashTable::with_capacity(self.sweep_at);
        for entry in kept {
            self.entries.insert_unique(entry.mark.hash(), entry, |entry| entry.mark.hash());
        }
    }

    /// Events remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.allocation_size()
    }
}

#[inline]
fn minute(time_us: i64) -> u32 {
    let minutes = time_us.div_euclid(MINUTE_US) + (1 << 31);
    minutes.clamp(0, i64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_the_horizon_nothing_is_forgotten_and_memory_stays_bounded() {
        let config = DedupConfig { horizon_us: HOUR_US, memory_bytes_max: 1 << 20 };
        let mut seen = Seen::new(&config);
        let mut n_bytes_max = 0;
        for n in 0..200_000i64 {
            let now = n * 1_000_000;
            let mark = Mark::new("s", &n.to_string());
            assert!(!seen.contains(mark));
            seen.insert(mark, 0, now, |_| now);
            n_bytes_max = n_bytes_max.max(seen.memory_bytes());
            if n >= 3_600 {
                assert!(seen.contains(Mark::new("s", &(n - 3_599).to_string())));
            }
        }
        assert!(n_bytes_max <= 1 << 20, "{n_bytes_max}");
        assert!(seen.len() < 30_000, "{}", seen.len());
    }

    #[test]
    fn a_silent_key_keeps_its_events_while_others_go_on() {
        let mut seen = Seen::new(&DedupConfig { horizon_us: HOUR_US, memory_bytes_max: 1 << 20 });
        seen.insert(Mark::new("s", "silent"), 7, 0, |_| 0);
        for n in 0..50_000i64 {
            let now = n * 1_000_000;
            seen.insert(Mark::new("s", &n.to_string()), 0, now, |key| if key == 7 { 0 } else { now });
        }
        assert!(seen.contains(Mark::new("s", "silent")));
        assert!(!seen.contains(Mark::new("s", "0")));
    }

    #[test]
    fn the_oldest_go_first_when_bytes_run_out() {
        for step_us in [0, 1_000_000] {
            let mut seen = Seen::new(&DedupConfig { horizon_us: i64::MAX, memory_bytes_max: 256 << 10 });
            for n in 0..50_000i64 {
                seen.insert(Mark::new("s", &n.to_string()), 0, n * step_us, |_| n * step_us);
                assert!(seen.memory_bytes() <= 256 << 10);
            }
            assert!(seen.contains(Mark::new("s", "49999")));
            assert!(step_us == 0 || !seen.contains(Mark::new("s", "0")));
        }
    }
}
