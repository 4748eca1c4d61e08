//! Reads snapshots chunk by chunk.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use legwork_types::TableSnapshot;

/// A lane's snapshot and where the wanted columns lie in it.
#[derive(Debug)]
struct Source {
    snapshot: Arc<dyn TableSnapshot>,
    /// Positions in the snapshot.
    columns: Vec<usize>,
    /// For each wanted column its place among `columns`; none where the snapshot lacks it.
    places: Vec<Option<usize>>,
}

impl Source {
    fn try_new(table: &str, wanted: &Schema, snapshot: &Arc<dyn TableSnapshot>) -> Result<Source> {
        let found = snapshot.schema();
        let (mut columns, mut places) = (Vec::new(), Vec::new());
        for field in wanted.fields() {
            match found.column_with_name(field.name()) {
                Some((position, _)) => {
                    places.push(Some(columns.len()));
                    columns.push(position);
                }
                None if field.is_nullable() => places.push(None),
                None => return internal_err!("live table {table} lacks column {}", field.name()),
            }
        }
        Ok(Source { snapshot: snapshot.clone(), columns, places })
    }

    /// *Shape:* the chunk's rows, columns as in `schema`: null where the snapshot lacks one, cast where it has another type.
    fn chunk(&self, chunk_idx: usize, schema: &SchemaRef) -> Result<RecordBatch> {
        let chunk = self.snapshot.chunk(chunk_idx, Some(&self.columns));
        let n_rows = chunk.num_rows();
        let column = |(place, field): (&Option<usize>, &Arc<Field>)| match place {
            None => Ok(new_null_array(field.data_type(), n_rows)),
            Some(place) if chunk.column(*place).data_type() == field.data_type() => Ok(chunk.column(*place).clone()),
            Some(place) => cast(chunk.column(*place), field.data_type()),
        };
        let columns = self.places.iter().zip(schema.fields()).map(column).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}

/// A scan over what the lanes held when the query was planned.
#[derive(Debug)]
pub(crate) struct LiveScan {
    table: String,
    schema: SchemaRef,
    sources: Arc<[Source]>,
    /// Source and chunk of each chunk of each partition.
    partitions: Vec<Arc<[(usize, usize)]>>,
    rows_max: Option<usize>,
    n_rows: usize,
    properties: Arc<PlanProperties>,
}

impl LiveScan {
    /// Of `projection` (all columns without one), each partition ending after `rows_max` rows, in at most `partitions_max`
    /// partitions. *Errors:* `Internal` when a snapshot lacks a column.
    pub(crate) fn try_new(
        table: &str,
        schema: &SchemaRef,
        snapshots: &[Arc<dyn TableSnapshot>],
        projection: Option<&Vec<usize>>,
        rows_max: Option<usize>,
        partitions_max: usize,
    ) -> Result<LiveScan> {
        let schema = match projection {
            Some(columns) => Arc::new(schema.project(columns)?),
            None => schema.clone(),
        };
        let sources =
            snapshots.iter().map(|snapshot| Source::try_new(table, &schema, snapshot)).collect::<Result<_>>()?;
        let chunks = snapshots.iter().enumerate();
        let chunks: Vec<_> =
            chunks.flat_map(|(idx, s)| (0..s.n_chunks()).map(move |chunk_idx| (idx, chunk_idx))).collect();
        let partitions = match chunks.len() {
            0 => vec![Arc::from([])],
            n_chunks => chunks.chunks(n_chunks.div_ceil(partitions_max.max(1))).map(Arc::from).collect::<Vec<_>>(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(LiveScan {
            table: table.to_owned(),
            schema,
            sources,
            partitions,
            rows_max,
            n_rows: snapshots.iter().map(|snapshot| snapshot.n_rows()).sum(),
            properties: Arc::new(properties),
        })
    }
}

impl DisplayAs for LiveScan {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveScan: table={}, rows={}, partitions={}", self.table, self.n_rows, self.partitions.len())?;
        match self.rows_max {
            Some(rows_max) => write!(f, ", limit={rows_max}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for LiveScan {
    fn name(&self) -> &str {
        "LiveScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a scan has no children"),
        }
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(chunks) = self.partitions.get(partition).cloned() else {
            return internal_err!("no partition {partition} in a scan of {}", self.partitions.len());
        };
        let (sources, schema) = (self.sources.clone(), self.schema.clone());
        let (mut chunk_idx, mut n_left) = (0, self.rows_max.unwrap_or(usize::MAX));
        let batches = std::iter::from_fn(move || {
            let &(source, chunk) = chunks.get(chunk_idx).filter(|_| n_left > 0)?;
            chunk_idx += 1;
            let batch = sources[source].chunk(chunk, &schema).map(|batch| batch.slice(0, batch.num_rows().min(n_left)));
            n_left -= batch.as_ref().map_or(0, RecordBatch::num_rows);
            Some(batch)
        });
        let stream = RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches));
        Ok(Box::pin(cooperative(stream)))
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let statistics = Statistics::new_unknown(&self.schema);
        Ok(Arc::new(match (args.partition(), self.rows_max) {
            (None, None) => statistics.with_num_rows(Precision::Exact(self.n_rows)),
            (None, Some(rows_max)) => statistics
                .with_num_rows(Precision::Inexact(self.n_rows.min(rows_max.saturating_mul(self.partitions.len())))),
            (Some(_), _) => statistics.with_num_rows(Precision::Inexact(self.n_rows / self.partitions.len())),
        }))
    }
}
