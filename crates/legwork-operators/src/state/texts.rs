//! Strings in blocks behind `Arc`, by dense number, with and without a look-up.

use std::sync::Arc;

use super::{Index, Saver, hash_of};

/// The id of no string.
pub(crate) const NONE: u32 = u32::MAX;

/// Strings a block: copying one that a reader holds costs some tens of kilobytes.
const BLOCK_TEXTS: usize = 1024;

#[derive(Clone, Debug, Default)]
struct Block {
    ends: Vec<u32>,
    text: String,
}

impl Block {
    fn get(&self, idx: usize) -> &str {
        let start = if idx == 0 { 0 } else { self.ends[idx - 1] as usize };
        &self.text[start..self.ends[idx] as usize]
    }
}

/// An append-only list of strings. A clone is a snapshot: a list of pointers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    blocks: Vec<Arc<Block>>,
    n_bytes_full: usize,
}

impl Texts {
    /// Appends a string; gives its number, dense from 0.
    pub(crate) fn push(&mut self, text: &str) -> u32 {
        if self.blocks.last().is_none_or(|block| block.ends.len() == BLOCK_TEXTS) {
            if let Some(full) = self.blocks.last_mut() {
                let full = Arc::make_mut(full);
                full.text.shrink_to_fit();
                self.n_bytes_full += full.text.capacity() + 4 * full.ends.capacity();
            }
            self.blocks.push(Arc::new(Block { ends: Vec::with_capacity(BLOCK_TEXTS), text: String::new() }));
        }
        let block_idx = self.blocks.len() - 1;
        let block = Arc::make_mut(&mut self.blocks[block_idx]);
        block.text.push_str(text);
        block.ends.push(u32::try_from(block.text.len()).expect("messages are far below 4 MiB each"));
        u32::try_from(block_idx * BLOCK_TEXTS + block.ends.len() - 1).expect("fewer than 2^32 strings fit into memory")
    }

    /// The string with that number.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &str {
        self.blocks[id as usize / BLOCK_TEXTS].get(id as usize % BLOCK_TEXTS)
    }

    /// The string with that number; none for [`NONE`].
    #[inline]
    pub(crate) fn get_opt(&self, id: u32) -> Option<&str> {
        (id != NONE).then(|| self.get(id))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK_TEXTS + last.ends.len())
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.n_bytes_full + self.blocks.last().map_or(0, |last| last.text.capacity() + 4 * last.ends.capacity())
    }
}

/// Strings with a dense number each, the same for equal strings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interner {
    texts: Texts,
    index: Index,
    recent: u32,
    n_saved: usize,
}

impl Interner {
    /// Number of a string, new or known.
    #[inline]
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        let hash = hash_of(text);
        match self.index.find(hash, |id| self.texts.get(id) == text) {
            Some(id) => id,
            None => self.add(hash, text),
        }
    }

    /// As [`Interner::intern`], for strings that are mostly the one before again.
    #[inline]
    pub(crate) fn intern_again(&mut self, text: &str) -> u32 {
        if self.len() == 0 || self.texts.get(self.recent) != text {
            self.recent = self.intern(text);
        }
        self.recent
    }

    /// Adds a string that is not known, whose hash is [`hash_of`].
    pub(crate) fn add(&mut self, hash: u64, text: &str) -> u32 {
        let id = self.texts.push(text);
        self.index.insert(hash, id);
        id
    }

    /// Number of a string, [`NONE`] for none.
    #[inline]
    pub(crate) fn intern_opt(&mut self, text: Option<&str>) -> u32 {
        text.map_or(NONE, |text| self.intern(text))
    }

    /// Number of a string that is known, whose hash is [`hash_of`].
    #[inline]
    pub(crate) fn find(&self, hash: u64, text: &str) -> Option<u32> {
        self.index.find(hash, |id| self.texts.get(id) == text)
    }

    /// Number of a string, if it is known.
    pub(crate) fn number(&self, text: &str) -> Option<u32> {
        self.find(hash_of(text), text)
    }

    /// The strings.
    #[inline]
    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Writes the strings that are new since the last checkpoint.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver) {
        saver.texts(section, &self.texts, &mut self.n_saved);
    }

    /// All that are there come from the store.
    pub(crate) fn count_as_saved(&mut self) {
        self.n_saved = self.texts.len();
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.texts.memory_bytes() + self.index.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_a_clone_does_not_change() {
        let mut interner = Interner::default();
        let ids: Vec<u32> = (0..3000).map(|n| interner.intern(&format!("text {}", n % 2500))).collect();
        assert_eq!(ids[2499], 2499);
        assert_eq!(ids[2999], 499);
        let snapshot = interner.texts().clone();
        let late = interner.intern("later");
        assert_eq!((late, interner.find(hash_of("later"), "later"), interner.len()), (2500, Some(2500), 2501));
        assert_eq!((snapshot.get(1024), snapshot.get(2499)), ("text 1024", "text 2499"));
        assert_eq!(interner.texts().get_opt(NONE), None);
    }
}
