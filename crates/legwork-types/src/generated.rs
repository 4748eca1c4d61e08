//! Generated from `schemas/` by `cargo xtask codegen`. Do not edit.

use crate::kind::{KindInfo, Shape};

/// A kind of event or of reference record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `GpsPing`: One fix of a device.
    Gps,
    /// `Call`: One telephone call: the newest version of a call_id counts.
    Calls,
    /// `Email`: One thing that happened to an e-mail.
    Emails,
    /// `Message`: One text or chat message.
    Messages,
    /// `Meeting`: One meeting: the newest version of a meeting_id counts.
    Meetings,
    /// `CheckIn`: A rep says: I am at this account.
    CheckIns,
    /// `Task`: One task: the newest version of a task_id counts.
    Tasks,
    /// `Shift`: A rep goes on or off duty.
    Shifts,
    /// `Lead`: A patch of a lead as of its event_time: null leaves a value, cleared sets the named fields to nothing.
    Leads,
    /// `DealEvent`: A patch of a deal as of its event_time: null leaves a value, cleared sets the named fields to nothing.
    DealEvents,
    /// `Order`: One order line: the newest version of an order_id counts.
    Orders,
    /// `Cost`: Money spent on selling.
    Costs,
    /// `Rep`: A rep with team and territory over time.
    Reps,
    /// `DeviceAssignment`: Which rep carries a device over time.
    DeviceAssignments,
    /// `Team`: A team.
    Teams,
    /// `Territory`: A sales territory.
    Territories,
    /// `Account`: A customer with its place.
    Accounts,
    /// `Product`: A product.
    Products,
    /// `Stage`: What a stage of a pipeline means.
    Stages,
    /// `Quota`: A target of a rep.
    Quotas,
    /// `Calendar`: When a team works.
    Calendars,
    /// `FxRate`: Rate of a currency to the base currency as of a day.
    FxRates,
}

impl Kind {
    /// Every kind, events first.
    pub const ALL: [Kind; 22] = [
        Kind::Gps,
        Kind::Calls,
        Kind::Emails,
        Kind::Messages,
        Kind::Meetings,
        Kind::CheckIns,
        Kind::Tasks,
        Kind::Shifts,
        Kind::Leads,
        Kind::DealEvents,
        Kind::Orders,
        Kind::Costs,
        Kind::Reps,
        Kind::DeviceAssignments,
        Kind::Teams,
        Kind::Territories,
        Kind::Accounts,
        Kind::Products,
        Kind::Stages,
        Kind::Quotas,
        Kind::Calendars,
        Kind::FxRates,
    ];

