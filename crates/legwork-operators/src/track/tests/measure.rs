//! Figures: time and bytes a ping, bytes a device. `cargo t legwork-operators -- --ignored --nocapture measure`
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, Float32Array, Float64Array, StringArray, TimestampMicrosecondArray};
use legwork_types::time::{DAY_US, SECOND_US, TimeConfig};
use legwork_types::{EventBatch, gps};

use super::{Event, Lane, Random, batch, geolife, place};
use crate::Operator;
use crate::track::TrackConfig;

/// Memory of this process, bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).map_or(0, |pages| pages.parse::<usize>().unwrap() * 4096)
}

/// Time that this thread has run, nanoseconds: the machine may do other things meanwhile.
fn running_ns() -> u128 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split_whitespace().next().map_or(0, |ns| ns.parse().unwrap())
}

/// How places are written.
#[derive(Clone, Copy, Debug)]
enum Places {
    Decimal,
    Full,
}

/// A fleet on a random walk: `n_pings` of each of `n_devices` over two hours, devices interleaved at random, handed to `each` in
/// batches.
fn fleet(n_devices: usize, n_pings: usize, late_share: f64, places: Places, mut each: impl FnMut(&EventBatch)) {
    let mut random = Random(1);
    let names: Vec<String> = (0..n_devices).map(|id| format!("device-{id:06}")).collect();
    let mut at: Vec<(f64, f64)> =
        names.iter().map(|_| place(50_000.0 * random.unit(), 50_000.0 * random.unit())).collect();
    let span_us = 7200 * SECOND_US;
    let n_all = n_devices * n_pings;
    let template = batch(&[Event { device: "d".into(), ..Event::default() }]);
    let mut held_back: Vec<(usize, i64, f64, f64, f32)> = Vec::new();
    let mut order: Vec<u32> = (0..n_devices as u32).collect();
    let mut done = 0;
    while done < n_all {
        let mut rows = Vec::with_capacity(8192);
        while rows.len() < 8192 && done < n_all {
            if done % n_devices == 0 {
                random.shuffle(&mut order);
            }
            let id = order[done % n_devices] as usize;
            let time_us = 1_700_000_000 * SECOND_US + (done as i64 * span_us) / n_all as i64;
            let (lat, lon) = (at[id].0 + 0.0008 * (random.unit() - 0.5), at[id].1 + 0.0012 * (random.unit() - 0.5));
            at[id] = match places {
                Places::Decimal => ((lat * 1e7).round() / 1e7, (lon * 1e7).round() / 1e7),
                Places::Full => (lat, lon),
            };
            let row = (id, time_us, at[id].0, at[id].1, (random.below(200) as f32) / 10.0);
            if random.unit() < late_share {
                held_back.push(row);
            } else {
                rows.push(row);
            }
            done += 1;
        }
        // What was held back comes some time later.
        let n_back = ((held_back.len() as f64) * 0.05) as usize;
        for _ in 0..n_back {
            let row = held_back.swap_remove(random.below(held_back.len() as u64) as usize);
            rows.push(row);
        }
        let n = rows.len();
        let mut columns = template.columns.columns().to_vec();
        let schema = template.columns.schema();
        for (column, field) in columns.iter_mut().zip(schema.fields()) {
            *column = arrow::array::new_null_array(field.data_type(), n);
        }
        let empty = Arc::new(StringArray::from(vec![""; n]));
        columns[gps::EVENT_ID] = empty.clone();
        columns[gps::SOURCE] = empty;
        columns[gps::DEVICE_ID] = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &names[r.0])));
        columns[gps::EVENT_TIME] =
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC"));
        columns[gps::LAT] = Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2)));
        columns[gps::LON] = Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.3)));
        columns[gps::SPEED_MPS] = Arc::new(Float32Array::from_iter_values(rows.iter().map(|r| r.4)));
        let columns = arrow::array::RecordBatch::try_new(schema, columns).unwrap();
        assert_eq!(columns.column(0).len(), n);
        each(&EventBatch { columns, offsets: vec![0; n], arrival_us: vec![0; n], ..template.clone() });
    }
}

/// What a run showed.
struct Figures {
    ns_a_ping: f64,
    bytes_a_ping: f64,
    bytes_a_device: f64,
}

