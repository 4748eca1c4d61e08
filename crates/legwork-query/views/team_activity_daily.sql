-- name: team_activity_daily
-- doc: What a team's reps did on a local day; reps without a known team come together under a null team_id.
-- key: team_id, local_date
SELECT d.team_id, t.name AS team_name, t.region, d.local_date, count(*) AS n_reps_active,
       sum(d.n_pings) AS n_pings, sum(d.raw_m) AS raw_m, sum(d.distance_m) AS distance_m,
       sum(d.distance_m_other_devices) AS distance_m_other_devices, sum(d.gap_m) AS gap_m, sum(d.moving_s) AS moving_s,
       sum(d.stationary_s) AS stationary_s, sum(d.gap_s) AS gap_s, sum(d.n_calls) AS n_calls,
       sum(d.n_connected) AS n_connected, sum(d.n_inbound) AS n_inbound, sum(d.n_outbound) AS n_outbound,
       sum(d.talk_s) AS talk_s, sum(d.n_sent) AS n_sent, sum(d.n_received) AS n_received, sum(d.n_opened) AS n_opened,
       sum(d.n_clicked) AS n_clicked, sum(d.n_bounced) AS n_bounced, sum(d.n_replied) AS n_replied,
       sum(d.n_messages) AS n_messages, sum(d.n_messages_inbound) AS n_messages_inbound,
       sum(d.n_messages_outbound) AS n_messages_outbound, sum(d.n_scheduled) AS n_scheduled, sum(d.n_held) AS n_held,
       sum(d.n_no_show) AS n_no_show, sum(d.n_canceled) AS n_canceled, sum(d.n_due) AS n_due,
       sum(d.n_completed) AS n_completed
FROM rep_activity_daily d
LEFT JOIN teams t ON t.team_id = d.team_id
GROUP BY d.team_id, t.name, t.region, d.local_date
