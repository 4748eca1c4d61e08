//! Leads, and what comes in and goes out: orders, refunds, costs. Deals themselves are next door.

use legwork_types::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};
use legwork_types::{Kind, costs, leads, orders};

pub(crate) use crate::deals::Deal;
use crate::organisation::{Happening, Organisation};
use crate::world::HUBS;

const LEAD_IDS: usize = 5;
const ORDER_IDS: usize = 7;
/// New leads a rep and working day.
const LEADS_A_DAY: f64 = 1.5;
/// Units of decimal(18,4) in one unit of a currency.
pub(crate) const MONEY_UNITS: i128 = 10_000;

pub(crate) const ORIGINS: [&str; 5] = ["website", "trade-fair", "referral", "cold-call", "campaign-spring"];
/// Products with family and price in the base currency.
pub(crate) const PRODUCTS: [(&str, &str, &str, i64); 8] = [
    ("product-01", "Handheld scanner", "hardware", 420),
    ("product-02", "Label printer", "hardware", 610),
    ("product-03", "Shelf tablet", "hardware", 350),
    ("product-04", "Stock licence, year", "software", 240),
    ("product-05", "Ordering licence, year", "software", 380),
    ("product-06", "Analytics licence, year", "software", 900),
    ("product-07", "Installation day", "services", 750),
    ("product-08", "Support contract, year", "services", 500),
];

/// Where a lead stands that somebody is working on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeadStep {
    id: u32,
    rep: u32,
    account: u32,
    to: LeadStatus,
    sequence: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeadStatus {
    New,
    Contacted,
    Qualified,
    Converted,
    Lost,
}

/// A sold line, as far as a refund needs it.
#[derive(Clone, Debug)]
pub(crate) struct Won {
    pub(crate) deal: u32,
    pub(crate) account: u32,
    pub(crate) rep: u32,
    hub: usize,
    product: usize,
    quantity: i64,
    amount: i128,
}

impl Organisation {
    pub(crate) fn receive_lead(&mut self, team: u32) {
        let n_reps = self.world.teams[team as usize].n_reps;
        let hub = self.world.teams[team as usize].hub;
        // Ten working hours a day.
        let mean_us = 10.0 * HOUR_US as f64 / (f64::from(n_reps) * LEADS_A_DAY);
        let wish_us = self.now_us + SECOND_US + self.dice.exponential(mean_us) as i64;
        let next_us = self.world.in_business_hours(hub, wish_us);
        self.plan(next_us, Happening::LeadArrives { team });
        let rep = team + self.dice.below(n_reps) * self.world.teams.len() as u32;
        let account = self.world.account_of(rep, self.dice.below(self.world.accounts_per_rep));
        let id = self.next_id(LEAD_IDS);
        let lead = LeadStep { id, rep, account, to: LeadStatus::New, sequence: 0 };
        self.send_lead(&lead, None);
        // One in seven is never touched.
        if self.dice.chance(0.86) {
            self.plan_lead(LeadStep { to: LeadStatus::Contacted, sequence: 1, ..lead }, HOUR_US);
        }
    }

    fn plan_lead(&mut self, lead: LeadStep, mean_us: i64) {
        let hub = self.world.hub_of(lead.rep);
        let wish_us = self.now_us + 3 * MINUTE_US + self.dice.exponential(mean_us as f64) as i64;
        let at_us = self.world.in_business_hours(hub, wish_us);
        self.plan(at_us, Happening::Lead(lead));
    }

    pub(crate) fn work_on_lead(&mut self, lead: LeadStep) {
        let next = |to| LeadStep { to, sequence: lead.sequence + 1, ..lead };
        match lead.to {
            LeadStatus::Contacted => {
                self.send_lead(&lead, None);
                self.start_call(lead.rep, lead.account, None, Some(lead.id));
                match self.dice.unit() {
                    0.0..0.55 => self.plan_lead(next(LeadStatus::Qualified), 3 * HOUR_US),
                    0.55..0.85 => self.plan_lead(next(LeadStatus::Lost), 20 * HOUR_US),
                    _ => {}
                }
            }
            LeadStatus::Qualified => {
                self.send_lead(&lead, None);
                let to = if self.dice.chance(0.7) { LeadStatus::Converted } else { LeadStatus::Lost };
                self.plan_lead(next(to), 5 * HOUR_US);
            }
            LeadStatus::Converted => {
                // A rep with too many open deals leaves it lying.
                if let Some(deal) = self.open_deal(lead.rep, lead.account, Some(lead.id)) {
                    self.send_lead(&lead, Some(deal));
                }
            }
            LeadStatus::New | LeadStatus::Lost => self.send_lead(&lead, None),
        }
    }

