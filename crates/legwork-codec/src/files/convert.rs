//! Arrow columns of any type to canonical ones: casts of whole columns where types agree in kind, text in between where they do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, ListArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Field, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use legwork_types::time::DAY_US;

use super::builder::{Cell, ColumnBuilder, Fault};

/// What does not fit becomes null, and is found by that.
const SAFE: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

/// The first fault of each faulty row of a batch.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    by_row: BTreeMap<usize, Fault>,
}

impl Faults {
    fn add(&mut self, row: usize, fault: impl FnOnce() -> Fault) {
        self.by_row.entry(row).or_insert_with(fault);
    }

    /// (row, fault), ascending by row.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = (usize, Fault)> {
        self.by_row.into_iter()
    }
}

/// The column as the field's type; none when its type can never become that. Values that do not fit, and nulls where `may_lack` is
/// false, are faults of their rows, and null.
pub(crate) fn convert(array: &ArrayRef, field: &Field, may_lack: bool, faults: &mut Faults) -> Option<ArrayRef> {
    let array = plain(array)?;
    let converted = values(&array, field, faults)?;
    if converted.null_count() > array.null_count() {
        for row in 0..array.len() {
            if converted.is_null(row) && array.is_valid(row) {
                faults.add(row, || Fault::wrong_type(field.name(), field.data_type()));
            }
        }
    }
    if array.null_count() == 0 || field.is_nullable() {
        return Some(converted);
    }
    if may_lack {
        // A missing event id or source is an empty one.
        let texts: StringArray = converted.as_string::<i32>().iter().map(|text| Some(text.unwrap_or(""))).collect();
        return Some(Arc::new(texts));
    }
    (0..array.len()).filter(|&row| array.is_null(row)).for_each(|row| faults.add(row, || Fault::missing(field.name())));
    Some(converted)
}

/// Without dictionaries, runs and the many types of text.
fn plain(array: &ArrayRef) -> Option<ArrayRef> {
    let to = match array.data_type() {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        DataType::RunEndEncoded(_, value) => value.data_type().clone(),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            DataType::Utf8
        }
        DataType::FixedSizeBinary(16) => return Some(uuids(array.as_fixed_size_binary())),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
            DataType::List(item.clone())
        }
        _ => return Some(array.clone()),
    };
    let unpacked = cast_with_options(array, &to, &SAFE).ok()?;
    // Bytes that are no text have become null and would pass for missing.
    if to == DataType::Utf8 && unpacked.null_count() > array.null_count() {
        return None;
    }
    plain(&unpacked)
}

fn values(array: &ArrayRef, field: &Field, faults: &mut Faults) -> Option<ArrayRef> {
    use DataType as T;
    let from = array.data_type();
    let to = field.data_type();
    let cast = |to: &DataType| cast_with_options(array, to, &SAFE).ok();
    match (from, to) {
        (T::Null, _) => Some(arrow::array::new_null_array(to, array.len())),
        (T::List(_), T::List(item)) => lists(array.as_list(), item, field, faults),
        (T::List(_) | T::Struct(_) | T::Map(..) | T::Union(..), _) => None,
        _ if from == to => Some(array.clone()),
        (T::Utf8, _) => Some(from_texts(array.as_string(), to)),
        (_, T::Utf8) if from.is_integer() => cast(to),
        (_, T::Float32 | T::Float64) if from.is_numeric() => cast(to),
        (_, T::Int32 | T::Int64) if from.is_integer() => cast(to),
        (_, T::Decimal128(..)) if from.is_integer() || from.is_decimal() => cast(to),
        (T::Timestamp(..) | T::Date32 | T::Date64, T::Timestamp(..)) => micros(array),
        (T::Timestamp(..), T::Date32) => {
            let times = micros(array)?;
            let days = times
                .as_primitive::<TimestampMicrosecondType>()
                .unary_opt::<_, Date32Type>(|time_us| i32::try_from(time_us.div_euclid(DAY_US)).ok());
            Some(Arc::new(days))
        }
        (T::Date64, T::Date32) => cast(to),
        (_, T::Timestamp(..)) if from.is_integer() => {
            let integers = cast(&T::Int64)?;
            let times = integers.as_primitive::<Int64Type>().reinterpret_cast::<TimestampMicrosecondType>();
            Some(Arc::new(times.with_timezone("UTC")))
        }
        (_, T::Date32) if from.is_integer() => {
            let integers = cast(&T::Int32)?;
            Some(Arc::new(integers.as_primitive::<Int32Type>().reinterpret_cast::<Date32Type>()))
        }
        _ => by_text(array, to),
    }
}

