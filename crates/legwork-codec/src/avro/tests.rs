//! One test for each way in which a writer's schema differs from ours.
#![allow(clippy::unwrap_used)]

use apache_avro::Decimal;
use apache_avro::types::Value;
use legwork_types::Kind;
use serde_json::json;

use crate::Decoded;
use crate::testing::{avro_decoder, batch, body, column, decode_avro, framed, none, reasons, record, some};

/// Decodes pings whose writer has these fields beside or instead of the required ones: name, type, value.
fn pings(fields: Vec<(&str, serde_json::Value, Value)>) -> Decoded {
    let mut all = vec![
        ("event_time", json!({"type": "long", "logicalType": "timestamp-micros"}), Value::TimestampMicros(1_000_001)),
        ("device_id", json!("string"), Value::String("d1".to_owned())),
        ("lat", json!("double"), Value::Double(1.5)),
        ("lon", json!("double"), Value::Double(2.5)),
    ];
    for (name, avro, value) in fields {
        all.retain(|(kept, ..)| *kept != name);
        all.push((name, avro, value));
    }
    let avro: Vec<_> = all.iter().map(|(name, avro, _)| json!({"name": name, "type": avro})).collect();
    let avro = json!({"type": "record", "name": "Elsewhere", "namespace": "org.example", "fields": avro}).to_string();
    decode_avro(Kind::Gps, &avro, vec![record(all.into_iter().map(|(name, _, value)| (name, value)).collect())])
}

/// The cell of one column, or what was said against the message.
fn ping(name: &str, avro: serde_json::Value, value: Value) -> String {
    let decoded = pings(vec![(name, avro, value)]);
    match reasons(&decoded).first() {
        Some((reason, detail)) => format!("{reason}: {detail}"),
        None => column(&decoded, name).remove(0),
    }
}

fn long(logical: &str) -> serde_json::Value {
    json!({"type": "long", "logicalType": logical})
}

#[test]
fn missing_fields_get_their_defaults_and_unknown_ones_are_left_out() {
    let nested =
        json!({"type": "record", "name": "n", "fields": [{"name": "x", "type": {"type": "array", "items": "string"}}]});
    let value = record(vec![("x", Value::Array(vec![Value::String("y".to_owned())]))]);
    let decoded = pings(vec![("extra", nested, value), ("mock", json!("boolean"), Value::Boolean(true))]);
    assert_eq!(decoded.rejects, []);
    for (name, expected) in
        [("event_id", ""), ("source", ""), ("device_id", "d1"), ("lat", "1.5"), ("rep_id", "null"), ("mock", "true")]
    {
        assert_eq!(column(&decoded, name), [expected], "{name}");
    }
}

#[test]
fn unneeded_fields_may_be_recursive() {
    let tree = json!({"type": "record", "name": "t", "fields": [{"name": "l", "type": ["null", "t"]}]});
    let value = record(vec![("l", some(record(vec![("l", none())])))]);
    assert_eq!(column(&pings(vec![("tree", tree, value)]), "lon"), ["2.5"]);
}

#[test]
fn numbers_are_promoted() {
    assert_eq!(ping("lat", json!("int"), Value::Int(-7)), "-7.0");
    assert_eq!(ping("lat", json!("long"), Value::Long(8)), "8.0");
    assert_eq!(ping("lat", json!("float"), Value::Float(0.5)), "0.5");
    assert_eq!(ping("sequence", json!("int"), Value::Int(5)), "5");
    assert_eq!(ping("sequence", json!(["null", "int"]), some(Value::Int(5))), "5");
    assert_eq!(ping("accuracy_m", json!("int"), Value::Int(5)), "5.0");
    // Beyond what Avro promotes: a producer that widens float to double goes on being read.
    assert_eq!(ping("accuracy_m", json!(["null", "double"]), some(Value::Double(5.25))), "5.25");
}

#[test]
fn texts_come_from_strings_bytes_enums_and_uuids() {
    assert_eq!(ping("device_id", json!("bytes"), Value::Bytes(b"d2".to_vec())), "d2");
    let symbols = json!({"type": "enum", "name": "e", "symbols": ["A", "B"]});
    assert_eq!(ping("device_id", symbols.clone(), Value::Enum(1, "B".to_owned())), "B");
    assert_eq!(ping("rep_id", json!(["null", symbols]), some(Value::Enum(0, "A".to_owned()))), "A");
    assert_eq!(
        ping("device_id", json!("bytes"), Value::Bytes(vec![0xff])),
        "wrong_type: field device_id: bytes that are not UTF-8"
    );
}

