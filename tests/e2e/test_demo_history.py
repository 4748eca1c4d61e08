"""`legwork demo` twice on one folder: what an earlier run counted is there at once, once, and the story goes on."""

import json
import time

import pytest
from conftest import Legwork, run

KINDS = "gps_pings calls emails messages meetings check_ins tasks shifts leads deal_events orders costs".split()
# Nothing is left out of the lake's tables for long.
SETS = ["http.listen=127.0.0.1:0", "postgres.listen=127.0.0.1:0", "store.checkpoint_every=1s", "lake.commit_every=2s"]


@pytest.fixture
def start(tmp_path):
    """Starts a demo of 60 reps on the folder `data`."""
    running = []

    def start(*flags):
        sets = [part for setting in SETS for part in ("--set", setting)]
        demo = Legwork(["demo", "--data", str(tmp_path / "data"), "--speed", "300", *flags, *sets], cwd=tmp_path)
        running.append(demo)
        return demo

    yield start
    for demo in running:
        if demo.process.poll() is None:
            demo.stop()
    assert "panicked" not in running[0].stderr()


def wait(demo, statement, least, within_s=90):
    deadline = time.monotonic() + within_s
    while (value := demo.one(statement)) is None or value < least:
        assert time.monotonic() < deadline, f"{statement}: {value} stays below {least}\n{demo.stderr()[-2000:]}"
        time.sleep(0.2)
    return value


def seconds(demo, expression):
    return demo.one(f"SELECT CAST(extract(epoch FROM {expression}) AS DOUBLE)")


def facts(demo):
    """Rows and sums that never fall as a story goes on."""
    return {
        statement: demo.one(statement)
        for statement in [
            "SELECT count(*) FROM device_movement",
            "SELECT coalesce(sum(n_pings), 0) FROM device_movement",
            "SELECT coalesce(sum(n_calls), 0) FROM rep_calls",
            "SELECT count(*) FROM deals",
            "SELECT count(*) FROM deal_stage_visits",
            *(f"SELECT count(*) FROM {kind}" for kind in KINDS),
        ]
    }


def nothing_is_there_twice(demo):
    for kind in KINDS:
        (row,) = demo.sql(f"SELECT count(*) AS n, count(DISTINCT (source, event_id)) AS n_distinct FROM {kind}")
        assert row["n"] == row["n_distinct"], (kind, row)
    # Each call counts once, by its newest version; each ping once.
    (row,) = demo.sql(
        "SELECT (SELECT coalesce(sum(n_calls), 0) FROM rep_calls) AS counted, (SELECT count(DISTINCT call_id) FROM calls) AS calls, "
        "(SELECT coalesce(sum(n_pings), 0) FROM device_movement) AS pings, (SELECT count(DISTINCT event_id) FROM gps_pings) AS sent"
    )
    assert row["counted"] <= row["calls"] and row["pings"] <= row["sent"], row


def goes_on(demo, before, was_now_s, *, at_once=True):
    """The facts of the earlier run are there, and come to be more."""
    after = facts(demo)
    assert not at_once or all(after[statement] >= count for statement, count in before.items()), (before, after)
    assert was_now_s - 1 <= seconds(demo, "legwork_now()") < time.time() - 60
    pings = "SELECT coalesce(sum(n_pings), 0) FROM device_movement"
    wait(demo, pings, before[pings] + 100)
    wait(demo, "SELECT CAST(extract(epoch FROM legwork_now()) AS DOUBLE)", was_now_s + 600)
    demo.wait_for("SELECT count(*) FROM pipeline_lanes WHERE state = 'halted'", 0)
    assert demo.get("/readyz")[0] == 200
    rows = demo.sql("SELECT *, n_accepted + n_late + n_rejected + n_duplicates + n_tombstones AS total FROM pipeline_lanes")
    assert all(row["n_read"] == row["total"] and (row["lag"] or 0) >= 0 for row in rows), rows


def test_a_second_run_goes_on_where_the_first_was_stopped_or_killed(start, tmp_path):
    first = start("--reps", "60")
    wait(first, "SELECT coalesce(sum(n_calls), 0) FROM rep_calls", 3)
    wait(first, "SELECT coalesce(sum(n_pings), 0) FROM device_movement", 500)
    before, now_s = facts(first), seconds(first, "legwork_now()")
    assert first.stop() == 0

    # Stopped: everything is there before the first event.
    second = start()
    goes_on(second, before, now_s)
    nothing_is_there_twice(second)
    assert second.one("SELECT sum(n_duplicates) FROM pipeline_lanes") > 0, "what may have been lost was not sent again"
    before, now_s = facts(second), seconds(second, "legwork_now()")
    second.process.kill()
    second.process.wait()

    # Killed: what was in no checkpoint is told again.
    third = start("--reps", "60", "--seed", "7")
    for statement, count in before.items():
        wait(third, statement, count)
    goes_on(third, before, now_s - 3_600)
    nothing_is_there_twice(third)
    assert "goes on at" in third.stderr()

    refused = run("demo", "--data", str(tmp_path / "data"), "--for", "1s", cwd=tmp_path, check=False)
    assert refused.returncode == 75 and b"is in use by another demo" in refused.stderr, refused.stderr
    assert third.stop() == 0

    refused = run("demo", "--data", str(tmp_path / "data"), "--reps", "61", cwd=tmp_path, check=False)
    assert refused.returncode == 2 and b"60 reps with seed 7" in refused.stderr and b"--fresh" in refused.stderr, refused.stderr


def test_fresh_forgets_and_a_damaged_story_says_so(start, tmp_path):
    first = start("--reps", "60")
    wait(first, "SELECT count(*) FROM deals", 50)
    first_lanes = wait(first, "SELECT sum(checkpoint_seq) FROM pipeline_lanes", 10)
    assert first.stop() == 0
    (tmp_path / "data" / "mine.txt").write_text("stays")
    story = tmp_path / "data" / "story.json"
    text = story.read_text()

    for damaged, why in [(text[:20], b"is damaged"), (json.dumps({"version": 1_000}), b"newer Legwork"), (None, b"is missing")]:
        story.unlink()
        if damaged is not None:
            story.write_text(damaged)
        refused = run("demo", "--data", str(tmp_path / "data"), cwd=tmp_path, check=False)
        assert refused.returncode == 2 and why in refused.stderr and b"--fresh" in refused.stderr, refused.stderr
        story.write_text(text)

    fresh = start("--reps", "10", "--seed", "8", "--fresh")
    assert fresh.one("SELECT count(*) FROM device_movement WHERE window_end < legwork_now() - interval '12 hours'") == 0
    wait(fresh, "SELECT count(*) FROM reps", 10)
    assert fresh.one("SELECT count(*) FROM reps") == 10
    assert fresh.one("SELECT count(*) FROM deals") < 50 and first_lanes > 0
    assert json.loads(story.read_text())["reps"] == 10
    assert (tmp_path / "data" / "mine.txt").read_text() == "stays"
