//! Compaction, retention and vacuum change no answer and lose no row.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;

use crate::testing::{
    DAY_0, Fault, FaultyStore, Stay, at, commit, config, contents, lake_on, lake_with, lane, paths, sql, stays,
};
use crate::{Lake, LakeConfig, LakeError, Lease, Maintained, Upkeep};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// As of some hours into a day.
fn upkeep(day: i32, hour: i64) -> Upkeep {
    Upkeep {
        now_ms: i64::from(day) * DAY_MS + hour * HOUR_MS,
        late_horizon: Duration::from_secs(2 * 86_400),
        retention: HashMap::new(),
    }
}

async fn lease(lake: &Lake, now_ms: i64) -> Lease {
    lake.lease("test", now_ms, Duration::from_secs(3_600)).await.unwrap().expect("nobody holds it")
}

async fn maintain(lake: &Lake, upkeep: &Upkeep) -> Maintained {
    let lease = lease(lake, upkeep.now_ms).await;
    let mut done = lake.maintain(&[stays()], upkeep, lease).await;
    lake.release(&done.lease.take().unwrap()).await.unwrap();
    done.tables.pop().unwrap().1.unwrap()
}

/// The newest versions, by the documented query.
async fn newest(lake: &Lake) -> Vec<String> {
    let query = "SELECT lane, device_id, stay_start, n_pings, revision, day FROM (
        SELECT *, row_number() OVER (PARTITION BY day, lane, device_id, stay_start ORDER BY revision DESC) AS newest FROM t
    ) AS versions WHERE newest = 1 AND NOT is_deleted ORDER BY 1, 2, 3";
    let batches = sql(lake, &stays(), query).await;
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    text.lines().filter(|line| line.contains("gps-pings")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_finished_day_has_one_version_a_row_and_no_retractions() {
    let lake = lake_on(Arc::new(InMemory::new()));
    let steps: [&[Stay<'_>]; 3] = [
        &[("b", at(DAY_0, 1), 1, 1, false), ("a", at(DAY_0, 2), 2, 1, false), ("gone", at(DAY_0, 3), 3, 1, false)],
        &[
            ("b", at(DAY_0, 1), 11, 2, false),
            ("gone", at(DAY_0, 3), 3, 2, true),
            ("new", at(DAY_0 + 3, 1), 4, 2, false),
        ],
        &[("b", at(DAY_0, 1), 111, 3, false), ("new", at(DAY_0 + 3, 1), 5, 3, false)],
    ];
    for (through, step) in (1..).zip(steps) {
        lake.commit(
            &stays(),
            vec![commit(0, through, step), commit(1, through, &[("b", at(DAY_0, 1), 7, through.into(), false)])],
        )
        .await
        .unwrap();
    }
    let before = newest(&lake).await;
    let done = maintain(&lake, &upkeep(DAY_0 + 3, 1)).await;
    assert_eq!((done.n_days_resolved, done.n_files_written), (1, 1));
    assert_eq!(newest(&lake).await, before);
    let (lane_0, lane_1) = (lane(0).to_string(), lane(1).to_string());
    let row = |lane: &str, device: &str, n_pings, revision| (lane.to_owned(), device.to_owned(), n_pings, revision);
    let expected = [
        row(&lane_0, "a", 2, 1),
        row(&lane_0, "b", 111, 3),
        row(&lane_0, "new", 4, 2),
        row(&lane_0, "new", 5, 3),
        row(&lane_1, "b", 7, 3),
    ];
    assert_eq!(contents(&lake, &stays()).await, expected, "the day that is over is resolved, the other is as it was");
    let days = lake.pin(&stays()).await.unwrap().unwrap().days;
    assert_eq!(days.values().map(|day| day.is_resolved).collect::<Vec<_>>(), [true, false]);
    assert_eq!(maintain(&lake, &upkeep(DAY_0 + 3, 1)).await, Maintained::default(), "nothing is left to do");
    // A late correction, and its day is done again once it has settled.
    lake.commit(&stays(), vec![commit(0, 4, &[("a", at(DAY_0, 2), 2, 4, true)])]).await.unwrap();
    assert!(!lake.pin(&stays()).await.unwrap().unwrap().days[&DAY_0].is_resolved);
    let done = maintain(&lake, &upkeep(DAY_0 + 3_000, 1)).await;
    assert_eq!(done.n_days_resolved, 2);
    assert_eq!(
        contents(&lake, &stays()).await,
        [row(&lane_0, "b", 111, 3), row(&lane_0, "new", 5, 3), row(&lane_1, "b", 7, 3)]
    );
    assert_eq!(
        lake.transactions(&stays()).await.unwrap().unwrap()[&lane(0)],
        4,
        "what lanes have delivered stays known"
    );
}

#[tokio::test]
async fn days_beyond_their_retention_are_dropped_whole() {
    let lake = lake_on(Arc::new(InMemory::new()));
    for day in 0..4 {
        let through = u32::try_from(day).unwrap() + 1;
        lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0 + day, 23), 1, 1, false)])]).await.unwrap();
    }
    let retention = HashMap::from([("stays".to_owned(), Duration::from_secs(2 * 86_400))]);
    let done = maintain(&lake, &Upkeep { retention, ..upkeep(DAY_0 + 3, 23) }).await;
    assert_eq!(done.n_days_dropped, 1);
    let days: Vec<i32> = lake.pin(&stays()).await.unwrap().unwrap().days.keys().copied().collect();
    assert_eq!(days, [DAY_0 + 1, DAY_0 + 2, DAY_0 + 3]);
}

