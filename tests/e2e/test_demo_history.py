"""`legwork demo` twice on one folder: what an earlier run counted is there at once, once, and the story goes on."""

import json
import time

import pytest
from conftest import Legwork, run

KINDS = "gps_pings calls emails messages meetings check_ins tasks shifts lead_events deal_events order_events costs".split()
STORY = "60-reps-seed-7"
# Nothing is left out of the lake's tables for long.
SETS = ["http.listen=127.0.0.1:0", "postgres.listen=127.0.0.1:0", "store.checkpoint_every=1s", "lake.commit_every=2s"]


@pytest.fixture
def start(tmp_path):
    """Starts a demo of 60 reps on the folder `data`."""
    running = []

    def start(*flags):
        sets = [part for setting in SETS for part in ("--set", setting)]
        demo = Legwork(["demo", "--data", str(tmp_path / "data"), "--reps", "60", "--speed", "300", *flags, *sets], cwd=tmp_path)
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


# Numbers that do not fall as a story goes on.
FACTS = [
    "SELECT count(*) FROM device_movement",
    "SELECT coalesce(sum(n_pings), 0) FROM device_movement",
    "SELECT coalesce(sum(n_calls), 0) FROM rep_calls",
    "SELECT count(*) FROM deal_stage_visits",
    *(f"SELECT count(*) FROM {kind}" for kind in KINDS),
]


def facts(demo):
    return {statement: demo.one(statement) for statement in FACTS}


def stored(folder, statement):
    """The numbers of one row, from store and lake, without a running demo."""
    done = run("sql", "--data", str(folder / "data" / STORY / "store"), "--format", "csv", statement, cwd=folder)
    return [int(number) for number in done.stdout.split()[-1].split(b",")]


def nothing_is_stored_twice(folder):
    for kind in KINDS:
        n, n_distinct = stored(folder, f"SELECT count(*) AS a, count(DISTINCT (source, event_id)) AS b FROM {kind}")
        assert n == n_distinct, (kind, n, n_distinct)
    # Facts and events are of the same checkpoints: each call counts once, by its newest version, and each ping.
    counted, calls = stored(folder, "SELECT sum(n_calls) AS a, (SELECT count(DISTINCT call_id) FROM calls) AS b FROM rep_calls")
    assert counted == calls
    counted, pings = stored(folder, "SELECT sum(n_pings) AS a, (SELECT count(DISTINCT event_id) FROM gps_pings) AS b FROM device_movement")
    assert counted == pings


def goes_on(demo, before, was_now_s):
    """The facts of the earlier run are there, and come to be more."""
    assert seconds(demo, "legwork_now()") < time.time() - 3_600, "before the first event now is the system's clock"
    # What was in no checkpoint is told again.
    for statement, count in before.items():
        wait(demo, statement, count)
    wait(demo, "SELECT coalesce(sum(n_pings), 0) FROM device_movement", before[FACTS[1]] + 100)
    wait(demo, "SELECT CAST(extract(epoch FROM legwork_now()) AS DOUBLE)", was_now_s + 600)
    assert demo.one("SELECT count(*) FROM pipeline_lanes WHERE state = 'halted'") == 0
    demo.wait_for_status("/readyz", 200)
    rows = demo.sql("SELECT *, n_accepted + n_late + n_rejected + n_duplicates + n_tombstones AS total FROM pipeline_lanes")
    assert all(row["n_read"] == row["total"] and (row["lag"] or 0) >= 0 for row in rows), rows


def test_a_second_run_goes_on_where_the_first_was_stopped_or_killed(start, tmp_path):
    first = start()
    wait(first, FACTS[2], 3)
    wait(first, FACTS[1], 500)
    before, now_s = facts(first), seconds(first, "legwork_now()")
    assert first.stop() == 0
    kept = {statement: stored(tmp_path, statement)[0] for statement in FACTS[:3]}
    assert min(kept.values()) > 0

    second = start()
    at_once = {statement: second.one(statement) for statement in kept}
    assert all(at_once[statement] >= count for statement, count in kept.items()), (kept, at_once)
    goes_on(second, before, now_s)
    assert second.one("SELECT sum(n_duplicates) FROM pipeline_lanes") > 0, "what may have been lost was not sent again"
    before, now_s = facts(second), seconds(second, "legwork_now()")
    second.process.kill()
    second.process.wait()
    nothing_is_stored_twice(tmp_path)

    third = start("--seed", "7")
    goes_on(third, before, now_s)
    assert third.stderr().count("goes on at") == 2

    refused = run("demo", "--data", str(tmp_path / "data"), "--reps", "60", "--for", "1s", cwd=tmp_path, check=False)
    assert refused.returncode == 75 and b"is in use by another demo" in refused.stderr, refused.stderr
    assert third.stop() == 0
    nothing_is_stored_twice(tmp_path)
    # Another story has nothing of this one, and takes nothing away.
    kept = stored(tmp_path, FACTS[1])
    other = start("--seed", "8")
    assert other.stop() == 0
    assert stored(tmp_path, FACTS[1]) == kept


def test_fresh_forgets_and_a_damaged_story_says_so(start, tmp_path):
    first = start()
    wait(first, "SELECT count(*) FROM deals", 50)
    assert first.stop() == 0
    (tmp_path / "data" / STORY / "mine.txt").write_text("stays")
    story = tmp_path / "data" / STORY / "story.json"
    text = story.read_text()

    for damaged, why in [(text[:20], b"is damaged"), (json.dumps({"version": 1_000}), b"newer Legwork"), (None, b"is missing")]:
        story.unlink()
        if damaged is not None:
            story.write_text(damaged)
        refused = run("demo", "--data", str(tmp_path / "data"), "--reps", "60", cwd=tmp_path, check=False)
        assert refused.returncode == 2 and why in refused.stderr and b"--fresh" in refused.stderr, refused.stderr
        story.write_text(text)

    started = json.loads(text)["start_us"]
    mark = tmp_path / "data" / STORY / "store" / "mark"
    mark.write_text("")
    fresh = start("--fresh")
    wait(fresh, "SELECT count(*) FROM deals", 1)
    assert not mark.exists(), "the store is the old one"
    assert json.loads(story.read_text())["start_us"] > started
    assert (tmp_path / "data" / STORY / "mine.txt").read_text() == "stays"
