//! Time a message, by hand: `cargo t legwork-codec -- --ignored --nocapture bench`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::Instant;

use apache_avro::types::Value;
use legwork_types::{Kind, MessageBatch};

use crate::testing::{BYTES_MAX, avro_decoder, batch, body, framed, none, record, some};
use crate::{Decoder, Format};

const N_MESSAGES: usize = 8_192;

/// Pings as a phone writes them: 71 bytes with the framing, four of the optional fields set.
fn pings() -> MessageBatch {
    let value = |idx: usize| {
        record(vec![
            ("event_id", Value::String(String::new())),
            ("source", Value::String("app".to_owned())),
            ("event_time", Value::TimestampMicros(1_700_000_000_000_000 + idx as i64)),
            ("sequence", none()),
            ("device_id", Value::String(format!("device-{:05}", idx % 10_000))),
            ("rep_id", none()),
            ("sent_time", none()),
            ("lat", Value::Double(52.5 + idx as f64 * 1e-6)),
            ("lon", Value::Double(13.4)),
            ("accuracy_m", some(Value::Float(5.0))),
            ("speed_mps", some(Value::Float(3.0))),
            ("course_deg", none()),
            ("altitude_m", none()),
            ("moving", some(Value::Boolean(true))),
            ("odometer_m", none()),
            ("battery_pct", some(Value::Float(80.0))),
            ("mock", none()),
        ])
    };
    batch((0..N_MESSAGES).map(|idx| Some(framed(1, &body(Kind::Gps.avro(), value(idx))))))
}

/// Nanoseconds a message, the best of many rounds.
fn best_ns(decoder: &mut Decoder, messages: &MessageBatch) -> f64 {
    let rounds = (0..60).map(|_| {
        let start = Instant::now();
        let decoded = decoder.decode(messages, 0);
        assert_eq!(decoded.message_rows.len(), N_MESSAGES);
        start.elapsed().as_nanos() as f64 / N_MESSAGES as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "a bench"]
fn bench_pings() {
    let messages = pings();
    let n_bytes = messages.get(0).value.unwrap().len();
    let whole = best_ns(&mut avro_decoder(Kind::Gps, &[(1, Kind::Gps.avro())]), &messages);
    println!("avro, {n_bytes} bytes a message: {whole:.1} ns");
    let extra = Kind::Gps.avro().replacen("\"name\": \"course_deg\"", "\"name\": \"heading\"", 1);
    let cut = best_ns(&mut avro_decoder(Kind::Gps, &[(1, &extra)]), &messages);
    println!("avro, one field not needed: {cut:.1} ns");
    let text = r#"{"event_time": 1700000000000000, "source": "app", "device_id": "device-00017", "lat": 52.5, "lon": 13.4, "accuracy_m": 5}"#;
    let json = batch(std::iter::repeat_n(Some(text), N_MESSAGES));
    println!("json: {:.1} ns", best_ns(&mut Decoder::new(Kind::Gps, Format::Json, BYTES_MAX), &json));
}
