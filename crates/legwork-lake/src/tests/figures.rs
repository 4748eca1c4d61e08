//! Figures, printed: `cargo t legwork-lake -- --ignored figures --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::engines::filled;
use crate::testing::{DAY_0, FaultyStore, Stay, at, commit, config, lake_on, lake_with, lane, stays};
use crate::{Lake, LakeConfig, LakeTable, LaneCommit, Upkeep};
use legwork_types::Kind;

fn calls(store: &FaultyStore) -> String {
    let mut calls: Vec<_> = store.n_calls.lock().drain().collect();
    calls.sort_unstable();
    calls.iter().map(|(call, n_calls)| format!("{n_calls} {call}")).collect::<Vec<_>>().join(", ")
}

/// What a commit and a pin cost in requests and in time as a table's files become many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn commits_and_pins() {
    let store = FaultyStore::new();
    let lake = lake_on(store.clone());
    let (mut through, mut day) = (0, 0);
    for n_files in [10, 100, 1_000, 5_000, 20_000] {
        while through == 0 || lake.pin(&stays()).await.unwrap().unwrap().days.len() < n_files {
            through += 1;
            let rows: Vec<Stay<'_>> = (0..n_files.min(1_000))
                .map(|_| {
                    day += 1;
                    ("a", at(DAY_0 - 30_000 + day % 60_000, 1), 1, through.into(), false)
                })
                .collect();
            lake.commit(&stays(), vec![commit(0, through, &rows)]).await.unwrap();
        }
        store.n_calls.lock().clear();
        let started = Instant::now();
        for _ in 0..10 {
            through += 1;
            lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 1, through.into(), false)])])
                .await
                .unwrap();
        }
        println!("{n_files} files: commit {:?}; requests of 10: {}", started.elapsed() / 10, calls(&store));
        let started = Instant::now();
        lake.pin(&stays()).await.unwrap();
        println!("    pin after commits {:?}; {}", started.elapsed(), calls(&store));
        let started = Instant::now();
        lake.pin(&stays()).await.unwrap();
        println!("    pin, nothing changed {:?}; {}", started.elapsed(), calls(&store));
        let started = Instant::now();
        lake_on(store.clone()).pin(&stays()).await.unwrap();
        println!("    first pin of a process {:?}; {}", started.elapsed(), calls(&store));
    }
}

/// A day of pings, sorted in less memory than it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn compaction() {
    let settings = LakeConfig { compaction_memory_bytes: 64 << 20, file_bytes_target: 16 << 20, ..config() };
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_with(store, settings);
    let table = LakeTable::events(Kind::Gps, &Kind::Gps.schema());
    let n_rows = 200_000;
    let started = Instant::now();
    for through in 1..=15 {
        let rows = vec![(through, filled(&Kind::Gps.schema(), n_rows))];
        lake.commit(&table, vec![LaneCommit::of_rows(lane(0), through, rows)]).await.unwrap();
    }
    println!("15 commits of {n_rows} pings: {:?}", started.elapsed());
    let upkeep =
        Upkeep { now_ms: i64::from(DAY_0 + 30) * 86_400_000, late_horizon: Duration::ZERO, retention: [].into() };
    let lease = lake.lease("a", 0, Duration::from_secs(3_600)).await.unwrap().unwrap();
    let started = Instant::now();
    let done = lake.maintain(std::slice::from_ref(&table), &upkeep, lease).await;
    println!("compaction of them: {:?}, {:?}", started.elapsed(), done.tables);
    println!("{:?}", lake.pin(&table).await.unwrap().unwrap().days);
    let done = done.tables[0].1.as_ref().unwrap();
    assert_eq!((done.n_days_resolved, lake.pin(&table).await.unwrap().unwrap().days[&DAY_0].n_rows), (1, 3_000_000));
}

/// What a commit takes on a local folder, synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn commits_on_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_file_path(folder.path()).unwrap();
    let lake = Lake::open(url.as_str(), &[].into(), config()).unwrap();
    let mut spans = Vec::new();
    for through in 1..=300 {
        let started = Instant::now();
        lake.commit(&stays(), vec![commit(0, through, &[("a", at(DAY_0, 1), 1, through.into(), false)])])
            .await
            .unwrap();
        spans.push(started.elapsed());
    }
    spans.sort_unstable();
    println!("300 commits: median {:?}, p99 {:?}, slowest {:?}", spans[150], spans[297], spans[299]);
}
