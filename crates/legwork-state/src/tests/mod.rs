//! What every store must do: one body a demand, run against each of them.

pub(crate) mod backings;
mod damage;
mod demands;
mod faults;
mod model;

use legwork_types::{LaneId, StateEntry};

use crate::{Checkpoint, Head, StateStore};

pub(crate) fn lane() -> LaneId {
    LaneId::new("field.gps-pings.v1", 3)
}

/// A head with a number and an offset that follows from it.
pub(crate) fn head(number: u32) -> Head {
    Head { number, next_offset: i64::from(number) * 100, n_partitions: 8, newest_us: i64::MIN, ..Head::default() }
}

/// The lanes of a store whose heads can all be read.
pub(crate) async fn heads(store: &dyn StateStore) -> Vec<(LaneId, Head)> {
    store.lanes().await.unwrap().into_iter().map(|(lane, head)| (lane, head.unwrap())).collect()
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> StateEntry {
    StateEntry { key: key.to_vec(), value: Some(value.to_vec()) }
}

pub(crate) fn delete(key: &[u8]) -> StateEntry {
    StateEntry { key: key.to_vec(), value: None }
}

/// A checkpoint whose every part tells its number.
pub(crate) fn numbered(number: u32) -> Checkpoint {
    let value = number.to_be_bytes();
    Checkpoint {
        head: head(number),
        hot: vec![put(b"hot", &value), put(&value, b"once")],
        cold: vec![put(b"cold", &value)],
        rows: vec![("table".to_owned(), value.to_vec())],
        drop_rows_through: number.checked_sub(5),
        carried: Vec::new(),
    }
}

/// Bytes that do not compress: SplitMix64 (Steele, Lea, Flood 2014).
#[cfg(feature = "slate")]
pub(crate) fn noise(seed: u64, n_bytes: usize) -> Vec<u8> {
    let word = |i: u64| roll(seed << 32 | i).to_le_bytes();
    (0..n_bytes.div_ceil(8) as u64).flat_map(word).take(n_bytes).collect()
}

/// A number that follows from `seed` as if by chance.
#[cfg(feature = "slate")]
pub(crate) fn roll(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