    #[allow(clippy::too_many_lines, reason = "a table")]
    pub(crate) const fn info(self) -> &'static KindInfo {
        match self {
            Kind::Gps => &KindInfo {
                name: "gps",
                table: "gps_pings",
                topic: "field.gps-pings.v1",
                key: "device_id",
                record: "GpsPing",
                shape: Shape::Fact,
                avro: include_str!("../../../schemas/gps.avsc"),
            },
            Kind::Calls => &KindInfo {
                name: "calls",
                table: "calls",
                topic: "field.calls.v1",
                key: "rep_id",
                record: "Call",
                shape: Shape::Entity,
                avro: include_str!("../../../schemas/calls.avsc"),
            },
            Kind::Emails => &KindInfo {
                name: "emails",
                table: "emails",
                topic: "field.emails.v1",
                key: "rep_id",
                record: "Email",
                shape: Shape::Fact,
                avro: include_str!("../../../schemas/emails.avsc"),
            },
            Kind::Messages => &KindInfo {
                name: "messages",
                table: "messages",
                topic: "field.messages.v1",
                key: "rep_id",
                record: "Message",
                shape: Shape::Fact,
                avro: include_str!("../../../schemas/messages.avsc"),
            },
            Kind::Meetings => &KindInfo {
                name: "meetings",
                table: "meetings",
                topic: "field.meetings.v1",
                key: "meeting_id",
                record: "Meeting",
                shape: Shape::Entity,
                avro: include_str!("../../../schemas/meetings.avsc"),
            },
            Kind::CheckIns => &KindInfo {
                name: "check-ins",
                table: "check_ins",
                topic: "field.check-ins.v1",
                key: "rep_id",
                record: "CheckIn",
                shape: Shape::Fact,
                avro: include_str!("../../../schemas/check-ins.avsc"),
            },
            Kind::Tasks => &KindInfo {
                name: "tasks",
                table: "tasks",
                topic: "field.tasks.v1",
                key: "task_id",
                record: "Task",
                shape: Shape::Entity,
                avro: include_str!("../../../schemas/tasks.avsc"),
            },
            Kind::Shifts => &KindInfo {
                name: "shifts",
                table: "shifts",
                topic: "field.shifts.v1",
                key: "rep_id",
                record: "Shift",
                shape: Shape::Fact,
                avro: include_str!("../../../schemas/shifts.avsc"),
            },
            Kind::Leads => &KindInfo {
                name: "leads",
                table: "lead_events",
                topic: "crm.leads.v1",
                key: "lead_id",
                record: "Lead",
                shape: Shape::Patch,
                avro: include_str!("../../../schemas/leads.avsc"),
            },
            Kind::DealEvents => &KindInfo {
                name: "deal-events",
                table: "deal_events",
                topic: "crm.deal-events.v1",
                key: "deal_id",
                record: "DealEvent",
                shape: Shape::Patch,
                avro: include_str!("../../../schemas/deal-events.avsc"),
            },
            Kind::Orders => &KindInfo {
                name: "orders",
                table: "order_events",
                topic: "crm.orders.v1",
                key: "order_id",
                record: "Order",
                shape: Shape::Entity,
                avro: include_str!("../../../schemas/orders.avsc"),
            },
            Kind::Costs => &KindInfo {
                name: "costs",
                table: "costs",
                topic: "crm.costs.v1",
                key: "team_id",
                record: "Cost",
                shape: Shape::Fact,
                avro: include_str!("../../../schemas/costs.avsc"),
            },
            Kind::Reps => &KindInfo {
                name: "reps",
                table: "reps",
                topic: "ref.reps.v1",
                key: "rep_id",
                record: "Rep",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/reps.avsc"),
            },
            Kind::DeviceAssignments => &KindInfo {
                name: "device_assignments",
                table: "device_assignments",
                topic: "ref.device_assignments.v1",
                key: "device_id",
                record: "DeviceAssignment",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/device_assignments.avsc"),
            },
            Kind::Teams => &KindInfo {
                name: "teams",
                table: "teams",
                topic: "ref.teams.v1",
                key: "team_id",
                record: "Team",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/teams.avsc"),
            },
            Kind::Territories => &KindInfo {
                name: "territories",
                table: "territories",
                topic: "ref.territories.v1",
                key: "territory_id",
                record: "Territory",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/territories.avsc"),
            },
            Kind::Accounts => &KindInfo {
                name: "accounts",
                table: "accounts",
                topic: "ref.accounts.v1",
                key: "account_id",
                record: "Account",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/accounts.avsc"),
            },
            Kind::Products => &KindInfo {
                name: "products",
                table: "products",
                topic: "ref.products.v1",
                key: "product_id",
                record: "Product",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/products.avsc"),
            },
            Kind::Stages => &KindInfo {
                name: "stages",
                table: "stages",
                topic: "ref.stages.v1",
                key: "pipeline_id",
                record: "Stage",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/stages.avsc"),
            },
            Kind::Quotas => &KindInfo {
                name: "quotas",
                table: "quotas",
                topic: "ref.quotas.v1",
                key: "rep_id",
                record: "Quota",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/quotas.avsc"),
            },
            Kind::Calendars => &KindInfo {
                name: "calendars",
                table: "calendars",
                topic: "ref.calendars.v1",
                key: "calendar_id",
                record: "Calendar",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/calendars.avsc"),
            },
            Kind::FxRates => &KindInfo {
                name: "fx_rates",
                table: "fx_rates",
                topic: "ref.fx_rates.v1",
                key: "currency",
                record: "FxRate",
                shape: Shape::Reference,
                avro: include_str!("../../../schemas/fx_rates.avsc"),
            },
        }
    }
}

