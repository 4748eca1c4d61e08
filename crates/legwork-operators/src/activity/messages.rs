//! Messages: facts, in the window of their event time.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateError, Table, TableSnapshot, Verdicts, messages};

use super::touches::{Concerns, Direction, TouchLog, TouchRow};
use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{Common, DedupConfig, FactLog, Loader, Outcome, Refs, Saver, Tally, changed_rows, opt_text};

const TABLES: [Table; 2] = [Table::RepMessages, Table::Touches];

/// Sections of the state; facts take four, touches three.
const FACTS: u8 = b'a';
const TOUCHES: u8 = b'e';
const WINDOWS: u8 = b'h';

/// Messages by rep and window, and the touches they are, on channel `message` whatever the medium. Key and clock: rep_id.
#[derive(Debug)]
pub struct Messages {
    facts: FactLog,
    touches: TouchLog,
    windows: Windows<3>,
}

impl Messages {
    /// Without messages. With a store, touches leave memory once they were handed over, and so do windows behind the late horizon.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig, has_store: bool) -> Messages {
        Messages {
            facts: FactLog::new(dedup, time.late_horizon_us),
            touches: TouchLog::new("message", has_store),
            windows: Windows::new(time.window_us),
        }
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        let reps = &self.facts.keys.names;
        match table {
            Table::RepMessages => self.windows.versions(table, reps.texts(), revision),
            Table::Touches => self.touches.view(reps).versions(&self.touches.rows, revision),
            _ => None,
        }
    }

    fn take(&mut self, columns: &Columns<'_>, row: usize) -> Outcome {
        let common = &columns.common;
        let (event_id, source, time_us) = (common.event_id(row), common.source(row), common.time_us(row));
        let rep = self.facts.keys.intern(columns.rep.value(row));
        let outcome = self.facts.offer(rep, source, &event_id, time_us);
        if !matches!(outcome, Outcome::Accepted { .. }) {
            return outcome;
        }
        let direction = Direction::parse(columns.direction.value(row));
        let is_inbound = u32::from(direction == Direction::Inbound);
        self.windows.add(rep, time_us, &Share::of([1, is_inbound, 1 - is_inbound]));
        let (deal, lead, account) =
            (opt_text(columns.deal, row), opt_text(columns.lead, row), opt_text(columns.account, row));
        let Concerns { deal, lead, account } = Concerns::intern(&mut self.touches.refs, deal, lead, account);
        let source = self.touches.refs.intern_again(source);
        let id = self.touches.ids.push(&event_id);
        self.touches.rows.insert(TouchRow { time_us, rep, id, source, deal, lead, account, direction, status: 0 });
        outcome
    }
}

struct Columns<'a> {
    common: Common<'a>,
    rep: &'a StringArray,
    direction: &'a StringArray,
    deal: &'a StringArray,
    lead: &'a StringArray,
    account: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(events: &'a EventBatch) -> Columns<'a> {
        Columns {
            common: Common::of(events),
            rep: events.strings(messages::REP_ID),
            direction: events.strings(messages::DIRECTION),
            deal: events.strings(messages::DEAL_ID),
            lead: events.strings(messages::LEAD_ID),
            account: events.strings(messages::ACCOUNT_ID),
        }
    }
}

impl Operator for Messages {
    fn apply(&mut self, events: &EventBatch, _clock: &LaneClock) -> Verdicts {
        let columns = Columns::of(events);
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            tally.count(row, self.take(&columns, row));
        }
        tally.verdicts()
    }

    fn tables(&self) -> Vec<&'static str> {
        TABLES.map(Table::name).to_vec()
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        let reps = &self.facts.keys.names;
        match Table::by_name(table)? {
            Table::RepMessages => Some(self.windows.snapshot(Table::RepMessages, reps.texts())),
            Table::Touches => Some(self.touches.view(reps).snapshot(&self.touches.rows)),
            _ => None,
        }
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let rows = changed_rows(&TABLES, |table| self.versions(table, clock.revision));
        let mut saver = Saver::default();
        self.facts.save(FACTS, &mut saver);
        self.touches.save(TOUCHES, &mut saver);
        if self.touches.has_store {
            self.windows.retire(|rep| self.facts.horizon_us(rep));
        }
        self.windows.save(WINDOWS, &mut saver);
        self.windows.forget_changes();
        Changes { hot: saver.entries(), rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        self.versions(table, clock.revision)
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        self.facts.load(FACTS, &mut loader)?;
        let n_reps = self.facts.keys.names.len();
        self.touches.load(TOUCHES, &mut loader, n_reps)?;
        self.windows.load(WINDOWS, &mut loader, Refs { section: WINDOWS, n: n_reps })?;
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.facts.memory_bytes() + self.touches.memory_bytes() + self.windows.memory_bytes()
    }
}
