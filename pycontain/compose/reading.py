"""From a merged document to the values of a project: every key of the compose-spec is here, with what becomes of it. Pure.

A key is read into fields of a value, or refused with the reason why it cannot be honoured, or left out with a warning where nothing
depends on it. Nothing is passed over in silence, and all that is wrong is noted before the end.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.compose.cursor import At
from pycontain.compose.service import SERVICE, Reader, Refused, Unneeded, read_keys
from pycontain.compose.values import (
    DEFAULT_NETWORK,
    Attachment,
    Dependency,
    ProjectNetwork,
    ProjectSpec,
    ProjectVolume,
    Service,
    Source,
)
from pycontain.sandbox.network import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pycontain.compose.service import Keys
    from pycontain.compose.tree import Node, Notes

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KEY = re.compile(r"[a-zA-Z0-9._-]+")
_NO_SWARM = "there is no swarm"


def project_of(
    document: Node,
    notes: Notes,
    *,
    name: str,
    folder: str,
    home: str = "",
    variables: Mapping[str, str] | None = None,
    profiles: Iterable[str] = (),
) -> ProjectSpec:
    """The project that *document* describes, with what is wrong in *notes*; where something is, parts of it are missing.

    *variables* are the environment, *folder* is what paths are relative to, *name* what it is called unless the document says.
    """
    reader = Reader(dict(variables or {}), folder, home)
    top = At(document, "", notes).parts(PROJECT)
    for key in ("version", "models"):
        _of_no_use(PROJECT[key], top.get(key))
    services = tuple(
        _service(key, at, reader)
        for key, at in _named(top.get("services"))
        if not at.is_null or _is_empty(at)
    )
    if not services and "services" not in top:
        notes.problem(document, "", "there are no services")
    networks = _networks(top.get("networks"), name)
    volumes = tuple(_volume(key, at, name) for key, at in _named(top.get("volumes")))
    secrets = tuple(_source(key, at, SECRET) for key, at in _named(top.get("secrets")))
    configs = tuple(_source(key, at, CONFIG) for key, at in _named(top.get("configs")))
    project = ProjectSpec(
        name, folder, tuple(map(_connected, services)), networks, volumes, secrets, configs, tuple(profiles)
    )
    places = dict(_named(top.get("services")))
    _check_references(project, places)
    _check_order(project, places)
    _check_shared_names(project, places)
    return attrs.evolve(project, warnings=tuple(notes.warnings))


def _is_empty(at: At) -> bool:
    at.problem("it says nothing: it needs an image or a build")
    return False


def _named(at: At | None) -> list[tuple[str, At]]:
    if at is None:
        return []
    found = []
    for key, part in at.parts(None).items():
        if _KEY.fullmatch(key):
            found.append((key, part))
        else:
            part.problem("a name has letters, digits, dots, dashes and underscores")
    return found


def _of_no_use(key: object, at: At | None) -> None:
    if at is None:
        return
    if isinstance(key, Refused):
        at.problem(key.why)
    elif isinstance(key, Unneeded):
        at.warning(key.why)


def _service(key: str, at: At, reader: Reader) -> Service:
    fields = read_keys({}, at, SERVICE, reader)
    service = Service(key, **_together(fields, at))
    if service.image is None and service.build is None:
        at.problem("it has neither an image nor a build")
    return service


def _together(fields: dict[str, Any], at: At) -> dict[str, Any]:
    """What several keys say of one field."""
    tmpfs = fields.pop("tmpfs", ())
    fields["volumes"] = (*fields.get("volumes", ()), *tmpfs)
    quota, period = fields.pop("cpu_quota", None), fields.pop("cpu_period", None)
    if quota is not None and quota > 0:
        fields.setdefault("cpus", quota / (period or 100_000))
    deploy = fields.pop("deploy", {})
    if "restart" in deploy and fields.get("restart", deploy["restart"]) != deploy["restart"]:
        at.warning(f"restart says {fields.pop('restart')}, and deploy {deploy['restart']}, which holds")
    for name, value in deploy.items():
        if fields.setdefault(name, value) != value:
            at.problem(f"{name} and deploy say different things: {fields[name]} and {value}")
    if fields.get("network_mode") is not None and fields.get("networks"):
        at.problem("network_mode and networks exclude each other")
    if fields.get("scale", 1) > 1 and fields.get("container_name"):
        at.problem(f"container_name is one name, and scale asks for {fields['scale']} containers")
    fixed = [port for port in fields.get("ports", ()) if port.published]
    if fields.get("scale", 1) > 1 and fixed:
        at.problem(
            f"{fields['scale']} containers cannot all have port {fixed[0].published} of the host; leave it out, then any free one is taken"
        )
    counts = Counter(mount.target for mount in fields["volumes"])
    for target in (target for target, count in counts.items() if count > 1):
        at.problem(f"more than one thing is mounted at {target}")
    return fields


def _connected(service: Service) -> Service:
    """What it means when nothing is said: the project's default network; and a link is a dependency."""
    if service.has_network and not service.networks:
        service = attrs.evolve(service, networks=(Attachment(DEFAULT_NETWORK),))
    known = set(service.waits_for())
    linked = tuple(Dependency(name) for name, _ in service.links if name not in known)
    return attrs.evolve(service, depends_on=(*service.depends_on, *linked))


