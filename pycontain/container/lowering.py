"""From what a container shall be to what it is on this host: a :class:`SandboxSpec`, and the reasons for what is not.

Whatever depends on the host is decided here: which control group there can be, whose user namespace, which walls stand.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.network.resolver import net_of
from pycontain.runtime.disks import disk_of, no_weights, number_of, weighers
from pycontain.runtime.loading import loading
from pycontain.sandbox.devices import DEFAULT, Device, Rule, needs_list, with_list
from pycontain.sandbox.landlock import LEAST_VERSION
from pycontain.sandbox.limits import CONTROLLERS, NO_CGROUP, NO_LIMITS, Cgroup, Limits, cgroup_of, writes
from pycontain.sandbox.paths import HostPath
from pycontain.sandbox.spec import (
    MASKED_PATHS,
    READ_ONLY_PATHS,
    SHARED,
    Mount,
    SandboxSpec,
    Tmpfs,
    UserNamespace,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.container import ContainerSpec
    from pycontain.runtime.engine import Engine
    from pycontain.sandbox.host import HostFacts
    from pycontain.sandbox.image import RunnableImage

_TERMINAL_ENV = {"TERM": "xterm"}  # as docker run -t
_USER_XATTRS_IN_MEMORY = (6, 6)  # tmpfs(5)


def seccomp_program(spec: ContainerSpec, host: HostFacts) -> bytes | None:
    """The filter for the capabilities that *spec* grants, on this architecture and kernel."""
    if spec.seccomp == "unconfined":
        return None
    with loading:
        from pycontain.sandbox.seccomp_default import default_profile  # noqa: PLC0415 - as in Container.seccomp
        from pycontain.sandbox.seccomp_filter import compile_profile  # noqa: PLC0415

    profile = default_profile() if isinstance(spec.seccomp, str) else spec.seccomp
    return compile_profile(
        profile, capabilities=spec.capabilities, architecture=host.machine, kernel=host.kernel
    )


def pretending_program(spec: ContainerSpec, host: HostFacts) -> bytes | None:
    """The filter that lets package managers work where one id is mapped; not where no filter was asked for."""
    if not host.single_id or spec.seccomp == "unconfined":
        return None
    from pycontain.sandbox.single_id import pretending_filter  # noqa: PLC0415 - as in seccomp_program

    return pretending_filter(host)


def control_group(spec: ContainerSpec, engine: Engine, userns: UserNamespace = SHARED) -> Cgroup:
    """The group that keeps the limits and the devices of *spec* on this host, or :class:`HostUnsupported` when it cannot."""
    group = group_for(spec.limits, engine, required=spec.limits_required)
    inside = engine.facts.rootless or userns.own
    if not spec.privileged and needs_list(spec.capabilities, spec.devices, user_namespace=inside):
        return _with_device_list(group, spec, engine)
    return group


def _with_device_list(group: Cgroup, spec: ContainerSpec, engine: Engine) -> Cgroup:
    access = engine.access()
    version = None if engine.facts.rootless else access.versions().get("devices")
    if version is not None:
        return with_list(group, (*DEFAULT, *filter(None, map(_rule_of, spec.devices))), version)
    if not spec.limits_required:
        return attrs.evolve(group, left_out=(*group.left_out, "devices"))
    if engine.facts.rootless:
        raise HostUnsupported(
            "a device with a part of its access",
            needs="root: only the machine's may tell a control group which devices it has",
            found=f"uid {engine.facts.euid}",
            hint='give the device with "rwm", or run as root',
        )
    raise access.refusal("devices", "a list of the devices that may be opened")


def _rule_of(device: Device) -> Rule | None:
    """The numbers of the node as they are now. Whether there is one is seen by the start."""
    try:
        found = os.stat(device.source)
    except OSError:
        return None
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
    return Rule(kind, os.major(found.st_rdev), os.minor(found.st_rdev), device.access)


def group_for(limits: Limits, engine: Engine, *, required: bool) -> Cgroup:
    """The group that keeps *limits*; unless *required*, what the host cannot keep is left out."""
    if limits == NO_LIMITS:
        return NO_CGROUP
    access = engine.access()
    versions = access.versions()
    if limits.io and "io" in versions:
        disks = tuple(attrs.evolve(disk, device=disk_of(disk.device)) for disk in limits.io)
        limits = attrs.evolve(limits, io=disks)
    files = weighers(versions["io"]) if limits.io_weight is not None and "io" in versions else ()
    group = cgroup_of(limits, versions, files)
    if group.left_out and required:
        missing = {CONTROLLERS[name] for name in group.left_out} - versions.keys()
        if missing:
            raise access.refusal(min(missing))
        writes(
            limits, versions
        )  # which raises, for a limit that its controller does not have in this version
        raise no_weights()
    return group


def found_now(spec: ContainerSpec) -> tuple[object, ...]:
    """What the plan of *spec* depends on, and the next start may find changed: then it is compiled anew."""
    found: list[object] = [number_of(disk.device) for disk in spec.limits.io or ()]
    if spec.limits.io_weight is not None:
        found.append(weighers(2))
    if any(volume.name for volume in spec.volumes):
        from pycontain.volume import folder  # noqa: PLC0415 - as below

        found.append(folder())
    return tuple(found)


def reasons(spec: ContainerSpec, left_out: Iterable[str], engine: Engine) -> Iterator[tuple[str, str]]:
    """Of what is *left_out*, why this host cannot keep it."""
    strict = attrs.evolve(spec, limits_required=True)
    for name in left_out:
        try:
            match name:
                case "disk":
                    layer_limit(strict, engine.facts)
                case "landlock":
                    landlock_on(strict, engine.facts)
                case "devices":
                    _with_device_list(NO_CGROUP, strict, engine)
                case _:
                    alone = attrs.evolve(NO_LIMITS, **{name: getattr(spec.limits, name)})
                    group_for(alone, engine, required=True)
        except HostUnsupported as error:
            yield name, str(error)


def user_namespace(spec: ContainerSpec, image: RunnableImage, engine: Engine) -> UserNamespace:
    """Whether the container has a user namespace of its own, and if not, why; :class:`HostUnsupported` when it must."""
    if engine.facts.rootless:
        return SHARED
    if spec.userns == "host":
        return UserNamespace(because='.userns("host")')
    if spec.privileged and spec.userns == "auto":
        return UserNamespace(because=".privileged()")
    refusal = _userns_refusal(spec, image, engine)
    if refusal and spec.userns == "private":
        raise HostUnsupported(
            'a user namespace for each container (.userns("private"))',
            needs="Linux 5.19, and an image and a state folder on file systems that can be idmapped",
            found=refusal,
            hint='see pycontain.doctor(); .userns("auto") does without where it must',
        )
    return UserNamespace(own=not refusal, because=refusal)


def _userns_refusal(spec: ContainerSpec, image: RunnableImage, engine: Engine) -> str:
    host = engine.facts
    if host.userns_refusal:
        return host.userns_refusal
    if spec.disk is not None and host.kernel < _USER_XATTRS_IN_MEMORY:
        return f"limits(disk=) in a user namespace needs Linux 6.6, and this is {host.kernel[0]}.{host.kernel[1]}"
    lowerdirs = image.rootfs.lowerdirs
    if any(volume.name for volume in spec.volumes):
        from pycontain.volume import folder  # noqa: PLC0415 - as below

        lowerdirs = (*lowerdirs, HostPath(folder()))
    for path, possible in zip(lowerdirs, engine.idmaps(lowerdirs), strict=True):
        if not possible:
            return f"the file system of {path} cannot be idmapped"
    return ""


def layer_limit(spec: ContainerSpec, host: HostFacts) -> tuple[int | None, tuple[str, ...]]:
    """The size of the writable layer, and what of it this host cannot keep; :class:`HostUnsupported` when it must."""
    if spec.disk is None or not host.rootless or host.kernel >= _USER_XATTRS_IN_MEMORY:
        return spec.disk, ()
    if spec.limits_required:
        raise HostUnsupported(
            "a limit on the writable layer (disk=) in a user namespace",
            needs="Linux 6.6, where tmpfs holds what overlayfs writes there",
            found=f"Linux {host.kernel[0]}.{host.kernel[1]}",
            hint="run as root, or use .read_only() and .tmpfs(size=…)",
        )
    return None, ("disk",)


def landlock_on(spec: ContainerSpec, host: HostFacts) -> tuple[bool, tuple[str, ...]]:
    """Whether Landlock is to be used, and what of it this host cannot do; :class:`HostUnsupported` when it must."""
    if not spec.landlock or host.landlock >= LEAST_VERSION:
        return spec.landlock, ()
    if spec.limits_required:
        raise HostUnsupported(
            "Landlock",
            needs=f"version {LEAST_VERSION} of it (Linux 5.19), switched on",
            found=f"version {host.landlock}" if host.landlock else "none",
            hint="boot with lsm=landlock, before what lsm= names now; or leave .landlock() out",
        )
    return False, ("landlock",)


def _named_volumes(spec: ContainerSpec) -> Iterator[Mount]:
    if spec.volumes:
        from pycontain.volume import data_of  # noqa: PLC0415 - who has none pays nothing

        for volume in spec.volumes:
            if volume.name:
                source = HostPath(data_of(volume.name))
                fill = volume.copy and not volume.read_only
                yield Mount(source, volume.target, volume.read_only, volume.name, fill)


def _scratch(spec: ContainerSpec) -> Iterator[Tmpfs]:
    """The places in memory that the user has put nothing at, nor a tree of his own above."""
    trees = {
        *(mount.target for mount in spec.mounts),
        *(volume.target for volume in spec.volumes),
        *(tmpfs.target for tmpfs in spec.tmpfs),
    }
    for tmpfs in spec.scratch:
        if not any(f"{tmpfs.target}/".startswith(f"{tree}/") for tree in trees):
            yield tmpfs


def _refuse_changes_of_the_host(spec: ContainerSpec) -> None:
    """With the host's network, its settings and its ports are the host's."""
    problems = [
        f".sysctl({name!r}) would change the host's network"
        for name, _ in spec.sysctls
        if name.startswith("net.")
    ]
    problems += [
        f"{port} cannot be published: every port is the host's" for port in spec.networking.published
    ]
    if spec.networking.mode == "host" and problems:
        raise InvalidSpec(tuple(problems), hint='leave them out, or choose .network("private")')


def _restart(spec: ContainerSpec, image: RunnableImage) -> tuple[bool, int, int] | tuple[()]:
    if spec.restart is None:
        return ()
    from pycontain.process.signals import signal_number  # noqa: PLC0415 - few ask for it

    always, most = spec.restart
    return always, most, signal_number(spec.stop_signal or image.stop_signal)


def sandbox_spec(
    spec: ContainerSpec,
    image: RunnableImage,
    host: HostFacts,
    cgroup: Cgroup = NO_CGROUP,
    userns: UserNamespace = SHARED,
) -> SandboxSpec:
    """What the image says, overridden by what the container says."""
    _refuse_changes_of_the_host(spec)
    layer_size, without_limit = layer_limit(spec, host)
    landlock, without_landlock = landlock_on(spec, host)
    return SandboxSpec(
        rootfs=image.rootfs,
        env=tuple({**(_TERMINAL_ENV if spec.tty else {}), **dict(image.env), **dict(spec.env)}.items()),
        workdir=spec.workdir or image.workdir,
        user=image.user if spec.user is None else spec.user,
        hostname=spec.hostname,
        mounts=(*spec.mounts, *_named_volumes(spec)),
        tmpfs=spec.tmpfs,
        scratch=tuple(_scratch(spec)),
        devices=spec.devices,
        volumes=tuple(
            dict.fromkeys((*image.volumes, *(volume.target for volume in spec.volumes if not volume.name)))
        ),
        files=spec.files,
        read_only=spec.read_only,
        init=spec.init,
        terminal=spec.tty,
        restart=_restart(spec, image),
        privileged=spec.privileged,
        landlock=landlock,
        time_offset=spec.time_offset,
        capabilities=spec.capabilities,
        masked_paths=image.masked_paths if spec.privileged else (*MASKED_PATHS, *image.masked_paths),
        read_only_paths=() if spec.privileged else READ_ONLY_PATHS,
        rlimits=spec.rlimits,
        sysctls=spec.sysctls,
        layer_size=layer_size,
        left_out=(*without_limit, *without_landlock),
        make_workdir=spec.workdir
        is None,  # image-spec's WorkingDir is made, as Docker does; a user's own must be there
        cgroup=cgroup,
        net=net_of(spec.networking),
        userns=userns,
        seccomp=seccomp_program(spec, host),
        pretending=pretending_program(spec, host),
        seccomp_name=spec.seccomp if isinstance(spec.seccomp, str) else "given",
    )
