-- name: stalled_deals
-- doc: Open deals that show signs of stalling. signals: age (longer in the stage than its limit), no_touch (nothing from the other side, no call, meeting or check-in in 10 business days), close_date_past, close_date_pushed (3 times or more), nothing_scheduled (never alone). score: value in the base currency times excess age, a quarter for each other signal; 0 while snoozed.
-- key: deal_id
-- The limit of a stage is stages.stall_after_s, else the 80th percentile (Kaplan-Meier) of its visits.
WITH answered AS (
    SELECT deal_id, max(event_time) AS last_answer_time
    FROM touches
    WHERE deal_id IS NOT NULL
      AND event_time <= legwork_now()
      AND ((direction IS DISTINCT FROM 'outbound') OR channel IN ('call', 'meeting', 'check_in'))
    GROUP BY deal_id
),
aged AS (
    SELECT d.deal_id, d.pipeline_id, d.stage, d.owner_id, d.account_id, t.team_id, d.amount, d.currency,
           CAST(d.amount AS DOUBLE) * coalesce(fx.rate_to_base, 1.0) AS value_base,
           greatest(seconds_between(coalesce(d.stage_entered_time, d.created_time), legwork_now()), 0.0) AS age_s,
           coalesce(s.stall_after_s, q.p80_s) AS age_limit_s,
           business_seconds(
               coalesce(w.last_answer_time, d.created_time), legwork_now(), coalesce(c.time_zone, t.time_zone),
               c.working_hours, c.holidays
           ) AS silent_business_s,
           d.close_date < local_date(legwork_now(), t.time_zone) AS is_past,
           d.n_close_date_pushes >= 3 AS is_pushed,
           d.next_step_time IS NULL OR d.next_step_time < legwork_now() AS is_unscheduled,
           CASE WHEN d.snooze_until > legwork_now() THEN d.snooze_until END AS snoozed_until
    FROM deals d
    LEFT JOIN stages s ON s.pipeline_id = d.pipeline_id AND s.stage = d.stage
    LEFT JOIN stage_durations q ON q.pipeline_id = d.pipeline_id AND q.stage = d.stage
    LEFT JOIN answered w ON w.deal_id = d.deal_id
    LEFT JOIN rep_teams t
      ON t.rep_id = d.owner_id AND t.span_start <= legwork_now() AND legwork_now() < t.span_end
    LEFT JOIN calendars c ON c.calendar_id = coalesce(t.calendar_id, '{calendar}')
    LEFT JOIN fx_spans fx
      ON fx.currency = d.currency
     AND fx.as_of <= local_date(legwork_now(), 'UTC')
     AND (fx.until IS NULL OR local_date(legwork_now(), 'UTC') < fx.until)
    WHERE d.status = 'open'
),
signalled AS (
    SELECT *,
           array_remove_all(
               make_array(
                   CASE WHEN age_s > age_limit_s THEN 'age' ELSE '' END,
                   CASE WHEN silent_business_s > 10 * 8 * 3600 THEN 'no_touch' ELSE '' END,
                   CASE WHEN is_past THEN 'close_date_past' ELSE '' END,
                   CASE WHEN is_pushed THEN 'close_date_pushed' ELSE '' END,
                   CASE WHEN is_unscheduled THEN 'nothing_scheduled' ELSE '' END
               ),
               ''
           ) AS signals,
           age_s > age_limit_s AS is_old
    FROM aged
)
SELECT deal_id, pipeline_id, stage, owner_id, team_id, account_id, amount, currency, age_s, age_limit_s, signals,
       CASE WHEN snoozed_until IS NOT NULL THEN 0.0
            ELSE coalesce(value_base, 0.0)
                 * (CASE WHEN is_old AND age_limit_s > 0 THEN age_s / age_limit_s - 1 ELSE 0.0 END
                    + 0.25 * (cardinality(signals) - CASE WHEN is_old THEN 1 ELSE 0 END))
       END AS score,
       snoozed_until
FROM signalled
WHERE cardinality(signals) > CASE WHEN is_unscheduled THEN 1 ELSE 0 END