/// Positions of the columns of `GpsPing`.
pub mod gps {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// Device that took the fix; the record key.
    pub const DEVICE_ID: usize = 4;
    /// Rep who carried the device, where the device knows.
    pub const REP_ID: usize = 5;
    /// When the device sent it, microseconds since 1970-01-01 UTC; later than event_time for buffered fixes.
    pub const SENT_TIME: usize = 6;
    /// Latitude, WGS 84, degrees, -90 to 90.
    pub const LAT: usize = 7;
    /// Longitude, WGS 84, degrees, -180 to 180.
    pub const LON: usize = 8;
    /// Radius of 68 % confidence, metres; negative where the device does not trust the fix.
    pub const ACCURACY_M: usize = 9;
    /// Speed over ground by the receiver, metres per second.
    pub const SPEED_MPS: usize = 10;
    /// Course over ground, degrees clockwise from true north, 0 to 360.
    pub const COURSE_DEG: usize = 11;
    /// Altitude above the WGS 84 ellipsoid, metres.
    pub const ALTITUDE_M: usize = 12;
    /// Whether the device believes that it moves.
    pub const MOVING: usize = 13;
    /// The device's own odometer, metres, monotone while it is not reset.
    pub const ODOMETER_M: usize = 14;
    /// Battery charge, per cent, 0 to 100.
    pub const BATTERY_PCT: usize = 15;
    /// Whether the fix came from a mock location provider.
    pub const MOCK: usize = 16;
}

/// Positions of the columns of `Call`.
pub mod calls {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The call.
    pub const CALL_ID: usize = 4;
    /// Rep on the call; the record key.
    pub const REP_ID: usize = 5;
    /// inbound or outbound, as seen by the rep.
    pub const DIRECTION: usize = 6;
    /// How the call ended.
    pub const STATUS: usize = 7;
    /// When it started ringing, microseconds since 1970-01-01 UTC.
    pub const START_TIME: usize = 8;
    /// When it ended, microseconds since 1970-01-01 UTC.
    pub const END_TIME: usize = 9;
    /// Time connected, seconds.
    pub const DURATION_S: usize = 10;
    /// The other party; hashed when decoded.
    pub const PEER: usize = 11;
    /// Deal it concerns.
    pub const DEAL_ID: usize = 12;
    /// Lead it concerns.
    pub const LEAD_ID: usize = 13;
    /// Account it concerns.
    pub const ACCOUNT_ID: usize = 14;
}

/// Positions of the columns of `Email`.
pub mod emails {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The e-mail.
    pub const MESSAGE_ID: usize = 4;
    /// Rep whose mailbox it is; the record key.
    pub const REP_ID: usize = 5;
    /// What happened.
    pub const KIND: usize = 6;
    /// Whether software caused it (a privacy proxy opening, an auto-reply).
    pub const MACHINE: usize = 7;
    /// The other party; hashed when decoded.
    pub const PEER: usize = 8;
    /// Conversation it belongs to.
    pub const THREAD_ID: usize = 9;
    /// Deal it concerns.
    pub const DEAL_ID: usize = 10;
    /// Lead it concerns.
    pub const LEAD_ID: usize = 11;
    /// Account it concerns.
    pub const ACCOUNT_ID: usize = 12;
}

/// Positions of the columns of `Message`.
pub mod messages {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The message.
    pub const MESSAGE_ID: usize = 4;
    /// Rep who wrote or received it; the record key.
    pub const REP_ID: usize = 5;
    /// Medium.
    pub const CHANNEL: usize = 6;
    /// inbound or outbound, as seen by the rep.
    pub const DIRECTION: usize = 7;
    /// The other party; hashed when decoded.
    pub const PEER: usize = 8;
    /// Deal it concerns.
    pub const DEAL_ID: usize = 9;
    /// Lead it concerns.
    pub const LEAD_ID: usize = 10;
    /// Account it concerns.
    pub const ACCOUNT_ID: usize = 11;
}

