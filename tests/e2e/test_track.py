"""Raw metres and gaps, beside DuckDB's window functions."""

import csv
import json
import random

import duckdb
import pytest
from conftest import run

LETTER = """
WITH pings AS (SELECT DISTINCT ON (device_id, event_time) * FROM read_csv('{file}')),
legs AS (
  SELECT *, event_time - lag(event_time) OVER w AS leg_us, lag(lat) OVER w AS lat0, lag(lon) OVER w AS lon0 FROM pings
  WINDOW w AS (PARTITION BY device_id ORDER BY event_time)),
metres AS (
  SELECT *, CASE WHEN lat0 IS NULL THEN 0 ELSE 2 * 6371008.8 * asin(least(1, sqrt(pow(sin(radians(lat - lat0) / 2), 2)
    + cos(radians(lat0)) * cos(radians(lat)) * pow(sin(radians(lon - lon0) / 2), 2)))) END AS m FROM legs)
SELECT device_id, (event_time // 300000000) * 300000000 AS window_us, count(*) AS n_pings, sum(m) AS raw_m,
  sum(CASE WHEN leg_us > 900000000 AND m > 100 THEN m ELSE 0 END) AS gap_m
FROM metres GROUP BY ALL ORDER BY ALL
"""


def query(cwd, *args):
    return json.loads(run("sql", "--format", "json", *args, cwd=cwd).stdout)


def drives(path, n_devices=12, seed=11):
    """Drives with fixes each 10 s and holes of some hours, after which the device is somewhere else or where it was; a tenth come twice or late."""
    rng, rows = random.Random(seed), []
    for device in range(n_devices):
        lat, lon, t = 48.0 + device * 0.05, 11.5, 1_750_000_000_000_000
        for n in range(300):
            t += 10_000_000
            lat += 0.001 * rng.random()
            lon += 0.001 * (rng.random() - 0.5)
            if n % 60 == 59:
                t += rng.randrange(3_600_000_000, 20_000_000_000)
                # On even ones it moved, by more than the stay radius.
                lat += 0.02 if (n // 60) % 2 == 0 else 0.0
                lat += 0.0 if (n // 60) % 2 == 0 else 1e-6
            rows.append((f"d{device}", t, round(lat, 7), round(lon, 7)))
    rng.shuffle(rows)
    rows += rng.sample(rows, len(rows) // 10)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["device_id", "event_time", "lat", "lon"])
        writer.writerows(rows)


def test_raw_and_gap_metres_by_the_letter(tmp_path):
    drives(tmp_path / "drives.csv")
    expected = duckdb.sql(LETTER.format(file=tmp_path / "drives.csv")).fetchall()
    rows = query(
        tmp_path, "--input", "gps=drives.csv",
        "SELECT device_id, CAST(window_start AS BIGINT) AS w, n_pings, raw_m, gap_m FROM device_movement ORDER BY device_id, w",
    )
    assert [(r["device_id"], r["n_pings"]) for r in rows] == [(device, n) for device, _, n, _, _ in expected]
    for row, (_, _, _, raw_m, gap_m) in zip(rows, expected, strict=True):
        assert row["raw_m"] == pytest.approx(raw_m, rel=1e-9, abs=1e-6)
        assert row["gap_m"] == pytest.approx(gap_m, rel=1e-9, abs=1e-6)
    assert sum(gap_m for *_, gap_m in expected) > 10_000
