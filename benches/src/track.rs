//! The track operator alone, fed with W1: time and bytes a ping, bytes a device, the pause at a checkpoint.

use std::path::PathBuf;

use anyhow::{Context, Result};
use legwork_codec::files::{FileInput, FileReader};
use legwork_operators::track::{Track, TrackConfig, TrackMemory};
use legwork_operators::{Need, Operator};
use legwork_sim::w1::{W1, W1Config};
use legwork_types::time::{DAY_US, LaneClock, TimeConfig};
use legwork_types::{EventBatch, Kind};
use serde_json::{Value, json};

/// What a lane reads at once.
const BATCH_ROWS: usize = 32_768;

/// Each ratio is of the best of so many runs: the machine may do other things meanwhile.
const N_RUNS: usize = 3;

/// Time that this thread has run, nanoseconds.
fn running_ns() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").context("the time of this thread")?;
    Ok(stat.split_whitespace().next().context("the time of this thread")?.parse()?)
}

/// What a run showed.
struct Run {
    ns_a_ping: f64,
    bytes_a_ping: f64,
    bytes_a_device: f64,
}

/// An operator, its lane's clock, and how long it took.
struct Lane {
    track: Track,
    clock: LaneClock,
    ns: u64,
    n_pings: u64,
}

impl Lane {
    fn new(time: TimeConfig, config: TrackConfig) -> Lane {
        let clock = LaneClock { revision: 1, ..LaneClock::START };
        Lane { track: Track::new(time, config), clock, ns: 0, n_pings: 0 }
    }

    fn apply(&mut self, events: &EventBatch) -> Result<()> {
        let newest_us = events.event_time_us().iter().copied().max().unwrap_or(i64::MIN);
        self.clock.newest_us = self.clock.newest_us.max(newest_us);
        self.n_pings += events.n_rows() as u64;
        let begun = running_ns()?;
        self.track.apply(events, &self.clock);
        self.ns += running_ns()? - begun;
        Ok(())
    }

    /// Puts what waits in its place.
    fn settle(&mut self) -> Result<()> {
        let begun = running_ns()?;
        self.track.wanted(Need::Tables, &self.clock);
        self.ns += running_ns()? - begun;
        Ok(())
    }

    fn run(&self, n_devices: u32) -> Run {
        let TrackMemory { pings_bytes, rows_bytes, devices_bytes } = self.track.memory();
        let all_bytes = (pings_bytes + rows_bytes + devices_bytes) as f64;
        Run {
            ns_a_ping: self.ns as f64 / self.n_pings as f64,
            bytes_a_ping: pings_bytes as f64 / self.n_pings as f64,
            bytes_a_device: all_bytes / f64::from(n_devices.max(1)),
        }
    }
}

fn batches(config: W1Config) -> impl Iterator<Item = EventBatch> {
    W1::new(W1Config { batch_rows: BATCH_ROWS, ..config }).map(|columns| {
        let n_rows = columns.num_rows();
        EventBatch {
            kind: Kind::Gps,
            topic: "w1".into(),
            partition: 0,
            columns,
            offsets: vec![0; n_rows],
            arrival_us: vec![0; n_rows],
            keys: None,
        }
    })
}

fn in_order() -> W1Config {
    W1Config { disorder_us: 0, ..W1Config::default() }
}

fn run(config: W1Config, time: TimeConfig) -> Result<Run> {
    let mut lane = Lane::new(time, TrackConfig::default());
    for events in batches(config.clone()) {
        lane.apply(&events)?;
    }
    lane.settle()?;
    Ok(lane.run(config.n_reps))
}

fn best(config: &W1Config, time: TimeConfig) -> Result<Run> {
    let mut runs = (0..N_RUNS).map(|_| run(config.clone(), time)).collect::<Result<Vec<Run>>>()?;
    runs.sort_by(|a, b| a.ns_a_ping.total_cmp(&b.ns_a_ping));
    Ok(runs.swap_remove(0))
}

/// Checkpoints of which the pause is measured.
const N_PAUSES: u64 = 50;

/// How long each checkpoint keeps the lane from reading on, milliseconds, where every device is heard of in between.
fn pauses(config: W1Config) -> Result<Vec<f64>> {
    let mut lane = Lane::new(TimeConfig::default(), TrackConfig { has_store: true, ..TrackConfig::default() });
    let (mut pauses_ms, every) = (Vec::new(), config.n_pings() / N_PAUSES);
    for events in batches(config) {
        lane.apply(&events)?;
        if lane.n_pings / every > pauses_ms.len() as u64 {
            let begun = running_ns()?;
            let changes = lane.track.checkpoint(&lane.clock);
            pauses_ms.push((running_ns()? - begun) as f64 / 1e6);
            // What another thread does.
            drop(changes.complete());
            lane.track.committed(lane.clock.revision);
            lane.clock.revision += 1;
        }
    }
    Ok(pauses_ms)
}

/// Bytes a ping of a file of recorded tracks: `lat,lng,datetime,uid`.
fn recorded_bytes_a_ping(path: PathBuf) -> Result<f64> {
    let map = [("device_id", "uid"), ("event_time", "datetime"), ("lon", "lng")];
    let map = map.map(|(field, column)| (field.to_owned(), column.to_owned())).to_vec();
    let mut reader = FileReader::open(FileInput { kind: Kind::Gps, path, map, arrival_us: 0, batch_rows: BATCH_ROWS })?;
    let time = TimeConfig { late_horizon_us: 5_000 * DAY_US, ..TimeConfig::default() };
    let mut lane = Lane::new(time, TrackConfig::default());
    while let Some(batch) = reader.next() {
        lane.apply(&batch?.events)?;
    }
    lane.settle()?;
    Ok(lane.run(0).bytes_a_ping)
}

/// All figures. `recorded`: a file of recorded tracks, where there is one.
pub(crate) fn figures(recorded: Option<PathBuf>) -> Result<Value> {
    let (time, short) = (TimeConfig::default(), TimeConfig { late_horizon_us: 1, ..TimeConfig::default() });
    let w1 = in_order();
    let bare = best(&w1, short)?;
    let ordered = best(&w1, time)?;
    let late = best(&W1Config { late_share: 0.05, ..w1.clone() }, time)?;
    let few = W1Config { pings_per_rep: 20, ..w1.clone() };
    let thousands = best(&few, time)?;
    let million = run(W1Config { n_reps: 1_000_000, ..few }, time)?;
    let idle = run(W1Config { n_reps: 1_000_000, pings_per_rep: 1, ..w1.clone() }, time)?;
    let pauses_ms = pauses(w1)?;
    Ok(json!({
        "ns_a_ping": ordered.ns_a_ping,
        "ns_a_ping_no_horizon": bare.ns_a_ping,
        "ns_a_ping_late": late.ns_a_ping,
        "bytes_a_ping": ordered.bytes_a_ping,
        "bytes_a_ping_recorded": recorded.map(recorded_bytes_a_ping).transpose()?,
        "bytes_an_idle_device": idle.bytes_a_device,
        "ns_a_ping_10_000": thousands.ns_a_ping,
        "ns_a_ping_1_000_000": million.ns_a_ping,
        "pauses_ms": pauses_ms,
    }))
}
