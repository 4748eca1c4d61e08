//! Leads, folded from patches in event-time order.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateEntry, StateError, Table, TableSnapshot, Verdicts, leads as columns};

use crate::state::{
    ArchiveConfig, Field, FieldType, Fold, Loader, NO_TIME, NONE, PatchView, Patches, Rows, Saver, Texts, Value,
    Versioned, Versions, View, changed_rows, counts, names, opt_measures, snapshot, times, version_batch,
};

use crate::{Need, Operator};

/// Sections of the state; leads take five, those that are away two.
const LEADS: u8 = b'a';
const AWAY: u8 = b'f';

const ORIGIN: usize = 0;
const OWNER: usize = 1;
const STATUS: usize = 2;
const SCORE: usize = 3;
const DEAL: usize = 4;
const ACCOUNT: usize = 5;

const fn field(column: usize, name: &'static str, field_type: FieldType) -> Field {
    Field { column, name, field_type }
}

static FIELDS: [Field; 6] = [
    field(columns::ORIGIN, "origin", FieldType::Text),
    field(columns::OWNER_ID, "owner_id", FieldType::Text),
    field(columns::STATUS, "status", FieldType::Text),
    field(columns::SCORE, "score", FieldType::Real),
    field(columns::DEAL_ID, "deal_id", FieldType::Text),
    field(columns::ACCOUNT_ID, "account_id", FieldType::Text),
];

/// Leads as their newest patches leave them. No event is ever late. `status_entered_time` is when the status last changed to what it
/// is; `source` is that of the newest patch. Edited events are treated as those of deals, and leads leave memory as they do.
#[derive(Debug)]
pub struct Leads {
    patches: Patches<u32>,
    rows: LeadRows,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Lead {
    created_us: i64,
    last_event_us: i64,
    status_entered_us: i64,
    score: Option<f64>,
    texts: [u32; 6],
    source: u32,
}

#[derive(Clone, Copy, Debug)]
struct LeadRow {
    lead: Lead,
    key: u32,
    revision: u32,
}

impl Versioned for LeadRow {
    type Key = u32;

    fn key(&self) -> u32 {
        self.key
    }

    fn day_time_us(&self) -> i64 {
        self.lead.created_us
    }

    fn says_same(&self, other: &LeadRow) -> bool {
        self.lead == other.lead && self.lead.score.map(f64::to_bits) == other.lead.score.map(f64::to_bits)
    }

    fn keep_revision(&mut self, before: &LeadRow) {
        self.revision = before.revision;
    }
}

#[derive(Debug, Default)]
struct LeadRows {
    /// By the number of the lead: its slot.
    slots: Vec<u32>,
    rows: Rows<LeadRow>,
}

fn first(patch: &PatchView<'_>) -> Lead {
    let mut lead = Lead {
        created_us: patch.event_time_us,
        last_event_us: NO_TIME,
        status_entered_us: NO_TIME,
        score: None,
        texts: [NONE; 6],
        source: NONE,
    };
    fold(&mut lead, patch);
    lead
}

fn fold(lead: &mut Lead, patch: &PatchView<'_>) {
    let status = lead.texts[STATUS];
    for field in (0..FIELDS.len()).filter(|field| patch.cleared >> field & 1 == 1) {
        match field {
            SCORE => lead.score = None,
            _ => lead.texts[field] = NONE,
        }
    }
    for (field, value) in patch.values() {
        match value {
            Value::Text(text) => lead.texts[field] = text,
            Value::Real(score) => lead.score = Some(score),
            other => unreachable!("no field of a lead is {other:?}"),
        }
    }
    lead.last_event_us = patch.event_time_us;
    lead.source = patch.source;
    if lead.texts[STATUS] != status {
        lead.status_entered_us = if lead.texts[STATUS] == NONE { NO_TIME } else { patch.event_time_us };
    }
}

impl Leads {
    /// Without leads. With a store, an eighth of `n_kept_min` of them stay in memory in any case.
    pub fn new(time: &TimeConfig, n_kept_min: Option<usize>) -> Leads {
        let after_us = time.late_horizon_us;
        let archive = n_kept_min.map(|n_kept_min| ArchiveConfig { section: AWAY, n_kept_min, after_us });
        let patches = Patches::new(&FIELDS, columns::LEAD_ID, columns::CLEARED, archive);
        Leads { patches, rows: LeadRows::default() }
    }

    fn view(&self) -> LeadView {
        LeadView { keys: self.patches.keys().clone(), texts: self.patches.texts().clone() }
    }
}

impl LeadRows {
    fn write(&mut self, key: u32, lead: Option<Lead>, revision: u32) {
        let slot = self.slots[key as usize];
        match lead {
            None if slot == NONE => {}
            None => {
                self.rows.remove(slot);
                self.slots[key as usize] = NONE;
            }
            Some(lead) if slot == NONE => {
                self.slots[key as usize] = self.rows.insert(LeadRow { lead, key, revision });
            }
            Some(lead) if self.rows.get(slot).lead != lead => {
                *self.rows.get_mut(slot) = LeadRow { lead, key, revision };
            }
            Some(_) => {}
        }
    }

