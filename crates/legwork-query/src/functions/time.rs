//! Spans of time and local days.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::as_answer;

/// The type of every time.
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `seconds_between(from, to)`: seconds with microseconds, negative when `to` comes first.
pub(super) fn seconds_between() -> ScalarUDF {
    let f = |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (from, to) = (
            arrays[0].as_primitive::<TimestampMicrosecondType>(),
            arrays[1].as_primitive::<TimestampMicrosecondType>(),
        );
        let seconds: Float64Array =
            from.iter().zip(to).map(|(from, to)| Some(to?.saturating_sub(from?) as f64 / 1e6)).collect();
        as_answer(args, Arc::new(seconds))
    };
    create_udf("seconds_between", vec![time_type(), time_type()], DataType::Float64, Volatility::Immutable, Arc::new(f))
}
