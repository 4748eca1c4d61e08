-- name: device_reps
-- doc: Which rep carries a device from span_start until before span_end; the spans of a device do not overlap.
-- key: device_id, span_start
-- Of assignments that overlap the one with the highest priority holds, then the newest, then the first by name: each device's time
-- is cut wherever an assignment begins or ends, and each piece goes to the best one that covers it.
WITH assignments AS (
    SELECT device_id, rep_id, priority,
           coalesce(valid_from, arrow_cast('1700-01-01T00:00:00Z', 'Timestamp(Microsecond, Some("UTC"))')) AS valid_from,
           coalesce(valid_to, arrow_cast('2250-01-01T00:00:00Z', 'Timestamp(Microsecond, Some("UTC"))')) AS valid_to
    FROM device_assignments
),
cuts AS (
    SELECT device_id, valid_from AS span_start FROM assignments
    UNION
    SELECT device_id, valid_to FROM assignments
),
spans AS (
    SELECT device_id, span_start, lead(span_start) OVER (PARTITION BY device_id ORDER BY span_start) AS span_end
    FROM cuts
),
ranked AS (
    SELECT s.device_id, a.rep_id, a.priority, s.span_start, s.span_end,
           row_number() OVER (
               PARTITION BY s.device_id, s.span_start
               ORDER BY a.priority DESC NULLS LAST, a.valid_from DESC, a.rep_id
           ) AS place
    FROM spans s
    JOIN assignments a ON a.device_id = s.device_id AND a.valid_from <= s.span_start AND a.valid_to >= s.span_end
)
SELECT device_id, rep_id, priority, span_start, span_end FROM ranked WHERE place = 1
