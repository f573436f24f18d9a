"""Where this process may have control groups, and the life of those that it has.

::

    OWN                              the group of the owner, in each hierarchy
    OWN/pycontain-<name>             of one zygote, named after its folder; made when the first container needs it
    OWN/pycontain-<name>/<n>         of one container
    OWN/pycontain-owner-<pid>        v2: the owner itself, when it had to make room

Everything is below the group in which the owner already is, so it counts against the owner's own limits and nobody
else's. In v1 that is all. In v2 a group gives controllers to those below only as long as it has no processes itself
(cgroup-v2.rst, "No Internal Process Constraint"). So OWN must be the owner's alone, as systemd's ``Delegate=yes`` makes
it; the owner then moves into a leaf, :func:`make_room`, and whoever starts there later finds OWN above itself. A group
with other people's processes in it is left as it is: then there are no limits, and the error says what to do.

What is to be made is first noted in a journal, a file beside the writable layers: when zygote and owner are killed,
:func:`sweep` removes by it what they had.

The zygote imports this module. A controller of v1 that in v2 is a part of every group, ``freezer`` and ``cpuacct``, is
asked for by its v1 name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pycontain.errors import HostUnsupported
from pycontain.kernel import cgroupfs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = "pycontain-"
LEAF = "pycontain-owner-"
_IN_EVERY_GROUP = frozenset({"cpuacct", "freezer"})  # of v2: cpu.stat and cgroup.freeze
_SWAP_FILES = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})


# --- where this process is ------------------------------------------------------------------------------


class Hierarchy:
    """One mounted hierarchy: its *version*, its *controllers*, and the *folder* of the group that ours are made in.

    *leaf* is where the owner is, when it has made room.
    """

    __slots__ = ("controllers", "folder", "leaf", "version")

    def __init__(self, version: int, controllers: Iterable[str], folder: str, leaf: str = "") -> None:
        self.version = version
        self.controllers = frozenset(controllers)
        self.folder = folder
        self.leaf = leaf

    def __repr__(self) -> str:
        return f"<Hierarchy v{self.version} {self.folder} {','.join(sorted(self.controllers))}>"


def parse_memberships(text: str) -> list[tuple[frozenset[str], str]]:
    """``/proc/self/cgroup``, see cgroups(7): controllers and path for each hierarchy; v2 has no controllers here."""
    found = []
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        found.append((frozenset(filter(None, names.split(","))), path))
    return found


def parse_mounts(text: str) -> list[tuple[int, frozenset[str], str, str]]:
    """The control groups of ``/proc/self/mountinfo``, see proc_pid_mountinfo(5): version, options, root, mount point."""
    found = []
    for line in text.splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            root, point = map(_unescape, mount.split(" ")[3:5])
            found.append((2 if kind == "cgroup2" else 1, frozenset(options.split(",")), root, point))
    return found


def _unescape(field: str) -> str:
    for code, mark in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, mark)
    return field


def locate(memberships: str, mountinfo: str) -> list[Hierarchy]:
    """The hierarchies in which a mount shows the group of this process, from the two files of /proc/self.

    A mount may show a part of its hierarchy only, and both paths are as the reader's cgroup namespace sees them: with
    ".." in front where they lie outside of it (cgroup_namespaces(7)). Named hierarchies without a controller are left out.
    """
    mounts = parse_mounts(mountinfo)
    found = []
    for names, path in parse_memberships(memberships):
        controllers = frozenset(name for name in names if not name.startswith("name="))
        if names and not controllers:
            continue
        for version, options, root, point in mounts:
            below = _below(path, root)
            if version == (1 if names else 2) and names <= options and below is not None:
                found.append(Hierarchy(version, controllers, point + below))
                break
    return found


def _below(path: str, root: str) -> str | None:
    top = root.rstrip("/")
    if path != root and not path.startswith(f"{top}/"):
        return None
    rest = path[len(top) :].rstrip("/")
    return None if ".." in rest.split("/") else rest


def probe() -> list[Hierarchy]:
    """The hierarchies of this process, each with the controllers that a group below its folder could have."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        memberships = file.read()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        located = locate(memberships, file.read())
    taken = {name for hierarchy in located for name in hierarchy.controllers}
    return [_unified(hierarchy, taken) if hierarchy.version == 2 else hierarchy for hierarchy in located]


