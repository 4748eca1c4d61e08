//! A rep's day: shifts, routes from account to account, visits with check-ins, meetings.

use legwork_types::time::{DAY_US, HOUR_US, MINUTE_US};
use legwork_types::{Kind, check_ins, meetings, shifts};

use crate::motion::Motion;
use crate::organisation::{Happening, Organisation};
use crate::world::{Place, World, is_working_day};

/// Meetings that a rep has ahead at most.
const MEETINGS_MAX: usize = 4;
/// Number of the counter of meetings.
const MEETING_IDS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Off,
    Driving,
    Staying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Home,
    Lunch,
    Account(u32),
}

#[derive(Clone, Debug)]
struct Meeting {
    id: u32,
    account: u32,
    deal: Option<u32>,
    start_us: i64,
    sequence: i64,
}

#[derive(Debug)]
pub(crate) struct Rep {
    home: Place,
    pub(crate) motion: Motion,
    pub(crate) phase: Phase,
    pub(crate) tablet: Option<u32>,
    /// Places in the list of deals.
    pub(crate) deals: Vec<u32>,
    stop: Stop,
    until_us: i64,
    off_us: i64,
    had_lunch: bool,
    is_checked_in: bool,
    /// The meeting that this visit is for.
    attending: Option<Meeting>,
    meetings: Vec<Meeting>,
}

impl Organisation {
    pub(crate) fn hire(&mut self) {
        for rep in 0..self.config.n_reps {
            let home = self.world.place_within(self.world.territory_of(rep), &mut self.dice);
            self.reps.push(Rep {
                home,
                motion: Motion::parked(home, self.now_us),
                phase: Phase::Off,
                tablet: None,
                deals: Vec::new(),
                stop: Stop::Home,
                until_us: 0,
                off_us: 0,
                had_lunch: false,
                is_checked_in: false,
                attending: None,
                meetings: Vec::new(),
            });
        }
    }

    /// Whoever would be at work at the start comes in at once; the others come when their next shift begins.
    pub(crate) fn plan_first_shift(&mut self, rep: u32) {
        let start_us = self.config.start_us;
        let hub = self.world.hub_of(rep);
        let (day, time_of_day_us) = self.world.local(hub, start_us);
        let works = self.world.works(rep, day);
        if works && (8 * HOUR_US..17 * HOUR_US + 30 * MINUTE_US).contains(&time_of_day_us) {
            let at_us = start_us + self.dice.between_i64(0, MINUTE_US);
            self.plan(at_us, Happening::ShiftStarts { rep });
        } else {
            let first_day = if works && time_of_day_us < 8 * HOUR_US { day } else { day + 1 };
            self.plan_shift(rep, first_day);
        }
    }

    /// Plans the first shift on or after a local day.
    fn plan_shift(&mut self, rep: u32, first_day: i64) {
        // On a roster of four weeks everybody works within a month.
        let day = (first_day..first_day + 60).find(|&day| self.world.works(rep, day)).unwrap_or(first_day);
        let hub = self.world.hub_of(rep);
        let begins_us = if is_working_day(day) { 8 * HOUR_US } else { 9 * HOUR_US };
        let at_us = self.world.moment(hub, day, begins_us + self.dice.between_i64(-30 * MINUTE_US, 30 * MINUTE_US));
        self.plan(at_us.max(self.now_us), Happening::ShiftStarts { rep });
    }

    pub(crate) fn start_shift(&mut self, rep: u32) {
        let now_us = self.now_us;
        let hub = self.world.hub_of(rep);
        let (day, time_of_day_us) = self.world.local(hub, now_us);
        let ends_us = if is_working_day(day) { 17 * HOUR_US + 30 * MINUTE_US } else { 16 * HOUR_US };
        let off_us = self.world.moment(hub, day, ends_us + self.dice.between_i64(-30 * MINUTE_US, 30 * MINUTE_US));
        let leaves_us = now_us + self.dice.between_i64(MINUTE_US, 8 * MINUTE_US);
        let state = &mut self.reps[rep as usize];
        state.phase = Phase::Staying;
        state.stop = Stop::Home;
        state.until_us = leaves_us;
        state.off_us = off_us.max(now_us + 30 * MINUTE_US);
        state.had_lunch = time_of_day_us > 11 * HOUR_US + 30 * MINUTE_US;
        state.motion.at_us = now_us;
        let tablet = state.tablet;
        self.send_shift(rep, "on");
        self.plan_shift(rep, day + 1);
        self.tidy_meetings(rep);
        let n_meetings = self.dice.below(3);
        for _ in 0..n_meetings {
            let start_us = now_us + self.dice.between_i64(HOUR_US, 7 * HOUR_US);
            if start_us < self.reps[rep as usize].off_us - HOUR_US {
                self.schedule_meeting(rep, None, start_us);
            }
        }
        let first_contact_us = now_us + self.dice.between_i64(MINUTE_US / 2, 15 * MINUTE_US);
        self.plan(first_contact_us, Happening::Contact { rep, evening: false });
        self.switch_on(rep);
        if let Some(tablet) = tablet {
            self.switch_on(tablet);
        }
    }

