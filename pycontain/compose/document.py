"""A project as a document of the compose-spec again: merged, interpolated, in the long forms; what is read from it is the same. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pycontain.compose.values import DEFAULT_NETWORK, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycontain.compose.values import Build, Check, Dependency, Grant, Mounted, ProjectSpec, Source

_NANO = 1e-9


def document_of(project: ProjectSpec) -> dict[str, Any]:
    """The document of *project*: plain mappings, lists and scalars, but for an image that is a ``Container``, which is its source."""
    document: dict[str, Any] = {
        "name": project.name,
        "services": {service.name: _service(service) for service in project.services},
    }
    used = {each.network for service in project.services for each in service.networks}
    networks = {
        each.key: _said({"name": each.name, "internal": each.internal, "ipam": _ipam(each.subnet)})
        for each in project.networks
        if each.key != DEFAULT_NETWORK or each.key in used
    }
    volumes = {
        each.key: _said({"name": each.name, "external": each.external, "labels": dict(each.labels)})
        for each in project.volumes
    }
    sections = {
        "networks": networks,
        "volumes": volumes,
        "secrets": _sources(project.secrets),
        "configs": _sources(project.configs),
    }
    return {**document, **{name: _escaped(section) for name, section in sections.items() if section}}


def _said(parts: dict[str, Any]) -> dict[str, Any]:
    """Without what is as if it were not said."""
    return {name: part for name, part in parts.items() if part not in (None, False, (), [], {}, "")}


def _ipam(subnet: str | None) -> dict[str, Any] | None:
    return None if subnet is None else {"config": [{"subnet": subnet}]}


def _sources(sources: Iterable[Source]) -> dict[str, Any]:
    return {
        each.key: {
            name: value for name, value in attrs.asdict(each).items() if name != "key" and value is not None
        }
        for each in sources
    }


def _literal(text: str) -> str:
    """A text that stays as it is when the document is read again, with its dollar signs."""
    return text.replace("$", "$$")


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return _literal(value)
        case dict():
            return {name: _escaped(part) for name, part in value.items()}
        case list() | tuple():
            return [_escaped(item) for item in value]
    return value


_AS_THEY_ARE = (
    *(
        "scale",
        "platform",
        "pull_policy",
        "working_dir",
        "user",
        "init",
        "tty",
        "stdin_open",
        "restart",
        "stop_signal",
    ),
    *(
        "container_name",
        "hostname",
        "domainname",
        "read_only",
        "shm_size",
        "network_mode",
        "privileged",
        "userns_mode",
    ),
    *("mem_limit", "memswap_limit", "cpus", "cpu_shares", "cpuset", "pids_limit", "attach"),
    *("profiles", "expose", "dns", "cap_add", "cap_drop"),
)
_PAIRS = ("environment", "labels", "sysctls")
_DEFAULTS = {field.name: field.default for field in attrs.fields(Service)}


def _service(service: Service) -> dict[str, Any]:  # noqa: C901, PLR0912 - a list of the keys
    said: dict[str, Any] = {}
    if service.image is not None:
        source = getattr(service.image, "spec", None)
        said["image"] = (
            service.image
            if isinstance(service.image, str)
            else str(source.image if source else service.image)
        )
    if service.build is not None:
        said["build"] = _build(service.build)
    for name in ("entrypoint", "command"):
        if getattr(service, name) is not None:
            said[name] = list(getattr(service, name))
    said |= {name: dict(getattr(service, name)) for name in _PAIRS if getattr(service, name)}
    for name in _AS_THEY_ARE:
        value = getattr(service, name)
        if value != _DEFAULTS[name]:
            said[name] = list(value) if isinstance(value, tuple) else value
    if service.stop_grace_period != _DEFAULTS["stop_grace_period"]:
        said["stop_grace_period"] = _duration(service.stop_grace_period)
    if service.healthcheck is not None:
        said["healthcheck"] = _check(service.healthcheck)
    for name in ("post_start", "pre_stop"):
        if getattr(service, name):
            said[name] = [_hook(hook) for hook in getattr(service, name)]
    if service.depends_on:
        said["depends_on"] = {each.service: _dependency(each) for each in service.depends_on}
    if service.links:
        said["links"] = [f"{name}:{alias}" for name, alias in service.links]
    if service.networks:
        said["networks"] = {
            each.network: _said({"aliases": list(each.aliases), "ipv4_address": each.ipv4_address}) or None
            for each in service.networks
        }
    if service.extra_hosts:
        said["extra_hosts"] = [f"{name}={address}" for name, address in service.extra_hosts]
    said |= _things(service)
    return {name: _escaped(value) for name, value in said.items()}


def _things(service: Service) -> dict[str, Any]:  # noqa: C901 - as above
    """What is a list of mappings, or of several keys."""
    found: dict[str, Any] = {}
    if service.ports:
        found["ports"] = [
            _said(
                {**attrs.asdict(port), "published": None if port.published is None else str(port.published)}
            )
            for port in service.ports
        ]
    if service.volumes:
        found["volumes"] = [_mount(mount) for mount in service.volumes]
    for name in ("secrets", "configs"):
        if getattr(service, name):
            found[name] = [_grant(grant) for grant in getattr(service, name)]
    if service.devices:
        keys = ("source", "target", "permissions")
        found["devices"] = [dict(zip(keys, device, strict=True)) for device in service.devices]
    if service.ulimits:
        found["ulimits"] = {name: {"soft": soft, "hard": hard} for name, soft, hard in service.ulimits}
    if service.seccomp is not None:
        found["security_opt"] = [f"seccomp={service.seccomp}"]
    if service.disk is not None:
        found["storage_opt"] = {"size": service.disk}
    io: dict[str, Any] = {} if service.io_weight is None else {"weight": service.io_weight}
    for disk in service.io:
        for name, rate in attrs.asdict(disk).items():
            if name != "path" and rate is not None:
                io.setdefault(f"device_{name}", []).append({"path": disk.path, "rate": rate})
    if io:
        found["blkio_config"] = io
    return found


def _build(build: Build) -> dict[str, Any]:
    parts = {field.name: getattr(build, field.name) for field in attrs.fields(type(build))}
    parts["platforms"] = [parts.pop("platform")] if build.platform else []
    for name in ("args", "labels", "ssh"):
        parts[name] = dict(parts[name])
    parts["secrets"] = [_grant(grant) for grant in build.secrets]
    if build.network == "none":
        parts["network"] = None
    return _said({name: list(part) if isinstance(part, tuple) else part for name, part in parts.items()})


def _duration(seconds: float) -> str:
    """In the largest unit that needs no fraction."""
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        count = seconds / length
        if abs(count - round(count)) < _NANO:
            return f"{round(count)}{unit}"
    return f"{round(seconds / _NANO)}ns"


def _check(check: Check) -> dict[str, Any]:
    found: dict[str, Any] = {"test": list(check.test)} if check.test else {}
    for name in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(check, name)
        if value is not None:
            found[name] = _duration(value)
    return found if check.retries is None else {**found, "retries": check.retries}


def _hook(hook: Any) -> dict[str, Any]:
    return _said(
        {
            "command": list(hook.command),
            "user": hook.user,
            "working_dir": hook.working_dir,
            "environment": dict(hook.environment),
        }
    )


def _dependency(each: Dependency) -> dict[str, Any]:
    return {"condition": each.condition, **({} if each.required else {"required": False})}


def _grant(grant: Grant) -> dict[str, Any]:
    mode = {} if grant.mode is None else {"mode": f"0{grant.mode:o}"}
    return {"source": grant.source, "target": grant.target, **mode}


def _mount(mount: Mounted) -> dict[str, Any]:
    found = _said(
        {"type": mount.type, "source": mount.source, "target": mount.target, "read_only": mount.read_only}
    )
    if mount.type == "bind" and not mount.create_host_path:
        found["bind"] = {"create_host_path": False}
    if mount.nocopy:
        found["volume"] = {"nocopy": True}
    tmpfs = _said({"size": mount.size, "mode": None if mount.mode is None else f"0{mount.mode:o}"})
    return {**found, "tmpfs": tmpfs} if tmpfs else found
