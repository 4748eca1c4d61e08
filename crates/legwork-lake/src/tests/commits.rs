//! Rows reach a table once, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use legwork_types::LaneId;
use object_store::memory::InMemory;

use crate::testing::{DAY_0, Fault, FaultyStore, at, commit, contents, lake_on, lane, number, rows, stays};
use crate::{LakeError, LaneCommit, LaneOutcome};

#[tokio::test]
async fn lanes_commit_together_and_once() {
    let lake = lake_on(Arc::new(InMemory::new()));
    assert!(lake.transactions(&stays()).await.unwrap().is_none());
    assert!(lake.pin(&stays()).await.unwrap().is_none());
    let first = || {
        vec![commit(0, 1, &[("a", at(DAY_0, 1), 3, 1, false), ("b", at(DAY_0 + 1, 1), 4, 1, false)]), commit(1, 4, &[])]
    };
    let done = lake.commit(&stays(), first()).await.unwrap();
    assert_eq!(done.lanes, [(lane(0), LaneOutcome::Done), (lane(1), LaneOutcome::Done)]);
    assert_eq!(done.version, 1);
    let again = lake.commit(&stays(), first()).await.unwrap();
    assert_eq!(again.lanes, [(lane(0), LaneOutcome::AlreadyThere), (lane(1), LaneOutcome::AlreadyThere)]);
    assert_eq!(again.version, 1);
    let mixed =
        vec![commit(0, 2, &[("a", at(DAY_0, 1), 5, 2, false)]), commit(1, 3, &[("x", at(DAY_0, 1), 1, 3, false)])];
    let mixed = lake.commit(&stays(), mixed).await.unwrap();
    assert_eq!(mixed.lanes, [(lane(0), LaneOutcome::Done), (lane(1), LaneOutcome::Ahead { at: 4 })]);
    let transactions = lake.transactions(&stays()).await.unwrap().unwrap();
    assert_eq!(
        crate::testing::numbers(&transactions),
        [("field.gps-pings.v1/0".to_owned(), 2), ("field.gps-pings.v1/1".to_owned(), 4)]
    );
    let lane_0 = || "field.gps-pings.v1/0".to_owned();
    let expected =
        [(lane_0(), "a".to_owned(), 3, 1), (lane_0(), "a".to_owned(), 5, 2), (lane_0(), "b".to_owned(), 4, 1)];
    assert_eq!(contents(&lake, &stays()).await, expected);
    let pinned = lake.pin(&stays()).await.unwrap().unwrap();
    assert_eq!(
        pinned.days.iter().map(|(day, files)| (*day, files.n_files, files.n_rows)).collect::<Vec<_>>(),
        [(DAY_0, 2, 2), (DAY_0 + 1, 1, 1)]
    );
}

#[tokio::test]
async fn rows_that_are_there_are_left_out_by_their_number() {
    let lake = lake_on(Arc::new(InMemory::new()));
    let batch = |number: u32| (number, rows(&[("a", at(DAY_0, 1), 1, i64::from(number), false)]));
    let first = LaneCommit::of_rows(lane(0), 2, vec![batch(1), batch(2)]);
    lake.commit(&stays(), vec![first]).await.unwrap();
    // The lane started again before it dropped what was committed.
    let second = LaneCommit::of_rows(lane(0), 3, vec![batch(1), batch(2), batch(3)]);
    lake.commit(&stays(), vec![second]).await.unwrap();
    let found: Vec<i64> = contents(&lake, &stays()).await.into_iter().map(|row| row.3).collect();
    assert_eq!(found, [1, 2, 3]);
    let beyond = LaneCommit::of_rows(lane(0), 4, vec![batch(5)]);
    assert!(matches!(lake.commit(&stays(), vec![beyond]).await, Err(LakeError::Rows { .. })));
    let twice = vec![commit(0, 9, &[]), commit(0, 10, &[])];
    assert!(matches!(lake.commit(&stays(), twice).await, Err(LakeError::Rows { .. })));
}

