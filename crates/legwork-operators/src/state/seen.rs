//! Memory of the events already counted, bounded in time and in bytes.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashTable};
use legwork_types::StateError;
use legwork_types::time::{HOUR_US, MINUTE_US};
use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::persist::{Loader, Refs, Saver, damaged};

/// How duplicates are found; the section `[dedup]` of the configuration.
///
/// An event is remembered by 96 bits of hash over (source, event_id), about 36 bytes in all, until its key's clock has passed its
/// event time by `horizon_us`: until then a duplicate is found whatever lies between, and no longer. When `memory_bytes_max` is
/// reached the events oldest in event time are forgotten first, horizon or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupConfig {
    /// How far behind its key's clock an event is remembered, microseconds.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark([u32; 3]);

impl Mark {
    #[inline]
    pub(crate) fn new(source: &str, event_id: &str) -> Mark {
        Mark(Fingerprint::default().text(source).text(event_id).words())
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
    /// Where it is in the store, or will be.
    segment: u32,
}

impl Entry {
    /// Whether its key's clock has not passed it by the horizon. A clock never goes back, so what is not near never is again.
    #[inline]
    fn is_near(&self, clock_us: i64, horizon_us: i64) -> bool {
        self.minute >= minute(clock_us.saturating_sub(horizon_us).max(MINUTE_MIN_US))
    }

