//! Meetings: entities, in the window of their planned start.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateEntry, StateError, Table, TableSnapshot, Verdicts, meetings};

use super::touches::{Concerns, Direction, TouchRow, TouchView};
use super::windows::{Share, Windows};
use crate::state::{
    ArchiveConfig, Candidate, ClockOf, Common, DedupConfig, Entities, Fingerprint, Interner, Loader, NONE, Outcome,
    Place, Refs, Rows, Saver, Tally, changed_rows, damaged, opt, opt_text,
};
use crate::{Need, Operator};

const TABLES: [Table; 2] = [Table::RepMeetings, Table::Touches];

/// Sections of the state; meetings take five.
const REPS: u8 = b'a';
const REFS: u8 = b'b';
const MEETINGS: u8 = b'c';
const WINDOWS: u8 = b'h';
const AWAY_WINDOWS: u8 = b'i';
const AWAY_MEETINGS: u8 = b'j';

/// A meeting in the store: start, rep, status; deal and account where it was held.
type MeetingWire = (i64, u32, u8, Option<u32>, Option<u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Scheduled,
    Held,
    NoShow,
    Canceled,
}

impl Status {
    fn from_wire(wire: u8) -> Result<Status, StateError> {
        let known = [Status::Scheduled, Status::Held, Status::NoShow, Status::Canceled];
        known.get(wire as usize).copied().ok_or_else(|| damaged(MEETINGS + 2, 0, format!("status {wire}")))
    }
}

#[derive(Clone, Copy, Debug)]
struct Meeting {
    start_us: i64,
    rep: u32,
    touch: u32,
    status: Status,
}

/// Meetings by rep and window, and the touches that the held ones are. Key and clock: meeting_id. `n_scheduled` counts the meetings
/// planned for the window whatever came of them, except those called off (scheduled, held, no_show); `n_canceled` counts those. With a
/// store, meetings and windows that are older than the late horizon are only there until a version comes that changes them.
#[derive(Debug)]
pub struct Meetings {
    time: TimeConfig,
    has_store: bool,
    entities: Entities<MeetingWire>,
    reps: Interner,
    refs: Interner,
    meetings: Vec<Meeting>,
    touches: Rows<TouchRow>,
    windows: Windows<4>,
}

