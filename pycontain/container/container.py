"""``Container``: a value that describes, and the verbs that make it happen."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import attrs

from pycontain.container.door import (
    UNLIMITED,
    Door,
    matching,
    parse_capabilities,
    parse_container_path,
    parse_content,
    parse_file_mode,
    parse_host_path,
    parse_layer_size,
    parse_mapping,
    parse_offset,
    parse_restart,
    parse_rlimit,
    parse_target,
    parse_text,
    parse_tmpfs_size,
    parse_user,
    parse_variable_name,
    parse_window_size,
    unless_max,
)
from pycontain.container.lowering import (
    control_group,
    found_now,
    group_for,
    reasons,
    sandbox_spec,
    user_namespace,
)
from pycontain.container.spec import ContainerSpec, described
from pycontain.errors import InvalidSpec
from pycontain.process.prepared import Compiled, Prepared, Run
from pycontain.process.signals import parse_signal
from pycontain.process.starting import run_to_end, start
from pycontain.runtime import engine as engines
from pycontain.runtime.exchange import carry_out
from pycontain.runtime.loading import loading
from pycontain.sandbox import capabilities as caps
from pycontain.sandbox.devices import Device, parse_access
from pycontain.sandbox.limits import (
    Cgroup,
    difference,
    parse_limits,
)
from pycontain.sandbox.network import (
    LOOPBACK,
    ON_NETWORKS,
    PublishedPort,
    parse_address,
    parse_host_name,
    parse_host_port,
    parse_mode,
    parse_port,
    parse_protocol,
)
from pycontain.sandbox.paths import RootPath
from pycontain.sandbox.size import parse_size
from pycontain.sandbox.spec import (
    File,
    Mount,
    Secret,
    Tmpfs,
    VolumeMount,
)
from pycontain.sandbox.sysctl import parse_sysctl, parse_value

if TYPE_CHECKING:
    from pycontain.network import Network
    from pycontain.process import Completed, Running
    from pycontain.process.popen import Redirection
    from pycontain.runtime.exchange import Steps
    from pycontain.sandbox.image import RunnableImage
    from pycontain.sandbox.isolation import Isolation
    from pycontain.sandbox.limits import Disks, Pages
    from pycontain.sandbox.plan import Plan
    from pycontain.volume import Volume

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "stack",
)
_USERNS = ("auto", "private", "host")
_SCRATCH = (
    Tmpfs(RootPath("/run"), 16 << 20, 0o755),
    Tmpfs(RootPath("/tmp"), 64 << 20),
    Tmpfs(RootPath("/var/tmp"), 16 << 20),
)
_NEEDS_INIT = "restart needs the init: without it the payload is PID 1, and ends the container"


@attrs.frozen(repr=False)
class Description:
    """What describes a container: all of :class:`Container` but its verbs, which there are for threads and for event loops."""

    spec: ContainerSpec = attrs.field(converter=described)

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={field.repr(value) if callable(field.repr) else repr(value)}"
            for field in attrs.fields(ContainerSpec)[1:]
            if (value := getattr(self.spec, field.name)) != field.default
        ]
        return f"<Container {self.spec.image}{''.join(' ' + text for text in changed)}>"

    def _with(self, **changes: object) -> Self:
        return type(self)(attrs.evolve(self.spec, **changes))  # type: ignore[arg-type]

    # --- describing -------------------------------------------------------------------------------------

    def env(self, variables: Mapping[str, str] | None = None, /, **more: str) -> Self:
        """Set environment variables; a later value wins, also over the image's."""
        with Door() as door:
            given = (door.read(parse_mapping, variables) or {}) | more
            read = {
                door.read(parse_variable_name, name): door.read(parse_text, value)
                for name, value in given.items()
            }
        return self._with(env=tuple({**dict(self.spec.env), **read}.items()))

    def workdir(self, path: str) -> Self:
        """Start in *path*, an absolute path that exists in the container."""
        with Door() as door:
            parsed = door.read(parse_container_path, path)
        return self._with(workdir=parsed)

    def user(self, user: str | int) -> Self:
        """Run as ``name``, ``uid``, ``name:group`` or ``uid:gid``; names are those of the container's own files."""
        with Door() as door:
            parsed = door.read(parse_user, user)
        return self._with(user=parsed)

    def hostname(self, name: str) -> Self:
        """Set the host name, instead of the container's id."""
        with Door() as door:
            parsed = door.read(
                matching(_HOSTNAME, "host name of at most 64 letters, digits, dots and dashes"), name
            )
        return self._with(hostname=parsed)

    def name(self, name: str) -> Self:
        """Give what is started a name, for people."""
        with Door() as door:
            parsed = door.read(
                matching(_NAME, "name; use letters, digits, dots, dashes and underscores"), name
            )
        return self._with(name=parsed)

    def entrypoint(self, *argv: str) -> Self:
        """Replace the image's ENTRYPOINT, and with it its CMD; without arguments there is none."""
        with Door() as door:
            words = tuple(door.read(parse_text, word) for word in argv)
        return self._with(entrypoint=words)

    def mount(self, source: str | os.PathLike[str], target: str, *, read_only: bool = False) -> Self:
        """Show the host's *source*, a directory or a file, at *target*. A relative source is relative to now's directory.

        Whether it exists is seen when the container starts.
        """
        with Door() as door:
            mount = Mount(door.read(parse_host_path, source), door.read(parse_target, target), read_only)
            self._refuse_taken(door, mount.target)
        return self._with(mounts=(*self.spec.mounts, mount))

    def volume(
        self, volume: str | Volume | None, target: str, *, read_only: bool = False, copy: bool = True
    ) -> Self:
        """Mount the named *volume*, a text or a :class:`Volume`, at *target*; the start creates one that is missing.

        What the image has at *target* is copied into a volume that is still empty, unless *copy* is false or it is
        *read_only*. None is a volume without a name: it is a part of the writable layer, so it ends with the container,
        but stays writable when the root is read-only, and is no part of ``diff()`` and ``commit()``.
        """
        from pycontain.volume import parse_name  # noqa: PLC0415 - who has none pays nothing

        with Door() as door:
            name = "" if volume is None else door.read(parse_name, volume)
            place = door.read(parse_target, target)
            self._refuse_taken(door, place)
            door.refuse(not name and read_only, "a volume without a name is empty, so it cannot be read-only")
        return self._with(volumes=(*self.spec.volumes, VolumeMount(name, place, read_only, copy)))

    def tmpfs(self, target: str, *, size: str | int | None = None, mode: int = 0o1777) -> Self:
        """Mount an empty file system in memory at *target*, of at most *size* bytes (default: half of the RAM)."""
        with Door() as door:
            limit = None if size is None else door.read(parse_tmpfs_size, size)
            tmpfs = Tmpfs(door.read(parse_target, target), limit, door.read(parse_file_mode, mode))
            self._refuse_taken(door, tmpfs.target)
        return self._with(tmpfs=(*self.spec.tmpfs, tmpfs))

    def device(self, source: str, target: str | None = None, access: str = "rwm") -> Self:
        """Give it the host's device node *source*, at *target* or at the same path, to read, write and mknod as *access* says.

        Who may open it is said by the node's own mode and owner too. See the reference for what enforces *access*.
        """
        with Door() as door:
            place = door.read(parse_target, source if target is None else target)
            device = Device(door.read(parse_host_path, source), place, door.read(parse_access, access))
            self._refuse_taken(door, place)
        return self._with(devices=(*self.spec.devices, device))

    def file(self, path: str, content: str | bytes, *, mode: int = 0o644) -> Self:
        """Put a file with *content* at *path*. It is in memory, in no layer, and may be changed inside."""
        with Door() as door:
            target, read = door.read(parse_target, path), door.read(parse_content, content)
            mode = door.read(parse_file_mode, mode)
            self._refuse_taken(door, target)
        return self._with(files=(*self.spec.files, File(target, read, mode)))

    def secret(self, name: str, value: str | bytes) -> Self:
        """Put *value* at ``/run/secrets/NAME``: in memory, mode 0400, read-only, and in no repr, plan or log."""
        with Door() as door:
            door.read(
                matching(_NAME, "name for a secret; use letters, digits, dots, dashes and underscores"), name
            )
            target, read = RootPath(f"/run/secrets/{name}"), door.read(parse_content, value)
            self._refuse_taken(door, target)
        return self._with(files=(*self.spec.files, File(target, Secret(read), 0o400)))

    def read_only(self, on: bool = True, *, scratch: bool | None = None) -> Self:  # noqa: FBT001, FBT002 - .read_only() is the usual call
        """Make the root read-only; mounts, tmpfs and files keep what they are.

        With *scratch* there are places to write in memory, where nothing else is put: /tmp of 64 MiB, /var/tmp and /run of
        16 MiB each.
        """
        places = {} if scratch is None else {"scratch": _SCRATCH if scratch else ()}
        return self._with(read_only=on, **places)

    def init(self, on: bool) -> Self:  # noqa: FBT001 - the contract's name and form
        """Whether PID 1 is an init of ours (the default), or the payload itself."""
        with Door() as door:
            door.refuse(not on and self.spec.restart is not None, _NEEDS_INIT)
        return self._with(init=on)

    def restart(self, policy: str) -> Self:
        """Have the payload started again when it ends: ``always``, ``on-failure``, ``on-failure:3``, or ``no`` (the default).

        It is our init that does it, in the same container, after a pause of 0.1 to 60 seconds; ``stop()`` and a kill end it.
        """
        with Door() as door:
            parsed = door.read(parse_restart, policy)
            door.refuse(parsed is not None and not self.spec.init, _NEEDS_INIT)
        return self._with(restart=parsed)

    def tty(self, on: bool = True, *, columns: int = 80, rows: int = 24) -> Self:  # noqa: FBT001, FBT002 - .tty() is the usual call
        r"""Give the payload a terminal of its own, of so many *columns* and *rows*, instead of three pipes.

        Both outputs are one stream then, with ``\r\n`` at the ends of lines. ``Running.attach()`` is its other side.
        """
        with Door() as door:
            size = door.read(parse_window_size, columns), door.read(parse_window_size, rows)
        return self._with(tty=size if on else None)

    def health(
        self,
        *argv: str,
        interval: float | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        start_period: float | None = None,
        start_interval: float | None = None,
    ) -> Self:
        """Find out by a command inside whether the payload is well: one text for the shell, or a program and its arguments.

        It runs every *interval* seconds (30), may take *timeout* seconds (30), and after *retries* failures in a row (3) the container
        is unhealthy. Failures do not count for *start_period* seconds (0) after the start; until it is well for the first time it is
        run every *start_interval* seconds (1). Without a command there is none, also when the image has one. See ``Running.health``.
        """
        from pycontain.process.health import healthcheck  # noqa: PLC0415 - few ask for it

        return self._with(
            health=healthcheck(
                argv,
                interval=interval,
                timeout=timeout,
                retries=retries,
                start_period=start_period,
                start_interval=start_interval,
            )
        )

    def stop_signal(self, signal: str | int) -> Self:
        """The signal with which ``stop()`` asks the payload to end."""
        with Door() as door:
            parsed = door.read(parse_signal, signal)
        return self._with(stop_signal=parsed)

    def pull(self, policy: str) -> Self:
        """When to ask a registry for the image: ``missing`` (the default), ``always``, ``newer`` or ``never``."""
        from pycontain.image.remote import Policy  # noqa: PLC0415 - loads what only registries need

        return self._with(pull=str(Policy.parse(policy)))

    def platform(self, platform: str) -> Self:
        """Choose from an image of several platforms, such as ``"linux/arm64"``; without it, this machine's."""
        from pycontain.oci.platform import Platform  # noqa: PLC0415 - few ask for it

        with Door() as door:
            parsed = door.read(Platform.parse, platform)
        return self._with(platform=str(parsed))

    def label(self, labels: Mapping[str, str] | None = None, /, **more: str) -> Self:
        """Attach labels, for people and programs; they change nothing inside."""
        with Door() as door:
            given = (door.read(parse_mapping, labels) or {}) | more
            read = {
                door.read(parse_text, name): door.read(parse_text, value) for name, value in given.items()
            }
        return self._with(labels=tuple({**dict(self.spec.labels), **read}.items()))

    def capabilities(self, *, add: Iterable[str] = (), drop: Iterable[str] = ()) -> Self:
        """Take *drop* from the set so far (at first the default), then add *add*; ``"ALL"`` in either means all."""
        with Door() as door:
            added = [
                door.read(caps.parse_capability, name) for name in door.read(parse_capabilities, add) or ()
            ]
            dropped = [
                door.read(caps.parse_capability, name) for name in door.read(parse_capabilities, drop) or ()
            ]
        return self._with(capabilities=caps.granted(self.spec.capabilities, added, dropped))

    def privileged(self) -> Self:
        """Take the walls between root inside and the kernel away, for trusted programs that administer the machine.

        All capabilities, no seccomp filter, no masked or read-only paths, every device of the host, and set-user-ID programs
        work. Namespaces stay. As the machine's root, this is root of the machine to whoever wants to be. A later call, such
        as ``capabilities(drop=…)``, takes back what it names.
        """
        return self._with(privileged=True, capabilities=frozenset(caps.NAMES), seccomp="unconfined")

    def seccomp(self, profile: str | os.PathLike[str] | Mapping[str, object]) -> Self:
        """Filter system calls: ``"default"`` is Docker's profile for the capabilities granted, ``"unconfined"`` no filter.

        Anything else is a profile in Docker's format: a path to its JSON file, or the object that the file would hold.
        """
        if profile in ("default", "unconfined"):
            return self._with(seccomp=profile)
        from pycontain.sandbox.seccomp import parse_profile  # noqa: PLC0415 - costs 30 ms, needed by the first start only

        if isinstance(profile, Mapping):
            return self._with(seccomp=parse_profile(profile))
        try:
            with open(profile, "rb") as file:
                return self._with(seccomp=parse_profile(file.read()))
        except OSError as error:
            raise InvalidSpec(
                f"the seccomp profile {os.fspath(profile)!r} cannot be read: {error.strerror}",
                hint="name a JSON file, or one of default and unconfined",
            ) from error

    def landlock(self, on: bool = True) -> Self:  # noqa: FBT001, FBT002 - .landlock() is the usual call
        """Add Landlock as a second wall: no change of mounts, no device nodes, and with a read-only root no write but where one is meant.

        Commands of ``exec`` can then neither trace nor signal the payload. See the reference.
        """
        return self._with(landlock=on)

    def time_offset(self, *, monotonic: float = 0, boottime: float = 0) -> Self:
        """Shift the container's clocks since the start of the machine, CLOCK_MONOTONIC and CLOCK_BOOTTIME, by so many seconds.

        Time of day is the host's: Linux has no namespace for it.
        """
        with Door() as door:
            offset = door.read(parse_offset, monotonic), door.read(parse_offset, boottime)
        return self._with(time_offset=offset)

    def userns(self, mode: str) -> Self:
        """Choose whose ids those inside are, user_namespaces(7).

        ``"auto"``: as root, a range of ids for this container alone, and files keep their owners by idmapped mounts; where
        the host or the image cannot have that, the host's ids, and ``plan()`` says why. ``"private"`` is the same and
        raises :class:`HostUnsupported` instead. ``"host"``: root inside is root outside, behind the other walls.

        For an ordinary user all are the same: root inside is that user. With ``privileged()``, auto is host.
        """
        with Door() as door:
            door.refuse(mode not in _USERNS, f"{mode!r} is no user namespace; there are {', '.join(_USERNS)}")
        return self._with(userns=mode)

    def network(self, network: str | Network, *, aliases: Iterable[str] = (), ip: str | None = None) -> Self:
        """Choose what the container reaches: ``"none"``, ``"private"``, ``"host"``, or a :class:`Network`.

        ``none``, the default: nothing but itself. ``private``: the world, by translated addresses of IPv4; nobody from there,
        no other container and nothing that listens on the host reaches it, nor it them. ``host``: the host's network itself, with
        its loopback and its abstract sockets.

        A :class:`Network`: the containers that are on it, and unless it is internal the world. Further calls put the container on
        further networks. Others find it by its name and by *aliases*; *ip* is its address there.
        """
        before = self.spec.networking
        if not isinstance(network, str):
            from pycontain.network.network import parse_membership  # noqa: PLC0415 - who has none needs nothing of it

            membership = parse_membership(network, aliases, ip)
            others = tuple(each for each in before.networks if each.network is not network)
            return self._with(
                networking=attrs.evolve(before, mode=ON_NETWORKS, networks=(*others, membership))
            )
        with Door() as door:
            mode = door.read(parse_mode, network)
            door.refuse(ip is not None or aliases != (), "aliases and ip are for a Network")
        return self._with(networking=attrs.evolve(before, mode=mode, networks=()))

    def dns(self, *servers: str) -> Self:
        """Ask these name servers, in place of the host's."""
        with Door() as door:
            door.refuse(not servers, "no server is named")
            addresses = tuple(door.read(parse_address, server) for server in servers)
        return self._with(networking=attrs.evolve(self.spec.networking, dns=addresses))

    def hosts(self, names: Mapping[str, str] | None = None, /, **more: str) -> Self:
        """Add names with their addresses to /etc/hosts: ``.hosts({"db.example": "192.0.2.7"})``."""
        with Door() as door:
            given = (door.read(parse_mapping, names) or {}) | more
            read = {
                door.read(parse_host_name, name): door.read(parse_address, address)
                for name, address in given.items()
            }
        before = self.spec.networking
        return self._with(
            networking=attrs.evolve(before, hosts=tuple({**dict(before.hosts), **read}.items()))
        )

    def publish(
        self, port: int, host_port: int | None = None, *, host_ip: str = LOOPBACK, protocol: str = "tcp"
    ) -> Self:
        """Have *host_port* of the host lead to *port* inside; without one, any that is free, as ``Running.address()`` tells.

        Only this machine reaches it unless *host_ip* says otherwise: ``"0.0.0.0"`` and ``"::"`` are everybody. *protocol* is
        ``"tcp"`` or ``"udp"``. It works with every network, also none. The program inside sees ``127.0.0.1`` as its peer.
        """
        with Door() as door:
            published = PublishedPort(
                door.read(parse_port, port),
                door.read(parse_host_port, host_port),
                door.read(parse_address, host_ip),
                door.read(parse_protocol, protocol),
            )
        before = self.spec.networking
        return self._with(networking=attrs.evolve(before, published=(*before.published, published)))

    def rlimit(self, name: str, soft: int, hard: int | None = None) -> Self:
        """Set a limit of setrlimit(2), such as ``"nofile"``; *hard* is *soft* when not given, -1 means unlimited."""
        with Door() as door:
            door.refuse(name not in _LIMITS, f"{name!r} is no resource limit; there are {', '.join(_LIMITS)}")
            low = door.read(parse_rlimit, soft)
            top = low if hard is None else door.read(parse_rlimit, hard)
        with Door() as door:
            above = top != UNLIMITED and not UNLIMITED < low <= top
            door.refuse(above, f"the soft limit {name} is above the hard one")
        others = tuple(limit for limit in self.spec.rlimits if limit[0] != name)
        return self._with(rlimits=(*others, (name, low, top)))

    def sysctl(self, settings: Mapping[str, str | int] | None = None, /, **more: str | int) -> Self:
        """Set kernel settings of the container's own namespaces: ``{"net.ipv4.ip_unprivileged_port_start": 0}``.

        They are those of ``net.*``, ``fs.mqueue.*``, and of ``kernel`` the domain name and what belongs to System V IPC.
        """
        with Door() as door:
            given = (door.read(parse_mapping, settings) or {}) | more
            read = {
                door.read(parse_sysctl, name): door.read(parse_value, value) for name, value in given.items()
            }
        return self._with(sysctls=tuple({**dict(self.spec.sysctls), **read}.items()))

    def limits(
        self,
        *,
        memory: str | int | None = None,
        memory_high: str | int | None = None,
        swap: str | int | None = None,
        cpus: float | Literal["max"] | None = None,
        cpu_weight: int | None = None,
        cpuset: str | None = None,
        cpuset_mems: str | None = None,
        pids: int | Literal["max"] | None = None,
        io: Disks | None = None,
        io_weight: int | None = None,
        hugetlb: Pages | None = None,
        files: int | None = None,
        disk: str | int | None = None,
        output: str | int | None = None,
        required: bool = True,
    ) -> Self:
        """Limit what the container uses as a whole; what is None stays as it was, and "max" takes an earlier limit away.

        *memory* is the most, and *swap* what may be swapped out beside it; from *memory_high* on it is slowed down.
        *cpus* is a number of processors such as 0.5, *cpu_weight* the share when they are scarce (100 is everybody's),
        *cpuset* which of them, as ``"0-3"``, and *cpuset_mems* which nodes of memory. *pids* counts processes and
        threads, and the init of ours is one of them. *io* is bytes in a second for each disk, ``{"/dev/sda": "10M"}``, or its
        rates ``read_bps write_bps read_iops write_iops``; any path on the disk names it. *io_weight* is the share of busy disks,
        1 to 1000. *hugetlb* is bytes for each size of huge pages, ``{"2M": "64M"}``.
        *files* is the most open files of one process. *disk* is the most that the writable layer may hold, which is in memory then,
        and counts there while it is used. *output* is the most that is kept of each stream, whatever ``max_output`` says. The host must be able to keep all of it, else the start raises
        :class:`HostUnsupported`; unless *required*, what it cannot keep is left out, and ``plan()`` says so.
        """
        limits = parse_limits(
            self.spec.limits,
            memory=memory,
            memory_high=memory_high,
            swap=swap,
            cpus=cpus,
            cpu_weight=cpu_weight,
            cpuset=cpuset,
            cpuset_mems=cpuset_mems,
            pids=pids,
            io=io,
            io_weight=io_weight,
            hugetlb=hugetlb,
        )
        with Door() as door:
            layer = self.spec.disk if disk is None else door.read(unless_max(parse_layer_size), disk)
            kept = self.spec.output if output is None else door.read(unless_max(parse_size), output)
        limited = self._with(limits=limits, disk=layer, output=kept, limits_required=required)
        return limited if files is None else limited.rlimit("nofile", files)

    def untrusted(self, *, required: bool = True) -> Self:
        """The strictest useful set, in one word: for code that somebody else wrote.

        No capabilities; a read-only root, with /tmp (64 MiB), /var/tmp and /run (16 MiB each) in memory where nothing else is put
        there, and HOME in /tmp; the default seccomp filter, and Landlock; a user namespace of its own; 256 MiB of memory and no swap, 64 processes, 1,024 open
        files each, no core dumps; 16 MiB of each stream are kept; and no network, which is always so. Every later call changes what it
        names. What the host cannot keep refuses the start; unless *required*, it is left out, and ``explain()`` says so.
        """
        strict = self._with(
            privileged=False,
            capabilities=frozenset(),
            seccomp="default",
            userns="private" if required else "auto",
            landlock=True,
            read_only=True,
            scratch=_SCRATCH,
            networking=attrs.evolve(self.spec.networking, mode="none", networks=()),
        )
        if "HOME" not in dict(self.spec.env):
            strict = strict.env(HOME="/tmp")
        return strict.rlimit("core", 0).limits(
            memory="256M", swap=0, pids=64, files=1024, output="16M", required=required
        )

    def _refuse_taken(self, door: Door, target: RootPath) -> None:
        spec = self.spec
        taken = {
            *(mount.target for mount in spec.mounts),
            *(volume.target for volume in spec.volumes),
            *(tmpfs.target for tmpfs in spec.tmpfs),
            *(device.target for device in spec.devices),
            *(file.path for file in spec.files),
        }
        door.refuse(target in taken, f"there is already something at {target}")


