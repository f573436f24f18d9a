"""The child's life between clone3(2) and the payload.

A child is made for one task, or in advance as a *spare*: then it performs the first steps, which are the same in
nearly every plan, and waits for the task to which they belong. So a start need not wait for the kernel to make
namespaces.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import socket
import time

from pycontain.kernel import descriptors, syscalls
from pycontain.runtime import perform, supervise
from pycontain.runtime.calls import Calls

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pycontain.runtime.group import Group

STDIN, NOTIFY, PROFILE, BOUNDED, TERMINAL, KEEP = 1, 2, 4, 8, 16, 32  # bits of a request's options

_CHANNEL = supervise.CHANNEL
_EXTRA = (
    _CHANNEL + 1
)  # the container's pidfd for an exec, or a pipe that closes at the exec of a payload without init
_STAGE = _EXTRA + 1
_FILES = _STAGE + 1
_LINE = _FILES + 1  # of a spare, to the zygote, which learns by its end that the payload runs
_FAR = 64  # more than what a child ever has open
_PACKET_LIMIT = 64 << 10  # well below net.core.wmem_default
_MOST_DESCRIPTORS = 200  # unix(7): SCM_MAX_FD is 253
_STREAMS = {0: (1, 2), STDIN: (0, 1, 2), TERMINAL: ()}  # which are given
_INIT, _RESTART = 4, 5  # the places of these fields in a plan's last step
_MORE = b"more"  # the packet has descriptors for the next one
_LARGE = b"large"
_TEXT_LIMIT = 8 << 10  # of what is said about a failure: a packet must hold it


class Task:
    """What a child is for: a container's or command's id, its plan in three parts, and where its writable layer is.

    A container with limits has a *cgroup*, ``(controllers, writes)`` as :meth:`cgroups.Home.create` takes them.

    The parts of the plan are the steps before the image matters, those after, and the execution. The first two travel
    as bytes, because the zygote need not understand them: it only compares the first with what a spare has done.
    """

    def __init__(
        self,
        ident: str,
        options: int,
        prefix: bytes,
        steps: bytes,
        execute: tuple[Any, ...],
        contents: tuple[bytes, ...],
        trees: tuple[tuple[Any, ...], ...] = (),
        allowances: tuple[tuple[str, int], ...] = (),
        cgroup: tuple[Any, ...] = (),
        folder: str = "",
        taken: float = 0.0,
    ) -> None:
        self.ident = ident
        self.options = options
        self.prefix = prefix
        self.steps = steps
        self.execute = execute
        self.contents = contents
        self.trees = trees  # what the zygote clones for a container with its own user namespace, as Plan.trees() lists it
        self.allowances = allowances  # hard limits, as Plan.allowances() lists them
        self.cgroup = cgroup
        self.folder = folder
        self.taken = taken  # the moment when the zygote took it up

    def packed(self) -> bytes:
        """For a spare child, which has done the prefix."""
        what = (self.ident, self.options, self.prefix, self.steps, self.execute, self.contents)
        return marshal.dumps((*what, self.trees, self.allowances, self.cgroup, self.folder, self.taken))

    def index_of(self, name: str) -> int:
        """Which step of the plan is the first of that name after the prefix."""
        names = [step[0] for step in marshal.loads(self.steps)]
        return len(marshal.loads(self.prefix)) + names.index(name)

    @property
    def has_init(self) -> bool:
        """Whether somebody of ours stays beside the payload."""
        return bool(self.execute[_INIT])


class Doers:
    """What :class:`Calls` is for the steps of a *prefix*, by their doers; it takes the time of each."""

    def __init__(self, prefix: bytes) -> None:
        self.steps = marshal.loads(prefix)
        self.times: list[float] = []

    def make(self, child: perform.Child) -> None:
        """Perform the steps."""
        self.times.append(time.monotonic())
        perform.perform(self.steps, child, 1, self.times)


class Spare:
    """A child that waits, with the steps of *prefix* done."""

    def __init__(self, pid: int, pidfd: int, line: socket.socket, prefix: bytes) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.line = line
        self.prefix = prefix
        self.group: Group | None = None  # that it is in already

    @classmethod
    def make(
        cls,
        prefix: bytes,
        calls: Calls | Doers,
        prepared: perform.Child,
        fork: Callable[[int, int], tuple[int, int]],
        container: int = -1,
    ) -> Spare:
        """Have one made by *fork*, which is given the flags for clone3(2) and *container*, for an exec a pidfd.

        *calls* are those of :func:`calls_of` for *prefix*.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Above all others, so that the child need not move it.
            theirs = socket.socket(fileno=fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, _FAR))
        try:
            pid, pidfd = fork(flags_of(calls.steps), container)
        except OSError:
            ours.close()
            raise
        else:
            if pid == 0:
                _wait_for_task(theirs, container, calls, prepared)
        finally:
            theirs.close()
        return cls(pid, pidfd, ours, prefix)

    def fits(self, task: Task) -> bool:
        """Whether it has done what *task* begins with; who asks where the time goes wants to see all of it."""
        return task.prefix == self.prefix and not task.options & PROFILE

    def take(self, task: Task, fds: list[int]) -> bool:
        """Give it *task*; False, and it is of no more use, when it was killed."""
        try:
            while len(fds) > _MOST_DESCRIPTORS:
                socket.send_fds(self.line, [_MORE], fds[:_MOST_DESCRIPTORS])
                fds = fds[_MOST_DESCRIPTORS:]
            packet = task.packed()
            if len(packet) <= _PACKET_LIMIT:
                socket.send_fds(self.line, [packet], fds)
            else:
                self._send_large(packet, fds)
        except OSError:
            return False
        return True

    def _send_large(self, packet: bytes, fds: list[int]) -> None:
        """Too long for a packet, so it is a file in memory, the last of the descriptors."""
        body = os.memfd_create("pycontain-task", os.MFD_CLOEXEC)
        try:
            with open(body, "wb", closefd=False) as file:
                file.write(packet)
            os.lseek(body, 0, os.SEEK_SET)
            socket.send_fds(self.line, [_LARGE], [*fds, body])
        finally:
            os.close(body)


