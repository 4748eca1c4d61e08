//! Checkpoints, restarts, chunks that left memory: the same tables as those of an operator that was never disturbed.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use legwork_types::time::{DAY_US, HOUR_US, LaneClock, MINUTE_US, TimeConfig, window_start};
use legwork_types::{Changes, Lookup, StateEntry, StateError, StateValue, Table};
use proptest::prelude::*;

use super::properties::{LONG_STOPS_S, cases, cut, disorder, fleet, standing, windows};
use super::{Cell, Event, Lane, Random, batch, cells, covered};
use crate::track::entry::{ChunkValue, Key, device_value, index_value};
use crate::track::{TABLES, Track, TrackConfig};
use crate::{Need, Operator};

/// What names a row: table, day, key.
type RowKey = (&'static str, i64, String);

/// Columns of a row by name, without those of its version.
#[derive(Clone, Debug)]
struct Version {
    is_deleted: bool,
    row: Vec<Cell>,
}

/// All rows that were handed over, the newest version of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest(BTreeMap<RowKey, Version>);

fn text(row: &[Cell]) -> String {
    format!("{row:?}")
}

impl Newest {
    /// Takes versions, and demands that each says something new.
    fn take(&mut self, table: Table, versions: &RecordBatch, revision: u32) -> Result<(), TestCaseError> {
        prop_assert_eq!(versions.schema(), table.version_schema());
        let at = |column: &str| versions.schema().index_of(column).unwrap();
        let (day, deleted) = (at(table.def().day.unwrap()), at("is_deleted"));
        let mut keys = BTreeSet::new();
        for mut row in cells(versions) {
            prop_assert_eq!(&row[at("revision")], &Cell::Int(revision.into()));
            let key: Vec<Cell> = table.def().key.iter().map(|column| row[at(column)].clone()).collect();
            let key = (table.name(), window_start(row[day].float() as i64, DAY_US), text(&key));
            let is_deleted = row[deleted] == Cell::Flag(true);
            (row[deleted], row[at("revision")]) = (Cell::Null, Cell::Null);
            prop_assert!(keys.insert(key.clone()), "{key:?} comes twice");
            let before = self.0.get(&key);
            if is_deleted {
                prop_assert!(
                    before.is_some_and(|before| !before.is_deleted),
                    "{key:?} is retracted, and was not there"
                );
                prop_assert_eq!(text(&before.unwrap().row), text(&row), "a retraction says what the row said last");
            } else {
                let says_the_same = |before: &Version| !before.is_deleted && text(&before.row) == text(&row);
                prop_assert!(!before.is_some_and(says_the_same), "{key:?} says the same again: {row:?}");
            }
            self.0.insert(key, Version { is_deleted, row });
        }
        Ok(())
    }

    /// Rows of a table that are not retracted, columns as in its snapshots.
    fn rows(&self, table: Table) -> Vec<Vec<Cell>> {
        let of_table = self.0.iter().filter(|((name, _, _), version)| *name == table.name() && !version.is_deleted);
        let n_columns = table.schema().fields().len();
        of_table.map(|(_, version)| version.row[..n_columns].to_vec()).collect()
    }
}

fn sorted(rows: Vec<Vec<Cell>>) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(|row| text(row)).collect();
    rows.sort();
    rows
}

/// Compares sorted rows; says which differ.
fn same(what: &str, rows: &[String], wanted: &[String]) -> Result<(), TestCaseError> {
    let only = |rows: &[String], others: &[String]| -> Vec<String> {
        rows.iter().filter(|row| !others.contains(row)).cloned().collect()
    };
    prop_assert!(rows == wanted, "{what}: found {:#?}, wanted {:#?}", only(rows, wanted), only(wanted, rows));
    Ok(())
}

/// A table as of a clock, without revisions; coverage summed over its parts.
fn table_of(track: &mut Track, table: Table, clock: &LaneClock) -> Vec<String> {
    let snapshot = track.snapshot(table.name(), clock).unwrap();
    let mut rows: Vec<Vec<Cell>> =
        (0..snapshot.n_chunks()).flat_map(|chunk| cells(&snapshot.chunk(chunk, None))).collect();
    if let Ok(column) = table.schema().index_of("revision") {
        rows.iter_mut().for_each(|row| row[column] = Cell::Null);
    }
    sorted(if table == Table::DeviceCoverage { covered(&rows) } else { rows })
}

