//! Rows of many lanes into the lake, a table at a time.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use legwork_types::{LaneId, Table};

use super::versions::{by_revision, newest, split_open};
use super::{LakeRows, LakeSink, Landed, Part};

/// What a lane has for the lake.
#[derive(Debug)]
pub(crate) struct LanePending {
    pub(crate) lane: LaneId,
    /// Its newest durable checkpoint.
    pub(crate) through: u32,
    /// Rows through that number, by table.
    pub(crate) tables: Vec<(String, Vec<Part>)>,
}

/// What became of a lane's rows for a table.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The lake holds all but these open rows; and whether the lane's transaction number is in the table now.
    Covered { carried: Option<RecordBatch>, is_numbered: bool },
    /// The lake is ahead of the lane.
    Ahead { at: u32 },
    /// It is to be tried again.
    Failed,
}

/// What became of a lane's rows.
#[derive(Clone, Debug)]
pub(crate) struct Covered {
    pub(crate) through: u32,
    pub(crate) tables: Vec<(String, Outcome)>,
}

/// Commits what lanes have, table after table. *Returns* what became of it, and which tables failed and why.
pub(crate) async fn commit(
    lake: &dyn LakeSink,
    lanes: Vec<LanePending>,
    (with_open, encoded_rows_min): (bool, usize),
) -> (BTreeMap<LaneId, Covered>, Vec<(String, String)>) {
    let mut covered = BTreeMap::new();
    let mut by_table: BTreeMap<String, Vec<Rows>> = BTreeMap::new();
    for LanePending { lane, through, tables } in lanes {
        for (table, parts) in tables {
            by_table.entry(table).or_default().push(Rows { lane: lane.clone(), through, parts });
        }
        covered.insert(lane, Covered { through, tables: Vec::new() });
    }
    let mut failures = Vec::new();
    for (table, lanes) in by_table {
        let (outcomes, failure) = commit_table(lake, &table, lanes, (with_open, encoded_rows_min)).await;
        for (lane, outcome) in outcomes {
            let covered = covered.get_mut(&lane).expect("only lanes that were given have outcomes");
            covered.tables.push((table.clone(), outcome));
        }
        failures.extend(failure.map(|error| (table, error)));
    }
    (covered, failures)
}

/// A lane's parts for one table.
struct Rows {
    lane: LaneId,
    through: u32,
    parts: Vec<Part>,
}

async fn commit_table(
    lake: &dyn LakeSink,
    table: &str,
    lanes: Vec<Rows>,
    (with_open, encoded_rows_min): (bool, usize),
) -> (Vec<(LaneId, Outcome)>, Option<String>) {
    let mut outcomes = Vec::new();
    let mut open: BTreeMap<LaneId, Option<RecordBatch>> = BTreeMap::new();
    let mut rows = Vec::new();
    for Rows { lane, through, parts } in lanes {
        let (files, parts): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| part.file.is_some());
        let mut files: Vec<_> = files.into_iter().filter_map(|part| Some((part.number, part.file?))).collect();
        let (mut batches, open_rows) = to_commit(table, through, &parts, with_open);
        if files.is_empty() && batches.iter().all(|(_, batch)| batch.num_rows() == 0) {
            // Nothing but open rows: no commit is made for those.
            outcomes.push((lane, Outcome::Covered { carried: open_rows, is_numbered: false }));
            continue;
        }
        // One lane's rows at a time are Arrow.
        batches.retain(|(number, batch)| {
            let is_many = batch.num_rows() >= encoded_rows_min;
            let encoded = is_many.then(|| lake.encode(table, &lane, std::slice::from_ref(batch)));
            let Some(Ok(encoded)) = encoded else { return true };
            files.extend(encoded.into_iter().map(|file| (*number, file)));
            false
        });
        open.insert(lane.clone(), open_rows);
        rows.push(LakeRows { lane, through, rows: batches, files });
    }
    if rows.is_empty() {
        return (outcomes, None);
    }
    let landed = match lake.commit(table, rows).await {
        Ok(landed) => landed,
        Err(error) => {
            outcomes.extend(open.into_keys().map(|lane| (lane, Outcome::Failed)));
            return (outcomes, Some(error));
        }
    };
    let mut landed: BTreeMap<LaneId, Landed> = landed.into_iter().collect();
    for (lane, carried) in open {
        let outcome = match landed.remove(&lane) {
            Some(Landed::Done) => Outcome::Covered { carried: carried.filter(|_| !with_open), is_numbered: true },
            // Whoever wrote it may have left the open rows out.
            Some(Landed::AlreadyThere) => Outcome::Covered { carried, is_numbered: true },
            Some(Landed::Ahead { at }) => Outcome::Ahead { at },
            None => Outcome::Failed,
        };
        outcomes.push((lane, outcome));
    }
    (outcomes, None)
}

/// The rows of parts that go into the lake, and the open ones among all of them.
fn to_commit(
    table: &str,
    through: u32,
    parts: &[Part],
    with_open: bool,
) -> (Vec<(u32, RecordBatch)>, Option<RecordBatch>) {
    let Some(table) = Table::by_name(table) else {
        let batches = parts.iter().flat_map(|part| part.batches().map(|batch| (part.number, batch)));
        return (batches.collect(), None);
    };
    let batches: Vec<RecordBatch> = parts.iter().flat_map(Part::batches).collect();
    let newest = newest(table, &batches);
    drop(batches);
    let (closed, open) = split_open(table, &newest);
    drop(newest);
    // The lake may have taken some of them already, though nobody heard of it: it leaves those out by their number. Not so open ones, which
    // a commit may have gone without.
    let mut rows = by_revision(&closed);
    if with_open && open.num_rows() > 0 {
        rows.push((through, open.clone()));
    }
    (rows, (open.num_rows() > 0).then_some(open))
}
