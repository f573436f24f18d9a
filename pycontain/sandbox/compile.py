"""From a spec and the host's facts to a plan. :func:`compile_plan` is the whole order, on one screen."""

from __future__ import annotations

import errno
from itertools import chain
from typing import TYPE_CHECKING

from pycontain.sandbox import capabilities
from pycontain.sandbox.landlock import SCOPES, handled, mask_of, rules, scopes
from pycontain.sandbox.paths import HostPath, RootPath, StagePath
from pycontain.sandbox.plan import Plan
from pycontain.sandbox.steps import (
    AllowLimit,
    AttachTree,
    AwaitNetwork,
    BindDevice,
    BindHosts,
    BindMount,
    BindSysfs,
    BringLoopbackUp,
    ChangeDirectory,
    Clone,
    CloneDevice,
    CloneTree,
    Content,
    DropBoundingSet,
    Execute,
    Fork,
    GivePipes,
    InstallFile,
    JoinCgroup,
    JoinNamespaces,
    JoinSessionKeyring,
    MakeDevice,
    MakeDirectory,
    MakeHostDevices,
    MakeLink,
    MapIds,
    MaskPath,
    MountFiles,
    MountFilesystem,
    MountFlags,
    MountLayer,
    MountOverlay,
    MountStage,
    MoveMount,
    Namespaces,
    OpenTerminal,
    PivotRoot,
    ReadOnlyPath,
    ReadOnlyRoot,
    ResolveUser,
    SetCapabilities,
    SetDomainname,
    SetHostname,
    SetIdentity,
    SetLandlock,
    SetNoNewPrivs,
    SetParentDeathSignal,
    SetResourceLimit,
    SetRootStatus,
    SetSeccomp,
    SetTimeOffset,
    Step,
    UnshareCgroup,
    WritablePath,
    WriteSysctl,
)
from pycontain.sandbox.sysctl import swapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.sandbox.host import HostFacts
    from pycontain.sandbox.spec import SandboxSpec, Tmpfs, UserNamespace

_NAMESPACES = (
    Namespaces.CLONE_NEWNS
    | Namespaces.CLONE_NEWPID
    | Namespaces.CLONE_NEWUTS
    | Namespaces.CLONE_NEWIPC
    | Namespaces.CLONE_NEWNET
)
_IDS = 65_536  # images use ids up to nobody, 65534
_CONFINED = MountFlags.MS_NOSUID | MountFlags.MS_NODEV | MountFlags.MS_NOEXEC

# runtime-spec, config-linux, "Default Devices": name, major, minor.
_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
# runtime-spec, runtime-linux, "Dev symbolic links", and /dev/ptmx of the container's own devpts.
_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)

_BYTES_PER_INODE = 4096
_ROOM_FOR_FILES = (
    16 << 20
)  # beside what is given, in steps: containers with few bytes have the same first steps
_LARGEST_PAGE = 64 << 10  # of a kernel for aarch64; a byte in a tmpfs takes one
_SECOND = 10**9  # in nanoseconds
_NEW_LAYER = (0o755, 0, 0)  # mode, owner and group with which a writable layer is made

_CGROUPS = RootPath("/sys/fs/cgroup")

# What moves from the stage to the root.
_STAGED = (RootPath("/proc"), RootPath("/sys"), RootPath("/dev"))


def compile_plan(spec: SandboxSpec, host: HostFacts) -> Plan:
    """The steps that start *spec* on *host*, in the order in which the kernel wants them.

    Everything up to the control group is the same for nearly every spec, so that a spare child can have done it in advance;
    see :meth:`Plan.prefix_length`.
    """
    return Plan(
        tuple(
            chain(
                namespaces(spec),
                stage(spec, host),
                devices(spec, host),
                sysctls(spec),
                nesting(spec),
                kernel_masks(spec),
                place_of_files(spec),
                bounding_set(spec, host),
                trees(spec),
                allowances(spec),
                cgroup(spec),
                clocks(spec),
                rootfs(spec, host),
                terminal(spec),
                mounts(spec),
                working_directory(spec),
                files(spec),
                read_only_root(spec),
                image_masks(spec),
                network(spec),
                pivot(),
                limits(spec),
                whereabouts(spec),
                privileges(spec, host),
                landlock(spec, host),
                seccomp(spec),
                payload(spec),
            )
        ),
        host,
        left_out=(*spec.cgroup.left_out, *spec.left_out),
        users=_users(spec.userns),
    )