/// An operator with its store, and one that keeps everything in memory.
pub(super) struct Run {
    pub(super) track: Track,
    whole: Lane,
    time: TimeConfig,
    config: TrackConfig,
    chunk_len: u32,
    pub(super) hot: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) cold: BTreeMap<Vec<u8>, Vec<u8>>,
    newest: Newest,
    n_supplied: usize,
}

fn track(time: TimeConfig, config: TrackConfig, chunk_len: u32) -> Track {
    let mut track = Track::new(time, config);
    track.params.chunk_len = chunk_len;
    track
}

impl Run {
    pub(super) fn new(time: TimeConfig, memory_bytes_max: u64, chunk_len: u32) -> Run {
        let config = TrackConfig { has_store: true, memory_bytes_max, ..TrackConfig::default() };
        let mut whole = Lane::with_chunks(time, TrackConfig::default(), chunk_len);
        whole.clock.revision = 1;
        Run {
            track: track(time, config, chunk_len),
            whole,
            time,
            config,
            chunk_len,
            hot: BTreeMap::new(),
            cold: BTreeMap::new(),
            newest: Newest::default(),
            n_supplied: 0,
        }
    }

    /// Supplies what is wanted until nothing is.
    fn meet(&mut self, need: Need<'_>) -> Result<(), TestCaseError> {
        for _ in 0..1000 {
            let keys = self.track.wanted(need, &self.whole.clock);
            if keys.is_empty() {
                return Ok(());
            }
            prop_assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "each key once");
            self.n_supplied += keys.len();
            let entry = |key: Vec<u8>| StateEntry { value: self.cold.get(&key).cloned(), key };
            let entries: Vec<StateEntry> = keys.into_iter().map(entry).collect();
            self.track.supply(entries).unwrap();
        }
        Err(TestCaseError::fail("it wants on and on"))
    }

    pub(super) fn apply(&mut self, events: &[Event], is_asked: bool) -> Result<(), TestCaseError> {
        let wanted = self.whole.apply(events);
        let events = batch(events);
        if is_asked {
            self.meet(Need::Batch(&events))?;
        }
        let verdicts = self.track.apply(&events, &self.whole.clock);
        if is_asked {
            prop_assert_eq!(verdicts.refused, wanted.refused);
            prop_assert_eq!(verdicts.n_reordered, wanted.n_reordered);
        }
        Ok(())
    }

    pub(super) fn checkpoint(&mut self) -> Result<Changes, TestCaseError> {
        self.meet(Need::Tables)?;
        let clock = self.whole.clock;
        let changes = self.track.checkpoint(&clock).complete();
        let tables: BTreeSet<Table> = changes.rows.iter().map(|(table, _)| *table).collect();
        prop_assert_eq!(tables.len(), changes.rows.len());
        for (table, rows) in &changes.rows {
            self.newest.take(*table, rows, clock.revision)?;
        }
        for (entries, store) in [(&changes.hot, &mut self.hot), (&changes.cold, &mut self.cold)] {
            for StateEntry { key, value } in entries {
                match value {
                    Some(value) => drop(store.insert(key.clone(), value.clone())),
                    None => prop_assert!(store.remove(key).is_some(), "deleted, and was not there"),
                }
            }
        }
        let again = self.track.checkpoint(&clock);
        prop_assert!(again.is_empty(), "nothing has changed since: {again:?}");
        self.whole.clock.revision += 1;
        self.check_newest(&self.newest.clone())?;
        Ok(changes)
    }

    /// The newest versions, and what the open chunks cover, are what the operator holds that was never disturbed.
    fn check_newest(&mut self, newest: &Newest) -> Result<(), TestCaseError> {
        let clock = self.whole.clock;
        for table in TABLES {
            let mut rows = newest.rows(table);
            if table == Table::DeviceCoverage {
                let fresh = self.track.fresh(table, &clock);
                // Of changed chunks it says what was told already.
                let mut all = newest.clone();
                fresh.iter().flat_map(cells).for_each(|row| {
                    let day = row[1].float() as i64;
                    let key = text(&row[..4]);
                    let n_columns = row.len() - 2;
                    let is_deleted = row[n_columns + 1] == Cell::Flag(true);
                    all.0.insert((table.name(), day, key), Version { is_deleted, row: row[..n_columns].to_vec() });
                });
                rows = covered(&all.rows(table));
            }
            same(table.name(), &sorted(rows), &table_of(&mut self.whole.track, table, &clock))?;
        }
        Ok(())
    }

    /// What was handed over and what is fresh is what the operator holds that was never disturbed.
    fn check_fresh(&mut self) -> Result<(), TestCaseError> {
        self.meet(Need::Tables)?;
        let clock = self.whole.clock;
        let mut newest = self.newest.clone();
        for table in TABLES.into_iter().filter(|table| *table != Table::DeviceCoverage) {
            if let Some(fresh) = self.track.fresh(table, &clock) {
                prop_assert!(fresh.num_rows() > 0);
                newest.take(table, &fresh, clock.revision)?;
            }
        }
        self.check_newest(&newest)
    }

    /// The answers to questions.
    fn check_lookups(&mut self, random: &mut Random, events: &[Event]) -> Result<(), TestCaseError> {
        let time_us = events[random.below(events.len() as u64) as usize].time_us + random.below(3) as i64 - 1;
        let length_us = [1, 10 * MINUTE_US, 30 * DAY_US][random.below(3) as usize];
        for name in ["explain_track", "track_at"] {
            let lookup =
                Lookup { table: name.into(), key: "device-0".into(), from_us: time_us, to_us: time_us + length_us };
            self.meet(Need::Lookup(&lookup))?;
            let clock = self.whole.clock;
            let answer = cells(&self.track.lookup(&lookup, &clock).unwrap());
            let wanted = cells(&self.whole.track.lookup(&lookup, &clock).unwrap());
            prop_assert_eq!(sorted(answer), sorted(wanted), "{} {:?}", name, lookup);
        }
        Ok(())
    }

    /// The process dies; the lane goes on from the store.
    pub(super) fn restart(&mut self) -> Result<(), TestCaseError> {
        self.track = track(self.time, self.config, self.chunk_len);
        self.track.restore(&mut self.hot.clone().into_iter()).unwrap();
        self.track.committed(self.whole.clock.revision - 1);
        Ok(())
    }

    /// Brings every chunk.
    fn check_whole(&mut self) -> Result<(), TestCaseError> {
        let all = Lookup { table: "explain_track".into(), key: String::new(), from_us: i64::MIN, to_us: i64::MAX };
        for id in 0..self.track.devices.len() {
            let key = self.track.devices.names().get(id).to_owned();
            self.meet(Need::Lookup(&Lookup { key, ..all.clone() }))?;
        }
        Ok(())
    }
}

