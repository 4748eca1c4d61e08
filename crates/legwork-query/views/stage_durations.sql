-- name: stage_durations
-- doc: How long deals stay in a stage: Kaplan-Meier quantiles over all visits, open ones counted as still running; null where too few have left.
-- key: pipeline_id, stage
SELECT pipeline_id, stage,
       count(*) AS n_visits,
       sum(CASE WHEN left_time IS NULL THEN 1 ELSE 0 END) AS n_open,
       km_quantile(duration_s, left_time IS NOT NULL, 0.5) AS p50_s,
       km_quantile(duration_s, left_time IS NOT NULL, 0.8) AS p80_s,
       km_quantile(duration_s, left_time IS NOT NULL, 0.9) AS p90_s
FROM deal_stage_intervals
WHERE NOT is_final_stage
GROUP BY pipeline_id, stage
