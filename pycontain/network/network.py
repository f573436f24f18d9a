"""``Network``: containers that find each other by name, on a bridge of their own."""

from __future__ import annotations

import os
import re
import weakref
from typing import TYPE_CHECKING, Self

import attrs

from pycontain.errors import InvalidSpec, NetworkError
from pycontain.runtime import engine as engines
from pycontain.runtime.fabric import Link, Subnet, fabric_of, new_link_name, text_of
from pycontain.sandbox.network import Membership, parse_host_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycontain.network.wiring import Wiring
    from pycontain.process import Running
    from pycontain.runtime.engine import Engine
    from pycontain.runtime.fabric import Bridge, Fabric

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@attrs.frozen
class _Member:
    wiring: Wiring
    link: Link
    names: tuple[str, ...]

    def line(self) -> str:
        return f"{self.link.address}\t{' '.join(self.names)}\n"


class Network:
    """A network of this process: a bridge with a subnet of IPv4, made at the first use and gone with the process.

    Containers on it reach each other at every port, and find each other by their names, host names, ids and aliases.
    Other networks, and whatever listens on the host, are out of reach. With *internal* there is no way out either.
    *subnet*, such as ``"10.1.2.0/24"``, is one that the host has no route for; without it, one is chosen. *name* is for people.

    A context manager: leaving the block takes the containers off it and removes it. Thread-safe.

    >>> from pycontain import Container, Network
    >>> with Network() as network:
    ...     web = Container("host:").name("web").network(network)
    """

    def __init__(self, name: str | None = None, subnet: str | None = None, internal: bool = False) -> None:  # noqa: FBT001, FBT002 - the contract's form
        problems = []
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            problems.append(f"{name!r} is no name; use letters, digits, dots, dashes and underscores")
        self._wanted: Subnet | None = None
        if subnet is not None:
            try:
                self._wanted = Subnet.parse(subnet)
            except (ValueError, AttributeError) as error:
                problems.append(str(error))
        if problems:
            raise InvalidSpec(tuple(problems))
        self.name = name or f"network-{os.urandom(4).hex()}"
        self.internal = bool(internal)
        self._process = os.getpid()
        self._fabric: Fabric | None = None
        self._bridge: Bridge | None = None
        self._members: dict[str, _Member] = {}
        self._closed = False
        self._finalizer: weakref.finalize[[Fabric, Bridge], Network] | None = None

    def __repr__(self) -> str:
        where = f" {self._bridge.subnet}" if self._bridge is not None else ""
        return f"<Network {self.name}{where}{' internal' * self.internal}>"

    def __enter__(self) -> Self:
        self._open(engines.engine())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def subnet(self) -> str:
        """Its addresses, such as ``10.193.7.0/24``."""
        return str(self._open(engines.engine())[1].subnet)

    @property
    def gateway(self) -> str:
        """The address of its way out, which nobody has when it is internal."""
        return self._open(engines.engine())[1].gateway

    @property
    def containers(self) -> tuple[str, ...]:
        """The names of those that are on it now."""
        return tuple(member.wiring.name for member in list(self._members.values()))

    def address(self, running: Running) -> str:
        """The address of *running* on it."""
        member = self._members.get(running.id)
        if member is None:
            raise InvalidSpec(
                f"{running.name} is not on {self.name}", hint="connect it: network.connect(running)"
            )
        return member.link.address

    def connect(self, running: Running, *, aliases: Iterable[str] = (), ip: str | None = None) -> str:
        """Put what runs on this network, too; returns its address there.

        Others find it by its name and *aliases*. It finds them by name if it was started on some :class:`Network`; else its
        /etc/hosts is its own.
        """
        membership = parse_membership(self, aliases, ip)
        with running.wired() as (wiring, pidfd):
            if running.id in self._members:
                raise InvalidSpec(f"{running.name} is on {self.name} already", hint="disconnect it first")
            link = self.join(wiring, membership)
            try:
                wiring.attach(pidfd, link)
            except BaseException:
                self.leave(wiring)
                raise
        return link.address

    def disconnect(self, running: Running) -> None:
        """Take it off this network; its connections there break."""
        with running.wired() as (wiring, pidfd):
            member = self._members.get(running.id)
            if member is None:
                raise InvalidSpec(f"{running.name} is not on {self.name}", hint="see network.containers")
            wiring.detach(pidfd, member.link)
            self.leave(wiring)

    def close(self) -> None:
        """Take all containers off it and remove it. Safe to repeat."""
        self._closed = True
        if os.getpid() != self._process or self._fabric is None or self._bridge is None:
            return
        with self._fabric.lock:
            bridge, self._bridge = self._bridge, None
            for member in list(self._members.values()):
                if not self._fabric.lost:
                    self._fabric.detach(member.link)
                self.leave(member.wiring)
            if self._finalizer is not None:
                self._finalizer.detach()
            _remove(self._fabric, bridge)

    # --- for the wiring of containers -------------------------------------------------------------------

    def join(self, wiring: Wiring, membership: Membership) -> Link:
        """Give it an address, and its names to all others; not for others."""
        fabric, bridge = self._open(wiring.engine)
        with fabric.lock:
            address = bridge.take(membership.ip)
            if address is None:
                raise _no_address(self, bridge, membership.ip)
            link = Link(new_link_name(), bridge, wiring.next_interface(), address)
            names = dict.fromkeys((wiring.name, *wiring.own_names, *membership.aliases))
            self._members[wiring.ident] = _Member(wiring, link, tuple(names))
            wiring.fabric = fabric
            wiring.networks.append(self)
            wiring.links.append(link)
            self._tell()
            return link

    def leave(self, wiring: Wiring) -> None:
        """Take its address and its names back; not for others. Safe to repeat."""
        if self._fabric is None:
            return
        with self._fabric.lock:
            member = self._members.pop(wiring.ident, None)
            if member is None:
                return
            member.link.bridge.give_back(member.link.address)
            wiring.networks.remove(self)
            if member.link in wiring.links:
                wiring.links.remove(member.link)
            self._tell(wiring)

    def lines(self) -> str:
        """Its members as lines of hosts(5); not for others."""
        return "".join(member.line() for member in self._members.values())

    def _tell(self, *others: Wiring) -> None:
        assert self._fabric is not None
        told = [*(member.wiring for member in self._members.values()), *others]
        texts = {wiring.ident: wiring.hosts() for wiring in told if wiring.live and not wiring.over}
        if not self._fabric.lost:
            self._fabric.write_hosts(texts)

    def _open(self, engine: Engine) -> tuple[Fabric, Bridge]:
        if os.getpid() != self._process:
            raise NetworkError(f"{self.name} belongs to process {self._process}, of which this one is a fork")
        if self._closed:
            raise NetworkError(f"{self.name} was closed", hint="make another one: Network()")
        fabric = fabric_of(engine)
        if self._bridge is not None and self._fabric is not None:
            if self._fabric is not fabric:
                raise NetworkError(
                    f"{self.name} has ended with the process that held it", hint="make another one: Network()"
                )
            return self._fabric, self._bridge
        with fabric.lock:
            if self._bridge is None:
                self._fabric, self._bridge = fabric, fabric.add(self._wanted, internal=self.internal)
                self._finalizer = weakref.finalize(self, _remove, fabric, self._bridge)
                self._finalizer.atexit = False  # it ends with the zygote
            return fabric, self._bridge


def _remove(fabric: Fabric, bridge: Bridge) -> None:
    if not fabric.lost:
        fabric.remove(bridge)


def _no_address(network: Network, bridge: Bridge, wanted: str | None) -> NetworkError:
    if wanted is None:
        return NetworkError(
            f"{network.name} has no address left in {bridge.subnet}", hint="make another network"
        )
    return NetworkError(
        f"{wanted} is taken, or not of {network.name}",
        hint=f"choose one from {text_of(bridge.subnet.first + 2)} on in {bridge.subnet}, or none: then it is chosen",
    )


def parse_membership(network: object, aliases: Iterable[str], ip: str | None) -> Membership:
    """How a container is on *network*; :class:`InvalidSpec` with all that is wrong."""
    problems, names = [], []
    if not isinstance(network, Network):
        problems.append(f"{network!r} is no network; write none, private or host, or give a Network")
    for alias in (aliases,) if isinstance(aliases, str) else aliases:
        try:
            names.append(parse_host_name(alias))
        except ValueError as error:
            problems.append(str(error))
    if ip is not None:
        try:
            Subnet.parse_address(ip)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise InvalidSpec(tuple(problems))
    return Membership(network, tuple(names), ip)
