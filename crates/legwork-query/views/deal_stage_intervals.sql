-- name: deal_stage_intervals
-- doc: A visit of a deal to a stage with how it ended: open, forward, back, skip, won, lost or moved (to another pipeline), and how long it took; open ones are measured to legwork_now(). business_duration_s counts the working hours of the owner's calendar.
-- key: deal_id, visit_no
-- Forward over at least one open stage in between is a skip. Stages that the reference data does not know are taken as forward.
WITH ordered AS (
    SELECT pipeline_id, stage, position,
           coalesce(is_won, false) AS is_won,
           coalesce(is_lost, false) AS is_lost,
           sum(CASE WHEN coalesce(is_won, false) OR coalesce(is_lost, false) THEN 0 ELSE 1 END)
               OVER (PARTITION BY pipeline_id ORDER BY position, stage) AS n_open_stages
    FROM stages
),
timed AS (
    SELECT v.*, coalesce(v.left_time, legwork_now()) AS until FROM deal_stage_visits v
)
SELECT v.deal_id, v.visit_no, v.pipeline_id, v.stage, v.entered_time, v.left_time, v.next_pipeline_id, v.next_stage, v.owner_id,
       CASE WHEN v.left_time IS NULL THEN 'open'
            WHEN v.next_pipeline_id IS DISTINCT FROM v.pipeline_id THEN 'moved'
            WHEN there.is_won THEN 'won'
            WHEN there.is_lost THEN 'lost'
            WHEN there.position < here.position THEN 'back'
            WHEN there.n_open_stages > here.n_open_stages + 1 THEN 'skip'
            ELSE 'forward' END AS exit_kind,
       greatest(seconds_between(v.entered_time, v.until), 0.0) AS duration_s,
       greatest(business_seconds(v.entered_time, v.until, coalesce(c.time_zone, t.time_zone), c.working_hours, c.holidays), 0.0)
           AS business_duration_s,
       coalesce(here.is_won OR here.is_lost, false) AS is_final_stage,
       v.revision
FROM timed v
LEFT JOIN ordered here ON here.pipeline_id = v.pipeline_id AND here.stage = v.stage
LEFT JOIN ordered there ON there.pipeline_id = v.next_pipeline_id AND there.stage = v.next_stage
LEFT JOIN rep_teams t
  ON t.rep_id = v.owner_id AND t.span_start <= v.entered_time AND v.entered_time < t.span_end
LEFT JOIN calendars c ON c.calendar_id = coalesce(t.calendar_id, '{calendar}')
