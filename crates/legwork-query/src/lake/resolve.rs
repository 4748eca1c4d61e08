//! Reads days whose rows have several versions, or fresh ones: group of days after group of days, the newest version of each row.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::newest::{Layout, NewestRows, NewestVersions};
use super::repeated::{HashSet, RepeatedHashes, hashes_of};

/// Some days of a table: all versions of their rows.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The lake's identities alone, for groups that are too large to be held: they are read twice, and only rows with several versions
    /// are held.
    pub(super) identities: Option<Arc<dyn ExecutionPlan>>,
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
        let n_large = self.groups.iter().filter(|group| group.identities.is_some()).count();
        write!(f, "ResolveExec: table={}, groups={}, fresh_rows={n_fresh}", self.table, self.groups.len())?;
        if n_large > 0 {
            write!(f, ", read_twice={n_large}")?;
        }
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
        self.groups.iter().flat_map(|group| group.identities.iter().chain(&group.lake)).collect()
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
            identities: group.identities.as_ref().and_then(|_| children.next()),
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

/// The newest versions of a group.
async fn resolve(
    exec: ResolveExec,
    group_idx: usize,
    context: Arc<TaskContext>,
) -> Result<impl Stream<Item = Result<RecordBatch>>> {
    let group = &exec.groups[group_idx];
    let memory = MemoryConsumer::new(format!("ResolveExec[{}]", exec.table)).register(context.memory_pool());
    let repeated = match &group.identities {
        Some(identities) => Some(find_repeated(&exec.layout, group, identities, &context, &memory).await?),
        None => None,
    };
    // Live versions first: of equal revisions the first counts.
    let fresh = stream::iter(group.fresh.clone().into_iter().map(Ok));
    let versions = match &group.lake {
        Some(lake) => fresh.chain(read(lake, &context)?).boxed(),
        None => fresh.boxed(),
    };
    let newest = NewestVersions::try_new(&exec.versions, exec.layout.clone())?;
    let reading = Reading { versions, repeated, memory, newest: Some(newest), rest: None };
    Ok(stream::try_unfold(
        reading,
        |mut reading| async move { Ok(reading.next().await?.map(|batch| (batch, reading))) },
    ))
}

fn read(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
    match plan.properties().partitioning.partition_count() {
        1 => plan.execute(0, context.clone()),
        n_partitions => internal_err!("a group of days must be read in one partition, not in {n_partitions}"),
    }
}

/// The first reading of a large group.
async fn find_repeated(
    layout: &Layout,
    group: &Group,
    identities: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    memory: &MemoryReservation,
) -> Result<HashSet> {
    let (mut repeated, mut hashes) = (RepeatedHashes::default(), Vec::new());
    for versions in &group.fresh {
        hashes_of(&layout.identity_of(versions), &mut hashes)?;
        repeated.add(&hashes);
    }
    let mut batches = read(identities, context)?;
    while let Some(batch) = batches.next().await {
        hashes_of(batch?.columns(), &mut hashes)?;
        repeated.add(&hashes);
        memory.try_resize(repeated.n_bytes())?;
    }
    let repeated = repeated.finish();
    memory.try_resize(repeated.n_bytes())?;
    Ok(repeated)
}

/// Reads a group: rows of one version are passed on, the others held until all have been seen.
struct Reading {
    versions: BoxStream<'static, Result<RecordBatch>>,
    /// Hashes of identities with several versions; none when they are not known and all rows are held.
    repeated: Option<HashSet>,
    newest: Option<NewestVersions>,
    rest: Option<NewestRows>,
    memory: MemoryReservation,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(versions) = self.versions.next().await {
            if let Some(rows) = self.take(&versions?)? {
                return Ok(Some(rows));
            }
        }
        if let Some(newest) = self.newest.take() {
            let (n_bytes, rows) = newest.finish();
            self.repeated = None;
            self.memory.try_resize(n_bytes)?;
            self.rest = Some(rows);
        }
        self.rest.as_mut().and_then(Iterator::next).transpose()
    }

    /// Holds what may have other versions; the rest, without retractions, is *returned*.
    fn take(&mut self, versions: &RecordBatch) -> Result<Option<RecordBatch>> {
        let Some(newest) = &mut self.newest else { return Ok(None) };
        let Some(repeated) = &self.repeated else {
            newest.push(versions)?;
            self.memory.try_resize(newest.n_bytes())?;
            return Ok(None);
        };
        let mut hashes = Vec::new();
        hashes_of(&newest.layout().identity_of(versions), &mut hashes)?;
        let is_repeated: BooleanBuffer = hashes.iter().map(|hash| repeated.contains(*hash)).collect();
        if is_repeated.count_set_bits() > 0 {
            let held = filter_record_batch(versions, &BooleanArray::new(is_repeated.clone(), None))?;
            newest.push(&held)?;
            self.memory.try_resize(repeated.n_bytes() + newest.n_bytes())?;
        }
        let is_deleted = versions.column(newest.layout().is_deleted).as_boolean().values();
        let passed = BooleanArray::new(!&(&is_repeated | is_deleted), None);
        let rows = newest.layout().rows(versions, &passed)?;
        Ok((rows.num_rows() > 0).then_some(rows))
    }
}
