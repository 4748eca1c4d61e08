//! What 200 lanes cost with the settings as they are. Times are compressed by `SPEED`, so latencies are those of a load that is as much higher.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use legwork_types::{LaneId, StateEntry};
use object_store_014::ObjectStore;
use object_store_014::local::LocalFileSystem;
use object_store_014::memory::InMemory;
use object_store_014::path::Path;

use super::objects::{Counts, Watched};
use crate::slate::settings::Tuning;
use crate::slate::url::Place;
use crate::slate::{SlateConfig, SlateStore};
use crate::tests::backings::on_runtime;
use crate::tests::{head, noise};
use crate::{Checkpoint, Claimed, StateStore};

fn variable(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// 500 keys of 150 bytes, 20 chunks of 2 KB, 100 KB of rows: 216 KB. A light one: 100 keys and 4 chunks: 23 KB.
fn payload(number: u32, is_light: bool) -> Checkpoint {
    let (n_hot, n_cold, n_rows) = if is_light { (100, 4, 0) } else { (500, 20, 100 << 10) };
    // What does not compress, so that it is not made cheap; cut out of a pool, so that making it costs nothing.
    static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| noise(0, 4 << 20));
    let mut at = number as usize * 7_919;
    let mut noise = |n_bytes: usize| {
        at = (at + n_bytes + 13) % (POOL.len() - n_bytes);
        POOL[at..at + n_bytes].to_vec()
    };
    let hot =
        (0..n_hot).map(|key: u32| StateEntry { key: key.to_be_bytes().to_vec(), value: Some(noise(150)) }).collect();
    let cold = (0..n_cold).flat_map(|chunk: u32| {
        let key = |number: u32| [number.to_be_bytes(), chunk.to_be_bytes()].concat();
        let forgotten = number.checked_sub(1_000).map(|old| StateEntry { key: key(old), value: None });
        [Some(StateEntry { key: key(number), value: Some(noise(2_048)) }), forgotten].into_iter().flatten()
    });
    let cold = cold.collect();
    let rows = (n_rows > 0).then(|| ("device_movement".to_owned(), noise(n_rows))).into_iter().collect();
    Checkpoint { head: head(number), hot, cold, rows, drop_rows_through: number.checked_sub(6), carried: Vec::new() }
}

fn resident_mb() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4_096.0 / 1e6
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// What is measured.
struct Target {
    name: &'static str,
    objects: Arc<Watched>,
    tuning: Tuning,
    is_light: bool,
    n_lanes: u32,
    speed: u32,
    seconds: u32,
}

impl Target {
    fn new(name: &'static str, objects: Arc<dyn ObjectStore>, is_local: bool, is_light: bool) -> Target {
        let (put, get) = if is_local { (0, 0) } else { (30, 15) };
        let objects = Watched::new(objects).taking(Duration::from_millis(put), Duration::from_millis(get));
        let mut tuning = Tuning::new(is_local, Duration::from_secs(10));
        let speed = variable("SPEED", 4);
        for time in [&mut tuning.compaction_poll, &mut tuning.gc_interval, &mut tuning.gc_min_age] {
            *time /= speed;
        }
        let (n_lanes, seconds) = (variable("LANES", 200), variable("SECONDS", 120));
        Target { name, objects: Arc::new(objects), tuning, is_light, n_lanes, speed, seconds }
    }

    fn open(&self) -> SlateStore {
        let place = Place { objects: self.objects.clone(), root: Path::default(), folder: None };
        let mut store = SlateStore::over(place, SlateConfig::new("measured")).unwrap();
        store.tuning = self.tuning.clone();
        store
    }

    /// WAL puts, other puts, gets, lists, deletes, bytes put.
    fn counts(&self) -> [u64; 6] {
        let Counts { n_wal_puts, n_other_puts, n_gets, n_lists, n_deletes, put_bytes } = &*self.objects.counts;
        [n_wal_puts, n_other_puts, n_gets, n_lists, n_deletes, put_bytes].map(|count| count.load(Ordering::Relaxed))
    }

    fn since(&self, before: [u64; 6]) -> [f64; 6] {
        let after = self.counts();
        std::array::from_fn(|i| (after[i] - before[i]) as f64)
    }