#[tokio::test]
async fn vacuum_spares_what_somebody_may_read() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_on(store.clone());
    for through in 1..4 {
        lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 1, through.into(), false)])])
            .await
            .unwrap();
    }
    let pinned = lake.pin(&stays()).await.unwrap().unwrap();
    let real_now = upkeep(DAY_0 + 20_000, 1);
    assert_eq!(maintain(&lake, &real_now).await.n_files_deleted, 0, "removed this moment");
    assert_eq!(paths(store.as_ref(), "lake/stays/day=2026-11-20").await.len(), 4);
    let later = upkeep(DAY_0 + 20_000, 3);
    assert_eq!(maintain(&lake, &later).await.n_files_deleted, 0, "pinned here");
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("t", pinned.provider.clone()).unwrap();
    let found = context.sql("SELECT n_pings FROM t").await.unwrap().collect().await.unwrap();
    assert_eq!(found.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 3);
    drop((pinned, context));
    lake.pin(&stays()).await.unwrap();
    assert_eq!(maintain(&lake, &later).await.n_files_deleted, 3);
    assert_eq!(paths(store.as_ref(), "lake/stays/day=2026-11-20").await.len(), 1);
    assert_eq!(contents(&lake, &stays()).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn files_of_a_commit_that_died_are_swept_when_they_are_old() {
    let store = FaultyStore::new();
    let settings = LakeConfig { orphans_kept: Duration::from_secs(86_400), ..config() };
    let lake = lake_with(store.clone(), settings);
    lake.commit(&stays(), vec![commit(0, 1, &[("a", at(DAY_0, 1), 1, 1, false)])]).await.unwrap();
    store.fault(".json", vec![Some(Fault::Fail); 1_000]);
    let wanted = || vec![commit(0, 2, &[("a", at(DAY_0, 1), 2, 2, false)])];
    lake.commit(&stays(), wanted()).await.unwrap_err();
    store.fault(".json", []);
    let folder = "lake/stays/day=2026-11-20";
    assert_eq!(paths(store.as_ref(), folder).await.len(), 2);
    let now_ms = chrono::Utc::now().timestamp_millis();
    let hours = |hours: i64| Upkeep {
        now_ms: now_ms + hours * HOUR_MS,
        late_horizon: Duration::from_secs(1 << 40),
        ..upkeep(0, 0)
    };
    assert_eq!(maintain(&lake, &hours(23)).await.n_orphans_deleted, 0);
    // The lane starts again, and its rows come after all.
    lake.commit(&stays(), wanted()).await.unwrap();
    assert_eq!(maintain(&lake, &hours(25)).await.n_orphans_deleted, 1);
    assert_eq!(contents(&lake, &stays()).await.len(), 2);
}

/// Whatever goes wrong in compaction: answers stay, and a later call does what is left.
#[tokio::test(start_paused = true)]
async fn faults_in_compaction_change_no_answer() {
    for fault in [Fault::Fail, Fault::FailAfter, Fault::Hang, Fault::HangAfter, Fault::Late] {
        for word in ["resolved-", "0004.json", "0005.json"] {
            for n_faults in [1, 2, 100] {
                let store = FaultyStore::new();
                let lake = lake_on(store.clone());
                for through in 1..4 {
                    let rows = [
                        ("a", at(DAY_0, 1), 1, through.into(), false),
                        ("b", at(DAY_0, 1), 1, through.into(), through == 3),
                    ];
                    lake.commit(&stays(), vec![commit(0, through, &rows)]).await.unwrap();
                }
                let before = newest(&lake).await;
                store.fault(word, vec![Some(fault); n_faults]);
                let later = upkeep(DAY_0 + 20_000, 1);
                let taken = lease(&lake, later.now_ms).await;
                let done = lake.maintain(&[stays()], &later, taken).await;
                assert_eq!(newest(&lake).await, before, "{fault:?} at {word}");
                store.fault(word, []);
                lake.release(&done.lease.unwrap()).await.unwrap();
                maintain(&lake, &later).await;
                assert_eq!(newest(&lake).await, before, "{fault:?} at {word}");
                assert_eq!(contents(&lake, &stays()).await.len(), 1, "{fault:?} at {word}: resolved in the end");
            }
        }
    }
}

/// Commits and maintenance of two instances at once: all rows are there, each version once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_beside_compaction_are_not_lost() {
    let store = Arc::new(InMemory::new());
    let (writer, keeper) = (lake_on(store.clone()), lake_on(store.clone()));
    let is_over = Arc::new(AtomicBool::new(false));
    let has_ended = is_over.clone();
    let keeping = tokio::spawn(async move {
        let (mut n_resolved, mut round) = (0, 0);
        while !has_ended.load(Ordering::Relaxed) {
            round += 1;
            n_resolved += maintain(&keeper, &upkeep(DAY_0 + 20_000 + round, 1)).await.n_days_resolved;
            tokio::task::yield_now().await;
        }
        n_resolved
    });
    let n_commits = 60;
    for through in 1..=n_commits {
        let device = format!("device {}", through % 7);
        let rows = [
            (device.as_str(), at(DAY_0, 1), through.into(), through.into(), false),
            ("once", at(DAY_0, 1) + i64::from(through), 1, through.into(), false),
        ];
        lake_commit(&writer, through, &rows).await;
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(keeping.await.unwrap() > 0);
    maintain(&writer, &upkeep(DAY_0 + 40_000, 1)).await;
    let found = contents(&writer, &stays()).await;
    let revisions: BTreeMap<&str, i64> =
        found.iter().filter(|row| row.1 != "once").map(|row| (row.1.as_str(), row.3)).collect();
    assert_eq!(revisions.into_values().collect::<Vec<_>>(), [56, 57, 58, 59, 60, 54, 55]);
    assert_eq!(found.iter().filter(|row| row.1 == "once").count(), 60);
    assert_eq!(found.len(), 67);
}

async fn lake_commit(lake: &Lake, through: u32, rows: &[Stay<'_>]) {
    loop {
        match lake.commit(&stays(), vec![commit(0, through, rows)]).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), crate::ErrorKind::Retry, "{error}"),
        }
    }
}

