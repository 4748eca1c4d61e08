"""What happens to topics: records deleted unread, a topic made anew, partitions added. Its lanes halt and say what to do; others go on."""

import signal
import time

import duckdb
import lake
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from stream import Stream, topics_of_stream


def lake_rows(one, table):
    return lake.newest(duckdb.connect(), one.lake, table).count("*").fetchone()[0]


@pytest.fixture
def stopped(topics, cluster, sending):
    """A cluster that has read a stream and was stopped; (cluster, names, admin, send): send() sends another."""
    names = topics_of_stream(topics, partitions=2)
    one = cluster(names)
    admin = AdminClient({"bootstrap.servers": one.bootstrap})
    seeds = iter(range(1, 100))

    def send():
        return sending(Stream(one.bootstrap, one.registry, names, 2, seed=next(seeds), rate=2_000)).ledger()

    ledger = send()
    one.start()
    one.wait_until_calm({names[kind]: ledger[kind]["sent"] for kind in names})
    one.stop()
    return one, names, admin, send


def expect_halt(one, topic, n_lanes, *words):
    """Lanes of the topic halt with these words, /readyz says so, all others have read everything."""
    (instance,) = one.instances

    def lanes(of_topic):
        return [lane for lane in instance.lanes() if (lane["topic"] == topic) == of_topic]

    halted = instance.wait_for("lanes halt", lambda: len([lane for lane in lanes(True) if lane["state"] == "halted"]) == n_lanes and lanes(True))
    for lane in halted:
        if lane["state"] == "halted":
            assert all(word in lane["detail"] for word in words), lane["detail"]
    instance.wait_for("/readyz says so", lambda: (answer := instance.get("/readyz"))[0] == 503 and f"{topic}-0 is halted" in answer[1])
    others = instance.wait_for("others go on", lambda: (found := lanes(False)) and len(found) == 4 and all(lane["lag"] == 0 and lane["state"] == "running" and lane["n_read"] for lane in found) and found)
    print(halted[0]["detail"], [(lane["topic"], lane["n_read"]) for lane in others])
    return halted


def test_records_deleted_unread(stopped):
    one, names, admin, send = stopped
    send()
    # Everything of partition 0 goes, what was never read too.
    end = admin.delete_records([TopicPartition(names["gps"], 0, -1)])
    next(iter(end.values())).result(30)
    one.start()
    halted = expect_halt(one, names["gps"], 1, "deleted unread", "legwork lanes accept")
    assert [lane["partition"] for lane in halted if lane["state"] == "halted"] == [0]
    one.stop()


def test_a_topic_made_anew(stopped):
    one, names, admin, send = stopped
    topic = names["calls"]
    admin.delete_topics([topic])[topic].result(30)
    deadline = time.monotonic() + 30
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    send()
    one.start()
    expect_halt(one, topic, 2, "made anew", "legwork lanes accept")
    one.stop()


@pytest.mark.long
def test_partitions_added_while_stopped(stopped):
    one, names, admin, send = stopped
    topic = names["deal-events"]
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    send()
    one.start()
    # The broker gives a static member back what it had: the new partition comes with the next rebalance.
    expect_halt(one, topic, 2, "had 2 partitions and has 3", "legwork lanes accept")
    one.stop()


@pytest.mark.long
def test_partitions_added_while_running(stopped):
    one, names, admin, send = stopped
    topic = names["deal-events"]
    one.start()
    (instance,) = one.instances
    instance.wait_for("running", lambda: len([lane for lane in instance.lanes() if lane["state"] == "running"]) == 6)
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    send()
    expect_halt(one, topic, 3, "partitions")
    one.stop()


@pytest.mark.long
def test_a_topic_made_anew_while_running(stopped):
    one, names, admin, send = stopped
    topic = names["calls"]
    one.start()
    (instance,) = one.instances
    instance.wait_for("running", lambda: len([lane for lane in instance.lanes() if lane["state"] == "running"]) == 6)
    n_before = instance.wait_for("all is in the lake", lambda: (n := lake_rows(one, "calls")) == instance.one("SELECT count(*) FROM calls") and n)
    # It sees nothing of the change, only that all offsets have grown.
    instance.signal(signal.SIGSTOP)
    admin.delete_topics([topic])[topic].result(30)
    deadline = time.monotonic() + 30
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    # So much that the offset to go on at lies within the new one.
    send()
    send()
    instance.signal(signal.SIGCONT)
    expect_halt(one, topic, 2, "legwork lanes accept")
    one.stop()
    assert lake_rows(one, "calls") == n_before, "rows of the new topic were taken for the old one's"