    /// The order of forgetting when bytes run out.
    fn age(&self) -> Age {
        Age(self.minute, self.mark.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Age(u32, [u32; 3]);

/// Bytes a bucket of the hash table: the entry and its control byte.
const BUCKET_BYTES: usize = size_of::<Entry>() + 1;
const N_ENTRIES_MIN: usize = 1024;
/// Some 4,000 years before 1970: what lies before shares the first minute.
const MINUTE_MIN_US: i64 = -(1 << 31) * MINUTE_US;
/// Entries a segment in the store: some 70 KB.
const SEGMENT_ENTRIES: usize = 4096;
/// Entries that a sweep moves to new segments at most, so that no checkpoint is much larger than others.
const N_MOVED_MAX: usize = 65_536;

/// Events counted, by [`Mark`].
///
/// In the store they lie in segments, appended at checkpoints. A sweep drops segments of which nothing is remembered, and moves what
/// is left of those that are mostly forgotten. When it happens, and what it forgets, depends on the number of events taken and on
/// their keys' clocks only, so that it goes on in the same way after a restart.
#[derive(Debug)]
pub(crate) struct Seen {
    entries: HashTable<Entry>,
    horizon_us: i64,
    n_entries_max: usize,
    /// Events until the next sweep.
    sweep_in: usize,
    segments: Option<Segments>,
}

/// What of the entries is in the store.
#[derive(Debug, Default)]
struct Segments {
    /// Entries in each, as written.
    written: BTreeMap<u32, usize>,
    /// What goes into the next one.
    pending: Vec<Mark>,
    next: u32,
    evictions: Vec<Eviction>,
    dropped: Vec<u32>,
    is_changed: bool,
}

/// Of the segments before `before`, what is older than `age` was forgotten before its time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Eviction {
    before: u32,
    age: Age,
}

#[derive(Serialize, Deserialize)]
struct MetaWire {
    sweep_in: u32,
    next: u32,
    evictions: Vec<Eviction>,
}

/// Mark, key, minute.
type EntryWire = ([u8; 12], u32, u32);

/// What is remembered of a key: mark, minute.
pub(crate) type SeenWire = ([u8; 12], u32);

impl Seen {
    pub(crate) fn new(config: &DedupConfig) -> Seen {
        // While the table doubles, the old half lives beside the new one; buckets are a power of two, filled to 7/8.
        let n_buckets_max = (config.memory_bytes_max / (BUCKET_BYTES * 3 / 2)).max(2 * N_ENTRIES_MIN);
        let n_buckets_max = (n_buckets_max + 1).next_power_of_two() / 2;
        Seen {
            entries: HashTable::new(),
            horizon_us: config.horizon_us,
            n_entries_max: n_buckets_max / 8 * 7,
            sweep_in: N_ENTRIES_MIN,
            segments: None,
        }
    }

    /// Whether the event is remembered. `clock_us` gives the clock of any key.
    #[inline]
    pub(crate) fn contains(&self, mark: Mark, clock_us: impl Fn(u32) -> i64) -> bool {
        let entry = self.entries.find(mark.hash(), |entry| entry.mark == mark);
        entry.is_some_and(|entry| entry.is_near(clock_us(entry.key), self.horizon_us))
    }

    /// Remembers an event that is not remembered yet.
    #[inline]
    pub(crate) fn insert(&mut self, mark: Mark, key: u32, event_time_us: i64, clock_us: impl Fn(u32) -> i64) {
        let entry = Entry { mark, key, minute: minute(event_time_us), segment: 0 };
        if !entry.is_near(clock_us(key), self.horizon_us) {
            return;
        }
        if self.sweep_in == 0 {
            self.sweep(clock_us);
        }
        self.sweep_in -= 1;
        self.put(entry);
        if let Some(segments) = &mut self.segments {
            segments.pending.push(mark);
        }
    }

    fn put(&mut self, mut entry: Entry) {
        entry.segment = self.segments.as_ref().map_or(entry.segment, |segments| segments.next);
        let hash = entry.mark.hash();
        match self.entries.find_mut(hash, |known| known.mark == entry.mark) {
            // One beyond the horizon.
            Some(known) => *known = entry,
            None => {
                self.entries.insert_unique(hash, entry, |entry| entry.mark.hash());
            }
        }
    }

    /// Forgets what is beyond the horizon; then, if there is still too much, the oldest. Done whenever the number has doubled, so
    /// that it costs little per event.
    fn sweep(&mut self, clock_us: impl Fn(u32) -> i64) {
        let horizon_us = self.horizon_us;
        let mut kept: Vec<Entry> =
            self.entries.drain().filter(|entry| entry.is_near(clock_us(entry.key), horizon_us)).collect();
        if kept.len() > self.n_entries_max / 4 * 3 {
            let half = kept.len() / 2;
            let age = kept.select_nth_unstable_by_key(half, Entry::age).1.age();
            kept.drain(..half);
            if let Some(segments) = &mut self.segments {
                segments.evictions.push(Eviction { before: segments.next, age });
            }
        }
        if let Some(segments) = &mut self.segments {
            segments.settle(&mut kept);
        }
        let capacity = (2 * kept.len()).clamp(N_ENTRIES_MIN, self.n_entries_max);
        self.sweep_in = capacity - kept.len();
        self.fill(capacity, kept);
    }

    /// Filled anew, since the marks that removals leave behind would make the table grow beyond its bound.
    fn fill(&mut self, capacity: usize, entries: Vec<Entry>) {
        self.entries = HashTable::with_capacity(capacity);
        for entry in entries {
            self.entries.insert_unique(entry.mark.hash(), entry, |entry| entry.mark.hash());
        }
    }

    /// Writes what was taken since the last checkpoint, into sections `section` and the one after.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver) {
        let is_first = self.segments.is_none();
        let segments = self.segments.get_or_insert_default();
        let mut new: Vec<Entry> = if is_first {
            self.entries.iter().copied().collect()
        } else {
            let next = segments.next;
            let is_new = |entry: &&Entry| entry.segment == next;
            let find = |mark: Mark| self.entries.find(mark.hash(), |entry| entry.mark == mark).filter(is_new);
            segments.pending.drain(..).filter_map(find).copied().collect()
        };
        new.sort_unstable_by_key(Entry::age);
        new.dedup_by_key(|entry| entry.mark);
        if new.is_empty() && !segments.is_changed {
            return;
        }
        for part in new.chunks(SEGMENT_ENTRIES) {
            let number = segments.next;
            for entry in part {
                let place = self.entries.find_mut(entry.mark.hash(), |known| known.mark == entry.mark);
                place.expect("it was found above").segment = number;
            }
            let wire: Vec<EntryWire> = part.iter().map(|entry| (bytes(entry.mark), entry.key, entry.minute)).collect();
            segments.written.insert(number, wire.len());
            segments.next += 1;
            saver.put(section + 1, number, &wire);
        }
        segments.dropped.drain(..).for_each(|number| saver.delete(section + 1, number));
        segments.is_changed = false;
        let (next, evictions) = (segments.next, segments.evictions.clone());
        saver.put(section, 0, &MetaWire { sweep_in: self.sweep_in as u32, next, evictions });
    }

    /// Takes up what was written. `keys` are those that events may have.
    pub(crate) fn load(
        &mut self,
        section: u8,
        loader: &mut Loader<'_>,
        keys: Refs,
        clock_us: impl Fn(u32) -> i64,
    ) -> Result<(), StateError> {
        let meta: Option<MetaWire> = loader.single(section)?;
        let mut segments = Segments::default();
        let mut entries = Vec::new();
        let meta = meta.unwrap_or(MetaWire { sweep_in: self.sweep_in as u32, next: 0, evictions: Vec::new() });
        while let Some((segment, wire)) = loader.next::<Vec<EntryWire>>(section + 1)? {
            if segment >= meta.next {
                return Err(damaged(section + 1, segment, format!("the next one would be {}", meta.next)));
            }
            segments.written.insert(segment, wire.len());
            for (mark, key, minute) in wire {
                let entry = Entry { mark: mark_of(mark), key: keys.known(key)?, minute, segment };
                let is_evicted = |eviction: &Eviction| segment < eviction.before && entry.age() < eviction.age;
                if !meta.evictions.iter().any(is_evicted) && entry.is_near(clock_us(key), self.horizon_us) {
                    entries.push(entry);
                }
            }
        }
        // A smaller memory than it had: as many as fit, then a sweep at once.
        self.sweep_in = (meta.sweep_in as usize).min(self.n_entries_max.saturating_sub(entries.len()));
        (segments.next, segments.evictions) = (meta.next, meta.evictions);
        self.fill(entries.len(), entries);
        self.segments = Some(segments);
        Ok(())
    }

    /// What is remembered of some keys.
    pub(crate) fn of_keys(&self, is_of: impl Fn(u32) -> bool) -> HashMap<u32, Vec<SeenWire>> {
        let mut of_keys: HashMap<u32, Vec<SeenWire>> = HashMap::new();
        for entry in self.entries.iter().filter(|entry| is_of(entry.key)) {
            of_keys.entry(entry.key).or_default().push((bytes(entry.mark), entry.minute));
        }
        of_keys
    }

    /// Takes up what was remembered of a key.
    pub(crate) fn bring_back(&mut self, key: u32, seen: &[SeenWire], clock_us: impl Fn(u32) -> i64) {
        for (mark, minute) in seen {
            let event_time_us = (i64::from(*minute) - (1 << 31)) * MINUTE_US;
            self.insert(mark_of(*mark), key, event_time_us, &clock_us);
        }
    }

    /// Gives keys their new numbers; what has none is forgotten.
    pub(crate) fn renumber(&mut self, number: impl Fn(u32) -> Option<u32>) {
        let renumbered = |entry: Entry| Some(Entry { key: number(entry.key)?, ..entry });
        let mut kept: Vec<Entry> = self.entries.drain().filter_map(renumbered).collect();
        if let Some(segments) = &mut self.segments {
            segments.rewrite(&mut kept);
        }
        self.fill(self.sweep_in + kept.len(), kept);
    }

    /// Events remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        let pending = self.segments.as_ref().map_or(0, |segments| segments.pending.capacity());
        self.entries.allocation_size() + pending * size_of::<Mark>()
    }
}

impl Segments {
    /// All goes into new segments.
    fn rewrite(&mut self, kept: &mut [Entry]) {
        self.pending.clear();
        for entry in kept {
            entry.segment = self.next;
            self.pending.push(entry.mark);
        }
        self.dropped.extend(std::mem::take(&mut self.written).into_keys());
        self.evictions.clear();
        self.is_changed = true;
    }

