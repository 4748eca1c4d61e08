//! `explain_track(device, from, to)` and `track_at(device, time)`: rows that the lanes compute for the asking.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result, plan_err};
use datafusion::logical_expr::{Expr, TableType, cast};
use datafusion::physical_plan::ExecutionPlan;
use legwork_types::{LiveTables, Lookup};

use super::time::time_type;
use crate::pin::QueryPin;
use crate::scan::LiveScan;

/// Columns of both functions. What a lane does not tell is null.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let measure = |name: &str| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        Field::new("device_id", DataType::Utf8, true),
        Field::new("event_time", time_type(), true),
        measure("lat"),
        measure("lon"),
        measure("accuracy_m"),
        Field::new("mock", DataType::Boolean, true),
        Field::new("decision", DataType::Utf8, true),
        measure("raw_m"),
        measure("distance_m"),
        measure("gap_m"),
        measure("moving_s"),
        measure("stationary_s"),
        measure("gap_s"),
        Field::new("window_start", time_type(), true),
    ]))
});

/// A table function over [`LiveTables::lookup`].
#[derive(Debug)]
pub(super) struct TrackFunction {
    name: &'static str,
    live: Arc<dyn LiveTables>,
}

impl TrackFunction {
    /// `explain_track(device, from, to)`: each ping from `from` on and before `to`, and what was counted for it and why.
    pub(super) fn explain(live: Arc<dyn LiveTables>) -> TrackFunction {
        TrackFunction { name: "explain_track", live }
    }

    /// `track_at(device, time)`: the fixes nearest to a time.
    pub(super) fn at(live: Arc<dyn LiveTables>) -> TrackFunction {
        TrackFunction { name: "track_at", live }
    }
}

impl TableFunctionImpl for TrackFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let (key, from_us, to_us) = match (self.name, args.exprs()) {
            ("explain_track", [device, from, to]) => {
                (text(device, args.session())?, time_us(from, args.session())?, time_us(to, args.session())?)
            }
            ("track_at", [device, time]) => {
                let time_us = time_us(time, args.session())?;
                (text(device, args.session())?, time_us, time_us.saturating_add(1))
            }
            ("explain_track", _) => return plan_err!("expected explain_track(device, from, to)"),
            _ => return plan_err!("expected track_at(device, time)"),
        };
        let lookup = Lookup { table: self.name.to_owned(), key, from_us, to_us };
        Ok(Arc::new(TrackTable { lookup, live: self.live.clone() }))
    }
}

/// A constant argument cast to a type: one row.
fn constant(argument: &Expr, data_type: DataType, session: &dyn Session) -> Result<Arc<dyn Array>> {
    let expression = session.create_physical_expr(cast(argument.clone(), data_type), &DFSchema::empty())?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    expression.evaluate(&row)?.into_array(1)
}

fn text(argument: &Expr, session: &dyn Session) -> Result<String> {
    let array = constant(argument, DataType::Utf8, session)?;
    match array.is_valid(0) {
        true => Ok(array.as_string::<i32>().value(0).to_owned()),
        false => plan_err!("expected a device, found null"),
    }
}

fn time_us(argument: &Expr, session: &dyn Session) -> Result<i64> {
    let array = constant(argument, time_type(), session)?;
    match array.is_valid(0) {
        true => Ok(array.as_primitive::<TimestampMicrosecondType>().value(0)),
        false => plan_err!("expected a time, found null"),
    }
}

#[derive(Debug)]
struct TrackTable {
    lookup: Lookup,
    live: Arc<dyn LiveTables>,
}

#[async_trait]
impl TableProvider for TrackTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pin = QueryPin::of(state);
        pin.wait(self.live.as_ref(), &self.lookup.table).await;
        let snapshots = pin.found(self.live.lookup(self.lookup.clone()).await);
        let snapshots = snapshots.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let partitions_max = state.config().target_partitions();
        Ok(Arc::new(LiveScan::try_new(&self.lookup.table, &SCHEMA, &snapshots, projection, limit, partitions_max)?))
    }
}
