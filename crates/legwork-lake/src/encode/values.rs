//! Values in the encodings of Parquet that fill most of a lane's rows: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.

use std::hash::{BuildHasher, Hasher};

use arrow::array::{Array, StringArray};
use hashbrown::HashTable;

/// Values of a block of deltas, and of each of its parts that has a width of its own.
const BLOCK: usize = 128;
const MINI_BLOCK: usize = 32;
const N_MINI_BLOCKS: usize = BLOCK / MINI_BLOCK;

/// Indices that stand in whole bytes at every width.
const GROUP: usize = 8;
/// So many groups of one index are written as a run of it.
const RUN_GROUPS_MIN: usize = 2;

/// Beyond this a dictionary does not pay.
const DICTIONARY_BYTES_MAX: usize = 1 << 20;

/// Appends counts and times as `DELTA_BINARY_PACKED`. *Shape:* parts of one column, in order, none null.
pub(super) fn put_deltas(parts: &[&[i64]], out: &mut Vec<u8>) {
    let n_values = parts.iter().map(|part| part.len()).sum::<usize>();
    let first = parts.iter().find_map(|part| part.first()).copied().unwrap_or(0);
    put_varint(BLOCK as u64, out);
    put_varint(N_MINI_BLOCKS as u64, out);
    put_varint(n_values as u64, out);
    put_zigzag(first, out);
    let (mut deltas, mut n_deltas, mut last) = ([0; BLOCK], 0, first);
    let mut is_first = true;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        // The first value stands before the blocks.
        let mut rest = &part[usize::from(std::mem::take(&mut is_first))..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - n_deltas));
            deltas[n_deltas] = now[0].wrapping_sub(last);
            for (delta, pair) in deltas[n_deltas + 1..].iter_mut().zip(now.windows(2)) {
                *delta = pair[1].wrapping_sub(pair[0]);
            }
            n_deltas += now.len();
            last = now[now.len() - 1];
            rest = later;
            if n_deltas == BLOCK {
                put_block(&mut deltas, n_deltas, out);
                n_deltas = 0;
            }
        }
    }
    if n_deltas > 0 {
        put_block(&mut deltas, n_deltas, out);
    }
}

/// Appends a block. `deltas`: behind the first `n_deltas` anything.
fn put_block(deltas: &mut [i64; BLOCK], n_deltas: usize, out: &mut Vec<u8>) {
    let least = deltas[..n_deltas].iter().copied().min().unwrap_or(0);
    deltas[n_deltas..].fill(least);
    put_zigzag(least, out);
    let widths_at = out.len();
    out.extend([0; N_MINI_BLOCKS]);
    for (idx, part) in deltas.chunks_exact(MINI_BLOCK).enumerate() {
        let mut above = [0_u64; MINI_BLOCK];
        for (above, delta) in above.iter_mut().zip(part) {
            *above = delta.wrapping_sub(least).cast_unsigned();
        }
        let width = u64::BITS - above.iter().fold(0, |all, value| all | value).leading_zeros();
        out[widths_at + idx] = width as u8;
        put_packed(above.into_iter(), width, out);
    }
}

/// Appends values of `width` bits each, the first in the lowest bits. *Shape:* so many that they fill whole bytes.
fn put_packed(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut word, mut n_bits) = (0_u64, 0);
    for value in values {
        word |= value << n_bits;
        n_bits += width;
        if n_bits >= u64::BITS {
            out.extend(word.to_le_bytes());
            n_bits -= u64::BITS;
            word = value.checked_shr(width - n_bits).unwrap_or(0);
        }
    }
    out.extend(&word.to_le_bytes()[..(n_bits / 8) as usize]);
}

/// Appends strings as `DELTA_BYTE_ARRAY`: what each shares with the one before is left out. *Shape:* as in [`put_deltas`].
pub(super) fn put_front_coded(parts: &[&StringArray], out: &mut Vec<u8>) {
    let n_values = parts.iter().map(|part| part.len()).sum();
    let (mut shared, mut own) = (Vec::with_capacity(n_values), Vec::with_capacity(n_values));
    let (mut rest, mut last): (Vec<u8>, &[u8]) = (Vec::new(), &[]);
    for part in parts {
        for value in texts(part) {
            let n_shared = n_shared_bytes(last, value);
            shared.push(n_shared as i64);
            own.push((value.len() - n_shared) as i64);
            rest.extend_from_slice(&value[n_shared..]);
            last = value;
        }
    }
    put_deltas(&[&shared], out);
    put_deltas(&[&own], out);
    out.extend_from_slice(&rest);
}

/// Bytes that both begin with.
fn n_shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let mut n_shared = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a chunk has eight bytes"));
        let differs = word(a) ^ word(b);
        if differs != 0 {
            return n_shared + (differs.trailing_zeros() / 8) as usize;
        }
        n_shared += 8;
    }
    n_shared + a[n_shared..].iter().zip(&b[n_shared..]).take_while(|(a, b)| a == b).count()
}

