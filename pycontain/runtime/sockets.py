"""The owner's side of the porter: sockets that were made inside a container's network namespace."""

from __future__ import annotations

import marshal
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from pycontain.errors import SandboxError
from pycontain.kernel import descriptors
from pycontain.runtime import engine as engines
from pycontain.runtime.porter import MOST_SOCKETS

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine

_PATIENCE = 20.0  # seconds for an answer; the porter waits for nobody, so the host is overloaded


class Porter:
    """The connection to the porter of one zygote. Thread-safe: one request after the other."""

    def __init__(self, engine: Engine) -> None:
        try:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise engines.shortage(error) from error
        self._channel.settimeout(_PATIENCE)
        self._lock = threading.Lock()
        self._engine = engine
        with theirs:
            try:
                engine.request(("porter", engine.facts.rootless), (theirs.fileno(),))
            except BaseException:
                self._channel.close()
                raise

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return self._channel.fileno()

    def ask(self, *request: Any, fds: tuple[int, ...] = ()) -> tuple[tuple[Any, ...], list[int]]:
        """What it answers, with the descriptors, which are the caller's; OSError as it had it.

        A porter that was killed, or does not answer, is let go of, and :class:`SandboxError` says so; the next request
        finds a new one.
        """
        try:
            with self._lock:
                socket.send_fds(self._channel, [marshal.dumps(request)], fds)
                packet, received, _ = descriptors.receive(self._channel, 1 << 16, MOST_SOCKETS)
        except OSError as error:
            raise self._lost() from error
        if not packet:
            raise self._lost()
        verdict, *values = marshal.loads(packet)
        if verdict == "failed":
            raise OSError(values[0], os.strerror(values[0]))
        return tuple(values), received

    def _lost(self) -> SandboxError:
        forget(self._engine, self)
        if not self._engine.alive:
            return self._engine.broken()
        return SandboxError(
            "the process that makes sockets inside containers has ended, or does not answer",
            hint="try again: the next call starts another one",
        )

    def release(self) -> None:
        """Let go of it, which ends it. Safe to repeat."""
        self._channel.close()

    abandon = release


_porters: dict[Engine, Porter] = {}
_making = threading.Lock()


def _forked() -> None:
    global _making  # noqa: PLW0603 - another thread of the parent may have held it
    _making = threading.Lock()
    _porters.clear()  # the engines have been abandoned, and with them what they kept


os.register_at_fork(after_in_child=_forked)


def porter_of(engine: Engine) -> Porter:
    """The porter of *engine*, which is forked when there is none. It lives as long as the zygote."""
    with _making:
        found = _porters.get(engine)
        if found is None:
            for ended in [each for each in _porters if not each.alive]:
                del _porters[ended]
            found = _porters[engine] = Porter(engine)
            engine.keep(found)
        return found


def forget(engine: Engine, porter: Porter) -> None:
    """Have the next one made anew."""
    porter.release()
    with _making:
        if _porters.get(engine) is porter:
            del _porters[engine]


def new_sockets(engine: Engine, pidfd: int, family: int, kind: int, count: int = 1) -> list[socket.socket]:
    """*count* unconnected sockets of the network namespace of the container whose PID 1 is *pidfd*."""
    _, fds = porter_of(engine).ask("sockets", int(family), int(kind), count, fds=(pidfd,))
    return [socket.socket(fileno=fd) for fd in fds]


def listening_socket(engine: Engine, pidfd: int, family: int, kind: int, address: Any) -> socket.socket:
    """A socket of that namespace, bound to *address*; a stream listens."""
    _, (fd,) = porter_of(engine).ask("listen", int(family), int(kind), address, fds=(pidfd,))
    return socket.socket(fileno=fd)


def unix_socket(engine: Engine, pidfd: int, kind: int, path: bytes) -> socket.socket:
    """A socket that is connected to *path*, which is resolved below the container's root."""
    _, (fd,) = porter_of(engine).ask("unix", int(kind), path, fds=(pidfd,))
    connected = socket.socket(fileno=fd)
    connected.setblocking(True)
    return connected