/// Batches with checkpoints, commits, restarts and questions between them.
fn disturbed(seed: u64, n_devices: u64, n_events: usize, time: TimeConfig) -> Result<usize, TestCaseError> {
    let mut random = Random(seed);
    let mut events = fleet(n_devices, n_events, &mut random);
    if random.below(3) > 0 {
        disorder(&mut events, &mut random);
    }
    let memory_bytes_max = [0, 0, 5000, 1 << 30][random.below(4) as usize];
    let mut run = Run::new(time, memory_bytes_max, 1 + random.below(20) as u32);
    let is_asked = random.below(4) > 0;
    for events in cut(&events, &mut random) {
        run.apply(&events, is_asked)?;
        if random.below(4) == 0 {
            // Others were heard of.
            let newest_us = &mut run.whole.clock.newest_us;
            *newest_us = newest_us.saturating_add(random.below(3 * HOUR_US as u64) as i64);
        }
        match random.below(8) {
            0 => run.check_fresh()?,
            // How far back an answer reaches beyond the horizon depends on when chunks are forgotten.
            1 if time.late_horizon_us > DAY_US => run.check_lookups(&mut random, &events)?,
            2 | 3 => {
                run.checkpoint()?;
                if random.below(2) == 0 {
                    run.track.committed(run.whole.clock.revision - 1 - random.below(2) as u32);
                }
                if random.below(3) == 0 {
                    run.restart()?;
                }
            }
            _ => {}
        }
    }
    run.checkpoint()?;
    run.restart()?;
    run.check_whole()?;
    run.whole.clock.ended = true;
    run.checkpoint()?;
    Ok(run.n_supplied)
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn what_is_handed_over_is_what_there_is(seed in any::<u64>(), n_devices in 1u64..4, n_events in 1usize..150) {
        disturbed(seed, n_devices, n_events, windows(seed))?;
    }
}

