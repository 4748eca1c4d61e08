"""What others read is what Legwork answers: the lake by Python's deltalake and DuckDB, and SQL right after a crash."""

import os
import time
import urllib.error

import duckdb
import lake
import psycopg
import pytest
from e2e import free_port, run
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
        assert lake.assert_read_by_duckdb_itself(one.lake, table, version) >= answer["n"]


def same_number(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return float(a) == pytest.approx(float(b), rel=1e-9)
    return a == b


def test_the_first_answers_after_a_crash(topics, cluster, sending):
    """The first answer after kill -9 is right, however early it is asked for. Seconds from the start of the process, with static membership;
    unoptimised build."""
    n = int(os.environ.get("RECOVERY_EVENTS", "100000" if os.environ.get("FAULTS") != "all" else "500000"))
    names = topics_of_stream(topics)
    ports = {name: free_port() for name in ("http", "postgres")}
    sets = {f"{name}.listen": f"127.0.0.1:{port}" for name, port in ports.items()}
    # However slow this machine is.
    sets |= {"lake.commit_every": "5s", "lake.open_rows_every": "1h", "query.lanes_wait": "50s", "query.timeout": "120s"}
    one = cluster(names, kafka_options={"session.timeout.ms": 30_000}, sets=sets)
    sent = sending(Stream(one.bootstrap, one.registry, names, n / 20_000, rate=20_000, speed=3_600))
    one.start()
    (instance,) = one.instances
    ledger = sent.ledger()
    one.wait_until_calm({names[kind]: ledger[kind]["sent"] for kind in names})
    statement = "SELECT count(*) AS n, sum(n_pings)::bigint AS n_pings, sum(distance_m) AS distance_m FROM device_movement"
    # All of it is in a checkpoint, not all of it in the lake.
    instance.wait_for("checkpoints", lambda: instance.one("SELECT count(*) FROM pipeline_lanes WHERE lag > 0 OR checkpoint_seq IS NULL") == 0)
    time.sleep(1.5)
    expected = instance.answer(statement)
    assert expected["rows"][0][1] == ledger["gps"]["valid"] and expected["notices"] == [], expected

    def over_http():
        answer = instance.answer(statement)
        return answer["rows"][0], answer["notices"]

    def over_postgres():
        told = []
        with psycopg.connect(f"postgres://legwork@127.0.0.1:{ports['postgres']}/legwork", connect_timeout=60) as connection:
            connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
            return list(connection.execute(statement).fetchone()), told

    seconds = []
    for ask in (over_http, over_postgres) * 2:
        instance.kill()
        began = time.monotonic()
        instance.start()
        answer = None
        while answer is None:
            try:
                answer, notices = ask()
            except (urllib.error.URLError, psycopg.OperationalError):
                assert instance.is_running() and time.monotonic() - began < 60, instance.log()[-4000:]
                time.sleep(0.005)
        seconds.append(round(time.monotonic() - began, 2))
        assert (answer[:2], notices) == (expected["rows"][0][:2], []), f"{ask.__name__}: {expected['rows']}; {instance.brief()}"
        assert answer[2] == pytest.approx(expected["rows"][0][2], rel=1e-12)
        instance.wait_until_ready()
    print(f"{n} events; seconds to the first answer: {seconds}")
    assert min(seconds) < 5


def test_what_others_read_is_told(topics, cluster, sending):
    """Lanes of another instance are not silently missing from this one's answers."""
    names = topics_of_stream(topics, partitions=2)
    one = cluster(names, n_instances=2)
    sent = sending(Stream(one.bootstrap, one.registry, names, 1, rate=2_000))
    one.start()
    ledger = sent.ledger()
    one.wait_until_calm({names[kind]: ledger[kind]["sent"] for kind in names})
    for instance in one.instances:
        own = [lane["partition"] for lane in instance.lanes() if lane["topic"] == names["gps"]]
        others = ", ".join(f"{names['gps']}/{partition}" for partition in (0, 1) if partition not in own)
        notices = instance.answer("SELECT count(*) FROM stays")["notices"]
        assert len(notices) == (len(own) < 2) and all(f" {others}: not of this instance" in notice for notice in notices), (own, notices)
        asked = run("sql", "--url", instance.http, "SELECT 1 FROM stays LIMIT 1", cwd=instance.folder)
        assert asked.stderr.decode() == "".join(f"warning: {notice}\n" for notice in notices)
        assert instance.answer("SELECT 1")["notices"] == []
    one.stop()
