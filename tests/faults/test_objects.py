"""Store and lake on an object store (S3, GCS, Azure, each by a server of its kind) that is slow, loses answers, resets connections, stops
answering."""

import time

import lake
import pytest
from harness import check_accounting
from object_servers import BUCKET, Azure, Gcs, S3, missing
from proxy import Proxy
from stream import Stream, topics_of_stream

pytestmark = pytest.mark.long


@pytest.fixture(params=[S3, Gcs, Azure], ids=lambda kind: kind.scheme)
def server(request, tmp_path, monkeypatch):
    """A server of objects with the bucket; what Legwork needs to be let in is in the environment."""
    if missing(request.param):
        pytest.skip(f"{missing(request.param)} is not installed: NOT TESTED on {request.param.scheme}://")
    server = request.param(tmp_path)
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def options(server, address):
    """Where Legwork finds a server that is behind an address."""
    return {server.endpoint: f"{address}/{server.account}" if isinstance(server, Azure) else address}


def test_a_failing_object_store_loses_and_doubles_nothing(server, topics, cluster, sending, tmp_path):
    names = topics_of_stream(topics, partitions=2)
    proxy = Proxy("127.0.0.1", server.port)
    sets = {"store.checkpoint_every": "1s", "lake.commit_every": "2s"}
    pair = cluster(names, n_instances=2, store=f"{server.scheme}://{BUCKET}/disturbed", options=options(server, proxy.url), sets=sets)
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
    here = server.fetch("disturbed", tmp_path / "fetched")
    counts = lake.assert_same(here, alone.lake)
    lake.assert_events_once(here, ledger)
    n_commits = lake.assert_checkpoints_once(here)
    print(f"{proxy.n_connections} connections, {proxy.n_resets} resets, {proxy.n_lost} answers lost; {sum(n_commits.values())} commits, {len(lake.orphans(here))} orphan files; {counts}")