fn measure(name: &str, n_devices: usize, n_pings: usize, late_share: f64, places: Places, time: TimeConfig) -> Figures {
    let before = resident_bytes();
    let mut lane = Lane::new(time, TrackConfig::default());
    let (mut ns, mut n_rows) = (0, 0);
    fleet(n_devices, n_pings, late_share, places, |events| {
        let newest = events.event_time_us().iter().copied().max().unwrap_or(i64::MIN);
        lane.clock.newest_us = lane.clock.newest_us.max(newest);
        let begun = running_ns();
        lane.track.apply(events, &lane.clock);
        ns += running_ns() - begun;
        n_rows += events.n_rows();
    });
    let begun = running_ns();
    lane.track.settle();
    ns += running_ns() - begun;
    let (pings, rows, devices) = lane.track.blocks.memory_bytes();
    let names = lane.track.devices.memory_bytes();
    let mib = |bytes: usize| bytes as f64 / 1048576.0;
    let begun = Instant::now();
    let snapshot = lane.track.snapshot("device_movement", &lane.clock).unwrap();
    let n_movement: usize = (0..snapshot.n_chunks()).map(|idx| snapshot.chunk(idx, None).num_rows()).sum();
    let read_ms = begun.elapsed().as_millis();
    eprintln!(
        "{name}: {:.0} ns a ping; {:.1} bytes a ping, {:.1} bytes a row, {} bytes a device hull; MiB: pings {:.1}, rows {:.1}, devices {:.1}, \
         names {:.1}, resident {:.1}; {n_movement} rows read in {read_ms} ms",
        ns as f64 / n_rows as f64,
        pings as f64 / n_rows as f64,
        rows as f64 / n_movement as f64,
        size_of::<super::super::device::Device>(),
        mib(pings),
        mib(rows),
        mib(devices),
        mib(names),
        mib(resident_bytes()) - mib(before),
    );
    Figures {
        ns_a_ping: ns as f64 / n_rows as f64,
        bytes_a_ping: pings as f64 / n_rows as f64,
        bytes_a_device: (pings + rows + devices + names) as f64 / n_devices as f64,
    }
}

/// A line of the bench: what is demanded and what was found.
fn verdict(what: &str, found: f64, demand: &str, holds: bool) {
    eprintln!("{} {what}: {found:.2} ({demand})", if holds { "holds " } else { "MISSED" });
}

/// Each ratio from runs after each other, the best of three, since the machine may do other things meanwhile.
fn least(run: impl Fn() -> Figures) -> Figures {
    (0..3).map(|_| run()).min_by(|a, b| a.ns_a_ping.total_cmp(&b.ns_a_ping)).unwrap()
}

/// What `make bench` says about the track operator.
#[test]
#[ignore = "takes minutes; prints figures"]
fn bench_track() {
    let (time, short) = (TimeConfig::default(), TimeConfig { late_horizon_us: 1, ..TimeConfig::default() });
    let bare = least(|| measure("W1, no horizon", 10_000, 500, 0.0, Places::Decimal, short));
    let in_order = least(|| measure("W1", 10_000, 500, 0.0, Places::Decimal, time));
    let late = least(|| measure("W1, 5 % late", 10_000, 500, 0.05, Places::Decimal, time));
    let full = measure("W1, full doubles", 10_000, 500, 0.0, Places::Full, time);
    let few = least(|| measure("10,000 devices x 20", 10_000, 20, 0.0, Places::Decimal, time));
    let many = measure("1,000,000 devices x 20", 1_000_000, 20, 0.0, Places::Decimal, time);
    let idle = measure("1,000,000 idle", 1_000_000, 1, 0.0, Places::Decimal, time);
    let ratio = bare.ns_a_ping / in_order.ns_a_ping;
    verdict("in order, of the throughput without late horizon", ratio, "at least 0.9", ratio >= 0.9);
    let ratio = in_order.ns_a_ping / late.ns_a_ping;
    verdict("5 % late, of the throughput in order", ratio, "at least 0.5", ratio >= 0.5);
    verdict("W1, bytes a ping, decimal", in_order.bytes_a_ping, "at most 20", in_order.bytes_a_ping <= 20.0);
    verdict("W1, bytes a ping, full doubles", full.bytes_a_ping, "at most 20", full.bytes_a_ping <= 20.0);
    verdict("bytes an idle device, name included", idle.bytes_a_device, "at most 150", idle.bytes_a_device <= 150.0);
    let ratio = many.ns_a_ping / few.ns_a_ping;
    verdict("cost of a ping, 1,000,000 to 10,000 devices", ratio, "at most 5", ratio <= 5.0);
    let bytes = geolife_bytes_a_ping();
    verdict("GeoLife, bytes a ping", bytes, "at most 12", bytes <= 12.0);
}

#[test]
#[ignore = "takes minutes; prints figures"]
fn measure_all() {
    let minute = TimeConfig { window_us: 60 * SECOND_US, ..TimeConfig::default() };
    let short = TimeConfig { late_horizon_us: 1, ..TimeConfig::default() };
    measure("in cache, decimal, 1 min", 100, 5000, 0.0, Places::Decimal, minute);
    measure("W1, decimal, 1 min", 10_000, 500, 0.0, Places::Decimal, minute);
    measure("W1, decimal, 5 min", 10_000, 500, 0.0, Places::Decimal, TimeConfig::default());
    measure("W1, no horizon", 10_000, 500, 0.0, Places::Decimal, short);
    measure("W1, full doubles", 10_000, 500, 0.0, Places::Full, TimeConfig::default());
    measure("W1, 5 % late", 10_000, 500, 0.05, Places::Decimal, TimeConfig::default());
    measure("100,000 x 50, decimal", 100_000, 50, 0.0, Places::Decimal, TimeConfig::default());
    measure("100,000 x 50, full", 100_000, 50, 0.0, Places::Full, TimeConfig::default());
    measure("1,000,000 idle", 1_000_000, 1, 0.0, Places::Decimal, TimeConfig::default());
}

