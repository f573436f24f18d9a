"""The closed set of acts that a plan is made of.

A step is a value. Its class is named after what it does, its fields follow the manual page, and its text reads
as strace(1) would print it. ``because`` says why the plan has it (shown, never compared); ``tolerate`` lists
the errno values that may be ignored, each with a reason where the step is made. The steps are performed by
:mod:`pycontain.runtime.perform`, in the process that :attr:`Step.role` names.

``ROOT/x`` in the text is the place *x* below the container's root, resolved with
``openat2(RESOLVE_IN_ROOT)``: links of the image lead to places inside the root, never to the host. ``STAGE/x`` is
the same for a tree that the child builds before it has a root.
"""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, ClassVar

import attrs

from pycontain.kernel import constants
from pycontain.sandbox import capabilities
from pycontain.sandbox.device_filter import DEVICE_FILTER
from pycontain.sandbox.landlock import RIGHTS, SCOPES
from pycontain.sandbox.paths import StagePath
from pycontain.sandbox.sysctl import swapped

if TYPE_CHECKING:
    from pycontain.sandbox.paths import HostPath, RootPath

_DEVICE = "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC"
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


class Role(enum.Enum):
    """Who performs a step."""

    ZYGOTE = "zygote"
    CHILD = "child"


class Namespaces(enum.IntFlag):
    """The ``CLONE_NEW*`` flags of clone(2)."""

    CLONE_NEWTIME = constants.CLONE_NEWTIME
    CLONE_NEWNS = constants.CLONE_NEWNS
    CLONE_NEWCGROUP = constants.CLONE_NEWCGROUP
    CLONE_NEWUTS = constants.CLONE_NEWUTS
    CLONE_NEWIPC = constants.CLONE_NEWIPC
    CLONE_NEWUSER = constants.CLONE_NEWUSER
    CLONE_NEWPID = constants.CLONE_NEWPID
    CLONE_NEWNET = constants.CLONE_NEWNET


class MountFlags(enum.IntFlag):
    """The flags of mount(2) that plans use."""

    MS_RDONLY = constants.MS_RDONLY
    MS_NOSUID = constants.MS_NOSUID
    MS_NODEV = constants.MS_NODEV
    MS_NOEXEC = constants.MS_NOEXEC
    MS_STRICTATIME = constants.MS_STRICTATIME


def _flags(value: enum.IntFlag) -> str:
    return "|".join(str(flag.name) for flag in value) or "0"


def _escaped(text: str) -> str:
    """One line, whatever the text: as strace(1), control characters are written in escapes."""
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode()
        for mark in text.replace("\\", r"\\")
    )


def _quote(text: str | None) -> str:
    if text is None:
        return "NULL"
    return '"' + _escaped(text).replace('"', '\\"') + '"'


def _root(path: RootPath) -> str:
    tree = "STAGE" if isinstance(path, StagePath) else "ROOT"
    return f"{tree}{_escaped(path)}" if path != "/" else tree


def _strings(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(_quote, values)) + "]"


@attrs.frozen(kw_only=True)
class Step:
    """One act of a plan."""

    because: str = attrs.field(default="", eq=False)
    tolerate: tuple[int, ...] = ()

    role: ClassVar[Role] = Role.CHILD

    def __str__(self) -> str:
        raise NotImplementedError

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """What errno *number*, said of *path*, means for the user at this step, and the next thing to do, if we know."""
        del number, path
        return None


# --- a new process --------------------------------------------------------------------------------------


@attrs.frozen
class Clone(Step):
    """clone3(2): the child, in namespaces of its own."""

    flags: Namespaces

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return f"clone3({{flags=CLONE_PIDFD|{_flags(self.flags)}, exit_signal=SIGCHLD}})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """ENOSPC is how the kernel says that a limit below /proc/sys/user is reached."""
        if number == errno.ENOSPC:
            return (
                "the kernel's limit on namespaces is reached",
                "raise it: sysctl user.max_mnt_namespaces user.max_pid_namespaces user.max_net_namespaces",
            )
        if number == errno.EAGAIN:
            return (
                "the limit on processes is reached",
                "raise ulimit -u, or pids.max of the cgroup, or end some",
            )
        return None


@attrs.frozen
class MapIds(Step):
    """The zygote gives the child's user namespace *count* ids that no other container has, user_namespaces(7).

    Before that the child waits; after it the child is root in that namespace, and nobody outside.
    """

    count: int

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        maps = "; ".join(
            f'write("/proc/CHILD/{name}", "0 IDS {self.count}")' for name in ("uid_map", "gid_map")
        )
        return f"{maps}; child: setgroups([]), setresgid(0, 0, 0), setresuid(0, 0, 0)"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """EAGAIN is what the zygote says when there is no range left."""
        del path
        if number == errno.EAGAIN:
            return (
                "no range of ids is left for another container",
                "end some, or grant root more in /etc/subuid and /etc/subgid",
            )
        return None


@attrs.frozen
class GivePipes(Step):
    """fchown(2) of the payload's pipes to the container's root, who may give them to the payload's user."""

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return "fchown(pipes, IDS, IDS)"


