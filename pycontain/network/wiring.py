"""What one container has on the host beside itself: published ports, links to networks, a resolver to ask."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from pycontain.errors import SandboxError
from pycontain.network.ports import Ports
from pycontain.network.resolver import host_resolver
from pycontain.runtime import sockets
from pycontain.runtime.fabric import Link, fabric_of, new_link_name
from pycontain.runtime.forward import forwarder
from pycontain.sandbox.network import ON_NETWORKS, OWN_RESOLVER, host_lines, is_ipv6

if TYPE_CHECKING:
    from pycontain.network import Network
    from pycontain.runtime.engine import Engine
    from pycontain.runtime.fabric import Fabric
    from pycontain.sandbox.network import Networking

_DOMAIN = 53  # RFC 1035


class Wiring:
    """Made before the container starts, given its first process, and let go of after its end."""

    def __init__(
        self, networking: Networking, engine: Engine, ident: str, name: str, hostname: str = ""
    ) -> None:
        self.networking = networking
        self.engine = engine
        self.ident = ident
        self.name = name
        self.own_names = tuple(dict.fromkeys((hostname or ident[:12], ident[:12])))
        self.fabric: Fabric | None = None
        self.links: list[Link] = []
        self.networks: list[Network] = []
        self.live = networking.mode == ON_NETWORKS  # its hosts file is kept by us
        self.over = False
        self.ports = Ports(engine, name)
        self._interfaces = 0

    @classmethod
    def prepare(
        cls, networking: Networking, engine: Engine, ident: str, name: str, hostname: str = ""
    ) -> Wiring:
        """Take what the container shall have; nothing stays taken when something cannot be had."""
        made = cls(networking, engine, ident, name, hostname)
        try:
            if networking.mode == "private":
                made.fabric = fabric_of(engine)
                bridge, address = made.fabric.crowd_address()
                made.links.append(Link(new_link_name(), bridge, made.next_interface(), address))
            for membership in networking.networks:
                membership.network.join(made, membership)
            made.ports.addresses += tuple(link.address for link in made.links)
            made.ports.reserve(networking.published)
        except BaseException:
            made.close()
            raise
        return made

    def next_interface(self) -> str:
        """A name inside for one more link."""
        self._interfaces += 1
        return f"eth{self._interfaces - 1}"

    def hosts(self) -> str:
        """The hosts(5) of the container: itself, what was asked for, and who is on its networks."""
        own = self.links[0].address if self.links else "127.0.1.1"
        lines = ["127.0.0.1\tlocalhost\n", "::1\tlocalhost ip6-localhost ip6-loopback\n"]
        lines.append(f"{own}\t{' '.join(self.own_names)}\n")
        return "".join(
            (*lines, host_lines(self.networking.hosts), *(network.lines() for network in self.networks))
        )

    def enter(self, pidfd: int) -> None:
        """Join it to the container whose PID 1 is *pidfd*, which stays the caller's."""
        self.ports.enter(pidfd, self._ended)
        if self.fabric is None:
            return
        self.fabric.attach(pidfd, self.links, self._gateway())
        asked = host_resolver(self.networking)
        if asked:
            self._answer_for(asked, pidfd)
        self.fabric.tell_connected(pidfd)

    def attach(self, pidfd: int, link: Link) -> None:
        """One more link while it runs, of a network that it has joined."""
        assert self.fabric is not None
        first = all(each.bridge.internal for each in self.links if each is not link)
        self.fabric.attach(pidfd, (link,), "" if link.bridge.internal or not first else link.bridge.gateway)
        self.ports.addresses = (*self.ports.addresses, link.address)

    def detach(self, pidfd: int, link: Link) -> None:
        """One less. The way out is that of the next link that has one."""
        assert self.fabric is not None
        was_way_out = link.bridge.gateway == self._gateway()
        self.links.remove(link)
        self.ports.addresses = tuple(each for each in self.ports.addresses if each != link.address)
        self.fabric.detach(link)
        gateway = self._gateway()
        if was_way_out and gateway:
            self.fabric.attach(pidfd, (), gateway)

    def _gateway(self) -> str:
        return next((link.bridge.gateway for link in self.links if not link.bridge.internal), "")

    def _answer_for(self, resolver: str, pidfd: int) -> None:
        """Carry questions to the host's resolver, which no other network namespace reaches."""
        family = socket.AF_INET6 if is_ipv6(resolver) else socket.AF_INET

        def dial(kind: int) -> Any:
            def dialled(tries: int) -> tuple[socket.socket, Any] | None:
                if tries:
                    return None
                return socket.socket(family, kind | socket.SOCK_CLOEXEC), (resolver, _DOMAIN)

            return dialled

        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                bound = sockets.listening_socket(
                    self.engine, pidfd, socket.AF_INET, kind, (OWN_RESOLVER, _DOMAIN)
                )
            except ProcessLookupError:  # it has ended already
                return
            self.ports.hold(forwarder().open(bound, dial(kind)))

    def _ended(self) -> None:
        if self.fabric is None or self.over:
            return
        with self.fabric.lock:
            self.over = True
            for network in list(self.networks):
                network.leave(self)
            while self.links:
                link = self.links.pop()
                link.bridge.give_back(link.address)
            if self.live and not self.fabric.lost:
                with contextlib.suppress(OSError, SandboxError):  # the zygote may just be ending
                    self.fabric.write_hosts({self.ident: None})

    def close(self) -> None:
        """Let go of all. Safe to repeat."""
        self.ports.close()
        self._ended()
