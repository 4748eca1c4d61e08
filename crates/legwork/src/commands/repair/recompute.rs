//! The facts of some keys from all their stored events, by the operators that lanes have.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use legwork_operators::{Need, Operator, OperatorConfig, operator_for};
use legwork_types::time::{DAY_US, LaneClock};
use legwork_types::{EventBatch, Kind, LaneId, Table};

use super::compare::{Zone, span_of};
use crate::commands::sql::UNBOUNDED_US;

/// Rows of one batch.
const BATCH_ROWS: usize = 32_768;
/// Fixes of a device that must lie between a row and what may still come: what a row says depends on a few that follow it.
const FIXES_AFTER: usize = 32;
/// And so much time.
const AFTER_US: i64 = 2 * 3_600_000_000;
/// Rows change for an event that lies so long before them, at most, but for those that lie across the zone's end.
const REACH_US: i64 = DAY_US;

/// Events of some keys of one lane. *Shape:* the columns of their kind, then `offset` and `arrival_time`.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Those that the lane accepted.
    pub(super) accepted: Vec<RecordBatch>,
    /// Those that came too late for it.
    pub(super) late: Vec<RecordBatch>,
}

/// Where the rows of each key are final. `oldest_us`: events before that may be gone.
pub(super) fn zones(
    kind: Kind,
    stored: &Stored,
    late_horizon_us: i64,
    has_retention: bool,
) -> Result<HashMap<String, Zone>> {
    let mut times: HashMap<String, Vec<i64>> = HashMap::new();
    for rows in &stored.accepted {
        let (keys, at) = (column_text(rows, kind.key())?, column_times(rows, "event_time")?);
        for row in 0..rows.num_rows() {
            times.entry(keys.value(row).to_owned()).or_default().push(at.value(row));
        }
    }
    let zone = |mut times: Vec<i64>| {
        times.sort_unstable();
        let floor_us = times.last()?.saturating_sub(late_horizon_us);
        let until_us = match kind {
            Kind::Gps => {
                let n_before = times.partition_point(|time_us| *time_us < floor_us);
                times[n_before.checked_sub(FIXES_AFTER)?].min(floor_us.saturating_sub(AFTER_US))
            }
            _ => floor_us,
        };
        let reach_us = match kind {
            // As a row depends on fixes that follow it, a fix changes rows after it.
            Kind::Gps => {
                let n_before = times.partition_point(|time_us| *time_us < until_us);
                n_before.checked_sub(FIXES_AFTER).map_or(i64::MIN, |idx| times[idx])
            }
            _ => until_us,
        };
        let reach_us = reach_us.min(until_us.saturating_sub(REACH_US));
        // The day in which stored events begin may lack some.
        let from_us = if has_retention { (times.first()?.div_euclid(DAY_US) + 1) * DAY_US } else { i64::MIN };
        Some(Zone { from_us, until_us, reach_us })
    };
    Ok(times.into_iter().filter_map(|(key, times)| Some((key, zone(times)?))).collect())
}

/// The rows that all these events together make, by table. *Shape:* as the operator's snapshots.
pub(super) fn recompute(
    kind: Kind,
    lane: &LaneId,
    stored: &Stored,
    operators: &OperatorConfig,
) -> Result<Vec<(Table, Vec<RecordBatch>)>> {
    let mut operators = *operators;
    // All that is stored counts, however late it came.
    operators.time.late_horizon_us = UNBOUNDED_US;
    operators.has_store = false;
    operators.track.has_store = false;
    let mut operator = operator_for(kind, &operators);
    let mut clock = LaneClock { revision: 1, ..LaneClock::START };
    for events in in_order(kind, lane, stored)? {
        clock.newest_us = events.event_time_us().iter().copied().fold(clock.newest_us, i64::max);
        operator.apply(&events, &clock);
    }
    if !operator.wanted(Need::Tables, &clock).is_empty() {
        bail!("an operator without a store wants something of it: this is a bug");
    }
    clock.ended = true;
    let tables = operator.tables().into_iter().filter_map(Table::by_name).filter(|table| span_of(*table).is_some());
    Ok(tables
        .collect::<Vec<_>>()
        .into_iter()
        .map(|table| (table, snapshot(operator.as_mut(), table, &clock)))
        .collect())
}

