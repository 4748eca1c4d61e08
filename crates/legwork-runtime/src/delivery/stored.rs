//! Lanes as their store has them, while nobody runs them or somebody else does: what the lake does not hold yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::error::ArrowError;
use legwork_state::{Head, PendingRows};
use legwork_types::{
    Answer, FreshFuture, FreshRows, Kind, LaneId, LaneStatus, LiveError, LiveTables, Lookup, SnapshotFuture, Table,
    TableSnapshot,
};

use super::pending::StoredRows;
use super::recover::conform;
use super::{EncodedRows, HeldBytes, Part};
use crate::accounting::Accounting;
use crate::event_log::{event_table_schema, shown_events};
use crate::pipeline::of_batch;
use crate::reference::ReferenceTables;
use crate::rows;

/// What [`StoredLanes`] says of a lane that it shows.
const DETAIL: &str = "as its store has it";

/// The rows of lanes that wait in the store for the lake, as live tables: SQL over them and a lake that is pinned *after* they were read sees
/// every row once. Tables that only a running lane can fill are refused, never shown empty.
#[derive(Debug)]
pub struct StoredLanes {
    /// By table.
    fresh: BTreeMap<String, Vec<FreshRows>>,
    statuses: Vec<LaneStatus>,
    reference: ReferenceTables,
    newest_us: Option<i64>,
}

/// A lane as its store has it.
#[derive(Clone, Debug)]
pub struct StoredLane {
    /// Lane.
    pub lane: LaneId,
    /// Its newest checkpoint.
    pub head: Head,
    /// Its rows that the lake may not hold yet.
    pub pending: Vec<PendingRows>,
}

impl StoredLanes {
    /// Of these lanes. *Errors:* rows that are no rows, with the lane.
    pub fn new(
        lanes: Vec<StoredLane>,
        reference: ReferenceTables,
        reorder_bound_us: i64,
    ) -> Result<StoredLanes, String> {
        let mut stored = StoredLanes { fresh: BTreeMap::new(), statuses: Vec::new(), reference, newest_us: None };
        for StoredLane { lane, head, pending } in lanes {
            stored.statuses.push(status(&lane, &head, reorder_bound_us));
            stored.newest_us = stored.newest_us.max((head.newest_us > i64::MIN).then_some(head.newest_us));
            for (table, rows) in fresh_rows(&lane, pending)
                .map_err(|error| format!("rows in the store of lane {lane} cannot be read: {error}"))?
            {
                stored.fresh.entry(table).or_default().push(rows);
            }
        }
        Ok(stored)
    }

    /// Versions and events that wait for the lake, at most, by lane: the lake may hold some of them already.
    pub fn n_rows(&self) -> BTreeMap<LaneId, usize> {
        let mut n_rows = BTreeMap::new();
        for fresh in self.fresh.values().flatten() {
            let n_rows: &mut usize = n_rows.entry(fresh.lane.clone()).or_default();
            *n_rows += fresh.rows.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>();
        }
        n_rows
    }
}

/// A lane's pending rows as queries take them.
fn fresh_rows(lane: &LaneId, pending: Vec<PendingRows>) -> Result<BTreeMap<String, FreshRows>, ArrowError> {
    let mut fresh: BTreeMap<String, FreshRows> = BTreeMap::new();
    for PendingRows { number, table: name, rows } in pending {
        let StoredRows { batches, files } = StoredRows::from_bytes(rows)?;
        let batches = match (Table::by_name(&name), event_kind(&name)) {
            (Some(table), _) => {
                let schema = table.version_schema();
                let mut shown = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
                for file in files {
                    let rows = EncodedRows::open(file, schema.clone(), &HeldBytes::default())?;
                    shown.extend(Part::new(number, Arc::new(rows)).batches());
                }
                shown
            }
            (None, Some(kind)) => {
                let mut parts = vec![Part::new(number, shown_events(kind, lane, batches))];
                for file in files {
                    let rows = EncodedRows::open(file, event_table_schema(kind), &HeldBytes::default())?;
                    parts.push(Part::of_file(number, rows));
                }
                parts.iter().flat_map(Part::batches).collect()
            }
            // A newer binary's: its rows are nothing that this one can show, nor that its lake tables hold.
            (None, None) => continue,
        };
        let of_table = fresh.entry(name).or_insert_with(|| FreshRows {
            lane: lane.clone(),
            rows: Vec::new(),
            after: 0,
            durable: u32::MAX,
        });
        of_table.rows.extend(batches.into_iter().map(|batch| (number, batch)));
    }
    Ok(fresh)
}

