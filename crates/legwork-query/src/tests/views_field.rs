//! Views over movement and activity, on small hand-made data.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fake::Fake;
use super::sql::table_of;
use super::{engine, options};
use crate::{Engine, QueryOptions, SqlEngine, WeekStart};

fn window(device: &str, rep: Option<&str>, start: &str, n_pings: i64, distance_m: f64) -> Value {
    let end = start.replace(":00:00Z", ":05:00Z");
    json!({"device_id": device, "rep_id": rep, "window_start": start, "window_end": end, "n_pings": n_pings, "distance_m": distance_m,
           "raw_m": distance_m + 1.0})
}

fn assigned(device: &str, rep: &str, priority: Option<i64>, from: Option<&str>, to: Option<&str>) -> Value {
    json!({"device_id": device, "rep_id": rep, "priority": priority, "valid_from": from, "valid_to": to})
}

fn field() -> Fake {
    let (before, after) = ("2026-02-28T10:00:00Z", "2026-03-02T10:00:00Z");
    let handed_over = "2026-03-01T00:00:00Z";
    Fake::default()
        .lane("device_movement", json!([window("d1", None, before, 50, 100.0), window("d4", None, before, 1, 4.0)]))
        .lane(
            "device_movement",
            json!([
                window("d2", None, before, 5, 300.0),
                window("d2", None, after, 5, 30.0),
                window("d3", Some("cat"), after, 10, 5.0),
                window("d5", Some("cat"), after, 20, 7.0)
            ]),
        )
        .lane(
            "device_assignments",
            json!([
                assigned("d1", "ann", Some(1), None, None),
                assigned("d2", "ann", Some(2), None, Some(handed_over)),
                assigned("d2", "bob", None, Some(handed_over), None),
                assigned("d2", "zoe", None, None, None)
            ]),
        )
        .lane(
            "reps",
            json!([{"rep_id": "ann", "team_id": "t1", "time_zone": "Europe/Berlin"},
                             {"rep_id": "bob", "team_id": "t1", "valid_to": handed_over},
                             {"rep_id": "bob", "team_id": "t2", "valid_from": handed_over}]),
        )
        .lane("teams", json!([{"team_id": "t1", "name": "North", "region": "EU"}]))
}

#[tokio::test]
async fn a_device_belongs_to_the_rep_who_carried_it_then() {
    let engine = engine(field());
    let sql = "SELECT device_id, date_part('day', window_start)::int, rep_id, device_priority, distance_m FROM rep_movement ORDER BY 1, window_start";
    let expected = "d1,28,ann,1,100.0\nd2,28,ann,2,300.0\nd2,2,bob,,30.0\nd3,2,cat,,5.0\nd4,28,,,4.0\nd5,2,cat,,7.0";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, expected);
    let spans =
        "SELECT device_id, rep_id, span_start > '2000-01-01' AS starts FROM device_reps ORDER BY device_id, span_start";
    assert_eq!(table_of(engine.session().as_ref(), spans).await, "d1,ann,false\nd2,ann,false\nd2,bob,true");
}

/// Whatever of a filter goes down to the tables of a view, and to which: it chooses among the view's rows.
#[tokio::test]
async fn filters_choose_among_the_rows_of_views() {
    let fake = field().lane(
        "rep_calls",
        json!([{"rep_id": "ann", "window_start": "2026-02-28T10:00:00Z", "window_end": "2026-02-28T10:05:00Z", "n_calls": 1}]),
    );
    let engine = engine(fake);
    let session = engine.session();
    let atoms = [
        "rep_id > 'ann'",
        "rep_id IS NOT NULL",
        "window_start > '2026-03-01'",
        "n_pings >= 5",
        "distance_m < 100",
        "n_pings > 0",
    ];
    let views = ["rep_movement", "rep_device_movement", "rep_activity"];
    let mut n_rows = 0;
    for view in views {
        for (idx, one) in atoms.iter().enumerate() {
            for other in &atoms[idx..] {
                let of = |rows: &str| {
                    format!("SELECT * FROM {rows} WHERE {one} AND {other} ORDER BY rep_id, window_start, n_pings")
                };
                let found = table_of(session.as_ref(), &of(view)).await;
                let held = format!("(SELECT * FROM {view} LIMIT 1000)");
                assert_eq!(found, table_of(session.as_ref(), &of(&held)).await, "{view}: {one} AND {other}");
                n_rows += found.lines().count();
            }
        }
    }
    assert!(n_rows > 100, "{n_rows}");
    // Of two columns of one name each stays itself.
    let sql = "SELECT count(*) FROM (SELECT m.rep_id AS r, a.rep_id AS s, m.device_id FROM device_movement m LEFT JOIN device_reps a ON a.device_id = m.device_id)
               WHERE coalesce(r, s) IS NOT NULL AND device_id > 'a'";
    assert_eq!(table_of(session.as_ref(), sql).await, "7");
}

