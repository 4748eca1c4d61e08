-- name: rep_movement
-- doc: Movement of a device in a window, with the rep who carried it: as the ping says, else as assigned at the window's start.
-- key: device_id, rep_id, window_start
-- Of several assignments the one with the highest priority holds, then the newest, then the first by name.
WITH assigned AS (
    SELECT device_id, window_start, rep_id, priority
    FROM (
        SELECT w.device_id, w.window_start, a.rep_id, a.priority,
               row_number() OVER (
                   PARTITION BY w.device_id, w.window_start
                   ORDER BY a.priority DESC NULLS LAST, a.valid_from DESC NULLS LAST, a.rep_id
               ) AS place
        FROM (SELECT DISTINCT device_id, window_start FROM device_movement) w
        JOIN device_assignments a
          ON a.device_id = w.device_id
         AND (a.valid_from IS NULL OR a.valid_from <= w.window_start)
         AND (a.valid_to IS NULL OR a.valid_to > w.window_start)
    ) ranked
    WHERE place = 1
)
SELECT m.device_id,
       coalesce(m.rep_id, assigned.rep_id) AS rep_id,
       m.window_start, m.window_end, m.n_pings, m.raw_m, m.distance_m, m.gap_m, m.moving_s, m.stationary_s, m.gap_s,
       m.speed_mps_max, m.first_fix_time, m.last_fix_time, m.n_filtered_accuracy, m.n_filtered_speed, m.n_filtered_mock,
       m.odometer_m, m.is_open, m.revision
FROM device_movement m
LEFT JOIN assigned ON assigned.device_id = m.device_id AND assigned.window_start = m.window_start
