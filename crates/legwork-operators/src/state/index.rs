//! Hash index from something that the caller can compare to a dense id.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Hash of a key within the process. The seed is fixed, so that a run can be repeated exactly; hashes are never stored.
#[inline]
pub(crate) fn hash_of(key: impl Hash) -> u64 {
    FixedState::with_seed(0x6c65_6777_6f72_6b00).hash_one(key)
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    id: u32,
}

/// Ids by hash, 8 bytes an entry. 32 bits of the hash are kept, so that a probe seldom looks at the wrong key and growing looks
/// at none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    table: HashTable<Entry>,
}

/// Spreads a tag over the 64 bits that the table wants (Fibonacci hashing; the constant is 2^64 / golden ratio).
#[inline]
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Index {
    /// The id among those stored under `hash` for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        self.table.find(spread(tag), |entry| entry.tag == tag && is_it(entry.id)).map(|entry| entry.id)
    }

    /// Adds an id that is not there yet.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, id: u32) {
        let tag = tag(hash);
        self.table.insert_unique(spread(tag), Entry { tag, id }, |entry| spread(entry.tag));
    }

    /// Removes an id.
    pub(crate) fn remove(&mut self, hash: u64, id: u32) {
        if let Ok(entry) = self.table.find_entry(spread(tag(hash)), |entry| entry.id == id) {
            entry.remove();
        }
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
    }
}
