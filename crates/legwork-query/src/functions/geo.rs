//! Distances and fences.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use legwork_types::geo;

use super::as_answer;

/// A function of N Float64 columns by its rows; null where any of them is null.
fn by_row<T>(args: &[ColumnarValue], n_args: usize, f: impl Fn(&[f64]) -> Option<T>) -> Result<Vec<Option<T>>> {
    let arrays = ColumnarValue::values_to_arrays(args)?;
    let columns: Vec<&Float64Array> = arrays.iter().map(|array| array.as_primitive::<Float64Type>()).collect();
    let n_rows = columns.first().map_or(0, |column| column.len());
    let mut values = vec![0.0; n_args];
    let mut rows = Vec::with_capacity(n_rows);
    for row in 0..n_rows {
        let is_null = columns.iter().any(|column| column.is_null(row));
        values.iter_mut().zip(&columns).for_each(|(value, column)| *value = column.value(row));
        rows.push(if is_null { None } else { f(&values) });
    }
    Ok(rows)
}

fn floats(args: &[ColumnarValue], n_args: usize, f: impl Fn(&[f64]) -> Option<f64>) -> Result<ColumnarValue> {
    let array: Float64Array = by_row(args, n_args, f)?.into_iter().collect();
    as_answer(args, Arc::new(array))
}

/// `haversine_m(lat, lon, lat, lon)`: metres on the sphere.
pub(super) fn haversine_m() -> ScalarUDF {
    let f = |args: &[ColumnarValue]| floats(args, 4, |v| Some(geo::haversine_m(v[0], v[1], v[2], v[3])));
    create_udf("haversine_m", vec![DataType::Float64; 4], DataType::Float64, Volatility::Immutable, Arc::new(f))
}

/// `within_fence(lat, lon, fence_lat, fence_lon, radius_m)`: whether a position lies in a circle, its edge included.
pub(super) fn within_fence() -> ScalarUDF {
    let f = |args: &[ColumnarValue]| {
        let array: BooleanArray =
            by_row(args, 5, |v| Some(geo::haversine_m(v[0], v[1], v[2], v[3]) <= v[4]))?.into_iter().collect();
        as_answer(args, Arc::new(array))
    };
    create_udf("within_fence", vec![DataType::Float64; 5], DataType::Boolean, Volatility::Immutable, Arc::new(f))
}
