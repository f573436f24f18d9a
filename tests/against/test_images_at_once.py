"""Layers of an image at the same time, and unrelated processes that pull it: its layers are fetched and unpacked once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "kernel"))  # images that can run are made there
from busybox_images import busybox_layer, image, layers_of, push_test_image, root
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from fault_proxy import hold, serve_faults
from layer_tree import File, layer
from registry_server import serve_registry

import pycontain
from pycontain import Container

PATIENCE = 30.0  # seconds
LAYERS = 3
PULL = """
import sys
from pycontain import Image

def tell(progress):
    print(progress.phase, progress.layer, flush=True)

Image.pull(sys.argv[1], progress=tell)
"""


@pytest.fixture
def proxy(tmp_path):
    with serve_registry(tmp_path) as server, serve_faults(server.address) as proxy:
        yield proxy


@pytest.fixture
def made(tmp_path):
    upper = [layer(root(File(f"own/{name}", os.urandom(300_000)))) for name in ("a", "b")]
    return image(busybox_layer(tmp_path), *upper)


@pytest.fixture
def lowest(made):
    return layers_of(made)[0].digest


@pytest.fixture
def reference(proxy, made):
    push_test_image(proxy.upstream, "app:1", made)
    return f"{proxy.address}/app:1"


@pytest.fixture
def start(reference):
    """Start a process that pulls the image, and end it."""
    started = []

    def begin():
        environment = {**os.environ, "PYTHONPATH": str(Path(pycontain.__file__).parents[1])}
        command = [sys.executable, "-c", PULL, reference]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waits_for_a_snapshot(process, store):
    """proc_locks(5): a line with an arrow is somebody who waits; the file is named by its inode."""
    locks = {str(path.stat().st_ino) for path in Path(store.folder.snapshots).rglob("*.lock")}
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(int(words[5]) == process.pid and words[6].rpartition(":")[2] in locks for words in waiting)


def unpacked_by(output):
    return {line.split()[1] for line in output.splitlines() if line.startswith("unpacking")}


@pytest.fixture
def two(store, proxy, start, lowest):
    """One process at the lowest layer, a second that waits for it, and the event on which the layer goes on coming."""
    release = threading.Event()
    proxy.fail(f"GET .*/blobs/{lowest}", hold(release, after=100))
    first = start()
    wait_for(lambda: list(Path(store.folder.snapshots).rglob("*.lock")))
    second = start()
    wait_for(lambda: waits_for_a_snapshot(second, store))
    return first, second, release


def test_who_comes_second_uses_what_the_first_unpacks(two, proxy, reference):
    first, second, release = two
    release.set()
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert sum(len(unpacked_by(output)) for output in outputs) == LAYERS
    assert len(proxy.lines("GET .*/blobs/.*")) == 1 + LAYERS
    assert Container(reference).run("ls", "/own").stdout == "a\nb\n"


def test_who_waits_takes_over_when_the_first_is_killed(two, store, reference):
    first, second, _ = two
    first.kill()
    output, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0
    assert len(unpacked_by(output)) == LAYERS
    assert Container(reference).run("ls", "/own").stdout == "a\nb\n"
    assert store.verify().ok


def test_nothing_is_left_of_the_one_that_was_killed(two, store):
    first, second, _ = two
    first.kill()
    second.communicate(timeout=PATIENCE)
    store.gc()
    assert os.listdir(store.folder.partial) == []
    assert [
        path for path in Path(store.folder.snapshots).rglob("*") if path.name.startswith(("new-", "trash-"))
    ] == []


# --- layers ---------------------------------------------------------------------------------------------


@pytest.fixture
def held(store, proxy, start, lowest):
    """A process that has unpacked the topmost layer while the lowest comes, and the event on which that goes on."""
    release = threading.Event()
    proxy.fail(f"GET .*/blobs/{lowest}", hold(release, after=100))
    process = start()
    wait_for(lambda: list(Path(store.folder.snapshots).rglob("own/b")))
    return process, release


several = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one layer at a time on one processor")


@several
def test_a_layer_is_unpacked_before_those_below_it_and_committed_after_them(held, store, reference):
    process, release = held
    assert list(Path(store.folder.snapshots).rglob("record")) == []
    release.set()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert len(list(Path(store.folder.snapshots).rglob("record"))) == LAYERS
    assert Container(reference).run("ls", "/own").stdout == "a\nb\n"


@several
def test_an_interrupt_leaves_nothing_of_layers_that_were_unpacked_early(held, store):
    process, _ = held
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    left = [path.name for path in Path(store.folder.snapshots).rglob("*")]
    assert [name for name in left if name.startswith("new-")] == []
