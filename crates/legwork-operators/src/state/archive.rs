//! What has left memory for the store, and is found there by a hash of its name.

use hashbrown::{HashMap, HashSet};
use legwork_types::{StateEntry, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fingerprint::Fingerprint;
use super::persist::{Loader, Saver, read_value, value};

/// What stands for the name of something.
type Hash = [u32; 3];

/// Names in an entry of the store: 16 KB.
const SEGMENT_NAMES: usize = 4096;
/// Items that one checkpoint copies at most, so that none takes much longer than others.
const N_COPIED_MAX: usize = if cfg!(test) { 16 } else { 8192 };

/// Items that are only in the store, and what was read back of them.
///
/// In memory an item costs 5 to 9 bytes: 32 bits of the hash of its name. Something else may share them: then the store is asked in vain.
/// An item that is read back is in memory again; its copy in the store is stale from then on, and written anew when it leaves once more.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    /// Section of the names, hot, and of the items, cold.
    section: u8,
    names: HashSet<u32>,
    /// Names that the store does not know of yet.
    new_names: Vec<u32>,
    n_segments: u32,
    /// What was read for the next batch; none where the store has nothing of that name.
    brought: HashMap<Hash, Option<W>>,
    /// Names that there is nothing of any more, though the store may still have a copy, and which checkpoint deletes it; none yet.
    gone: HashMap<Hash, Option<u32>>,
    durable: u32,
}

/// How items leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArchiveConfig {
    /// Section of the names, hot, and of the items, cold.
    pub(crate) section: u8,
    /// So many stay in any case; fewer of those that weigh more.
    pub(crate) n_kept_min: usize,
    /// Items leave that are older than that by the lane's clock, microseconds.
    pub(crate) after_us: i64,
}

/// Items that have been copied into the store and leave memory once that is durable.
#[derive(Debug)]
struct Leaving<K> {
    /// Of those copied, what has not changed since.
    items: HashSet<K>,
    /// Items looked at, and those that are to be.
    next: u32,
    end: u32,
    before_us: i64,
    /// The checkpoint with the last copies, once there are all.
    complete: Option<u32>,
}

/// When items leave.
#[derive(Debug)]
pub(crate) struct Leave<K> {
    leaving: Option<Leaving<K>>,
    /// Items held at which it is worth looking for those that are done.
    at: usize,
    n_kept_min: usize,
    n_copied_max: usize,
}

impl<W: DeserializeOwned> Archive<W> {
    /// Empty, in a section of its own.
    pub(crate) fn new(section: u8) -> Archive<W> {
        Archive {
            section,
            names: HashSet::new(),
            new_names: Vec::new(),
            n_segments: 0,
            brought: HashMap::new(),
            gone: HashMap::new(),
            durable: 0,
        }
    }

    fn key(&self, hash: Hash) -> Vec<u8> {
        let mut key = vec![self.section];
        hash.iter().for_each(|word| key.extend(word.to_be_bytes()));
        key
    }

    /// The key to read before something of that name is used that is not in memory; none where the store cannot have it, or has been read.
    pub(crate) fn wanted(&self, name: Fingerprint) -> Option<Vec<u8>> {
        let hash = name.words();
        let is_away =
            self.names.contains(&hash[0]) && !self.brought.contains_key(&hash) && !self.gone.contains_key(&hash);
        is_away.then(|| self.key(hash))
    }

    /// What was read of that name.
    pub(crate) fn look(&self, name: Fingerprint) -> Option<&W> {
        self.brought.get(&name.words())?.as_ref()
    }

    /// Takes what was read of that name back into memory.
    pub(crate) fn take(&mut self, name: Fingerprint) -> Option<W> {
        if self.brought.is_empty() {
            return None;
        }
        self.brought.get_mut(&name.words())?.take()
    }

    /// Takes what was read with that entry back into memory.
    pub(crate) fn take_read(&mut self, entry: &StateEntry) -> Option<W> {
        self.brought.get_mut(&hash_in(&entry.key))?.take()
    }

    /// Takes up an entry that was wanted; false where it is another archive's. *Errors:* a newer format, or damaged.
    pub(crate) fn supply(
        &mut self,
        entry: &StateEntry,
        check: impl Fn(&W) -> Result<(), StateError>,
    ) -> Result<bool, StateError> {
        if entry.key.first() != Some(&self.section) {
            return Ok(false);
        }
        let hash = hash_in(&entry.key);
        let item = entry.value.as_ref().map(|value| read_value::<W>(self.section, hash[0], value)).transpose()?;
        item.as_ref().map_or(Ok(()), check)?;
        self.brought.insert(hash, item);
        Ok(true)
    }

    /// The batch that things were read for is over.
    pub(crate) fn forget_brought(&mut self) {
        self.brought.clear();
    }

    /// A copy of an item for the store.
    pub(crate) fn copy(&self, name: Fingerprint, item: &impl Serialize) -> StateEntry {
        StateEntry { key: self.key(name.words()), value: Some(value(item)) }
    }

