"""The zygote: a small process with one thread that forks containers for its owner, and dies with it.

Brought to life by :mod:`pycontain.runtime.launch`, it is PID 1 of a PID namespace of its own, with its own mount
namespace. Whatever it forks lives in that PID namespace or below, so the kernel ends all of it when the zygote ends,
in whatever way: nothing that a payload does to its own parent-death signal can change that.

It answers requests, one at a time, from the owner's socket:

================================================  ====================================================
request                                           then
================================================  ====================================================
``start id options plan …`` + fds                 a container; its channel reports ``pid``, ``failed``,
                                                  ``started``, ``result`` and at last ``gone``
``apply target …`` + fds                          a child that applies a layer to a directory and reports
``execute program argument …`` + fds              a program of the host, that ends with the owner: pasta(1)
``porter rootless`` + fd                          a child that makes sockets inside containers, for the owner
``idmaps path …`` + fd                            whether each can be a layer in a user namespace of its own
``visit container`` + fd                          a child that opens files in a running container, and says so itself
``layer container`` + fd                          what it has written: ``layer first`` + fd, with the first ids of its own users
``release container``                             what it has written, and the start said to keep, is not needed any more
``exec container id options plan …`` + fds        the same for one more command in a running container
``group container controllers`` + fd              its control group, made if it has none with these controllers:
                                                  ``group parts pids`` + fds, or ``unsupported``, ``failed``
end of file                                       everything is ended and removed, and the zygote exits
================================================  ====================================================

The first descriptor of a request is its *channel*, a SEQPACKET socket of its own: the answers come through it, the
owner's commands (``signal N``, ``end``) go through it, and when the owner lets go of it the container is killed.
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import resource
import select
import signal
import socket
import time

from pycontain.kernel import descriptors, landlock, privileges, syscalls
from pycontain.runtime import child, perform, supervise, sweep, users
from pycontain.runtime.forker import Forker

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pycontain.errors import HostUnsupported
    from pycontain.runtime.cgroups import Home
    from pycontain.runtime.group import Group

_REQUEST_LIMIT = 1 << 18
_CLONE_INDEX = 0
_SPARE, _FORKER, _PORTER, _OPENER = "spare", "forker", "porter", "opener"
_START = ""  # what a spare is for: the next start, or by the container's id the next exec there
_A_MOMENT = 0.05  # seconds for what was killed to be gone, when others wait
_LAST_BREATH = 50  # milliseconds that an exiting process may need until it can be reaped
_QUIET_SECONDS = 0.01  # after which nobody waits for us
_SPARE_SECONDS = 5.0  # an exec soon after another finds a spare; later the memory is worth more
_SOON = 0.01  # seconds until the first look for children that nobody has named
_LARGE = marshal.dumps(("large",))


class Running:
    """A child of the zygote: a container's PID 1, the supervisor of an exec, or a cleaner."""

    __slots__ = (
        *("branch", "branches", "channel", "container", "end_signal", "executed", "folder", "group"),
        *("ident", "kept", "oom_kills", "openers", "pid", "pidfd"),
    )

    def __init__(
        self, ident: str, pid: int, pidfd: int, channel: socket.socket | None, folder: str = ""
    ) -> None:
        self.ident = ident
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.end_signal: int = signal.SIGKILL
        self.folder = folder  # of the writable layer; empty for an exec
        self.kept = False  # whether the folder stays when the container has ended
        self.group: Group | None = None  # of a container with limits
        self.container = ident  # of a command, the one in which it is
        self.branch: Group | None = None  # of a command with a timeout, by which it is ended
        self.oom_kills = 0  # of a command: how many there had been in the container when it began
        self.branches: list[Group] = []  # of a container: left by commands that have left somebody behind
        self.openers: list[Running] = []  # of a container: children that have joined it, to be ended with it
        self.executed = -1  # read end of a pipe that closes when a payload without init is executed


