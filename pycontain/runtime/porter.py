"""The porter: a child of the zygote that makes sockets inside the network namespaces of containers, and hands them out.

A socket belongs to the network namespace in which it was made, whoever holds it, network_namespaces(7). So the porter
enters a container's namespace, calls socket(2) there, and passes the descriptor to the owner, who connects it: the
porter itself never waits for anybody. It is forked when the first socket is asked for, and serves one owner through one
SEQPACKET socket:

======================================  ==============================================================
request, with a pidfd of the container  answer
======================================  ==============================================================
``sockets family kind count``           ``ok`` + so many sockets
``listen family kind address``          ``ok port`` + a socket that is bound, and listens if it is a stream
``unix kind path``                      ``ok`` + a socket that is connected to *path* below the container's root
======================================  ==============================================================

or ``failed errno``. It lives in the zygote's PID namespace, so it ends with the zygote in whatever way.

It is a process of its own, and not the zygote: rootless, nobody may return into the host's network namespace, where the
zygote must stay for containers that share it.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import select
import socket

from pycontain.kernel import descriptors, privileges, syscalls

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CHANNEL, _HOME = 3, 4  # the descriptors that it keeps
_REQUEST_LIMIT = 1 << 16
_BACKLOG = 4096  # the kernel takes net.core.somaxconn when that is less
MOST_SOCKETS = 64  # in one answer; unix(7): SCM_MAX_FD is 253


def live(channel: int, *, rootless: bool) -> None:
    """Serve until the owner lets go. Never returns."""
    try:
        privileges.set_name("pycontain-porter")
        far = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 64)
        os.dup2(far, _CHANNEL, inheritable=False)
        if rootless:
            # The place to be between two containers: staying in one would keep its namespace alive.
            syscalls.unshare(syscalls.CLONE_NEWNET)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if home != _HOME:
            os.dup2(home, _HOME, inheritable=False)
        syscalls.close_range(_HOME + 1)
        _serve(socket.socket(fileno=_CHANNEL))
    finally:
        os._exit(1)


def _serve(channel: socket.socket) -> None:
    while True:
        packet, fds, _ = descriptors.receive(channel, _REQUEST_LIMIT, 2)
        if not packet:
            os._exit(0)
        made: list[socket.socket] = []
        try:
            verb, *arguments = marshal.loads(packet)
            answer: tuple[Any, ...] = ("ok", *_DOERS[verb](made, fds, *arguments))
        except OSError as error:
            answer = ("failed", error.errno)
            for each in made:
                each.close()
            made = []
        socket.send_fds(channel, [marshal.dumps(answer)], [each.fileno() for each in made])
        for fd in fds:
            os.close(fd)
        for each in made:
            each.close()


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class Inside:
    """A block in the network namespace of the process that *pidfd* stands for."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd

    def __enter__(self) -> None:
        try:
            syscalls.setns(self.pidfd, syscalls.CLONE_NEWNET)
        except OSError as error:
            # setns(2) says EPERM of a process that is only waiting to be reaped.
            if _has_exited(self.pidfd):
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
            raise

    def __exit__(self, *_: object) -> None:
        syscalls.setns(_HOME, syscalls.CLONE_NEWNET)


def _new(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind | socket.SOCK_CLOEXEC)


def _sockets(
    made: list[socket.socket], fds: list[int], family: int, kind: int, count: int
) -> tuple[Any, ...]:
    with Inside(fds[0]):
        made += (_new(family, kind) for _ in range(count))
    return ()


def _listen(
    made: list[socket.socket], fds: list[int], family: int, kind: int, address: Any
) -> tuple[Any, ...]:
    """Bound here and not by the owner, who may not have the right to a low port of the namespace."""
    with Inside(fds[0]):
        bound = _new(family, kind)
        made.append(bound)
        if family != socket.AF_UNIX:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        if kind == socket.SOCK_STREAM:
            bound.listen(_BACKLOG)
        name = bound.getsockname()
    return (name[1] if isinstance(name, tuple) else 0,)


def _unix(made: list[socket.socket], fds: list[int], kind: int, path: bytes) -> tuple[Any, ...]:
    """unix(7): a path is looked up by who connects; the container's root is entered by no name of the host."""
    pidfd = fds[0]
    root = os.open(f"/proc/{descriptors.pid_of(pidfd)}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _has_exited(pidfd):  # the number may be somebody else's by now
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        place = syscalls.openat2(root, path, os.O_PATH, resolve=resolve)
    finally:
        os.close(root)
    try:
        made.append(_new(socket.AF_UNIX, kind))
        made[0].setblocking(False)
        made[0].connect(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
    return ()


_DOERS: dict[str, Callable[..., tuple[Any, ...]]] = {"sockets": _sockets, "listen": _listen, "unix": _unix}
