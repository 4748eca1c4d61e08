//! Activity against naive oracles: sort, keep, count, over plain JSON.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use legwork_types::Kind;
use legwork_types::time::{DAY_US, HOUR_US, LaneClock, MINUTE_US, SECOND_US};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::checkpoints::{Store, check_checkpoints, plan, remembering};
use crate::testing::{
    Arrival, Row, Tables, arrivals, batch, cases, check_arrivals, check_at_every_moment, clock, event, number, row,
    script, text,
};
use crate::{Operator, OperatorConfig, operator_for};

const WIDTH_US: i64 = 5 * MINUTE_US;
/// A Monday.
const START_US: i64 = 1_767_600_000 * SECOND_US;

/// Newest version of each id: by event_time, then sequence (none first), then event_id.
fn newest<'a>(accepted: &'a [Value], id: &str) -> BTreeMap<&'a str, &'a Value> {
    let mut versions: Vec<&Value> = accepted.iter().collect();
    versions.sort_by_key(|event| (number(event, "event_time"), number(event, "sequence"), text(event, "event_id")));
    versions.into_iter().map(|event| (text(event, id), event)).collect()
}

fn sum<'a>(parts: impl Iterator<Item = (&'a str, i64, Value)>) -> Vec<Row> {
    let mut windows: BTreeMap<(&str, i64), Row> = BTreeMap::new();
    for (rep, time_us, counts) in parts {
        let start_us = time_us - time_us.rem_euclid(WIDTH_US);
        let window = windows.entry((rep, start_us)).or_insert_with(|| {
            row(json!({"rep_id": rep, "window_start": start_us, "window_end": start_us + WIDTH_US}))
        });
        for (column, value) in counts.as_object().unwrap() {
            let sum = window.entry(column.clone()).or_insert(json!(0));
            *sum = match (sum.as_i64(), value.as_i64()) {
                (Some(a), Some(b)) => json!(a + b),
                _ => json!(sum.as_f64().unwrap() + value.as_f64().unwrap()),
            };
        }
    }
    windows
        .into_values()
        .filter(|window| window.iter().any(|(column, n)| column.starts_with("n_") && *n != json!(0)))
        .collect()
}

fn touch(event: &Value, id: &str, time_us: i64, channel: &str, direction: Option<&str>) -> Row {
    row(json!({
        "rep_id": event["rep_id"], "event_time": time_us, "channel": channel, "direction": direction, "touch_id": id,
        "deal_id": event["deal_id"], "lead_id": event["lead_id"], "account_id": event["account_id"],
    }))
}

fn fact_id(event: &Value) -> String {
    format!("{}/{}", text(event, "source"), text(event, "event_id"))
}

fn calls(accepted: &[Value]) -> Tables {
    let calls = newest(accepted, "call_id");
    let time_us = |call: &Value| number(call, "start_time").or(number(call, "event_time")).unwrap();
    let parts = calls.values().map(|call| {
        let is_completed = call["status"] == "completed";
        let from_times = || Some((number(call, "end_time")? - number(call, "start_time")?).max(0) as f64 / 1e6);
        let talk_s = call["duration_s"].as_f64().or_else(|| from_times().filter(|_| is_completed)).unwrap_or(0.0);
        let is_inbound = call["direction"] == "inbound";
        let counts = json!({
            "n_calls": 1, "n_connected": i64::from(is_completed), "n_inbound": i64::from(is_inbound),
            "n_outbound": i64::from(!is_inbound), "talk_s": talk_s.max(0.0),
        });
        (text(call, "rep_id"), time_us(call), counts)
    });
    let touches =
        calls.iter().map(|(id, call)| touch(call, id, time_us(call), "call", call["direction"].as_str())).collect();
    Tables::from([("rep_calls", sum(parts)), ("touches", touches)])
}

fn meetings(accepted: &[Value]) -> Tables {
    let meetings = newest(accepted, "meeting_id");
    let parts = meetings.values().map(|meeting| {
        let n = |status: &str| i64::from(meeting["status"] == status);
        let counts = json!({
            "n_scheduled": n("scheduled") + n("held") + n("no_show"), "n_held": n("held"), "n_no_show": n("no_show"),
            "n_canceled": n("canceled"),
        });
        (text(meeting, "rep_id"), number(meeting, "scheduled_start").unwrap(), counts)
    });
    let held = meetings.iter().filter(|(_, meeting)| meeting["status"] == "held");
    let touches =
        held.map(|(id, meeting)| touch(meeting, id, number(meeting, "scheduled_start").unwrap(), "meeting", None));
    Tables::from([("rep_meetings", sum(parts)), ("touches", touches.collect())])
}

