//! Tasks: entities, in the window of when they are due.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateEntry, StateError, Table, TableSnapshot, Verdicts, tasks};

use super::windows::{Share, Windows};
use crate::state::{
    ArchiveConfig, Candidate, ClockOf, Common, DedupConfig, Entities, Fingerprint, Interner, Loader, Outcome, Place,
    Refs, Saver, Tally, changed_rows, damaged, opt_text,
};
use crate::{Need, Operator};

/// Sections of the state; tasks take five.
const REPS: u8 = b'a';
const TASKS: u8 = b'b';
const WINDOWS: u8 = b'g';
const AWAY_WINDOWS: u8 = b'h';
const AWAY_TASKS: u8 = b'i';

/// A task in the store: due, rep, completed.
type TaskWire = (i64, u32, bool);

#[derive(Clone, Copy, Debug)]
struct Task {
    due_us: i64,
    rep: u32,
    is_completed: bool,
}

/// Tasks by rep and window. Key and clock: task_id. A task belongs to the window of its due_time, else of its event_time;
/// `n_completed` counts those of the window's tasks that are done, whenever that was. With a store, tasks and windows that are older than
/// the late horizon are only there until a version comes that changes them.
#[derive(Debug)]
pub struct Tasks {
    time: TimeConfig,
    has_store: bool,
    entities: Entities<TaskWire>,
    reps: Interner,
    tasks: Vec<Task>,
    windows: Windows<2>,
}

impl Tasks {
    /// Without tasks. With a store, `n_kept_min` of them and of their windows stay in memory in any case.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig, n_kept_min: Option<usize>) -> Tasks {
        let after_us = time.late_horizon_us;
        let archive = |section| n_kept_min.map(|n_kept_min| ArchiveConfig { section, n_kept_min, after_us });
        Tasks {
            time: *time,
            has_store: n_kept_min.is_some(),
            entities: Entities::new(dedup, Some(time), archive(AWAY_TASKS)),
            reps: Interner::default(),
            tasks: Vec::new(),
            windows: Windows::new(time.window_us, archive(AWAY_WINDOWS)),
        }
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        (table == Table::RepTasks).then(|| self.windows.versions(table, self.reps.texts(), revision)).flatten()
    }

    /// Lets go of what is done.
    fn leave(&mut self, clock: &LaneClock, cold: &mut Vec<StateEntry>) {
        self.windows.leave(clock, &self.time, cold);
        let wire = |number: u32| self.tasks[number as usize].wire();
        if let Some(kept) = self.entities.leave(clock, ClockOf::Itself, cold, wire) {
            self.tasks = kept.iter().map(|old| self.tasks[*old as usize]).collect();
        }
    }

    fn take(&mut self, columns: &Columns<'_>, row: usize) -> Outcome {
        let common = &columns.common;
        let event_id = common.event_id(row);
        let candidate = Candidate {
            id: columns.task.value(row),
            event_time_us: common.time_us(row),
            sequence: common.sequence(row),
            event_id: &event_id,
            source: common.source(row),
            content: columns.content(row),
        };
        if let Some(task) = self.entities.bring_back(candidate.id, ClockOf::Itself) {
            self.tasks.push(Task::of(task));
        }
        let offered = self.entities.offer(&candidate, ClockOf::Itself);
        if offered.place == Place::Nowhere {
            return offered.outcome;
        }
        let task = Task {
            due_us: columns.place_us(row),
            rep: self.reps.intern(columns.rep.value(row)),
            is_completed: columns.completed.is_valid(row),
        };
        if let Place::Newest(number) = offered.place {
            let old = std::mem::replace(&mut self.tasks[number as usize], task);
            self.windows.subtract(old.rep, old.due_us, &share(&old));
        } else {
            self.tasks.push(task);
        }
        self.windows.add(task.rep, task.due_us, &share(&task));
        offered.outcome
    }
}

impl Task {
    fn of((due_us, rep, is_completed): TaskWire) -> Task {
        Task { due_us, rep, is_completed }
    }

    fn wire(&self) -> TaskWire {
        (self.due_us, self.rep, self.is_completed)
    }
}

fn share(task: &Task) -> Share<2> {
    Share::of([1, u32::from(task.is_completed)])
}

fn time_us(times: &TimestampMicrosecondArray, row: usize) -> Option<i64> {
    times.is_valid(row).then(|| times.value(row))
}

