//! A table of live and lake as DataFusion sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::provider_as_source;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, col};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use legwork_types::{Answer, FreshRows, LaneId, LiveTables, MissingLane, Table};
use tokio::time::Instant;

use super::days::DaySet;
use super::fresh::{DAY, Fresh, LANE};
use super::history::{History, HistoryError, PinnedTable};
use super::implied;
use super::newest::Layout;
use super::resolve::{Group, ResolveExec};
use super::scan::{LakeScan, read_error};
use crate::catalog::LakeDef;
use crate::pin::{QueryPin, View};

/// Pieces of a query: each plans a scan of its own.
const GROUPS_MAX: u64 = 32;
/// Pieces that are resolved at the same time: each holds memory.
const PARTITIONS_MAX: usize = 8;
/// Bytes that resolving holds of a version, beside the columns of the result: its identity, a place in a hash table, its revision.
const VERSION_BYTES: usize = 96;
/// A version of the lake that lacks what lanes have let go of is pinned anew after this, for so long.
const PIN_AGAIN_AFTER: Duration = Duration::from_millis(20);
const PIN_AGAIN_MAX: Duration = Duration::from_secs(3);

/// What the rows of a table of the lake are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Contents {
    /// Versions of rows with this key: a row is (day, lane, key), and the newest counts.
    Versions(Table),
    /// Events, each once.
    Events,
}

/// A table that lanes fill and the lake keeps.
#[derive(Debug)]
pub(crate) struct LakeTable {
    name: &'static str,
    schema: SchemaRef,
    contents: Contents,
    /// Column whose UTC day a row belongs to.
    time_column: &'static str,
    live: Arc<dyn LiveTables>,
    history: Arc<dyn History>,
}

/// Why a lane's rows are left out that the lake is ahead of.
const OVERTAKEN: &str = "another instance has taken the lane over, and this one has not let go yet";

impl LakeTable {
    pub(crate) fn new(
        (name, contents, time_column): LakeDef,
        schema: SchemaRef,
        live: Arc<dyn LiveTables>,
        history: Arc<dyn History>,
    ) -> LakeTable {
        LakeTable { name, schema, contents, time_column, live, history }
    }

    /// What a query reads of lake and lanes.
    async fn view(&self, state: &dyn Session) -> Result<View> {
        let pin = QueryPin::of(state);
        pin.view(self.name, self.make_view(&pin)).await
    }

    /// Pins the lake first, then asks the lanes: what reaches the lake in between is seen in the lanes, and newest wins.
    async fn make_view(&self, pin: &QueryPin) -> Result<View> {
        pin.wait(self.live.as_ref(), self.name).await;
        let external = |error: HistoryError| DataFusionError::External(Box::new(error));
        let until = Instant::now() + PIN_AGAIN_MAX;
        let (pinned, fresh) = loop {
            let pinned = pin.pinned(self.history.as_ref(), self.name).await.map_err(external)?;
            let fresh = self.live.fresh(self.name).await;
            if fresh.as_ref().is_ok_and(|answer| lacks_nothing(pinned.as_deref(), &answer.found)) || fresh.is_err() {
                break (pinned, fresh);
            }
            if Instant::now() >= until {
                let detail = "it lacks rows that lanes know to be there".to_owned();
                return Err(external(HistoryError::Unavailable { table: self.name.to_owned(), detail }));
            }
            pin.forget_pinned(self.name);
            tokio::time::sleep(PIN_AGAIN_AFTER).await;
        };
        let fresh = fresh.map(|answer| without_former_owners(pinned.as_deref(), answer));
        let fresh = pin.found(fresh).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let fresh = match (self.contents, &pinned) {
            (Contents::Events, Some(pinned)) => Fresh::of_events(fresh, &pinned.through, self.time_column)?,
            _ => Fresh::of_versions(fresh, self.time_column)?,
        };
        Ok(View { pinned, fresh: Arc::new(fresh) })
    }

    /// What the lake holds of `days` where `filters` hold; none when no file can have any of it. *Shape:* the columns of `schema`.
    async fn lake(
        &self,
        state: &dyn Session,
        pinned: &Arc<PinnedTable>,
        days: DaySet,
        filters: &[Expr],
        schema: &SchemaRef,
        rows_max: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let columns = pinned.provider.schema();
        let is_there = |name: &str| columns.index_of(name).is_ok();
        let filters = filters.iter().filter(|filter| filter.column_refs().iter().all(|c| is_there(&c.name))).cloned();
        let filter = filters.chain(days.filter(DAY)).reduce(Expr::and);
        let wanted = schema.fields().iter().filter(|field| is_there(field.name())).map(|field| col(field.name()));
        let mut plan = LogicalPlanBuilder::scan(self.name, provider_as_source(pinned.provider.clone()), None)?;
        if let Some(filter) = filter {
            plan = plan.filter(filter)?;
        }
        let plan = plan.project(wanted)?.limit(0, rows_max)?.build()?;
        let child = state.create_physical_plan(&plan).await.map_err(|error| read_error(self.name, error))?;
        if child.output_partitioning().partition_count() == 0 {
            return Ok(None);
        }
        Ok(Some(Arc::new(LakeScan::new(self.name, pinned.clone(), days, schema.clone(), child))))
    }

