-- name: rep_device_movement
-- doc: Movement of the devices of a rep, is_main where the device is the one that counts for the rep in the window: of several with pings the one with the highest priority, without priorities the one with the most pings.
-- key: device_id, rep_id, window_start
-- Only where several devices of a rep have pings in a window is there anything to rank: mostly nowhere. What is held while the many rows pass
-- stands on the left of the joins. The business metric of distances ranks by the same order.
WITH contested AS (
    SELECT rep_id, window_start FROM rep_movement WHERE rep_id IS NOT NULL GROUP BY rep_id, window_start HAVING count(*) > 1
),
ranked AS (
    SELECT m.device_id, m.rep_id, m.window_start,
           row_number() OVER (
               PARTITION BY m.rep_id, m.window_start
               ORDER BY m.device_priority DESC NULLS LAST, m.n_pings DESC, m.device_id
           ) AS place
    FROM contested c
    JOIN rep_movement m ON m.rep_id = c.rep_id AND m.window_start = c.window_start
),
others AS (
    SELECT device_id, rep_id, window_start FROM ranked WHERE place > 1
)
SELECT m.*, o.device_id IS NULL AS is_main
FROM others o
RIGHT JOIN rep_movement m ON o.device_id = m.device_id AND o.rep_id = m.rep_id AND o.window_start = m.window_start
WHERE m.rep_id IS NOT NULL
