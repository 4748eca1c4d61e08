//! Reads a table of the lake at a pinned version.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;

use super::days::DaySet;
use super::history::{HistoryError, PinnedTable};

/// *Shape:* the rows of `batch` with the columns of `schema`, found by name: null where there is no such column, cast where it has
/// another type. *Errors:* a column that may not be null is absent or has nulls.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let n_rows = batch.num_rows();
    // A value that does not fit is an error, never a null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), n_rows)),
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => cast_with_options(column, field.data_type(), &strict),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(n_rows)))
}

/// What the lake's provider plans, with the columns and types of our table and errors in a client's words. Holds the version until the
/// last row is read.
#[derive(Clone, Debug)]
pub(super) struct LakeScan {
    table: &'static str,
    pinned: Arc<PinnedTable>,
    /// Days that it may read.
    days: DaySet,
    schema: SchemaRef,
    child: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl LakeScan {
    pub(super) fn new(
        table: &'static str,
        pinned: Arc<PinnedTable>,
        days: DaySet,
        schema: SchemaRef,
        child: Arc<dyn ExecutionPlan>,
    ) -> LakeScan {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(child.output_partitioning().partition_count()),
            child.pipeline_behavior(),
            child.boundedness(),
        ));
        LakeScan { table, pinned, days, schema, child, properties }
    }
}

/// An error of reading as a [`HistoryError`]; others, such as a limit that was reached or a division by zero, as they are.
pub(super) fn read_error(table: &str, error: DataFusionError) -> DataFusionError {
    let root = error.find_root();
    let is_of_reading = match root {
        DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => true,
        DataFusionError::ArrowError(arrow, _) => {
            matches!(**arrow, ArrowError::ExternalError(_) | ArrowError::IoError(..) | ArrowError::ParquetError(_))
        }
        DataFusionError::External(external) => !external.is::<HistoryError>(),
        _ => false,
    };
    match is_of_reading {
        true => DataFusionError::External(Box::new(HistoryError::Unavailable {
            table: table.to_owned(),
            detail: root.strip_backtrace(),
        })),
        false => error,
    }
}

impl DisplayAs for LakeScan {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LakeScan: table={}, version={}", self.table, self.pinned.version)?;
        match self.days.is_all() {
            true => Ok(()),
            false => write!(f, ", days={}", self.days),
        }
    }
}

impl ExecutionPlan for LakeScan {
    fn name(&self) -> &str {
        "LakeScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.child]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(child), true) => {
                let LakeScan { table, pinned, days, schema, .. } = self.as_ref().clone();
                Ok(Arc::new(LakeScan::new(table, pinned, days, schema, child)))
            }
            _ => internal_err!("a scan of the lake has one child"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (table, schema, pinned) = (self.table, self.schema.clone(), self.pinned.clone());
        let child = self.child.execute(partition, context).map_err(|error| read_error(table, error))?;
        let batches = child.map(move |batch| {
            let _held = &pinned;
            let batch = batch.map_err(|error| read_error(table, error))?;
            conform(&batch, &schema).map_err(|error| {
                let refused = HistoryError::Refused { table: table.to_owned(), detail: error.to_string() };
                DataFusionError::External(Box::new(refused))
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_reading_name_the_table_and_others_stay() {
        let lost = || std::io::Error::other("connection lost");
        for error in [
            DataFusionError::IoError(lost()),
            DataFusionError::External(Box::new(lost())),
            DataFusionError::from(ArrowError::ExternalError(Box::new(lost()))),
            DataFusionError::IoError(lost()).context("reading a file"),
        ] {
            let mapped = read_error("deals", error);
            assert!(matches!(mapped.find_root(), DataFusionError::External(e) if e.is::<HistoryError>()), "{mapped}");
            assert!(mapped.to_string().contains("deals") && mapped.to_string().contains("connection lost"), "{mapped}");
        }
        let limit = DataFusionError::ResourcesExhausted("memory".to_owned());
        assert!(matches!(read_error("deals", limit), DataFusionError::ResourcesExhausted(_)));
        let zero = DataFusionError::from(ArrowError::DivideByZero);
        assert!(matches!(read_error("deals", zero), DataFusionError::ArrowError(..)));
    }
}