@attrs.frozen
class JoinSessionKeyring(Step):
    """keyctl(2): an empty session keyring, so that none of the owner's keys is there."""

    def __str__(self) -> str:
        return "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)"


@attrs.frozen
class Fork(Step):
    """setns(2) into the container's PID namespace for the next child alone, and that child."""

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return "setns(PIDFD, CLONE_NEWPID); clone3({flags=CLONE_PIDFD, exit_signal=SIGCHLD}); setns(OWN, CLONE_NEWPID)"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The container may end at any moment; a root without all its capabilities may lack the one for this."""
        if number == errno.ESRCH:
            return "the container has exited", "start it again"
        if number == errno.EPERM:
            return (
                "this process may not enter its containers",
                "give it CAP_SYS_PTRACE and CAP_SYS_ADMIN, or run it as an ordinary user",
            )
        if number == errno.EAGAIN:
            return "the limit on processes is reached", "end some in the container, or give it more pids="
        return None


def _limit(file: str, text: str) -> str:
    if file == DEVICE_FILTER:
        return f"bpf(BPF_PROG_ATTACH, {{attach_type={file}, {len(text) // 16} instructions}})"
    return f"write({_quote(file)}, {_quote(text)})"


@attrs.frozen
class JoinCgroup(Step):
    """The child becomes a member of the container's control group: clone3(2) with CLONE_INTO_CGROUP, or cgroup.procs.

    For a start the group is made, and the limits are set, before; for an exec it is there. Of what a spare child did in
    advance the group counts nothing.
    """

    controllers: tuple[str, ...]
    writes: tuple[tuple[str, str, str], ...] = ()
    make: bool = True

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        group = f"CGROUP/{{{','.join(self.controllers)}}}/{{n}}"
        acts = [f"mkdir({group}, 0o755)"] if self.make else []
        acts += [_limit(file, text) for _, file, text in self.writes]
        return "; ".join((*acts, 'write("cgroup.procs", CHILD)'))

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The group was made, so it is something special of this host."""
        del path
        if number in {errno.EPERM, errno.EACCES}:
            return (
                "the kernel lets no process into the container's control group",
                "see pycontain.doctor(); without .limits() there is no group",
            )
        if number == errno.EINVAL and "cpu" in self.controllers:
            return (
                "the kernel lets no process with a real-time policy into the container's control group",
                "cgroups(7): with CONFIG_RT_GROUP_SCHED the cpu controller wants SCHED_OTHER; start this program without chrt(1)",
            )
        return None


@attrs.frozen
class UnshareCgroup(Step):
    """unshare(2) of the cgroup namespace: the group that the child is in becomes the root of what it sees."""

    def __str__(self) -> str:
        return "unshare(CLONE_NEWCGROUP)"


