"""What a block of code has left behind, seen from outside: each thing is named.

Observed are the descriptors of this process, the processes below it and below its zygote, the mounts of its
namespace, control groups, network interfaces, routes and tables of rules, and the writable layers in the zygote's folder. What belongs to the
engine itself and lives as long as it does is no leak.
"""

from __future__ import annotations

import gc
import os
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from pycontain.kernel import nftables
from pycontain.kernel.links import Links
from pycontain.runtime import engine as engines
from pycontain.runtime import forward, sockets, watch
from pycontain.store.leases import Lease

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 5.0  # seconds for what ends after it has been answered: the zygote reaps and removes then
FORKER = "pycontain-forker"[:15]  # TASK_COMM_LEN, prctl(2)
PORTER = "pycontain-porter"[:15]
_SPARE_LAYERS = 2  # the zygote keeps so many empty ones for the next starts


@attrs.frozen
class Snapshot:
    """What there is at one moment, each thing by a text that names it."""

    descriptors: frozenset[str]
    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    interfaces: frozenset[str]
    routes: frozenset[str]
    tables: frozenset[str]
    layers: frozenset[str]

    @classmethod
    def take(cls) -> Self:
        """Observe now."""
        zygote = zygote_pid()
        return cls(
            descriptors=frozenset(_descriptors()),
            processes=frozenset(_processes(zygote)),
            mounts=frozenset(_mounts()),
            cgroups=frozenset(cgroups_of_ours()),
            interfaces=frozenset(_listed("/sys/class/net")),
            routes=frozenset(_routes()),
            tables=frozenset(_tables()),
            layers=frozenset(_layers_in_use(zygote)),
        )

    def leaked_since(self, before: Self) -> list[str]:
        """One line for each thing that is here and was not there *before*."""
        return [
            f"{field.name}: {name}"
            for field in attrs.fields(Snapshot)
            for name in sorted(getattr(self, field.name) - getattr(before, field.name))
        ]


@contextmanager
def no_leaks(patience: float = PATIENCE) -> Iterator[None]:
    """Raise :class:`AssertionError`, which names them, when things are left after the block that were not there before.

    What goes away by itself within *patience* seconds is not left. Other threads of this process should rest meanwhile.

    >>> import os
    >>> with no_leaks(patience=0):  # doctest: +ELLIPSIS
    ...     fd = os.open("/dev/null", os.O_RDONLY)
    Traceback (most recent call last):
    ...
    AssertionError: left behind:
      descriptors: ... -> /dev/null
    """
    __tracebackhide__ = True
    before = Snapshot.take()
    yield
    leaked = wait_for_leaks(before, patience)
    if leaked:
        raise AssertionError("\n  ".join(("left behind:", *leaked)))