proptest! {
    #![proptest_config(cases(20))]
    #[test]
    fn what_is_behind_the_horizon_stays_handed_over(seed in any::<u64>(), n_events in 1usize..150) {
        let time = TimeConfig { late_horizon_us: HOUR_US, ..windows(seed) };
        disturbed(seed, 2, n_events, time)?;
    }
}

proptest! {
    #![proptest_config(cases(20))]
    #[test]
    fn what_is_made_later_is_as_of_the_checkpoint(seed in any::<u64>(), n_events in 1usize..150) {
        let mut random = Random(seed);
        let mut events = fleet(2, n_events, &mut random);
        disorder(&mut events, &mut random);
        let config = TrackConfig { has_store: true, memory_bytes_max: 0, ..TrackConfig::default() };
        let [mut at_once, mut late] = [(); 2].map(|()| track(windows(seed), config, 8));
        let (mut made, mut to_make) = (Vec::new(), Vec::new());
        for (events, revision) in cut(&events, &mut random).into_iter().zip(1..) {
            let clock = LaneClock { revision, newest_us: events.iter().map(|e| e.time_us).max().unwrap(), ..LaneClock::START };
            for operator in [&mut at_once, &mut late] {
                operator.apply(&batch(&events), &clock);
            }
            made.push(at_once.checkpoint(&clock).complete());
            to_make.push(late.checkpoint(&clock));
        }
        for (made, later) in made.into_iter().zip(to_make) {
            let later = later.complete();
            prop_assert_eq!((made.hot, made.cold, made.rows), (later.hot, later.cold, later.rows));
        }
    }
}

/// The store, some checkpoints into a life.
fn stored() -> Run {
    let mut run = Run::new(TimeConfig::default(), 0, 16);
    let mut random = Random(5);
    let mut events = fleet(2, 120, &mut random);
    events.iter_mut().for_each(|event| event.time_us -= event.time_us.rem_euclid(1000));
    events.dedup_by(|a, b| (&a.device, a.time_us) == (&b.device, b.time_us));
    let late = events.remove(30);
    events.push(late);
    for events in events.chunks(50) {
        run.apply(events, true).unwrap();
        run.checkpoint().unwrap();
        run.track.committed(run.whole.clock.revision - 1);
    }
    run
}

fn restored(run: &Run, hot: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Track, StateError> {
    let mut track = track(run.time, run.config, run.chunk_len);
    track.restore(&mut hot.clone().into_iter())?;
    Ok(track)
}

#[test]
fn a_newer_format_is_refused() {
    let run = stored();
    for at in 0..run.hot.len() {
        let mut hot = run.hot.clone();
        let value = hot.values_mut().nth(at).unwrap();
        let newest = std::mem::replace(&mut value[0], 9);
        match restored(&run, &hot).unwrap_err() {
            StateError::NewerFormat { found: 9, known, .. } => assert_eq!(known, newest),
            other => panic!("{other}"),
        }
    }
    let mut track = restored(&run, &run.hot).unwrap();
    for (key, value) in &run.cold {
        let newer = [&[9], &value[1..]].concat();
        let entry = |value| vec![StateEntry { key: key.clone(), value }];
        assert!(matches!(track.supply(entry(Some(newer))).unwrap_err(), StateError::NewerFormat { found: 9, .. }));
        assert!(matches!(track.supply(entry(None)).unwrap_err(), StateError::Damaged { .. }));
        track.supply(entry(Some(value.clone()))).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(100))]
    #[test]
    fn damage_is_an_error_or_nothing(at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), xor in 1u8..=255, cut in any::<bool>(),
                                     is_key in prop::bool::weighted(0.1)) {
        static RUN: std::sync::LazyLock<Run> = std::sync::LazyLock::new(stored);
        let run = &*RUN;
        let spoil = |bytes: &mut Vec<u8>| {
            let byte = byte.index(bytes.len());
            bytes[byte] ^= xor;
            if cut {
                bytes.truncate(byte);
            }
        };
        let at = at.index(run.hot.len() + run.cold.len());
        let all = run.hot.iter().chain(&run.cold);
        let (mut key, mut value) = all.clone().nth(at).map(|(key, value)| (key.clone(), value.clone())).unwrap();
        let (mut hot, mut cold) = (run.hot.clone(), run.cold.clone());
        let entries = if at < run.hot.len() { &mut hot } else { &mut cold };
        entries.remove(&key);
        spoil(if is_key { &mut key } else { &mut value });
        entries.insert(key, value);
        if let Ok(mut track) = restored(run, &hot) {
            let _ = track.supply(cold.into_iter().map(|(key, value)| StateEntry { key, value: Some(value) }).collect());
        }
    }
}