/// Times of any unit and zone as microseconds UTC. A time with a zone is stored as UTC already; one without is taken as UTC.
fn micros(array: &ArrayRef) -> Option<ArrayRef> {
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let times = cast_with_options(array, &DataType::Timestamp(TimeUnit::Microsecond, zone), &SAFE).ok()?;
    Some(Arc::new(times.as_primitive::<TimestampMicrosecondType>().clone().with_timezone("UTC")))
}

fn from_texts(texts: &StringArray, to: &DataType) -> ArrayRef {
    let mut builder = ColumnBuilder::new(to);
    for text in texts {
        let cell = text.map_or(Cell::Null, |text| Cell::Text(text.as_bytes()));
        if !builder.push(cell) {
            builder.push_null();
        }
    }
    builder.finish()
}

/// Through the text that a value shows as: floats as integers, amounts or truth values, numbers as texts.
fn by_text(array: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    let mut builder = ColumnBuilder::new(to);
    if let DataType::Float32 | DataType::Float64 = array.data_type() {
        // The shortest text of a double, without an exponent.
        let doubles = cast_with_options(array, &DataType::Float64, &SAFE).ok()?;
        let narrow = array.as_primitive_opt::<arrow::datatypes::Float32Type>();
        for (row, double) in doubles.as_primitive::<arrow::datatypes::Float64Type>().iter().enumerate() {
            let text = match narrow {
                Some(floats) => floats.value(row).to_string(),
                None => double.unwrap_or_default().to_string(),
            };
            push_shown(&mut builder, double.map(|_| text));
        }
        return Some(builder.finish());
    }
    let options = FormatOptions::new();
    let shown = ArrayFormatter::try_new(array.as_ref(), &options).ok()?;
    for row in 0..array.len() {
        push_shown(&mut builder, array.is_valid(row).then(|| shown.value(row).to_string()));
    }
    Some(builder.finish())
}

fn push_shown(builder: &mut ColumnBuilder, text: Option<String>) {
    let pushed = match &text {
        Some(text) => builder.push(Cell::Text(text.as_bytes())),
        None => false,
    };
    if !pushed {
        builder.push_null();
    }
}

/// Row by row: lists are rare and short. An item that is null or does not fit is a fault of its row.
fn lists(lists: &ListArray, item: &Arc<Field>, field: &Field, faults: &mut Faults) -> Option<ArrayRef> {
    let mut items: Vec<ArrayRef> = vec![arrow::array::new_empty_array(item.data_type())];
    let mut lengths = Vec::with_capacity(lists.len());
    let mut is_valid = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let mut own_faults = Faults::default();
        let converted = match lists.is_valid(row) {
            true => Some(convert(&lists.value(row), item, false, &mut own_faults)?),
            false => None,
        };
        let is_good = own_faults.by_row.is_empty();
        if !is_good {
            faults.add(row, || Fault::wrong_type(field.name(), field.data_type()));
        }
        let kept = converted.filter(|_| is_good);
        lengths.push(kept.as_ref().map_or(0, |array| array.len()));
        is_valid.push(kept.is_some());
        items.extend(kept);
    }
    let parts: Vec<&dyn Array> = items.iter().map(AsRef::as_ref).collect();
    let values = arrow::compute::concat(&parts).ok()?;
    let nulls = Some(NullBuffer::from(is_valid)).filter(|nulls| nulls.null_count() > 0);
    Some(Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, nulls).ok()?))
}

/// UUIDs in their usual form.
fn uuids(bytes: &FixedSizeBinaryArray) -> ArrayRef {
    let text = |id: &[u8]| {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    };
    Arc::new(bytes.iter().map(|id| id.map(text)).collect::<StringArray>())
}
