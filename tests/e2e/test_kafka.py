"""`legwork up` on a real Kafka, with real clients."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, SCHEMAS, Process, run
from confluent_kafka import Consumer, Producer, SerializingProducer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import StringSerializer
from test_files import ORACLE, tracks

US = 1_000_000


def now_us():
    return time.time_ns() // 1_000


def serializing(kafka, registry, schema):
    client = SchemaRegistryClient({"url": registry.ready["registry"]})
    settings = {"bootstrap.servers": kafka, "partitioner": "murmur2_random", "key.serializer": StringSerializer()}
    return SerializingProducer({**settings, "value.serializer": AvroSerializer(client, json.dumps(schema))})


def gps_schema(*fields, name="GpsPing"):
    return {"type": "record", "name": name, "namespace": "legwork.v1", "fields": list(fields)}


def field(name, kind, **more):
    return {"name": name, "type": kind, **more}


MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def test_a_changed_schema_in_the_middle_of_the_stream_loses_no_row(kafka, registry, topics, up):
    topic = topics("gps")
    service = up({"gps": topic})
    base = [field("device_id", "string"), field("lat", "double"), field("lon", "double")]
    schemas = [
        gps_schema(*base, field("event_time", MICROS), field("speed_mps", ["null", "float"], default=None)),
        gps_schema(*base, field("event_time", MICROS), field("speed_mps", ["null", "float"], default=None), field("cell_id", "string", default="")),
        gps_schema(*base, field("event_time", MICROS)),
        gps_schema(*base, field("event_time", MICROS), field("speed_mps", ["null", "int"], default=None)),
        gps_schema(*base, field("event_time", {"type": "long", "logicalType": "timestamp-millis"})),
        gps_schema(*base, field("event_time", {"type": "long", "logicalType": "timestamp-nanos"})),
    ]
    # Promotions and other units are incompatible by the letter; the registry lets them pass when told so.
    SchemaRegistryClient({"url": registry.ready["registry"]}).set_compatibility(f"{topic}-value", "NONE")
    start = now_us() // US * US - 600 * US
    expected = []
    for number, schema in enumerate(schemas):
        producer = serializing(kafka, registry, schema)
        names = [f["name"] for f in schema["fields"]]
        for i in range(50):
            t = start + (number * 50 + i) * US
            kind = schema["fields"][names.index("event_time")]["type"]["logicalType"]
            ping = {"device_id": f"d{i % 5}", "lat": 52.0 + i * 1e-4, "lon": 13.0}
            # The serializer turns times into the unit of the schema by itself only for datetimes.
            ping["event_time"] = {"timestamp-micros": t, "timestamp-millis": t // 1_000, "timestamp-nanos": t * 1_000}[kind]
            if "speed_mps" in names:
                ping["speed_mps"] = 7
            if "cell_id" in names:
                ping["cell_id"] = "c"
            producer.produce(topic, key=ping["device_id"], value=ping)
            expected.append(t)
        assert producer.flush(30) == 0
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", len(expected))
    assert service.one("SELECT count(*) FROM rejected_events") == 0
    times = [row["t"] for row in service.sql("SELECT CAST(event_time AS BIGINT) AS t FROM gps_pings ORDER BY 1")]
    assert times == sorted(expected)
    assert service.one("SELECT sum(n_pings) FROM device_movement") == len(expected)


def encoded_pings(registry, topic, n, start):
    """Framed pings by Confluent's serializer, with their keys."""
    from confluent_kafka.serialization import MessageField, SerializationContext

    client = SchemaRegistryClient({"url": registry.ready["registry"]})
    serializer = AvroSerializer(client, (SCHEMAS / "gps.avsc").read_text())
    context = SerializationContext(topic, MessageField.VALUE)
    blank = {f["name"]: None for f in json.loads((SCHEMAS / "gps.avsc").read_text())["fields"]}
    for i in range(n):
        ping = {**blank, "event_id": f"e{i}", "source": "test", "device_id": f"d{i % 50}", "lat": 1.0, "lon": 2.0 + i * 1e-6}
        ping["event_time"] = start + i * 1_000
        yield ping["device_id"].encode(), serializer(ping, context)


