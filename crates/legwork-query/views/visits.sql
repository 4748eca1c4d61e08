-- name: visits
-- doc: A stay within the fence of an account (radius_m, 100 m where it has none); of several accounts the nearest. An open stay is measured to legwork_now().
-- key: device_id, visit_start
-- Accounts and stays meet by bands of a hundredth of a degree of latitude (1.1 km) and their neighbours, so that not every pair is
-- measured; the few accounts with larger fences meet every stay.
WITH places AS (
    SELECT account_id, name, lat, lon, coalesce(radius_m, 100.0) AS radius_m
    FROM accounts
    WHERE lat IS NOT NULL AND lon IS NOT NULL
),
near AS (
    SELECT p.*, CAST(floor(p.lat * 100) AS BIGINT) + n.band_offset AS band
    FROM places p
    CROSS JOIN (VALUES (-1), (0), (1)) AS n (band_offset)
    WHERE p.radius_m <= 1000
),
pairs AS (
    SELECT s.device_id, s.stay_start, p.account_id, p.name, p.radius_m, haversine_m(s.lat, s.lon, p.lat, p.lon) AS distance_m
    FROM stays s
    JOIN near p ON p.band = CAST(floor(s.lat * 100) AS BIGINT)
    UNION ALL
    SELECT s.device_id, s.stay_start, p.account_id, p.name, p.radius_m, haversine_m(s.lat, s.lon, p.lat, p.lon) AS distance_m
    FROM stays s
    CROSS JOIN places p
    WHERE p.radius_m > 1000
),
ranked AS (
    SELECT *,
           row_number() OVER (PARTITION BY device_id, stay_start ORDER BY distance_m, account_id) AS place,
           count(*) OVER (PARTITION BY device_id, stay_start) AS n_accounts
    FROM pairs
    WHERE distance_m <= radius_m
)
SELECT s.device_id,
       coalesce(s.rep_id, a.rep_id) AS rep_id,
       r.account_id, r.name AS account_name,
       s.stay_start AS visit_start,
       s.stay_end AS visit_end,
       greatest(seconds_between(s.stay_start, coalesce(s.stay_end, legwork_now())), 0.0) AS dwell_s,
       s.stay_end IS NULL AS is_open,
       r.distance_m, r.radius_m, r.n_accounts, s.n_pings
FROM stays s
JOIN ranked r ON r.device_id = s.device_id AND r.stay_start = s.stay_start AND r.place = 1
LEFT JOIN device_reps a
  ON a.device_id = s.device_id AND a.span_start <= s.stay_start AND s.stay_start < a.span_end