fn tasks(accepted: &[Value]) -> Tables {
    let tasks = newest(accepted, "task_id");
    let parts = tasks.values().map(|task| {
        let time_us = number(task, "due_time").or(number(task, "event_time")).unwrap();
        let counts = json!({"n_due": 1, "n_completed": i64::from(!task["completed_time"].is_null())});
        (text(task, "rep_id"), time_us, counts)
    });
    Tables::from([("rep_tasks", sum(parts))])
}

fn emails(accepted: &[Value]) -> Tables {
    let parts = accepted.iter().map(|email| {
        let n = |kind: &str| i64::from(email["kind"] == kind);
        let by_human = i64::from(email["machine"] != true);
        let counts = json!({
            "n_sent": n("sent"), "n_received": n("received"), "n_opened": n("opened") * by_human,
            "n_clicked": n("clicked") * by_human, "n_bounced": n("bounced"), "n_replied": n("replied"),
        });
        (text(email, "rep_id"), number(email, "event_time").unwrap(), counts)
    });
    let direction = |kind: &str| match kind {
        "sent" => Some("outbound"),
        "received" | "replied" => Some("inbound"),
        _ => None,
    };
    let touches = accepted.iter().filter_map(|email| {
        let direction = direction(text(email, "kind"))?;
        Some(touch(email, &fact_id(email), number(email, "event_time").unwrap(), "email", Some(direction)))
    });
    Tables::from([("rep_emails", sum(parts)), ("touches", touches.collect())])
}

fn messages(accepted: &[Value]) -> Tables {
    let parts = accepted.iter().map(|message| {
        let n = |direction: &str| i64::from(message["direction"] == direction);
        let counts = json!({"n_messages": 1, "n_inbound": n("inbound"), "n_outbound": n("outbound")});
        (text(message, "rep_id"), number(message, "event_time").unwrap(), counts)
    });
    let touches = accepted.iter().map(|message| {
        let time_us = number(message, "event_time").unwrap();
        touch(message, &fact_id(message), time_us, "message", message["direction"].as_str())
    });
    Tables::from([("rep_messages", sum(parts)), ("touches", touches.collect())])
}

fn name(prefix: &'static str, n: usize) -> impl Strategy<Value = String> {
    (0..n).prop_map(move |idx| format!("{prefix}{idx}"))
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

fn maybe<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(strategy)
}

/// Times within `span_us`, on a coarse grid so that some are equal.
fn time(span_us: i64) -> impl Strategy<Value = i64> {
    (0..60i64).prop_map(move |step| START_US + step * (span_us / 60))
}

fn concerns() -> impl Strategy<Value = Value> {
    (maybe(name("deal", 3)), maybe(name("lead", 3)), maybe(name("account", 3)))
        .prop_map(|(deal, lead, account)| json!({"deal_id": deal, "lead_id": lead, "account_id": account}))
}

fn join(a: Value, b: Value) -> Value {
    let (Value::Object(mut a), Value::Object(b)) = (a, b) else { panic!("two objects") };
    a.extend(b);
    Value::Object(a)
}

