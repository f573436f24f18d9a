"""The short forms of the compose-spec: ports, volumes, devices and what else is written in one text. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pycontain.compose.values import Mounted, Port
from pycontain.sandbox.network import parse_address, parse_port, parse_protocol
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[^:\[\]]*|[0-9a-fA-F:.]+):(?=[^:]*:))?"
    r"(?:(?P<host>[0-9-]*):)?(?P<inside>[0-9-]+)(?:/(?P<protocol>\w+))?"
)
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_OPTIONS = {"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"}
LOOPBACK = "127.0.0.1"


def parse_range(text: str) -> range:
    """``8000`` or ``8000-8002``."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no port and no range of ports; write 8000 or 8000-8002")
    first, last = parse_port(int(found[1])), parse_port(int(found[2] or found[1]))
    if last < first:
        raise ValueError(f"the range of ports {text!r} ends before it begins")
    return range(first, last + 1)


def parse_ports(text: str) -> tuple[Port, ...]:
    """``[[IP:][HOST]:]PORT[/PROTOCOL]``, where both may be ranges."""
    found = _PORT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no port; write 8080, 8000:80, 127.0.0.1:8000:80 or 6060:6060/udp")
    protocol = parse_protocol((found["protocol"] or "tcp").lower())
    ip = parse_address(found["ip"].strip("[]")) if found["ip"] else LOOPBACK
    return ports_of(found["inside"], found["host"] or "", ip, protocol)


def ports_of(inside: str, outside: str, ip: str, protocol: str) -> tuple[Port, ...]:
    """A port for each of the range *inside*, with those *outside* in order, if there are some."""
    targets = parse_range(inside)
    if not outside:
        return tuple(Port(target, None, ip, protocol) for target in targets)
    published = parse_range(outside)
    if len(published) != len(targets):
        raise ValueError(
            f"{outside} are {len(published)} ports of the host, and {inside} are {len(targets)} inside; let them be as many"
        )
    return tuple(Port(target, host, ip, protocol) for target, host in zip(targets, published, strict=True))


def parse_volume(text: str) -> Mounted:
    """``[SOURCE:]TARGET[:OPTIONS]``; a source with a slash in front, a dot or ``~`` is a path, else the key of a volume."""
    parts = text.split(":")
    if len(parts) == 1:
        return Mounted("volume", _absolute(text))
    source, target, *options = parts
    if len(options) > 1 or not source:
        raise ValueError(f"{text!r} is no volume; write SOURCE:TARGET or SOURCE:TARGET:ro")
    said = set(options[0].split(",")) if options else set()
    unknown = sorted(said - _OPTIONS)
    if unknown:
        raise ValueError(f"{text!r} has the option {unknown[0]!r}; there are {', '.join(sorted(_OPTIONS))}")
    is_path = source.startswith(("/", ".", "~"))
    return Mounted(
        "bind" if is_path else "volume",
        _absolute(target),
        source,
        read_only="ro" in said,
        nocopy="nocopy" in said,
    )


def parse_exposed(text: str) -> str:
    """``8000``, ``8000-8002``, and ``/udp`` after it."""
    ports, slash, protocol = text.partition("/")
    parse_range(ports)
    if slash:
        parse_protocol(protocol)
    return text


def _absolute(target: str) -> str:
    if not target.startswith("/"):
        raise ValueError(f"{target!r} is no absolute path of the container")
    return target


def parse_tmpfs(text: str) -> Mounted:
    """``TARGET[:size=64M,mode=1777]``."""
    target, _, settings = text.partition(":")
    size, mode = None, None
    for setting in filter(None, settings.split(",")):
        name, _, value = setting.partition("=")
        if name == "size":
            size = parse_size(value)
        elif name == "mode":
            mode = parse_mode(value)
        elif name not in {"rw", "noexec", "nosuid", "nodev"}:  # which it is
            raise ValueError(
                f"{text!r}: a tmpfs takes size=SIZE and mode=OCTAL, and is rw, noexec, nosuid and nodev; not {setting!r}"
            )
    return Mounted("tmpfs", _absolute(target), size=size, mode=mode)


def parse_mode(text: str) -> int:
    """An octal number of a mode."""
    if not text or set(text.removeprefix("0o")) - set("01234567") or len(text) > 6:
        raise ValueError(f"{text!r} is no mode; write it in octal, as 0440")
    return int(text, 8)


def parse_device(text: str) -> tuple[str, str, str]:
    """``SOURCE[:TARGET[:rwm]]``."""
    source, _, rest = text.partition(":")
    target, _, access = rest.partition(":")
    if not source.startswith("/"):
        raise ValueError(f"{text!r} names no device of the host; write /dev/NAME")
    if target and not target.startswith("/") and not access:
        target, access = "", target
    return source, target or source, access or "rwm"


def host_pairs(text: str) -> Iterator[tuple[str, str]]:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS``."""
    place = min((at for sign in ":=" if (at := text.find(sign)) >= 0), default=-1)
    if place < 0:
        raise ValueError(f"{text!r} is no host; write NAME=ADDRESS")
    yield text[:place], text[place + 1 :].strip("[]")