#[test]
fn unions_come_in_any_order_and_any_nullability() {
    let text = || Value::String("r".to_owned());
    assert_eq!(ping("rep_id", json!("string"), text()), "r");
    assert_eq!(ping("rep_id", json!(["string", "null"]), Value::Union(0, Box::new(text()))), "r");
    assert_eq!(ping("rep_id", json!(["string", "null"]), Value::Union(1, Box::new(Value::Null))), "null");
    assert_eq!(ping("rep_id", json!("null"), Value::Null), "null");
    assert_eq!(ping("rep_id", json!(["string"]), Value::Union(0, Box::new(text()))), "r");
    assert_eq!(ping("device_id", json!(["null", "string"]), some(text())), "r");
    assert_eq!(ping("device_id", json!(["null", "string"]), none()), "missing_field: field device_id is null");
    assert_eq!(ping("event_id", json!(["null", "string"]), none()), "");
    let three = json!(["double", "null", "int", "string"]);
    assert_eq!(ping("lat", three.clone(), Value::Union(0, Box::new(Value::Double(3.5)))), "3.5");
    assert_eq!(ping("lat", three.clone(), Value::Union(2, Box::new(Value::Int(4)))), "4.0");
    assert_eq!(ping("lat", three.clone(), Value::Union(1, Box::new(Value::Null))), "missing_field: field lat is null");
    assert_eq!(
        ping("lat", three, Value::Union(3, Box::new(text()))),
        "wrong_type: field lat: a union branch of another type"
    );
}

#[test]
fn times_come_in_any_unit() {
    assert_eq!(ping("event_time", long("timestamp-micros"), Value::TimestampMicros(-5)), "-5");
    assert_eq!(
        ping("event_time", long("timestamp-millis"), Value::TimestampMillis(1_700_000_000_123)),
        "1700000000123000"
    );
    assert_eq!(
        ping("event_time", long("timestamp-nanos"), Value::TimestampNanos(1_700_000_000_123_456_789)),
        "1700000000123456"
    );
    assert_eq!(ping("event_time", long("timestamp-nanos"), Value::TimestampNanos(-1)), "-1");
    assert_eq!(ping("event_time", json!("long"), Value::Long(42)), "42");
    assert_eq!(ping("event_time", long("local-timestamp-millis"), Value::LocalTimestampMillis(42)), "42000");
    assert_eq!(ping("event_time", long("local-timestamp-micros"), Value::LocalTimestampMicros(42)), "42");
    assert_eq!(ping("event_time", long("local-timestamp-nanos"), Value::LocalTimestampNanos(42_000)), "42");
    assert_eq!(
        ping(
            "sent_time",
            json!([long("timestamp-millis"), "null"]),
            Value::Union(0, Box::new(Value::TimestampMillis(9)))
        ),
        "9000"
    );
    assert_eq!(
        ping("event_time", long("timestamp-millis"), Value::TimestampMillis(i64::MAX)),
        "invalid_value: field event_time: a time beyond microseconds"
    );
}

