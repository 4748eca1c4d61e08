"""`legwork sql --input`: recorded data through the same operators."""

import gzip
import json
import math
import random
from pathlib import Path

import duckdb
import pytest
from conftest import ROOT, run

R = 6_371_008.8


def query(cwd, *args):
    return json.loads(run("sql", "--format", "json", *args, cwd=cwd).stdout)


def haversine(a, b):
    phi_a, phi_b = math.radians(a[0]), math.radians(b[0])
    h = math.sin((phi_b - phi_a) / 2) ** 2 + math.cos(phi_a) * math.cos(phi_b) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 2 * R * math.asin(min(1.0, math.sqrt(h)))


def tracks(n_devices=20, n_pings=200, seed=5):
    """Rows (device, time us, lat, lon, speed) in arrival order, out of order by up to 30 s."""
    rng = random.Random(seed)
    rows = []
    for device in range(n_devices):
        lat, lon, t = 52.5 + device * 0.01, 13.4, 1_750_000_000_000_000
        for _ in range(n_pings):
            t += rng.randrange(1_000_000, 20_000_000)
            lat, lon = lat + rng.uniform(-1e-4, 1e-4), lon + rng.uniform(-1e-4, 1e-4)
            rows.append((f"d{device}", t, round(lat, 7), round(lon, 7), round(rng.uniform(0, 30), 1)))
    rows.sort(key=lambda row: row[1] + rng.randrange(30_000_000))
    return rows


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracks")
    rows = tracks()
    lines = ["device_id,event_time,lat,lon,speed_mps"] + [f"{d},{t},{lat!r},{lon!r},{v!r}" for d, t, lat, lon, v in rows]
    (folder / "pings.csv").write_text("\n".join(lines) + "\n")
    with gzip.open(folder / "pings.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    with open(folder / "pings.ndjson", "w") as file:
        for d, t, lat, lon, v in rows:
            file.write(json.dumps({"device_id": d, "event_time": t, "lat": lat, "lon": lon, "speed_mps": v}) + "\n")
    duckdb.sql(f"COPY (SELECT * FROM read_csv('{folder}/pings.csv')) TO '{folder}/pings.parquet' (FORMAT parquet)")
    return folder


ORACLE = """
WITH legs AS (
  SELECT *, lag(lat) OVER w AS lat0, lag(lon) OVER w AS lon0 FROM (SELECT DISTINCT * FROM read_csv('{folder}/pings.csv'))
  WINDOW w AS (PARTITION BY device_id ORDER BY event_time))
SELECT device_id, (event_time // 60000000) * 60000000 AS window_us, count(*) AS n_pings,
  coalesce(sum(CASE WHEN lat0 IS NOT NULL THEN 2 * 6371008.8 * asin(least(1, sqrt(pow(sin(radians(lat - lat0) / 2), 2) + cos(radians(lat0)) * cos(radians(lat)) * pow(sin(radians(lon - lon0) / 2), 2)))) END), 0) AS raw_m,
  max(CAST(speed_mps AS FLOAT))::DOUBLE AS speed_mps_max
FROM legs GROUP BY ALL ORDER BY ALL
"""


@pytest.mark.parametrize("name", ["pings.csv", "pings.csv.gz", "pings.ndjson", "pings.parquet"])
def test_every_format_gives_the_rows_of_batch_sql(recorded, name):
    expected = duckdb.sql(ORACLE.format(folder=recorded)).fetchall()
    rows = query(
        recorded, "--input", f"gps={name}", "--window", "1m",
        "SELECT device_id, CAST(window_start AS BIGINT) AS w, n_pings, raw_m, speed_mps_max, is_open FROM device_movement ORDER BY device_id, w",
    )
    assert len(rows) == len(expected)
    for row, (device, window_us, n_pings, raw_m, speed) in zip(rows, expected, strict=True):
        assert (row["device_id"], row["n_pings"]) == (device, n_pings)
        assert row["raw_m"] == pytest.approx(raw_m, rel=1e-9, abs=1e-9)
        assert row["speed_mps_max"] == pytest.approx(speed, rel=1e-9)
        assert not row["is_open"]


def test_wrong_rows_cost_only_themselves(recorded, tmp_path):
    good = (recorded / "pings.csv").read_text().splitlines()
    bad = ["d0,not a time,52.5,13.4,1", "d0,1750000000000000,95.0,13.4,1", ",1750000000000000,52.5,13.4,1", "d0,1750000000000001,x,13.4,1"]
    mixed = good[:100] + bad + good[100:]
    (tmp_path / "mixed.csv").write_text("\n".join(mixed) + "\n")
    (lane,) = query(tmp_path, "--input", "gps=mixed.csv", "SELECT n_read, n_accepted, n_rejected FROM pipeline_lanes")
    assert lane == {"n_read": len(good) - 1 + len(bad), "n_accepted": len(good) - 1, "n_rejected": len(bad)}
    reasons = query(tmp_path, "--input", "gps=mixed.csv", "SELECT reason, \"offset\", detail, convert_from(payload, 'UTF8') AS text FROM rejected_events ORDER BY \"offset\"")
    assert [row["offset"] for row in reasons] == [99, 100, 101, 102]
    assert [row["detail"].split(": ")[0] for row in reasons] == [f"mixed.csv line {line}" for line in (101, 102, 103, 104)]
    assert "not a time" in reasons[0]["text"]


def test_what_is_rejected_is_told_with_its_place(tmp_path):
    (tmp_path / "one.csv").write_bytes(b"device_id,event_time,lat,lon\r\n\r\na,2026-01-05T08:00:00Z,52.5,13.4\r\na,soon,52.5,13.4\r\n")
    lines = [{"device_id": "a", "event_time": "2026-01-05T08:01:00Z", "lat": lat, "lon": 13.4} for lat in (52.5, 95)]
    (tmp_path / "two.ndjson").write_text("\n".join(json.dumps(line) for line in lines))
    duckdb.sql(f"COPY (SELECT 'a' AS device_id, TIMESTAMPTZ '1970-01-01T08:00:00Z' AS event_time, 52.5 AS lat, 13.4 AS lon) TO '{tmp_path}/three.parquet'")
    inputs = [flag for name in ("one.csv", "two.ndjson", "three.parquet") for flag in ("--input", f"gps={name}")]
    done = run("sql", *inputs, "--format", "json", 'SELECT detail FROM rejected_events ORDER BY "offset"', cwd=tmp_path)
    places = [row["detail"].split(": ")[0] for row in json.loads(done.stdout)]
    assert places == ["one.csv line 4", "two.ndjson line 2", "three.parquet row 1"]
    assert all(f"rejected: {place}: " in done.stderr.decode() for place in places), done.stderr.decode()


def test_explaining_what_nobody_knows_says_so(recorded):
    args = ["--input", "gps=pings.csv", "--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"]
    assert run("explain", "--device", "d0", *args, cwd=recorded).stdout
    done = run("explain", "--device", "nobody", *args, cwd=recorded, check=False)
    assert done.returncode == 1 and b'no ping of device "nobody" is known' in done.stderr


def test_geolife_has_the_known_distances(tmp_path):
    sample = ROOT.parent / "shared/data/geolife_sample.csv.gz"
    if not sample.exists():
        pytest.skip("the GeoLife sample is not here")
    rows = query(
        tmp_path, "--input", f"gps={sample}", "--map", "device_id=uid", "--map", "event_time=datetime", "--map", "lon=lng",
        "SELECT device_id, sum(raw_m) / 1000 AS km FROM device_movement GROUP BY device_id ORDER BY 1",
    )
    assert [row["km"] for row in rows] == [pytest.approx(1_017.8, rel=1e-3), pytest.approx(6_081.9, rel=1e-3)]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--input", "gsp=x.csv", "SELECT 1"], 2, "gps"),
        (["--input", "gps=missing.csv", "SELECT 1"], 1, "missing.csv"),
        (["--input", "gps=pings.csv", "--map", "lot=lat", "SELECT 1"], None, "lat"),
        (["--input", "gps=pings.csv", "SELECT * FROM device_movment"], 1, "device_movement"),
        (["--input", "gps=pings.csv", "SELECT * FROM gps"], 1, "is it gps_pings?"),
        (["--input", "gps=pings.csv", " "], 2, "no statement"),
        (["--input", "gps=pings.csv", "COPY (SELECT 1) TO 'x.csv'"], 1, ""),
        (["--input", "gps=pings.csv", "SELECT * FROM '/etc/passwd'"], 1, ""),
        (["--input", "gps=pings.csv", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'"], 1, ""),
    ],
)
def test_mistakes_are_named_with_the_way_out(recorded, args, code, words):
    done = run("sql", *args, cwd=recorded, check=False)
    assert done.returncode != 0 if code is None else done.returncode == code, done.stderr.decode()
    assert words in done.stderr.decode()
    assert b"panicked" not in done.stderr
