//! Whole histories of patches by key, and folding them again where something came late.

mod away;
mod columns;
mod stored;

use std::cmp::Ordering;

use legwork_types::{EventBatch, Verdicts};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ArchiveConfig, Index, Interner, NONE, Outcome, Tally, Texts, hash_of};
use away::Away;
use columns::Columns;
pub(crate) use columns::money_units;
use stored::Saving;

/// Type of a field that a patch may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldType {
    Text,
    Time,
    Date,
    Real,
    Money,
    Flag,
}

impl FieldType {
    fn n_words(self) -> usize {
        match self {
            FieldType::Text | FieldType::Date | FieldType::Flag => 1,
            FieldType::Time | FieldType::Real | FieldType::Money => 2,
        }
    }
}

/// A field that a patch may set. At most 16 of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) column: usize,
    pub(crate) name: &'static str,
    pub(crate) field_type: FieldType,
}

/// A value that a patch sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// Number of an interned string.
    Text(u32),
    /// Microseconds.
    Time(i64),
    /// Days.
    Date(i32),
    Real(f64),
    /// Units of 0.0001.
    Money(i64),
    Flag(bool),
}

#[derive(Clone, Copy, Debug)]
struct Patch {
    event_time_us: i64,
    sequence: i64,
    /// [`NONE`] once an edit has taken its place.
    key: u32,
    event_id: u32,
    source: u32,
    /// The patch before it in the order of its key.
    previous: u32,
    words_start: u32,
    set: u16,
    cleared: u16,
}

/// A patch of a key, to be folded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PatchView<'a> {
    pub(crate) event_time_us: i64,
    pub(crate) source: u32,
    /// Bit per field that is set to nothing. What the same patch sets wins.
    pub(crate) cleared: u16,
    set: u16,
    fields: &'static [Field],
    words: &'a [u32],
}

impl PatchView<'_> {
    /// Fields that it sets, ascending, with their values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (usize, Value)> {
        let mut at = 0;
        (0..self.fields.len()).filter(|field| self.set >> field & 1 == 1).map(move |field| {
            let (value, n_words) = decode(self.fields[field].field_type, &self.words[at..]);
            at += n_words;
            (field, value)
        })
    }
}

fn decode(field_type: FieldType, words: &[u32]) -> (Value, usize) {
    let long = || u64::from(words[0]) | u64::from(words[1]) << 32;
    match field_type {
        FieldType::Text => (Value::Text(words[0]), 1),
        FieldType::Date => (Value::Date(words[0].cast_signed()), 1),
        FieldType::Flag => (Value::Flag(words[0] == 1), 1),
        FieldType::Time => (Value::Time(long().cast_signed()), 2),
        FieldType::Money => (Value::Money(long().cast_signed()), 2),
        FieldType::Real => (Value::Real(f64::from_bits(long())), 2),
    }
}

/// What patches are folded into.
pub(crate) trait Fold {
    /// What it keeps of a key that does not follow from its patches, as it is written; it changes only when one of them is new or edited.
    type Kept;

    /// Folds one more patch of a key, newer than all before it.
    fn append(&mut self, key: u32, patch: &PatchView<'_>, revision: u32);

    /// Folds all patches of a key, in order, anew; none are left when an edit moved the only one to another key.
    fn refold<'a>(&mut self, key: u32, patches: impl Iterator<Item = PatchView<'a>>, revision: u32);

    /// What it keeps of a key.
    fn kept(&self, key: u32) -> Self::Kept;

    /// Folds all patches of a key, in order, that was handed over before. *Errors:* what was kept of it does not fit them.
    fn bring_back<'a>(
        &mut self,
        key: u32,
        patches: impl Iterator<Item = PatchView<'a>>,
        kept: Self::Kept,
    ) -> Result<(), String>;

    /// Lets go of all keys, which were all handed over.
    fn clear(&mut self);
}

/// All patches of all keys. Order: (event_time, sequence, event_id), then source. Of two with the same (source, event_id) the one
/// with the larger content counts - by event_time, sequence, key, then field by field in the schema's order, then cleared - so that
/// an edited event wins or loses the same way whichever came first.
///
/// A patch is 40 bytes, its event id and some words for what it sets; patches of a key are linked from the newest back. The newest
/// appended costs O(1); others wait until the batch has been read, then their key is linked and folded anew, once.
///
/// `W` is what is kept of a key beside its patches ([`Fold::Kept`]). Where there is a store, keys without a patch for long are only there.
#[derive(Debug)]
pub(crate) struct Patches<W> {
    fields: &'static [Field],
    key_column: usize,
    cleared_column: usize,
    keys: Interner,
    /// By key: its newest patch, and the newest event time it ever had.
    newest: Vec<u32>,
    clocks_us: Vec<i64>,
    patches: Vec<Patch>,
    words: Vec<u32>,
    event_ids: Texts,
    texts: Interner,
    by_event: Index,
    is_dirty: Vec<bool>,
    dirty: Vec<u32>,
    pending: Vec<u32>,
    scratch: Vec<u32>,
    saving: Saving,
    away: Option<Away<W>>,
}

