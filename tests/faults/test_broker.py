"""The broker stops under load and comes back."""

import os
import time

from confluent_kafka import KafkaError, KafkaException
from proof import prove
from stream import Stream, topics_of_stream

# Without an answer, and dead. make faults takes longer.
DOWN_S = 30 if os.environ.get("FAULTS") == "all" else 5


def own_topics(broker):
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker.address})

    def make(kind, partitions, **config):
        # It listens a little before it answers.
        for n_left in range(10, -1, -1):
            try:
                admin.create_topics([NewTopic(kind, partitions, 1, config=config)])[kind].result(30)
                return kind
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return kind
                if n_left == 0:
                    raise
                time.sleep(0.5)
        raise AssertionError("unreachable")

    return topics_of_stream(make)


def test_the_broker_stops_and_starts(broker, cluster, sending):
    names = own_topics(broker)
    pair = cluster(names, n_instances=2, bootstrap=broker.address)
    sent = sending(Stream(broker.address, pair.registry, names, 2 * DOWN_S + 20, rate=4_000, speed=300))
    pair.start()
    first = pair.instances[0]
    first.wait_for("lanes", lambda: [lane for lane in first.lanes() if lane["checkpoint_seq"]])
    for stop, start in (("pause", "resume"), ("kill", "up")):
        broker(stop)
        began = time.monotonic()
        if stop == "kill":
            status, text = first.wait_for("not ready", lambda: (answer := first.get("/readyz"))[0] == 503 and answer)
            assert broker.address in text, text
        time.sleep(max(0.0, DOWN_S - (time.monotonic() - began)))
        broker(start)
        for instance in pair.instances:
            instance.wait_for("ready again", lambda instance=instance: instance.get("/readyz")[0] == 200, 90)
    print(prove(pair, cluster, sent.ledger()))
