-- name: device_coverage
-- doc: Pings of a device in an H3 cell on a UTC day.
-- key: device_id, day, h3_cell
SELECT device_id, day_start AS day, h3_cell, sum(n_pings) AS n_pings, min(first_fix_time) AS first_fix_time, max(last_fix_time) AS last_fix_time
FROM lanes.device_coverage
GROUP BY device_id, day_start, h3_cell
