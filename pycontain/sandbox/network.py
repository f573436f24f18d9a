"""What a container has of networks, as values: ports of the host that lead to it, and how names and addresses are written."""

from __future__ import annotations

from typing import Any

import attrs

_MOST_PORT = 65_535
PROTOCOLS = ("tcp", "udp")
LOOPBACK = "127.0.0.1"


def parse_port(given: object, *, least: int = 1) -> int:
    """A port's number."""
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= _MOST_PORT:
        raise ValueError(f"{given!r} is no port; write a number from {least} to {_MOST_PORT}")
    return int(given)


def parse_host_port(given: int | None) -> int:
    """A port of the host; 0 for any that is free."""
    return 0 if given is None else parse_port(given, least=0)


def parse_protocol(given: object) -> str:
    """``tcp`` or ``udp``."""
    if given not in PROTOCOLS:
        raise ValueError(f"{given!r} is no protocol; there are {' and '.join(PROTOCOLS)}")
    return str(given)


def parse_address(given: object) -> str:
    """An address of IPv4 or IPv6 in its plain form; ``localhost`` is 127.0.0.1."""
    import ipaddress  # noqa: PLC0415 - costs 4 ms, and most have no network

    if given == "localhost":
        return LOOPBACK
    try:
        if not isinstance(given, str):
            raise TypeError
        return str(ipaddress.ip_address(given))
    except (ValueError, TypeError):
        raise ValueError(
            f"{given!r} is no address; write one of IPv4 or IPv6: names mean something else inside"
        ) from None


def is_ipv6(address: str) -> bool:
    """Whether a plain address is one of IPv6."""
    return ":" in address


@attrs.frozen
class PublishedPort:
    """A port of the host, at *host_ip*, that leads to *port* inside. *host_port* is 0 as long as any free one will do."""

    port: int
    host_port: int = 0
    host_ip: str = LOOPBACK
    protocol: str = "tcp"

    @property
    def reached_at(self) -> tuple[str, int]:
        """The address and port that this machine connects to; one for all addresses is reached at loopback."""
        everywhere = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - nothing is bound here
        return everywhere.get(self.host_ip, self.host_ip), self.host_port

    def __str__(self) -> str:
        host = f"[{self.host_ip}]" if is_ipv6(self.host_ip) else self.host_ip
        return f"{host}:{self.host_port or '*'}->{self.port}/{self.protocol}"


@attrs.frozen
class Membership:
    """How a container is on a ``pycontain.Network``: under which other names, and at which address."""

    network: Any
    aliases: tuple[str, ...] = ()
    ip: str | None = None


@attrs.frozen
class Networking:
    """Everything about networks that a container describes.

    *mode* is one of :data:`MODES`, or :data:`ON_NETWORKS`, which goes with *networks*. *hosts* are names with their addresses.
    """

    mode: str = "none"
    networks: tuple[Membership, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    dns: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()


NO_NETWORKING = Networking()
MODES = ("none", "private", "host")
ON_NETWORKS = "networks"
_LOOPBACK = "127."
OWN_RESOLVER = "127.0.0.11"
"""Where a container asks that cannot reach the host's resolver: the owner answers there."""


@attrs.frozen
class Net:
    """What of networks the inside of a sandbox is made for.

    ``shared``: the host's network namespace. ``connected``: somebody outside connects the container's own, and the payload
    waits for it. ``resolver`` is the text of /etc/resolv.conf, None where there is nobody to ask; ``hosts`` are lines that
    /etc/hosts has besides; ``live``: the owner keeps that file, and changes it.
    """

    shared: bool = False
    connected: bool = False
    resolver: str | None = None
    hosts: str = ""
    live: bool = False


ALONE = Net()


def parse_mode(given: object) -> str:
    """One of :data:`MODES`."""
    if given not in MODES:
        raise ValueError(f"{given!r} is no network; there are {', '.join(MODES)}")
    return str(given)


def parse_host_name(given: object) -> str:
    """A name as hosts(5) takes it."""
    if not isinstance(given, str) or not given or not set(given) <= _NAME or len(given) > _LONGEST_NAME:
        raise ValueError(f"{given!r} is no host name; use letters, digits, dots, dashes and underscores")
    return given


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_LONGEST_NAME = 253


def host_lines(hosts: tuple[tuple[str, str], ...]) -> str:
    """Lines of hosts(5)."""
    return "".join(f"{address}\t{name}\n" for name, address in hosts)


def resolver_of(
    configuration: str, upstream: str, servers: tuple[str, ...], own: tuple[str, ...] = ()
) -> tuple[str, str]:
    """The resolv.conf(5) for a container with a way out, and the host's resolver that the owner has to ask for it, or nothing.

    *configuration* is the host's file and *upstream* that of systemd-resolved, which names the servers behind 127.0.0.53. A
    resolver on loopback cannot be reached from another network namespace, and one at the host's *own* addresses is behind our
    rules. *servers*, when given, are used and nothing else.
    """
    lines = _lines(configuration)
    kept = [line for line in lines if line.split()[0] in {"search", "domain", "options"}]
    found = list(servers) or _servers(lines)
    reachable = [server for server in found if not _is_here(server, own)]
    if not reachable and not servers:
        reachable = [server for server in _servers(_lines(upstream)) if not _is_here(server, own)]
    asked = ""
    if not reachable and found:
        asked, reachable = found[0], [OWN_RESOLVER]
    return "".join(f"{line}\n" for line in (*(f"nameserver {server}" for server in reachable), *kept)), asked


def _lines(text: str) -> list[str]:
    stripped = (line.partition("#")[0].partition(";")[0].strip() for line in text.splitlines())
    return [line for line in stripped if line]


def _servers(lines: list[str]) -> list[str]:
    words = (line.split() for line in lines)
    return [each[1] for each in words if len(each) > 1 and each[0] == "nameserver"]


def _is_here(server: str, own: tuple[str, ...]) -> bool:
    return server in own or server.startswith(_LOOPBACK) or server in {"::1", "0.0.0.0", "::"}  # noqa: S104 - nothing is bound here