impl Meetings {
    /// Without meetings. With a store, `n_kept_min` of them and of their windows stay in memory in any case.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig, n_kept_min: Option<usize>) -> Meetings {
        let after_us = time.late_horizon_us;
        let archive = |section| n_kept_min.map(|n_kept_min| ArchiveConfig { section, n_kept_min, after_us });
        Meetings {
            time: *time,
            has_store: n_kept_min.is_some(),
            entities: Entities::new(dedup, Some(time), archive(AWAY_MEETINGS)),
            reps: Interner::default(),
            refs: Interner::default(),
            meetings: Vec::new(),
            touches: Rows::default(),
            windows: Windows::new(time.window_us, archive(AWAY_WINDOWS)),
        }
    }

    fn touch_view(&self) -> TouchView {
        TouchView::new("meeting", &self.reps, &self.refs, self.entities.ids().texts())
    }

    fn versions(&self, table: Table, revision: u32) -> Option<RecordBatch> {
        match table {
            Table::RepMeetings => self.windows.versions(table, self.reps.texts(), revision),
            Table::Touches => self.touch_view().versions(&self.touches, revision),
            _ => None,
        }
    }

    fn take(&mut self, columns: &Columns<'_>, row: usize) -> Outcome {
        let common = &columns.common;
        let event_id = common.event_id(row);
        let candidate = Candidate {
            id: columns.meeting.value(row),
            event_time_us: common.time_us(row),
            sequence: common.sequence(row),
            event_id: &event_id,
            source: common.source(row),
            content: columns.content(row),
        };
        self.bring_back(candidate.id);
        let offered = self.entities.offer(&candidate, ClockOf::Itself);
        let number = match offered.place {
            Place::Nowhere => return offered.outcome,
            Place::First => self.meetings.len(),
            Place::Newest(number) => {
                let old = self.meetings[number as usize];
                self.windows.subtract(old.rep, old.start_us, &share(old.status));
                if old.touch != NONE {
                    self.touches.remove(old.touch);
                }
                number as usize
            }
        };
        let meeting = self.read(columns, row, u32::try_from(number).expect("entities are numbered in 32 bits"));
        self.windows.add(meeting.rep, meeting.start_us, &share(meeting.status));
        match self.meetings.get_mut(number) {
            Some(place) => *place = meeting,
            None => self.meetings.push(meeting),
        }
        offered.outcome
    }

    /// Takes a meeting that was read back for this batch into memory again.
    fn bring_back(&mut self, id: &str) {
        let Some((start_us, rep, status, deal, account)) = self.entities.bring_back(id, ClockOf::Itself) else {
            return;
        };
        let number = u32::try_from(self.meetings.len()).expect("entities are numbered in 32 bits");
        let status = Status::from_wire(status).expect("it was checked when it was read");
        let touch = match status {
            Status::Held => {
                let (deal, account) = (deal.unwrap_or(NONE), account.unwrap_or(NONE));
                self.touches.bring_back(touch(number, start_us, rep, deal, account))
            }
            _ => NONE,
        };
        self.meetings.push(Meeting { start_us, rep, touch, status });
    }

    /// Lets go of what is done.
    fn leave(&mut self, clock: &LaneClock, cold: &mut Vec<StateEntry>) {
        self.windows.leave(clock, &self.time, cold);
        let wire = |number: u32| wire(&self.meetings[number as usize], &self.touches);
        let Some(kept) = self.entities.leave(clock, ClockOf::Itself, cold, wire) else { return };
        let mut touches = Vec::new();
        let renumbered = (0..).zip(kept).map(|(number, old)| {
            let mut meeting = self.meetings[old as usize];
            if meeting.touch != NONE {
                touches.push((TouchRow { id: number, ..*self.touches.get(meeting.touch) }, true));
                meeting.touch = (touches.len() - 1) as u32;
            }
            meeting
        });
        self.meetings = renumbered.collect();
        self.touches = Rows::restored(touches);
    }

    fn read(&mut self, columns: &Columns<'_>, row: usize, number: u32) -> Meeting {
        let rep = self.reps.intern(columns.rep.value(row));
        let start_us = columns.start_us[row];
        let status = match columns.status.value(row) {
            "held" => Status::Held,
            "no_show" => Status::NoShow,
            "canceled" => Status::Canceled,
            _ => Status::Scheduled,
        };
        let touch = if status == Status::Held {
            let (deal, account) = (opt_text(columns.deal, row), opt_text(columns.account, row));
            let Concerns { deal, account, .. } = Concerns::intern(&mut self.refs, deal, None, account);
            self.touches.insert(touch(number, start_us, rep, deal, account))
        } else {
            NONE
        };
        Meeting { start_us, rep, touch, status }
    }
}

fn touch(meeting: u32, time_us: i64, rep: u32, deal: u32, account: u32) -> TouchRow {
    let (source, lead, direction) = (NONE, NONE, Direction::Mutual);
    TouchRow { time_us, rep, id: meeting, source, deal, lead, account, direction, status: 0 }
}

fn wire(meeting: &Meeting, touches: &Rows<TouchRow>) -> MeetingWire {
    let Meeting { start_us, rep, touch, status } = *meeting;
    let (deal, account) = match touch {
        NONE => (NONE, NONE),
        touch => (touches.get(touch).deal, touches.get(touch).account),
    };
    (start_us, rep, status as u8, opt(deal), opt(account))
}

fn share(status: Status) -> Share<4> {
    Share::of([
        u32::from(status != Status::Canceled),
        u32::from(status == Status::Held),
        u32::from(status == Status::NoShow),
        u32::from(status == Status::Canceled),
    ])
}

