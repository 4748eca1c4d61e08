-- name: rep_activity_daily
-- doc: What a rep did on a day as the rep's own time zone counts days, changes of the clocks included. team_id: at the day's last window.
-- key: rep_id, local_date
SELECT a.rep_id,
       local_date(a.window_start, t.time_zone) AS local_date,
       last_value(t.team_id ORDER BY a.window_start) AS team_id,
       min(a.window_start) AS first_window_start,
       max(a.window_end) AS last_window_end,
       count(*) AS n_windows,
       sum(a.n_pings) AS n_pings, sum(a.raw_m) AS raw_m, sum(a.distance_m) AS distance_m,
       sum(a.distance_m_other_devices) AS distance_m_other_devices, sum(a.gap_m) AS gap_m, sum(a.moving_s) AS moving_s,
       sum(a.stationary_s) AS stationary_s, sum(a.gap_s) AS gap_s, sum(a.n_calls) AS n_calls,
       sum(a.n_connected) AS n_connected, sum(a.n_inbound) AS n_inbound, sum(a.n_outbound) AS n_outbound,
       sum(a.talk_s) AS talk_s, sum(a.n_sent) AS n_sent, sum(a.n_received) AS n_received, sum(a.n_opened) AS n_opened,
       sum(a.n_clicked) AS n_clicked, sum(a.n_bounced) AS n_bounced, sum(a.n_replied) AS n_replied,
       sum(a.n_messages) AS n_messages, sum(a.n_messages_inbound) AS n_messages_inbound,
       sum(a.n_messages_outbound) AS n_messages_outbound, sum(a.n_scheduled) AS n_scheduled, sum(a.n_held) AS n_held,
       sum(a.n_no_show) AS n_no_show, sum(a.n_canceled) AS n_canceled, sum(a.n_due) AS n_due,
       sum(a.n_completed) AS n_completed
FROM rep_teams t
RIGHT JOIN rep_activity a
  ON t.rep_id = a.rep_id AND t.span_start <= a.window_start AND a.window_start < t.span_end
GROUP BY a.rep_id, local_date(a.window_start, t.time_zone)