fn fields(kind: Kind, span_us: i64) -> BoxedStrategy<Value> {
    let direction = one_of(&["inbound", "outbound"]);
    let fields = match kind {
        Kind::Calls => (
            (name("call", 6), name("rep", 3), direction, one_of(&["completed", "no_answer", "voicemail"])),
            (maybe(time(span_us)), maybe(time(span_us)), maybe((-10..2000i32).prop_map(|n| f64::from(n) / 8.0))),
        )
            .prop_map(|((call, rep, direction, status), (start, end, duration_s))| {
                json!({"call_id": call, "rep_id": rep, "direction": direction, "status": status, "start_time": start,
                    "end_time": end, "duration_s": duration_s})
            })
            .boxed(),
        Kind::Emails => {
            let kinds = &["sent", "received", "delivered", "opened", "clicked", "bounced", "replied"];
            (name("message", 9), name("rep", 3), one_of(kinds), maybe(any::<bool>()))
                .prop_map(|(message, rep, kind, machine)| {
                    json!({"message_id": message, "rep_id": rep, "kind": kind, "machine": machine})
                })
                .boxed()
        }
        Kind::Messages => (name("rep", 3), one_of(&["sms", "chat"]), direction)
            .prop_map(|(rep, channel, direction)| {
                json!({"message_id": "m", "rep_id": rep, "channel": channel, "direction": direction})
            })
            .boxed(),
        Kind::Meetings => (
            (name("meeting", 5), name("rep", 3), time(span_us)),
            one_of(&["scheduled", "held", "canceled", "no_show"]),
        )
            .prop_map(|((meeting, rep, start), status)| {
                json!({"meeting_id": meeting, "rep_id": rep, "scheduled_start": start, "scheduled_end": start + HOUR_US,
                    "status": status})
            })
            .boxed(),
        Kind::Tasks => (name("task", 5), name("rep", 3), maybe(time(span_us)), maybe(time(span_us)))
            .prop_map(|(task, rep, due, completed)| {
                json!({"task_id": task, "rep_id": rep, "kind": "call", "due_time": due, "completed_time": completed})
            })
            .boxed(),
        other => panic!("{other} is no activity"),
    };
    let refs: BoxedStrategy<Value> = match kind {
        Kind::Meetings => {
            concerns().prop_map(|refs| json!({"deal_id": refs["deal_id"], "account_id": refs["account_id"]})).boxed()
        }
        Kind::Tasks => concerns().prop_map(|refs| json!({"deal_id": refs["deal_id"]})).boxed(),
        _ => concerns().boxed(),
    };
    (fields, refs).prop_map(|(fields, refs)| join(fields, refs)).boxed()
}

fn events(kind: Kind, span_us: i64) -> impl Strategy<Value = Vec<Value>> {
    let one = (time(span_us), maybe(0..3i64), fields(kind, span_us));
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered.map(|(n, (time_us, sequence, fields))| event(n, time_us, sequence, fields)).collect()
    })
}

macro_rules! activity {
    ($($name:ident: $kind:expr, $oracle:expr;)*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(cases())]

                #[test]
                fn is_a_function_of_the_set_of_events(
                    (events, one, other) in events($kind, 6 * HOUR_US).prop_flat_map(|events| {
                        let n = events.len();
                        (Just(events), arrivals(n), arrivals(n))
                    })
                ) {
                    check_arrivals($kind, &OperatorConfig::default(), &events, [&one, &other], $oracle)?;
                }

                #[test]
                fn goes_on_from_checkpoints(
                    (events, arrival, plan) in (0..2usize).prop_flat_map(|long| {
                        events($kind, [6 * HOUR_US, 30 * DAY_US][long])
                    }).prop_flat_map(|events| {
                        let n = events.len();
                        (Just(events), arrivals(n), plan())
                    }),
                    has_store in any::<bool>(),
                ) {
                    let config = OperatorConfig { has_store, ..remembering() };
                    check_checkpoints($kind, &config, &events, &arrival, &plan)?;
                }

                #[test]
                fn stays_right_when_events_come_too_late(
                    (events, arrival) in events($kind, 30 * DAY_US).prop_flat_map(|events| {
                        let n = events.len();
                        (Just(events), arrivals(n))
                    })
                ) {
                    check_at_every_moment($kind, &OperatorConfig::default(), &events, &arrival, $oracle)?;
                }
            }
        }
    )*};
}

activity! {
    calls_: Kind::Calls, calls;
    emails_: Kind::Emails, emails;
    messages_: Kind::Messages, messages;
    meetings_: Kind::Meetings, meetings;
    tasks_: Kind::Tasks, tasks;
}

