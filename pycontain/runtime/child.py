"""The child's life between clone3(2) and the payload.

A child is made for one task, or in advance as a *spare*: then it performs the first steps, which are the same in
nearly every plan, and waits for the task to which they belong. So a start need not wait for the kernel to make
namespaces.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import signal
import socket
import time
import traceback
from typing import Any

from pycontain.kernel import syscalls
from pycontain.runtime import perform, supervise

STDIN, NOTIFY, PROFILE = 1, 2, 4  # bits of a request's options

_CHANNEL = supervise.CHANNEL
_EXTRA = (
    _CHANNEL + 1
)  # the container's pidfd for an exec, or a pipe that closes at the exec of a payload without init
_STAGE = _EXTRA + 1
_OVERLAY = "MountOverlay"  # the first step that depends on the image
_TASK_LIMIT = 1 << 18


def prefix_length(steps: tuple[Any, ...]) -> int:
    """How many steps come before the image matters."""
    return next((place for place, step in enumerate(steps) if step[0] == _OVERLAY), 0)


class Task:
    """A request, the folder of the writable layer, and the moment when the zygote took it up."""

    def __init__(self, request: tuple[Any, ...], folder: str, taken: float) -> None:
        self.request = request
        _, self.ident, self.steps, self.contents, self.options = request
        self.folder = folder
        self.taken = taken

    def packed(self) -> bytes:
        """For a spare child."""
        return marshal.dumps((self.request, self.folder, self.taken))


class Spare:
    """A child that waits, with the steps of *prefix* done."""

    def __init__(self, pid: int, pidfd: int, line: socket.socket, prefix: tuple[Any, ...]) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.line = line
        self.prefix = prefix

    @classmethod
    def make(cls, prefix: tuple[Any, ...], last_capability: int) -> Spare | None:
        """Fork one; None when the host is short of something, since a start will say so with better words."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = syscalls.clone3(prefix[0][-1], exit_signal=signal.SIGCHLD)
        except OSError:
            ours.close()
            return None
        else:
            if pid == 0:
                _wait_for_task(theirs, prefix, last_capability)
        finally:
            theirs.close()
        return cls(pid, pidfd, ours, prefix)


def _wait_for_task(line: socket.socket, prefix: tuple[Any, ...], last_capability: int) -> None:
    """The life of a spare. A step that fails in advance is reported to the task that it would have served."""
    try:
        os.dup2(line.fileno(), _CHANNEL, inheritable=False)
        syscalls.close_range(_CHANNEL + 1)
        line = socket.socket(fileno=os.dup(_CHANNEL))
        prepared = perform.Child(last_capability)
        refused: perform.StepRefused | None = None
        try:
            perform.perform(prefix, prepared, 1)
        except perform.StepRefused as error:
            refused = error
        packet, fds, _, _ = socket.recv_fds(line, _TASK_LIMIT, 8, socket.MSG_CMSG_CLOEXEC)
        if packet:
            live(prepared, Task(*marshal.loads(packet)), fds, first=len(prefix), refused=refused)
    finally:
        os._exit(127)


def live(
    child: perform.Child,
    task: Task,
    fds: list[int],
    first: int = 1,
    refused: perform.StepRefused | None = None,
) -> None:
    """Perform what is left of the task's plan and become the payload, or its init. Never returns."""
    steps, options = task.steps, task.options
    try:
        times = [task.taken, time.monotonic()]
        _arrange_descriptors(child, fds, stdin=bool(options & STDIN))
        try:
            if refused is not None:
                raise refused
            child.belong(task.ident, task.folder, task.contents)
            perform.perform(steps[:-1], child, first, times if options & PROFILE else None)
            _, _, argv, env, init = steps[-1]
            os.umask(0o022)
            _open_null(options)
            values = supervise.environment(env, child.home, child.hostname)
            if init:
                supervise.supervise(argv, values, notify=bool(options & NOTIFY), times=times)
            else:
                supervise.execute(argv, values)
        except perform.StepRefused as error:
            os.write(_CHANNEL, marshal.dumps(("failed", error.index, error.errno, error.text)))
        except supervise.CommandUnusable as error:
            os.write(_CHANNEL, marshal.dumps(("unusable", error.errno, error.path, error.exists)))
        except BaseException:  # noqa: BLE001 - a defect of ours: it must reach the owner, whatever it is
            os.write(_CHANNEL, marshal.dumps(("broken", traceback.format_exc())))
    finally:
        os._exit(127)


def _arrange_descriptors(child: perform.Child, fds: list[int], *, stdin: bool) -> None:
    """Stdio at 0 to 2, the channel at 3, what else was given at 4, the stage at 5, and nothing more (CVE-2024-21626).

    The descriptors may themselves have these numbers, so they are moved out of the way first.
    """
    channel, *given = [_above(fd) for fd in fds]
    stage = _above(child.root) if child.root >= 0 else -1
    wanted = dict(zip((0, 1, 2, _EXTRA) if stdin else (1, 2, _EXTRA), given, strict=False))
    wanted |= {_CHANNEL: channel, _STAGE: stage}
    for place, fd in wanted.items():
        if fd >= 0:
            os.dup2(fd, place, inheritable=place < _CHANNEL)
    if _EXTRA not in wanted:
        syscalls.close_range(_EXTRA, _EXTRA)
    syscalls.close_range(_STAGE + (stage >= 0))
    child.root = _STAGE if stage >= 0 else -1


def _above(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)


def _open_null(options: int) -> None:
    """Without an input the payload reads the container's own /dev/null."""
    if not options & STDIN:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0, inheritable=True)
        if null != 0:
            os.close(null)