/// An instance whose lease ran out while it was stopped goes on beside the next one: no row is lost, none is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_compactions_of_the_same_files_leave_each_row_once() {
    for round in 0..12 {
        let store = Arc::new(InMemory::new());
        let (a, b) = (lake_on(store.clone()), lake_on(store.clone()));
        for through in 1..=10 {
            let rows = [
                ("a", at(DAY_0, 1) + i64::from(through), 1, through.into(), false),
                ("b", at(DAY_0 + 1, 1), 1, through.into(), false),
            ];
            a.commit(&stays(), vec![commit(0, through, &rows)]).await.unwrap();
        }
        // Days that still fill are merged, days that are over are resolved.
        let now = upkeep(DAY_0 + 1 + round % 2 * 3, 12);
        let first = a.lease("a", 0, Duration::ZERO).await.unwrap().unwrap();
        let second = b.lease("b", 0, Duration::from_secs(1 << 40)).await.unwrap().unwrap();
        let keep = |lake: Lake, lease: Lease, now: Upkeep| {
            tokio::spawn(async move { lake.maintain(&[stays()], &now, lease).await })
        };
        // As if a's lease were still good: it does not look at it between planning and committing.
        let first = first.stretched();
        let (one, two) = tokio::join!(keep(a.clone(), first, now.clone()), keep(b, second, now.clone()));
        for done in [one, two] {
            done.unwrap();
        }
        let found = contents(&a, &stays()).await;
        assert_eq!(found.iter().filter(|row| row.1 == "a").count(), 10, "{found:?}");
        let n_b = if round % 2 == 0 { 10 } else { 1 };
        assert_eq!(found.iter().filter(|row| row.1 == "b").count(), n_b, "{found:?}");
    }
}

