//! `lake_versions()`: the versions of the lake that this query reads.

use std::sync::{Arc, LazyLock};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::History;
use crate::catalog::lake_tables;
use crate::pin::QueryPin;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("table_name", DataType::Utf8, false),
        Field::new("version", DataType::Int64, true),
    ]))
});

/// `lake_versions()` has a row for each table that the lake keeps, without a version where there is nothing in it yet;
/// `lake_versions(table)` one for that table. What the query reads of the table besides is of the same version.
#[derive(Debug)]
pub(super) struct LakeVersions {
    history: Option<Arc<dyn History>>,
}

impl LakeVersions {
    pub(super) fn new(history: Option<Arc<dyn History>>) -> LakeVersions {
        LakeVersions { history }
    }
}

impl TableFunctionImpl for LakeVersions {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut tables: Vec<&'static str> = lake_tables().map(|(name, ..)| name).collect();
        match args.exprs() {
            [] => {}
            [Expr::Literal(ScalarValue::Utf8(Some(wanted)), _)] => {
                tables.retain(|table| table == wanted);
                if tables.is_empty() {
                    return plan_err!("the lake keeps no table {wanted:?}: lake_versions() names those it keeps");
                }
            }
            _ => return plan_err!("expected lake_versions() or lake_versions('table')"),
        }
        Ok(Arc::new(Versions { history: self.history.clone(), tables }))
    }
}

#[derive(Debug)]
struct Versions {
    history: Option<Arc<dyn History>>,
    tables: Vec<&'static str>,
}

#[async_trait]
impl TableProvider for Versions {
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
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pin = QueryPin::of(state);
        let (mut names, mut versions) = (Vec::new(), Vec::new());
        if let Some(history) = &self.history {
            for table in &self.tables {
                let pinned = pin.pinned(history.as_ref(), table).await;
                let pinned = pinned.map_err(|error| DataFusionError::External(Box::new(error)))?;
                names.push(*table);
                versions.push(pinned.map(|pinned| pinned.version));
            }
        }
        let columns: Vec<Arc<dyn arrow::array::Array>> =
            vec![Arc::new(StringArray::from(names)), Arc::new(Int64Array::from(versions))];
        let rows = RecordBatch::try_new(SCHEMA.clone(), columns)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], SCHEMA.clone(), projection.cloned())?)
    }
}