#[tokio::test]
async fn activity_sums_sources_and_takes_one_device() {
    let call = |n: i64| {
        json!([{"rep_id": "ann", "window_start": "2026-02-28T10:00:00Z", "window_end": "2026-02-28T10:05:00Z", "n_calls": n, "n_inbound": n,
                "talk_s": 2.5}])
    };
    let message = json!([{"rep_id": "bob", "window_start": "2026-03-02T10:00:00Z", "window_end": "2026-03-02T10:05:00Z", "n_messages": 4,
                          "n_inbound": 3, "n_outbound": 1}]);
    let late = json!([{"rep_id": "ann", "window_start": "2026-02-28T23:30:00Z", "window_end": "2026-02-28T23:35:00Z", "n_sent": 9}]);
    let fake = field()
        .lane("rep_calls", call(1))
        .lane("rep_calls", call(2))
        .lane("rep_messages", message)
        .lane("rep_emails", late);
    let sql = "SELECT rep_id, n_devices, n_pings, distance_m, distance_m_other_devices, raw_m, n_calls, talk_s, n_inbound, n_messages_inbound, n_sent
               FROM rep_activity ORDER BY rep_id, window_start";
    let expected = "ann,2,55,300.0,100.0,301.0,3,5.0,3,0,0\nann,0,0,0.0,0.0,0.0,0,0.0,0,0,9\nbob,1,5,30.0,0.0,31.0,0,0.0,0,3,0\ncat,2,30,7.0,5.0,8.0,0,0.0,0,0,0";
    let fake = Arc::new(fake);
    let engine = SqlEngine::new(fake.clone(), options()).unwrap();
    let session = engine.session();
    assert_eq!(table_of(session.as_ref(), sql).await, expected);
    // 23:30 UTC is the next day in Berlin.
    let daily = "SELECT rep_id, local_date, team_id, n_windows, n_calls, n_sent FROM rep_activity_daily ORDER BY 1, 2";
    let expected = "ann,2026-02-28,t1,1,3,0\nann,2026-03-01,t1,1,0,9\nbob,2026-03-02,t2,1,0,0\ncat,2026-03-02,,1,0,0";
    assert_eq!(table_of(session.as_ref(), daily).await, expected);
    let teams = "SELECT team_id, team_name, local_date, n_reps_active, n_calls FROM team_activity_daily ORDER BY 3, 1";
    let expected = "t1,North,2026-02-28,1,3\nt1,North,2026-03-01,1,0\nt2,,2026-03-02,1,0\n,,2026-03-02,1,0";
    assert_eq!(table_of(session.as_ref(), teams).await, expected);
    let weekly =
        "SELECT rep_id, week_start, n_days, n_calls, n_sent FROM rep_activity_weekly WHERE rep_id = 'ann' ORDER BY 2";
    assert_eq!(table_of(session.as_ref(), weekly).await, "ann,2026-02-23,2,3,9");
    let sunday = SqlEngine::new(fake, QueryOptions { week_start: WeekStart::Sunday, ..options() }).unwrap();
    let expected = "ann,2026-02-22,1,3,0\nann,2026-03-01,1,0,9";
    assert_eq!(table_of(sunday.session().as_ref(), weekly).await, expected);
}

#[tokio::test]
async fn positions_grow_stale() {
    let fix = |device: &str, time: &str| json!({"device_id": device, "event_time": time, "lat": 1.0, "lon": 2.0});
    let fake =
        field().lane("rep_positions", json!([fix("d1", "2026-03-02T11:45:00Z"), fix("d9", "2026-03-02T11:44:59Z")]));
    let sql = "SELECT device_id, rep_id, age_s, is_stale FROM rep_positions ORDER BY 1";
    assert_eq!(table_of(engine(fake).session().as_ref(), sql).await, "d1,ann,900.0,false\nd9,,901.0,true");
}

/// Degrees of latitude that are so many metres.
fn degrees(distance_m: f64) -> f64 {
    distance_m / 111_195.080_233_532_9
}

fn places() -> Fake {
    let account = |id: &str, lat: f64, radius_m: Option<f64>| json!({"account_id": id, "lat": lat, "lon": 13.0, "radius_m": radius_m});
    Fake::default().lane(
        "accounts",
        json!([account("a1", 52.0, None), account("a2", 52.0 + degrees(60.0), Some(100.0)), account("big", 53.0, Some(5_000.0)),
               {"account_id": "nowhere"}]),
    )
}

