//! Lanes that are not there: waited for while they are on their way, told of where they are not in the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt;
use legwork_types::{FreshRows, MissingLane, Table};

use super::fake::{Fake, LOOKS};
use super::lake_model::{MemoryLake, Version, fresh, lane};
use super::options;
use super::sql::{calls, table_of};
use crate::{Engine, QueryOptions, Session, SqlEngine};

fn missing(partition: i32, reason: &str, coming_for: Option<u64>) -> MissingLane {
    let coming_for = coming_for.map(Duration::from_secs);
    MissingLane { topic: "calls".into(), partition: Some(partition), reason: reason.to_owned(), coming_for }
}

/// The notices of an answer, and how often it was looked whether lanes have come.
async fn notices(lanes: Vec<MissingLane>, wait_s: u64, sql: &str, has_lake: bool) -> (Vec<String>, usize) {
    let fake = Arc::new(Fake { missing: Arc::new(lanes.into()), ..calls() });
    let options = QueryOptions { lanes_wait: Duration::from_secs(wait_s), ..options() };
    let engine = match has_lake {
        true => SqlEngine::with_history(fake.clone(), Arc::new(MemoryLake::default()), options),
        false => SqlEngine::new(fake.clone(), options),
    };
    let result = engine.unwrap().session().query(sql).await.unwrap();
    let _rows: Vec<_> = result.batches.try_collect().await.unwrap();
    (result.notices, fake.n_looks.load(Ordering::Relaxed))
}

const TABLES: [&str; 3] = [
    "SELECT * FROM rep_calls",
    "SELECT * FROM track_at('d', '2026-03-01'::timestamp)",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM deals)",
];

#[tokio::test]
async fn lanes_on_their_way_are_waited_for() {
    for (sql, has_lake) in TABLES.into_iter().flat_map(|sql| [(sql, true), (sql, false)]) {
        let (notices, n_looks) = notices(vec![missing(0, "coming", Some(0))], 3_600, sql, has_lake).await;
        assert!(notices.is_empty() && n_looks > LOOKS, "{sql}: {notices:?}, {n_looks}");
    }
}

#[tokio::test]
async fn lanes_that_do_not_come_are_told_of() {
    let told = |reason: &str| vec![format!("this answer may lack rows of lane calls/0: {reason}")];
    for (sql, has_lake) in TABLES.into_iter().flat_map(|sql| [(sql, true), (sql, false)]) {
        // One that has halted, one that has been on its way for too long already, and nothing to wait with.
        for (coming_for, wait_s) in [(None, 3_600), (Some(3_600), 3_600), (Some(0), 0)] {
            let lanes = vec![missing(0, "why", coming_for)];
            let (notices, n_looks) = notices(lanes, wait_s, sql, has_lake).await;
            assert!(notices == told("why") && n_looks <= LOOKS, "{sql}: {notices:?}, {n_looks}");
        }
    }
}

#[tokio::test]
async fn a_query_goes_on_before_its_time_is_over() {
    let fake = Fake { missing: Arc::new(vec![missing(0, "why", Some(0))].into()), ..calls() };
    fake.n_looks.store(LOOKS + 1, Ordering::Relaxed);
    let engine = SqlEngine::new(Arc::new(fake), QueryOptions { lanes_wait: Duration::from_secs(3_600), ..options() });
    let session = engine.unwrap().sql_session();
    let _set = session.query("SET statement_timeout = '2s'").await.unwrap();
    let result = session.query("SELECT count(*) FROM rep_calls").await.unwrap();
    assert_eq!(result.notices.len(), 1);
    assert_eq!(result.batches.try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn statements_without_lanes_say_nothing() {
    for sql in ["SELECT 1", "SHOW timezone", "SELECT * FROM lake_versions()", "SHOW TABLES"] {
        let (notices, n_looks) = notices(vec![missing(0, "why", Some(0))], 3_600, sql, true).await;
        assert!(notices.is_empty() && n_looks == 0, "{sql}: {notices:?}");
    }
}

#[tokio::test]
async fn rows_of_a_lane_that_another_owner_has_overtaken_are_left_out_and_told_of() {
    let version =
        |day: i32, revision: u32, value: i64| Version { lane: 0, revision, day, key: 1, is_deleted: false, value };
    for (durable, sum, n_notices) in [(5, "6.0", 0), (4, "3.0", 1)] {
        // The lake has the lane's rows through checkpoint 5, the owner asked has a later version of one of them.
        let mut history =
            MemoryLake::default().table(Table::DeviceMovement, &[version(0, 4, 4), version(1, 5, 8)], &[], true);
        let lake = history.tables.get_mut(Table::DeviceMovement.name()).unwrap();
        lake.1.insert(lane(0), 5);
        let held = fresh(Table::DeviceMovement, &[version(1, 6, 20)]);
        let held = held.into_iter().map(|fresh| FreshRows { durable, ..fresh }).collect();
        let mut lanes = Fake::default();
        lanes.fresh.insert(Table::DeviceMovement.name().to_owned(), held);
        let engine = SqlEngine::with_history(Arc::new(lanes), Arc::new(history), options()).unwrap();
        let session = engine.session();
        let sql = "SELECT sum(distance_m) FROM device_movement";
        assert_eq!(table_of(session.as_ref(), sql).await, sum);
        let notices = session.query(sql).await.unwrap().notices;
        assert_eq!(notices.len(), n_notices, "{notices:?}");
        assert!(
            notices.iter().all(|notice| notice.contains("another instance has taken the lane over")),
            "{notices:?}"
        );
    }
}
