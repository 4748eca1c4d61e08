"""Commands over store and lake: lanes, SQL without a pipeline, backfill, repair, maintenance."""

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BIN, SCHEMAS, Legwork, run
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
    same = f"instance.id=i-{topic}"
    service = up({"gps": topic}, sets=(same, *FAST), group=f"g-{topic}")
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 3_000)
    folder = folder_of(service)
    service.stop()
    assert rows(folder, "SELECT count(*) AS n FROM gps_pings") == [{"n": 3_000}]

    # What comes now stays in the store: the lake is not due, and the process dies.
    service = up({"gps": topic}, sets=(same, "store.checkpoint_every=200ms", "lake.commit_every=1h", f"store.url=file://{folder}/store"), group=f"g-{topic}")
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
    same = f"instance.id=i-{topic}"
    service = up({"gps": topic}, sets=(same, *FAST), group=f"g-{topic}")
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
    service = up({"gps": topic}, sets=(same, *FAST, f"store.url=file://{folder}/store"), group=f"g-{topic}")
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
    # It is said when a round is over, some time after its files are there.
    while not list(merged.glob("day=*/merged-*.parquet")) or "the lake was maintained" not in service.stderr():
        produce(kafka, registry, topic, 100, start + n * 1_000)
        n += 100
        assert time.monotonic() < deadline, service.stderr()[-2000:]
        time.sleep(0.2)
    service.wait_for("SELECT count(*) FROM gps_pings", n)
    assert service.stop() == 0
    assert "this instance maintains the lake now" in service.stderr()
    assert rows(folder_of(service), "SELECT count(*) AS n FROM gps_pings") == [{"n": n}]


def write_pings(path, tracked):
    lines = ["device_id,event_time,lat,lon,speed_mps"] + [f"{d},{t},{lat!r},{lon!r},{v!r}" for d, t, lat, lon, v in tracked]
    path.write_text("\n".join(lines) + "\n")


EVERY_ROW = "SELECT device_id, window_start, n_pings, raw_m, distance_m, gap_m, moving_s, is_open FROM device_movement ORDER BY 1, 2"


def test_backfill_gives_what_the_files_hold_once(tmp_path):
    from test_files import tracks

    tracked = tracks(n_devices=20, n_pings=600)
    halves = [[row for row in tracked if (int(row[0][1:]) < 10) == is_first] for is_first in (True, False)]
    write_pings(tmp_path / "a.csv", halves[0])
    write_pings(tmp_path / "b.csv", halves[1] + [("d11", halves[1][0][1], 123.0, 0.0, 1.0)])
    assert all(halves)
    both = ("--input", "gps=a.csv", "--input", "gps=b.csv")
    expected = json.loads(run("sql", *both, "--format", "json", EVERY_ROW, cwd=tmp_path).stdout)
    first = json.loads(run("backfill", *both, "--data", "store", "--json", cwd=tmp_path).stdout)
    assert (first["outcome"], first["n_accepted"], first["n_rejected"]) == ("done", len(tracked), 1)
    assert rows(tmp_path, EVERY_ROW) == expected and len(expected) == first["rows"]["device_movement"]
    assert rows(tmp_path, "SELECT count(*) AS n FROM gps_pings") == [{"n": len(tracked)}]
    assert rows(tmp_path, "SELECT count(*) AS n FROM rejected_events") == [{"n": 1}]
    for order in (both, both[2:] + both[:2]):
        again = json.loads(run("backfill", *order, "--data", "store", "--json", cwd=tmp_path).stdout)
        assert (again["outcome"], again["lane"]) == ("already there", first["lane"])
    assert rows(tmp_path, EVERY_ROW) == expected

    def refused(*args):
        done = run("backfill", *args, "--data", "store", cwd=tmp_path, check=False)
        assert done.returncode == 2, done
        return done.stderr.decode()

    assert "is in the lake already" in refused("--input", "gps=a.csv")
    write_pings(tmp_path / "c.csv", [(d, t + 1, lat, lon, v) for d, t, lat, lon, v in halves[0]])
    assert "counted twice" in refused("--input", "gps=c.csv")
    write_pings(tmp_path / "a.csv", halves[0][1:])
    assert "not the file that is in the lake" in refused("--input", "gps=a.csv")
    assert "reference data" in refused("--input", "reps=a.csv")
    write_pings(tmp_path / "other.csv", [(f"x{d}", t, lat, lon, v) for d, t, lat, lon, v in halves[0]])
    run("backfill", "--input", "gps=other.csv", "--data", "store", cwd=tmp_path)
    assert rows(tmp_path, "SELECT count(*) AS n FROM gps_pings") == [{"n": len(tracked) + len(halves[0])}]
    assert [lane["kind"] for lane in lanes(tmp_path)] == ["files", "files"]


