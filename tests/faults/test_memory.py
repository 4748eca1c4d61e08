"""Memory over a long time at one pace: what is done leaves it. MINUTES=30 scripts/faults -k memory runs it."""

import os
import re
import statistics
import time

import pytest
from stream import Stream, topics_of_stream

MINUTES = float(os.environ.get("MINUTES", "0"))
# Part of the run after which state has reached its horizon, and the allocator its size.
WARM_UP = 0.2


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def state_mb(instance):
    """What operators hold, by topic."""
    held = {}
    for topic, n in re.findall(r'^legwork_lane_state_bytes\{.*topic="([^"]+)".*\} (\S+)', instance.get("/metrics")[1], re.M):
        kind = topic.rpartition("-")[0]
        held[kind] = held.get(kind, 0) + float(n) / 1e6
    return held


@pytest.mark.long
@pytest.mark.skipif(not MINUTES, reason="runs for MINUTES")
def test_memory_is_flat(topics, cluster, sending):
    names = topics_of_stream(topics)
    seconds = MINUTES * 60
    # What is older than two hours of event time, 24 s of the run, is beyond the horizon.
    sets = {"time.late_horizon": "2h", "track.memory_bytes_max": "16MiB", "dedup.horizon": "2h"}
    # As by default: stores and lakes are tended to once in so many checkpoints and commits.
    sets |= {"store.checkpoint_every": "10s", "lake.commit_every": "60s", "lake.open_rows_every": "15m"}
    alone = cluster(names, sets=sets)
    alone.start()
    (instance,) = alone.instances
    sent = sending(Stream(alone.bootstrap, alone.registry, names, seconds, rate=3_000, speed=300))
    begun, samples = time.monotonic(), []
    while sent.is_running():
        time.sleep(5)
        samples.append((time.monotonic() - begun, rss_mb(instance.process.pid)))
        if len(samples) % 12 == 0:
            of_topics = ", ".join(f"{topic} {mb:.1f}" for topic, mb in sorted(state_mb(instance).items()))
            print(f"{samples[-1][0] / 60:5.1f} min {samples[-1][1]:6.0f} MB, state of {of_topics} MB", flush=True)
    sent.ledger()
    held = [mb for at, mb in samples if at > WARM_UP * seconds]
    early, late = (statistics.median(part) for part in (held[: len(held) // 3], held[-len(held) // 3 :]))
    print(f"median after {WARM_UP:.0%} of the run {early:.0f} MB, of its last part {late:.0f} MB")
    assert late <= 1.1 * early + 20
