//! What a lane's rows of a table are now, for whoever is to write versions of them: repair, and lanes that start anew.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, col, lit, not};
use datafusion::prelude::SessionContext;
use legwork_types::LaneId;

use crate::files::conform;
use crate::table::{DAY, IS_DELETED, LANE, REVISION};
use crate::{Lake, LakeError, LakeTable, Shape};

/// Column of the number that the newest version of a row has.
const PLACE: &str = "_newest";

impl Lake {
    /// The newest versions of a lane's rows in the newest version of a table, without those that were retracted. With `keys` only rows whose
    /// first key column is among them. *Shape:* the columns of the table but `lane` and `day`. Nothing for tables of events.
    /// *Errors:* `Unavailable`, `Newer`, `Damaged`.
    pub async fn newest_of_lane(
        &self,
        table: &LakeTable,
        lane: &LaneId,
        keys: Option<&[String]>,
    ) -> Result<Vec<RecordBatch>, LakeError> {
        let failed = |error: datafusion::common::DataFusionError| {
            LakeError::unavailable(table.name(), "read", error.strip_backtrace())
        };
        let Some(pinned) = self.pin(table).await?.filter(|_| table.shape() == Shape::Versions) else {
            return Ok(Vec::new());
        };
        let wanted = own_schema(table);
        let found = pinned.provider.schema();
        let mut filter = column(LANE).eq(lit(lane.to_string()));
        if let (Some(keys), Some(key)) = (keys, table.sort().first()) {
            filter = filter.and(column(key).in_list(keys.iter().map(lit).collect(), false));
        }
        let identity = table.sort().iter().map(|name| column(name)).chain([column(DAY)]).collect();
        let place = row_number().partition_by(identity).order_by(vec![column(REVISION).sort(false, false)]);
        let place = place.build().map_err(failed)?.alias(PLACE);
        let columns = wanted.fields().iter().filter(|field| found.index_of(field.name()).is_ok());
        let columns: Vec<Expr> = columns.map(|field| column(field.name())).collect();
        let rows = SessionContext::new()
            .read_table(pinned.provider.clone())
            .and_then(|frame| frame.filter(filter))
            .and_then(|frame| frame.window(vec![place]))
            .and_then(|frame| frame.filter(column(PLACE).eq(lit(1_u64)).and(not(column(IS_DELETED)))))
            .and_then(|frame| frame.select(columns));
        let rows = rows.map_err(failed)?.collect().await.map_err(failed)?;
        rows.iter().map(|rows| conform(table.name(), rows, &wanted)).collect()
    }
}

fn column(name: &str) -> Expr {
    col(format!("\"{name}\""))
}

/// The columns that lanes hand over.
fn own_schema(table: &LakeTable) -> SchemaRef {
    let fields = table.file_schema().fields().iter().filter(|field| field.name() != LANE);
    Arc::new(Schema::new(fields.map(|field| Field::clone(field)).collect::<Vec<_>>()))
}