def calls_of(prefix: bytes) -> Calls:
    """The calls of a spare's *prefix*."""
    return Calls(marshal.loads(prefix), _LINE + 1)


def flags_of(steps: tuple[Any, ...]) -> int:
    """The flags of a plan's clone3(2); the fork of an exec has none."""
    return int(steps[0][-1]) if steps[0][0] == "Clone" else 0


def _wait_for_task(
    line: socket.socket, container: int, calls: Calls | Doers, prepared: perform.Child
) -> None:
    """The life of a spare. A step that fails in advance is reported to the task that it would have served."""
    try:
        fd = line.fileno()
        for place in range(_CHANNEL, _LINE + 1):  # so that nothing lies there when its owner comes
            os.dup2(container if container >= 0 and place == _EXTRA else fd, place, inheritable=False)
        syscalls.close_range(_LINE + 1, fd - 1)
        syscalls.close_range(fd + 1)
        refused: perform.StepRefused | None = None
        try:
            calls.make(prepared)
            if isinstance(calls, Calls):
                perform.rehearse(prepared)
                supervise.rehearse()
        except perform.StepRefused as error:
            refused = error
        packet, fds = _receive_task(line)
        if packet:
            task = Task(*marshal.loads(packet))
            times = calls.times if isinstance(calls, Doers) else None
            live(prepared, task, fds, len(calls.steps), fd, refused, times=times)
    finally:
        os._exit(127)


def _receive_task(line: socket.socket) -> tuple[bytes, list[int]]:
    """What :meth:`Spare.take` sends; nothing when the zygote has no use for us."""
    packet, fds, _ = descriptors.receive(line, _PACKET_LIMIT, _MOST_DESCRIPTORS + 1)
    while packet == _MORE:
        packet, more, _ = descriptors.receive(line, _PACKET_LIMIT, _MOST_DESCRIPTORS + 1)
        fds += more
    if packet == _LARGE:
        with open(fds.pop(), "rb") as body:
            packet = body.read()
    return packet, fds


