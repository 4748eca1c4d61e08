//! The tables that lanes fill: names, columns, keys.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::schema::money;

/// Type of a table's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Utf8.
    Text,
    /// Timestamp(us, "UTC").
    Time,
    /// Date32.
    Date,
    /// Int64.
    Count,
    /// Float64.
    Measure,
    /// Boolean.
    Flag,
    /// Decimal128(18,4).
    Money,
    /// Binary.
    Bytes,
}

impl ColumnType {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            ColumnType::Text => DataType::Utf8,
            ColumnType::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnType::Date => DataType::Date32,
            ColumnType::Count => DataType::Int64,
            ColumnType::Measure => DataType::Float64,
            ColumnType::Flag => DataType::Boolean,
            ColumnType::Money => money(),
            ColumnType::Bytes => DataType::Binary,
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
}

/// What a table is.
#[derive(Clone, Copy, Debug)]
pub struct TableDef {
    /// Name in SQL.
    pub name: &'static str,
    /// What a row is, one sentence.
    pub doc: &'static str,
    /// Columns that identify a row.
    pub key: &'static [&'static str],
    /// Columns in order.
    pub columns: &'static [Column],
    /// Rows of one key may lie in several lanes, each with a part of the counts: SQL sums them.
    pub is_partial: bool,
    /// Column whose UTC day a row belongs to in the lake; none for a table that is not kept there. A row whose day changes is retracted in
    /// the old day and written anew in the new one, so that each day's newest versions can be told without the other days.
    pub day: Option<&'static str>,
    /// Which of its rows may still change as a matter of course.
    pub open: Openness,
}

/// Which rows of a table may still change as a matter of course: the lake takes them only every `lake.open_rows_every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// None.
    Never,
    /// All.
    Always,
    /// Those in which this column is true.
    While(&'static str),
    /// Those in which this column is null.
    Until(&'static str),
}

const fn text(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Text, nullable: false }
}
const fn time(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Time, nullable: false }
}
const fn count(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Count, nullable: false }
}
const fn measure(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Measure, nullable: false }
}
const fn flag(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Flag, nullable: false }
}
const fn bytes(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Bytes, nullable: false }
}
const fn money_column(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Money, nullable: false }
}
const fn date(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Date, nullable: false }
}
const fn opt(column: Column) -> Column {
    Column { nullable: true, ..column }
}

macro_rules! tables {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal [$($key:literal),*] $partial:literal $day:expr, $open:expr; { $($column:expr),* $(,)? })*) => {
        /// A table that lanes fill. The tables of the events themselves are those of [`crate::Kind::table`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Table { $($(#[doc = $doc])+ $variant,)* }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Table] = &[$(Table::$variant),*];

            /// What it is.
            pub const fn def(self) -> &'static TableDef {
                match self {
                    $(Table::$variant => &TableDef {
                        name: $name,
                        doc: concat!($($doc),+),
                        key: &[$($key),*],
                        columns: const { &[$($column),*] },
                        is_partial: $partial,
                        day: $day,
                        open: $open,
                    },)*
                }
            }
        }
    };
}

