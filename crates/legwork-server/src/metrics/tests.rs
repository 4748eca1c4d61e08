//! Text, caps, failures; promtool's word when it is there.

use std::io::Write;
use std::process::{Command, Stdio};

use arrow::array::{ArrayRef, Float64Array, StringArray};

use super::business::MetricType;
use super::*;
use crate::testing::FakeEngine;

fn metric(metric_type: MetricType) -> Metric {
    Metric { name: "legwork_x_meters", help: "A \\ and\na line.", metric_type, sql: String::new() }
}

fn batch(rows: &[(&str, Option<f64>)]) -> RecordBatch {
    let teams: StringArray = rows.iter().map(|(team, _)| Some(*team)).collect();
    let values: Float64Array = rows.iter().map(|(_, value)| *value).collect();
    RecordBatch::try_from_iter([("team", Arc::new(teams) as ArrayRef), ("value", Arc::new(values) as ArrayRef)])
        .unwrap()
}

/// Tables and views that the metrics ask for, in DataFusion's own terms: the names and columns of the real ones.
pub(crate) const VIEWS: &[(&str, &str)] = &[
    (
        "rep_activity",
        "SELECT column1 AS rep_id, legwork_now() - INTERVAL '1 minute' AS window_start, legwork_now() + INTERVAL '4 minutes' AS window_end,
         column2 AS n_pings, column3 AS distance_m, 2 AS n_calls, 1 AS n_inbound, 1 AS n_outbound, 30.5 AS talk_s, 3 AS n_sent,
         1 AS n_received, 1 AS n_opened, 0 AS n_clicked, 0 AS n_bounced, 0 AS n_replied, 0 AS n_messages
         FROM (VALUES ('r1', 10, 1200.5), ('r2', 5, 300.0), ('r3', 1, 10.0)) v",
    ),
    (
        "rep_movement",
        // r1 has a device with fewer pings as well, r2 one with more, but without a priority.
        "SELECT 'd-' || rep_id AS device_id, rep_id, CASE WHEN rep_id = 'r2' THEN 1 END AS device_priority, window_start, window_end, n_pings,
         distance_m FROM rep_activity
         UNION ALL SELECT 'e', rep_id, NULL, window_start, window_end, 7, 7.0 FROM rep_activity WHERE rep_id <> 'r3'
         UNION ALL SELECT 'f', 'since yesterday', NULL, legwork_now() - INTERVAL '22 hours', legwork_now() + INTERVAL '1 minute', 1, 0.0
         UNION ALL SELECT 'g', 'not lately', NULL, legwork_now() - INTERVAL '20 minutes', legwork_now() - INTERVAL '15 minutes', 1, 0.0",
    ),
    ("rep_calls", "SELECT * FROM rep_activity"),
    ("rep_emails", "SELECT * FROM rep_activity"),
    ("rep_messages", "SELECT * FROM rep_activity"),
    (
        "rep_teams",
        "SELECT column1 AS rep_id, column2 AS team_id, legwork_now() - INTERVAL '9 days' AS span_start,
         legwork_now() + INTERVAL '9 days' AS span_end FROM (VALUES ('r1', 'north'), ('r2', 'so\"uth'), ('r3', 'north')) v",
    ),
    (
        "deals",
        "SELECT column1 AS pipeline_id, column2 AS stage, column3 AS amount, column4 AS currency, column5 AS status
         FROM (VALUES ('p', 's1', 10.5, 'USD', 'open'), ('p', 's1', 1.5, 'EUR', 'open'), ('p', NULL, NULL, NULL, 'open'),
         ('p', 's2', 5.0, 'USD', 'won')) v",
    ),
    (
        "stalled_deals",
        "SELECT 'north' AS team_id, 'p' AS pipeline_id, 's1' AS stage, arrow_cast(NULL, 'Timestamp(Microsecond, Some(\"UTC\"))') AS snoozed_until",
    ),
    (
        "deal_stage_intervals",
        "SELECT 'p' AS pipeline_id, 's1' AS stage, 60.0 AS duration_s, now() AS left_time",
    ),
];

fn engine() -> FakeEngine {
    FakeEngine { views: VIEWS.to_vec(), ..FakeEngine::default() }
}

