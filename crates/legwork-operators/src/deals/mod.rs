//! Deals and their visits to stages, folded from patches in event-time order.
//!
//! What a stage is - its position, whether it wins or loses - is not known here: exits, regressions and business time are views.

mod fold;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateEntry, StateError, Table, TableSnapshot, Verdicts, deal_events};

use crate::state::{
    ArchiveConfig, Fold, Loader, NONE, PatchView, Patches, Rows, Saver, Texts, Versioned, Versions, View, changed_rows,
    counts, damaged, dates, flags, moneys, names, opt_measures, snapshot, times, version_batch,
};
use crate::{Need, Operator};
use fold::{Deal, FIELDS, Visit, fold};

const TABLES: [Table; 2] = [Table::Deals, Table::DealStageVisits];

/// Sections of the state; deals take five, those that are away two.
const DEALS: u8 = b'a';
const AWAY: u8 = b'f';

/// Revisions of a deal in the store: its own, and those of its visits, the newest first.
type RevisionsWire = (u32, Vec<u32>);

/// Deals as their newest patches leave them, and every visit to a stage. No event is ever late. With a store, deals that are older than the
/// late horizon are only there until a patch comes.
///
/// - A visit starts when the stage, or the pipeline while there is a stage, changes its value; a patch that names the same stage
///   again starts none. Clearing the stage ends the visit with nothing that came next. A field that one patch both clears and sets
///   is set.
/// - A visit's owner is the one at its newest moment: when the stage was left, before the patch that left it, or now.
/// - `n_close_date_pushes` counts the changes of a known close date to a later one.
/// - `deleted` marks a deal; a later patch may unmark it. Its visits stay.
/// - The same (source, event_id) again is a duplicate. An edited event replaces the first one if its content is larger - by
///   event_time, sequence, deal_id, then field by field in the schema's order, then the fields cleared - and else is a duplicate
///   too, so that the same one wins whichever came first.
#[derive(Debug)]
pub struct Deals {
    patches: Patches<RevisionsWire>,
    tables: Tables,
}

#[derive(Clone, Copy, Debug)]
struct VisitRow {
    visit: Visit,
    deal: u32,
    visit_no: u32,
    /// Slot of the same deal's visit before this.
    previous: u32,
    revision: u32,
}

#[derive(Clone, Copy, Debug)]
struct DealRow {
    deal: Deal,
    key: u32,
    n_visits: u32,
    newest_visit: u32,
    revision: u32,
}

impl Versioned for DealRow {
    type Key = u32;

    fn key(&self) -> u32 {
        self.key
    }

    fn day_time_us(&self) -> i64 {
        self.deal.created_us
    }

    fn says_same(&self, other: &DealRow) -> bool {
        let bits = |row: &DealRow| row.deal.probability.map(f64::to_bits);
        self.deal == other.deal && bits(self) == bits(other)
    }

    fn keep_revision(&mut self, before: &DealRow) {
        self.revision = before.revision;
    }
}

impl Versioned for VisitRow {
    type Key = (u32, u32);

    fn key(&self) -> (u32, u32) {
        (self.deal, self.visit_no)
    }

    fn day_time_us(&self) -> i64 {
        self.visit.entered_us
    }

    fn says_same(&self, other: &VisitRow) -> bool {
        self.visit == other.visit
    }

    fn keep_revision(&mut self, before: &VisitRow) {
        self.revision = before.revision;
    }
}

#[derive(Debug, Default)]
struct Tables {
    /// By the number of the deal: its slot.
    slots: Vec<u32>,
    deals: Rows<DealRow>,
    visits: Rows<VisitRow>,
    scratch: Vec<Visit>,
}

impl Tables {
    fn slot(&mut self, key: u32) -> u32 {
        if self.slots.len() <= key as usize {
            self.slots.resize(key as usize + 1, NONE);
        }
        self.slots[key as usize]
    }