def _unified(own: Hierarchy, taken: set[str]) -> Hierarchy:
    """The v2 hierarchy: it has what its files say, and for a hybrid host what no v1 hierarchy has *taken*."""
    folder, leaf = own.folder, ""
    if os.path.basename(folder).startswith(LEAF):
        folder, leaf = os.path.dirname(folder), folder
    try:
        names = _words(folder, "cgroup.controllers")
    except OSError:  # a group that was removed, or one that this user may not look at: it gives nothing
        return Hierarchy(2, (), folder, leaf)
    return Hierarchy(2, (names | _IN_EVERY_GROUP) - taken, folder, leaf)


def _words(folder: str, name: str) -> frozenset[str]:
    with open(f"{folder}/{name}", encoding="ascii") as file:
        return frozenset(file.read().split())


# --- what it may do there -------------------------------------------------------------------------------


class Access:
    """What this process may use of its hierarchies. For the owner: the zygote does not see the owner's processes.

    *zygote* is its pid, when there is one already: it and what is below it count as the owner's.
    """

    def __init__(self, hierarchies: list[Hierarchy], zygote: int = 0) -> None:
        self.hierarchies = hierarchies
        self.zygote = zygote
        self.obstacles = {hierarchy: _obstacle(hierarchy, zygote) for hierarchy in hierarchies}

    @classmethod
    def probe(cls, zygote: int = 0) -> Access:
        """Look now; nothing is changed."""
        return cls(probe(), zygote)

    def versions(self) -> dict[str, int]:
        """The controllers that can be used, each with the version of its hierarchy."""
        return {
            name: hierarchy.version
            for hierarchy, obstacle in self.obstacles.items()
            if obstacle is None
            for name in sorted(hierarchy.controllers)
        }

    def refusal(self, controller: str, feature: str = "") -> HostUnsupported:
        """Why *controller*, which is not among :meth:`versions`, cannot be used, and the next thing to do."""
        what = feature or f"limits of the {controller} controller"
        for hierarchy, obstacle in self.obstacles.items():
            if controller in hierarchy.controllers and obstacle is not None:
                needs, found = obstacle
                return HostUnsupported(what, needs=needs, found=found, hint=_advice(hierarchy.version))
        unified = next((hierarchy for hierarchy in self.hierarchies if hierarchy.version == 2), None)
        if unified is None:
            return HostUnsupported(
                what,
                needs=f"the {controller} controller in a mounted hierarchy that shows this process",
                found="none",
                hint="mount control groups, or inside another container start that one with them",
            )
        return HostUnsupported(
            what,
            needs=f"the {controller} controller, passed on to this group",
            found=f"only {' '.join(sorted(unified.controllers - _IN_EVERY_GROUP)) or 'nothing'} in {unified.folder}",
            hint=f"as root: systemctl edit user@.service, and in it [Service] and Delegate=cpu cpuset io memory pids; "
            f"or see whether the kernel has {controller} switched off: /proc/cgroups",
        )


def _obstacle(hierarchy: Hierarchy, zygote: int) -> tuple[str, str] | None:
    """What stands in the way of groups below the folder: what is needed, and what was found. None: nothing does."""
    folder = hierarchy.folder
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return "control groups that may be written", f"{folder} mounted read-only"
    files = ("cgroup.procs", "cgroup.subtree_control") if hierarchy.version == 2 else ("cgroup.procs",)
    if not all(os.access(path, os.W_OK) for path in (folder, *(f"{folder}/{name}" for name in files))):
        return "a control group that belongs to this user", f"{folder}, which it may not change"
    others = _others(hierarchy, zygote)
    if others:
        pids = ", ".join(map(str, others[:5]))
        return "a control group of this program's own", f"other processes in {folder} ({pids})"
    return None


def _others(hierarchy: Hierarchy, zygote: int) -> list[int]:
    """The processes that must leave before controllers can be passed on, and are not ours to move."""
    if hierarchy.version == 1 or hierarchy.leaf or not _is_inner(hierarchy.folder):
        return []
    return [pid for pid in _members(hierarchy.folder) if not _is_ours(pid, zygote)]