def garbage(rng, good):
    schema_id = good[:5]
    kinds = [
        b"\x01" + good[1:],
        good[:3],
        b"",
        b"\x00" + struct.pack(">I", 987_654) + good[5:],
        good[: 5 + (len(good) - 5) // 2],
        good + b"\x00\x01",
        schema_id + bytes(rng.randrange(256) for _ in range(4)) + b"\xff" * 12,
        schema_id + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b'{"device_id": "d1"}',
        b"\x00" * 1_200_000,
    ]
    return kinds


def test_garbage_costs_only_itself_and_is_kept(kafka, registry, topics, up):
    topic = topics("gps", **{"max.message.bytes": "4000000"})
    service = up({"gps": topic})
    rng = random.Random(3)
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random", "message.max.bytes": 4_000_000})
    bad = []
    for i, (key, value) in enumerate(encoded_pings(registry, topic, 5_000, now_us() - 60 * US)):
        producer.produce(topic, key=key, value=value)
        if i % 100 == 50:
            payload = garbage(rng, value)[i // 100 % 10]
            bad.append(payload)
            producer.produce(topic, key=key, value=payload)
        if i % 1_000 == 500:
            producer.produce(topic, key=key, value=None)
        producer.poll(0)
    assert producer.flush(60) == 0
    service.wait_for("SELECT sum(n_read) FROM pipeline_lanes", 5_000 + len(bad) + 5)
    totals = service.sql(
        "SELECT sum(n_read) AS n_read, sum(n_accepted) AS a, sum(n_late) AS l, sum(n_rejected) AS r, sum(n_duplicates) AS d, sum(n_tombstones) AS t FROM pipeline_lanes"
    )[0]
    assert (totals["a"], totals["r"], totals["t"]) == (5_000, len(bad), 5)
    assert totals["n_read"] == sum(totals[name] for name in "alrdt")
    kept = [row["payload"] for row in service.sql("SELECT payload FROM rejected_events")]
    assert sorted(kept) == sorted(payload if len(payload) <= 1 << 20 else payload[: 1 << 20] for payload in bad)
    assert service.one("SELECT count(*) FROM gps_pings") == 5_000

    consumer = Consumer({"bootstrap.servers": kafka, "group.id": f"dlq-{time.time_ns()}", "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{topic}.dlq"])
    letters = []
    deadline = time.monotonic() + 60
    while len(letters) < len(bad) and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            letters.append(message)
    consumer.close()
    assert len(letters) == len(bad)
    headers = dict(letters[0].headers())
    names = {name.removeprefix("legwork.") for name in headers}
    assert {"reason", "topic", "partition", "offset"} <= names, headers


def test_recorded_pings_through_kafka_equal_batch_sql(kafka, registry, topics, up, tmp_path):
    import duckdb

    # The recording is old: a broker deletes records beyond its retention.
    topic = topics("gps", partitions=3, **{"retention.ms": "-1"})
    rows = tracks(n_devices=40, n_pings=500)
    lines = ["device_id,event_time,lat,lon,speed_mps"] + [f"{d},{t},{lat!r},{lon!r},{v!r}" for d, t, lat, lon, v in rows]
    (tmp_path / "pings.csv").write_text("\n".join(lines) + "\n")
    expected = duckdb.sql(ORACLE.format(folder=tmp_path)).fetchall()
    registry_flag = ("--set", f"registry.url={registry.ready['registry']}", "--set", f'topics.gps.names=["{topic}"]')
    run("replay", "gps=pings.csv", "--speed", "0", "--bootstrap", kafka, *registry_flag, cwd=tmp_path)
    service = up({"gps": topic}, sets=("time.window=1m",))
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", len(rows))
    found = service.sql("SELECT device_id, CAST(window_start AS BIGINT) AS w, n_pings, raw_m, speed_mps_max FROM device_movement ORDER BY device_id, w")
    assert [(row["device_id"], row["w"], row["n_pings"]) for row in found] == [row[:3] for row in expected]
    for row, (*_, raw_m, speed) in zip(found, expected, strict=True):
        assert row["raw_m"] == pytest.approx(raw_m, rel=1e-9, abs=1e-9)
        assert row["speed_mps_max"] == pytest.approx(speed, rel=1e-9)


def test_registry_gone_and_back(kafka, topics, up, tmp_path, registry):
    topic = topics("gps", partitions=1)
    service = up({"gps": topic})
    producer = Producer({"bootstrap.servers": kafka})
    pings = list(encoded_pings(registry, topic, 300, now_us() - 60 * US))
    for key, value in pings[:100]:
        producer.produce(topic, key=key, value=value)
    producer.flush(30)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 100)
    port = registry.ready["registry"].rsplit(":", 1)[1]
    # A second schema, registered before the registry goes, unknown to the lane.
    client = SchemaRegistryClient({"url": registry.ready["registry"]})
    client.set_compatibility(f"{topic}-value", "NONE")
    schema = gps_schema(field("device_id", "string"), field("event_time", MICROS), field("lat", "double"), field("lon", "double"))
    serializer = AvroSerializer(client, json.dumps(schema))
    from confluent_kafka.serialization import MessageField, SerializationContext

    other = serializer({"device_id": "d1", "event_time": now_us(), "lat": 1.0, "lon": 2.0}, SerializationContext(topic, MessageField.VALUE))
    folder = Path(registry.log.name).parent
    registry.stop()
    for key, value in pings[100:200]:
        producer.produce(topic, key=key, value=value)
    producer.flush(30)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 200)
    producer.produce(topic, key=b"d1", value=other)
    for key, value in pings[200:]:
        producer.produce(topic, key=key, value=value)
    producer.flush(30)
    service.wait_for("SELECT count(*) FROM pipeline_lanes WHERE state = 'paused'", 1)
    assert "registry" in service.one("SELECT detail FROM pipeline_lanes")
    service.wait_for_status("/readyz", 503)
    assert service.one("SELECT count(*) FROM rejected_events") == 0
    back = Process(["registry", "--listen", f"127.0.0.1:{port}", "--file", str(folder / "schemas.jsonl")], cwd=folder)
    try:
        service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 301)
        service.wait_for_status("/readyz", 200)
    finally:
        back.stop()


