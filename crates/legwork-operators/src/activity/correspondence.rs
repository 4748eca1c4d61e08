//! E-mails and messages: facts, in the window of their event time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateError, Table, TableSnapshot, Verdicts, emails, messages};

use super::touches::{Concerns, Direction, TouchLog, TouchRow};
use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{Common, DedupConfig, FactLog, Loader, Outcome, Refs, Saver, Tally, changed_rows, opt_text};

/// Sections of the state; facts take four, touches three.
const FACTS: u8 = b'a';
const TOUCHES: u8 = b'e';
const WINDOWS: u8 = b'h';

/// What counts by rep and window, and the touches that are among it. Key and clock: rep_id.
#[derive(Debug)]
pub struct Correspondence<const N: usize> {
    medium: Medium<N>,
    facts: FactLog,
    touches: TouchLog,
    windows: Windows<N>,
}

/// Counts of a row in the order of the table's columns, and the direction where it is a touch.
type Shared<const N: usize> = ([u32; N], Option<Direction>);

/// What tells e-mails from messages.
#[derive(Debug)]
struct Medium<const N: usize> {
    table: Table,
    channel: &'static str,
    columns: fn(&EventBatch) -> Columns<'_>,
    share: fn(&Columns<'_>, usize) -> Shared<N>,
}

impl Correspondence<6> {
    /// Without e-mails. Opens and clicks that software caused (machine = true) are not counted. Sent ones are outbound touches, received and
    /// replied ones inbound; what merely happened to an e-mail (delivered, opened, clicked, bounced) is no touch. With a store, touches leave
    /// memory once they were handed over, and so do windows behind the late horizon.
    pub fn emails(time: &TimeConfig, dedup: &DedupConfig, has_store: bool) -> Correspondence<6> {
        let medium =
            Medium { table: Table::RepEmails, channel: "email", columns: email_columns, share: share_of_email };
        Correspondence::new(medium, time, dedup, has_store)
    }
}

impl Correspondence<3> {
    /// Without messages. All are touches on channel `message`, whatever the medium. With a store, as e-mails.
    pub fn messages(time: &TimeConfig, dedup: &DedupConfig, has_store: bool) -> Correspondence<3> {
        let medium =
            Medium { table: Table::RepMessages, channel: "message", columns: message_columns, share: share_of_message };
        Correspondence::new(medium, time, dedup, has_store)
    }
}

impl<const N: usize> Correspondence<N> {
    fn new(medium: Medium<N>, time: &TimeConfig, dedup: &DedupConfig, has_store: bool) -> Correspondence<N> {
        Correspondence {
            facts: FactLog::new(dedup, time.late_horizon_us),
            touches: TouchLog::new(medium.channel, has_store),
            windows: Windows::new(time.window_us, None),
            medium,
        }
    }

    fn tables(&self) -> [Table; 2] {
        [self.medium.table, Table::Touches]
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        let reps = &self.facts.keys.names;
        match table {
            Table::Touches => self.touches.view(reps).versions(&self.touches.rows, revision),
            table if table == self.medium.table => self.windows.versions(table, reps.texts(), revision),
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
        let (counts, direction) = (self.medium.share)(columns, row);
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
    /// The kind of an e-mail, the direction of a message.
    what: &'a StringArray,
    machine: Option<&'a BooleanArray>,
    deal: &'a StringArray,
    lead: &'a StringArray,
    account: &'a StringArray,
}

fn email_columns(events: &EventBatch) -> Columns<'_> {
    Columns {
        common: Common::of(events),
        rep: events.strings(emails::REP_ID),
        what: events.strings(emails::KIND),
        machine: Some(events.columns.column(emails::MACHINE).as_boolean()),
        deal: events.strings(emails::DEAL_ID),
        lead: events.strings(emails::LEAD_ID),
        account: events.strings(emails::ACCOUNT_ID),
    }
}

fn message_columns(events: &EventBatch) -> Columns<'_> {
    Columns {
        common: Common::of(events),
        rep: events.strings(messages::REP_ID),
        what: events.strings(messages::DIRECTION),
        machine: None,
        deal: events.strings(messages::DEAL_ID),
        lead: events.strings(messages::LEAD_ID),
        account: events.strings(messages::ACCOUNT_ID),
    }
}

fn share_of_email(columns: &Columns<'_>, row: usize) -> Shared<6> {
    let by_machine = columns.machine.is_some_and(|machine| machine.is_valid(row) && machine.value(row));
    let by_human = u32::from(!by_machine);
    match columns.what.value(row) {
        "sent" => ([1, 0, 0, 0, 0, 0], Some(Direction::Outbound)),
        "received" => ([0, 1, 0, 0, 0, 0], Some(Direction::Inbound)),
        "opened" => ([0, 0, by_human, 0, 0, 0], None),
        "clicked" => ([0, 0, 0, by_human, 0, 0], None),
        "bounced" => ([0, 0, 0, 0, 1, 0], None),
        "replied" => ([0, 0, 0, 0, 0, 1], Some(Direction::Inbound)),
        _ => ([0; 6], None),
    }
}

fn share_of_message(columns: &Columns<'_>, row: usize) -> Shared<3> {
    let direction = Direction::parse(columns.what.value(row));
    let is_inbound = u32::from(direction == Direction::Inbound);
    ([1, is_inbound, 1 - is_inbound], Some(direction))
}

impl<const N: usize> Operator for Correspondence<N> {
    fn apply(&mut self, events: &EventBatch, _clock: &LaneClock) -> Verdicts {
        let columns = (self.medium.columns)(events);
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            tally.count(row, self.take(&columns, row));
        }
        tally.verdicts()
    }

    fn tables(&self) -> Vec<&'static str> {
        Correspondence::tables(self).map(Table::name).to_vec()
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        let reps = &self.facts.keys.names;
        match Table::by_name(table)? {
            Table::Touches => Some(self.touches.view(reps).snapshot(&self.touches.rows)),
            table if table == self.medium.table => Some(self.windows.snapshot(table, reps.texts())),
            _ => None,
        }
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let rows = changed_rows(&Correspondence::tables(self), |table| self.versions(table, clock.revision));
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