@attrs.frozen
class SetTimeOffset(Step):
    """unshare(2) of the time namespace, its offsets as its file takes them, and setns(2) into it: time_namespaces(7).

    The unshare counts for children only, and posix_spawn(3) cannot enter a time namespace before Linux 6.3.
    """

    offsets: str

    def __str__(self) -> str:
        return (
            f'unshare(CLONE_NEWTIME); write("/proc/self/timens_offsets", {_quote(self.offsets)}); '
            'setns("/proc/self/ns/time_for_children", CLONE_NEWTIME)'
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """A clock begins at 0 and has an end, and not every kernel has such namespaces."""
        del path
        match number:
            case errno.ERANGE:
                return (
                    "with this .time_offset() a clock would be negative or beyond its end",
                    "choose a smaller one",
                )
            case errno.EINVAL:
                return (
                    "this kernel has no time namespaces",
                    "leave .time_offset() out, or use one with CONFIG_TIME_NS",
                )
        return None


@attrs.frozen
class JoinNamespaces(Step):
    """setns(2) into the namespaces of a running container, by the pidfd of its PID 1."""

    flags: Namespaces

    def __str__(self) -> str:
        root = "; setgroups([]); setresgid(0, 0, 0); setresuid(0, 0, 0)"
        return f"setns(PIDFD, {_flags(self.flags)})" + root * (Namespaces.CLONE_NEWUSER in self.flags)

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The container may end at any moment."""
        if number == errno.ESRCH:
            return "the container has exited", "start it again"
        return None


@attrs.frozen
class SetParentDeathSignal(Step):
    """PR_SET_PDEATHSIG of prctl(2): the child dies with the zygote."""

    def __str__(self) -> str:
        return "prctl(PR_SET_PDEATHSIG, SIGKILL)"


# --- the root file system -------------------------------------------------------------------------------


@attrs.frozen
class WriteSysctl(Step):
    """write(2) of a setting of the own namespaces, in the staged /proc/sys."""

    path: StagePath
    value: str

    def __str__(self) -> str:
        return f"write({_root(self.path)}, {_quote(self.value)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Kernels differ in what they have, and in what they leave to a namespace."""
        del path
        name = swapped(self.path.removeprefix("/proc/sys/"))
        match number:
            case errno.ENOENT:
                return (
                    f"this kernel has no setting {name} for a namespace",
                    "leave it out, or load the module that has it",
                )
            case errno.EACCES | errno.EPERM:
                return (
                    f"this kernel lets nobody set {name} for this container alone",
                    "leave it out; in a user namespace the settings of System V IPC need Linux 5.19",
                )
            case errno.EINVAL | errno.ERANGE:
                return f"the kernel does not take {self.value!r} for {name}", "correct the value"
        return None


@attrs.frozen
class SetDomainname(Step):
    """setdomainname(2): kernel.domainname, whose file belongs to the machine's root whoever has the namespace."""

    name: str

    def __str__(self) -> str:
        return f"setdomainname({_quote(self.name)})"


@attrs.frozen
class MountStage(Step):
    """mount(2) of the tmpfs on which what every container gets is built, before the root is known."""

    def __str__(self) -> str:
        return 'mount("tmpfs", STAGE, "tmpfs", MS_NOSUID|MS_NODEV|MS_NOEXEC, "mode=0755")'


@attrs.frozen
class MoveMount(Step):
    """move_mount(2) of a tree from the stage to the same place below the root."""

    path: RootPath

    def __str__(self) -> str:
        return f"move_mount(STAGE{self.path}, {_root(self.path)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """An image decides what lies there."""
        if number in {errno.ELOOP, errno.ENOTDIR}:
            return f"the image has something else than a directory at {self.path}", "use another image"
        return None


@attrs.frozen
class MountLayer(Step):
    """mount(2) of a tmpfs for the writable layer. It is seen by this container alone, and ends with it."""

    options: str

    def __str__(self) -> str:
        return f'mount("tmpfs", LAYER, "tmpfs", MS_NOSUID|MS_NODEV, {_quote(self.options)}); mkdir(LAYER/{{upper,work}}, 0o755)'


@attrs.frozen
class MountOverlay(Step):
    """mount(2) of an overlay: the layers below, this container's own writable layer on top.

    ``upperdir`` and ``workdir`` are in a folder of this container alone. *layers* says where in idmapped trees the lower
    directories are, by number and name, and *layer* is the tree of all writable layers; without, they are found by their
    paths. With *init* the lowest is an empty file or directory for each place that every container has something mounted
    on: Docker's init layer. So none of them is made in the writable one, which stays what the payload has written.
    """

    lowerdirs: tuple[HostPath, ...]
    options: tuple[str, ...] = ()
    layers: tuple[tuple[int, str], ...] = ()
    layer: int = -1
    init: bool = True

    def __str__(self) -> str:
        tree = "" if self.layer < 0 else f"TREE{self.layer}/"
        layers = [f"TREE{number}/{name}".rstrip("/") for number, name in self.layers] or self.lowerdirs
        lower = ":".join([*layers, *[f"{tree}INIT"] * self.init])
        upper = f"{tree}LAYER"
        options = ",".join(
            (f"lowerdir={lower}", f"upperdir={upper}/upper", f"workdir={upper}/work", *self.options)
        )
        return f'mount("overlay", ROOT, "overlay", MS_NODEV, {_quote(options)})'

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Overlay file systems are particular about what lies below them."""
        if number in _MISSING:
            return "a layer of the image is gone", f"see whether these exist: {', '.join(self.lowerdirs)}"
        if number == errno.EINVAL:
            return (
                "the folder for writable layers lies on a file system that cannot hold them",
                "set PYCONTAIN_STATE to a folder on ext4, xfs, btrfs or tmpfs (an overlay cannot lie on an overlay)",
            )
        if number in {errno.ENOSPC, errno.EDQUOT}:
            return (
                "no space is left for the writable layer",
                "free some, or set PYCONTAIN_STATE to another disk",
            )
        return None


@attrs.frozen
class SetRootStatus(Step):
    """chown(2) and chmod(2) of the root: the writable layer's own owner and mode would hide those of the image."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"chown(ROOT, {self.uid}, {self.gid}); chmod(ROOT, {self.mode:#o})"


@attrs.frozen
class BindMount(Step):
    """open_tree(2), mount_setattr(2), move_mount(2): a tree of the host at a place below the root."""

    source: HostPath
    target: RootPath
    read_only: bool = False
    nosuid: bool = True
    nodev: bool = True

    def attributes(self) -> int:
        """The mount attributes as mount_setattr(2) takes them."""
        return (
            constants.MOUNT_ATTR_RDONLY * self.read_only
            | constants.MOUNT_ATTR_NOSUID * self.nosuid
            | constants.MOUNT_ATTR_NODEV * self.nodev
        )

    def __str__(self) -> str:
        attributes = _attributes(self.attributes())
        return (
            f"tree = open_tree({_quote(self.source)}, OPEN_TREE_CLONE|AT_RECURSIVE); "
            f"mount_setattr(tree, AT_RECURSIVE, {{attr_set={attributes}, propagation=MS_PRIVATE}}); "
            f"move_mount(tree, {_root(self.target)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Nearly always the source is missing or the user may not look at it."""
        if path != self.source:
            return _target_problem(self.target, number)
        return _source_problem(self.source, number)


@attrs.frozen
class CloneTree(Step):
    """open_tree(2) and mount_setattr(2) by the zygote, which may: a tree of the host, given to the child as number *number*.

    Idmapped, an owner on disk is the same number inside, and nothing is chowned. *source* None is the folder of the
    writable layers. With *fallback* a tree of a file system that cannot be idmapped is given as it is: its owners are
    nobody inside.
    """

    number: int
    source: HostPath | None
    attributes: int = 0
    recursive: bool = False
    idmapped: bool = True
    fallback: bool = False

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        source = "LAYERS" if self.source is None else _quote(self.source)
        recursive = "|AT_RECURSIVE" * self.recursive
        flags = "AT_RECURSIVE, " * self.recursive
        attributes = _attributes(self.attributes | constants.MOUNT_ATTR_IDMAP * self.idmapped)
        users = ", userns_fd=USERS" * self.idmapped
        fallback = "; EINVAL: the same without MOUNT_ATTR_IDMAP" * (self.idmapped and self.fallback)
        return (
            f"TREE{self.number} = open_tree({source}, OPEN_TREE_CLONE{recursive}); "
            f"mount_setattr(TREE{self.number}, {flags}{{attr_set={attributes}, propagation=MS_PRIVATE{users}}}){fallback}"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Layers were tried before the plan was made; a mount source is the user's."""
        del path
        if self.source is None:
            return None
        if number == errno.EINVAL:
            return (
                f"the file system of {self.source} cannot be idmapped",
                'use .userns("host"), or an image on ext4, xfs, btrfs or tmpfs',
            )
        return _source_problem(self.source, number)


@attrs.frozen
class CloneDevice(Step):
    """mknod(2) by the zygote of a node for the device that *source* of the host is, owned by the container's root.

    The host's own node would be nobody's inside, and so be closed to all whom its mode does not let in.
    """

    number: int
    source: HostPath

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return (
            f"mknod(NODES/n, mode and device of {_quote(self.source)}); chown(NODES/n, IDS, IDS); "
            f"TREE{self.number} = open_tree(NODES/n, OPEN_TREE_CLONE); mount_setattr(TREE{self.number}, {{attr_set={_DEVICE}}})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """As of a node that is bound."""
        return _device_problem(self.source, number)


def _device_problem(source: HostPath, number: int) -> tuple[str, str] | None:
    """ENODEV is how the doers say that it is something else; of a tree with mounts below, a user namespace gets EINVAL."""
    if number in _MISSING:
        return f"the host has no device {source}", "correct the path, or load the driver's module"
    if number in {errno.ENODEV, errno.EINVAL}:
        return f"{source} of the host is no device node", "use .mount() for files and directories"
    return None


@attrs.frozen
class AttachTree(Step):
    """move_mount(2) of a tree that the zygote gave, to a place below the root."""

    tree: int
    target: RootPath

    def __str__(self) -> str:
        return f"move_mount(TREE{self.tree}, {_root(self.target)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The source was there, so it is the place."""
        del path
        return _target_problem(self.target, number)


_ATTRIBUTES = ("MOUNT_ATTR_RDONLY", "MOUNT_ATTR_NOSUID", "MOUNT_ATTR_NODEV", "MOUNT_ATTR_IDMAP")


def _attributes(value: int) -> str:
    return "|".join(name for name in _ATTRIBUTES if value & getattr(constants, name)) or "0"


def _source_problem(source: HostPath, number: int) -> tuple[str, str] | None:
    """Why a tree of the host could not be opened."""
    if number in _MISSING:
        return f"the mount source {source} does not exist", "create it, or correct the path"
    if number == errno.EACCES:
        return f"the mount source {source} cannot be reached by this user", "see the modes of its parents"
    return None


def _target_problem(target: RootPath, number: int) -> tuple[str, str] | None:
    """Why a place below the root could not be opened or made."""
    match number:
        case errno.ENOTDIR:
            return (
                f"{target} in the container cannot be a mount point: a directory meets something that is none",
                "mount a directory on a directory and a file on a file, below directories",
            )
        case errno.ELOOP:
            return (
                f"{target} in the container leads into a tree of the kernel, or through too many links",
                "choose a target that the image does not link elsewhere",
            )
        case errno.ENOENT:
            return (
                f"{target} cannot be made in the container",
                "see whether it lies on something special of the image",
            )
        case errno.EROFS:
            return (
                f"{target} does not exist in a part of the image that is read-only",
                "choose another target",
            )
        case errno.ENAMETOOLONG:
            return f"a name in the path {target} is too long", "choose a shorter one"
        case errno.ENOSPC:
            return (
                "no space is left for the writable layer",
                "free some, or set PYCONTAIN_STATE to another disk",
            )
    return None


@attrs.frozen
class MountFilesystem(Step):
    """mount(2) of a file system of the kernel at a place below the root."""

    fstype: str
    target: RootPath
    flags: MountFlags
    options: str | None = None
    follow: bool = False  # whether links of the image may lead to the target

    def __str__(self) -> str:
        return (
            f"mount({_quote(self.fstype)}, {_root(self.target)}, {_quote(self.fstype)}, "
            f"{_flags(self.flags)}, {_quote(self.options)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The two ways in which a host or an image forbids these."""
        if number == errno.EPERM and self.fstype in {"proc", "sysfs"}:
            return (
                f"this host does not let a user namespace mount {self.fstype}",
                "it is so inside another container that masks parts of it: run that one with unmasked /proc",
            )
        if self.follow:
            return _target_problem(self.target, number)
        if number in {errno.ELOOP, errno.ENOTDIR}:
            return f"the image has something else than a directory at {self.target}", "use another image"
        return None


@attrs.frozen
class MakeDirectory(Step):
    """mkdir(2) below the root, of missing parents too; what exists is left as it is."""

    path: RootPath
    mode: int = 0o755

    def __str__(self) -> str:
        return f"mkdir({_root(self.path)}, {self.mode:#o})"


@attrs.frozen
class MakeDevice(Step):
    """mknod(2) of a character device below the root."""

    path: RootPath
    major: int
    minor: int
    mode: int = 0o666

    def __str__(self) -> str:
        return f"mknod({_root(self.path)}, S_IFCHR|{self.mode:#o}, makedev({self.major}, {self.minor}))"


@attrs.frozen
class BindDevice(Step):
    """A device node of the host at a place below the root: what a user namespace may do in place of mknod(2)."""

    source: HostPath
    target: RootPath

    def __str__(self) -> str:
        return (
            f"tree = open_tree({_quote(self.source)}, OPEN_TREE_CLONE); mount_setattr(tree, {{attr_set={_DEVICE}}}); "
            f"move_mount(tree, {_root(self.target)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The source or the place."""
        if path != self.source:
            return _target_problem(self.target, number)
        return _device_problem(self.source, number)


@attrs.frozen
class MakeHostDevices(Step):
    """Every device node in /dev of the host that is not there yet, made with its mode and owner or, in a user namespace, bound.

    What the zygote may not look at is left out.
    """

    bound: bool

    def __str__(self) -> str:
        act = (
            "move_mount(open_tree(NODE, OPEN_TREE_CLONE), STAGE/NODE)" if self.bound else "mknod(STAGE/NODE)"
        )
        return f'for NODE in "/dev", but pts, shm and mqueue: {act}'


@attrs.frozen
class OpenTerminal(Step):
    """A pseudo-terminal of the container's own devpts, pty(7): its slave is 0, 1 and 2 of the payload, its master the owner's.

    With *console* the slave is /dev/console as well; with *lead* the child itself begins the session that it controls.
    """

    columns: int
    rows: int
    console: bool = True
    lead: bool = False

    def __str__(self) -> str:
        calls = [
            'master = open("/dev/pts/ptmx")',
            f"ioctl(master, TIOCSWINSZ, {{{self.rows}, {self.columns}}})",
            "slave = ioctl(master, TIOCGPTPEER)",
        ]
        if self.console:
            calls.append("move_mount(open_tree(slave, OPEN_TREE_CLONE), ROOT/dev/console)")
        calls.append("sendmsg(OWNER, [master, slave])")
        calls += [f"dup2(slave, {fd})" for fd in range(3)]
        if self.lead:
            calls += ["setsid()", "ioctl(0, TIOCSCTTY)"]
        return "; ".join(calls)

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """There may be too many."""
        del path
        if number == errno.ENOSPC:
            return "the host has no pseudo-terminal left", "raise kernel.pty.max, or end some containers"
        return None


@attrs.frozen
class MakeLink(Step):
    """symlink(2) below the root."""

    target: str
    path: RootPath

    def __str__(self) -> str:
        return f"symlink({_quote(self.target)}, {_root(self.path)})"


#: How the doer names the file system of installed files in an error.
FILES = "files"


class Content(enum.Enum):
    """Where an installed file has its bytes from."""

    GIVEN = "given"
    HOSTNAME = "hostname"
    HOSTS = "hosts"
    RESOLVER = "resolver"
    APT = "apt"


@attrs.frozen
class InstallFile(Step):
    """A file that is not in the image, on a tmpfs of its own, bound to a place below the root.

    The bytes travel beside the plan, at *place* in a list: a plan that is printed shows no content.
    """

    path: RootPath
    size: int
    place: int = -1
    mode: int = 0o644
    content: Content = Content.GIVEN
    read_only: bool = False
    secret: bool = False  # it will belong to the payload's user
    parents: bool = True  # are made when they are missing
    owner: tuple[int, int] | tuple[()] = ()  # uid and gid, when it is not root's

    def __str__(self) -> str:
        what = f"{self.size} bytes" if self.content is Content.GIVEN else self.content.value
        source = f"write(open(FILES/{{n}}, O_CREAT|O_EXCL, {self.mode:#o}), {what})"
        if self.owner:
            source += f"; fchown(FILES/{{n}}, {self.owner[0]}, {self.owner[1]})"
        attributes = "{attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOEXEC}" if self.read_only else ""
        suffix = f"; mount_setattr(tree, {attributes})" if attributes else ""
        return f"{source}; tree = open_tree(FILES/{{n}}, OPEN_TREE_CLONE){suffix}; move_mount(tree, {_root(self.path)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """It is the place that an image or a mount can spoil, or the memory that holds the content."""
        if path == FILES and number in {errno.ENOSPC, errno.ENOMEM}:
            return (
                f"no memory is left for the content of {self.path}",
                "files and secrets are in memory: give fewer or smaller ones, or mount a directory",
            )
        return _target_problem(self.path, number)


@attrs.frozen
class MountFiles(Step):
    """mount(2) of the tmpfs that holds the installed files; it is outside of the root."""

    options: str = "mode=0700"

    def __str__(self) -> str:
        return f'mount("tmpfs", FILES, "tmpfs", MS_NOSUID|MS_NODEV, {_quote(self.options)})'


@attrs.frozen
class MaskPath(Step):
    """Hide what is at a path: an empty read-only tmpfs over a directory, /dev/null over anything else.

    One step with its own doer, because binding /dev/null over a directory fails with ENOTDIR, and tolerating
    that would leave the directory readable. A path that is not there needs no mask.
    """

    path: RootPath

    def __str__(self) -> str:
        return f'is_dir({_root(self.path)}) ? mount("tmpfs", {_root(self.path)}, "tmpfs", MS_RDONLY, "nr_inodes=1") : bind("/dev/null", {_DEVICE})'


@attrs.frozen
class ReadOnlyPath(Step):
    """A path bound over itself, read-only."""

    path: RootPath

    def __str__(self) -> str:
        return (
            f"tree = open_tree({_root(self.path)}, OPEN_TREE_CLONE|AT_RECURSIVE); "
            f"mount_setattr(tree, AT_RECURSIVE, {{attr_set=MOUNT_ATTR_RDONLY}}); move_mount(tree, {_root(self.path)})"
        )


@attrs.frozen
class WritablePath(Step):
    """A directory, made when it is missing, bound over itself: it stays writable when the root no longer is."""

    path: RootPath

    def __str__(self) -> str:
        return (
            f"mkdir({_root(self.path)}, 0o755); tree = open_tree({_root(self.path)}, OPEN_TREE_CLONE|AT_RECURSIVE); "
            f"move_mount(tree, {_root(self.path)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """An image decides what lies there."""
        del path
        return _target_problem(self.path, number)


@attrs.frozen
class ReadOnlyRoot(Step):
    """mount_setattr(2) of the root alone: what is mounted below stays writable."""

    def __str__(self) -> str:
        return "mount_setattr(ROOT, {attr_set=MOUNT_ATTR_RDONLY})"


@attrs.frozen
class PivotRoot(Step):
    """pivot_root(2), and the host's tree is gone."""

    def __str__(self) -> str:
        return 'fchdir(ROOT); pivot_root(".", "."); umount2(".", MNT_DETACH); chdir("/")'


# --- who the payload is ---------------------------------------------------------------------------------


@attrs.frozen
class SetHostname(Step):
    """sethostname(2); an empty name means the container's id."""

    name: str

    def __str__(self) -> str:
        return f"sethostname({_quote(self.name) if self.name else 'ID'})"


@attrs.frozen
class BringLoopbackUp(Step):
    """netdevice(7): ``lo`` of a new network namespace is down."""

    def __str__(self) -> str:
        return 'ioctl(SIOCSIFFLAGS, {ifr_name="lo", ifr_flags=IFF_UP})'

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """A root without all its capabilities may lack the one for this."""
        if number == errno.EPERM:
            return (
                "this process may not set up a network namespace",
                "give it CAP_NET_ADMIN, or run it as an ordinary user",
            )
        return None


@attrs.frozen
class BindSysfs(Step):
    """The host's /sys as it is there, read-only: sysfs shows a network namespace, and only who owns that may mount it."""

    path: StagePath

    def __str__(self) -> str:
        return (
            'tree = open_tree("/sys", OPEN_TREE_CLONE|AT_RECURSIVE); '
            "mount_setattr(tree, AT_RECURSIVE, {attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC}); "
            f"move_mount(tree, {_root(self.path)})"
        )


@attrs.frozen
class AwaitNetwork(Step):
    """Wait until the owner has connected the network namespace, which it tells by an alias of ``lo``, rtnetlink(7)."""

    def __str__(self) -> str:
        return 'recv(NETLINK_ROUTE, RTMGRP_LINK) until read("/sys/class/net/lo/ifalias") == "connected"'


@attrs.frozen
class BindHosts(Step):
    """The hosts file that the owner keeps for this container, read-only: names come and go while it runs."""

    target: RootPath

    def __str__(self) -> str:
        return (
            'tree = open_tree("hosts/{id}", OPEN_TREE_CLONE); '
            "mount_setattr(tree, {attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC}); "
            f"move_mount(tree, {_root(self.target)})"
        )


@attrs.frozen
class ResolveUser(Step):
    """Look the user up in the container's own /etc/passwd and /etc/group; nothing changes yet.

    ``user`` is ``name``, ``uid``, ``name:group`` or ``uid:gid``, as in the image configuration.
    """

    user: str

    def __str__(self) -> str:
        return f"getpwnam({_quote(self.user or '0')}) in ROOT/etc/passwd, getgrouplist() in ROOT/etc/group"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """ESRCH is how the doer says that the name is in neither file."""
        if number == errno.ESRCH:
            return (
                f"the container has no user or group {self.user!r}",
                "use a name from its /etc/passwd and /etc/group, or numbers: .user('1000:1000')",
            )
        if number == errno.EINVAL:
            return (
                f"the user {self.user!r} has an id that is not mapped in this user namespace",
                "use an id within the subordinate range, see pycontain.doctor()",
            )
        return None


@attrs.frozen
class ChangeDirectory(Step):
    """chdir(2) inside the new root."""

    path: RootPath

    def __str__(self) -> str:
        return f"chdir({_quote(self.path)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Unlike Docker we do not make it: a typing error would become a folder."""
        if number in _MISSING:
            return (
                f"the working directory {self.path} does not exist in the container",
                "correct .workdir(), or make the directory in the image or with .mount() or .tmpfs()",
            )
        return None


@attrs.frozen
class AllowLimit(Step):
    """prlimit(2) of a hard limit by the zygote, which may raise it if the owner may; in a user namespace of its own nobody may.

    Where the zygote may not, all stays as it is, and the child's own setrlimit(2) says so.
    """

    resource: str
    hard: int

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return f"prlimit(CHILD, RLIMIT_{self.resource.upper()}, {{, {self.hard}}})"


@attrs.frozen
class SetResourceLimit(Step):
    """setrlimit(2) of one resource."""

    resource: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"setrlimit(RLIMIT_{self.resource.upper()}, {{{self.soft}, {self.hard}}})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Raising a hard limit is a privilege."""
        if number == errno.EPERM:
            return (
                f"the limit {self.resource} cannot be raised to {self.hard} here",
                "ask for less, or raise the owner's own",
            )
        return None


@attrs.frozen
class DropBoundingSet(Step):
    """PR_CAPBSET_DROP of prctl(2) for every capability that is not granted."""

    keep: frozenset[str]

    def __str__(self) -> str:
        return f"prctl(PR_CAPBSET_DROP, each but {_names(self.keep)})"


@attrs.frozen
class SetIdentity(Step):
    """setgroups(2), setresgid(2), setresuid(2) to the user that was looked up."""

    setgroups: bool = True

    def __str__(self) -> str:
        groups = "setgroups(GROUPS); " if self.setgroups else ""
        return f"fchown(pipes and secrets, UID, GID); {groups}setresgid(GID); setresuid(UID)"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """An id outside of the map cannot be taken; and there is a limit, NGROUPS_MAX."""
        if number == errno.E2BIG:
            return (
                "the image puts the user into more groups than a process can have",
                "look at /etc/group of the image, or name the group: .user('name:group')",
            )
        if number == errno.EINVAL:
            return (
                "the user's ids are not mapped in this user namespace",
                "use one up to 65535 when root starts it; else get subordinate ids for this user, see pycontain.doctor()",
            )
        return None


@attrs.frozen
class SetCapabilities(Step):
    """capset(2): permitted and effective for root, none for others; nothing inheritable, nothing ambient."""

    keep: frozenset[str]

    def __str__(self) -> str:
        return f"capset(UID == 0 ? {_names(self.keep)} : 0)"


def _names(names: frozenset[str]) -> str:
    ordered = [name for name in capabilities.NAMES if name in names]
    return "{" + ", ".join(ordered) + "}"


@attrs.frozen
class SetNoNewPrivs(Step):
    """PR_SET_NO_NEW_PRIVS of prctl(2): no set-user-ID program gains anything."""

    def __str__(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS, 1)"


@attrs.frozen
class SetLandlock(Step):
    """landlock_restrict_self(2) with a ruleset that denies *handled* but where a rule allows it; *scoped* stays inside.

    A place that the payload's user cannot reach needs no rule.
    """

    handled: int
    scoped: int
    rules: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        scoped = _bits(self.scoped, SCOPES)
        rules = "; ".join(
            f"landlock_add_rule(PATH_BENEATH, {_quote(path)}, {_rights(allowed, self.handled)})"
            for path, allowed in self.rules
        )
        return (
            f"landlock_create_ruleset({{handled_access_fs={_bits(self.handled, RIGHTS)}, scoped={scoped}}}); "
            f"{rules}; landlock_restrict_self(RULESET)"
        )


def _rights(allowed: int, handled: int) -> str:
    """All of what is handled, or all but the few that are not allowed."""
    if allowed == handled:
        return "handled_access_fs"
    return f"handled_access_fs & ~({_bits(handled & ~allowed, RIGHTS)})"


def _bits(value: int, table: tuple[tuple[str, int], ...]) -> str:
    return "|".join(name for place, (name, _) in enumerate(table) if value >> place & 1) or "0"


@attrs.frozen
class SetSeccomp(Step):
    """seccomp(2) with a compiled filter."""

    program: bytes = attrs.field(repr=False)
    name: str = "default"

    def __str__(self) -> str:
        return f"seccomp(SECCOMP_SET_MODE_FILTER, {self.name}: {len(self.program) // 8} instructions)"


@attrs.frozen
class Execute(Step):
    """execve(2) of the payload, searched in the PATH of *env*.

    With *init* the child stays as PID 1, out of reach (not dumpable), forwards signals, reaps orphans, and starts
    the payload as its child in a session of its own; without, the payload itself is PID 1.

    *restart*: whether it is started again always, not only after a failure; how often at most, -1 for any number; and the signal
    from outside after which it is not. Nothing: never.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    init: bool = True
    restart: tuple[bool, int, int] | tuple[()] = ()

    def __str__(self) -> str:
        path = _quote(self.argv[0]) if self.argv else "NULL"
        env = "[" + ", ".join(_quote(f"{name}={value}") for name, value in self.env) + "]"
        call = f"execve({path}, {_strings(self.argv)}, {env})"
        if not self.init:
            return call
        again = ""
        if self.restart:
            always, most, stop = self.restart
            times = f", at most {most} times" if most >= 0 else ""
            again = f"; again{'' if always else ' after a failure'}{times}, until signal {stop}"
        return f"prctl(PR_SET_DUMPABLE, 0); posix_spawn → setsid(); {call}{again}"
