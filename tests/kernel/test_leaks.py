"""The fixture that watches all others: it sees each kind of leak, and only leaks."""

import fcntl
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import pycontain
from pycontain import Container
from pycontain.kernel import nftables, syscalls
from pycontain.kernel.links import Links
from pycontain.testing.leaks import Snapshot, own_groups, wait_for_leaks

TESTS = Path(__file__).parent.parent


@contextmanager
def open_descriptor(_):
    fd = os.open("/dev/null", os.O_RDONLY)
    yield f"descriptors: {fd} -> /dev/null"
    os.close(fd)


@contextmanager
def child_process(_):
    with subprocess.Popen(["sleep", "60"]) as child:
        yield f"processes: {child.pid} sleep"
        child.kill()


@contextmanager
def grandchild(_):
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as child:
        pid = int(child.stdout.readline())
        yield f"processes: {pid} "
        os.kill(pid, 9)


@contextmanager
def mount(tmp_path):
    syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, None)
    yield f"mounts: {tmp_path} tmpfs"
    syscalls.umount2(str(tmp_path), 0)


@contextmanager
def cgroup(_):
    places = (Path(own) / f"pycontain-leak-{os.getpid()}" for own in own_groups())
    path = next((path for path in places if writable(path)), None)
    if path is None:
        pytest.skip("no control group can be made here")
    try:
        yield f"cgroups: {path}"
    finally:
        path.rmdir()


def writable(path):
    try:
        path.mkdir()
    except OSError:
        return False
    return True


@contextmanager
def interface(_):
    """A bridge, by an ioctl(2) that is older than netlink: SIOCBRADDBR and SIOCBRDELBR."""
    name = f"leak{os.getpid()}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, 0x89A0, name.encode())
        except OSError as error:
            pytest.skip(f"no bridge can be made here: {error}")
        yield f"interfaces: {name}"
        fcntl.ioctl(any_socket, 0x89A1, name.encode())


@contextmanager
def route(_):
    name = f"leak{os.getpid()}"
    with Links() as links:
        links.add_bridge(name)
        links.add_address(name, "198.18.0.1", 30)  # RFC 2544: nobody's
        yield f"routes: 198.18.0.0/30 by {name}"
        links.remove(name)


@contextmanager
def table(_):
    try:
        made = nftables.Table(f"pycontain-leak-{os.getpid()}")
    except OSError as error:
        pytest.skip(f"no table can be made here: {error}")
    yield f"tables: {made.name}"
    made.close()


@contextmanager
def writable_layer(_):
    with Container("host:").start("sleep", "60"):
        yield "layers: writable layer "


@contextmanager
def container_process(_):
    with Container("host:").start("sleep", "60") as running:
        yield f"processes: {running.pid} pycontain-init"


ROOT = pytest.mark.root
KINDS = [
    *(open_descriptor, child_process, grandchild, writable_layer, container_process),
    *(pytest.param(kind, marks=ROOT) for kind in (mount, cgroup, interface, route, table)),
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_is_named(kind, tmp_path):
    pycontain.prewarm()
    before = Snapshot.take()
    with kind(tmp_path) as text:
        assert [line for line in wait_for_leaks(before, patience=0) if line.startswith(text)]
    assert wait_for_leaks(before) == []


def test_the_engine_itself_is_no_leak():
    pycontain.shutdown()
    before = Snapshot.take()
    Container("host:").run("true", check=True)
    with Container("host:").start("true") as running:
        running.wait()
    assert wait_for_leaks(before) == []


def test_what_goes_away_a_little_later_is_no_leak():
    before = Snapshot.take()
    read_end, write_end = os.pipe()
    timer = threading.Timer(0.1, lambda: (os.close(read_end), os.close(write_end)))
    timer.start()
    assert wait_for_leaks(before) == []
    timer.join()


def test_what_the_garbage_collector_finds_is_no_leak():
    before = Snapshot.take()
    cycle = [open_unclosed("/dev/null")]
    cycle.append(cycle)
    del cycle
    assert wait_for_leaks(before, patience=0) == []


class open_unclosed:  # noqa: N801 - stands where open() would, without its ResourceWarning
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self):
        os.close(self.fd)


def test_a_test_that_leaks_fails_and_says_what(tmp_path):
    (tmp_path / "test_leaking.py").write_text(
        "import os, leaks\n"
        "leaks.PATIENCE = 0\n"
        "def test_leaks(no_leaks):\n"
        "    os.open('/dev/null', os.O_RDONLY)\n"
        "def test_is_tidy(no_leaks):\n"
        "    os.close(os.open('/dev/null', os.O_RDONLY))\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "leaks", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert "2 passed, 1 error" in run.stdout
    assert "the test left behind:\n  descriptors: " in run.stdout
