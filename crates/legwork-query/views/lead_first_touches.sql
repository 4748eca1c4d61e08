-- name: lead_first_touches
-- doc: When a lead was first contacted and how long that took; open ones are measured to legwork_now().
-- key: lead_id
WITH first_touch AS (
    SELECT lead_id, min(event_time) AS first_touch_time
    FROM touches
    WHERE lead_id IS NOT NULL AND direction IS DISTINCT FROM 'inbound'
    GROUP BY lead_id
)
SELECT l.lead_id, l.origin, l.owner_id, l.status, l.created_time, f.first_touch_time,
       greatest(seconds_between(l.created_time, coalesce(f.first_touch_time, legwork_now())), 0.0) AS first_touch_s,
       f.first_touch_time IS NOT NULL AS is_touched
FROM leads l
LEFT JOIN first_touch f ON f.lead_id = l.lead_id
