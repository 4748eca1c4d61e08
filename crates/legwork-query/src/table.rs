//! A live table as DataFusion sees it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use legwork_types::LiveTables;

use crate::pin::QueryPin;
use crate::scan::LiveScan;

/// A table that lanes fill. Its scan takes the snapshot: when a query is planned, once a query.
#[derive(Debug)]
pub(crate) struct LiveTable {
    name: &'static str,
    schema: SchemaRef,
    live: Arc<dyn LiveTables>,
}

impl LiveTable {
    pub(crate) fn new(name: &'static str, schema: SchemaRef, live: Arc<dyn LiveTables>) -> LiveTable {
        LiveTable { name, schema, live }
    }
}

#[async_trait]
impl TableProvider for LiveTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshots = QueryPin::of(state).snapshot(self.live.as_ref(), self.name).await;
        let snapshots = snapshots.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let partitions_max = state.config().target_partitions();
        Ok(Arc::new(LiveScan::try_new(self.name, &self.schema, &snapshots, projection, limit, partitions_max)?))
    }
}