    fn slot(&mut self, key: u32) -> u32 {
        if self.slots.len() <= key as usize {
            self.slots.resize(key as usize + 1, NONE);
        }
        self.slots[key as usize]
    }
}

impl Fold for LeadRows {
    type Kept = u32;

    fn append(&mut self, key: u32, patch: &PatchView<'_>, revision: u32) {
        let slot = self.slot(key);
        let lead = if slot == NONE {
            first(patch)
        } else {
            let mut lead = self.rows.get(slot).lead;
            fold(&mut lead, patch);
            lead
        };
        self.write(key, Some(lead), revision);
    }

    fn refold<'a>(&mut self, key: u32, mut patches: impl Iterator<Item = PatchView<'a>>, revision: u32) {
        self.slot(key);
        let mut lead = patches.next().map(|patch| first(&patch));
        if let Some(lead) = &mut lead {
            patches.for_each(|patch| fold(lead, &patch));
        }
        self.write(key, lead, revision);
    }

    fn kept(&self, key: u32) -> u32 {
        // 0 stands in for a lead whose only patch an edit has taken away.
        let row = self.slots.get(key as usize).and_then(|slot| self.rows.live(*slot));
        row.map_or(0, |row| row.revision)
    }

    fn bring_back<'a>(
        &mut self,
        key: u32,
        mut patches: impl Iterator<Item = PatchView<'a>>,
        revision: u32,
    ) -> Result<(), String> {
        self.slot(key);
        if let Some(mut lead) = patches.next().map(|patch| first(&patch)) {
            patches.for_each(|patch| fold(&mut lead, &patch));
            self.slots[key as usize] = self.rows.bring_back(LeadRow { lead, key, revision });
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = LeadRows { slots: Vec::new(), rows: Rows::restored([]) };
    }
}

impl Operator for Leads {
    fn apply(&mut self, events: &EventBatch, clock: &LaneClock) -> Verdicts {
        self.patches.apply(events, &mut self.rows, clock.revision)
    }

    fn wanted(&mut self, need: Need<'_>, _clock: &LaneClock) -> Vec<Vec<u8>> {
        if let Need::Batch(events) = need { self.patches.wanted(events) } else { Vec::new() }
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        self.patches.supply(cold, &mut self.rows)
    }

    fn committed(&mut self, revision: u32) {
        self.patches.committed(revision);
    }

    fn tables(&self) -> Vec<&'static str> {
        vec![Table::Leads.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        (table == Table::Leads.name()).then(|| snapshot(Table::Leads.schema(), &self.rows.rows, self.view()))
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let versions = Versions::of(&self.rows.rows);
        let rows = changed_rows(&[Table::Leads], |table| version_batch(table, &versions, &self.view(), clock.revision));
        versions.settle(&mut self.rows.rows);
        let (mut saver, mut cold) = (Saver::default(), Vec::new());
        if !rows.is_empty() {
            self.patches.leave(clock, &mut cold, &mut self.rows);
            self.rows.rows.forget_changes();
        }
        self.patches.save(LEADS, &mut saver, &self.rows);
        Changes { hot: saver.entries(), cold, rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        let versions = || version_batch(table, &Versions::of(&self.rows.rows), &self.view(), clock.revision);
        (table == Table::Leads).then(versions).flatten()
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        let revisions = self.patches.load(LEADS, &mut loader, &mut self.rows)?;
        let LeadRows { slots, rows } = &mut self.rows;
        for (slot, revision) in slots.iter().zip(revisions).filter(|(slot, _)| **slot != NONE) {
            rows.get_mut(*slot).revision = revision;
        }
        rows.forget_changes();
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.patches.memory_bytes() + 4 * self.rows.slots.capacity() + self.rows.rows.memory_bytes()
    }
}

#[derive(Debug)]
struct LeadView {
    keys: Texts,
    texts: Texts,
}

impl LeadView {
    fn field(&self, rows: &[&LeadRow], field: usize) -> ArrayRef {
        names(&self.texts, rows.iter().map(|row| row.lead.texts[field]))
    }
}

impl View for LeadView {
    type Row = LeadRow;

    fn column(&self, column: usize, rows: &[&LeadRow]) -> ArrayRef {
        match column {
            0 => names(&self.keys, rows.iter().map(|row| row.key)),
            1 => self.field(rows, ORIGIN),
            2 => self.field(rows, OWNER),
            3 => self.field(rows, STATUS),
            4 => opt_measures(rows.iter().map(|row| row.lead.score)),
            5 => self.field(rows, DEAL),
            6 => self.field(rows, ACCOUNT),
            7 => times(rows.iter().map(|row| row.lead.created_us)),
            8 => times(rows.iter().map(|row| row.lead.status_entered_us)),
            9 => times(rows.iter().map(|row| row.lead.last_event_us)),
            10 => names(&self.texts, rows.iter().map(|row| row.lead.source)),
            _ => counts(rows.iter().map(|row| i64::from(row.revision))),
        }
    }
}
