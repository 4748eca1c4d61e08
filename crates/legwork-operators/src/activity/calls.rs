//! Calls: entities, in the window of their start.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateEntry, StateError, Table, TableSnapshot, Verdicts, calls};

use super::touches::{Concerns, Direction, TouchRefs, TouchRow, TouchView, TouchWire};
use super::windows::{Share, Windows};
use crate::state::{
    ArchiveConfig, Candidate, ClockOf, Common, DedupConfig, Entities, Fingerprint, Interner, Keys, Loader, NONE,
    Outcome, Place, Refs, Rows, Saver, Tally, changed_rows, damaged, opt_text,
};
use crate::{Need, Operator};

/// Longest time connected that is believed, seconds (30 years): beyond it lie only broken clocks.
const TALK_S_MAX: f64 = 1e9;
const COMPLETED: u8 = 1;
const TABLES: [Table; 2] = [Table::RepCalls, Table::Touches];

/// Sections of the state; reps take two, calls five.
const REPS: u8 = b'a';
const REFS: u8 = b'c';
const CALLS: u8 = b'd';
const WINDOWS: u8 = b'i';
const AWAY_WINDOWS: u8 = b'j';
const AWAY_CALLS: u8 = b'k';

/// Calls by rep and window, and the touches they are. Key and clock: rep_id. A call belongs to the window of its start_time, else of
/// its event_time. `talk_s` is its duration_s; where that is missing and the call was completed, end minus start. What is negative
/// or no number counts as nothing. With a store, calls and windows that are older than the late horizon are only there until a version
/// comes that changes them.
#[derive(Debug)]
pub struct Calls {
    time: TimeConfig,
    has_store: bool,
    entities: Entities<CallWire>,
    reps: Keys,
    refs: Interner,
    /// By the number of the call.
    touches: Rows<TouchRow>,
    talk_nanos: Vec<i64>,
    windows: Windows<4>,
}

impl Calls {
    /// Without calls. With a store, `n_kept_min` of them and of their windows stay in memory in any case.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig, n_kept_min: Option<usize>) -> Calls {
        let after_us = time.late_horizon_us;
        let archive = |section| n_kept_min.map(|n_kept_min| ArchiveConfig { section, n_kept_min, after_us });
        Calls {
            time: *time,
            has_store: n_kept_min.is_some(),
            entities: Entities::new(dedup, Some(time), archive(AWAY_CALLS)),
            reps: Keys::default(),
            refs: Interner::default(),
            touches: Rows::default(),
            talk_nanos: Vec::new(),
            windows: Windows::new(time.window_us, archive(AWAY_WINDOWS)),
        }
    }

    fn touch_view(&self) -> TouchView {
        TouchView::new("call", &self.reps.names, &self.refs, self.entities.ids().texts())
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        match table {
            Table::RepCalls => self.windows.versions(table, self.reps.names.texts(), revision),
            Table::Touches => self.touch_view().versions(&self.touches, revision),
            _ => None,
        }
    }

    fn take(&mut self, columns: &Columns<'_>, row: usize) -> Outcome {
        let common = &columns.common;
        let event_id = common.event_id(row);
        let rep = self.reps.intern(columns.rep.value(row));
        self.bring_back(columns.call.value(row));
        let candidate = Candidate {
            id: columns.call.value(row),
            event_time_us: common.time_us(row),
            sequence: common.sequence(row),
            event_id: &event_id,
            source: common.source(row),
            content: columns.content(row),
        };
        let offered = self.entities.offer(&candidate, ClockOf::Key(rep, &self.reps.clocks_us));
        if !matches!(offered.outcome, Outcome::Accepted { .. }) {
            return offered.outcome;
        }
        self.reps.advance(rep, candidate.event_time_us);
        match offered.place {
            Place::Nowhere => {}
            Place::First => {
                let (touch, talk_nanos) = self.read(columns, row, rep, self.talk_nanos.len());
                self.touches.insert(touch);
                self.talk_nanos.push(talk_nanos);
                self.windows.add(rep, touch.time_us, &share(&touch, talk_nanos));
            }
            Place::Newest(call) => {
                let (touch, talk_nanos) = self.read(columns, row, rep, call as usize);
                let old = std::mem::replace(self.touches.get_mut(call), touch);
                let old_nanos = std::mem::replace(&mut self.talk_nanos[call as usize], talk_nanos);
                self.windows.subtract(old.rep, old.time_us, &share(&old, old_nanos));
                self.windows.add(rep, touch.time_us, &share(&touch, talk_nanos));
            }
        }
        offered.outcome
    }

    /// Takes a call that was read back for this batch into memory again.
    fn bring_back(&mut self, id: &str) {
        let clock_of = ClockOf::Key(0, &self.reps.clocks_us);
        let Some((mut touch, talk_nanos)) = self.entities.bring_back(id, clock_of) else { return };
        touch.2 = u32::try_from(self.talk_nanos.len()).expect("entities are numbered in 32 bits");
        let touch = TouchRow::from_wire(touch, self.known()).expect("it was checked when it was read");
        let slot = self.touches.bring_back(touch);
        debug_assert_eq!(slot, touch.id, "calls are numbered like their touches");
        self.talk_nanos.push(talk_nanos);
    }

    /// What calls in the store may refer to.
    fn known(&self) -> TouchRefs {
        let refs = |n| Refs { section: CALLS, n };
        TouchRefs { reps: refs(self.reps.names.len()), ids: refs(usize::MAX), refs: refs(self.refs.len()) }
    }

    /// Lets go of what is done.
    fn leave(&mut self, clock: &LaneClock, cold: &mut Vec<StateEntry>) {
        self.windows.leave(clock, &self.time, cold);
        let wire = |call: u32| (self.touches.get(call).wire(), self.talk_nanos[call as usize]);
        let Some(kept) = self.entities.leave(clock, ClockOf::Key(0, &self.reps.clocks_us), cold, wire) else { return };
        let touches = (0..).zip(&kept).map(|(id, old)| (TouchRow { id, ..*self.touches.get(*old) }, true));
        self.touches = Rows::restored(touches.collect::<Vec<_>>());
        self.talk_nanos = kept.iter().map(|old| self.talk_nanos[*old as usize]).collect();
    }

    fn read(&mut self, columns: &Columns<'_>, row: usize, rep: u32, call: usize) -> (TouchRow, i64) {
        let (deal, lead, account) = columns.concerns(row);
        let Concerns { deal, lead, account } = Concerns::intern(&mut self.refs, deal, lead, account);
        let is_completed = columns.status.value(row) == "completed";
        let touch = TouchRow {
            time_us: columns.place_us(row),
            rep,
            id: u32::try_from(call).expect("entities are numbered in 32 bits"),
            source: NONE,
            deal,
            lead,
            account,
            direction: Direction::parse(columns.direction.value(row)),
            status: if is_completed { COMPLETED } else { 0 },
        };
        (touch, columns.talk_nanos(row, is_completed))
    }
}

