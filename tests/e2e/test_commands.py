"""The other commands, and the service when something is missing."""

import json
import subprocess
import time

import pytest
from conftest import BIN, Legwork, free_port, run


def test_help_teaches_and_wrong_usage_is_2(tmp_path):
    assert b"legwork demo" in run("--help", cwd=tmp_path).stdout
    for command in "demo up run sql explain replay simulate check config schemas registry tap lanes backfill repair".split():
        assert run(command, "--help", cwd=tmp_path).stdout
    assert run("nonsense", cwd=tmp_path, check=False).returncode == 2


def test_configuration_is_printed_masked_and_checked(tmp_path):
    (tmp_path / "legwork.toml").write_text('[kafka]\nbootstrap = "file:1"\ngroup = "g"\n[kafka.options]\n"sasl.password" = "hush"\n')
    env = {"LEGWORK__KAFKA__GROUP": "from-env", "LEGWORK__TIME__WINDOW": "1m", "PATH": "/usr/bin"}
    shown = run("config", "print", "--set", "kafka.bootstrap=flag:2", cwd=tmp_path, env=env).stdout.decode()
    assert 'bootstrap = "flag:2"' in shown and 'group = "from-env"' in shown and 'window = "1m"' in shown
    assert "hush" not in shown
    schema = json.loads(run("config", "schema", cwd=tmp_path).stdout)
    assert {"kafka", "registry", "topics", "store", "lake", "time", "track", "query"} <= schema["properties"].keys()
    (tmp_path / "bad.toml").write_text("[kafka]\nbootstap = 1\n")
    assert "[flight]" not in shown and "[internal]" not in shown
    told = run("config", "print", "--set", "flight.listen=127.0.0.1:0", cwd=tmp_path).stderr
    assert b"[flight] has no effect" in told
    misspelt = run("check", "--set", "kafka.options.securty.protocol=ssl", cwd=tmp_path, check=False)
    assert misspelt.returncode == 78 and b"securty.protocol" in misspelt.stderr and b"did you mean security.protocol?" in misspelt.stderr
    done = run("config", "print", "--config", "bad.toml", cwd=tmp_path, check=False)
    assert done.returncode == 78 and b"did you mean kafka.bootstrap?" in done.stderr


def test_schemas_are_listed_and_registered(registry, tmp_path):
    listed = run("schemas", "list", cwd=tmp_path).stdout.decode()
    assert "field.gps-pings.v1" in listed and "legwork.v1.DealEvent" in listed
    assert json.loads(run("schemas", "list", "--avro", "gps", cwd=tmp_path).stdout)["name"] == "GpsPing"
    flag = ("--set", f"registry.url={registry.ready['registry']}")
    first = run("schemas", "register", *flag, cwd=tmp_path).stdout
    assert first.count(b"-value: id ") == 22
    assert run("schemas", "register", *flag, cwd=tmp_path).stdout == first


def test_simulate_check_and_tap_on_a_real_kafka(kafka, registry, tmp_path):
    store = f"store.url=file://{tmp_path}/store"
    flags = ("--set", f"registry.url={registry.ready['registry']}", "--set", f"kafka.bootstrap={kafka}", "--set", store)
    run("simulate", "--reps", "20", "--for", "4s", "--speed", "600", *flags, cwd=tmp_path)
    findings = json.loads(run("check", "--json", *flags, cwd=tmp_path).stdout)
    assert all(finding["status"] == "ok" for finding in findings), findings
    lines = run("tap", "field.gps-pings.v1", "-n", "3", "--from-start", *flags, cwd=tmp_path).stdout.decode().splitlines()
    assert len(lines) == 3 and all("device_id" in json.loads(line) for line in lines)
    done = run("check", "--json", "--set", store, "--set", f"kafka.bootstrap=127.0.0.1:{free_port()}", "--set", "registry.url=http://127.0.0.1:1", cwd=tmp_path, check=False)
    assert done.returncode == 75
    failed = {finding["hop"].split()[0] for finding in json.loads(done.stdout) if finding["status"] == "failed"}
    assert failed == {"registry", "broker"}


def quiet_up(tmp_path, *settings):
    sets = [f"store.url=file://{tmp_path}/store", "http.listen=127.0.0.1:0", "postgres.listen=127.0.0.1:0", *settings]
    return Legwork(["up", *[part for setting in sets for part in ("--set", setting)]], cwd=tmp_path)


