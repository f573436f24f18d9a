"""What a service means here: a ``Container``, with the names, networks and contents of its project. Nothing happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pycontain.compose.reading import normal_name
from pycontain.container import Container
from pycontain.errors import InvalidProject, PycontainError
from pycontain.sandbox.limits import MAX
from pycontain.sandbox.paths import RootPath
from pycontain.sandbox.spec import File, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pycontain.compose.values import Check, Mounted, ProjectSpec, Service
    from pycontain.network import Network

_UNLIMITED = -1
_READABLE, _OWNERS = 0o444, 0o400
_SHM = "/dev/shm"


@attrs.frozen
class Surroundings:
    """What of a project a container needs.

    *networks* are by key, *contents* of secrets and configs by ``("secrets", key)``, and *images* that were built by service.
    """

    project: ProjectSpec
    networks: Mapping[str, Network] = attrs.field(factory=dict)
    contents: Mapping[tuple[str, str], bytes] = attrs.field(factory=dict, repr=False)
    images: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.define
class _Making:
    """A container that grows by one key after the other; what a key asks wrongly is a problem of that key."""

    container: Container
    problems: list[str]
    path: str

    def add(self, key: str, change: Callable[[Container], Container]) -> None:
        try:
            self.container = change(self.container)
        except PycontainError as error:
            self.problems.append(f"{self.path}.{key}: {error}")


def name_of(service: Service, project: ProjectSpec, number: int = 1) -> str:
    """What a container of a service is called: project, service and number, unless a name is said."""
    return service.container_name or f"{project.name}-{service.name}-{number}"


def image_name(service: Service, project: ProjectSpec) -> str:
    """What an image that is built is called, unless a name is said."""
    return service.image if isinstance(service.image, str) else f"{project.name}-{normal_name(service.name)}"


def container_of(
    service: Service, around: Surroundings, number: int = 1, problems: list[str] | None = None
) -> Container:
    """The container number *number* of a service; what no method of ``Container`` takes is added to *problems*."""
    found: list[str] = []
    path = f"services.{service.name}"
    try:
        image = around.images.get(service.name, "host:" if service.build is not None else service.image)
        base = image if isinstance(image, Container) else Container(image)
    except PycontainError as error:
        found.append(f"{path}.image: {error}")
        base = Container("host:")
    making = _Making(base, found, path)
    making.add("container_name", lambda made: made.name(name_of(service, around.project, number)))
    for key, change in (*_what_runs(service), *_what_it_may(service), *_limits(service)):
        making.add(key, change)
    for key, change in (*_what_it_sees(service, around), *_whom_it_reaches(service, around)):
        making.add(key, change)
    if problems is None and found:
        raise InvalidProject(tuple(found))
    if problems is not None:
        problems += found
    return making.container


Change = tuple[str, "Callable[[Container], Container]"]


def _what_runs(service: Service) -> Iterator[Change]:  # noqa: C901 - a list of the keys
    if service.privileged:
        yield "privileged", Container.privileged
    for key, method in (
        ("working_dir", "workdir"),
        ("user", "user"),
        ("hostname", "hostname"),
        ("init", "init"),
        ("restart", "restart"),
        ("stop_signal", "stop_signal"),
        ("platform", "platform"),
        ("userns_mode", "userns"),
        ("seccomp", "seccomp"),
    ):
        value = getattr(service, key)
        if value is not None:
            yield {"seccomp": "security_opt"}.get(key, key), _calling(method, value)
    if service.pull_policy is not None and service.build is None:
        yield "pull_policy", _calling("pull", service.pull_policy)
    if service.environment:
        yield "environment", lambda made: made.env(dict(service.environment))
    if service.labels:
        yield "labels", lambda made: made.label(dict(service.labels))
    if service.entrypoint is not None:
        yield "entrypoint", _calling("entrypoint", *service.entrypoint)
    if service.tty:
        yield "tty", Container.tty
    if service.read_only:
        yield "read_only", Container.read_only
    if service.healthcheck is not None:
        yield "healthcheck", _health(service.healthcheck)


def _calling(method: str, *values: Any) -> Callable[[Container], Container]:
    def change(made: Container) -> Container:
        changed: Container = getattr(made, method)(*values)
        return changed

    return change


def _health(check: Check) -> Callable[[Container], Container]:
    """Without a test of its own it is the container's, of which the image may have one that only the start finds."""

    def change(made: Container) -> Container:
        test = check.test or (made.spec.health.test if made.spec.health is not None else ())
        if not test:
            raise PycontainError(
                "it has no test, and what the image has is not known before the start", hint="say test, too"
            )
        return made.health(
            *test[1:],
            interval=check.interval,
            timeout=check.timeout,
            retries=check.retries,
            start_period=check.start_period,
            start_interval=check.start_interval,
        )

    def exact(made: Container) -> Container:
        changed = change(made)
        # One word after CMD is a program, where .health() of one word is a line for the shell.
        health = changed.spec.health
        if health is not None and check.test[:1] == ("CMD",) and len(check.test) == 2:
            return Container(attrs.evolve(changed.spec, health=attrs.evolve(health, test=check.test)))
        return changed

    return exact


def _what_it_may(service: Service) -> Iterator[Change]:
    if service.cap_add or service.cap_drop:
        yield "cap_add", lambda made: made.capabilities(add=service.cap_add, drop=service.cap_drop)
    sysctls = dict(service.sysctls)
    if sysctls:
        yield "sysctls", lambda made: made.sysctl(sysctls)
    if service.domainname is not None:
        domain = service.domainname
        yield "domainname", lambda made: made.sysctl({"kernel.domainname": domain})
    for name, soft, hard in service.ulimits:
        yield f"ulimits.{name}", _calling("rlimit", name, soft, hard)


