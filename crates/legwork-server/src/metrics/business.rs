//! Which business metrics there are. Each is one query whose column `value` is the value and whose other columns are labels.
//!
//! *Today* is the UTC day of `legwork_now()`, from its beginning until now. A rep counts for the team that they were in when the window
//! began. Deals without a pipeline, a stage or a team have the label `none`.

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricType {
    /// May rise and fall: corrections lower sums.
    Gauge,
    /// Quantiles, without sum and count.
    Summary,
}

impl MetricType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            MetricType::Gauge => "gauge",
            MetricType::Summary => "summary",
        }
    }
}

/// One metric.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) metric_type: MetricType,
    pub(crate) sql: String,
}

/// Reps' windows of a table that `within` names, with the team of the time when they began. The narrowest table is asked: `rep_activity`
/// would read them all.
fn windows(table: &str, within: &str) -> String {
    format!(
        "WITH windows AS (
            SELECT a.*, coalesce(t.team_id, 'none') AS team
            FROM rep_teams t
            RIGHT JOIN {table} a ON t.rep_id = a.rep_id AND t.span_start <= a.window_start AND a.window_start < t.span_end
            WHERE {within} AND a.window_start <= legwork_now()
        )"
    )
}

/// Windows that began today.
const TODAY: &str = "a.window_start >= date_trunc('day', legwork_now())";

/// Windows that reach into the last quarter of an hour; none is longer than a day, which bounds what is read.
const LAST_MINUTES: &str =
    "a.window_start >= legwork_now() - INTERVAL '25 hours' AND a.window_end > legwork_now() - INTERVAL '15 minutes'";

/// Reps with a window of the last quarter of an hour, by source.
const LATELY: &str = "(
    SELECT rep_id, window_start, window_end FROM rep_movement WHERE rep_id IS NOT NULL
    UNION ALL SELECT rep_id, window_start, window_end FROM rep_calls
    UNION ALL SELECT rep_id, window_start, window_end FROM rep_emails WHERE n_sent > 0
    UNION ALL SELECT rep_id, window_start, window_end FROM rep_messages
)";

/// What `rep_device_movement` has today of the devices that count. The view itself groups every window of every rep, which takes ten times the
/// memory, again and again: here windows are ranked for reps with several devices alone.
const MAIN_MOVEMENT: &str = "(
    WITH today AS (
        SELECT device_id, rep_id, device_priority, window_start, n_pings, distance_m FROM rep_movement
        WHERE rep_id IS NOT NULL AND window_start >= date_trunc('day', legwork_now()) AND window_start <= legwork_now()
    ),
    sharing AS (SELECT rep_id FROM today GROUP BY rep_id HAVING count(DISTINCT device_id) > 1),
    ranked AS (
        SELECT t.device_id, t.rep_id, t.window_start,
               row_number() OVER (
                   PARTITION BY t.rep_id, t.window_start
                   ORDER BY t.device_priority DESC NULLS LAST, t.n_pings DESC, t.device_id
               ) AS place
        FROM sharing s
        JOIN today t ON t.rep_id = s.rep_id
    )
    SELECT t.rep_id, t.window_start, t.distance_m
    FROM (SELECT device_id, rep_id, window_start FROM ranked WHERE place > 1) o
    RIGHT JOIN today t ON o.device_id = t.device_id AND o.rep_id = t.rep_id AND o.window_start = t.window_start
    WHERE o.device_id IS NULL
)";

