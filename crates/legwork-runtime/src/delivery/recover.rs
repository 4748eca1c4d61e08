//! Claiming a lane, and what it goes on with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use legwork_operators::OperatorConfig;
use legwork_state::recovery::{Decision, Found, Standing, TableSeen, TopicSeen, decide, standing};
use legwork_state::{Claimed, Head, LaneStore, PendingRows, StoreError};
use legwork_types::{Kind, LaneId, Table};
use tracing::warn;

use super::pending::{Part, StoredRows};
use super::versions::{newest, split_open};
use super::{Delivery, EncodedRows, HeldBytes, Pending};
use crate::PartitionFacts;
use crate::event_log::{event_table_schema, shown_events};

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
    let mut in_lake = BTreeMap::new();
    for table in lake_tables(kind) {
        let known = delivery.lake.transactions(table).await.map_err(Refused::Retry)?;
        let seen = match known.map(|known| known.get(lane).copied()) {
            None => TableSeen::Missing,
            Some(None) => TableSeen::Unwritten,
            Some(Some(through)) => TableSeen::Through(through),
        };
        in_lake.insert(table.to_owned(), seen);
    }
    let topic = TopicSeen::Present {
        topic_id: facts.topic_id.clone(),
        log_start: facts.begin_offset,
        log_end: facts.end_offset,
        n_partitions: facts.n_partitions,
    };
    let n_partitions_of_others = match head {
        Some(_) => None,
        None => n_partitions_of_others(lane, &delivery.known_lanes().await.map_err(refused)?)?,
    };
    let found = Found {
        lane,
        head: head.as_ref(),
        pending: &pending,
        settings,
        topic: &topic,
        n_partitions_of_others,
        lake: &in_lake,
    };
    match decide(&found) {
        Decision::Start | Decision::Resume(_) => {}
        Decision::Halt(halt) => return Err(Refused::Halt(halt.to_string())),
    }
    let through = head.as_ref().map_or(0, |head| head.lake_through);
    let pending = pending_rows((lane, kind), pending, (through, &in_lake), &delivery.held)
        .map_err(|error| Refused::Halt(format!("rows in the store of lane {lane} cannot be read: {error}")))?;
    Ok(Recovered { store, head, hot, pending })
}

/// Partitions of the topic as the checkpoints of its other lanes have them: of those that can be read. Damage to another lane does not
/// keep this one from starting.
fn n_partitions_of_others(lane: &LaneId, lanes: &[(LaneId, Result<Head, StoreError>)]) -> Result<Option<i32>, Refused> {
    let others = || lanes.iter().filter(|(other, _)| other.topic == lane.topic && other.partition != lane.partition);
    let known = others().filter_map(|(_, head)| head.as_ref().ok()).map(|head| head.n_partitions).max();
    let unreadable = others().filter_map(|(_, head)| head.as_ref().err()).map(|error| refused(error.clone()));
    match (known, unreadable.max_by_key(|refused| matches!(refused, Refused::Retry(_)))) {
        (None, Some(Refused::Retry(detail))) => Err(Refused::Retry(detail)),
        (None, Some(Refused::Halt(detail))) => {
            warn!(%lane, detail, "whether the topic's partitions have changed is not known: another lane of it cannot be read");
            Ok(None)
        }
        (known, _) => Ok(known),
    }
}

fn refused(error: StoreError) -> Refused {
    match error {
        StoreError::NewerFormat { .. } | StoreError::Damaged { .. } => Refused::Halt(error.to_string()),
        error => Refused::Retry(error.to_string()),
    }
}

/// What the state of a lane depends on, as a checkpoint's head has it. Horizons and bounds may change at any time.
pub fn settings(kind: Kind, config: &OperatorConfig) -> String {
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
pub fn lake_tables(kind: Kind) -> Vec<&'static str> {
    let operator = legwork_operators::operator_for(kind, &OperatorConfig::default());
    let mut tables = operator.tables();
    tables.retain(|name| Table::by_name(name).is_some_and(|table| table.def().day.is_some()));
    tables.extend([Table::RejectedEvents.name(), Table::LateEvents.name(), kind.table()]);
    tables
}

/// Rows that the lake does not hold: those after its transaction number, and open ones that it left out. The store still holds rows
/// through that number when the process ended before it could say that the lake had taken them.
fn pending_rows(
    (lane, kind): (&LaneId, Kind),
    stored: Vec<PendingRows>,
    (lake_through, in_lake): (u32, &BTreeMap<String, TableSeen>),
    held: &HeldBytes,
) -> Result<Pending, arrow::error::ArrowError> {
    let mut pending = Pending::default();
    for (table, seen) in in_lake {
        if let TableSeen::Through(number) = seen {
            pending.begin_after(table, *number);
        }
    }
    let mut left_out: BTreeMap<Table, Vec<RecordBatch>> = BTreeMap::new();
    let seen = |table: &str| in_lake.get(table).copied().unwrap_or(TableSeen::Missing);
    for PendingRows { number, table: name, rows } in stored {
        let is_missing = standing(number, lake_through, seen(&name)) == Standing::Missing;
        let StoredRows { batches, files } = StoredRows::from_bytes(rows)?;
        match Table::by_name(&name) {
            Some(table) => {
                let schema = table.version_schema();
                let batches = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
                let mut parts: Vec<Part> =
                    batches.into_iter().map(|batch| Part::of_batch(number, batch, held)).collect();
                for file in files {
                    parts.push(Part::new(number, Arc::new(EncodedRows::open(file, schema.clone(), held)?)));
                }
                if is_missing {
                    parts.into_iter().for_each(|part| pending.add(&name, part));
                } else {
                    left_out.entry(table).or_default().extend(parts.iter().flat_map(Part::batches));
                }
            }
            None if name == kind.table() && is_missing => {
                pending.add(&name, Part::new(number, shown_events(kind, lane, batches)));
                for file in files {
                    pending.add(&name, Part::of_file(number, EncodedRows::open(file, event_table_schema(kind), held)?));
                }
            }
            None => {}
        }
    }
    for (table, versions) in left_out {
        let (_, open) = split_open(table, &newest(table, &versions));
        pending.carry(table.name(), Part::of_batch(lake_through, open, held));
    }
    Ok(pending)
}

/// The batch with the columns of a schema, by name: null where it lacks one, without those that the schema lacks.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_lane_halts_no_other() {
        let id = |topic: &str, partition| LaneId::new(topic.to_owned(), partition);
        let head = |n_partitions| Ok(Head { n_partitions, ..Head::default() });
        let damaged = || Err(StoreError::Damaged { lane: id("t", 1), detail: "bytes".to_owned() });
        let silent = || Err(StoreError::Unavailable { detail: "no answer".to_owned() });
        let of = |lanes: &[(LaneId, Result<Head, StoreError>)]| n_partitions_of_others(&id("t", 0), lanes);
        assert!(matches!(of(&[(id("t", 1), damaged()), (id("t", 2), head(8)), (id("u", 0), head(9))]), Ok(Some(8))));
        assert!(matches!(of(&[(id("t", 1), silent()), (id("t", 2), head(8))]), Ok(Some(8))));
        assert!(matches!(of(&[(id("t", 1), damaged()), (id("u", 0), damaged())]), Ok(None)));
        let both = [(id("t", 1), silent()), (id("t", 2), damaged())];
        assert!(matches!(of(&both), Err(Refused::Retry(_))), "it may answer later");
        assert!(matches!(of(&[(id("t", 0), silent()), (id("u", 0), silent())]), Ok(None)));
    }
}
