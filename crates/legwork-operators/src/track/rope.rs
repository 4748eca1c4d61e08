//! Bytes that only ever grow at their end, in pieces of one size.
//!
//! A list that grows in one piece moves through the size classes of the allocator. Many devices grow alike, so that each class was left
//! full of holes that nothing fills again: with 100,000 devices of 50 pings they were a fifth of all that was held.

use std::borrow::Cow;

/// Bytes in a piece. With the pointer to the piece before, it takes 128.
const PIECE_LEN: usize = 120;

#[derive(Clone, Debug)]
struct Piece {
    before: Option<Box<Piece>>,
    bytes: [u8; PIECE_LEN],
}

/// Bytes in pieces; all but the newest are full.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    newest: Option<Box<Piece>>,
    len: u32,
}

impl Rope {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes in the newest piece: none only where there is no piece.
    #[inline(always)]
    fn n_newest(&self) -> usize {
        if self.len == 0 { 0 } else { (self.len() - 1) % PIECE_LEN + 1 }
    }

    #[inline(always)]
    pub(crate) fn last(&self) -> Option<u8> {
        let piece = self.newest.as_ref()?;
        Some(piece.bytes[self.n_newest() - 1])
    }

    /// Changes the last byte, where there is one.
    #[inline(always)]
    pub(crate) fn set_last(&mut self, byte: u8) {
        let n_newest = self.n_newest();
        if let Some(piece) = &mut self.newest {
            piece.bytes[n_newest - 1] = byte;
        }
    }

    #[inline]
    pub(crate) fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n_used = self.len() % PIECE_LEN;
            if n_used == 0 {
                self.newest = Some(Box::new(Piece { before: self.newest.take(), bytes: [0; PIECE_LEN] }));
            }
            let Some(piece) = &mut self.newest else { unreachable!("there is one, or it was made") };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_LEN - n_used));
            piece.bytes[n_used..n_used + now.len()].copy_from_slice(now);
            self.len += now.len() as u32;
            bytes = later;
        }
    }

    /// All of them after each other: copied where there is more than one piece.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        self.bytes_from(0)
    }

    /// Those from `first` on: copied where they are in more than one piece.
    pub(crate) fn bytes_from(&self, first: usize) -> Cow<'_, [u8]> {
        let (mut start, mut end) = (self.len() - self.n_newest(), self.len());
        if first >= start {
            let newest = self.newest.as_ref().map_or(&[][..], |piece| &piece.bytes[..end - start]);
            return Cow::Borrowed(newest.get(first - start..).unwrap_or_default());
        }
        let mut bytes = vec![0; self.len() - first];
        let mut next = self.newest.as_deref();
        while let Some(piece) = next.filter(|_| end > first) {
            let n_skipped = first.saturating_sub(start);
            bytes[start + n_skipped - first..end - first].copy_from_slice(&piece.bytes[n_skipped..end - start]);
            (start, end, next) = (start.saturating_sub(PIECE_LEN), start, piece.before.as_deref());
        }
        Cow::Owned(bytes)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.len().div_ceil(PIECE_LEN) * size_of::<Piece>()
    }
}

impl From<&[u8]> for Rope {
    fn from(bytes: &[u8]) -> Rope {
        let mut rope = Rope::default();
        rope.extend(bytes);
        rope
    }
}

/// Bytes that grow at their end.
pub(crate) trait Bytes: Default {
    fn last(&self) -> Option<u8>;
    fn set_last(&mut self, byte: u8);
    fn extend(&mut self, bytes: &[u8]);
}

impl Bytes for Rope {
    #[inline(always)]
    fn last(&self) -> Option<u8> {
        self.last()
    }

    #[inline(always)]
    fn set_last(&mut self, byte: u8) {
        self.set_last(byte);
    }

    #[inline(always)]
    fn extend(&mut self, bytes: &[u8]) {
        self.extend(bytes);
    }
}

impl Bytes for Vec<u8> {
    #[inline(always)]
    fn last(&self) -> Option<u8> {
        self.as_slice().last().copied()
    }

    #[inline(always)]
    fn set_last(&mut self, byte: u8) {
        if let Some(last) = self.last_mut() {
            *last = byte;
        }
    }

    #[inline(always)]
    fn extend(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_list_would(parts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200), any::<u8>()), 0..12),
                                    first in any::<prop::sample::Index>()) {
            let (mut rope, mut list) = (Rope::default(), Vec::new());
            for (bytes, last) in &parts {
                rope.extend(bytes);
                list.extend_from_slice(bytes);
                prop_assert_eq!((rope.last(), rope.len()), (list.as_slice().last().copied(), list.len()));
                rope.set_last(*last);
                if let Some(byte) = list.last_mut() {
                    *byte = *last;
                }
                prop_assert_eq!(&*rope.bytes(), &*list);
                let first = first.index(list.len() + 2);
                prop_assert_eq!(&*rope.bytes_from(first), list.get(first..).unwrap_or_default());
            }
            prop_assert_eq!(rope.memory_bytes(), list.len().div_ceil(120) * 128);
            let copy = Rope::from(&*list);
            prop_assert_eq!(&*copy.bytes(), &*list);
        }
    }
}