/// Positions of the columns of `Meeting`.
pub mod meetings {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The meeting; the record key.
    pub const MEETING_ID: usize = 4;
    /// Rep who holds it.
    pub const REP_ID: usize = 5;
    /// Account it is held with.
    pub const ACCOUNT_ID: usize = 6;
    /// Deal it concerns.
    pub const DEAL_ID: usize = 7;
    /// Planned start, microseconds since 1970-01-01 UTC.
    pub const SCHEDULED_START: usize = 8;
    /// Planned end, microseconds since 1970-01-01 UTC.
    pub const SCHEDULED_END: usize = 9;
    /// State of the meeting.
    pub const STATUS: usize = 10;
}

/// Positions of the columns of `CheckIn`.
pub mod check_ins {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The check-in.
    pub const CHECK_IN_ID: usize = 4;
    /// Rep who checks in; the record key.
    pub const REP_ID: usize = 5;
    /// Device it was made on.
    pub const DEVICE_ID: usize = 6;
    /// Account it claims.
    pub const ACCOUNT_ID: usize = 7;
    /// Meeting it belongs to.
    pub const MEETING_ID: usize = 8;
    /// Check in or out.
    pub const KIND: usize = 9;
    /// Latitude given with it, WGS 84, degrees.
    pub const LAT: usize = 10;
    /// Longitude given with it, WGS 84, degrees.
    pub const LON: usize = 11;
    /// Radius of 68 % confidence, metres; negative where the device does not trust the fix.
    pub const ACCURACY_M: usize = 12;
    /// Whether the position was an old one that the phone still had.
    pub const CACHED: usize = 13;
    /// Whether the position came from a mock location provider.
    pub const MOCK: usize = 14;
}

/// Positions of the columns of `Task`.
pub mod tasks {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The task; the record key.
    pub const TASK_ID: usize = 4;
    /// Rep who has to do it.
    pub const REP_ID: usize = 5;
    /// What sort of task; the emitter's own words.
    pub const KIND: usize = 6;
    /// When it is due, microseconds since 1970-01-01 UTC.
    pub const DUE_TIME: usize = 7;
    /// When it was done, microseconds since 1970-01-01 UTC.
    pub const COMPLETED_TIME: usize = 8;
    /// Deal it concerns.
    pub const DEAL_ID: usize = 9;
}

/// Positions of the columns of `Shift`.
pub mod shifts {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// Rep; the record key.
    pub const REP_ID: usize = 4;
    /// On or off duty from event_time.
    pub const KIND: usize = 5;
}

/// Positions of the columns of `Lead`.
pub mod leads {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The lead; the record key.
    pub const LEAD_ID: usize = 4;
    /// Campaign or channel it came from.
    pub const ORIGIN: usize = 5;
    /// Rep who owns it.
    pub const OWNER_ID: usize = 6;
    /// State of the lead.
    pub const STATUS: usize = 7;
    /// Score by the emitter; larger is better.
    pub const SCORE: usize = 8;
    /// Deal it became.
    pub const DEAL_ID: usize = 9;
    /// Account it belongs to.
    pub const ACCOUNT_ID: usize = 10;
    /// Names of the fields that this patch sets to nothing.
    pub const CLEARED: usize = 11;
}