tables! {
    /// Movement of a device in a tumbling window: metres and seconds belong to the window of the later fix of their leg.
    DeviceMovement = "device_movement" ["device_id", "rep_id", "window_start"] false Some("window_start"), Openness::While("is_open"); {
        text("device_id"), opt(text("rep_id")), time("window_start"), time("window_end"), count("n_pings"), measure("raw_m"),
        measure("distance_m"), measure("gap_m"), measure("moving_s"), measure("stationary_s"), measure("gap_s"),
        opt(measure("speed_mps_max")), time("first_fix_time"), time("last_fix_time"), count("n_filtered_accuracy"),
        count("n_filtered_speed"), count("n_filtered_mock"), opt(measure("odometer_m")), flag("is_open"), count("revision"),
    }
    /// Newest fix of a device.
    RepPositions = "rep_positions" ["device_id"] false Some("event_time"), Openness::Always; {
        text("device_id"), opt(text("rep_id")), time("event_time"), measure("lat"), measure("lon"), opt(measure("accuracy_m")),
        opt(measure("speed_mps")), opt(measure("battery_pct")),
    }
    /// A device stood still; no stay_end while it still does.
    Stays = "stays" ["device_id", "stay_start"] false Some("stay_start"), Openness::Until("stay_end"); {
        text("device_id"), opt(text("rep_id")), time("stay_start"), opt(time("stay_end")), measure("lat"), measure("lon"), measure("radius_m"),
        count("n_pings"), time("last_fix_time"),
    }
    /// A device travelled from one stay, or gap, to the next.
    Trips = "trips" ["device_id", "trip_start"] false Some("trip_start"), Openness::While("is_open"); {
        text("device_id"), opt(text("rep_id")), time("trip_start"), time("trip_end"), measure("distance_m"), count("n_pings"), flag("is_open"),
    }
    /// Pings of a device in an H3 cell on a UTC day, in parts of its track: part is the time of a part's first ping.
    DeviceCoverage = "device_coverage" ["device_id", "day_start", "h3_cell", "part"] true Some("day_start"), Openness::Never; {
        text("device_id"), time("day_start"), text("h3_cell"), time("part"), count("n_pings"), time("first_fix_time"), time("last_fix_time"),
    }
    /// Calls of a rep in a tumbling window of their start.
    RepCalls = "rep_calls" ["rep_id", "window_start"] true Some("window_start"), Openness::Never; {
        text("rep_id"), time("window_start"), time("window_end"), count("n_calls"), count("n_connected"), count("n_inbound"),
        count("n_outbound"), measure("talk_s"),
    }
    /// E-mails of a rep in a tumbling window.
    RepEmails = "rep_emails" ["rep_id", "window_start"] true Some("window_start"), Openness::Never; {
        text("rep_id"), time("window_start"), time("window_end"), count("n_sent"), count("n_received"), count("n_opened"),
        count("n_clicked"), count("n_bounced"), count("n_replied"),
    }
    /// Messages of a rep in a tumbling window.
    RepMessages = "rep_messages" ["rep_id", "window_start"] true Some("window_start"), Openness::Never; {
        text("rep_id"), time("window_start"), time("window_end"), count("n_messages"), count("n_inbound"), count("n_outbound"),
    }
    /// Meetings of a rep in a tumbling window of their planned start.
    RepMeetings = "rep_meetings" ["rep_id", "window_start"] true Some("window_start"), Openness::Never; {
        text("rep_id"), time("window_start"), time("window_end"), count("n_scheduled"), count("n_held"), count("n_no_show"), count("n_canceled"),
    }
    /// Tasks of a rep in a tumbling window of when they are due.
    RepTasks = "rep_tasks" ["rep_id", "window_start"] true Some("window_start"), Openness::Never; {
        text("rep_id"), time("window_start"), time("window_end"), count("n_due"), count("n_completed"),
    }
    /// A rep was in contact with a deal, a lead or an account.
    Touches = "touches" ["channel", "touch_id"] false Some("event_time"), Openness::Never; {
        text("rep_id"), time("event_time"), text("channel"), opt(text("direction")), opt(text("deal_id")), opt(text("lead_id")),
        opt(text("account_id")), text("touch_id"),
    }
    /// A deal as its newest patches leave it.
    Deals = "deals" ["deal_id"] false Some("created_time"), Openness::Never; {
        text("deal_id"), opt(text("pipeline_id")), opt(text("stage")), opt(time("stage_entered_time")), opt(text("owner_id")),
        opt(text("account_id")), opt(text("lead_id")), opt(money_column("amount")), opt(text("currency")), opt(date("close_date")),
        opt(measure("probability")), time("created_time"), opt(time("next_step_time")), opt(time("snooze_until")), opt(text("snooze_reason")),
        count("n_close_date_pushes"), flag("deleted"), time("last_event_time"), count("revision"),
    }
    /// A visit of a deal to a stage, in event-time order; no left_time while it is there.
    DealStageVisits = "deal_stage_visits" ["deal_id", "visit_no"] false Some("entered_time"), Openness::Never; {
        text("deal_id"), count("visit_no"), opt(text("pipeline_id")), text("stage"), time("entered_time"), opt(time("left_time")),
        opt(text("next_pipeline_id")), opt(text("next_stage")), opt(text("owner_id")), count("revision"),
    }
    /// A lead as its newest patches leave it.
    Leads = "leads" ["lead_id"] false Some("created_time"), Openness::Never; {
        text("lead_id"), opt(text("origin")), opt(text("owner_id")), opt(text("status")), opt(measure("score")), opt(text("deal_id")),
        opt(text("account_id")), time("created_time"), opt(time("status_entered_time")), time("last_event_time"), text("source"), count("revision"),
    }
    /// An order line in its newest version.
    Orders = "orders" ["order_id"] false Some("event_time"), Openness::Never; {
        text("order_id"), opt(text("deal_id")), opt(text("account_id")), opt(text("rep_id")), text("product_id"), measure("quantity"),
        money_column("amount"), text("currency"), text("kind"), time("event_time"), text("source"), count("revision"),
    }
    /// A message that could not become an event, with its bytes. By its arrival time too: a topic that is made anew has the same offsets again.
    RejectedEvents = "rejected_events" ["topic", "partition", "offset", "arrival_time"] false Some("arrival_time"), Openness::Never; {
        text("topic"), count("partition"), count("offset"), time("arrival_time"), text("reason"), text("detail"), opt(count("schema_id")),
        opt(bytes("key")), bytes("payload"),
    }
    /// An event beyond the late horizon of its key, kept apart.
    LateEvents = "late_events" ["topic", "partition", "offset", "arrival_time"] false Some("arrival_time"), Openness::Never; {
        text("topic"), count("partition"), count("offset"), time("arrival_time"), text("kind"), text("key"), time("event_time"), text("event"),
    }
    /// A lane: one topic-partition with its state and its accounting.
    PipelineLanes = "pipeline_lanes" ["topic", "partition"] false None, Openness::Never; {
        text("topic"), count("partition"), text("state"), text("detail"), text("owner"), count("next_offset"), opt(count("end_offset")),
        opt(count("lag")), opt(time("watermark")), opt(time("last_event_time")), flag("is_idle"), opt(count("checkpoint_seq")),
        count("n_read"), count("n_accepted"), count("n_late"), count("n_rejected"), count("n_duplicates"), count("n_tombstones"),
        count("n_reordered"), count("n_misrouted"),
    }
}