    fn end_shift(&mut self, rep: u32) {
        self.send_shift(rep, "off");
        let state = &mut self.reps[rep as usize];
        state.phase = Phase::Off;
        let tablet = state.tablet;
        self.switch_off(rep);
        if let Some(tablet) = tablet {
            self.switch_off(tablet);
        }
        self.tidy_meetings(rep);
        if self.dice.chance(0.3) {
            let at_us = self.now_us + self.dice.between_i64(40 * MINUTE_US, 150 * MINUTE_US);
            self.plan(at_us, Happening::Contact { rep, evening: true });
        }
    }

    /// The day goes on: looks whether the rep has arrived or has stayed long enough.
    pub(crate) fn live(&mut self, rep: u32) {
        let state = &self.reps[rep as usize];
        match state.phase {
            Phase::Driving if !state.motion.is_under_way() => self.arrive(rep),
            Phase::Staying if self.now_us >= state.until_us => self.leave(rep),
            _ => {}
        }
    }

    fn arrive(&mut self, rep: u32) {
        let now_us = self.now_us;
        let stop = self.reps[rep as usize].stop;
        let stay_us = match stop {
            Stop::Home if now_us >= self.reps[rep as usize].off_us - 30 * MINUTE_US => return self.end_shift(rep),
            Stop::Home => self.dice.between_i64(30 * MINUTE_US, 80 * MINUTE_US),
            Stop::Lunch => self.dice.between_i64(25 * MINUTE_US, 50 * MINUTE_US),
            Stop::Account(_) => self.dice.between_i64(12 * MINUTE_US, 50 * MINUTE_US),
        };
        let state = &mut self.reps[rep as usize];
        state.phase = Phase::Staying;
        state.until_us = now_us + stay_us;
        if let Stop::Account(account) = stop {
            let is_due = |meeting: &Meeting| meeting.account == account && (meeting.start_us - now_us).abs() < HOUR_US;
            if let Some(idx) = state.meetings.iter().position(is_due) {
                let meeting = state.meetings.swap_remove(idx);
                state.until_us = state.until_us.max(meeting.start_us + 20 * MINUTE_US);
                state.attending = Some(meeting);
            }
            if !state.is_checked_in && self.dice.chance(0.85) {
                self.check_in_here(rep, account, "in");
            }
        }
    }

    fn leave(&mut self, rep: u32) {
        let state = &mut self.reps[rep as usize];
        let attended = state.attending.take();
        if let Stop::Account(account) = state.stop {
            if std::mem::take(&mut state.is_checked_in) && self.dice.chance(0.9) {
                self.check_in_here(rep, account, "out");
            }
            self.reps[rep as usize].is_checked_in = false;
            if let Some(meeting) = &attended {
                let status = if self.dice.chance(0.88) { "held" } else { "no_show" };
                self.send_meeting(rep, meeting, status);
            }
            self.after_visit(rep, account);
        }
        self.go_on(rep);
    }

    /// What follows a visit: another date, a mail, a task.
    fn after_visit(&mut self, rep: u32, account: u32) {
        if self.dice.chance(0.35) {
            let hub = self.world.hub_of(rep);
            let days = self.dice.between_i64(1, 5);
            let (day, _) = self.world.local(hub, self.now_us + days * DAY_US);
            let hour = self.dice.between_i64(9, 17);
            let start_us = self.world.moment(hub, day, hour * HOUR_US + 30 * MINUTE_US * i64::from(self.dice.below(2)));
            self.schedule_meeting(rep, Some(account), start_us);
        }
        let deal = self.deal_with(rep, account);
        if self.dice.chance(0.4) {
            self.send_email(rep, account, deal);
        }
        if self.dice.chance(0.3) {
            self.create_task(rep, deal);
        }
    }