def test_a_backfill_that_was_killed_goes_on(tmp_path):
    from test_files import tracks

    tracked = tracks(n_devices=30, n_pings=4_000)
    write_pings(tmp_path / "a.csv", tracked)
    command = ("backfill", "--input", "gps=a.csv", "--data", "store", "--json")
    lake, n_kills = tmp_path / "store" / "lake", 0
    for table in ("device_movement", "stays", "gps_pings"):
        process = subprocess.Popen([BIN, *command], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (lake / table / "_delta_log" / f"{1:020}.json").exists():
            time.sleep(0.002)
        n_kills += process.poll() is None
        process.kill()
        process.wait()
    assert n_kills > 0, "it was never killed on its way"
    run(*command, cwd=tmp_path)
    assert json.loads(run(*command, cwd=tmp_path).stdout)["outcome"] == "already there"
    assert rows(tmp_path, "SELECT count(*) AS n, count(DISTINCT arrival_time) AS n_runs FROM gps_pings") == [{"n": len(tracked), "n_runs": 1}]
    expected = json.loads(run("sql", "--input", "gps=a.csv", "--format", "json", EVERY_ROW, cwd=tmp_path).stdout)
    assert rows(tmp_path, EVERY_ROW) == expected


def test_backfill_refuses_what_a_running_lane_may_still_write(kafka, registry, topics, up):
    topic = topics("gps", partitions=1)
    now = now_us() // US * US
    produce(kafka, registry, topic, 500, now - 3_600 * US)
    service = up({"gps": topic}, sets=FAST, group=f"g-{topic}")
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 500)
    folder, day = folder_of(service), 86_400 * US
    deadline = time.monotonic() + 30
    while not any(lane["next_offset"] == 500 for lane in lanes(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    config = ("--config", "legwork.toml", "--data", "store")
    write_pings(folder / "new.csv", [("d1", now - 3 * day, 1.0, 2.0, 0.0), ("d1", now - 20 * day, 1.0, 2.0, 0.0)])
    done = run("backfill", "--input", "gps=new.csv", *config, cwd=folder, check=False)
    assert done.returncode == 2 and b"still holds the days from" in done.stderr
    write_pings(folder / "old.csv", [("d1", now - 20 * day + n * US, 1.0, 2.0, 0.0) for n in range(10)])
    run("backfill", "--input", "gps=old.csv", *config, cwd=folder)
    service.wait_for("SELECT count(*) FROM gps_pings", 510)
    assert service.one("SELECT count(*) FROM rep_positions WHERE device_id = 'd1'") == 1


def test_check_names_lanes_that_do_not_go_on(kafka, registry, topics, up):
    topic = topics("gps", partitions=1)
    produce(kafka, registry, topic, 100, now_us() - 3_600 * US)
    service = up({"gps": topic}, sets=FAST, group=f"g-{topic}")
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 100)
    folder = folder_of(service)
    service.stop()

    def findings(*more, code=0):
        done = run("check", "--json", "--config", "legwork.toml", *more, cwd=folder, check=False)
        assert done.returncode == code, done
        return {finding["hop"].split()[0]: finding for finding in json.loads(done.stdout)}

    found = findings()
    assert {found[hop]["status"] for hop in ("store", "lake", "lanes")} == {"ok"}, found
    assert "can be written" in found["lake"]["message"]
    assert "made with the settings" in findings("--set", "time.window=1m", code=75)["lane"]["message"]
    shutil.rmtree(folder / "store" / "lanes")
    assert "has no checkpoint" in findings(code=75)["lane"]["message"]
    assert findings("--set", "store.url=file:///proc/nothing", code=78)["store"]["status"] == "failed"


def produce_tracked(kafka, registry, topic, tracked):
    """Pings of (device, time, lat, lon, speed) in this order."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    serializer = AvroSerializer(SchemaRegistryClient({"url": registry.ready["registry"]}), (SCHEMAS / "gps.avsc").read_text())
    context = SerializationContext(topic, MessageField.VALUE)
    blank = {f["name"]: None for f in json.loads((SCHEMAS / "gps.avsc").read_text())["fields"]}
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    for device, t, lat, lon, speed in tracked:
        ping = {**blank, "event_id": f"{device}-{t}", "source": "test", "device_id": device, "event_time": t, "lat": lat, "lon": lon, "speed_mps": speed}
        producer.produce(topic, key=device.encode(), value=serializer(ping, context))
        producer.poll(0)
    assert producer.flush(60) == 0


def wander(device, start, n, every_s, rng):
    """A device that walks, stands and is silent by turns."""
    lat, lon, t, found = 52.5 + rng.random(), 13.4, start, []
    for i in range(n):
        t += rng.randrange(every_s // 2, every_s * 2) * US + (7_200 * US if i % 97 == 96 else 0)
        if i % 40 < 25:
            lat, lon = lat + rng.uniform(2e-4, 1e-3), lon + rng.uniform(-1e-3, 1e-3)
        found.append((device, t, round(lat + rng.uniform(-2e-5, 2e-5), 7), round(lon, 7), round(rng.uniform(0, 20), 1)))
    return found


def with_late(kafka, registry, topics, up, *sets):
    """A service that has read pings of which some came too late; (service, settings, first day, all pings, late ones)."""
    topic = topics("gps", partitions=2)
    day, rng = 86_400 * US, random.Random(11)
    start = (now_us() // day - 12) * day
    tracked = [row for device in range(4) for row in wander(f"d{device}", start + rng.randrange(day), 2_200, 240, rng)]
    # Of two devices a stretch comes when they are days ahead; of one so close to its end that its lane still holds those days.
    late = [row for row in tracked if row[0] in ("d0", "d1") and start + 1.5 * day < row[1] < start + 2.2 * day]
    in_time = [row for row in tracked if row not in set(late)]
    in_time.sort(key=lambda row: row[1])
    settings = {"sets": ("time.late_horizon=1d", f"instance.id=i-{topic}", *FAST, *sets), "group": f"g-{topic}"}
    service = up({"gps": topic}, **settings)
    produce_tracked(kafka, registry, topic, in_time)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", len(in_time))
    produce_tracked(kafka, registry, topic, late)
    service.wait_for("SELECT sum(n_late) FROM pipeline_lanes", len(late))
    write_pings(folder_of(service) / "all.csv", tracked)
    return service, {"topics": {"gps": topic}, **settings}, start, tracked, late


def movement_of(tracked, start):
    """Rows of days that no lane counts any more."""
    first_clock = min(max(row[1] for row in tracked if row[0] == device) for device in ("d0", "d1", "d2", "d3"))
    until = f"to_timestamp_micros({first_clock - 86_400 * US - 10_800 * US})"
    columns = "device_id, window_start, n_pings, raw_m, distance_m, gap_m, moving_s, stationary_s, gap_s"
    return until, f"SELECT {columns} FROM device_movement WHERE window_end < {until} ORDER BY 1, 2"


def oracle(folder, sql):
    return json.loads(run("sql", "--input", "gps=all.csv", "--format", "json", sql, cwd=folder).stdout)


def repair_metrics(service):
    """{metric with its labels: value}"""
    lines = [line.rsplit(" ", 1) for line in service.get("/metrics")[1].splitlines() if line.startswith("legwork_repair")]
    return {name.removeprefix("legwork_repair_"): float(value) for name, value in lines}


def test_late_events_are_repaired_on_schedule(kafka, registry, topics, up):
    schedule = ("lake.maintain_every=500ms", "lake.repair_every=500ms")
    service, settings, start, tracked, _ = with_late(kafka, registry, topics, up, *schedule)
    folder = folder_of(service)
    _, movement = movement_of(tracked, start)
    expected = oracle(folder, movement)
    deadline = time.monotonic() + 60
    while rows(folder, movement) != expected:
        assert time.monotonic() < deadline, (repair_metrics(service), service.stderr()[-2000:])
        time.sleep(0.3)

    def rounds(service, n):
        """Metrics after so many further rounds."""
        ends = set()
        while len(ends) <= n:
            assert time.monotonic() < deadline + 60
            metrics = repair_metrics(service)
            ends.add(metrics["last_success_timestamp_seconds"])
            time.sleep(0.05)
        return metrics

    done = rounds(service, 1)
    assert done['keys_total{outcome="settled"}'] >= 2 and done["keys_left"] == 0 and done["rows_total"] > 0, done
    again = rounds(service, 2)
    assert {**again, "last_success_timestamp_seconds": 0} == {**done, "last_success_timestamp_seconds": 0}, "once is enough"
    service.stop()
    sets = (*settings["sets"], f"store.url=file://{folder}/store")
    service = up(settings["topics"], sets=sets, group=settings["group"])
    again = rounds(service, 2)
    assert all(value == 0 for name, value in again.items() if "total" in name), f"once, also after a restart: {again}"
    service.stop()
    assert rows(folder, movement) == expected
    assert "repair:" not in {lane["topic"] for lane in rows(folder, "SELECT topic FROM pipeline_lanes")}


def test_repair_counts_what_came_too_late(kafka, registry, topics, up):
    service, settings, start, tracked, late = with_late(kafka, registry, topics, up)
    topic, day = settings["topics"]["gps"], 86_400 * US
    folder = folder_of(service)
    # Into the lake, open rows too.
    service.stop()
    config = ("--config", "legwork.toml", "--set", "time.late_horizon=1d")
    until, movement = movement_of(tracked, start)
    stays = f"SELECT device_id, stay_start, stay_end, n_pings, lat, lon FROM stays WHERE stay_end < {until} ORDER BY 1, 2"
    trips = f"SELECT device_id, trip_start, trip_end, n_pings, distance_m FROM trips WHERE trip_end < {until} ORDER BY 1, 2"
    coverage = f"SELECT device_id, day, h3_cell, n_pings FROM device_coverage WHERE day < to_timestamp_micros({start + 4 * day}) ORDER BY 1, 2, 3"
    assert rows(folder, movement) != oracle(folder, movement), "the late ones are not counted yet"

    def repair(first, last, *more, code=0):
        date = lambda n: time.strftime("%Y-%m-%d", time.gmtime((start + n * day) // US))
        done = run("repair", "--from", date(first), "--to", date(last), "--data", "store", *config, *more, cwd=folder, check=False)
        assert done.returncode == code, done
        return done

    assert b"still counts what comes late" in repair(0, 13, code=2).stderr
    assert b"repair with the same" in repair(0, 4, "--set", "time.window=1m", code=2).stderr
    before = rows(folder, movement)
    dry = json.loads(repair(0, 4, "--dry-run", "--json").stdout)
    assert rows(folder, movement) == before
    done = json.loads(repair(0, 4, "--json").stdout)
    assert {**done, "dry_run": True} == dry and (done["n_late"], done["n_keys"], done["n_keys_incomplete"]) == (len(late), 2, 0)
    for sql in (movement, stays, trips, coverage):
        assert rows(folder, sql) == oracle(folder, sql), sql
    again = json.loads(repair(0, 4, "--json").stdout)
    assert all(table == {"written": 0, "retracted": 0} for table in again["tables"].values()), again
    # What the lane writes afterwards does not undo it.
    sets = (*settings["sets"], f"store.url=file://{folder}/store")
    service = up({"gps": topic}, sets=sets, group=f"g-{topic}")
    more = wander("d0", max(row[1] for row in tracked if row[0] == "d0"), 20, 60, random.Random(12))
    produce_tracked(kafka, registry, topic, more)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", len(tracked) - len(late) + len(more))
    service.stop()
    assert rows(folder, movement) == oracle(folder, movement)
    # A table that was lost comes back from the stored pings.
    shutil.rmtree(folder / "store/lake/device_movement")
    accept = ("lanes", "accept", "--data", "store", *config, "--yes", "--json")
    for partition in (0, 1):
        done = json.loads(run(*accept, f"{topic}/{partition}", cwd=folder).stdout)
        assert done["outcome"] == "done" and "legwork repair --all" in done["meaning"][0], done
    assert len(rows(folder, movement)) < 100
    assert json.loads(repair(0, 4, "--json").stdout)["n_keys"] == 2
    done = json.loads(repair(0, 4, "--all", "--json").stdout)
    assert (done["n_keys"], done["n_keys_incomplete"]) == (4, 0), done
    # As there is a retention, each device's first day may lack some pings, and is left; so are the last hours before the horizon.
    whole_days = f"window_start >= to_timestamp_micros({start + day}) AND window_start < to_timestamp_micros({start + 5 * day}) AND"
    whole_days = movement.replace("WHERE", f"WHERE {whole_days}")
    assert rows(folder, whole_days) == oracle(folder, whole_days) != []


def test_events_of_a_topic_made_anew_are_new_events(kafka, topics, up):
    """Without ids of their own, with garbage and with late ones among them: their offsets are those of the old topic's once more."""
    from confluent_kafka.admin import AdminClient, NewTopic

    topic = topics("messages", partitions=1)
    service = up({"messages": topic}, sets=(*FAST, 'topics.messages.format="json"'))
    folder, admin, producer = folder_of(service), AdminClient({"bootstrap.servers": kafka}), Producer({"bootstrap.servers": kafka})

    def send(tag):
        def message(n, age_s):
            event = {"event_time": now_us() - age_s * US, "message_id": f"{tag}{n}", "rep_id": f"r{n % 3}", "channel": "sms", "direction": "outbound", "peer": "p"}
            producer.produce(topic, key=event["rep_id"], value=json.dumps(event), partition=0)

        for n in range(30):
            message(n, 60)
        for n in range(30, 34):
            message(n, 20 * 86_400)
        for n in range(5):
            producer.produce(topic, key="r1", value=f"{{garbage {tag}{n}", partition=0)
        assert producer.flush(30) == 0

    def expect(service, rounds):
        service.wait_for("SELECT sum(n_read) FROM pipeline_lanes", 39 * rounds)
        (lane,) = service.sql("SELECT n_accepted, n_late, n_rejected, n_duplicates FROM pipeline_lanes")
        assert lane == {"n_accepted": 30 * rounds, "n_late": 4 * rounds, "n_rejected": 5 * rounds, "n_duplicates": 0}, lane
        for table, n in (("messages", 30), ("late_events", 4), ("rejected_events", 5), ("touches", 30)):
            assert service.one(f"SELECT count(*) FROM {table}") == n * rounds, table
        assert service.one("SELECT count(DISTINCT (source, event_id)) FROM messages") == 30 * rounds

    send("a")
    expect(service, 1)
    for rounds in (2, 3):
        assert service.stop() == 0
        admin.delete_topics([topic])[topic].result(30)
        deadline = time.monotonic() + 30
        while topic in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        config = ("--config", "legwork.toml", *(flag for one in FAST for flag in ("--set", one)), "--set", 'topics.messages.format="json"')
        done = json.loads(run("lanes", "accept", *config, "--yes", "--json", f"{topic}/0", cwd=folder).stdout)
        assert any(f"{topic}@{rounds - 1}-0-OFFSET" in line for line in done["meaning"]), done
        service = Legwork(["up", *config], cwd=folder)
        try:
            send("bc"[rounds - 2])
            expect(service, rounds)
        finally:
            service.stop()
        if rounds == 2:
            service = Legwork(["up", *config], cwd=folder)
            expect(service, 2)
    n = rows(folder, "SELECT (SELECT count(DISTINCT event_id) FROM messages) AS ids, (SELECT count(*) FROM rejected_events) AS rejected", "--config", "legwork.toml")
    assert n == [{"ids": 90, "rejected": 15}]
