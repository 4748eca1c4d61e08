//! Rows of lanes into a table, once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use deltalake::kernel::{Action, Add};
use deltalake::protocol::{DeltaOperation, SaveMode};
use legwork_types::LaneId;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tracing::{info, warn};

use crate::files::{FileFormat, FileRole, by_day, conform, day_of};
use crate::footer::{arrow_metadata, join, range};
use crate::layout::CHECKPOINT_EVERY;
use crate::log::{ATTEMPTS_MAX, CommitFailure, TableLog, Version, pause};
use crate::table::{DAY, LANE};
use crate::{Lake, LakeError, LakeTable, Shape};

/// What a lane has for a table.
#[derive(Clone, Debug)]
pub struct LaneCommit {
    /// Lane.
    pub lane: LaneId,
    /// The newest checkpoint whose rows are all here.
    pub through: u32,
    /// Rows, each batch with the number of the checkpoint that delivers them: batches up to what the table holds already are left out.
    /// Rows that an earlier commit left out on purpose (open ones) come with the number of the checkpoint that brings them now.
    /// *Shape:* the table's columns without `lane` and `day`. Versions that have a `lane` keep it: repair writes for others.
    pub rows: Vec<(u32, RecordBatch)>,
    /// More rows, as [`Lake::encode`] made them, with numbers likewise.
    pub files: Vec<(u32, Bytes)>,
}

impl LaneCommit {
    /// Of rows that are not encoded.
    pub fn of_rows(lane: LaneId, through: u32, rows: Vec<(u32, RecordBatch)>) -> LaneCommit {
        LaneCommit { lane, through, rows, files: Vec::new() }
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().map(|(number, _)| *number).chain(self.files.iter().map(|(number, _)| *number))
    }
}

/// What became of a lane's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneOutcome {
    /// They are in the table now.
    Done,
    /// They were there before.
    AlreadyThere,
    /// The table holds a newer checkpoint of this lane than the lane knows of: its store is not the one that wrote the table. The lane
    /// must halt.
    Ahead {
        /// What the table holds.
        at: u32,
    },
}

/// A commit that ended well.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The version that holds the rows; the newest one found where nothing was left to commit.
    pub version: u64,
    /// By lane, in the order of the lanes handed over.
    pub lanes: Vec<(LaneId, LaneOutcome)>,
}

/// What to do for a lane whose rows go through checkpoint `through`, when the table holds `at`. None: its rows are to be written.
fn decide(at: Option<u32>, through: u32) -> Option<LaneOutcome> {
    match at {
        Some(at) if at == through => Some(LaneOutcome::AlreadyThere),
        Some(at) if at > through => Some(LaneOutcome::Ahead { at }),
        _ => None,
    }
}

/// What was tried so far, and what became of it.
#[derive(Default)]
struct Tried {
    /// Versions that a commit of ours may be.
    versions: BTreeSet<u64>,
    /// Lanes of those that are.
    landed: HashSet<LaneId>,
}

/// Files written for some lanes, not committed yet.
struct Staged {
    /// What the table held of each lane when the files were written.
    lanes: Vec<(LaneId, Option<u32>)>,
    schema: Arc<Schema>,
    files: Vec<Add>,
}

impl Lake {
    /// Commits the rows of all lanes as one version of the table: one file a UTC day, one transaction a lane. Makes the table where it
    /// is missing, and gives it new columns. Rows that are there already are not written again, whatever happened to an earlier call.
    ///
    /// *Errors:* `Unavailable` and `Contended`: call again with the same, it may have happened. `Newer`, `ColumnType`, `Layout`: nothing
    /// was written. `Rows`: what was handed over is no row of this table.
    pub async fn commit(&self, table: &LakeTable, lanes: Vec<LaneCommit>) -> Result<Committed, LakeError> {
        let distinct: HashSet<&LaneId> = lanes.iter().map(|commit| &commit.lane).collect();
        if distinct.len() != lanes.len() {
            return Err(LakeError::rows(table.name(), "a lane is named twice"));
        }
        if let Some(commit) = lanes.iter().find(|commit| commit.numbers().any(|number| number > commit.through)) {
            return Err(LakeError::rows(
                table.name(),
                format!("rows of {} beyond checkpoint {}", commit.lane, commit.through),
            ));
        }
        let log = self.log(table)?;
        let _one_at_a_time = log.committing.lock().await;
        let attempts = Attempts { table, log: &log, lanes: &lanes, id: uuid::Uuid::new_v4().simple().to_string() };
        let done = tokio::time::timeout(self.inner.config.commit_timeout, attempts.run()).await;
        let limit = self.inner.config.commit_timeout;
        done.unwrap_or_else(|_| {
            Err(LakeError::unavailable(table.name(), "committed to", format!("not done within {limit:?}")))
        })
    }