def live(
    child: perform.Child,
    task: Task,
    fds: list[int],
    done: int = 0,
    line: int | None = None,
    refused: perform.StepRefused | None = None,
    group: Group | None = None,
    times: list[float] | None = None,
) -> None:
    """Perform what is left of the task's plan and become the payload, or its init. Never returns.

    A child that was a spare has *done* steps already, the last of them with *refused* if not None, and a *line*;
    it is in its *group* already. *times* is when it began, and when each of these steps was done.
    """
    options = task.options
    try:
        if group is not None:
            refused = _refused_by(group, task)
        times = [task.taken, *times] if times and options & PROFILE else [task.taken, time.monotonic()]
        trees = [fds.pop() for _ in task.trees][::-1]
        _arrange_descriptors(child, fds, trees, line, _STREAMS[options & (STDIN | TERMINAL)])
        try:
            if refused is not None:
                raise refused
            child.limit_descriptors()
            keep = None
            if task.execute[_RESTART]:
                from pycontain.runtime.restart import Keeper  # noqa: PLC0415 - few need it, and later there are other files

                keep = Keeper(*task.execute[_RESTART]).stay
            child.belong(task.ident, task.folder, task.contents, has_input=bool(options & STDIN))
            profile = times if options & PROFILE else None
            if not done:
                perform.allow_limits(0, task.allowances)  # as long as we are in the zygote's user namespace
                prefix = marshal.loads(task.prefix)
                perform.perform(prefix, child, 1, profile)
                done = len(prefix)
            perform.perform(marshal.loads(task.steps), child, 0, profile, done)
            if child.layer >= 0:
                _show_layer(child, told=bool(options & NOTIFY))
            _, _, argv, env, init, _ = task.execute
            os.umask(0o022)
            syscalls.close_range(_LINE, _LINE)
            values = supervise.environment(env, child.home, child.hostname)
            if init:
                supervise.supervise(
                    argv,
                    values,
                    notify=bool(options & NOTIFY),
                    times=times,
                    tree=not task.folder,
                    ahead=child.ahead,
                    terminal=child.has_terminal,
                    keep=keep,
                )
            else:
                supervise.execute(argv, values)
        except perform.StepRefused as error:
            _tell("failed", error.index, error.errno, error.text[:_TEXT_LIMIT])
        except supervise.CommandUnusable as error:
            _tell("unusable", error.errno, error.path[:_TEXT_LIMIT], error.exists)
        except BaseException as error:  # noqa: BLE001 - a defect of ours: it must reach the owner, whatever it is
            _tell("broken", trace(error)[-_TEXT_LIMIT:])
    finally:
        os._exit(127)


def trace(error: BaseException) -> str:
    """What the traceback module would say, which reads source files: here they would be the image's."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def _refused_by(group: Group, task: Task) -> perform.StepRefused | None:
    """Join *group*, whose descriptors are still open; why it was not to be, as the failure of the step that says so."""
    try:
        group.join()
    except OSError as error:
        return perform.StepRefused(task.index_of("JoinCgroup"), error.errno or 0, "")
    return None


def _tell(*message: Any) -> None:
    os.write(_CHANNEL, marshal.dumps(message))


def _show_layer(child: perform.Child, *, told: bool) -> None:
    """Give the owner of a container that stays the directory which nobody else could find any more."""
    if told:
        channel = socket.socket(fileno=_CHANNEL)
        socket.send_fds(channel, [marshal.dumps(("layer",))], [child.layer])
        channel.detach()
    os.close(child.layer)
    child.layer = -1


def _arrange_descriptors(
    child: perform.Child, fds: list[int], trees: list[int], line: int | None, streams: tuple[int, ...]
) -> None:
    """The *streams* that are given where they belong, the channel at 3, what else was given at 4, the stage, the files and the line, trees, and nothing more.

    CVE-2024-21626: what the payload inherits, and what its working directory can be reached through, is decided here.
    """
    child.trees = [_above(fd) for fd in trees]
    channel, *given = [_above(fd) for fd in fds]
    wanted = dict(zip((*streams, _EXTRA), given, strict=False))
    wanted[_CHANNEL] = channel
    if child.files >= 0:  # what was refused before them needs neither
        wanted[_STAGE], wanted[_FILES] = _above(child.root), _above(child.files)
        child.root, child.files = _STAGE, _FILES
    if line is not None:
        wanted[_LINE] = _above(line)
    for place, fd in wanted.items():
        os.dup2(fd, place, inheritable=place < _CHANNEL)
    for place in (_EXTRA, _STAGE, _FILES, _LINE):
        if place not in wanted:
            syscalls.close_range(place, place)
    first = _LINE + 1
    for fd in sorted(child.trees):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


def _above(fd: int) -> int:
    """*fd*, moved out of the way when it lies in a place that is meant for something."""
    return fd if fd > _LINE else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LINE + 1)
