"""Brokers, registry, topics and instances of the fault tests. What they share with the end-to-end tests comes from there."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("e2e", HERE.parent / "e2e/conftest.py")
e2e = sys.modules["e2e"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(e2e)

kafka, registry, topics = e2e.kafka, e2e.registry, e2e.topics


def pytest_configure(config):
    config.addinivalue_line("markers", "long: left out by make test, run by make faults")


class Broker:
    """A broker of its own, to be stopped and killed."""

    def __init__(self, folder):
        self.folder = folder
        self.address = self("up").strip().splitlines()[-1]

    def __call__(self, *args):
        command = [str(e2e.ROOT / "scripts/kafka"), *args, "--dir", self.folder]
        return subprocess.run(command, capture_output=True, timeout=180, check=True).stdout.decode()


@pytest.fixture
def broker(kafka):
    """A broker of its own: where the shared one may run, this one may, too."""
    folder = tempfile.mkdtemp(prefix="legwork-broker-")
    broker = Broker(folder)
    yield broker
    broker("down", "--wipe")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(kafka, registry, tmp_path):
    """Makes clusters: instances of one group and one store; ends what still runs."""
    from harness import Cluster

    made = []

    def make(names, **settings):
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        cluster = Cluster(folder, names, registry.ready["registry"], **{"bootstrap": kafka, **settings})
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.kill_all()


@pytest.fixture
def sending():
    """Starts streams; ends those that still run."""
    running = []

    def start(stream):
        running.append(stream.start())
        return running[-1]

    yield start
    for stream in running:
        stream.stop()
