"""Starts the program, a registry and topics for the end-to-end tests; stops all that it starts."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

BIN = os.environ.get("LEGWORK_BIN", str(Path.home() / ".cache/legwork/target/debug/legwork"))
ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "schemas"


class Process:
    """A long-running command of the program, with its ready line."""

    def __init__(self, args, cwd, env=None):
        self.log = open(Path(cwd) / "stderr.log", "ab")
        self.process = subprocess.Popen(
            [BIN, *args, "--json"], cwd=cwd, stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, **(env or {})}
        )
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(10)
            log = Path(self.log.name).read_text(errors="replace")
            raise AssertionError(f"{args} ended with {self.process.returncode} before it was ready:\n{log[-4000:]}")
        self.ready = json.loads(line)

    def stop(self, within_s=10.0):
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {within_s} s of SIGTERM") from None
        self.log.close()
        return code

    def stderr(self):
        return Path(self.log.name).read_text(errors="replace")


class Legwork(Process):
    """`legwork up` or `legwork demo` with its SQL."""

    def sql(self, statement):
        """Rows as dicts, over HTTP."""
        return http_sql(self.ready["http"], statement)

    def one(self, statement):
        (row,) = self.sql(statement)
        (value,) = row.values()
        return value

    def wait_for(self, statement, expected, within_s=60.0):
        """Asks until the one value is the expected one; what it was last is in the error."""
        deadline = time.monotonic() + within_s
        value = None
        while time.monotonic() < deadline:
            value = self.one(statement)
            if value == expected:
                return value
            time.sleep(0.1)
        lanes = self.sql("SELECT topic, partition, state, detail, n_read, n_accepted, n_rejected FROM pipeline_lanes WHERE n_read > 0")
        raise AssertionError(f"{statement}: {value!r} is not {expected!r} after {within_s} s; lanes: {lanes}\n{self.stderr()[-2000:]}")

    def wait_for_status(self, path, expected, within_s=60.0):
        deadline = time.monotonic() + within_s
        while (answer := self.get(path))[0] != expected:
            assert time.monotonic() < deadline, f"{path} stays {answer}"
            time.sleep(0.1)

    def get(self, path):
        """(status, body)."""
        try:
            with urllib.request.urlopen(self.ready["http"] + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def http_sql(url, statement):
    import pyarrow as pa

    request = urllib.request.Request(
        url + "/v1/sql",
        data=json.dumps({"sql": statement}).encode(),
        headers={"content-type": "application/json", "accept": "application/vnd.apache.arrow.stream"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return pa.ipc.open_stream(answer.read()).read_all().to_pylist()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{statement}: {error.code} {error.read().decode()}") from None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*args, cwd, check=True, **kwargs):
    """A command of the program to its end."""
    done = subprocess.run([BIN, *args], cwd=cwd, capture_output=True, timeout=300, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"legwork {args} ended with {done.returncode}: {done.stderr.decode()}")
    return done


@pytest.fixture
def registry(tmp_path):
    """The small registry alone."""
    folder = tmp_path / "registry"
    folder.mkdir()
    process = Process(["registry", "--listen", "127.0.0.1:0", "--file", str(folder / "schemas.jsonl")], cwd=folder)
    yield process
    process.stop()


@pytest.fixture(scope="session")
def kafka():
    """Address of the real Kafka."""
    address = os.environ.get("LEGWORK_TEST_KAFKA")
    if not address:
        if os.environ.get("CI") == "true":
            pytest.fail("a real Kafka is required in CI: LEGWORK_TEST_KAFKA is not set")
        pytest.skip("NO REAL KAFKA: LEGWORK_TEST_KAFKA is not set (scripts/kafka up)")
    return address


@pytest.fixture
def topics(kafka):
    """Makes topics of names of their own; returns a function (kind, partitions, **config) -> name."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka})
    made = []

    def make(kind, partitions=4, **config):
        name = f"{kind}-{time.time_ns()}"
        for future in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
            future.result(30)
        made.append(name)
        return name

    yield make
    if made:
        for future in admin.delete_topics(made + [f"{name}.dlq" for name in made]).values():
            try:
                future.result(30)
            except Exception:  # A dead-letter topic that nothing was sent to does not exist.
                pass


@pytest.fixture
def up(kafka, registry, tmp_path):
    """Starts `legwork up` on the real Kafka; returns a function ({kind: topic}, **settings) -> Legwork."""
    running = []

    def start(names, *, sets=(), group=None, env=None):
        folder = tmp_path / f"up{len(running)}"
        folder.mkdir()
        lines = [
            f'[instance]\nid = "test-{time.time_ns()}"\n[kafka]\nbootstrap = "{kafka}"\ngroup = "{group or f"g{time.time_ns()}"}"',
            f'[registry]\nurl = "{registry.ready["registry"]}"',
            f'[store]\nurl = "file://{folder}/store"',
            '[reference]\ntopics = false\n[http]\nlisten = "127.0.0.1:0"\n[postgres]\nlisten = "127.0.0.1:0"',
        ]
        kinds = "gps calls emails messages meetings check-ins tasks shifts leads deal-events orders costs".split()
        for kind in kinds:
            lines.append(f"[topics.{kind}]\n" + (f'names = ["{names[kind]}"]' if kind in names else "enabled = false"))
        (folder / "legwork.toml").write_text("\n".join(lines) + "\n")
        flags = [flag for setting in sets for flag in ("--set", setting)]
        service = Legwork(["up", "--config", "legwork.toml", *flags], cwd=folder, env=env)
        running.append(service)
        return service

    yield start
    for service in running:
        if service.process.poll() is None:
            service.stop()
