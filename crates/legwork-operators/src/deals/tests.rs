//! Deals against a naive oracle: sort the patches, fold them into maps, over plain JSON.

use std::collections::BTreeMap;

use expect_test::expect;
use legwork_types::Kind;
use legwork_types::time::{DAY_US, LaneClock, SECOND_US};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::checkpoints::{Store, check_checkpoints, leaving, plan};
use crate::testing::{
    Tables, arrivals, batch, cases, check_arrivals, clock, event, number, revisions, row, script, text,
};
use crate::{OperatorConfig, operator_for};

/// 2026-01-05, a Monday.
const START_US: i64 = 1_767_571_200 * SECOND_US;

/// The schema's order, which decides between two contents of one event.
const FIELDS: [&str; 13] = [
    "lead_id",
    "pipeline_id",
    "stage",
    "owner_id",
    "account_id",
    "amount",
    "currency",
    "close_date",
    "probability",
    "next_step_time",
    "snooze_until",
    "snooze_reason",
    "deleted",
];

fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_f64().unwrap().total_cmp(&b.as_f64().unwrap()),
        (a, b) => (!a.is_null()).cmp(&!b.is_null()),
    }
}

fn cleared(event: &Value) -> Vec<usize> {
    let names = event["cleared"].as_array().cloned().unwrap_or_default();
    let mut fields: Vec<usize> =
        names.iter().filter_map(|name| FIELDS.iter().position(|field| name == field)).collect();
    fields.sort_by(|a, b| b.cmp(a));
    fields.dedup();
    fields
}

fn compare_contents(a: &Value, b: &Value) -> std::cmp::Ordering {
    let head =
        |event: &Value| (number(event, "event_time"), number(event, "sequence"), text(event, "deal_id").to_owned());
    FIELDS
        .iter()
        .fold(head(a).cmp(&head(b)), |order, field| order.then_with(|| compare(&a[*field], &b[*field])))
        .then_with(|| cleared(a).cmp(&cleared(b)))
}

/// The patches of each deal in order, edits resolved.
fn histories(accepted: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut events: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
    for event in accepted {
        let place = events.entry((text(event, "source"), text(event, "event_id"))).or_insert(event);
        if compare_contents(event, place).is_gt() {
            *place = event;
        }
    }
    let mut events: Vec<&Value> = events.into_values().collect();
    events.sort_by_key(|event| {
        (number(event, "event_time"), number(event, "sequence"), text(event, "event_id"), text(event, "source"))
    });
    let mut deals: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    events
        .into_iter()
        .for_each(|event| deals.entry(text(event, "deal_id").to_owned()).or_default().push(event.clone()));
    deals
}

/// What a deal looks like after each of its patches.
fn states(history: &[Value]) -> Vec<Value> {
    let mut state = json!({});
    let mut states = Vec::new();
    for event in history {
        cleared(event).iter().for_each(|field| state[FIELDS[*field]] = Value::Null);
        for field in FIELDS.iter().filter(|field| !event[**field].is_null()) {
            state[*field] = event[*field].clone();
        }
        states.push(state.clone());
    }
    states
}

fn deals(accepted: &[Value]) -> Tables {
    let (mut deals, mut all_visits) = (Vec::new(), Vec::new());
    for (deal_id, history) in histories(accepted) {
        let states = states(&history);
        let place =
            |state: &Value| (!state["stage"].is_null()).then(|| (state["pipeline_id"].clone(), state["stage"].clone()));
        // Spans of patches that leave the deal in one place.
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for n in 0..states.len() {
            match spans.last_mut() {
                Some((_, last)) if place(&states[*last]) == place(&states[n]) => *last = n,
                _ => spans.push((n, n)),
            }
        }
        let time_us = |n: usize| number(&history[n], "event_time").unwrap();
        let mut visit_no = 0;
        for (idx, (first, last)) in spans.iter().enumerate() {
            let Some((pipeline, stage)) = place(&states[*first]) else { continue };
            visit_no += 1;
            let next = spans.get(idx + 1).map(|(first, _)| *first);
            let next_place = next.and_then(|next| place(&states[next]));
            let (next_pipeline, next_stage) = next_place.unwrap_or_default();
            all_visits.push(row(json!({
                "deal_id": deal_id, "visit_no": visit_no, "pipeline_id": pipeline, "stage": stage,
                "entered_time": time_us(*first), "left_time": next.map(time_us), "next_pipeline_id": next_pipeline,
                "next_stage": next_stage, "owner_id": states[*last]["owner_id"],
            })));
        }
        let n_pushes = states
            .windows(2)
            .filter(|pair| match (pair[0]["close_date"].as_str(), pair[1]["close_date"].as_str()) {
                (Some(before), Some(after)) => after > before,
                _ => false,
            })
            .count();
        let newest = states.last().unwrap();
        let open = spans.last().filter(|(first, _)| place(&states[*first]).is_some());
        let mut deal = newest.clone();
        deal["deal_id"] = json!(deal_id);
        deal["stage_entered_time"] = json!(open.map(|(first, _)| time_us(*first)));
        deal["created_time"] = json!(time_us(0));
        deal["last_event_time"] = json!(time_us(history.len() - 1));
        deal["n_close_date_pushes"] = json!(n_pushes);
        deal["deleted"] = json!(newest["deleted"] == true);
        // Money is written with its four places.
        if let Some(amount) = newest["amount"].as_f64() {
            deal["amount"] = serde_json::from_str(&format!("{amount:.4}")).unwrap();
        }
        deals.push(row(deal));
    }
    Tables::from([("deals", deals), ("deal_stage_visits", all_visits)])
}