/// A call in the store: its touch, and its seconds connected in nanoseconds.
type CallWire = (TouchWire, i64);

fn share(touch: &TouchRow, nanos: i64) -> Share<4> {
    let is_inbound = u32::from(touch.direction == Direction::Inbound);
    Share { counts: [1, u32::from(touch.status == COMPLETED), is_inbound, 1 - is_inbound], nanos }
}

struct Columns<'a> {
    common: Common<'a>,
    call: &'a StringArray,
    rep: &'a StringArray,
    direction: &'a StringArray,
    status: &'a StringArray,
    start: &'a TimestampMicrosecondArray,
    end: &'a TimestampMicrosecondArray,
    duration_s: &'a Float64Array,
    deal: &'a StringArray,
    lead: &'a StringArray,
    account: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(events: &'a EventBatch) -> Columns<'a> {
        Columns {
            common: Common::of(events),
            call: events.strings(calls::CALL_ID),
            rep: events.strings(calls::REP_ID),
            direction: events.strings(calls::DIRECTION),
            status: events.strings(calls::STATUS),
            start: events.times(calls::START_TIME),
            end: events.times(calls::END_TIME),
            duration_s: events.f64s(calls::DURATION_S),
            deal: events.strings(calls::DEAL_ID),
            lead: events.strings(calls::LEAD_ID),
            account: events.strings(calls::ACCOUNT_ID),
        }
    }

    fn start_us(&self, row: usize) -> Option<i64> {
        self.start.is_valid(row).then(|| self.start.value(row))
    }

    /// The time whose window it belongs to.
    fn place_us(&self, row: usize) -> i64 {
        self.start_us(row).unwrap_or(self.common.time_us(row))
    }

    fn concerns(&self, row: usize) -> (Option<&'a str>, Option<&'a str>, Option<&'a str>) {
        (opt_text(self.deal, row), opt_text(self.lead, row), opt_text(self.account, row))
    }

    fn talk_nanos(&self, row: usize, is_completed: bool) -> i64 {
        let seconds = if self.duration_s.is_valid(row) {
            self.duration_s.value(row)
        } else if is_completed && self.start.is_valid(row) && self.end.is_valid(row) {
            self.end.value(row).saturating_sub(self.start.value(row)) as f64 / 1e6
        } else {
            0.0
        };
        // NaN becomes 0 by the cast.
        (seconds.clamp(0.0, TALK_S_MAX) * 1e9).round() as i64
    }

    fn content(&self, row: usize) -> u64 {
        let (deal, lead, account) = self.concerns(row);
        Fingerprint::default()
            .text(self.rep.value(row))
            .text(self.direction.value(row))
            .text(self.status.value(row))
            .opt_int(self.start_us(row))
            .opt_int(self.end.is_valid(row).then(|| self.end.value(row)))
            .opt_int(self.duration_s.is_valid(row).then(|| self.duration_s.value(row).to_bits().cast_signed()))
            .opt_text(deal)
            .opt_text(lead)
            .opt_text(account)
            .u64()
    }
}

