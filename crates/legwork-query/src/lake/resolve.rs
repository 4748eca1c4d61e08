//! Reads days whose rows have several versions, or fresh ones: group of days after group of days, the newest version of each row.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::newest::{Layout, NewestVersions};

/// Some days of a table: all versions of their rows.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// What the lake has of them; none without a lake.
    pub(super) lake: Option<Arc<dyn ExecutionPlan>>,
    /// What the lanes have of them.
    pub(super) fresh: Vec<RecordBatch>,
}

/// Newest versions of the rows of groups of days. Groups are read one after the other in each partition, so that memory is that of a
/// group, not of all days.
#[derive(Clone, Debug)]
pub(super) struct ResolveExec {
    table: &'static str,
    groups: Arc<[Group]>,
    /// Columns of the groups.
    versions: SchemaRef,
    layout: Layout,
    rows_max: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl ResolveExec {
    /// *Shape:* groups have the columns `versions`, the result the first of them as `layout` says.
    pub(super) fn try_new(
        table: &'static str,
        groups: Vec<Group>,
        versions: SchemaRef,
        layout: Layout,
        rows_max: Option<usize>,
        partitions_max: usize,
    ) -> Result<ResolveExec> {
        let schema = Arc::new(versions.project(&(0..layout.n_columns).collect::<Vec<_>>())?);
        let n_partitions = groups.len().clamp(1, partitions_max.max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(n_partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(ResolveExec { table, groups: groups.into(), versions, layout, rows_max, properties: Arc::new(properties) })
    }
}

impl DisplayAs for ResolveExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_fresh: usize = self.groups.iter().flat_map(|group| &group.fresh).map(RecordBatch::num_rows).sum();
        write!(f, "ResolveExec: table={}, groups={}, fresh_rows={n_fresh}", self.table, self.groups.len())?;
        match self.rows_max {
            Some(rows_max) => write!(f, ", limit={rows_max}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ResolveExec {
    fn name(&self) -> &str {
        "ResolveExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.groups.iter().filter_map(|group| group.lake.as_ref()).collect()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition; self.children().len()])
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.len() != self.children().len() {
            return internal_err!("expected {} children, found {}", self.children().len(), children.len());
        }
        let mut children = children.into_iter();
        let replace = |group: &Group| Group {
            lake: group.lake.as_ref().and_then(|_| children.next()),
            fresh: group.fresh.clone(),
        };
        let groups = self.groups.iter().map(replace).collect();
        Ok(Arc::new(ResolveExec { groups, ..self.as_ref().clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let n_partitions = self.properties.partitioning.partition_count();
        let this = self.clone();
        let groups = stream::iter((partition..this.groups.len()).step_by(n_partitions));
        let mut n_left = this.rows_max.unwrap_or(usize::MAX);
        let batches = groups.then(move |group| resolve(this.clone(), group, context.clone())).try_flatten();
        let batches = batches.map_ok(move |batch| {
            let batch = batch.slice(0, batch.num_rows().min(n_left));
            n_left -= batch.num_rows();
            batch
        });
        let batches = batches.try_take_while(|batch| std::future::ready(Ok(batch.num_rows() > 0)));
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), batches.boxed()))))
    }
}

/// Reads a group to its end, then gives its newest versions.
async fn resolve(
    exec: ResolveExec,
    group_idx: usize,
    context: Arc<TaskContext>,
) -> Result<impl Stream<Item = Result<RecordBatch>>> {
    let group = &exec.groups[group_idx];
    let memory = MemoryConsumer::new(format!("ResolveExec[{}]", exec.table)).register(context.memory_pool());
    let mut newest = NewestVersions::try_new(&exec.versions, exec.layout.clone())?;
    // Live versions first: of equal revisions the first counts.
    for versions in &group.fresh {
        newest.push(versions)?;
    }
    memory.try_resize(newest.n_bytes())?;
    if let Some(lake) = &group.lake {
        if lake.properties().partitioning.partition_count() != 1 {
            return internal_err!("a group of days must be read in one partition");
        }
        let mut versions = lake.execute(0, context)?;
        while let Some(versions) = versions.next().await {
            newest.push(&versions?)?;
            memory.try_resize(newest.n_bytes())?;
        }
    }
    let (n_bytes, rows) = newest.finish();
    memory.try_resize(n_bytes)?;
    Ok(stream::iter(rows).map(move |rows| {
        let _held = &memory;
        rows
    }))
}
