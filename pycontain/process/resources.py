"""What a running container uses, and how that is changed and stopped: by its control group, and by proc(5).

The group belongs to the zygote, which gives descriptors of it to the owner; what takes time is done here, in the thread
that asked for it, and no start waits for it.
"""

from __future__ import annotations

import errno
import marshal
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import HostUnsupported, SandboxError
from pycontain.kernel import descriptors
from pycontain.runtime import census
from pycontain.runtime.failure import has_exited
from pycontain.runtime.group import Group, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.runtime.census import Entry
    from pycontain.runtime.engine import Engine
    from pycontain.sandbox.limits import Cgroup

_MOST_PARTS = 16
_PATIENCE = 10.0  # seconds until all processes stand still; one that waits for a disk may need them
_TICK = os.sysconf("SC_CLK_TCK")  # proc_pid_stat(5): the unit of its times


@attrs.frozen
class Stats:
    """What a container uses at one moment. None: nothing counts it.

    ``time`` is the moment, in seconds since the epoch. ``cpu`` is ``cpu_user`` and ``cpu_system``, in seconds since the
    start; for ``cpu_throttled`` seconds it had to wait because of its limit. ``memory``, its peak and its limit are in
    bytes, and as the limit counts them, with cached files; without a limit ``memory`` is what its processes hold, without
    files. ``pids`` are processes and threads. ``io_read`` and ``io_write`` are bytes from and to disks. ``oom_kills``
    counts what the kernel killed for want of memory.
    """

    time: float
    cpu: float
    cpu_user: float
    cpu_system: float
    memory: int
    pids: int
    cpu_throttled: float | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    pids_limit: int | None = None
    io_read: int | None = None
    io_write: int | None = None
    oom_kills: int | None = None


@attrs.frozen
class ProcessStatus:
    """A process of a container, as ps(1) would show it there.

    ``pid``, ``parent`` and ``uid`` are the container's own numbers, ``host_pid`` is the host's; ``state`` is the letter of
    proc_pid_stat(5), ``cpu`` in seconds, ``memory`` the resident bytes, ``command`` its arguments.
    """

    pid: int
    parent: int
    host_pid: int
    uid: int
    state: str
    threads: int
    cpu: float
    memory: int
    command: tuple[str, ...]


