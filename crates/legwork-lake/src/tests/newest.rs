//! What a lane's rows are now, and versions that are written for it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use legwork_types::LaneId;
use object_store::memory::InMemory;

use crate::testing::{DAY_0, at, commit, contents, lake_on, lane, rows, stays};
use crate::{LANE, Lake, LaneCommit};

/// (device, start, pings, revision) of what is newest, in order.
async fn newest(lake: &Lake, partition: i32, keys: Option<&[String]>) -> Vec<(String, i64, i64)> {
    let mut found = Vec::new();
    for rows in lake.newest_of_lane(&stays(), &lane(partition), keys).await.unwrap() {
        assert!(rows.column_by_name(LANE).is_none());
        let numbers = |name: &str| rows[name].as_primitive::<Int64Type>().values().to_vec();
        let (pings, revisions) = (numbers("n_pings"), numbers("revision"));
        let devices = rows["device_id"].as_string::<i32>();
        found.extend((0..rows.num_rows()).map(|row| (devices.value(row).to_owned(), pings[row], revisions[row])));
    }
    found.sort();
    found
}

fn for_lane(rows: &RecordBatch, lane: &LaneId) -> RecordBatch {
    let lanes: ArrayRef = Arc::new(StringArray::from(vec![lane.to_string(); rows.num_rows()]));
    let field = Arc::new(Field::new(LANE, DataType::Utf8, false));
    let fields: Vec<_> = rows.schema().fields().iter().cloned().chain([field]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().iter().cloned().chain([lanes]).collect())
        .unwrap()
}

#[tokio::test]
async fn versions_written_for_a_lane_are_its_newest() {
    let lake = lake_on(Arc::new(InMemory::new()));
    assert!(newest(&lake, 0, None).await.is_empty());
    let (a, b, c) = (at(DAY_0, 1), at(DAY_0, 2), at(DAY_0 + 1, 3));
    lake.commit(&stays(), vec![commit(0, 1, &[("a", a, 1, 1, false), ("b", b, 2, 1, false)])]).await.unwrap();
    lake.commit(&stays(), vec![commit(0, 2, &[("a", a, 3, 2, false), ("b", b, 2, 2, true)])]).await.unwrap();
    lake.commit(&stays(), vec![commit(1, 9, &[("a", a, 7, 9, false)]), commit(0, 3, &[("c", c, 4, 3, false)])])
        .await
        .unwrap();
    assert_eq!(newest(&lake, 0, None).await, [("a".to_owned(), 3, 2), ("c".to_owned(), 4, 3)]);
    assert_eq!(newest(&lake, 0, Some(&["c".to_owned()])).await, [("c".to_owned(), 4, 3)]);
    assert_eq!(newest(&lake, 1, None).await, [("a".to_owned(), 7, 9)]);

    let writer = LaneId::new("repair:", 0);
    let above = i64::from(u32::MAX) + 1;
    let repaired = for_lane(&rows(&[("a", a, 5, above, false), ("c", c, 4, above, true)]), &lane(0));
    let repair = || LaneCommit::of_rows(writer.clone(), 1, vec![(1, repaired.clone())]);
    lake.commit(&stays(), vec![repair()]).await.unwrap();
    let n_rows = contents(&lake, &stays()).await.len();
    lake.commit(&stays(), vec![repair()]).await.unwrap();
    assert_eq!(contents(&lake, &stays()).await.len(), n_rows, "once");
    // What the lane itself writes later does not hide it.
    lake.commit(&stays(), vec![commit(0, 4, &[("a", a, 6, 4, false)])]).await.unwrap();
    assert_eq!(newest(&lake, 0, None).await, [("a".to_owned(), 5, above)]);
    assert!(newest(&lake, 0, Some(&[])).await.is_empty());
    assert_eq!(lake.transactions(&stays()).await.unwrap().unwrap()[&writer], 1);
}
