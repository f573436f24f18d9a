"""Where this process is in each hierarchy of control groups, whether it may make groups there, and how it makes room.

Groups of ours are below the group in which the owner already is, so they count against the owner's own limits and
nobody else's. In v1 that is all. In v2 a group passes controllers on to those below only while it has no processes
itself (cgroup-v2.rst, "No Internal Process Constraint"). So the owner's group must be the owner's alone, as systemd's
``Delegate=yes`` makes it; the owner then moves into a leaf of it, :func:`make_room`, and what starts there later finds
the group one above its own. A group that has other people's processes is left as it is: then the zygote gets a group from
:mod:`pycontain.runtime.systemd`, or there are no limits in v2, and :meth:`Access.refusal` says what to do.

Three controllers of v1 are in v2 a part of every group: ``freezer``, ``cpuacct``, and ``devices`` as a program that is attached
to it, which only the machine's root may do. Both versions know them by these names.
A v2 group has them whoever else is in it, also on a hybrid host where v2 has no controllers: there it is v2 that pauses,
since what is frozen by v1 cannot be killed. The ``blkio`` of v1 goes by its name in v2, ``io``.

The zygote imports this module.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from pycontain.errors import HostUnsupported
from pycontain.kernel import cgroupfs

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pycontain.runtime.systemd import Manager

LEAF = "pycontain-owner-"
IN_EVERY_GROUP = frozenset({"cpuacct", "devices", "freezer"})  # of v2: cpu.stat, bpf(2), cgroup.freeze
_BETTER_IN_V2 = frozenset({"cpuacct", "freezer"})
_V2_NAMES = {"blkio": "io"}
_ROUNDS = 100


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
                found.append(
                    Hierarchy(version, {_V2_NAMES.get(name, name) for name in controllers}, point + below)
                )
                break
    return found


def _below(path: str, root: str) -> str | None:
    top = root.rstrip("/")
    if path != root and not path.startswith(f"{top}/"):
        return None
    rest = path[len(top) :].rstrip("/")
    return None if ".." in rest.split("/") else rest


def probe(pid: int | str = "self") -> list[Hierarchy]:
    """The hierarchies of this process or of *pid*, each with the controllers that a group below its folder could have."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
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
    return Hierarchy(2, (names | IN_EVERY_GROUP) - (taken - _BETTER_IN_V2), folder, leaf)


def passes_on(hierarchy: Hierarchy) -> frozenset[str]:
    """The controllers that a v2 group has to pass on before groups below have them; v1 does without."""
    return hierarchy.controllers - IN_EVERY_GROUP if hierarchy.version == 2 else frozenset()


def _words(folder: str, name: str) -> frozenset[str]:
    with open(f"{folder}/{name}", encoding="ascii") as file:
        return frozenset(file.read().split())


# --- what it may do there -------------------------------------------------------------------------------


class Access:
    """What this process may use of its hierarchies. For the owner: the zygote does not see the owner's processes.

    *zygote* is its pid, when there is one already: it and what is below it count as the owner's. A *manager* can give the
    zygote a group of its own.
    """

    def __init__(self, hierarchies: list[Hierarchy], zygote: int = 0, manager: Manager | None = None) -> None:
        self.hierarchies = hierarchies
        self.zygote = zygote
        self.manager = manager
        self.closed = {hierarchy: closed(hierarchy) for hierarchy in hierarchies}
        self.obstacles = {
            hierarchy: obstacle or _crowded(hierarchy, zygote) for hierarchy, obstacle in self.closed.items()
        }

    @classmethod
    def probe(cls, zygote: int = 0) -> Access:
        """Look now; nothing is changed."""
        return cls(probe(), zygote)

    def versions(self) -> dict[str, int]:
        """The controllers that can be used, each with the version of its hierarchy: v2 where both have it."""
        found = self._own_versions()
        if self.manager is not None:
            found = dict.fromkeys(sorted(self.manager.controllers | _BETTER_IN_V2), 2) | found
        return found

    def needs_scope(self, controllers: Iterable[str]) -> bool:
        """Whether the manager must be asked for some of these."""
        return self.manager is not None and not self._own_versions().keys() >= set(controllers)

    def may_need_manager(self) -> str:
        """Where v2 is mounted, when its groups are not to be had here; "" when they are, or v1 has the controllers."""
        if "memory" in self._own_versions():
            return ""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = parse_mounts(file.read())
        return next((point for version, _, root, point in mounts if version == 2 and root == "/"), "")

    def _own_versions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for hierarchy in sorted(self.hierarchies, key=lambda hierarchy: hierarchy.version):
            names = hierarchy.controllers
            if self.obstacles[hierarchy] is not None:
                core = hierarchy.version == 2 and self.closed[hierarchy] is None
                names = names & IN_EVERY_GROUP if core else frozenset()
            found |= dict.fromkeys(sorted(names), hierarchy.version)
        return found

    def refusal(self, controller: str, feature: str = "") -> HostUnsupported:
        """Why *controller*, which is not among :meth:`versions`, cannot be used, and the next thing to do."""
        what = feature or f"limits of the {controller} controller"
        for hierarchy, obstacle in self.obstacles.items():
            if controller in hierarchy.controllers and obstacle is not None:
                needs, found = obstacle
                return HostUnsupported(what, needs=needs, found=found, hint=_advice(hierarchy.version))
        unified = next((hierarchy for hierarchy in self.hierarchies if passes_on(hierarchy)), None)
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
            found=f"only {' '.join(sorted(passes_on(unified)))} in {unified.folder}",
            hint=f"as root: systemctl edit user@.service, and in it [Service] and Delegate=cpu cpuset io memory pids; "
            f"or see whether the kernel has {controller} switched off: /proc/cgroups",
        )


