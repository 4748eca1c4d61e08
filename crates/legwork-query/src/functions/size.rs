//! How large the values of an argument are, row by row.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;

/// Bytes of a number, with room for how it looks as text.
const NUMBER_BYTES: u64 = 32;

/// A value's size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    /// Bytes; of a list, those of its elements.
    pub(crate) bytes: u64,
    /// The value of an integer, the elements of a list, the bytes of a text.
    pub(crate) n: u64,
}

/// The sizes of an argument's values.
#[derive(Debug)]
pub(super) enum Sizes {
    /// One value for all rows.
    Same(Size),
    /// A value a row.
    Each(Vec<Size>),
}

impl Sizes {
    pub(super) fn of(argument: &ColumnarValue) -> Result<Sizes> {
        match argument {
            ColumnarValue::Array(array) => sizes(array.as_ref()).map(Sizes::Each),
            ColumnarValue::Scalar(scalar) => {
                Ok(Sizes::Same(sizes(scalar.to_array()?.as_ref())?.first().copied().unwrap_or_default()))
            }
        }
    }

    pub(super) fn at(&self, row_idx: usize) -> Size {
        match self {
            Sizes::Same(size) => *size,
            Sizes::Each(sizes) => sizes[row_idx],
        }
    }
}

fn sizes(array: &dyn Array) -> Result<Vec<Size>> {
    Ok(match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => numbers(&length(array)?, |n| (n, n))?,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            numbers(&length(array)?, |n| (n, n))?
        }
        data_type if data_type.is_integer() => numbers(&cast(array, &DataType::Int64)?, |value| (NUMBER_BYTES, value))?,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            ranges(list.values().as_ref(), list.value_offsets().iter().map(|&offset| offset as usize))?
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            ranges(list.values().as_ref(), list.value_offsets().iter().map(|&offset| offset as usize))?
        }
        DataType::FixedSizeList(_, _) => {
            let list = array.as_fixed_size_list();
            let n_values = list.value_length() as usize;
            ranges(list.values().as_ref(), (0..=list.len()).map(|row_idx| row_idx * n_values))?
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            ranges(map.entries(), map.value_offsets().iter().map(|&offset| offset as usize))?
        }
        DataType::Struct(_) => {
            let mut rows = vec![Size::default(); array.len()];
            for column in array.as_struct().columns() {
                add(&mut rows, &sizes(column.as_ref())?);
            }
            rows
        }
        DataType::Dictionary(_, _) if array.as_any_dictionary().values().is_empty() => {
            vec![Size::default(); array.len()]
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let values = sizes(dictionary.values().as_ref())?;
            dictionary.normalized_keys().into_iter().map(|key| values[key]).collect()
        }
        _ => vec![Size { bytes: NUMBER_BYTES, n: 1 }; array.len()],
    })
}

fn numbers(array: &ArrayRef, size: fn(u64) -> (u64, u64)) -> Result<Vec<Size>> {
    let array = cast(array, &DataType::Int64)?;
    let numbers = array.as_primitive::<Int64Type>().iter();
    let size = |number: Option<i64>| {
        let (bytes, n) = size(number.unwrap_or(0).max(0) as u64);
        Size { bytes, n }
    };
    Ok(numbers.map(size).collect())
}

/// Of lists, whose elements lie from each offset to the next one.
fn ranges(values: &dyn Array, offsets: impl Iterator<Item = usize>) -> Result<Vec<Size>> {
    let offsets: Vec<usize> = offsets.collect();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let mut before = Size::default();
    let mut up_to = vec![before];
    for value in sizes(values.slice(first, last - first).as_ref())? {
        before.bytes += value.bytes;
        before.n += 1;
        up_to.push(before);
    }
    let between = |range: &[usize]| {
        let (start, end) = (up_to[range[0] - first], up_to[range[1] - first]);
        Size { bytes: end.bytes - start.bytes, n: end.n - start.n }
    };
    Ok(offsets.windows(2).map(between).collect())
}

fn add(rows: &mut [Size], more: &[Size]) {
    for (row, more) in rows.iter_mut().zip(more) {
        row.bytes += more.bytes;
        row.n += more.n;
    }
}
