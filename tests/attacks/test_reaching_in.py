"""The owner reaches into a container that runs: for its files, and for sockets. The payload lies in wait there."""

import contextlib
import itertools
import json
import os

import pytest
import test_runtime_files as runtime
from owners import comes_true
from test_runtime_files import hostile as hostile  # noqa: PLC0414 - a fixture

from pycontain import Container
from pycontain.errors import PycontainError

HOST = Container("host:")


def reach_in(running, folder, tmp_path):
    """Everything that the owner may do there; what fails shows nothing."""
    given = tmp_path / "given"
    given.write_text("given")
    files = running.files
    acts = (
        lambda: files.write_text(f"{folder}/written", "x", user="nobody-here"),
        lambda: files.write_text(f"{folder}/written", "x"),
        lambda: files.read_text(f"{folder}/written"),
        lambda: files.list(folder),
        lambda: list(files.walk(folder)),
        lambda: files.mkdir(f"{folder}/made"),
        lambda: files.put(given, f"{folder}/put"),
        lambda: files.get(f"{folder}/put", tmp_path / "got"),
        lambda: files.remove(f"{folder}/made", recursive=True),
        lambda: running.connect(1).close(),
        lambda: running.listen(0).close(),
    )
    for act in acts:
        with contextlib.suppress(PycontainError):
            act()


def test_modules_of_the_image_are_not_imported_cve_2019_14271(hostile, tmp_path):
    """docker cp loaded libraries of the container, as root of the host."""
    container, loot = hostile
    with container.start("sleep", "100") as running:
        reach_in(running, "/dev/shm", tmp_path)
    assert (tmp_path / "got").read_text() == "given"  # it was there
    assert os.listdir(loot) == []


def test_whoever_comes_for_files_or_sockets_cannot_be_caught(tmp_path):
    with HOST.start("python3", "-I", "-c", runtime.WATCH) as running:
        for _ in range(5):
            reach_in(running, "/dev/shm", tmp_path)
        running.files.write_text("/stop", "")
        opened = json.loads(running.wait(60).check().stdout)
    assert {place for _, place in opened if "python" in place or "socket" in place} == set()


SWAP = """
import ctypes, os, sys
os.mkdir("/dir")
open("/dir/canary", "w").write("inside")
os.symlink(sys.argv[1], "/link")
libc = ctypes.CDLL(None)
open("/ready", "w").close()
while True:
    libc.renameat2(-100, b"/dir", -100, b"/link", 2)
"""


@pytest.fixture
def canary(tmp_path):
    """A file of the host that everybody may write, and nobody should reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for path in (tmp_path, folder):
        path.chmod(0o777)
    path = folder / "canary"
    path.write_text("alive")
    path.chmod(0o666)
    yield path
    assert path.read_text() == "alive"
    assert os.listdir(folder) == ["canary"]


@pytest.mark.parametrize("through", ["", "/../../..", "/proc/1/root", "/proc/self/root", "/proc/self/cwd"])
def test_symlink_races_on_files_cve_2018_15664(canary, through):
    """docker cp looked a path up, and then used it: what was a directory then is a link by now."""
    with HOST.start("python3", "-I", "-c", SWAP, f"{through}{canary.parent}") as running:
        assert comes_true(lambda: running.files.exists("/ready"))
        files, written, read, refused = running.files, 0, set(), 0
        for number in itertools.count():
            try:
                files.write_text("/dir/canary", "dead")
                written += 1
            except PycontainError:
                refused += 1
            for act in (
                lambda: read.add(files.read_text("/dir/canary")),
                lambda number=number: files.mkdir(f"/dir/made-{number}"),
                lambda: files.remove("/dir/canary"),
            ):
                with contextlib.suppress(PycontainError):
                    act()
            if number > 60 and written > 5 and refused > 5:
                break
    assert read <= {"inside", "dead"}