fn snapshot(operator: &mut dyn Operator, table: Table, clock: &LaneClock) -> Vec<RecordBatch> {
    let Some(rows) = operator.snapshot(table.name(), clock) else { return Vec::new() };
    (0..rows.n_chunks()).map(|chunk_idx| rows.chunk(chunk_idx, None)).collect()
}

/// All events in event-time order, so that duplicates stand side by side.
fn in_order(kind: Kind, lane: &LaneId, stored: &Stored) -> Result<Vec<EventBatch>> {
    let mut batches = stored.accepted.iter().chain(&stored.late).filter(|rows| rows.num_rows() > 0).peekable();
    let Some(schema) = batches.peek().map(|rows| rows.schema()) else { return Ok(Vec::new()) };
    let all = concat_batches(&schema, batches)?;
    let (times, offsets) = (column_times(&all, "event_time")?, column_counts(&all, "offset")?);
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_by_key(|row| (times.value(*row as usize), offsets.value(*row as usize)));
    let all = take_record_batch(&all, &UInt32Array::from(order))?;
    let schema = kind.schema();
    let columns = schema.fields().iter().map(|field| all.schema().index_of(field.name()));
    let columns = all.project(&columns.collect::<Result<Vec<_>, _>>()?)?;
    let columns = RecordBatch::try_new(kind.schema(), columns.columns().to_vec())?;
    let (offsets, arrivals) = (column_counts(&all, "offset")?, column_times(&all, "arrival_time")?);
    let batch = |first: usize| {
        let n_rows = BATCH_ROWS.min(columns.num_rows() - first);
        EventBatch {
            kind,
            topic: lane.topic.clone(),
            partition: lane.partition,
            columns: columns.slice(first, n_rows),
            offsets: offsets.values()[first..first + n_rows].to_vec(),
            arrival_us: arrivals.values()[first..first + n_rows].to_vec(),
            keys: None,
        }
    };
    Ok((0..columns.num_rows()).step_by(BATCH_ROWS).map(batch).collect())
}

/// Late events, which are kept as JSON, with the columns of their kind. *Shape* of `rows`: `event`, `offset`, `arrival_time`.
pub(super) fn decode_late(kind: Kind, rows: &RecordBatch) -> Result<RecordBatch> {
    let events = column_text(rows, "event")?;
    let mut decoder =
        arrow::json::ReaderBuilder::new(kind.schema()).with_batch_size(rows.num_rows().max(1)).build_decoder()?;
    for event in events.iter().flatten() {
        let text = format!("{event}\n");
        let n_bytes = decoder.decode(text.as_bytes())?;
        if n_bytes < text.len() {
            bail!("late events could not be read in one piece: this is a bug");
        }
    }
    let decoded = match decoder.flush()? {
        Some(decoded) => decoded,
        None => RecordBatch::new_empty(kind.schema()),
    };
    if decoded.num_rows() != rows.num_rows() {
        bail!("{} late events were read as {}: this is a bug", rows.num_rows(), decoded.num_rows());
    }
    let fields = kind.schema().fields().iter().cloned().collect::<Vec<_>>();
    let added = ["offset", "arrival_time"].map(|name| rows.schema().field_with_name(name).cloned());
    let [offset, arrival] = added;
    let fields = fields.into_iter().chain([Arc::new(offset?), Arc::new(arrival?)]).collect::<Vec<_>>();
    let origin = ["offset", "arrival_time"].map(|name| rows.column_by_name(name).cloned());
    let columns = decoded.columns().iter().cloned().chain(origin.into_iter().flatten()).collect();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}

pub(super) fn column_text<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    rows.column_by_name(name).and_then(|column| column.as_string_opt()).with_context(|| format!("no text {name}"))
}

pub(super) fn column_times<'a>(
    rows: &'a RecordBatch,
    name: &str,
) -> Result<&'a arrow::array::TimestampMicrosecondArray> {
    let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.with_context(|| format!("no time {name}"))
}

