//! State as entries for the lane's store, and back.
//!
//! An entry's key is a section of the operator's state (one byte) and a number (big-endian): what is numbered in memory keeps its number
//! in the store, and lies there in blocks of [`BLOCK_ITEMS`], so that a checkpoint writes the blocks touched and nothing else. Names
//! appear once, in sections of their own; everything else refers to them by number. A value is the format (one byte), then postcard.

use std::iter::Peekable;

use legwork_types::{StateEntry, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Interner, NO_TIME, NONE, Texts, hash_of};

/// Format of the values written here.
pub(crate) const FORMAT: u8 = 1;
/// Items a block: one small change rewrites as many.
pub(crate) const BLOCK_ITEMS: usize = 32;

/// What a value is as bytes.
pub(crate) fn value<W: Serialize + ?Sized>(value: &W) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("postcard writes wire types into memory")
}

/// What bytes are as a value; `section` and `number` say where they come from. *Errors:* a newer format, or damaged.
pub(crate) fn read_value<W: DeserializeOwned>(section: u8, number: u32, value: &[u8]) -> Result<W, StateError> {
    match value.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(damaged(section, number, format!("{} bytes too many", rest.len()))),
            Err(error) => Err(damaged(section, number, error.to_string())),
        },
        Some((&found, _)) if found > FORMAT => Err(StateError::NewerFormat {
            what: format!("entry {}/{number}", section.escape_ascii()),
            found,
            known: FORMAT,
        }),
        _ => Err(damaged(section, number, "no format")),
    }
}

/// Gathers the entries of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    entries: Vec<StateEntry>,
}

fn key(section: u8, number: u32) -> Vec<u8> {
    let mut key = vec![section];
    key.extend(number.to_be_bytes());
    key
}

impl Saver {
    /// Writes an entry.
    pub(crate) fn put<W: Serialize + ?Sized>(&mut self, section: u8, number: u32, item: &W) {
        self.entries.push(StateEntry { key: key(section, number), value: Some(value(item)) });
    }

    /// Deletes an entry.
    pub(crate) fn delete(&mut self, section: u8, number: u32) {
        self.entries.push(StateEntry { key: key(section, number), value: None });
    }

    /// Writes the given blocks of `n_items` numbered items.
    pub(crate) fn blocks<W: Serialize>(
        &mut self,
        section: u8,
        blocks: &[u32],
        n_items: usize,
        item: impl Fn(u32) -> W,
    ) {
        for &block in blocks {
            let start = block as usize * BLOCK_ITEMS;
            let items: Vec<W> = (start..n_items.min(start + BLOCK_ITEMS)).map(|n| item(n as u32)).collect();
            self.put(section, block, &items);
        }
    }

    /// Deletes the blocks of items that there are no more: there were `n_before`.
    pub(crate) fn cut(&mut self, section: u8, n_before: usize, n_items: usize) {
        let blocks = n_items.div_ceil(BLOCK_ITEMS)..n_before.div_ceil(BLOCK_ITEMS);
        blocks.for_each(|block| self.delete(section, block as u32));
    }

    /// Writes the strings from number `n_saved` on, and counts them as saved.
    pub(crate) fn texts(&mut self, section: u8, texts: &Texts, n_saved: &mut usize) {
        if *n_saved < texts.len() {
            let blocks: Vec<u32> =
                ((*n_saved / BLOCK_ITEMS) as u32..texts.len().div_ceil(BLOCK_ITEMS) as u32).collect();
            self.blocks(section, &blocks, texts.len(), |number| texts.get(number));
            *n_saved = texts.len();
        }
    }

    /// The entries.
    pub(crate) fn entries(self) -> Vec<StateEntry> {
        self.entries
    }
}

/// Reads entries in the order of their keys, section by section.
pub(crate) struct Loader<'a> {
    entries: Peekable<&'a mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>>,
}

/// State that contradicts itself.
pub(crate) fn damaged(section: u8, number: u32, detail: impl Into<String>) -> StateError {
    StateError::Damaged { what: format!("entry {}/{number}", section.escape_ascii()), detail: detail.into() }
}

