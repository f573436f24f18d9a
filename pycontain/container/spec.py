"""What a container shall be, as one frozen value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pycontain.errors import InvalidSpec
from pycontain.oci.source import Source, parse_source
from pycontain.sandbox import capabilities as caps
from pycontain.sandbox.limits import NO_LIMITS, Limits
from pycontain.sandbox.network import NO_NETWORKING, Networking

if TYPE_CHECKING:
    from typing import Protocol

    from pycontain.image.runnable import StoredSource
    from pycontain.oci.config import Healthcheck
    from pycontain.sandbox.devices import Device
    from pycontain.sandbox.paths import RootPath
    from pycontain.sandbox.seccomp import Profile
    from pycontain.sandbox.spec import File, Mount, Tmpfs, VolumeMount


@attrs.frozen(cache_hash=True)
class ContainerSpec:
    """What a :class:`Container` describes. None means: as the image says."""

    image: Source | StoredSource
    entrypoint: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = attrs.field(
        default=(), repr=lambda env: repr(tuple(name for name, _ in env))
    )
    workdir: RootPath | None = None
    user: str | None = None
    hostname: str = ""
    name: str = ""
    mounts: tuple[Mount, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    devices: tuple[Device, ...] = ()
    files: tuple[File, ...] = ()
    read_only: bool = False
    init: bool = True
    tty: tuple[int, int] | None = None
    health: Healthcheck | None = None
    restart: tuple[bool, int] | None = None  # whether always, and how often at most, -1 for any number
    privileged: bool = False
    landlock: bool = False
    time_offset: tuple[int, int] | None = None
    stop_signal: str | None = None
    pull: str = "missing"
    platform: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    capabilities: frozenset[str] = caps.DEFAULT
    seccomp: Profile | str = "default"
    userns: str = "auto"
    rlimits: tuple[tuple[str, int, int], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    limits: Limits = NO_LIMITS
    disk: int | None = None
    output: int | None = None
    scratch: tuple[Tmpfs, ...] = ()
    limits_required: bool = True
    networking: Networking = NO_NETWORKING


if TYPE_CHECKING:

    class Sourced(Protocol):
        """An image, of either kind: that of :mod:`pycontain` or of :mod:`pycontain.aio`."""

        @property
        def source(self) -> Source | StoredSource:
            """What a container of it is made from."""


def described(given: str | Sourced | ContainerSpec) -> ContainerSpec:
    """The spec itself, or one of the image that is given; :class:`InvalidSpec` when it is neither."""
    if isinstance(given, ContainerSpec):
        return given
    # An Image, whose module need not be loaded for this.
    if not isinstance(given, str) and hasattr(given, "source"):
        return ContainerSpec(given.source)
    if not isinstance(given, str):
        raise InvalidSpec(
            f"an image is named by a text, not by {given!r}", hint='for example Container("host:")'
        )
    return ContainerSpec(parse_source(given))
