//! Newest versions of entities.

use std::cmp::Ordering;

use hashbrown::{HashMap, HashSet};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{StateEntry, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fingerprint::Fingerprint;
use super::persist::{Dirty, Loader, Refs, Saver, damaged, opt_time};
use super::seen::{Mark, SeenWire};
use super::{Archive, ArchiveConfig, DedupConfig, Interner, Leave, NO_TIME, Outcome, Seen, hash_of};

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
///
/// `W` is what the operator keeps of an entity, as it is written. Where there is a store, entities of which no version came for the late
/// horizon, as the lane's clock has it, are only there, until another version comes.
#[derive(Debug)]
pub(crate) struct Entities<W> {
    ids: Interner,
    versions: Vec<Version>,
    /// Event ids of the newest versions, with those of replaced ones in between until they outweigh the others.
    event_ids: String,
    n_bytes_replaced: usize,
    sources: Interner,
    older: Seen,
    dirty: Dirty,
    late_horizon_us: i64,
    archive: Option<Archive<AwayWire<W>>>,
    leave: Leave<u32>,
    leave_after_us: i64,
    /// Entities at the last checkpoint.
    n_saved: usize,
}

/// Event time, sequence, content, event id, source.
type VersionWire = (i64, Option<i64>, u64, String, u32);

/// An entity that is only in the store: id, newest version, what the operator keeps, and older versions that are remembered by its number.
type AwayWire<W> = (String, VersionWire, W, Vec<SeenWire>);

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

impl<W: Serialize + DeserializeOwned> Entities<W> {
    /// Empty; with a late horizon or, for entities whose histories are kept, without. `archive`: how some leave memory, where there is
    /// a store.
    pub(crate) fn new(dedup: &DedupConfig, time: Option<&TimeConfig>, archive: Option<ArchiveConfig>) -> Entities<W> {
        Entities {
            ids: Interner::default(),
            versions: Vec::new(),
            event_ids: String::new(),
            n_bytes_replaced: 0,
            sources: Interner::default(),
            older: Seen::new(dedup),
            dirty: Dirty::default(),
            late_horizon_us: time.map_or(i64::MAX, |time| time.late_horizon_us),
            archive: archive.map(|config| Archive::new(config.section)),
            leave: Leave::new(archive, 1),
            leave_after_us: archive.map_or(i64::MAX, |config| config.after_us),
            n_saved: 0,
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
                self.leave.stay(&id);
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
        self.leave.stay(&id);
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
        let (event_id_start, event_id_len) = self.push_event_id(candidate.event_id);
        Version {
            event_time_us: candidate.event_time_us,
            sequence: candidate.sequence,
            content: candidate.content,
            event_id_start,
            event_id_len,
            source: self.sources.intern_again(candidate.source),
        }
    }

    fn push_event_id(&mut self, event_id: &str) -> (u64, u32) {
        let start = self.event_ids.len() as u64;
        self.event_ids.push_str(event_id);
        (start, u32::try_from(event_id.len()).expect("messages are far below 4 GiB each"))
    }

    fn push_wire(&mut self, (event_time_us, sequence, content, event_id, source): VersionWire) {
        let (event_id_start, event_id_len) = self.push_event_id(&event_id);
        let sequence = sequence.unwrap_or(NO_TIME);
        self.versions.push(Version { event_time_us, sequence, content, event_id_start, event_id_len, source });
    }

    fn wire(&self, version: &Version) -> VersionWire {
        let Version { event_time_us, sequence, content, source, .. } = *version;
        (event_time_us, opt_time(sequence), content, self.event_id(version).to_owned(), source)
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

    /// Keys of entities of a batch that the store may have, by id, and the id's number where it is in memory.
    pub(crate) fn wanted(&self, id: &str) -> Option<Vec<u8>> {
        let archive = self.archive.as_ref()?;
        let key = archive.wanted(name(id))?;
        self.ids.number(id).is_none().then_some(key)
    }

    /// What the operator kept of an entity that was read back for the batch.
    pub(crate) fn look(&self, id: &str) -> Option<&W> {
        let (away_id, _, also, _) = self.archive.as_ref()?.look(name(id))?;
        (away_id == id).then_some(also)
    }

    /// Whether none has left memory.
    pub(crate) fn are_all_here(&self) -> bool {
        self.archive.as_ref().is_none_or(Archive::is_empty)
    }

    /// Number of an entity in memory.
    pub(crate) fn find(&self, id: &str) -> Option<u32> {
        self.ids.number(id)
    }

    /// Takes an entity that was read back for the batch into memory again; gives what the operator kept of it. `clock_of` as for
    /// [`Entities::offer`].
    pub(crate) fn bring_back(&mut self, id: &str, clock_of: ClockOf<'_>) -> Option<W> {
        let hash = hash_of(id);
        let (away_id, version, also, older) = self.archive.as_mut()?.take(name(id))?;
        // Two ids that share 96 bits of hash were made to.
        if away_id != id || self.ids.find(hash, id).is_some() {
            return None;
        }
        let number = self.ids.add(hash, id);
        self.push_wire(version);
        self.dirty.mark(number);
        if let ClockOf::Itself = clock_of {
            let versions = &self.versions;
            self.older.bring_back(number, &older, |id| versions[id as usize].event_time_us);
        }
        Some(also)
    }

    /// Takes up an entity that was wanted; false where the entry is none. `check` looks at what the operator keeps.
    pub(crate) fn supply(
        &mut self,
        entry: &StateEntry,
        check: impl Fn(&W) -> Result<(), StateError>,
    ) -> Result<bool, StateError> {
        let Some(archive) = &mut self.archive else { return Ok(false) };
        let sources = Refs { section: entry.key.first().copied().unwrap_or_default(), n: self.sources.len() };
        archive.supply(entry, |(_, (.., source), also, _)| {
            sources.known(*source)?;
            check(also)
        })
    }

    /// The batch is over.
    pub(crate) fn forget_brought(&mut self) {
        if let Some(archive) = &mut self.archive {
            archive.forget_brought();
        }
    }

    /// The checkpoint with that revision is durable.
    pub(crate) fn committed(&mut self, revision: u32) {
        if let Some(archive) = &mut self.archive {
            archive.committed(revision);
        }
    }

    /// At a checkpoint, after the rows: copies entities that are done into `cold`, and lets go of those of which the copy is durable. `also`
    /// as for [`Entities::save`]. *Returns* the old numbers of the entities, in the order of their new ones, where some have left.
    pub(crate) fn leave(
        &mut self,
        clock: &LaneClock,
        clock_of: ClockOf<'_>,
        cold: &mut Vec<StateEntry>,
        also: impl Fn(u32) -> W,
    ) -> Option<Vec<u32>> {
        let archive = self.archive.as_ref()?;
        let at = (clock.newest_us.saturating_sub(self.leave_after_us), clock.revision, archive.durable());
        let mut copied = Vec::new();
        let (n_entities, versions) = (self.versions.len(), &self.versions);
        let gone = self.leave.advance((n_entities, n_entities), at, |number, before_us| {
            let is_done = versions[number as usize].event_time_us < before_us;
            is_done.then(|| {
                copied.push(number);
                number
            })
        });
        self.copy(&copied, clock_of, cold, also);
        Some(self.let_go(&gone?, clock_of))
    }

    fn copy(&self, numbers: &[u32], clock_of: ClockOf<'_>, cold: &mut Vec<StateEntry>, also: impl Fn(u32) -> W) {
        let (Some(archive), false) = (&self.archive, numbers.is_empty()) else { return };
        let mut older = match clock_of {
            // By number, ascending.
            ClockOf::Itself => self.older.of_keys(|key| numbers.binary_search(&key).is_ok()),
            ClockOf::Key(..) => HashMap::new(),
        };
        for &number in numbers {
            let id = self.ids.texts().get(number);
            let version = self.wire(&self.versions[number as usize]);
            let item: AwayWire<W> = (id.to_owned(), version, also(number), older.remove(&number).unwrap_or_default());
            cold.push(archive.copy(name(id), &item));
        }
    }

    fn let_go(&mut self, gone: &HashSet<u32>, clock_of: ClockOf<'_>) -> Vec<u32> {
        let (ids, versions) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.versions));
        let event_ids = std::mem::take(&mut self.event_ids);
        self.n_bytes_replaced = 0;
        let mut kept = Vec::with_capacity(versions.len() - gone.len());
        for (number, version) in (0..).zip(&versions) {
            let id = ids.texts().get(number);
            if gone.contains(&number) {
                self.archive.iter_mut().for_each(|archive| archive.add(name(id)));
                continue;
            }
            kept.push(number);
            self.ids.add(hash_of(id), id);
            let start = version.event_id_start as usize;
            let (event_id_start, event_id_len) =
                self.push_event_id(&event_ids[start..start + version.event_id_len as usize]);
            self.versions.push(Version { event_id_start, event_id_len, ..*version });
        }
        // All that are left have new numbers.
        self.dirty = Dirty::default();
        if let ClockOf::Itself = clock_of {
            let number = |old: u32| kept.binary_search(&old).ok().map(|number| number as u32);
            self.older.renumber(number);
        }
        kept
    }

    /// Writes what changed since the last checkpoint, into sections `section` and the four after, and that of the archive. `also` gives
    /// what the operator keeps of an entity; it changes only with the newest version.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver, also: impl Fn(u32) -> W) {
        self.ids.save(section, saver);
        self.sources.save(section + 1, saver);
        let n_entities = self.versions.len();
        let blocks = self.dirty.take(n_entities);
        saver.blocks(section + 2, &blocks, n_entities, |id| (self.wire(&self.versions[id as usize]), also(id)));
        [section, section + 2].into_iter().for_each(|section| saver.cut(section, self.n_saved, n_entities));
        self.n_saved = n_entities;
        self.older.save(section + 3, saver);
        if let Some(archive) = &mut self.archive {
            archive.save(saver);
        }
    }

    /// Takes up what was written; gives what the operator kept of each entity. `clocks_us` are those of keys where lateness is measured
    /// by them.
    pub(crate) fn load(
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
        for (version, also) in items {
            sources.known(version.4)?;
            self.push_wire(version);
            all.push(also);
        }
        let versions = &self.versions;
        let keys = Refs { section: section + 4, n: clocks_us.map_or(versions.len(), <[i64]>::len) };
        self.older.load(section + 3, loader, keys, |key| match clocks_us {
            Some(clocks_us) => clocks_us[key as usize],
            None => versions[key as usize].event_time_us,
        })?;
        self.dirty.take(0);
        self.n_saved = self.versions.len();
        Ok(all)
    }

    /// Takes up which entities have left memory.
    pub(crate) fn load_away(&mut self, loader: &mut Loader<'_>) -> Result<(), StateError> {
        self.archive.as_mut().map_or(Ok(()), |archive| archive.load(loader))
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.dirty.memory_bytes()
            + self.ids.memory_bytes()
            + self.versions.capacity() * size_of::<Version>()
            + self.event_ids.capacity()
            + self.sources.memory_bytes()
            + self.older.memory_bytes()
            + self.archive.as_ref().map_or(0, Archive::memory_bytes)
    }
}

fn name(id: &str) -> Fingerprint {
    Fingerprint::default().text(id)
}