#[test]
fn schemas_that_cannot_be_resolved_say_why() {
    assert_eq!(
        ping("lat", json!("string"), Value::String("1".to_owned())),
        "incompatible_schema: field lat: string cannot become double"
    );
    assert_eq!(
        ping("lat", json!(["null", "string"]), none()),
        "incompatible_schema: field lat: string cannot become double"
    );
    assert_eq!(
        ping("event_time", json!("int"), Value::Int(1)),
        "incompatible_schema: field event_time: int cannot become timestamp"
    );
    assert_eq!(
        ping("lat", json!("null"), Value::Null),
        "incompatible_schema: field lat is always null in the writer's schema"
    );
    let no_lat =
        json!({"type": "record", "name": "r", "fields": [{"name": "device_id", "type": "string"}]}).to_string();
    let decoded = decode_avro(Kind::Gps, &no_lat, vec![record(vec![("device_id", Value::String("d".to_owned()))])]);
    assert_eq!(
        reasons(&decoded),
        [("incompatible_schema", "field event_time is missing from the writer's schema and has no default")]
    );
    let decoded = decode_avro(Kind::Gps, r#""string""#, vec![Value::String("d".to_owned())]);
    assert_eq!(reasons(&decoded), [("incompatible_schema", "the writer's schema is a string, not a record")]);
}

#[test]
fn a_writers_alias_names_our_field() {
    let avro = json!({"type": "record", "name": "r", "fields": [
        {"name": "ts", "aliases": ["event_time"], "type": "long"},
        {"name": "device", "aliases": ["unit", "device_id"], "type": "string"},
        {"name": "lon", "type": "double"},
        {"name": "lat", "type": "double"},
    ]});
    let value = record(vec![
        ("ts", Value::Long(3)),
        ("device", Value::String("d".to_owned())),
        ("lon", Value::Double(1.0)),
        ("lat", Value::Double(2.0)),
    ]);
    let decoded = decode_avro(Kind::Gps, &avro.to_string(), vec![value]);
    assert_eq!(
        (column(&decoded, "device_id"), column(&decoded, "lat")),
        (vec!["d".to_owned()], vec!["2.0".to_owned()])
    );
}

fn cost(avro: serde_json::Value, value: Value) -> String {
    let text = |value: &str| Value::String(value.to_owned());
    let avro = json!({"type": "record", "name": "r", "fields": [
        {"name": "event_time", "type": "long"}, {"name": "team_id", "type": "string"}, {"name": "kind", "type": "string"},
        {"name": "amount", "type": avro}, {"name": "currency", "type": "string"},
    ]});
    let value = record(vec![
        ("event_time", Value::Long(3)),
        ("team_id", text("t")),
        ("kind", text("sales")),
        ("amount", value),
        ("currency", text("EUR")),
    ]);
    let decoded = decode_avro(Kind::Costs, &avro.to_string(), vec![value]);
    match reasons(&decoded).first() {
        Some((reason, detail)) => format!("{reason}: {detail}"),
        None => column(&decoded, "amount").remove(0),
    }
}

#[test]
fn decimals_are_rescaled_exactly_or_refused() {
    let decimal = |precision: u32, scale: u32| json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
    let value = |unscaled: i64| Value::Decimal(Decimal::from(unscaled.to_be_bytes()));
    assert_eq!(cost(decimal(18, 4), value(125_000)), "125000");
    assert_eq!(cost(decimal(9, 2), value(1_250)), "125000");
    assert_eq!(cost(decimal(20, 6), value(12_500_000)), "125000");
    let refused = "invalid_value: field amount: a decimal that does not fit exactly";
    assert_eq!(cost(decimal(20, 6), value(12_500_001)), refused);
    assert_eq!(cost(decimal(30, 0), value(i64::MAX)), refused);
    let fixed = json!({"type": {"type": "fixed", "name": "f", "size": 8}, "logicalType": "decimal", "precision": 18, "scale": 2});
    let fixed = match apache_avro::Schema::parse_str(&fixed.to_string()) {
        Ok(_) => fixed,
        Err(_) => {
            json!({"type": "fixed", "name": "f", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 2})
        }
    };
    assert_eq!(cost(fixed, value(1_250)), "125000");
    assert_eq!(cost(json!("double"), Value::Double(12.5)), "125000");
    assert_eq!(cost(json!("long"), Value::Long(12)), "120000");
    assert_eq!(cost(json!("string"), Value::String("12.50".to_owned())), "125000");
    assert_eq!(cost(json!(["null", "double"]), none()), "missing_field: field amount is null");
    assert_eq!(cost(json!("double"), Value::Double(-1.0)), "invalid_value: field amount is negative");
}

#[test]
fn arrays_keep_their_items() {
    let deal = |items: serde_json::Value, value: Value| {
        let avro = json!({"type": "record", "name": "r", "fields": [
            {"name": "event_time", "type": "long"}, {"name": "deal_id", "type": "string"},
            {"name": "cleared", "type": ["null", {"type": "array", "items": items}]},
        ]});
        let of = |cleared| {
            record(vec![
                ("event_time", Value::Long(1)),
                ("deal_id", Value::String("d".to_owned())),
                ("cleared", cleared),
            ])
        };
        let first = some(Value::Array(vec![Value::String("stage".to_owned())]));
        let first = if items == json!("string") { first } else { none() };
        decode_avro(
            Kind::DealEvents,
            &avro.to_string(),
            vec![of(first), of(some(Value::Array(vec![value]))), of(none())],
        )
    };
    let decoded = deal(json!("string"), Value::String("amount".to_owned()));
    assert_eq!(column(&decoded, "cleared"), ["stage", "amount", "null"]);
    let decoded = deal(json!(["null", "string"]), some(Value::String("amount".to_owned())));
    assert_eq!(column(&decoded, "cleared"), ["null", "amount", "null"]);
    let decoded = deal(json!(["null", "string"]), none());
    assert_eq!(column(&decoded, "cleared"), ["null", "null"]);
    assert_eq!(reasons(&decoded), [("wrong_type", "field cleared: an item that is null")]);
    assert_eq!(decoded.message_rows, [0, 2]);
}

#[test]
fn writers_of_one_batch_come_out_in_the_order_of_their_offsets() {
    let avro = |time: serde_json::Value| {
        json!({"type": "record", "name": "r", "fields": [
            {"name": "lat", "type": "double"}, {"name": "lon", "type": "double"}, {"name": "device_id", "type": "string"},
            {"name": "event_time", "type": time},
        ]})
        .to_string()
    };
    let (micros, millis) = (avro(json!("long")), avro(long("timestamp-millis")));
    let value = |time| {
        record(vec![
            ("lat", Value::Double(1.0)),
            ("lon", Value::Double(1.0)),
            ("device_id", Value::String("d".to_owned())),
            ("event_time", time),
        ])
    };
    let messages = batch([
        Some(framed(1, &body(&micros, value(Value::Long(1))))),
        Some(framed(2, &body(&millis, value(Value::TimestampMillis(2))))),
        None,
        Some(framed(9, b"")),
        Some(framed(1, &body(&micros, value(Value::Long(3))))),
        Some(framed(2, &body(&millis, value(Value::TimestampMillis(4))))),
    ]);
    let decoded = avro_decoder(Kind::Gps, &[(1, &micros), (2, &millis)]).decode(&messages, 0);
    assert_eq!(column(&decoded, "event_time"), ["1", "2000", "3", "4000"]);
    assert_eq!(decoded.message_rows, [0, 1, 4, 5]);
    assert_eq!(
        (decoded.events.offsets, decoded.events.arrival_us),
        (vec![100, 101, 104, 105], vec![7000, 7001, 7004, 7005])
    );
    assert_eq!((decoded.tombstones, decoded.n_consumed), (vec![2], 6));
    assert_eq!(decoded.rejects[0].offset, 103);
    assert_eq!((decoded.rejects[0].schema_id, decoded.rejects[0].reason.as_str()), (Some(9), "unknown_schema"));
}

/// Types that live in other subjects of the registry.
#[test]
fn schemas_that_refer_to_others_are_resolved() {
    use super::WriterDecoder;
    use crate::registry::WriterSchema;

    let duty = r#"{"type": "enum", "name": "org.example.Duty", "symbols": ["off", "on"]}"#;
    let origin = r#"{"type": "record", "name": "org.example.Origin", "fields": [{"name": "app", "type": "string"}]}"#;
    let avro = r#"{"type": "record", "name": "org.example.Shift", "fields": [
        {"name": "origin", "type": "org.example.Origin"}, {"name": "event_time", "type": "long"},
        {"name": "rep_id", "type": "string"}, {"name": "kind", "type": "org.example.Duty"}]}"#;
    let writer = WriterSchema::parse(7, avro, &[duty.to_owned(), origin.to_owned()]).unwrap();
    let mut decoder = WriterDecoder::new(Kind::Shifts, &writer).unwrap();
    // origin {app: "x"}, event_time 3, rep_id "r", kind "on"
    let message = framed(7, &[2, b'x', 6, 2, b'r', 2]);
    decoder.push(0, &message).unwrap();
    assert_eq!(decoder.push(1, &message[..message.len() - 1]).unwrap_err().1, "the body ends in field kind");
    let (batch, rows, faults) = decoder.finish(|_| &message).into_batch();
    let cells: Vec<_> = batch.columns().iter().map(|column| crate::testing::cell(column, 0)).collect();
    assert_eq!(cells, ["", "", "3", "null", "r", "on"]);
    assert_eq!((rows, faults), (vec![0], vec![]));
}

