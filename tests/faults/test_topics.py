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
    one = cluster(names, sets={"topics.calls.names": [names["calls"], names["calls"] + "-made"]})
    admin = AdminClient({"bootstrap.servers": one.bootstrap})
    seeds = iter(range(1, 100))

    def send():
        return sending(Stream(one.bootstrap, one.registry, names, 2, seed=next(seeds), rate=2_000)).ledger()

    ledger = send()
    one.start()
    one.wait_until_calm({names[kind]: ledger[kind]["sent"] for kind in names})
    one.stop()
    return one, names, admin, send


def expect_halt(one, topic, n_lanes, *words, n_others=4):
    """Lanes of the topic halt with these words, /readyz says so, all others have read everything."""
    (instance,) = one.instances

    def lanes(of_topic):
        return [lane for lane in instance.lanes() if (lane["topic"] == topic) == of_topic]

    halted = instance.wait_for("lanes halt", lambda: len([lane for lane in lanes(True) if lane["state"] == "halted"]) == n_lanes and lanes(True))
    for lane in halted:
        if lane["state"] == "halted":
            assert all(word in lane["detail"] for word in words), lane["detail"]
    instance.wait_for("/readyz says so", lambda: (answer := instance.get("/readyz"))[0] == 503 and f"{topic}-0 is halted" in answer[1])
    (notice,) = [notice for notice in instance.answer("SELECT count(*) FROM rejected_events")["notices"] if f"{topic}/0" in notice]
    assert "halted" in notice and all(word in notice for word in words), notice
    others = instance.wait_for("others go on", lambda: (found := lanes(False)) and len(found) == n_others and all(lane["lag"] == 0 and lane["state"] == "running" and (lane["n_read"] or lane["topic"].endswith("-made")) for lane in found) and found)
    told = {finding["hop"]: finding for finding in instance.check()}
    for lane in halted:
        # Of partitions that were added the store knows nothing.
        if lane["state"] == "halted" and lane["partition"] < 2:
            finding = told[f"lane {topic}/{lane['partition']}"]
            assert finding["status"] == "failed" and all(word in finding["message"] for word in words), finding
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


def test_partitions_added_while_stopped(stopped):
    """The broker gives a static member back what it had, without what was added meanwhile: that is asked for."""
    one, names, admin, send = stopped
    topic = names["deal-events"]
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    made = NewTopic(names["calls"] + "-made", 1, 1)
    admin.create_topics([made])[made.topic].result(30)
    send()
    (instance,) = one.instances
    instance.start().wait_until_ready()
    instance.wait_for("what was added is assigned", lambda: {(topic, 2), (made.topic, 0)} <= {(lane["topic"], lane["partition"]) for lane in instance.lanes()})
    expect_halt(one, topic, 3, "had 2 partitions and has 3", "legwork lanes accept", n_others=5)
    one.stop()


@pytest.mark.long
def test_partitions_added_to_the_only_topic(topics, cluster):
    names = {"calls": topics("calls", partitions=1)}
    one = cluster(names)
    (instance,) = one.start().instances

    def wait_for_lanes(n):
        instance.wait_for(f"{n} lanes", lambda: len(instance.lanes()) == n)

    wait_for_lanes(1)
    one.stop()
    admin = AdminClient({"bootstrap.servers": one.bootstrap})
    admin.create_partitions([NewPartitions(names["calls"], 3)])[names["calls"]].result(30)
    one.start()
    wait_for_lanes(3)
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