def say(channel: socket.socket | None, *message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send one message; an owner that has let go is told nothing."""
    if channel is None:
        return
    try:
        socket.send_fds(channel, [marshal.dumps(message)], fds) if fds else channel.send(
            marshal.dumps(message)
        )
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}:
            raise


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(_LAST_BREATH))


def _fork(flags: int, group: Group | None = None) -> tuple[int, int]:
    """clone3(2), into the part of *group* that is in v2; the child joins the rest."""
    if group is None or group.into < 0:
        return syscalls.clone3(flags, exit_signal=signal.SIGCHLD)
    return syscalls.clone3(flags | syscalls.CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=group.into)


class Zygote:
    """The loop and what it knows."""

    def __init__(self, control: socket.socket, owner: int, state: sweep.OwnerFolder) -> None:
        self.control = control
        self.owner = owner
        self.state = state
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.last_capability = privileges.last_capability()
        # A container costs descriptors here; its own limit stays what the owner's was.
        self.descriptors, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.poll = select.epoll()
        self.children: dict[int, Running] = {}  # by pidfd and by channel
        self.containers: dict[str, Running] = {}
        self.kept: dict[str, str] = {}  # folders of containers that have ended, until the owner releases them
        self.prefix = b""  # the first steps of the last plan, for the next spare
        self.own = False  # whether that plan had a user namespace of its own
        self.ranges: users.Ranges | None = None  # of ids, for root's containers
        self.users: dict[int, users.Users] = {}  # user namespaces, by the pid of their first process
        self.trial: users.Trial | None = None
        self.spare: child.Spare | None = None
        self.spares: dict[str, child.Spare] = {}  # for the next exec in a container that had one lately
        self.forker: Forker | None = None  # made when there is something to fork
        # Seconds until the next look for children that are not in the list; 0 when there can be none.
        self.strangers = 0.0
        # Containers that shall get such a spare, with the first steps of their last exec.
        self.wanted: dict[str, bytes] = {}
        # To spares that were given a task, until their payload runs.
        self.lines: dict[int, socket.socket] = {}
        self.home: Home | None = None  # of the control groups; made by the first container with limits
        self.limits: tuple[Any, ...] = ()  # of the last container that had some: controllers and writes
        self.ready: Group | None = None  # for the next one with the same: making it takes a third of a start
        self.limited = False  # whether the last container had limits
        self.closing = False
        self.poll.register(control, select.EPOLLIN)
        self.poll.register(owner, select.EPOLLIN)

    def try_users(self, pool: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
        """See whether containers can have user namespaces of their own, and trees in memory be translated into them."""
        self.ranges = users.Ranges(pool, users.open_locks(os.path.dirname(self.state.path)))
        layer = self.state.take_layer()
        self.trial = users.Trial(self.ranges, _fork, self._new_child, layer)
        cleaner = self.state.give_back(layer)
        if cleaner:
            self.adopt(cleaner)
        return self.trial.refusal, self.trial.idmaps(self.state.images)

    def run(self) -> None:
        """Serve until the owner has gone or says close; then end everything, and wait until it has ended."""
        while not (self.closing and not self.children):
            for fd, _ in self._next():
                if fd == self.owner:
                    self.close()
                elif fd == self.control.fileno():
                    self._serve()
                elif fd in self.lines:
                    self._release(fd)
                elif self.forker is not None and fd == self.forker.channel.fileno():
                    self._receive_spare(self.forker)
                elif fd in self.children:
                    self._attend(self.children[fd], fd)
        # The folder has the journal of the control groups: while there are any it stays, for the next zygote's sweep.
        sweep.remove_bridges(self.state.path)  # of a porter that was killed; it has removed its own otherwise
        if self.home is None or self.home.remove():
            self.state.remove()

    def _next(self) -> list[tuple[int, int]]:
        events = self.poll.poll(0)
        if events:
            return events
        # Nothing waits: the moment to do what the next start would otherwise wait for.
        try:
            self.state.make_ready()
        except OSError:
            pass  # the next start tries again, and says what is wrong
        self._make_spares()
        self._make_group_ready()
        if self._may_admit():
            events = self.poll.poll(_QUIET_SECONDS)
            if events:
                return events
            self._admit_spare()
        pauses = [self.strangers] * bool(self.strangers) + [_SPARE_SECONDS] * bool(self.spares)
        pause = min(pauses, default=None)
        events = self.poll.poll(pause)
        if not events and self.strangers:
            self._reap_strangers()
            self.strangers = min(self.strangers * 2, _SPARE_SECONDS)
        if not events and pause == _SPARE_SECONDS:
            self._dismiss_exec_spares(*self.spares)
        return events

    def close(self) -> None:
        """Kill every container; serve no more requests."""
        if self.closing:
            return
        self.closing = True
        if self.spare is not None:
            self._dismiss(self.spare)
            self.spare = None
        self._dismiss_exec_spares(*self.spares)
        self._dismiss_forker()
        self.poll.unregister(self.owner)
        self.poll.unregister(self.control)
        for running in set(self.children.values()):
            if running.ident == _PORTER:
                self._kill(running, signal.SIGTERM)  # it has to tidy up
            elif running.channel is not None:
                self._kill(running, signal.SIGKILL)

    # --- requests ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        message, fds, truncated = descriptors.receive(self.control, _REQUEST_LIMIT, 8)
        if not message:
            self.close()
            return
        if truncated:  # no descriptor is left for some of them: the owner sees its channel end
            for fd in fds:
                os.close(fd)
            return
        if message.startswith(_LARGE):  # too long for a packet, so it is in a file in memory
            with open(fds.pop(0), "rb") as body:
                message = body.read()
        verb, *arguments = marshal.loads(message)
        self._do(fds, verb, arguments)

    def _do(self, fds: list[int], verb: str, arguments: list[Any]) -> None:  # noqa: C901 - a table
        match verb:
            case "start":
                self._start(fds, child.Task(*arguments))
            case "exec":
                target, *rest = arguments
                self._exec(fds, target, child.Task(*rest))
            case "group":
                self._show_group(fds, *arguments)
            case "apply":
                self._apply(fds, arguments)
            case "idmaps":
                self._idmaps(fds, arguments)
            case "porter":
                self._make_porter(fds, *arguments)
            case "execute":
                self._execute(fds, arguments)
            case "visit":
                self._visit(fds, *arguments)
            case "layer":
                self._show_layer(fds, *arguments)
            case "release":
                self._release_layer(*arguments)
            case _:
                raise ValueError(f"unknown request {verb!r}")

    def _start(self, fds: list[int], task: child.Task) -> None:
        channel = socket.socket(fileno=fds[0])
        try:
            task.folder = self.state.take_layer()
        except OSError as error:
            say(channel, "no folder", error.errno, str(error.filename or ""))
            self._drop(channel, fds)
            return
        group = None
        self.limited = bool(task.cgroup)
        if task.cgroup:
            group = self._take_group(channel, task.cgroup)
            if group is None:
                self.state.give_back(task.folder)
                self._drop(channel, fds)
                return
        # Without an init nobody stays to say that the payload runs.
        silent = bool(task.options & child.NOTIFY) and not task.has_init
        try:
            if silent:
                executed, in_child = os.pipe2(os.O_CLOEXEC)
                fds.append(in_child)
            task.taken = time.monotonic()
            pid, pidfd = self._hand_to(self._take_spare(task, group), task, fds, group) or self._clone(
                task, fds, group
            )
        except OSError as error:
            self._refuse(channel, fds, task.folder, error)
            self._let_go(group)
            return
        for fd in fds[1:]:
            os.close(fd)
        container = Running(task.ident, pid, pidfd, channel, task.folder)
        container.group = group
        container.kept = bool(task.options & child.KEEP)
        self._watch(container)
        if silent:
            container.executed = executed
            self._listen(container, executed)
        self.containers[task.ident] = container
        if task.options & child.NOTIFY:
            say(channel, "pid", fds=(pidfd,))

    def _take_group(self, channel: socket.socket, limits: tuple[Any, ...]) -> Group | None:
        """The control group of a container with *limits*; None, and the owner knows why, when it cannot be had."""
        from pycontain.errors import HostUnsupported  # noqa: PLC0415 - costs those nothing who want no limits

        if self.limits != limits:
            self._give_up_group()
        group, self.ready, self.limits = self.ready, None, limits
        try:
            return group or self._home().create(*limits)
        except HostUnsupported as error:
            say(channel, "unsupported", *_told(error))
        except OSError as error:  # of the journal's disk, or of a mount that went away
            say(channel, "no folder", error.errno, str(error.filename or ""))
        self.limits = ()
        return None

    def _take_spare(self, task: child.Task, group: Group | None) -> child.Spare | None:
        """The spare for a start, or the one that is on its way, or a new one as long as somebody can fork it for us."""
        if self.spare is not None and self.spare.group is not None and self.spare.group is not group:
            self._dismiss_spare()
        if task.options & child.PROFILE:  # who asks where the time goes wants to see all of it
            return None
        if self.forker is not None and self.spare is None:
            self._ask(self.forker, _START, task.prefix, own=bool(task.trees))
            while self.spare is None and self.forker is not None and _START in self.forker.asked:
                if self.forker.wait():
                    self._receive_spare(self.forker)
                else:
                    self._dismiss_forker()
        spare, self.spare = self.spare, None
        return spare

    def _give_up_group(self) -> None:
        """Remove the group that was made in advance, and dismiss the spare that is in it."""
        group, self.ready = self.ready, None
        if self.spare is not None and self.spare.group is not None:
            self._dismiss_spare()
        self._let_go(group)

    def _may_admit(self) -> bool:
        """Whether the spare can go into the group that is ready: the last container had limits, so the next one may."""
        return self.limited and self.spare is not None and self.spare.group is None and self.ready is not None

    def _admit_spare(self) -> None:
        """Move it there. After a rest the kernel waits for a grace period of RCU with that, ten milliseconds or more."""
        assert self.spare is not None
        assert self.ready is not None
        self.spare.group = self.ready
        try:
            self.ready.admit(self.spare.pid)
        except OSError:  # the next start says what is wrong
            self._dismiss_spare()

    def _let_go(self, group: Group | None) -> None:
        """Remove a group that nobody is in any more; one with a dismissed spare goes when that is reaped."""
        if all(running.group is not group for running in self.children.values()):
            _remove_group(group)

    def _make_group_ready(self) -> None:
        if self.ready is None and self.limits and not self.closing:
            from pycontain.errors import HostUnsupported  # noqa: PLC0415 - as above

            try:
                self.ready = self._home().create(*self.limits)
            except (HostUnsupported, OSError):
                self.limits = ()  # the next start tries again, and says what is wrong

    def _home(self) -> Home:
        from pycontain.runtime.cgroups import Home  # noqa: PLC0415 - costs those nothing who want no groups

        if self.home is None:
            self.home = Home(os.path.basename(self.state.path), self.state.journal)
        return self.home

    def _show_group(self, fds: list[int], target: str, controllers: tuple[str, ...]) -> None:
        """Give the owner what it needs to look at a container's group and to change it."""
        from pycontain.errors import HostUnsupported  # noqa: PLC0415 - as above

        with socket.socket(fileno=fds[0]) as channel:
            container = self.containers.get(target)
            try:
                if container is None:
                    raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
                group = self._grown(container, controllers) if controllers else container.group
            except HostUnsupported as error:
                say(channel, "unsupported", *_told(error))
            except OSError as error:
                say(channel, "failed", error.errno)
            else:
                parts = group.parts if group is not None else ()
                about = tuple((part.version, tuple(part.controllers), part.late) for part in parts)
                say(channel, "group", about, self._roots(container), fds=tuple(part.fd for part in parts))

    def _roots(self, container: Running) -> tuple[int, ...]:
        """PID 1 of *container* and the commands in it, of which everybody else there descends."""
        return tuple({each.pid for each in self.children.values() if each.container == container.ident})

    def _grown(self, container: Running, controllers: Iterable[str]) -> Group:
        """The group of *container* with these controllers: what is there already is moved into what is new."""
        from pycontain.runtime import census  # noqa: PLC0415 - as above
        from pycontain.runtime.group import Group, gather  # noqa: PLC0415 - as above

        group = container.group or Group()
        own = census.read("self")
        assert own is not None
        place = len(own.numbers) - 1

        def processes() -> Iterable[int]:
            return (entry.numbers[place] for entry in census.descendants(self._roots(container), own))

        for part in self._home().extend(group, controllers):
            container.group, part.late = group, True
            gather(part, processes)
        return group

    def _branch(self, container: Running, name: str) -> Group | None:
        """A group for a command in *container* that may have to be killed; None where the host allows none.

        Then a signal to the supervisor has to do, which ends its tree; but what runs there might kill it before.
        """
        from pycontain.errors import HostUnsupported  # noqa: PLC0415 - as above

        try:
            return self._grown(container, ("freezer",)).branch(name)
        except (HostUnsupported, OSError):
            return None

    def _clone(self, task: child.Task, fds: list[int], group: Group | None) -> tuple[int, int]:
        """A child of its own for *task*; the next one may find a spare for the same first steps."""
        self.prefix, self.own = task.prefix, bool(task.trees)
        if task.trees:
            return self._clone_own(task, fds, group)
        pid, pidfd = _fork(child.flags_of(marshal.loads(task.prefix)), group)
        if pid == 0:
            child.live(self._new_child(), task, fds, group=group)
        return pid, pidfd

    def _clone_own(self, task: child.Task, fds: list[int], group: Group | None) -> tuple[int, int]:
        """The same with a user namespace of its own: only when that is there can be translated what it shall be given."""
        first = self._take_ids()

        def fork(flags: int, _container: int) -> tuple[int, int]:
            return users.fork(first, lambda: _fork(flags, group))

        assert self.ranges is not None
        try:
            spare = child.Spare.make(task.prefix, child.Doers(task.prefix), self._new_child(), fork)
        except OSError:
            self.ranges.give_back(first)
            raise
        self._know(spare, first)
        taken = self._give(spare, task, fds, group)
        if taken is None:
            raise OSError(errno.ECHILD, os.strerror(errno.ECHILD))
        return taken

    def _take_ids(self) -> tuple[int, int]:
        assert self.ranges is not None
        try:
            return self.ranges.take()
        except OSError as error:
            raise users.refused(users.MAP_INDEX, error) from error

    def _free_ids(self, pid: int) -> None:
        """The first process of a PID namespace was reaped, so all others there have ended, too."""
        if pid in self.users:
            self.users.pop(pid).end()

    def _know(self, spare: child.Spare, first: tuple[int, int] | None) -> None:
        """Watch a spare: when its container ends the kernel kills it, and waits until somebody has reaped it."""
        self._watch(Running(_SPARE, spare.pid, spare.pidfd, None))
        if first is not None:
            assert self.ranges is not None
            self.users[spare.pid] = users.Users(self.ranges, first, spare.pidfd)

    def _new_child(self) -> perform.Child:
        return perform.Child(self.last_capability, self.descriptors)

    def _hand_to(
        self, spare: child.Spare | None, task: child.Task, fds: list[int], group: Group | None
    ) -> tuple[int, int] | None:
        if spare is None:
            return None
        if spare.fits(task):
            return self._give(spare, task, fds, group)
        self._dismiss(spare)
        return None

    def _give(
        self, spare: child.Spare, task: child.Task, fds: list[int], group: Group | None
    ) -> tuple[int, int] | None:
        """Give *task* to a spare that fits; None, and it is dismissed, when it is of no more use."""
        trees: list[int] = []
        try:
            if task.trees:
                own = self.users[spare.pid]
                if own.namespace < 0:
                    self._dismiss(spare)
                    return None
                own.give_pipes(fds[1:])
                trees = own.clone_trees(task.trees)
                own.close()
            perform.allow_limits(spare.pid, task.allowances)
            if group is not None and spare.group is not group:  # before it makes its cgroup namespace
                _admit(group, spare.pid, task)
            taken = spare.take(task, [*fds, *trees])
        except OSError:
            self._dismiss(spare)
            raise
        finally:
            for fd in trees:
                os.close(fd)
        if not taken:
            self._dismiss(spare)
            return None
        del self.children[spare.pidfd]  # it will be known as something else
        self.poll.unregister(spare.pidfd)
        self.lines[spare.line.fileno()] = spare.line
        self.poll.register(spare.line, select.EPOLLIN)
        return spare.pid, spare.pidfd

    def _release(self, fd: int) -> None:
        """The payload of a spare's task runs, or will never: it has let go of its line."""
        self.poll.unregister(fd)
        self.lines.pop(fd).close()

    def _dismiss_spare(self) -> None:
        if self.spare is not None:
            self._dismiss(self.spare)
            self.spare = None

    def _dismiss(self, spare: child.Spare) -> None:
        if spare.group is not None and spare.pidfd in self.children:
            self.children[spare.pidfd].group = spare.group  # which goes when this is reaped
            if self.ready is spare.group:
                self.ready = None
        spare.line.close()  # which is its sign to exit

    def _lose_spare(self, running: Running) -> None:
        """A spare has ended, dismissed or killed."""
        pid = running.pid
        self._free_ids(pid)
        self._let_go(running.group)
        if self.spare is not None and self.spare.pid == pid:
            self.spare.line.close()
            self.spare = None
        for ident, spare in list(self.spares.items()):
            if spare.pid == pid:
                self.spares.pop(ident).line.close()

    def _make_spares(self) -> None:
        # A child that mounts while another one starts would wait for the same locks of the kernel.
        start = self.spare is None and self.prefix and not self.lines
        if self.closing or not (start or self.wanted):
            return
        forker = self.forker or self._make_forker()
        if forker is None:
            return
        try:
            if start:
                self._ask(forker, _START, self.prefix, own=self.own)
        except OSError:
            pass  # there are no ids left, as the next start will say
        for ident, prefix in self.wanted.items():
            self._ask(forker, ident, prefix, self.containers[ident].pidfd)
        self.wanted.clear()

    def _ask(
        self, forker: Forker, purpose: str, prefix: bytes, container: int | None = None, *, own: bool = False
    ) -> None:
        """Order a spare, with ids of its *own*, unless one for the same purpose is on its way."""
        if purpose in forker.asked:
            return
        first = self._take_ids() if own else None
        if not forker.ask(purpose, prefix, container, first) and first is not None:
            assert self.ranges is not None
            self.ranges.give_back(first)

    def _make_forker(self) -> Forker | None:
        try:
            self.forker = Forker.start(self.own_pid_namespace, self.last_capability, self.descriptors)
        except OSError:  # the next start says better what the host is short of
            return None
        self._watch(Running(_FORKER, self.forker.pid, self.forker.pidfd, None))
        self.poll.register(self.forker.channel, select.EPOLLIN)
        return self.forker

    def _dismiss_forker(self) -> None:
        if self.forker is None:
            return
        self.poll.unregister(self.forker.channel)
        self.forker.channel.close()
        if self.forker.pidfd in self.children:
            self._kill(self.children[self.forker.pidfd], signal.SIGKILL)
        # It may just have forked what it has not told us of.
        if self.forker.asked:
            self.strangers = _SOON
        self.forker = None

    def _receive_spare(self, forker: Forker) -> None:
        try:
            answer = forker.answer()
        except BlockingIOError:  # the event was for one that a start, served just now, has waited for
            return
        if answer is None:
            self._dismiss_forker()
            return
        purpose, spare, first = answer
        if spare is None:
            # With ids, it may have been forked and ended for want of them; then nobody else has them until it is reaped.
            if first is not None:
                self.strangers = _SOON
            return
        self._know(spare, first)
        if purpose == _START:
            self.spare = spare
        elif purpose in self.containers and purpose not in self.spares:
            self.spares[purpose] = spare
        else:
            self._dismiss(spare)

    def _dismiss_exec_spares(self, *idents: str) -> None:
        for ident in idents:
            self.wanted.pop(ident, None)
            spare = self.spares.pop(ident, None)
            if spare is not None:
                self._dismiss(spare)

    def _fork_into(self, container: Running, flags: int, group: Group | None = None) -> tuple[int, int]:
        """clone3(2) into the PID namespace of *container*."""
        syscalls.setns(container.pidfd, syscalls.CLONE_NEWPID)
        pid = -1
        try:
            pid, pidfd = _fork(flags, group)
        finally:
            if pid:
                syscalls.setns(self.own_pid_namespace, syscalls.CLONE_NEWPID)
        return pid, pidfd

    def _exec(self, fds: list[int], target: str, task: child.Task) -> None:
        channel = socket.socket(fileno=fds[0])
        container = self.containers.get(target)
        branch = None
        try:
            if container is None:
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
            task.taken = time.monotonic()
            branch = (
                self._branch(container, f"exec-{task.ident[:12]}") if task.options & child.BOUNDED else None
            )
            group = branch or container.group
            if container.pid in self.users:
                self.users[container.pid].give_pipes(fds[1:])
            oom_kills = _oom_kills(container.group)
            taken = self._hand_to(self.spares.pop(target, None), task, fds, group)
            pid, pidfd = taken or self._fork_into(container, 0, group)
            if pid == 0:
                child.live(self._new_child(), task, [*fds, container.pidfd], group=group)
        except OSError as error:
            if container is not None and branch is not None:
                container.branches.append(branch)
            if container is not None and _has_exited(container.pidfd):
                # setns(2) says EPERM of a process that is only waiting to be reaped.
                error.errno = errno.ESRCH
            self._refuse(channel, fds, "", error)
            return
        for fd in fds[1:]:
            os.close(fd)
        command = Running(task.ident, pid, pidfd, channel)
        command.end_signal = supervise.END_TREE
        command.container = target
        command.branch = branch
        command.oom_kills = oom_kills
        self._watch(command)
        self.wanted[target] = task.prefix

    def _apply(self, fds: list[int], arguments: list[Any]) -> None:
        # PID 1 of a namespace: what it has forked ends with it, and is the kernel's to wait for and not ours.
        try:
            pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID, exit_signal=signal.SIGCHLD)
        except OSError:  # the owner sees that its channel ends
            self._drop(socket.socket(fileno=fds[0]), fds)
            return
        if pid == 0:
            # Only this child pays for what reading a layer imports.
            from pycontain.runtime import unpack  # noqa: PLC0415

            unpack.live(fds, self.last_capability, *arguments)
        for fd in fds[1:]:
            os.close(fd)
        self._watch(Running("apply", pid, pidfd, socket.socket(fileno=fds[0])))

    def _make_porter(self, fds: list[int], rootless: bool) -> None:  # noqa: FBT001 - as the request has it
        try:
            pid, pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
        except OSError:  # as above
            pid = -1
        if pid == 0:
            from pycontain.runtime import porter  # noqa: PLC0415 - only this child needs it

            porter.live(fds[0], rootless=rootless)
        for fd in fds:
            os.close(fd)
        if pid > 0:  # it ends when the owner lets go of it, or with us
            self._watch(Running(_PORTER, pid, pidfd, None))

    def _execute(self, fds: list[int], argv: list[str]) -> None:
        """The other two descriptors are its standard output and error."""
        try:
            pid, pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
        except OSError:  # as above
            self._drop(socket.socket(fileno=fds[0]), fds)
            return
        if pid == 0:
            try:
                for place, fd in enumerate(fds[1:], 1):
                    os.dup2(fd, place)
                syscalls.close_range(3)
                privileges.set_parent_death_signal()
                for number in (
                    signal.SIGPIPE,
                    signal.SIGXFSZ,
                ):  # which Python ignores, and who executes inherits that
                    signal.signal(number, signal.SIG_DFL)
                os.execv(argv[0], argv)
            finally:
                os._exit(127)
        for fd in fds[1:]:
            os.close(fd)
        self._watch(Running("program", pid, pidfd, socket.socket(fileno=fds[0])))

    def _idmaps(self, fds: list[int], paths: list[str]) -> None:
        """Say of each path whether it can be a layer of a container with its own user namespace."""
        assert self.trial is not None
        channel = socket.socket(fileno=fds[0])
        say(channel, "idmaps", *map(self.trial.idmaps, paths))
        self._drop(channel, fds)

    def _visit(self, fds: list[int], target: str) -> None:
        """Fork an opener into a container; the descriptor is its line to the owner, by which it also refuses."""
        line = fds[0]
        container = self.containers.get(target)
        try:
            if container is not None:  # else the owner sees that its line ends
                pid, pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
                if pid == 0:
                    # Only this child pays for it.
                    from pycontain.runtime import opener  # noqa: PLC0415

                    own = container.pid in self.users
                    opener.live(line, container.pidfd, self.last_capability, own=own)
                visitor = Running(_OPENER, pid, pidfd, None)
                container.openers.append(visitor)
                self._watch(visitor)
        except OSError:
            pass  # as above
        os.close(line)

    def _show_layer(self, fds: list[int], target: str) -> None:
        """Give the owner the upper directory of a container, which may lie where only we see it."""
        with socket.socket(fileno=fds[0]) as channel:
            container = self.containers.get(target)
            folder = self.kept.get(target) if container is None else container.folder
            if folder is None:  # the owner sees that its channel ends
                return
            own = container is not None and container.pid in self.users
            first = self.users[container.pid].first if container is not None and own else ()
            fd = os.open(f"{folder}/upper", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            say(channel, "layer", first, fds=(fd,))
            os.close(fd)

    def _release_layer(self, target: str) -> None:
        if target in self.containers:
            self.containers[target].kept = False
        elif target in self.kept:
            self._give_back(self.kept.pop(target))

    def _give_back(self, folder: str) -> None:
        cleaner = self.state.give_back(folder)
        if cleaner:
            self.adopt(cleaner)

    def _refuse(self, channel: socket.socket, fds: list[int], folder: str, error: OSError) -> None:
        if folder:
            self.state.give_back(folder)
        index = error.index if isinstance(error, users.Refused) else _CLONE_INDEX
        say(channel, "failed", index, error.errno, str(error.filename or ""))
        self._drop(channel, fds)

    def _drop(self, channel: socket.socket, fds: list[int]) -> None:
        channel.close()
        for fd in fds[1:]:
            os.close(fd)

    # --- children ---------------------------------------------------------------------------------------

    def _watch(self, running: Running) -> None:
        self._listen(running, running.pidfd)
        if running.channel is not None:
            self._listen(running, running.channel.fileno())

    def _listen(self, running: Running, fd: int) -> None:
        self.children[fd] = running
        self.poll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        del self.children[fd]
        self.poll.unregister(fd)
        os.close(fd)

    def _ignore(self, channel: socket.socket) -> None:
        try:
            self.poll.unregister(channel)
        except FileNotFoundError:
            pass  # it was taken out when the owner let go

    def adopt(self, pid: int) -> None:
        """Wait for a child that removes folders; the zygote does not end before it."""
        self._watch(Running("cleaner", pid, os.pidfd_open(pid), None))

    def _attend(self, running: Running, fd: int) -> None:
        if fd == running.pidfd:
            self._reap(running)
            return
        if fd == running.executed:
            running.executed = -1
            self._forget(fd)
            say(running.channel, "started", time.monotonic())
            return
        assert running.channel is not None
        try:
            message = running.channel.recv(64, socket.MSG_DONTWAIT)
        except ConnectionResetError:  # unix(7): it let go with answers unread
            message = b""
        except BlockingIOError:  # the event was for an earlier descriptor of this number
            return
        if not message:  # the owner has let go
            self._end(running)
            self._ignore(running.channel)
            return
        match marshal.loads(message):
            case ("signal", number):
                self._kill(running, number)
            case ("end",):
                self._end(running)

    def _end(self, running: Running) -> None:
        """End a container, or of an exec the tree of its command."""
        if running.branch is None:
            self._kill(running, running.end_signal)
        else:
            _end_branch(running.branch)

    def _kill(self, running: Running, number: int) -> None:
        try:
            signal.pidfd_send_signal(running.pidfd, number)
        except ProcessLookupError:
            pass  # it has ended and waits to be reaped
        if number == signal.SIGKILL and running.group is not None:
            _let_die(running.group)

    def _reap(self, running: Running) -> None:
        pid, status, usage = os.wait4(running.pid, os.WNOHANG)
        if not pid:  # as above
            return
        self._forget(running.pidfd)
        self._lose(running)
        if self.strangers:
            self._reap_strangers()
        if running.executed >= 0:
            self._forget(running.executed)
        if running.branch is not None and os.WIFSIGNALED(status):
            _end_branch(running.branch)  # nobody knows its tree any more
        if running.channel is not None:
            self._say_gone(running, running.channel, status, usage)
        if running.branch is not None:
            self._prune(running.container, running.branch)
        if running.folder:
            self._clear(running)

    def _lose(self, running: Running) -> None:
        """What is no container and no command has ended."""
        if running.ident == _SPARE:
            self._lose_spare(running)
        elif running.ident == _OPENER:
            for container in self.containers.values():
                if running in container.openers:
                    container.openers.remove(running)
        elif running.ident == _FORKER and self.forker is not None and self.forker.pid == running.pid:
            self._dismiss_forker()

    def _say_gone(
        self, running: Running, channel: socket.socket, status: int, usage: resource.struct_rusage
    ) -> None:
        counted = _counted(running.group or running.branch)
        container = self.containers.get(running.container)
        if container is not None and container is not running:
            counted["oom_kills"] = _oom_kills(container.group) - running.oom_kills
        blocks = usage.ru_inblock, usage.ru_oublock
        say(channel, "gone", status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss, *blocks, counted)
        del self.children[channel.fileno()]
        # Children that were forked meanwhile may hold it too, and as long as they do epoll(7) would report it.
        self._ignore(channel)
        channel.close()

    def _clear(self, container: Running) -> None:
        for opener in container.openers:  # they hold its mounts
            self._kill(opener, signal.SIGKILL)
        self._free_ids(container.pid)
        del self.containers[container.ident]
        self._dismiss_exec_spares(container.ident)
        for branch in container.branches:
            _remove_group(branch)
        self._let_go(container.group)
        if container.kept:
            self.kept[container.ident] = container.folder
        else:
            self._give_back(container.folder)

    def _reap_strangers(self) -> None:
        """Reap spares of a forker that had ended before it could name them; a spare ends when it notices.

        One that was to become a command in a container is in its PID namespace, so until then that container cannot end.
        """
        known = {running.pid for running in self.children.values()}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # there is no child at all
                return
            if ended is None or ended.si_pid in known:  # that has its own event, after which is looked again
                return
            os.waitpid(ended.si_pid, 0)

    def _prune(self, target: str, branch: Group) -> None:
        """Remove the group of a command that has ended, and others in which nobody is any more."""
        container = self.containers.get(target)
        if container is None:  # its end removes or has removed what is below
            branch.close()
            return
        container.branches = [each for each in (*container.branches, branch) if not _is_removed(each)]


def _admit(group: Group, pid: int, task: child.Task) -> None:
    """Move *pid* into *group*; a refusal is that of the step which says so."""
    try:
        group.admit(pid)
    except ProcessLookupError:
        return  # it was killed, and will not take the task
    except OSError as error:
        raise users.refused(task.index_of("JoinCgroup"), error) from error


def _told(error: HostUnsupported) -> tuple[str, str, str, str]:
    """What the owner makes the same error of."""
    return error.feature, error.needs, error.found, "\n".join(getattr(error, "__notes__", ()))


def _counted(group: Group | None) -> dict[str, int | float]:
    """What a container's group has counted; nothing where there is none, or it was removed by somebody else."""
    if group is None:
        return {}
    try:
        return group.usage()
    except OSError:
        return {}


def _oom_kills(group: Group | None) -> int:
    try:
        return 0 if group is None else group.oom_kills()
    except OSError:  # as above
        return 0


def _end_branch(branch: Group) -> None:
    try:
        branch.kill(patience=_A_MOMENT)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:  # it has gone with its container
            raise


def _let_die(group: Group) -> None:
    try:
        group.let_die()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:  # as above
            raise


def _is_removed(branch: Group) -> bool:
    """Whether *branch* could be removed; what a command leaves behind in the container stays in it."""
    try:
        branch.remove(patience=0)
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _remove_group(group: Group | None) -> None:
    """Remove a group whose processes have ended."""
    if group is None:
        return
    try:
        group.remove()
    except OSError:  # EBUSY: somebody of the host has joined it; Home.remove() will end that
        group.close()


# --- becoming the zygote --------------------------------------------------------------------------------


def main(control: socket.socket, owner: int, state_folder: str, *, rootless: bool) -> None:
    """Serve as the zygote: PID 1 of its PID namespace, in its own mount namespace. Never returns."""
    own = os.pidfd_open(os.getpid())  # by which the owner waits for us, whatever becomes of us
    verdict = "folder"
    try:
        # The ranges of ids that root's containers may have. Read first: who ends with a packet unread resets the socket.
        pool = None if rootless else marshal.loads(control.recv(_REQUEST_LIMIT))
        state = own_folder(state_folder, rootless=rootless)
        verdict = "refused"
        zygote = set_the_stage(control, owner, own, state, pool)
    except OSError as error:
        import traceback  # noqa: PLC0415 - big, and needed by failures alone

        say(control, verdict, error.errno, str(error.filename or ""), traceback.format_exc(), fds=(own,))
        os._exit(1)
    try:
        zygote.run()
    except BaseException:  # noqa: BLE001 - the owner reads stderr to say what broke
        import traceback  # noqa: PLC0415 - as above

        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def own_folder(state_folder: str, *, rootless: bool) -> sweep.OwnerFolder:
    """The folder of this zygote, which becomes its working directory."""
    os.umask(0o077)
    state = sweep.OwnerFolder.create(state_folder)
    os.umask(0)  # what is made from now on is made with the mode that is asked for
    os.chdir(state.layers)
    # Mounts of the host appear here too; nothing that is mounted here appears there.
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE, None)
    state.in_memory = not state.holds_layers(rootless=rootless)
    if state.in_memory:
        os.chdir("/")
        syscalls.mount("tmpfs", state.layers, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0711")
        os.chdir(state.layers)
        state.spare.clear()  # they are below this mount
        state.make_places()
    return state


def set_the_stage(
    control: socket.socket, owner: int, own: int, state: sweep.OwnerFolder, pool: tuple[Any, ...] | None
) -> Zygote:
    """Prepare mounts, start the sweep, try what root's containers can have, tell the owner."""
    privileges.set_name("pycontain-zygote")
    # Inherited by every child until it executes something else: nobody inside may trace it, or reach this interpreter
    # through its /proc/<pid>/exe (CVE-2019-5736).
    privileges.set_not_dumpable()
    # The owner is not in our mount namespace: it fills this tmpfs through a descriptor of it.
    syscalls.mount("tmpfs", state.images, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0700")
    images = os.open(state.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    zygote = Zygote(control, owner, state)
    sweeper = sweep.sweep(os.path.dirname(state.path))
    if sweeper:
        zygote.adopt(sweeper)
    gc.freeze()  # what is there now is never collected, and not copied by the collector in a child
    gc.disable()
    tried = zygote.try_users(pool) if pool is not None else ((), True)
    facts = (
        zygote.last_capability,
        state.in_memory,
        _read("uid_map"),
        _read("gid_map"),
        landlock.abi_version(),
        *tried,
    )
    say(control, "ready", state.path, *facts, fds=(own, images))
    os.close(own)
    os.close(images)
    return zygote


def _read(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        return file.read()
