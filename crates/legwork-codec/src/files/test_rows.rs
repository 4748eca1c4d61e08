//! Generated rows of any kind, and the canonical batch that they are.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use legwork_types::Kind;
use proptest::prelude::*;

use super::builder::{Cell, ColumnBuilder};

/// A row's values as text, one a field; none is null. Lists are joined with `;`.
pub(crate) type Row = Vec<Option<String>>;

/// Up to 40 rows that are valid in type, if not in meaning.
pub(crate) fn rows(kind: Kind) -> impl Strategy<Value = Vec<Row>> {
    let row: Vec<BoxedStrategy<Option<String>>> = kind
        .schema()
        .fields()
        .iter()
        .map(|field| match field.is_nullable() {
            true => proptest::option::of(value(field.data_type())).boxed(),
            false => value(field.data_type()).prop_map(Some).boxed(),
        })
        .collect();
    proptest::collection::vec(row, 0..40)
}

fn value(data_type: &DataType) -> BoxedStrategy<String> {
    match data_type {
        DataType::Int64 => any::<i64>().prop_map(|v| v.to_string()).boxed(),
        DataType::Int32 => any::<i32>().prop_map(|v| v.to_string()).boxed(),
        DataType::Float64 => (-1e12..1e12f64).prop_map(|v| v.to_string()).boxed(),
        DataType::Float32 => (-1e6..1e6f32).prop_map(|v| v.to_string()).boxed(),
        DataType::Boolean => any::<bool>().prop_map(|v| v.to_string()).boxed(),
        DataType::Timestamp(..) => time().boxed(),
        DataType::Date32 => (-700_000..2_900_000i32).prop_map(|v| v.to_string()).boxed(),
        DataType::Decimal128(..) => (-999_999_999_999_999_999i128..1_000_000_000_000_000_000).prop_map(amount).boxed(),
        DataType::List(item) if item.data_type() == &DataType::Date32 => {
            proptest::collection::vec(value(item.data_type()), 1..4).prop_map(|days| days.join(";")).boxed()
        }
        DataType::List(_) => proptest::collection::vec("[a-zé\"', ]{0,5}x", 1..4)
            .prop_map(|texts| texts.iter().map(|text| text.trim()).collect::<Vec<_>>().join(";"))
            .boxed(),
        _ => "[a-zA-Z0-9 ,;:'\"\\\\\r\n\täß漢🚗-]{0,12}.".boxed(),
    }
}

/// A time in one of its two forms.
fn time() -> impl Strategy<Value = String> {
    (-62_000_000_000_000_000i64..250_000_000_000_000_000, any::<bool>()).prop_map(|(time_us, spelt)| {
        match chrono::DateTime::from_timestamp_micros(time_us).filter(|_| spelt) {
            Some(time) => time.to_rfc3339(),
            None => time_us.to_string(),
        }
    })
}

fn amount(units: i128) -> String {
    format!("{}{}.{:04}", if units < 0 { "-" } else { "" }, units.abs() / 10_000, units.abs() % 10_000)
}

/// The rows in canonical columns.
pub(crate) fn batch_of(kind: Kind, rows: &[Row]) -> RecordBatch {
    let schema = kind.schema();
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| {
            let mut builder = ColumnBuilder::new(field.data_type());
            for row in rows {
                let cell = row[at].as_ref().map_or(Cell::Null, |text| Cell::Text(text.as_bytes()));
                assert!(builder.push(cell), "{}: {:?}", field.name(), row[at]);
            }
            builder.finish()
        })
        .collect();
    RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
}
