"""The end of a plan: become the payload, or start it and stay as its init.

An init is a child that has confined itself already: what it starts inherits every wall. It starts the payload with
posix_spawn(3), which shares its memory until the exec, then forwards signals, reaps orphans, and reports how the
payload ended. It cannot be traced (the zygote is not dumpable, and so is what it forks) and, as PID 1, not be killed from inside.

In a container that is running already the same code supervises one more command: as a subreaper, so that the whole
tree of that command, and nothing else, can be ended.
"""

from __future__ import annotations

import errno
import marshal
import os
import resource
import signal
import socket
import time

from pycontain.kernel import privileges

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# Descriptors in the child: 0, 1, 2 are the payload's; this one is the channel to the owner.
CHANNEL = 3

_ALL = signal.valid_signals()
# signal(7): the program starts with every disposition at its default, whatever Python had set.
_RESET = sorted(_ALL - {signal.SIGKILL, signal.SIGSTOP})
# What the zygote sends to a supervisor to end its tree; from inside, nobody can send it (si_pid would not be 0).
END_TREE: int = signal.SIGRTMIN + 3


# open(2) of a terminal by the leader of a new session makes it the controlling one; it is the same by another descriptor.
_CONTROLLED = (
    (os.POSIX_SPAWN_OPEN, 0, "/proc/self/fd/1", os.O_RDWR, 0),
    (os.POSIX_SPAWN_DUP2, 0, 1),
    (os.POSIX_SPAWN_DUP2, 0, 2),
)


class CommandUnusable(Exception):
    """The payload at *path* cannot be executed; *exists* tells a missing file from a missing interpreter."""

    def __init__(self, number: int, path: str, *, exists: bool) -> None:
        super().__init__(number, path, exists)
        self.errno = number
        self.path = path
        self.exists = exists


def environment(env: Sequence[tuple[str, str]], home: str, hostname: str) -> dict[str, str]:
    """The payload's environment: what was asked for, and what every login would have set."""
    values = dict(env)
    values.setdefault("HOME", home)
    values.setdefault("HOSTNAME", hostname)
    return values


def find_command(command: str, path: str) -> str:
    """Where execvp(3) would find *command*; raise :class:`CommandUnusable` with its errno."""
    if "/" in command:
        if not os.path.exists(command):
            raise CommandUnusable(errno.ENOENT, command, exists=False)
        return command
    number = errno.ENOENT
    for folder in path.split(":"):
        candidate = f"{folder or '.'}/{command}"
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK, effective_ids=True):
                return candidate
            number = errno.EACCES
    raise CommandUnusable(number, command, exists=number != errno.ENOENT)


def execute(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """execve(2); returns only by an exception."""
    path = find_command(argv[0], env.get("PATH", ""))
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execve(path, list(argv), env)
    except OSError as error:
        raise CommandUnusable(error.errno or 0, path, exists=True) from error


def supervise(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    notify: bool,
    times: Sequence[float],
    tree: bool,
    ahead: float,
    terminal: bool,
    keep: Callable[[int, Callable[[], int]], tuple[int, bool]] | None = None,
) -> None:
    """Start the payload, stay with it until it ends, report it on the channel. Raises before the payload runs, or never.

    *ahead* is by how many seconds the clock of our time namespace is before the owner's. With a *terminal* at 0, 1 and 2 the
    payload is controlled by it. *keep* stays with it in our place, and may start it again.
    """
    privileges.set_name("pycontain-init")
    privileges.set_child_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    path = find_command(argv[0], env.get("PATH", ""))

    def spawn() -> int:
        try:
            return os.posix_spawn(
                path,
                list(argv),
                env,
                file_actions=_CONTROLLED if terminal else (),
                setsid=True,
                setsigmask=(),
                setsigdef=_RESET,
            )
        except OSError as error:
            raise CommandUnusable(error.errno or 0, path, exists=True) from error

    payload = spawn()
    started = time.monotonic() - ahead
    if keep is None:
        os.closerange(0, 3)  # the payload's alone: who reads the other end sees it end
    if notify:
        _report_start(payload, started, tree=tree)
    status, alone = _stay(payload, tree=tree) if keep is None else keep(payload, spawn)
    ended = time.monotonic() - ahead
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (usage.ru_utime, usage.ru_stime, usage.ru_maxrss, usage.ru_inblock, usage.ru_oublock)
    report("result", alone, status, *used, started, ended, tuple(times))


def _report_start(payload: int, started: float, *, tree: bool) -> None:
    """Say that the payload runs; of a command in a container with a pidfd of it, by which the owner knows and signals it."""
    pidfd = -1
    if tree:
        try:
            pidfd = os.pidfd_open(payload)
        except OSError:
            pass  # a seccomp profile of the user's own does not have the call: signals go through us
    if pidfd < 0:
        report("started", started)
    else:
        report("started", started, fds=(pidfd,))
        os.close(pidfd)


def rehearse() -> None:
    """Do what :func:`supervise` does before the payload runs, and what it then reports, without effect.

    See :func:`perform.rehearse`: afterwards a spare has its own copy of the pages that this writes to.
    """
    privileges.set_child_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        find_command("true", "/nowhere:/usr/bin")
    except CommandUnusable:
        pass  # the host keeps its programs elsewhere
    environment((), "/", "")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    marshal.dumps(("result", True, 0, usage.ru_utime, usage.ru_maxrss, time.monotonic(), ()))


def report(*message: Any, fds: tuple[int, ...] = ()) -> None:
    """Say something to the owner, with descriptors for it."""
    try:
        if fds:
            channel = socket.socket(fileno=CHANNEL)
            try:
                socket.send_fds(channel, [marshal.dumps(message)], fds)
            finally:
                channel.detach()
        else:
            os.write(CHANNEL, marshal.dumps(message))
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.ECONNRESET}:  # the owner has let go; the zygote will end us
            raise


def _stay(payload: int, *, tree: bool) -> tuple[int, bool]:
    """Forward, reap, and return the payload's wait status, and whether it has left nobody behind.

    *tree*: obey :data:`END_TREE`; the init of a container is ended with all its namespace by SIGKILL instead.
    """
    while True:
        received = signal.sigwaitinfo(_ALL)
        if received.si_signo == signal.SIGCHLD:
            status, alone = reap(payload)
            if status is not None:
                return status, alone
        elif tree and received.si_signo == END_TREE and received.si_pid == 0:
            _end_tree()
        else:
            try:
                os.kill(payload, received.si_signo)
            except ProcessLookupError:
                continue  # its SIGCHLD is on the way


def reap(payload: int) -> tuple[int | None, bool]:
    """The payload's wait status if it has ended, and whether there is no child any more."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found, True
        if pid == 0:
            return found, False
        if pid == payload:
            found = status


def _end_tree() -> None:
    """SIGKILL every descendant: orphans become ours, so killing children until there are none ends all."""
    while True:
        children = _children()
        if not children:
            return
        for pid in children:
            os.kill(pid, signal.SIGSTOP)  # so that none forks while the others die
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _children() -> list[int]:
    """Living children of the caller, by proc(5) of the container."""
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:  # it is gone
            continue
        if int(parent) == me and state not in {b"Z", b"X"}:
            found.append(int(name))
    return found
