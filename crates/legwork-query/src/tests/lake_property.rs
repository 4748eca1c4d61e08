//! Whatever the lanes wrote and however much of it the lake holds: SQL answers as over the newest versions, row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use legwork_types::Table;
use proptest::prelude::*;

use super::fake::Fake;
use super::lake_model::{DAY_0, MemoryLake, Version, fresh, naive, rows};
use super::options;
use super::sql::table_of;
use crate::{Engine, SqlEngine};

const N_LANES: i32 = 2;
const N_DAYS: i32 = 4;
/// So few that most rows have several versions.
const N_KEYS: i64 = 3;

/// One write of a lane.
#[derive(Clone, Debug)]
struct Write {
    lane: i32,
    begins_checkpoint: bool,
    day: i32,
    key: i64,
    is_deleted: bool,
    value: i64,
    /// The row moved here from that day: it is retracted there.
    from_day: Option<i32>,
    /// The lake takes it only when it is due.
    is_open: bool,
}

fn writes() -> impl Strategy<Value = Write> {
    let place = (0..N_LANES, any::<bool>(), 0..N_DAYS, 0..N_KEYS);
    (place, prop::bool::weighted(0.2), 0..12_i64, prop::option::weighted(0.2, 0..N_DAYS), prop::bool::weighted(0.2))
        .prop_map(|((lane, begins_checkpoint, day, key), is_deleted, value, from_day, is_open)| Write {
            lane,
            begins_checkpoint,
            day,
            key,
            is_deleted,
            value,
            from_day,
            is_open,
        })
}

#[derive(Clone, Debug)]
struct Case {
    table: Table,
    writes: Vec<Write>,
    /// Per lane: how much of it the lake holds, and how much of that the lane still keeps, in hundredths.
    cuts: Vec<(u32, u32)>,
    /// Days that maintenance has compacted.
    compacted: Vec<i32>,
    knows_days: bool,
    days: (i32, i32),
    key: i64,
}

fn cases() -> impl Strategy<Value = Case> {
    let table = prop::sample::select(vec![
        Table::DeviceMovement,
        Table::RepPositions,
        Table::DealStageVisits,
        Table::Orders,
        Table::RepCalls,
        Table::Stays,
    ]);
    let cuts = prop::collection::vec(
        (prop_oneof![0..=100_u32, Just(100_u32)], prop_oneof![0..=100_u32, Just(0_u32)]),
        N_LANES as usize,
    );
    let compacted = prop::collection::vec(0..N_DAYS, 0..3);
    let writes = prop::collection::vec(writes(), 0..60);
    (table, writes, cuts, compacted, prop::bool::weighted(0.6), (0..N_DAYS, 0..N_DAYS), 0..N_KEYS).prop_map(
        |(table, writes, cuts, compacted, knows_days, days, key)| Case {
            table,
            writes,
            cuts,
            compacted,
            knows_days,
            days,
            key,
        },
    )
}

/// Every version that the lanes wrote, and whether its row was open then.
fn written(writes: &[Write]) -> BTreeMap<(i32, i32, i64, u32), (Version, bool)> {
    let mut revisions = [1_u32; N_LANES as usize];
    let mut versions = BTreeMap::new();
    for write in writes {
        let revision = &mut revisions[write.lane as usize];
        *revision += u32::from(write.begins_checkpoint);
        let Write { lane, day, key, is_deleted, value, .. } = *write;
        let version = Version { lane, revision: *revision, day, key, is_deleted, value };
        if let Some(from_day) = write.from_day.filter(|from_day| *from_day != day) {
            let retraction = Version { day: from_day, is_deleted: true, ..version };
            versions.insert((lane, from_day, key, *revision), (retraction, false));
        }
        versions.insert((lane, day, key, *revision), (version, write.is_open));
    }
    versions
}

/// What the lake holds and what the lanes hold.
fn split(case: &Case) -> (Vec<Version>, Vec<Version>, Vec<Version>) {
    let written = written(&case.writes);
    let all: Vec<Version> = written.values().map(|(version, _)| *version).collect();
    let newest = |lane: i32| all.iter().filter(|v| v.lane == lane).map(|v| v.revision).max().unwrap_or(0);
    let cuts: Vec<(u32, u32)> = (0..N_LANES)
        .zip(&case.cuts)
        .map(|(lane, (through, kept))| {
            let through = newest(lane) * through / 100;
            (through, (through + 1) - through * kept / 100)
        })
        .collect();
    let through = |version: &Version| cuts[version.lane as usize].0;
    // An open row's newest version may still wait to be written to the lake.
    let waits = |version: &Version, is_open: bool| {
        let newer = |v: &Version| v.identity() == version.identity() && v.revision > version.revision;
        is_open && !all.iter().any(|v| newer(v) && v.revision <= through(v))
    };
    let (mut lake, mut live) = (Vec::new(), Vec::new());
    for (version, is_open) in written.values() {
        let is_waiting = waits(version, *is_open);
        if version.revision <= through(version) && !is_waiting {
            lake.push(*version);
        }
        if is_waiting || version.revision >= cuts[version.lane as usize].1 {
            live.push(*version);
        }
    }
    let (compacted, mut lake): (Vec<Version>, _) = lake.into_iter().partition(|v| case.compacted.contains(&v.day));
    lake.extend(naive(&compacted));
    (all, lake, live)
}

