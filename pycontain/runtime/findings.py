"""What the doctor looks at, as one value: facts of this host that decide what containers can do on it.

:func:`probe_findings` reads /proc, /sys and a few files. It changes nothing, except that it makes one empty control
group below each of its own and removes it at once: no mode bit says whether that is allowed. What the facts mean is
told by :mod:`pycontain.diagnosis`.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.kernel import landlock, nftables, syscalls
from pycontain.runtime import engine, fabric, probe, systemd
from pycontain.sandbox.host import CgroupLayout, HostFacts
from pycontain.store.folder import default_path

if TYPE_CHECKING:
    from pycontain.runtime.delegation import Access

NAMESPACES = frozenset({"mnt", "pid", "net", "ipc", "uts", "cgroup"})
CONTROLLERS = frozenset({"cpu", "memory", "pids"})
# The newest calls of a plan and of the zygote; above 424 every architecture has the same numbers.
NEEDED_CALLS = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_FIRST_SUBORDINATE_ID = 100_000  # login.defs(5): SUB_UID_MIN
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # linux/proc_ns.h: PROC_PID_INIT_INO
# Directories that the kernel makes for mounts: fs/namespace.c, mnt_already_visible(), does not mind mounts there.
_EMPTY_BY_DESIGN = {"/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"}


@attrs.frozen
class Program:
    """A program of this host. ``elevated``: it runs with more rights than its caller's, as a set-user-ID program does."""

    path: str
    elevated: bool = True


@attrs.frozen
class SubordinateIds:
    """How many ids subuid(5) and subgid(5) grant to ``user``, and the programs that map them.

    ``free`` is the first number that no range of any user covers.
    """

    user: str = "user"
    uids: int = 65_536
    gids: int = 65_536
    free: int = 165_536
    newuidmap: Program | None = Program("/usr/bin/newuidmap")
    newgidmap: Program | None = Program("/usr/bin/newgidmap")


@attrs.frozen
class Cgroups:
    """The control groups of this process: the controllers ``present`` here, and those ``usable`` for groups that it makes.

    ``own`` is the directory of its group; with several hierarchies, of one that takes no groups if there is such a one.
    ``scope`` is where systemd would make a scope for them, if that is what it takes; ``systemd`` says whether it runs, ``bus``
    whether there is a socket at which it can be asked. ``obstacle`` is what keeps the running engine from a controller that
    is present. ``swap``: where the host swaps, it is counted too.
    """

    layout: CgroupLayout = CgroupLayout.V2
    own: str = "/"
    present: frozenset[str] = CONTROLLERS
    usable: frozenset[str] = CONTROLLERS
    scope: str = ""
    writable: bool = True
    systemd: bool = True
    bus: bool = True
    swap: bool = True
    obstacle: str = ""


@attrs.frozen
class StateFolder:
    """Where writable layers lie, or would: ``path`` need not exist yet. ``free`` is in bytes."""

    path: str = "/home/user/.local/state/pycontain"
    file_system: str = "ext4"
    free: int = 1 << 36
    writable: bool = True


@attrs.frozen
class StoreFolder:
    """Where images lie, or volumes, or would: as :class:`StateFolder`."""

    path: str = "/home/user/.local/share/pycontain"
    file_system: str = "ext4"
    free: int = 1 << 36
    writable: bool = True


@attrs.frozen
class SecurityModules:
    """``profile`` is AppArmor's label of this process.

    Unless ``listed``, securityfs is not mounted, and ``active`` are those that show elsewhere.
    """

    active: tuple[str, ...] = ("capability", "landlock", "yama", "apparmor")
    listed: bool = True
    profile: str = "unconfined"
    selinux_enforces: bool = False
    ptrace_scope: int | None = 1


@attrs.frozen
class Surroundings:
    """What this process itself lives in: ``inside`` names a container's maker, ``covered`` is what it hid of /proc."""

    inside: str = ""
    covered: tuple[str, ...] = ()
    filtered: bool = False  # by seccomp
    no_new_privs: bool = False


@attrs.frozen
class Trial:
    """The engine was started, and with it a container.

    ``host`` is what the zygote told of itself, None when it did not start; ``seconds`` is the time of a second run of
    true(1), None when there was no run; ``error`` and ``notes`` say what went wrong.
    """

    host: HostFacts | None = None
    seconds: float | None = None
    error: str = ""
    notes: tuple[str, ...] = ()