#[test]
fn a_stop_of_any_length_outlives_a_restart() {
    for (times_s, chunk_len) in LONG_STOPS_S.into_iter().flat_map(|times_s| [1, 2, 16].map(|len| (times_s, len))) {
        let mut run = Run::new(TimeConfig::default(), 0, chunk_len);
        for events in standing(&times_s).chunks(2) {
            run.apply(events, true).unwrap();
            run.checkpoint().unwrap();
            run.restart().unwrap();
        }
        run.check_whole().unwrap();
        run.checkpoint().unwrap();
    }
}

/// Where the bytes of every format are kept.
fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Entries one after the other, each with its key in hexadecimal digits.
fn lines(entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    entries.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect()
}

fn entries(lines: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    let bytes = |hex: &str| hex.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>();
    lines.lines().map(|line| line.split_once(' ').unwrap()).map(|(key, value)| (bytes(key), bytes(value))).collect()
}

/// What was written once is read for ever, and what is written is as it was: devices in format 2, whatever they were read from. Chunks have
/// format 1. `LEGWORK_BLESS=1` writes the files anew, which only a format that was never released allows.
#[test]
fn formats_are_read_and_written_as_ever() {
    if std::env::var_os("LEGWORK_BLESS").is_some() {
        std::fs::write(golden("track-2-hot.hex"), lines(&stored().hot)).unwrap();
    }
    let read = |name| entries(&std::fs::read_to_string(golden(name)).unwrap());
    for read_from in ["track-1-hot.hex", "track-2-hot.hex"] {
        let mut run = stored();
        (run.hot, run.cold) = (read(read_from), read("track-1-cold.hex"));
        run.restart().unwrap();
        run.hot = read("track-2-hot.hex");
        check_as_ever(&mut run);
    }
}

fn check_as_ever(run: &mut Run) {
    run.check_whole().unwrap();
    let (mut hot, mut cold) = (BTreeMap::new(), BTreeMap::new());
    for id in 0..run.track.devices.len() {
        let (name, device) = (run.track.devices.names().get(id), run.track.blocks.get(&run.track.params, id));
        hot.insert(Key::Device(name).to_bytes(), device_value(&device, &run.time, run.track.reps.names()));
        hot.insert(Key::Index(name).to_bytes(), index_value(device.chunks()));
        for chunk in device.chunks() {
            let value = ChunkValue { params: run.track.params, chunk: chunk.clone() };
            cold.insert(Key::Chunk(name, chunk.first_us).to_bytes(), value.to_bytes());
        }
    }
    assert!(hot == run.hot && cold == run.cold, "what is written is not what was read");
    let column = |table: Table, column: &str| table.schema().index_of(column).unwrap();
    let rows = run.track.snapshot("device_movement", &run.whole.clock).unwrap();
    let rows: Vec<_> = (0..rows.n_chunks()).flat_map(|chunk| cells(&rows.chunk(chunk, None))).collect();
    let n_pings: f64 = rows.iter().map(|row| row[column(Table::DeviceMovement, "n_pings")].float()).sum();
    assert_eq!(n_pings, 240.0);
}