    fn insert(&mut self, key: u32, deal: Deal, revision: u32) -> u32 {
        let slot = self.deals.insert(DealRow { deal, key, n_visits: 0, newest_visit: NONE, revision });
        self.slots[key as usize] = slot;
        slot
    }

    /// Writes what changed of a deal and, from visit number `start` on, of its visits.
    fn write(&mut self, slot: u32, deal: &Deal, start: usize, visits: &[Visit], revision: u32) {
        let mut row = *self.deals.get(slot);
        let mut old = Vec::new();
        while row.n_visits as usize > start {
            old.push(row.newest_visit);
            row.newest_visit = self.visits.get(row.newest_visit).previous;
            row.n_visits -= 1;
        }
        for visit in visits {
            row.n_visits += 1;
            let new =
                VisitRow { visit: *visit, deal: row.key, visit_no: row.n_visits, previous: row.newest_visit, revision };
            row.newest_visit = match old.pop() {
                None => self.visits.insert(new),
                Some(slot) => {
                    let place = self.visits.get(slot);
                    debug_assert_eq!((place.visit_no, place.previous), (new.visit_no, new.previous));
                    if place.visit != new.visit {
                        *self.visits.get_mut(slot) = new;
                    }
                    slot
                }
            };
        }
        old.into_iter().for_each(|slot| self.visits.remove(slot));
        if row.deal != *deal {
            row.deal = *deal;
            row.revision = revision;
        }
        *self.deals.get_mut(slot) = row;
    }
}

impl Tables {
    /// The slots of a deal's visits, the newest first.
    fn visits_of(&self, deal: &DealRow) -> impl Iterator<Item = u32> {
        let newest = (deal.newest_visit != NONE).then_some(deal.newest_visit);
        std::iter::successors(newest, |slot| Some(self.visits.get(*slot).previous).filter(|slot| *slot != NONE))
    }

    /// What is there counts as handed over.
    fn forget_changes(&mut self) {
        self.deals.forget_changes();
        self.visits.forget_changes();
    }

    fn set_revisions(&mut self, key: u32, (deal, visits): RevisionsWire) -> Result<(), StateError> {
        let slot = self.slots[key as usize];
        let slots = match slot {
            NONE => Vec::new(),
            slot => {
                self.deals.get_mut(slot).revision = deal;
                self.visits_of(self.deals.get(slot)).collect()
            }
        };
        if slots.len() != visits.len() {
            let detail = format!("{} visits of deal number {key}, its patches give {}", visits.len(), slots.len());
            return Err(damaged(DEALS + 4, 0, detail));
        }
        for (slot, revision) in slots.into_iter().zip(visits) {
            self.visits.get_mut(slot).revision = revision;
        }
        Ok(())
    }
}

impl Fold for Tables {
    type Kept = RevisionsWire;

    fn append(&mut self, key: u32, patch: &PatchView<'_>, revision: u32) {
        let mut slot = self.slot(key);
        if slot == NONE {
            slot = self.insert(key, Deal::new(patch), revision);
        }
        let row = *self.deals.get(slot);
        let mut visits = std::mem::take(&mut self.scratch);
        visits.clear();
        let start = (row.n_visits as usize).saturating_sub(1);
        if row.newest_visit != NONE {
            visits.push(self.visits.get(row.newest_visit).visit);
        }
        let mut deal = row.deal;
        fold(&mut deal, &mut visits, patch);
        self.write(slot, &deal, start, &visits, revision);
        self.scratch = visits;
    }

