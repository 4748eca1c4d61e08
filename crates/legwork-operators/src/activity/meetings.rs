//! Meetings: entities, in the window of their planned start.

use std::sync::Arc;

use arrow::array::StringArray;
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{EventBatch, Table, TableSnapshot, Verdicts, meetings};

use super::touches::{Concerns, Direction, TouchRow, touches};
use super::windows::{Share, Windows};
use crate::Operator;
use crate::state::{
    Candidate, ClockOf, Common, DedupConfig, Entities, Interner, NONE, Outcome, Place, Rows, Tally, hash_of, opt_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Scheduled,
    Held,
    NoShow,
    Canceled,
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
            let Concerns { deal, lead, account } = Concerns::intern(&mut self.refs, deal, None, account);
            let direction = Direction::Mutual;
            let time_us = start_us;
            self.touches.insert(TouchRow {
                time_us,
                rep,
                id: number,
                source: NONE,
                deal,
                lead,
                account,
                direction,
                status: 0,
            })
        } else {
            NONE
        };
        Meeting { start_us, rep, touch, status }
    }
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
        hash_of((
            self.rep.value(row),
            opt_text(self.account, row),
            opt_text(self.deal, row),
            self.start_us[row],
            self.end_us[row],
            self.status.value(row),
        ))
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
        vec![Table::RepMeetings.name(), Table::Touches.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        match Table::by_name(table)? {
            Table::RepMeetings => Some(self.windows.snapshot(Table::RepMeetings, self.reps.texts())),
            Table::Touches => {
                Some(touches(&self.touches, "meeting", &self.reps, &self.refs, self.entities.ids().texts()))
            }
            _ => None,
        }
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
