"""The control groups of one zygote and of its containers, from the first mkdir(2) to the sweep after a death.

::

    OWN/pycontain-<name>         of one zygote, named after its folder; made when a container first needs it
    OWN/pycontain-<name>/<n>     of one container, in each hierarchy that it needs
    OWN/pycontain-owner-<pid>    v2: where the owner moved to make room

OWN is as in :mod:`pycontain.runtime.delegation`. What is to be made is first noted in a journal, a file in the zygote's
folder: when owner and zygote were killed, :func:`sweep` removes by it what they had.

The zygote imports this module.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pycontain.errors import HostUnsupported
from pycontain.kernel import cgroupfs
from pycontain.runtime import delegation
from pycontain.runtime.delegation import IN_EVERY_GROUP, LEAF, Hierarchy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PREFIX = "pycontain-"
_NOT_NOW = frozenset({errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})  # for the sweep: left for another
_SWAP_FILES = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})


# --- the groups of one zygote ---------------------------------------------------------------------------


class Place:
    """The directory of one zygote in one hierarchy."""

    __slots__ = ("fd", "hierarchy", "passed_on", "path")

    def __init__(self, hierarchy: Hierarchy, path: str, fd: int) -> None:
        self.hierarchy = hierarchy
        self.path = path
        self.fd = fd
        self.passed_on: frozenset[str] = frozenset()


class Home:
    """The directories of one zygote. They are made when they are needed, and noted in the file *journal* before."""

    def __init__(self, name: str, journal: str, hierarchies: list[Hierarchy] | None = None) -> None:
        self.name = PREFIX + name
        self.journal = journal
        self.hierarchies = delegation.probe() if hierarchies is None else hierarchies
        self.places: dict[Hierarchy, Place] = {}
        self.made = 0

    def create(self, controllers: Iterable[str], writes: Iterable[tuple[str, str, str]] = ()) -> Group:
        """A new group with *controllers* and limits; when it cannot be had, :class:`HostUnsupported`, and it is not there.

        The owner has seen that they can be used, by :class:`delegation.Access`, and has made room.
        """
        name = str(self.made)
        self.made += 1
        group = Group(name)
        try:
            for hierarchy, names in self._by_hierarchy(controllers).items():
                self._add(group, hierarchy, names)
            group.update(writes)
        except BaseException:
            group.remove()
            raise
        return group

    def remove(self) -> bool:
        """Remove the directories, and kill what should still be in them; whether they are gone. The zygote is about to end."""
        for place in self.places.values():
            os.close(place.fd)
        paths = [place.path for place in self.places.values()]
        self.places.clear()
        return remove_all(*paths)

    def _by_hierarchy(self, controllers: Iterable[str]) -> dict[Hierarchy, frozenset[str]]:
        wanted = frozenset(controllers)
        shares = {hierarchy: wanted & hierarchy.controllers for hierarchy in self.hierarchies}
        missing = wanted.difference(*shares.values())
        if missing:
            raise delegation.Access(self.hierarchies).refusal(min(missing))
        return {hierarchy: names for hierarchy, names in shares.items() if names}

    def _add(self, group: Group, hierarchy: Hierarchy, names: frozenset[str]) -> None:
        try:
            place = self.places.get(hierarchy) or self._make_place(hierarchy)
            self._pass_on(place, names - IN_EVERY_GROUP)
            group.add(place, names)
        except OSError as error:
            raise delegation.cannot_make_groups(hierarchy, error) from error

    def _make_place(self, hierarchy: Hierarchy) -> Place:
        path = f"{hierarchy.folder}/{self.name}"
        with open(self.journal, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{path}\n" + (f"{hierarchy.leaf}\n" if hierarchy.leaf else ""))
        os.mkdir(path)
        place = self.places[hierarchy] = Place(hierarchy, path, cgroupfs.open_group(path))
        if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
            _fill_cpuset(hierarchy.folder, place.fd)
        return place

    def _pass_on(self, place: Place, names: frozenset[str]) -> None:
        """cgroup-v2.rst, "Enabling and Disabling": from the top down."""
        if place.hierarchy.version == 1 or names <= place.passed_on:
            return
        text = " ".join(f"+{name}" for name in sorted(names))
        with delegation.locked(place.hierarchy.folder) as own:
            cgroupfs.write(own, "cgroup.subtree_control", text)
        cgroupfs.write(place.fd, "cgroup.subtree_control", text)
        place.passed_on |= names


def _fill_cpuset(above: str, group: int) -> None:
    """cpusets.rst: in v1 a new group has no processors and no memory, and no process may join before it has both."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{above}/{name}", encoding="ascii") as file:
            cgroupfs.write(group, name, file.read())


# --- the group of one container -------------------------------------------------------------------------