/// Positions of the columns of `DealEvent`.
pub mod deal_events {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The deal; the record key.
    pub const DEAL_ID: usize = 4;
    /// Lead it came from.
    pub const LEAD_ID: usize = 5;
    /// Pipeline it runs in.
    pub const PIPELINE_ID: usize = 6;
    /// Stage it enters.
    pub const STAGE: usize = 7;
    /// Rep who owns it.
    pub const OWNER_ID: usize = 8;
    /// Account it is with.
    pub const ACCOUNT_ID: usize = 9;
    /// Value, in currency.
    pub const AMOUNT: usize = 10;
    /// ISO 4217 code of amount.
    pub const CURRENCY: usize = 11;
    /// Expected close, days since 1970-01-01.
    pub const CLOSE_DATE: usize = 12;
    /// Probability of a win, 0 to 1.
    pub const PROBABILITY: usize = 13;
    /// When the next step is planned, microseconds since 1970-01-01 UTC.
    pub const NEXT_STEP_TIME: usize = 14;
    /// No stall signals before then, microseconds since 1970-01-01 UTC.
    pub const SNOOZE_UNTIL: usize = 15;
    /// Why it is snoozed.
    pub const SNOOZE_REASON: usize = 16;
    /// Whether the deal is deleted.
    pub const DELETED: usize = 17;
    /// Names of the fields that this patch sets to nothing.
    pub const CLEARED: usize = 18;
}

/// Positions of the columns of `Order`.
pub mod orders {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// The order; the record key.
    pub const ORDER_ID: usize = 4;
    /// Deal it came from.
    pub const DEAL_ID: usize = 5;
    /// Account that ordered.
    pub const ACCOUNT_ID: usize = 6;
    /// Rep who sold it.
    pub const REP_ID: usize = 7;
    /// Product.
    pub const PRODUCT_ID: usize = 8;
    /// Units of the product.
    pub const QUANTITY: usize = 9;
    /// Total of the line in currency, not negative.
    pub const AMOUNT: usize = 10;
    /// ISO 4217 code of amount.
    pub const CURRENCY: usize = 11;
    /// Sale or refund.
    pub const KIND: usize = 12;
}

/// Positions of the columns of `Cost`.
pub mod costs {
    /// Unique per source. Where a writer has none (or an empty one), topic-partition-offset stands in.
    pub const EVENT_ID: usize = 0;
    /// System that emitted the event. Where a writer has none (or an empty one), the topic stands in.
    pub const SOURCE: usize = 1;
    /// When it happened, microseconds since 1970-01-01 UTC, by the emitter's clock.
    pub const EVENT_TIME: usize = 2;
    /// Order among events of one key with the same event_time; larger is newer.
    pub const SEQUENCE: usize = 3;
    /// Team that bears it; the record key.
    pub const TEAM_ID: usize = 4;
    /// What it was spent on.
    pub const KIND: usize = 5;
    /// Sum in currency.
    pub const AMOUNT: usize = 6;
    /// ISO 4217 code of amount.
    pub const CURRENCY: usize = 7;
}

/// Positions of the columns of `Rep`.
pub mod reps {
    /// The rep; with valid_from the identity, rep_id/valid_from the record key: of records with one key compaction keeps the last.
    pub const REP_ID: usize = 0;
    /// Name shown.
    pub const NAME: usize = 1;
    /// Team.
    pub const TEAM_ID: usize = 2;
    /// Territory.
    pub const TERRITORY_ID: usize = 3;
    /// IANA time zone for local days.
    pub const TIME_ZONE: usize = 4;
    /// Business calendar.
    pub const CALENDAR_ID: usize = 5;
    /// Whether the rep works here.
    pub const ACTIVE: usize = 6;
    /// From when it holds; from ever where missing.
    pub const VALID_FROM: usize = 7;
    /// Until when it holds, exclusive; for ever where missing.
    pub const VALID_TO: usize = 8;
}

/// Positions of the columns of `DeviceAssignment`.
pub mod device_assignments {
    /// The device; with valid_from the identity, device_id/valid_from the record key: of records with one key compaction keeps the last.
    pub const DEVICE_ID: usize = 0;
    /// Rep who carries it.
    pub const REP_ID: usize = 1;
    /// Among a rep's devices the one with the highest counts.
    pub const PRIORITY: usize = 2;
    /// From when it holds; from ever where missing.
    pub const VALID_FROM: usize = 3;
    /// Until when it holds, exclusive; for ever where missing.
    pub const VALID_TO: usize = 4;
}

