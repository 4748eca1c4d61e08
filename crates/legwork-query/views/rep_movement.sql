-- name: rep_movement
-- doc: Movement of a device in a window, with the rep who carried it: as the ping says, else as assigned at the window's start.
-- key: device_id, rep_id, window_start
SELECT m.device_id,
       coalesce(m.rep_id, a.rep_id) AS rep_id,
       CASE WHEN m.rep_id IS NULL OR m.rep_id = a.rep_id THEN a.priority END AS device_priority,
       m.window_start, m.window_end, m.n_pings, m.raw_m, m.distance_m, m.gap_m, m.moving_s, m.stationary_s, m.gap_s,
       m.speed_mps_max, m.first_fix_time, m.last_fix_time, m.n_filtered_accuracy, m.n_filtered_speed, m.n_filtered_mock,
       m.odometer_m, m.is_open, m.revision
-- What is held while the many rows pass stands on the left.
FROM device_reps a
RIGHT JOIN device_movement m
  ON a.device_id = m.device_id AND a.span_start <= m.window_start AND m.window_start < a.span_end