@attrs.frozen
class Findings:
    """The facts. The defaults describe an ordinary user of a healthy host, so that a test states what is different."""

    system: str = "linux"
    kernel: tuple[int, int] = (6, 12)
    machine: str = "x86_64"
    wide: bool = True  # this Python is a 64-bit program
    python: tuple[int, int] = (3, 12)
    privileged: bool = False
    namespaces: frozenset[str] = NAMESPACES | {"user", "time"}
    obstacles: tuple[tuple[str, str], ...] = ()  # as probe.user_namespace_obstacles() gives them
    subordinate: SubordinateIds = SubordinateIds()
    cgroups: Cgroups = Cgroups()
    overlay: bool = True  # among the file systems, built in or loaded
    absent: tuple[str, ...] = ()  # system calls that every container needs, and the kernel does not know
    state: StateFolder = StateFolder()
    store: StoreFolder = StoreFolder()
    volumes: StoreFolder = StoreFolder("/home/user/.local/share/pycontain-volumes")
    seccomp: frozenset[str] = frozenset({"allow", "errno", "kill_process", "user_notif"})
    landlock: int = 6
    modules: SecurityModules = SecurityModules()
    surroundings: Surroundings = Surroundings()
    pasta: str | None = "/usr/bin/pasta"
    git: str | None = "/usr/bin/git"
    tun: bool = True  # this user may open /dev/net/tun, which pasta needs
    forwards: bool = True  # the host, what comes in by the interface of its default route
    filters: str = ""  # why a process in the host's network namespace cannot have rules of nftables
    droppers: tuple[str, ...] = ()  # tables of others that drop what is forwarded; only root sees them
    trial: Trial = Trial(HostFacts(kernel=(6, 12), euid=1000, rootless=True), 0.003)


def probe_findings(trial: Trial, volumes: str) -> Findings:
    """Look at this host; *trial* is what starting the engine has shown, *volumes* where named volumes are to lie."""
    if sys.platform != "linux":
        return Findings(system=sys.platform)
    groups = probe_cgroups()
    if trial.host is not None:
        groups = offered(groups, engine.engine().access())
    return Findings(
        kernel=probe.kernel_version(),
        machine=os.uname().machine,
        wide=sys.maxsize > 1 << 32,
        python=sys.version_info[:2],
        privileged=probe.is_privileged(),
        namespaces=frozenset(os.listdir("/proc/self/ns")),
        obstacles=tuple(probe.user_namespace_obstacles()),
        subordinate=probe_subordinate_ids(),
        cgroups=groups,
        overlay="overlay" in (probe.read_setting("/proc/filesystems") or "").split(),
        absent=probe_calls(),
        state=probe_state_folder(engine.state_folder()),
        store=probe_store(default_path()),
        volumes=probe_store(volumes),
        seccomp=frozenset((probe.read_setting("/proc/sys/kernel/seccomp/actions_avail") or "").split()),
        landlock=landlock.abi_version(),
        modules=probe_security_modules(),
        surroundings=probe_surroundings(),
        pasta=probe.find_program("pasta"),
        git=probe.find_program("git"),
        tun=os.access(fabric.TUN, os.R_OK | os.W_OK),
        **probe_networks(),
        trial=trial,
    )


def probe_networks() -> dict[str, Any]:
    """Of the host's network what decides about ``network("private")`` and networks of root."""
    found: dict[str, Any] = {"forwards": fabric.host_forwards()}
    if not probe.is_privileged():
        return found
    try:
        nftables.tables()
        return {**found, "droppers": tuple(nftables.forward_droppers())}
    except OSError as error:
        return {**found, "filters": os.strerror(error.errno or 0)}


# --- subordinate ids ------------------------------------------------------------------------------------


def probe_subordinate_ids() -> SubordinateIds:
    """What the files grant to the effective user."""
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name is an ordinary thing in a container
        user = str(uid)
    return SubordinateIds(
        user=user,
        uids=sum(count for _, count in probe.subordinate_ids("/etc/subuid", uid)),
        gids=sum(count for _, count in probe.subordinate_ids("/etc/subgid", uid)),
        free=first_free_id(*(probe.read_setting(path) or "" for path in ("/etc/subuid", "/etc/subgid"))),
        newuidmap=find_elevated("newuidmap"),
        newgidmap=find_elevated("newgidmap"),
    )