    async fn claim_all(&self, store: &SlateStore) -> Vec<Claimed> {
        let (before, started) = (self.counts(), Instant::now());
        let lanes = (0..self.n_lanes).map(|i| LaneId::new("field.gps-pings.v1", i as i32));
        let lanes: Vec<LaneId> = lanes.collect();
        let owners = join_all(lanes.iter().map(|lane| store.claim(lane))).await;
        let took = started.elapsed();
        let n_requests: f64 = self.since(before)[..5].iter().sum();
        println!("  all lanes claimed at once: {took:?}, {:.0} requests a lane", n_requests / f64::from(self.n_lanes));
        owners.into_iter().map(Result::unwrap).collect()
    }

    /// Every lane commits every 10 s, `speed` times as fast. *Returns* how long each commit took.
    async fn run(&self, owners: &[Claimed]) -> Vec<Duration> {
        let every = Duration::from_secs(10) / self.speed;
        let deadline = Instant::now() + Duration::from_secs(self.seconds.into());
        let (n_lanes, is_light) = (self.n_lanes, self.is_light);
        let run = |(i, owner): (usize, &Claimed)| {
            let lane = Arc::clone(&owner.lane);
            tokio::spawn(async move {
                tokio::time::sleep(every * i as u32 / n_lanes).await;
                let mut ticks = tokio::time::interval(every);
                let mut latencies = Vec::new();
                while Instant::now() < deadline {
                    ticks.tick().await;
                    let checkpoint = payload(latencies.len() as u32 + 1, is_light);
                    let begun = Instant::now();
                    lane.commit(checkpoint).await.unwrap();
                    latencies.push(begun.elapsed());
                }
                latencies
            })
        };
        let runs: Vec<_> = owners.iter().enumerate().map(run).collect();
        let mut latencies: Vec<Duration> = join_all(runs).await.into_iter().flat_map(Result::unwrap).collect();
        latencies.sort();
        latencies
    }
}

fn bytes_of(checkpoint: &Checkpoint) -> usize {
    let entries = checkpoint.hot.iter().chain(&checkpoint.cold);
    let state: usize = entries.map(|entry| entry.key.len() + entry.value.as_ref().map_or(0, Vec::len)).sum();
    state + checkpoint.rows.iter().map(|(_, rows)| rows.len()).sum::<usize>()
}

async fn measure(target: Target) {
    let memory_before = resident_mb();
    println!("{}: {} lanes, {} times as fast", target.name, target.n_lanes, target.speed);
    let store = target.open();
    let owners = target.claim_all(&store).await;
    let (before, cpu_before) = (target.counts(), cpu_s());
    let latencies = target.run(&owners).await;
    let (n, used) = (latencies.len() as f64, target.since(before));
    let payload_bytes = bytes_of(&payload(1, target.is_light));
    let quantile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "  {n} checkpoints of {} KB, {:.0}/s: p50 {:?}, p99 {:?}, max {:?}; memory {:.0} MB; CPU {:.2} ms each, making it included",
        payload_bytes / 1_000,
        n / f64::from(target.seconds),
        quantile(50),
        quantile(99),
        quantile(100),
        resident_mb() - memory_before,
        (cpu_s() - cpu_before) * 1e3 / n,
    );
    let lane_hours = f64::from(target.n_lanes) * f64::from(target.seconds) * f64::from(target.speed) / 3_600.0;
    let [wal, other, gets, lists, deletes, bytes] = used;
    println!(
        "  a lane-hour: {:.0} WAL puts, {:.0} other puts, {:.0} gets, {:.0} lists, {:.0} deletes; a checkpoint: {:.2} other puts, {:.2} gets; \
         written {:.2} times the payload",
        wal / lane_hours,
        other / lane_hours,
        gets / lane_hours,
        lists / lane_hours,
        deletes / lane_hours,
        other / n,
        gets / n,
        bytes / n / payload_bytes as f64,
    );
    drop((owners, store));
    let store = target.open();
    let owners = target.claim_all(&store).await;
    assert!(owners.iter().all(|owner| owner.head.is_some()));
    let started = Instant::now();
    assert_eq!(store.lanes().await.unwrap().len(), owners.len());
    println!("  heads of all lanes read in {:?}", started.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn lanes_in_a_bucket() {
    for (name, is_light) in [("bucket", false), ("bucket, light", true)] {
        on_runtime(measure(Target::new(name, Arc::new(InMemory::new()), false, is_light)));
    }
}

#[test]
#[ignore = "a measurement"]
fn lanes_in_a_folder() {
    for (name, is_light) in [("folder with fsync", false), ("folder with fsync, light", true)] {
        let folder = tempfile::tempdir().unwrap();
        let objects = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
        on_runtime(measure(Target::new(name, Arc::new(objects), true, is_light)));
    }
}
