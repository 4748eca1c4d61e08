"""The disk that holds store and lake fills up, and there is space again."""

import os
import subprocess

import pytest
from proof import prove
from stream import Stream, topics_of_stream

SIZE_MIB = 96
pytestmark = pytest.mark.long


@pytest.fixture
def small_disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() == 0:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)], capture_output=True)
    if os.geteuid() != 0 or mounted.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("a small tmpfs is required in CI: mounting needs root")
        pytest.skip("NO SMALL DISK: mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free_bytes(folder):
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def fill(folder):
    """Takes all that is free; *returns* the file that does."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
    return ballast


def test_a_full_disk_is_waited_for(small_disk, topics, cluster, sending):
    names = topics_of_stream(topics)
    one = cluster(names, store=f"file://{small_disk}/store")
    sent = sending(Stream(one.bootstrap, one.registry, names, 25, rate=2_000, speed=300))
    one.start()
    (instance,) = one.instances
    instance.wait_for("checkpoints", lambda: len([lane for lane in instance.lanes() if lane["checkpoint_seq"]]) == 12)
    ballast = fill(small_disk)
    instance.wait_for("lanes wait and say why", lambda: [lane for lane in instance.lanes() if lane["state"] == "paused" and "space" in lane["detail"].lower()])
    status, text = instance.wait_for("not ready", lambda: (answer := instance.get("/readyz"))[0] == 503 and "space" in answer[1].lower() and answer)
    print(text[:600])
    # Once more while it is full: a restart must wait, too, and neither end nor start from nothing.
    instance.kill()
    ballast.unlink()
    ballast = fill(small_disk)
    instance.start().wait_until_ready()
    status, text = instance.wait_for("not ready", lambda: (answer := instance.get("/readyz"))[0] == 503 and "space" in answer[1].lower() and answer)
    print(text[:600])
    ledger = sent.ledger()
    ballast.unlink()
    instance.wait_for("they go on by themselves", lambda: instance.get("/readyz")[0] == 200)
    print(prove(one, cluster, ledger))
