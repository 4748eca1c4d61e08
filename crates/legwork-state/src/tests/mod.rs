//! What every store must do: one body a demand, run against each of them.

pub(crate) mod backings;
mod damage;
mod demands;
mod faults;
mod model;

use legwork_types::{LaneId, StateEntry};

use crate::{Checkpoint, Head};

fn lane() -> LaneId {
    LaneId::new("field.gps-pings.v1", 3)
}

/// A head with a number and an offset that follows from it.
fn head(number: u32) -> Head {
    Head { number, next_offset: i64::from(number) * 100, n_partitions: 8, newest_us: i64::MIN, ..Head::default() }
}

fn put(key: &[u8], value: &[u8]) -> StateEntry {
    StateEntry { key: key.to_vec(), value: Some(value.to_vec()) }
}

fn delete(key: &[u8]) -> StateEntry {
    StateEntry { key: key.to_vec(), value: None }
}

/// A checkpoint whose every part tells its number.
fn numbered(number: u32) -> Checkpoint {
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