    /// Drops the segments of which nothing is kept, and moves what is left of those that are mostly forgotten.
    fn settle(&mut self, kept: &mut [Entry]) {
        let mut n_kept: HashMap<u32, usize> = HashMap::new();
        kept.iter().for_each(|entry| *n_kept.entry(entry.segment).or_default() += 1);
        let (mut moved, mut n_moved) = (BTreeSet::new(), 0);
        let mut is_left = |number: u32, n_written: usize| {
            let n_kept = n_kept.get(&number).copied().unwrap_or(0);
            let is_left = 2 * n_kept >= n_written || n_moved + n_kept > N_MOVED_MAX;
            if !is_left {
                n_moved += n_kept;
                moved.insert(number);
            }
            is_left
        };
        self.written.retain(|number, n_written| is_left(*number, *n_written));
        for entry in kept.iter_mut().filter(|entry| moved.contains(&entry.segment)) {
            entry.segment = self.next;
            self.pending.push(entry.mark);
        }
        self.dropped.extend(moved);
        let oldest = self.written.first_key_value().map_or(self.next, |(number, _)| *number);
        self.evictions.retain(|eviction| oldest < eviction.before);
        self.is_changed = true;
    }
}

fn bytes(mark: Mark) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes.chunks_exact_mut(4).zip(mark.0).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
    bytes
}

