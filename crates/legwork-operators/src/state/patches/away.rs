//! Keys of which no patch has come for long: with a store they are only there, until one comes.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use legwork_types::time::LaneClock;
use legwork_types::{EventBatch, StateEntry, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::persist::{Loader, Saver, damaged, opt_time};
use super::super::{Archive, ArchiveConfig, Common, Fingerprint, Leave, NO_TIME, NONE, hash_of};
use super::{FieldType, Fold, Patch, Patches};

/// One key in so many items is copied at once: each takes its patches along.
const ITEMS_A_KEY: usize = 8;

/// A patch in the store: event time, sequence, event id, source, fields set and cleared, words.
type AwayPatch = (i64, Option<i64>, String, u32, u16, u16, Vec<u32>);

/// A key in the store: its name and clock, texts that patches refer to by number, patches in order, and what the operator keeps of it.
type AwayKey<W> = (String, Option<i64>, Vec<String>, Vec<AwayPatch>, W);

/// What is only in the store.
#[derive(Debug)]
pub(super) struct Away<W> {
    section: u8,
    after_us: i64,
    keys: Archive<AwayKey<W>>,
    /// By event: the key that it is a patch of.
    events: Archive<String>,
    leave: Leave<u32>,
}

impl<W: Serialize + DeserializeOwned> Away<W> {
    pub(super) fn new(config: ArchiveConfig) -> Away<W> {
        Away {
            section: config.section,
            after_us: config.after_us,
            keys: Archive::new(config.section),
            events: Archive::new(config.section + 1),
            leave: Leave::new(Some(config), ITEMS_A_KEY),
        }
    }

    pub(super) fn save(&mut self, saver: &mut Saver) {
        self.keys.save(saver);
        self.events.save(saver);
    }

    pub(super) fn load(&mut self, loader: &mut Loader<'_>) -> Result<(), StateError> {
        self.keys.load(loader)?;
        self.events.load(loader)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.events.memory_bytes()
    }
}

fn name_of_key(key: &str) -> Fingerprint {
    Fingerprint::default().text(key)
}

fn name_of_event(source: &str, event_id: &str) -> Fingerprint {
    Fingerprint::default().text(source).text(event_id)
}

impl<W: Serialize + DeserializeOwned> Patches<W> {
    /// Keys of the store to read before the batch is applied: what it tells of, or edits, and memory has not.
    pub(crate) fn wanted(&self, events: &EventBatch) -> Vec<Vec<u8>> {
        let Some(away) = self.away.as_ref().filter(|away| !away.keys.is_empty()) else { return Vec::new() };
        let (common, keys) = (Common::of(events), events.strings(self.key_column));
        let key = |key: &str| away.keys.wanted(name_of_key(key)).filter(|_| self.keys.number(key).is_none());
        let mut wanted = BTreeSet::new();
        for row in 0..events.n_rows() {
            wanted.extend(key(keys.value(row)));
            let (source, event_id) = (common.source(row), common.event_id(row));
            if self.find(source, &event_id).is_none() {
                let name = name_of_event(source, &event_id);
                wanted.extend(away.events.look(name).and_then(|its| key(its)));
                wanted.extend(away.events.wanted(name));
            }
        }
        wanted.into_iter().collect()
    }

    /// Takes up what was wanted. *Errors:* a newer format, or damaged.
    pub(crate) fn supply(&mut self, cold: Vec<StateEntry>, fold: &mut impl Fold<Kept = W>) -> Result<(), StateError> {
        for entry in cold {
            let Some(away) = &mut self.away else { continue };
            if away.events.supply(&entry, |_| Ok(()))? {
                continue;
            }
            if !away.keys.supply(&entry, |_| Ok(()))? {
                return Err(damaged(away.section, 0, "an entry that was not asked for"));
            }
            if let Some(key) = away.keys.take_read(&entry) {
                self.bring_back(key, fold)?;
            }
        }
        Ok(())
    }

    /// The batch is over.
    pub(super) fn forget_brought(&mut self) {
        if let Some(away) = &mut self.away {
            away.keys.forget_brought();
            away.events.forget_brought();
        }
    }

    /// The checkpoint with that revision is durable.
    pub(crate) fn committed(&mut self, revision: u32) {
        if let Some(away) = &mut self.away {
            away.keys.committed(revision);
            away.events.committed(revision);
        }
    }

    /// The key has a new patch, or lost one: what was copied of it is stale.
    pub(super) fn stay(&mut self, key: u32) {
        if let Some(away) = &mut self.away {
            away.leave.stay(&key);
        }
    }

    /// At a checkpoint, after the rows: copies keys that are done into `cold`, and lets go of those of which the copy is durable. `fold` is
    /// filled anew then, and keys and texts have other numbers.
    pub(crate) fn leave(&mut self, clock: &LaneClock, cold: &mut Vec<StateEntry>, fold: &mut impl Fold<Kept = W>) {
        let Some(away) = &mut self.away else { return };
        let at = (clock.newest_us.saturating_sub(away.after_us), clock.revision, away.keys.durable());
        let (n_keys, clocks_us) = (self.clocks_us.len(), &self.clocks_us);
        let mut copied = Vec::new();
        let gone = away.leave.advance((n_keys, n_keys), at, |key, before_us| {
            let is_done = clocks_us[key as usize] < before_us;
            is_done.then(|| {
                copied.push(key);
                key
            })
        });
        copied.into_iter().for_each(|key| self.copy(key, fold.kept(key), cold));
        if let Some(gone) = gone {
            self.let_go(&gone, fold);
        }
    }

    fn copy(&self, key: u32, kept: W, cold: &mut Vec<StateEntry>) {
        let Some(away) = &self.away else { return };
        let item = self.away_key(key, kept);
        let (id, _, texts, patches, _) = &item;
        for (_, _, event_id, source, ..) in patches {
            cold.push(away.events.copy(name_of_event(&texts[*source as usize], event_id), id));
        }
        cold.push(away.keys.copy(name_of_key(id), &item));
    }

    /// Patches of a key in order.
    fn patches_of(&self, key: u32) -> Vec<u32> {
        let newest = Some(self.newest[key as usize]).filter(|number| *number != NONE);
        let previous = |number: &u32| Some(self.patches[*number as usize].previous).filter(|number| *number != NONE);
        let mut patches: Vec<u32> = std::iter::successors(newest, previous).collect();
        patches.reverse();
        patches
    }

    fn away_key(&self, key: u32, kept: W) -> AwayKey<W> {
        let (mut texts, mut numbers) = (Vec::new(), HashMap::new());
        let mut text = |number: u32| {
            *numbers.entry(number).or_insert_with(|| {
                texts.push(self.texts().get(number).to_owned());
                texts.len() as u32 - 1
            })
        };
        let mut patch = |number: u32| -> AwayPatch {
            let patch = &self.patches[number as usize];
            let mut words = self.view(number).words[..self.n_words(patch.set)].to_vec();
            let mut at = 0;
            for field_type in self.set_fields(patch.set) {
                if field_type == FieldType::Text {
                    words[at] = text(words[at]);
                }
                at += field_type.n_words();
            }
            let event_id = self.event_ids.get(patch.event_id).to_owned();
            (
                patch.event_time_us,
                opt_time(patch.sequence),
                event_id,
                text(patch.source),
                patch.set,
                patch.cleared,
                words,
            )
        };
        let patches = self.patches_of(key).into_iter().map(&mut patch).collect();
        (self.keys().get(key).to_owned(), opt_time(self.clocks_us[key as usize]), texts, patches, kept)
    }

    fn bring_back(
        &mut self,
        (id, clock_us, texts, patches, kept): AwayKey<W>,
        fold: &mut impl Fold<Kept = W>,
    ) -> Result<(), StateError> {
        let hash = hash_of(id.as_str());
        if self.keys.find(hash, &id).is_some() {
            return Ok(());
        }
        let section = self.away.as_ref().map_or(0, |away| away.section);
        let key = self.keys.add(hash, &id);
        self.newest.push(NONE);
        self.clocks_us.push(clock_us.unwrap_or(NO_TIME));
        self.is_dirty.push(false);
        self.saving.keys.mark(key);
        let first = self.patches.len() as u32;
        let texts: Vec<u32> = texts.iter().map(|text| self.texts.intern(text)).collect();
        let known = |text: u32| {
            let known = texts.get(text as usize).copied();
            known.ok_or_else(|| damaged(section, 0, format!("it refers to text {text} of {}", texts.len())))
        };
        for (event_time_us, sequence, event_id, source, set, cleared, mut words) in patches {
            if !self.are_fields(set) || !self.are_fields(cleared) || words.len() != self.n_words(set) {
                return Err(damaged(
                    section,
                    0,
                    format!("a patch of {id} sets fields {set:#x} with {} words", words.len()),
                ));
            }
            let mut at = 0;
            for field_type in self.set_fields(set) {
                if field_type == FieldType::Text {
                    words[at] = known(words[at])?;
                }
                at += field_type.n_words();
            }
            let source = known(source)?;
            let number = u32::try_from(self.patches.len()).expect("fewer than 2^32 patches fit into memory");
            self.by_event.insert(hash_of((self.texts().get(source), event_id.as_str())), number);
            let patch = Patch {
                event_time_us,
                sequence: sequence.unwrap_or(NO_TIME),
                key,
                event_id: self.event_ids.push(&event_id),
                source,
                previous: std::mem::replace(&mut self.newest[key as usize], number),
                words_start: u32::try_from(self.words.len()).expect("patches hold less than 16 GiB"),
                set,
                cleared,
            };
            self.words.extend(words);
            self.patches.push(patch);
            self.saving.patches.mark(number);
        }
        let patches = (first..self.patches.len() as u32).map(|number| self.view(number));
        fold.bring_back(key, patches, kept).map_err(|detail| damaged(section, 0, format!("{id}: {detail}")))
    }

    fn let_go(&mut self, gone: &HashSet<u32>, fold: &mut impl Fold<Kept = W>) {
        let Some(mut away) = self.away.take() else { return };
        for patch in self.patches.iter().filter(|patch| gone.contains(&patch.key)) {
            away.events.add(name_of_event(self.texts().get(patch.source), self.event_ids.get(patch.event_id)));
        }
        gone.iter().for_each(|key| away.keys.add(name_of_key(self.keys().get(*key))));
        let stay = (0..self.clocks_us.len() as u32).filter(|key| !gone.contains(key));
        let stay: Vec<AwayKey<W>> = stay.map(|key| self.away_key(key, fold.kept(key))).collect();
        let mut left = Patches::new(self.fields, self.key_column, self.cleared_column, None);
        left.saving.n_written = self.saving.n_written;
        fold.clear();
        for key in stay {
            left.bring_back(key, fold).expect("it was in memory");
        }
        left.away = Some(away);
        *self = left;
    }
}