    fn refold<'a>(&mut self, key: u32, mut patches: impl Iterator<Item = PatchView<'a>>, revision: u32) {
        let slot = self.slot(key);
        let Some(first) = patches.next() else {
            if slot != NONE {
                let deal = self.deals.get(slot).deal;
                self.write(slot, &deal, 0, &[], revision);
                self.deals.remove(slot);
                self.slots[key as usize] = NONE;
            }
            return;
        };
        let mut visits = std::mem::take(&mut self.scratch);
        visits.clear();
        let mut deal = Deal::new(&first);
        fold(&mut deal, &mut visits, &first);
        patches.for_each(|patch| fold(&mut deal, &mut visits, &patch));
        let slot = if slot == NONE { self.insert(key, deal, revision) } else { slot };
        self.write(slot, &deal, 0, &visits, revision);
        self.scratch = visits;
    }

    fn kept(&self, key: u32) -> RevisionsWire {
        // 0 stands in for a deal whose only patch an edit has taken away.
        let deal = self.slots.get(key as usize).and_then(|slot| self.deals.live(*slot));
        deal.map_or((0, Vec::new()), |deal| {
            (deal.revision, self.visits_of(deal).map(|slot| self.visits.get(slot).revision).collect())
        })
    }

    fn bring_back<'a>(
        &mut self,
        key: u32,
        mut patches: impl Iterator<Item = PatchView<'a>>,
        (revision, revisions): RevisionsWire,
    ) -> Result<(), String> {
        self.slot(key);
        let mut visits = Vec::new();
        let Some(first) = patches.next() else { return Ok(()) };
        let mut deal = Deal::new(&first);
        fold(&mut deal, &mut visits, &first);
        patches.for_each(|patch| fold(&mut deal, &mut visits, &patch));
        if visits.len() != revisions.len() {
            return Err(format!("{} visits, its patches give {}", revisions.len(), visits.len()));
        }
        let (mut newest_visit, mut n_visits) = (NONE, 0);
        for (visit, revision) in visits.into_iter().zip(revisions.into_iter().rev()) {
            n_visits += 1;
            let row = VisitRow { visit, deal: key, visit_no: n_visits, previous: newest_visit, revision };
            newest_visit = self.visits.bring_back(row);
        }
        self.slots[key as usize] = self.deals.bring_back(DealRow { deal, key, n_visits, newest_visit, revision });
        Ok(())
    }

    fn clear(&mut self) {
        *self = Tables { deals: Rows::restored([]), visits: Rows::restored([]), ..Tables::default() };
    }
}

impl Deals {
    /// Without deals. With a store, an eighth of `n_kept_min` of them stay in memory in any case.
    pub fn new(time: &TimeConfig, n_kept_min: Option<usize>) -> Deals {
        let after_us = time.late_horizon_us;
        let archive = n_kept_min.map(|n_kept_min| ArchiveConfig { section: AWAY, n_kept_min, after_us });
        let patches = Patches::new(&FIELDS, deal_events::DEAL_ID, deal_events::CLEARED, archive);
        Deals { patches, tables: Tables::default() }
    }

    fn deal_view(&self) -> DealView {
        DealView { keys: self.patches.keys().clone(), texts: self.patches.texts().clone() }
    }

    fn visit_view(&self) -> VisitView {
        VisitView { keys: self.patches.keys().clone(), texts: self.patches.texts().clone() }
    }
}

impl Operator for Deals {
    fn apply(&mut self, events: &EventBatch, clock: &LaneClock) -> Verdicts {
        self.patches.apply(events, &mut self.tables, clock.revision)
    }

    fn wanted(&mut self, need: Need<'_>, _clock: &LaneClock) -> Vec<Vec<u8>> {
        if let Need::Batch(events) = need { self.patches.wanted(events) } else { Vec::new() }
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        self.patches.supply(cold, &mut self.tables)
    }

    fn committed(&mut self, revision: u32) {
        self.patches.committed(revision);
    }