def closed(hierarchy: Hierarchy) -> tuple[str, str] | None:
    """What stands in the way of any group below the folder: what is needed, and what was found. None: nothing does."""
    folder = hierarchy.folder
    try:
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError as error:
        return "a control group that can be reached", f"{folder}: {error.strerror}"
    if read_only:
        return "control groups that may be written", f"{folder} mounted read-only"
    files = ("cgroup.procs", "cgroup.subtree_control") if passes_on(hierarchy) else ("cgroup.procs",)
    if not all(os.access(path, os.W_OK) for path in (folder, *(f"{folder}/{name}" for name in files))):
        return "a control group that belongs to this user", f"{folder}, which it may not change"
    return None


def _crowded(hierarchy: Hierarchy, zygote: int) -> tuple[str, str] | None:
    """The same for groups with controllers of v2."""
    others = _others(hierarchy, zygote)
    if others:
        pids = ", ".join(map(str, others[:5]))
        return "a control group of this program's own", f"other processes in {hierarchy.folder} ({pids})"
    return None


def _others(hierarchy: Hierarchy, zygote: int) -> list[int]:
    """The processes that must leave before controllers can be passed on, and are not ours to move."""
    if not passes_on(hierarchy) or hierarchy.leaf or not _is_inner(hierarchy.folder):
        return []
    return [pid for pid in _members(hierarchy.folder) if not _is_ours(pid, zygote)]


def _is_inner(folder: str) -> bool:
    """Whether it is another group than the root of all, to which the constraint does not apply and which has no events."""
    return os.path.exists(f"{folder}/cgroup.events")


def _members(folder: str) -> list[int]:
    return sorted(map(int, _words(folder, "cgroup.procs")))


def _is_ours(pid: int, zygote: int) -> bool:
    """Whether it is this process, or the zygote or below it, or has ended, so that it is in nobody's way."""
    if pid == os.getpid():
        return True
    for _ in range(_ROUNDS):
        above: int | None = pid
        while zygote and above is not None and above > 1 and above != zygote:
            above = _parent(above)
        if _parent(pid) is None:
            return True
        if above is not None:
            return above == zygote > 0
        # One between has ended meanwhile, and what it had started has another parent now.
    return False


def _parent(pid: int) -> int | None:
    """None when it has ended; 0 when its parent is in another PID namespace."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # proc_pid_stat(5): the name in parentheses may hold anything; state and parent come behind it.
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


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
        if not passes_on(hierarchy) or obstacle is not None or hierarchy.leaf or not _is_inner(folder):
            continue
        leaf = f"{folder}/{LEAF}{os.getpid()}-{os.urandom(3).hex()}"
        try:
            with locked(folder):
                os.mkdir(leaf)
                _move(folder, leaf, lambda pid: _is_ours(pid, access.zygote))
        except OSError as error:
            raise cannot_make_groups(hierarchy, error) from error
        hierarchy.leaf = leaf
        return leaf
    return ""


def cannot_make_groups(hierarchy: Hierarchy, error: OSError) -> HostUnsupported:
    """The error for a kernel that refuses what :class:`Access` saw as allowed."""
    return HostUnsupported(
        f"control groups for {', '.join(sorted(hierarchy.controllers))}",
        needs=f"to make groups below {hierarchy.folder}",
        found=os.strerror(error.errno or 0),
        hint=_advice(hierarchy.version),
    )


def _move(source: str, target: str, wanted: Callable[[int], bool]) -> None:
    """Move the *wanted* processes in *source*, and what they fork meanwhile; pid 0 is in another PID namespace."""
    for _ in range(_ROUNDS):
        pids = [pid for pid in _members(source) if pid and wanted(pid)]
        if not pids:
            return
        for pid in pids:
            try:
                with open(f"{target}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(pid))
            except ProcessLookupError:
                pass  # it has ended


def give_room_back(leaf: str) -> None:
    """Undo :func:`make_room`, as far as nobody else has begun to use it. For the owner, when the zygote has ended."""
    folder = os.path.dirname(leaf)
    with locked(folder):
        if groups_in(folder) != [os.path.basename(leaf)]:
            return
        pass_on_nothing(folder)
        _move(leaf, folder, lambda _: True)
        cgroupfs.remove(leaf)


def pass_on_nothing(folder: str) -> None:
    """Let the group at *folder* have processes again; it has no groups below."""
    names = _words(folder, "cgroup.subtree_control")
    if names:
        with open(f"{folder}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write(" ".join(f"-{name}" for name in sorted(names)))


def groups_in(folder: str) -> list[str]:
    """The names of the groups one below."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))


@contextmanager
def locked(folder: str) -> Iterator[int]:
    """Among pycontain's processes one at a time changes who is in *folder*, which is opened for it."""
    fd = cgroupfs.open_group(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)