struct Columns<'a> {
    common: Common<'a>,
    task: &'a StringArray,
    rep: &'a StringArray,
    kind: &'a StringArray,
    due: &'a TimestampMicrosecondArray,
    completed: &'a TimestampMicrosecondArray,
    deal: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(events: &'a EventBatch) -> Columns<'a> {
        Columns {
            common: Common::of(events),
            task: events.strings(tasks::TASK_ID),
            rep: events.strings(tasks::REP_ID),
            kind: events.strings(tasks::KIND),
            due: events.times(tasks::DUE_TIME),
            completed: events.times(tasks::COMPLETED_TIME),
            deal: events.strings(tasks::DEAL_ID),
        }
    }

    /// The time whose window it belongs to.
    fn place_us(&self, row: usize) -> i64 {
        time_us(self.due, row).unwrap_or(self.common.time_us(row))
    }

    fn content(&self, row: usize) -> u64 {
        Fingerprint::default()
            .text(self.rep.value(row))
            .text(self.kind.value(row))
            .opt_int(time_us(self.due, row))
            .opt_int(time_us(self.completed, row))
            .opt_text(opt_text(self.deal, row))
            .u64()
    }
}

impl Operator for Tasks {
    fn apply(&mut self, events: &EventBatch, _clock: &LaneClock) -> Verdicts {
        let columns = Columns::of(events);
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            tally.count(row, self.take(&columns, row));
        }
        self.entities.forget_brought();
        self.windows.forget_brought();
        tally.verdicts()
    }

    fn wanted(&mut self, need: Need<'_>, _clock: &LaneClock) -> Vec<Vec<u8>> {
        let are_all_here = self.entities.are_all_here() && self.windows.are_all_here();
        let (Need::Batch(events), false) = (need, are_all_here) else { return Vec::new() };
        let columns = Columns::of(events);
        let mut keys = BTreeSet::new();
        for row in 0..events.n_rows() {
            let id = columns.task.value(row);
            keys.extend(self.entities.wanted(id));
            let held = self.entities.find(id).map(|number| self.tasks[number as usize]);
            let leaves = held.or_else(|| self.entities.look(id).map(|wire| Task::of(*wire)));
            let rep = self.reps.number(columns.rep.value(row));
            // The window that it may leave, and the one that it comes into.
            let places = leaves.map(|task| (task.rep, task.due_us)).into_iter();
            let places = places.chain(rep.map(|rep| (rep, columns.place_us(row))));
            keys.extend(places.filter_map(|(rep, time_us)| self.windows.wanted(rep, time_us)));
        }
        keys.into_iter().collect()
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        let reps = Refs { section: TASKS, n: self.reps.len() };
        for entry in cold {
            let check = |(_, rep, _): &TaskWire| reps.known(*rep).map(|_| ());
            if !self.entities.supply(&entry, check)? && !self.windows.supply(&entry)? {
                return Err(damaged(TASKS, 0, "an entry that was not asked for"));
            }
        }
        Ok(())
    }

    fn committed(&mut self, revision: u32) {
        self.entities.committed(revision);
        self.windows.committed(revision);
    }

    fn tables(&self) -> Vec<&'static str> {
        vec![Table::RepTasks.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        (table == Table::RepTasks.name()).then(|| self.windows.snapshot(Table::RepTasks, self.reps.texts()))
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let rows = changed_rows(&[Table::RepTasks], |table| self.versions(table, clock.revision));
        let (mut saver, mut cold) = (Saver::default(), Vec::new());
        if !rows.is_empty() {
            self.leave(clock, &mut cold);
        }
        self.reps.save(REPS, &mut saver);
        self.entities.save(TASKS, &mut saver, |number| self.tasks[number as usize].wire());
        if self.has_store {
            self.windows.save(WINDOWS, &mut saver);
        }
        self.windows.forget_changes();
        Changes { hot: saver.entries(), cold, rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        self.versions(table, clock.revision)
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        self.reps = loader.interner(REPS)?;
        let reps = Refs { section: TASKS, n: self.reps.len() };
        let tasks = self.entities.load(TASKS, &mut loader, None)?;
        let has_windows = self.has_store && self.windows.load(WINDOWS, &mut loader, reps)?;
        for wire in tasks {
            let task = Task::of(wire);
            reps.known(task.rep)?;
            if !has_windows {
                self.windows.add(task.rep, task.due_us, &share(&task));
            }
            self.tasks.push(task);
        }
        if !has_windows {
            self.windows.take_over();
        }
        self.entities.load_away(&mut loader)?;
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.entities.memory_bytes()
            + self.reps.memory_bytes()
            + self.tasks.capacity() * size_of::<Task>()
            + self.windows.memory_bytes()
    }
}
