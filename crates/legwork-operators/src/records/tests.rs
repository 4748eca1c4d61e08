//! Leads, orders, facts and reference data against naive oracles.

use std::collections::BTreeMap;

use arrow::array::BinaryArray;
use expect_test::expect;
use legwork_types::time::{DAY_US, SECOND_US};
use legwork_types::{EventBatch, Kind, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::checkpoints::{check_checkpoints, leaving, plan, remembering};
use crate::testing::{
    Row, Tables, arrivals, batch, cases, check_arrivals, clock, event, number, row, script, tables, text,
};
use crate::{OperatorConfig, operator_for};

const START_US: i64 = 1_767_571_200 * SECOND_US;

fn sorted_events(accepted: &[Value]) -> Vec<&Value> {
    let mut events: Vec<&Value> = accepted.iter().collect();
    events.sort_by_key(|event| (number(event, "event_time"), number(event, "sequence"), text(event, "event_id")));
    events
}

fn leads(accepted: &[Value]) -> Tables {
    let mut leads: BTreeMap<&str, Row> = BTreeMap::new();
    for event in sorted_events(accepted) {
        let time = &event["event_time"];
        let lead = leads
            .entry(text(event, "lead_id"))
            .or_insert_with(|| row(json!({"lead_id": event["lead_id"], "created_time": time})));
        let status = lead.get("status").cloned();
        for field in event["cleared"].as_array().into_iter().flatten() {
            lead.remove(field.as_str().unwrap());
        }
        for field in ["origin", "owner_id", "status", "score", "deal_id", "account_id"] {
            if !event[field].is_null() {
                lead.insert(field.to_owned(), event[field].clone());
            }
        }
        lead.insert("last_event_time".to_owned(), time.clone());
        lead.insert("source".to_owned(), event["source"].clone());
        if lead.get("status") != status.as_ref() {
            match lead.contains_key("status") {
                true => lead.insert("status_entered_time".to_owned(), time.clone()),
                false => lead.remove("status_entered_time"),
            };
        }
    }
    Tables::from([("leads", leads.into_values().collect())])
}

fn orders(accepted: &[Value]) -> Tables {
    let newest: BTreeMap<&str, &Value> =
        sorted_events(accepted).into_iter().map(|event| (text(event, "order_id"), event)).collect();
    let rows = newest.into_values().map(|event| {
        let mut order = event.clone();
        order.as_object_mut().unwrap().retain(|field, _| field != "event_id" && field != "sequence");
        row(order)
    });
    Tables::from([("orders", rows.collect())])
}

fn check_ins(accepted: &[Value]) -> Tables {
    let rows = accepted.iter().filter(|event| event["kind"] == "in").map(|event| {
        row(json!({"rep_id": event["rep_id"], "event_time": event["event_time"], "channel": "check_in",
            "account_id": event["account_id"],
            "touch_id": format!("{}/{}", text(event, "source"), text(event, "event_id"))}))
    });
    Tables::from([("touches", rows.collect())])
}

fn maybe<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.4, strategy)
}

fn lead() -> BoxedStrategy<Value> {
    let clearable = vec!["status", "owner_id", "score", "nothing"];
    let status = prop::sample::select(vec!["new", "contacted", "qualified", "lost"]);
    (0..4, maybe(0..3), maybe(status), maybe(0..9), maybe(0..2), maybe(prop::sample::subsequence(clearable, 0..3)))
        .prop_map(|(lead, owner, status, score, deal, cleared)| {
            json!({"lead_id": format!("lead{lead}"), "owner_id": owner.map(|n| format!("rep{n}")), "status": status,
                "score": score.map(|n| f64::from(n) / 2.0), "deal_id": deal.map(|n| format!("deal{n}")), "cleared": cleared})
        })
        .boxed()
}