#[tokio::test]
async fn one_instance_maintains_at_a_time() {
    let store = FaultyStore::new();
    let (a, b) = (lake_on(store.clone()), lake_on(store.clone()));
    let (minute, half) = (Duration::from_secs(60), Duration::from_secs(30));
    let first = a.lease("a", 0, minute).await.unwrap().unwrap();
    store.pass(half);
    assert!(b.lease("b", 0, minute).await.unwrap().is_none());
    assert!(a.lease("a", 0, minute).await.unwrap().is_none(), "a second start of a waits like any other");
    let first = a.renew(&first, 0).await.unwrap().unwrap();
    store.pass(half);
    assert!(b.lease("b", 0, minute).await.unwrap().is_none());
    store.pass(half);
    let mut second = b.lease("b", 0, minute).await.unwrap().unwrap();
    assert!(a.renew(&first, 0).await.unwrap().is_none(), "it has gone to b");
    for now in 0..20 {
        second = b.renew(&second, now).await.unwrap().unwrap();
    }
    assert!(a.renew(&first, 0).await.unwrap().is_none(), "the number that a wants next was deleted since");
    assert!(paths(store.as_ref(), "lake/_legwork").await.len() <= 8);
    let second = b.renew(&second, 0).await.unwrap().unwrap();
    b.release(&second).await.unwrap();
    assert!(a.lease("a", 0, minute).await.unwrap().is_some());
    let store = FaultyStore::new();
    let c = lake_on(store.clone());
    store.fault(".json", [Some(Fault::FailAfter)]);
    assert!(c.lease("c", 0, minute).await.unwrap().is_some(), "the answer was lost, the lease was not");
}