impl<'a> Loader<'a> {
    pub(crate) fn new(entries: &'a mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Loader<'a> {
        Loader { entries: entries.peekable() }
    }

    /// The next entry of a section. *Errors:* a newer format, or damaged.
    pub(crate) fn next<W: DeserializeOwned>(&mut self, section: u8) -> Result<Option<(u32, W)>, StateError> {
        let Some((key, value)) = self.entries.next_if(|(key, _)| key.first() == Some(&section)) else {
            return Ok(None);
        };
        let number = key[1..].try_into().map(u32::from_be_bytes);
        let number = number.map_err(|_| damaged(section, 0, format!("a key of {} bytes, not 5", key.len())))?;
        Ok(Some((number, read_value(section, number, &value)?)))
    }

    /// The value of a section that has one entry at most.
    pub(crate) fn single<W: DeserializeOwned>(&mut self, section: u8) -> Result<Option<W>, StateError> {
        match self.next(section)? {
            None => Ok(None),
            Some((0, value)) => Ok(Some(value)),
            Some((number, _)) => Err(damaged(section, number, "where one entry is expected, numbered 0")),
        }
    }

    /// All items of a section of blocks.
    pub(crate) fn blocks<W: DeserializeOwned>(&mut self, section: u8) -> Result<Vec<W>, StateError> {
        let mut items: Vec<W> = Vec::new();
        while let Some((number, block)) = self.next::<Vec<W>>(section)? {
            if items.len() != number as usize * BLOCK_ITEMS {
                return Err(damaged(section, number, format!("{} items lie before it", items.len())));
            }
            if block.is_empty() || block.len() > BLOCK_ITEMS {
                return Err(damaged(section, number, format!("a block of {} items", block.len())));
            }
            items.extend(block);
        }
        Ok(items)
    }

    /// All strings of a section; how many there are counts as saved.
    pub(crate) fn texts(&mut self, section: u8) -> Result<Texts, StateError> {
        let mut texts = Texts::default();
        self.blocks::<String>(section)?.iter().for_each(|text| {
            texts.push(text);
        });
        Ok(texts)
    }

    /// All strings of a section, each of which is there once.
    pub(crate) fn interner(&mut self, section: u8) -> Result<Interner, StateError> {
        let mut interner = Interner::default();
        for text in self.blocks::<String>(section)? {
            let hash = hash_of(text.as_str());
            if let Some(number) = interner.find(hash, &text) {
                return Err(damaged(section, number / BLOCK_ITEMS as u32, "a name that is there twice"));
            }
            interner.add(hash, &text);
        }
        interner.count_as_saved();
        Ok(interner)
    }

    /// Whether every entry was read. *Errors:* one is left.
    pub(crate) fn finish(mut self) -> Result<(), StateError> {
        match self.entries.next() {
            None => Ok(()),
            Some((key, _)) => Err(StateError::Damaged {
                what: format!("entry {}", key.escape_ascii()),
                detail: "this operator has no such entry, or not in this place".into(),
            }),
        }
    }
}

/// A number as it is written: none instead of [`NONE`].
pub(crate) fn opt(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

/// A time or sequence as it is written: none instead of [`NO_TIME`].
pub(crate) fn opt_time(time_us: i64) -> Option<i64> {
    (time_us != NO_TIME).then_some(time_us)
}

/// Checks the numbers that state refers to others by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refs {
    /// Where the reference stands.
    pub(crate) section: u8,
    /// How many there are of what is referred to.
    pub(crate) n: usize,
}

impl Refs {
    /// The number. *Errors:* nothing has it.
    pub(crate) fn known(self, number: u32) -> Result<u32, StateError> {
        let error = || StateError::Damaged {
            what: format!("section {}", self.section.escape_ascii()),
            detail: format!("it refers to number {number} of {}", self.n),
        };
        if (number as usize) < self.n { Ok(number) } else { Err(error()) }
    }

    /// The number, or [`NONE`] for none. *Errors:* nothing has it.
    pub(crate) fn known_opt(self, number: Option<u32>) -> Result<u32, StateError> {
        number.map_or(Ok(NONE), |number| self.known(number))
    }
}

/// Blocks of numbered items that changed since the last checkpoint. Before the first one all have, and nothing is noted.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    is_marked: Option<Vec<bool>>,
    blocks: Vec<u32>,
}

impl Dirty {
    /// Notes that an item changed, or is new.
    #[inline]
    pub(crate) fn mark(&mut self, number: u32) {
        let Some(is_marked) = &mut self.is_marked else { return };
        let block = number as usize / BLOCK_ITEMS;
        if is_marked.len() <= block {
            is_marked.resize(block + 1, false);
        }
        if !std::mem::replace(&mut is_marked[block], true) {
            self.blocks.push(block as u32);
        }
    }

    /// The blocks that changed, ascending; notes what changes from now on.
    pub(crate) fn take(&mut self, n_items: usize) -> Vec<u32> {
        let mut blocks = std::mem::take(&mut self.blocks);
        match &mut self.is_marked {
            None => {
                blocks = (0..n_items.div_ceil(BLOCK_ITEMS) as u32).collect();
                self.is_marked = Some(Vec::new());
            }
            Some(is_marked) => blocks.iter().for_each(|block| is_marked[*block as usize] = false),
        }
        blocks.sort_unstable();
        blocks
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.is_marked.as_ref().map_or(0, Vec::capacity) + 4 * self.blocks.capacity()
    }
}