    /// Events: those of the lake, then those beyond it.
    async fn scan_events(
        &self,
        state: &dyn Session,
        view: &View,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if let Some(pinned) = &view.pinned {
            let days = wanted.days.clone();
            parts.extend(self.lake(state, pinned, days, wanted.filters, &wanted.schema, wanted.rows_max).await?);
        }
        let fresh = view.fresh.rows(&wanted.days, &wanted.schema)?;
        if !fresh.is_empty() {
            let batches = deal(fresh, state.config().target_partitions());
            parts.push(MemorySourceConfig::try_new_exec(&batches, wanted.schema.clone(), None)?);
        }
        Ok(parts)
    }

    /// Versions: days that read as they are, and the newest versions of the others.
    async fn scan_versions(
        &self,
        table: Table,
        state: &dyn Session,
        view: &View,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let settled = settled_days(view).intersect(&wanted.days);
        if let Some(pinned) = view.pinned.as_ref().filter(|_| !settled.is_empty()) {
            let days = settled.clone();
            parts.extend(self.lake(state, pinned, days, wanted.filters, &wanted.schema, wanted.rows_max).await?);
        }
        let (versions, layout) = versions_of(table, self.time_column, &wanted.schema)?;
        // A filter on anything but the identity would hide a newer version and show the older one.
        let key = table.def().key;
        let of_key = |filter: &&Expr| filter.column_refs().iter().all(|column| key.contains(&column.name.as_str()));
        let filters: Vec<Expr> = wanted.filters.iter().filter(of_key).cloned().collect();
        let partitions_max = state.config().target_partitions().min(PARTITIONS_MAX);
        let rows_max = group_rows_max(&wanted.schema, state, partitions_max);
        let mut groups = Vec::new();
        for (days, n_rows) in groups_of(&settled.complement().intersect(&wanted.days), view, rows_max) {
            let mut group = Group { identities: None, lake: None, fresh: view.fresh.rows(&days, &versions)? };
            if let Some(pinned) = &view.pinned {
                if n_rows.is_none_or(|n_rows| n_rows > rows_max) {
                    let identities = layout.identity_schema(&versions)?;
                    group.identities = self.lake(state, pinned, days.clone(), &filters, &identities, None).await?;
                }
                group.lake = self.lake(state, pinned, days, &filters, &versions, None).await?;
            }
            if group.lake.is_some() || !group.fresh.is_empty() {
                groups.push(group);
            }
        }
        if !groups.is_empty() {
            let resolve = ResolveExec::try_new(self.name, groups, versions, layout, wanted.rows_max, partitions_max)?;
            parts.push(Arc::new(resolve));
        }
        Ok(parts)
    }
}

/// A lane's transaction number in the lake as it was pinned.
fn through(pinned: Option<&PinnedTable>, lane: &LaneId) -> u32 {
    pinned.and_then(|pinned| pinned.through.get(lane).copied()).unwrap_or(0)
}

/// Whether what lanes have let go of is in the lake as it was pinned.
fn lacks_nothing(pinned: Option<&PinnedTable>, lanes: &[FreshRows]) -> bool {
    lanes.iter().all(|fresh| through(pinned, &fresh.lane) >= fresh.after)
}

/// Without the rows of lanes that another owner has overtaken in the lake: those lanes are missing.
fn without_former_owners(pinned: Option<&PinnedTable>, answer: Answer<FreshRows>) -> Answer<FreshRows> {
    let Answer { found, mut missing } = answer;
    let (found, overtaken): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|fresh| through(pinned, &fresh.lane) <= fresh.durable);
    missing.extend(overtaken.into_iter().map(|FreshRows { lane, .. }| MissingLane {
        topic: lane.topic,
        partition: Some(lane.partition),
        reason: OVERTAKEN.to_owned(),
        coming_for: None,
    }));
    Answer { found, missing }
}

/// What a query wants of a table.
struct Wanted<'a> {
    /// Columns.
    schema: SchemaRef,
    filters: &'a [Expr],
    /// Days outside of which all rows fail the filters.
    days: DaySet,
    rows_max: Option<usize>,
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// All filters are applied again above: here they say which days and keys to read.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let has_query = |filter: &Expr| {
            filter.exists(|expr| {
                Ok(matches!(
                    expr,
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..)
                ))
            })
        };
        let support = |filter: &&Expr| match has_query(filter)? || filter.is_volatile() {
            true => Ok(TableProviderFilterPushDown::Unsupported),
            false => Ok(TableProviderFilterPushDown::Inexact),
        };
        filters.iter().map(support).collect()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let view = self.view(state).await?;
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let filters = unnormalize_cols(filters.iter().cloned());
        let days = implied::days_of(&filters, self.time_column);
        // A limit counts rows that pass the filters.
        let rows_max = limit.filter(|_| filters.is_empty());
        let wanted = Wanted { schema: schema.clone(), filters: &filters, days, rows_max };
        let mut parts = match self.contents {
            Contents::Events => self.scan_events(state, &view, wanted).await?,
            Contents::Versions(table) => self.scan_versions(table, state, &view, wanted).await?,
        };
        match (parts.pop(), parts.is_empty()) {
            (None, _) => Ok(Arc::new(EmptyExec::new(schema))),
            (Some(part), true) => Ok(part),
            (Some(part), false) => {
                parts.push(part);
                UnionExec::try_new(parts)
            }
        }
    }
}

