//! Messages: facts, in the window of their event time.

use std::sync::Arc;

use arrow::array::StringArray;
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{EventBatch, Table, TableSnapshot, Verdicts, messages};

use super::touches::{Concerns, Direction, TouchRow, touches};
use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{Common, DedupConfig, FactLog, Interner, Outcome, Rows, Tally, Texts, opt_text};

/// Messages by rep and window, and the touches they are, on channel `message` whatever the medium. Key and clock: rep_id.
#[derive(Debug)]
pub struct Messages {
    facts: FactLog,
    refs: Interner,
    touch_ids: Texts,
    touches: Rows<TouchRow>,
    windows: Windows<3>,
}

impl Messages {
    /// Without messages.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig) -> Messages {
        Messages {
            facts: FactLog::new(dedup, time.late_horizon_us),
            refs: Interner::default(),
            touch_ids: Texts::default(),
            touches: Rows::default(),
            windows: Windows::new(time.window_us),
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
        let Concerns { deal, lead, account } = Concerns::intern(&mut self.refs, deal, lead, account);
        let source = self.refs.intern_again(source);
        let id = self.touch_ids.push(&event_id);
        self.touches.insert(TouchRow { time_us, rep, id, source, deal, lead, account, direction, status: 0 });
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
        vec![Table::RepMessages.name(), Table::Touches.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        let reps = &self.facts.keys.names;
        match Table::by_name(table)? {
            Table::RepMessages => Some(self.windows.snapshot(Table::RepMessages, reps.texts())),
            Table::Touches => Some(touches(&self.touches, "message", reps, &self.refs, &self.touch_ids)),
            _ => None,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.facts.memory_bytes()
            + self.refs.memory_bytes()
            + self.touch_ids.memory_bytes()
            + self.touches.memory_bytes()
            + self.windows.memory_bytes()
    }
}
