//! Rows that were encoded before they are committed.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use legwork_types::Kind;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use super::engines::filled;
use crate::testing::{DAY_0, at, lake_on, lane, paths, sql, without};
use crate::{Lake, LakeError, LakeTable, LaneCommit};

fn calls(schema: &Schema) -> LakeTable {
    LakeTable::events(Kind::Calls, schema)
}

/// Calls of an hour of `day` and the one after it, `n_rows` of each.
fn two_days(schema: &Schema, day: i32, n_rows: usize) -> [RecordBatch; 2] {
    [day, day + 1].map(|day| {
        let rows = filled(&Arc::new(schema.clone()), n_rows);
        let idx = schema.index_of("event_time").unwrap();
        let times = rows.column(idx).as_primitive::<TimestampMicrosecondType>().values().iter();
        let times = times.map(|us| us - at(DAY_0, 0) + at(day, 0));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
        let mut columns = rows.columns().to_vec();
        columns[idx] = times;
        RecordBatch::try_new(rows.schema(), columns).unwrap()
    })
}

async fn rows(lake: &Lake, table: &LakeTable) -> String {
    let rows = sql(lake, table, "SELECT * FROM t ORDER BY event_time, event_id").await;
    pretty_format_batches(&rows).unwrap().to_string()
}

/// Statistics of each data file as the log has them, by day.
async fn stats(store: &dyn ObjectStore) -> Vec<(String, Value)> {
    let mut stats = Vec::new();
    for path in paths(store, "lake/calls/_delta_log").await {
        let log = store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap();
        for line in std::str::from_utf8(&log).unwrap().lines() {
            let add = &serde_json::from_str::<Value>(line).unwrap()["add"];
            if let Some(text) = add["stats"].as_str() {
                let day = add["partitionValues"]["day"].as_str().unwrap().to_owned();
                stats.push((day, serde_json::from_str(text).unwrap()));
            }
        }
    }
    stats.sort_by(|a, b| a.0.cmp(&b.0));
    stats
}

fn numbered(number: u32, files: Vec<Bytes>) -> Vec<(u32, Bytes)> {
    files.into_iter().map(|file| (number, file)).collect()
}

#[tokio::test]
async fn encoded_rows_land_as_plain_ones_do() {
    let schema = Kind::Calls.schema();
    let table = calls(&schema);
    let [first, second] = two_days(&schema, DAY_0, 40);
    let (plain_store, store) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let (plain, lake) = (lake_on(plain_store.clone()), lake_on(store.clone()));
    let all = vec![(1, first.clone()), (2, second.clone()), (2, first.clone())];
    plain.commit(&table, vec![LaneCommit::of_rows(lane(0), 2, all)]).await.unwrap();

    let files = lake.encode(&table, &lane(0), &[first.slice(0, 10), second.clone(), first.slice(10, 30)]).unwrap();
    assert_eq!(files.len(), 2, "one a day");
    let commit =
        LaneCommit { lane: lane(0), through: 2, rows: vec![(2, first.clone())], files: numbered(2, files.clone()) };
    lake.commit(&table, vec![commit]).await.unwrap();
    assert_eq!(rows(&lake, &table).await, rows(&plain, &table).await);
    assert_eq!(stats(store.as_ref()).await, stats(plain_store.as_ref()).await);
    let n_files = paths(store.as_ref(), "lake/calls").await.iter().filter(|path| path.ends_with(".parquet")).count();
    assert_eq!(n_files, 2, "one a day");

    // What the table has is left out by its number.
    let again = LaneCommit { lane: lane(0), through: 3, rows: Vec::new(), files: numbered(2, files.clone()) };
    lake.commit(&table, vec![again]).await.unwrap();
    assert_eq!(rows(&lake, &table).await, rows(&plain, &table).await);
    let beyond = LaneCommit { lane: lane(0), through: 4, rows: Vec::new(), files: numbered(5, files) };
    assert!(matches!(lake.commit(&table, vec![beyond]).await, Err(LakeError::Rows { .. })));
}

#[tokio::test]
async fn rows_encoded_before_the_table_had_a_column_get_it() {
    let new = Kind::Calls.schema();
    let old = without(&new, "duration_s");
    let lake = lake_on(Arc::new(InMemory::new()));
    let [first, _] = two_days(&old, DAY_0, 5);
    let files = lake.encode(&calls(&old), &lane(0), &[first]).unwrap();
    let [newer, _] = two_days(&new, DAY_0, 5);
    lake.commit(&calls(&new), vec![LaneCommit::of_rows(lane(1), 1, vec![(1, newer)])]).await.unwrap();
    let commit = LaneCommit { lane: lane(0), through: 1, rows: Vec::new(), files: numbered(1, files) };
    lake.commit(&calls(&new), vec![commit]).await.unwrap();
    let counts = sql(&lake, &calls(&new), "SELECT count(*) AS n, count(duration_s) AS n_durations FROM t").await;
    assert_eq!(pretty_format_batches(&counts).unwrap().to_string().lines().nth(3), Some("| 10 | 5           |"));
}

#[tokio::test]
async fn bytes_that_are_no_rows_of_the_table_are_refused() {
    let table = calls(&Kind::Calls.schema());
    let lake = lake_on(Arc::new(InMemory::new()));
    for file in [Bytes::new(), Bytes::from_static(b"PAR1"), Bytes::from_static(b"PAR1\0\0\0\0\0\0\0\xffPAR1")] {
        let commit = LaneCommit { lane: lane(0), through: 1, rows: Vec::new(), files: vec![(1, file)] };
        assert!(matches!(lake.commit(&table, vec![commit]).await, Err(LakeError::Rows { .. })));
    }
}
