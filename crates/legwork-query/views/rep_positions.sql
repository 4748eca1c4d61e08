-- name: rep_positions
-- doc: Newest fix of a device, with the rep who carries it. is_stale: older than 15 minutes of legwork_now().
-- key: device_id
WITH assigned AS (
    SELECT device_id, rep_id
    FROM (
        SELECT p.device_id, a.rep_id,
               row_number() OVER (
                   PARTITION BY p.device_id
                   ORDER BY a.priority DESC NULLS LAST, a.valid_from DESC NULLS LAST, a.rep_id
               ) AS place
        FROM lanes.rep_positions p
        JOIN device_assignments a
          ON a.device_id = p.device_id
         AND (a.valid_from IS NULL OR a.valid_from <= p.event_time)
         AND (a.valid_to IS NULL OR a.valid_to > p.event_time)
    ) ranked
    WHERE place = 1
)
SELECT p.device_id,
       coalesce(p.rep_id, assigned.rep_id) AS rep_id,
       p.event_time, p.lat, p.lon, p.accuracy_m, p.speed_mps, p.battery_pct,
       seconds_between(p.event_time, legwork_now()) AS age_s,
       seconds_between(p.event_time, legwork_now()) > 900 AS is_stale
FROM lanes.rep_positions p
LEFT JOIN assigned ON assigned.device_id = p.device_id