def wait_for_leaks(before: Snapshot, patience: float = PATIENCE) -> list[str]:
    """What has been left since *before* and does not go away by itself within *patience* seconds."""
    leaked = Snapshot.take().leaked_since(before)
    if not leaked:
        return leaked
    gc.collect()  # a cycle that holds a descriptor is untidy, and no leak
    deadline = time.monotonic() + patience
    while (leaked := Snapshot.take().leaked_since(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return leaked


def zygote_pid() -> int:
    """The zygote of this process, also when it is dead and not reaped; 0 when there is none."""
    engine = engines._engine
    if engine is None or engine._closed:
        return 0
    text = Path(f"/proc/self/fdinfo/{engine.pidfd}").read_text(encoding="ascii")
    pid = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
    return max(pid, 0)


def _listed(folder: str) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError):
        return []


def _engine_descriptors() -> Iterator[int]:
    engine, watcher = engines._engine, watch._watcher
    if engine is not None and not engine._closed:
        yield from (engine.control.fileno(), engine.pidfd, engine.images_fd, engine._errors)
        # What containers have stood on stays in use until the engine ends.
        yield from (held._lock.fd for held in list(engine.images.values()) if isinstance(held, Lease))
    if watcher is not None:
        yield watcher._poll.fileno()
    if forward._forwarder is not None:
        yield forward._forwarder.poll.fileno()
    if engine in sockets._porters:
        yield sockets._porters[engine].fd


def _descriptors() -> Iterator[str]:
    own = set(_engine_descriptors())
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listdir used
            continue
        if int(name) not in own:
            yield f"{name} -> {target}"


def _processes(zygote: int) -> Iterator[str]:
    names: dict[int, str] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # proc_pid_stat(5): the name is in parentheses and may hold more of them; state and parent follow.
        name, _, rest = stat.partition("(")[2].rpartition(")")
        names[int(number)] = name
        children[int(rest.split()[1])].append(int(number))
    # One spare waits for the next start, and one for the next exec in each container that had one lately.
    waiting = [pid for pid in children[zygote] if _waits(pid, names, children)]
    spares = waiting[: 1 + sum(bool(children[pid]) for pid in children[zygote])]
    below = list(children[os.getpid()])
    while below:
        pid = below.pop()
        below += children[pid]
        if pid not in {zygote, *spares} and names[pid] not in {FORKER, PORTER}:
            yield f"{pid} {names[pid]}"


def _waits(pid: int, names: Mapping[int, str], children: Mapping[int, Sequence[int]]) -> bool:
    """Whether a child of the zygote may be the one that it keeps for the next start: there is no payload."""
    return names[pid] == "pycontain-init" and not children[pid]


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        yield f"{fields[4]} {fields[fields.index('-') + 1]} (mount {fields[0]})"


def cgroups_of_ours() -> Iterator[str]:
    """All of ours, but those of the living engine that stay as long as it does, when there are no groups below them.

    Ours lie below the control groups of this process, so tests that run in groups of their own do not see each other's.
    """
    engine = engines._engine
    kept: set[str] = set()
    if engine is not None and not engine._closed:
        kept = {f"pycontain-{Path(engine.folder).name}", Path(engine._leaf).name}
    for top in own_groups():
        for path, names, _ in os.walk(top):
            ours = {name for name in names if "pycontain" in name or Path(path).name in kept} - kept
            if Path(path).name in kept:
                ours -= set(_ready(path, ours))
            yield from (f"{path}/{name}" for name in ours)


def _ready(path: str, names: set[str]) -> Iterator[str]:
    """The last group that the zygote made, when it waits for the next container with limits: empty, or with its spare."""
    last = max(filter(str.isdigit, names), key=int, default=None)
    if last is None:
        return
    inside = Path(f"{path}/{last}/cgroup.procs").read_text(encoding="ascii").split()
    if len(inside) <= 1 and all(map(_is_childless_init, inside)):
        yield last


def _is_childless_init(pid: str) -> bool:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return not children and Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "pycontain-init\n"
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has just ended


def own_groups(pid: int | str = "self") -> Iterator[str]:
    """The directory of our control group in each hierarchy; or the one above, where the engine moved us into a leaf.

    That of another process with its *pid*.
    """
    paths = {}  # by controllers, proc_pid_cgroup(5); the empty text is v2
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        above, _, name = path.rpartition("/")
        paths[controllers] = above if name.startswith("pycontain-owner-") else path
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        kind, _, options = fields[fields.index("-") + 1 :]
        if kind in {"cgroup", "cgroup2"}:
            names = "" if kind == "cgroup2" else options.removeprefix("rw,").removeprefix("xattr,")
            own = f"{fields[4]}{paths.get(names, '')}".rstrip("/")
            yield own if os.path.isdir(own) else fields[4]  # it may be mounted from below its top


def _routes() -> Iterator[str]:
    with Links() as links:
        for network, prefix, interface in links.routes():
            yield f"{network}/{prefix} by {interface}"


def _tables() -> Iterator[str]:
    """Those of nftables that are ours; root alone may look."""
    try:
        yield from (name for name in nftables.tables() if name.startswith("pycontain"))
    except OSError:  # a kernel without them has none of ours
        return


def _layers_in_use(zygote: int) -> Iterator[str]:
    """One name for each writable layer beyond the spare ones; which of them are spare only the zygote knows."""
    engine = engines._engine
    if not zygote or engine is None:
        return
    # Seen from the zygote, which may have mounted a file system in memory there.
    folder = f"/proc/{zygote}/root{engine.folder}/layers"
    layers = sum(name.isdigit() for name in _listed(folder))
    yield from (f"writable layer {number} in use" for number in range(1, layers - _SPARE_LAYERS + 1))