def _users(userns: UserNamespace) -> str:
    if userns.own:
        return "own user namespace"
    return f"the host's user namespace ({userns.because})" if userns.because else ""


def namespaces(spec: SandboxSpec) -> Iterator[Step]:
    """A process in namespaces of its own, tied to the zygote's life."""
    own = "own mounts, processes, hostname, queues"
    what = f"{own}, and the host's network" if spec.net.shared else f"{own} and an empty network"
    flags = _namespaces(spec)
    if spec.userns.own:
        yield Clone(
            Namespaces.CLONE_NEWUSER | flags, because=f"{what}; all of it belongs to users of its own"
        )
        yield MapIds(_IDS, because="root inside is nobody outside, and nobody of another container")
    else:
        yield Clone(flags, because=what)
    yield SetParentDeathSignal(because="it ends with the zygote, which ends with the owner")
    yield from session_keyring()
    if not spec.net.shared:
        yield BringLoopbackUp(because="127.0.0.1 works inside")


def _namespaces(spec: SandboxSpec) -> Namespaces:
    return _NAMESPACES & ~Namespaces.CLONE_NEWNET if spec.net.shared else _NAMESPACES


def session_keyring() -> Iterator[Step]:
    """keyrings(7): a session keyring is inherited, and who has it has the keys in it."""
    yield JoinSessionKeyring(
        because="the owner's keys stay out of reach",
        # A kernel without keys; a container's seccomp around us, which keeps all of them from us (EPERM); and a user's
        # quota of keys, when the zygote's own, which is empty, is shared.
        tolerate=(errno.ENOSYS, errno.EPERM, errno.EDQUOT),
    )


def stage(spec: SandboxSpec, host: HostFacts) -> Iterator[Step]:
    """runtime-spec, config-linux, "Default Filesystems", in Docker's flavour; built where no image can interfere."""
    yield MountStage(because="what does not depend on the image is built apart from it")
    yield MountFilesystem(
        "proc", StagePath("/proc"), _CONFINED, because="runtime-spec: /proc of the own processes"
    )
    # In a user namespace nothing in there may be written anyway, and one of another container may show it read-only only.
    writable = spec.privileged and not host.rootless and not spec.userns.own
    flags = _CONFINED if writable else _CONFINED | MountFlags.MS_RDONLY
    if spec.net.shared and (host.rootless or spec.userns.own):
        yield BindSysfs(StagePath("/sys"), because='runtime-spec: /sys; .network("host") of a user namespace')
    else:
        yield MountFilesystem("sysfs", StagePath("/sys"), flags, because="runtime-spec: /sys")
    yield MountFilesystem(
        "tmpfs",
        StagePath("/dev"),
        MountFlags.MS_NOSUID | MountFlags.MS_STRICTATIME,
        "mode=755,size=65536k",
        because="runtime-spec: /dev with the few devices below",
    )


