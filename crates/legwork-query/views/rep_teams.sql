-- name: rep_teams
-- doc: Team, territory, time zone and calendar of a rep from span_start until before span_end; the spans of a rep do not overlap.
-- key: rep_id, span_start
WITH versions AS (
    SELECT rep_id, name, team_id, territory_id, time_zone, calendar_id, active,
           coalesce(valid_from, arrow_cast('1700-01-01T00:00:00Z', 'Timestamp(Microsecond, Some("UTC"))')) AS valid_from,
           coalesce(valid_to, arrow_cast('2250-01-01T00:00:00Z', 'Timestamp(Microsecond, Some("UTC"))')) AS valid_to
    FROM reps
),
cuts AS (
    SELECT rep_id, valid_from AS span_start FROM versions
    UNION
    SELECT rep_id, valid_to FROM versions
),
spans AS (
    SELECT rep_id, span_start, lead(span_start) OVER (PARTITION BY rep_id ORDER BY span_start) AS span_end
    FROM cuts
),
ranked AS (
    SELECT s.rep_id, v.name, v.team_id, v.territory_id, v.time_zone, v.calendar_id, v.active, s.span_start, s.span_end,
           row_number() OVER (PARTITION BY s.rep_id, s.span_start ORDER BY v.valid_from DESC, v.team_id) AS place
    FROM spans s
    JOIN versions v ON v.rep_id = s.rep_id AND v.valid_from <= s.span_start AND v.valid_to >= s.span_end
)
SELECT r.rep_id, r.name AS rep_name, r.team_id, t.name AS team_name, t.region, t.parent_team_id, r.territory_id,
       coalesce(r.time_zone, 'UTC') AS time_zone,
       coalesce(r.calendar_id, t.calendar_id, '{calendar}') AS calendar_id,
       coalesce(r.active, true) AS active,
       r.span_start, r.span_end
FROM ranked r
LEFT JOIN teams t ON t.team_id = r.team_id
WHERE r.place = 1
