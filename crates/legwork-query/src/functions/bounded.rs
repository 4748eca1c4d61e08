//! DataFusion's functions that make long text out of a number, with a bound: the memory limit of a query does not see what an
//! expression holds.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, resources_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The functions: text first, then how often or how wide.
pub(super) const NAMES: &[&str] = &["repeat", "lpad", "rpad"];

/// Most bytes that one call makes of one batch: 64 MiB.
const BYTES_MAX: u64 = 64 << 20;

/// A function as it is, but for the bound.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl Bounded {
    pub(super) fn new(inner: Arc<ScalarUDF>) -> Bounded {
        Bounded { inner }
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        if let [text, times, ..] = arrays.as_slice() {
            let n_bytes = made_bytes(self.inner.name(), text.as_ref(), times.as_ref())?;
            if n_bytes > BYTES_MAX {
                return resources_err!(
                    "{} would make {n_bytes} bytes of text, at most {BYTES_MAX} are allowed",
                    self.inner.name()
                );
            }
        }
        self.inner.invoke_with_args(args)
    }
}

fn made_bytes(name: &str, text: &dyn Array, times: &dyn Array) -> Result<u64> {
    let (text, times) = (cast(text, &DataType::LargeUtf8)?, cast(times, &DataType::Int64)?);
    // Padding makes as many characters as it is told, of at most four bytes each.
    let width = |text: Option<&str>| if name == "repeat" { text.map_or(0, str::len) as u64 } else { 4 };
    let rows = text.as_string::<i64>().iter().zip(times.as_primitive::<Int64Type>().iter());
    Ok(rows
        .map(|(text, times)| width(text).saturating_mul(times.unwrap_or(0).max(0) as u64))
        .fold(0, u64::saturating_add))
}