def devices(spec: SandboxSpec, host: HostFacts) -> Iterator[Step]:
    """What is in /dev."""
    for name, major, minor in _DEVICES:
        path = StagePath(f"/dev/{name}")
        if host.rootless or spec.userns.own:
            yield BindDevice(HostPath(f"/dev/{name}"), path, because="mknod(2) is not for user namespaces")
        else:
            yield MakeDevice(path, major, minor, because="runtime-spec: default device")
    if spec.privileged:
        yield MakeHostDevices(
            bound=host.rootless or spec.userns.own, because=".privileged(): every device of the host"
        )
    for target, link in _LINKS:
        yield MakeLink(target, StagePath(link), because="runtime-spec: default link")
    yield MakeDirectory(StagePath("/dev/pts"))
    yield MountFilesystem(
        "devpts",
        StagePath("/dev/pts"),
        MountFlags.MS_NOSUID | MountFlags.MS_NOEXEC,
        # gid=5 is tty in every image; with one mapped id there is no such group.
        "newinstance,ptmxmode=0666,mode=0620" + ("" if host.single_id else ",gid=5"),
        because="runtime-spec: own pseudo-terminals",
    )
    yield MakeDirectory(StagePath("/dev/shm"), 0o1777)
    yield MountFilesystem(
        "tmpfs",
        StagePath("/dev/shm"),
        _CONFINED,
        "mode=1777,size=65536k",
        because="shm_open(3), 64 MiB as in Docker",
    )
    yield MakeDirectory(StagePath("/dev/mqueue"))
    yield MountFilesystem("mqueue", StagePath("/dev/mqueue"), _CONFINED, because="mq_overview(7)")


def sysctls(spec: SandboxSpec) -> Iterator[Step]:
    """Settings of the own namespaces, before /proc/sys becomes read-only."""
    for name, value in spec.sysctls:
        if name == "kernel.domainname":
            yield SetDomainname(value, because=".sysctl()")
        else:
            yield WriteSysctl(StagePath(f"/proc/sys/{swapped(name)}"), value, because=".sysctl()")


def nesting(spec: SandboxSpec) -> Iterator[Step]:
    """user_namespaces(7): inside of one more a process has all capabilities, and with them more of the kernel to attack."""
    if spec.userns.own and "SYS_ADMIN" not in spec.capabilities:
        yield WriteSysctl(
            StagePath("/proc/sys/user/max_user_namespaces"),
            "0",
            because="no user namespaces inside; CAP_SYS_ADMIN would permit them, as in Docker's seccomp profile",
        )


def kernel_masks(spec: SandboxSpec) -> Iterator[Step]:
    """runtime-spec, config-linux: readonlyPaths and maskedPaths, as far as they lie in the kernel's own trees."""
    for path in filter(_is_of_the_kernel, spec.read_only_paths):
        # ENOENT: kernels differ in what they have here.
        yield ReadOnlyPath(StagePath(path), because="runtime-spec: readonlyPaths", tolerate=(errno.ENOENT,))
    masked = spec.masked_paths
    if spec.net.shared and not spec.privileged:
        masked = (*masked, _CGROUPS)  # which the host has mounted there
    for path in filter(_is_of_the_kernel, masked):
        yield MaskPath(StagePath(path), because="runtime-spec: maskedPaths", tolerate=(errno.ENOENT,))


