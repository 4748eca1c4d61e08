//! One patch after the other into a deal and its visits.

use legwork_types::deal_events as columns;

use crate::state::{Field, FieldType, NO_TIME, NONE, PatchView, Value};

const LEAD: usize = 0;
const PIPELINE: usize = 1;
const STAGE: usize = 2;
const OWNER: usize = 3;
const ACCOUNT: usize = 4;
const AMOUNT: usize = 5;
const CURRENCY: usize = 6;
const CLOSE_DATE: usize = 7;
const PROBABILITY: usize = 8;
const NEXT_STEP_TIME: usize = 9;
const SNOOZE_UNTIL: usize = 10;
const SNOOZE_REASON: usize = 11;
const DELETED: usize = 12;

const fn field(column: usize, name: &'static str, field_type: FieldType) -> Field {
    Field { column, name, field_type }
}

/// What a patch of a deal may set or clear, in the schema's order.
pub(super) static FIELDS: [Field; 13] = [
    field(columns::LEAD_ID, "lead_id", FieldType::Text),
    field(columns::PIPELINE_ID, "pipeline_id", FieldType::Text),
    field(columns::STAGE, "stage", FieldType::Text),
    field(columns::OWNER_ID, "owner_id", FieldType::Text),
    field(columns::ACCOUNT_ID, "account_id", FieldType::Text),
    field(columns::AMOUNT, "amount", FieldType::Money),
    field(columns::CURRENCY, "currency", FieldType::Text),
    field(columns::CLOSE_DATE, "close_date", FieldType::Date),
    field(columns::PROBABILITY, "probability", FieldType::Real),
    field(columns::NEXT_STEP_TIME, "next_step_time", FieldType::Time),
    field(columns::SNOOZE_UNTIL, "snooze_until", FieldType::Time),
    field(columns::SNOOZE_REASON, "snooze_reason", FieldType::Text),
    field(columns::DELETED, "deleted", FieldType::Flag),
];

/// A deal as its patches so far leave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Deal {
    pub(super) created_us: i64,
    pub(super) last_event_us: i64,
    pub(super) stage_entered_us: i64,
    pub(super) next_step_us: i64,
    pub(super) snooze_until_us: i64,
    pub(super) amount: Option<i64>,
    pub(super) probability: Option<f64>,
    pub(super) close_date: Option<i32>,
    pub(super) lead: u32,
    pub(super) pipeline: u32,
    pub(super) stage: u32,
    pub(super) owner: u32,
    pub(super) account: u32,
    pub(super) currency: u32,
    pub(super) snooze_reason: u32,
    pub(super) n_close_date_pushes: u32,
    pub(super) is_deleted: bool,
}

/// A visit to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) entered_us: i64,
    /// [`NO_TIME`] while the deal is there.
    pub(super) left_us: i64,
    pub(super) pipeline: u32,
    pub(super) stage: u32,
    pub(super) next_pipeline: u32,
    pub(super) next_stage: u32,
    pub(super) owner: u32,
}

impl Deal {
    /// A deal of which nothing is known but when its first patch was.
    pub(super) fn new(first: &PatchView<'_>) -> Deal {
        Deal {
            created_us: first.event_time_us,
            last_event_us: first.event_time_us,
            stage_entered_us: NO_TIME,
            next_step_us: NO_TIME,
            snooze_until_us: NO_TIME,
            amount: None,
            probability: None,
            close_date: None,
            lead: NONE,
            pipeline: NONE,
            stage: NONE,
            owner: NONE,
            account: NONE,
            currency: NONE,
            snooze_reason: NONE,
            n_close_date_pushes: 0,
            is_deleted: false,
        }
    }

    fn clear(&mut self, field: usize) {
        match field {
            LEAD => self.lead = NONE,
            PIPELINE => self.pipeline = NONE,
            STAGE => self.stage = NONE,
            OWNER => self.owner = NONE,
            ACCOUNT => self.account = NONE,
            AMOUNT => self.amount = None,
            CURRENCY => self.currency = NONE,
            CLOSE_DATE => self.close_date = None,
            PROBABILITY => self.probability = None,
            NEXT_STEP_TIME => self.next_step_us = NO_TIME,
            SNOOZE_UNTIL => self.snooze_until_us = NO_TIME,
            SNOOZE_REASON => self.snooze_reason = NONE,
            DELETED => self.is_deleted = false,
            _ => unreachable!("a patch of a deal has 13 fields"),
        }
    }

    fn set(&mut self, field: usize, value: Value) {
        match (field, value) {
            (LEAD, Value::Text(text)) => self.lead = text,
            (PIPELINE, Value::Text(text)) => self.pipeline = text,
            (STAGE, Value::Text(text)) => self.stage = text,
            (OWNER, Value::Text(text)) => self.owner = text,
            (ACCOUNT, Value::Text(text)) => self.account = text,
            (CURRENCY, Value::Text(text)) => self.currency = text,
            (SNOOZE_REASON, Value::Text(text)) => self.snooze_reason = text,
            (AMOUNT, Value::Money(amount)) => self.amount = Some(amount),
            (CLOSE_DATE, Value::Date(date)) => self.close_date = Some(date),
            (PROBABILITY, Value::Real(probability)) => self.probability = Some(probability),
            (NEXT_STEP_TIME, Value::Time(time)) => self.next_step_us = time,
            (SNOOZE_UNTIL, Value::Time(time)) => self.snooze_until_us = time,
            (DELETED, Value::Flag(is_deleted)) => self.is_deleted = is_deleted,
            (field, value) => unreachable!("field {field} of a deal is no {value:?}"),
        }
    }
}

/// Folds the next patch. `visits` ends with the deal's newest visit, if it had any; what lies before is not looked at.
pub(super) fn fold(deal: &mut Deal, visits: &mut Vec<Visit>, patch: &PatchView<'_>) {
    let before = *deal;
    (0..FIELDS.len()).filter(|field| patch.cleared >> field & 1 == 1).for_each(|field| deal.clear(field));
    patch.values().for_each(|(field, value)| deal.set(field, value));
    deal.last_event_us = patch.event_time_us;
    if let (Some(before), Some(after)) = (before.close_date, deal.close_date) {
        deal.n_close_date_pushes += u32::from(after > before);
    }
    let place = |deal: &Deal| (deal.stage != NONE).then_some((deal.pipeline, deal.stage));
    if place(&before) == place(deal) {
        if let Some(open) = visits.last_mut().filter(|visit| is_open(visit)) {
            open.owner = deal.owner;
        }
        return;
    }
    if let Some(open) = visits.last_mut().filter(|visit| is_open(visit)) {
        open.left_us = patch.event_time_us;
        (open.next_pipeline, open.next_stage) = place(deal).unwrap_or((NONE, NONE));
    }
    deal.stage_entered_us = NO_TIME;
    if let Some((pipeline, stage)) = place(deal) {
        deal.stage_entered_us = patch.event_time_us;
        visits.push(Visit {
            entered_us: patch.event_time_us,
            left_us: NO_TIME,
            pipeline,
            stage,
            next_pipeline: NONE,
            next_stage: NONE,
            owner: deal.owner,
        });
    }
}

/// Whether a visit goes on.
fn is_open(visit: &Visit) -> bool {
    visit.left_us == NO_TIME
}
