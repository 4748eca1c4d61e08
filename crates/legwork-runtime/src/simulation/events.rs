//! Messages as a field organisation makes them: late, edited, repeated, broken.

use legwork_types::{Kind, LaneId};
use serde_json::{Value, json};

use super::faults::Dice;
use super::log::Record;

const SECOND_US: i64 = 1_000_000;
/// 2026-01-05 08:00 UTC.
pub(super) const START_US: i64 = 1_767_600_000 * SECOND_US;

/// The next message of a lane, when `passed_s` seconds of the story have passed.
pub(super) fn message(dice: &Dice, lane: &LaneId, kind: Kind, passed_s: i64) -> Record {
    let arrival_us = START_US + passed_s * SECOND_US;
    let late_s = match dice.below(20) {
        0..14 => dice.between(0, 30),
        14..17 => dice.between(30, 3_600),
        17..19 => dice.between(3_600, 5 * 3_600),
        _ => dice.between(5 * 3_600, 30 * 3_600),
    };
    let event_time = arrival_us - late_s * SECOND_US;
    let n = dice.below(1_500);
    let mut event = json!({"event_id": format!("e{n}"), "source": "sim", "event_time": event_time});
    let (key, more) = match kind {
        Kind::Gps => ping(dice, lane, event_time),
        Kind::Calls => call(dice, event_time),
        Kind::Emails => email(dice),
        _ => deal(dice),
    };
    merge(&mut event, more);
    let value = match dice.below(40) {
        0 => Some(b"{\"event_id\": 7".to_vec()),
        1 => None,
        2 => {
            event["event_time"] = json!(arrival_us + 3_600 * SECOND_US);
            Some(event.to_string().into_bytes())
        }
        _ => Some(event.to_string().into_bytes()),
    };
    Record { key: key.into_bytes(), value, arrival_us }
}

fn merge(event: &mut Value, more: Value) {
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
}

/// A device on its way round a circle, with pauses, jumps and noise.
fn ping(dice: &Dice, lane: &LaneId, event_time: i64) -> (String, Value) {
    let device = format!("d{}-{}", lane.partition, dice.below(4));
    let passed_s = (event_time - START_US) / SECOND_US;
    let is_resting = (passed_s / 1_200) % 3 == 0;
    let angle = if is_resting { (passed_s / 1_200) as f64 } else { passed_s as f64 / 1_200.0 };
    let noise = dice.between(-50, 50) as f64 * 1e-7;
    let jump = if dice.below(30) == 0 { 0.5 } else { 0.0 };
    let (lat, lon) = (52.0 + 0.1 * angle.sin() + noise + jump, 13.0 + 0.1 * angle.cos() + noise);
    let rep = (dice.below(10) == 0).then(|| format!("r{}", dice.below(2)));
    let accuracy = dice.between(3, 60);
    (
        device.clone(),
        json!({"device_id": device, "rep_id": rep, "lat": lat, "lon": lon, "accuracy_m": accuracy, "mock": dice.below(50) == 0}),
    )
}

fn call(dice: &Dice, event_time: i64) -> (String, Value) {
    let call = dice.below(60);
    let rep = format!("r{}", call % 5);
    let start = (dice.below(3) > 0).then(|| event_time - dice.between(0, 7_200) * SECOND_US);
    let status = ["completed", "no_answer", "busy"][dice.below(3)];
    let direction = ["inbound", "outbound"][dice.below(2)];
    let call_id = format!("c{call}");
    let duration = dice.between(0, 900);
    let deal = (dice.below(2) == 0).then(|| format!("deal{}", dice.below(5)));
    let call = json!({"call_id": call_id, "rep_id": rep, "direction": direction, "status": status, "start_time": start, "duration_s": duration, "deal_id": deal});
    (rep, call)
}

fn email(dice: &Dice) -> (String, Value) {
    let rep = format!("r{}", dice.below(5));
    let kind = ["sent", "received", "opened", "bounced", "replied"][dice.below(5)];
    let deal = (dice.below(2) == 0).then(|| format!("deal{}", dice.below(5)));
    let email = json!({"message_id": format!("m{}", dice.below(100)), "rep_id": rep, "kind": kind, "peer": "p", "deal_id": deal});
    (rep, email)
}

fn deal(dice: &Dice) -> (String, Value) {
    let deal = format!("deal{}", dice.below(12));
    let mut patch = json!({"deal_id": deal});
    match dice.below(5) {
        0 => patch["owner_id"] = json!(format!("r{}", dice.below(5))),
        1 => patch["amount"] = json!(format!("{}.50", dice.below(1_000))),
        2 => patch["cleared"] = json!(["owner_id"]),
        _ => patch["stage"] = json!(["lead", "offer", "won", "lost"][dice.below(4)]),
    }
    if dice.below(10) == 0 {
        patch["deleted"] = json!(dice.below(2) == 0);
    }
    (deal, patch)
}