fn maybe<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.3, strategy)
}

fn name(prefix: &'static str, n: usize) -> impl Strategy<Value = Option<String>> {
    maybe((0..n).prop_map(move |idx| format!("{prefix}{idx}")))
}

fn patch() -> impl Strategy<Value = Value> {
    let clearable = vec!["stage", "pipeline_id", "owner_id", "close_date", "amount", "deleted", "unheard_of"];
    (
        (0..4usize, name("lead", 2), name("pipe", 2), prop::option::weighted(0.6, 0..4usize), name("owner", 3)),
        (name("account", 2), maybe((0..4000i64).prop_map(|n| n as f64 / 4.0)), maybe(Just("EUR")), maybe(1..9u32)),
        (maybe((0..5).prop_map(|n| f64::from(n) / 4.0)), maybe(0..9i64), maybe(0..9i64), maybe(any::<bool>())),
        prop::option::weighted(0.2, prop::sample::subsequence(clearable, 0..4)),
    )
        .prop_map(|((deal, lead, pipeline, stage, owner), (account, amount, currency, day), rest, cleared)| {
            let (probability, next_step, snooze, deleted) = rest;
            json!({
                "deal_id": format!("deal{deal}"), "lead_id": lead, "pipeline_id": pipeline,
                "stage": stage.map(|stage| format!("stage{stage}")), "owner_id": owner, "account_id": account,
                "amount": amount, "currency": currency, "close_date": day.map(|day| format!("2026-02-0{day}")),
                "probability": probability, "next_step_time": next_step.map(|n| START_US + n * DAY_US),
                "snooze_until": snooze.map(|n| START_US + n * DAY_US), "deleted": deleted, "cleared": cleared,
            })
        })
}

/// Patches over weeks, some at one time, some with the id of another: edits.
fn events() -> impl Strategy<Value = Vec<Value>> {
    let one = (0..30i64, prop::option::of(0..3i64), patch(), prop::bool::weighted(0.15));
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let mut events: Vec<Value> = Vec::new();
        for (n, (day, sequence, patch, is_edit)) in all.into_iter().enumerate() {
            let mut new = event(n, START_US + day * DAY_US, sequence, patch);
            if let (true, Some(edited)) = (is_edit, events.get(n / 2)) {
                new["event_id"] = edited["event_id"].clone();
                new["source"] = edited["source"].clone();
            }
            events.push(new);
        }
        events
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn are_a_function_of_the_set_of_patches(
        (events, one, other) in events().prop_flat_map(|events| {
            let n = events.len();
            (Just(events), arrivals(n), arrivals(n))
        })
    ) {
        check_arrivals(Kind::DealEvents, &OperatorConfig::default(), &events, [&one, &other], deals)?;
    }

    #[test]
    fn go_on_from_checkpoints(
        has_store in any::<bool>(),
        (events, arrival, plan) in events().prop_flat_map(|events| {
            let n = events.len();
            (Just(events), arrivals(n), plan())
        })
    ) {
        let config = if has_store { leaving() } else { OperatorConfig::default() };
        check_checkpoints(Kind::DealEvents, &config, &events, &arrival, &plan)?;
    }
}

fn patch_at(n: usize, day: i64, fields: Value) -> Value {
    let mut event = event(n, START_US + day * DAY_US, None, fields);
    event["deal_id"] = json!("d");
    event
}

fn staged(n: usize, day: i64, stage: &str) -> Value {
    patch_at(n, day, json!({"pipeline_id": "sales", "stage": stage, "owner_id": "ann"}))
}

const VISIT: [&str; 6] = ["visit_no", "stage", "entered_time", "left_time", "next_stage", "owner_id"];

