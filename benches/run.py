"""Measures Legwork beside its baselines on a real Kafka, in one run on one machine; prints rates and ratios.

What is measured, on the reference workload W1 (5,000,000 pings of 10,000 reps, 2 h of event time, disorder up to 30 s, 4 partitions, lz4):
a bare librdkafka consumer that only counts; Legwork with everything on, in memory, with its facts exactly once in the lake, with every event there as
well, and with garbage among the events; a naive consumer, a row at a time. Then Legwork's memory with
100,000 reps of 50 pings in 8 partitions, its delay from arrival to SQL at 20,000 events a second, and how long after a kill -9 it answers as before
with state for 100,000 reps of 500 pings. Before all that the track operator alone, beside what is demanded of it: late pings, memory, many
devices, the pause at a checkpoint. With `track` or `recovery` as its argument it measures only that.
"""

import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path.home() / ".cache/legwork/target")) / "release"
TICK = os.sysconf("SC_CLK_TCK")
N_ROUNDS = 3
N = int(os.environ.get("W1_REPS", "10000")) * 500


def call(*args, **kwargs):
    return subprocess.run([str(arg) for arg in args], check=True, capture_output=True, text=True, **kwargs).stdout.strip()


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid, line="VmRSS"):
    return int(re.search(rf"{line}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def child(*args):
    """Runs to the end; its answer and its CPU seconds."""
    before = os.times()
    answer = json.loads(call(*args).splitlines()[-1])
    after = os.times()
    return answer, after.children_user + after.children_system - before.children_user - before.children_system


class Up:
    def __init__(self, bootstrap, registry, topic, folder, *sets):
        flags = [f"kafka.bootstrap={bootstrap}", f"registry.url={registry}", f'topics.gps.names=["{topic}"]', "http.listen=127.0.0.1:0",
                 "postgres.listen=127.0.0.1:0", "reference.topics=false", "store.url=memory:", f"kafka.group=b{time.time_ns()}", f"instance.id=b{time.time_ns()}", *sets]
        for kind in "calls emails messages meetings check-ins tasks shifts leads deal-events orders costs".split():
            flags.append(f"topics.{kind}.enabled=false")
        self.command = [TARGET / "legwork", "up", "--json", *[part for flag in flags for part in ("--set", flag)]]
        self.folder = folder
        self.start()
        self.http = json.loads(self.process.stdout.readline())["http"]

    def start(self):
        self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=subprocess.PIPE, text=True)

    def n_read(self):
        text = urllib.request.urlopen(self.http + "/metrics", timeout=30).read().decode()
        return sum(int(value) for value in re.findall(r"^legwork_events_read_total\{.*\} (\d+)", text, re.M))

    def sql(self, sql):
        request = urllib.request.Request(self.http + "/v1/sql", json.dumps({"sql": sql}).encode(), {"content-type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=60).read())

    def measure(self, count):
        """(rate, CPU s per million) between the first and the last event."""
        while self.n_read() == 0:
            time.sleep(0.01)
        began, cpu, first = time.monotonic(), cpu_s(self.process.pid), self.n_read()
        while (n := self.n_read()) < count:
            time.sleep(0.02)
        seconds = time.monotonic() - began
        return (n - first) / seconds, (cpu_s(self.process.pid) - cpu) / (n - first) * 1e6

    def stop(self):
        self.process.terminate()
        self.process.wait(15)


def register(registry, topic):
    schema = call(TARGET / "legwork-bench", "schema")
    request = urllib.request.Request(f"{registry}/subjects/{topic}-value/versions", json.dumps({"schema": schema}).encode(),
                                     {"content-type": "application/vnd.schemaregistry.v1+json"})
    return json.loads(urllib.request.urlopen(request, timeout=10).read())["id"]


def make_topic(kafka, dir_, topic, partitions):
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def w1(kafka, url, folder, n_mixed):
    """Rate and CPU s per million of each way to read W1, one after the other: without a store, with one, and with garbage among it."""
    found = {}
    for name, topic, n_events, store, raw in (
        ("without", "w1", N, None, False),
        ("exactly once, facts", "w1", N, f"{folder}/facts", False),
        ("exactly once, all events", "w1", N, f"{folder}/events", True),
        ("with 1 % garbage", "mixed", n_mixed, None, False),
    ):
        kept = [f"store.url=file://{store}", f"lake.raw_events={json.dumps(raw)}"] if store else []
        up = Up(kafka, url, topic, folder, "time.window=1m", *kept)
        found[name] = up.measure(n_events)
        if topic == "mixed":
            rejected = up.sql("SELECT sum(n_rejected) FROM pipeline_lanes")["rows"][0][0]
            assert rejected > 0, "no garbage was rejected"
        up.stop()
        if store:
            shutil.rmtree(store)
    return found


def median(runs):
    """Rate and CPU s per million, each the median of the runs."""
    return tuple(statistics.median(values) for values in zip(*runs))


def delay(up, kafka, topic, schema_id, rate=20_000, seconds=15):
    """p99 from arrival to visible: by the program's own histogram, at a steady rate."""
    before = buckets(up)
    producer = subprocess.Popen([sys.executable, ROOT / "benches/paced.py", kafka, topic, str(schema_id), str(rate), str(seconds)])
    producer.wait()
    time.sleep(1)
    after = buckets(up)
    counts = {le: after[le] - before.get(le, 0) for le in after}
    total = counts["+Inf"]
    return total, next((le for le, n in sorted(counts.items(), key=lambda item: float(item[0])) if n >= 0.99 * total), "+Inf")


def buckets(up):
    text = urllib.request.urlopen(up.http + "/metrics", timeout=30).read().decode()
    return {le: int(n) for le, n in re.findall(r'^legwork_event_visible_delay_seconds_bucket\{le="([^"]+)"\} (\d+)', text, re.M)}


def holds(what, found, demand, unit=""):
    """A line: what was found beside what is demanded of it."""
    kind, bound = demand
    is_met = found >= bound if kind == "at least" else found <= bound
    print(f"{what:<58} {found:8.2f} {unit:<6} {kind} {bound:g}{'' if is_met else '   MISSED'}")


def track():
    """The track operator alone, on one thread."""
    shared = Path(os.environ.get("LEGWORK_SHARED", ROOT.parent / "shared"))
    recorded = shared / "data/geolife_sample.csv.gz"
    args = ["--recorded", recorded] if recorded.exists() else []
    found = json.loads(call(TARGET / "legwork-bench", "track", *args))
    print(f"track operator alone: {found['ns_a_ping']:.0f} ns a ping of W1 in order of time")
    holds("  in order, of the throughput without late horizon", found["ns_a_ping_no_horizon"] / found["ns_a_ping"], ("at least", 0.9))
    holds("  5 % up to 6 h late, of the throughput in order", found["ns_a_ping"] / found["ns_a_ping_late"], ("at least", 0.5))
    holds("  W1, memory a ping", found["bytes_a_ping"], ("at most", 20), "bytes")
    if found["bytes_a_ping_recorded"] is None:
        print(f"  GeoLife, memory a ping: not measured, there is no {recorded}")
    else:
        holds("  GeoLife, memory a ping", found["bytes_a_ping_recorded"], ("at most", 12), "bytes")
    holds("  idle device of 1,000,000, name and rep included", found["bytes_an_idle_device"], ("at most", 150), "bytes")
    holds("  cost of a ping, 1,000,000 to 10,000 devices", found["ns_a_ping_1_000_000"] / found["ns_a_ping_10_000"], ("at most", 5))
    pauses = sorted(found["pauses_ms"])
    holds(f"  pause at a checkpoint, 10,000 devices, p99 of {len(pauses)}", pauses[-(len(pauses) // 100) - 1], ("at most", 50), "ms")
    print(f"  pause at a checkpoint, median {pauses[len(pauses) // 2]:.1f} ms")


def recovery(kafka, kafka_dir, registry, folder, n_reps=100_000, n_kills=3):
    """kill -9 with state and lake, its broker and static membership on: until the answers are those of before."""
    questions = {"positions": "SELECT count(*) FROM rep_positions", "sum over all": "SELECT sum(n_pings), count(*) FROM device_movement"}
    make_topic(kafka, kafka_dir, "recovery", 8)
    ids = register(registry, "recovery")
    child(TARGET / "legwork-bench", "produce", "--bootstrap", kafka, "--topic", "recovery", "--schema-id", ids, "--reps", n_reps, "--pings", 500)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    up = Up(kafka, registry, "recovery", folder, f"http.listen=127.0.0.1:{port}", f"store.url=file://{folder}/recovery", "lake.raw_events=false")
    up.measure(500 * n_reps)
    # The last checkpoints and commits.
    time.sleep(75)
    right = {name: up.sql(question)["rows"] for name, question in questions.items()}
    took = {name: [] for name in questions}
    for _ in range(n_kills):
        up.process.kill()
        up.process.wait()
        began = time.monotonic()
        up.start()
        for name, question in questions.items():
            while answer_or_none(up, question) != right[name]:
                time.sleep(0.005)
            took[name].append(time.monotonic() - began)
        time.sleep(5)
    # Once more after the last start: metrics are asked for every 15 s.
    time.sleep(15)
    text = urllib.request.urlopen(up.http + "/metrics", timeout=30).read().decode()
    n_failed = sum(int(n) for n in re.findall(r"^legwork_metrics_errors_total\{.*\} (\d+)", text, re.M))
    up.stop()
    holds(f"business metrics of {n_reps:,} reps that failed", n_failed, ("at most", 0))
    for name, seconds in took.items():
        holds(f"kill -9, {n_reps:,} x 500, right again: {name}", max(seconds), ("at most", 2), "s")
        print(f"  of {n_kills} kills: {', '.join(f'{s:.2f}' for s in seconds)} s")


def answer_or_none(up, question):
    try:
        return up.sql(question)["rows"]
    except OSError:
        return None


def main(only_recovery=False):
    folder = tempfile.mkdtemp(prefix="legwork-bench-")
    kafka_dir = folder + "/kafka"
    script = ROOT / "scripts/kafka"
    kafka = call(script, "up", "--dir", kafka_dir).splitlines()[-1]
    registry = subprocess.Popen([TARGET / "legwork", "registry", "--listen", "127.0.0.1:0", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        url = json.loads(registry.stdout.readline())["registry"]
        print(f"# {platform.machine()}, {os.cpu_count()} cores, {platform.platform()}; command: make bench")
        if only_recovery:
            return recovery(kafka, kafka_dir, url, folder)
        track()
        make_topic(kafka, kafka_dir, "w1", 4)
        ids = register(url, "w1")
        child(TARGET / "legwork-bench", "produce", "--bootstrap", kafka, "--topic", "w1", "--schema-id", ids, "--reps", N // 500)
        runs = [json.loads(line) for line in call(TARGET / "examples/consume_bare", kafka, "--messages", N, "--topic", "w1").splitlines()]
        bare = sorted((run for run in runs if run["run"] == "bare"), key=lambda run: run["events_per_s"])
        bare_rate, bare_cpu = (bare[len(bare) // 2][name] for name in ("events_per_s", "cpu_s_per_million"))
        make_topic(kafka, kafka_dir, "mixed", 4)
        mixed_ids = register(url, "mixed")
        sent, _ = child(TARGET / "legwork-bench", "produce", "--bootstrap", kafka, "--topic", "mixed", "--schema-id", mixed_ids, "--reps", N // 500, "--garbage-every", 100)
        rounds = [w1(kafka, url, folder, sent["n_sent"]) for _ in range(N_ROUNDS)]
        found = {name: [one[name] for one in rounds] for name in rounds[0]}
        rate, cpu = median(found["without"])
        naive, naive_cpu = child(TARGET / "legwork-bench", "naive", "--bootstrap", kafka, "--topic", "w1", "--count", N)
        naive_rate = N / naive["seconds"]
        print(f"W1, medians of {N_ROUNDS} rounds; ratios within a round")
        print(f"bare librdkafka consumer   {bare_rate / 1e6:6.2f} M events/s   {bare_cpu:6.2f} CPU-s/M")
        print(f"legwork up, all on         {rate / 1e6:6.2f} M events/s   {cpu:6.2f} CPU-s/M   {rate / naive_rate:.1f} x naive")
        print(f"naive, row at a time       {naive_rate / 1e6:6.2f} M events/s   {naive_cpu / N * 1e6:6.2f} CPU-s/M")
        for name in ("exactly once, facts", "exactly once, all events", "with 1 % garbage"):
            of_without = sorted(one[name][0] / one["without"][0] for one in rounds)
            kept_rate, kept_cpu = median(found[name])
            print(f"{name:<26} {kept_rate / 1e6:6.2f} M events/s   {kept_cpu:6.2f} CPU-s/M   {of_without[0]:.2f} to {of_without[-1]:.2f} of without")
        holds("legwork up, of the bare consumer's rate", rate / bare_rate, ("at least", 0.35))
        holds("legwork up, CPU a million events", cpu, ("at most", 0.8), "s")
        holds("legwork up, of the naive consumer's rate", rate / naive_rate, ("at least", 10))
        for name, bound in (("exactly once, facts", 0.9), ("exactly once, all events", 0.9), ("with 1 % garbage", 0.8)):
            holds(f"{name}, of without", statistics.median(one[name][0] / one["without"][0] for one in rounds), ("at least", bound))

        make_topic(kafka, kafka_dir, "wide", 8)
        ids = register(url, "wide")
        child(TARGET / "legwork-bench", "produce", "--bootstrap", kafka, "--topic", "wide", "--schema-id", ids, "--reps", 100_000, "--pings", 50)
        up = Up(kafka, url, "wide", folder)
        up.measure(5_000_000)
        peak = rss_mb(up.process.pid, "VmHWM")
        # Long enough for business metrics to be asked for once.
        time.sleep(18)
        loaded, greatest = rss_mb(up.process.pid), rss_mb(up.process.pid, "VmHWM")
        up.sql("SELECT count(*), sum(raw_m) FROM device_movement")
        print(f"memory, 100,000 reps x 50  {loaded:6.0f} MB, {peak:.0f} MB while catching up, {rss_mb(up.process.pid):.0f} MB after a query over all rows")
        holds("memory, 100,000 reps x 50, business metrics included", greatest, ("at most", 400), "MB")
        up.stop()

        make_topic(kafka, kafka_dir, "paced", 4)
        ids = register(url, "paced")
        up = Up(kafka, url, "paced", folder)
        time.sleep(3)
        n, p99 = delay(up, kafka, "paced", ids)
        print(f"arrival to visible         p99 <= {float(p99) * 1e3:.0f} ms at 20,000 events/s ({n} events)")
        up.stop()
        recovery(kafka, kafka_dir, url, folder)
    finally:
        registry.terminate()
        call(script, "down", "--dir", kafka_dir, "--wipe")
        shutil.rmtree(folder, ignore_errors=True)


if sys.argv[1:] == ["track"]:
    track()
else:
    main(only_recovery=sys.argv[1:] == ["recovery"])