# --- what belongs to the whole project ------------------------------------------------------------------


def _networks(at: At | None, project: str) -> tuple[ProjectNetwork, ...]:
    found = [_network(key, part, project) for key, part in _named(at)]
    if all(each.key != DEFAULT_NETWORK for each in found):
        found.append(ProjectNetwork(DEFAULT_NETWORK, f"{project}_{DEFAULT_NETWORK}"))
    return tuple(found)


def _network(key: str, at: At, project: str) -> ProjectNetwork:
    reader = Reader({}, "", "")
    return ProjectNetwork(key, **{"name": f"{project}_{key}", **read_keys({}, at, NETWORK, reader)})


def _volume(key: str, at: At, project: str) -> ProjectVolume:
    fields = read_keys({}, at, VOLUME, Reader({}, "", ""))
    return ProjectVolume(key, **{"name": key if fields.get("external") else f"{project}_{key}", **fields})


def _source(key: str, at: At, keys: Keys) -> Source:
    fields = read_keys({}, at, keys, Reader({}, "", ""))
    if len(fields) != 1:
        at.problem(
            "it has one of file, environment and content"
            if "content" in keys
            else "it has one of file and environment"
        )
        return Source(key)
    return Source(key, **fields)


def _ipam(at: At, _: Reader) -> dict[str, Any]:
    parts = at.parts(("driver", "config", "options"))
    if "driver" in parts and parts["driver"].text() != "default":
        parts["driver"].problem("there is one driver for addresses, our own")
    if "options" in parts:
        parts["options"].problem("the driver for addresses has no options")
    blocks = parts["config"].sequence() if "config" in parts else []
    if len(blocks) > 1:
        blocks[1].problem("a network has one subnet, of IPv4")
    fields: dict[str, Any] = {}
    for block in blocks[:1]:
        said = block.parts(("subnet", "ip_range", "gateway", "aux_addresses"))
        if "subnet" in said:
            fields["subnet"] = said["subnet"].attempt(_subnet, "")
        for name in ("ip_range", "gateway", "aux_addresses"):
            if name in said:
                said[name].problem(
                    "addresses are given in order, and the first one is the gateway's; name the subnet alone"
                )
    return fields


def _subnet(text: str) -> str:
    address, slash, prefix = text.partition("/")
    parse_address(address)
    if not slash or not prefix.isdecimal():
        raise ValueError(f"{text!r} is no subnet; write 10.1.2.0/24")
    return text


def _driver(*known: str) -> Any:
    def read(at: At, _: Reader) -> dict[str, Any]:
        text = at.text()
        if text not in known:
            at.problem(f"there is no driver {text!r} here, only {known[0]}")
        return {}

    return read


def _external(at: At, _: Reader) -> dict[str, Any]:
    named = at.parts(("name",)) if isinstance(at.node.value, dict) else None
    if named is None:
        return {"external": at.flag()}
    return {"external": True} | ({"name": named["name"].text()} if "name" in named else {})


def _not_external(what: str) -> Any:
    def read(at: At, _: Reader) -> dict[str, Any]:
        if isinstance(at.node.value, dict) or at.flag():
            at.problem(what)
        return {}

    return read


def _field(name: str, kind: str) -> Any:
    return lambda at, _: {name: getattr(at, kind)()}


def _nothing_if(value: object, why: str) -> Any:
    def read(at: At, _: Reader) -> dict[str, Any]:
        if at.flag() != value:
            at.problem(why)
        return {}

    return read


