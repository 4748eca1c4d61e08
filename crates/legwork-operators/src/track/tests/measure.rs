//! Figures of checkpoints, beside those of `make bench`. `cargo test -p legwork-operators measure_checkpoints -- --ignored --nocapture`
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::Arc;

use arrow::array::{Array, Float32Array, Float64Array, StringArray, TimestampMicrosecondArray};
use legwork_types::time::{SECOND_US, TimeConfig};
use legwork_types::{EventBatch, gps};

use super::{Event, Lane, Random, batch, place};
use crate::Operator;
use crate::track::TrackConfig;

/// Time that this thread has run, nanoseconds: the machine may do other things meanwhile.
fn running_ns() -> u128 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split_whitespace().next().map_or(0, |ns| ns.parse().unwrap())
}

/// A fleet on a random walk: `n_pings` of each of `n_devices` over two hours, devices interleaved at random, handed to `each` in
/// batches.
fn fleet(n_devices: usize, n_pings: usize, late_share: f64, mut each: impl FnMut(&EventBatch)) {
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
            at[id] = ((lat * 1e7).round() / 1e7, (lon * 1e7).round() / 1e7);
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
        fleet(n_devices, n_pings, late_share, |events| {
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
                let changes = changes.complete();
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