def test_a_broker_that_is_down_is_named_and_waited_for(tmp_path):
    port = free_port()
    service = quiet_up(tmp_path, f"kafka.bootstrap=127.0.0.1:{port}", "registry.url=http://127.0.0.1:1")
    try:
        deadline = time.monotonic() + 30
        while str(port) not in service.get("/readyz")[1]:
            assert time.monotonic() < deadline, service.get("/readyz")
            time.sleep(0.2)
        assert service.get("/readyz")[0] == 503
        assert service.get("/healthz")[0] == 200
        assert service.one("SELECT count(*) FROM device_movement") == 0
    finally:
        assert service.stop() == 0
    assert f"127.0.0.1:{port}" in service.stderr()


def test_a_topic_that_is_missing_is_named_and_picked_up(kafka, registry, tmp_path):
    from confluent_kafka.admin import AdminClient, NewTopic

    topic = f"late-{time.time_ns()}"
    settings = [f"kafka.bootstrap={kafka}", f"registry.url={registry.ready['registry']}", f"kafka.group=g{topic}", f"instance.id=i{topic}", f'topics.gps.names=["{topic}"]']
    service = quiet_up(tmp_path, *settings)
    try:
        deadline = time.monotonic() + 30
        while topic not in service.get("/readyz")[1]:
            assert time.monotonic() < deadline, service.get("/readyz")
            time.sleep(0.2)
        assert service.get("/readyz")[0] == 503
        admin = AdminClient({"bootstrap.servers": kafka})
        admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
        service.wait_for(f"SELECT count(*) FROM pipeline_lanes WHERE topic = '{topic}'", 2)
        service.wait_for_status("/readyz", 200)
        admin.delete_topics([topic])[topic].result(30)
    finally:
        assert service.stop() == 0


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:8080"])
def test_only_loopback_is_bound(tmp_path, address):
    done = subprocess.run([BIN, "up", "--set", f"http.listen={address}"], cwd=tmp_path, capture_output=True, timeout=30)
    assert done.returncode == 78 and b"loopback" in done.stderr


def test_json_topics_and_reference_files(kafka, registry, topics, up, tmp_path):
    from confluent_kafka import Producer

    topic = topics("calls", partitions=1)
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "reps.csv").write_text("rep_id,team_id,time_zone\nr1,north,Europe/Berlin\n")
    service = up({"calls": topic}, sets=(f"reference.dir={reference}", 'topics.calls.format="json"'))
    producer = Producer({"bootstrap.servers": kafka})
    call = {"event_id": "e1", "source": "t", "event_time": "2026-11-20T10:00:00Z", "call_id": "c1", "rep_id": "r1", "direction": "inbound", "status": "completed", "duration_s": 30}
    producer.produce(topic, key=b"r1", value=json.dumps(call).encode())
    producer.produce(topic, key=b"r1", value=json.dumps({**call, "event_id": "e2", "direction": "sideways"}).encode())
    producer.produce(topic, key=b"r1", value=json.dumps({**call, "event_id": "e3", "event_time": "2026-11-20T10:00:05Z", "duration_s": 90}).encode())
    producer.produce(topic, key=b"r1", value=json.dumps({**call, "event_id": "e1"}).encode())
    producer.flush(30)
    service.wait_for("SELECT sum(n_read) FROM pipeline_lanes", 4)
    assert service.sql("SELECT rep_id, n_calls, n_connected, talk_s FROM rep_calls") == [{"rep_id": "r1", "n_calls": 1, "n_connected": 1, "talk_s": 90.0}]
    assert service.one("SELECT reason FROM rejected_events") == "invalid_value"
    assert service.one("SELECT sum(n_duplicates) FROM pipeline_lanes") == 1
    assert service.one("SELECT team_id FROM reps") == "north"
    (reference / "reps.csv").write_text("rep_id,team_id,time_zone\nr1,south,Europe/Berlin\nr2,south,UTC\n")
    service.wait_for("SELECT count(*) FROM reps WHERE team_id = 'south'", 2)


def test_reference_topics_are_read_before_the_first_answer(kafka, topics, up):
    from confluent_kafka import Producer

    n, topic = 30_000, topics("accounts", partitions=1)
    # Its log ends with a mark that is no message.
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(n):
        producer.produce(topic, key=f"a{number}", value=json.dumps({"account_id": f"a{number}", "name": "x" * 100}))
        producer.poll(0)
    producer.commit_transaction(60)
    sets = ("reference.topics=true", f'topics.accounts.names=["{topic}"]', 'topics.accounts.format="json"', "query.lanes_wait=20s")
    assert up({}, sets=sets).one("SELECT count(*) FROM accounts") == n


def test_the_registry_talks_to_confluents_client(registry, tmp_path):
    import sys

    from conftest import ROOT

    run("schemas", "register", "--set", f"registry.url={registry.ready['registry']}", cwd=tmp_path)
    script = ROOT / "crates/legwork-codec/tests/clients/registry_client.py"
    done = subprocess.run([sys.executable, script, registry.ready["registry"]], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