    /// Chooses where to go next and sets out.
    fn go_on(&mut self, rep: u32) {
        let now_us = self.now_us;
        let hub = self.world.hub_of(rep);
        let (_, time_of_day_us) = self.world.local(hub, now_us);
        let state = &self.reps[rep as usize];
        let is_at_home = state.stop == Stop::Home;
        let is_lunch_time = (12 * HOUR_US..14 * HOUR_US).contains(&time_of_day_us) && !state.had_lunch;
        let next_meeting = state
            .meetings
            .iter()
            .find(|meeting| (now_us - 20 * MINUTE_US..now_us + 50 * MINUTE_US).contains(&meeting.start_us));
        let stop = if now_us >= state.off_us - 10 * MINUTE_US {
            Stop::Home
        } else if let Some(meeting) = next_meeting {
            Stop::Account(meeting.account)
        } else if is_lunch_time {
            Stop::Lunch
        } else if !is_at_home && self.dice.chance(0.07) {
            Stop::Home
        } else {
            Stop::Account(self.choose_account(rep))
        };
        let destination = self.place_of(rep, stop);
        let state = &mut self.reps[rep as usize];
        state.had_lunch |= stop == Stop::Lunch;
        state.stop = stop;
        state.phase = Phase::Driving;
        state.motion.set_out(destination, &mut self.dice);
        if let Stop::Account(account) = stop
            && state.motion.place().distance_m(destination) > 600.0
            && self.dice.chance(0.05)
        {
            // Checks in before having been there.
            self.check_in_here(rep, account, "in");
        }
    }

    /// Of three accounts the nearest that is not right here.
    fn choose_account(&mut self, rep: u32) -> u32 {
        let here = self.reps[rep as usize].motion.place();
        let mut best = (f64::MAX, self.world.account_of(rep, 0));
        for _ in 0..3 {
            let account = self.world.account_of(rep, self.dice.below(self.world.accounts_per_rep));
            let distance_m = here.distance_m(self.world.accounts[account as usize].place);
            if distance_m > 300.0 && distance_m < best.0 {
                best = (distance_m, account);
            }
        }
        best.1
    }

    fn place_of(&mut self, rep: u32, stop: Stop) -> Place {
        match stop {
            Stop::Home => self.reps[rep as usize].home,
            Stop::Account(account) => self.world.accounts[account as usize].place,
            Stop::Lunch => {
                let here = self.reps[rep as usize].motion.place();
                let (dx, dy) = (self.dice.between(-500.0, 500.0), self.dice.between(-500.0, 500.0));
                Place { x_m: here.x_m + dx as f32, y_m: here.y_m + dy as f32 }
            }
        }
    }

    /// Meetings that have passed unattended, and some of those ahead, are moved or called off.
    fn tidy_meetings(&mut self, rep: u32) {
        let now_us = self.now_us;
        let hub = self.world.hub_of(rep);
        let meetings = std::mem::take(&mut self.reps[rep as usize].meetings);
        for mut meeting in meetings {
            let has_passed = meeting.start_us < now_us;
            let chance = self.dice.unit();
            if (has_passed && chance < 0.4) || (!has_passed && chance < 0.08) {
                self.send_meeting(rep, &meeting, "canceled");
                continue;
            }
            if has_passed || chance < 0.2 {
                let shift_us = HOUR_US * self.dice.between_i64(2, 50);
                meeting.start_us = self.world.in_business_hours(hub, now_us.max(meeting.start_us) + shift_us);
                meeting.start_us -= meeting.start_us.rem_euclid(15 * MINUTE_US);
                self.send_meeting(rep, &meeting, "scheduled");
                meeting.sequence += 1;
            }
            self.reps[rep as usize].meetings.push(meeting);
        }
    }

    fn schedule_meeting(&mut self, rep: u32, account: Option<u32>, start_us: i64) {
        if self.reps[rep as usize].meetings.len() >= MEETINGS_MAX {
            return;
        }
        let account = match account {
            Some(account) => account,
            None => self.world.account_of(rep, self.dice.below(self.world.accounts_per_rep)),
        };
        let start_us = start_us - start_us.rem_euclid(15 * MINUTE_US);
        let id = self.next_id(MEETING_IDS);
        let mut meeting = Meeting { id, account, deal: self.deal_with(rep, account), start_us, sequence: 0 };
        self.send_meeting(rep, &meeting, "scheduled");
        meeting.sequence += 1;
        self.reps[rep as usize].meetings.push(meeting);
    }

