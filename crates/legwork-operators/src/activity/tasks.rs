//! Tasks: entities, in the window of when they are due.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateError, Table, TableSnapshot, Verdicts, tasks};

use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{
    Candidate, ClockOf, Common, DedupConfig, Entities, Fingerprint, Interner, Loader, Outcome, Place, Refs, Saver,
    Tally, changed_rows, opt_text,
};

/// Sections of the state; tasks take five.
const REPS: u8 = b'a';
const TASKS: u8 = b'b';

/// A task in the store: due, rep, completed.
type TaskWire = (i64, u32, bool);

#[derive(Clone, Copy, Debug)]
struct Task {
    due_us: i64,
    rep: u32,
    is_completed: bool,
}

/// Tasks by rep and window. Key and clock: task_id. A task belongs to the window of its due_time, else of its event_time;
/// `n_completed` counts those of the window's tasks that are done, whenever that was.
#[derive(Debug)]
pub struct Tasks {
    entities: Entities,
    reps: Interner,
    tasks: Vec<Task>,
    windows: Windows<2>,
}

impl Tasks {
    /// Without tasks.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig) -> Tasks {
        Tasks {
            entities: Entities::new(dedup, Some(time)),
            reps: Interner::default(),
            tasks: Vec::new(),
            windows: Windows::new(time.window_us),
        }
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        (table == Table::RepTasks).then(|| self.windows.versions(table, self.reps.texts(), revision)).flatten()
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
        let offered = self.entities.offer(&candidate, ClockOf::Itself);
        if offered.place == Place::Nowhere {
            return offered.outcome;
        }
        let task = Task {
            due_us: time_us(columns.due, row).unwrap_or(candidate.event_time_us),
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
        tally.verdicts()
    }

    fn tables(&self) -> Vec<&'static str> {
        vec![Table::RepTasks.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        (table == Table::RepTasks.name()).then(|| self.windows.snapshot(Table::RepTasks, self.reps.texts()))
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let rows = changed_rows(&[Table::RepTasks], |table| self.versions(table, clock.revision));
        self.windows.forget_changes();
        let mut saver = Saver::default();
        self.reps.save(REPS, &mut saver);
        self.entities.save(TASKS, &mut saver, |number| -> TaskWire {
            let Task { due_us, rep, is_completed } = self.tasks[number as usize];
            (due_us, rep, is_completed)
        });
        Changes { hot: saver.entries(), rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        self.versions(table, clock.revision)
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        self.reps = loader.interner(REPS)?;
        let reps = Refs { section: TASKS, n: self.reps.len() };
        for (due_us, rep, is_completed) in self.entities.load::<TaskWire>(TASKS, &mut loader, None)? {
            let task = Task { due_us, rep: reps.known(rep)?, is_completed };
            self.windows.add(rep, due_us, &share(&task));
            self.tasks.push(task);
        }
        self.windows.forget_changes();
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.entities.memory_bytes()
            + self.reps.memory_bytes()
            + self.tasks.capacity() * size_of::<Task>()
            + self.windows.memory_bytes()
    }
}
