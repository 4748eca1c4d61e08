//! Good messages of random writers among ten kinds of garbage; `apache-avro` is the oracle of the good ones.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use axum::http::StatusCode;
use legwork_types::{Kind, RejectReason};
use proptest::prelude::*;
use serde_json::json;

use super::Blocked;
use crate::testing::{BYTES_MAX, avro_decoder, batch, body, cell, framed};
use crate::{Decoder, Format, RegistryClient, RegistryConfig};

/// No good message is as large.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// A small generator: proptest draws its seed, so that a failing case can be replayed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn text(&mut self) -> String {
        ["x", "phone-7", "ä€😀", "a much longer text than the others are"][self.roll(4) as usize].to_owned()
    }
}

/// A random type that resolves with `avro` by Avro's own rules, and how to make values of it.
fn evolved(dice: &mut Dice, avro: &serde_json::Value) -> serde_json::Value {
    let branch = avro.get(1).filter(|_| avro.is_array());
    let plain = branch.unwrap_or(avro);
    let narrowed = match plain.as_str() {
        Some("double") => json!(["double", "float", "int", "long"][dice.roll(4) as usize]),
        Some("float") => json!(["float", "int"][dice.roll(2) as usize]),
        Some("long") => json!(["long", "int"][dice.roll(2) as usize]),
        Some("string") => json!(["string", "bytes"][dice.roll(2) as usize]),
        _ if dice.roll(3) == 0 && plain["logicalType"] == "timestamp-micros" => json!("long"),
        _ => plain.clone(),
    };
    match (branch.is_some(), dice.roll(4)) {
        (true, 0) => narrowed,
        (true, 1) => json!([narrowed, "null"]),
        (true, _) => json!(["null", narrowed]),
        (false, 0) => json!(["null", narrowed]),
        (false, _) => narrowed,
    }
}

fn value(dice: &mut Dice, avro: &serde_json::Value, may_be_null: bool) -> Value {
    if let Some(branches) = avro.as_array() {
        let wants_null = may_be_null && dice.roll(3) == 0;
        let branch_idx = branches.iter().position(|branch| (branch == "null") == wants_null).unwrap();
        return Value::Union(branch_idx as u32, Box::new(value(dice, &branches[branch_idx], may_be_null)));
    }
    let small = dice.roll(90);
    match avro.as_str() {
        Some("null") => Value::Null,
        Some("boolean") => Value::Boolean(small.is_multiple_of(2)),
        Some("int") => Value::Int(small as i32),
        Some("long") => Value::Long(small as i64),
        Some("float") => Value::Float(small as f32 + 0.25),
        Some("double") => Value::Double(small as f64 + 0.1),
        Some("bytes") => Value::Bytes(dice.text().into_bytes()),
        Some("string") => Value::String(dice.text()),
        _ if avro["logicalType"] == "timestamp-micros" => Value::TimestampMicros(small as i64 * 1_000_003),
        _ if avro["type"] == "map" => Value::Map([(dice.text(), Value::Long(5))].into()),
        _ if avro["type"] == "array" => Value::Array(vec![Value::Int(1), Value::Int(2)]),
        other => panic!("{other:?} {avro}"),
    }
}

/// A writer's schema for pings: fields left out, added, changed and in another order.
fn writer(dice: &mut Dice) -> serde_json::Value {
    let reader: serde_json::Value = serde_json::from_str(Kind::Gps.avro()).unwrap();
    let mut fields = Vec::new();
    for field in reader["fields"].as_array().unwrap() {
        if field.get("default").is_some() && dice.roll(3) == 0 {
            continue;
        }
        fields.push(json!({"name": field["name"], "type": evolved(dice, &field["type"])}));
    }
    for (name, avro) in [
        ("extra_a", json!({"type": "map", "values": "long"})),
        ("extra_b", json!({"type": "array", "items": "int"})),
        ("extra_c", json!("string")),
    ] {
        if dice.roll(3) == 0 {
            fields.push(json!({"name": name, "type": avro}));
        }
    }
    for idx in (1..fields.len()).rev() {
        fields.swap(idx, dice.roll(idx as u64 + 1) as usize);
    }
    json!({"type": "record", "name": "GpsPing", "namespace": "legwork.v1", "fields": fields})
}

