//! Views over deals, leads and orders, on small hand-made data.

use serde_json::{Value, json};

use super::engine;
use super::fake::Fake;
use super::sql::table_of;
use crate::Engine;

fn stages() -> Value {
    let stage = |name: &str, position: i64, is_won: bool, is_lost: bool, stall_after_s: Option<f64>| json!({"pipeline_id": "p", "stage": name, "position": position, "is_won": is_won, "is_lost": is_lost, "stall_after_s": stall_after_s});
    json!([
        stage("new", 1, false, false, None),
        stage("talk", 2, false, false, Some(86_400.0)),
        stage("offer", 3, false, false, None),
        stage("won", 4, true, false, None),
        stage("lost", 5, false, true, None)
    ])
}

fn visit(deal: &str, no: i64, stage: &str, entered: &str, left: Option<&str>, next: Option<(&str, &str)>) -> Value {
    json!({"deal_id": deal, "visit_no": no, "pipeline_id": "p", "stage": stage, "entered_time": format!("2026-{entered}Z"),
           "left_time": left.map(|t| format!("2026-{t}Z")), "next_pipeline_id": next.map(|n| n.0), "next_stage": next.map(|n| n.1),
           "owner_id": "ann"})
}

fn deal(id: &str, stage: Option<&str>, more: Value) -> Value {
    let mut row = json!({"deal_id": id, "pipeline_id": "p", "stage": stage, "stage_entered_time": "2026-03-02T11:00:00Z", "owner_id": "ann",
                         "amount": "1000.0000", "currency": "USD", "created_time": "2026-03-02T09:00:00Z",
                         "next_step_time": "2026-03-03T09:00:00Z"});
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

#[tokio::test]
async fn a_deals_status_is_that_of_its_stage() {
    let fake = Fake::default()
        .lane("stages", stages())
        .lane("deals", json!([deal("d1", Some("talk"), json!({})), deal("d2", Some("won"), json!({})), deal("d3", Some("lost"), json!({}))]))
        .lane("deals", json!([deal("d4", Some("mystery"), json!({})), deal("d5", None, json!({})), deal("d6", Some("won"), json!({"deleted": true}))]))
        .lane("deal_stage_visits", json!([
            visit("d1", 1, "offer", "03-01T00:00:00", Some("03-02T00:00:00"), Some(("p", "new"))),
            visit("d1", 2, "new", "03-02T00:00:00", Some("03-02T01:00:00"), Some(("p", "talk"))),
            visit("d1", 3, "talk", "03-02T01:00:00", None, None)]))
        .lane("touches", json!([
            {"rep_id": "ann", "event_time": "2026-03-02T08:00:00Z", "channel": "call", "deal_id": "d1", "touch_id": "1"},
            {"rep_id": "ann", "event_time": "2026-03-02T18:00:00Z", "channel": "meeting", "deal_id": "d1", "touch_id": "2"}]));
    let engine = engine(fake);
    let sql = "SELECT deal_id, status, closed_time::text, n_regressions, last_touch_time::text FROM deals ORDER BY 1";
    let expected = "d1,open,,1,2026-03-02T08:00:00Z\nd2,won,2026-03-02T11:00:00Z,0,\nd3,lost,2026-03-02T11:00:00Z,0,\nd4,open,,0,\nd5,open,,0,\n\
                    d6,deleted,2026-03-02T11:00:00Z,0,";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, expected);
    assert_eq!(
        table_of(engine.session().as_ref(), "SELECT count(*), sum(amount) FROM lanes.deals").await,
        "6,6000.0000"
    );
}

fn visits() -> Fake {
    Fake::default().lane("stages", stages()).lane(
        "deal_stage_visits",
        json!([
            visit("d1", 1, "new", "02-27T12:00:00", Some("03-02T12:00:00"), Some(("p", "talk"))),
            visit("d1", 2, "talk", "03-02T11:00:00", None, None),
            visit("d2", 1, "new", "03-02T10:00:00", Some("03-02T11:00:00"), Some(("p", "offer"))),
            visit("d2", 2, "offer", "03-02T11:00:00", Some("03-02T11:30:00"), Some(("p", "new"))),
            visit("d2", 3, "new", "03-02T11:30:00", Some("03-02T11:40:00"), Some(("p", "won"))),
            visit("d3", 1, "offer", "03-02T10:00:00", Some("03-02T11:00:00"), Some(("p", "lost"))),
            visit("d4", 1, "offer", "03-02T10:00:00", Some("03-02T11:00:00"), Some(("q", "new"))),
            visit("d5", 1, "offer", "03-02T10:00:00", Some("03-02T11:00:00"), Some(("p", "mystery"))),
            visit("d6", 1, "mystery", "03-02T10:00:00", Some("03-02T11:00:00"), Some(("p", "new"))),
            visit("d7", 1, "won", "03-02T10:00:00", None, None)
        ]),
    )
}