    /// Something of that name has left memory.
    pub(crate) fn add(&mut self, name: Fingerprint) {
        let hash = name.words();
        self.gone.remove(&hash);
        if self.names.insert(hash[0]) {
            self.new_names.push(hash[0]);
        }
    }

    /// Something of that name, which is in memory, is no more. Should the store have a copy, be it of items that did not leave in the end,
    /// it is stale.
    pub(crate) fn remove(&mut self, name: Fingerprint) {
        self.gone.insert(name.words(), None);
    }

    /// Deletes copies of what is no more. Comes before the copies of a checkpoint.
    pub(crate) fn delete(&mut self, revision: u32, cold: &mut Vec<StateEntry>) {
        let mut hashes = Vec::new();
        for (hash, deleted) in self.gone.iter_mut().filter(|(_, deleted)| deleted.is_none()) {
            *deleted = Some(revision);
            hashes.push(*hash);
        }
        hashes.sort_unstable();
        cold.extend(hashes.into_iter().map(|hash| StateEntry { key: self.key(hash), value: None }));
    }

    /// Writes the names that are new since the last checkpoint.
    pub(crate) fn save(&mut self, saver: &mut Saver) {
        for names in self.new_names.chunks(SEGMENT_NAMES) {
            saver.put(self.section, self.n_segments, names);
            self.n_segments += 1;
        }
        self.new_names = Vec::new();
    }

    /// Takes up what was written.
    pub(crate) fn load(&mut self, loader: &mut Loader<'_>) -> Result<(), StateError> {
        while let Some((number, names)) = loader.next::<Vec<u32>>(self.section)? {
            self.n_segments = number + 1;
            self.names.extend(names);
        }
        Ok(())
    }

    /// The checkpoint with that revision is durable.
    pub(crate) fn committed(&mut self, revision: u32) {
        self.durable = self.durable.max(revision);
        self.gone.retain(|_, deleted| deleted.is_none_or(|deleted| deleted > revision));
    }

    /// Whether nothing has left memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The newest checkpoint that is known to be durable.
    pub(crate) fn durable(&self) -> u32 {
        self.durable
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.names.allocation_size()
            + 4 * self.new_names.capacity()
            + self.brought.allocation_size()
            + self.gone.allocation_size()
    }
}

/// The hash in the key of an entry.
fn hash_in(key: &[u8]) -> Hash {
    let (words, _) = key.get(1..).unwrap_or_default().as_chunks::<4>();
    std::array::from_fn(|at| words.get(at).map_or(0, |word| u32::from_be_bytes(*word)))
}

impl<K: std::hash::Hash + Eq> Leave<K> {
    /// `weight`: how many items one counts as.
    pub(crate) fn new(config: Option<ArchiveConfig>, weight: usize) -> Leave<K> {
        let n_kept_min = config.map_or(usize::MAX, |config| (config.n_kept_min / weight).max(1));
        Leave { leaving: None, at: n_kept_min, n_kept_min, n_copied_max: N_COPIED_MAX / weight }
    }

    /// The item has changed: what was copied of it is stale.
    pub(crate) fn stay(&mut self, item: &K) {
        if let Some(leaving) = &mut self.leaving {
            leaving.items.remove(item);
        }
    }

    /// At the checkpoint with that revision: copies some more of the `n_items` items that are done, which is what lies before `before_us`.
    /// `copy` gives what of the item with a number, below `end`, is to be copied. *Returns* those that may leave memory now.
    pub(crate) fn advance(
        &mut self,
        (n_items, end): (usize, usize),
        (before_us, revision, durable): (i64, u32, u32),
        mut copy: impl FnMut(u32, i64) -> Option<K>,
    ) -> Option<HashSet<K>> {
        if self.leaving.is_none() {
            if n_items < self.at {
                return None;
            }
            let (items, end) = (HashSet::new(), u32::try_from(end).unwrap_or(u32::MAX));
            self.leaving = Some(Leaving { items, next: 0, end, before_us, complete: None });
        }
        let leaving = self.leaving.as_mut()?;
        if let Some(complete) = leaving.complete {
            if durable < complete {
                return None;
            }
            let items = self.leaving.take()?.items;
            self.at = (2 * (n_items - items.len().min(n_items))).max(self.n_kept_min);
            return Some(items);
        }
        let mut n_copied = 0;
        while n_copied < self.n_copied_max && leaving.next < leaving.end {
            if let Some(item) = copy(leaving.next, leaving.before_us) {
                leaving.items.insert(item);
                n_copied += 1;
            }
            leaving.next += 1;
        }
        if leaving.next == leaving.end {
            // Few are not worth the work that letting go of them is.
            if 4 * leaving.items.len() < n_items {
                self.leaving = None;
                self.at = (n_items + n_items / 2).max(self.n_kept_min);
            } else {
                leaving.complete = Some(revision);
            }
        }
        None
    }
}