/// What the oracle's value looks like in a column.
fn expected(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Union(_, inner) => expected(inner),
        Value::String(text) => text.clone(),
        Value::Boolean(value) => value.to_string(),
        Value::Long(value) | Value::TimestampMicros(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Double(value) => format!("{value:?}"),
        other => panic!("{other:?}"),
    }
}

fn is_required(name: &str) -> bool {
    ["event_id", "source", "event_time", "device_id", "lat", "lon"].contains(&name)
}

fn ping(dice: &mut Dice, writer: &serde_json::Value) -> Value {
    let fields = writer["fields"].as_array().unwrap().iter().map(|field| {
        let name = field["name"].as_str().unwrap();
        (name.to_owned(), value(dice, &field["type"], !is_required(name)))
    });
    Value::Record(fields.collect())
}

/// One of ten kinds of garbage, made of a good body; none is a tombstone. With the reason that it is rejected for.
fn garbage(dice: &mut Dice, good: &[u8]) -> (Option<Vec<u8>>, Option<RejectReason>) {
    use RejectReason as R;
    let head = |schema_id: u32, body: &[u8]| Some(framed(schema_id, body));
    match dice.roll(10) {
        0 => (None, None),
        1 => (Some(Vec::new()), Some(R::BadFraming)),
        2 => (Some(good[..dice.roll(5) as usize].to_vec()), Some(R::BadFraming)),
        3 => (Some([&[1], &good[1..]].concat()), Some(R::BadFraming)),
        4 => (head(404, &good[5..]), Some(R::UnknownSchema)),
        5 => (head(99, &good[5..]), Some(R::IncompatibleSchema)),
        6 => (Some(good[..5 + dice.roll(good.len() as u64 - 5) as usize].to_vec()), Some(R::Truncated)),
        7 => (Some([good, &[0]].concat()), Some(R::TrailingBytes)),
        8 => (head(98, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some(R::Malformed)),
        _ => (Some(vec![0; MESSAGE_BYTES_MAX + 1]), Some(R::Oversized)),
    }
}

/// A record whose first field is a string: the garbage of kind 8 gives it a hostile length.
const STRINGS: &str = r#"{"type": "record", "name": "s", "fields": [
    {"name": "device_id", "type": "string"}, {"name": "event_time", "type": "long"},
    {"name": "lat", "type": "double"}, {"name": "lon", "type": "double"}]}"#;