impl Operator for Calls {
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
            let id = columns.call.value(row);
            keys.extend(self.entities.wanted(id));
            let held = self.entities.find(id).map(|call| (self.touches.get(call).rep, self.touches.get(call).time_us));
            let away = || self.entities.look(id).map(|((time_us, rep, ..), _)| (*rep, *time_us));
            let rep = self.reps.find(columns.rep.value(row));
            // The window that it may leave, and the one that it comes into.
            let places = held.or_else(away).into_iter().chain(rep.map(|rep| (rep, columns.place_us(row))));
            keys.extend(places.filter_map(|(rep, time_us)| self.windows.wanted(rep, time_us)));
        }
        keys.into_iter().collect()
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        let known = self.known();
        for entry in cold {
            let check = |(touch, _): &CallWire| TouchRow::from_wire(*touch, known).map(|_| ());
            if !self.entities.supply(&entry, check)? && !self.windows.supply(&entry)? {
                return Err(damaged(CALLS, 0, "an entry that was not asked for"));
            }
        }
        Ok(())
    }

    fn committed(&mut self, revision: u32) {
        self.entities.committed(revision);
        self.windows.committed(revision);
    }

    fn tables(&self) -> Vec<&'static str> {
        TABLES.map(Table::name).to_vec()
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        match Table::by_name(table)? {
            Table::RepCalls => Some(self.windows.snapshot(Table::RepCalls, self.reps.names.texts())),
            Table::Touches => Some(self.touch_view().snapshot(&self.touches)),
            _ => None,
        }
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let rows = changed_rows(&TABLES, |table| self.versions(table, clock.revision));
        self.touches.forget_changes();
        let (mut saver, mut cold) = (Saver::default(), Vec::new());
        if !rows.is_empty() {
            self.leave(clock, &mut cold);
        }
        self.reps.save(REPS, &mut saver);
        self.refs.save(REFS, &mut saver);
        let wire = |call: u32| (self.touches.get(call).wire(), self.talk_nanos[call as usize]);
        self.entities.save(CALLS, &mut saver, wire);
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
        self.reps = Keys::load(REPS, &mut loader)?;
        self.refs = loader.interner(REFS)?;
        let calls = self.entities.load(CALLS, &mut loader, Some(&self.reps.clocks_us))?;
        let refs = |n| Refs { section: CALLS, n };
        let n_reps = self.reps.names.len();
        let has_windows =
            self.has_store && self.windows.load(WINDOWS, &mut loader, Refs { section: WINDOWS, n: n_reps })?;
        let known = TouchRefs { reps: refs(n_reps), ids: refs(calls.len()), refs: refs(self.refs.len()) };
        for (touch, talk_nanos) in calls {
            let touch = TouchRow::from_wire(touch, known)?;
            if !has_windows {
                self.windows.add(touch.rep, touch.time_us, &share(&touch, talk_nanos));
            }
            self.touches.insert(touch);
            self.talk_nanos.push(talk_nanos);
        }
        self.touches.forget_changes();
        if !has_windows {
            self.windows.take_over();
        }
        self.entities.load_away(&mut loader)?;
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.entities.memory_bytes()
            + self.reps.memory_bytes()
            + self.refs.memory_bytes()
            + self.touches.memory_bytes()
            + 8 * self.talk_nanos.capacity()
            + self.windows.memory_bytes()
    }
}
