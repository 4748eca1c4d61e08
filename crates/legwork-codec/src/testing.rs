//! What the tests of this crate share.
#![allow(clippy::unwrap_used)]

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use legwork_types::{Kind, Message, MessageBatch};

use crate::{Decoded, Decoder, Format, RegistryClient};

pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Body of a value, as `apache-avro` writes it.
pub(crate) fn body(avro: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(avro).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

pub(crate) fn framed(schema_id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(schema_id.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Messages with offsets from 100 on.
pub(crate) fn batch<B: AsRef<[u8]>>(values: impl IntoIterator<Item = Option<B>>) -> MessageBatch {
    let mut batch = MessageBatch::new("topic".into(), 3);
    for (idx, value) in values.into_iter().enumerate() {
        let value = value.as_ref().map(AsRef::as_ref);
        batch.push(Message { offset: 100 + idx as i64, arrival_us: 7_000 + idx as i64, key: Some(b"key"), value });
    }
    batch
}

pub(crate) fn avro_decoder(kind: Kind, schemas: &[(u32, &str)]) -> Decoder {
    let registry = RegistryClient::fixed(schemas.iter().copied()).unwrap();
    Decoder::new(kind, Format::Avro(registry), BYTES_MAX)
}

/// Decodes values of one writer.
pub(crate) fn decode_avro(kind: Kind, avro: &str, values: Vec<Value>) -> Decoded {
    let messages = batch(values.into_iter().map(|value| Some(framed(1, &body(avro, value)))));
    avro_decoder(kind, &[(1, avro)]).decode(&messages, 0)
}

pub(crate) fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(crate) fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

pub(crate) fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

/// One cell as text: bits for floats, so that equal means equal.
pub(crate) fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| cell(&items, item)).collect::<Vec<_>>().join(";")
        }
        other => panic!("no canonical type: {other}"),
    }
}

/// A column's cells.
pub(crate) fn column(decoded: &Decoded, name: &str) -> Vec<String> {
    let array = decoded.events.columns.column_by_name(name).unwrap();
    (0..array.len()).map(|row| cell(array, row)).collect()
}

/// Reasons and details of the rejects.
pub(crate) fn reasons(decoded: &Decoded) -> Vec<(&'static str, &str)> {
    decoded.rejects.iter().map(|reject| (reject.reason.as_str(), reject.detail.as_str())).collect()
}
