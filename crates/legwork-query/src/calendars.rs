//! The calendars of the reference data, for functions that name one.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Date32Type;
use chrono::NaiveDate;
use chrono_tz::Tz;
use legwork_types::{LiveError, LiveTables};

use crate::calendar::{Calendar, Calendars};
use crate::pin::QueryPin;

/// Days from 0001-01-01 to 1970-01-01.
const EPOCH_FROM_CE: i32 = 719_163;

/// Reads the calendars as the query sees them. One that cannot be read is left out, with a warning in the log.
pub(crate) async fn load(live: &dyn LiveTables, pin: &QueryPin) -> Result<Calendars, LiveError> {
    let mut calendars = Calendars::new();
    for snapshot in pin.snapshot(live, "calendars").await?.iter() {
        for chunk_idx in 0..snapshot.n_chunks() {
            add(&mut calendars, &snapshot.chunk(chunk_idx, None));
        }
    }
    Ok(calendars)
}

fn add(calendars: &mut Calendars, batch: &RecordBatch) {
    let column = |name: &str| batch.column_by_name(name);
    let (Some(ids), Some(zones), Some(hours)) = (column("calendar_id"), column("time_zone"), column("working_hours"))
    else {
        return;
    };
    let (ids, zones, hours) = (ids.as_string::<i32>(), zones.as_string::<i32>(), hours.as_list::<i32>());
    let holidays = column("holidays").map(|days| days.as_list::<i32>());
    for row in 0..batch.num_rows() {
        let spans = hours.value(row);
        let days_off = holidays.filter(|days| days.is_valid(row)).map(|days| days.value(row));
        let days_off: HashSet<NaiveDate> = match &days_off {
            Some(days) => days.as_primitive::<Date32Type>().iter().flatten().filter_map(date_of_days).collect(),
            None => HashSet::new(),
        };
        let zone = zones.value(row).parse::<Tz>().map_err(|e| e.to_string());
        let calendar = zone.and_then(|zone| Calendar::parse(zone, spans.as_string::<i32>().iter().flatten(), days_off));
        match calendar {
            Ok(calendar) => drop(calendars.insert(ids.value(row).to_owned(), calendar)),
            Err(wrong) => tracing::warn!(calendar = ids.value(row), "calendar left out: {wrong}"),
        }
    }
}

/// The date of so many days since 1970-01-01.
pub(crate) fn date_of_days(days: i32) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_FROM_CE)?)
}

/// Days since 1970-01-01.
pub(crate) fn days_of_date(date: NaiveDate) -> i32 {
    use chrono::Datelike;
    date.num_days_from_ce() - EPOCH_FROM_CE
}
