"""kill -9 in a loop over a stream at full pace: two instances, one group, one store."""

import os
import random
import time

from proof import prove
from stream import Stream, topics_of_stream

KILLS = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("SEED", "1"))
# Longer than the session timeout, so that the other instance takes the lanes over.
AWAY_S = 7.5


class Killer:
    """Kills one of the instances and starts it again, soon or after its partitions have gone to the other."""

    def __init__(self, cluster, seed):
        self.cluster, self.random = cluster, random.Random(seed)
        self.n_kills = self.n_before_ready = self.n_away = self.n_both = 0

    def kill_some(self):
        # Also while it starts, claims and recovers.
        time.sleep(self.random.choice((0.2, 1.0, 2.5)) * self.random.uniform(0.2, 1.8))
        # After a number of kills of the one that both run again, now and then both.
        victims = self.random.sample(self.cluster.instances, 2 if self.n_kills % 10 == 4 else 1)
        for victim in victims:
            self.n_before_ready += not victim.is_ready()
            victim.kill()
            self.n_kills += 1
        self.n_both += len(victims) == 2
        if self.n_kills % 10 == 2:
            self.n_away += 1
            time.sleep(AWAY_S)
        for victim in victims:
            victim.start()


def test_kills_change_nothing(topics, cluster, sending):
    print(f"seed {SEED}")
    seconds = KILLS * 2.4 + 10
    # Eight hours of event time, however long it takes.
    names = topics_of_stream(topics)
    killed = cluster(names, n_instances=2)
    sent = sending(Stream(killed.bootstrap, killed.registry, names, seconds, seed=SEED, speed=8 * 3_600 / seconds))
    killed.start()
    killer = Killer(killed, SEED)
    while killer.n_kills < KILLS:
        killer.kill_some()
        assert sent.is_running(), f"the stream ended after {killer.n_kills} kills"
    ledger = sent.ledger(within_s=seconds + 300)
    for instance in killed.instances:
        instance.wait_until_ready()
    figures = prove(killed, cluster, ledger)
    # What a process that dies has written and not committed: at most a file a table.
    assert figures["n_orphans"] <= 20 * killer.n_kills
    print(f"kills: {killer.n_kills}, {killer.n_before_ready} before ready, {killer.n_both} of both at once, {killer.n_away} of a member that stayed away; {figures}")