/// What a decoder does that fails where the walk saw no fault: every row is decoded again on its own.
#[test]
fn a_batch_is_replayed_row_by_row() {
    use super::WriterDecoder;
    use crate::registry::WriterSchema;

    let avro = Kind::Shifts.avro();
    let text = |value: &str| Value::String(value.to_owned());
    let value = |rep: &str| {
        record(vec![
            ("event_id", text("")),
            ("source", text("")),
            ("event_time", Value::TimestampMicros(1)),
            ("sequence", none()),
            ("rep_id", text(rep)),
            ("kind", text("on")),
        ])
    };
    let messages = [framed(7, &body(avro, value("a"))), framed(7, &[0xff]), framed(7, &body(avro, value("b")))];
    let mut decoder = WriterDecoder::new(Kind::Shifts, &WriterSchema::parse(7, avro, &[]).unwrap()).unwrap();
    decoder.direct = None;
    decoder.push(0, &messages[0]).unwrap();
    // As if the walk had passed it.
    decoder.is_broken = true;
    decoder.rows.push(1);
    decoder.push(2, &messages[2]).unwrap();
    let columns = decoder.finish(|message_idx| &messages[message_idx as usize]);
    assert_eq!(columns.faults.len(), 1);
    let (batch, rows, faults) = columns.into_batch();
    assert_eq!((batch.num_rows(), rows, faults[0].0), (2, vec![0, 2], 1));
    // The decoder is as new afterwards.
    decoder.push(0, &messages[0]).unwrap();
    let (batch, rows, _) = decoder.finish(|_| &messages[0]).into_batch();
    assert_eq!((batch.num_rows(), rows), (1, vec![0]));
}

