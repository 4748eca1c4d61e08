"""What others read is what Legwork answers: the lake by Python's deltalake and DuckDB, and SQL right after a crash."""

import os
import time

import duckdb
import lake
import pytest
from stream import Stream, topics_of_stream

# Columns whose sums are compared.
SUMS = {
    "device_movement": ("n_pings", "distance_m", "gap_m", "moving_s"),
    "stays": ("n_pings", "radius_m"),
    "trips": ("n_pings", "distance_m"),
    "rep_calls": ("n_calls", "talk_s"),
    "touches": (),
    "deals": ("amount",),
    "deal_stage_visits": ("visit_no",),
    "rejected_events": ('"offset"',),
    "gps_pings": ("lat", '"offset"'),
    "calls": ("duration_s",),
    "deal_events": ("amount",),
}


def test_deltalake_and_duckdb_read_what_sql_answers(topics, cluster, sending):
    names = topics_of_stream(topics)
    one = cluster(names, sets={"lake.open_rows_every": "1s"})
    sent = sending(Stream(one.bootstrap, one.registry, names, 6, rate=5_000, speed=1_200))
    one.start()
    (instance,) = one.instances
    # From the lake and what has not got there, in the middle of the stream: as many as there are.
    instance.wait_for("rows", lambda: instance.one("SELECT count(*) FROM gps_pings") > 5_000)
    ledger = sent.ledger()
    one.wait_until_calm({names[kind]: ledger[kind]["sent"] for kind in names})
    for table, columns in SUMS.items():
        terms = "count(*) AS n" + "".join(f", sum({column}) AS s{number}" for number, column in enumerate(columns))
        deadline = time.monotonic() + 30
        while True:
            answer = instance.sql(f"SELECT {terms}, (SELECT max(version) FROM lake_versions('{table}')) AS version FROM {table}")[0]
            version = answer.pop("version")
            rows = lake.newest(duckdb.connect(), one.lake, table, version=version)
            found = dict(zip(answer, rows.aggregate(terms).fetchone(), strict=True))
            same = all(same_number(found[name], answer[name]) for name in answer)
            # Open rows reach the lake last.
            if same or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert same, f"{table} at version {version}: the lake has {found}, SQL answers {answer}"
        print(table, version, answer)


def same_number(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return float(a) == pytest.approx(float(b), rel=1e-9)
    return a == b


def test_the_first_answers_after_a_crash(topics, cluster, sending):
    """Seconds from the start of a process that was killed, with static membership, to the first right answer; unoptimised build."""
    n = int(os.environ.get("RECOVERY_EVENTS", "100000" if os.environ.get("FAULTS") != "all" else "500000"))
    names = topics_of_stream(topics)
    one = cluster(names, kafka_options={"session.timeout.ms": 30_000}, sets={"lake.commit_every": "5s", "lake.open_rows_every": "1h"})
    sent = sending(Stream(one.bootstrap, one.registry, names, n / 20_000, rate=20_000, speed=3_600))
    one.start()
    (instance,) = one.instances
    ledger = sent.ledger()
    one.wait_until_calm({names[kind]: ledger[kind]["sent"] for kind in names})
    statement = "SELECT count(*) AS n, sum(n_pings) AS n_pings, sum(distance_m) AS distance_m FROM device_movement"
    # All of it is in a checkpoint, not all of it in the lake.
    instance.wait_for("checkpoints", lambda: instance.one("SELECT count(*) FROM pipeline_lanes WHERE lag > 0 OR checkpoint_seq IS NULL") == 0)
    time.sleep(1.5)
    (expected,) = instance.sql(statement)
    assert expected["n_pings"] == ledger["gps"]["valid"]
    seconds, others = [], []
    for _ in range(3):
        instance.kill()
        began = time.monotonic()
        instance.start()
        instance.wait_until_ready()
        ready = time.monotonic() - began
        while True:
            was_ready = instance.get("/readyz")[0] == 200
            (answer,) = instance.sql(statement)
            if answer["n"] == expected["n"] and answer["n_pings"] == expected["n_pings"]:
                break
            assert not was_ready, f"/readyz says ready, and SQL answers {answer}, not {expected}; {instance.brief()}"
            assert answer["n_pings"] is None or answer["n_pings"] < expected["n_pings"], answer
            others.append((round(time.monotonic() - began, 2), answer["n_pings"]))
            assert time.monotonic() - began < 30, f"{answer} is not {expected}; {instance.brief()}"
            time.sleep(0.02)
        assert answer["distance_m"] == pytest.approx(expected["distance_m"], rel=1e-12)
        seconds.append((round(ready, 2), round(time.monotonic() - began, 2)))
    print(f"{n} events; seconds to the ready line and to the first right answer: {seconds}; answers before that: {others[:5]}")
    assert min(right for _, right in seconds) < 5