/// Weeks of events, mostly in order, some of them days late; of entities, newer versions also after weeks.
fn long(kind: Kind, seed: u64, n_events: usize) -> Vec<Value> {
    let mut state = seed;
    let mut random = |n: u64| {
        // Knuth's multiplier for linear congruential generators.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % n) as i64
    };
    let make = |n: usize| {
        let late_us = if random(5) == 0 { random(9 * 24) * HOUR_US } else { 0 };
        let rep = format!("rep{}", random(3).min(n as i64 / 50));
        let (kind_of, direction) =
            (["sent", "opened"][random(2) as usize], ["inbound", "outbound"][random(2) as usize]);
        let entity = if random(3) == 0 { random(n as u64 + 1) } else { n as i64 };
        let time_us = START_US + n as i64 * 2 * HOUR_US - late_us;
        let place_us = time_us - random(20) * DAY_US;
        let status = ["held", "scheduled", "canceled"][random(3) as usize];
        let fields = match kind {
            Kind::Calls => {
                json!({"call_id": format!("c{entity}"), "rep_id": rep, "direction": direction, "status": "completed",
                "start_time": place_us, "duration_s": random(900) as f64, "account_id": format!("a{}", entity % 7)})
            }
            Kind::Meetings => json!({"meeting_id": format!("m{entity}"), "rep_id": rep, "status": status,
                "scheduled_start": place_us, "scheduled_end": place_us + HOUR_US, "account_id": format!("a{}", entity % 7)}),
            Kind::Tasks => json!({"task_id": format!("t{entity}"), "rep_id": rep, "kind": "call", "due_time": place_us,
                "completed_time": (random(2) == 0).then_some(time_us)}),
            Kind::Emails => json!({"message_id": "m", "rep_id": rep, "kind": kind_of}),
            _ => json!({"message_id": "m", "rep_id": rep, "channel": "sms", "direction": direction}),
        };
        event(n, time_us, None, fields)
    };
    (0..n_events).map(make).collect()
}

const ALL: [Kind; 5] = [Kind::Calls, Kind::Emails, Kind::Messages, Kind::Meetings, Kind::Tasks];

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 4 + 1, ..cases() })]

    #[test]
    fn what_is_done_leaves_memory_and_nothing_else_changes(
        kind in prop::sample::select(ALL.to_vec()), seed in any::<u64>(), cuts in prop::collection::vec(prop::bool::weighted(0.1), 400),
        plan in plan(),
    ) {
        let events = long(kind, seed, 400);
        let config = OperatorConfig { has_store: true, ..remembering() };
        check_checkpoints(kind, &config, &events, &Arrival::in_order(cuts), &plan)?;
    }
}

#[test]
fn with_a_store_facts_do_not_pile_up() {
    for kind in [Kind::Emails, Kind::Messages] {
        let [mut with, mut without] = [true, false].map(|has_store| {
            operator_for(kind, &OperatorConfig { has_store, n_entities_min: 4, ..OperatorConfig::default() })
        });
        let mut n_stored = [0; 2];
        let (mut store, mut store_without) = (Store::default(), Store::default());
        for (n, part) in long(kind, 7, 400).chunks(20).enumerate() {
            let (batch, now) = (batch(kind, part, 20 * n as i64), clock(n as u32 + 1));
            assert_eq!(with.apply(&batch, &now), without.apply(&batch, &now));
            store.apply(with.checkpoint(&now).hot);
            store_without.apply(without.checkpoint(&now).hot);
            n_stored = [&store, &store_without].map(|store| store.0.values().map(Vec::len).sum::<usize>());
        }
        let n_rows =
            |operator: &mut dyn Operator| crate::testing::tables(operator).values().map(Vec::len).sum::<usize>();
        let (n_with, n_without) = (n_rows(with.as_mut()), n_rows(without.as_mut()));
        assert!(n_with < 200 && n_without > 350, "{n_with} rows against {n_without}");
        assert!(n_stored[0] < n_stored[1], "{n_stored:?} bytes");
    }
}

#[test]
fn with_a_store_entities_leave_memory_and_come_back() {
    for kind in [Kind::Calls, Kind::Meetings, Kind::Tasks] {
        let [mut operator, mut without] = [true, false].map(|has_store| {
            operator_for(kind, &OperatorConfig { has_store, n_entities_min: 4, ..OperatorConfig::default() })
        });
        let (mut store, mut store_without) = (Store::default(), Store::default());
        let (mut newest_us, mut n_brought) = (i64::MIN, 0);
        for (n, part) in long(kind, 3, 1500).chunks(5).enumerate() {
            let batch = batch(kind, part, 5 * n as i64);
            newest_us = batch.event_time_us().iter().copied().fold(newest_us, i64::max);
            let now = LaneClock { newest_us, ..clock(n as u32 + 1) };
            n_brought += u32::from(store.supply(operator.as_mut(), &batch, &now));
            assert_eq!(operator.apply(&batch, &now), without.apply(&batch, &now));
            let changes = operator.checkpoint(&now);
            store.apply(changes.hot);
            store.keep(changes.cold);
            operator.committed(now.revision);
            store_without.apply(without.checkpoint(&now).hot);
        }
        // What is hot in the store is what is in memory.
        let n_bytes = |store: &Store| store.0.values().map(Vec::len).sum::<usize>();
        let (n_with, n_without) = (n_bytes(&store), n_bytes(&store_without));
        assert!(n_brought > 10, "{kind}: {n_brought} batches needed what had left");
        assert!(3 * n_with < 2 * n_without, "{kind}: {n_with} bytes, where nothing leaves {n_without}");
    }
}

