//! Files of a day written anew: sorted, few, and for finished days of facts with one version a row.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext, col};
use deltalake::kernel::{Action, Add};
use deltalake::protocol::DeltaOperation;
use futures::TryStreamExt;

use super::plan::FileInfo;
use crate::files::{FileFormat, FileRole, FileWriter, conform};
use crate::log::{ATTEMPTS_MAX, CommitFailure, TableLog, Version, pause};
use crate::pin::LakeProvider;
use crate::table::{IS_DELETED, LANE, REVISION};
use crate::{Lake, LakeError, LakeTable, Shape};

/// Files to be replaced, and how.
pub(super) struct Rewrite<'a> {
    pub(super) lake: &'a Lake,
    pub(super) table: &'a LakeTable,
    pub(super) log: &'a TableLog,
    pub(super) day: i32,
    pub(super) paths: Vec<String>,
    pub(super) is_final: bool,
    pub(super) now_ms: i64,
}

/// What a rewrite did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rewritten {
    pub(super) n_files: usize,
    pub(super) n_bytes: u64,
}

/// Leaves of rows sorted by key, then newest version first, the first of each key, unless it is a retraction.
struct Newest {
    keys: Vec<usize>,
    is_deleted: usize,
    converter: RowConverter,
    last: Option<OwnedRow>,
}

impl Newest {
    fn new(schema: &Schema, keys: &[String]) -> Result<Newest, arrow::error::ArrowError> {
        let keys: Vec<usize> = keys.iter().map(|key| schema.index_of(key)).collect::<Result<_, _>>()?;
        let fields = keys.iter().map(|key| SortField::new(schema.field(*key).data_type().clone())).collect();
        Ok(Newest { is_deleted: schema.index_of(IS_DELETED)?, converter: RowConverter::new(fields)?, keys, last: None })
    }

    fn filter(&mut self, rows: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
        let columns: Vec<_> = self.keys.iter().map(|key| rows.column(*key).clone()).collect();
        let keys = self.converter.convert_columns(&columns)?;
        let is_deleted = rows.column(self.is_deleted).as_boolean();
        let mut mask = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let is_first = match row {
                0 => self.last.as_ref().is_none_or(|last| last.row() != keys.row(0)),
                _ => keys.row(row) != keys.row(row - 1),
            };
            mask.push(is_first && !(is_deleted.is_valid(row) && is_deleted.value(row)));
        }
        if rows.num_rows() > 0 {
            self.last = Some(keys.row(rows.num_rows() - 1).owned());
        }
        filter_record_batch(rows, &BooleanArray::from(mask))
    }
}