    fn send_lead(&mut self, lead: &LeadStep, deal: Option<u32>) {
        let (run, number) = (self.out.run, self.out.number());
        let score = self.dice.between(5.0, 95.0).round();
        let rows = self.out.begin(Kind::Leads, number, self.now_us - SECOND_US, Some(lead.sequence));
        rows.write(leads::LEAD_ID, format_args!("lead-{run:05x}-{}", lead.id));
        let status = match lead.to {
            LeadStatus::New => {
                rows.text(leads::ORIGIN, ORIGINS[lead.id as usize % ORIGINS.len()])
                    .write(leads::OWNER_ID, format_args!("rep-{:05}", lead.rep))
                    .write(leads::ACCOUNT_ID, format_args!("account-{:06}", lead.account))
                    .f64(leads::SCORE, score);
                "new"
            }
            LeadStatus::Contacted => "contacted",
            LeadStatus::Qualified => {
                rows.f64(leads::SCORE, score);
                "qualified"
            }
            LeadStatus::Converted => "converted",
            LeadStatus::Lost => {
                rows.texts(leads::CLEARED, &["score"]);
                "lost"
            }
        };
        rows.text(leads::STATUS, status);
        if let Some(deal) = deal {
            rows.write(leads::DEAL_ID, format_args!("deal-{run:05x}-{deal}"));
        }
        rows.end(self.now_us);
    }

    /// Order lines of a deal won at `event_us`; some are refunded later.
    pub(crate) fn send_orders(&mut self, deal: u32, account: u32, rep: u32, event_us: i64) {
        let hub = self.world.hub_of(rep);
        let n_lines = 1 + self.dice.below(3);
        for _ in 0..n_lines {
            let product = self.dice.below(PRODUCTS.len() as u32) as usize;
            let quantity = self.dice.between_i64(1, 25);
            let price = (PRODUCTS[product].3 as f64 * HUBS[hub].per_base * 100.0).round() as i128;
            let amount = price * i128::from(quantity) * MONEY_UNITS / 100;
            let won = Won { deal, account, rep, hub, product, quantity, amount };
            self.send_order(&won, "sale", event_us);
            if event_us >= self.config.start_us && self.dice.chance(0.15) {
                let at_us = self.now_us + self.dice.between_i64(20 * MINUTE_US, 12 * HOUR_US);
                self.plan(at_us, Happening::Refund(Box::new(won)));
            }
        }
    }

    pub(crate) fn refund(&mut self, won: &Won) {
        self.send_order(won, "refund", self.now_us);
    }

    fn send_order(&mut self, won: &Won, kind: &str, event_us: i64) {
        let id = self.next_id(ORDER_IDS);
        let (run, number) = (self.out.run, self.out.number());
        let rows = self.out.begin(Kind::Orders, number, event_us, Some(0));
        rows.write(orders::ORDER_ID, format_args!("order-{run:05x}-{id}"))
            .write(orders::DEAL_ID, format_args!("deal-{run:05x}-{}", won.deal))
            .write(orders::ACCOUNT_ID, format_args!("account-{:06}", won.account))
            .write(orders::REP_ID, format_args!("rep-{:05}", won.rep))
            .text(orders::PRODUCT_ID, PRODUCTS[won.product].0)
            .f64(orders::QUANTITY, won.quantity as f64)
            .money(orders::AMOUNT, won.amount)
            .text(orders::CURRENCY, HUBS[won.hub].currency)
            .text(orders::KIND, kind)
            .end(self.now_us);
    }

    /// What a team spends, booked each morning.
    pub(crate) fn spend(&mut self, team: u32) {
        let hub = self.world.teams[team as usize].hub;
        let n_reps = f64::from(self.world.teams[team as usize].n_reps);
        for (kind, each) in [("marketing", 60.0), ("sales", 45.0), ("other", 10.0)] {
            let amount = n_reps * each * HUBS[hub].per_base * self.dice.between(0.7, 1.4);
            let number = self.out.number();
            let rows = self.out.begin(Kind::Costs, number, self.now_us, None);
            rows.write(costs::TEAM_ID, format_args!("team-{team:03}"))
                .text(costs::KIND, kind)
                .money(costs::AMOUNT, (amount * 100.0).round() as i128 * (MONEY_UNITS / 100))
                .text(costs::CURRENCY, HUBS[hub].currency)
                .end(self.now_us);
        }
        let (day, _) = self.world.local(hub, self.now_us + DAY_US);
        let at_us = self.world.moment(hub, day, 9 * HOUR_US);
        self.plan(at_us.max(self.now_us + HOUR_US), Happening::TeamSpends { team });
    }
}
