//! Damaged bytes, newer formats, and bytes of every format ever written.

use legwork_types::LaneId;
use proptest::prelude::*;

use super::backings::on_runtime;
use super::{head, lane, numbered, put};
use crate::{Checkpoint, Claimed, Head, MemoryStore, PendingRows, StateStore, StoreError};

/// A store with two checkpoints in it.
async fn filled() -> MemoryStore {
    let store = MemoryStore::new();
    let owner = store.claim(&lane()).await.unwrap();
    owner.lane.commit(numbered(1)).await.unwrap();
    owner.lane.commit(numbered(2)).await.unwrap();
    store
}

/// Claims the lane and reads all that there is.
async fn read_all(store: &MemoryStore) -> Result<Claimed, StoreError> {
    let claimed = store.claim(&lane()).await?;
    claimed.lane.read(vec![b"cold".to_vec()]).await?;
    Ok(claimed)
}

proptest! {
    #[test]
    fn changed_bytes_are_found(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        on_runtime(async {
            let store = filled().await;
            let values: Vec<_> = store.values(&lane()).into_iter().collect();
            let (key, mut value) = values[which.index(values.len())].clone();
            let at = at.index(value.len());
            value[at] ^= flip;
            store.set_value(&lane(), &key, Some(value));
            let error = read_all(&store).await.unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        });
    }

    #[test]
    fn any_bytes_are_refused_in_good_order(which in any::<prop::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        on_runtime(async {
            let store = filled().await;
            let keys: Vec<_> = store.values(&lane()).into_keys().collect();
            store.set_value(&lane(), &keys[which.index(keys.len())], Some(bytes));
            assert!(matches!(read_all(&store).await, Err(StoreError::Damaged { .. })));
        });
    }

    /// With a right checksum over them, bytes reach the parsers.
    #[test]
    fn any_payload_is_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let value = crate::format::seal(b"m", &[&bytes]);
        let parsed = crate::format::open_head(&lane(), b"m", &value);
        assert!(matches!(parsed, Ok(_) | Err(StoreError::Damaged { .. })));
        let value = crate::format::seal(b"r/", &[&bytes]);
        let parsed = crate::format::open_rows(&lane(), b"r/", 1, &value);
        assert!(matches!(parsed, Ok(_) | Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn truncated_values_are_found(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        on_runtime(async {
            let store = filled().await;
            let values: Vec<_> = store.values(&lane()).into_iter().collect();
            let (key, mut value) = values[which.index(values.len())].clone();
            value.truncate(at.index(value.len()));
            store.set_value(&lane(), &key, Some(value));
            assert!(matches!(read_all(&store).await, Err(StoreError::Damaged { .. })));
        });
    }
}

#[test]
fn a_lane_whose_head_cannot_be_read_is_told_beside_the_others() {
    on_runtime(async {
        let store = filled().await;
        let other = LaneId::new("field.calls.v1", 0);
        store.claim(&other).await.unwrap().lane.commit(numbered(1)).await.unwrap();
        store.set_value(&lane(), b"m", Some(vec![1, 2, 3]));
        let lanes = store.lanes().await.unwrap();
        assert!(lanes.iter().any(|(id, read)| *id == other && read.as_ref().is_ok_and(|read| *read == head(1))));
        assert!(lanes.iter().any(|(id, read)| *id == lane() && matches!(read, Err(StoreError::Damaged { .. }))));
    });
}

#[test]
fn a_value_under_another_key_is_damage() {
    on_runtime(async {
        let store = filled().await;
        let values = store.values(&lane());
        store.set_value(&lane(), b"h/other", Some(values[b"h/hot".as_slice()].clone()));
        assert!(matches!(read_all(&store).await, Err(StoreError::Damaged { .. })));
    });
}

#[test]
fn rows_under_a_key_of_another_length_are_damage() {
    on_runtime(async {
        let store = filled().await;
        let key = b"r/\0\0\0\x02\0\0\0".to_vec();
        let value = crate::format::seal_rows(&key, "stays", b"rows");
        store.set_value(&lane(), &key, Some(value));
        assert!(matches!(read_all(&store).await, Err(StoreError::Damaged { .. })));
    });
}

/// What a later binary would write: another format byte, a checksum by the same rule, a payload unknown here.
#[test]
fn newer_formats_are_refused_with_the_way_out() {
    for key in [b"m".as_slice(), b"h/hot", b"c/cold", b"r/\0\0\0\x01\0\0\0\0"] {
        on_runtime(async {
            let store = filled().await;
            assert!(store.values(&lane()).contains_key(key));
            let payload = b"who knows";
            let mut crc = crc32fast::Hasher::new();
            [&[2], key, payload].iter().for_each(|part| crc.update(part));
            let value = [&[2], crc.finalize().to_le_bytes().as_slice(), payload].concat();
            store.set_value(&lane(), key, Some(value));
            let error = read_all(&store).await.unwrap_err();
            assert!(matches!(error, StoreError::NewerFormat { found: 2, known: 1, .. }), "{error:?}");
            assert!(error.to_string().contains("start the version that wrote it"));
        });
    }
}

/// The checkpoint of the golden bytes.
fn golden_checkpoint() -> Checkpoint {
    Checkpoint {
        head: Head {
            number: 1,
            topic_id: Some("AbCdEfGhIjKlMnOpQrStUv".to_owned()),
            next_offset: 1_234_567_890_123,
            n_partitions: 12,
            newest_us: 1_700_000_000_000_000,
            counts: vec![10, 9, 0, 1, -1],
            settings: "window=300s".to_owned(),
            lake_through: 0,
            lake_tables: [("device_movement".to_owned(), 7), ("stays".to_owned(), 300)].into(),
        },
        hot: vec![put(b"d-1", b"hot"), put(b"", b"")],
        cold: vec![put(&[0, 0xff], &[0xff, 0])],
        rows: vec![("device_movement".to_owned(), b"rows".to_vec()), ("stays".to_owned(), Vec::new())],
        drop_rows_through: None,
        carried: Vec::new(),
    }
}

const GOLDEN_V1: &str = include_str!("golden/v1.txt");

/// Lines of `key value`, in hexadecimal.
fn to_lines(store: &MemoryStore) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    store.values(&lane()).iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect()
}

#[test]
fn format_1_is_read_back() {
    let store = MemoryStore::new();
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    for line in GOLDEN_V1.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        store.set_value(&lane(), &bytes(key), Some(bytes(value)));
    }
    let claimed = on_runtime(store.claim(&lane())).unwrap();
    let expected = golden_checkpoint();
    assert_eq!(claimed.head, Some(expected.head));
    assert_eq!(claimed.hot, [(b"".to_vec(), b"".to_vec()), (b"d-1".to_vec(), b"hot".to_vec())]);
    let pending = expected.rows.into_iter().map(|(table, rows)| PendingRows { number: 1, table, rows });
    assert_eq!(claimed.pending, pending.collect::<Vec<_>>());
    let cold = on_runtime(claimed.lane.read(vec![vec![0, 0xff]])).unwrap();
    assert_eq!(cold, [Some(vec![0xff, 0])]);
}

#[test]
fn what_is_written_is_format_1() {
    let store = MemoryStore::new();
    on_runtime(async {
        let owner = store.claim(&lane()).await.unwrap();
        owner.lane.commit(golden_checkpoint()).await.unwrap();
    });
    let lines = to_lines(&store);
    assert_eq!(
        lines, GOLDEN_V1,
        "a changed layout needs a new format, and the old one stays readable; written now:\n{lines}"
    );
}

#[test]
fn an_error_names_no_key() {
    on_runtime(async {
        let store = filled().await;
        store.set_value(&lane(), b"h/phone-of-jane", Some(vec![1, 2, 3]));
        let error = store.claim(&lane()).await.unwrap_err().to_string();
        assert!(error.contains("a hot value") && !error.contains("jane"), "{error}");
    });
}
