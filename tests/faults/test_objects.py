"""Store and lake on an object store (moto's S3 server) that is slow, loses answers, resets connections, stops answering."""

import subprocess
import sys
import time
from pathlib import Path

import lake
import pytest
from e2e import free_port
from harness import check_accounting
from proxy import Proxy
from stream import Stream, topics_of_stream

pytestmark = pytest.mark.long
BUCKET = "legwork"
KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}

@pytest.fixture
def s3(tmp_path):
    """Port of an S3 server with the bucket."""
    import boto3

    port = free_port()
    with open(tmp_path / "s3.log", "wb") as log:
        server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("s3_server.py")), str(port)], stdout=log, stderr=log)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    deadline = time.monotonic() + 30
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            break
        except Exception:
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "s3.log").read_text()
            time.sleep(0.2)
    yield port
    server.kill()
    server.wait()


def options(url):
    return {**KEYS, "endpoint": url, "allow_http": "true"}


def fetched(port, prefix, folder):
    """The lake as a folder."""
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/lake/"):
        for found in page.get("Contents", []):
            path = folder / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, found["Key"], str(path))
    return folder / prefix / "lake"


def test_a_failing_object_store_loses_and_doubles_nothing(s3, topics, cluster, sending, tmp_path):
    names = topics_of_stream(topics, partitions=2)
    proxy = Proxy("127.0.0.1", s3)
    sets = {"store.checkpoint_every": "1s", "lake.commit_every": "2s"}
    pair = cluster(names, n_instances=2, store=f"s3://{BUCKET}/disturbed", options=options(proxy.url), sets=sets)
    sent = sending(Stream(pair.bootstrap, pair.registry, names, 75, rate=500, speed=300))
    pair.start()
    first = pair.instances[0]
    first.wait_for("checkpoints", lambda: [lane for lane in first.lanes() if lane["checkpoint_seq"]])

    def phase(seconds, **faults):
        proxy.calm()
        vars(proxy).update(faults)
        time.sleep(seconds)

    phase(8, delay_s=0.3)
    phase(8, reset_share=0.05)
    phase(12, lose_share=0.1)
    phase(8, delay_s=0.05, reset_share=0.02, lose_share=0.05)
    # Silence: waits must end by themselves.
    phase(20, is_deaf=True)
    proxy.calm()
    assert proxy.n_resets > 5 and proxy.n_lost > 5, vars(proxy)
    ledger = sent.ledger()
    n_sent = {names[kind]: ledger[kind]["sent"] for kind in names}
    check_accounting(pair.wait_until_calm(n_sent), ledger, names)
    for instance in pair.instances:
        instance.wait_for("ready", lambda instance=instance: instance.get("/readyz")[0] == 200)
    pair.stop()
    proxy.end()

    alone = cluster(names).start()
    check_accounting(alone.wait_until_calm(n_sent), ledger, names)
    alone.stop()
    here = fetched(s3, "disturbed", tmp_path / "fetched")
    counts = lake.assert_same(here, alone.lake)
    lake.assert_events_once(here, ledger)
    n_commits = lake.assert_checkpoints_once(here)
    print(f"{proxy.n_connections} connections, {proxy.n_resets} resets, {proxy.n_lost} answers lost; {sum(n_commits.values())} commits, {len(lake.orphans(here))} orphan files; {counts}")