pub(super) fn column_counts<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    let column = rows.column_by_name(name);
    column.and_then(|column| column.as_primitive_opt()).with_context(|| format!("no count {name}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{ArrayRef, TimestampMicrosecondArray};

    use super::*;

    const MINUTE: i64 = 60_000_000;

    /// Pings of a device at these minutes, as late events keep them.
    fn late(device: &str, minutes: &[i64]) -> RecordBatch {
        let event = |minute: &i64| {
            let time = chrono::DateTime::from_timestamp_micros(minute * MINUTE).unwrap().format("%FT%T%.6fZ");
            format!(
                r#"{{"event_id":"e{minute}","source":"s","device_id":"{device}","event_time":"{time}","lat":52.1234567,"lon":13.7654321}}"#
            )
        };
        let events: ArrayRef = Arc::new(StringArray::from_iter_values(minutes.iter().map(event)));
        let offsets: ArrayRef = Arc::new(Int64Array::from(minutes.to_vec()));
        let arrivals = TimestampMicrosecondArray::from(vec![7; minutes.len()]).with_timezone("UTC");
        RecordBatch::try_from_iter([("event", events), ("offset", offsets), ("arrival_time", Arc::new(arrivals) as _)])
            .unwrap()
    }

    fn pings(device: &str, minutes: &[i64]) -> RecordBatch {
        decode_late(Kind::Gps, &late(device, minutes)).unwrap()
    }

    #[test]
    fn late_events_are_read_as_they_were() {
        let rows = pings("d", &[3, 5]);
        assert_eq!(column_times(&rows, "event_time").unwrap().values(), &[3 * MINUTE, 5 * MINUTE]);
        let lat = rows["lat"].as_primitive::<arrow::datatypes::Float64Type>();
        assert_eq!((lat.value(1).to_bits(), rows.num_rows()), (52.123_456_7_f64.to_bits(), 2));
        assert!(decode_late(Kind::Gps, &pings("d", &[1])).is_err(), "these are no late events");
        assert_eq!(pings("d", &[]).num_rows(), 0);
    }

    #[test]
    fn rows_are_final_when_the_horizon_has_passed_and_enough_fixes_follow() {
        let minutes: Vec<i64> = (0..5_000).collect();
        let stored = |minutes: &[i64]| Stored { accepted: vec![pings("d", minutes)], late: Vec::new() };
        let zone = |minutes: &[i64], has_retention| {
            zones(Kind::Gps, &stored(minutes), 1_440 * MINUTE, has_retention).unwrap().remove("d")
        };
        let floor = 4_999 - 1_440;
        let until_us = (floor - 120) * MINUTE;
        let expected = Zone { from_us: i64::MIN, until_us, reach_us: until_us - DAY_US };
        assert_eq!(zone(&minutes, false), Some(expected));
        assert_eq!(zone(&minutes, true), Some(Zone { from_us: DAY_US, ..expected }));
        let few: Vec<i64> = (0..20).chain([4_999]).collect();
        assert_eq!(zone(&few, false), None, "too few fixes to tell");
        let sparse: Vec<i64> = (0..100).map(|n| n * 100).collect();
        let sparse = zone(&sparse, false).map(|zone| (zone.until_us / MINUTE, zone.reach_us / MINUTE));
        assert_eq!(sparse, Some(((85 - 32) * 100, (85 - 32 - 32) * 100)));
    }

    #[test]
    fn late_and_accepted_events_are_counted_together_and_once() {
        let stored =
            Stored { accepted: vec![pings("d", &[0, 1, 9])], late: vec![pings("d", &[4, 5]), pings("d", &[5])] };
        let lane = LaneId::new("t", 0);
        let tables = recompute(Kind::Gps, &lane, &stored, &OperatorConfig::default()).unwrap();
        let (_, movement) = tables.iter().find(|(table, _)| *table == Table::DeviceMovement).unwrap();
        let counts = movement.iter().flat_map(|rows| column_counts(rows, "n_pings").unwrap().values().to_vec());
        assert_eq!(counts.collect::<Vec<_>>(), [3, 2]);
    }
}
