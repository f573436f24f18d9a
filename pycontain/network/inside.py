"""What the owner does in the network namespace of a container: connect to what listens there, and listen itself."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import ConnectTimeout, InvalidSpec, NetworkError, NothingListens, PortInUse
from pycontain.runtime import sockets
from pycontain.runtime.failure import has_exited
from pycontain.sandbox.network import is_ipv6, parse_address, parse_port

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine

_LONGEST_UNIX = 107  # unix(7): sun_path, with its end


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return int(socket.AF_INET6 if is_ipv6(address) else socket.AF_INET)


def _unix_name(given: str, *, abstract_only: bool = False) -> bytes:
    name = os.fsencode(given)
    if name.startswith(b"@") and 1 < len(name) <= _LONGEST_UNIX:
        return b"\0" + name[1:]
    if abstract_only:
        raise ValueError(f"{given!r} is no abstract unix socket; write @ and a name, or a port's number")
    if not name.startswith(b"/") or b"\0" in name:
        raise ValueError(f"{given!r} is no port; write a number, a path that begins with /, or @ and a name")
    return name


@attrs.frozen
class Opened:
    """A socket made inside, and the *address* that it is to be connected to; None when it is."""

    made: socket.socket
    address: tuple[str, int] | bytes | None
    where: str
    number: int


class Place:
    """The network namespace of the running container *name*, whose PID 1 is *pidfd*; *shared*, when it is the host's."""

    def __init__(self, engine: Engine, pidfd: int, name: str, *, shared: bool = False) -> None:
        self.engine = engine
        self.pidfd = pidfd
        self.name = name
        self.shared = shared

    def _new(self, family: int) -> socket.socket:
        if self.shared:
            return socket.socket(family, socket.SOCK_STREAM)
        return sockets.new_sockets(self.engine, self.pidfd, family, socket.SOCK_STREAM)[0]

    def _bound(self, family: int, address: tuple[str, int] | bytes) -> socket.socket:
        if not self.shared:
            return sockets.listening_socket(self.engine, self.pidfd, family, socket.SOCK_STREAM, address)
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family != socket.AF_UNIX:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen()
        except OSError:
            made.close()
            raise
        return made

    def connect(self, port: int | str, host: str, timeout: float | None) -> socket.socket:
        """As :meth:`Running.connect`."""
        return self._connected(self.open(port, host), timeout)

    def open(self, port: int | str, host: str) -> Opened:
        """A socket made inside, and what it is to be connected to. The caller closes it."""
        if isinstance(port, str):
            return self._open_unix(port)
        address, number = _parsed(host, port)
        family = family_of(address)
        where = f"[{address}]:{number}" if family == socket.AF_INET6 else f"{address}:{number}"
        try:
            made = self._new(family)
        except OSError as error:
            raise self._no_socket(error) from error
        return Opened(made, (address, number), where, number)

    def _open_unix(self, given: str) -> Opened:
        try:
            name = _unix_name(given)
        except ValueError as error:
            raise InvalidSpec(str(error)) from None
        try:
            if name.startswith(b"/"):
                made = sockets.unix_socket(self.engine, self.pidfd, socket.SOCK_STREAM, name)
                return Opened(made, None, given, 0)
            return Opened(self._new(socket.AF_UNIX), name, given, 0)
        except OSError as error:
            raise self.refused(error, given, 0, None) from error

    def _connected(self, opened: Opened, timeout: float | None) -> socket.socket:
        made = opened.made
        if opened.address is None:
            return made
        try:
            made.settimeout(timeout)
            made.connect(opened.address)
            made.settimeout(None)
        except OSError as error:
            made.close()
            raise self.refused(error, opened.where, opened.number, timeout) from error
        except BaseException:
            made.close()
            raise
        return made

    def listen(self, port: int | str, host: str) -> socket.socket:
        """As :meth:`Running.listen`."""
        address: tuple[str, int] | bytes
        try:
            if isinstance(port, str):
                family, where, number = int(socket.AF_UNIX), port, 0
                address = _unix_name(port, abstract_only=True)
            else:
                plain, number = _parsed(host, port, least=0)
                family, where, address = family_of(plain), f"{plain} port {number}", (plain, number)
        except ValueError as error:
            raise InvalidSpec(str(error)) from None
        try:
            return self._bound(family, address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"something in {self.name} listens on {where} already",
                    port=number,
                    errno=error.errno,
                    hint="choose another port, or 0 for a free one; exec('ss', '-ltnp') says who it is",
                ) from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise NetworkError(
                    f"{self.name} has no address {where.split()[0]}",
                    hint="listen on 127.0.0.1, ::1, 0.0.0.0 or ::",
                ) from error
            raise self._no_socket(error) from error

    def _no_socket(self, error: OSError) -> Exception:
        if error.errno == errno.ESRCH:
            return has_exited(self.name)
        return NetworkError(
            f"no socket can be made in {self.name}: {os.strerror(error.errno or 0)}",
            hint="see whether this process or the container is short of descriptors or memory",
        )

    def refused(self, error: OSError, where: str, number: int, timeout: float | None) -> Exception:
        """What *error* says of *where*."""
        if isinstance(error, TimeoutError):
            return ConnectTimeout(
                f"{where} in {self.name} did not accept a connection within {timeout:g} s",
                port=number,
                errno=errno.ETIMEDOUT,
                hint="its queue of connections may be full; give more time with timeout=",
            )
        match error.errno:
            case errno.ECONNREFUSED | errno.ENOENT:
                return NothingListens(
                    f"nothing listens on {where} in {self.name}",
                    port=number,
                    errno=error.errno,
                    hint="it may not be ready yet, or listen on another address: exec('ss', '-ltn') shows what there is",
                )
            case errno.ESRCH:
                return has_exited(self.name)
            case errno.EAGAIN:
                return ConnectTimeout(
                    f"the queue of {where} in {self.name} is full", port=number, errno=errno.EAGAIN,
                    hint="the program there accepts no connections: see what it does",
                )  # fmt: skip
        return NetworkError(
            f"{where} in {self.name} cannot be reached: {os.strerror(error.errno or 0)}",
            hint="see whether the container has this address: exec('ip', 'addr')",
        )


def _parsed(host: str, port: int, *, least: int = 1) -> tuple[str, int]:
    problems = []
    address, number = "", 0
    try:
        address = parse_address(host)
    except ValueError as error:
        problems.append(str(error))
    try:
        number = parse_port(port, least=least)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise InvalidSpec(tuple(problems))
    return address, number