def test_psql_psycopg_and_adbc_read_the_tables(kafka, registry, topics, up):
    topic = topics("gps", partitions=1)
    service = up({"gps": topic})
    producer = Producer({"bootstrap.servers": kafka})
    for key, value in encoded_pings(registry, topic, 100, now_us() - 60 * US):
        producer.produce(topic, key=key, value=value)
    producer.flush(30)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 100)
    url = service.ready["postgres"]

    shown = subprocess.run(["psql", url, "-Atc", "SELECT count(*), CAST(sum(lat) AS BIGINT) FROM gps_pings"], capture_output=True, timeout=60)
    assert shown.stdout.decode().strip() == "100|100", shown.stderr.decode()
    for command in [r"\dt", r"\d device_movement", r"\dv", r"\d", r"\d+ rep_activity", r"\df", r"\l", r"\dn", r"\du", "SHOW ALL"]:
        shown = subprocess.run(["psql", url, "-c", command], capture_output=True, timeout=60)
        assert shown.returncode == 0 and b"ERROR" not in shown.stderr, (command, shown.stderr.decode())

    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*), min(lat), max(event_time) FROM gps_pings WHERE device_id = %s", ["d7"]).fetchone()
        assert row[:2] == (2, 1.0) and row[2].tzinfo is not None
        (n_pings,) = connection.execute("SELECT count(*) FROM gps_pings WHERE device_id = ANY(%s)", [["d7", "d8", "it's"]]).fetchone()
        assert n_pings == 4
        assert connection.execute(r"SELECT '\xff'::bytea").fetchone() == (b"\xff",)
        with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="bigint out of range"):
            connection.execute("SELECT 9223372036854775807 + 1")
        with pytest.raises(psycopg.Error):
            connection.execute("CREATE TABLE x (a int)")

    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT device_id, event_time, lat, n_pings FROM (SELECT device_id, max(event_time) AS event_time, max(lat) AS lat, count(*) AS n_pings FROM gps_pings GROUP BY device_id) ORDER BY device_id")
        table = cursor.fetch_arrow_table()
    assert table.num_rows == 50 and table.column("n_pings").to_pylist() == [2] * 50


