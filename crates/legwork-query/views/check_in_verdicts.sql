-- name: check_in_verdicts
-- doc: A check-in judged by its own fix against the account's fence: in_range, out_of_range or unverifiable, with the reason. A negative accuracy_m, by which a device says that it does not trust its fix, is unverifiable. track_distance_m and fix_age_s: the device's own track at that time (a stay, else the nearest ping within 15 minutes, where pings are stored), null without one.
-- key: check_in_id, event_time
WITH positions AS (
    SELECT c.topic, c.partition, c."offset", s.lat, s.lon, 0.0 AS fix_age_s
    FROM check_ins c
    JOIN stays s
      ON s.device_id = c.device_id AND s.stay_start <= c.event_time AND (s.stay_end IS NULL OR c.event_time <= s.stay_end)
    WHERE c.event_time <= s.last_fix_time
    UNION ALL
    SELECT c.topic, c.partition, c."offset", g.lat, g.lon, abs(seconds_between(c.event_time, g.event_time)) AS fix_age_s
    FROM check_ins c
    JOIN gps_pings g
      ON g.device_id = c.device_id AND abs(seconds_between(c.event_time, g.event_time)) <= 900
    WHERE g.mock IS NOT TRUE AND coalesce(g.accuracy_m, 0.0) >= 0.0
),
track AS (
    SELECT topic, partition, "offset", lat, lon, fix_age_s
    FROM (
        SELECT *, row_number() OVER (PARTITION BY topic, partition, "offset" ORDER BY fix_age_s, lat, lon) AS place
        FROM positions
    ) ranked
    WHERE place = 1
),
measured AS (
    SELECT c.check_in_id, c.rep_id, c.device_id, c.account_id, c.kind, c.event_time, c.lat, c.mock, c.cached,
           CAST(c.accuracy_m AS DOUBLE) AS accuracy_m,
           a.lat AS account_lat,
           coalesce(a.radius_m, 100.0) AS radius_m,
           haversine_m(c.lat, c.lon, a.lat, a.lon) AS distance_m,
           t.fix_age_s,
           haversine_m(t.lat, t.lon, a.lat, a.lon) AS track_distance_m
    FROM check_ins c
    LEFT JOIN accounts a ON a.account_id = c.account_id
    LEFT JOIN track t ON t.topic = c.topic AND t.partition = c.partition AND t."offset" = c."offset"
),
judged AS (
    SELECT *,
           CASE WHEN account_lat IS NULL THEN 'no_account_position'
                WHEN distance_m IS NULL THEN 'no_fix'
                WHEN mock THEN 'mock'
                WHEN cached THEN 'cached'
                WHEN accuracy_m < 0.0 THEN 'accuracy'
                WHEN distance_m <= radius_m AND coalesce(accuracy_m, 0.0) <= radius_m THEN 'inside'
                WHEN distance_m - coalesce(accuracy_m, 0.0) > radius_m THEN 'outside'
                ELSE 'accuracy' END AS reason
    FROM measured
)
SELECT check_in_id, rep_id, device_id, account_id, kind, event_time,
       CASE reason WHEN 'inside' THEN 'in_range' WHEN 'outside' THEN 'out_of_range' ELSE 'unverifiable' END AS verdict,
       reason, distance_m, radius_m, accuracy_m, fix_age_s, track_distance_m
FROM judged
