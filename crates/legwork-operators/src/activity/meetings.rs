//! Meetings: entities, in the window of their planned start.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateError, Table, TableSnapshot, Verdicts, meetings};

use super::touches::{Concerns, Direction, TouchRow, TouchView};
use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{
    Candidate, ClockOf, Common, DedupConfig, Entities, Fingerprint, Interner, Loader, NONE, Outcome, Place, Refs, Rows,
    Saver, Tally, changed_rows, damaged, opt, opt_text,
};

const TABLES: [Table; 2] = [Table::RepMeetings, Table::Touches];

/// Sections of the state; meetings take five.
const REPS: u8 = b'a';
const REFS: u8 = b'b';
const MEETINGS: u8 = b'c';

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
/// planned for the window whatever came of them, except those called off (scheduled, held, no_show); `n_canceled` counts those.
#[derive(Debug)]
pub struct Meetings {
    entities: Entities,
    reps: Interner,
    refs: Interner,
    meetings: Vec<Meeting>,
    touches: Rows<TouchRow>,
    windows: Windows<4>,
}

impl Meetings {
    /// Without meetings.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig) -> Meetings {
        Meetings {
            entities: Entities::new(dedup, Some(time)),
            reps: Interner::default(),
            refs: Interner::default(),
            meetings: Vec::new(),
            touches: Rows::default(),
            windows: Windows::new(time.window_us),
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
        tally.verdicts()
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
        self.windows.forget_changes();
        let mut saver = Saver::default();
        self.reps.save(REPS, &mut saver);
        self.refs.save(REFS, &mut saver);
        self.entities.save(MEETINGS, &mut saver, |number| -> MeetingWire {
            let Meeting { start_us, rep, touch, status } = self.meetings[number as usize];
            let (deal, account) = match touch {
                NONE => (NONE, NONE),
                touch => (self.touches.get(touch).deal, self.touches.get(touch).account),
            };
            (start_us, rep, status as u8, opt(deal), opt(account))
        });
        Changes { hot: saver.entries(), rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        self.versions(table, clock.revision)
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        self.reps = loader.interner(REPS)?;
        self.refs = loader.interner(REFS)?;
        let meetings = self.entities.load::<MeetingWire>(MEETINGS, &mut loader, None)?;
        let known = |n| Refs { section: MEETINGS, n };
        let (reps, refs) = (known(self.reps.len()), known(self.refs.len()));
        for (number, (start_us, rep, status, deal, account)) in (0..).zip(meetings) {
            let (rep, deal, account) = (reps.known(rep)?, refs.known_opt(deal)?, refs.known_opt(account)?);
            let status = Status::from_wire(status)?;
            let touch = match status {
                Status::Held => self.touches.insert(touch(number, start_us, rep, deal, account)),
                _ => NONE,
            };
            self.windows.add(rep, start_us, &share(status));
            self.meetings.push(Meeting { start_us, rep, touch, status });
        }
        self.touches.forget_changes();
        self.windows.forget_changes();
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
