//! From decoded columns in the writer's types to canonical ones.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, ListArray, PrimitiveArray, StringArray, UnionArray,
    new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use legwork_types::RejectReason;

use super::plan::Source;
use crate::decimal;

/// A row that has no canonical value: row, reason, what was found.
pub(crate) type RowFault = (u32, RejectReason, &'static str);

/// Converts a column. Rows without a canonical value become null and are told in `faults`.
pub(crate) fn convert(
    array: &ArrayRef,
    source: &Source,
    target: &DataType,
    faults: &mut Vec<RowFault>,
) -> Result<ArrayRef, ArrowError> {
    match source {
        Source::Null => Ok(new_null_array(target, array.len())),
        Source::Optional(inner) => convert(array, inner, target, faults),
        Source::Union(branches) => union(array.as_any().downcast_ref().ok_or_else(wrong)?, branches, target, faults),
        Source::List(items) => list(array.as_list_opt().ok_or_else(wrong)?, items, target, faults),
        Source::Misfit(_) => {
            let rows = (0..array.len()).filter(|&row| array.is_valid(row));
            faults.extend(rows.map(|row| (row as u32, RejectReason::WrongType, "a union branch of another type")));
            Ok(new_null_array(target, array.len()))
        }
        Source::Text | Source::Symbol | Source::TextBytes if *target == DataType::Utf8 => text(array, source, faults),
        Source::Bool => Ok(array.clone()),
        Source::Time(unit) => times(array.as_primitive_opt().ok_or_else(wrong)?, *unit, faults),
        _ => match target {
            DataType::Decimal128(_, scale) => {
                let scale = u32::try_from(*scale).map_err(|e| ArrowError::CastError(e.to_string()))?;
                let values = decimals(array, source, scale, faults)?;
                Ok(Arc::new(values.with_data_type(target.clone())))
            }
            _ => numbers(array, source, target, faults),
        },
    }
}

fn wrong() -> ArrowError {
    ArrowError::SchemaError("the decoded column has another type than its schema says".to_owned())
}

fn text(array: &ArrayRef, source: &Source, faults: &mut Vec<RowFault>) -> Result<ArrayRef, ArrowError> {
    match source {
        Source::Symbol => {
            let symbols = array.as_dictionary_opt::<Int32Type>().ok_or_else(wrong)?;
            let symbols = symbols.downcast_dict::<StringArray>().ok_or_else(wrong)?;
            Ok(Arc::new(symbols.into_iter().collect::<StringArray>()))
        }
        Source::TextBytes => {
            let bytes = array.as_binary_opt::<i32>().ok_or_else(wrong)?;
            let texts = bytes.iter().enumerate().map(|(row, value)| {
                let text = std::str::from_utf8(value?).ok();
                if text.is_none() {
                    faults.push((row as u32, RejectReason::WrongType, "bytes that are not UTF-8"));
                }
                text
            });
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        _ => Ok(array.clone()),
    }
}

fn times(values: &Int64Array, unit: TimeUnit, faults: &mut Vec<RowFault>) -> Result<ArrayRef, ArrowError> {
    let micros: PrimitiveArray<TimestampMicrosecondType> = match unit {
        TimeUnit::Microsecond => values.reinterpret_cast(),
        TimeUnit::Nanosecond => values.unary(|nanos| nanos.div_euclid(1_000)),
        _ => checked(values, faults, |millis| millis.checked_mul(1_000), "a time beyond microseconds"),
    };
    Ok(Arc::new(micros.with_timezone("UTC")))
}

fn checked<I: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    values: &PrimitiveArray<I>,
    faults: &mut Vec<RowFault>,
    convert: impl Fn(I::Native) -> Option<O::Native>,
    what: &'static str,
) -> PrimitiveArray<O> {
    let converted = values.iter().enumerate().map(|(row, value)| {
        let converted = convert(value?);
        if converted.is_none() {
            faults.push((row as u32, RejectReason::InvalidValue, what));
        }
        converted
    });
    converted.collect()
}

fn numbers(
    array: &ArrayRef,
    source: &Source,
    target: &DataType,
    faults: &mut Vec<RowFault>,
) -> Result<ArrayRef, ArrowError> {
    Ok(match (source, target) {
        (Source::Int, DataType::Int32)
        | (Source::Long, DataType::Int64)
        | (Source::Float, DataType::Float32)
        | (Source::Double, DataType::Float64) => array.clone(),
        (Source::Int, DataType::Date32) => {
            Arc::new(array.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?.reinterpret_cast::<Date32Type>())
        }
        (Source::Int, _) => {
            let ints = array.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
            match target {
                DataType::Int64 => Arc::new(ints.unary::<_, Int64Type>(i64::from)),
                DataType::Float64 => Arc::new(ints.unary::<_, Float64Type>(f64::from)),
                DataType::Float32 => Arc::new(ints.unary::<_, Float32Type>(|v| v as f32)),
                _ => return Err(wrong()),
            }
        }
        (Source::Long, _) => {
            let longs = array.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            match target {
                DataType::Int32 => {
                    let ints: PrimitiveArray<Int32Type> =
                        checked(longs, faults, |v| i32::try_from(v).ok(), "a long beyond 32 bits");
                    Arc::new(ints)
                }
                DataType::Float64 => Arc::new(longs.unary::<_, Float64Type>(|v| v as f64)),
                DataType::Float32 => Arc::new(longs.unary::<_, Float32Type>(|v| v as f32)),
                _ => return Err(wrong()),
            }
        }
        (Source::Float, DataType::Float64) => {
            Arc::new(array.as_primitive_opt::<Float32Type>().ok_or_else(wrong)?.unary::<_, Float64Type>(f64::from))
        }
        (Source::Double, DataType::Float32) => {
            Arc::new(array.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?.unary::<_, Float32Type>(|v| v as f32))
        }
        _ => return Err(wrong()),
    })
}

fn decimals(
    array: &ArrayRef,
    source: &Source,
    to_scale: u32,
    faults: &mut Vec<RowFault>,
) -> Result<Decimal128Array, ArrowError> {
    let what = "a decimal that does not fit exactly";
    let from_unscaled =
        |from: u32| move |bytes: &[u8]| decimal::rescale(decimal::from_be_bytes(bytes)?, from, to_scale);
    Ok(match source {
        Source::Decimal { scale, is_fixed } => {
            let convert = from_unscaled(*scale);
            if *is_fixed {
                let values = array.as_fixed_size_binary_opt().ok_or_else(wrong)?;
                collect(values.iter().map(|value| value.map(&convert)), faults, what)
            } else {
                let values = array.as_binary_opt::<i32>().ok_or_else(wrong)?;
                collect(values.iter().map(|value| value.map(&convert)), faults, what)
            }
        }
        Source::Text => {
            let values = array.as_string_opt::<i32>().ok_or_else(wrong)?;
            collect(values.iter().map(|value| Some(decimal::parse(value?, to_scale))), faults, what)
        }
        Source::Int => {
            let values = array.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
            checked::<_, Decimal128Type>(values, faults, |v| decimal::rescale(v.into(), 0, to_scale), what)
        }
        Source::Long => {
            let values = array.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            checked::<_, Decimal128Type>(values, faults, |v| decimal::rescale(v.into(), 0, to_scale), what)
        }
        Source::Float => {
            let values = array.as_primitive_opt::<Float32Type>().ok_or_else(wrong)?;
            checked::<_, Decimal128Type>(values, faults, |v| decimal::from_f64(v.into(), to_scale), what)
        }
        Source::Double => {
            let values = array.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
            checked::<_, Decimal128Type>(values, faults, |v| decimal::from_f64(v, to_scale), what)
        }
        _ => return Err(wrong()),
    })
}

/// Outer none: null. Inner none: a value that does not fit.
fn collect(
    values: impl Iterator<Item = Option<Option<i128>>>,
    faults: &mut Vec<RowFault>,
    what: &'static str,
) -> Decimal128Array {
    let values = values.enumerate().map(|(row, value)| {
        if value == Some(None) {
            faults.push((row as u32, RejectReason::InvalidValue, what));
        }
        value.flatten()
    });
    values.collect()
}

fn union(
    array: &UnionArray,
    branches: &[Source],
    target: &DataType,
    faults: &mut Vec<RowFault>,
) -> Result<ArrayRef, ArrowError> {
    let offsets = array.offsets().ok_or_else(wrong)?;
    let mut children = Vec::with_capacity(branches.len());
    let mut child_faults = HashMap::new();
    for (branch_idx, branch) in branches.iter().enumerate() {
        let mut found = Vec::new();
        let type_id = i8::try_from(branch_idx).map_err(|e| ArrowError::SchemaError(e.to_string()))?;
        children.push(convert(array.child(type_id), branch, target, &mut found)?);
        child_faults.extend(found.into_iter().map(|(row, reason, what)| ((type_id, row), (reason, what))));
    }
    let rows = || array.type_ids().iter().zip(offsets.iter());
    if !child_faults.is_empty() {
        faults.extend(rows().enumerate().filter_map(|(row, (&type_id, &offset))| {
            let &(reason, what) = child_faults.get(&(type_id, offset as u32))?;
            Some((row as u32, reason, what))
        }));
    }
    let children: Vec<&dyn Array> = children.iter().map(AsRef::as_ref).collect();
    let indices: Vec<_> = rows().map(|(&type_id, &offset)| (type_id as usize, offset as usize)).collect();
    interleave(&children, &indices)
}

fn list(
    array: &ListArray,
    items: &Source,
    target: &DataType,
    faults: &mut Vec<RowFault>,
) -> Result<ArrayRef, ArrowError> {
    let DataType::List(item_field) = target else { return Err(wrong()) };
    let mut item_faults = Vec::new();
    let values = convert(array.values(), items, item_field.data_type(), &mut item_faults)?;
    if values.logical_null_count() > 0 {
        let nulls = (0..values.len()).filter(|&item| values.is_null(item));
        item_faults.extend(nulls.map(|item| (item as u32, RejectReason::WrongType, "an item that is null")));
    }
    for (item, reason, what) in item_faults {
        let row = array.value_offsets().partition_point(|&offset| offset <= item as i32) - 1;
        faults.push((row as u32, reason, what));
    }
    let values = if values.null_count() > 0 { without_nulls(&values)? } else { values };
    let list = ListArray::try_new(item_field.clone(), array.offsets().clone(), values, array.nulls().cloned())?;
    Ok(Arc::new(list))
}

/// Nulls filled with something: their rows are rejected, and the canonical items are never null.
fn without_nulls(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match values.data_type() {
        DataType::Utf8 => {
            let texts = values.as_string::<i32>().iter().map(|text| Some(text.unwrap_or_default()));
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            Ok(Arc::new(PrimitiveArray::<Date32Type>::new(days.values().clone(), None)))
        }
        _ => Err(wrong()),
    }
}
