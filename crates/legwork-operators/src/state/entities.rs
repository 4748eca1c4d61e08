//! Newest versions of entities.

use std::cmp::Ordering;

use legwork_types::StateError;
use legwork_types::time::TimeConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::persist::{Dirty, Loader, Refs, Saver, damaged, opt_time};
use super::seen::Mark;
use super::{DedupConfig, Interner, NO_TIME, Outcome, Seen, hash_of};

/// A version as it comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) id: &'a str,
    pub(crate) event_time_us: i64,
    pub(crate) sequence: i64,
    pub(crate) event_id: &'a str,
    pub(crate) source: &'a str,
    /// Hash of what it says.
    pub(crate) content: u64,
}

/// The clock that lateness is measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClockOf<'a> {
    /// The entity's own.
    Itself,
    /// That of another key, such as the rep: its number and the clocks of all keys.
    Key(u32, &'a [i64]),
}

#[derive(Clone, Copy, Debug)]
struct Version {
    event_time_us: i64,
    sequence: i64,
    content: u64,
    event_id_start: u64,
    event_id_len: u32,
    source: u32,
}

/// The newest version of each entity: the largest (event_time, sequence, event_id), then (source, hash of the content), so that the
/// winner never depends on who came first. An older version changes nothing; its mark is remembered, so that it counts once.
#[derive(Debug)]
pub(crate) struct Entities {
    ids: Interner,
    versions: Vec<Version>,
    /// Event ids of the newest versions, with those of replaced ones in between until they outweigh the others.
    event_ids: String,
    n_bytes_replaced: usize,
    sources: Interner,
    older: Seen,
    dirty: Dirty,
    late_horizon_us: i64,
}

/// Event time, sequence, content, event id, source.
type VersionWire = (i64, Option<i64>, u64, String, u32);

/// What became of a version: the entity's number and whether it is the newest now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) outcome: Outcome,
    pub(crate) place: Place,
}

/// Where an accepted version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// First of its entity; numbers are dense from 0.
    First,
    /// Newest of the entity with that number, and what it replaces is to be retracted.
    Newest(u32),
    /// It changes nothing.
    Nowhere,
}

impl Entities {
    /// Empty; with a late horizon or, for entities whose histories are kept, without.
    pub(crate) fn new(dedup: &DedupConfig, time: Option<&TimeConfig>) -> Entities {
        Entities {
            ids: Interner::default(),
            versions: Vec::new(),
            event_ids: String::new(),
            n_bytes_replaced: 0,
            sources: Interner::default(),
            older: Seen::new(dedup),
            dirty: Dirty::default(),
            late_horizon_us: time.map_or(i64::MAX, |time| time.late_horizon_us),
        }
    }

    /// Ids by number.
    pub(crate) fn ids(&self) -> &Interner {
        &self.ids
    }

    /// Takes a version.
    pub(crate) fn offer(&mut self, candidate: &Candidate<'_>, clock_of: ClockOf<'_>) -> Offered {
        let hash = hash_of(candidate.id);
        let known = self.ids.find(hash, candidate.id);
        let newest = known.map(|id| self.versions[id as usize]);
        let order = newest.map_or(Ordering::Greater, |newest| self.compare(candidate, &newest));
        if order != Ordering::Greater && self.is_known(candidate, newest, clock_of) {
            return Offered { outcome: Outcome::Duplicate, place: Place::Nowhere };
        }
        let clock_us = match clock_of {
            ClockOf::Itself => newest.map_or(i64::MIN, |newest| newest.event_time_us),
            ClockOf::Key(key, clocks_us) => clocks_us[key as usize],
        };
        if candidate.event_time_us < clock_us.saturating_sub(self.late_horizon_us) {
            return Offered { outcome: Outcome::Late, place: Place::Nowhere };
        }
        let outcome = Outcome::Accepted { is_reordered: candidate.event_time_us < clock_us };
        let place = match (known, newest) {
            (Some(id), Some(newest)) if order == Ordering::Greater => {
                self.replace(id, newest, candidate, clock_of);
                Place::Newest(id)
            }
            (Some(id), Some(_)) => {
                let mark = Mark::new(candidate.source, candidate.event_id);
                self.remember(mark, id, candidate.event_time_us, clock_of);
                Place::Nowhere
            }
            _ => {
                let id = self.ids.add(hash, candidate.id);
                self.dirty.mark(id);
                let version = self.version(candidate);
                self.versions.push(version);
                Place::First
            }
        };
        Offered { outcome, place }
    }

    fn compare(&self, candidate: &Candidate<'_>, version: &Version) -> Ordering {
        (candidate.event_time_us, candidate.sequence)
            .cmp(&(version.event_time_us, version.sequence))
            .then_with(|| candidate.event_id.cmp(self.event_id(version)))
            .then_with(|| candidate.source.cmp(self.sources.texts().get(version.source)))
            .then_with(|| candidate.content.cmp(&version.content))
    }

    /// Whether a version that is not newer than the newest one is that one, an edit of it that loses, or one remembered.
    fn is_known(&self, candidate: &Candidate<'_>, newest: Option<Version>, clock_of: ClockOf<'_>) -> bool {
        let is_newest = newest.is_some_and(|newest| {
            self.event_id(&newest) == candidate.event_id && self.sources.texts().get(newest.source) == candidate.source
        });
        is_newest || self.is_remembered(Mark::new(candidate.source, candidate.event_id), clock_of)
    }

