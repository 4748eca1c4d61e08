//! Text of bytes, as PostgreSQL's users ask for it.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::as_answer;

/// `convert_from(bytes, 'UTF8')`: the text; what is no UTF-8 shows as U+FFFD, so that a garbled message costs no answer its others.
/// *Errors:* another encoding.
pub(super) fn convert_from() -> ScalarUDF {
    let f = |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (bytes, encodings) = (arrays[0].as_binary::<i32>(), arrays[1].as_string::<i32>());
        for encoding in encodings.iter().flatten() {
            if !["UTF8", "UTF-8"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) {
                return plan_err!("convert_from knows the encoding UTF8 only, found {encoding}");
            }
        }
        let texts: StringArray = bytes
            .iter()
            .zip(encodings)
            .map(|(bytes, encoding)| encoding.and(bytes).map(String::from_utf8_lossy))
            .collect();
        as_answer(args, Arc::new(texts))
    };
    create_udf(
        "convert_from",
        vec![DataType::Binary, DataType::Utf8],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(f),
    )
}
