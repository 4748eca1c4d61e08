//! Claiming a lane, and what it goes on with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use legwork_operators::OperatorConfig;
use legwork_state::{Claimed, Head, LaneStore, PendingRows, StoreError};
use legwork_types::{Kind, LaneId, Table};

use super::pending::{Part, from_ipc};
use super::versions::{newest, split_open};
use super::{Delivery, Pending};
use crate::PartitionFacts;
use crate::event_log::shown_events;

/// A lane as its newest checkpoint left it.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) store: Arc<dyn LaneStore>,
    /// None for a lane that has made no checkpoint.
    pub(crate) head: Option<Head>,
    pub(crate) hot: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) pending: Pending,
}

/// Why a lane does not start.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It may work later.
    Retry(String),
    /// Somebody has to act.
    Halt(String),
}

/// Claims a lane and finds out where it goes on. `settings`: what its state depends on.
pub(crate) async fn recover(
    delivery: &Delivery,
    (lane, kind): (&LaneId, Kind),
    facts: &PartitionFacts,
    settings: &str,
) -> Result<Recovered, Refused> {
    let Claimed { lane: store, head, pending, hot } = delivery.store.claim(lane).await.map_err(refused)?;
    let mut transactions = BTreeMap::new();
    for table in lake_tables(kind) {
        let known = delivery.lake.transactions(table).await.map_err(Refused::Retry)?;
        if let Some(through) = known.and_then(|known| known.get(lane).copied()) {
            transactions.insert(table.to_owned(), through);
        }
    }
    check(lane, head.as_ref(), &transactions, facts, settings).map_err(Refused::Halt)?;
    let through = head.as_ref().map_or(0, |head| head.lake_through);
    let pending = pending_rows((lane, kind), pending, through, &transactions)
        .map_err(|error| Refused::Halt(format!("rows in the store of lane {lane} cannot be read: {error}")))?;
    Ok(Recovered { store, head, hot, pending })
}

fn refused(error: StoreError) -> Refused {
    match error {
        StoreError::NewerFormat { .. } | StoreError::Damaged { .. } => Refused::Halt(error.to_string()),
        error => Refused::Retry(error.to_string()),
    }
}

/// What the state of a lane depends on, as a checkpoint's head has it. Horizons and bounds may change at any time.
pub(crate) fn settings(kind: Kind, config: &OperatorConfig) -> String {
    let window_s = config.time.window_us as f64 / 1e6;
    if kind != Kind::Gps {
        return format!("time.window={window_s}s");
    }
    let track = &config.track;
    format!(
        "time.window={window_s}s track.accuracy_m_max={} track.speed_mps_max={} track.anchor_m_min={} track.anchor_accuracy_factor={} \
         track.stay_radius_m={} track.stay_min={}s track.gap_max={}s",
        track.accuracy_m_max,
        track.speed_mps_max,
        track.anchor_m_min,
        track.anchor_accuracy_factor,
        track.stay_radius_m,
        track.stay_min_us as f64 / 1e6,
        track.gap_max_us as f64 / 1e6,
    )
}

/// Tables of the lake that a lane of this kind fills.
pub(crate) fn lake_tables(kind: Kind) -> Vec<&'static str> {
    let operator = legwork_operators::operator_for(kind, &OperatorConfig::default());
    let mut tables = operator.tables();
    tables.retain(|name| Table::by_name(name).is_some_and(|table| table.def().day.is_some()));
    tables.extend([Table::RejectedEvents.name(), Table::LateEvents.name(), kind.table()]);
    tables
}

/// Whether the lane may go on; else why not, and the way out.
fn check(
    lane: &LaneId,
    head: Option<&Head>,
    transactions: &BTreeMap<String, u32>,
    facts: &PartitionFacts,
    settings: &str,
) -> Result<(), String> {
    let way_out = format!("or start it anew with: legwork lanes accept {lane}");
    let number = head.map_or(0, |head| head.number);
    if let Some((table, through)) = transactions.iter().find(|(_, through)| **through > number) {
        return Err(format!(
            "the lake's table {table} holds checkpoint {through} of lane {lane}, its store only {number}: state was lost; bring the store back, {way_out}"
        ));
    }
    let Some(head) = head else { return Ok(()) };
    if head.settings != settings {
        return Err(format!(
            "the state of lane {lane} was made with other settings ({}), now they are ({settings}): restore them, {way_out}",
            head.settings
        ));
    }
    if let (Some(then), Some(now)) = (&head.topic_id, &facts.topic_id)
        && then != now
    {
        return Err(format!("topic {} was made anew: bring the old one back, {way_out}", lane.topic));
    }
    if facts.n_partitions > head.n_partitions && head.n_partitions > 0 {
        return Err(format!(
            "topic {} has {} partitions now, {} when lane {lane} last ran: keys have moved; rebuild from stored events, {way_out}",
            lane.topic, facts.n_partitions, head.n_partitions
        ));
    }
    let PartitionFacts { begin_offset, end_offset, .. } = facts;
    if head.next_offset < *begin_offset {
        return Err(format!(
            "lane {lane} goes on at offset {}, the log begins at {begin_offset}: retention has passed it; bring the messages back, {way_out}",
            head.next_offset
        ));
    }
    if head.next_offset > *end_offset {
        return Err(format!(
            "lane {lane} goes on at offset {}, the log ends at {end_offset}: messages were lost, or the topic was made anew; bring them back, {way_out}",
            head.next_offset
        ));
    }
    Ok(())
}

/// Rows that the lake does not hold: those after its transaction number, and open ones that it left out. The store still holds rows
/// through that number when the process ended before it could say that the lake had taken them.
fn pending_rows(
    (lane, kind): (&LaneId, Kind),
    stored: Vec<PendingRows>,
    lake_through: u32,
    transactions: &BTreeMap<String, u32>,
) -> Result<Pending, arrow::error::ArrowError> {
    let mut pending = Pending::default();
    let mut left_out: BTreeMap<Table, Vec<RecordBatch>> = BTreeMap::new();
    for PendingRows { number, table: name, rows } in stored {
        let through = transactions.get(&name).copied().unwrap_or(0).max(lake_through);
        let batches = from_ipc(&rows)?;
        match Table::by_name(&name) {
            Some(table) => {
                let schema = table.version_schema();
                let batches = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
                if number <= through {
                    left_out.entry(table).or_default().extend(batches);
                } else {
                    for batch in batches {
                        pending.add(&name, Part::of_batch(number, batch));
                    }
                }
            }
            None if name == kind.table() && number > through => {
                pending.add(&name, Part { number, rows: shown_events(kind, lane, batches) });
            }
            None => {}
        }
    }
    for (table, versions) in left_out {
        let through = transactions.get(table.name()).copied().unwrap_or(0).max(lake_through);
        let (_, open) = split_open(table, &newest(table, &versions));
        pending.carry(table.name(), Part::of_batch(through, open));
    }
    Ok(pending)
}

/// The batch with the columns of a schema, by name: null where it lacks one, without those that the schema lacks.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        batch
            .column_by_name(field.name())
            .cloned()
            .unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    let columns = schema.fields().iter().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