fn order() -> BoxedStrategy<Value> {
    (0..4, maybe(0..3), maybe(0..3), 0..9, 0..9, prop::sample::select(vec!["sale", "refund"]))
        .prop_map(|(order, deal, rep, quantity, amount, kind)| {
            json!({"order_id": format!("order{order}"), "deal_id": deal.map(|n| format!("deal{n}")),
                "rep_id": rep.map(|n| format!("rep{n}")), "product_id": "pen", "quantity": f64::from(quantity),
                "amount": f64::from(amount) + 0.1255, "currency": "EUR", "kind": kind})
        })
        .boxed()
}

fn check_in() -> BoxedStrategy<Value> {
    (0..3, 0..3, prop::sample::select(vec!["in", "out"]))
        .prop_map(|(rep, account, kind)| {
            json!({"check_in_id": "c", "rep_id": format!("rep{rep}"), "account_id": format!("account{account}"), "kind": kind})
        })
        .boxed()
}

fn events(fields: BoxedStrategy<Value>) -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec((0..30i64, maybe(0..3i64), fields), 0..40).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered.map(|(n, (day, sequence, fields))| event(n, START_US + day * DAY_US, sequence, fields)).collect()
    })
}

macro_rules! records {
    ($($name:ident: $kind:expr, $fields:expr, $oracle:expr;)*) => {
        proptest! {
            #![proptest_config(cases())]
            $(
                #[test]
                fn $name(
                    (events, one, other) in events($fields).prop_flat_map(|events| {
                        let n = events.len();
                        (Just(events), arrivals(n), arrivals(n))
                    })
                ) {
                    check_arrivals($kind, &remembering(), &events, [&one, &other], $oracle)?;
                }
            )*
        }
    };
}

records! {
    leads_are_a_function_of_the_set_of_patches: Kind::Leads, lead(), leads;
    orders_are_a_function_of_the_set_of_versions: Kind::Orders, order(), orders;
    check_ins_are_a_function_of_the_set_of_events: Kind::CheckIns, check_in(), check_ins;
}

fn shift() -> BoxedStrategy<Value> {
    (0..3).prop_map(|rep| json!({"rep_id": format!("rep{rep}"), "kind": "on"})).boxed()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn records_go_on_from_checkpoints(
        has_store in any::<bool>(),
        (kind, events, arrival, plan) in (0..4usize).prop_flat_map(|n| {
            let (kind, fields) = match n {
                0 => (Kind::Leads, lead()),
                1 => (Kind::Orders, order()),
                2 => (Kind::CheckIns, check_in()),
                _ => (Kind::Shifts, shift()),
            };
            events(fields).prop_flat_map(move |events| {
                let n = events.len();
                (Just(kind), Just(events), arrivals(n), plan())
            })
        })
    ) {
        let config = if has_store { leaving() } else { remembering() };
        check_checkpoints(kind, &config, &events, &arrival, &plan)?;
    }
}

#[test]
fn facts_without_tables_count_their_duplicates() {
    for (kind, fields) in [
        (Kind::Shifts, json!({"rep_id": "r", "kind": "on"})),
        (Kind::Costs, json!({"team_id": "t", "kind": "sales", "amount": 5.5, "currency": "EUR"})),
    ] {
        let mut operator = operator_for(kind, &OperatorConfig::default());
        let events = [
            event(1, START_US + 90 * DAY_US, None, fields.clone()),
            event(2, START_US, None, fields.clone()),
            event(1, START_US + 90 * DAY_US, None, fields),
        ];
        let verdicts = operator.apply(&batch(kind, &events, 0), &clock(1));
        assert_eq!((verdicts.refused, verdicts.n_reordered), (vec![(2, Verdict::Duplicate)], 1));
        assert!(operator.tables().is_empty());
        assert!(operator.snapshot(kind.table(), &clock(1)).is_none());
    }
}

fn reference(kind: Kind, records: &[Value], offset: i64, keys: Option<&[&str]>) -> EventBatch {
    let mut batch = batch(kind, records, offset);
    batch.keys = keys.map(|keys| BinaryArray::from_iter_values(keys.iter().map(|key| key.as_bytes())));
    batch
}

