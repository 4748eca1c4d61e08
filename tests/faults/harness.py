"""Instances that can be killed at any moment, and what their lake must look like afterwards."""

import json
import signal
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from e2e import BIN, http_sql

ALL_KINDS = "gps calls emails messages meetings check-ins tasks shifts leads deal-events orders costs".split()
RUNNING_STATES = ("running", "idle")
# What a clean end says when it could not deliver everything in its time.
LEFT_FOR_NEXT_START = ("the last checkpoints are not known to be durable", "the lake did not take the last rows in time")


class Instance:
    """`legwork up` of a cluster. Unlike those of the end-to-end tests it may die before it is ready."""

    def __init__(self, folder, name, config):
        self.folder, self.name = folder / name, name
        self.folder.mkdir(exist_ok=True)
        self.listen = tomllib.loads(config)["http"]["listen"]
        (self.folder / "legwork.toml").write_text(config)
        self.n_starts, self.process = 0, None

    def start(self):
        self.n_starts += 1
        self.out = self.folder / f"stdout{self.n_starts}.json"
        with open(self.out, "wb") as out, open(self.folder / "stderr.log", "ab") as log:
            self.process = subprocess.Popen([BIN, "up", "--config", "legwork.toml", "--json"], cwd=self.folder, stdout=out, stderr=log)
        return self

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def is_ready(self):
        return self.out.read_bytes().endswith(b"\n")

    def wait_until_ready(self, within_s=60):
        deadline = time.monotonic() + within_s
        while not self.is_ready():
            assert self.is_running(), f"{self.name} ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.log()[-4000:]}"
            time.sleep(0.02)
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9."""
        if self.is_running():
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def stop(self, within_s=20):
        """SIGTERM; the exit code must be 0."""
        assert self.is_running(), f"{self.name} had ended with {self.process.returncode}:\n{self.log()[-4000:]}"
        self.signal(signal.SIGTERM)
        assert self.process.wait(within_s) == 0, self.log()[-4000:]

    def log(self):
        return (self.folder / "stderr.log").read_text(errors="replace")

    @property
    def http(self):
        return json.loads(self.out.read_text().splitlines()[0])["http"]

    def sql(self, statement):
        return http_sql(self.http, statement)

    def answer(self, statement):
        """Rows as they come in JSON, and notices. Where it listens is known before it is ready if its port is."""
        url = self.http if self.is_ready() else f"http://{self.listen}"
        request = urllib.request.Request(url + "/v1/sql", data=json.dumps({"sql": statement}).encode(), headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=150) as answer:
            return json.load(answer)

    def one(self, statement):
        (row,) = self.sql(statement)
        (value,) = row.values()
        return value

    def lanes(self):
        return self.sql("SELECT * FROM pipeline_lanes")

    def get(self, path):
        """(status, body)."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def check(self):
        """What `legwork check` finds with its configuration."""
        done = subprocess.run([BIN, "check", "--config", "legwork.toml", "--json"], cwd=self.folder, capture_output=True, timeout=120)
        return json.loads(done.stdout)

    def told(self):
        """The end of its log, without what it says all the time."""
        return "\n".join(line for line in self.log().splitlines() if "committed to the lake" not in line)[-4000:]

    def wait_for(self, what, is_true, within_s=60):
        """Waits until is_true() is; *returns* what it said."""
        deadline = time.monotonic() + within_s
        while not (answer := is_true()):
            assert self.is_running(), f"{self.name} ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline, f"{what}: not within {within_s} s; lanes: {self.brief()}; {self.get('/readyz')}\n{self.told()}"
            time.sleep(0.1)
        return answer

    def brief(self):
        names = ("topic", "partition", "state", "detail", "next_offset", "end_offset", "n_read", "checkpoint_seq")
        return [{name: lane[name] for name in names} for lane in self.lanes() if lane["n_read"] or lane["detail"]]


