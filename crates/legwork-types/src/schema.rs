//! Canonical Arrow schemas, read from the Avro ones.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::Value;

use crate::Kind;

static SCHEMAS: LazyLock<Vec<SchemaRef>> =
    LazyLock::new(|| Kind::ALL.iter().map(|kind| Arc::new(from_avro(kind.avro()))).collect());

/// Type of amounts of money: decimal(18,4).
pub const fn money() -> DataType {
    DataType::Decimal128(18, 4)
}

impl Kind {
    /// Canonical columns of a decoded batch, in the order of the Avro fields. Strings are Utf8, times Timestamp(us, "UTC"),
    /// `date` is Date32, money Decimal128(18,4), arrays are List. Each field's metadata holds its `doc` and, where only some
    /// values are allowed, `values` (comma-separated).
    pub fn schema(self) -> SchemaRef {
        SCHEMAS[self as usize].clone()
    }
}

fn from_avro(avro: &str) -> Schema {
    let record: Value = serde_json::from_str(avro).expect("schemas are JSON, as code generation has checked");
    let fields = record["fields"].as_array().expect("a record has fields");
    Schema::new(fields.iter().map(field).collect::<Vec<_>>())
}

fn field(avro: &Value) -> Field {
    let (data_type, nullable) = match &avro["type"] {
        Value::Array(branches) => (data_type(&branches[1]), true),
        other => (data_type(other), false),
    };
    let mut metadata = std::collections::HashMap::new();
    if let Some(doc) = avro["doc"].as_str() {
        metadata.insert("doc".to_owned(), doc.to_owned());
    }
    if let Some(values) = avro["values"].as_array() {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        metadata.insert("values".to_owned(), values.join(","));
    }
    Field::new(avro["name"].as_str().expect("a field has a name"), data_type, nullable).with_metadata(metadata)
}

fn data_type(avro: &Value) -> DataType {
    if let Some(name) = avro.as_str() {
        return match name {
            "string" => DataType::Utf8,
            "long" => DataType::Int64,
            "int" => DataType::Int32,
            "double" => DataType::Float64,
            "float" => DataType::Float32,
            "boolean" => DataType::Boolean,
            other => unreachable!("our schemas do not use {other}"),
        };
    }
    match (avro["type"].as_str(), avro["logicalType"].as_str()) {
        (Some("array"), _) => DataType::List(Arc::new(Field::new("item", data_type(&avro["items"]), false))),
        (_, Some("timestamp-micros")) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        (_, Some("date")) => DataType::Date32,
        (_, Some("decimal")) => money(),
        other => unreachable!("our schemas do not use {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_starts_with_the_common_columns_and_names_its_key() {
        for kind in Kind::events() {
            let schema = kind.schema();
            let names: Vec<_> = schema.fields().iter().take(4).map(|f| f.name().as_str()).collect();
            assert_eq!(names, ["event_id", "source", "event_time", "sequence"], "{kind}");
            assert!(schema.index_of(kind.key()).is_ok(), "{kind}");
        }
    }

    #[test]
    fn generated_positions_agree() {
        use crate::{deal_events, gps, quotas};
        assert_eq!(Kind::Gps.schema().field(gps::MOCK).name(), "mock");
        assert_eq!(Kind::DealEvents.schema().field(deal_events::CLEARED).name(), "cleared");
        assert_eq!(Kind::Quotas.schema().field(quotas::VALID_TO).name(), "valid_to");
    }
}
