//! A set's rows into the lake, in pieces with numbers, so that what is there is not written again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::TryStreamExt;
use indicatif::ProgressBar;
use legwork_lake::{LakeTable, LaneCommit, LaneOutcome};
use legwork_query::{Engine, SqlEngine};
use legwork_runtime::{EndedLane, lane_tables};
use legwork_state::{Checkpoint, Head, LaneStore, StateStore, StoreError};
use legwork_types::{Kind, Table};

use super::conflicts::concerns;
use super::set::Set;
use crate::commands::sql::unlimited;
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;
use crate::exit::Failure;

/// Events of one commit, about.
const COMMIT_ROWS: usize = 1_000_000;
/// Number of the checkpoint that a set begins with.
const BEGUN: u32 = 1;

/// Writes all rows. *Returns* how many there are, by table.
pub(super) async fn write(
    config: &Config,
    kept: &Kept,
    set: &Set,
    mut ended: EndedLane,
) -> Result<BTreeMap<String, usize>> {
    let claimed = kept.store.claim(&set.lane).await.map_err(data::store_error)?;
    let status = ended.status();
    let head = Head {
        number: BEGUN,
        n_partitions: 1,
        newest_us: ended.newest_us().unwrap_or(i64::MIN),
        next_offset: status.n_read,
        counts: vec![status.n_read, status.n_accepted, status.n_late, status.n_rejected, status.n_duplicates],
        settings: set.manifest.to_text()?,
        ..Head::default()
    };
    if claimed.head.is_none() {
        commit(claimed.lane.as_ref(), head.clone()).await?;
    }
    let bar = ProgressBar::new_spinner();
    let mut n_rows = BTreeMap::new();
    let mut newest = BEGUN;
    for name in lane_tables(set.kind) {
        let Some(table) = kept.tables.get(name) else { continue };
        bar.set_message(format!("writing {name}"));
        let mut pieces = Pieces { kept, set, table, number: 0, waiting: Vec::new(), n_waiting: 0, bar: &bar };
        let mut n_rows_of_table = 0;
        match Table::by_name(name) {
            // Their order differs from run to run, so they go in one piece.
            Some(fact) => {
                let mut rows = ended.versions(fact);
                if fact == Table::RepPositions {
                    rows = without_known_positions(config, kept, rows).await?;
                }
                n_rows_of_table += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                pieces.waiting = rows;
            }
            None => {
                let Some(events) = ended.events() else { continue };
                for chunk_idx in 0..events.n_chunks() {
                    let rows = events.chunk(chunk_idx, None);
                    n_rows_of_table += rows.num_rows();
                    pieces.push(rows).await?;
                }
            }
        }
        pieces.flush().await?;
        newest = newest.max(pieces.number);
        if n_rows_of_table > 0 {
            n_rows.insert(name.to_owned(), n_rows_of_table);
        }
    }
    bar.finish_and_clear();
    let lake_tables = data::transactions(kept).await?.into_iter();
    let lake_tables = lake_tables.filter_map(|(name, known)| Some((name, *known.get(&set.lane)?))).collect();
    let number = newest + 1;
    commit(claimed.lane.as_ref(), Head { number, lake_through: number, lake_tables, ..head }).await?;
    claimed.lane.release().await.map_err(data::store_error)?;
    Ok(n_rows)
}

async fn commit(lane: &dyn LaneStore, head: Head) -> Result<()> {
    lane.commit(Checkpoint { head, ..Checkpoint::default() }).await.map_err(|error| match error {
        StoreError::Fenced { lane } => {
            Failure::Temporary(format!("another backfill of the same files, {lane}, is under way: this one has ended"))
                .into()
        }
        error => data::store_error(error),
    })
}

/// Rows of a table on their way, in pieces of about the same size whatever run it is.
struct Pieces<'a> {
    kept: &'a Kept,
    set: &'a Set,
    table: &'a LakeTable,
    /// Of the newest piece.
    number: u32,
    waiting: Vec<RecordBatch>,
    n_waiting: usize,
    bar: &'a ProgressBar,
}

impl Pieces<'_> {
    /// Pieces end at the same rows in every run: where so many rows are full, not where a chunk happens to end.
    async fn push(&mut self, mut rows: RecordBatch) -> Result<()> {
        while self.n_waiting + rows.num_rows() >= COMMIT_ROWS {
            let n_rows = COMMIT_ROWS - self.n_waiting;
            self.waiting.push(rows.slice(0, n_rows));
            rows = rows.slice(n_rows, rows.num_rows() - n_rows);
            self.flush().await?;
        }
        self.n_waiting += rows.num_rows();
        self.waiting.push(rows);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.n_waiting = 0;
        let rows = std::mem::take(&mut self.waiting);
        if rows.iter().all(|rows| rows.num_rows() == 0) {
            return Ok(());
        }
        self.number += 1;
        self.bar.tick();
        let known = self.kept.tables.lake().transactions(self.table).await.map_err(data::lake_error)?;
        if known.is_some_and(|known| known.get(&self.set.lane).is_some_and(|through| *through >= self.number)) {
            return Ok(());
        }
        let rows = rows.into_iter().map(|rows| (self.number, rows)).collect();
        let commit = LaneCommit::of_rows(self.set.lane.clone(), self.number, rows);
        let committed = self.kept.tables.lake().commit(self.table, vec![commit]).await.map_err(data::lake_error)?;
        match committed.lanes.first() {
            Some((lane, LaneOutcome::Ahead { .. })) => {
                bail!(Failure::Temporary(format!(
                    "another backfill of the same files, {lane}, is under way: this one has ended"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Positions of devices that no other lane knows: of a device that one knows, files are the past.
async fn without_known_positions(config: &Config, kept: &Kept, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let live = data::stored_lanes(kept, config, |lane| concerns(config, lane, Kind::Gps)).await?;
    let engine = SqlEngine::with_history(live, kept.tables.clone(), unlimited(config, None, None)?)?;
    let mut found = engine.session().query("SELECT device_id FROM lanes.rep_positions").await?.batches;
    let mut known: BTreeSet<String> = BTreeSet::new();
    while let Some(devices) = found.try_next().await? {
        known.extend(devices.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    let unknown = |rows: RecordBatch| {
        let devices = rows.column(0).as_string::<i32>();
        let mask: BooleanArray = (0..devices.len()).map(|row| Some(!known.contains(devices.value(row)))).collect();
        filter_record_batch(&rows, &mask)
    };
    Ok(rows.into_iter().map(unknown).collect::<Result<_, _>>()?)
}