class Cluster:
    """Instances of one group with one store."""

    def __init__(self, folder, names, registry, *, bootstrap, group=None, n_instances=1, store=None, options=None, sets=None, kafka_options=None):
        self.folder, self.names, self.bootstrap, self.registry = folder, names, bootstrap, registry
        self.store = store or f"file://{folder}/store"
        group = group or f"faults-{time.time_ns()}"
        sets = {"store.checkpoint_every": "500ms", "lake.commit_every": "1s", "lake.open_rows_every": "3s", **(sets or {})}
        kafka_options = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, **(kafka_options or {})}

        def config(name):
            sections = {
                "instance": {"id": f"{group}-{name}"},
                "kafka": {"bootstrap": bootstrap, "group": group},
                "kafka.options": kafka_options,
                "registry": {"url": registry},
                "store": {"url": self.store},
                "store.options": options or {},
                "lake": {},
                "reference": {"topics": False},
                "http": {"listen": "127.0.0.1:0"},
                "postgres": {"listen": "127.0.0.1:0"},
                **{f"topics.{kind}": {"names": [names[kind]]} if kind in names else {"enabled": False} for kind in ALL_KINDS},
            }
            for key, value in sets.items():
                section, key = key.rsplit(".", 1)
                sections.setdefault(section, {})[key] = value
            lines = [f"[{section}]\n" + "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in entries.items()) for section, entries in sections.items()]
            return "\n".join(lines)

        self.instances = [Instance(folder, f"i{number}", config(f"i{number}")) for number in range(n_instances)]

    @property
    def lake(self):
        """Folder of the lake."""
        return Path(self.store.removeprefix("file://")) / "lake"

    def start(self):
        for instance in self.instances:
            instance.start()
        for instance in self.instances:
            instance.wait_until_ready()
        return self

    def lanes(self):
        """Lanes by topic and partition; one that two instances believe to own is a fault once all is calm."""
        lanes = {}
        for instance in self.instances:
            if instance.is_running() and instance.is_ready():
                for lane in instance.lanes():
                    lanes.setdefault((lane["topic"], lane["partition"]), []).append(lane)
        return lanes

    def wait_until_calm(self, n_sent, within_s=180):
        """Waits until each message has been read and is in a checkpoint; *returns* the lanes. `n_sent`: messages by topic."""

        def calm():
            lanes = self.lanes()
            if any(len(owners) != 1 for owners in lanes.values()):
                return None
            read = dict.fromkeys(n_sent, 0)
            for (topic, _), (lane,) in lanes.items():
                if topic in read:
                    read[topic] += lane["n_read"]
            assert all(read[topic] <= n_sent[topic] for topic in n_sent), f"more was read than was sent: {read}, {n_sent}"
            return [lane for (lane,) in lanes.values()] if read == n_sent else None

        running = next(instance for instance in self.instances if instance.is_running())
        return running.wait_for(f"everything read of {n_sent}", calm, within_s)

    def stop(self):
        for instance in self.instances:
            if instance.is_running():
                instance.stop()

    def deliver(self, n_sent):
        """Ends it cleanly with everything in the lake. A clean end waits for the stores for a few seconds only, and says what it leaves to the
        next start; on a machine that is too busy that comes."""
        for _ in range(3):
            n_logs = [len(instance.log()) for instance in self.instances]
            self.stop()
            ends = [instance.log()[n_log:] for instance, n_log in zip(self.instances, n_logs)]
            if not any(left in end for end in ends for left in LEFT_FOR_NEXT_START):
                return
            self.start().wait_until_calm(n_sent)
        raise AssertionError("three clean ends left something for the next start:\n" + "\n".join(ends))

    def kill_all(self):
        for instance in self.instances:
            if instance.is_running():
                instance.signal(signal.SIGCONT)
            instance.kill()


def check_accounting(lanes, ledger, names):
    """The lanes' numbers add up, and to what was sent."""
    for lane in lanes:
        parts = ("n_accepted", "n_late", "n_rejected", "n_duplicates", "n_tombstones")
        assert lane["n_read"] == sum(lane[part] for part in parts), lane
    for kind, sent in ledger.items():
        of_kind = [lane for lane in lanes if lane["topic"] == names[kind]]
        total = {name: sum(lane[name] for lane in of_kind) for name in ("n_accepted", "n_late", "n_rejected", "n_duplicates", "n_tombstones", "n_misrouted")}
        expected = {
            "n_rejected": sent["garbage"] + sent["future"],
            "n_tombstones": sent["tombstones"],
            "n_misrouted": 0,
            "n_accepted": sent["valid"],
            "n_duplicates": sent["twice"],
            "n_late": 0,
        }
        assert total == expected, f"{kind}: {total} is not {expected}"