fn mixed(seed: u64) {
    let dice = &mut Dice(seed);
    let writers: Vec<_> = (0..3).map(|_| writer(dice)).collect();
    let texts: Vec<_> = writers.iter().map(ToString::to_string).collect();
    let reader = Schema::parse_str(Kind::Gps.avro()).unwrap();
    let mut messages = Vec::new();
    let (mut rows, mut rejects, mut n_tombstones) = (Vec::new(), Vec::new(), 0);
    for message_idx in 0..60u32 {
        let writer_idx = dice.roll(3) as usize;
        let good = framed(writer_idx as u32, &body(&texts[writer_idx], ping(dice, &writers[writer_idx])));
        if dice.roll(3) == 0 {
            let (bytes, reason) = garbage(dice, &good);
            match reason {
                Some(reason) => rejects.push((100 + i64::from(message_idx), reason, bytes.clone().unwrap())),
                None => n_tombstones += 1,
            }
            messages.push(bytes);
            continue;
        }
        let schema = Schema::parse_str(&texts[writer_idx]).unwrap();
        let oracle = GenericDatumReader::builder(&schema).reader_schema(&reader).build().unwrap();
        let Value::Record(fields) = oracle.read_value(&mut &good[5..]).unwrap() else { panic!() };
        rows.push((message_idx, fields.iter().map(|(_, value)| expected(value)).collect::<Vec<_>>()));
        messages.push(Some(good));
    }
    let mut schemas: Vec<_> = texts.iter().enumerate().map(|(idx, text)| (idx as u32, text.as_str())).collect();
    schemas.extend([(98, STRINGS), (99, r#"{"type": "record", "name": "empty", "fields": []}"#)]);
    let registry = RegistryClient::fixed(schemas).unwrap();
    let mut decoder = Decoder::new(Kind::Gps, Format::Avro(registry), MESSAGE_BYTES_MAX);
    let messages = batch(messages);
    // Cut anywhere, the answer is the same.
    let cut = dice.roll(60) as usize;
    let mut head = crate::testing::batch(messages.iter().take(cut).map(|message| message.value));
    head.topic = messages.topic.clone();
    let parts = [decoder.decode(&head, 0), decoder.decode(&messages, cut)];
    let found: Vec<_> = parts
        .iter()
        .flat_map(|decoded| {
            decoded.message_rows.iter().enumerate().map(|(row, &message)| {
                (message, decoded.events.columns.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>())
            })
        })
        .collect();
    assert_eq!(found, rows);
    let rejected: Vec<_> = parts.iter().flat_map(|decoded| &decoded.rejects).collect();
    assert_eq!(rejected.len(), rejects.len());
    for (found, (offset, reason, bytes)) in rejected.into_iter().zip(rejects) {
        assert_eq!((found.offset, found.reason), (offset, reason), "{}", found.detail);
        assert_eq!(found.payload, bytes[..bytes.len().min(MESSAGE_BYTES_MAX)]);
    }
    assert_eq!(parts.iter().map(|decoded| decoded.tombstones.len()).sum::<usize>(), n_tombstones);
    assert_eq!(parts.iter().map(|decoded| decoded.n_consumed).sum::<usize>(), 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_costs_only_itself(seed in any::<u64>()) {
        mixed(seed);
    }

    /// Whatever is done to the bytes of a good body, each message is accounted for and its neighbours survive.
    #[test]
    fn flipped_bytes_cost_only_their_message(seed in any::<u64>(), flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let dice = &mut Dice(seed);
        let writer = writer(dice);
        let text = writer.to_string();
        let good = framed(1, &body(&text, ping(dice, &writer)));
        let mut bad = good.clone();
        for (at, byte) in flips {
            let at = 5 + usize::from(at) % (bad.len() - 5);
            bad[at] = byte;
        }
        let decoded = avro_decoder(Kind::Gps, &[(1, &text)]).decode(&batch([Some(&good), Some(&bad), Some(&good)]), 0);
        prop_assert_eq!(decoded.message_rows.len() + decoded.rejects.len(), 3);
        prop_assert!(decoded.message_rows.contains(&0) && decoded.message_rows.contains(&2));
        let cells = |row| decoded.events.columns.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>();
        prop_assert_eq!(cells(0), cells(decoded.message_rows.len() - 1));
    }
}

#[test]
fn decoding_stops_before_a_schema_that_is_not_known_yet() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Nothing listens there: a port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = RegistryConfig { url: url.clone(), ..RegistryConfig::default() };
    let registry = RegistryClient::new(config, runtime.handle().clone()).unwrap();
    let mut decoder = Decoder::new(Kind::Gps, Format::Avro(registry), BYTES_MAX);
    let messages = batch([None, Some(vec![1]), Some(framed(5, b"x")), None]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // While the answer is under way the batch waits in one piece; once the registry is in trouble, what is known goes on.
    let decoded = loop {
        let decoded = decoder.decode(&messages, 0);
        if decoded.blocked != Some(Blocked::Pending { schema_id: 5 }) {
            break decoded;
        }
        assert_eq!(decoded.n_consumed, 0);
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert_eq!(decoded.n_consumed, 2);
    assert_eq!((decoded.tombstones, decoded.rejects.len()), (vec![0], 1));
    let Some(Blocked::Unavailable { schema_id: 5, detail }) = decoded.blocked else { panic!("{:?}", decoded.blocked) };
    assert!(detail.contains(&url), "{detail}");
    assert_eq!(decoder.decode(&messages, 2).n_consumed, 0);
}

/// Pings whose other fields are records of nulls, each of two of the one before: the last is 2^60 fields in no byte.
fn doubling(needed: &serde_json::Value) -> String {
    let mut fields = vec![
        json!({"name": "device_id", "type": "string"}),
        json!({"name": "event_time", "type": "long"}),
        json!({"name": "lat", "type": "double"}),
        json!({"name": "lon", "type": "double"}),
        json!({"name": "l0", "type": {"type": "record", "name": "L0", "fields": [{"name": "x", "type": "null"}]}}),
    ];
    for level in 1..=60 {
        let half = |name: &str| json!({"name": name, "type": format!("L{}", level - 1)});
        let record = json!({"type": "record", "name": format!("L{level}"), "fields": [half("a"), half("b")]});
        fields.push(json!({"name": format!("l{level}"), "type": record}));
    }
    fields.push(json!({"name": "rep_id", "type": needed}));
    json!({"type": "record", "name": "GpsPing", "fields": fields}).to_string()
}

#[test]
fn no_message_takes_for_ever() {
    let body = [&[2, b'd', 10][..], &[0; 16], &[0]].concat();
    let messages = batch([1, 2, 3].map(|id| Some(framed(id, &body))));
    let writers = [json!(["null", "string"]), json!(["null", "string", "L14"]), json!(["null", "string", "L60"])];
    let writers = writers.map(|needed| doubling(&needed));
    let mut decoder = avro_decoder(Kind::Gps, &[(1, &writers[0]), (2, &writers[1]), (3, &writers[2])]);
    let decoded = decoder.decode(&messages, 0);
    let found: Vec<_> = decoded.rejects.iter().map(|reject| (reject.reason, reject.detail.as_str())).collect();
    let expected = [
        (RejectReason::Malformed, "too many values take no bytes in field l14"),
        (RejectReason::IncompatibleSchema, "the types of the needed fields have more than 10000 parts"),
        (RejectReason::IncompatibleSchema, "a needed field has a recursive type"),
    ];
    assert_eq!(found, expected);
}

/// A proxy may refuse for a while what the registry does not.
#[test]
fn a_refusal_that_may_end_ends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let n_asked = Arc::new(AtomicUsize::new(0));
    let answer = {
        let n_asked = n_asked.clone();
        move || async move {
            let schema = json!({"schema": STRINGS}).to_string();
            let refusal = r#"{"error_code": 42201, "message": "not now"}"#.to_owned();
            match n_asked.fetch_add(1, Ordering::SeqCst) {
                0 => (StatusCode::UNPROCESSABLE_ENTITY, refusal),
                _ => (StatusCode::OK, schema),
            }
        }
    };
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    let missing_for = Duration::from_millis(100);
    let config = RegistryConfig { url, missing_for, ..RegistryConfig::default() };
    let registry = RegistryClient::new(config, runtime.handle().clone()).unwrap();
    let mut decoder = Decoder::new(Kind::Gps, Format::Avro(registry), BYTES_MAX);
    let body = [&[2, b'd', 10][..], &[0; 16]].concat();
    let messages = batch([Some(framed(5, &body))]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut n_rejects = 0;
    while decoder.decode(&messages, 0).events.n_rows() == 0 {
        n_rejects += decoder.decode(&messages, 0).rejects.len();
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(n_rejects > 0);
}

#[test]
fn lanes_may_own_decoders_and_share_the_registry() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Clone + Send + Sync>() {}
    is_send::<Decoder>();
    is_shared::<RegistryClient>();
}
