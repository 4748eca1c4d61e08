//! Tables that another version of Legwork made, and logs that were tidied up.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use legwork_types::{Kind, Table};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::engines::filled;
use crate::testing::{
    DAY_0, Fault, FaultyStore, at, commit, contents, lake_on, lane, number, numbers, paths, rows, stays, without,
};
use crate::{ErrorKind, LakeError, LakeTable, LaneCommit};

fn events(schema: &Schema) -> LakeTable {
    LakeTable::events(Kind::Calls, schema)
}

fn call(schema: &Schema, through: u32) -> LaneCommit {
    let rows = filled(&Arc::new(schema.clone()), 3);
    LaneCommit::of_rows(lane(0), through, vec![(through, rows)])
}

#[tokio::test]
async fn columns_of_a_newer_schema_reach_the_table() {
    let lake = lake_on(Arc::new(InMemory::new()));
    let new = Kind::Calls.schema();
    let old = without(&without(&new, "duration_s"), "status");
    lake.commit(&events(&old), vec![call(&old, 1)]).await.unwrap();
    let done = lake.commit(&events(&new), vec![call(&new, 2)]).await.unwrap();
    assert_eq!(done.version, 3, "one commit for the columns");
    let query = "SELECT count(duration_s) * 100 + count(status) * 10 + count(call_id) FROM t";
    assert_eq!(number(&lake, &events(&new), query).await, 336);
    // An older binary goes on beside it.
    let other = lake.commit(&events(&old), vec![call(&old, 3)]).await.unwrap();
    assert_eq!(other.version, 4);
    assert_eq!(number(&lake, &events(&new), query).await, 339);
}

#[tokio::test]
async fn a_column_that_may_be_null_from_now_on_may_be_so_in_the_table() {
    let lake = lake_on(Arc::new(InMemory::new()));
    let schema = Kind::Calls.schema();
    let with = |is_nullable: bool| {
        let fields = schema.fields().iter().map(|field| match field.name().as_str() {
            "status" => Field::new("status", DataType::Utf8, is_nullable),
            _ => field.as_ref().clone(),
        });
        Schema::new(fields.collect::<Vec<_>>())
    };
    lake.commit(&events(&with(false)), vec![call(&with(false), 1)]).await.unwrap();
    let fewer = LaneCommit::of_rows(lane(0), 2, vec![(2, filled(&Arc::new(without(&schema, "status")), 3))]);
    assert!(matches!(lake.commit(&events(&with(false)), vec![fewer.clone()]).await, Err(LakeError::Rows { .. })));
    assert_eq!(lake.commit(&events(&with(true)), vec![fewer]).await.unwrap().version, 3);
    assert_eq!(number(&lake, &events(&schema), "SELECT count(*) * 10 + count(status) FROM t").await, 63);
}

#[tokio::test]
async fn a_column_of_another_type_is_refused() {
    let lake = lake_on(Arc::new(InMemory::new()));
    let schema = Kind::Calls.schema();
    lake.commit(&events(&schema), vec![call(&schema, 1)]).await.unwrap();
    let fields = schema.fields().iter().map(|field| match field.name().as_str() {
        "status" => Field::new("status", DataType::Int64, true),
        _ => field.as_ref().clone(),
    });
    let other = Schema::new(fields.collect::<Vec<_>>());
    let error = lake.commit(&events(&other), vec![call(&other, 2)]).await.unwrap_err();
    assert!(matches!(&error, LakeError::ColumnType { column, .. } if column == "status"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Config);
    // Rows that are not those of the table.
    let wrong = LaneCommit::of_rows(lane(0), 2, vec![(2, filled(&Table::Orders.version_schema(), 1))]);
    assert!(matches!(lake.commit(&events(&schema), vec![wrong]).await, Err(LakeError::Rows { .. })));
}

/// Adds a commit to the log by hand.
async fn append(store: &dyn ObjectStore, version: u64, actions: &str) {
    store
        .put(&Path::from(format!("lake/stays/_delta_log/{version:020}.json")), actions.to_owned().into())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_newer_writer_made_is_refused_with_the_way_out() {
    let protocols = [
        r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["fromTheFuture"],"writerFeatures":["fromTheFuture"]}}"#,
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["fromTheFuture"]}}"#,
        r#"{"protocol":{"minReaderVersion":9,"minWriterVersion":9}}"#,
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":9}}"#,
    ];
    for protocol in protocols {
        for is_known in [true, false] {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let mut lake = lake_on(store.clone());
            lake.commit(&stays(), vec![commit(0, 1, &[("a", at(DAY_0, 1), 1, 1, false)])]).await.unwrap();
            append(store.as_ref(), 2, protocol).await;
            if !is_known {
                lake = lake_on(store);
            }
            let error =
                lake.commit(&stays(), vec![commit(0, 2, &[("a", at(DAY_0, 1), 2, 2, false)])]).await.unwrap_err();
            assert!(matches!(error, LakeError::Newer { .. }), "{protocol}: {error:?}");
            assert!(error.to_string().contains("start the version that wrote it"), "{error}");
        }
    }
}

