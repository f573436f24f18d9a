"""The keys of a service, as :mod:`pycontain.compose.reading` reads them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from pycontain.compose.cursor import At
from pycontain.compose.merging import absolute_path
from pycontain.compose.shortened import (
    host_pairs,
    parse_device,
    parse_exposed,
    parse_mode,
    parse_ports,
    parse_tmpfs,
    parse_volume,
    ports_of,
)
from pycontain.compose.values import (
    Attachment,
    Build,
    Check,
    Dependency,
    Disk,
    Grant,
    Hook,
    Mounted,
)
from pycontain.sandbox.network import parse_address, parse_protocol


@attrs.frozen
class Reader:
    """What reading needs besides the document."""

    variables: dict[str, str] = attrs.field(repr=False)
    folder: str
    home: str

    def path(self, at: At) -> str:
        """A path of the host."""
        return absolute_path(at.text() or ".", self.folder, self.home)


@attrs.frozen
class Refused:
    """A key that cannot be honoured, and why."""

    why: str


@attrs.frozen
class Unneeded:
    """A key that is left out without harm, and why."""

    why: str


Fields: TypeAlias = dict[str, Any]
Keys: TypeAlias = dict[str, Callable[[At, Reader], Fields] | Refused | Unneeded]

_UNLIMITED = -1


def _field(name: str, kind: str) -> Callable[[At, Reader], Fields]:
    """A key that is a field, read by the method *kind* of At."""
    return lambda at, _: {name: getattr(at, kind)()}


def _only(values: tuple[object, ...], why: str) -> Callable[[At, Reader], Fields]:
    """A key that may say what is so anyhow."""

    def read(at: At, _: Reader) -> Fields:
        if at.node.value not in values:
            at.problem(why)
        return {}

    return read


def read_keys(fields: Fields, at: At, keys: Keys, reader: Reader) -> Fields:
    """*fields* with what the parts of a mapping say; what is refused or left out is noted. A key that says nothing is not there."""
    for name, part in at.parts(keys).items():
        meaning = keys[name]
        if part.is_null:
            continue
        if isinstance(meaning, Refused):
            part.problem(meaning.why)
        elif isinstance(meaning, Unneeded):
            part.warning(meaning.why)
        else:
            fields |= meaning(part, reader)
    return fields


# --- what runs ------------------------------------------------------------------------------------------


_ON_DISK = ("oci:", "oci-archive:", "docker-archive:", "rootfs:")


def _image(at: At, reader: Reader) -> Fields:
    """A reference, an image on disk, whose path is relative to the project as all are, or what Python gave."""
    value = at.node.value
    if not isinstance(value, str | int | float | bool | dict | list):
        return {"image": value}
    text = at.text()
    kind = next(filter(text.startswith, _ON_DISK), "")
    rest = text.removeprefix(kind)
    if kind and rest and not rest.startswith("/"):
        text = f"{kind}{absolute_path(rest, reader.folder, reader.home)}"
    return {"image": text}


def _command(at: At, _: Reader) -> Fields:
    words = at.words()
    if at.node.value in ("", []):
        at.problem(
            "a command of nothing cannot take the image's away; leave it out, or give an entrypoint and no command"
        )
        return {}
    return {"command": words}


def _environment(at: At, reader: Reader) -> Fields:
    """A name without a value has that of our environment, and is not set when there is none."""
    found = {}
    for name, value in at.pairs():
        if not value.is_null:
            found[name] = value.plain_text()
        elif name in reader.variables:
            found[name] = reader.variables[name]
    return {"environment": tuple(found.items())}


def _restart(at: At, _: Reader) -> Fields:
    text = str(at.node.value).lower() if at.node.value is False else at.text()
    if text in {"no", "false"}:
        return {"restart": "no"}
    if text in {"always", "unless-stopped"}:
        return {"restart": "always"}  # whoever stops it here does so for good
    name, colon, most = text.partition(":")
    if name == "on-failure" and (not colon or (most.isdecimal() and len(most) < 10)):
        return {"restart": text}
    at.problem(f"{text!r} is no policy; there are no, always, unless-stopped, on-failure and on-failure:N")
    return {}


def _healthcheck(at: At, _: Reader) -> Fields:
    parts = at.parts(("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"))
    if "disable" in parts and parts["disable"].flag():
        return {"healthcheck": Check(("NONE",))}
    fields: Fields = {
        name: parts[name].duration()
        for name in ("interval", "timeout", "start_period", "start_interval")
        if name in parts
    }
    if "retries" in parts:
        fields["retries"] = parts["retries"].whole(1)
    if "test" in parts:
        fields["test"] = _test(parts["test"])
    return {"healthcheck": Check(**fields)}


def _test(at: At) -> tuple[str, ...]:
    if not isinstance(at.node.value, list):
        return "CMD-SHELL", at.text()
    match at.texts():
        case ("NONE",) | ("CMD", _, *_) | ("CMD-SHELL", _) as test:
            return test
    at.problem('a test is a text, or begins with "CMD", "CMD-SHELL" (and one text) or "NONE"')
    return ()


def _hooks(name: str) -> Callable[[At, Reader], Fields]:
    def read(at: At, reader: Reader) -> Fields:
        return {name: tuple(_hook(item, reader) for item in at.sequence())}

    return read


def _hook(at: At, reader: Reader) -> Hook:
    parts = at.parts(("command", "user", "privileged", "working_dir", "environment"))
    if "privileged" in parts and parts["privileged"].flag():
        parts["privileged"].problem("a command inside has the container's own walls")
    if "command" not in parts:
        at.problem("it has no command")
        return Hook(())
    return Hook(
        parts["command"].words(),
        parts["user"].text() if "user" in parts else None,
        parts["working_dir"].text() if "working_dir" in parts else None,
        _environment(parts["environment"], reader)["environment"] if "environment" in parts else (),
    )


def _depends_on(at: At, _: Reader) -> Fields:
    if not isinstance(at.node.value, dict):
        return {"depends_on": tuple(map(Dependency, dict.fromkeys(at.texts())))}
    return {"depends_on": tuple(_dependency(name, part) for name, part in at.parts(None).items())}


_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


def _dependency(name: str, at: At) -> Dependency:
    parts = at.parts(("condition", "required", "restart"))
    if "restart" in parts and parts["restart"].flag():
        parts["restart"].warning("nobody starts a single service again while the others run")
    condition: Any = parts["condition"].choice(*_CONDITIONS) if "condition" in parts else _CONDITIONS[0]
    return Dependency(name, condition, parts["required"].flag() if "required" in parts else True)


def _pull_policy(at: At, _: Reader) -> Fields:
    text = at.text()
    if text == "if_not_present":
        text = "missing"
    if text not in {"always", "missing", "never", "build", "newer"}:
        at.problem(f"{text!r} is no policy here; there are always, missing, never, newer and build")
    return {"pull_policy": text}


def _build(at: At, reader: Reader) -> Fields:
    if isinstance(at.node.value, str):
        return {"build": Build(_context(at, reader))}
    return {"build": Build(**{"context": reader.folder, **read_keys({}, at, BUILD, reader)})}


def _context(at: At, reader: Reader) -> str:
    text = at.text()
    if "://" in text or text.startswith(("git@", "github.com/")):
        at.problem("a context is a folder here; clone it before")
    return reader.path(at)


def _build_network(at: At, _: Reader) -> Fields:
    text = at.text()
    known = {"none": "none", "host": "host", "private": "private", "default": "private", "bridge": "private"}
    if text not in known:
        at.problem(f"a build cannot be on the network {text!r}; there are none, default and host")
    return {"network": known.get(text, "none")}


def _platforms(at: At, _: Reader) -> Fields:
    texts = at.texts()
    if len(texts) > 1:
        at.problem("an image is built for one platform at a time")
    return {"platform": texts[0]} if texts else {}


def _args(at: At, reader: Reader) -> Fields:
    return {"args": _environment(at, reader)["environment"]}


def _ssh(at: At, reader: Reader) -> Fields:
    found = []
    for name, value in At(
        at.node.like([at.node]) if isinstance(at.node.value, str) else at.node, at.path, at.notes
    ).pairs():
        path = reader.variables.get("SSH_AUTH_SOCK", "") if value.is_null else value.text()
        if not path:
            at.problem("there is no agent: SSH_AUTH_SOCK is not set")
        found.append((name, path))
    return {"ssh": tuple(found)}


_BUILDS_ARE_CONTAINERS = "what RUN gets is not chosen here"
BUILD: Keys = {
    "context": lambda at, reader: {"context": _context(at, reader)},
    "dockerfile": _field("dockerfile", "text"),
    "dockerfile_inline": _field("dockerfile_inline", "text"),
    "target": _field("target", "text"),
    "args": _args,
    "labels": _field("labels", "texts_by_name"),
    "tags": _field("tags", "texts"),
    "platforms": _platforms,
    "cache_from": _field("cache_from", "texts"),
    "cache_to": Unneeded("what is built is kept in the store"),
    "no_cache": _field("no_cache", "flag"),
    "pull": _field("pull", "flag"),
    "network": _build_network,
    "secrets": lambda at, _: {"secrets": tuple(_grant(item, "") for item in at.sequence())},
    "ssh": _ssh,
    "additional_contexts": Refused("COPY --from names images and stages, not more contexts"),
    "entitlements": Refused("a build is never privileged"),
    "privileged": _only((False, "false"), "a build is never privileged"),
    "extra_hosts": Refused(_BUILDS_ARE_CONTAINERS),
    "isolation": _only(("default",), "there is one kind of isolation"),
    "shm_size": Refused(_BUILDS_ARE_CONTAINERS),
    "ulimits": Refused(_BUILDS_ARE_CONTAINERS),
}


# --- what it sees ---------------------------------------------------------------------------------------


def _volumes(at: At, reader: Reader) -> Fields:
    return {"volumes": tuple(filter(None, (_volume(item, reader) for item in at.sequence())))}


def _volume(at: At, reader: Reader) -> Mounted | None:
    if not isinstance(at.node.value, dict):
        mount = at.attempt(parse_volume, None)
        if {"z", "Z"} & set(at.text().rpartition(":")[2].split(",")):
            at.warning(_NO_LABELS)
        if mount is not None and mount.type == "bind":
            return attrs.evolve(mount, source=absolute_path(mount.source, reader.folder, reader.home))
        return mount
    parts = at.parts(
        ("type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image")
    )
    kind: Any = parts["type"].choice("bind", "volume", "tmpfs") if "type" in parts else "volume"
    if "target" not in parts:
        at.problem("it has no target")
        return None
    fields: Fields = {"type": kind, "target": parts["target"].text()}
    if "source" in parts:
        fields["source"] = reader.path(parts["source"]) if kind == "bind" else parts["source"].text()
    elif kind == "bind":
        at.problem("a bind has a source")
    if "read_only" in parts:
        fields["read_only"] = parts["read_only"].flag()
    for name, keys in _MOUNT_KINDS.items():
        if name in parts:
            read_keys(fields, parts[name], keys, reader)
    return Mounted(**fields)


def _mode(at: At, _: Reader) -> Fields:
    """A number has been read as octal where it was written so."""
    if isinstance(at.node.value, int) and 0 <= at.node.value <= 0o7777:
        return {"mode": at.node.value}
    return {"mode": at.attempt(parse_mode, 0)}


_NO_LABELS = "labels of SELinux stay as they are"
_MOUNT_KINDS: dict[str, Keys] = {
    "bind": {
        "create_host_path": _field("create_host_path", "flag"),
        "propagation": _only(
            ("private", "rprivate"), "mounts are private: none that is made later comes through"
        ),
        "recursive": _only(("enabled",), "what is mounted below the source comes along, writable as it is"),
        "selinux": Unneeded(_NO_LABELS),
    },
    "volume": {
        "nocopy": _field("nocopy", "flag"),
        "subpath": Refused("a volume is mounted as a whole"),
        "labels": Unneeded("labels are those of the volume, below volumes"),
    },
    "tmpfs": {"size": _field("size", "size"), "mode": _mode},
    "image": {"subpath": Refused("an image cannot be mounted")},
}


def _tmpfs(at: At, _: Reader) -> Fields:
    return {"tmpfs": tuple(filter(None, (item.attempt(parse_tmpfs, None) for item in at.items())))}


def _grants(name: str, folder: str) -> Callable[[At, Reader], Fields]:
    return lambda at, _: {name: tuple(_grant(item, folder) for item in at.sequence())}


def _grant(at: At, folder: str) -> Grant:
    if not isinstance(at.node.value, dict):
        source = at.text()
        return Grant(source, f"{folder}{source}" if folder else source)
    parts = at.parts(("source", "target", "uid", "gid", "mode"))
    if "source" not in parts:
        at.problem("it has no source")
        return Grant("", "")
    for name in ("uid", "gid"):
        if name in parts:
            parts[name].warning("it belongs to whom the service runs as")
    source = parts["source"].text()
    target = parts["target"].text() if "target" in parts else source
    mode = _mode(parts["mode"], Reader({}, "", ""))["mode"] if "mode" in parts else None
    return Grant(source, target if target.startswith("/") or not folder else f"{folder}{target}", mode)


def _devices(at: At, _: Reader) -> Fields:
    return {"devices": tuple(filter(None, map(_device, at.sequence())))}


def _device(at: At) -> tuple[str, str, str] | None:
    if not isinstance(at.node.value, dict):
        return at.attempt(parse_device, None)
    parts = at.parts(("source", "target", "permissions"))
    if "source" not in parts:
        at.problem("it has no source")
        return None
    source = parts["source"].text()
    target = parts["target"].text() if "target" in parts else source
    return source, target, parts["permissions"].text() if "permissions" in parts else "rwm"


def _storage(at: At, _: Reader) -> Fields:
    parts = at.parts(("size",))
    return {"disk": parts["size"].size()} if "size" in parts else {}


# --- whom it reaches ------------------------------------------------------------------------------------


def _network_mode(at: At, _: Reader) -> Fields:
    text = at.text()
    known = {"none": "none", "host": "host", "bridge": "private", "private": "private"}
    if text.startswith(("service:", "container:")):
        at.problem(
            "a network namespace belongs to one container; put both on a network, and they find each other by name"
        )
    elif text not in known:
        at.problem(f"{text!r} is no mode; there are none, bridge and host")
    return {"network_mode": known.get(text, "none")}


def _networks(at: At, _: Reader) -> Fields:
    if not isinstance(at.node.value, dict):
        return {"networks": tuple(map(Attachment, dict.fromkeys(at.texts())))}
    found = [_attachment(name, part) for name, part in at.parts(None).items()]
    # The first one that is not internal is the way out.
    found.sort(key=lambda pair: pair[0], reverse=True)
    return {"networks": tuple(each for _, each in found)}


def _attachment(name: str, at: At) -> tuple[float, Attachment]:
    fields = read_keys({}, at, ATTACHMENT, Reader({}, "", ""))
    return fields.pop("priority", 0.0), Attachment(name, **fields)


_CHOSEN = "it is chosen by the kernel"
ATTACHMENT: Keys = {
    "aliases": _field("aliases", "texts"),
    "ipv4_address": lambda at, _: {"ipv4_address": at.attempt(parse_address, "")},
    "ipv6_address": Refused("a network is one of IPv4"),
    "link_local_ips": Refused("an interface has one address"),
    "mac_address": Refused(_CHOSEN),
    "interface_name": Refused("interfaces are eth0, eth1 and so on"),
    "driver_opts": Refused("the bridge has no options"),
    "priority": lambda at, _: {"priority": at.number()},
    "gw_priority": lambda at, _: {"priority": at.number()},
}


def _ports(at: At, _: Reader) -> Fields:
    ports = tuple(port for item in at.sequence() for port in _published(item))
    return {"ports": tuple(dict.fromkeys(ports))}


def _published(at: At) -> tuple[Any, ...]:
    if not isinstance(at.node.value, dict):
        return at.attempt(parse_ports, ())
    parts = at.parts(("target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"))
    if "mode" in parts:
        parts["mode"].choice("host", "ingress")
    if "target" not in parts:
        at.problem("it has no target")
        return ()
    protocol = parts["protocol"].attempt(parse_protocol, "tcp") if "protocol" in parts else "tcp"
    host_ip = parts["host_ip"].attempt(parse_address, "") if "host_ip" in parts else "127.0.0.1"
    published = parts["published"].text() if "published" in parts else ""
    return parts["target"].attempt(lambda text: ports_of(text, published, host_ip, protocol), ())


def _links(at: At, _: Reader) -> Fields:
    pairs = (text.partition(":") for text in at.texts())
    return {"links": tuple((name, alias or name) for name, _, alias in pairs)}


def _extra_hosts(at: At, _: Reader) -> Fields:
    none: tuple[tuple[str, str], ...] = ()
    if isinstance(at.node.value, dict):
        said = [(name, each.text(), each) for name, part in at.parts(None).items() for each in part.items()]
    else:
        said = [
            (name, address, item)
            for item in at.sequence()
            for name, address in item.attempt(lambda text: tuple(host_pairs(text)), none)
        ]
    for _name, address, where in said:
        if address == "host-gateway":
            where.problem(
                "no container reaches what listens on the host; publish it inside with Running.listen(), or use network_mode: host"
            )
    return {"extra_hosts": tuple((name, address) for name, address, _ in said)}


# --- what it may ----------------------------------------------------------------------------------------


def _security(at: At, reader: Reader) -> Fields:
    fields: Fields = {}
    for item in at.sequence():
        name, value = (item.text().replace(":", "=", 1).partition("="))[::2]
        match name, value:
            case "no-new-privileges", "" | "true":
                pass  # it is always so
            case "seccomp", "unconfined":
                fields["seccomp"] = "unconfined"
            case "seccomp", path if path:
                fields["seccomp"] = absolute_path(path, reader.folder, reader.home)
            case ("apparmor", "unconfined") | ("label", "disable"):
                pass  # neither is used
            case _:
                item.problem(
                    "it cannot be kept; there are no-new-privileges, seccomp=unconfined and seccomp=FILE"
                )
    return fields


def _ulimits(at: At, _: Reader) -> Fields:
    found = []
    for name, part in at.parts(None).items():
        if isinstance(part.node.value, dict):
            both = part.parts(("soft", "hard"))
            if set(both) != {"soft", "hard"}:
                part.problem("it has soft and hard")
                continue
            found.append((name, both["soft"].whole(_UNLIMITED), both["hard"].whole(_UNLIMITED)))
        else:
            limit = part.whole(_UNLIMITED)
            found.append((name, limit, limit))
    return {"ulimits": tuple(found)}


def _userns(at: At, _: Reader) -> Fields:
    return {"userns_mode": at.choice("host", "private", "auto")}


# --- what it may use ------------------------------------------------------------------------------------


def _pids(at: At, _: Reader) -> Fields:
    return {"pids_limit": at.whole(_UNLIMITED)}


def _together(at: At, _: Reader) -> Fields:
    return {"memswap_limit": _UNLIMITED if str(at.node.value) == "-1" else at.size()}


_DISK = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")


def _blkio(at: At, _: Reader) -> Fields:
    parts = at.parts((*_DISK, "weight", "weight_device"))
    fields: Fields = {}
    if "weight" in parts:
        fields["io_weight"] = parts["weight"].whole(1, 1000)
    if "weight_device" in parts:
        parts["weight_device"].problem("a weight is for all disks; limit one by its rates")
    disks: dict[str, Fields] = {}
    for name in filter(parts.__contains__, _DISK):
        for item in parts[name].sequence():
            said = item.parts(("path", "rate"))
            if set(said) != {"path", "rate"}:
                item.problem("it has path and rate")
                continue
            rates = disks.setdefault(said["path"].text(), {})
            rates[name.removeprefix("device_")] = said["rate"].size()
    return fields | {"io": tuple(Disk(path, **rates) for path, rates in disks.items())}


def _deploy(at: At, reader: Reader) -> Fields:
    return {"deploy": read_keys({}, at, DEPLOY, reader)}


def _resources(at: At, reader: Reader) -> Fields:
    parts = at.parts(("limits", "reservations"))
    fields: Fields = {}
    if "limits" in parts:
        read_keys(fields, parts["limits"], LIMITS, reader)
    if "reservations" in parts:
        read_keys(fields, parts["reservations"], RESERVATIONS, reader)
    return fields


def _restart_policy(at: At, _: Reader) -> Fields:
    parts = at.parts(("condition", "delay", "max_attempts", "window"))
    for name in ("delay", "window"):
        if name in parts:
            parts[name].warning(
                "pauses between starts are those of restart: 0.1 to 60 seconds, longer each time"
            )
    condition = parts["condition"].choice("none", "on-failure", "any") if "condition" in parts else "any"
    most = f":{parts['max_attempts'].whole()}" if "max_attempts" in parts else ""
    if condition == "any" and most:
        parts["max_attempts"].problem(
            "what is started again whatever happens has no number of attempts; use condition: on-failure"
        )
    return {"restart": {"none": "no", "any": "always"}.get(condition, f"on-failure{most}")}


_NO_SWARM = Unneeded("it is for a swarm, and there is one machine")
LIMITS: Keys = {
    "cpus": _field("cpus", "number"),
    "memory": _field("mem_limit", "size"),
    "pids": _pids,
    "devices": Refused("devices are named, below devices of the service"),
}
RESERVATIONS: Keys = {
    "cpus": Unneeded("nothing is reserved: all share what the machine has"),
    "memory": Unneeded("nothing is reserved: all share what the machine has"),
    "generic_resources": Refused("there are no such resources"),
    "devices": Refused("devices are named, below devices of the service"),
}
DEPLOY: Keys = {
    "mode": _only(("replicated",), "there is one machine, so one mode: replicated"),
    "replicas": lambda at, _: {"scale": at.whole(0, 1000)},
    "resources": _resources,
    "restart_policy": _restart_policy,
    "labels": Unneeded("they are of the service, not of its containers, and nobody reads them"),
    "endpoint_mode": _NO_SWARM,
    "placement": _NO_SWARM,
    "update_config": _NO_SWARM,
    "rollback_config": _NO_SWARM,
}

SERVICE: Keys = {
    "annotations": Unneeded("there is no runtime beside us that reads them"),
    "attach": _field("attach", "flag"),
    "blkio_config": _blkio,
    "build": _build,
    "cap_add": _field("cap_add", "texts"),
    "cap_drop": _field("cap_drop", "texts"),
    "cgroup": _only(("private",), "a container has a cgroup namespace of its own"),
    "cgroup_parent": Refused("control groups are below those of the process that starts them"),
    "command": _command,
    "configs": _grants("configs", "/"),
    "container_name": _field("container_name", "text"),
    "cpu_count": Refused("it is for Windows; use cpus"),
    "cpu_percent": Refused("it is for Windows; use cpus"),
    "cpu_period": lambda at, _: {"cpu_period": at.whole(1)},
    "cpu_quota": lambda at, _: {"cpu_quota": at.whole(_UNLIMITED)},
    "cpu_rt_period": Refused("there is no control of real-time processes"),
    "cpu_rt_runtime": Refused("there is no control of real-time processes"),
    "cpu_shares": lambda at, _: {"cpu_shares": at.whole(2)},
    "cpus": _field("cpus", "number"),
    "cpuset": _field("cpuset", "text"),
    "credential_spec": Refused("it is for Windows"),
    "depends_on": _depends_on,
    "deploy": _deploy,
    "develop": Unneeded("nobody watches files here"),
    "device_cgroup_rules": Refused("a device is given by its node, below devices"),
    "devices": _devices,
    "dns": lambda at, _: {"dns": tuple(item.attempt(parse_address, "") for item in at.items())},
    "dns_opt": Refused("options of resolv.conf(5) are those of the host"),
    "dns_search": Refused("search domains are those of the host"),
    "domainname": _field("domainname", "text"),
    "entrypoint": lambda at, _: {"entrypoint": at.words()},
    "env_file": lambda *_: {},  # its files are part of environment by now
    "environment": _environment,
    "expose": lambda at, _: {"expose": tuple(item.attempt(parse_exposed, "") for item in at.items())},
    "extends": lambda *_: {},  # it is merged by now
    "external_links": Refused("containers of others cannot be reached"),
    "extra_hosts": _extra_hosts,
    "gpus": Refused("devices are named, below devices"),
    "group_add": Refused(
        "the groups are those of the user in the image's /etc/group; write user: USER:GROUP"
    ),
    "healthcheck": _healthcheck,
    "hostname": _field("hostname", "text"),
    "image": _image,
    "init": _field("init", "flag"),
    "ipc": _only(("private", "none"), "a container has an IPC namespace of its own"),
    "isolation": _only(("default",), "there is one kind of isolation"),
    "label_file": lambda *_: {},  # as env_file
    "labels": _field("labels", "texts_by_name"),
    "links": _links,
    "logging": Unneeded("what is printed is kept in memory, see lines() and logs()"),
    "mac_address": Refused(_CHOSEN),
    "mem_limit": _field("mem_limit", "size"),
    "mem_reservation": Unneeded("nothing is reserved: all share what the machine has"),
    "mem_swappiness": Refused("swap is limited by memswap_limit"),
    "memswap_limit": _together,
    "models": Refused("there is nothing here that runs language models"),
    "network_mode": _network_mode,
    "networks": _networks,
    "oom_kill_disable": _only((False, "false"), "what has no memory left is killed"),
    "oom_score_adj": Refused("it is not set"),
    "pid": Refused("a container has a PID namespace of its own, which ends all of it"),
    "pids_limit": _pids,
    "platform": _field("platform", "text"),
    "ports": _ports,
    "post_start": _hooks("post_start"),
    "pre_stop": _hooks("pre_stop"),
    "privileged": _field("privileged", "flag"),
    "profiles": _field("profiles", "texts"),
    "provider": Refused("services are containers"),
    "pull_policy": _pull_policy,
    "pull_refresh_after": Refused("images are asked for as pull_policy says"),
    "read_only": _field("read_only", "flag"),
    "restart": _restart,
    "runtime": Refused("we are the runtime"),
    "scale": lambda at, _: {"scale": at.whole(0, 1000)},
    "secrets": _grants("secrets", "/run/secrets/"),
    "security_opt": _security,
    "shm_size": _field("shm_size", "size"),
    "stdin_open": _field("stdin_open", "flag"),
    "stop_grace_period": _field("stop_grace_period", "duration"),
    "stop_signal": _field("stop_signal", "text"),
    "storage_opt": _storage,
    "sysctls": _field("sysctls", "texts_by_name"),
    "tmpfs": _tmpfs,
    "tty": _field("tty", "flag"),
    "ulimits": _ulimits,
    "use_api_socket": _only((False,), "there is no daemon, so no socket of one"),
    "user": _field("user", "text"),
    "userns_mode": _userns,
    "uts": _only(("private",), "a container has a UTS namespace of its own"),
    "volumes": _volumes,
    "volumes_from": Refused("name the volumes, below volumes of both services"),
    "working_dir": _field("working_dir", "text"),
}
"""Every key of a service that the compose-spec has."""
