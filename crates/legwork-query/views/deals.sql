-- name: deals
-- doc: A deal as its newest patches leave it, with what its stage means: open, won or lost, deleted where it is deleted. A stage that the reference data does not know is open.
-- key: deal_id
WITH moves AS (
    SELECT v.deal_id, count(*) AS n_regressions
    FROM deal_stage_visits v
    JOIN stages here ON here.pipeline_id = v.pipeline_id AND here.stage = v.stage
    JOIN stages there ON there.pipeline_id = v.next_pipeline_id AND there.stage = v.next_stage
    WHERE v.next_pipeline_id = v.pipeline_id AND there.position < here.position
    GROUP BY v.deal_id
),
touched AS (
    SELECT deal_id, max(event_time) AS last_touch_time
    FROM touches
    WHERE deal_id IS NOT NULL AND event_time <= legwork_now()
    GROUP BY deal_id
)
SELECT d.deal_id, d.pipeline_id, d.stage, d.stage_entered_time, d.owner_id, d.account_id, d.lead_id, d.amount, d.currency,
       d.close_date, d.probability, d.created_time, d.next_step_time, d.snooze_until, d.snooze_reason, d.n_close_date_pushes,
       d.deleted,
       CASE WHEN d.deleted THEN 'deleted'
            WHEN s.is_won THEN 'won'
            WHEN s.is_lost THEN 'lost'
            ELSE 'open' END AS status,
       CASE WHEN s.is_won OR s.is_lost THEN d.stage_entered_time END AS closed_time,
       coalesce(moves.n_regressions, 0) AS n_regressions,
       touched.last_touch_time,
       d.last_event_time, d.revision
FROM lanes.deals d
LEFT JOIN stages s ON s.pipeline_id = d.pipeline_id AND s.stage = d.stage
LEFT JOIN moves ON moves.deal_id = d.deal_id
LEFT JOIN touched ON touched.deal_id = d.deal_id
