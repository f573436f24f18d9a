"""Published ports: sockets of the host whose connections the owner carries into a container, and back."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import InvalidSpec, NetworkError, PortInUse
from pycontain.network.inside import family_of
from pycontain.runtime import sockets
from pycontain.runtime.forward import forwarder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pycontain.runtime.engine import Engine
    from pycontain.runtime.forward import Gate
    from pycontain.sandbox.network import PublishedPort

_BACKLOG = 4096  # the kernel takes net.core.somaxconn when that is less
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LISTEN = "0A"  # net/tcp_states.h
_WITHIN: tuple[str, ...] = ("127.0.0.1", "::1")


class Ports:
    """The ports of one container that are published. Thread-safe.

    Ports are taken by :meth:`reserve` before the container starts, lead into it from :meth:`enter` on, and are free again
    when it has ended, or after :meth:`close`.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.addresses = _WITHIN
        # Where a program inside may listen: the wildcards are both, and a network adds its own.
        self._reserved: list[tuple[PublishedPort, socket.socket]] = []
        self._gates: dict[PublishedPort, Gate] = {}
        self._held: list[Gate] = []
        self._pidfd = -1
        self._end: Callable[[], None] | None = None
        self._lock = forwarder().lock  # one lock, since each calls the other

    def reserve(self, published: Iterable[PublishedPort]) -> None:
        """Bind all; none when one cannot be."""
        try:
            for port in published:
                bound = bind(port)
                self._reserved.append((attrs.evolve(port, host_port=bound.getsockname()[1]), bound))
        except BaseException:
            self.close()
            raise

    def enter(self, pidfd: int, *ends: Callable[[], object]) -> None:
        """Lead into the container whose PID 1 is *pidfd*, which stays the caller's. *ends* are called after its end."""
        with self._lock:
            self._pidfd = os.dup(pidfd)
            self._end = forwarder().expect_end(os.dup(pidfd), self._ended, *ends)
            while self._reserved:
                self._open(*self._reserved.pop(0))

    def publish(self, port: PublishedPort) -> PublishedPort:
        """Bind one more; with the port that it got."""
        bound = bind(port)
        with self._lock:
            if self._pidfd < 0:
                bound.close()
                raise NetworkError(f"{self.name} has exited", hint="start it again")
            taken = attrs.evolve(port, host_port=bound.getsockname()[1])
            self._open(taken, bound)
            return taken

    def unpublish(self, port: int, protocol: str) -> None:
        """Free all that lead to *port*, and end what came in through them."""
        with self._lock:
            found = [each for each in self._gates if (each.port, each.protocol) == (port, protocol)]
            for each in found:
                forwarder().close(self._gates.pop(each))
        if not found:
            raise InvalidSpec(
                f"port {port}/{protocol} of {self.name} is not published",
                hint="see .ports for those that are",
            )

    @property
    def published(self) -> tuple[PublishedPort, ...]:
        """Those that lead into it now."""
        with self._lock:
            return tuple(self._gates)

    def hold(self, gate: Gate) -> None:
        """Close *gate*, too, when the container has ended."""
        with self._lock:
            self._held.append(gate)

    def close(self) -> None:
        """Free all. Safe to repeat."""
        while self._reserved:
            self._reserved.pop()[1].close()
        if self._end is not None:
            self._end()

    def _open(self, port: PublishedPort, bound: socket.socket) -> None:
        self._gates[port] = forwarder().open(bound, self._dial(port))

    def _ended(self) -> None:
        with self._lock:
            gates = [*self._gates.values(), *self._held]
            self._gates.clear()
            self._held.clear()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
        forwarder().leave(gates)

    def _dial(self, port: PublishedPort) -> Callable[[int], tuple[socket.socket, Any] | None]:
        kind = int(_KINDS[port.protocol])

        def dial(tries: int) -> tuple[socket.socket, Any] | None:
            if tries >= len(self.addresses):
                return None
            address = self.addresses[tries]
            (made,) = sockets.new_sockets(self.engine, self._pidfd, family_of(address), kind)
            return made, (address, port.port)

        return dial


def bind(port: PublishedPort) -> socket.socket:
    """A socket of the host at the address of *port*; :class:`PortInUse` says who has it."""
    family = family_of(port.host_ip)
    bound = socket.socket(family, _KINDS[port.protocol] | socket.SOCK_CLOEXEC)
    try:
        if port.protocol == "tcp":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, port.host_ip != "::")
        bound.bind((port.host_ip, port.host_port))
        if port.protocol == "tcp":
            bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _not_bound(port, error) from error
    return bound


def _not_bound(port: PublishedPort, error: OSError) -> NetworkError:
    where = f"port {port.host_port}/{port.protocol} of {port.host_ip}"
    match error.errno:
        case errno.EADDRINUSE:
            who = _listener(port.host_port, port.protocol)
            return PortInUse(
                f"{where} is in use{f' by {who}' if who else ''}",
                port=port.host_port,
                errno=errno.EADDRINUSE,
                hint=f"end it, or publish at another port; .publish({port.port}) takes any that is free",
            )
        case errno.EACCES:
            return NetworkError(
                f"{where} is only for root",
                hint="choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
            )
        case errno.EADDRNOTAVAIL:
            return NetworkError(
                f"this host has no address {port.host_ip}",
                hint="ip -br addr shows those it has; 127.0.0.1 and 0.0.0.0 are always there",
            )
    return NetworkError(f"{where} cannot be had: {os.strerror(error.errno or 0)}")


def _listener(number: int, protocol: str) -> str:
    """The process that has a port, as far as we may look: ``pid (name)``, proc_net(5)."""
    inodes = {
        fields[9]
        for file in (protocol, f"{protocol}6")
        for fields in _table(file)
        if int(fields[1].rpartition(":")[2], 16) == number and (protocol == "udp" or fields[3] == _LISTEN)
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in wanted:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        name = file.read().strip()
                    return "this process" if int(pid) == os.getpid() else f"process {pid} ({name})"
    return ""


def _table(name: str) -> list[list[str]]:
    try:
        with open(f"/proc/net/{name}", encoding="ascii") as file:
            return [line.split() for line in file.readlines()[1:]]
    except OSError:  # a kernel without IPv6
        return []
