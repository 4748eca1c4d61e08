//! What resolving costs beside a plain scan: run by hand.
//!
//! `cargo t legwork-query --config profile.dev.package.legwork-query.opt-level=3 -- lake_measure --ignored --nocapture`

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use legwork_types::Table;

use super::fake::Fake;
use super::lake_model::{BATCH_ROWS, DAY_0, DayTable, MemoryLake, Version, fresh, lake_schema, rows};
use super::options;
use super::sql::table_of;
use crate::{Engine, LakeDay, QueryOptions, SqlEngine};

const TABLE: Table = Table::DeviceMovement;

/// `n_days` days of windows of devices; `n_copies` of each row, the second a version newer. Days share what they can.
fn lake(n_days: i32, n_devices: usize, n_windows: usize, n_copies: usize, is_resolved: bool) -> MemoryLake {
    let n_rows = n_devices * n_windows;
    let schema = lake_schema(TABLE);
    let chunks: Vec<(usize, RecordBatch)> = (0..n_rows)
        .step_by(BATCH_ROWS)
        .map(|first| {
            let values = first as i64..(first + BATCH_ROWS).min(n_rows) as i64;
            let version =
                |value| Version { lane: value as i32 % 12, revision: 1, day: 0, key: 1, is_deleted: false, value };
            let chunk = rows(TABLE, &schema, &values.clone().map(version).collect::<Vec<_>>());
            let named = |name: &str| {
                let names = values.clone().map(|row| format!("{name}-{:06}", row as usize / n_windows));
                Arc::new(StringArray::from_iter_values(names))
            };
            (first, with(&with(&chunk, "device_id", named("device")), "rep_id", named("rep")))
        })
        .collect();
    let (mut batches, mut days) = (Vec::new(), BTreeMap::new());
    for day in DAY_0..DAY_0 + n_days {
        for copy in 0..n_copies {
            for (first, chunk) in &chunks {
                let n_rows = chunk.num_rows();
                let window = |row: usize| i64::from(day) * 86_400_000_000 + (row % n_windows) as i64 * 300_000_000;
                let times = TimestampMicrosecondArray::from_iter_values((*first..first + n_rows).map(window));
                let chunk = with(chunk, "window_start", Arc::new(times.with_timezone("UTC")));
                let chunk = with(&chunk, "day", Arc::new(Date32Array::from(vec![day; n_rows])));
                let revisions = Arc::new(Int64Array::from(vec![1 + copy as i64; n_rows]));
                batches.push((day, with(&chunk, "revision", revisions)));
            }
        }
        days.insert(day, LakeDay { n_rows: (n_rows * n_copies) as u64, is_resolved });
    }
    let table = DayTable { schema, batches, read: parking_lot::Mutex::default() };
    let tables = [(TABLE.name().to_owned(), (Arc::new(table), HashMap::new(), days))].into();
    MemoryLake { tables, ..MemoryLake::default() }
}

fn with(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[batch.schema().index_of(name).unwrap()] = column;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

async fn measure(what: &str, history: MemoryLake, lanes: Fake) {
    let options = QueryOptions { memory_bytes_max: 512 << 20, timeout: Duration::from_secs(600), ..options() };
    let engine = SqlEngine::with_history(Arc::new(lanes), Arc::new(history), options).unwrap();
    let session = engine.session();
    for sql in [
        "SELECT count(*) FROM device_movement",
        "SELECT sum(distance_m) FROM device_movement",
        "SELECT sum(distance_m), sum(raw_m), sum(gap_m), sum(moving_s), sum(n_pings), max(last_fix_time) FROM device_movement",
        "SELECT count(*) FROM (SELECT device_id, sum(distance_m) FROM device_movement GROUP BY device_id)",
        "SELECT sum(distance_m) FROM device_movement WHERE device_id = 'device-000017'",
        "SELECT sum(distance_m) FROM device_movement WHERE window_start::date = '2026-02-27'",
    ] {
        let began = Instant::now();
        let result = session.query(sql).await.unwrap();
        let answer: Result<Vec<RecordBatch>, _> = futures::TryStreamExt::try_collect(result.batches).await;
        let took = began.elapsed();
        let answer = match answer {
            Ok(_) => table_of(session.as_ref(), sql).await,
            Err(error) => error.to_string(),
        };
        println!("{what}: {:>7.3} s  {sql} -> {answer}", took.as_secs_f64());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn resolving_beside_plain_scans() {
    measure("10M, resolved", lake(100, 1_000, 100, 1, true), Fake::default()).await;
    measure("10M, one version a row", lake(100, 1_000, 100, 1, false), Fake::default()).await;
    measure("10M, two versions a row", lake(50, 1_000, 100, 2, false), Fake::default()).await;
    let mut lanes = Fake::default();
    let live: Vec<Version> = (0..100_000)
        .map(|value| Version { lane: 0, revision: 9, day: 99, key: value % 24, is_deleted: false, value })
        .collect();
    lanes.fresh.insert(TABLE.name().to_owned(), fresh(TABLE, &live));
    measure("10M, resolved, 100,000 fresh", lake(100, 1_000, 100, 1, true), lanes).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn one_large_day() {
    for n_devices in [10_000, 30_000, 100_000] {
        measure(&format!("a day of {n_devices} x 96"), lake(1, n_devices, 96, 1, false), Fake::default()).await;
    }
}
