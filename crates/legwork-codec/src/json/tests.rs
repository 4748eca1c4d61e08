#![allow(clippy::unwrap_used)]

use legwork_types::{Kind, MessageBatch};
use proptest::prelude::*;

use crate::testing::{BYTES_MAX, batch, column, reasons};
use crate::{Decoded, Decoder, Format};

fn decode(kind: Kind, messages: &MessageBatch) -> Decoded {
    Decoder::new(kind, Format::Json, BYTES_MAX).decode(messages, 0)
}

/// Decodes a ping with these members beside the required ones.
fn ping(members: &str) -> Decoded {
    let text = format!(r#"{{"event_time": 5, "device_id": "d", "lat": 1.5, "lon": 2{members}}}"#);
    decode(Kind::Gps, &batch([Some(text)]))
}

#[test]
fn values_come_in_several_forms() {
    let cases = [
        (r#", "event_time": "2024-02-29T12:00:00.123456Z""#, "event_time", "1709208000123456"),
        (r#", "event_time": "2024-02-29T14:00:00+02:00""#, "event_time", "1709208000000000"),
        (r#", "event_time": 1709208000123456"#, "event_time", "1709208000123456"),
        (r#", "event_time": 1709208000.0"#, "event_time", "1709208000"),
        (r#", "device_id": "\u00e4\n\"x\"""#, "device_id", "ä\n\"x\""),
        (r#", "accuracy_m": 3"#, "accuracy_m", "3.0"),
        (r#", "accuracy_m": -1"#, "accuracy_m", "-1.0"),
        (r#", "mock": true"#, "mock", "true"),
        (r#", "mock": null"#, "mock", "null"),
        (r#", "event_id": null"#, "event_id", ""),
        (r#", "sequence": 9223372036854775807"#, "sequence", "9223372036854775807"),
        (r#", "unknown": {"a": [1, {"b": null}]}"#, "lat", "1.5"),
        (r#", "lat": 7, "lat": 8"#, "lat", "8.0"),
    ];
    for (members, name, expected) in cases {
        let decoded = ping(members);
        assert_eq!(decoded.rejects, [], "{members}");
        assert_eq!(column(&decoded, name), [expected], "{members}");
    }
}

#[test]
fn faults_name_their_field() {
    let cases = [
        (r#", "lat": "1.5""#, "wrong_type", "field lat: expected a number"),
        (r#", "lat": null"#, "missing_field", "field lat is missing or null"),
        (r#", "lat": 91"#, "invalid_value", "field lat is no latitude from -90 to 90"),
        (r#", "lat": {"a": 1}"#, "wrong_type", "field lat: expected a number"),
        (r#", "lat": 1e999"#, "invalid_value", "field lat is no latitude from -90 to 90"),
        (r#", "device_id": 7"#, "wrong_type", "field device_id: expected a string"),
        (r#", "device_id": """#, "missing_field", "field device_id is empty"),
        (
            r#", "event_time": "yesterday""#,
            "wrong_type",
            "field event_time: expected a time in RFC 3339 or microseconds",
        ),
        (r#", "event_time": 1.5"#, "wrong_type", "field event_time: expected a time in RFC 3339 or microseconds"),
        (r#", "mock": 1"#, "wrong_type", "field mock: expected true or false"),
        (r#", "sequence": 1.5"#, "wrong_type", "field sequence: expected an integer"),
        (r#"} "#, "trailing_bytes", "text follows the object"),
    ];
    for (members, reason, detail) in cases {
        assert_eq!(reasons(&ping(members)), [(reason, detail)], "{members}");
    }
}

#[test]
fn texts_that_are_no_object_are_malformed() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_member = format!(r#"{{"unknown": {deep}, "event_time": 5, "device_id": "d", "lat": 1, "lon": 2}}"#);
    let cases: [(&[u8], &str); 10] = [
        (b"", "truncated"),
        (b"null", "malformed"),
        (b"[]", "malformed"),
        (b"7", "malformed"),
        (b"\"text\"", "malformed"),
        (b"{\"lat\": ", "truncated"),
        (b"{'lat': 1}", "malformed"),
        (b"{\"device_id\": \"\xff\"}", "malformed"),
        (b"{}", "missing_field"),
        (deep.as_bytes(), "malformed"),
    ];
    for (text, reason) in cases {
        let decoded = decode(Kind::Gps, &batch([Some(text)]));
        assert_eq!(
            decoded.rejects[0].reason.as_str(),
            reason,
            "{:?}",
            String::from_utf8_lossy(&text[..text.len().min(40)])
        );
        assert_eq!(decoded.rejects[0].payload, text);
    }
    assert_eq!(decode(Kind::Gps, &batch([Some(deep_member)])).rejects, []);
}

#[test]
fn money_dates_and_lists_are_exact() {
    let deal = |members: &str| {
        let text = format!(r#"{{"event_time": 5, "deal_id": "d", {members}}}"#);
        decode(Kind::DealEvents, &batch([Some(text)]))
    };
    let cases = [
        (r#""amount": 12345678901234.5678"#, "amount", "123456789012345678"),
        (r#""amount": "12345678901234.5678""#, "amount", "123456789012345678"),
        (r#""amount": 1e3"#, "amount", "10000000"),
        (r#""close_date": "1970-02-01""#, "close_date", "31"),
        (r#""close_date": 31"#, "close_date", "31"),
        (r#""cleared": ["stage", "amount"]"#, "cleared", "stage;amount"),
        (r#""cleared": []"#, "cleared", ""),
    ];
    for (members, name, expected) in cases {
        let decoded = deal(members);
        assert_eq!(decoded.rejects, [], "{members}");
        assert_eq!(column(&decoded, name), [expected], "{members}");
    }
    let cases = [
        (r#""amount": 0.00001"#, "invalid_value"),
        (r#""amount": "much""#, "wrong_type"),
        (r#""amount": true"#, "wrong_type"),
        (r#""close_date": "1970-13-01""#, "wrong_type"),
        (r#""cleared": "stage""#, "wrong_type"),
        (r#""cleared": [null]"#, "wrong_type"),
        (r#""probability": 1.01"#, "invalid_value"),
        (r#""currency": "EURO""#, "invalid_value"),
    ];
    for (members, reason) in cases {
        assert_eq!(deal(members).rejects[0].reason.as_str(), reason, "{members}");
    }
    let calendar = r#"{"calendar_id": "c", "time_zone": "UTC", "working_hours": [], "holidays": ["1970-01-02", 3]}"#;
    assert_eq!(column(&decode(Kind::Calendars, &batch([Some(calendar)])), "holidays"), ["1;3"]);
}

proptest! {
    /// Whatever bytes come, each message is accounted for once and the good ones among them survive.
    #[test]
    fn any_bytes_cost_only_themselves(noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let good = r#"{"event_time": 5, "device_id": "d", "lat": 1.5, "lon": 2}"#;
        let mut values = Vec::new();
        for bytes in &noise {
            values.push(Some(bytes.clone()));
            values.push(Some(good.as_bytes().to_vec()));
        }
        let decoded = decode(Kind::Gps, &batch(values));
        prop_assert_eq!(decoded.n_consumed, noise.len() * 2);
        prop_assert_eq!(decoded.message_rows, (0..noise.len() as u32).map(|idx| idx * 2 + 1).collect::<Vec<_>>());
        prop_assert_eq!(decoded.rejects.len(), noise.len());
    }
}