impl Rewrite<'_> {
    /// *Returns* none when somebody else has removed one of the files before: then nothing is changed.
    pub(super) async fn run(&self) -> Result<Option<Rewritten>, LakeError> {
        let Some(version) = self.log.refresh().await? else { return Ok(None) };
        if !self.are_active(&version) {
            return Ok(None);
        }
        let (adds, has_dropped) = self.write(&version).await?;
        if !self.commit(&adds, has_dropped).await? {
            return Ok(None);
        }
        let n_bytes = adds.iter().map(|add| u64::try_from(add.size).unwrap_or_default()).sum();
        Ok(Some(Rewritten { n_files: adds.len(), n_bytes }))
    }

    fn are_active(&self, version: &Version) -> bool {
        let active = active(version);
        self.paths.iter().all(|path| active.contains(path))
    }

    /// Reads the files sorted and writes new ones. *Returns* them, and whether rows were left out.
    async fn write(&self, version: &Arc<Version>) -> Result<(Vec<Add>, bool), LakeError> {
        let failed = |error: &dyn std::fmt::Display| LakeError::unavailable(self.table.name(), "compacted", error);
        let inner = &self.lake.inner;
        let provider = LakeProvider::try_new(version.clone(), inner.root.clone(), inner.url.clone())
            .map_err(|error| failed(&error))?;
        let context = self.context().map_err(|error| failed(&error))?;
        let found = version.delta.snapshot().arrow_schema();
        let format = FileFormat::whole(self.table, &found);
        let columns: Vec<_> =
            format.schema().fields().iter().map(|field| col(format!("\"{}\"", field.name()))).collect();
        let frame =
            context.read_table(Arc::new(provider.of_files(self.paths.clone()))).map_err(|error| failed(&error))?;
        let sorted = frame.select(columns).and_then(|frame| frame.sort(self.order()));
        let mut rows =
            sorted.map_err(|error| failed(&error))?.execute_stream().await.map_err(|error| failed(&error))?;
        let keys: Vec<String> = self.table.sort().iter().cloned().chain([LANE.to_owned()]).collect();
        let mut newest = match self.is_final && self.table.shape() == Shape::Versions {
            true => Some(Newest::new(format.schema(), &keys).map_err(|error| failed(&error))?),
            false => None,
        };
        let (mut files, mut file, mut has_dropped) = (Vec::new(), None::<FileWriter>, false);
        while let Some(batch) = rows.try_next().await.map_err(|error| failed(&error))? {
            let batch = conform(self.table.name(), &batch, format.schema())?;
            let kept = match &mut newest {
                Some(newest) => newest.filter(&batch).map_err(|error| failed(&error))?,
                None => batch.clone(),
            };
            has_dropped |= kept.num_rows() < batch.num_rows();
            if kept.num_rows() == 0 {
                continue;
            }
            let mut current = match file.take() {
                Some(current) => current,
                None => format.start()?,
            };
            current.write(&kept)?;
            match current.n_bytes() as u64 >= inner.config.file_bytes_target {
                true => files.push(self.finish(&format, current).await?),
                false => file = Some(current),
            }
        }
        if let Some(last) = file {
            files.push(self.finish(&format, last).await?);
        }
        Ok((files, has_dropped))
    }

    async fn finish(&self, format: &FileFormat, file: FileWriter) -> Result<Add, LakeError> {
        let role = if self.is_final { FileRole::Resolved } else { FileRole::Merged };
        let store = self.log.store();
        let put = format.put(store.as_ref(), file.into_bytes()?, (role, self.day), false);
        self.log.within("written to", put).await
    }

    fn order(&self) -> Vec<datafusion::logical_expr::SortExpr> {
        let column = |name: &str| col(format!("\"{name}\""));
        let mut order: Vec<_> = self.table.sort().iter().map(|name| column(name).sort(true, true)).collect();
        if self.table.shape() == Shape::Versions {
            order.push(column(LANE).sort(true, true));
            order.push(column(REVISION).sort(false, false));
        }
        order
    }

    /// A session that sorts in bounded memory, the rest on the local disk.
    fn context(&self) -> datafusion::common::Result<SessionContext> {
        let pool = FairSpillPool::new(self.lake.inner.config.compaction_memory_bytes);
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
        // A store of its own: one registered for the same address elsewhere must not be taken for it.
        let url = &self.lake.inner.url[..url::Position::BeforePath];
        let url = datafusion::execution::object_store::ObjectStoreUrl::parse(url)?;
        runtime.register_object_store(url.as_ref(), self.lake.inner.root.clone());
        Ok(SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime))
    }

    /// Puts the new files in the place of the old. *Returns* false when somebody else has removed one of the old ones.
    async fn commit(&self, adds: &[Add], has_dropped: bool) -> Result<bool, LakeError> {
        let mut is_unknown = None;
        for n_attempts in 0..ATTEMPTS_MAX {
            pause(n_attempts).await;
            let _one_at_a_time = self.log.committing.lock().await;
            let Some(version) = self.log.refresh().await? else { return Ok(false) };
            if !self.are_active(&version) {
                let active = active(&version);
                let are_ours = is_unknown.is_some() && adds.iter().all(|add| active.contains(&add.path));
                return Ok(are_ours);
            }
            let mut actions = removals(&version, &self.paths, has_dropped, self.now_ms);
            let added = adds.iter().cloned().map(|add| Action::Add(Add { data_change: has_dropped, ..add }));
            actions.extend(added);
            let target = i64::try_from(self.lake.inner.config.file_bytes_target).unwrap_or(i64::MAX);
            let operation = DeltaOperation::Optimize { predicate: None, target_size: target };
            match self.log.commit(Some(&version), actions, operation).await {
                Ok(_) => return Ok(true),
                Err(CommitFailure::Refused(error)) => return Err(error),
                Err(CommitFailure::Conflict) => {}
                Err(CommitFailure::Unknown(detail)) => is_unknown = Some(detail),
            }
        }
        let detail = is_unknown.unwrap_or_else(|| "others commit faster".to_owned());
        Err(LakeError::unavailable(self.table.name(), "compacted", detail))
    }
}

/// Files of a version.
pub(super) fn active(version: &Version) -> HashSet<String> {
    version.delta.log_data().iter().map(|file| file.path().into_owned()).collect()
}

/// Files of a version, for planning.
pub(super) fn infos(table: &LakeTable, version: &Version) -> Result<Vec<FileInfo>, LakeError> {
    let info = |file: deltalake::kernel::LogicalFileView| {
        let day = file.partition_values_map().remove(crate::table::DAY).flatten();
        let path = file.path().into_owned();
        Some(FileInfo {
            day: day.as_deref().and_then(crate::files::parse_day)?,
            n_bytes: u64::try_from(file.size()).ok()?,
            role: FileRole::of(&path),
            modified_ms: file.modification_time(),
            path,
        })
    };
    let files = version.delta.log_data().into_iter();
    files.map(|file| info(file).ok_or_else(|| LakeError::damaged(table.name(), "a file without a day"))).collect()
}

/// Actions that remove files of a version.
pub(super) fn removals(version: &Version, paths: &[String], is_change: bool, now_ms: i64) -> Vec<Action> {
    let paths: HashSet<&str> = paths.iter().map(String::as_str).collect();
    let files = version.delta.log_data();
    let files = files.iter().filter(|file| paths.contains(file.path().as_ref()));
    let remove = |file: deltalake::kernel::LogicalFileView| {
        let mut remove = file.remove_action(is_change);
        remove.deletion_timestamp = Some(now_ms);
        Action::Remove(remove)
    };
    files.map(remove).collect()
}