/// Every fault, at the data file, at the commit, at the table's making: rows are there once.
#[tokio::test(start_paused = true)]
async fn no_fault_loses_or_doubles_rows() {
    for fault in [Fault::Fail, Fault::FailAfter, Fault::Hang, Fault::HangAfter, Fault::Late] {
        for word in [".parquet", "00000000000000000001.json", "00000000000000000000.json", "00000000000000000002.json"]
        {
            for n_faults in 1..4 {
                let store = FaultyStore::new();
                store.fault(word, vec![Some(fault); n_faults]);
                let lake = lake_on(store.clone());
                for through in 1..4 {
                    let done = lake
                        .commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 3, through.into(), false)])])
                        .await;
                    assert_eq!(done.unwrap().lanes, [(lane(0), LaneOutcome::Done)], "{fault:?} at {word}");
                }
                let found: Vec<i64> = contents(&lake, &stays()).await.into_iter().map(|row| row.3).collect();
                assert_eq!(found, [1, 2, 3], "{fault:?} at {word}");
                assert!(store.n_faults_left() < n_faults, "{fault:?} at {word} has happened");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_broken_is_reported_and_nothing_is_lost() {
    let store = FaultyStore::new();
    let lake = lake_on(store.clone());
    store.fault(".json", vec![Some(Fault::Hang); 1_000]);
    let wanted = || vec![commit(0, 1, &[("a", at(DAY_0, 1), 3, 1, false)])];
    let error = lake.commit(&stays(), wanted()).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Retry, "{error}");
    store.fault(".json", []);
    assert_eq!(lake.commit(&stays(), wanted()).await.unwrap().lanes, [(lane(0), LaneOutcome::Done)]);
    assert_eq!(contents(&lake, &stays()).await.len(), 1);
}

