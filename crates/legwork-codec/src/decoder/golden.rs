//! Golden bytes of every kind: a framed message with every field set and one with the required ones only.
//!
//! The files are the proof that what was written once can be read for ever. A new schema gets its files by running this test with
//! `LEGWORK_GOLDEN=write`; files that exist are never changed.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use apache_avro::Decimal;
use apache_avro::types::Value;
use legwork_types::Kind;

use crate::testing::{avro_decoder, batch, body, cell, framed};

const SCHEMA_ID: u32 = 258;

fn sample(field: &serde_json::Value, is_full: bool, idx: i64) -> Value {
    let avro = &field["type"];
    if let Some(branches) = avro.as_array() {
        if !is_full {
            return Value::Union(0, Box::new(Value::Null));
        }
        return Value::Union(1, Box::new(leaf(field, &branches[1], idx)));
    }
    leaf(field, avro, idx)
}

fn leaf(field: &serde_json::Value, avro: &serde_json::Value, idx: i64) -> Value {
    let name = field["name"].as_str().unwrap();
    match avro["logicalType"].as_str().or(avro["type"].as_str()).or(avro.as_str()).unwrap() {
        "timestamp-micros" => Value::TimestampMicros(1_700_000_000_000_001 + idx * 1_000_000),
        "date" => Value::Date(20_000),
        "decimal" => Value::Decimal(Decimal::from(1_234_567_890_123_456i64.to_be_bytes())),
        "array" => Value::Array(vec![leaf(field, &avro["items"], idx), leaf(field, &avro["items"], idx + 1)]),
        "boolean" => Value::Boolean(true),
        "int" => Value::Int(idx as i32),
        "long" => Value::Long(idx << 40),
        "float" => Value::Float(idx as f32 + 0.25),
        "double" if name == "probability" => Value::Double(0.75),
        "double" => Value::Double(idx as f64 + 0.1),
        "string" => Value::String(match (field["values"].get(0), name) {
            (Some(value), _) => value.as_str().unwrap().to_owned(),
            (None, "currency") => "EUR".to_owned(),
            (None, _) => format!("{name} ä {idx}"),
        }),
        other => panic!("{other}"),
    }
}

fn message(kind: Kind, is_full: bool) -> Vec<u8> {
    let avro: serde_json::Value = serde_json::from_str(kind.avro()).unwrap();
    let fields = avro["fields"].as_array().unwrap().iter().zip(0..);
    let fields = fields.map(|(field, idx)| (field["name"].as_str().unwrap().to_owned(), sample(field, is_full, idx)));
    framed(SCHEMA_ID, &body(kind.avro(), Value::Record(fields.collect())))
}

#[test]
fn golden_bytes_are_written_and_read_as_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let writes = std::env::var_os("LEGWORK_GOLDEN").is_some_and(|value| value == "write");
    for kind in Kind::ALL {
        for (is_full, suffix) in [(true, "full"), (false, "required")] {
            let bytes = message(kind, is_full);
            let messages = batch([Some(&bytes)]);
            let decoded = avro_decoder(kind, &[(SCHEMA_ID, kind.avro())]).decode(&messages, 0);
            assert_eq!(decoded.rejects, [], "{kind}");
            let mut text = String::new();
            for (field, column) in kind.schema().fields().iter().zip(decoded.events.columns.columns()) {
                writeln!(text, "{} = {}", field.name(), cell(column, 0)).unwrap();
            }
            let path = folder.join(format!("{}.{suffix}.bin", kind.name()));
            if writes && !path.exists() {
                std::fs::write(&path, &bytes).unwrap();
                std::fs::write(path.with_extension("txt"), &text).unwrap();
            }
            let golden =
                std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; LEGWORK_GOLDEN=write", path.display()));
            assert_eq!(bytes, golden, "{}: apache-avro writes other bytes", path.display());
            assert_eq!(text, std::fs::read_to_string(path.with_extension("txt")).unwrap(), "{}", path.display());
        }
    }
}
