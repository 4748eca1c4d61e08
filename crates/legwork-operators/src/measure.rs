//! Figures, not checks: events a second of processor time and bytes held. `cargo t legwork-operators -- --ignored --nocapture measure`.
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use legwork_types::time::{LaneClock, SECOND_US};
use legwork_types::{EventBatch, Kind};

use crate::{OperatorConfig, operator_for};

const N_EVENTS: usize = 1_000_000;
const BATCH_ROWS: usize = 8192;
const START_US: i64 = 1_767_600_000 * SECOND_US;

/// Column of a kind: what row `n` holds.
type Make = fn(usize) -> Cell;

enum Cell {
    Text(String),
    Time(i64),
    Real(f64),
    Flag(bool),
}

fn column(make: Make, rows: std::ops::Range<usize>) -> ArrayRef {
    match make(rows.start) {
        Cell::Text(_) => Arc::new(StringArray::from_iter_values(rows.map(|n| match make(n) {
            Cell::Text(text) => text,
            _ => unreachable!("one type a column"),
        }))),
        Cell::Time(_) => {
            let times = rows.map(|n| match make(n) {
                Cell::Time(time) => time,
                _ => unreachable!("one type a column"),
            });
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
        }
        Cell::Real(_) => Arc::new(Float64Array::from_iter_values(rows.map(|n| match make(n) {
            Cell::Real(real) => real,
            _ => unreachable!("one type a column"),
        }))),
        Cell::Flag(_) => Arc::new(BooleanArray::from_iter(rows.map(|n| match make(n) {
            Cell::Flag(flag) => Some(flag),
            _ => unreachable!("one type a column"),
        }))),
    }
}

fn batches(kind: Kind, columns: &[(&str, Make)]) -> Vec<EventBatch> {
    let schema = kind.schema();
    (0..N_EVENTS)
        .step_by(BATCH_ROWS)
        .map(|start| {
            let rows = start..N_EVENTS.min(start + BATCH_ROWS);
            let arrays = schema.fields().iter().map(|field| {
                let make = columns.iter().find(|(name, _)| name == field.name()).map(|(_, make)| *make);
                make.map_or_else(|| new_null_array(field.data_type(), rows.len()), |make| column(make, rows.clone()))
            });
            EventBatch {
                kind,
                topic: "topic".into(),
                partition: 0,
                columns: RecordBatch::try_new(schema.clone(), arrays.collect()).unwrap(),
                offsets: (rows.start as i64..rows.end as i64).collect(),
                arrival_us: vec![0; rows.len()],
                keys: None,
            }
        })
        .collect()
}

/// Processor time of this thread, seconds: a busy machine does not blur it. Linux only; elsewhere the wall clock.
fn cpu_s() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let cpu_ns = text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    cpu_ns.map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// Applies all batches, without readers and with one that takes and holds a snapshot of every table at every batch.
fn measure(name: &str, kind: Kind, columns: &[(&str, Make)]) {
    let batches = batches(kind, columns);
    for with_reader in [false, true] {
        let mut operator = operator_for(kind, &OperatorConfig::default());
        let mut held = Vec::new();
        let start = cpu_s();
        let mut n_accepted = N_EVENTS;
        for batch in &batches {
            n_accepted -= operator.apply(batch, &LaneClock::START).refused.len();
            if with_reader {
                held = operator.tables().into_iter().map(|t| operator.snapshot(t, &LaneClock::START)).collect();
            }
        }
        let seconds = cpu_s() - start;
        drop(held);
        eprintln!(
            "{name}{}: {:.2} M events/s, {n_accepted} accepted, {:.0} bytes an event, rows {}",
            if with_reader { ", a snapshot every batch" } else { "" },
            N_EVENTS as f64 / seconds / 1e6,
            operator.memory_bytes() as f64 / N_EVENTS as f64,
            operator
                .tables()
                .into_iter()
                .map(|t| format!("{t} {}", operator.snapshot(t, &LaneClock::START).unwrap().n_rows()))
                .collect::<Vec<_>>()
                .join(", "),
        );
        let all = operator.tables().pop().unwrap();
        let snapshot = operator.snapshot(all, &LaneClock::START).unwrap();
        let start = cpu_s();
        let n_rows: usize = (0..snapshot.n_chunks()).map(|idx| snapshot.chunk(idx, None).num_rows()).sum();
        eprintln!("    {all} as Arrow: {:.0} ns a row", (cpu_s() - start) * 1e9 / n_rows as f64);
    }
}

