"""Many processes on one store, killed at any moment, while skopeo and umoci read it.

Scaled down here; with ``PYCONTAIN_SOAK=1`` it is 16 processes, 8 overlapping images, 20 rounds.
"""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from reading_programs import Readers
from stored_images import name_image, ref

from pycontain.oci.chain import chain_ids_of
from pycontain.store.snapshots import Kind
from pycontain.store.store import Store

HERE = Path(__file__).parent
SOAK = os.environ.get("PYCONTAIN_SOAK") == "1"
PROCESSES, ROUNDS, KILLS = (16, 20, 12) if SOAK else (4, 2, 3)
IMAGES = 8
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE.parent.parent}"}


@pytest.fixture
def registry(tmp_path):
    """Eight images: each shares layers with its neighbours, and all share one."""
    registry = Store(tmp_path / "registry")
    texts = [f"{number} " * 10_000 for number in range(IMAGES)]
    for number in range(IMAGES):
        layers = ("base " * 10_000, *texts[number : number + 3])
        name_image(registry, f"image-{number}:1", *layers, author=str(number))
    name_image(registry, "fixed:1", "base " * 10_000, "fixed")
    return registry


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    name_image(store, "fixed:1", "base " * 10_000, "fixed")
    return store


def run_round(store, registry, chance):
    workers = [
        subprocess.Popen(
            [sys.executable, HERE / "store_worker.py", store.path, registry.path, str(chance.random())[2:]],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    ended = threading.Event()
    for worker in chance.sample(workers, KILLS):
        ended.wait(chance.random() * PROCESSES / 20)
        worker.kill()
    for worker in workers:
        _, said = worker.communicate()
        assert worker.returncode in (0, -9), said


def test_killed_processes_leave_a_store_in_order(store, registry):
    chance = random.Random(0)
    with Readers(store.path, ref("fixed:1")) as readers:
        for _ in range(ROUNDS):
            run_round(store, registry, chance)
            verified = store.verify()
            assert verified.ok, verified
            assert verified.removed == ()
            assert {image.reference for image in store.images()} == {
                entry.reference for entry in store.names.list()
            }
    assert readers.failures == []
    print(f"{readers.reads} reads by other programs, {len(store.names.list())} images")
    store.gc()
    assert os.listdir(store.folder.partial) == []
    assert os.listdir(store.folder.leases) == []
    needed = {
        chain_id
        for image in store.images()
        for chain_id in chain_ids_of(store.read_config(image.manifest).diff_ids)
    }
    names = os.listdir(Path(store.folder.snapshots, Kind.OVERLAY_USER.value))
    assert set(names) <= {chain_id.hex[:32] for chain_id in needed}