fn mark_of(bytes: [u8; 12]) -> Mark {
    let (words, _) = bytes.as_chunks::<4>();
    Mark([words[0], words[1], words[2]].map(u32::from_le_bytes))
}

#[inline]
fn minute(time_us: i64) -> u32 {
    let minutes = time_us.div_euclid(MINUTE_US) + (1 << 31);
    minutes.clamp(0, i64::from(u32::MAX)) as u32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn within_the_horizon_nothing_is_forgotten_and_memory_stays_bounded() {
        let config = DedupConfig { horizon_us: HOUR_US, memory_bytes_max: 1 << 20 };
        let mut seen = Seen::new(&config);
        let mut n_bytes_max = 0;
        for n in 0..200_000i64 {
            let now = n * 1_000_000;
            let mark = Mark::new("s", &n.to_string());
            assert!(!seen.contains(mark, |_| now));
            seen.insert(mark, 0, now, |_| now);
            n_bytes_max = n_bytes_max.max(seen.memory_bytes());
            if n >= 3_600 {
                assert!(seen.contains(Mark::new("s", &(n - 3_599).to_string()), |_| now));
            }
        }
        assert!(n_bytes_max <= 1 << 20, "{n_bytes_max}");
        assert!(seen.len() < 30_000, "{}", seen.len());
    }

    #[test]
    fn a_silent_key_keeps_its_events_while_others_go_on() {
        let mut seen = Seen::new(&DedupConfig { horizon_us: HOUR_US, memory_bytes_max: 1 << 20 });
        seen.insert(Mark::new("s", "silent"), 7, 0, |_| 0);
        let mut newest = 0;
        for n in 0..50_000i64 {
            newest = n * 1_000_000;
            seen.insert(Mark::new("s", &n.to_string()), 0, newest, |key| if key == 7 { 0 } else { newest });
        }
        let clock_us = |key| if key == 7 { 0 } else { newest };
        assert!(seen.contains(Mark::new("s", "silent"), clock_us));
        assert!(!seen.contains(Mark::new("s", "0"), clock_us));
    }

    #[test]
    fn the_oldest_go_first_when_bytes_run_out() {
        for step_us in [0, 1_000_000] {
            let mut seen = Seen::new(&DedupConfig { horizon_us: i64::MAX, memory_bytes_max: 256 << 10 });
            for n in 0..50_000i64 {
                seen.insert(Mark::new("s", &n.to_string()), 0, n * step_us, |_| n * step_us);
                assert!(seen.memory_bytes() <= 256 << 10);
            }
            assert!(seen.contains(Mark::new("s", "49999"), |_| 0));
            assert!(step_us == 0 || !seen.contains(Mark::new("s", "0"), |_| 0));
        }
    }

    /// Two memories, one of which is now and then written and read back into a new one.
    struct Pair {
        config: DedupConfig,
        kept: Seen,
        restarted: Seen,
        store: BTreeMap<Vec<u8>, Vec<u8>>,
    }

    impl Pair {
        fn checkpoint(&mut self) {
            let entries = [&mut self.kept, &mut self.restarted].map(|seen| {
                let mut saver = Saver::default();
                seen.save(b'a', &mut saver);
                saver.entries()
            });
            assert_eq!(entries[0], entries[1]);
            for entry in entries.into_iter().next().unwrap() {
                match entry.value {
                    Some(value) => self.store.insert(entry.key, value),
                    None => self.store.remove(&entry.key),
                };
            }
        }

        fn restart(&mut self, clocks_us: &[i64]) {
            self.restarted = Seen::new(&self.config);
            let mut entries = self.store.clone().into_iter();
            let (mut loader, keys) = (Loader::new(&mut entries), Refs { section: b'b', n: clocks_us.len() });
            self.restarted.load(b'a', &mut loader, keys, |key| clocks_us[key as usize]).unwrap();
            loader.finish().unwrap();
        }
    }

    proptest! {
        #![proptest_config(crate::testing::cases())]

        /// Keys that fall silent, late events, horizons near and far, and a memory so small that the oldest must go.
        #[test]
        fn a_restart_changes_no_verdict(
            seed in any::<u64>(), horizon in 0..3usize, step_us in 1_000_000..60_000_000i64, n_between in 1..900u64
        ) {
            let horizon_us = [HOUR_US, 48 * HOUR_US, i64::MAX][horizon];
            let config = DedupConfig { horizon_us, memory_bytes_max: 1 };
            let (kept, restarted) = (Seen::new(&config), Seen::new(&config));
            let n_entries_max = kept.n_entries_max;
            let mut pair = Pair { config, kept, restarted, store: BTreeMap::new() };
            let mut clocks_us = [i64::MIN; 5];
            let mut state = seed | 1;
            let mut random = |n: u64| {
                // Knuth's multiplier for linear congruential generators.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            for n in 0..6_000u64 {
                let key = random(5).min(random(5) + n / 1_000) as usize % 5;
                let time_us = n as i64 * step_us - if random(4) == 0 { random(7_200) as i64 * 1_000_000 } else { 0 };
                let id = if random(4) == 0 { n.saturating_sub(random(3_000)) } else { n };
                let mark = Mark::new("s", &id.to_string());
                let is_known = pair.kept.contains(mark, |key| clocks_us[key as usize]);
                prop_assert_eq!(pair.restarted.contains(mark, |key| clocks_us[key as usize]), is_known, "event {}", n);
                clocks_us[key] = clocks_us[key].max(time_us);
                if !is_known {
                    pair.kept.insert(mark, key as u32, time_us, |key| clocks_us[key as usize]);
                    pair.restarted.insert(mark, key as u32, time_us, |key| clocks_us[key as usize]);
                }
                if random(n_between) == 0 {
                    pair.checkpoint();
                    let n_bytes: usize = pair.store.values().map(Vec::len).sum();
                    prop_assert!(n_bytes <= 3 * n_entries_max * 20 + 4096, "{} bytes stored", n_bytes);
                    if random(2) == 0 {
                        pair.restart(&clocks_us);
                    }
                }
            }
        }
    }
}