    fn is_remembered(&self, mark: Mark, clock_of: ClockOf<'_>) -> bool {
        match clock_of {
            ClockOf::Itself => self.older.contains(mark, |id| self.versions[id as usize].event_time_us),
            ClockOf::Key(_, clocks_us) => self.older.contains(mark, |key| clocks_us[key as usize]),
        }
    }

    fn replace(&mut self, id: u32, newest: Version, candidate: &Candidate<'_>, clock_of: ClockOf<'_>) {
        let mark = Mark::new(self.sources.texts().get(newest.source), self.event_id(&newest));
        if !self.is_remembered(mark, clock_of) {
            self.remember(mark, id, newest.event_time_us, clock_of);
        }
        self.n_bytes_replaced += newest.event_id_len as usize;
        self.versions[id as usize] = self.version(candidate);
        self.dirty.mark(id);
        if self.n_bytes_replaced > 1 << 20 && self.n_bytes_replaced > self.event_ids.len() / 2 {
            self.compact();
        }
    }

    fn remember(&mut self, mark: Mark, id: u32, event_time_us: i64, clock_of: ClockOf<'_>) {
        match clock_of {
            ClockOf::Itself => {
                let versions = &self.versions;
                self.older.insert(mark, id, event_time_us, |id| versions[id as usize].event_time_us);
            }
            ClockOf::Key(key, clocks_us) => self.older.insert(mark, key, event_time_us, |key| clocks_us[key as usize]),
        }
    }

    fn version(&mut self, candidate: &Candidate<'_>) -> Version {
        let event_id_start = self.event_ids.len() as u64;
        self.event_ids.push_str(candidate.event_id);
        Version {
            event_time_us: candidate.event_time_us,
            sequence: candidate.sequence,
            content: candidate.content,
            event_id_start,
            event_id_len: u32::try_from(candidate.event_id.len()).expect("messages are far below 4 GiB each"),
            source: self.sources.intern_again(candidate.source),
        }
    }

    fn event_id(&self, version: &Version) -> &str {
        let start = version.event_id_start as usize;
        &self.event_ids[start..start + version.event_id_len as usize]
    }

    fn compact(&mut self) {
        let mut event_ids = String::with_capacity(self.event_ids.len() - self.n_bytes_replaced);
        for version in &mut self.versions {
            let start = version.event_id_start as usize;
            version.event_id_start = event_ids.len() as u64;
            event_ids.push_str(&self.event_ids[start..start + version.event_id_len as usize]);
        }
        self.event_ids = event_ids;
        self.n_bytes_replaced = 0;
    }

    /// Writes what changed since the last checkpoint, into sections `section` and the four after. `also` gives what the operator
    /// keeps of an entity; it changes only with the newest version.
    pub(crate) fn save<W: Serialize>(&mut self, section: u8, saver: &mut Saver, also: impl Fn(u32) -> W) {
        self.ids.save(section, saver);
        self.sources.save(section + 1, saver);
        let blocks = self.dirty.take(self.versions.len());
        saver.blocks(section + 2, &blocks, self.versions.len(), |id| {
            let version = &self.versions[id as usize];
            let Version { event_time_us, sequence, content, source, .. } = *version;
            ((event_time_us, opt_time(sequence), content, self.event_id(version), source), also(id))
        });
        self.older.save(section + 3, saver);
    }

    /// Takes up what was written; gives what the operator kept of each entity. `clocks_us` are those of keys where lateness is measured
    /// by them.
    pub(crate) fn load<W: DeserializeOwned>(
        &mut self,
        section: u8,
        loader: &mut Loader<'_>,
        clocks_us: Option<&[i64]>,
    ) -> Result<Vec<W>, StateError> {
        self.ids = loader.interner(section)?;
        self.sources = loader.interner(section + 1)?;
        let items = loader.blocks::<(VersionWire, W)>(section + 2)?;
        if items.len() != self.ids.len() {
            return Err(damaged(section + 2, 0, format!("{} entities with {} ids", items.len(), self.ids.len())));
        }
        let sources = Refs { section: section + 2, n: self.sources.len() };
        let mut all = Vec::with_capacity(items.len());
        for ((event_time_us, sequence, content, event_id, source), also) in items {
            let event_id_start = self.event_ids.len() as u64;
            self.event_ids.push_str(&event_id);
            let event_id_len = event_id.len() as u32;
            let (sequence, source) = (sequence.unwrap_or(NO_TIME), sources.known(source)?);
            self.versions.push(Version { event_time_us, sequence, content, event_id_start, event_id_len, source });
            all.push(also);
        }
        let versions = &self.versions;
        let keys = Refs { section: section + 4, n: clocks_us.map_or(versions.len(), <[i64]>::len) };
        self.older.load(section + 3, loader, keys, |key| match clocks_us {
            Some(clocks_us) => clocks_us[key as usize],
            None => versions[key as usize].event_time_us,
        })?;
        self.dirty.take(0);
        Ok(all)
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.dirty.memory_bytes()
            + self.ids.memory_bytes()
            + self.versions.capacity() * size_of::<Version>()
            + self.event_ids.capacity()
            + self.sources.memory_bytes()
            + self.older.memory_bytes()
    }
}
