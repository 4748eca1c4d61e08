-- name: rep_activity
-- doc: What a rep did in a window, summed over all sources. distance_m is of the device with the highest priority that has pings in the window, without priorities of the one with the most pings; the others' is in distance_m_other_devices. n_inbound and n_outbound are of calls.
-- key: rep_id, window_start
WITH parts AS (
    SELECT rep_id, window_start, window_end, n_pings, 1 AS n_devices,
           CASE WHEN is_main THEN raw_m ELSE 0.0 END AS raw_m,
           CASE WHEN is_main THEN distance_m ELSE 0.0 END AS distance_m,
           CASE WHEN is_main THEN 0.0 ELSE distance_m END AS distance_m_other_devices,
           CASE WHEN is_main THEN gap_m ELSE 0.0 END AS gap_m,
           CASE WHEN is_main THEN moving_s ELSE 0.0 END AS moving_s,
           CASE WHEN is_main THEN stationary_s ELSE 0.0 END AS stationary_s,
           CASE WHEN is_main THEN gap_s ELSE 0.0 END AS gap_s,
           0 AS n_calls, 0 AS n_connected, 0 AS n_inbound, 0 AS n_outbound, 0.0 AS talk_s,
           0 AS n_sent, 0 AS n_received, 0 AS n_opened, 0 AS n_clicked, 0 AS n_bounced, 0 AS n_replied,
           0 AS n_messages, 0 AS n_messages_inbound, 0 AS n_messages_outbound,
           0 AS n_scheduled, 0 AS n_held, 0 AS n_no_show, 0 AS n_canceled, 0 AS n_due, 0 AS n_completed
    FROM rep_device_movement
    UNION ALL
    SELECT rep_id, window_start, window_end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
           n_calls, n_connected, n_inbound, n_outbound, talk_s, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM lanes.rep_calls
    UNION ALL
    SELECT rep_id, window_start, window_end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
           0, 0, 0, 0, 0.0, n_sent, n_received, n_opened, n_clicked, n_bounced, n_replied, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM lanes.rep_emails
    UNION ALL
    SELECT rep_id, window_start, window_end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
           0, 0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0,
           n_messages, n_inbound AS n_messages_inbound, n_outbound AS n_messages_outbound, 0, 0, 0, 0, 0, 0
    FROM lanes.rep_messages
    UNION ALL
    SELECT rep_id, window_start, window_end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
           0, 0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n_scheduled, n_held, n_no_show, n_canceled, 0, 0
    FROM lanes.rep_meetings
    UNION ALL
    SELECT rep_id, window_start, window_end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
           0, 0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n_due, n_completed
    FROM lanes.rep_tasks
)
SELECT rep_id, window_start, max(window_end) AS window_end,
       sum(n_pings) AS n_pings, sum(n_devices) AS n_devices, sum(raw_m) AS raw_m, sum(distance_m) AS distance_m,
       sum(distance_m_other_devices) AS distance_m_other_devices, sum(gap_m) AS gap_m, sum(moving_s) AS moving_s,
       sum(stationary_s) AS stationary_s, sum(gap_s) AS gap_s,
       sum(n_calls) AS n_calls, sum(n_connected) AS n_connected, sum(n_inbound) AS n_inbound, sum(n_outbound) AS n_outbound,
       sum(talk_s) AS talk_s, sum(n_sent) AS n_sent, sum(n_received) AS n_received, sum(n_opened) AS n_opened,
       sum(n_clicked) AS n_clicked, sum(n_bounced) AS n_bounced, sum(n_replied) AS n_replied,
       sum(n_messages) AS n_messages, sum(n_messages_inbound) AS n_messages_inbound,
       sum(n_messages_outbound) AS n_messages_outbound,
       sum(n_scheduled) AS n_scheduled, sum(n_held) AS n_held, sum(n_no_show) AS n_no_show, sum(n_canceled) AS n_canceled,
       sum(n_due) AS n_due, sum(n_completed) AS n_completed
FROM parts
GROUP BY rep_id, window_start
