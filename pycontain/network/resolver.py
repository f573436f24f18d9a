"""What the inside of a container is told of its networks, and which resolver of this host has to be asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.sandbox.network import ON_NETWORKS, Net, host_lines, resolver_of

if TYPE_CHECKING:
    from pycontain.sandbox.network import Networking

_NO_RESOLVER = "# No network of this container has a way out, so there is no name server to ask.\n"
_RESOLVER, _UPSTREAM = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"


def net_of(networking: Networking) -> Net:
    """What the inside is made for."""
    extra = host_lines(networking.hosts)
    if networking.mode == "none":
        text = "".join(f"nameserver {server}\n" for server in networking.dns)
        return Net(resolver=text or None, hosts=extra)
    if networking.mode == ON_NETWORKS and all(each.network.internal for each in networking.networks):
        return Net(connected=True, resolver=_NO_RESOLVER, live=True)
    if networking.mode == "host":  # what is on loopback there is on loopback here
        resolver = "".join(f"nameserver {server}\n" for server in networking.dns) or _read(_RESOLVER)
        return Net(shared=True, resolver=resolver, hosts=extra)
    resolver, _ = _resolver_of(networking)
    return Net(connected=True, resolver=resolver, hosts=extra, live=networking.mode == ON_NETWORKS)


def host_resolver(networking: Networking) -> str:
    """The host's resolver that a container of *networking* cannot reach, so that the owner has to ask it; or nothing."""
    internal = all(each.network.internal for each in networking.networks)
    if networking.mode in {"none", "host"} or (networking.mode == ON_NETWORKS and internal):
        return ""
    return _resolver_of(networking)[1]


def _resolver_of(networking: Networking) -> tuple[str, str]:
    from pycontain.runtime.fabric import own_addresses  # noqa: PLC0415 - only who has networks needs it

    return resolver_of(_read(_RESOLVER), _read(_UPSTREAM), networking.dns, tuple(own_addresses()))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # a host need not have it
        return ""