    fn send_meeting(&mut self, rep: u32, meeting: &Meeting, status: &str) {
        let run = self.out.run;
        let number = self.out.number();
        let rows = self.out.begin(Kind::Meetings, number, self.now_us - 50_000, Some(meeting.sequence));
        rows.write(meetings::MEETING_ID, format_args!("meeting-{run:05x}-{}", meeting.id))
            .write(meetings::REP_ID, format_args!("rep-{rep:05}"))
            .write(meetings::ACCOUNT_ID, format_args!("account-{:06}", meeting.account))
            .time(meetings::SCHEDULED_START, meeting.start_us)
            .time(meetings::SCHEDULED_END, meeting.start_us + 45 * MINUTE_US)
            .text(meetings::STATUS, status);
        if let Some(deal) = meeting.deal {
            rows.write(meetings::DEAL_ID, format_args!("deal-{run:05x}-{deal}"));
        }
        rows.end(self.now_us);
    }

    fn send_shift(&mut self, rep: u32, kind: &str) {
        let number = self.out.number();
        let rows = self.out.begin(Kind::Shifts, number, self.now_us - 200_000, None);
        rows.write(shifts::REP_ID, format_args!("rep-{rep:05}")).text(shifts::KIND, kind).end(self.now_us);
    }

    /// Checks in or out from where the rep is: mostly with a fresh position, sometimes an old one, sometimes none.
    fn check_in_here(&mut self, rep: u32, account: u32, kind: &str) {
        let state = &mut self.reps[rep as usize];
        state.is_checked_in = kind == "in";
        let (hub, here) = (self.world.hub_of(rep), self.reps[rep as usize].motion.place());
        let chance = self.dice.unit();
        if chance < 0.04 {
            // The phone still had the position from home.
            let home = self.reps[rep as usize].home;
            let position = World::degrees_e7(hub, f64::from(home.x_m), f64::from(home.y_m));
            return self.send_check_in(rep, account, kind, Some((position, 30.0)), (true, false));
        }
        if chance < 0.07 {
            return self.send_check_in(rep, account, kind, None, (false, false));
        }
        let (dx, dy) = (5.0 * self.dice.normal(), 5.0 * self.dice.normal());
        let position = World::degrees_e7(hub, f64::from(here.x_m) + dx, f64::from(here.y_m) + dy);
        let accuracy_m = self.dice.between(5.0, 25.0) as f32;
        self.send_check_in(rep, account, kind, Some((position, accuracy_m)), (false, false));
    }

    /// Checks in at an account with a faked position.
    pub(crate) fn check_in_with_mock(&mut self, rep: u32) {
        let account = self.world.account_of(rep, 0);
        let place = self.world.accounts[account as usize].place;
        let position = World::degrees_e7(self.world.hub_of(rep), f64::from(place.x_m), f64::from(place.y_m));
        self.send_check_in(rep, account, "in", Some((position, 3.0)), (false, true));
    }

    fn send_check_in(
        &mut self,
        rep: u32,
        account: u32,
        kind: &str,
        position: Option<((i32, i32), f32)>,
        (cached, mock): (bool, bool),
    ) {
        let run = self.out.run;
        let number = self.out.number();
        let meeting = self.reps[rep as usize].attending.as_ref().map(|meeting| meeting.id);
        let rows = self.out.begin(Kind::CheckIns, number, self.now_us - 300_000, None);
        rows.write(check_ins::CHECK_IN_ID, format_args!("check-in-{run:05x}-{number:x}"))
            .write(check_ins::REP_ID, format_args!("rep-{rep:05}"))
            .write(check_ins::DEVICE_ID, format_args!("phone-{rep:05}"))
            .write(check_ins::ACCOUNT_ID, format_args!("account-{account:06}"))
            .text(check_ins::KIND, kind)
            .bool(check_ins::CACHED, cached)
            .bool(check_ins::MOCK, mock);
        if let Some(((lat_e7, lon_e7), accuracy_m)) = position {
            rows.f64(check_ins::LAT, f64::from(lat_e7) / 1e7)
                .f64(check_ins::LON, f64::from(lon_e7) / 1e7)
                .f32(check_ins::ACCURACY_M, accuracy_m.round());
        }
        if let Some(meeting) = meeting {
            rows.write(check_ins::MEETING_ID, format_args!("meeting-{run:05x}-{meeting}"));
        }
        rows.end(self.now_us);
    }
}