#[test]
fn labels_are_escaped_and_nulls_left_out() {
    let rows = batch(&[("a\"b\\c\nd", Some(1.5)), ("n", None), ("nan", Some(f64::NAN)), ("inf", Some(f64::INFINITY))]);
    let text = text::render(&metric(MetricType::Gauge), &[rows], 10).unwrap();
    let wanted = "# HELP legwork_x_meters A \\\\ and\\na line.\n# TYPE legwork_x_meters gauge\n\
                  legwork_x_meters{team=\"a\\\"b\\\\c\\nd\"} 1.5\nlegwork_x_meters{team=\"inf\"} +Inf\n";
    assert_eq!(text, wanted);
    assert_eq!(text::render(&metric(MetricType::Gauge), &[], 10).unwrap(), "");
}

#[test]
fn beyond_the_cap_the_smallest_become_other() {
    let rows = batch(&[("a", Some(1.0)), ("b", Some(4.0)), ("c", Some(3.0)), ("d", Some(2.0))]);
    let text = text::render(&metric(MetricType::Gauge), std::slice::from_ref(&rows), 3).unwrap();
    let series: Vec<_> = text.lines().skip(2).collect();
    assert_eq!(
        series,
        ["legwork_x_meters{team=\"b\"} 4", "legwork_x_meters{team=\"c\"} 3", "legwork_x_meters{team=\"other\"} 3"]
    );
    let quantiles = text::render(&metric(MetricType::Summary), &[rows], 3).unwrap();
    assert_eq!(quantiles.lines().skip(2).count(), 2);
}

#[tokio::test]
async fn every_metric_has_values_and_promtool_accepts_them() {
    let metrics = BusinessMetrics::new(&engine(), MetricsOptions::default());
    metrics.evaluate().await;
    let text = metrics.render();
    for expected in [
        "legwork_reps_active{team=\"north\"} 2",
        "legwork_reps_active{team=\"none\"} 1",
        "legwork_distance_meters{team=\"north\",period=\"today\"} 1210.5",
        "legwork_calls{team=\"so\\\"uth\",direction=\"inbound\",period=\"today\"} 1",
        "legwork_talk_seconds{team=\"north\",period=\"today\"} 61",
        "legwork_emails{team=\"north\",kind=\"sent\",period=\"today\"} 6",
        "legwork_deals_open{pipeline=\"p\",stage=\"none\"} 1",
        "legwork_deals_open_amount{pipeline=\"p\",stage=\"s1\",currency=\"EUR\"} 1.5",
        "legwork_deals_stalled{team=\"north\",pipeline=\"p\",stage=\"s1\"} 1",
        "legwork_stage_duration_seconds{pipeline=\"p\",stage=\"s1\",quantile=\"0.5\"} 60",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
    }
    assert!(
        text.lines().filter(|line| line.starts_with("legwork_metrics_errors_total{")).all(|line| line.ends_with(" 0")),
        "{text}"
    );
    promtool(&text);
    let by_rep =
        BusinessMetrics::new(&engine(), MetricsOptions { by_rep: true, series_max: 2, ..MetricsOptions::default() });
    by_rep.evaluate().await;
    let text = by_rep.render();
    assert!(text.contains("legwork_distance_meters{team=\"north\",rep=\"r1\",period=\"today\"} 1200.5\n"), "{text}");
    assert!(text.contains("legwork_distance_meters{team=\"other\",rep=\"other\",period=\"today\"} 310\n"), "{text}");
    promtool(&text);
}

/// promtool reads the text and has nothing to say. Where it is not installed this says so; in CI it must be there.
pub(crate) fn promtool(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var("CI").is_err(), "promtool is needed in CI: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: promtool is not installed");
            return;
        }
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "promtool: {said}\n{text}");
}

#[tokio::test]
async fn a_failing_metric_keeps_its_values_and_is_counted() {
    let mut metrics = BusinessMetrics::new(&engine(), MetricsOptions::default());
    metrics.evaluate().await;
    let before = metrics.render();
    let broken = metrics.metrics.iter().position(|metric| metric.name == "legwork_deals_open").unwrap();
    metrics.metrics[broken].sql = "SELECT nothing FROM nowhere".to_owned();
    metrics.evaluate().await;
    let after = metrics.render();
    assert_eq!(before.replace("{metric=\"legwork_deals_open\"} 0", "{metric=\"legwork_deals_open\"} 1"), after);
}

#[tokio::test]
async fn it_ends_when_told() {
    let metrics = BusinessMetrics::new(
        &engine(),
        MetricsOptions { every: Duration::from_millis(5), ..MetricsOptions::default() },
    );
    let (down, shutdown) = watch::channel(false);
    let (ran, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(20), metrics.run(shutdown)), async {
        while metrics.last.read().iter().all(|last| last.text.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        down.send(true).unwrap();
    });
    ran.unwrap();
}