/// All metrics; those of activity by rep when `by_rep`.
pub(crate) fn metrics(by_rep: bool) -> Vec<Metric> {
    let gauge = |name, help, sql| Metric { name, help, metric_type: MetricType::Gauge, sql };
    let mut metrics = activity(by_rep);
    metrics.extend([
        gauge(
            "legwork_deals_open",
            "Deals that are open, by stage.",
            "SELECT coalesce(pipeline_id, 'none') AS pipeline, coalesce(stage, 'none') AS stage, count(*) AS value
             FROM deals WHERE status = 'open' GROUP BY 1, 2"
                .to_owned(),
        ),
        gauge(
            "legwork_deals_open_amount",
            "Value of the deals that are open, by stage, in the currency of the deal.",
            "SELECT coalesce(pipeline_id, 'none') AS pipeline, coalesce(stage, 'none') AS stage,
                    coalesce(currency, 'none') AS currency, CAST(sum(amount) AS DOUBLE) AS value
             FROM deals WHERE status = 'open' AND amount IS NOT NULL GROUP BY 1, 2, 3"
                .to_owned(),
        ),
        gauge(
            "legwork_deals_stalled",
            "Open deals that show signs of stalling and are not snoozed.",
            "SELECT coalesce(team_id, 'none') AS team, coalesce(pipeline_id, 'none') AS pipeline,
                    coalesce(stage, 'none') AS stage, count(*) AS value
             FROM stalled_deals WHERE snoozed_until IS NULL GROUP BY 1, 2, 3"
                .to_owned(),
        ),
        Metric {
            name: "legwork_stage_duration_seconds",
            help: "How long deals stay in a stage: Kaplan-Meier quantiles, open visits counted as still running.",
            metric_type: MetricType::Summary,
            sql: stage_durations(),
        },
    ]);
    metrics
}

fn activity(by_rep: bool) -> Vec<Metric> {
    let by = if by_rep { "team, rep_id AS rep" } else { "team" };
    let group = if by_rep { "GROUP BY team, rep_id" } else { "GROUP BY team" };
    let gauge = |name, help, table: &str, parts: Vec<String>| {
        let sql = format!("{}\n{}", windows(table, TODAY), parts.join("\nUNION ALL\n"));
        Metric { name, help, metric_type: MetricType::Gauge, sql }
    };
    let sum = |label: &str, column: &str| {
        let label = if label.is_empty() { String::new() } else { format!("{label}, ") };
        format!("SELECT {by}, {label}'today' AS period, CAST(sum({column}) AS DOUBLE) AS value FROM windows {group}")
    };
    let calls =
        ["inbound", "outbound"].map(|direction| sum(&format!("'{direction}' AS direction"), &format!("n_{direction}")));
    let emails = ["sent", "received", "opened", "clicked", "bounced", "replied"]
        .map(|kind| sum(&format!("'{kind}' AS kind"), &format!("n_{kind}")));
    let active =
        format!("{}\nSELECT {by}, count(DISTINCT rep_id) AS value FROM windows {group}", windows(LATELY, LAST_MINUTES));
    vec![
        Metric {
            name: "legwork_reps_active",
            help: "Reps with a ping, a call, an e-mail sent or a message in a window of the last 15 minutes.",
            metric_type: MetricType::Gauge,
            sql: active,
        },
        gauge(
            "legwork_distance_meters",
            "Distance travelled in the period, filtered.",
            MAIN_MOVEMENT,
            vec![sum("", "distance_m")],
        ),
        gauge("legwork_calls", "Calls in the period.", "rep_calls", calls.to_vec()),
        gauge("legwork_talk_seconds", "Time spent in calls in the period.", "rep_calls", vec![sum("", "talk_s")]),
        gauge(
            "legwork_emails",
            "E-mails in the period; opened without those by machines.",
            "rep_emails",
            emails.to_vec(),
        ),
    ]
}

fn stage_durations() -> String {
    let quantiles = ["0.5", "0.8", "0.9"].map(|quantile| {
        format!(
            "SELECT pipeline, stage, '{quantile}' AS quantile, km_quantile(duration_s, left_time IS NOT NULL, {quantile}) AS value
             FROM visits GROUP BY pipeline, stage"
        )
    });
    format!(
        "WITH visits AS (
             SELECT coalesce(pipeline_id, 'none') AS pipeline, stage, duration_s, left_time
             FROM deal_stage_intervals WHERE duration_s IS NOT NULL
         )
         {}",
        quantiles.join(" UNION ALL ")
    )
}