/// Whatever the clock of an instance says, its lease ends for the others when it has lasted as long as it was to.
#[tokio::test]
async fn a_lease_lasts_by_the_clock_of_the_store() {
    const YEAR_MS: i64 = 366 * DAY_MS;
    let minute = Duration::from_secs(60);
    let now_ms = chrono::Utc::now().timestamp_millis();
    for wrong_ms in [-YEAR_MS, YEAR_MS] {
        let store = FaultyStore::new();
        let (wrong, right) = (lake_on(store.clone()), lake_on(store.clone()));
        let held = wrong.lease("wrong", now_ms + wrong_ms, minute).await.unwrap().unwrap();
        assert!(right.lease("right", now_ms, minute).await.unwrap().is_none());
        let held = wrong.renew(&held, now_ms + wrong_ms).await.unwrap().unwrap();
        store.pass(minute);
        let taken = right.lease("right", now_ms, minute).await.unwrap().unwrap();
        assert!(wrong.renew(&held, now_ms + wrong_ms).await.unwrap().is_none());
        assert!(wrong.lease("wrong", now_ms + wrong_ms, minute).await.unwrap().is_none());
        assert!(right.renew(&taken, now_ms).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn claims_of_older_versions_bind_for_an_hour() {
    use object_store::ObjectStoreExt;
    let path = object_store::path::Path::from("lake/_legwork/maintenance/00000000000000000007.json");
    for (expires_ms, is_held) in [(i64::MAX, true), (i64::MIN, false)] {
        let store = FaultyStore::new();
        let claim = format!(r#"{{"owner":"old","nonce":"n","expires_ms":{expires_ms}}}"#);
        store.put(&path, claim.into()).await.unwrap();
        let lake = lake_on(store.clone());
        assert_eq!(lake.lease("new", 0, Duration::ZERO).await.unwrap().is_none(), is_held);
        store.pass(Duration::from_secs(3_600));
        assert!(lake.lease("new", 0, Duration::ZERO).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_clock_far_ahead_deletes_nothing_and_keeps_no_lease() {
    let store = Arc::new(InMemory::new());
    let lake = lake_with(store, LakeConfig { clock_ahead_max: Duration::from_secs(3_600), ..config() });
    lake.commit(&stays(), vec![commit(0, 1, &[("a", at(DAY_0, 1), 1, 1, false)])]).await.unwrap();
    let retention = HashMap::from([("stays".to_owned(), Duration::from_secs(86_400))]);
    let now_ms = chrono::Utc::now().timestamp_millis();
    let ahead = Upkeep { now_ms: now_ms + 2 * HOUR_MS, retention, ..upkeep(0, 0) };
    let refused = lake.lease("ahead", ahead.now_ms, Duration::from_secs(3_600)).await;
    assert!(matches!(refused, Err(LakeError::Clock { ahead_s: 7_000..=7_300 })), "{refused:?}");
    // It was right when the lease was taken.
    let taken = lease(&lake, now_ms).await;
    let done = lake.maintain(&[stays()], &ahead, taken).await;
    assert!(matches!(done.tables[0].1, Err(LakeError::Clock { ahead_s: 7_000..=7_300 })), "{done:?}");
    assert!(done.lease.is_none());
    assert_eq!(contents(&lake, &stays()).await.len(), 1);
    lease(&lake, now_ms).await;
}

/// Three days of commits every ten minutes: finished days lie in files near the target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_commits_end_as_large_files() {
    let (store, target) = (Arc::new(InMemory::new()), 256 << 10);
    let settings = LakeConfig { file_bytes_target: target, ..config() };
    let lake = lake_with(store, settings);
    let mut seed = 1_u64;
    let mut chance = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(seed >> 24).unwrap()
    };
    let (mut through, mut n_rows) = (0, 0_u64);
    for day in 0..3 {
        for step in 0..144 {
            through += 1;
            let devices: Vec<String> = (0..300).map(|_| format!("device {}", chance())).collect();
            let start = at(DAY_0 + day, 0) + step * 600_000_000;
            let rows: Vec<Stay<'_>> = devices
                .iter()
                .map(|device| (device.as_str(), start + chance() % 600_000_000, chance(), through.into(), false))
                .collect();
            n_rows += rows.len() as u64;
            lake.commit(&stays(), vec![commit(0, through, &rows)]).await.unwrap();
            if step % 24 == 23 {
                let now = Upkeep { now_ms: start / 1_000, ..upkeep(0, 0) };
                maintain(&lake, &now).await;
            }
        }
    }
    maintain(&lake, &upkeep(DAY_0 + 6, 1)).await;
    let days = lake.pin(&stays()).await.unwrap().unwrap().days;
    assert_eq!(days.values().map(|day| day.n_rows).sum::<u64>(), n_rows);
    for day in days.values() {
        assert!(day.is_resolved && day.n_files > 2, "{day:?}");
        let mean = day.n_bytes / day.n_files as u64;
        assert!((target * 6 / 10..target * 14 / 10).contains(&mean), "{mean} bytes a file: {day:?}");
    }
}

/// A step of a random life: a version of a row, and whether maintenance comes after it, and how late it is then.
type Step = (i32, u8, i32, bool, Option<i32>);

fn oracle(steps: &[Step]) -> Vec<(String, String, i32, i64)> {
    let mut newest = BTreeMap::new();
    for (through, (partition, device, day, is_deleted, _)) in (1_i64..).zip(steps) {
        newest.insert((lane(*partition).to_string(), format!("device {device}"), *day), (through, *is_deleted));
    }
    let rows = newest.into_iter().filter(|(_, (_, is_deleted))| !is_deleted);
    rows.map(|((lane, device, day), (revision, _))| (lane, device, day, revision)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_query_gives_the_newest_versions_whatever_was_compacted(
        steps in prop::collection::vec((0..2_i32, 0..4_u8, 0..3_i32, prop::bool::weighted(0.3), prop::option::weighted(0.25, 0..12_i32)), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(async {
            let lake = lake_on(Arc::new(InMemory::new()));
            for (through, (partition, device, day, is_deleted, keeps)) in (1..).zip(&steps) {
                let device = format!("device {device}");
                let row = (device.as_str(), at(DAY_0 + day, 1), 1, i64::from(through), *is_deleted);
                lake.commit(&stays(), vec![commit(*partition, through, &[row])]).await.unwrap();
                if let Some(days) = keeps {
                    maintain(&lake, &upkeep(DAY_0 + 2_000 * (days % 2) + days, 1)).await;
                }
            }
            newest(&lake).await
        });
        let field = |line: &str, column: usize| line.split('|').nth(column + 1).unwrap().trim().to_owned();
        let found: Vec<_> = found.iter().map(|line| {
            let day: i32 = crate::files::parse_day(&field(line, 5)).unwrap() - DAY_0;
            (field(line, 0), field(line, 1), day, field(line, 4).parse::<i64>().unwrap())
        }).collect();
        prop_assert_eq!(found, oracle(&steps));
    }
}
