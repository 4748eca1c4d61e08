//! `legwork lanes list`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use legwork_runtime::{StoredLanes, lane_settings};
use legwork_state::Head;
use legwork_state::recovery::{Decision, Found, TableSeen, TopicSeen, decide};
use legwork_types::{Kind, LaneId};

use super::{kind_of, tables_seen};
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;
use crate::output::{self, Format};

/// A lane as the list shows it.
#[derive(Debug)]
struct Row {
    lane: LaneId,
    kind: Option<Kind>,
    head: Option<Head>,
    n_rows_waiting: Option<usize>,
    lake: BTreeMap<String, u32>,
    problem: Option<String>,
}

pub(super) async fn run(config: &Config, format: Format) -> Result<()> {
    let kept = data::open_existing(config).await?;
    let batch = batch(&rows(config, &kept).await?)?;
    let schema = batch.schema();
    output::print(format, schema, futures::stream::iter([Ok::<_, ArrowError>(batch)]), std::io::stdout())
        .await
        .map(drop)
}

async fn rows(config: &Config, kept: &Kept) -> Result<Vec<Row>> {
    let read: HashMap<LaneId, Known> = data::read_lanes(kept).await?.into_iter().map(known).collect();
    let transactions = data::transactions(kept).await?;
    let mut lanes: BTreeSet<LaneId> = read.keys().cloned().collect();
    lanes.extend(transactions.iter().flat_map(|(_, known)| known.keys().cloned()));
    let operators = crate::topics::operators(config);
    let row = |lane: LaneId| {
        let kind = kind_of(config, &lane.topic);
        let settings = kind.map(|kind| lane_settings(kind, &operators));
        let seen = tables_seen(&transactions, &lane, kind);
        let (known, unreadable) = match read.get(&lane).cloned().transpose() {
            Ok(known) => (known, None),
            Err(error) => (None, Some(error)),
        };
        let (head, n_rows_waiting) = known.unzip();
        let problem = unreadable.or_else(|| problem(&lane, head.as_ref(), settings.as_deref(), (&seen, None)));
        let numbers = seen.into_iter().filter_map(|(table, seen)| match seen {
            TableSeen::Through(through) => Some((table, through)),
            _ => None,
        });
        Row { lake: numbers.collect(), lane, kind, head, n_rows_waiting, problem }
    };
    Ok(lanes.into_iter().map(row).collect())
}

/// What the store has of a lane: its head and how many rows wait for the lake; or why it cannot be read.
type Known = Result<(Head, usize), String>;

fn known((lane, stored): data::ReadLane) -> (LaneId, Known) {
    let known = stored.map_err(|error| error.to_string()).and_then(|stored| {
        let head = stored.head.clone();
        let n_rows = StoredLanes::new(vec![stored], Default::default(), 0)?.n_rows();
        Ok((head, n_rows.into_values().sum()))
    });
    (lane, known)
}

/// Why a lane would not go on, as far as store and lake can tell, and its topic where that is known. `settings`: those of the configuration,
/// where they are to be compared.
pub(in crate::commands) fn problem(
    lane: &LaneId,
    head: Option<&Head>,
    settings: Option<&str>,
    (lake, topic): (&BTreeMap<String, TableSeen>, Option<TopicSeen>),
) -> Option<String> {
    if lane.topic.starts_with(data::FILES) || lane.topic.starts_with(data::REPAIR) {
        return None;
    }
    let topic = topic.unwrap_or(TopicSeen::Present {
        topic_id: None,
        log_start: 0,
        log_end: i64::MAX,
        n_partitions: head.map_or(1, |head| head.n_partitions),
    });
    let own = head.map(|head| head.settings.as_str()).unwrap_or_default();
    let settings = settings.unwrap_or(own);
    let found = Found { lane, head, pending: &[], settings, topic: &topic, n_partitions_of_others: None, lake };
    match decide(&found) {
        Decision::Halt(halt) => Some(halt.to_string()),
        Decision::Start | Decision::Resume(_) => None,
    }
}

fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let text =
        |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let count =
        |of: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
    let newest = rows.iter().map(|row| row.head.as_ref().map(|head| head.newest_us).filter(|us| *us > i64::MIN));
    let newest: ArrayRef = Arc::new(newest.collect::<TimestampMicrosecondArray>().with_timezone("UTC"));
    let kind = |row: &Row| match row.kind {
        Some(kind) => Some(kind.to_string()),
        None if row.lane.topic.starts_with(data::FILES) => Some("files".to_owned()),
        None if row.lane.topic.starts_with(data::REPAIR) => Some("repair".to_owned()),
        None => None,
    };
    let lake = |row: &Row| {
        let tables: Vec<String> = row.lake.iter().map(|(table, number)| format!("{table}={number}")).collect();
        Some(tables.join(" "))
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("topic", text(&|row| Some(row.lane.topic.to_string())), false),
        ("partition", count(&|row| Some(row.lane.partition.into())), false),
        ("kind", text(&kind), true),
        ("checkpoint", count(&|row| Some(row.head.as_ref()?.number.into())), true),
        ("next_offset", count(&|row| Some(row.head.as_ref()?.next_offset)), true),
        ("newest_event_time", newest, true),
        ("rows_waiting", count(&|row| i64::try_from(row.n_rows_waiting?).ok()), true),
        ("lake_through", count(&|row| Some(row.head.as_ref()?.lake_through.into())), true),
        ("lake_tables", text(&lake), false),
        ("settings", text(&|row| Some(row.head.as_ref()?.settings.clone())), true),
        ("problem", text(&|row| row.problem.clone()), true),
    ])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use legwork_state::{Checkpoint, StateStore};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_lane_is_shown_with_the_way_out_and_the_others_as_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.url = format!("file://{}", folder.path().display());
        let kept = Kept::open(&config).await.unwrap().unwrap();
        for partition in 0..2 {
            let owner = kept.store.claim(&LaneId::new("field.calls.v1", partition)).await.unwrap();
            let head = Head { number: 7, ..Head::default() };
            owner.lane.commit(Checkpoint { head, ..Checkpoint::default() }).await.unwrap();
            owner.lane.release().await.unwrap();
        }
        for object in std::fs::read_dir(folder.path().join("lanes/field.calls.v1/1/compacted")).unwrap() {
            std::fs::write(object.unwrap().path(), [0x55; 300]).unwrap();
        }
        let kept = Kept::open(&config).await.unwrap().unwrap();
        let [well, damaged] = &rows(&config, &kept).await.unwrap()[..] else { panic!("two lanes") };
        assert_eq!(well.head.as_ref().map(|head| head.number), Some(7));
        let problem = damaged.problem.as_deref().unwrap_or_default();
        assert!(
            problem.contains("is damaged") && problem.contains("legwork lanes accept field.calls.v1/1"),
            "{problem}"
        );
    }

    #[test]
    fn problems_are_those_that_recovery_halts_for() {
        let lane = LaneId::new("t", 0);
        let lake = |seen| BTreeMap::from([("calls".to_owned(), seen)]);
        let head = Head {
            number: 4,
            n_partitions: 8,
            settings: "time.window=300s".to_owned(),
            lake_tables: BTreeMap::from([("calls".to_owned(), 3)]),
            ..Head::default()
        };
        let of = |head: Option<&Head>, seen| problem(&lane, head, None, (&lake(seen), None)).unwrap_or_default();
        assert_eq!(of(Some(&head), TableSeen::Through(4)), "");
        assert!(of(Some(&head), TableSeen::Through(5)).contains("the store is older"));
        assert!(of(Some(&head), TableSeen::Through(2)).contains("only through 2"));
        let changed = problem(&lane, Some(&head), Some("time.window=60s"), (&lake(TableSeen::Through(4)), None));
        assert!(changed.is_some_and(|problem| problem.contains("made with the settings")));
        assert!(of(None, TableSeen::Through(2)).contains("has no checkpoint"));
        let files = LaneId::new(format!("{}gps-1", data::FILES), 0);
        assert_eq!(problem(&files, None, None, (&lake(TableSeen::Through(2)), None)), None);
    }
}
