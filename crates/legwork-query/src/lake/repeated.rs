//! Which identities have more than one version: found in a first reading, so that the second can pass all other rows on at once.

use arrow::array::ArrayRef;
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};

/// Fixed, so that both readings give a row the same hash.
const SEED: RandomState = RandomState::with_seed(0x4c65_6777);

/// Hashes of identities. *Shape:* of N rows N hashes, 0 none of them.
pub(super) fn hashes_of(identity: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<()> {
    hashes.clear();
    hashes.resize(identity.first().map_or(0, |column| column.len()), 0);
    create_hashes(identity, &SEED, hashes)?;
    hashes.iter_mut().for_each(|hash| *hash = (*hash).max(1));
    Ok(())
}

/// Finds hashes that come more than once. Two identities of one hash count as one that does: then both are looked at more closely.
#[derive(Debug, Default)]
pub(super) struct RepeatedHashes {
    seen: HashSet,
    repeated: HashSet,
}

impl RepeatedHashes {
    pub(super) fn add(&mut self, hashes: &[u64]) {
        for &hash in hashes {
            if !self.seen.insert(hash) {
                self.repeated.insert(hash);
            }
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.seen.n_bytes() + self.repeated.n_bytes()
    }

    pub(super) fn finish(self) -> HashSet {
        self.repeated
    }
}

/// A set of hashes other than 0: 8 bytes each, at most three quarters full.
#[derive(Debug, Default)]
pub(super) struct HashSet {
    /// A power of two of them, or none; 0 is a free one.
    slots: Vec<u64>,
    n_hashes: usize,
}

impl HashSet {
    pub(super) fn contains(&self, hash: u64) -> bool {
        !self.slots.is_empty() && self.slots[self.slot_of(hash)] == hash
    }

    /// Whether it was not there yet.
    fn insert(&mut self, hash: u64) -> bool {
        if self.n_hashes >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        let slot = self.slot_of(hash);
        let is_new = self.slots[slot] == 0;
        self.slots[slot] = hash;
        self.n_hashes += usize::from(is_new);
        is_new
    }

    /// The slot that holds `hash`, or the free one where it belongs.
    fn slot_of(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != 0 && self.slots[slot] != hash {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let n_slots = (self.slots.len() * 2).max(1_024);
        let old = std::mem::replace(&mut self.slots, vec![0; n_slots]);
        for hash in old.into_iter().filter(|hash| *hash != 0) {
            let slot = self.slot_of(hash);
            self.slots[slot] = hash;
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn just_what_comes_again_is_repeated(hashes in prop::collection::vec(1..3_000_u64, 0..5_000), scale in 0..60_u32) {
            let hashes: Vec<u64> = hashes.into_iter().map(|hash| hash.rotate_left(scale)).collect();
            let mut found = RepeatedHashes::default();
            let mut counts = BTreeMap::<u64, usize>::new();
            for chunk in hashes.chunks(700) {
                found.add(chunk);
                chunk.iter().for_each(|hash| *counts.entry(*hash).or_default() += 1);
            }
            let found = found.finish();
            let distinct: BTreeSet<u64> = hashes.into_iter().collect();
            prop_assert!(distinct.into_iter().all(|hash| found.contains(hash) == (counts[&hash] > 1)));
            prop_assert!(!found.contains(u64::MAX));
        }
    }
}