impl<W: Serialize + DeserializeOwned> Patches<W> {
    /// Empty. `archive`: how keys leave memory, where there is a store; it takes two sections.
    pub(crate) fn new(
        fields: &'static [Field],
        key_column: usize,
        cleared_column: usize,
        archive: Option<ArchiveConfig>,
    ) -> Patches<W> {
        debug_assert!(fields.len() <= 16);
        Patches {
            fields,
            key_column,
            cleared_column,
            keys: Interner::default(),
            newest: Vec::new(),
            clocks_us: Vec::new(),
            patches: Vec::new(),
            words: Vec::new(),
            event_ids: Texts::default(),
            texts: Interner::default(),
            by_event: Index::default(),
            is_dirty: Vec::new(),
            dirty: Vec::new(),
            pending: Vec::new(),
            scratch: Vec::new(),
            saving: Saving::default(),
            away: archive.map(Away::new),
        }
    }

    /// Keys by number.
    pub(crate) fn keys(&self) -> &Texts {
        self.keys.texts()
    }

    /// Values and sources by number.
    pub(crate) fn texts(&self) -> &Texts {
        self.texts.texts()
    }

    /// Takes a batch and folds what it changes.
    pub(crate) fn apply(&mut self, events: &EventBatch, fold: &mut impl Fold, revision: u32) -> Verdicts {
        let columns = Columns::of(events, self);
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            tally.count(row, self.take(&columns, row, fold, revision));
        }
        self.settle(fold, revision);
        self.forget_brought();
        tally.verdicts()
    }

    fn take(&mut self, columns: &Columns<'_>, row: usize, fold: &mut impl Fold, revision: u32) -> Outcome {
        let event_id = columns.common.event_id(row);
        let source = columns.common.source(row);
        let hash = hash_of((source, event_id.as_ref()));
        let same = self.find(source, &event_id);
        let mut patch = self.encode(columns, row, source);
        if let Some(same) = same {
            if self.compare_content(&patch, &self.patches[same as usize]) != Ordering::Greater {
                self.words.truncate(patch.words_start as usize);
                return Outcome::Duplicate;
            }
            patch.event_id = self.patches[same as usize].event_id;
            let old_key = std::mem::replace(&mut self.patches[same as usize].key, NONE);
            self.mark_dirty(old_key);
            self.stay(old_key);
            self.saving.patches.mark(same);
            self.saving.keys.mark(old_key);
            self.by_event.remove(hash, same);
        } else {
            patch.event_id = self.event_ids.push(&event_id);
        }
        let number = u32::try_from(self.patches.len()).expect("fewer than 2^32 patches fit into memory");
        self.by_event.insert(hash, number);
        self.patches.push(patch);
        self.saving.patches.mark(number);
        self.saving.keys.mark(patch.key);
        self.stay(patch.key);
        let clock_us = &mut self.clocks_us[patch.key as usize];
        let is_reordered = patch.event_time_us < *clock_us;
        *clock_us = patch.event_time_us.max(*clock_us);
        self.link(number, patch.key, fold, revision);
        Outcome::Accepted { is_reordered }
    }

    /// Number of the patch that an event is, in memory.
    fn find(&self, source: &str, event_id: &str) -> Option<u32> {
        self.by_event.find(hash_of((source, event_id)), |number| {
            let patch = &self.patches[number as usize];
            self.texts().get(patch.source) == source && self.event_ids.get(patch.event_id) == event_id
        })
    }

    fn link(&mut self, number: u32, key: u32, fold: &mut impl Fold, revision: u32) {
        let newest = self.newest[key as usize];
        let is_newest = newest == NONE || self.compare_order(number, newest) == Ordering::Greater;
        if is_newest && !self.is_dirty[key as usize] {
            self.patches[number as usize].previous = newest;
            self.newest[key as usize] = number;
            fold.append(key, &self.view(number), revision);
        } else {
            self.mark_dirty(key);
            self.pending.push(number);
        }
    }

    fn mark_dirty(&mut self, key: u32) {
        if !std::mem::replace(&mut self.is_dirty[key as usize], true) {
            self.dirty.push(key);
        }
    }

    /// Links and folds anew the keys that a patch came late for, or was edited of.
    fn settle(&mut self, fold: &mut impl Fold, revision: u32) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut pending = std::mem::take(&mut self.pending);
        let mut chain = std::mem::take(&mut self.scratch);
        dirty.sort_unstable();
        // An edit may have been edited again within the batch.
        pending.retain(|&number| self.patches[number as usize].key != NONE);
        pending.sort_unstable_by_key(|&number| self.patches[number as usize].key);
        let mut pending_of_key = pending.chunk_by(|&a, &b| self.key(a) == self.key(b)).peekable();
        let mut chains: Vec<(u32, std::ops::Range<usize>)> = Vec::with_capacity(dirty.len());
        chain.clear();
        for &key in &dirty {
            let start = chain.len();
            let mut number = self.newest[key as usize];
            while number != NONE {
                if self.key(number) == key {
                    chain.push(number);
                }
                number = self.patches[number as usize].previous;
            }
            if let Some(late) = pending_of_key.next_if(|late| self.key(late[0]) == key) {
                chain.extend_from_slice(late);
            }
            chain[start..].sort_unstable_by(|&a, &b| self.compare_order(a, b));
            chains.push((key, start..chain.len()));
        }
        drop(pending_of_key);
        for (key, range) in chains {
            let mut previous = NONE;
            for &number in &chain[range.clone()] {
                self.patches[number as usize].previous = previous;
                previous = number;
            }
            self.newest[key as usize] = previous;
            self.is_dirty[key as usize] = false;
            fold.refold(key, chain[range].iter().map(|&number| self.view(number)), revision);
        }
        dirty.clear();
        pending.clear();
        chain.clear();
        chain.shrink_to(1 << 16);
        (self.dirty, self.pending, self.scratch) = (dirty, pending, chain);
    }

    fn key(&self, number: u32) -> u32 {
        self.patches[number as usize].key
    }

    fn view(&self, number: u32) -> PatchView<'_> {
        self.view_of(&self.patches[number as usize])
    }

    fn view_of(&self, patch: &Patch) -> PatchView<'_> {
        PatchView {
            event_time_us: patch.event_time_us,
            source: patch.source,
            cleared: patch.cleared,
            set: patch.set,
            fields: self.fields,
            words: &self.words[patch.words_start as usize..],
        }
    }

    fn compare_order(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (&self.patches[a as usize], &self.patches[b as usize]);
        (a.event_time_us, a.sequence)
            .cmp(&(b.event_time_us, b.sequence))
            .then_with(|| self.event_ids.get(a.event_id).cmp(self.event_ids.get(b.event_id)))
            .then_with(|| self.texts().get(a.source).cmp(self.texts().get(b.source)))
    }

    fn compare_content(&self, a: &Patch, b: &Patch) -> Ordering {
        let keys = self.keys.texts();
        let head = (a.event_time_us, a.sequence, keys.get(a.key)).cmp(&(b.event_time_us, b.sequence, keys.get(b.key)));
        head.then_with(|| {
            let (a_view, b_view) = (self.view_of(a), self.view_of(b));
            let (mut a_values, mut b_values) = (a_view.values().peekable(), b_view.values().peekable());
            (0..self.fields.len())
                .map(|field| {
                    let a = a_values.next_if(|(set, _)| *set == field).map(|(_, value)| value);
                    let b = b_values.next_if(|(set, _)| *set == field).map(|(_, value)| value);
                    self.compare_values(a, b)
                })
                .find(|order| *order != Ordering::Equal)
                .unwrap_or(a.cleared.cmp(&b.cleared))
        })
    }

    fn compare_values(&self, a: Option<Value>, b: Option<Value>) -> Ordering {
        match (a, b) {
            (Some(Value::Text(a)), Some(Value::Text(b))) => self.texts().get(a).cmp(self.texts().get(b)),
            (Some(Value::Time(a)), Some(Value::Time(b))) | (Some(Value::Money(a)), Some(Value::Money(b))) => a.cmp(&b),
            (Some(Value::Date(a)), Some(Value::Date(b))) => a.cmp(&b),
            (Some(Value::Real(a)), Some(Value::Real(b))) => a.total_cmp(&b),
            (Some(Value::Flag(a)), Some(Value::Flag(b))) => a.cmp(&b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }

    /// Appends a row's words. Its event id and place in the order come later.
    fn encode(&mut self, columns: &Columns<'_>, row: usize, source: &str) -> Patch {
        let key = self.keys.intern(columns.key.value(row));
        if key as usize == self.newest.len() {
            self.newest.push(NONE);
            self.clocks_us.push(i64::MIN);
            self.is_dirty.push(false);
            self.saving.keys.mark(key);
        }
        let words_start = u32::try_from(self.words.len()).expect("patches hold less than 16 GiB");
        let mut set = 0;
        for (field, column) in columns.fields.iter().enumerate() {
            if column.push(row, &mut self.words, &mut self.texts) {
                set |= 1 << field;
            }
        }
        Patch {
            event_time_us: columns.common.time_us(row),
            sequence: columns.common.sequence(row),
            key,
            event_id: NONE,
            source: self.texts.intern_again(source),
            previous: NONE,
            words_start,
            set,
            cleared: columns.cleared(row, self.fields),
        }
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.saving.patches.memory_bytes()
            + self.saving.keys.memory_bytes()
            + self.keys.memory_bytes()
            + 13 * self.newest.capacity()
            + self.patches.capacity() * size_of::<Patch>()
            + 4 * self.words.capacity()
            + self.event_ids.memory_bytes()
            + self.texts.memory_bytes()
            + self.by_event.memory_bytes()
            + self.away.as_ref().map_or(0, Away::memory_bytes)
    }
}
