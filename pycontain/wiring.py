"""What one container has on the host beside itself: published ports, links to networks, a resolver to ask."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from pycontain.lowering import host_resolver
from pycontain.ports import Ports
from pycontain.runtime import sockets
from pycontain.runtime.fabric import Link, fabric_of
from pycontain.runtime.forward import forwarder
from pycontain.sandbox.network import OWN_RESOLVER, is_ipv6

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine
    from pycontain.runtime.fabric import Fabric
    from pycontain.sandbox.network import Networking

_DOMAIN = 53  # RFC 1035


class Wiring:
    """Made before the container starts, given its first process, and let go of after its end."""

    def __init__(self, networking: Networking, engine: Engine, ident: str, name: str) -> None:
        self.networking = networking
        self.engine = engine
        self.ident = ident
        self.name = name
        self.fabric: Fabric | None = None
        self.links: list[Link] = []
        self.ports = Ports(engine, name)

    @classmethod
    def prepare(cls, networking: Networking, engine: Engine, ident: str, name: str) -> Wiring:
        """Take what the container shall have; nothing stays taken when something cannot be had."""
        made = cls(networking, engine, ident, name)
        try:
            if networking.mode == "private":
                made.fabric = fabric_of(engine)
                bridge, address = made.fabric.crowd_address()
                made.links.append(Link(new_name(), bridge, "eth0", address))
            made.ports.addresses += tuple(link.address for link in made.links)
            made.ports.reserve(networking.published)
        except BaseException:
            made.close()
            raise
        return made

    def enter(self, pidfd: int) -> None:
        """Join it to the container whose PID 1 is *pidfd*, which stays the caller's."""
        self.ports.enter(pidfd, self._ended)
        if self.fabric is None:
            return
        gateway = next((link.bridge.gateway for link in self.links if not link.bridge.internal), "")
        self.fabric.attach(pidfd, self.links, gateway)
        asked = host_resolver(self.networking)
        if asked:
            self._answer_for(asked, pidfd)
        self.fabric.tell_connected(pidfd)

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
        while self.links:
            link = self.links.pop()
            link.bridge.give_back(link.address)

    def close(self) -> None:
        """Let go of all. Safe to repeat."""
        self.ports.close()
        self._ended()


def new_name() -> str:
    """A name for the host's end of a link, netdevice(7): at most 15 letters."""
    return f"pyv{os.urandom(5).hex()}"