class Part:
    """A container's group in one hierarchy; the zygote keeps two descriptors of each."""

    __slots__ = ("controllers", "fd", "place", "procs")

    def __init__(self, place: Place, controllers: frozenset[str], fd: int, procs: int) -> None:
        self.place = place
        self.controllers = controllers
        self.fd = fd
        self.procs = procs


class Group:
    """The group of one container, in as many hierarchies as its limits need."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[Part] = []

    @property
    def into(self) -> int:
        """The descriptor for CLONE_INTO_CGROUP, -1 when the group is in v1 only. The group's own; do not close it."""
        return next((part.fd for part in self.parts if part.place.hierarchy.version == 2), -1)

    def join(self) -> None:
        """Be in the group, as far as it is in v1: for the child, first of all, and as long as it has one thread."""
        for part in self.parts:
            if part.place.hierarchy.version == 1:
                os.write(part.procs, b"0")  # cgroup.procs: 0 is the writer

    def admit(self, pid: int) -> None:
        """Move a child of the zygote, which has one thread, into the group."""
        for part in self.parts:
            os.write(part.procs, str(pid).encode())

    def add(self, place: Place, controllers: frozenset[str]) -> None:
        """Make the group in one more hierarchy."""
        fd = cgroupfs.make_group(self.name, place.fd)
        try:
            if "cpuset" in controllers and place.hierarchy.version == 1:
                _fill_cpuset(place.path, fd)
            procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
        except BaseException:
            os.close(fd)
            cgroupfs.remove(self.name, place.fd)
            raise
        self.parts.append(Part(place, controllers, fd, procs))

    def update(self, writes: Iterable[tuple[str, str, str]]) -> None:
        """Set limits; :class:`HostUnsupported` for the first that the kernel refuses, and those before it stay set."""
        for controller, file, text in _in_order(tuple(writes), self._limit_with_swap):
            group = self._with(controller).fd
            try:
                if file == cgroupfs.DEVICE_FILTER:
                    cgroupfs.attach_device_filter(group, bytes.fromhex(text))
                    continue
                cgroupfs.write(group, file, text)
            except OSError as error:
                if error.errno == errno.ENOENT and file in _SWAP_FILES and not _host_swaps():
                    continue  # nothing is counted, and there is nothing to count
                raise _limit_refused(file, text, error) from error
            if file == "cpuset.cpus":
                _refuse_other_processors(group, text)

    def _limit_with_swap(self) -> int:
        text = cgroupfs.read_or_empty(self._with("memory").fd, "memory.memsw.limit_in_bytes")
        return int(text or 0)

    def _with(self, controller: str) -> Part:
        for part in self.parts:
            if controller in part.controllers:
                return part
        raise HostUnsupported(
            f"the {controller} controller for this container",
            needs="that it was asked for before the start",
            found="a group without it",
            hint="give the container .limits() of this kind, and start it again",
        )

    def usage(self) -> dict[str, int | float]:
        """What the processes of the group have used until now, as far as its controllers count it.

        ``memory``, ``memory_peak`` (bytes), ``cpu``, ``cpu_user``, ``cpu_system``, ``cpu_throttled`` (seconds),
        ``pids``, ``pids_peak``, ``io_read``, ``io_write`` (bytes), ``oom_kills``.
        """
        found: dict[str, int | float] = {}
        for part in self.parts:
            for name in part.controllers & cgroupfs.READERS.keys():
                found |= cgroupfs.READERS[name](part.fd)
        return found

    def freeze(self) -> bool:
        """Pause every process; whether all stand still. The group has the ``freezer``."""
        return cgroupfs.freeze(self._with("freezer").fd)

    def thaw(self) -> None:
        """Resume every process. In v1 also needed before a frozen one can die."""
        cgroupfs.thaw(self._with("freezer").fd)

    def kill(self) -> None:
        """SIGKILL every process in the group, and return when they have ended."""
        for act in (_let_die, cgroupfs.kill):
            for part in self.parts:
                act(part.fd)

    def remove(self) -> None:
        """Remove the group, whose processes have ended, and close its descriptors."""
        while self.parts:
            part = self.parts.pop()
            os.close(part.procs)
            os.close(part.fd)
            cgroupfs.remove(self.name, part.place.fd)


def _in_order(
    writes: tuple[tuple[str, str, str], ...], limit_with_swap: Callable[[], int]
) -> Iterable[tuple[str, str, str]]:
    """memory.rst, 2.4: a limit on memory may at no moment exceed the one on memory and swap, so a rise begins with that."""
    files = [file for _, file, _ in writes]
    if "memory.memsw.limit_in_bytes" not in files:
        return writes
    place = files.index("memory.memsw.limit_in_bytes")
    if int(writes[place][2]) > limit_with_swap():
        return (writes[place], *writes[:place], *writes[place + 1 :])
    return writes


