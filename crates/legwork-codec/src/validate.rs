//! Checks of canonical batches, column by column, shared by Avro, JSON and files.
//!
//! Nothing is allocated for a row that is well. Details name fields, never values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, TimestampMicrosecondType,
};
use legwork_types::{Kind, RejectReason, meetings};

use crate::columns::stands_in_for_null;

/// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z, microseconds: what Arrow can print.
const TIME_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// 0001-01-01 to 9999-12-31, days since 1970-01-01.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// Measurements that a device may not know: it then says -1 or NaN, which becomes null. The second says whether a negative value
/// means unknown. A negative accuracy does not: by it iOS says that it does not trust the fix.
const UNKNOWABLE: [(&str, bool); 7] = [
    ("accuracy_m", false),
    ("speed_mps", true),
    ("course_deg", true),
    ("battery_pct", true),
    ("odometer_m", true),
    ("altitude_m", false),
    ("duration_s", true),
];

/// Replaces what stands for "unknown" by null: negative or not finite speed, course, battery, odometer and duration, accuracies and
/// altitudes that are not finite, and empty optional ids. *Shape:* as `batch`, which must be canonical.
pub fn normalise(kind: Kind, batch: &RecordBatch) -> RecordBatch {
    let schema = kind.schema();
    let mut columns: Option<Vec<ArrayRef>> = None;
    for (column_idx, field) in schema.fields().iter().enumerate() {
        if let Some(column) = normalised(field, batch.column(column_idx)) {
            columns.get_or_insert_with(|| batch.columns().to_vec())[column_idx] = column;
        }
    }
    match columns {
        Some(columns) => RecordBatch::try_new(schema, columns).expect("only optional columns gained nulls"),
        None => batch.clone(),
    }
}

fn normalised(field: &Field, column: &ArrayRef) -> Option<ArrayRef> {
    if !field.is_nullable() || column.null_count() == column.len() {
        return None;
    }
    if let Some(&(_, negative_is_unknown)) = UNKNOWABLE.iter().find(|(name, _)| name == field.name()) {
        let least = if negative_is_unknown { 0.0 } else { f64::MIN };
        return match field.data_type() {
            DataType::Float32 => {
                known::<Float32Type>(column.as_primitive(), |v| v.is_finite() && f64::from(v) >= least)
            }
            DataType::Float64 => known::<Float64Type>(column.as_primitive(), |v| v.is_finite() && v >= least),
            _ => None,
        };
    }
    if *field.data_type() == DataType::Utf8 && field.name().ends_with("_id") {
        let texts = column.as_string::<i32>();
        let is_empty = |row: usize| texts.is_valid(row) && texts.value_length(row) == 0;
        if (0..texts.len()).any(is_empty) {
            let kept = texts.iter().map(|text| text.filter(|text| !text.is_empty()));
            return Some(Arc::new(kept.collect::<StringArray>()));
        }
    }
    None
}

fn known<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    is_known: impl Fn(T::Native) -> bool + Copy,
) -> Option<ArrayRef> {
    // Slots of nulls hold zero, which is known.
    if values.values().iter().all(|&value| is_known(value)) {
        return None;
    }
    let kept = values.iter().map(|value| value.filter(|&value| is_known(value)));
    Some(Arc::new(kept.collect::<PrimitiveArray<T>>()))
}