#[test]
fn the_newest_reference_record_counts_and_a_tombstone_deletes() {
    let rep = |rep: &str, team: &str, from: Option<&str>| json!({"rep_id": rep, "name": rep, "team_id": team, "time_zone": "UTC", "active": true, "valid_from": from});
    let records = [
        rep("ann", "north", None),
        rep("ann", "south", Some("2026-01-01T00:00:00Z")),
        rep("bob", "north", None),
        rep("ann", "east", None),
    ];
    let mut operator = operator_for(Kind::Reps, &OperatorConfig::default());
    let verdicts = operator.apply(&reference(Kind::Reps, &records, 10, Some(&["ann", "ann", "bob", "ann"])), &clock(1));
    assert!(verdicts.refused.is_empty());
    let before = operator.snapshot("reps", &clock(1)).unwrap();
    let columns = ["rep_id", "team_id", "valid_from"];
    expect![[r#"
        ann east -
        ann south 1767225600000000
        bob north -
    "#]]
    .assert_eq(&script(operator.as_mut(), "reps", &columns));
    let again = operator.apply(&reference(Kind::Reps, &records[..1], 10, Some(&["ann"])), &clock(1));
    assert_eq!(again.refused, [(0, Verdict::Duplicate)]);
    operator.delete(&[b"ann", b"nobody"], &clock(1));
    expect![[r#"
        bob north -
    "#]]
    .assert_eq(&script(operator.as_mut(), "reps", &columns));
    operator.apply(&reference(Kind::Reps, &[rep("ann", "west", None)], 20, Some(&["ann"])), &clock(1));
    expect![[r#"
        ann west -
        bob north -
    "#]]
    .assert_eq(&script(operator.as_mut(), "reps", &columns));
    assert_eq!(crate::testing::rows(before.as_ref()).len(), 3);
}

proptest! {
    #![proptest_config(cases())]

    /// Any number of upserts and tombstones, through compactions too: what is left is what a map would hold.
    #[test]
    fn reference_data_is_what_a_map_would_hold(
        ops in prop::collection::vec((0..40usize, 0..5usize, prop::bool::weighted(0.2)), 1..60)
    ) {
        let mut operator = operator_for(Kind::Stages, &OperatorConfig::default());
        let mut map: BTreeMap<(usize, usize), Value> = BTreeMap::new();
        for (n, (pipeline, stage, is_tombstone)) in ops.into_iter().enumerate() {
            if is_tombstone {
                operator.delete(&[format!("p{pipeline}").as_bytes()], &clock(1));
                map.retain(|(p, _), _| *p != pipeline);
                continue;
            }
            // The same stage some hundreds of times over, so that dead rows pile up.
            let record = |position| json!({"pipeline_id": format!("p{pipeline}"), "stage": format!("s{stage}"), "position": position});
            let records: Vec<Value> = (0..700).map(|idx| record(n * 1000 + idx)).collect();
            let key = format!("p{pipeline}");
            let keys = vec![key.as_str(); records.len()];
            operator.apply(&reference(Kind::Stages, &records, n as i64 * 1000, Some(&keys)), &clock(1));
            map.insert((pipeline, stage), record(n * 1000 + 699));
        }
        let expected: Vec<Row> = crate::testing::sorted(map.into_values().map(row).collect());
        prop_assert_eq!(&tables(operator.as_mut())["stages"], &expected);
        prop_assert!(operator.memory_bytes() < 8 << 20);
    }
}

#[test]
fn every_kind_has_an_operator_whose_tables_have_their_schemas() {
    for kind in Kind::ALL {
        let mut operator = operator_for(kind, &OperatorConfig::default());
        for name in operator.tables() {
            let snapshot = operator.snapshot(name, &clock(0)).unwrap();
            let schema = legwork_types::Table::by_name(name).map_or_else(|| kind.schema(), |table| table.schema());
            assert_eq!((snapshot.schema(), snapshot.n_rows()), (schema, 0), "{name}");
        }
        assert!(operator.snapshot("pipeline_lanes", &clock(0)).is_none());
    }
}
