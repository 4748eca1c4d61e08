//! A world of several instances, one thread and one seed: a log, a store and a lake that fail, crashes between any two steps, partitions
//! that move, owners that do not know that they are none any more. Whatever happens, live rows and lake together are what a lane without
//! any of that holds over the same messages.
//!
//! `LEGWORK_SIM_SEEDS=N` runs N seeds, `LEGWORK_SIM_SEED=S` one; a seed that failed is told and stays in `FAILED_ONCE`.

mod events;
mod faults;
mod instance;
mod lake;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field};
use legwork_codec::{Decoder, Format};
use legwork_state::MemoryStore;
use legwork_types::{Kind, LaneId, LaneState, LaneStatus, Table};
use tempfile::TempDir;

use self::events::message;
use self::faults::Dice;
use self::instance::{Instance, spec};
use self::lake::Lake;
use self::log::Log;
use crate::delivery::{lake_tables, newest};
use crate::stream_lane::StreamLane;

/// Seeds that failed once, with what was wrong.
const FAILED_ONCE: &[u64] = &[
    // A former owner that the lake is ahead of showed rows of its own beside those of its successor.
    3_534,
];
const N_INSTANCES: usize = 3;
const N_STEPS: usize = 1_500;

struct World {
    dice: Dice,
    log: Log,
    store: MemoryStore,
    lake: Lake,
    instances: Vec<Instance>,
    lanes: Vec<(LaneId, Kind)>,
    /// Who owns each lane, for the log.
    owners: BTreeMap<LaneId, usize>,
    now: Instant,
    passed_s: i64,
    trace: Vec<String>,
    /// Of the lane that each is compared with.
    folder: TempDir,
}

