//! Functions of SQL, beside DataFusion's.

pub(crate) mod bounded;
mod business;
mod distinct;
mod geo;
mod km;
mod now;
mod size;
mod text;
mod time;
mod track;
mod versions;

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::functions_aggregate::variance::var_samp_udaf;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use legwork_types::LiveTables;

use crate::clock::Clock;
use crate::{History, QueryOptions};

/// Functions of DataFusion that make values of any size out of a number, past every memory limit. The table functions of the same
/// name stream and stay.
const REMOVED: &[&str] = &["generate_series", "range", "array_repeat", "array_resize"];

/// Adds our functions and takes away those that no limit holds.
pub(crate) fn register(
    state: &mut SessionState,
    clock: &Clock,
    live: &Arc<dyn LiveTables>,
    history: Option<&Arc<dyn History>>,
    options: &QueryOptions,
) -> Result<()> {
    for name in REMOVED {
        state.deregister_udf(name)?;
    }
    let scalars = [
        ScalarUDF::from(now::LegworkNow::new(clock.clone())),
        ScalarUDF::from(business::BusinessSeconds::new(&options.calendar)),
        business::local_date(),
        geo::haversine_m(),
        geo::geodesic_m(),
        geo::h3_cell(),
        geo::within_fence(),
        text::convert_from(),
        time::seconds_between(),
    ];
    for scalar in scalars {
        state.register_udf(Arc::new(scalar))?;
    }
    let (variance, every) = (var_samp_udaf().as_ref().clone(), bool_and_udaf().as_ref().clone());
    let as_in_postgresql = [variance.with_aliases(["variance"]), every.with_aliases(["every"])];
    for aggregate in as_in_postgresql.into_iter().chain([km::km_quantile(), distinct::count()]) {
        state.register_udaf(Arc::new(aggregate))?;
    }
    state.register_udtf("explain_track", Arc::new(track::TrackFunction::explain(live.clone())));
    state.register_udtf("track_at", Arc::new(track::TrackFunction::at(live.clone())));
    state.register_udtf("lake_versions", Arc::new(versions::LakeVersions::new(history.cloned())));
    Ok(())
}

/// A scalar when all arguments are scalars, as DataFusion expects.
fn as_answer(args: &[ColumnarValue], array: ArrayRef) -> Result<ColumnarValue> {
    match args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
        false => Ok(ColumnarValue::Array(array)),
    }
}
