-- name: rep_activity_weekly
-- doc: What a rep did in a week of local days; week_start is its first day by the configured start of the week.
-- key: rep_id, week_start
SELECT rep_id,
       CAST(date_trunc('week', CAST(local_date AS TIMESTAMP) + INTERVAL '{week_shift_days} day') - INTERVAL '{week_shift_days} day' AS DATE)
           AS week_start,
       last_value(team_id ORDER BY local_date) AS team_id,
       count(*) AS n_days,
       sum(n_pings) AS n_pings, sum(raw_m) AS raw_m, sum(distance_m) AS distance_m,
       sum(distance_m_other_devices) AS distance_m_other_devices, sum(gap_m) AS gap_m, sum(moving_s) AS moving_s,
       sum(stationary_s) AS stationary_s, sum(gap_s) AS gap_s, sum(n_calls) AS n_calls, sum(n_connected) AS n_connected,
       sum(n_inbound) AS n_inbound, sum(n_outbound) AS n_outbound, sum(talk_s) AS talk_s, sum(n_sent) AS n_sent,
       sum(n_received) AS n_received, sum(n_opened) AS n_opened, sum(n_clicked) AS n_clicked, sum(n_bounced) AS n_bounced,
       sum(n_replied) AS n_replied, sum(n_messages) AS n_messages, sum(n_messages_inbound) AS n_messages_inbound,
       sum(n_messages_outbound) AS n_messages_outbound, sum(n_scheduled) AS n_scheduled, sum(n_held) AS n_held,
       sum(n_no_show) AS n_no_show, sum(n_canceled) AS n_canceled, sum(n_due) AS n_due, sum(n_completed) AS n_completed
FROM rep_activity_daily
GROUP BY rep_id,
         CAST(date_trunc('week', CAST(local_date AS TIMESTAMP) + INTERVAL '{week_shift_days} day') - INTERVAL '{week_shift_days} day' AS DATE)