fn statements(case: &Case) -> Vec<String> {
    let def = case.table.def();
    let (time, key) = (def.day.unwrap(), def.key[0]);
    let name = if crate::catalog::is_covered(case.table) { format!("lanes.{}", def.name) } else { def.name.to_owned() };
    let date =
        |day: i32| chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::Days::new((DAY_0 + day) as u64);
    let (from, to) = (date(case.days.0.min(case.days.1)), date(case.days.0.max(case.days.1)));
    let last = def.columns.last().unwrap().name;
    let other =
        def.columns.iter().map(|column| column.name).find(|column| !def.key.contains(column) && *column != time);
    let (other, key_value) = (other.unwrap(), format!("'{key}-{}'", case.key));
    let mut statements = vec![
        format!("SELECT * FROM {name}"),
        format!("SELECT count(*), count({last}) FROM {name}"),
        format!("SELECT {last} FROM {name} WHERE {key} = {key_value}"),
        format!("SELECT {key}, {time} FROM {name} WHERE {last} IS NULL OR {last}::text LIKE '%1%'"),
        format!("SELECT {key}, {last} FROM {name} WHERE {other}::text LIKE '%2%' AND {time} >= '{from}'"),
        format!("SELECT {key} FROM {name} WHERE {key} <> {key_value} OR {other} IS NULL"),
        format!("SELECT {last}, {other} FROM {name} WHERE {other} = (SELECT max({other}) FROM {name})"),
        format!("SELECT {time} FROM {name} WHERE {time} >= '{from}' AND {time} < '{to} 12:00:00Z'"),
        format!("SELECT count(*) FROM {name} WHERE {time}::date = '{from}' OR {key} = {key_value}"),
        format!("SELECT {other} FROM {name} WHERE {time} BETWEEN '{from}' AND '{to}' AND {last} IS NOT NULL"),
        format!(
            "SELECT {last} FROM {name} WHERE date_trunc('day', {time}) IN ('{from}', '{to}') AND {other} IS NOT NULL"
        ),
        format!("SELECT {key}, count(*), max({last}) FROM {name} WHERE NOT {time} < '{to}' GROUP BY {key}"),
        format!("SELECT a.{last}, b.{other} FROM {name} a JOIN {name} b ON a.{key} = b.{key} AND a.{time} < b.{time}"),
        format!("SELECT count(*) FROM (SELECT * FROM {name} LIMIT 4)"),
        format!("SELECT 1 FROM {name} WHERE false"),
        format!(
            "SELECT 1 FROM {name} a WHERE EXISTS (SELECT 1 FROM {name} b WHERE b.{other} = a.{other} AND b.{time} > a.{time})"
        ),
    ];
    if crate::catalog::is_covered(case.table) {
        statements.push(format!("SELECT * FROM {}", def.name));
        statements.push(format!("SELECT count(*) FROM {} WHERE {time} >= '{from}'", def.name));
    }
    statements.extend(match case.table {
        Table::DeviceMovement => vec![
            "SELECT * FROM rep_movement".to_owned(),
            "SELECT sum(distance_m), max(revision) FROM device_movement WHERE is_open".to_owned(),
            format!("SELECT count(*) FROM device_movement WHERE rep_id IS NULL AND window_start < '{to}'"),
        ],
        Table::DealStageVisits => vec!["SELECT * FROM deal_stage_intervals".to_owned()],
        Table::Stays => vec!["SELECT stay_start FROM stays WHERE stay_end IS NULL".to_owned()],
        _ => Vec::new(),
    });
    statements
}

async fn compare(case: Case) {
    let (all, lake, live) = split(&case);
    let table = case.table;
    let history = MemoryLake::default().table(table, &lake, &case.compacted, case.knows_days);
    let mut lanes = Fake::default();
    lanes.fresh.insert(table.name().to_owned(), fresh(table, &live));
    let engine = SqlEngine::with_history(Arc::new(lanes), Arc::new(history), options()).unwrap();
    let mut expected = Fake::default();
    expected.schemas.insert(table.name().to_owned(), table.schema());
    expected.tables.insert(table.name().to_owned(), vec![vec![rows(table, &table.schema(), &naive(&all))]]);
    let oracle = SqlEngine::new(Arc::new(expected), options()).unwrap();
    let (session, oracle) = (engine.session(), oracle.session());
    for sql in statements(&case) {
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        let found = sorted(table_of(session.as_ref(), &sql).await);
        assert_eq!(found, sorted(table_of(oracle.as_ref(), &sql).await), "{sql}\nlake {lake:?}\nlive {live:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn lake_and_lanes_answer_as_one(case in cases()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(compare(case));
    }
}