/// Days that the lake holds resolved and the lanes do not touch.
fn settled_days(view: &View) -> DaySet {
    let Some(pinned) = &view.pinned else { return DaySet::none() };
    let is_settled = |day: i32| {
        let in_lake = pinned.days.get(&day).is_none_or(|lake| lake.is_resolved);
        in_lake && !view.fresh.days().contains_key(&day)
    };
    let (Some(first), Some(last)) = (pinned.days.keys().next(), pinned.days.keys().next_back()) else {
        return DaySet::none();
    };
    // Days without rows join the days around them, so that weekends do not cut a year into weeks.
    let known: BTreeSet<i32> = pinned.days.keys().chain(view.fresh.days().keys()).copied().collect();
    let touched = DaySet::of(known.into_iter().filter(|day| !is_settled(*day)));
    DaySet::range(*first, *last).intersect(&touched.complement())
}

/// Versions that may be held at once in each of `n_partitions`: together they take a quarter of the memory of a query.
fn group_rows_max(schema: &Schema, state: &dyn Session, n_partitions: usize) -> u64 {
    let bytes_of = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => 24,
        DataType::Binary => 256,
        _ => 8,
    };
    let row_bytes = VERSION_BYTES + schema.fields().iter().map(bytes_of).sum::<usize>();
    let memory_bytes = match state.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes,
        _ => 512 << 20,
    };
    (memory_bytes / 4 / n_partitions.max(1) / row_bytes).max(1_024) as u64
}

/// `days` in pieces of some `rows_max` versions, with the number of versions where it is known: together all of them, also days that the
/// lake does not know of.
fn groups_of(days: &DaySet, view: &View, rows_max: u64) -> Vec<(DaySet, Option<u64>)> {
    let is_known = view.pinned.as_ref().is_none_or(|pinned| !pinned.days.is_empty());
    let mut n_rows_by_day: BTreeMap<i32, u64> = view.fresh.days().clone();
    for (day, lake) in view.pinned.iter().flat_map(|pinned| &pinned.days) {
        *n_rows_by_day.entry(*day).or_default() += lake.n_rows;
    }
    n_rows_by_day.retain(|day, _| days.contains(*day));
    let rows_max = rows_max.max(n_rows_by_day.values().sum::<u64>() / GROUPS_MAX);
    let (mut groups, mut first, mut n_rows) = (Vec::new(), i32::MIN, 0);
    for (&day, &n_rows_of_day) in n_rows_by_day.iter().filter(|_| is_known) {
        if n_rows > 0 && n_rows + n_rows_of_day > rows_max {
            groups.push((DaySet::range(first, day - 1), Some(n_rows)));
            (first, n_rows) = (day, 0);
        }
        n_rows += n_rows_of_day;
    }
    groups.push((DaySet::range(first, i32::MAX), is_known.then_some(n_rows)));
    let groups = groups.into_iter().map(|(group, n_rows)| (group.intersect(days), n_rows));
    groups.filter(|(group, _)| !group.is_empty()).collect()
}

/// The columns of `schema`, then those that resolving needs besides, and where they all lie.
fn versions_of(table: Table, time_column: &str, schema: &SchemaRef) -> Result<(SchemaRef, Layout)> {
    let all = table.version_schema();
    let mut fields = schema.fields().to_vec();
    let mut place = |field: &Field| match fields.iter().position(|known| known.name() == field.name()) {
        Some(idx) => idx,
        None => {
            fields.push(Arc::new(field.clone()));
            fields.len() - 1
        }
    };
    let key = table.def().key;
    let mut identity = Vec::new();
    for name in key {
        identity.push(place(all.field_with_name(name)?));
    }
    if !key.contains(&time_column) {
        identity.push(place(&Field::new(DAY, DataType::Date32, false)));
    }
    let lane = place(&Field::new(LANE, DataType::Utf8, false));
    let revision = place(all.field_with_name("revision")?);
    let is_deleted = place(all.field_with_name("is_deleted")?);
    let layout = Layout { n_columns: schema.fields().len(), identity, lane, revision, is_deleted };
    Ok((Arc::new(Schema::new(fields)), layout))
}

/// Batches dealt out to partitions.
fn deal(batches: Vec<RecordBatch>, n_partitions: usize) -> Vec<Vec<RecordBatch>> {
    let n_partitions = n_partitions.clamp(1, batches.len().max(1));
    let mut partitions = vec![Vec::new(); n_partitions];
    for (idx, batch) in batches.into_iter().enumerate() {
        partitions[idx % n_partitions].push(batch);
    }
    partitions
}