def test_metrics_are_what_promtool_accepts(kafka, registry, topics, up):
    topic = topics("gps", partitions=2)
    service = up({"gps": topic}, sets=("metrics.every=1s",))
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    for key, value in encoded_pings(registry, topic, 100, now_us() - 60 * US):
        producer.produce(topic, key=key, value=value)
    producer.flush(30)
    service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 100)
    # A counter stands at 0 before there is anything to count.
    counters = {"read": 100, "late": 0, "duplicate": 0, "misrouted": 0}
    expected = [f'legwork_events_{name}_total{{topic="{topic}"}} {n}\n' for name, n in counters.items()]
    expected += ["legwork_lane_lag_records", "legwork_lane_watermark_timestamp_seconds", "legwork_event_visible_delay_seconds_bucket", "legwork_build_info", "legwork_source_last_event_timestamp_seconds"]
    deadline = time.monotonic() + 30
    while missing := [part for part in expected if part not in (text := service.get("/metrics")[1])]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)
    if shutil.which("promtool") is None:
        assert os.environ.get("CI") != "true", "promtool is required in CI (scripts/setup)"
        pytest.skip("promtool is not here")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=60)
    assert checked.returncode == 0, checked.stderr.decode()


def test_sigterm_under_load_ends_cleanly(kafka, registry, topics, up):
    topic = topics("gps")
    service = up({"gps": topic})
    pings = list(encoded_pings(registry, topic, 2_000, now_us() - 60 * US))
    producer = Producer({"bootstrap.servers": kafka, "queue.buffering.max.messages": 1_000_000})
    ends = threading.Event()

    def load():
        while not ends.is_set():
            for key, value in pings:
                producer.produce(topic, key=key, value=value)
            producer.poll(0)
            time.sleep(0.05)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        deadline = time.monotonic() + 60
        while service.one("SELECT coalesce(sum(n_read), 0) FROM pipeline_lanes") < 4_000:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        began = time.monotonic()
        assert service.stop(within_s=10) == 0
        assert time.monotonic() - began < 10
    finally:
        ends.set()
        loader.join()
        producer.flush(30)


@pytest.fixture
def own_broker(kafka):
    """A broker of its own, to be killed."""
    folder = tempfile.mkdtemp(prefix="legwork-broker-")
    script = str(ROOT / "scripts/kafka")

    def call(*args):
        return subprocess.run([script, *args, "--dir", folder], capture_output=True, timeout=180, check=True).stdout.decode()

    address = call("up").strip().splitlines()[-1]
    yield address, call
    call("down", "--wipe")
    shutil.rmtree(folder, ignore_errors=True)


def test_broker_killed_and_back_loses_nothing(own_broker, registry, tmp_path):
    from confluent_kafka.admin import AdminClient, NewTopic

    address, broker = own_broker
    topic = "field.gps-pings.v1"
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result(30)
    from conftest import Legwork

    flags = [f"store.url=file://{tmp_path}/store", "kafka.bootstrap=" + address, "registry.url=" + registry.ready["registry"], "http.listen=127.0.0.1:0", "postgres.listen=127.0.0.1:0", "reference.topics=false"]
    service = Legwork(["up", *[part for flag in flags for part in ("--set", flag)]], cwd=tmp_path)
    try:
        producer = Producer({"bootstrap.servers": address, "message.timeout.ms": 120_000, "enable.idempotence": True, "partitioner": "murmur2_random"})
        pings = list(encoded_pings(registry, topic, 20_000, now_us() - 60 * US))
        for key, value in pings[:10_000]:
            producer.produce(topic, key=key, value=value)
        producer.flush(60)
        broker("kill")
        service.wait_for_status("/readyz", 503)
        for key, value in pings[10_000:]:
            producer.produce(topic, key=key, value=value)
        time.sleep(3)
        broker("up")
        assert producer.flush(120) == 0
        service.wait_for("SELECT sum(n_accepted) FROM pipeline_lanes", 20_000, within_s=120)
        service.wait_for_status("/readyz", 200)
        assert service.one("SELECT count(*) FROM gps_pings") == 20_000
        assert "127.0.0.1" in service.stderr()
    finally:
        assert service.stop() == 0