#[test]
fn oracles_know_their_duplicates() {
    // The oracles of facts count what was accepted: that must hold no duplicate.
    let email = event(1, START_US, None, json!({"message_id": "m", "rep_id": "r", "kind": "sent"}));
    let mut operator = operator_for(Kind::Emails, &OperatorConfig::default());
    let verdicts = operator.apply(&batch(Kind::Emails, &[email.clone(), email.clone()], 0), &clock(1));
    assert_eq!(verdicts.refused, [(1, legwork_types::Verdict::Duplicate)]);
    let verdicts = operator.apply(&batch(Kind::Emails, &[email], 2), &clock(2));
    assert_eq!(verdicts.refused, [(0, legwork_types::Verdict::Duplicate)]);
}

proptest! {
    #![proptest_config(cases())]

    /// Versions that agree in time, sequence and event id differ in source and content only: still the same one wins.
    #[test]
    fn ties_are_broken_the_same_way_in_any_order(
        fields in prop::collection::vec((fields(Kind::Calls, HOUR_US), any::<bool>()), 2..6).prop_shuffle()
    ) {
        let events: Vec<Value> = fields
            .into_iter()
            .map(|(fields, from_crm)| event(if from_crm { 3 } else { 1 }, START_US, None, fields))
            .map(|mut event| { event["event_id"] = json!("same"); event["call_id"] = json!("one"); event })
            .collect();
        let table = |events: &[Value]| {
            let mut operator = operator_for(Kind::Calls, &OperatorConfig::default());
            operator.apply(&batch(Kind::Calls, events, 0), &clock(1));
            crate::testing::tables(operator.as_mut())
        };
        let forward = table(&events);
        let backward: Vec<Value> = events.iter().rev().cloned().collect();
        prop_assert_eq!(&forward, &table(&backward));
        let ids: BTreeSet<String> = forward["touches"].iter().map(|row| row["touch_id"].to_string()).collect();
        prop_assert_eq!(ids.len(), 1);
    }
}

/// Applies one event after the other, shows what became of each, then a table.
fn play(kind: Kind, events: &[Value], table: &str, columns: &[&str]) -> String {
    let mut operator = operator_for(kind, &OperatorConfig::default());
    let mut story = String::new();
    for (n, event) in events.iter().enumerate() {
        let verdicts = operator.apply(&batch(kind, std::slice::from_ref(event), n as i64), &clock(n as u32));
        let verdict = verdicts.refused.first().map_or("accepted".to_owned(), |(_, v)| format!("{v:?}").to_lowercase());
        story += &format!("{} {verdict}, reordered {}\n", text(event, "event_id"), verdicts.n_reordered);
        story += &script(operator.as_mut(), table, columns);
    }
    story
}