impl World {
    fn new(seed: u64) -> World {
        let dice = Dice::new(seed);
        let lanes = [(Kind::Gps, 0), (Kind::Gps, 1), (Kind::Calls, 0), (Kind::Emails, 0), (Kind::DealEvents, 0)];
        let lanes: Vec<(LaneId, Kind)> =
            lanes.into_iter().map(|(kind, partition)| (LaneId::new(kind.topic(), partition), kind)).collect();
        let store = MemoryStore::new();
        let lake = Lake { tables: Arc::default(), dice: dice.clone() };
        let log = Log::default();
        let instances = (0..N_INSTANCES).map(|_| Instance::new(&dice, &store, &lake)).collect();
        let mut world = World {
            dice,
            log,
            store,
            lake,
            instances,
            lanes: lanes.clone(),
            owners: BTreeMap::new(),
            now: Instant::now(),
            passed_s: 0,
            trace: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        for (idx, (lane, kind)) in lanes.into_iter().enumerate() {
            world.assign(&lane, kind, idx % N_INSTANCES);
        }
        world
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    fn assign(&mut self, lane: &LaneId, kind: Kind, to: usize) {
        self.owners.insert(lane.clone(), to);
        self.instances[to].add(lane, kind, &self.log);
    }

    fn step(&mut self) {
        let idx = self.dice.below(N_INSTANCES);
        match self.dice.below(100) {
            0..25 => self.produce(),
            25..55 => {
                let lane = self.lanes[self.dice.below(self.lanes.len())].0.clone();
                self.instances[idx].step(&lane, self.now);
            }
            55..75 => self.instances[idx].drive(),
            75..84 => self.instances[idx].commit(self.dice.chance(0.2), self.now),
            84..91 => {
                let ms = self.dice.below(8_000) as u64;
                self.now += Duration::from_millis(ms);
                self.passed_s += self.dice.between(0, 240);
            }
            91..94 => self.crash(idx),
            94..97 => self.move_lane(),
            _ => {
                let lane = self.lanes[self.dice.below(self.lanes.len())].clone();
                self.check(&lane.0, lane.1);
            }
        }
    }

    fn produce(&mut self) {
        for _ in 0..1 + self.dice.below(40) {
            let (lane, kind) = self.lanes[self.dice.below(self.lanes.len())].clone();
            self.passed_s += self.dice.between(0, 3);
            self.log.append(&lane, message(&self.dice, &lane, kind, self.passed_s));
        }
    }

    /// A process dies, and another one starts with the same partitions.
    fn crash(&mut self, idx: usize) {
        self.note(format!("instance {idx} crashes"));
        self.instances[idx] = Instance::new(&self.dice, &self.store, &self.lake);
        for (lane, kind) in self.lanes.clone() {
            if self.owners[&lane] == idx {
                self.assign(&lane, kind, idx);
            }
        }
    }

    /// A partition goes to another instance: let go of in good order, lost, or unnoticed.
    fn move_lane(&mut self) {
        let (lane, kind) = self.lanes[self.dice.below(self.lanes.len())].clone();
        let from = self.owners[&lane];
        let to = (from + 1 + self.dice.below(N_INSTANCES - 1)) % N_INSTANCES;
        match self.dice.below(3) {
            0 => {
                self.note(format!("{lane} goes from {from} to {to}"));
                self.instances[from].revoke(&lane, false, self.now);
            }
            1 => {
                self.note(format!("{lane} is lost by {from} to {to}"));
                self.instances[from].revoke(&lane, true, self.now);
            }
            _ => self.note(format!("{lane} is taken by {to}, {from} does not know")),
        }
        self.assign(&lane, kind, to);
    }

    /// Lake and live rows of the owner together are what the messages read so far make.
    fn check(&mut self, lane: &LaneId, kind: Kind) -> bool {
        let owner = self.owners[lane];
        let Some((status, fresh)) = self.instances[owner].shows(lane, kind) else { return false };
        // An owner whose claim somebody has taken who did not know of it, and who has delivered since: queries say that they lack its rows.
        if fresh.iter().any(|(table, rows)| self.lake.through(table, lane) > rows.durable) {
            return false;
        }
        let mut expected = self.undisturbed(lane, kind, status.next_offset);
        let wanted = expected.status();
        let counts = |s: &LaneStatus| {
            [s.n_read, s.n_accepted, s.n_late, s.n_rejected, s.n_duplicates, s.n_tombstones, s.n_reordered]
        };
        assert_eq!(counts(&status), counts(&wanted), "accounting of {lane} at offset {}", status.next_offset);
        assert_eq!(status.n_read, status.next_offset, "every message of {lane} is accounted for");
        for table in lake_tables(kind) {
            let through = self.lake.through(table, lane);
            let mut rows = self.lake.rows(table, lane);
            let live = fresh.get(table).into_iter().flat_map(|fresh| &fresh.rows);
            let shown = match Table::by_name(table) {
                Some(table) => {
                    rows.extend(live.map(|(_, batch)| batch.clone()));
                    without_retractions(&newest(table, &rows))
                }
                None => {
                    rows.extend(live.filter(|(number, _)| *number > through).map(|(_, batch)| batch.clone()));
                    arrow::compute::concat_batches(&crate::event_table_schema(kind), &rows).unwrap()
                }
            };
            let snapshot = expected.lane.snapshot(table).unwrap();
            let wanted = (0..snapshot.n_chunks()).map(|idx| snapshot.chunk(idx, None));
            let mut wanted: BTreeSet<String> = wanted.flat_map(|chunk| lines(&chunk)).collect();
            let n_shown = shown.num_rows();
            let mut shown: BTreeSet<String> = lines(&shown).into_iter().collect();
            assert_eq!(shown.len(), n_shown, "a row of {table} came twice");
            if table == Table::DeviceCoverage.name() {
                (wanted, shown) = (summed(&wanted), summed(&shown));
            }
            let missing: Vec<_> = wanted.difference(&shown).take(3).collect();
            let wrong: Vec<_> = shown.difference(&wanted).take(3).collect();
            assert!(
                missing.is_empty() && wrong.is_empty(),
                "{table} of {lane} at offset {}, lake through {through}:\nmissing {missing:#?}\nwrong {wrong:#?}",
                status.next_offset
            );
        }
        true
    }

    /// The lane without store, lake or faults after the same messages.
    fn undisturbed(&self, lane: &LaneId, kind: Kind, offset: i64) -> StreamLane {
        let log = Log::default();
        for message in self.log.until(lane, offset).iter() {
            let record = log::Record {
                key: message.key.unwrap_or_default().to_vec(),
                value: message.value.map(<[u8]>::to_vec),
                arrival_us: message.arrival_us,
            };
            log.append(lane, record);
        }
        let spec = spec(lane, kind, None, &self.folder);
        let config = spec.config.clone();
        let decoder = Decoder::new(kind, Format::Json, config.message_bytes_max);
        let mut calm =
            StreamLane::new(spec, log.reader(lane, 10_000), (decoder, &Format::Json), config, Arc::new(|| {}));
        let mut now = self.now;
        while calm.status().next_offset < offset {
            now += Duration::from_secs(1);
            calm.step(now);
        }
        calm
    }

    /// Nothing fails any more: everything must come to rest, and be right, with the lake alone.
    fn come_to_rest(&mut self) {
        self.note("calm".to_owned());
        self.dice.calm_down();
        for idx in 0..N_INSTANCES {
            self.crash(idx);
        }
        for round in 0..6_000 {
            self.now += Duration::from_secs(3);
            for idx in 0..N_INSTANCES {
                for (lane, _) in self.lanes.clone() {
                    self.instances[idx].step(&lane, self.now);
                }
                self.instances[idx].drive();
                self.instances[idx].commit(round % 5 == 4, self.now);
            }
            if self.lanes.iter().all(|(lane, _)| self.instances[self.owners[lane]].is_at_rest(lane, self.log.end(lane)))
            {
                break;
            }
        }
        for (lane, kind) in self.lanes.clone() {
            let status = self.instances[self.owners[&lane]].status(&lane).unwrap();
            assert_eq!(status.state, LaneState::Running, "{lane}: {}", status.detail);
            assert_eq!(status.next_offset, self.log.end(&lane), "{lane} has come to the end of its log");
            assert!(self.check(&lane, kind), "{lane} answers");
            for table in lake_tables(kind) {
                let fresh = self.instances[self.owners[&lane]].waits_for_lake(&lane, table);
                assert_eq!(fresh, 0, "rows of {table} that the lake does not hold in the end");
            }
        }
    }
}

fn without_retractions(versions: &RecordBatch) -> RecordBatch {
    let is_deleted = versions.column_by_name("is_deleted").unwrap().as_boolean();
    let live: BooleanArray = is_deleted.values().iter().map(|is_deleted| Some(!is_deleted)).collect();
    filter_record_batch(versions, &live).unwrap()
}

/// Rows as text, without what a checkpoint adds and what the clock decides.
fn lines(rows: &RecordBatch) -> Vec<String> {
    let kept = rows.schema();
    let kept = kept.fields().iter().enumerate();
    let kept = kept.filter(|(_, field)| !["revision", "is_deleted", "is_open"].contains(&field.name().as_str()));
    // Times as numbers: as text they would need a feature of Arrow that only larger builds have.
    let column = |(idx, field): (usize, &Arc<Field>)| match field.data_type() {
        DataType::Timestamp(..) => (field.name().clone(), cast(rows.column(idx), &DataType::Int64).unwrap()),
        _ => (field.name().clone(), rows.column(idx).clone()),
    };
    let kept = RecordBatch::try_from_iter(kept.map(column)).unwrap();
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(&kept).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

/// Coverage without its parts: where one ends and the next begins is not a matter of the events alone, their sums are.
fn summed(parts: &BTreeSet<String>) -> BTreeSet<String> {
    let mut cells: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    for part in parts {
        let part: serde_json::Value = serde_json::from_str(part).unwrap();
        let number = |name: &str| part[name].as_i64().unwrap();
        let (n_pings, first, last) = (number("n_pings"), number("first_fix_time"), number("last_fix_time"));
        let cell = format!("{} {} {}", part["device_id"], part["day_start"], part["h3_cell"]);
        let sum = cells.entry(cell).or_insert((0, first, last));
        *sum = (sum.0 + n_pings, sum.1.min(first), sum.2.max(last));
    }
    cells.into_iter().map(|(cell, sum)| format!("{cell} {sum:?}")).collect()
}

fn run(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    for _ in 0..N_STEPS {
        world.step();
    }
    world.come_to_rest();
    world.trace
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_happens_lake_and_live_rows_are_right() {
    if let Some(seed) = number("LEGWORK_SIM_SEED") {
        run(seed);
        return;
    }
    let n_seeds = number("LEGWORK_SIM_SEEDS").unwrap_or(200);
    for seed in FAILED_ONCE.iter().copied().chain(0..n_seeds) {
        let ran = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = ran {
            eprintln!("seed {seed} failed: LEGWORK_SIM_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic);
        }
        if seed > 0 && seed % 1_000 == 0 {
            eprintln!("{seed} of {n_seeds} seeds passed");
        }
    }
}

#[test]
fn no_two_runs_share_a_folder() {
    let dirs: BTreeSet<_> = (0..2)
        .flat_map(|_| {
            let world = World::new(7);
            let (lane, kind) = world.lanes[0].clone();
            [
                spec(&lane, kind, None, &world.folder).config.spill.dir.clone(),
                world.instances[0].folder.path().to_owned(),
            ]
        })
        .collect();
    assert_eq!(dirs.len(), 4);
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    assert_eq!(run(7), run(7));
}
