"""Spare children: made by the forker, in a way of their own, and no different from others."""

import os
import signal
from pathlib import Path

import pytest
from leaks import FORKER, zygote_pid

import pycontain
from pycontain import Container

MOUNTS = ("cat", "/proc/self/mountinfo")


def without_numbers(mountinfo):
    """Lines of proc_pid_mountinfo(5) without what differs from one container to the next: ids, devices, the layer."""
    for line in mountinfo.splitlines():
        fields = line.split()
        place, options, *rest = fields[4:]
        kind = rest[rest.index("-") + 1]
        yield place, options, kind, "" if kind == "overlay" else rest[-1]


def profiled_and_not():
    """The mounts of a container whose child did all steps itself, and of one that a spare had begun."""
    container = Container("host:")
    container.run("true")  # which lets a spare be made
    whole = container.run(*MOUNTS, profile=True, check=True).stdout
    begun = container.run(*MOUNTS, check=True).stdout
    return whole, begun


def test_a_spare_has_made_the_same_mounts_as_the_steps():
    whole, begun = profiled_and_not()
    assert list(without_numbers(begun)) == list(without_numbers(whole))


def test_a_spare_has_made_the_same_devices_as_the_steps():
    list_dev = ("sh", "-c", "ls -lnR --time-style=+ /dev | grep -v '^total'; umask")
    container = Container("host:")
    container.run("true")
    assert container.run(*list_dev).stdout == container.run(*list_dev, profile=True).stdout


def test_a_spare_leaves_the_payload_no_more_descriptors():
    container = Container("host:")
    container.run("true")
    assert container.run("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]  # the last is that of ls


def forkers():
    children = Path(f"/proc/{zygote_pid()}/task/{zygote_pid()}/children").read_text().split()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == FORKER]


def test_a_forker_that_was_killed_is_replaced():
    container = Container("host:")
    container.run("true", check=True)
    container.run("true", check=True)
    (first,) = forkers()
    os.kill(first, signal.SIGKILL)
    for _ in range(3):
        container.run("true", check=True)
    (second,) = forkers()
    assert first != second


def test_a_stopped_forker_is_no_hostage():
    """Nothing of ours stops it; the host's operator may."""
    container = Container("host:")
    container.run("true", check=True)
    container.run("true", check=True)
    (forker,) = forkers()
    os.kill(forker, signal.SIGSTOP)
    try:
        for _ in range(3):
            container.run("true", check=True, timeout=30)
    finally:
        os.kill(forker, signal.SIGCONT)


@pytest.mark.parametrize("count", [1, 3])
def test_the_forker_ends_with_the_zygote(count):
    for _ in range(count):
        Container("host:").run("true", check=True)
    before = forkers()
    pycontain.shutdown()
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