def first_free_id(*files: str) -> int:
    """The first id above all ranges in the texts of subuid(5) and subgid(5)."""
    ends = [_FIRST_SUBORDINATE_ID]
    for line in "\n".join(files).splitlines():
        _, _, numbers = line.partition(":")
        start, _, count = numbers.partition(":")
        if start.isdigit() and count.isdigit():
            ends.append(int(start) + int(count))
    return max(ends)


def find_elevated(name: str) -> Program | None:
    """A program by name, and whether it has the set-user-ID bit or a file capability that the mount does not void."""
    path = probe.find_program(name)
    if path is None:
        return None
    voided = bool(os.statvfs(path).f_flag & os.ST_NOSUID)
    marked = bool(os.stat(path).st_mode & stat.S_ISUID) or "security.capability" in os.listxattr(path)
    return Program(path, marked and not voided)


# --- control groups -------------------------------------------------------------------------------------


@attrs.frozen
class _Hierarchy:
    """One mounted hierarchy: its controllers (empty for v2) and the directory of the own group, if it is visible."""

    controllers: frozenset[str]
    directory: str | None


def probe_cgroups() -> Cgroups:
    """What the own groups offer; see cgroups(7)."""
    texts = (probe.read_setting(f"/proc/self/{name}") or "" for name in ("mountinfo", "cgroup"))
    layout, own, present, usable, swap = probe.cgroup_layout(), "", set[str](), set[str](), True
    for hierarchy in parse_hierarchies(*texts):
        if hierarchy.directory is None:
            present |= hierarchy.controllers
            continue
        names = hierarchy.controllers or _controllers_of(hierarchy.directory)
        present |= names
        if names & CONTROLLERS or layout is CgroupLayout.V2:
            takes = _takes_children(hierarchy.directory)
            usable |= names if takes else set()
            own = own if own and takes else hierarchy.directory
            swap = swap and ("memory" not in names or _counts_swap(hierarchy.directory))
    return Cgroups(
        layout,
        own,
        frozenset(present),
        frozenset(usable),
        writable=os.access(own, os.W_OK),
        systemd=os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        bus=systemd.has_bus(),
        swap=swap,
    )


def offered(groups: Cgroups, access: Access) -> Cgroups:
    """The same when the engine runs, and has looked who is there and whether systemd would give it a group."""
    scope = access.manager.group if access.needs_scope(CONTROLLERS) and access.manager else ""
    usable = frozenset(access.versions())
    closed = CONTROLLERS & groups.present - usable
    obstacle = access.refusal(min(closed)).found if closed else ""
    return attrs.evolve(groups, usable=usable, scope=scope, obstacle=obstacle)


def parse_hierarchies(mountinfo: str, cgroup: str) -> list[_Hierarchy]:
    """Join proc_pid_mountinfo(5) with /proc/self/cgroup: what is mounted, and where the own group lies in it."""
    groups: dict[frozenset[str], str] = {}
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        groups[frozenset(filter(None, names.split(",")))] = path
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        if kind not in {"cgroup", "cgroup2"}:
            continue
        for controllers, path in groups.items():
            if (kind == "cgroup2") if not controllers else controllers <= set(options.split(",")):
                root, mount_point = before.split()[3:5]
                found.append(_Hierarchy(controllers, _directory(path, root, mount_point)))
    return found


def _directory(path: str, root: str, mount_point: str) -> str | None:
    inside = os.path.relpath(path, root)
    return None if inside.startswith("..") else os.path.normpath(f"{mount_point}/{inside}")


def _controllers_of(directory: str) -> frozenset[str]:
    return frozenset((probe.read_setting(f"{directory}/cgroup.controllers") or "").split())


def _takes_children(directory: str) -> bool:
    child = f"{directory}/pycontain-doctor-{os.getpid()}"
    try:
        os.mkdir(child)
    except OSError:  # whatever the reason, groups cannot be made here
        return False
    os.rmdir(child)
    control = f"{directory}/cgroup.subtree_control"
    return not os.path.exists(control) or os.access(control, os.W_OK)


