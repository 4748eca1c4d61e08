//! Facts that no table is derived from but, for check-ins, touches.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use legwork_types::time::LaneClock;
use legwork_types::{Changes, EventBatch, Kind, StateError, Table, TableSnapshot, Verdicts, check_ins};

use crate::Operator;
use crate::activity::touches::{Direction, TouchLog, TouchRow};
use crate::state::{Common, DedupConfig, FactLog, Loader, NONE, Outcome, Saver, Tally, changed_rows};

/// Sections of the state; facts take four, touches three.
const FACTS: u8 = b'a';
const TOUCHES: u8 = b'e';

/// Check-ins, shifts and costs: counted once per (source, event_id), never late; the accepted ones are the table of their kind. A
/// check-in (not the check-out that ends it) is also a touch of its account.
#[derive(Debug)]
pub struct Facts {
    kind: Kind,
    facts: FactLog,
    touches: TouchLog,
}

impl Facts {
    /// Without facts. With a store, touches leave memory once they were handed over.
    pub fn new(kind: Kind, dedup: &DedupConfig, has_store: bool) -> Facts {
        Facts { kind, facts: FactLog::new(dedup, i64::MAX), touches: TouchLog::new("check_in", has_store) }
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        let view = || self.touches.view(&self.facts.keys.names);
        (table == Table::Touches).then(|| view().versions(&self.touches.rows, revision)).flatten()
    }

    fn touch(&mut self, events: &EventBatch, row: usize, rep: u32, time_us: i64, source: &str) {
        if events.strings(check_ins::KIND).value(row) != "in" {
            return;
        }
        let touches = &mut self.touches;
        touches.rows.insert(TouchRow {
            time_us,
            rep,
            id: touches.ids.push(&events.event_id(row)),
            source: touches.refs.intern_again(source),
            deal: NONE,
            lead: NONE,
            account: touches.refs.intern(events.strings(check_ins::ACCOUNT_ID).value(row)),
            direction: Direction::Mutual,
            status: 0,
        });
    }
}

impl Operator for Facts {
    fn apply(&mut self, events: &EventBatch, _clock: &LaneClock) -> Verdicts {
        let common = Common::of(events);
        let key_column = self.kind.schema().index_of(self.kind.key()).expect("every kind has its key as a column");
        let keys: &StringArray = events.strings(key_column);
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            let key = self.facts.keys.intern(keys.value(row));
            let (source, time_us) = (common.source(row), common.time_us(row));
            let outcome = self.facts.offer(key, source, &common.event_id(row), time_us);
            if self.kind == Kind::CheckIns && matches!(outcome, Outcome::Accepted { .. }) {
                self.touch(events, row, key, time_us, source);
            }
            tally.count(row, outcome);
        }
        tally.verdicts()
    }

    fn tables(&self) -> Vec<&'static str> {
        if self.kind == Kind::CheckIns { vec![Table::Touches.name()] } else { vec![] }
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        let is_known = self.tables().contains(&table);
        is_known.then(|| self.touches.view(&self.facts.keys.names).snapshot(&self.touches.rows))
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let rows = changed_rows(&[Table::Touches], |table| self.versions(table, clock.revision));
        let mut saver = Saver::default();
        self.facts.save(FACTS, &mut saver);
        self.touches.save(TOUCHES, &mut saver);
        Changes { hot: saver.entries(), rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        self.versions(table, clock.revision)
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        self.facts.load(FACTS, &mut loader)?;
        self.touches.load(TOUCHES, &mut loader, self.facts.keys.names.len())?;
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.facts.memory_bytes() + self.touches.memory_bytes()
    }
}
