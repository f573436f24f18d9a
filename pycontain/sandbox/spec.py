"""What a sandbox shall be: a frozen value that knows the image's tree and nothing of how it is built up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pycontain.sandbox import capabilities
from pycontain.sandbox.limits import NO_CGROUP, Cgroup
from pycontain.sandbox.network import ALONE, Net
from pycontain.sandbox.paths import HostPath, RootPath

if TYPE_CHECKING:
    from pycontain.sandbox.devices import Device

# runtime-spec, config-linux: the paths that Docker and podman hide or protect.
MASKED_PATHS = tuple(
    RootPath(path)
    for path in (
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        "/sys/fs/selinux",
    )
)
READ_ONLY_PATHS = tuple(
    RootPath(path) for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
)
TOP = RootPath("/")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Secret:
    """Bytes that print as stars, compare as values and are never part of a plan."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Hand out the bytes."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"


@attrs.frozen
class Rootfs:
    """The read-only part of the root: layers of an overlay, topmost first, and trees of the host bound over it.

    *mode*, *uid* and *gid* are those of ``/`` as the container is to see it.
    """

    lowerdirs: tuple[HostPath, ...]
    binds: tuple[tuple[HostPath, RootPath], ...] = ()
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@attrs.frozen
class Mount:
    """A tree of the host inside the container; that of the named *volume*, which may be *fill*-ed from the image."""

    source: HostPath
    target: RootPath
    read_only: bool = False
    volume: str = ""
    fill: bool = False

    @property
    def because(self) -> str:
        """Which method asked for it."""
        return ".volume()" if self.volume else ".mount()"


@attrs.frozen
class VolumeMount:
    """A volume inside the container, without a name one that is a part of the writable layer and ends with it."""

    name: str
    target: RootPath
    read_only: bool = False
    copy: bool = True


@attrs.frozen
class Tmpfs:
    """A file system in memory inside the container; *size* in bytes, None for the kernel's default (half the RAM)."""

    target: RootPath
    size: int | None = None
    mode: int = 0o1777


@attrs.frozen
class File:
    """Content that is installed and is not part of the image. A secret without an *owner* is the payload's user's."""

    path: RootPath
    content: bytes | Secret = attrs.field(
        repr=lambda value: repr(value) if isinstance(value, Secret) else f"<{len(value)} bytes>"
    )
    mode: int = 0o644
    owner: tuple[int, int] | None = None

    @property
    def secret(self) -> bool:
        """Whether its content is one, so that it cannot be changed inside."""
        return isinstance(self.content, Secret)

    def reveal(self) -> bytes:
        """The bytes, also of a secret."""
        return self.content.reveal() if isinstance(self.content, Secret) else self.content


@attrs.frozen
class UserNamespace:
    """The user namespace of a container: one of its ``own``, with a range of ids, or that of the zygote, ``because``…

    Only root's containers have their own: an ordinary user's zygote is in one already, and is not root outside.
    """

    own: bool = False
    because: str = ""


SHARED = UserNamespace()


@attrs.frozen
class SandboxSpec:
    """Everything that a plan is compiled from, apart from the host."""

    rootfs: Rootfs
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = (("PATH", DEFAULT_PATH),)
    workdir: RootPath = TOP
    make_workdir: bool = False
    user: str = ""
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    scratch: tuple[Tmpfs, ...] = ()  # as tmpfs, but hides nothing that the image takes from the host
    devices: tuple[Device, ...] = ()
    volumes: tuple[RootPath, ...] = ()
    files: tuple[File, ...] = ()
    read_only: bool = False
    init: bool = True
    terminal: tuple[int, int] | None = None  # its columns and rows
    restart: tuple[bool, int, int] | tuple[()] = ()  # as the field of Execute
    privileged: bool = False
    landlock: bool = False
    capabilities: frozenset[str] = capabilities.DEFAULT
    masked_paths: tuple[RootPath, ...] = MASKED_PATHS
    read_only_paths: tuple[RootPath, ...] = READ_ONLY_PATHS
    rlimits: tuple[tuple[str, int, int], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    time_offset: tuple[int, int] | None = None  # of CLOCK_MONOTONIC and CLOCK_BOOTTIME, in nanoseconds
    layer_size: int | None = None
    left_out: tuple[str, ...] = ()
    cgroup: Cgroup = NO_CGROUP
    net: Net = ALONE
    userns: UserNamespace = SHARED
    seccomp: bytes | None = attrs.field(default=None, repr=False)
    pretending: bytes | None = attrs.field(default=None, repr=False)  # where one id is mapped, see single_id
    seccomp_name: str = "default"

    def contents(self) -> tuple[bytes, ...]:
        """The bytes of all that is installed: the files, then resolv.conf and what the hosts file has besides."""
        given = tuple(file.reveal() for file in self.files)
        if self.net.resolver is None and not self.net.hosts:
            return given
        return (*given, (self.net.resolver or "").encode(), self.net.hosts.encode())

    @property
    def own_volumes(self) -> tuple[RootPath, ...]:
        """The image's volumes where the user has put nothing of his own, nor a mount above, in which we make nothing."""
        mounted = [mount.target for mount in self.mounts]
        taken = {*mounted, *(tmpfs.target for tmpfs in self.tmpfs), *(file.path for file in self.files)}
        return tuple(
            path
            for path in self.volumes
            if path not in taken and not any(path.startswith(f"{place}/") for place in mounted)
        )

    @property
    def writable_volumes(self) -> tuple[RootPath, ...]:
        """Those that stay writable though the root is not: none where only places with an end may be written."""
        endless = self.scratch and self.layer_size is None
        return () if endless or not self.read_only else self.own_volumes