#[tokio::test]
async fn stays_at_accounts_are_visits() {
    let stay = |device: &str, start: &str, end: Option<&str>, lat: f64| json!({"device_id": device, "stay_start": start, "stay_end": end, "lat": lat, "lon": 13.0, "n_pings": 3, "last_fix_time": start});
    let fake = places().lane(
        "stays",
        json!([
            stay("d1", "2026-03-02T11:00:00Z", Some("2026-03-02T11:10:00Z"), 52.0 + degrees(20.0)),
            stay("d1", "2026-03-02T11:30:00Z", None, 52.0 - degrees(99.0)),
            stay("d1", "2026-03-02T09:00:00Z", None, 52.0 - degrees(101.0)),
            stay("d2", "2026-03-02T11:00:00Z", Some("2026-03-02T11:00:30Z"), 53.0 + degrees(4_900.0))
        ]),
    );
    let sql = "SELECT device_id, account_id, dwell_s, is_open, round(distance_m)::int, n_accounts FROM visits ORDER BY 1, visit_start";
    let expected = "d1,a1,600.0,false,20,2\nd1,a1,1800.0,true,99,1\nd2,big,30.0,false,4900,1";
    assert_eq!(table_of(engine(fake).session().as_ref(), sql).await, expected);
}

#[tokio::test]
async fn check_ins_are_judged_by_fence_and_circle() {
    let mut offset = 0;
    let mut check_in = |id: &str,
                        account: &str,
                        distance_m: Option<f64>,
                        accuracy_m: Option<f64>,
                        mock: bool,
                        cached: bool| {
        offset += 1;
        json!({"check_in_id": id, "rep_id": "ann", "device_id": "d1", "account_id": account, "kind": "in", "offset": offset,
               "event_time": "2026-03-02T11:05:00Z", "lat": distance_m.map(|m| 52.0 - degrees(m)), "lon": distance_m.map(|_| 13.0),
               "accuracy_m": accuracy_m, "mock": mock, "cached": cached})
    };
    let rows = json!([
        check_in("1-inside", "a1", Some(90.0), Some(10.0), false, false),
        check_in("2-no-circle", "a1", Some(90.0), None, false, false),
        check_in("3-vague", "a1", Some(10.0), Some(500.0), false, false),
        check_in("4-edge", "a1", Some(120.0), Some(30.0), false, false),
        check_in("5-outside", "a1", Some(150.0), Some(30.0), false, false),
        check_in("6-mock", "a1", Some(1.0), Some(5.0), true, false),
        check_in("7-cached", "a1", Some(1.0), Some(5.0), false, true),
        check_in("8-no-fix", "a1", None, None, false, false),
        check_in("8-untrusted", "a1", Some(1.0), Some(-1.0), false, false),
        check_in("9-no-place", "nowhere", Some(1.0), Some(5.0), false, false),
        check_in("9-unknown", "never", Some(1.0), Some(5.0), false, false),
    ]);
    let sql = "SELECT check_in_id, verdict, reason, round(distance_m)::int FROM check_in_verdicts ORDER BY 1";
    let expected = "1-inside,in_range,inside,90\n2-no-circle,in_range,inside,90\n3-vague,unverifiable,accuracy,10\n4-edge,unverifiable,accuracy,120\n\
                    5-outside,out_of_range,outside,150\n6-mock,unverifiable,mock,1\n7-cached,unverifiable,cached,1\n8-no-fix,unverifiable,no_fix,\n\
                    8-untrusted,unverifiable,accuracy,1\n\
                    9-no-place,unverifiable,no_account_position,\n9-unknown,unverifiable,no_account_position,";
    let ping = |time: &str, distance_m: f64, accuracy_m: f64, mock: bool| json!({"device_id": "d1", "event_time": time, "lat": 52.0 - degrees(distance_m), "lon": 13.0, "accuracy_m": accuracy_m, "mock": mock});
    let pings = json!([
        ping("2026-03-02T11:05:01Z", 1.0, 5.0, true),
        ping("2026-03-02T11:05:02Z", 1.0, -1.0, false),
        ping("2026-03-02T11:05:20Z", 700.0, 5.0, false),
        ping("2026-03-02T11:04:00Z", 1.0, 5.0, false)
    ]);
    let engine = engine(places().lane("check_ins", rows).lane("gps_pings", pings));
    assert_eq!(table_of(engine.session().as_ref(), sql).await, expected);
    let track =
        "SELECT DISTINCT fix_age_s, round(track_distance_m)::int FROM check_in_verdicts WHERE account_id = 'a1'";
    assert_eq!(table_of(engine.session().as_ref(), track).await, "20.0,700");
}