/// Rows of a canonical batch that no operator should see, ascending: row, reason, detail; several for one row if several things are wrong.
pub fn validate(kind: Kind, batch: &RecordBatch) -> Vec<(u32, RejectReason, String)> {
    let mut found = Found { faults: Vec::new() };
    let schema = kind.schema();
    for (column_idx, field) in schema.fields().iter().enumerate() {
        let column = batch.column(column_idx);
        match field.data_type() {
            DataType::Utf8 if !stands_in_for_null(kind, column_idx) => texts(field, column.as_string(), &mut found),
            DataType::Float64 => doubles(field, column.as_primitive(), &mut found),
            DataType::Float32 => {
                let values = column.as_primitive::<Float32Type>();
                found.unless(field, values, |v| v.is_finite(), "is not finite");
            }
            DataType::Timestamp(..) => {
                let values = column.as_primitive::<TimestampMicrosecondType>();
                found.unless(field, values, |v| TIME_US.contains(&v), "is outside the years 1 to 9999");
            }
            DataType::Date32 => {
                let values = column.as_primitive::<Date32Type>();
                found.unless(field, values, |v| DAYS.contains(&v), "is outside the years 1 to 9999");
            }
            DataType::Decimal128(..) if matches!(kind, Kind::Orders | Kind::Costs) => {
                let values = column.as_primitive::<Decimal128Type>();
                found.unless(field, values, |v| v >= 0, "is negative");
            }
            _ => {}
        }
    }
    if kind == Kind::Meetings {
        let starts = batch.column(meetings::SCHEDULED_START).as_primitive::<TimestampMicrosecondType>().values();
        let ends = batch.column(meetings::SCHEDULED_END).as_primitive::<TimestampMicrosecondType>().values();
        for (row, (start, end)) in starts.iter().zip(ends).enumerate() {
            if end < start {
                found.add(row, RejectReason::InvalidValue, "field scheduled_end is before scheduled_start".to_owned());
            }
        }
    }
    found.faults.sort_by_key(|(row, ..)| *row);
    found.faults
}

struct Found {
    faults: Vec<(u32, RejectReason, String)>,
}

impl Found {
    #[cold]
    fn add(&mut self, row: usize, reason: RejectReason, detail: String) {
        self.faults.push((row as u32, reason, detail));
    }

    fn unless<T: ArrowPrimitiveType>(
        &mut self,
        field: &Field,
        values: &PrimitiveArray<T>,
        is_well: impl Fn(T::Native) -> bool,
        what: &str,
    ) {
        if values.values().iter().all(|&value| is_well(value)) {
            return;
        }
        for (row, &value) in values.values().iter().enumerate() {
            if values.is_valid(row) && !is_well(value) {
                self.add(row, RejectReason::InvalidValue, format!("field {} {what}", field.name()));
            }
        }
    }
}

fn doubles(field: &Field, values: &PrimitiveArray<Float64Type>, found: &mut Found) {
    match field.name().as_str() {
        "lat" => found.unless(field, values, |v| (-90.0..=90.0).contains(&v), "is no latitude from -90 to 90"),
        "lon" => found.unless(field, values, |v| (-180.0..=180.0).contains(&v), "is no longitude from -180 to 180"),
        "probability" => found.unless(field, values, |v| (0.0..=1.0).contains(&v), "is not from 0 to 1"),
        "radius_m" => found.unless(field, values, |v| v.is_finite() && v >= 0.0, "is not finite or negative"),
        _ => found.unless(field, values, f64::is_finite, "is not finite"),
    }
}

fn texts(field: &Field, values: &StringArray, found: &mut Found) {
    if let Some(allowed) = field.metadata().get("values") {
        let is_allowed = |text: &str| allowed.split(',').any(|value| value == text);
        return texts_unless(values, found, is_allowed, RejectReason::InvalidValue, || {
            format!("field {} is none of {}", field.name(), allowed.replace(',', ", "))
        });
    }
    if field.name() == "currency" {
        let is_code = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        return texts_unless(values, found, is_code, RejectReason::InvalidValue, || {
            "field currency is no code of three letters".to_owned()
        });
    }
    // Lengths are differences of offsets: most columns end here without a look at their bytes.
    if !field.is_nullable() && values.value_offsets().windows(2).any(|pair| pair[0] == pair[1]) {
        texts_unless(
            values,
            found,
            |text| !text.is_empty(),
            RejectReason::MissingField,
            || format!("field {} is empty", field.name()),
        );
    }
}

fn texts_unless(
    values: &StringArray,
    found: &mut Found,
    is_well: impl Fn(&str) -> bool,
    reason: RejectReason,
    detail: impl Fn() -> String,
) {
    for (row, text) in values.iter().enumerate() {
        if text.is_some_and(|text| !is_well(text)) {
            found.add(row, reason, detail());
        }
    }
}

#[cfg(test)]
mod tests;
