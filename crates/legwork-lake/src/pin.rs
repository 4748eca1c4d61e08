//! Reading a table as one version has it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as QueryResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::EagerSnapshot;
use legwork_types::LaneId;
use object_store::ObjectStore;
use url::{Position, Url};

use crate::files::{FileRole, parse_day};
use crate::log::Version;
use crate::table::DAY;
use crate::{Lake, LakeError, LakeTable};

/// A version of a table. Its files stay while it or its provider lives in this process, and in any case for
/// [`crate::LakeConfig::removed_files_kept`] after they were removed.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// Number of the version.
    pub version: u64,
    /// The newest checkpoint of each lane that it holds.
    pub transactions: Arc<HashMap<LaneId, u32>>,
    /// Its rows, every version of them, with `lane` (versions only) and `day`. Prunes by day and by the statistics of times.
    pub provider: Arc<dyn TableProvider>,
    /// What it holds, by UTC day (days since 1970-01-01).
    pub days: Arc<BTreeMap<i32, DayFiles>>,
}

/// The files of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayFiles {
    /// How many.
    pub n_files: usize,
    /// Their bytes.
    pub n_bytes: u64,
    /// Rows, as the files' statistics say.
    pub n_rows: u64,
    /// Each key of a lane has one row, and no row is a retraction: reading needs no resolving.
    pub is_resolved: bool,
}

/// What was pinned last, and when it was found to be the newest.
#[derive(Clone, Debug)]
pub(crate) struct LastPin {
    pinned: Pinned,
    version: Arc<Version>,
    at: Instant,
}

impl Lake {
    /// Pins the newest version of a table; none for a table that does not exist. A version that was the newest less than
    /// [`crate::LakeConfig::pin_age_max`] ago is taken without asking again, and what did not change is not read again.
    /// *Errors:* `Unavailable`, `Newer`, `Damaged`.
    pub async fn pin(&self, table: &LakeTable) -> Result<Option<Pinned>, LakeError> {
        let log = self.log(table)?;
        let last = log.last_pin.lock().clone();
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < self.inner.config.pin_age_max) {
            return Ok(Some(last.pinned.clone()));
        }
        let asked = Instant::now();
        let Some(version) = log.refresh().await? else { return Ok(None) };
        let pinned = match last {
            Some(last) if Arc::ptr_eq(&last.version, &version) => last.pinned,
            _ => {
                log.pin(&version);
                let root = self.inner.root.clone();
                let provider = LakeProvider::try_new(version.clone(), root, self.inner.url.clone());
                let provider = provider.map_err(|error| LakeError::delta(table.name(), "read", error.into()))?;
                Pinned {
                    version: version.number(),
                    transactions: version.transactions.clone(),
                    provider: Arc::new(provider),
                    days: Arc::new(days(table, &version)?),
                }
            }
        };
        *log.last_pin.lock() = Some(LastPin { pinned: pinned.clone(), version, at: asked });
        Ok(Some(pinned))
    }
}

/// The files of each day.
fn days(table: &LakeTable, version: &Version) -> Result<BTreeMap<i32, DayFiles>, LakeError> {
    let mut days: BTreeMap<i32, DayFiles> = BTreeMap::new();
    for file in version.delta.log_data() {
        let day = file.partition_values_map().remove(DAY).flatten();
        let day = day.as_deref().and_then(parse_day);
        let day = day.ok_or_else(|| LakeError::damaged(table.name(), "a file without a day"))?;
        let is_resolved = FileRole::of(&file.path()) == FileRole::Resolved;
        let files = days.entry(day).or_insert(DayFiles { is_resolved: true, ..DayFiles::default() });
        files.n_files += 1;
        files.n_bytes += u64::try_from(file.size()).unwrap_or_default();
        files.n_rows += file.num_records().unwrap_or_default() as u64;
        files.is_resolved &= is_resolved;
    }
    Ok(days)
}

/// delta-rs's scan, which finds the store by itself, keeps its version's files, and hands out plain types: text as Utf8, days as Date32.
#[derive(Debug)]
pub(crate) struct LakeProvider {
    scan: DeltaScanNext,
    root: Arc<dyn ObjectStore>,
    url: Url,
    _version: Arc<Version>,
}

impl LakeProvider {
    pub(crate) fn try_new(version: Arc<Version>, root: Arc<dyn ObjectStore>, url: Url) -> QueryResult<LakeProvider> {
        let snapshot: EagerSnapshot = version.delta.snapshot().clone();
        let config = DeltaScanConfig {
            wrap_partition_values: false,
            schema_force_view_types: false,
            ..DeltaScanConfig::default()
        };
        Ok(LakeProvider { scan: DeltaScanNext::new(snapshot, config)?, root, url, _version: version })
    }

    /// Of some of its files only.
    pub(crate) fn of_files(mut self, paths: impl IntoIterator<Item = String>) -> LakeProvider {
        self.scan = self.scan.with_file_paths(paths);
        self
    }
}

#[async_trait]
impl TableProvider for LakeProvider {
    fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let store = ObjectStoreUrl::parse(&self.url[..Position::BeforePath])?;
        if session.runtime_env().object_store(&store).is_err() {
            session.runtime_env().register_object_store(store.as_ref(), self.root.clone());
        }
        self.scan.scan(session, projection, filters, limit).await
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        self.scan.supports_filters_pushdown(filters)
    }
}
