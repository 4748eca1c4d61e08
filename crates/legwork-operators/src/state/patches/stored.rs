//! Patches in the lane's store.

use legwork_types::StateError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::persist::{BLOCK_ITEMS, Dirty, Loader, Refs, Saver, damaged, opt_time};
use super::super::{NO_TIME, NONE, hash_of};
use super::{FieldType, Fold, Patch, Patches};

/// What changed since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Saving {
    pub(super) n_event_ids: usize,
    pub(super) patches: Dirty,
    pub(super) keys: Dirty,
    /// Items in each of the five sections at the last checkpoint.
    pub(super) n_written: [usize; 5],
}

/// Event time, sequence, key, event id, source, fields set and cleared, words. None where an edit has taken its place.
type PatchWire = Option<(i64, Option<i64>, u32, u32, u32, u16, u16, Vec<u32>)>;

impl<W: Serialize + DeserializeOwned> Patches<W> {
    /// Writes what changed since the last checkpoint, into sections `section` and the four after, and those of the archive.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver, fold: &impl Fold<Kept = W>) {
        self.keys.save(section, saver);
        self.texts.save(section + 1, saver);
        saver.texts(section + 2, &self.event_ids, &mut self.saving.n_event_ids);
        let blocks = self.saving.patches.take(self.patches.len());
        saver.blocks(section + 3, &blocks, self.patches.len(), |number| self.wire(number));
        let blocks = self.saving.keys.take(self.clocks_us.len());
        saver.blocks(section + 4, &blocks, self.clocks_us.len(), |key| {
            (opt_time(self.clocks_us[key as usize]), fold.kept(key))
        });
        let n_items = self.n_items();
        for (section, (n_before, n_items)) in (section..).zip(self.saving.n_written.into_iter().zip(n_items)) {
            saver.cut(section, n_before, n_items);
        }
        self.saving.n_written = n_items;
        if let Some(away) = &mut self.away {
            away.save(saver);
        }
    }

    fn n_items(&self) -> [usize; 5] {
        [self.keys.len(), self.texts.len(), self.event_ids.len(), self.patches.len(), self.clocks_us.len()]
    }

    fn wire(&self, number: u32) -> PatchWire {
        let Patch { event_time_us, sequence, key, event_id, source, set, cleared, .. } = self.patches[number as usize];
        let words = &self.view(number).words[..self.n_words(set)];
        (key != NONE).then(|| (event_time_us, opt_time(sequence), key, event_id, source, set, cleared, words.to_vec()))
    }

    pub(super) fn set_fields(&self, set: u16) -> impl Iterator<Item = FieldType> {
        self.fields.iter().enumerate().filter(move |(idx, _)| set >> idx & 1 == 1).map(|(_, field)| field.field_type)
    }

    pub(super) fn n_words(&self, set: u16) -> usize {
        self.set_fields(set).map(FieldType::n_words).sum()
    }

    /// Takes up what was written, and folds it; gives what the operator kept of each key.
    pub(crate) fn load(
        &mut self,
        section: u8,
        loader: &mut Loader<'_>,
        fold: &mut impl Fold<Kept = W>,
    ) -> Result<Vec<W>, StateError> {
        self.keys = loader.interner(section)?;
        self.texts = loader.interner(section + 1)?;
        self.event_ids = loader.texts(section + 2)?;
        for patch in loader.blocks::<PatchWire>(section + 3)? {
            self.load_patch(section + 3, patch)?;
        }
        let kept = loader.blocks::<(Option<i64>, W)>(section + 4)?;
        if kept.len() != self.keys.len() {
            return Err(damaged(section + 4, 0, format!("it tells of {} keys of {}", kept.len(), self.keys.len())));
        }
        let mut all = Vec::with_capacity(kept.len());
        for (clock_us, also) in kept {
            self.clocks_us.push(clock_us.unwrap_or(NO_TIME));
            all.push(also);
        }
        self.newest = vec![NONE; self.keys.len()];
        self.is_dirty = vec![true; self.keys.len()];
        self.dirty = (0..self.keys.len() as u32).collect();
        self.pending = (0..self.patches.len() as u32).collect();
        self.settle(fold, 0);
        self.saving.n_event_ids = self.event_ids.len();
        self.saving.patches.take(0);
        self.saving.keys.take(0);
        self.saving.n_written = self.n_items();
        self.away.as_mut().map_or(Ok(()), |away| away.load(loader))?;
        Ok(all)
    }

    /// Whether no bit is set that stands for no field.
    pub(super) fn are_fields(&self, bits: u16) -> bool {
        u32::from(bits).checked_shr(self.fields.len() as u32).unwrap_or(0) == 0
    }

    fn load_patch(&mut self, section: u8, patch: PatchWire) -> Result<(), StateError> {
        let number = self.patches.len() as u32;
        let words_start = self.words.len() as u32;
        let Some((event_time_us, sequence, key, event_id, source, set, cleared, words)) = patch else {
            self.patches.push(Patch {
                event_time_us: 0,
                sequence: 0,
                key: NONE,
                event_id: NONE,
                source: NONE,
                previous: NONE,
                words_start,
                set: 0,
                cleared: 0,
            });
            return Ok(());
        };
        let refs = |n| Refs { section, n };
        let (key, event_id) = (refs(self.keys.len()).known(key)?, refs(self.event_ids.len()).known(event_id)?);
        let (source, texts) = (refs(self.texts.len()).known(source)?, refs(self.texts.len()));
        if !self.are_fields(set) || !self.are_fields(cleared) || words.len() != self.n_words(set) {
            let detail = format!("patch {number} sets fields {set:#x} with {} words, clears {cleared:#x}", words.len());
            return Err(damaged(section, number / BLOCK_ITEMS as u32, detail));
        }
        let mut at = 0;
        for field_type in self.set_fields(set) {
            if field_type == FieldType::Text {
                texts.known(words[at])?;
            }
            at += field_type.n_words();
        }
        self.words.extend(words);
        let sequence = sequence.unwrap_or(NO_TIME);
        let previous = NONE;
        let hash = hash_of((self.texts().get(source), self.event_ids.get(event_id)));
        self.by_event.insert(hash, number);
        self.patches.push(Patch {
            event_time_us,
            sequence,
            key,
            event_id,
            source,
            previous,
            words_start,
            set,
            cleared,
        });
        Ok(())
    }
}