def _is_inner(folder: str) -> bool:
    """Whether it is another group than the root of all, to which the constraint does not apply and which has no events."""
    return os.path.exists(f"{folder}/cgroup.events")


def _members(folder: str) -> list[int]:
    return sorted(map(int, _words(folder, "cgroup.procs")))


def _is_ours(pid: int, zygote: int) -> bool:
    while pid > 1:
        if pid in {os.getpid(), zygote}:
            return True
        if not zygote:
            return False
        pid = _parent(pid)
    return False


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # proc_pid_stat(5): the name in parentheses may hold anything; state and parent come behind it.
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _advice(version: int) -> str:
    if version == 1:
        return "run as root, or have root make a group for this user in each hierarchy and start the program in it"
    if os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        user = "" if os.geteuid() == 0 else "--user "
        return f"start the program in a group of its own: systemd-run {user}--scope -p Delegate=yes COMMAND"
    return "start the program alone in a group that belongs to it: mkdir, chown -R, and write its pid to cgroup.procs"


# --- making room ----------------------------------------------------------------------------------------


def make_room(access: Access) -> str:
    """Have the owner, and the zygote if there is one, move into a leaf below their v2 group, if they must.

    Returns the leaf, for :func:`give_room_back`, or "" when nothing was done: there is no v2 group with controllers,
    it cannot be used, or there is room already. For the owner to call: no limit can be set in v2 before.
    """
    for hierarchy, obstacle in access.obstacles.items():
        folder = hierarchy.folder
        wanted = hierarchy.version == 2 and hierarchy.controllers - _IN_EVERY_GROUP
        if not wanted or obstacle is not None or hierarchy.leaf or not _is_inner(folder):
            continue
        leaf = f"{folder}/{LEAF}{os.getpid()}"
        with _locked(folder):
            os.makedirs(leaf, exist_ok=True)
            _move_all(folder, leaf)
        hierarchy.leaf = leaf
        return leaf
    return ""


def _move_all(source: str, target: str) -> None:
    """Move what is in *source*, and what is forked meanwhile."""
    while pids := _members(source):
        for pid in pids:
            _move(pid, target)