def place_of_files(spec: SandboxSpec) -> Iterator[Step]:
    """Where the files lie that are installed later. Some can be written inside, so there is an end to it."""
    given = sum(-(-len(content) // _LARGEST_PAGE) * _LARGEST_PAGE for content in spec.contents())
    size = _ROOM_FOR_FILES * (1 + -(-given // _ROOM_FOR_FILES))
    yield MountFiles(f"mode=0700,size={size}", because="installed files are in memory and in no layer")


def _is_of_the_kernel(path: RootPath) -> bool:
    return path.startswith(("/proc/", "/sys/"))


def trees(spec: SandboxSpec) -> Iterator[Step]:
    """What a process in a user namespace cannot take from the host by itself: the layers, and what is bound."""
    if not spec.userns.own:
        return
    yield GivePipes(because="/dev/stdout can be opened again")
    folders = _folders(spec)
    for number, folder in enumerate(folders):
        yield CloneTree(number, folder, because="layers keep on disk the owners that the image says")
    if spec.layer_size is None:
        yield CloneTree(len(folders), None, because="so does the writable layer")
    # Who may mount may also remount: then what is read-only here would be written as its owner on the host.
    mighty = "SYS_ADMIN" in spec.capabilities
    binds = [
        (source, True, "part of the image, taken from the host", mighty) for source, _ in spec.rootfs.binds
    ]
    # What is written to a volume is the containers' own, and may be written.
    binds += [
        (mount.source, mount.read_only, mount.because, mighty and (mount.read_only or not mount.volume))
        for mount in spec.mounts
    ]
    for number, (source, read_only, reason, bare) in enumerate(binds, _first_bind(spec)):
        attributes = BindMount(source, RootPath("/"), read_only).attributes()
        because = f"{reason}; not idmapped, since CAP_SYS_ADMIN could make it writable" if bare else reason
        yield CloneTree(number, source, attributes, True, not bare, fallback=True, because=because)
    for number, device in enumerate(spec.devices, _first_bind(spec) + len(binds)):
        yield CloneDevice(number, device.source, because=".device()")


def _folder_of(lowerdir: HostPath) -> str:
    return lowerdir.rsplit("/", 2)[0]


def _folders(spec: SandboxSpec) -> tuple[HostPath, ...]:
    """What to clone so that all lower directories are in it: the store's folder of snapshots, when several are there."""
    lowerdirs = spec.rootfs.lowerdirs
    near = [_folder_of(path) for path in lowerdirs]
    return tuple(dict.fromkeys(
        HostPath(folder) if folder and near.count(folder) > 1 else path
        for path, folder in zip(lowerdirs, near, strict=True)
    ))  # fmt: skip


def _first_bind(spec: SandboxSpec) -> int:
    return len(_folders(spec)) + (spec.layer_size is None)


def cgroup(spec: SandboxSpec) -> Iterator[Step]:
    """cgroups(7): a group of its own for a container with limits, and for every one its own view of them."""
    if spec.cgroup.controllers:
        yield JoinCgroup(spec.cgroup.controllers, spec.cgroup.writes, because=".limits()")
    # cgroup_namespaces(7): the group at this moment becomes the root of the view, so this comes after.
    yield UnshareCgroup(
        because="own cgroup view; not part of the clone, since a spare child joins its group late"
    )


def clocks(spec: SandboxSpec) -> Iterator[Step]:
    """time_namespaces(7)."""
    if spec.time_offset is not None:
        # time_namespaces(7): seconds, and nanoseconds that are not negative.
        lines = [
            f"{clock} {offset // _SECOND} {offset % _SECOND}"
            for clock, offset in zip(("monotonic", "boottime"), spec.time_offset, strict=True)
        ]
        yield SetTimeOffset("\n".join(lines), because=".time_offset()")


def rootfs(spec: SandboxSpec, host: HostFacts) -> Iterator[Step]:
    """The layers, a writable one on top, what the image takes from the host, and what was staged."""
    # overlayfs: a user namespace may not set trusted.* attributes, so whiteouts use user.* (Linux 5.11). What the layer
    # holds need not outlive the container: unless volatile, its end would write back all of the disk that it is on.
    options = ("userxattr",) * (host.rootless or spec.userns.own) + ("volatile",) * host.layers_volatile
    if spec.layer_size is not None:
        # tmpfs(5): the size counts no inodes, and an empty file is one.
        bounds = f"mode=0700,size={spec.layer_size},nr_inodes={spec.layer_size // _BYTES_PER_INODE}"
        yield MountLayer(bounds, because=".limits(disk=): a file system with an end, in memory")
    layers: tuple[tuple[int, str], ...] = ()
    layer = -1
    if spec.userns.own:
        layers, layer = _layers(spec), -1 if spec.layer_size is not None else len(_folders(spec))
    yield MountOverlay(
        spec.rootfs.lowerdirs,
        options,
        layers,
        layer,
        init=layer >= 0 or not spec.userns.own,
        because="image below, this container's writable layer on top",
    )
    if (spec.rootfs.mode, spec.rootfs.uid, spec.rootfs.gid) != _NEW_LAYER:
        yield SetRootStatus(
            spec.rootfs.mode, spec.rootfs.uid, spec.rootfs.gid, because="/ is as the image has it"
        )
    for tmpfs in spec.scratch:
        yield _tmpfs(tmpfs, ".untrusted(): a place that can be written")
    for number, (source, target) in enumerate(spec.rootfs.binds, _first_bind(spec)):
        bind = BindMount(source, target, read_only=True, because="part of the image, taken from the host")
        yield AttachTree(number, target, because=bind.because) if spec.userns.own else bind
    for path in _STAGED:
        yield MoveMount(path, because="from the stage, with what is mounted below")


def terminal(spec: SandboxSpec, *, console: bool = True) -> Iterator[Step]:
    """Before the user's mounts, which might cover /dev."""
    if spec.terminal is not None:
        yield OpenTerminal(
            *spec.terminal,
            console=console,
            lead=not spec.init,
            because="a terminal of its own; the owner's is out of reach",
        )


def _layers(spec: SandboxSpec) -> tuple[tuple[int, str], ...]:
    """Each lower directory by the number of its tree and its name in there."""
    folders = _folders(spec)
    found = []
    for path in spec.rootfs.lowerdirs:
        tree = path if path in folders else HostPath(_folder_of(path))
        found.append((folders.index(tree), path[len(tree) + 1 :]))
    return tuple(found)


def mounts(spec: SandboxSpec) -> Iterator[Step]:
    """What the user mounts, and the image's volumes: parents before children, whatever the order of the calls."""
    wanted: list[tuple[RootPath, Step]] = []
    first = _first_bind(spec) + len(spec.rootfs.binds)
    for number, mount in enumerate(spec.mounts, first):
        bind = BindMount(mount.source, mount.target, mount.read_only, because=mount.because)
        tree = AttachTree(number, mount.target, because=bind.because)
        wanted.append((mount.target, tree if spec.userns.own else bind))
    wanted += [(tmpfs.target, _tmpfs(tmpfs, ".tmpfs()")) for tmpfs in spec.tmpfs]
    for number, device in enumerate(spec.devices, first + len(spec.mounts)):
        node = BindDevice(device.source, device.target, because=".device()")
        tree = AttachTree(number, device.target, because=node.because)
        wanted.append((device.target, tree if spec.userns.own else node))
    wanted += [(path, volume(path, spec)) for path in spec.own_volumes]
    yield from (step for _, step in sorted(wanted, key=lambda pair: pair[0].split("/")))


def volume(path: RootPath, spec: SandboxSpec) -> Step:
    """Docker makes an anonymous volume, which has the image's content, is writable, and may end with the container."""
    reason = "image-spec: config.Volumes"
    if path in spec.writable_volumes:
        return WritablePath(path, because=f"{reason}, which stay writable")
    return MakeDirectory(path, because=reason)


def _tmpfs(tmpfs: Tmpfs, reason: str) -> Step:
    size = f",size={tmpfs.size}" if tmpfs.size is not None else ""
    return MountFilesystem(
        "tmpfs", tmpfs.target, _CONFINED, f"mode={tmpfs.mode:04o}{size}", follow=True, because=reason
    )


def working_directory(spec: SandboxSpec) -> Iterator[Step]:
    """An image may name a directory that it does not hold."""
    if spec.make_workdir and spec.workdir != "/":
        yield MakeDirectory(spec.workdir, because="image-spec: config.WorkingDir is made when it is missing")


_OWN_FILES = (
    (RootPath("/etc/hostname"), Content.HOSTNAME, "as Docker does"),
    (RootPath("/etc/hosts"), Content.HOSTS, "localhost and the own name resolve"),
    (
        RootPath("/etc/resolv.conf"),
        Content.RESOLVER,
        "resolv.conf(5): without a network no name server answers",
    ),
)


def _own_file(path: RootPath, content: Content, reason: str, spec: SandboxSpec) -> Step:
    net, first = spec.net, len(spec.files)
    match content:
        case Content.RESOLVER if net.resolver is not None:
            size = len(net.resolver.encode())
            return InstallFile(
                path, size, first, because="resolv.conf(5): the host's name servers, or those of .dns()"
            )
        case Content.HOSTS if net.live:
            return BindHosts(path, because="hosts(5): who is on its networks, kept by the owner")
        case Content.HOSTS if net.hosts:
            return InstallFile(
                path, 0, first + 1, content=content, because=f"{reason}, and those of .hosts()"
            )
    return InstallFile(path, 0, content=content, because=reason)


_APT = RootPath("/etc/apt/apt.conf.d/zz-pycontain")


def _is_covered(path: RootPath, spec: SandboxSpec) -> bool:
    """Whether the user has put a file or tree of his own at *path* or above, which is then left as it is."""
    taken = [*(mount.target for mount in spec.mounts), *(file.path for file in spec.files)]
    return any(path == place or path.startswith(f"{place}/") for place in taken)


def files(spec: SandboxSpec) -> Iterator[Step]:
    """Files that every container gets, then the user's."""
    yield SetHostname(spec.hostname, because="uts namespace; two of the files name it")
    for path, content, reason in _OWN_FILES:
        if not _is_covered(path, spec):
            yield _own_file(path, content, reason, spec)
    if spec.pretending is not None and not _is_covered(_APT, spec):
        yield InstallFile(
            _APT,
            0,
            content=Content.APT,
            parents=False,
            because="one id is mapped: apt looks whether it has become _apt",
            tolerate=(errno.ENOENT,),  # an image without apt
        )
    for place, file in enumerate(spec.files):
        yield InstallFile(
            file.path,
            len(file.reveal()),
            place,
            file.mode,
            read_only=file.secret,
            secret=file.secret and file.owner is None,
            owner=file.owner or (),
            because=".secret()" if file.secret else ".file()",
        )


def read_only_root(spec: SandboxSpec) -> Iterator[Step]:
    """Last of the mounts, since their targets may have to be made."""
    if spec.read_only:
        yield ReadOnlyRoot(because=".read_only()")


def image_masks(spec: SandboxSpec) -> Iterator[Step]:
    """Protected and hidden paths outside of the kernel's trees."""
    for path in spec.read_only_paths:
        if not _is_of_the_kernel(path):
            yield ReadOnlyPath(
                path, because="runtime-spec: readonlyPaths", tolerate=(errno.ENOENT,)
            )  # as above
    for path in spec.masked_paths:
        if not _is_of_the_kernel(path):
            yield MaskPath(path, because="runtime-spec: maskedPaths", tolerate=(errno.ENOENT,))  # as above


def network(spec: SandboxSpec) -> Iterator[Step]:
    """As late as the payload can do without: the owner connects it while the root is mounted."""
    if spec.net.connected:
        yield AwaitNetwork(because="the payload finds its network connected")


def pivot() -> Iterator[Step]:
    """From here on a path is a path of the container."""
    yield PivotRoot(because="nothing of the host can be named any more")


def whereabouts(spec: SandboxSpec) -> Iterator[Step]:
    """Who the payload is and where it starts."""
    yield ResolveUser(spec.user, because="image-spec: config.User, names of the container's own files")
    yield ChangeDirectory(spec.workdir, because="image-spec: config.WorkingDir")


def allowances(spec: SandboxSpec) -> Iterator[Step]:
    """CAP_SYS_RESOURCE of a container's own user namespace raises nothing."""
    if spec.userns.own:
        for resource, _, hard in spec.rlimits:
            yield AllowLimit(resource, hard, because=".rlimit(): the owner may, and root inside may not")


def limits(spec: SandboxSpec) -> Iterator[Step]:
    """setrlimit(2), while we may still raise what we may."""
    for resource, soft, hard in spec.rlimits:
        yield SetResourceLimit(resource, soft, hard, because=".rlimit()")


def bounding_set(spec: SandboxSpec, host: HostFacts) -> Iterator[Step]:
    """capabilities(7): while CAP_SETPCAP is there."""
    yield DropBoundingSet(_known(spec, host), because="nothing that is executed can gain more")


def _known(spec: SandboxSpec, host: HostFacts) -> frozenset[str]:
    return frozenset(
        name for name in spec.capabilities if capabilities.NAMES.index(name) <= host.last_capability
    )


def privileges(spec: SandboxSpec, host: HostFacts) -> Iterator[Step]:
    """capabilities(7): ids while CAP_SETUID is there, then the rest."""
    # user_namespaces(7): a single-id map is written after setgroups(2) was denied for good.
    yield SetIdentity(setgroups=not host.single_id, because="image-spec: config.User")
    yield SetCapabilities(_known(spec, host), because="podman's default set, or what .capabilities() says")
    yield SetParentDeathSignal(because="prctl(2): a change of credentials cleared it")
    if not spec.privileged or spec.seccomp is not None or spec.pretending is not None or spec.landlock:
        yield SetNoNewPrivs(because="set-user-ID programs of the image gain nothing; seccomp needs it")


def landlock(spec: SandboxSpec, host: HostFacts) -> Iterator[Step]:
    """landlock(7): places as the payload sees them, so after the pivot."""
    if not spec.landlock:
        return
    allowed = tuple((str(path), mask_of(rights)) for path, rights in rules(spec, host.landlock))
    yield SetLandlock(
        mask_of(handled(host.landlock)),
        mask_of(scopes(host.landlock), SCOPES),
        allowed,
        because="a second wall: no changes but where they are meant, and none of mounts",
    )


def seccomp(spec: SandboxSpec) -> Iterator[Step]:
    """The last wall before the payload, so that none of our own calls needs to pass it."""
    if spec.pretending is not None:
        # seccomp(2): of equal answers the later filter's counts, and this one lets every filter be added.
        yield SetSeccomp(
            spec.pretending,
            "pretending",
            because="one id is mapped: chown(2), setuid(2) and their kin say 0 and do nothing",
        )
    if spec.seccomp is not None:
        yield SetSeccomp(spec.seccomp, spec.seccomp_name, because="the kernel's surface is what Docker's is")


def payload(spec: SandboxSpec) -> Iterator[Step]:
    """The end of the plan."""
    reason = "we are PID 1: forward, reap, report" if spec.init else ".init(False): the payload is PID 1"
    yield Execute(spec.argv, spec.env, spec.init, spec.restart, because=reason)


def compile_exec(spec: SandboxSpec, host: HostFacts) -> Plan:
    """The steps that run one more command in a running container of *spec*, with *spec*'s own user, limits and walls."""
    return Plan(
        tuple(
            chain(
                join(spec),
                bounding_set(spec, host),
                give_pipes(spec),
                allowances(spec),
                join_cgroup(spec),
                limits(spec),
                terminal(spec, console=False),
                whereabouts(spec),
                privileges(spec, host),
                landlock(spec, host),
                seccomp(spec),
                payload(spec),
            )
        ),
        host,
    )


def join(spec: SandboxSpec) -> Iterator[Step]:
    """A process in the container's PID namespace, then in all its others."""
    yield Fork(because="born in the container's pid namespace, where it can be traced to us")
    yield SetParentDeathSignal(because="it ends with the zygote, which ends with the owner")
    namespaces = _namespaces(spec) & ~Namespaces.CLONE_NEWPID | Namespaces.CLONE_NEWCGROUP
    if spec.userns.own:
        namespaces |= Namespaces.CLONE_NEWUSER
    if spec.time_offset is not None:
        namespaces |= Namespaces.CLONE_NEWTIME
    yield JoinNamespaces(namespaces, because="sees what the container sees; its root is the container's")
    yield from session_keyring()


def give_pipes(spec: SandboxSpec) -> Iterator[Step]:
    """As at the start."""
    if spec.userns.own:
        yield GivePipes(because="/dev/stdout can be opened again")


def join_cgroup(spec: SandboxSpec) -> Iterator[Step]:
    """What is executed in a container counts against its limits."""
    if spec.cgroup.controllers:
        yield JoinCgroup(spec.cgroup.controllers, make=False, because="the limits are the container's")
