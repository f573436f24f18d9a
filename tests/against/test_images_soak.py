"""Many processes pull overlapping images into one store at once, and are killed at any moment; the store stays sound.

``PYCONTAIN_SOAK=1`` makes it 16 processes and 20 rounds; ``PYCONTAIN_SEED`` repeats one that failed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "kernel"))  # images that can run are made there
from busybox_images import busybox_layer, image, push_test_image, root, write_layout
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import File, layer
from reading_programs import Readers
from registry_server import serve_registry

import pycontain
from pycontain import Container
from pycontain.image import Image
from pycontain.oci.reference import Reference

HERE = Path(__file__).parent
SOAK = bool(os.environ.get("PYCONTAIN_SOAK"))
WORKERS, ROUNDS, IMAGES = (16, 20, 8) if SOAK else (4, 3, 5)
SEED = int(os.environ.get("PYCONTAIN_SEED", random.SystemRandom().randrange(1 << 30)))
PATIENCE = 300.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def references(server, tmp_path):
    """Images of which each shares its lower layers with others."""
    base = busybox_layer(tmp_path)
    shared = [layer(root(File(f"shared/{number}", os.urandom(400_000)))) for number in range(3)]
    return [
        push_test_image(
            server.address,
            f"soak{number}:1",
            image(base, *shared[: number % 4], layer(root(File("etc/number", f"{number}\n".encode())))),
        )
        for number in range(IMAGES)
    ]


@pytest.fixture
def fixed(store, tmp_path):
    """The name of an image that nobody takes away."""
    made = image(busybox_layer(tmp_path))
    (loaded,) = Image.load(write_layout(tmp_path / "layout", fixed=made))
    loaded.tag("fixed:1")
    return Reference.parse("fixed:1")


def start(seed, references):
    environment = {**os.environ, "PYTHONPATH": str(Path(pycontain.__file__).parents[1])}
    command = [sys.executable, str(HERE / "image_worker.py"), str(seed), *references]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process):
    """Whether it ended, well or by our signal."""
    if process.poll() is None:
        return False
    with process.stderr:
        assert process.returncode in {0, -signal.SIGKILL}, process.stderr.read()
    return True


@pytest.mark.timeout(1200 if SOAK else 120)
def test_a_store_stays_sound_while_its_users_are_killed(store, references, fixed):
    chance = random.Random(SEED)
    print(f"PYCONTAIN_SEED={SEED}")
    deadline = time.monotonic() + PATIENCE * ROUNDS
    with Readers(store.path, fixed) as readers:
        for _ in range(ROUNDS):
            running = [start(chance.randrange(1 << 30), references) for _ in range(WORKERS)]
            while running:
                assert time.monotonic() < deadline
                time.sleep(chance.random() * 0.2)
                running = [process for process in running if not ended(process)]
                if running and chance.random() < 0.5:
                    chance.choice(running).kill()
    assert readers.failures == []
    print(f"{readers.reads} reads by other programs")
    for number, reference in enumerate(references):
        Image.pull(reference)
        assert Container(reference).run("cat", "/etc/number").stdout == f"{number}\n"
        assert Container(reference).run("ls", "/shared").stdout.count("\n") == number % 4
    assert store.verify().ok
    pycontain.shutdown()
    store.gc()
    assert os.listdir(store.folder.partial) == []
    assert os.listdir(store.folder.leases) == []
    if skopeo := shutil.which("skopeo"):
        name = Image.find(references[0]).names[0]
        done = subprocess.run(
            [skopeo, "inspect", f"oci:{store.path}:{name}"], capture_output=True, check=True
        )
        assert json.loads(done.stdout)["Digest"] == Image.find(references[0]).digest
