"""An instance that is stopped for longer than its session lasts, and wakes up."""

import signal
import time

from proof import prove
from stream import Stream, topics_of_stream

SECONDS = 24
STOPPED_S = 9


def test_a_zombie_writes_nothing_more_and_lets_go(topics, cluster, sending):
    names = topics_of_stream(topics)
    pair = cluster(names, n_instances=2)
    sent = sending(Stream(pair.bootstrap, pair.registry, names, SECONDS, rate=4_000, speed=600))
    pair.start()
    zombie, other = pair.instances
    zombie.wait_for("both have lanes", lambda: min(len([lane for lane in instance.lanes() if lane["checkpoint_seq"]]) for instance in pair.instances) > 0)
    had = {(lane["topic"], lane["partition"]) for lane in zombie.lanes()}
    n_log = len(zombie.log())
    zombie.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    taken = other.wait_for("the other has taken over", lambda: len([lane for lane in other.lanes() if lane["checkpoint_seq"] and lane["n_read"]]) == 4 * len(names) and other.lanes(), 30)
    time.sleep(max(0.0, STOPPED_S - (time.monotonic() - stopped)))
    assert had <= {(lane["topic"], lane["partition"]) for lane in taken}
    zombie.signal(signal.SIGCONT)
    # It learns from the broker, or from the store at its next write, whichever is first; both say so.
    zombie.wait_for("it says that it lets go", lambda: "let go" in zombie.log()[n_log:] or "lost" in zombie.log()[n_log:], 30)
    print([line for line in zombie.log()[n_log:].splitlines() if "let go" in line or "lost" in line][:3])
    ledger = sent.ledger()
    print(prove(pair, cluster, ledger))