#[tokio::test]
async fn forgetting_transactions_is_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_on(store.clone());
    lake.commit(&stays(), vec![commit(0, 1, &[("a", at(DAY_0, 1), 1, 1, false)])]).await.unwrap();
    let first =
        store.get(&Path::from("lake/stays/_delta_log/00000000000000000000.json")).await.unwrap().bytes().await.unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    let metadata = first.lines().find(|line| line.contains("metaData")).unwrap();
    assert!(!first.contains("setTransactionRetentionDuration"));
    let metadata = metadata.replace(
        "\"configuration\":{",
        "\"configuration\":{\"delta.setTransactionRetentionDuration\":\"interval 1 days\",",
    );
    append(store.as_ref(), 2, &metadata).await;
    let error = lake.transactions(&stays()).await.unwrap_err();
    assert!(matches!(error, LakeError::Layout { .. }), "{error:?}");
}

/// After checkpoints of the log, and with the commits before them gone, lanes and rows are what they were.
#[tokio::test]
async fn transactions_outlive_the_commits_that_made_them() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_on(store.clone());
    lake.commit(&stays(), vec![commit(7, 3, &[("silent", at(DAY_0, 1), 1, 1, false)])]).await.unwrap();
    for through in 1..=220 {
        lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 1, through.into(), false)])])
            .await
            .unwrap();
    }
    let log = paths(store.as_ref(), "lake/stays/_delta_log").await;
    assert!(log.iter().any(|path| path.ends_with("_last_checkpoint")), "{log:?}");
    assert_eq!(log.iter().filter(|path| path.ends_with(".checkpoint.parquet")).count(), 2, "{log:?}");
    for path in log
        .iter()
        .filter(|path| path.ends_with(".json") && path.as_str() < "lake/stays/_delta_log/00000000000000000200")
    {
        store.delete(&Path::from(path.as_str())).await.unwrap();
    }
    let expected = [("field.gps-pings.v1/0".to_owned(), 220), ("field.gps-pings.v1/7".to_owned(), 3)];
    for lake in [lake_on(store.clone()), lake] {
        assert_eq!(numbers(&lake.transactions(&stays()).await.unwrap().unwrap()), expected);
        assert_eq!(contents(&lake, &stays()).await.len(), 221);
        let late = LaneCommit::of_rows(lane(7), 3, vec![(3, rows(&[("silent", at(DAY_0, 1), 1, 1, false)]))]);
        lake.commit(&stays(), vec![late]).await.unwrap();
        assert_eq!(contents(&lake, &stays()).await.len(), 221);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_fails_fails_no_commit() {
    for fault in [Fault::Fail, Fault::FailAfter] {
        let store = FaultyStore::new();
        let lake = lake_on(store.clone());
        store.fault("checkpoint", vec![Some(fault); 2]);
        for through in 1..=101 {
            lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 1, through.into(), false)])])
                .await
                .unwrap();
        }
        assert!(store.n_faults_left() < 2, "it was to be written");
        for lake in [lake_on(store), lake] {
            assert_eq!(lake.transactions(&stays()).await.unwrap().unwrap()[&lane(0)], 101);
            assert_eq!(contents(&lake, &stays()).await.len(), 101);
        }
    }
}
