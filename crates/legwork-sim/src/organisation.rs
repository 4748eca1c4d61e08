//! The organisation: its state, the queue of what happens next, and the way out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use arrow::array::{AsArray, RecordBatch, StringArray};
use legwork_types::Kind;
use legwork_types::time::{DAY_US, MINUTE_US, SECOND_US};

use crate::comms::{CallRecord, EmailRecord};
use crate::crm::{Deal, LeadStep, Won};
use crate::dice::Dice;
use crate::field::{Phase, Rep};
use crate::outbox::Outbox;
use crate::phone::Device;
use crate::tasks::TaskRecord;
use crate::world::World;

/// What to simulate. Equal configurations give equal events.
#[derive(Clone, Debug, PartialEq)]
pub struct SimConfig {
    /// Seed of all chance.
    pub seed: u64,
    /// Reps.
    pub n_reps: u32,
    /// Simulated start, microseconds since 1970-01-01 UTC.
    pub start_us: i64,
    /// Time between the fixes of a phone, microseconds.
    pub ping_interval_us: i64,
    /// How far the history of deals goes back before the start, days; it is sent in the first minutes. 0 for none.
    pub history_days: u32,
    /// Accounts that each rep owns.
    pub accounts_per_rep: u32,
}

impl SimConfig {
    /// An organisation of `n_reps` from `start_us` on, with a fix every 15 s and deals that go back 120 days.
    pub fn new(seed: u64, n_reps: u32, start_us: i64) -> SimConfig {
        SimConfig { seed, n_reps, start_us, ping_interval_us: 15 * SECOND_US, history_days: 120, accounts_per_rep: 8 }
    }
}

/// Events of one kind, in the order in which they were sent.
#[derive(Clone, Debug)]
pub struct SimBatch {
    /// Kind of every row.
    pub kind: Kind,
    /// *Shape:* N rows, columns as [`Kind::schema`].
    pub rows: RecordBatch,
    /// *Shape:* N. Record keys.
    pub keys: StringArray,
    /// *Shape:* N, never falling. When each row was sent, true time, microseconds since 1970-01-01 UTC.
    pub sent_us: Vec<i64>,
}

/// Something other than a fix that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    ShiftStarts { rep: u32 },
    Contact { rep: u32, evening: bool },
    CallEnds(CallRecord),
    CallIsCorrected(CallRecord),
    Email(EmailRecord),
    Answer { rep: u32, account: u32, deal: Option<u32> },
    Upload { device: u32 },
    Task(TaskRecord),
    LeadArrives { team: u32 },
    Lead(LeadStep),
    DealMoves { deal: u32 },
    Refund(Box<Won>),
    TeamSpends { team: u32 },
    HistoryIsSent { rep: u32 },
}

