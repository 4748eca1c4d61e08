-- name: rep_positions
-- doc: Newest fix of a device, with the rep who carries it. is_stale: older than 15 minutes of legwork_now().
-- key: device_id
SELECT p.device_id,
       coalesce(p.rep_id, a.rep_id) AS rep_id,
       p.event_time, p.lat, p.lon, p.accuracy_m, p.speed_mps, p.battery_pct,
       seconds_between(p.event_time, legwork_now()) AS age_s,
       seconds_between(p.event_time, legwork_now()) > 900 AS is_stale
FROM lanes.rep_positions p
LEFT JOIN device_reps a
  ON a.device_id = p.device_id AND a.span_start <= p.event_time AND p.event_time < a.span_end