_LABELS_OF_NOTHING = Unneeded("labels of it are read by nobody")
NETWORK: Keys = {
    "name": _field("name", "text"),
    "driver": _driver("bridge", "default"),
    "driver_opts": Refused("the bridge has no options"),
    "ipam": _ipam,
    "external": _not_external("a network belongs to one process, so there is none that others have made"),
    "internal": _field("internal", "flag"),
    "enable_ipv4": _nothing_if(value=True, why="a network is one of IPv4"),
    "enable_ipv6": _nothing_if(value=False, why="a network is one of IPv4"),
    "attachable": Unneeded("nobody else can find the network, to be attached to it"),
    "labels": _LABELS_OF_NOTHING,
}
VOLUME: Keys = {
    "name": _field("name", "text"),
    "driver": _driver("local", "default"),
    "driver_opts": Refused(
        "the driver local has no options; a path of the host is mounted by the service: /path:/target"
    ),
    "external": _external,
    "labels": _field("labels", "texts_by_name"),
}
_SWARM_SOURCE: Keys = {
    "name": Unneeded("it is a name in a swarm"),
    "external": _not_external(f"{_NO_SWARM} to have it; name a file or a variable"),
    "labels": _LABELS_OF_NOTHING,
    "template_driver": Refused(f"{_NO_SWARM} whose templates it could be"),
    "file": _field("file", "text"),
    "environment": _field("environment", "text"),
}
SECRET: Keys = {
    **_SWARM_SOURCE,
    "driver": Refused(f"{_NO_SWARM} whose driver it could be"),
    "driver_opts": Refused(f"{_NO_SWARM} whose driver it could be"),
}
CONFIG: Keys = {**_SWARM_SOURCE, "content": _field("content", "text")}
PROJECT: dict[str, object] = {
    "version": Unneeded("it is of no use any more; take it out"),
    "name": None,
    "include": None,
    "services": None,
    "networks": NETWORK,
    "volumes": VOLUME,
    "secrets": SECRET,
    "configs": CONFIG,
    "models": Refused("there is nothing here that runs language models"),
}


# --- what refers to what --------------------------------------------------------------------------------


def _check_references(project: ProjectSpec, places: Mapping[str, At]) -> None:
    services = {each.name for each in project.services}
    keys = {
        "network": {each.key for each in project.networks},
        "volume": {each.key for each in project.volumes},
        "secret": {each.key for each in project.secrets},
        "config": {each.key for each in project.configs},
    }
    for service in project.services:
        at = places[service.name]
        for needed in service.depends_on:
            if needed.service == service.name:
                at.problem("it depends on itself")
            elif needed.service not in services and needed.required:
                at.problem(f"it depends on {needed.service}, and there is no such service")
        for what, name in _referred(service):
            if name not in keys[what]:
                at.problem(f"there is no {what} {name!r}; name it below {what}s")
        fixed = [each.ipv4_address for each in service.networks if each.ipv4_address]
        if fixed and service.scale > 1:
            at.problem(f"{service.scale} containers cannot all have the address {fixed[0]}")


def _referred(service: Service) -> Iterator[tuple[str, str]]:
    """What *service* has of the project: its kind and its key."""
    for network in service.networks:
        yield "network", network.network
    for mount in service.volumes:
        if mount.type == "volume" and mount.source:
            yield "volume", mount.source
    for secret in service.secrets:
        yield "secret", secret.source
    for config in service.configs:
        yield "config", config.source


def _check_order(project: ProjectSpec, places: Mapping[str, At]) -> None:
    """Depth first; who is met on the way from itself waits for itself."""
    below = {each.name: tuple(each.waits_for()) for each in project.services}
    done: set[str] = set()
    for first in below:
        way: dict[str, None] = {}  # in order; without recursion, for a stranger's chain may be long
        waiting = [iter((first,))]
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                if way:
                    done.add(way.popitem()[0])
            elif name in way:
                if len(way) > 1:
                    places[name].problem(f"it waits for itself: {_circle(tuple(way), name)}")
            elif name in below and name not in done:
                way[name] = None
                waiting.append(iter(below[name]))


def _circle(way: tuple[str, ...], name: str) -> str:
    return " → ".join((*way[way.index(name) :], name))


def _check_shared_names(project: ProjectSpec, places: Mapping[str, At]) -> None:
    names = Counter(each.container_name for each in project.services if each.container_name)
    ports = Counter(
        (port.host_ip, port.published, port.protocol)
        for each in project.active()
        for port in each.ports
        if port.published
    )
    for service in project.active():
        if service.container_name and names[service.container_name] > 1:
            places[service.name].problem(f"another service is called {service.container_name}, too")
        for port in service.ports:
            if port.published and ports[port.host_ip, port.published, port.protocol] > 1:
                places[service.name].problem(f"port {port.published} of the host is published twice")


def normal_name(text: str) -> str:
    """A project's name from that of a folder, as the compose-spec has it: small letters, digits, dashes and underscores."""
    kept = "".join(
        letter for letter in text.lower() if letter.isascii() and (letter.isalnum() or letter in "-_")
    )
    return kept.lstrip("-_") or "project"


def parse_name(text: str) -> str:
    """A project's name."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name for a project; use small letters, digits, dashes and underscores"
        )
    return text
