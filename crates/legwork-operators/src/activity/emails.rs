//! E-mails: facts, in the window of their event time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateError, Table, TableSnapshot, Verdicts, emails};

use super::touches::{Concerns, Direction, TouchLog, TouchRow};
use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{Common, DedupConfig, FactLog, Loader, Outcome, Refs, Saver, Tally, changed_rows, opt_text};

const TABLES: [Table; 2] = [Table::RepEmails, Table::Touches];

/// Sections of the state; facts take four, touches three.
const FACTS: u8 = b'a';
const TOUCHES: u8 = b'e';
const WINDOWS: u8 = b'h';

/// E-mails by rep and window, and the touches they are. Key and clock: rep_id. Opens and clicks that software caused
/// (machine = true) are not counted. Sent ones are outbound touches, received and replied ones inbound; what merely happened to an
/// e-mail (delivered, opened, clicked, bounced) is no touch.
#[derive(Debug)]
pub struct Emails {
    facts: FactLog,
    touches: TouchLog,
    windows: Windows<6>,
}

impl Emails {
    /// Without e-mails. With a store, touches leave memory once they were handed over, and so do windows behind the late horizon.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig, has_store: bool) -> Emails {
        Emails {
            facts: FactLog::new(dedup, time.late_horizon_us),
            touches: TouchLog::new("email", has_store),
            windows: Windows::new(time.window_us),
        }
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        let reps = &self.facts.keys.names;
        match table {
            Table::RepEmails => self.windows.versions(table, reps.texts(), revision),
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
        let (counts, direction) = columns.share(row);
        self.windows.add(rep, time_us, &Share::of(counts));
        if let Some(direction) = direction {
            let (deal, lead, account) =
                (opt_text(columns.deal, row), opt_text(columns.lead, row), opt_text(columns.account, row));
            let Concerns { deal, lead, account } = Concerns::intern(&mut self.touches.refs, deal, lead, account);
            let source = self.touches.refs.intern_again(source);
            let id = self.touches.ids.push(&event_id);
            self.touches.rows.insert(TouchRow { time_us, rep, id, source, deal, lead, account, direction, status: 0 });
        }
        outcome
    }
}

struct Columns<'a> {
    common: Common<'a>,
    rep: &'a StringArray,
    kind: &'a StringArray,
    machine: &'a BooleanArray,
    deal: &'a StringArray,
    lead: &'a StringArray,
    account: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(events: &'a EventBatch) -> Columns<'a> {
        Columns {
            common: Common::of(events),
            rep: events.strings(emails::REP_ID),
            kind: events.strings(emails::KIND),
            machine: events.columns.column(emails::MACHINE).as_boolean(),
            deal: events.strings(emails::DEAL_ID),
            lead: events.strings(emails::LEAD_ID),
            account: events.strings(emails::ACCOUNT_ID),
        }
    }

    /// Counts in the order of the table's columns, and the direction where it is a touch.
    fn share(&self, row: usize) -> ([u32; 6], Option<Direction>) {
        let by_machine = self.machine.is_valid(row) && self.machine.value(row);
        let by_human = u32::from(!by_machine);
        match self.kind.value(row) {
            "sent" => ([1, 0, 0, 0, 0, 0], Some(Direction::Outbound)),
            "received" => ([0, 1, 0, 0, 0, 0], Some(Direction::Inbound)),
            "opened" => ([0, 0, by_human, 0, 0, 0], None),
            "clicked" => ([0, 0, 0, by_human, 0, 0], None),
            "bounced" => ([0, 0, 0, 0, 1, 0], None),
            "replied" => ([0, 0, 0, 0, 0, 1], Some(Direction::Inbound)),
            _ => ([0; 6], None),
        }
    }
}

impl Operator for Emails {
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
            Table::RepEmails => Some(self.windows.snapshot(Table::RepEmails, reps.texts())),
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
