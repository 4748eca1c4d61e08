//! Functions of SQL, beside DataFusion's.

mod geo;
mod now;
mod time;

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use legwork_types::LiveTables;

use crate::clock::Clock;

/// Functions of DataFusion that make values of any size out of a number, past every memory limit. The table functions of the same
/// name stream and stay.
const REMOVED: &[&str] = &["generate_series", "range", "array_repeat", "array_resize"];

/// Adds our functions and takes away those that no limit holds.
pub(crate) fn register(state: &mut SessionState, clock: &Clock, _live: &Arc<dyn LiveTables>) -> Result<()> {
    for name in REMOVED {
        state.deregister_udf(name)?;
    }
    let scalars = [
        ScalarUDF::from(now::LegworkNow::new(clock.clone())),
        geo::haversine_m(),
        geo::within_fence(),
        time::seconds_between(),
    ];
    for scalar in scalars {
        state.register_udf(Arc::new(scalar))?;
    }
    Ok(())
}

/// A scalar when all arguments are scalars, as DataFusion expects.
fn as_answer(args: &[ColumnarValue], array: ArrayRef) -> Result<ColumnarValue> {
    match args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
        false => Ok(ColumnarValue::Array(array)),
    }
}
