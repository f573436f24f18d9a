"""Control groups as the files that they are: one function per act of cgroups(7).

A group is a descriptor of its directory, opened by :func:`open_group`; the functions read and write the files in it.
The zygote imports this module.
"""

from __future__ import annotations

import errno
import os
import signal
import time

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE_FILTER = "BPF_CGROUP_DEVICE"
"""In the place of a file's name: a program in hexadecimal, for :func:`attach_device_filter`."""

PATIENCE = 2.0  # seconds for what the kernel does a moment later
_PAUSE = 0.001
_CHUNK = 1 << 16
_NO_LIMIT = 1 << 62  # v1 writes "no limit" as the largest multiple of its page size
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


def attach_device_filter(group: int, program: bytes) -> None:
    """The same for :data:`DEVICE_FILTER`, which v2 has no file for."""
    from pycontain.kernel import cgroup_program  # noqa: PLC0415 - few containers need it

    cgroup_program.attach_device_filter(group, program)


def flat_keyed(text: str) -> dict[str, int]:
    """A file of lines ``key number``: cgroup-v2.rst, "Format"."""
    pairs = (line.split() for line in text.splitlines())
    return {key: int(value) for key, value in pairs}


def processors(text: str) -> set[int]:
    """The numbers in a list such as ``0-3,7``: cpuset(7), "List format"."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


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


def let_die(group: int) -> None:
    """Thaw the group where it is of v1: there a frozen process cannot die of its SIGKILL."""
    if _has(group, "freezer.state"):
        thaw(group)


def fill_cpuset(above: int, group: int) -> None:
    """cpusets.rst: in v1 a new group has no processors and no memory, and no process may join before it has both."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        write(group, name, read(above, name))


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


# --- reading what was used ------------------------------------------------------------------------------


def _number(group: int, *names: str) -> int | None:
    """The number in the first of these files that there is; None also for ``max``."""
    for name in names:
        text = read_or_empty(group, name).strip()
        if text:
            return None if text == "max" else int(text)
    return None


def _without_none(**found: float | None) -> dict[str, int | float]:
    return {name: value for name, value in found.items() if value is not None}


def oom_kills(group: int) -> int:
    """How many processes the kernel killed here because the group had no more memory; 0 where it does not count them."""
    for name in ("memory.events", "memory.oom_control"):
        text = read_or_empty(group, name)
        if text:
            return flat_keyed(text).get("oom_kill", 0)  # v1: Linux 4.13
    return 0


def _memory(group: int) -> dict[str, int | float]:
    limit = _number(group, "memory.max", "memory.limit_in_bytes")
    return _without_none(
        memory=_number(group, "memory.current", "memory.usage_in_bytes"),
        memory_peak=_number(group, "memory.peak", "memory.max_usage_in_bytes"),  # v2: Linux 5.19
        memory_limit=None if limit is None or limit >= _NO_LIMIT else limit,
        oom_kills=oom_kills(group),
    )


def _cpuacct(group: int) -> dict[str, int | float]:
    stat = read_or_empty(group, "cpu.stat")
    if "usage_usec" in stat:  # v2
        values = flat_keyed(stat)
        return {
            "cpu": values["usage_usec"] / 1e6,
            "cpu_user": values["user_usec"] / 1e6,
            "cpu_system": values["system_usec"] / 1e6,
        }
    files = {"cpu": "cpuacct.usage", "cpu_user": "cpuacct.usage_user", "cpu_system": "cpuacct.usage_sys"}
    return {name: int(read(group, file)) / 1e9 for name, file in files.items()}


def _cpu(group: int) -> dict[str, int | float]:
    values = flat_keyed(read(group, "cpu.stat"))
    micro, nano = values.get("throttled_usec"), values.get("throttled_time")
    return {"cpu_throttled": micro / 1e6 if micro is not None else (nano or 0) / 1e9}


def _pids(group: int) -> dict[str, int | float]:
    return _without_none(
        pids=_number(group, "pids.current"),
        pids_peak=_number(group, "pids.peak"),  # Linux 6.11
        pids_limit=_number(group, "pids.max"),
    )


_IO_KEYS = {"rbytes": "io_read", "wbytes": "io_write", "Read": "io_read", "Write": "io_write"}


def _io(group: int) -> dict[str, int | float]:
    """cgroup-v2.rst, "IO Interface Files"; and cgroup-v1/blkio-controller.rst: device, operation and bytes, then a total."""
    found: dict[str, int | float] = {"io_read": 0, "io_write": 0}
    text = read_or_empty(group, "io.stat") or read_or_empty(
        group, "blkio.throttle.io_service_bytes_recursive"
    )
    for line in text.splitlines():
        words = line.replace("=", " ").split()[1:]
        for key, value in zip(words[::2], words[1::2], strict=False):
            if key in _IO_KEYS:
                found[_IO_KEYS[key]] += int(value)
    return found


READERS: dict[str, Callable[[int], dict[str, int | float]]] = {
    "memory": _memory,
    "cpu": _cpu,
    "cpuacct": _cpuacct,
    "pids": _pids,
    "io": _io,
}
"""What a controller has counted, by its name; ``cpuacct`` and ``cpu`` serve both versions."""
