//! Facts that no table is derived from but, for check-ins, touches.

use std::sync::Arc;

use arrow::array::StringArray;
use legwork_types::time::LaneClock;
use legwork_types::{EventBatch, Kind, Table, TableSnapshot, Verdicts, check_ins};

use crate::Operator;
use crate::activity::touches::{Direction, TouchRow, touches};
use crate::state::{Common, DedupConfig, FactLog, Interner, NONE, Outcome, Rows, Tally};

/// Check-ins, shifts and costs: counted once per (source, event_id), never late; the accepted ones are the table of their kind. A
/// check-in (not the check-out that ends it) is also a touch of its account.
#[derive(Debug)]
pub struct Facts {
    kind: Kind,
    facts: FactLog,
    refs: Interner,
    check_ins: Interner,
    touches: Rows<TouchRow>,
}

impl Facts {
    /// Without facts.
    pub fn new(kind: Kind, dedup: &DedupConfig) -> Facts {
        Facts {
            kind,
            facts: FactLog::new(dedup, i64::MAX),
            refs: Interner::default(),
            check_ins: Interner::default(),
            touches: Rows::default(),
        }
    }

    fn touch(&mut self, events: &EventBatch, row: usize, rep: u32, time_us: i64, source: &str) {
        if events.strings(check_ins::KIND).value(row) != "in" {
            return;
        }
        self.touches.insert(TouchRow {
            time_us,
            rep,
            id: self.check_ins.intern(&events.event_id(row)),
            source: self.refs.intern_again(source),
            deal: NONE,
            lead: NONE,
            account: self.refs.intern(events.strings(check_ins::ACCOUNT_ID).value(row)),
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
        is_known.then(|| touches(&self.touches, "check_in", &self.facts.keys.names, &self.refs, self.check_ins.texts()))
    }

    fn memory_bytes(&self) -> usize {
        self.facts.memory_bytes()
            + self.refs.memory_bytes()
            + self.check_ins.memory_bytes()
            + self.touches.memory_bytes()
    }
}
