"""What a container has of networks, as values: ports of the host that lead to it, and how names and addresses are written."""

from __future__ import annotations

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
class Networking:
    """Everything about networks that a container describes."""

    published: tuple[PublishedPort, ...] = ()


NO_NETWORKING = Networking()