/// Spreads numbers without an order (Fibonacci hashing).
fn scatter(n: usize) -> usize {
    ((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize
}

fn pick(prefix: &str, n: usize, over: usize) -> Cell {
    Cell::Text(format!("{prefix}-{:06}", scatter(n) % over))
}

const COMMON: [(&str, Make); 3] = [
    ("event_id", |n| Cell::Text(format!("evt-{n:016}"))),
    ("source", |_| Cell::Text("exchange".into())),
    ("event_time", |n| Cell::Time(START_US + n as i64 * 30_000)),
];

fn with_common(columns: &[(&'static str, Make)]) -> Vec<(&'static str, Make)> {
    COMMON.iter().chain(columns).copied().collect()
}

#[test]
#[ignore = "measures; see the module"]
fn measure_activity() {
    let rep: (&str, Make) = ("rep_id", |n| pick("rep", n, 10_000));
    let deal: (&str, Make) = ("deal_id", |n| pick("deal", n / 2, 50_000));
    let account: (&str, Make) = ("account_id", |n| pick("account", n / 3, 100_000));
    let direction: (&str, Make) = ("direction", |n| Cell::Text(["inbound", "outbound"][n % 2].into()));
    let message: (&str, Make) = ("message_id", |n| Cell::Text(format!("msg-{n:016}")));
    let kind: (&str, Make) = ("kind", |n| Cell::Text(["sent", "received", "opened", "replied"][n % 4].into()));
    let machine: (&str, Make) = ("machine", |n| Cell::Flag(n.is_multiple_of(3)));
    measure("emails", Kind::Emails, &with_common(&[rep, message, kind, machine, deal, account]));
    let channel: (&str, Make) = ("channel", |_| Cell::Text("sms".into()));
    measure("messages", Kind::Messages, &with_common(&[rep, message, channel, direction, deal, account]));
    let status: (&str, Make) = ("status", |n| Cell::Text(["completed", "no_answer"][n % 2].into()));
    let start: (&str, Make) = ("start_time", |n| Cell::Time(START_US + n as i64 * 30_000 - 60 * SECOND_US));
    let duration: (&str, Make) = ("duration_s", |n| Cell::Real((n % 600) as f64 / 4.0));
    let call: (&str, Make) = ("call_id", |n| Cell::Text(format!("CA{n:016}")));
    let fields = [rep, call, direction, status, start, duration, deal, account];
    measure("calls, one version each", Kind::Calls, &with_common(&fields));
    let call: (&str, Make) = ("call_id", |n| Cell::Text(format!("CA{:016}", n / 4000 * 1000 + n % 1000)));
    let rep: (&str, Make) = ("rep_id", |n| pick("rep", n / 4000 * 1000 + n % 1000, 10_000));
    let fields = [rep, call, direction, status, start, duration, deal, account];
    measure("calls, four versions each", Kind::Calls, &with_common(&fields));
    let meeting: (&str, Make) = ("meeting_id", |n| Cell::Text(format!("meet-{n:016}")));
    let end: (&str, Make) = ("scheduled_end", |n| Cell::Time(START_US + n as i64 * 30_000));
    let begin: (&str, Make) = ("scheduled_start", |n| Cell::Time(START_US + n as i64 * 30_000));
    let status: (&str, Make) = ("status", |n| Cell::Text(["scheduled", "held"][n % 2].into()));
    measure("meetings", Kind::Meetings, &with_common(&[rep, meeting, begin, end, status, deal, account]));
}

#[test]
#[ignore = "measures; see the module"]
fn measure_deals() {
    let deal: (&str, Make) = ("deal_id", |n| pick("deal", n, 100_000));
    let stage: (&str, Make) = ("stage", |n| Cell::Text(format!("stage-{}", n % 7)));
    let pipeline: (&str, Make) = ("pipeline_id", |_| Cell::Text("sales".into()));
    let owner: (&str, Make) = ("owner_id", |n| pick("rep", n / 2, 10_000));
    let fields = [deal, stage, pipeline, owner];
    measure("deals, in order", Kind::DealEvents, &with_common(&fields));
    let mut late = with_common(&fields);
    late[2] = ("event_time", |n| {
        let hours = if n.is_multiple_of(20) { 6 } else { 0 };
        Cell::Time(START_US + n as i64 * 30_000 - hours * 3600 * SECOND_US)
    });
    measure("deals, 5 % late by 6 h", Kind::DealEvents, &late);
}

/// Applies all batches with a checkpoint after every twentieth, as with 16,000 events a second and one every 10 s; then starts again.
fn measure_checkpoints_of(name: &str, kind: Kind, columns: &[(&str, Make)]) {
    let batches = batches(kind, columns);
    let config = OperatorConfig { has_store: true, ..OperatorConfig::default() };
    let mut operator = operator_for(kind, &config);
    let mut store = BTreeMap::new();
    let (mut seconds, mut seconds_max, mut n_bytes, mut n_rows) = (0.0, 0f64, 0, 0);
    let start = cpu_s();
    for (n, batch) in batches.iter().enumerate() {
        let clock = LaneClock { revision: n as u32 / 20, ..LaneClock::START };
        operator.apply(batch, &clock);
        if n % 20 == 19 {
            let start = cpu_s();
            let changes = operator.checkpoint(&clock);
            seconds += cpu_s() - start;
            seconds_max = seconds_max.max(cpu_s() - start);
            n_rows += changes.rows.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
            for entry in changes.hot {
                n_bytes += entry.value.as_ref().map_or(0, Vec::len);
                match entry.value {
                    Some(value) => store.insert(entry.key, value),
                    None => store.remove(&entry.key),
                };
            }
        }
    }
    let all = cpu_s() - start;
    let n_bytes_held: usize = store.values().map(Vec::len).sum();
    let (n_entries, n_events) = (store.len(), N_EVENTS as f64);
    let mut restored = operator_for(kind, &config);
    let start = cpu_s();
    restored.restore(&mut store.into_iter()).unwrap();
    eprintln!(
        "{name}: {:.2} M events/s, checkpoints {:.0} ns an event, {:.0} ms at most, {:.1} bytes of state and {:.2} rows an event; at \
         the end {n_entries} entries, {:.1} MB, in memory {:.1} MB; read in {:.0} ms",
        n_events / all / 1e6,
        seconds * 1e9 / n_events,
        seconds_max * 1e3,
        n_bytes as f64 / n_events,
        n_rows as f64 / n_events,
        n_bytes_held as f64 / 1e6,
        operator.memory_bytes() as f64 / 1e6,
        (cpu_s() - start) * 1e3,
    );
}

#[test]
#[ignore = "measures; see the module"]
fn measure_checkpoints() {
    let rep: (&str, Make) = ("rep_id", |n| pick("rep", n, 10_000));
    let deal: (&str, Make) = ("deal_id", |n| pick("deal", n / 2, 50_000));
    let account: (&str, Make) = ("account_id", |n| pick("account", n / 3, 100_000));
    let message: (&str, Make) = ("message_id", |n| Cell::Text(format!("msg-{n:016}")));
    let kind: (&str, Make) = ("kind", |n| Cell::Text(["sent", "received", "opened", "replied"][n % 4].into()));
    measure_checkpoints_of("emails", Kind::Emails, &with_common(&[rep, message, kind, deal, account]));
    let direction: (&str, Make) = ("direction", |n| Cell::Text(["inbound", "outbound"][n % 2].into()));
    let status: (&str, Make) = ("status", |n| Cell::Text(["completed", "no_answer"][n % 2].into()));
    let call: (&str, Make) = ("call_id", |n| Cell::Text(format!("CA{n:016}")));
    measure_checkpoints_of("calls", Kind::Calls, &with_common(&[rep, call, direction, status, deal, account]));
    let deal: (&str, Make) = ("deal_id", |n| pick("deal", n, 100_000));
    let stage: (&str, Make) = ("stage", |n| Cell::Text(format!("stage-{}", n % 7)));
    let pipeline: (&str, Make) = ("pipeline_id", |_| Cell::Text("sales".into()));
    let owner: (&str, Make) = ("owner_id", |n| pick("rep", n / 2, 10_000));
    measure_checkpoints_of("deals", Kind::DealEvents, &with_common(&[deal, stage, pipeline, owner]));
}