def _limits(service: Service) -> Iterator[Change]:
    if service.mem_limit:
        yield "mem_limit", lambda made: made.limits(memory=service.mem_limit)
    if service.memswap_limit is not None and service.memswap_limit != 0:
        yield "memswap_limit", _swap(service)
    if service.cpus:
        yield "cpus", lambda made: made.limits(cpus=service.cpus)
    if service.cpu_shares is not None:
        weight = min(max(1, round(service.cpu_shares * 100 / 1024)), 10_000)
        yield "cpu_shares", lambda made: made.limits(cpu_weight=weight)
    if service.cpuset is not None:
        yield "cpuset", lambda made: made.limits(cpuset=service.cpuset)
    if service.pids_limit:
        most: Any = MAX if service.pids_limit == _UNLIMITED else service.pids_limit
        yield "pids_limit", lambda made: made.limits(pids=most)
    if service.io_weight is not None:
        yield "blkio_config.weight", lambda made: made.limits(io_weight=service.io_weight)
    for disk in service.io:
        rates = {
            name: rate for name, rate in attrs.asdict(disk).items() if name != "path" and rate is not None
        }
        yield "blkio_config", _limiting_disk(disk.path, rates)
    if service.disk is not None:
        yield "storage_opt.size", lambda made: made.limits(disk=service.disk)


def _limiting_disk(path: str, rates: dict[str, Any]) -> Callable[[Container], Container]:
    return lambda made: made.limits(io={path: rates})


def _swap(service: Service) -> Callable[[Container], Container]:
    """Docker counts memory and swap together."""
    together, memory = service.memswap_limit or 0, service.mem_limit or 0
    if together == _UNLIMITED:
        return lambda made: made.limits(swap=MAX)

    def change(made: Container) -> Container:
        if not memory or together < memory:
            raise PycontainError(
                "it is memory and swap together, so it needs a mem_limit that is not above it"
            )
        return made.limits(swap=together - memory)

    return change


def _what_it_sees(service: Service, around: Surroundings) -> Iterator[Change]:
    if service.shm_size:
        yield "shm_size", lambda made: made.tmpfs(_SHM, size=service.shm_size)
    for number, mount in enumerate(service.volumes):
        yield f"volumes[{number}]", _mounting(mount, around.project)
    for source, target, access in service.devices:
        yield "devices", _calling("device", source, target, access)
    for grant in service.configs:
        content = around.contents.get(("configs", grant.source), b"")
        mode = _READABLE if grant.mode is None else grant.mode
        yield f"configs.{grant.source}", _filing(grant.target, content, mode)
    for grant in service.secrets:
        content = around.contents.get(("secrets", grant.source), b"")
        yield (
            f"secrets.{grant.source}",
            _hiding(grant.target, content, _OWNERS if grant.mode is None else grant.mode),
        )


def _mounting(mount: Mounted, project: ProjectSpec) -> Callable[[Container], Container]:
    if mount.type == "tmpfs":
        mode = 0o1777 if mount.mode is None else mount.mode
        return lambda made: made.tmpfs(mount.target, size=mount.size, mode=mode)
    if mount.type == "bind":
        return lambda made: made.mount(mount.source, mount.target, read_only=mount.read_only)
    names = {each.key: each.name for each in project.volumes}
    name = names.get(mount.source, mount.source) or None
    return lambda made: made.volume(name, mount.target, read_only=mount.read_only, copy=not mount.nocopy)


def _filing(target: str, content: bytes, mode: int) -> Callable[[Container], Container]:
    return lambda made: made.file(target, content, mode=mode)


def _hiding(target: str, content: bytes, mode: int) -> Callable[[Container], Container]:
    """As ``Container.secret``, with the mode that is asked for; only below /run/secrets, where plans and logs hide it."""
    folder, _, name = target.rpartition("/")
    if folder != "/run/secrets":

        def refused(_: Container) -> Container:
            raise PycontainError(f"a secret is put below /run/secrets, not at {target}")

        return refused

    def change(made: Container) -> Container:
        hidden = made.secret(name, content)
        *others, _ = hidden.spec.files
        file = File(RootPath(target), Secret(content), mode)
        return Container(attrs.evolve(hidden.spec, files=(*others, file)))

    return change


def _whom_it_reaches(service: Service, around: Surroundings) -> Iterator[Change]:
    if service.network_mode is not None:
        yield "network_mode", _calling("network", service.network_mode)
    else:
        aliases = aliases_of(service, around.project)
        for each in service.networks:
            network = around.networks.get(each.network)
            if network is not None:
                names = tuple(dict.fromkeys((*aliases, *each.aliases)))
                yield f"networks.{each.network}", _joining(network, names, each.ipv4_address)
    for port in service.ports:
        yield "ports", _publishing(port.target, port.published, port.host_ip, port.protocol)
    if service.dns:
        yield "dns", _calling("dns", *service.dns)
    if service.extra_hosts:
        yield "extra_hosts", lambda made: made.hosts(dict(service.extra_hosts))


def aliases_of(service: Service, project: ProjectSpec) -> tuple[str, ...]:
    """Its own name, and those by which other services link to it."""
    linked = (alias for each in project.services for name, alias in each.links if name == service.name)
    return tuple(dict.fromkeys((service.name, *linked)))


def _joining(
    network: Network, names: tuple[str, ...], address: str | None
) -> Callable[[Container], Container]:
    return lambda made: made.network(network, aliases=names, ip=address)


def _publishing(port: int, host_port: int | None, ip: str, protocol: str) -> Callable[[Container], Container]:
    return lambda made: made.publish(port, host_port, host_ip=ip, protocol=protocol)
