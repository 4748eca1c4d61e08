//! Distances and fences.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use geographiclib_rs::{Geodesic, InverseGeodesic};
use h3o::{LatLng, Resolution};
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

/// `geodesic_m(lat, lon, lat, lon)`: metres on the WGS 84 ellipsoid, null outside it. *Source:* C. F. F. Karney, "Algorithms for
/// geodesics", 2013.
pub(super) fn geodesic_m() -> ScalarUDF {
    let wgs84 = Geodesic::wgs84();
    let f = move |args: &[ColumnarValue]| {
        floats(args, 4, |v| {
            let on_globe = v[0].abs() <= 90.0 && v[2].abs() <= 90.0 && v[1].is_finite() && v[3].is_finite();
            on_globe.then(|| wgs84.inverse(v[0], v[1], v[2], v[3]))
        })
    };
    create_udf("geodesic_m", vec![DataType::Float64; 4], DataType::Float64, Volatility::Immutable, Arc::new(f))
}

/// `h3_cell(lat, lon, resolution)`: the H3 cell as text, null for positions off the globe and resolutions outside 0 to 15.
pub(super) fn h3_cell() -> ScalarUDF {
    let f = |args: &[ColumnarValue]| {
        let cell = |v: &[f64]| {
            let on_globe = v[0].abs() <= 90.0 && v[1].abs() <= 180.0;
            let resolution = (0.0..=15.0).contains(&v[2]).then(|| Resolution::try_from(v[2] as u8).ok()).flatten()?;
            let place = LatLng::new(v[0], v[1]).ok().filter(|_| on_globe)?;
            Some(place.to_cell(resolution).to_string())
        };
        let array: StringArray = by_row(args, 3, cell)?.into_iter().collect();
        as_answer(args, Arc::new(array))
    };
    create_udf("h3_cell", vec![DataType::Float64; 3], DataType::Utf8, Volatility::Immutable, Arc::new(f))
}
