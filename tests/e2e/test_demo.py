"""`legwork demo`: the embedded broker, a simulated organisation, everything a newcomer sees."""

import json
import shutil
import subprocess
import time

import pytest
from conftest import SCHEMAS, Legwork, run
from confluent_kafka import Producer


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    sets = ["http.listen=127.0.0.1:0", "postgres.listen=127.0.0.1:0", "metrics.every=1s"]
    flags = [part for setting in sets for part in ("--set", setting)]
    service = Legwork(["demo", "--reps", "60", "--data", str(folder / "data"), "--fresh", *flags], cwd=folder)
    yield service
    assert service.stop() == 0
    assert "panicked" not in service.stderr()


def wait(demo, statement, least, within_s=60):
    deadline = time.monotonic() + within_s
    while True:
        value = demo.one(statement)
        if value is not None and value >= least:
            return value
        assert time.monotonic() < deadline, f"{statement}: {value} stays below {least}\n{demo.stderr()[-2000:]}"
        time.sleep(0.2)


def test_first_facts_come_soon(demo):
    assert {"kafka", "registry", "http", "postgres"} <= demo.ready.keys()
    wait(demo, "SELECT count(*) FROM device_movement", 20)
    wait(demo, "SELECT count(*) FROM rep_positions", 3)
    wait(demo, "SELECT coalesce(sum(distance_m), 0) FROM device_movement", 1_000)
    wait(demo, "SELECT count(*) FROM deals", 1)
    wait(demo, "SELECT count(*) FROM reps", 60)
    wait(demo, "SELECT coalesce(sum(n_calls), 0) FROM rep_calls", 1)


def test_every_table_and_view_can_be_read(demo):
    status, text = demo.get("/v1/tables")
    assert status == 200
    tables = json.loads(text)["tables"]
    assert len(tables) > 40
    for table in tables:
        demo.sql(f'SELECT * FROM {table["name"]} LIMIT 3')


def test_the_accounting_adds_up(demo):
    wait(demo, "SELECT sum(n_read) FROM pipeline_lanes", 1_000)
    rows = demo.sql("SELECT *, n_accepted + n_late + n_rejected + n_duplicates + n_tombstones AS total FROM pipeline_lanes")
    assert all(row["n_read"] == row["total"] for row in rows)
    assert sum(row["n_misrouted"] for row in rows) == 0


def test_garbage_sent_to_the_demo_is_found(demo):
    producer = Producer({"bootstrap.servers": demo.ready["kafka"]})
    producer.produce("field.calls.v1", key=b"nobody", value=b"\x07 no avro at all")
    assert producer.flush(30) == 0
    demo.wait_for("SELECT count(*) FROM rejected_events WHERE topic = 'field.calls.v1' AND reason = 'bad_framing'", 1)
    (row,) = demo.sql("SELECT payload FROM rejected_events WHERE topic = 'field.calls.v1'")
    assert row["payload"] == b"\x07 no avro at all"


def test_pages_answer(demo):
    for path in ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/tables"]:
        status, text = demo.get(path)
        assert status == 200 and text, (path, status, text[:300])
    assert demo.get("/nothing")[0] == 404
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=demo.get("/metrics")[1].encode(), capture_output=True, timeout=60)
        assert checked.returncode == 0, checked.stderr.decode()


def test_explain_adds_up_to_the_row(demo, tmp_path):
    wait(demo, "SELECT count(*) FROM device_movement WHERE NOT is_open AND distance_m > 100", 1)
    row = demo.sql("SELECT device_id, CAST(window_start AS VARCHAR) AS a, CAST(window_end AS VARCHAR) AS b, raw_m, distance_m, n_pings FROM device_movement WHERE NOT is_open AND distance_m > 100 LIMIT 1")[0]
    (sums,) = demo.sql(f"SELECT sum(raw_m) AS raw_m, sum(distance_m) AS distance_m, count(*) AS n_pings FROM explain_track('{row['device_id']}', '{row['a']}', '{row['b']}')")
    assert sums["n_pings"] >= row["n_pings"]
    assert sums["distance_m"] == pytest.approx(row["distance_m"], rel=1e-9)


def test_two_demos_side_by_side_and_for(demo, tmp_path):
    done = run("demo", "--reps", "10", "--for", "8s", "--data", str(tmp_path / "data"), cwd=tmp_path)
    assert b"psql postgres://" in done.stdout and b"lanes" in done.stdout
    assert SCHEMAS.exists()