    fn tables(&self) -> Vec<&'static str> {
        vec![Table::Deals.name(), Table::DealStageVisits.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        match Table::by_name(table)? {
            Table::Deals => Some(snapshot(Table::Deals.schema(), &self.tables.deals, self.deal_view())),
            Table::DealStageVisits => {
                Some(snapshot(Table::DealStageVisits.schema(), &self.tables.visits, self.visit_view()))
            }
            _ => None,
        }
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let (deals, visits) = (Versions::of(&self.tables.deals), Versions::of(&self.tables.visits));
        let rows = changed_rows(&TABLES, |table| match table {
            Table::Deals => version_batch(table, &deals, &self.deal_view(), clock.revision),
            _ => version_batch(table, &visits, &self.visit_view(), clock.revision),
        });
        deals.settle(&mut self.tables.deals);
        visits.settle(&mut self.tables.visits);
        let (mut saver, mut cold) = (Saver::default(), Vec::new());
        if !rows.is_empty() {
            self.patches.leave(clock, &mut cold, &mut self.tables);
            self.tables.forget_changes();
        }
        self.patches.save(DEALS, &mut saver, &self.tables);
        Changes { hot: saver.entries(), cold, rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        match table {
            Table::Deals => version_batch(table, &Versions::of(&self.tables.deals), &self.deal_view(), clock.revision),
            Table::DealStageVisits => {
                version_batch(table, &Versions::of(&self.tables.visits), &self.visit_view(), clock.revision)
            }
            _ => None,
        }
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        let revisions = self.patches.load(DEALS, &mut loader, &mut self.tables)?;
        for (key, revisions) in (0..).zip(revisions) {
            self.tables.set_revisions(key, revisions)?;
        }
        self.tables.forget_changes();
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.patches.memory_bytes()
            + 4 * self.tables.slots.capacity()
            + self.tables.deals.memory_bytes()
            + self.tables.visits.memory_bytes()
    }
}

#[derive(Debug)]
struct DealView {
    keys: Texts,
    texts: Texts,
}

impl View for DealView {
    type Row = DealRow;

    fn column(&self, column: usize, rows: &[&DealRow]) -> ArrayRef {
        let deals = rows.iter().map(|row| &row.deal);
        match column {
            0 => names(&self.keys, rows.iter().map(|row| row.key)),
            1 => names(&self.texts, deals.map(|deal| deal.pipeline)),
            2 => names(&self.texts, deals.map(|deal| deal.stage)),
            3 => times(deals.map(|deal| deal.stage_entered_us)),
            4 => names(&self.texts, deals.map(|deal| deal.owner)),
            5 => names(&self.texts, deals.map(|deal| deal.account)),
            6 => names(&self.texts, deals.map(|deal| deal.lead)),
            7 => moneys(deals.map(|deal| deal.amount)),
            8 => names(&self.texts, deals.map(|deal| deal.currency)),
            9 => dates(deals.map(|deal| deal.close_date)),
            10 => opt_measures(deals.map(|deal| deal.probability)),
            11 => times(deals.map(|deal| deal.created_us)),
            12 => times(deals.map(|deal| deal.next_step_us)),
            13 => times(deals.map(|deal| deal.snooze_until_us)),
            14 => names(&self.texts, deals.map(|deal| deal.snooze_reason)),
            15 => counts(deals.map(|deal| i64::from(deal.n_close_date_pushes))),
            16 => flags(deals.map(|deal| deal.is_deleted)),
            17 => times(deals.map(|deal| deal.last_event_us)),
            _ => counts(rows.iter().map(|row| i64::from(row.revision))),
        }
    }
}

#[derive(Debug)]
struct VisitView {
    keys: Texts,
    texts: Texts,
}

impl View for VisitView {
    type Row = VisitRow;

    fn column(&self, column: usize, rows: &[&VisitRow]) -> ArrayRef {
        let visits = rows.iter().map(|row| &row.visit);
        match column {
            0 => names(&self.keys, rows.iter().map(|row| row.deal)),
            1 => counts(rows.iter().map(|row| i64::from(row.visit_no))),
            2 => names(&self.texts, visits.map(|visit| visit.pipeline)),
            3 => names(&self.texts, visits.map(|visit| visit.stage)),
            4 => times(visits.map(|visit| visit.entered_us)),
            5 => times(visits.map(|visit| visit.left_us)),
            6 => names(&self.texts, visits.map(|visit| visit.next_pipeline)),
            7 => names(&self.texts, visits.map(|visit| visit.next_stage)),
            8 => names(&self.texts, visits.map(|visit| visit.owner)),
            _ => counts(rows.iter().map(|row| i64::from(row.revision))),
        }
    }
}
