//! Where things stand: the keys of a lane's values, and what a checkpoint changes in them. Both stores go by it.
//!
//! `m` is the head, `h/` and an operator's key is hot, `c/` and an operator's key is cold, `r/`, the number of a checkpoint and an index (32
//! bits each, big endian, so that they sort) are the pending rows of a table.

use std::collections::{BTreeMap, BTreeSet};

use legwork_types::{LaneId, StateEntry};

use crate::{Checkpoint, Head, PendingRows, StoreError, format};

pub(crate) const HEAD: &[u8] = b"m";
pub(crate) const HOT: &[u8] = b"h/";
pub(crate) const COLD: &[u8] = b"c/";
pub(crate) const ROWS: &[u8] = b"r/";

/// Length of a key of rows.
const ROWS_KEY: usize = 10;

/// What a checkpoint changes: values, and deletions where there is none.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What the owner of a lane remembers of what it has written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Number of the newest checkpoint, 0 before the first.
    number: u32,
    /// Pending rows: (number, index).
    rows: BTreeSet<(u32, u32)>,
}

/// What a store holds of a lane, apart from cold state.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) head: Option<Head>,
    pub(crate) pending: Vec<PendingRows>,
    pub(crate) hot: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) written: Written,
}

impl Loaded {
    /// From the lane's values, in the order of their keys.
    pub(crate) fn read<'a>(
        lane: &LaneId,
        head: Option<&[u8]>,
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        hot: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Loaded, StoreError> {
        let Some(head) = head.map(|value| format::open_head(lane, HEAD, value)).transpose()? else {
            return Ok(Loaded::default());
        };
        let mut written = Written { number: head.number, rows: BTreeSet::new() };
        let mut pending = Vec::new();
        for (key, value) in rows {
            let (number, index) =
                parse_rows_key(key).ok_or_else(|| format::damaged(lane, key, format_args!("their key is damaged")))?;
            pending.push(format::open_rows(lane, key, number, value)?);
            written.rows.insert((number, index));
        }
        let hot = hot
            .into_iter()
            .map(|(key, value)| Ok((key[HOT.len()..].to_vec(), format::open(lane, key, value)?.to_vec())))
            .collect::<Result<_, StoreError>>()?;
        Ok(Loaded { head: Some(head), pending, hot, written })
    }
}

impl Written {
    /// What `checkpoint` changes. *Errors:* `Unavailable` where its number does not follow; nothing is remembered of it then.
    pub(crate) fn changes(&mut self, checkpoint: Checkpoint) -> Result<Changes, StoreError> {
        let Checkpoint { head, hot, cold, rows, drop_rows_through, carried } = checkpoint;
        let number = head.number;
        // Not by one each time: a lane whose halt was accepted goes on above the numbers of the lake.
        if number <= self.number {
            let detail = format!("checkpoint {number} does not follow checkpoint {}: this is a bug", self.number);
            return Err(StoreError::Unavailable { detail });
        }
        let mut changes = Changes::new();
        for (prefix, entries) in [(HOT, hot), (COLD, cold)] {
            for StateEntry { key, value } in entries {
                let key = prefixed(prefix, &key);
                let value = value.map(|value| format::seal(&key, &[&value]));
                changes.insert(key, value);
            }
        }
        if let Some(through) = drop_rows_through {
            let kept = through.checked_add(1).map(|next| self.rows.split_off(&(next, 0))).unwrap_or_default();
            for (number, index) in std::mem::replace(&mut self.rows, kept) {
                changes.insert(rows_key(number, index), None);
            }
        }
        for (under, tables) in [(drop_rows_through.unwrap_or(0), carried), (number, rows)] {
            for (table, rows) in tables {
                let index = self.next_index(under);
                let key = rows_key(under, index);
                let value = format::seal_rows(&key, &table, &rows);
                self.rows.insert((under, index));
                changes.insert(key, Some(value));
            }
        }
        changes.insert(HEAD.to_vec(), Some(format::seal_head(HEAD, &head)));
        self.number = number;
        Ok(changes)
    }

    fn next_index(&self, number: u32) -> u32 {
        self.rows.range((number, 0)..=(number, u32::MAX)).next_back().map_or(0, |&(_, index)| index + 1)
    }
}

/// The store's key of an operator's.
pub(crate) fn prefixed(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    [prefix, key].concat()
}

fn rows_key(number: u32, index: u32) -> Vec<u8> {
    [ROWS, &number.to_be_bytes(), &index.to_be_bytes()].concat()
}

fn parse_rows_key(key: &[u8]) -> Option<(u32, u32)> {
    if key.len() != ROWS_KEY {
        return None;
    }
    let (number, index) = key.strip_prefix(ROWS)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), u32::from_be_bytes(index.try_into().ok()?)))
}