def _move(pid: int, target: str) -> None:
    try:
        with open(f"{target}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(pid))
    except ProcessLookupError:
        pass  # it has ended


def give_room_back(leaf: str) -> None:
    """Undo :func:`make_room`, as far as nobody else has begun to use it. For the owner, when the zygote has ended."""
    folder = os.path.dirname(leaf)
    with _locked(folder):
        if _groups(folder) != [os.path.basename(leaf)]:
            return
        _pass_on_nothing(folder)
        _move_all(leaf, folder)
        cgroupfs.remove(leaf)


def _pass_on_nothing(folder: str) -> None:
    names = _words(folder, "cgroup.subtree_control")
    if names:
        with open(f"{folder}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write(" ".join(f"-{name}" for name in sorted(names)))


def _groups(folder: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Among pycontain's processes one at a time changes who is in *folder*."""
    fd = cgroupfs.open_group(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


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
        self.hierarchies = probe() if hierarchies is None else hierarchies
        self.places: dict[Hierarchy, Place] = {}
        self.made = 0

    def create(self, controllers: Iterable[str], writes: Iterable[tuple[str, str, str]] = ()) -> Group:
        """A new group with *controllers* and limits; when it cannot be had, :class:`HostUnsupported`, and it is not there.

        The owner has seen that they can be used, by :class:`Access`, and has made room.
        """
        name = str(self.made)
        self.made += 1
        group = Group(name)
        try:
            for hierarchy, names in self._by_hierarchy(controllers).items():
                group.add(self._place(hierarchy, names), names)
            group.update(writes)
        except BaseException:
            group.remove()
            raise
        return group

    def remove(self) -> None:
        """Remove the directories; the containers have ended and their groups are removed."""
        for place in self.places.values():
            os.close(place.fd)
            cgroupfs.remove(place.path)
        self.places.clear()

    def _by_hierarchy(self, controllers: Iterable[str]) -> dict[Hierarchy, frozenset[str]]:
        wanted = frozenset(controllers)
        shares = {hierarchy: wanted & hierarchy.controllers for hierarchy in self.hierarchies}
        missing = wanted.difference(*shares.values())
        if missing:
            raise Access(self.hierarchies).refusal(min(missing))
        return {hierarchy: names for hierarchy, names in shares.items() if names}

    def _place(self, hierarchy: Hierarchy, names: frozenset[str]) -> Place:
        try:
            place = self.places.get(hierarchy) or self._make_place(hierarchy)
            self._pass_on(place, names - _IN_EVERY_GROUP)
        except OSError as error:
            raise HostUnsupported(
                f"control groups for {', '.join(sorted(names))}",
                needs=f"to make groups below {hierarchy.folder}",
                found=os.strerror(error.errno or 0),
                hint=_advice(hierarchy.version),
            ) from error
        return place

    def _make_place(self, hierarchy: Hierarchy) -> Place:
        path = f"{hierarchy.folder}/{self.name}"
        with open(self.journal, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{path}\n" + (f"{hierarchy.leaf}\n" if hierarchy.leaf else ""))
        os.makedirs(path, exist_ok=True)
        place = self.places[hierarchy] = Place(hierarchy, path, cgroupfs.open_group(path))
        if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
            _fill_cpuset(hierarchy.folder, place.fd)
        return place

    def _pass_on(self, place: Place, names: frozenset[str]) -> None:
        """cgroup-v2.rst, "Enabling and Disabling": from the top down."""
        if place.hierarchy.version == 1 or names <= place.passed_on:
            return
        text = " ".join(f"+{name}" for name in sorted(names))
        with (
            _locked(place.hierarchy.folder) as _,
            open(f"{place.hierarchy.folder}/cgroup.subtree_control", "w", encoding="ascii") as file,
        ):
            file.write(text)
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
            try:
                cgroupfs.write(self._with(controller).fd, file, text)
            except OSError as error:
                if error.errno == errno.ENOENT and file in _SWAP_FILES and not _host_swaps():
                    continue  # nothing is counted, and there is nothing to count
                raise _limit_refused(file, text, error) from error

    def _limit_with_swap(self) -> int:
        text = cgroupfs.read_or_empty(self._with("memory").fd, "memory.memsw.limit_in_bytes")
        return int(text or 0)

    def _with(self, controller: str) -> Part:
        return next(part for part in self.parts if controller in part.controllers)

    def usage(self) -> dict[str, int | float]:
        """What the processes of the group have used until now, as far as its controllers count it.

        ``memory``, ``memory_peak`` (bytes), ``cpu``, ``cpu_user``, ``cpu_system``, ``cpu_throttled`` (seconds),
        ``pids``, ``pids_peak``, ``io_read``, ``io_write`` (bytes), ``oom_kills``.
        """
        found: dict[str, int | float] = {}
        for part in self.parts:
            for name in part.controllers & _READERS.keys():
                found |= _READERS[name](part.fd)
        return found

    def freeze(self) -> bool:
        """Pause every process; whether all stand still. The group has the ``freezer``."""
        return cgroupfs.freeze(self._with("freezer").fd)

    def thaw(self) -> None:
        """Resume every process. In v1 also needed before a frozen one can die."""
        cgroupfs.thaw(self._with("freezer").fd)

    def kill(self) -> None:
        """SIGKILL every process in the group, and return when they have ended."""
        for part in self.parts:
            if part.place.hierarchy.version == 1 and "freezer" in part.controllers:
                cgroupfs.thaw(part.fd)
        for part in self.parts:
            cgroupfs.kill(part.fd)

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


def _limit_refused(file: str, text: str, error: OSError) -> HostUnsupported:
    found = os.strerror(error.errno or 0)
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


# --- reading what was used ------------------------------------------------------------------------------


def _number(group: int, *names: str) -> int | None:
    """The number in the first of these files that there is."""
    for name in names:
        text = cgroupfs.read_or_empty(group, name)
        if text:
            return int(text)
    return None


def _without_none(**found: int | float | None) -> dict[str, int | float]:
    return {name: value for name, value in found.items() if value is not None}


def _memory(group: int) -> dict[str, int | float]:
    return _without_none(
        memory=_number(group, "memory.current", "memory.usage_in_bytes"),
        memory_peak=_number(group, "memory.peak", "memory.max_usage_in_bytes"),  # v2: Linux 5.19
        oom_kills=cgroupfs.oom_kills(group),
    )


def _cpuacct(group: int) -> dict[str, int | float]:
    stat = cgroupfs.read_or_empty(group, "cpu.stat")
    if "usage_usec" in stat:  # v2
        values = cgroupfs.flat_keyed(stat)
        return {
            "cpu": values["usage_usec"] / 1e6,
            "cpu_user": values["user_usec"] / 1e6,
            "cpu_system": values["system_usec"] / 1e6,
        }
    files = {"cpu": "cpuacct.usage", "cpu_user": "cpuacct.usage_user", "cpu_system": "cpuacct.usage_sys"}
    return {name: int(cgroupfs.read(group, file)) / 1e9 for name, file in files.items()}


def _cpu(group: int) -> dict[str, int | float]:
    values = cgroupfs.flat_keyed(cgroupfs.read(group, "cpu.stat"))
    micro, nano = values.get("throttled_usec"), values.get("throttled_time")
    return {"cpu_throttled": micro / 1e6 if micro is not None else (nano or 0) / 1e9}


def _pids(group: int) -> dict[str, int | float]:
    return _without_none(pids=_number(group, "pids.current"), pids_peak=_number(group, "pids.peak"))


def _io(group: int) -> dict[str, int | float]:
    """io.stat: cgroup-v2.rst, "IO Interface Files"."""
    pairs = [
        pair.split("=") for line in cgroupfs.read(group, "io.stat").splitlines() for pair in line.split()[1:]
    ]
    return {
        name: sum(int(value) for key, value in pairs if key == wanted)
        for name, wanted in (("io_read", "rbytes"), ("io_write", "wbytes"))
    }


def _blkio(group: int) -> dict[str, int | float]:
    """cgroup-v1/blkio-controller.rst: lines of device, operation and bytes, and a total."""
    lines = [
        line.split()
        for line in cgroupfs.read_or_empty(group, "blkio.throttle.io_service_bytes_recursive").splitlines()
    ]
    return {
        name: sum(int(line[2]) for line in lines if line[1:2] == [operation])
        for name, operation in (("io_read", "Read"), ("io_write", "Write"))
    }


_READERS: dict[str, Callable[[int], dict[str, int | float]]] = {
    "memory": _memory,
    "cpu": _cpu,
    "cpuacct": _cpuacct,
    "pids": _pids,
    "io": _io,
    "blkio": _blkio,
}


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
    left = False
    for path in lines:
        name = os.path.basename(path)
        if name.startswith(LEAF):
            _remove_leaf(path)
        elif name.startswith(PREFIX):
            left |= not remove_all(path)
    return not left


def remove_all(path: str) -> bool:
    """Kill what is in the group at *path* and below, remove all of it; whether it is gone.

    A process may be out of reach, in v1 one of another PID namespace; then it waits a while for its end.
    """
    groups = [path, *_below_group(path)]
    try:
        for group in groups:
            _end_members(group)
        for group in reversed(groups):
            cgroupfs.remove(group)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        return False
    return True


def _below_group(path: str) -> Iterator[str]:
    """The groups below, parents first."""
    for folder, names, _ in os.walk(path):
        yield from (f"{folder}/{name}" for name in names)


def _end_members(path: str) -> None:
    group = cgroupfs.open_group(path)
    try:
        if os.access("freezer.state", os.F_OK, dir_fd=group):
            cgroupfs.thaw(group)  # in v1 a frozen process cannot die
        cgroupfs.kill(group)
    finally:
        os.close(group)


def _remove_leaf(path: str) -> None:
    """Remove it if it is empty, and let the group above have processes again if there is nothing else in it."""
    folder = os.path.dirname(path)
    try:
        with _locked(folder):
            cgroupfs.remove(path, patience=0)
            if not _groups(folder):
                _pass_on_nothing(folder)
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOENT, errno.ENODEV, errno.EACCES, errno.EPERM}:
            raise