struct Columns<'a> {
    common: Common<'a>,
    meeting: &'a StringArray,
    rep: &'a StringArray,
    account: &'a StringArray,
    deal: &'a StringArray,
    start_us: &'a [i64],
    end_us: &'a [i64],
    status: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(events: &'a EventBatch) -> Columns<'a> {
        Columns {
            common: Common::of(events),
            meeting: events.strings(meetings::MEETING_ID),
            rep: events.strings(meetings::REP_ID),
            account: events.strings(meetings::ACCOUNT_ID),
            deal: events.strings(meetings::DEAL_ID),
            start_us: events.times(meetings::SCHEDULED_START).values(),
            end_us: events.times(meetings::SCHEDULED_END).values(),
            status: events.strings(meetings::STATUS),
        }
    }

    fn content(&self, row: usize) -> u64 {
        Fingerprint::default()
            .text(self.rep.value(row))
            .opt_text(opt_text(self.account, row))
            .opt_text(opt_text(self.deal, row))
            .int(self.start_us[row])
            .int(self.end_us[row])
            .text(self.status.value(row))
            .u64()
    }
}

impl Operator for Meetings {
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
            let id = columns.meeting.value(row);
            keys.extend(self.entities.wanted(id));
            let held = self.entities.find(id).map(|number| self.meetings[number as usize]);
            let away = || self.entities.look(id).map(|(start_us, rep, ..)| (*rep, *start_us));
            let rep = self.reps.number(columns.rep.value(row));
            // The window that it may leave, and the one that it comes into.
            let leaves = held.map(|meeting| (meeting.rep, meeting.start_us)).or_else(away);
            let places = leaves.into_iter().chain(rep.map(|rep| (rep, columns.start_us[row])));
            keys.extend(places.filter_map(|(rep, time_us)| self.windows.wanted(rep, time_us)));
        }
        keys.into_iter().collect()
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        let known = |n| Refs { section: MEETINGS, n };
        let (reps, refs) = (known(self.reps.len()), known(self.refs.len()));
        for entry in cold {
            let check = |(_, rep, status, deal, account): &MeetingWire| {
                reps.known(*rep)?;
                refs.known_opt(*deal)?;
                refs.known_opt(*account)?;
                Status::from_wire(*status).map(|_| ())
            };
            if !self.entities.supply(&entry, check)? && !self.windows.supply(&entry)? {
                return Err(damaged(MEETINGS, 0, "an entry that was not asked for"));
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
            Table::RepMeetings => Some(self.windows.snapshot(Table::RepMeetings, self.reps.texts())),
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
        self.entities.save(MEETINGS, &mut saver, |number| wire(&self.meetings[number as usize], &self.touches));
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
        self.reps = loader.interner(REPS)?;
        self.refs = loader.interner(REFS)?;
        let meetings = self.entities.load(MEETINGS, &mut loader, None)?;
        let known = |n| Refs { section: MEETINGS, n };
        let (reps, refs) = (known(self.reps.len()), known(self.refs.len()));
        let has_windows = self.has_store && self.windows.load(WINDOWS, &mut loader, reps)?;
        for (number, (start_us, rep, status, deal, account)) in (0..).zip(meetings) {
            let (rep, deal, account) = (reps.known(rep)?, refs.known_opt(deal)?, refs.known_opt(account)?);
            let status = Status::from_wire(status)?;
            let touch = match status {
                Status::Held => self.touches.insert(touch(number, start_us, rep, deal, account)),
                _ => NONE,
            };
            if !has_windows {
                self.windows.add(rep, start_us, &share(status));
            }
            self.meetings.push(Meeting { start_us, rep, touch, status });
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
            + self.meetings.capacity() * size_of::<Meeting>()
            + self.touches.memory_bytes()
            + self.windows.memory_bytes()
    }
}
