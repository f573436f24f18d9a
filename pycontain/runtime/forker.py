"""The forker: a twin of the zygote that does nothing but fork spare children.

After a fork each side copies a page when it first writes to it. The zygote writes to hundreds between two starts, and a
fork holds it up besides; so the forks that nobody waits for are made by a process whose loop touches few pages.
What it forks are the zygote's own children (CLONE_PARENT): the zygote waits for them, and they die with it.

It lives in the zygote's PID namespace, so it ends with the zygote in whatever way. When it dies alone, or is stopped,
the zygote makes another one.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import select
import signal
import socket

from pycontain.kernel import descriptors, privileges, syscalls
from pycontain.runtime import perform, users
from pycontain.runtime.child import Spare, calls_of

_CHANNEL, _PID_NAMESPACE = 3, 4  # the descriptors that it keeps
_REQUEST_LIMIT = 1 << 18
_NAME_LIMIT = 256
_PREFIXES_KEPT = 16
_PATIENCE = 1000  # milliseconds for a fork; somebody of the host may have stopped the forker

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.runtime.calls import Calls


class Forker:
    """The zygote's end of it. The caller waits for *pidfd*."""

    def __init__(self, channel: socket.socket, pid: int, pidfd: int) -> None:
        self.channel = channel
        self.pid = pid
        self.pidfd = pidfd
        # Spares on their way, by what they are for: the first steps, and the first of the ids in a user namespace.
        self.asked: dict[str, tuple[bytes, tuple[int, int] | None]] = {}

    @classmethod
    def start(cls, pid_namespace: int, last_capability: int, limit: int) -> Forker:
        """Fork it. *pid_namespace* is the zygote's; the rest is what :class:`perform.Child` takes."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
        except OSError:
            ours.close()
            raise
        else:
            if pid == 0:
                _serve(theirs, pid_namespace, last_capability, limit)
        finally:
            theirs.close()
        return cls(ours, pid, pidfd)

    def ask(
        self,
        purpose: str,
        prefix: bytes,
        container: int | None = None,
        first: tuple[int, int] | None = None,
    ) -> bool:
        """Order a spare that has done *prefix*; whether it could be.

        For an exec, *container* is the pidfd of that container. With its own user namespace, it maps the range of ids
        from *first* on.
        """
        try:
            packet = marshal.dumps((purpose, prefix, first))
            socket.send_fds(self.channel, [packet], () if container is None else (container,))
        except OSError:  # the prefix is too long for a packet, or the forker has just died: starts do without
            return False
        self.asked[purpose] = prefix, first
        return True

    def wait(self) -> bool:
        """Whether :meth:`answer` has something to return now, or soon."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        return bool(poll.poll(_PATIENCE))

    def answer(self) -> tuple[str, Spare | None, tuple[int, int] | None] | None:
        """What the next spare is for, the spare, and its ids; no spare when the host is short of something; None when it has died.

        :class:`BlockingIOError`: it has not answered.
        """
        try:
            packet, fds, _ = descriptors.receive(self.channel, _NAME_LIMIT, 2, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError:
            return None
        if not packet:
            return None
        purpose, pid = marshal.loads(packet)
        prefix, first = self.asked.pop(purpose)
        if len(fds) < 2:
            return purpose, None, first
        pidfd, line = fds
        return purpose, Spare(pid, pidfd, socket.socket(fileno=line), prefix), first


def _serve(channel: socket.socket, pid_namespace: int, last_capability: int, limit: int) -> None:
    """Fork until the zygote lets go. Never returns."""
    try:
        privileges.set_name("pycontain-forker")
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (channel.fileno(), pid_namespace)]
        for place, fd in enumerate(kept, _CHANNEL):
            os.dup2(fd, place, inheritable=False)
        syscalls.close_range(_CHANNEL + len(kept))
        channel = socket.socket(fileno=_CHANNEL)
        known: dict[bytes, Calls] = {}
        while True:
            packet, fds, _ = descriptors.receive(channel, _REQUEST_LIMIT, 1)
            if not packet:
                os._exit(0)
            purpose, prefix, first = marshal.loads(packet)
            if prefix not in known:
                if len(known) == _PREFIXES_KEPT:
                    known.clear()
                known[prefix] = calls_of(prefix)
            prepared = perform.Child(last_capability, limit)
            fork = _fork_into if fds else fork_sibling if first is None else _with_ids(first)
            spare = None
            try:
                spare = Spare.make(prefix, known[prefix], prepared, fork, *fds)
            except OSError:
                pass  # the command itself will say so with better words
            answer = marshal.dumps((purpose, 0 if spare is None else spare.pid))
            if spare is None:
                channel.send(answer)
            else:
                socket.send_fds(channel, [answer], (spare.pidfd, spare.line.fileno()))
                os.close(spare.pidfd)
                spare.line.close()
            for fd in fds:
                os.close(fd)
    finally:
        os._exit(1)


def fork_sibling(flags: int, _container: int = -1) -> tuple[int, int]:
    """clone3(2) a child of the caller's parent; it sends SIGCHLD as the caller does."""
    return syscalls.clone3(flags | syscalls.CLONE_PARENT, exit_signal=0)


def _with_ids(first: tuple[int, int]) -> Callable[[int, int], tuple[int, int]]:
    """The same into a user namespace, which gets the ids from *first* on."""
    return lambda flags, _container: users.fork(first, lambda: fork_sibling(flags))


def _fork_into(flags: int, container: int) -> tuple[int, int]:
    """The same, in the PID namespace of *container*."""
    syscalls.setns(container, syscalls.CLONE_NEWPID)
    pid = -1
    try:
        pid, pidfd = fork_sibling(flags)
    finally:
        if pid:
            syscalls.setns(_PID_NAMESPACE, syscalls.CLONE_NEWPID)
    return pid, pidfd