/// Both ways to decode give the same columns and the same rejects, whatever happens to the bytes.
mod both_ways {
    use arrow::array::ArrayRef;
    use proptest::prelude::*;

    use super::super::WriterDecoder;
    use super::*;
    use crate::registry::WriterSchema;

    type Outcome = (Vec<Result<(), (legwork_types::RejectReason, String)>>, Vec<ArrayRef>, Vec<u32>);

    fn outcome(messages: &[Vec<u8>], is_direct: bool) -> Outcome {
        let writer = WriterSchema::parse(1, Kind::Gps.avro(), &[]).unwrap();
        let mut decoder = WriterDecoder::new(Kind::Gps, &writer).unwrap();
        assert!(decoder.direct.is_some());
        if !is_direct {
            decoder.direct = None;
        }
        let pushed = (0..).zip(messages).map(|(idx, message)| decoder.push(idx, message)).collect();
        let columns = decoder.finish(|idx| &messages[idx as usize]);
        (pushed, columns.arrays, columns.message_rows)
    }

    fn ping(idx: i64, has_optional: bool) -> Vec<u8> {
        let text = |value: &str| Value::String(value.to_owned());
        let optional = |value| if has_optional { some(value) } else { none() };
        let value = record(vec![
            ("event_id", text("")),
            ("source", text("ä")),
            ("event_time", Value::TimestampMicros(idx)),
            ("sequence", optional(Value::Long(-idx))),
            ("device_id", text("device")),
            ("rep_id", optional(text("rep"))),
            ("sent_time", optional(Value::TimestampMicros(idx << 40))),
            ("lat", Value::Double(1.5)),
            ("lon", Value::Double(-2.5)),
            ("accuracy_m", optional(Value::Float(5.0))),
            ("speed_mps", none()),
            ("course_deg", none()),
            ("altitude_m", optional(Value::Float(-5.0))),
            ("moving", optional(Value::Boolean(true))),
            ("odometer_m", none()),
            ("battery_pct", none()),
            ("mock", optional(Value::Boolean(false))),
        ]);
        framed(1, &body(Kind::Gps.avro(), value))
    }

    proptest! {
        #[test]
        fn agree(pings in proptest::collection::vec((any::<i64>(), any::<bool>(), any::<u16>(), any::<u8>(), 0u8..4), 0..12)) {
            let messages: Vec<_> = pings
                .into_iter()
                .map(|(idx, has_optional, at, byte, what)| {
                    let mut message = ping(idx >> 20, has_optional);
                    let at = 5 + usize::from(at) % (message.len() - 5);
                    match what {
                        0 => message[at] = byte,
                        1 => message.truncate(at),
                        2 => message.push(byte),
                        _ => {}
                    }
                    message
                })
                .collect();
            prop_assert_eq!(outcome(&messages, true), outcome(&messages, false));
        }
    }
}