#[test]
fn a_call_changes_its_rep_and_its_time() {
    let call = |n, minute: i64, rep: &str, start: i64, status: &str, duration_s: Option<f64>| {
        let fields = json!({"call_id": "c", "rep_id": rep, "direction": "inbound", "status": status,
            "start_time": START_US + start * MINUTE_US, "duration_s": duration_s});
        event(n, START_US + minute * MINUTE_US, None, fields)
    };
    let events = [
        call(1, 0, "ann", 0, "no_answer", None),
        call(4, 9, "bob", 7, "completed", Some(61.5)),
        call(2, 3, "ann", 0, "completed", Some(10.0)),
        call(2, 3, "ann", 0, "completed", Some(10.0)),
        call(5, -8 * 24 * 60, "bob", 0, "completed", None),
    ];
    let columns = ["rep_id", "window_start", "n_calls", "n_connected", "n_inbound", "talk_s"];
    expect![[r#"
        e001 accepted, reordered 0
        ann 1767600000000000 1 0 1 0.0
        e004 accepted, reordered 0
        bob 1767600300000000 1 1 1 61.5
        e002 accepted, reordered 0
        bob 1767600300000000 1 1 1 61.5
        e002 duplicate, reordered 0
        bob 1767600300000000 1 1 1 61.5
        e005 late, reordered 0
        bob 1767600300000000 1 1 1 61.5
    "#]]
    .assert_eq(&play(Kind::Calls, &events, "rep_calls", &columns));
}

#[test]
fn a_meeting_moves_and_is_canceled() {
    let meeting = |n, minute: i64, start: i64, status: &str| {
        let start = START_US + start * MINUTE_US;
        let fields = json!({"meeting_id": "m", "rep_id": "ann", "account_id": "acme", "scheduled_start": start,
            "scheduled_end": start + HOUR_US, "status": status});
        event(n, START_US + minute * MINUTE_US, None, fields)
    };
    let events = [
        meeting(1, 0, 60, "scheduled"),
        meeting(2, 10, 120, "scheduled"),
        meeting(4, 30, 120, "held"),
        meeting(3, 20, 120, "canceled"),
        meeting(5, 40, 120, "canceled"),
    ];
    let columns = ["rep_id", "window_start", "n_scheduled", "n_held", "n_no_show", "n_canceled"];
    expect![[r#"
        e001 accepted, reordered 0
        ann 1767603600000000 1 0 0 0
        e002 accepted, reordered 0
        ann 1767607200000000 1 0 0 0
        e004 accepted, reordered 0
        ann 1767607200000000 1 1 0 0
        e003 accepted, reordered 1
        ann 1767607200000000 1 1 0 0
        e005 accepted, reordered 0
        ann 1767607200000000 0 0 0 1
    "#]]
    .assert_eq(&play(Kind::Meetings, &events, "rep_meetings", &columns));
    expect![[r#"
        e001 accepted, reordered 0
        e002 accepted, reordered 0
        e004 accepted, reordered 0
        m acme
    "#]]
    .assert_eq(&play(Kind::Meetings, &events[..3], "touches", &["touch_id", "account_id"]));
}

#[test]
fn an_email_comes_twice() {
    let email = |n, minute: i64, kind: &str, machine: Option<bool>| {
        let fields = json!({"message_id": "m", "rep_id": "ann", "kind": kind, "machine": machine, "deal_id": "d"});
        event(n, START_US + minute * MINUTE_US, None, fields)
    };
    let events = [
        email(1, 6, "sent", None),
        email(1, 6, "sent", None),
        email(2, 1, "opened", Some(true)),
        email(4, 2, "opened", None),
        email(5, 3, "replied", None),
        email(4, 2, "opened", None),
    ];
    let columns = ["rep_id", "window_start", "n_sent", "n_opened", "n_replied"];
    expect![[r#"
        e001 accepted, reordered 0
        ann 1767600300000000 1 0 0
        e001 duplicate, reordered 0
        ann 1767600300000000 1 0 0
        e002 accepted, reordered 1
        ann 1767600300000000 1 0 0
        e004 accepted, reordered 1
        ann 1767600000000000 0 1 0
        ann 1767600300000000 1 0 0
        e005 accepted, reordered 1
        ann 1767600000000000 0 1 1
        ann 1767600300000000 1 0 0
        e004 duplicate, reordered 0
        ann 1767600000000000 0 1 1
        ann 1767600300000000 1 0 0
    "#]]
    .assert_eq(&play(Kind::Emails, &events, "rep_emails", &columns));
    expect![[r#"
        e005 accepted, reordered 0
        email inbound phone/e005
        e004 accepted, reordered 1
        email inbound phone/e005
    "#]]
    .assert_eq(&play(Kind::Emails, &events[4..], "touches", &["channel", "direction", "touch_id"]));
}

#[test]
fn an_event_without_an_id_is_known_by_its_offset() {
    let email =
        json!({"event_id": "", "source": "", "event_time": START_US, "message_id": "m", "rep_id": "r", "kind": "sent"});
    let mut operator = operator_for(Kind::Emails, &OperatorConfig::default());
    let two = [email.clone(), email];
    assert!(operator.apply(&batch(Kind::Emails, &two, 5), &clock(1)).refused.is_empty());
    assert_eq!(operator.apply(&batch(Kind::Emails, &two, 6), &clock(1)).refused.len(), 1);
    expect![[r#"
        topic/topic-0-5
        topic/topic-0-6
        topic/topic-0-7
    "#]]
    .assert_eq(&script(operator.as_mut(), "touches", &["touch_id"]));
}
