//! What a set of files must not touch: what a lane still holds, and what the lake has of the same keys.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use legwork_query::{Engine, SqlEngine};
use legwork_runtime::EndedLane;
use legwork_state::Head;
use legwork_types::time::DAY_US;
use legwork_types::{Kind, LaneId};

use super::set::Set;
use crate::commands::lanes::kind_of;
use crate::commands::sql::unlimited;
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;
use crate::exit::Failure;

/// What tells two events of a kind apart as far as facts go: a column, and whether only within a UTC day.
fn identity(kind: Kind) -> Option<(&'static str, bool)> {
    Some(match kind {
        Kind::Gps => ("device_id", true),
        Kind::Calls => ("call_id", false),
        Kind::Emails | Kind::Messages => ("message_id", false),
        Kind::Meetings => ("meeting_id", false),
        Kind::Tasks => ("task_id", false),
        Kind::Leads => ("lead_id", false),
        Kind::DealEvents => ("deal_id", false),
        Kind::Orders => ("order_id", false),
        // They are kept as they are; nothing is counted.
        _ => return None,
    })
}

/// Whether events of a kind are counted however late they come.
fn has_no_horizon(kind: Kind) -> bool {
    matches!(kind, Kind::Leads | Kind::DealEvents | Kind::Orders)
}

/// Whether a lane may hold what a set of this kind must not touch.
pub(super) fn concerns(config: &Config, lane: &LaneId, kind: Kind) -> bool {
    lane.topic.starts_with(data::FILES) || kind_of(config, &lane.topic) == Some(kind)
}

/// Refuses a set whose events a lane may still get, or whose keys the lake has on the same days.
pub(super) async fn refuse(
    config: &Config,
    kept: &Kept,
    heads: &[(LaneId, Head)],
    set: &Set,
    ended: &mut EndedLane,
) -> Result<()> {
    let (Some((column, is_by_day)), Some(newest_us)) = (identity(set.kind), ended.newest_us()) else { return Ok(()) };
    refuse_what_lanes_hold(config, heads, set, newest_us)?;
    let Some(events) = ended.events() else { return Ok(()) };
    let mut ours: HashSet<(String, i64)> = HashSet::new();
    let mut span = (i64::MAX, i64::MIN);
    for chunk_idx in 0..events.n_chunks() {
        let rows = events.chunk(chunk_idx, None);
        for_each(&rows, column, |key, time_us| {
            span = (span.0.min(time_us), span.1.max(time_us));
            ours.insert((key.to_owned(), if is_by_day { day_of(time_us) } else { 0 }));
        })?;
    }
    let first_us = if is_by_day { day_of(span.0) * DAY_US } else { i64::MIN };
    let end_us = if is_by_day { (day_of(span.1) + 1) * DAY_US } else { i64::MAX };
    let table = set.kind.table();
    let within = if is_by_day {
        format!(" AND event_time >= '{}' AND event_time < '{}'", rfc3339(first_us)?, rfc3339(end_us)?)
    } else {
        String::new()
    };
    let sql = format!("SELECT {column}, event_time FROM {table} WHERE topic <> '{}'{within}", set.lane.topic);
    let live = data::stored_lanes(kept, config, |lane| concerns(config, lane, set.kind)).await?;
    let engine = SqlEngine::with_history(live, kept.tables.clone(), unlimited(config, None, None)?)?;
    let mut found = engine.session().query(&sql).await?.batches;
    let mut shared: HashSet<(String, i64)> = HashSet::new();
    while let Some(rows) = found.try_next().await? {
        for_each(&rows, column, |key, time_us| {
            let key = (key.to_owned(), if is_by_day { day_of(time_us) } else { 0 });
            if ours.contains(&key) {
                shared.insert(key);
            }
        })?;
    }
    if shared.is_empty() {
        return Ok(());
    }
    let days: HashSet<i64> = shared.iter().map(|(_, day)| *day).collect();
    let when = match (is_by_day, days.iter().min(), days.iter().max()) {
        (true, Some(first), Some(last)) => {
            format!(" on days from {} to {}", shown(first * DAY_US), shown(last * DAY_US))
        }
        _ => String::new(),
    };
    let keys: HashSet<&String> = shared.iter().map(|(key, _)| key).collect();
    bail!(Failure::Usage(format!(
        "the lake has events of {} of the same {column}s{when} from another source: they would be counted twice, or what lies between them not at \
         all. Give all files of a key and day as one set, or use another --data",
        keys.len()
    )))
}

/// Refuses events that concern what a lane still holds. `newest_us`: of the set's events.
fn refuse_what_lanes_hold(config: &Config, heads: &[(LaneId, Head)], set: &Set, newest_us: i64) -> Result<()> {
    let lanes = heads.iter().filter(|(lane, head)| {
        head.newest_us > i64::MIN
            && !lane.topic.starts_with(data::FILES)
            && kind_of(config, &lane.topic) == Some(set.kind)
    });
    for (lane, head) in lanes {
        let held_from_us = head.newest_us.saturating_sub(config.time.late_horizon.0);
        if has_no_horizon(set.kind) {
            bail!(Failure::Usage(format!(
                "lane {lane} holds {} without limit in time, so these files may concern what it holds: send them to its topic (legwork replay), or \
                 use another --data",
                set.kind
            )));
        }
        if day_of(newest_us) >= day_of(held_from_us) {
            bail!(Failure::Usage(format!(
                "lane {lane} still holds the days from {} on, and the files reach until {}: leave those days out, send them to its topic (legwork \
                 replay), or wait until its late horizon (time.late_horizon) is beyond them",
                shown(held_from_us),
                shown(newest_us)
            )));
        }
    }
    Ok(())
}

/// Calls with key and event time of each row.
fn for_each(rows: &RecordBatch, column: &str, mut each: impl FnMut(&str, i64)) -> Result<()> {
    let lacks = |name: &str| anyhow!("rows without {name}: this is a bug");
    let keys = rows.column_by_name(column).and_then(|keys| keys.as_string_opt::<i32>()).ok_or_else(|| lacks(column))?;
    let times =
        rows.column_by_name("event_time").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| lacks("event_time"))?;
    for row in (0..rows.num_rows()).filter(|row| keys.is_valid(*row)) {
        each(keys.value(row), times.value(row));
    }
    Ok(())
}

fn day_of(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US)
}

fn shown(time_us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(time_us)
        .map_or_else(|| time_us.to_string(), |time| time.format("%F").to_string())
}

fn rfc3339(time_us: i64) -> Result<String> {
    let time = chrono::DateTime::from_timestamp_micros(time_us);
    let time = time.ok_or_else(|| anyhow!("the files hold times beyond all calendars: look at their event_time"))?;
    Ok(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}