#[tokio::test]
async fn intervals_tell_how_a_stage_ended() {
    let engine = engine(visits());
    let sql = "SELECT deal_id, visit_no, exit_kind, duration_s, business_duration_s, is_final_stage FROM deal_stage_intervals ORDER BY 1, 2";
    // Friday noon to Monday noon has eight business hours.
    let expected = "d1,1,forward,259200.0,28800.0,false\nd1,2,open,3600.0,3600.0,false\nd2,1,skip,3600.0,3600.0,false\nd2,2,back,1800.0,1800.0,false\n\
                    d2,3,won,600.0,600.0,false\nd3,1,lost,3600.0,3600.0,false\nd4,1,moved,3600.0,3600.0,false\nd5,1,forward,3600.0,3600.0,false\n\
                    d6,1,forward,3600.0,3600.0,false\nd7,1,open,7200.0,7200.0,true";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, expected);
    let sql = "SELECT stage, n_visits, n_open, p50_s, p80_s FROM stage_durations ORDER BY 1";
    let expected = "mystery,1,0,3600.0,3600.0\nnew,3,0,3600.0,259200.0\noffer,4,0,3600.0,3600.0\ntalk,1,1,,";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, expected);
}

#[tokio::test]
async fn stalled_deals_say_why() {
    let touch = |deal: &str, time: &str, channel: &str, direction: &str| json!({"rep_id": "ann", "event_time": time, "channel": channel, "direction": direction, "deal_id": deal, "touch_id": time});
    let long_ago = json!({"stage_entered_time": "2026-02-28T12:00:00Z", "created_time": "2026-01-05T09:00:00Z"});
    let with = |more: Value| {
        let mut all = long_ago.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let fake = visits()
        .lane(
            "deals",
            json!([
                deal("fresh", Some("talk"), json!({})),
                deal("idle", Some("talk"), json!({"next_step_time": null})),
                deal("old", Some("talk"), with(json!({}))),
                deal("euro", Some("talk"), with(json!({"currency": "EUR", "next_step_time": null}))),
                deal("asleep", Some("talk"), with(json!({"snooze_until": "2026-03-05T00:00:00Z"}))),
                deal("awake", Some("talk"), with(json!({"snooze_until": "2026-03-01T00:00:00Z"}))),
                deal("late", Some("new"), json!({"close_date": "2026-03-01", "n_close_date_pushes": 3})),
                deal("won", Some("won"), with(json!({}))),
                deal("gone", Some("talk"), with(json!({"deleted": true})))
            ]),
        )
        .lane(
            "touches",
            json!([
                touch("old", "2026-02-27T10:00:00Z", "email", "inbound"),
                touch("awake", "2026-02-27T10:00:00Z", "call", "outbound"),
                touch("euro", "2026-02-27T10:00:00Z", "email", "outbound"),
                touch("asleep", "2026-02-27T10:00:00Z", "meeting", "outbound")
            ]),
        )
        .lane(
            "fx_rates",
            json!([{"currency": "EUR", "as_of": "2026-01-01", "rate_to_base": 2.0},
                                 {"currency": "EUR", "as_of": "2026-03-02", "rate_to_base": 3.0}]),
        )
        .lane("reps", json!([{"rep_id": "ann", "team_id": "t1"}]));
    let engine = engine(fake);
    let sql = "SELECT deal_id, team_id, age_s, age_limit_s, array_to_string(signals, '+'), score, snoozed_until::text FROM stalled_deals ORDER BY 1";
    let expected = "asleep,t1,172800.0,86400.0,age,0.0,2026-03-05T00:00:00Z\nawake,t1,172800.0,86400.0,age,1000.0,\n\
                    euro,t1,172800.0,86400.0,age+no_touch+nothing_scheduled,4500.0,\n\
                    late,t1,3600.0,259200.0,close_date_past+close_date_pushed,500.0,\nold,t1,172800.0,86400.0,age,1000.0,";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, expected);
}

#[tokio::test]
async fn leads_and_orders() {
    let lead = |id: &str| json!({"lead_id": id, "origin": "web", "created_time": "2026-03-02T10:00:00Z"});
    let touch = |time: &str, direction: &str| json!({"rep_id": "ann", "event_time": time, "channel": "email", "direction": direction, "lead_id": "l1", "touch_id": time});
    let order = |id: &str, currency: &str, kind: &str| {
        json!({"order_id": id, "rep_id": "ann", "product_id": "x", "quantity": 1.0, "amount": "10.5000", "currency": currency, "kind": kind,
               "event_time": "2026-02-15T10:00:00Z"})
    };
    let fake = Fake::default()
        .lane("leads", json!([lead("l1"), lead("l2")]))
        .lane(
            "touches",
            json!([
                touch("2026-03-02T10:05:00Z", "inbound"),
                touch("2026-03-02T10:10:00Z", "outbound"),
                touch("2026-03-02T10:20:00Z", "outbound")
            ]),
        )
        .lane("orders", json!([order("o1", "USD", "sale"), order("o2", "EUR", "refund"), order("o3", "XXX", "sale")]))
        .lane("products", json!([{"product_id": "x", "family": "pens"}]))
        .lane(
            "fx_rates",
            json!([{"currency": "EUR", "as_of": "2026-01-01", "rate_to_base": 2.0},
                                 {"currency": "EUR", "as_of": "2026-03-01", "rate_to_base": 3.0}]),
        );
    let engine = engine(fake);
    let sql = "SELECT lead_id, first_touch_s, is_touched FROM lead_first_touches ORDER BY 1";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, "l1,600.0,true\nl2,7200.0,false");
    let sql = "SELECT order_id, family, revenue_base FROM order_revenue ORDER BY 1";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, "o1,pens,10.5\no2,pens,-21.0\no3,pens,");
}