static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
    Table::ALL
        .iter()
        .map(|table| {
            let columns = table.def().columns.iter();
            Arc::new(Schema::new(
                columns.map(|c| Field::new(c.name, c.column_type.data_type(), c.nullable)).collect::<Vec<_>>(),
            ))
        })
        .collect()
});

static VERSION_SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
    let added = [count("revision"), flag("is_deleted")];
    let schema = |table: &Table| {
        let columns = table.def().columns;
        let added = added.iter().filter(|added| columns.iter().all(|column| column.name != added.name));
        let fields = columns.iter().chain(added).map(|c| Field::new(c.name, c.column_type.data_type(), c.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    Table::ALL.iter().map(schema).collect()
});

impl Table {
    /// Schema of versions of its rows: its columns, then `revision`, the number of the lane's checkpoint that wrote the version, where the
    /// table has no such column, then `is_deleted`: the row was retracted, and says what it said last.
    pub fn version_schema(self) -> SchemaRef {
        VERSION_SCHEMAS[self as usize].clone()
    }

    /// Name in SQL.
    pub const fn name(self) -> &'static str {
        self.def().name
    }

    /// Arrow schema.
    pub fn schema(self) -> SchemaRef {
        SCHEMAS[self as usize].clone()
    }

    /// The table of that name.
    pub fn by_name(name: &str) -> Option<Table> {
        Table::ALL.iter().copied().find(|table| table.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_columns_and_names_are_unique() {
        let mut names: Vec<_> =
            Table::ALL.iter().map(|t| t.name()).chain(crate::Kind::ALL.iter().map(|k| k.table())).collect();
        for table in Table::ALL {
            for key in table.def().key {
                assert!(table.schema().index_of(key).is_ok(), "{key} of {}", table.name());
            }
            let (day, open) = (table.def().day, table.def().open);
            let open = match open {
                Openness::While(column) | Openness::Until(column) => Some(column),
                _ => None,
            };
            assert!(day.iter().chain(&open).all(|column| table.schema().index_of(column).is_ok()), "{}", table.name());
            for taken in ["is_deleted", "lane", "day"] {
                assert!(table.schema().index_of(taken).is_err(), "{taken} of {} is a column of the lake", table.name());
            }
        }
        names.sort_unstable();
        let n_names = names.len();
        names.dedup();
        assert_eq!(names.len(), n_names);
    }
}