/// The kind whose events a table holds.
fn event_kind(table: &str) -> Option<Kind> {
    Kind::events().find(|kind| kind.table() == table)
}

fn status(lane: &LaneId, head: &Head, reorder_bound_us: i64) -> LaneStatus {
    let newest_us = (head.newest_us > i64::MIN).then_some(head.newest_us);
    Accounting::from_counts(&head.counts).of(LaneStatus {
        detail: DETAIL.to_owned(),
        next_offset: head.next_offset,
        watermark_us: newest_us.map(|newest_us| newest_us.saturating_sub(reorder_bound_us)),
        last_event_time_us: newest_us,
        checkpoint_seq: Some(i64::from(head.number)),
        ..LaneStatus::new(lane.topic.clone(), lane.partition)
    })
}

impl LiveTables for StoredLanes {
    fn snapshot(&self, table: &str) -> SnapshotFuture {
        let snapshots: Result<Vec<Arc<dyn TableSnapshot>>, LiveError> = match Table::by_name(table) {
            Some(Table::PipelineLanes) => Ok(vec![of_batch(rows::pipeline_lanes(&self.statuses))]),
            Some(only_live) => Err(not_kept(&format!("{} is not in the lake", only_live.name()))),
            None => Ok(self.reference.get(table).into_iter().collect()),
        };
        Box::pin(std::future::ready(snapshots.map(Answer::from)))
    }

    fn fresh(&self, table: &str) -> FreshFuture {
        let fresh = self.fresh.get(table).cloned().unwrap_or_default();
        Box::pin(std::future::ready(Ok(fresh.into())))
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        Box::pin(std::future::ready(Err(not_kept(&format!("{} needs the state of a lane", lookup.table)))))
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        self.newest_us
    }
}

fn not_kept(what: &str) -> LiveError {
    let detail = format!(
        "{what}: ask a running Legwork (legwork sql --url), or run the events' files through the operators (legwork sql --input)"
    );
    LiveError::OnlyLive { detail }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn late(offset: i64) -> RecordBatch {
        let time = |time_us: i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(vec![time_us]).with_timezone("UTC"))
        };
        let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        let count = |count: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![count])) };
        let columns = vec![text("t"), count(0), count(offset), time(7), text("calls"), text("r"), time(5), text("{}")];
        rows::versions(Table::LateEvents, &RecordBatch::try_new(Table::LateEvents.schema(), columns).unwrap(), 3)
    }

    #[test]
    fn what_waits_in_the_store_is_shown_and_what_only_lanes_know_is_refused() {
        let lane = LaneId::new("t", 0);
        let head = Head { number: 4, next_offset: 9, newest_us: 1_000, counts: vec![9, 8, 1], ..Head::default() };
        let pending = |number, table: &str, batch: &RecordBatch| PendingRows {
            number,
            table: table.to_owned(),
            rows: StoredRows::of_batches(vec![batch.clone()]).to_bytes().unwrap(),
        };
        let other =
            RecordBatch::try_from_iter([("b", Arc::new(BinaryArray::from(vec![&b"x"[..]])) as ArrayRef)]).unwrap();
        let pending = vec![
            pending(3, "late_events", &late(1)),
            pending(4, "late_events", &late(2)),
            pending(4, "of_a_newer_binary", &other),
        ];
        let lanes = vec![StoredLane { lane: lane.clone(), head, pending }];
        let stored = StoredLanes::new(lanes, ReferenceTables::default(), 100).unwrap();
        assert_eq!(stored.n_rows(), BTreeMap::from([(lane, 2)]));
        let ready = |future: FreshFuture| futures::executor::block_on(future).unwrap().found;
        let fresh = ready(stored.fresh("late_events"));
        assert_eq!(
            fresh[0].rows.iter().map(|(number, rows)| (*number, rows.num_rows())).collect::<Vec<_>>(),
            [(3, 1), (4, 1)]
        );
        assert!(ready(stored.fresh("stays")).is_empty());
        let lanes = futures::executor::block_on(stored.snapshot("pipeline_lanes")).unwrap().found;
        assert_eq!((lanes.len(), lanes[0].n_rows()), (1, 1));
        let refused = futures::executor::block_on(stored.snapshot("device_coverage")).unwrap_err();
        assert!(refused.to_string().contains("legwork sql --input"));
        assert_eq!(stored.newest_event_time_us(), Some(1_000));
    }
}
