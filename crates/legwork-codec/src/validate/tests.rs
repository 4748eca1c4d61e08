#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{Array, Float64Array, RecordBatch};
use arrow::compute::concat_batches;
use legwork_types::{Kind, gps};

use super::validate;

use crate::testing::{BYTES_MAX, batch, column, reasons};
use crate::{Decoded, Decoder, Format};

fn decode(kind: Kind, text: &str) -> Decoded {
    Decoder::new(kind, Format::Json, BYTES_MAX).decode(&batch([Some(text)]), 0)
}

#[test]
fn what_stands_for_unknown_becomes_null() {
    let decoded = decode(
        Kind::Gps,
        r#"{"event_time": 5, "device_id": "d", "lat": 1, "lon": 2, "rep_id": "", "accuracy_m": 1e39, "speed_mps": -1,
            "course_deg": -0.5, "altitude_m": -12.5, "battery_pct": 1e39, "odometer_m": 7}"#,
    );
    assert_eq!(decoded.rejects, []);
    for (name, expected) in [
        ("rep_id", "null"),
        ("accuracy_m", "null"),
        ("speed_mps", "null"),
        ("course_deg", "null"),
        ("altitude_m", "-12.5"),
        ("battery_pct", "null"),
        ("odometer_m", "7.0"),
    ] {
        assert_eq!(column(&decoded, name), [expected], "{name}");
    }
}

/// By it a device says that it does not trust the fix, which is not the same as to say nothing.
#[test]
fn a_negative_accuracy_stays() {
    for (kind, text) in [
        (Kind::Gps, r#"{"event_time": 5, "device_id": "d", "lat": 1, "lon": 2, "accuracy_m": -1}"#),
        (
            Kind::CheckIns,
            r#"{"event_time": 5, "check_in_id": "c", "rep_id": "r", "account_id": "a", "kind": "in", "accuracy_m": -1}"#,
        ),
    ] {
        let decoded = decode(kind, text);
        assert_eq!((reasons(&decoded), column(&decoded, "accuracy_m")), (vec![], vec!["-1.0".to_owned()]));
    }
}

#[test]
fn faults_come_by_row() {
    let bad = r#"{"event_time": 5, "device_id": "d", "lat": 91, "lon": 181}"#;
    let lines = batch([Some(bad), Some(bad)]);
    let columns = Decoder::new(Kind::Gps, Format::Json, BYTES_MAX)
        .decode(&batch([Some(&bad.replace("91", "1").replace("181", "1"))]), 0);
    assert_eq!(columns.rejects, []);
    let one = columns.events.columns;
    let mut arrays = one.columns().to_vec();
    for (column, value) in [(gps::LAT, 91.0), (gps::LON, 181.0)] {
        arrays[column] = Arc::new(Float64Array::from(vec![value]));
    }
    let wrong = RecordBatch::try_new(one.schema(), arrays).unwrap();
    let wrong = concat_batches(&one.schema(), [&wrong, &wrong]).unwrap();
    let found: Vec<_> = validate(Kind::Gps, &wrong).into_iter().map(|(row, _, detail)| (row, detail)).collect();
    let (lat, lon) = ("field lat is no latitude from -90 to 90", "field lon is no longitude from -180 to 180");
    assert_eq!(found, [(0, lat), (0, lon), (1, lat), (1, lon)].map(|(row, detail)| (row, detail.to_owned())));
    assert_eq!(Decoder::new(Kind::Gps, Format::Json, BYTES_MAX).decode(&lines, 0).rejects.len(), 2);
}

#[test]
fn each_check_names_its_field() {
    let cases = [
        (
            Kind::Gps,
            r#"{"event_time": 5, "device_id": "d", "lat": -90.1, "lon": 2}"#,
            "lat is no latitude from -90 to 90",
        ),
        (
            Kind::Gps,
            r#"{"event_time": 5, "device_id": "d", "lat": 1, "lon": 180.1}"#,
            "lon is no longitude from -180 to 180",
        ),
        (
            Kind::Gps,
            r#"{"event_time": 253402300800000000, "device_id": "d", "lat": 1, "lon": 2}"#,
            "event_time is outside the years 1 to 9999",
        ),
        (Kind::Shifts, r#"{"event_time": 5, "rep_id": "r", "kind": "off-ish"}"#, "kind is none of on, off"),
        (
            Kind::Costs,
            r#"{"event_time": 5, "team_id": "t", "kind": "sales", "amount": -1, "currency": "EUR"}"#,
            "amount is negative",
        ),
        (
            Kind::Costs,
            r#"{"event_time": 5, "team_id": "t", "kind": "sales", "amount": 1, "currency": "E1R"}"#,
            "currency is no code of three letters",
        ),
        (
            Kind::Meetings,
            r#"{"event_time": 5, "meeting_id": "m", "rep_id": "r", "scheduled_start": 6, "scheduled_end": 5, "status": "held"}"#,
            "scheduled_end is before scheduled_start",
        ),
        (
            Kind::FxRates,
            r#"{"currency": "EUR", "as_of": 3000000, "rate_to_base": 1}"#,
            "as_of is outside the years 1 to 9999",
        ),
        (
            Kind::Accounts,
            r#"{"account_id": "a", "lat": 1, "lon": 2, "radius_m": -5}"#,
            "radius_m is not finite or negative",
        ),
    ];
    for (kind, text, detail) in cases {
        assert_eq!(reasons(&decode(kind, text)), [("invalid_value", format!("field {detail}").as_str())], "{text}");
    }
    let decoded = decode(Kind::Teams, r#"{"team_id": ""}"#);
    assert_eq!(reasons(&decoded), [("missing_field", "field team_id is empty")]);
}

#[test]
fn values_at_the_edges_are_well() {
    let cases = [
        (Kind::Gps, r#"{"event_time": -62135596800000000, "device_id": "d", "lat": -90, "lon": 180}"#),
        (Kind::DealEvents, r#"{"event_time": 253402300799999999, "deal_id": "d", "probability": 1, "amount": -5}"#),
        (Kind::Accounts, r#"{"account_id": "a"}"#),
        (
            Kind::Meetings,
            r#"{"event_time": 5, "meeting_id": "m", "rep_id": "r", "scheduled_start": 6, "scheduled_end": 6, "status": "held"}"#,
        ),
    ];
    for (kind, text) in cases {
        assert_eq!(reasons(&decode(kind, text)), [], "{text}");
    }
}

#[test]
fn keys_come_with_reference_kinds_only() {
    let messages = batch([Some(r#"{"team_id": "t"}"#), Some("{}"), None]);
    let decoded = Decoder::new(Kind::Teams, Format::Json, BYTES_MAX).decode(&messages, 0);
    let keys = decoded.events.keys.unwrap();
    assert_eq!((keys.len(), keys.value(0)), (1, &b"key"[..]));
    assert!(decode(Kind::Shifts, r#"{"event_time": 5, "rep_id": "r", "kind": "on"}"#).events.keys.is_none());
}
