"""Spare children: made by the forker, in a way of their own, and no different from others."""

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from owners import comes_true

import pycontain
from pycontain import Container
from pycontain.kernel import syscalls
from pycontain.kernel.descriptors import pid_of
from pycontain.runtime import users
from pycontain.runtime.forker import Forker
from pycontain.testing.leaks import FORKER, PATIENCE, zygote_pid

MOUNTS = ("cat", "/proc/self/mountinfo")


def without_numbers(mountinfo):
    """Lines of proc_pid_mountinfo(5) without what differs from one container to the next: ids, devices, the layer."""
    for line in mountinfo.splitlines():
        fields = line.split()
        place, options, *rest = fields[4:]
        kind = rest[rest.index("-") + 1]
        # tmpfs(5) tells who owns its root, as a number of the host.
        settings = [each for each in rest[-1].split(",") if not each.startswith(("uid=", "gid="))]
        yield place, options, kind, "" if kind == "overlay" else ",".join(settings)


def profiled_and_not():
    """The mounts of a container whose child did all steps itself, and of one that a spare had begun."""
    container = Container("host:")
    container.run("true")  # which lets a spare be made
    whole = container.run(*MOUNTS, profile=True, check=True).stdout
    begun = container.run(*MOUNTS, check=True).stdout
    return whole, begun


def test_a_spare_has_made_the_same_mounts_as_the_steps():
    whole, begun = profiled_and_not()
    # In a user namespace, what is bound was cloned by the zygote, before or after the child came to its own mounts.
    assert sorted(without_numbers(begun)) == sorted(without_numbers(whole))


def test_a_spare_has_made_the_same_devices_as_the_steps():
    list_dev = ("sh", "-c", "ls -lnR --time-style=+ /dev | grep -v '^total'; umask")
    container = Container("host:")
    container.run("true")
    assert container.run(*list_dev).stdout == container.run(*list_dev, profile=True).stdout


def test_a_spare_leaves_the_payload_no_more_descriptors():
    container = Container("host:")
    container.run("true")
    assert container.run("ls", "/proc/self/fd").stdout.split() == [
        "0",
        "1",
        "2",
        "3",
    ]  # the last is that of ls


@pytest.mark.parametrize("limits", [(60, 60), (60, 70), (5, 5)], ids=str)
def test_a_spare_for_an_exec_has_the_containers_limits(limits):
    """It takes descriptors itself before, and gives back what the zygote raised; both are not the payload's."""
    soft, hard = limits
    with Container("host:").rlimit("nofile", soft, hard).start("sleep", "600") as running:
        for _ in range(3):
            assert running.exec("sh", "-c", "ulimit -Sn; ulimit -Hn").stdout == f"{soft}\n{hard}\n"


def children_of_the_zygote():
    zygote = zygote_pid()
    for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            yield int(pid), Path(f"/proc/{pid}/comm").read_text().strip()


def forker():
    """The forker, which is made when the zygote has nothing else to do."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for pid, name in children_of_the_zygote():
            if name == FORKER:
                return pid
        time.sleep(0.001)
    raise AssertionError("there is no forker")


def test_a_forker_that_was_killed_is_replaced():
    container = Container("host:")
    container.run("true", check=True)
    first = forker()
    os.kill(first, signal.SIGKILL)
    for _ in range(3):
        container.run("true", check=True)
    assert forker() != first


def test_a_forker_that_has_not_answered_is_not_dead():
    """A start that waits for a spare may take it before the zygote comes to the event which says that there is one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        asked = Forker(ours, os.getpid(), -1)
        with theirs, pytest.raises(BlockingIOError):
            asked.answer()
        assert asked.answer() is None


def test_a_stopped_forker_is_no_hostage():
    """Nothing of ours stops it; the host's operator may."""
    container = Container("host:")
    container.run("true", check=True)
    stopped = forker()
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(3):
            container.run("true", check=True, timeout=30)
    finally:
        with suppress(ProcessLookupError):  # the zygote has ended it
            os.kill(stopped, signal.SIGCONT)


def killed_before_it_names(pid, act):
    """Whether the first message of the forker *pid* after *act* was its end, by strace(1)."""
    command = ["strace", "-q", "-p", str(pid), "-e", "trace=sendmsg", "-e", "inject=sendmsg:signal=KILL"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        status = Path(f"/proc/{pid}/status")
        try:
            assert comes_true(lambda: "TracerPid:\t0\n" not in status.read_text())
            act()
            return tracer.wait(PATIENCE) == 0
        except (FileNotFoundError, ProcessLookupError, subprocess.TimeoutExpired):
            return False  # the zygote has made itself another forker, for one that is slow
        finally:
            tracer.terminate()


def test_a_child_that_waits_for_its_ids_ends_with_who_would_map_them(monkeypatch):
    ours, theirs = os.pipe()  # theirs is held by both until they end

    def tell_and_die(pidfd, _first):
        os.write(theirs, str(pid_of(pidfd)).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(users, "_map", tell_and_die)
    forker = os.fork()
    if forker == 0:
        users.fork((0, 0), lambda: syscalls.clone3(0, exit_signal=signal.SIGCHLD))
        os._exit(0)
    os.close(theirs)
    os.waitpid(forker, 0)
    waiting = int(os.read(ours, 20))
    try:
        assert select.select([ours], [], [], PATIENCE)[0]
        assert os.read(ours, 1) == b""
    finally:
        os.close(ours)
        with suppress(ProcessLookupError):
            os.kill(waiting, signal.SIGKILL)


@pytest.mark.root  # nobody else may trace the forker
def test_a_container_ends_although_a_spare_in_it_was_never_named():
    """The spare is a child of the zygote in the container's PID namespace, which ends when the last one in it is reaped.

    If nobody did so, the check for leaks would find the container's PID 1.
    """
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to end the forker at the right moment")
    with Container("host:").start("sleep", "1000") as running:

        def again():
            running.exec("true", check=True)  # after which the forker makes a spare for the next one

        for _ in range(5):
            again()
            if killed_before_it_names(forker(), again):
                break
        else:
            pytest.fail("the forker was never killed at the right moment")


@pytest.mark.parametrize("count", [1, 3])
def test_the_forker_ends_with_the_zygote(count):
    for _ in range(count):
        Container("host:").run("true", check=True)
    before = forker()
    pycontain.shutdown()
    assert not Path(f"/proc/{before}").exists()