@attrs.frozen
class Resources:
    """The resources of the container *ident*, which is called *name*."""

    engine: Engine
    ident: str
    name: str
    pid: int

    # --- looking ----------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """What is used now."""
        with self._group() as (group, roots):
            moment = time.time()
            seen = _sum(list(census.descendants(roots, self._zygote())))
            return _stats_of(moment, seen | group.usage())

    def top(self) -> tuple[ProcessStatus, ...]:
        """Every process inside, by its number there."""
        with self._group() as (_, roots):
            to_uid = _uids_inside(self.pid)
            zygote = self._zygote()
            level = len(zygote.numbers)  # in the container
            entries = list(census.descendants(roots, zygote))
            numbers = {entry.pid: entry.numbers[level] for entry in entries if len(entry.numbers) > level}
            found = (_status_of(entry, level, numbers, to_uid) for entry in entries if entry.pid in numbers)
            return tuple(sorted(found, key=lambda status: status.pid))

    # --- changing ---------------------------------------------------------------------------------------

    def update(self, cgroup: Cgroup) -> None:
        """Write limits; all of them, or none and :class:`HostUnsupported`."""
        self.engine.make_room(cgroup.controllers)
        with self._group(cgroup.controllers) as (group, _):
            group.update(cgroup.writes)

    def pause(self) -> None:
        """Have every process stand still; if one does not, all go on and :class:`SandboxError` is raised."""
        self.engine.make_room(("freezer",))
        with self._group(("freezer",)) as (group, _):
            if group.with_("freezer").version == 1:
                self.engine.expect_frozen()
            if not group.freeze(_PATIENCE):
                group.thaw()
                raise SandboxError(
                    f"{self.name} did not stand still within {_PATIENCE:g} s, so it goes on",
                    hint="one of its processes waits in the kernel, perhaps for a disk: see the states in top()",
                )

    def resume(self) -> None:
        """Let every process go on; without effect when none stands still, or all have ended."""
        with self._group(("freezer",)) as (group, _):
            group.thaw()

    def _zygote(self) -> Entry:
        found = census.read(descriptors.pid_of(self.engine.pidfd))
        if found is None:
            raise self.engine.broken()
        return found

    @contextmanager
    def _group(self, controllers: Iterable[str] = ()) -> Iterator[tuple[Group, tuple[int, ...]]]:
        """The container's group, and the numbers that its first processes have in the zygote's PID namespace."""
        group, roots = self._ask(tuple(controllers))
        try:
            yield group, roots
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENODEV}:  # its group was removed meanwhile
                raise has_exited(self.name) from error
            raise
        finally:
            group.close()

    def _ask(self, controllers: tuple[str, ...]) -> tuple[Group, tuple[int, ...]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self.engine.request(("group", self.ident, controllers), (theirs.fileno(),))
            packet, fds, _ = descriptors.receive(ours, 1 << 16, _MOST_PARTS)
        if not packet:
            raise self.engine.broken()
        match marshal.loads(packet):
            case ("group", about, roots):
                each = zip(about, fds, strict=True)
                parts = (Part(version, names, fd, late=late) for (version, names, late), fd in each)
                return Group(parts), roots
            case ("unsupported", feature, needs, found, hint):
                raise HostUnsupported(feature, needs=needs, found=found, hint=hint or None)
            case ("failed", number) if number != errno.ESRCH:
                raise SandboxError(f"the control group of {self.name} cannot be had: {os.strerror(number)}")
        raise has_exited(self.name)


def _stats_of(moment: float, used: dict[str, int | float]) -> Stats:
    known = {field.name for field in attrs.fields(Stats)}
    return Stats(time=moment, **{name: value for name, value in used.items() if name in known})  # type: ignore[arg-type]


# --- proc(5) --------------------------------------------------------------------------------------------


def _sum(entries: list[Entry]) -> dict[str, int | float]:
    """What the processes have used themselves, and those that they have waited for."""
    times = [_times(entry.pid) for entry in entries]
    user, system = (sum(each[place] for each in times) for place in (0, 1))
    held = (_bytes(entry, "RssAnon") + _bytes(entry, "RssShmem") for entry in entries)
    pids = sum(int(entry.fields["Threads"]) for entry in entries)
    return {
        "cpu": user + system,
        "cpu_user": user,
        "cpu_system": system,
        "memory": sum(held),
        "pids": pids,
    }


def _times(pid: int) -> tuple[float, float]:
    """User and system time of a process and of the children that it has waited for, in seconds."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc_pid_stat(5): the third field, the state, is the first behind the name in parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    user, system, user_children, system_children = map(int, fields[11:15])
    return (user + user_children) / _TICK, (system + system_children) / _TICK


def _bytes(entry: Entry, field: str) -> int:
    return int(entry.fields.get(field, "0").split()[0]) << 10  # proc_pid_status(5): in kB


def _status_of(
    entry: Entry, level: int, numbers: dict[int, int], to_uid: list[tuple[int, int, int]]
) -> ProcessStatus:
    return ProcessStatus(
        pid=entry.numbers[level],
        parent=numbers.get(entry.parent, 0),
        host_pid=entry.pid,
        uid=_inside(int(entry.fields["Uid"].split()[1]), to_uid),
        state=entry.fields["State"][0],
        threads=int(entry.fields["Threads"]),
        cpu=sum(_times(entry.pid)),
        memory=_bytes(entry, "VmRSS"),
        command=_command(entry),
    )


def _command(entry: Entry) -> tuple[str, ...]:
    try:
        with open(f"/proc/{entry.pid}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().rstrip("\0")  # who has changed its name has filled the rest with them
    except (FileNotFoundError, ProcessLookupError):
        words = ""
    return tuple(words.split("\0")) if words else (entry.fields["Name"],)


def _uids_inside(pid: int) -> list[tuple[int, int, int]]:
    """The uid_map of the container's PID 1, as the owner sees it: inside, outside and how many, user_namespaces(7)."""
    try:
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
            return [
                (int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, file)
            ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _inside(uid: int, ranges: list[tuple[int, int, int]]) -> int:
    for inside, outside, count in ranges:
        if outside <= uid < outside + count:
            return inside + uid - outside
    return uid
