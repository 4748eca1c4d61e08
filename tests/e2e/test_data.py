"""Commands over store and lake: lanes, SQL without a pipeline, backfill, repair, maintenance."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import run
from confluent_kafka import Producer
from test_kafka import US, encoded_pings, now_us

FAST = ("store.checkpoint_every=200ms", "lake.commit_every=300ms")


def produce(kafka, registry, topic, n, start):
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    for key, value in encoded_pings(registry, topic, n, start):
        producer.produce(topic, key=key, value=value)
    assert producer.flush(60) == 0


def kill(service):
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()


def folder_of(service):
    return Path(service.log.name).parent


def rows(folder, sql, *more, **kwargs):
    return json.loads(run("sql", "--data", "store", "--format", "json", *more, sql, cwd=folder, **kwargs).stdout)


FACTS = "SELECT count(*) AS n_rows, sum(n_pings) AS n_pings, sum(raw_m) AS raw_m, sum(distance_m) AS distance_m FROM device_movement"


def lanes(folder, *config):
    return json.loads(run("lanes", "list", "--data", "store", "--format", "json", *config, cwd=folder).stdout)


def test_sql_over_store_and_lake_sees_what_neither_has_alone(kafka, registry, topics, up):
    topic = topics("gps", partitions=3)
    start = now_us() // US * US - 3_600 * US
    produce(kafka, registry, topic, 3_000, start)
    service = up({"gps": topic}, sets=FAST, group=f"g-{topic}")
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 3_000)
    folder = folder_of(service)
    service.stop()
    assert rows(folder, "SELECT count(*) AS n FROM gps_pings") == [{"n": 3_000}]

    # What comes now stays in the store: the lake is not due, and the process dies.
    service = up({"gps": topic}, sets=("store.checkpoint_every=200ms", "lake.commit_every=1h", f"store.url=file://{folder}/store"), group=f"g-{topic}")
    produce(kafka, registry, topic, 2_000, start + 1_800 * US)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 5_000)
    deadline = time.monotonic() + 30
    while sum(lane["next_offset"] for lane in lanes(folder)) < 5_000:
        assert time.monotonic() < deadline, lanes(folder)
        time.sleep(0.2)
    # Beside the one who owns the lanes, without disturbing it.
    assert rows(folder, "SELECT count(*) AS n FROM gps_pings") == [{"n": 5_000}]
    expected = service.sql(FACTS)
    kill(service)
    listed = lanes(folder)
    assert [lane["partition"] for lane in listed] == [0, 1, 2] and {lane["topic"] for lane in listed} == {topic}
    assert all(lane["problem"] is None and lane["settings"].startswith("time.window=300s") for lane in listed)
    assert sum(lane["rows_waiting"] for lane in listed) > 2_000
    (found,) = rows(folder, FACTS)
    assert found == pytest.approx(expected[0])
    assert rows(folder, "SELECT sum(n_read) AS n FROM pipeline_lanes") == [{"n": 5_000}]
    # What only a running lane can tell is refused, not shown empty.
    done = run("sql", "--data", "store", "SELECT * FROM explain_track('d1', '2020-01-01', '2030-01-01')", cwd=folder, check=False)
    assert done.returncode == 1 and b"legwork sql --input" in done.stderr
    done = run("sql", "--data", "nowhere", "SELECT 1", cwd=folder, check=False)
    assert done.returncode == 2 and b"store.url" in done.stderr


def test_a_lane_whose_store_was_lost_is_accepted_and_counts_the_same(kafka, registry, topics, up):
    topic = topics("gps", partitions=2)
    produce(kafka, registry, topic, 2_000, now_us() // US * US - 3_600 * US)
    service = up({"gps": topic}, sets=FAST, group=f"g-{topic}")
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 2_000)
    (expected,) = service.sql(FACTS)
    folder = folder_of(service)
    service.stop()
    shutil.rmtree(folder / "store" / "lanes")
    config = ("--config", "legwork.toml")
    assert all("has no checkpoint" in lane["problem"] for lane in lanes(folder, *config))
    accept = ("lanes", "accept", "--data", "store", *config, "--json")
    done = run(*accept, f"{topic}/0", cwd=folder, check=False)
    assert done.returncode == 2 and b"--yes" in done.stderr
    for partition in (0, 1):
        done = json.loads(run(*accept, "--yes", f"{topic}/{partition}", cwd=folder).stdout)
        assert done["outcome"] == "done" and "SELECT DISTINCT ON" in " ".join(done["meaning"])
    assert rows(folder, "SELECT count(*) AS n FROM device_movement") == [{"n": 0}], "retracted until they are counted again"
    assert json.loads(run(*accept, f"{topic}/0", cwd=folder).stdout)["outcome"] == "nothing to accept"
    service = up({"gps": topic}, sets=(*FAST, f"store.url=file://{folder}/store"), group=f"g-{topic}")
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 2_000)
    assert service.sql(FACTS)[0] == pytest.approx(expected)
    service.stop()
    assert rows(folder, FACTS)[0] == pytest.approx(expected)
    twice = 'SELECT count(*) AS n, count(DISTINCT (partition, "offset")) AS once FROM gps_pings'
    assert rows(folder, twice) == [{"n": 4_000, "once": 2_000}]


def test_the_lake_is_maintained_while_it_is_written(kafka, registry, topics, up):
    topic = topics("gps", partitions=2)
    service = up({"gps": topic}, sets=("store.checkpoint_every=100ms", "lake.commit_every=100ms", "lake.maintain_every=1s"), group=f"g-{topic}")
    start = now_us() // US * US - 3_600 * US
    merged = folder_of(service) / "store" / "lake" / "gps_pings"
    n, deadline = 0, time.monotonic() + 60
    while not list(merged.glob("day=*/merged-*.parquet")):
        produce(kafka, registry, topic, 100, start + n * 1_000)
        n += 100
        assert time.monotonic() < deadline, service.stderr()[-2000:]
        time.sleep(0.2)
    service.wait_for("SELECT count(*) FROM gps_pings", n)
    assert service.stop() == 0
    assert "this instance maintains the lake now" in service.stderr() and "the lake was maintained" in service.stderr()
    assert rows(folder_of(service), "SELECT count(*) AS n FROM gps_pings") == [{"n": n}]
