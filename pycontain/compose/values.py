"""What a project is once it was read: frozen values, with the compose-spec's words as their names. Pure.

Sizes are bytes and times are seconds. None is: as the image, or pycontain, has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]
Pairs = tuple[tuple[str, str], ...]
_NAMES_ONLY: Any = lambda pairs: repr(tuple(name for name, _ in pairs))  # noqa: E731 - for repr=


@attrs.frozen
class Dependency:
    """That a service waits for another one; one that is not *required* may be missing."""

    service: str
    condition: Condition = "service_started"
    required: bool = True


@attrs.frozen
class Build:
    """How an image is built; *args* of None are those of our environment."""

    context: str = "."
    dockerfile: str | None = None
    dockerfile_inline: str | None = None
    target: str | None = None
    args: Pairs = attrs.field(default=(), repr=_NAMES_ONLY)
    labels: Pairs = ()
    tags: tuple[str, ...] = ()
    platform: str | None = None
    cache_from: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    network: str = "none"
    secrets: tuple[Grant, ...] = ()
    ssh: Pairs = ()


@attrs.frozen
class Port:
    """A port of the host that leads inside; no *published* one is any that is free."""

    target: int
    published: int | None = None
    host_ip: str = "127.0.0.1"
    protocol: str = "tcp"


@attrs.frozen
class Mounted:
    """A place of the host, a volume or memory inside; *source* of a volume is its key, and empty for one without a name."""

    type: Literal["bind", "volume", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    create_host_path: bool = True
    nocopy: bool = False
    size: int | None = None
    mode: int | None = None


@attrs.frozen
class Grant:
    """A secret or config of the project that a service is given, at *target*."""

    source: str
    target: str
    mode: int | None = None


@attrs.frozen
class Attachment:
    """How a service is on a network of the project."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None


@attrs.frozen
class Check:
    """A health check: *test* as Docker has it, empty for the image's own command."""

    test: tuple[str, ...] = ()
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None


@attrs.frozen
class Hook:
    """A command inside, after the start or before the stop."""

    command: tuple[str, ...]
    user: str | None = None
    working_dir: str | None = None
    environment: Pairs = attrs.field(default=(), repr=_NAMES_ONLY)


@attrs.frozen
class Disk:
    """Rates of one disk, in bytes or operations in a second."""

    path: str
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@attrs.frozen
class Service:
    """One service. *image* is what ``Container`` takes, or a ``Container`` that the rest is added to."""

    name: str
    image: Any = None
    build: Build | None = None
    scale: int = 1
    profiles: tuple[str, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    platform: str | None = None
    pull_policy: str | None = None
    attach: bool = True
    # what runs
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: Pairs = attrs.field(default=(), repr=_NAMES_ONLY)
    working_dir: str | None = None
    user: str | None = None
    init: bool | None = None
    tty: bool = False
    stdin_open: bool = False
    restart: str | None = None
    stop_signal: str | None = None
    stop_grace_period: float = 10.0
    healthcheck: Check | None = None
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    # how it is called
    container_name: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    labels: Pairs = ()
    # what it sees
    volumes: tuple[Mounted, ...] = ()
    secrets: tuple[Grant, ...] = ()
    configs: tuple[Grant, ...] = ()
    devices: tuple[tuple[str, str, str], ...] = ()
    read_only: bool = False
    shm_size: int | None = None
    disk: int | None = None
    # whom it reaches
    network_mode: str | None = None
    networks: tuple[Attachment, ...] = ()
    links: Pairs = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    extra_hosts: Pairs = ()
    # what it may
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: str | None = None
    userns_mode: str | None = None
    sysctls: Pairs = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    # what it may use
    mem_limit: int | None = None
    memswap_limit: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str | None = None
    pids_limit: int | None = None
    io_weight: int | None = None
    io: tuple[Disk, ...] = ()

    @property
    def has_network(self) -> bool:
        """Whether it is on networks of the project."""
        return self.network_mode is None

    def waits_for(self) -> Iterator[str]:
        """The names of the services that have to be there before it."""
        yield from (each.service for each in self.depends_on)


@attrs.frozen
class ProjectNetwork:
    """A network of the project."""

    key: str
    name: str
    internal: bool = False
    subnet: str | None = None


@attrs.frozen
class ProjectVolume:
    """A named volume; one that is *external* must be there."""

    key: str
    name: str
    external: bool = False
    labels: Pairs = ()


@attrs.frozen
class Source:
    """Where the bytes of a secret or a config come from: one of the three."""

    key: str
    file: str | None = None
    environment: str | None = None
    content: str | None = None


DEFAULT_NETWORK = "default"


@attrs.frozen
class ProjectSpec:
    """All of a project. *variables* is the environment that it was read with, *folder* the one that paths are relative to."""

    name: str
    folder: str
    services: tuple[Service, ...] = ()
    networks: tuple[ProjectNetwork, ...] = ()
    volumes: tuple[ProjectVolume, ...] = ()
    secrets: tuple[Source, ...] = ()
    configs: tuple[Source, ...] = ()
    profiles: tuple[str, ...] = ()
    warnings: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False)

    def service(self, name: str) -> Service | None:
        """The service of this name."""
        return next((each for each in self.services if each.name == name), None)

    def active(self) -> tuple[Service, ...]:
        """The services whose profiles are chosen, and those that have none."""
        chosen = set(self.profiles)
        return tuple(
            each
            for each in self.services
            if not each.profiles or "*" in chosen or chosen & set(each.profiles)
        )