/// Positions of the columns of `Team`.
pub mod teams {
    /// The team; the record key.
    pub const TEAM_ID: usize = 0;
    /// Name shown.
    pub const NAME: usize = 1;
    /// Region.
    pub const REGION: usize = 2;
    /// Team above.
    pub const PARENT_TEAM_ID: usize = 3;
    /// Business calendar.
    pub const CALENDAR_ID: usize = 4;
}

/// Positions of the columns of `Territory`.
pub mod territories {
    /// The territory; the record key.
    pub const TERRITORY_ID: usize = 0;
    /// Name shown.
    pub const NAME: usize = 1;
    /// Outline, WKT POLYGON or MULTIPOLYGON in lon lat, WGS 84.
    pub const POLYGON: usize = 2;
}

/// Positions of the columns of `Account`.
pub mod accounts {
    /// The account; the record key.
    pub const ACCOUNT_ID: usize = 0;
    /// Name shown.
    pub const NAME: usize = 1;
    /// Latitude, WGS 84, degrees.
    pub const LAT: usize = 2;
    /// Longitude, WGS 84, degrees.
    pub const LON: usize = 3;
    /// Radius of the fence around the place, metres.
    pub const RADIUS_M: usize = 4;
    /// Territory.
    pub const TERRITORY_ID: usize = 5;
    /// Rep who owns it.
    pub const OWNER_ID: usize = 6;
}

/// Positions of the columns of `Product`.
pub mod products {
    /// The product; the record key.
    pub const PRODUCT_ID: usize = 0;
    /// Name shown.
    pub const NAME: usize = 1;
    /// Product family.
    pub const FAMILY: usize = 2;
}

/// Positions of the columns of `Stage`.
pub mod stages {
    /// Pipeline; with stage the identity, pipeline_id/stage the record key.
    pub const PIPELINE_ID: usize = 0;
    /// Stage.
    pub const STAGE: usize = 1;
    /// Order in the pipeline, from 1.
    pub const POSITION: usize = 2;
    /// Probability of a win in this stage, 0 to 1.
    pub const PROBABILITY: usize = 3;
    /// Whether reaching it wins the deal.
    pub const IS_WON: usize = 4;
    /// Whether reaching it loses the deal.
    pub const IS_LOST: usize = 5;
    /// Age in the stage from which a deal counts as stalled, seconds.
    pub const STALL_AFTER_S: usize = 6;
}

/// Positions of the columns of `Quota`.
pub mod quotas {
    /// Rep; with metric, period and valid_from the identity, rep_id/metric/period/valid_from the record key: of records with one key compaction keeps the last.
    pub const REP_ID: usize = 0;
    /// What is counted.
    pub const METRIC: usize = 1;
    /// Period of the target.
    pub const PERIOD: usize = 2;
    /// How much, in units of the metric.
    pub const TARGET: usize = 3;
    /// From when it holds; from ever where missing.
    pub const VALID_FROM: usize = 4;
    /// Until when it holds, exclusive; for ever where missing.
    pub const VALID_TO: usize = 5;
}

/// Positions of the columns of `Calendar`.
pub mod calendars {
    /// The calendar; the record key.
    pub const CALENDAR_ID: usize = 0;
    /// IANA time zone.
    pub const TIME_ZONE: usize = 1;
    /// Such as mon 09:00-17:00, one entry a span.
    pub const WORKING_HOURS: usize = 2;
    /// Days off, days since 1970-01-01.
    pub const HOLIDAYS: usize = 3;
}

/// Positions of the columns of `FxRate`.
pub mod fx_rates {
    /// ISO 4217 code; with as_of the identity, currency/as_of the record key.
    pub const CURRENCY: usize = 0;
    /// Day from which it holds, days since 1970-01-01.
    pub const AS_OF: usize = 1;
    /// Base currency units per unit of currency.
    pub const RATE_TO_BASE: usize = 2;
}
