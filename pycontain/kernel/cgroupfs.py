"""Control groups as the files that they are: one function per act of cgroups(7).

A group is a descriptor of its directory, opened by :func:`open_group`; the functions read and write the files in it.
The zygote imports this module.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 2.0  # seconds for what the kernel does a moment later
_PAUSE = 0.001
_CHUNK = 1 << 16
_RELEASED = frozenset({errno.ENOENT, errno.ENODEV})  # by the path, and by a descriptor


def open_group(path: str, parent: int | None = None) -> int:
    """A descriptor of the group at *path*, below *parent* if given; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)


def make_group(name: str, parent: int) -> int:
    """Make the group *name* below *parent*, and open it."""
    os.mkdir(name, 0o755, dir_fd=parent)
    return open_group(name, parent)


def read(group: int, name: str) -> str:
    """All of a file of the group."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=group)
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode()


def read_or_empty(group: int, name: str) -> str:
    """The same, and nothing where this kernel, version or controller has no such file."""
    try:
        return read(group, name)
    except FileNotFoundError:
        return ""


def write(group: int, name: str, text: str) -> None:
    """Set a file of the group. The kernel takes or refuses it as a whole."""
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=group)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def flat_keyed(text: str) -> dict[str, int]:
    """A file of lines ``key number``: cgroup-v2.rst, "Format"."""
    pairs = (line.split() for line in text.splitlines())
    return {key: int(value) for key, value in pairs}


def members(group: int) -> list[int]:
    """The processes in the group, itself and not below; one that the reader's PID namespace does not have is 0."""
    return [int(line) for line in read(group, "cgroup.procs").split()]


def kill(group: int, patience: float = PATIENCE) -> None:
    """SIGKILL every process in the group, and return when none is left, or after *patience* seconds.

    With cgroup.kill (Linux 5.14, v2) those in groups below too, and those of other PID namespaces; without, one by one,
    until there are no more.
    """
    try:
        write(group, "cgroup.kill", "1")
    except FileNotFoundError:
        pass
    else:
        _until(lambda: not flat_keyed(read(group, "cgroup.events"))["populated"], patience)
        return
    _until(lambda: _signal_members(group), patience)


def _signal_members(group: int) -> bool:
    """Whether there was nobody to kill. A pid may be anybody's by now, so a pidfd is held while it is looked at again."""
    pidfds = {}
    for pid in members(group):
        try:
            pidfds[pid] = os.pidfd_open(pid) if pid else -1
        except ProcessLookupError:
            continue
    still = set(members(group))
    for pid, fd in pidfds.items():
        if fd < 0:
            continue  # in a PID namespace that we do not see: it cannot be named
        try:
            if pid in still:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself
        finally:
            os.close(fd)
    return not still


def freeze(group: int, patience: float = PATIENCE) -> bool:
    """Stop every process in the group; whether all of them stand still when *patience* seconds are over."""
    if _has(group, "cgroup.freeze"):
        write(group, "cgroup.freeze", "1")
        return _until(lambda: flat_keyed(read(group, "cgroup.events"))["frozen"] == 1, patience)
    # freezer-subsystem.rst: a group that stays FREEZING may be asked again.
    return _until(lambda: _ask_to_freeze(group), patience)


def _ask_to_freeze(group: int) -> bool:
    write(group, "freezer.state", "FROZEN")
    return read(group, "freezer.state") == "FROZEN\n"


def thaw(group: int) -> None:
    """Let the processes of the group go on; nothing happens where they are not frozen."""
    if _has(group, "cgroup.freeze"):
        write(group, "cgroup.freeze", "0")
    else:
        write(group, "freezer.state", "THAWED")


def _has(group: int, name: str) -> bool:
    return os.access(name, os.F_OK, dir_fd=group)


def oom_kills(group: int) -> int:
    """How many processes the kernel killed here because the group had no more memory; 0 where it does not count them."""
    for name in ("memory.events", "memory.oom_control"):
        text = read_or_empty(group, name)
        if text:
            return flat_keyed(text).get("oom_kill", 0)  # v1: Linux 4.13
    return 0


def remove(name: str, parent: int | None = None, patience: float = PATIENCE) -> None:
    """rmdir(2) of a group that has no groups below; one that is not there is no failure.

    A group stays busy for a moment after its last process has ended; EBUSY is raised when *patience* seconds are over.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno in _RELEASED:
                return
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_PAUSE)


def _until(done: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True