def _host_swaps() -> bool:
    with open("/proc/swaps", encoding="utf-8", errors="replace") as file:
        return len(file.readlines()) > 1  # proc_swaps(5): below the heading


def _refuse_other_processors(group: int, text: str) -> None:
    """In v2 a group that asks only for processors that it cannot have gets all of those above (cgroup-v2.rst, "Cpuset")."""
    effective = cgroupfs.read_or_empty(group, "cpuset.cpus.effective")
    if not cgroupfs.processors(effective) <= cgroupfs.processors(text):
        raise HostUnsupported(
            f"the processors {text}",
            needs="some of them for the use of this program",
            found=effective.strip(),
            hint="choose among those of nproc(1) and taskset -pc $$",
        )


def _limit_refused(file: str, text: str, error: OSError) -> HostUnsupported:
    found = os.strerror(error.errno or 0)
    if file == cgroupfs.DEVICE_FILTER:
        return HostUnsupported(
            "a list of the devices that may be opened",
            needs="bpf(2) of BPF_PROG_TYPE_CGROUP_DEVICE",
            found=found,
            hint="see whether the kernel has CONFIG_CGROUP_BPF; inside another container, leave out MKNOD and SYS_ADMIN",
        )
    match error.errno:
        case errno.ENOENT | errno.EOPNOTSUPP if file in _SWAP_FILES:
            return HostUnsupported(
                "a limit on swap",
                needs="a kernel that counts it",
                found=f"no {file}",
                hint="boot with swapaccount=1, or leave swap= out",
            )
        case errno.EBUSY:
            return HostUnsupported(
                f"{file} = {text}",
                needs="memory that can be taken back from the container",
                found=found,
                hint="choose a limit above what it uses, see stats()",
            )
        case errno.EINVAL | errno.ERANGE | errno.EACCES:
            return HostUnsupported(
                f"{file} = {text}",
                needs="a value that the kernel and the groups above allow",
                found=found,
                hint="choose one within what this program itself may use",
            )
        case _:
            return HostUnsupported(f"{file} = {text}", needs=f"the file {file}", found=found)


# --- after a death --------------------------------------------------------------------------------------


def sweep(journal: str) -> bool:
    """Kill and remove what the journal of a dead zygote names; whether nothing of it is left.

    What is in a leaf is an owner, maybe alive: a leaf is removed when it is empty, and nobody in it is touched.
    """
    try:
        with open(journal, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line[:-1] for line in file if line.endswith("\n")]  # the last may be torn
    except FileNotFoundError:
        return True
    ours = [path for path in lines if os.path.basename(path).startswith(PREFIX)]
    leaves = [path for path in ours if os.path.basename(path).startswith(LEAF)]
    gone = remove_all(*(path for path in ours if path not in leaves))
    for leaf in leaves:
        _remove_leaf(leaf)
    return gone


def remove_all(*paths: str) -> bool:
    """Kill what is in the groups at *paths* and below, remove all of them; whether they are gone.

    A process may be out of reach, in v1 one of another PID namespace; then it waits a while for its end.
    """
    groups = [group for path in paths for group in (path, *_below_group(path))]
    for act in (_let_die, cgroupfs.kill):  # first all the one, since a process is in several of the groups
        for group in groups:
            _with_group(group, act)
    gone = [_removed(group) for group in reversed(groups)]
    return all(gone)


def _with_group(path: str, act: Callable[[int], None]) -> None:
    try:
        group = cgroupfs.open_group(path)
    except FileNotFoundError:
        return
    try:
        act(group)
    finally:
        os.close(group)


def _let_die(group: int) -> None:
    if os.access("freezer.state", os.F_OK, dir_fd=group):
        cgroupfs.thaw(group)  # in v1 a frozen process cannot die


def _removed(path: str) -> bool:
    try:
        cgroupfs.remove(path)
    except OSError as error:
        if error.errno not in _NOT_NOW:
            raise
        return False
    return True


def _below_group(path: str) -> Iterator[str]:
    """The groups below, parents first."""
    for folder, names, _ in os.walk(path):
        yield from (f"{folder}/{name}" for name in names)


def _remove_leaf(path: str) -> None:
    """Remove it if it is empty, and let the group above have processes again if there is nothing else in it."""
    folder = os.path.dirname(path)
    try:
        with delegation.locked(folder):
            cgroupfs.remove(path, patience=0)
            if not delegation.groups_in(folder):
                delegation.pass_on_nothing(folder)
    except OSError as error:
        if error.errno not in _NOT_NOW | {errno.ENOENT}:
            raise