@attrs.frozen(repr=False)
class Container(Description):
    r"""A container as a value: hashable, and unchanged by every method.

    *image* is a text such as ``"host:"`` or ``"rootfs:./tree"``. The builder methods return a new value; ``run``,
    ``start`` and ``plan`` use it.

    >>> from pycontain import Container
    >>> Container("host:").env(GREETING="hello").run("sh", "-c", "echo $GREETING").stdout
    'hello\n'
    """

    @overload
    def run(
        self,
        *argv: str,
        input: str | bytes | None = ...,
        timeout: float | None = ...,
        check: bool = ...,
        text: Literal[True] = ...,
        max_output: str | int = ...,
        profile: bool = ...,
    ) -> Completed[str]: ...

    @overload
    def run(
        self,
        *argv: str,
        input: str | bytes | None = ...,
        timeout: float | None = ...,
        check: bool = ...,
        text: Literal[False],
        max_output: str | int = ...,
        profile: bool = ...,
    ) -> Completed[bytes]: ...

    def run(
        self,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run gave it
        timeout: float | None = None,
        check: bool = False,
        text: bool = True,
        max_output: str | int = "64M",
        profile: bool = False,
    ) -> Completed[str] | Completed[bytes]:
        """Run to the end, and say how it went.

        *argv* replaces the image's CMD and is appended to its ENTRYPOINT. *timeout* (seconds) kills the container and
        raises :class:`CommandTimeout`; *check* raises :class:`CommandFailed` unless the exit code is 0. Of each stream
        *max_output* bytes are kept. *profile* fills ``timings.steps``. With *text* streams are UTF-8, and what is none becomes U+FFFD.
        """
        return carry_out(
            self._run(
                argv,
                input_=input,
                timeout=timeout,
                check=check,
                text=text,
                max_output=max_output,
                profile=profile,
            )
        )

    def _run(
        self,
        argv: tuple[str, ...],
        *,
        input_: str | bytes | None,
        timeout: float | None,
        check: bool,
        text: bool,
        max_output: str | int,
        profile: bool,
    ) -> Steps[Completed[Any]]:
        """What :meth:`run` does."""
        began = time.monotonic()
        run = Run.parse(
            input_=input_,
            timeout=timeout,
            text=text,
            max_output=max_output,
            profile=profile,
            most=self.spec.output,
        )
        prepared = self._prepare(argv)
        return (yield from run_to_end(prepared, run, check=check, began=began))

    def start(
        self,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - as in run
        stdin: Redirection = None,
        max_output: str | int = "64M",
    ) -> Running:
        """Start, and return once the payload runs. The result is a context manager: leaving the block kills and cleans.

        *stdin* is PIPE of :mod:`subprocess`, for a ``running.stdin`` to write bytes to, or a file or descriptor whose bytes the
        payload is to read; or *input* is all of it. Of each stream *max_output* bytes are kept for the result, and the last
        *max_output* of both for ``lines()``.
        """
        return carry_out(self._start(argv, input_=input, stdin=stdin, max_output=max_output))

    def _start(
        self,
        argv: tuple[str, ...],
        *,
        input_: str | bytes | None,
        stdin: Redirection,
        max_output: str | int,
    ) -> Steps[Running]:
        """What :meth:`start` does."""
        began = time.monotonic()
        run = Run.parse(input_=input_, timeout=None, text=True, max_output=max_output, most=self.spec.output)
        if input_ is not None and stdin is not None:
            raise InvalidSpec("there are both input and stdin", hint="give one of them")
        if self.spec.tty is not None and stdin is not None:
            raise InvalidSpec("what has a terminal has no stdin beside it", hint="use attach()")
        return (yield from start(self, self._prepare(argv), run, stdin, began=began))

    def plan(self, *argv: str) -> Plan:
        """The steps that ``run`` would take on this host. Nothing of them happens; the zygote is started to ask it."""
        prepared = self._prepare(argv)
        return attrs.evolve(
            prepared.plan.with_argv(prepared.argv), title=" ".join((str(self.spec.image), *prepared.argv))
        )

    def explain(self) -> Isolation:
        """The effective isolation on this host as data: every wall, whether it stands, and why not.

        It can be printed, iterated over, and is a table in a notebook. Nothing is started but the zygote, to ask it; what this host
        cannot keep, so that ``run`` would raise :class:`HostUnsupported`, is in ``refused``.
        """
        # What only a start needs, and what it does without.
        from pycontain.image.runnable import runnable  # noqa: PLC0415
        from pycontain.sandbox.compile import compile_plan  # noqa: PLC0415
        from pycontain.sandbox.isolation import isolation_of, network_walls, output_wall  # noqa: PLC0415

        engine = engines.engine()
        image = runnable(self.spec.image, engine, policy=self.spec.pull, platform=self.spec.platform)
        mode = "auto" if self.spec.userns == "private" else self.spec.userns
        lenient = attrs.evolve(self.spec, limits_required=False, userns=mode)
        userns = user_namespace(lenient, image, engine)
        group = control_group(lenient, engine, userns)
        sandbox = sandbox_spec(lenient, image, engine.facts, group, userns)
        plan = attrs.evolve(compile_plan(sandbox, engine.facts), title=str(self.spec.image))
        found = isolation_of(plan, dict(reasons(self.spec, plan.left_out, engine)))
        found = attrs.evolve(
            found, walls=(*found.walls, *network_walls(self.spec.networking), output_wall(self.spec.output))
        )
        refused = plan.left_out if self.spec.limits_required else ()
        shared = self.spec.userns == "private" and not (userns.own or engine.facts.rootless)
        return attrs.evolve(found, refused=(*refused, "userns") if shared else refused)

    def prepare_exec(
        self,
        running: Prepared,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str] | None,
        user: str | int | None,
        workdir: str | None,
        tty: bool,
    ) -> Prepared:
        """What :meth:`Running.exec` needs for a command beside *running*; not for others."""
        engine, image = running.engine, running.compiled.image
        changed = self if env is None else self.env(env)
        changed = changed if user is None else changed.user(user)
        changed = changed if workdir is None else changed.workdir(workdir)
        if tty != (changed.spec.tty is not None):
            changed = changed.tty(tty)
        key = ("exec", changed.spec, image)
        compiled: Compiled | None = engine.plans.get(key)
        if compiled is None:
            from pycontain.sandbox.compile import compile_exec  # noqa: PLC0415 - as in _prepare

            userns = running.compiled.sandbox.userns
            group = control_group(changed.spec, engine, userns)
            sandbox = attrs.evolve(
                sandbox_spec(changed.spec, image, engine.facts, group, userns), init=True, restart=()
            )
            compiled = Compiled.of(sandbox, compile_exec(sandbox, engine.facts), image)
            engine.remember(key, compiled)
        return compiled.prepare(engine, argv)

    def changed_limits(self, changed: Container, running: Prepared) -> Cgroup:
        """What has to be written into the group of *running*, which is of this value, to make it one of *changed*."""
        before, after = self.spec.limits, changed.spec.limits
        # What was left out is not there to be taken away.
        left_out = group_for(before, running.engine, required=False).left_out
        gone = {name: None for name in left_out if getattr(after, name) is None}
        different = difference(attrs.evolve(before, **gone), after)
        return group_for(different, running.engine, required=True)

    def compiled_on(self, image: RunnableImage, engine: engines.Engine) -> Compiled:
        """What a start on *image* needs, whatever image the value names; for builds, not for others."""
        from pycontain.sandbox.compile import compile_plan  # noqa: PLC0415 - what only a start needs

        userns = user_namespace(self.spec, image, engine)
        group = control_group(self.spec, engine, userns)
        sandbox = sandbox_spec(self.spec, image, engine.facts, group, userns)
        return Compiled.of(sandbox, compile_plan(sandbox, engine.facts), image)

    def _prepare(self, argv: tuple[str, ...]) -> Prepared:
        engine = engines.engine()
        # An image may get another tree under the same name at any time; the plan goes with the tree.
        with loading:
            from pycontain.image.runnable import runnable  # noqa: PLC0415 - what only a start needs is loaded by the first one
        image = runnable(self.spec.image, engine, policy=self.spec.pull, platform=self.spec.platform)
        key = (self.spec, image, *found_now(self.spec))
        compiled: Compiled | None = engine.plans.get(key)
        if compiled is None:
            compiled = self.compiled_on(image, engine)
            engine.remember(key, compiled)
        return compiled.prepare(
            engine, command_line(self.spec, compiled.image, argv), self.spec.networking, self.spec.name
        )


def command_line(spec: ContainerSpec, image: RunnableImage, argv: tuple[str, ...]) -> tuple[str, ...]:
    """ENTRYPOINT and CMD as Docker joins them: a new entrypoint forgets the image's command."""
    with Door() as door:
        words = tuple(door.read(parse_text, word) for word in argv)
    entrypoint = image.entrypoint if spec.entrypoint is None else spec.entrypoint
    command = words or (image.command if spec.entrypoint is None else ())
    line = (*entrypoint, *command)
    if not line:
        raise InvalidSpec(
            f"there is no command: {spec.image} has none of its own", hint="give one: .run('sh', '-c', '…')"
        )
    return line