/// Two instances that both think that they own the lanes, each with a lake of its own over one store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_write_each_row_once() {
    let store = Arc::new(InMemory::new());
    let writer = |writer: i64| {
        let lake = lake_on(store.clone());
        async move {
            let mut outcomes = Vec::new();
            for through in 1..=20_u32 {
                let shared = commit(0, through, &[("shared", at(DAY_0, 1), 1, through.into(), false)]);
                let own = commit(
                    1 + i32::try_from(writer).unwrap(),
                    through,
                    &[("own", at(DAY_0, 2), writer, through.into(), false)],
                );
                loop {
                    match lake.commit(&stays(), vec![shared.clone(), own.clone()]).await {
                        Ok(done) => break outcomes.push(done.lanes[0].1),
                        Err(LakeError::Contended { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            outcomes
        }
    };
    let (a, b) = tokio::join!(tokio::spawn(writer(0)), tokio::spawn(writer(1)));
    let (a, b) = (a.unwrap(), b.unwrap());
    let lake = lake_on(store);
    let found = contents(&lake, &stays()).await;
    let shared: Vec<i64> = found.iter().filter(|row| row.1 == "shared").map(|row| row.3).collect();
    let is_run = shared.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(is_run, "{shared:?}");
    assert_eq!(shared.last(), Some(&20));
    assert_eq!(found.iter().filter(|row| row.1 == "own").count(), 40);
    let n_done = a.iter().chain(&b).filter(|outcome| **outcome == LaneOutcome::Done).count();
    assert_eq!(n_done, shared.len(), "one writer each");
}

/// A commit that is under way, and what it says in the end.
fn committing(lake: &crate::Lake, lanes: Vec<LaneCommit>) -> tokio::task::JoinHandle<Vec<(LaneId, LaneOutcome)>> {
    let lake = lake.clone();
    tokio::spawn(async move { lake.commit(&stays(), lanes).await.unwrap().lanes })
}

/// Somebody else commits the same number while an attempt is under way, whatever becomes of that: what the other left out is not there.
#[tokio::test]
async fn what_somebody_else_brought_is_not_called_ours() {
    for (word, fault) in [(".parquet", Fault::Held), ("00000000000000000002.json", Fault::Held)] {
        let store = FaultyStore::new();
        let (first, second) = (lake_on(store.clone()), lake_on(store.clone()));
        first.commit(&stays(), vec![commit(0, 1, &[])]).await.unwrap();
        store.fault(word, [Some(fault)]);
        let rows = |device| commit(0, 2, &[(device, at(DAY_0, 1), 3, 2, false)]);
        let slow = committing(&first, vec![rows("open"), commit(1, 5, &[("own", at(DAY_0, 2), 1, 5, false)])]);
        store.holds().await;
        let quick = second.commit(&stays(), vec![rows("closed")]).await.unwrap();
        assert_eq!(quick.lanes, [(lane(0), LaneOutcome::Done)]);
        store.let_go();
        let slow = slow.await.unwrap();
        assert_eq!(slow, [(lane(0), LaneOutcome::AlreadyThere), (lane(1), LaneOutcome::Done)], "at {word}");
        let found: Vec<_> = contents(&first, &stays()).await.into_iter().map(|row| row.1).collect();
        assert_eq!(found, ["closed", "own"]);
    }
}

/// The answer of a commit is lost, and before it is looked for its files have been compacted and its lane has come further.
#[tokio::test]
async fn what_we_brought_is_known_to_be_ours_whatever_has_become_of_it() {
    let store = FaultyStore::new();
    let (first, second) = (lake_on(store.clone()), lake_on(store.clone()));
    first.commit(&stays(), vec![commit(0, 1, &[("a", at(DAY_0, 1), 3, 1, false)])]).await.unwrap();
    store.fault("00000000000000000002.json", [Some(Fault::HeldAfter)]);
    let rows = |partition, through| commit(partition, through, &[("a", at(DAY_0, 1), 3, through.into(), false)]);
    let slow = committing(&first, vec![rows(0, 2), rows(1, 2), rows(2, 0)]);
    store.holds().await;
    second.commit(&stays(), vec![rows(0, 3)]).await.unwrap();
    let upkeep = crate::Upkeep {
        now_ms: i64::from(DAY_0 + 20_000) * 86_400_000,
        late_horizon: Duration::ZERO,
        retention: std::collections::HashMap::new(),
    };
    let lease = second.lease("b", upkeep.now_ms, Duration::from_secs(60)).await.unwrap().unwrap();
    let done = second.maintain(&[stays()], &upkeep, lease).await;
    assert_eq!(done.tables[0].1.as_ref().unwrap().n_days_resolved, 1);
    store.let_go();
    assert_eq!(slow.await.unwrap(), [0, 1, 2].map(|partition| (lane(partition), LaneOutcome::Done)));
    assert_eq!(contents(&first, &stays()).await.len(), 3);
}

/// As Azurite lists.
#[tokio::test]
async fn a_store_that_lists_from_the_start_whatever_it_is_asked_will_do() {
    let store = FaultyStore::new();
    store.has_no_offsets.store(true, std::sync::atomic::Ordering::Relaxed);
    let commits = async |store: Arc<dyn object_store::ObjectStore>| {
        let lake = lake_on(store);
        for through in 1..4 {
            let row = ("a", at(DAY_0, 1), 3, through.into(), false);
            lake.commit(&stays(), vec![commit(0, through, &[row])]).await?;
        }
        Ok::<_, LakeError>(contents(&lake, &stays()).await.len())
    };
    assert_eq!(commits(Arc::new(crate::azure::FromOffset(store))).await.unwrap(), 3);
}

#[tokio::test]
async fn a_day_reads_only_its_files_in_plain_types() {
    let lake = lake_on(Arc::new(InMemory::new()));
    for day in 0..5 {
        let number = u32::try_from(day).unwrap() + 1;
        lake.commit(&stays(), vec![commit(0, number, &[("a", at(DAY_0 + day, 1), 3, 1, false)])]).await.unwrap();
        lake.commit(&stays(), vec![commit(1, number, &[("b", at(DAY_0 + day, 13), 3, 1, false)])]).await.unwrap();
    }
    let pinned = lake.pin(&stays()).await.unwrap().unwrap();
    let schema = pinned.provider.schema();
    assert_eq!(schema.field_with_name("device_id").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(schema.field_with_name("day").unwrap().data_type(), &DataType::Date32);
    assert_eq!(
        schema.field_with_name("stay_start").unwrap().data_type(),
        stays().schema().field_with_name("stay_start").unwrap().data_type()
    );
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("t", pinned.provider.clone()).unwrap();
    let files = async |filter: &str| {
        let frame = context.sql(&format!("SELECT device_id FROM t WHERE {filter}")).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let plan = datafusion::physical_plan::displayable(plan.as_ref()).indent(true).to_string();
        plan.matches(".parquet").count()
    };
    assert_eq!(files("true").await, 10);
    assert_eq!(files("day = DATE '2026-11-21'").await, 2);
    assert_eq!(files("day >= DATE '2026-11-23'").await, 4);
    assert_eq!(files("stay_start < TIMESTAMP '2026-11-20T02:00:00Z'").await, 1, "by the statistics of the log");
    let batches = context.sql("SELECT lane, day FROM t").await.unwrap().collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.column(0).as_string_opt::<i32>().is_some()));
    assert_eq!(
        number(&lake, &stays(), "SELECT count(*) FROM t WHERE day = DATE '2026-11-22' AND device_id = 'a'").await,
        1
    );
}

#[tokio::test]
async fn a_pin_that_is_the_newest_is_read_once() {
    let store = FaultyStore::new();
    let lake = lake_on(store.clone());
    lake.commit(&stays(), vec![commit(0, 1, &[("a", at(DAY_0, 1), 3, 1, false)])]).await.unwrap();
    let first = lake.pin(&stays()).await.unwrap().unwrap();
    store.n_calls.lock().clear();
    let second = lake.pin(&stays()).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&first.provider, &second.provider));
    let n_calls: usize = store.n_calls.lock().values().sum();
    assert!(n_calls <= 4, "{:?}", store.n_calls.lock());
    lake.commit(&stays(), vec![commit(0, 2, &[("a", at(DAY_0, 1), 4, 2, false)])]).await.unwrap();
    let third = lake.pin(&stays()).await.unwrap().unwrap();
    assert_eq!((first.version, third.version), (1, 2));
    assert_eq!((first.transactions[&lane(0)], third.transactions[&lane(0)]), (1, 2));
}

#[tokio::test]
async fn a_folder_may_have_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("Außendienst, 50 % & mehr");
    let url = url::Url::from_file_path(&folder).unwrap();
    let lake = crate::Lake::open(url.as_str(), &std::collections::HashMap::new(), crate::testing::config()).unwrap();
    for through in 1..3 {
        lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 3, through.into(), false)])])
            .await
            .unwrap();
    }
    assert_eq!(contents(&lake, &stays()).await.len(), 2);
    assert!(folder.join("stays/_delta_log/00000000000000000002.json").is_file());
    let lease = lake.lease("a", 0, Duration::from_secs(60)).await.unwrap().unwrap();
    let upkeep = crate::Upkeep {
        now_ms: chrono::Utc::now().timestamp_millis() + 30 * 86_400_000,
        late_horizon: Duration::ZERO,
        retention: std::collections::HashMap::new(),
    };
    let done = lake.maintain(&[stays()], &upkeep, lease).await;
    assert_eq!(done.tables[0].1.as_ref().unwrap().n_days_resolved, 1);
    assert_eq!(contents(&lake, &stays()).await.len(), 1);
}