def _counts_swap(directory: str) -> bool:
    """Whether there is a limit on swap beside that on memory, in the group or one below; so there is where nothing swaps."""
    if len((probe.read_setting("/proc/swaps") or "").splitlines()) < 2:  # proc_swaps(5): a heading alone
        return True
    groups = [directory, *(entry.path for entry in os.scandir(directory) if entry.is_dir())]
    pairs = (("memory.max", "memory.swap.max"), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
    with_memory = [
        (group, swap) for group in groups for memory, swap in pairs if os.path.exists(f"{group}/{memory}")
    ]
    return not with_memory or any(os.path.exists(f"{group}/{swap}") for group, swap in with_memory)


# --- the rest -------------------------------------------------------------------------------------------


def probe_calls() -> tuple[str, ...]:
    """Those of :data:`NEEDED_CALLS` that the kernel, or a filter of system calls, says not to have."""
    return tuple(name for name, number in NEEDED_CALLS.items() if syscalls.is_absent(number))


def probe_state_folder(path: str) -> StateFolder:
    """The folder, or the nearest one above it that exists."""
    return StateFolder(path, *_folder(path))


def probe_store(path: str) -> StoreFolder:
    """The same of a store."""
    return StoreFolder(path, *_folder(path))


def _folder(path: str) -> tuple[str, int, bool]:
    existing = os.path.abspath(path)
    while not os.path.isdir(existing) and existing != "/":
        existing = os.path.dirname(existing)
    space = os.statvfs(existing)
    return (
        file_system_of(existing, probe.read_setting("/proc/self/mountinfo") or ""),
        space.f_bavail * space.f_frsize,
        os.access(existing, os.W_OK | os.X_OK, effective_ids=True),
    )


def file_system_of(path: str, mountinfo: str) -> str:
    """The type of the file system at *path*, by proc_pid_mountinfo(5)."""
    best, kind = "", "unknown"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place = before.split()[4].replace("\\040", " ")
        # Of two mounts at one place the later hides the earlier.
        if len(place) >= len(best) and (path == place or path.startswith(f"{place.rstrip('/')}/")):
            best, kind = place, after.split()[0]
    return kind


def probe_security_modules() -> SecurityModules:
    """Which are active, and what they say of this process."""
    scope = probe.read_setting("/proc/sys/kernel/yama/ptrace_scope")
    listed = probe.read_setting("/sys/kernel/security/lsm")
    signs = {
        "landlock": landlock.abi_version() > 0,
        "yama": scope is not None,
        "apparmor": probe.read_setting("/sys/module/apparmor/parameters/enabled") == "Y",
        "selinux": os.path.exists("/sys/fs/selinux/enforce"),
    }
    return SecurityModules(
        active=tuple(listed.split(",")) if listed else tuple(name for name, there in signs.items() if there),
        listed=bool(listed),
        profile=probe.read_setting("/proc/self/attr/apparmor/current") or "",
        selinux_enforces=probe.read_setting("/sys/fs/selinux/enforce") == "1",
        ptrace_scope=None if scope is None else int(scope),
    )


def probe_surroundings() -> Surroundings:
    """Whether this process is in a container itself, and what that holds back."""
    status = dict(
        line.split(":\t", 1)
        for line in (probe.read_setting("/proc/self/status") or "").splitlines()
        if ":\t" in line
    )
    return Surroundings(
        inside=_maker(),
        covered=mounts_on_proc(probe.read_setting("/proc/self/mountinfo") or ""),
        filtered=status.get("Seccomp") == "2",
        no_new_privs=status.get("NoNewPrivs") == "1",
    )


def _maker() -> str:
    if os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE:
        return ""  # whatever the marks say: a machine may have been made from an image
    marks = (("/run/.containerenv", "podman"), ("/.dockerenv", "docker"))
    known = next((maker for path, maker in marks if os.path.exists(path)), "")
    # systemd's container interface: the manager says who started it, nspawn and LXC among them.
    return known or probe.read_setting("/run/systemd/container") or "a PID namespace"


def mounts_on_proc(mountinfo: str) -> tuple[str, ...]:
    """What is mounted over parts of /proc, so that the kernel lets no user namespace mount another one."""
    places = (line.split()[4] for line in mountinfo.splitlines())
    return tuple(place for place in places if place.startswith("/proc/") and place not in _EMPTY_BY_DESIGN)