#[test]
#[ignore = "prints figures"]
fn measure_geolife() {
    geolife_bytes_a_ping();
}

/// NaN where the sample is not at hand.
fn geolife_bytes_a_ping() -> f64 {
    let events = geolife::events();
    if events.is_empty() {
        return f64::NAN;
    }
    let time = TimeConfig { late_horizon_us: 5000 * DAY_US, ..TimeConfig::default() };
    let mut lane = Lane::new(time, TrackConfig::default());
    let batches: Vec<EventBatch> = events.chunks(8192).map(batch).collect();
    let begun = running_ns();
    for events in &batches {
        lane.track.apply(events, &lane.clock);
    }
    let ns = (running_ns() - begun) as f64 / events.len() as f64;
    let (pings, rows, _) = lane.track.blocks.memory_bytes();
    let n_pings = events.len() as f64;
    eprintln!(
        "GeoLife: {ns:.0} ns a ping, {:.1} bytes a ping, rows {:.1}",
        pings as f64 / n_pings,
        rows as f64 / n_pings
    );
    pings as f64 / n_pings
}

/// Checkpoints of a fleet: what they cost, what they write, how fast a lane is there again.
#[test]
#[ignore = "prints figures"]
fn measure_checkpoints() {
    for (n_devices, n_pings, late_share, memory_bytes_max) in [
        (100_000, 50, 0.0, 1 << 30),
        (100_000, 100, 0.0, 1 << 30),
        (10_000, 500, 0.0, 1 << 30),
        (10_000, 500, 0.0, 0),
        (10_000, 500, 0.05, 1 << 30),
    ] {
        let config = TrackConfig { has_store: true, memory_bytes_max, ..TrackConfig::default() };
        let mut lane = Lane::new(TimeConfig::default(), config);
        lane.clock.revision = 1;
        let mut hot = std::collections::BTreeMap::new();
        let (mut n_cold_bytes, mut n_hot_bytes, mut n_versions, mut n_rows) = (0, 0, 0, 0);
        let (mut apply_ns, mut checkpoint_ns, mut n_checkpoints) = (0, Vec::new(), 0);
        let every = n_devices * n_pings / 10;
        fleet(n_devices, n_pings, late_share, Places::Decimal, |events| {
            let newest = events.event_time_us().iter().copied().max().unwrap_or(i64::MIN);
            lane.clock.newest_us = lane.clock.newest_us.max(newest);
            let begun = running_ns();
            lane.track.apply(events, &lane.clock);
            apply_ns += running_ns() - begun;
            n_rows += events.n_rows();
            if n_rows / every > n_checkpoints {
                n_checkpoints += 1;
                let begun = running_ns();
                let changes = lane.track.checkpoint(&lane.clock);
                checkpoint_ns.push(running_ns() - begun);
                n_versions += changes.rows.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
                n_cold_bytes +=
                    changes.cold.iter().filter_map(|entry| entry.value.as_ref()).map(Vec::len).sum::<usize>();
                for entry in changes.hot {
                    n_hot_bytes += entry.value.as_ref().map_or(0, Vec::len);
                    match entry.value {
                        Some(value) => drop(hot.insert(entry.key, value)),
                        None => drop(hot.remove(&entry.key)),
                    }
                }
                lane.track.committed(lane.clock.revision);
                lane.clock.revision += 1;
            }
        });
        let (pings, rows, devices) = lane.track.blocks.memory_bytes();
        let mib = |bytes: usize| bytes as f64 / 1048576.0;
        let n_hot: usize = hot.values().map(Vec::len).sum();
        let mut restored = Lane::new(TimeConfig::default(), config);
        let begun = running_ns();
        restored.track.restore(&mut hot.into_iter()).unwrap();
        let restore_ms = (running_ns() - begun) / 1_000_000;
        eprintln!(
            "{n_devices} x {n_pings}, {late_share} late, budget {memory_bytes_max}: apply {} ns a ping, checkpoint {} ns a ping, longest {} ms; \
             written MiB: hot {:.0}, cold {:.1}; {n_versions} versions; held MiB: pings {:.1}, rows {:.1}, devices {:.1}; \
             restored from {:.1} MiB in {restore_ms} ms",
            apply_ns / n_rows as u128,
            checkpoint_ns.iter().sum::<u128>() / n_rows as u128,
            checkpoint_ns.iter().max().unwrap() / 1_000_000,
            mib(n_hot_bytes),
            mib(n_cold_bytes),
            mib(pings),
            mib(rows),
            mib(devices),
            mib(n_hot),
        );
    }
}