/// The visits after all events; days since the start stand for times.
fn visits(events: &[Value]) -> String {
    let mut operator = operator_for(Kind::DealEvents, &OperatorConfig::default());
    for (n, event) in events.iter().enumerate() {
        operator.apply(&batch(Kind::DealEvents, std::slice::from_ref(event), n as i64), &clock(n as u32));
    }
    let text = script(operator.as_mut(), "deal_stage_visits", &VISIT);
    (0..40).rev().fold(text, |text, day| text.replace(&(START_US + day * DAY_US).to_string(), &format!("day{day}")))
}

#[test]
fn a_deal_is_reopened_skips_a_stage_and_falls_back() {
    let events = [
        staged(1, 0, "qualify"),
        staged(2, 1, "propose"),
        staged(3, 2, "lost"),
        staged(4, 9, "propose"),
        staged(5, 10, "propose"),
        staged(6, 11, "qualify"),
        staged(7, 12, "won"),
    ];
    expect![[r#"
        1 qualify day0 day1 propose ann
        2 propose day1 day2 lost ann
        3 lost day2 day9 propose ann
        4 propose day9 day11 qualify ann
        5 qualify day11 day12 won ann
        6 won day12 - - ann
    "#]]
    .assert_eq(&visits(&events));
    let backwards: Vec<Value> = events.iter().rev().cloned().collect();
    assert_eq!(visits(&backwards), visits(&events));
}

#[test]
fn a_late_event_splits_a_visit_and_an_owner_changes() {
    let mut events = vec![
        staged(1, 0, "qualify"),
        staged(2, 9, "won"),
        patch_at(4, 3, json!({"owner_id": "bob"})),
        staged(3, 5, "propose"),
    ];
    expect![[r#"
        1 qualify day0 day5 propose bob
        2 propose day5 day9 won ann
        3 won day9 - - ann
    "#]]
    .assert_eq(&visits(&events));
    events.push(patch_at(5, 10, json!({"cleared": ["stage"]})));
    expect![[r#"
        1 qualify day0 day5 propose bob
        2 propose day5 day9 won ann
        3 won day9 day10 - ann
    "#]]
    .assert_eq(&visits(&events));
}

#[test]
fn an_edited_event_wins_by_its_content_whichever_came_first() {
    let (small, large) = (staged(2, 4, "alpha"), staged(2, 4, "beta"));
    let start = staged(1, 0, "qualify");
    let one = visits(&[start.clone(), small.clone(), large.clone()]);
    assert_eq!(one, visits(&[large.clone(), small.clone(), start.clone()]));
    expect![[r#"
        1 qualify day0 day4 beta ann
        2 beta day4 - - ann
    "#]]
    .assert_eq(&one);

    let mut operator = operator_for(Kind::DealEvents, &OperatorConfig::default());
    let verdicts = operator.apply(&batch(Kind::DealEvents, &[start, large, small], 0), &clock(0));
    assert_eq!(verdicts.refused, [(2, legwork_types::Verdict::Duplicate)]);
}

#[test]
fn an_edit_takes_a_patch_to_a_deal_far_away_across_a_restart() {
    let at = |n: usize, deal: usize, day: i64, stage: &str| {
        let mut event = staged(n, day, stage);
        event["deal_id"] = json!(format!("deal{deal:02}"));
        event
    };
    let config = OperatorConfig::default();
    let (mut operator, mut store) = (operator_for(Kind::DealEvents, &config), Store::default());
    let mut events: Vec<Value> = (0..70).map(|deal| at(deal, deal, 1, "a")).collect();
    events.push(at(100, 0, 2, "b"));
    for (revision, events) in [(1, events), (2, vec![at(100, 69, 2, "b")])] {
        assert!(operator.apply(&batch(Kind::DealEvents, &events, 0), &clock(revision)).refused.is_empty());
        store.apply(operator.checkpoint(&clock(revision)).hot);
        let mut restored = store.restore(Kind::DealEvents, &config);
        for table in ["deals", "deal_stage_visits"] {
            let [one, other] = [&mut operator, &mut restored]
                .map(|operator| revisions(operator.snapshot(table, &clock(revision)).unwrap().as_ref()));
            assert_eq!(one, other);
        }
    }
    assert_eq!(script(operator.as_mut(), "deal_stage_visits", &["deal_id"]).matches("deal69").count(), 2);
}

#[test]
fn deals_leave_memory_and_come_back_for_a_patch_and_for_an_edit_that_names_another() {
    let of = |deal: &str, event: Value| {
        let mut event = event;
        event["deal_id"] = json!(deal);
        event
    };
    let (mut operator, mut store) = (operator_for(Kind::DealEvents, &leaving()), Store::default());
    let mut alone = operator_for(Kind::DealEvents, &OperatorConfig::default());
    let mut take = |events: Vec<Value>, day: i64, revision: u32| {
        let batch = batch(Kind::DealEvents, &events, 0);
        let now = LaneClock { newest_us: START_US + day * DAY_US, ..clock(revision) };
        let has_read = store.supply(operator.as_mut(), &batch, &now);
        assert_eq!(operator.apply(&batch, &now), alone.apply(&batch, &now));
        let changes = operator.checkpoint(&now);
        store.apply(changes.hot);
        store.keep(changes.cold);
        operator.committed(revision);
        let rows = operator.snapshot("deals", &now).unwrap().n_rows();
        let mut restored = store.restore(Kind::DealEvents, &leaving());
        assert_eq!(restored.snapshot("deals", &now).unwrap().n_rows(), rows);
        (has_read, rows)
    };
    let old = |n: usize| of(&format!("old{n}"), staged(n, 0, "qualify"));
    assert_eq!(take((0..6).map(old).collect(), 0, 1), (false, 6));
    let new = |n: usize| of(&format!("new{n}"), staged(100 + n, 9, "qualify"));
    let n_rows: Vec<usize> = (0..12).map(|n| take(vec![new(n)], 9, n as u32 + 2).1).collect();
    assert_eq!(n_rows.last(), Some(&12), "only what is new is in memory: {n_rows:?}");
    assert_eq!(take(vec![of("old3", staged(201, 1, "won"))], 9, 21), (true, 13), "a late patch brings its deal back");
    let edited = of("new0", staged(4, 2, "qualify"));
    assert_eq!(take(vec![edited], 9, 22), (true, 13), "an edit takes the only patch of a deal that is away");
    assert_eq!(take(vec![old(5)], 9, 23), (true, 14), "what comes again is a duplicate still");
}

#[test]
fn a_revision_changes_only_with_its_row() {
    let mut operator = operator_for(Kind::DealEvents, &OperatorConfig::default());
    let events = [staged(1, 0, "a"), staged(2, 4, "b"), staged(3, 6, "c"), staged(4, 5, "d")];
    for (n, event) in events.iter().enumerate() {
        operator.apply(&batch(Kind::DealEvents, std::slice::from_ref(event), n as i64), &clock(n as u32 + 1));
    }
    let snapshot = operator.snapshot("deal_stage_visits", &clock(9)).unwrap();
    let chunk = snapshot.chunk(0, Some(&[1, 3, 9]));
    let table = arrow::util::pretty::pretty_format_batches(&[chunk]).unwrap().to_string();
    expect![[r#"
        +----------+-------+----------+
        | visit_no | stage | revision |
        +----------+-------+----------+
        | 1        | a     | 2        |
        | 2        | b     | 4        |
        | 3        | d     | 4        |
        | 4        | c     | 4        |
        +----------+-------+----------+"#]]
    .assert_eq(&table);
}

/// Recorded deals: `LEGWORK_DATA` names the folder of maven_sales_pipeline.csv.gz.
#[test]
#[ignore = "needs recorded data in LEGWORK_DATA"]
fn real_deals_have_the_visits_of_a_naive_count() {
    let path = std::env::var("LEGWORK_DATA").unwrap() + "/maven_sales_pipeline.csv.gz";
    let output = std::process::Command::new("gzip").args(["-dc", &path]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let (id, stage, engage, close) =
        (column("opportunity_id"), column("deal_stage"), column("engage_date"), column("close_date"));
    let (mut events, mut naive) = (Vec::new(), BTreeMap::<String, i64>::new());
    for cells in lines.map(|line| line.split(',').collect::<Vec<_>>()) {
        let mut add = |date: &str, stage: &str| {
            *naive.entry(stage.to_owned()).or_default() += 1;
            let time = format!("{date}T00:00:00Z");
            events.push(json!({"event_id": format!("{}-{stage}", cells[id]), "source": "maven", "event_time": time,
                "deal_id": cells[id], "stage": stage}));
        };
        match (cells[engage], cells[close]) {
            ("", _) => add("2016-01-01", cells[stage]),
            (engage, "") => add(engage, cells[stage]),
            (engage, close) => {
                add(engage, "Engaging");
                add(close, cells[stage]);
            }
        }
    }
    let mut operator = operator_for(Kind::DealEvents, &OperatorConfig::default());
    events.reverse();
    for (n, part) in events.chunks(777).enumerate() {
        assert!(operator.apply(&batch(Kind::DealEvents, part, n as i64), &clock(1)).refused.is_empty());
    }
    let mut counted = BTreeMap::<String, i64>::new();
    for stage in script(operator.as_mut(), "deal_stage_visits", &["stage"]).lines() {
        *counted.entry(stage.to_owned()).or_default() += 1;
    }
    assert_eq!(counted, naive);
}
