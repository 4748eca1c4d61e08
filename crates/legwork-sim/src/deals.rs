//! Deals: they move forward, skip, fall back, stall, are won, lost and opened again.

use legwork_types::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};
use legwork_types::{Kind, deal_events};

use crate::crm::MONEY_UNITS;
use crate::organisation::{Happening, Organisation};
use crate::world::HUBS;

const DEAL_IDS: usize = 6;
/// Open deals that a rep works on at most.
const OPEN_DEALS_MAX: usize = 12;
/// Mean time between two steps of a deal.
const STEP_MEAN_US: i64 = 3 * DAY_US;

/// A stage with its probability of a win and the days after which a deal stalls in it.
pub(crate) struct StageInfo {
    pub(crate) name: &'static str,
    pub(crate) probability: f64,
    pub(crate) stall_after_days: u32,
}

/// A pipeline: its open stages in order; `won` and `lost` follow.
pub(crate) struct Pipeline {
    pub(crate) id: &'static str,
    pub(crate) stages: &'static [StageInfo],
}

const fn stage(name: &'static str, probability: f64, stall_after_days: u32) -> StageInfo {
    StageInfo { name, probability, stall_after_days }
}

pub(crate) const PIPELINES: [Pipeline; 2] = [
    Pipeline {
        id: "new-business",
        stages: &[
            stage("prospect", 0.10, 14),
            stage("qualified", 0.25, 14),
            stage("proposal", 0.50, 12),
            stage("negotiation", 0.75, 10),
        ],
    },
    Pipeline {
        id: "renewals",
        stages: &[stage("review", 0.60, 21), stage("offer", 0.75, 14), stage("commit", 0.90, 10)],
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DealState {
    /// Number of the stage in its pipeline.
    Open(u8),
    Won,
    Lost,
}

#[derive(Debug)]
pub(crate) struct Deal {
    pub(crate) id: u32,
    pub(crate) account: u32,
    owner: u32,
    lead: Option<u32>,
    pipeline: u8,
    state: DealState,
    hub: u8,
    /// Whole units of the hub's currency.
    amount: i64,
    /// Days since 1970-01-01.
    close_day: i32,
    sequence: i64,
    last_us: i64,
}

/// What one event of a deal says.
#[derive(Debug, Default)]
struct Patch {
    is_new: bool,
    stage: bool,
    amount: bool,
    close_date: bool,
    owner: bool,
    next_step_us: Option<i64>,
    /// Until when, and why.
    snooze: Option<(i64, &'static str)>,
    clears_next_step: bool,
}

impl Organisation {
    /// The open deal of a rep with an account, by its number.
    pub(crate) fn deal_with(&self, rep: u32, account: u32) -> Option<u32> {
        let mut deals = self.reps[rep as usize].deals.iter().map(|&idx| &self.deals[idx as usize]);
        deals.find(|deal| deal.account == account).map(|deal| deal.id)
    }

    /// What the CRM already knew at the start of this rep's deals, told all at once.
    pub(crate) fn send_history(&mut self, rep: u32) {
        if self.config.history_days == 0 {
            return;
        }
        let hub = self.world.hub_of(rep);
        let n_deals = 9 + self.dice.below(7);
        for _ in 0..n_deals {
            // Squared, since most old ones are over: about half of these are still open.
            let age = self.dice.unit().powi(2);
            let age_us = HOUR_US + (age * f64::from(self.config.history_days) * DAY_US as f64) as i64;
            // Not within the run itself: business hours may begin after the start.
            let created_us = self.world.in_business_hours(hub, self.config.start_us - age_us).min(self.config.start_us);
            let account = self.world.account_of(rep, self.dice.below(self.world.accounts_per_rep));
            self.create_deal(rep, account, None, created_us);
        }
    }

    /// A lead becomes a deal. None when the rep has too many; otherwise the deal's number.
    pub(crate) fn open_deal(&mut self, rep: u32, account: u32, lead: Option<u32>) -> Option<u32> {
        if self.reps[rep as usize].deals.len() >= OPEN_DEALS_MAX {
            return None;
        }
        Some(self.create_deal(rep, account, lead, self.now_us - SECOND_US))
    }

    fn create_deal(&mut self, rep: u32, account: u32, lead: Option<u32>, created_us: i64) -> u32 {
        let id = self.next_id(DEAL_IDS);
        let hub = self.world.hub_of(rep);
        let amount = (self.dice.exponential(9_000.0) + 400.0) * HUBS[hub].per_base;
        let days = self.dice.between_i64(10, 60);
        let deal = Deal {
            id,
            account,
            owner: rep,
            lead,
            pipeline: u8::from(lead.is_none() && self.dice.chance(0.3)),
            state: DealState::Open(0),
            hub: hub as u8,
            amount: (amount / 10.0) as i64 * 10,
            close_day: (created_us.div_euclid(DAY_US) + days) as i32,
            sequence: 0,
            last_us: created_us - 1,
        };
        let idx = match self.free_deals.pop() {
            Some(idx) => {
                self.deals[idx as usize] = deal;
                idx
            }
            None => {
                self.deals.push(deal);
                self.deals.len() as u32 - 1
            }
        };
        self.reps[rep as usize].deals.push(idx);
        let next_step_us = Some(created_us + self.dice.between_i64(DAY_US, 4 * DAY_US));
        self.send_deal(idx, created_us, &Patch { is_new: true, next_step_us, ..Patch::default() });
        self.run_deal(idx, created_us);
        id
    }

    /// The next step of a deal is due.
    pub(crate) fn move_deal(&mut self, idx: u32) {
        // Some are entered hours later, with the time at which they happened.
        let ago_us = if self.dice.chance(0.04) {
            self.dice.between_i64(HOUR_US, 6 * HOUR_US)
        } else {
            self.dice.between_i64(SECOND_US, 20 * SECOND_US)
        };
        let event_us = (self.now_us - ago_us).max(self.deals[idx as usize].last_us + 1);
        if let Some(wait_us) = self.step_deal(idx, event_us) {
            self.run_deal_after(idx, event_us, wait_us);
        }
    }

    fn run_deal(&mut self, idx: u32, from_us: i64) {
        let wait_us = MINUTE_US + self.dice.exponential(STEP_MEAN_US as f64) as i64;
        self.run_deal_after(idx, from_us, wait_us);
    }

    /// Steps that lie before the start of the run are taken at once, the first later one is planned.
    fn run_deal_after(&mut self, idx: u32, from_us: i64, wait_us: i64) {
        let (mut at_us, mut wait_us) = (from_us, wait_us);
        loop {
            let hub = usize::from(self.deals[idx as usize].hub);
            at_us = self.world.in_business_hours(hub, at_us + wait_us);
            if at_us > self.config.start_us {
                return self.plan(at_us.max(self.now_us), Happening::DealMoves { deal: idx });
            }
            match self.step_deal(idx, at_us) {
                Some(next_wait_us) => wait_us = next_wait_us,
                None => return,
            }
        }
    }

    /// One step as of `event_us`. Returns the time to the next one, or none when nothing more comes of the deal.
    fn step_deal(&mut self, idx: u32, event_us: i64) -> Option<i64> {
        match self.deals[idx as usize].state {
            DealState::Open(stage) => self.step_open_deal(idx, stage, event_us),
            DealState::Won | DealState::Lost => {
                // Planned only for those that are opened again.
                let deal = &mut self.deals[idx as usize];
                deal.state = DealState::Open(u8::from(deal.state == DealState::Won));
                let owner = deal.owner;
                self.reps[owner as usize].deals.push(idx);
                self.push_close_date(idx, event_us);
                self.send_deal(idx, event_us, &Patch { stage: true, close_date: true, ..Patch::default() });
                Some(self.next_wait())
            }
        }
    }

    fn step_open_deal(&mut self, idx: u32, stage: u8, event_us: i64) -> Option<i64> {
        let n_stages = PIPELINES[usize::from(self.deals[idx as usize].pipeline)].stages.len() as u8;
        let mut patch = Patch { stage: true, ..Patch::default() };
        let next = match self.dice.unit() {
            0.0..0.14 => return Some(self.edit_deal(idx, event_us)),
            0.14..0.60 => stage + 1,
            0.60..0.69 if stage + 2 < n_stages => stage + 2,
            0.60..0.69 => stage + 1,
            0.69..0.76 => stage.saturating_sub(1),
            0.76..0.91 => return self.close_deal(idx, DealState::Lost, event_us),
            _ => return Some(self.stall_deal(idx, event_us)),
        };
        if next >= n_stages {
            return self.close_deal(idx, DealState::Won, event_us);
        }
        let is_overdue = event_us.div_euclid(DAY_US) + 3 > i64::from(self.deals[idx as usize].close_day);
        if is_overdue && self.dice.chance(0.7) {
            self.push_close_date(idx, event_us);
            patch.close_date = true;
        }
        if self.dice.chance(0.6) {
            patch.next_step_us = Some(event_us + self.dice.between_i64(4 * HOUR_US, 6 * DAY_US));
        }
        // Falling back from the first stage changes nothing but the date.
        patch.stage = next != stage;
        self.deals[idx as usize].state = DealState::Open(next);
        self.send_deal(idx, event_us, &patch);
        Some(self.next_wait())
    }

    /// Amount, date, owner or a snooze changes, the stage does not.
    fn edit_deal(&mut self, idx: u32, event_us: i64) -> i64 {
        let mut patch = Patch::default();
        match self.dice.unit() {
            0.0..0.40 => {
                let factor = self.dice.between(0.7, 1.3);
                let deal = &mut self.deals[idx as usize];
                deal.amount = (deal.amount as f64 * factor / 10.0) as i64 * 10;
                patch.amount = true;
            }
            0.40..0.70 => {
                self.push_close_date(idx, event_us);
                patch.close_date = true;
            }
            0.70..0.85 => {
                self.hand_over(idx);
                patch.owner = true;
            }
            _ => {
                let until_us = event_us + self.dice.between_i64(2 * DAY_US, 14 * DAY_US);
                patch.snooze = Some((until_us, "buyer is away"));
            }
        }
        self.send_deal(idx, event_us, &patch);
        self.next_wait()
    }

    /// Nothing is planned any more, and nothing happens for weeks.
    fn stall_deal(&mut self, idx: u32, event_us: i64) -> i64 {
        self.send_deal(idx, event_us, &Patch { clears_next_step: true, ..Patch::default() });
        self.dice.between_i64(20 * DAY_US, 60 * DAY_US)
    }

    /// Won or lost. Few are opened again; the others leave the books.
    fn close_deal(&mut self, idx: u32, state: DealState, event_us: i64) -> Option<i64> {
        let deal = &mut self.deals[idx as usize];
        deal.state = state;
        let (id, account, owner) = (deal.id, deal.account, deal.owner);
        self.reps[owner as usize].deals.retain(|&other| other != idx);
        self.send_deal(idx, event_us, &Patch { stage: true, clears_next_step: true, ..Patch::default() });
        if state == DealState::Won {
            self.send_orders(id, account, owner, event_us);
        }
        if self.dice.chance(0.1) {
            return Some(self.dice.between_i64(HOUR_US, 3 * DAY_US));
        }
        self.free_deals.push(idx);
        None
    }

    fn next_wait(&mut self) -> i64 {
        MINUTE_US + self.dice.exponential(STEP_MEAN_US as f64) as i64
    }

    fn push_close_date(&mut self, idx: u32, event_us: i64) {
        let days = self.dice.between_i64(10, 40);
        let deal = &mut self.deals[idx as usize];
        deal.close_day = deal.close_day.max(event_us.div_euclid(DAY_US) as i32) + days as i32;
    }

    fn hand_over(&mut self, idx: u32) {
        let old = self.deals[idx as usize].owner;
        let new = self.world.team_mate(old);
        self.deals[idx as usize].owner = new;
        self.reps[old as usize].deals.retain(|&other| other != idx);
        self.reps[new as usize].deals.push(idx);
    }

    fn send_deal(&mut self, idx: u32, event_us: i64, patch: &Patch) {
        let (run, number) = (self.out.run, self.out.number());
        let deal = &mut self.deals[idx as usize];
        let stages = PIPELINES[usize::from(deal.pipeline)].stages;
        let (stage, probability) = match deal.state {
            DealState::Open(stage) => (stages[usize::from(stage)].name, stages[usize::from(stage)].probability),
            DealState::Won => ("won", 1.0),
            DealState::Lost => ("lost", 0.0),
        };
        let rows = self.out.begin(Kind::DealEvents, number, event_us, Some(deal.sequence));
        deal.sequence += 1;
        deal.last_us = event_us;
        rows.write(deal_events::DEAL_ID, format_args!("deal-{run:05x}-{}", deal.id));
        if patch.is_new {
            rows.text(deal_events::PIPELINE_ID, PIPELINES[usize::from(deal.pipeline)].id)
                .write(deal_events::ACCOUNT_ID, format_args!("account-{:06}", deal.account))
                .text(deal_events::CURRENCY, HUBS[usize::from(deal.hub)].currency);
            if let Some(lead) = deal.lead {
                rows.write(deal_events::LEAD_ID, format_args!("lead-{run:05x}-{lead}"));
            }
        }
        if patch.is_new || patch.stage {
            rows.text(deal_events::STAGE, stage).f64(deal_events::PROBABILITY, probability);
        }
        if patch.is_new || patch.amount {
            rows.money(deal_events::AMOUNT, i128::from(deal.amount) * MONEY_UNITS);
        }
        if patch.is_new || patch.close_date {
            rows.date(deal_events::CLOSE_DATE, deal.close_day);
        }
        if patch.is_new || patch.owner {
            rows.write(deal_events::OWNER_ID, format_args!("rep-{:05}", deal.owner));
        }
        if let Some(next_step_us) = patch.next_step_us {
            rows.time(deal_events::NEXT_STEP_TIME, next_step_us);
        }
        if let Some((until_us, reason)) = patch.snooze {
            rows.time(deal_events::SNOOZE_UNTIL, until_us).text(deal_events::SNOOZE_REASON, reason);
        }
        if patch.clears_next_step {
            rows.texts(deal_events::CLEARED, &["next_step_time"]);
        }
        rows.end(self.now_us);
    }
}