#[derive(Debug)]
struct Planned {
    at_us: i64,
    /// Order in which it was planned, so that equal moments have an order.
    number: u64,
    what: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> Ordering {
        // A heap gives the largest first; the earliest shall come first.
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

/// A simulated field organisation. It draws from one stream of chance in the order in which things happen, so its events do not depend
/// on how far each call of [`Organisation::advance`] goes.
#[derive(Debug)]
pub struct Organisation {
    pub(crate) config: SimConfig,
    pub(crate) world: World,
    pub(crate) dice: Dice,
    pub(crate) out: Outbox,
    pub(crate) reps: Vec<Rep>,
    pub(crate) devices: Vec<Device>,
    pub(crate) deals: Vec<Deal>,
    /// Places in `deals` that are free again.
    pub(crate) free_deals: Vec<u32>,
    pub(crate) n_ids: [u32; 8],
    /// When each phone takes its next fix; kept apart from the rest because nearly all that happens is a fix.
    fixes: BinaryHeap<Reverse<(i64, u32)>>,
    planned: BinaryHeap<Planned>,
    n_planned: u64,
    pub(crate) now_us: i64,
}

impl Organisation {
    /// Sets up the organisation at its simulated start; nothing has been sent yet.
    pub fn new(config: SimConfig) -> Organisation {
        let world = World::new(config.seed, config.n_reps, config.accounts_per_rep.max(1));
        let mut organisation = Organisation {
            dice: Dice::new(config.seed, 0),
            out: Outbox::new(config.seed, config.start_us),
            reps: Vec::new(),
            devices: Vec::new(),
            deals: Vec::new(),
            free_deals: Vec::new(),
            n_ids: [0; 8],
            fixes: BinaryHeap::new(),
            planned: BinaryHeap::new(),
            n_planned: 0,
            now_us: config.start_us,
            world,
            config,
        };
        organisation.hire();
        organisation.buy_phones();
        for rep in 0..organisation.config.n_reps {
            organisation.plan_first_shift(rep);
            organisation.plan_history(rep);
        }
        for team in 0..organisation.world.teams.len() as u32 {
            organisation.plan_team(team);
        }
        organisation
    }

    /// Everything that was sent after the last call up to and including simulated time `until_us`: at most one batch a kind, each in
    /// sending order. Give it steps of minutes: a step's events are held in memory.
    pub fn advance(&mut self, until_us: i64) -> Vec<SimBatch> {
        self.advance_some(until_us, usize::MAX)
    }

    /// As [`Organisation::advance`], but stops once `n_rows_max` rows are there (one more happening may still add its own). Calling it
    /// again goes on from there; [`Organisation::now_us`] says how far it got.
    pub fn advance_some(&mut self, until_us: i64, n_rows_max: usize) -> Vec<SimBatch> {
        while self.out.n_rows() < n_rows_max {
            let fix = self.fixes.peek().map(|Reverse((at_us, _))| *at_us);
            let other = self.planned.peek().map(|planned| planned.at_us);
            let is_fix = match (fix, other) {
                (Some(fix), Some(other)) => fix < other,
                (fix, _) => fix.is_some(),
            };
            let Some(at_us) = (if is_fix { fix } else { other }).filter(|&at_us| at_us <= until_us) else {
                self.now_us = self.now_us.max(until_us);
                break;
            };
            self.now_us = self.now_us.max(at_us);
            self.out.now_us = self.now_us;
            self.happen(is_fix);
        }
        self.out.take()
    }

    /// Simulated time reached, microseconds since 1970-01-01 UTC.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    /// The configuration.
    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    /// Reps on duty at the moment.
    pub fn n_on_duty(&self) -> usize {
        self.reps.iter().filter(|rep| rep.phase != Phase::Off).count()
    }

    fn happen(&mut self, is_fix: bool) {
        if is_fix {
            if let Some(Reverse((_, device))) = self.fixes.pop() {
                self.take_fix(device);
            }
            return;
        }
        let Some(planned) = self.planned.pop() else { return };
        match planned.what {
            Happening::ShiftStarts { rep } => self.start_shift(rep),
            Happening::Contact { rep, evening } => self.make_contact(rep, evening),
            Happening::CallEnds(call) => self.end_call(call),
            Happening::CallIsCorrected(call) => self.correct_call(call),
            Happening::Email(email) => self.follow_email(email),
            Happening::Answer { rep, account, deal } => self.receive_message(rep, account, deal),
            Happening::Upload { device } => self.upload(device),
            Happening::Task(task) => self.work_on_task(task),
            Happening::LeadArrives { team } => self.receive_lead(team),
            Happening::Lead(lead) => self.work_on_lead(lead),
            Happening::DealMoves { deal } => self.move_deal(deal),
            Happening::Refund(won) => self.refund(&won),
            Happening::TeamSpends { team } => self.spend(team),
            Happening::HistoryIsSent { rep } => self.send_history(rep),
        }
    }

    pub(crate) fn plan(&mut self, at_us: i64, what: Happening) {
        self.n_planned += 1;
        self.planned.push(Planned { at_us, number: self.n_planned, what });
    }

    pub(crate) fn plan_fix(&mut self, at_us: i64, device: u32) {
        self.fixes.push(Reverse((at_us, device)));
    }

    /// Things held in memory, for tests.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let of_reps: usize = self.reps.iter().map(|rep| rep.deals.len()).sum();
        self.planned.len() + self.fixes.len() + self.deals.len() + of_reps
    }

    /// The next number of a sort of thing.
    pub(crate) fn next_id(&mut self, counter: usize) -> u32 {
        self.n_ids[counter] += 1;
        self.n_ids[counter]
    }

    fn plan_history(&mut self, rep: u32) {
        // Two minutes, longer where there are many: 10 ms a rep.
        let spread_us = 2 * MINUTE_US + i64::from(self.config.n_reps) * 10_000;
        let at_us = self.config.start_us + spread_us * i64::from(rep) / i64::from(self.config.n_reps.max(1));
        self.plan(at_us, Happening::HistoryIsSent { rep });
    }

    fn plan_team(&mut self, team: u32) {
        let first_lead_us = self.config.start_us + self.dice.between_i64(0, 20 * MINUTE_US);
        self.plan(first_lead_us, Happening::LeadArrives { team });
        let hub = self.world.teams[team as usize].hub;
        let (day, _) = self.world.local(hub, self.config.start_us);
        let nine_us = self.world.moment(hub, day, 9 * 60 * MINUTE_US);
        let at_us = if nine_us < self.config.start_us { nine_us + DAY_US } else { nine_us };
        self.plan(at_us, Happening::TeamSpends { team });
    }
}

/// Record keys of a batch of events.
pub(crate) fn keys_of(kind: Kind, rows: &RecordBatch) -> StringArray {
    let column = rows.column_by_name(kind.key()).expect("every schema has its key");
    column.as_string::<i32>().clone()
}