/// Strings as places in a list of those that differ.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    /// The strings that differ, `PLAIN`: the length of each, then its bytes.
    pub(super) page: Vec<u8>,
    n_entries: u32,
    /// For every value which of them it is.
    indices: Vec<u32>,
}

/// Where a string lies in the page, and which it is.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    index: u32,
}

impl Entry {
    fn text(self, page: &[u8]) -> &[u8] {
        let (length, text) = page[self.start as usize..].split_first_chunk().expect("an entry has a length");
        &text[..u32::from_le_bytes(*length) as usize]
    }
}

impl Dictionary {
    /// Of a column. *Returns* none where it has so many different strings that a dictionary does not pay. *Shape:* as in [`put_deltas`].
    pub(super) fn of(parts: &[&StringArray]) -> Option<Dictionary> {
        let hashes = foldhash::fast::RandomState::default();
        let hash = |value: &[u8]| {
            let mut hasher = hashes.build_hasher();
            hasher.write(value);
            hasher.finish()
        };
        let n_values = parts.iter().map(|part| part.len()).sum();
        let mut found = Dictionary { indices: Vec::with_capacity(n_values), ..Dictionary::default() };
        let Dictionary { page, n_entries, indices } = &mut found;
        let mut known = HashTable::<Entry>::new();
        let mut last: Option<(&[u8], u32)> = None;
        for value in parts.iter().flat_map(|part| texts(part)) {
            let index = match last {
                Some((text, index)) if text == value => index,
                _ => {
                    let hashed = hash(value);
                    let entry = known.find(hashed, |entry| entry.text(page) == value).copied();
                    let entry = entry.unwrap_or_else(|| {
                        let entry = Entry { start: page.len() as u32, index: *n_entries };
                        page.extend((value.len() as u32).to_le_bytes());
                        page.extend_from_slice(value);
                        *n_entries += 1;
                        *known.insert_unique(hashed, entry, |entry| hash(entry.text(page))).get()
                    });
                    if page.len() > DICTIONARY_BYTES_MAX {
                        return None;
                    }
                    entry.index
                }
            };
            last = Some((value, index));
            indices.push(index);
        }
        Some(found)
    }

    /// How many strings differ.
    pub(super) fn n_entries(&self) -> u32 {
        self.n_entries
    }

    /// The strings that differ.
    pub(super) fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        (0..self.n_entries).map(move |index| {
            let text = Entry { start, index }.text(&self.page);
            start += (size_of::<u32>() + text.len()) as u32;
            text
        })
    }

    /// Appends the values as `RLE_DICTIONARY`: runs of one index, and indices packed.
    pub(super) fn put_indices(&self, out: &mut Vec<u8>) {
        let width = u32::BITS - self.n_entries.saturating_sub(1).leading_zeros();
        out.push(width as u8);
        if self.n_entries == 1 {
            // Without bits there is nothing to pack, and not every reader takes packed values of no bytes.
            put_varint((self.indices.len() as u64) << 1, out);
            return;
        }
        let groups: &[[u32; GROUP]] = self.indices.as_chunks().0;
        let is_one = |group: &[u32; GROUP], index: u32| group.iter().all(|idx| *idx == index);
        let (mut at, mut packed_from) = (0, 0);
        while at < groups.len() {
            let index = groups[at][0];
            let n_alike = groups[at..].iter().take_while(|group| is_one(group, index)).count();
            if n_alike >= RUN_GROUPS_MIN {
                put_packed_groups(&groups[packed_from..at], width, out);
                put_varint(((n_alike * GROUP) as u64) << 1, out);
                out.extend(&index.to_le_bytes()[..width.div_ceil(8) as usize]);
                packed_from = at + n_alike;
            }
            at += n_alike.max(1);
        }
        put_packed_groups(&groups[packed_from..], width, out);
        let rest = &self.indices[groups.len() * GROUP..];
        if !rest.is_empty() {
            let mut group = [0; GROUP];
            group[..rest.len()].copy_from_slice(rest);
            put_packed_groups(&[group], width, out);
        }
    }
}

fn put_packed_groups(groups: &[[u32; GROUP]], width: u32, out: &mut Vec<u8>) {
    if !groups.is_empty() {
        put_varint((groups.len() as u64) << 1 | 1, out);
        put_packed(groups.as_flattened().iter().map(|idx| u64::from(*idx)), width, out);
    }
}

/// Appends the definition levels of a column that could have nulls and has none.
pub(super) fn put_all_defined(n_values: usize, out: &mut Vec<u8>) {
    let mut run = Vec::new();
    put_varint((n_values as u64) << 1, &mut run);
    run.push(1);
    out.extend((run.len() as u32).to_le_bytes());
    out.extend(run);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    put_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

/// A column's strings. *Shape:* none null.
fn texts(strings: &StringArray) -> impl Iterator<Item = &[u8]> {
    let bytes = strings.value_data();
    strings.value_offsets().windows(2).map(|ends| &bytes[ends[0] as usize..ends[1] as usize])
}
