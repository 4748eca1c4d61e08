//! DataFusion's functions that make long text or lists out of short ones or of a number, with a bound: the memory limit of a query does
//! not see what an expression holds.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::size::{Size, Sizes};
use crate::held::TooLarge;
use crate::settings::LegworkSettings;

/// Most bytes that one call makes of one batch: 64 MiB.
const BYTES_MAX: u64 = 64 << 20;
/// How much longer a time is than its format, at most: `%+` makes 35 characters of two.
const TIME_FACTOR: u64 = 20;

/// The most bytes that a function makes of arguments of these sizes.
pub(crate) type Estimate = fn(&[Size]) -> u64;

/// The functions whose values may be much larger than their arguments: by far, or by less and then again, call in call.
pub(crate) fn estimate(name: &str) -> Option<Estimate> {
    Some(match name {
        "concat" | "make_array" | "struct" | "named_struct" | "map" | "overlay" => all,
        "array_append" | "array_prepend" | "array_concat" | "array_union" => all,
        "repeat" => |args| args[0].bytes.saturating_mul(args[1].n),
        // As many characters as told, of at most four bytes each.
        "lpad" | "rpad" => |args| args[1].n.saturating_mul(4),
        "concat_ws" => |args| all(args).saturating_add(args[0].bytes.saturating_mul(args.len() as u64)),
        "replace" => |args| {
            let n_found = args[0].bytes / args[1].bytes.max(1);
            args[0].bytes.saturating_add(n_found.saturating_mul(args[2].bytes))
        },
        // At most one match a byte and an empty one, and what it is replaced by may be the match again and again.
        "regexp_replace" => |args| (args[0].bytes + 1).saturating_mul(args[2].bytes.saturating_mul(2) + 1),
        // A group takes two characters, and each may hold all of the text.
        "regexp_match" => |args| args[0].bytes.saturating_mul(args[1].bytes / 2 + 1),
        "to_char" => |args| args[1].bytes.saturating_mul(TIME_FACTOR),
        "encode" | "quote_ident" => |args| args[0].bytes.saturating_mul(2),
        // Each element has an offset, too.
        "string_to_array" => |args| all(args).saturating_add(args[0].n.saturating_mul(4)),
        "array_to_string" => |args| {
            let between = args[1..].iter().map(|arg| arg.bytes).fold(0, u64::saturating_add);
            args[0].bytes.saturating_add(args[0].n.saturating_mul(between))
        },
        "array_replace" | "array_replace_n" | "array_replace_all" => {
            |args| args[0].bytes.saturating_add(args[0].n.saturating_mul(args[2].bytes))
        }
        // As long as the longest of them.
        "arrays_zip" => |args| {
            let n_max = args.iter().map(|arg| arg.n).max().unwrap_or(0);
            all(args).saturating_add(n_max.saturating_mul(16 * args.len() as u64))
        },
        _ => return None,
    })
}

/// All arguments once.
pub(crate) fn all(args: &[Size]) -> u64 {
    args.iter().map(|arg| arg.bytes).fold(0, u64::saturating_add)
}

/// A function as it is, but for the bound.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl Bounded {
    /// The function with its bound; none when it has it already, or needs none.
    pub(crate) fn of(function: &Arc<ScalarUDF>) -> Option<ScalarUDF> {
        let is_bounded = function.inner().downcast_ref::<Bounded>().is_some();
        if is_bounded || estimate(function.name()).is_none() {
            return None;
        }
        Some(ScalarUDF::from(Bounded { inner: function.clone() }))
    }
}

// DataFusion's simplifications are left out: they would give the function back without its bound.
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
        match estimate(self.inner.name()) {
            Some(estimate) => call(self.inner.name(), estimate, args, |args| self.inner.invoke_with_args(args)),
            None => self.inner.invoke_with_args(args),
        }
    }
}

/// Calls a function on as many rows at a time as it makes [`BYTES_MAX`] of at most. *Errors:* [`TooLarge`] when it makes more of all of
/// them, when it might of one, and when the query's expressions hold too much.
pub(crate) fn call(
    name: &str,
    estimate: Estimate,
    args: ScalarFunctionArgs,
    invoke: impl Fn(ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Result<ColumnarValue> {
    let held = LegworkSettings::of(&args.config_options).map(|settings| settings.held.clone()).unwrap_or_default();
    held.check()?;
    let rows = row_bytes(estimate, &args)?;
    let made = match rows.iter().copied().fold(0, u64::saturating_add) <= BYTES_MAX {
        true => invoke(args)?,
        false => in_pieces(name, &rows, &args, invoke)?,
    };
    held.add(&made)?;
    Ok(made)
}

/// Bytes that the function may make of each row, with those of the values that it may repeat for each.
fn row_bytes(estimate: Estimate, args: &ScalarFunctionArgs) -> Result<Vec<u64>> {
    let sizes = args.args.iter().map(Sizes::of).collect::<Result<Vec<Sizes>>>()?;
    let repeated: u64 = sizes.iter().map(|sizes| if let Sizes::Same(size) = sizes { size.bytes } else { 0 }).sum();
    let (n_rows, repeated) = match sizes.iter().all(|sizes| matches!(sizes, Sizes::Same(_))) {
        true => (1, 0),
        false => (args.number_rows, repeated),
    };
    let mut row = vec![Size::default(); sizes.len()];
    let bytes = |row_idx| {
        for (size, sizes) in row.iter_mut().zip(&sizes) {
            *size = sizes.at(row_idx);
        }
        estimate(&row).saturating_add(repeated)
    };
    Ok((0..n_rows).map(bytes).collect())
}

fn in_pieces(
    name: &str,
    rows: &[u64],
    args: &ScalarFunctionArgs,
    invoke: impl Fn(ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Result<ColumnarValue> {
    let too_large = || {
        let message = format!("{name} would make more than {} MiB: give it less, or fewer rows", BYTES_MAX >> 20);
        Err(TooLarge::error(message))
    };
    let (mut pieces, mut n_bytes, mut start) = (Vec::new(), 0, 0);
    while start < rows.len() {
        let mut left = BYTES_MAX;
        let fits = |bytes: &&u64| left.checked_sub(**bytes).map(|rest| left = rest).is_some();
        let n_rows = rows[start..].iter().take_while(fits).count();
        if n_rows == 0 {
            return too_large();
        }
        let piece = invoke(slice(args, start, n_rows))?.into_array(n_rows)?;
        n_bytes += piece.to_data().get_slice_memory_size()? as u64;
        if n_bytes > BYTES_MAX {
            return too_large();
        }
        pieces.push(piece);
        start += n_rows;
    }
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    Ok(ColumnarValue::Array(concat(&pieces)?))
}

fn slice(args: &ScalarFunctionArgs, start: usize, n_rows: usize) -> ScalarFunctionArgs {
    let slice = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, n_rows)),
        ColumnarValue::Scalar(_) => arg.clone(),
    };
    ScalarFunctionArgs { args: args.args.iter().map(slice).collect(), number_rows: n_rows, ..args.clone() }
}