    /// A lane's rows as files that [`Lake::commit`] takes as they are, one for each UTC day among them: for rows that are to be kept before
    /// they are committed. Rows of a table that has other columns by then are read and written again.
    ///
    /// *Errors:* `Rows`: they are no rows of this table.
    pub fn encode(&self, table: &LakeTable, lane: &LaneId, rows: &[RecordBatch]) -> Result<Vec<Bytes>, LakeError> {
        let format = FileFormat::new(table, table.file_schema());
        let mut days = Days::new();
        for rows in rows {
            add_by_day(&mut days, table, lane, rows, &format)?;
        }
        days.values().map(|rows| format.encode(rows)).collect()
    }
}

struct Attempts<'a> {
    table: &'a LakeTable,
    log: &'a TableLog,
    lanes: &'a [LaneCommit],
    /// Tells the commits of these attempts from all others.
    id: String,
}

impl Attempts<'_> {
    async fn run(&self) -> Result<Committed, LakeError> {
        let (mut staged, mut tried) = (None, Tried::default());
        let mut last = None;
        for n_attempts in 0..ATTEMPTS_MAX {
            pause(n_attempts).await;
            match self.attempt(&mut staged, &mut tried).await {
                Ok(Ok(committed)) => return Ok(committed),
                Ok(Err(CommitFailure::Refused(error))) => return Err(error),
                Ok(Err(CommitFailure::Conflict)) => last = None,
                Ok(Err(CommitFailure::Unknown(detail))) => {
                    warn!(
                        table = self.table.name(),
                        detail, "a commit's outcome is not known: reading the table again"
                    );
                    last = Some(LakeError::unavailable(self.table.name(), "committed to", detail));
                }
                Err(error) if error.kind() == crate::ErrorKind::Retry => {
                    warn!(table = self.table.name(), %error, "a commit is tried again");
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let contended = LakeError::Contended { table: self.table.name().to_owned(), n_attempts: ATTEMPTS_MAX };
        Err(last.unwrap_or(contended))
    }

    /// Reads the newest version, decides, writes what is left to write, and commits against that version.
    async fn attempt(
        &self,
        staged: &mut Option<Staged>,
        tried: &mut Tried,
    ) -> Result<Result<Committed, CommitFailure>, LakeError> {
        let version = self.log.ready(self.table).await?;
        self.look_for_landed(version.number(), tried).await?;
        let decided = |commit: &LaneCommit| decide(version.transactions.get(&commit.lane).copied(), commit.through);
        let pending: Vec<&LaneCommit> = self.lanes.iter().filter(|commit| decided(commit).is_none()).collect();
        let outcome = |commit: &LaneCommit| match decided(commit) {
            // Of an attempt whose answer was lost.
            Some(_) if tried.landed.contains(&commit.lane) => LaneOutcome::Done,
            Some(outcome) => outcome,
            None => LaneOutcome::Done,
        };
        let lanes: Vec<_> = self.lanes.iter().map(|commit| (commit.lane.clone(), outcome(commit))).collect();
        if pending.is_empty() {
            return Ok(Ok(Committed { version: version.number(), lanes }));
        }
        self.stage(&version, &pending, staged).await?;
        let files = staged.iter().flat_map(|staged| staged.files.iter().cloned());
        let actions: Vec<Action> = files.map(Action::Add).collect();
        let transactions = pending.iter().map(|commit| (commit.lane.clone(), commit.through)).collect();
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(vec![DAY.to_owned()]), predicate: None };
        tried.versions.insert(version.number() + 1);
        let n_files = actions.len();
        let number = match self.log.commit_as(&self.id, Some(&version), actions, operation, transactions).await {
            Ok(number) => number,
            Err(failure) => return Ok(Err(failure)),
        };
        info!(table = self.table.name(), version = number, n_lanes = pending.len(), n_files, "committed to the lake");
        self.log.checkpoint(number, CHECKPOINT_EVERY).await;
        Ok(Ok(Committed { version: number, lanes }))
    }

    /// Whose the versions are that were tried, up to `newest`. That a lane is in the table does not say who brought it there, nor that its
    /// files are not there that somebody else did: they may be compacted by now.
    async fn look_for_landed(&self, newest: u64, tried: &mut Tried) -> Result<(), LakeError> {
        while let Some(version) = tried.versions.first().copied().filter(|version| *version <= newest) {
            tried.landed.extend(self.log.lanes_committed(&self.id, version).await?);
            tried.versions.remove(&version);
        }
        Ok(())
    }

    /// Writes the pending lanes' files, unless an attempt before this one has written just these. Files of an attempt whose lanes were
    /// others stay behind for vacuum.
    async fn stage(
        &self,
        version: &Version,
        pending: &[&LaneCommit],
        staged: &mut Option<Staged>,
    ) -> Result<(), LakeError> {
        let found = version.delta.snapshot().arrow_schema();
        let format = FileFormat::new(self.table, &found);
        let at = |commit: &&LaneCommit| (commit.lane.clone(), version.transactions.get(&commit.lane).copied());
        let lanes: Vec<_> = pending.iter().map(at).collect();
        let is_same = |staged: &&mut Staged| staged.lanes == lanes && staged.schema == *format.schema();
        if staged.as_mut().as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let mut days = Days::new();
        let mut encoded: BTreeMap<i32, Vec<Bytes>> = BTreeMap::new();
        for (commit, (_, at)) in pending.iter().zip(&lanes) {
            for (_, file) in commit.files.iter().filter(|(number, _)| Some(*number) > *at) {
                let (day, file) = self.as_table_has_it(file, &format)?;
                encoded.entry(day).or_default().push(file);
            }
            let fresh = commit.rows.iter().filter(|(number, rows)| Some(*number) > *at && rows.num_rows() > 0);
            for (_, rows) in fresh {
                add_by_day(&mut days, self.table, &commit.lane, rows, &format)?;
            }
        }
        let mut files = Vec::with_capacity(days.len());
        let store = self.log.store();
        for (day, batches) in &days {
            encoded.entry(*day).or_default().push(format.encode(batches)?);
        }
        for (day, parts) in encoded {
            let file = join(self.table.name(), parts)?;
            let put = format.put(store.as_ref(), file, (FileRole::Part, day), true);
            files.push(self.log.within("written to", put).await?);
        }
        *staged = Some(Staged { lanes, schema: format.schema().clone(), files });
        Ok(())
    }
}

impl Attempts<'_> {
    /// A file of [`Lake::encode`] with the columns that the table has, and its day.
    fn as_table_has_it(&self, file: &Bytes, format: &FileFormat) -> Result<(i32, Bytes), LakeError> {
        let name = self.table.name();
        let metadata = arrow_metadata(name, file)?;
        let range = range(metadata.metadata(), self.table.day_column());
        let (first, last) = range.ok_or_else(|| LakeError::rows(name, "a file does not tell its day"))?;
        let day = day_of(first);
        if day != day_of(last) {
            return Err(LakeError::rows(name, "a file holds more than one day"));
        }
        if metadata.schema().fields() == format.schema().fields() {
            return Ok((day, file.clone()));
        }
        let failed = |error: &dyn std::fmt::Display| LakeError::rows(name, error);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata);
        let mut rows = Vec::new();
        for batch in reader.build().map_err(|error| failed(&error))? {
            rows.push(conform(name, &batch.map_err(|error| failed(&error))?, format.schema())?);
        }
        Ok((day, format.encode(&rows)?))
    }
}

/// Rows by their UTC day.
type Days = BTreeMap<i32, Vec<RecordBatch>>;

/// Adds a lane's rows, with the columns of the table's files.
fn add_by_day(
    days: &mut Days,
    table: &LakeTable,
    lane: &LaneId,
    rows: &RecordBatch,
    format: &FileFormat,
) -> Result<(), LakeError> {
    let rows = match table.shape() {
        Shape::Versions => with_lane(table, rows, lane)?,
        Shape::Events => rows.clone(),
    };
    for (day, rows) in by_day(table, &conform(table.name(), &rows, format.schema())?)? {
        days.entry(day).or_default().push(rows);
    }
    Ok(())
}

fn with_lane(table: &LakeTable, rows: &RecordBatch, lane: &LaneId) -> Result<RecordBatch, LakeError> {
    if rows.column_by_name(LANE).is_some() {
        return Ok(rows.clone());
    }
    let lane: ArrayRef =
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(lane.to_string(), rows.num_rows())));
    let field = Arc::new(Field::new(LANE, lane.data_type().clone(), false));
    let fields: Vec<_> = rows.schema().fields().iter().cloned().chain([field]).collect();
    let columns = rows.columns().iter().cloned().chain([lane]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| LakeError::rows(table.name(), error))
}
