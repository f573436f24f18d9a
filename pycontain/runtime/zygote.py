"""The zygote: a small process with one thread that forks containers for its owner, and dies with it.

Started by :mod:`pycontain.runtime.engine` as ``python -I -S`` with a socket at descriptor 3. First it becomes what
it must be: in a user namespace when the owner is not root (ids are mapped by the owner, who may run newuidmap), then
PID 1 of a PID namespace of its own with its own mount namespace. Whatever it forks lives in that PID namespace or
below, so the kernel ends all of it when the zygote ends, in whatever way: nothing that a payload does to its own
parent-death signal can change that.

Then it answers requests, one at a time, from the owner's socket:

================================================  ====================================================
request                                           then
================================================  ====================================================
``start id steps contents options`` + fds         a container; its channel reports ``pid``, ``failed``,
                                                  ``started``, ``result`` and at last ``gone``
``exec id container steps options`` + fds         the same for one more command in a running container
``apply …`` + fds                                 a child that unpacks a layer; its channel reports
``close``                                         everything is ended and removed, and the zygote exits
================================================  ====================================================

The first descriptor of a request is its *channel*, a SEQPACKET socket of its own: the answers come through it, the
owner's commands (``signal N``, ``end``) go through it, and when the owner lets go of it the container is killed.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import marshal
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any

from pycontain.kernel import privileges, syscalls
from pycontain.runtime import perform, supervise, sweep

CONTROL = 3
_REQUEST_LIMIT = 1 << 18
_CLONE_INDEX = 0
_CHANNEL, _PIDFD = supervise.CHANNEL, 4
_STDIN, _NOTIFY, _PROFILE = 1, 2, 4  # bits of a request's options


class Running:
    """A child of the zygote: a container's PID 1, the supervisor of an exec, or a cleaner."""

    __slots__ = ("channel", "executed", "folder", "ident", "pid", "pidfd")

    def __init__(
        self, ident: str, pid: int, pidfd: int, channel: socket.socket | None, folder: str = ""
    ) -> None:
        self.ident = ident
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.folder = folder  # of the writable layer; empty for an exec
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


class Zygote:
    """The loop and what it knows."""

    def __init__(self, control: socket.socket, owner: int, state: sweep.OwnerFolder) -> None:
        self.control = control
        self.owner = owner
        self.state = state
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.last_capability = privileges.last_capability()
        self.poll = select.epoll()
        self.children: dict[int, Running] = {}  # by pidfd and by channel
        self.containers: dict[str, Running] = {}
        self.closing = False
        self.poll.register(control, select.EPOLLIN)
        self.poll.register(owner, select.EPOLLIN)

    def run(self) -> None:
        """Serve until the owner has gone or says close; then end everything, and wait until it has ended."""
        while not (self.closing and not self.children):
            for fd, _ in self._next():
                if fd == self.owner:
                    self.close()
                elif fd == self.control.fileno():
                    self._serve()
                elif fd in self.children:
                    self._attend(self.children[fd], fd)
        self.state.remove()

    def _next(self) -> list[tuple[int, int]]:
        events = self.poll.poll(0)
        if events:
            return events
        # Nothing waits: the moment to do what the next start would otherwise wait for.
        self.state.make_ready()
        return self.poll.poll()

    def close(self) -> None:
        """Kill every container; serve no more requests."""
        if self.closing:
            return
        self.closing = True
        self.poll.unregister(self.owner)
        self.poll.unregister(self.control)
        for child in set(self.children.values()):
            if child.channel is not None:
                self._kill(child, signal.SIGKILL)

    # --- requests ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        message, fds, _, _ = socket.recv_fds(self.control, _REQUEST_LIMIT, 8, socket.MSG_CMSG_CLOEXEC)
        if not message:
            self.close()
            return
        request = marshal.loads(message)
        if request[0] == "large":  # the request is in a file in memory, because a packet cannot be that long
            body = fds.pop(0)
            with open(body, "rb") as file:
                request = marshal.loads(file.read())
        verb, *arguments = request
        match verb:
            case "start":
                self._start(fds, *arguments)
            case "exec":
                self._exec(fds, *arguments)
            case "close":
                self.close()
            case _:
                raise ValueError(f"unknown request {verb!r}")

    def _start(
        self, fds: list[int], ident: str, steps: tuple[Any, ...], contents: tuple[bytes, ...], options: int
    ) -> None:
        channel = socket.socket(fileno=fds[0])
        folder = ""
        silent = bool(options & _NOTIFY) and not steps[-1][-1]  # nobody stays to say that the payload runs
        try:
            if silent:
                executed, in_child = os.pipe2(os.O_CLOEXEC)
                fds.append(in_child)
            folder = self.state.take_layer()
            before = time.monotonic()
            _, _, flags = steps[_CLONE_INDEX]
            pid, pidfd = syscalls.clone3(flags, exit_signal=signal.SIGCHLD)
            if pid == 0:
                become(perform.Child(ident, contents, self.last_capability), steps, fds, options, folder)
        except OSError as error:
            self._refuse(channel, fds, folder, error)
            return
        for fd in fds[1:]:
            os.close(fd)
        container = Running(ident, pid, pidfd, channel, folder)
        self._watch(container)
        if silent:
            container.executed = executed
            self._listen(container, executed)
        self.containers[ident] = container
        say(channel, "pid", before, time.monotonic(), fds=(pidfd,))

    def _exec(self, fds: list[int], ident: str, target: str, steps: tuple[Any, ...], options: int) -> None:
        channel = socket.socket(fileno=fds[0])
        container = self.containers.get(target)
        try:
            if container is None:
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
            before = time.monotonic()
            syscalls.setns(container.pidfd, syscalls.CLONE_NEWPID)
            try:
                pid, pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
                if pid == 0:
                    fds.append(container.pidfd)
                    become(perform.Child(target, (), self.last_capability), steps, fds, options)
            finally:
                syscalls.setns(self.own_pid_namespace, syscalls.CLONE_NEWPID)
        except OSError as error:
            self._refuse(channel, fds, "", error)
            return
        for fd in fds[1:]:
            os.close(fd)
        self._watch(Running(ident, pid, pidfd, channel))
        say(channel, "pid", before, time.monotonic(), fds=(pidfd,))

    def _refuse(self, channel: socket.socket, fds: list[int], folder: str, error: OSError) -> None:
        if folder:
            self.state.give_back(folder)
        say(channel, "failed", _CLONE_INDEX, error.errno, str(error.filename or ""))
        channel.close()
        for fd in fds[1:]:
            os.close(fd)

    # --- children ---------------------------------------------------------------------------------------

    def _watch(self, child: Running) -> None:
        self._listen(child, child.pidfd)
        if child.channel is not None:
            self._listen(child, child.channel.fileno())

    def _listen(self, child: Running, fd: int) -> None:
        self.children[fd] = child
        self.poll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        del self.children[fd]
        self.poll.unregister(fd)
        os.close(fd)

    def adopt(self, pid: int) -> None:
        """Wait for a child that removes folders; the zygote does not end before it."""
        self._watch(Running("cleaner", pid, os.pidfd_open(pid), None))

    def _attend(self, child: Running, fd: int) -> None:
        if fd == child.pidfd:
            self._reap(child)
            return
        if fd == child.executed:
            child.executed = -1
            self._forget(fd)
            say(child.channel, "started", time.monotonic())
            return
        assert child.channel is not None
        try:
            message = child.channel.recv(64)
        except ConnectionResetError:  # unix(7): it let go with answers unread
            message = b""
        if not message:  # the owner has let go
            self._kill(child, signal.SIGKILL)
            self.poll.unregister(child.channel)
            return
        match marshal.loads(message):
            case ("signal", number):
                self._kill(child, number)
            case ("end",):
                self._kill(child, signal.SIGKILL if child.folder else supervise.END_TREE)

    def _kill(self, child: Running, number: int) -> None:
        try:
            signal.pidfd_send_signal(child.pidfd, number)
        except ProcessLookupError:
            pass  # it has ended and waits to be reaped

    def _reap(self, child: Running) -> None:
        _, status, usage = os.wait4(child.pid, 0)
        self._forget(child.pidfd)
        if child.executed >= 0:
            self._forget(child.executed)
        if child.channel is not None:
            say(child.channel, "gone", status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
            del self.children[child.channel.fileno()]
            child.channel.close()  # which also takes it out of epoll(7)
        if child.folder:
            del self.containers[child.ident]
            cleaner = self.state.give_back(child.folder)
            if cleaner:
                self.adopt(cleaner)


# --- the child ------------------------------------------------------------------------------------------


def become(
    child: perform.Child, steps: tuple[Any, ...], fds: list[int], options: int, folder: str = "."
) -> None:
    """The child's whole life between clone3(2) and the payload. Never returns."""
    try:
        notify, times = bool(options & _NOTIFY), [time.monotonic()]
        try:
            os.chdir(folder)
            _arrange_descriptors(fds, stdin=bool(options & _STDIN))
            profile = times if options & _PROFILE else None
            perform.perform(steps[:-1], child, 1, profile)
            _, _, argv, env, init = steps[-1]
            os.umask(0o022)
            _open_null(options)
            values = supervise.environment(env, child.home, child.hostname)
            if init:
                supervise.supervise(argv, values, notify=notify, times=profile or ())
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


def _arrange_descriptors(fds: list[int], *, stdin: bool) -> None:
    """Channel at 3, stdio at 0 to 2, for an exec the pidfd at 4, and nothing else (CVE-2024-21626).

    The descriptors given may themselves have these numbers, so they are moved out of the way first.
    """
    moved = [_above(fd) for fd in fds]
    channel, *rest = moved
    if not stdin:
        rest.insert(0, -1)
    places = (0, 1, 2, _PIDFD)
    os.dup2(channel, _CHANNEL, inheritable=False)
    for fd, place in zip(rest, places, strict=False):
        if fd >= 0:
            os.dup2(fd, place, inheritable=place < _CHANNEL)
    last = _PIDFD if len(rest) == len(places) else _CHANNEL
    syscalls.close_range(last + 1)


def _above(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)


def _open_null(options: int) -> None:
    """Without an input the payload reads the container's own /dev/null."""
    if not options & _STDIN:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0, inheritable=True)
        if null != 0:
            os.close(null)


# --- becoming the zygote --------------------------------------------------------------------------------


def enter_user_namespace(control: socket.socket) -> None:
    """unshare(2) a user namespace whose ids the owner maps, or, told that it cannot, map the own id to 0."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    say(control, "userns")
    (answer,) = marshal.loads(control.recv(64))
    if answer == "single":
        # user_namespaces(7): without privilege, setgroups(2) must be denied before gid_map is written.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if answer != "single":
        os.setgroups(())


def main(*, rootless: bool, state_folder: str) -> None:
    """Become the zygote and serve. Never returns."""
    control = socket.socket(fileno=CONTROL)
    try:
        os.setsid()  # the owner's terminal signals are not ours
        _, fds, _, _ = socket.recv_fds(control, 64, 2, socket.MSG_CMSG_CLOEXEC)
        if rootless:
            enter_user_namespace(control)
        syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS)
        # The zygote becomes a child of the owner, not of this process, which has done its part.
        pid, _ = syscalls.clone3(syscalls.CLONE_PARENT, exit_signal=0)
        if pid:
            os._exit(0)
        zygote = set_the_stage(control, fds[0], state_folder, rootless=rootless)
    except OSError as error:
        say(control, "refused", error.errno, traceback.format_exc())
        os._exit(1)
    try:
        zygote.run()
    except BaseException:  # noqa: BLE001 - the owner reads stderr to say what broke
        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def set_the_stage(control: socket.socket, owner: int, state_folder: str, *, rootless: bool) -> Zygote:
    """Prepare mounts and the folder, start the sweep, tell the owner."""
    privileges.set_name("pycontain-zygote")
    # Inherited by every child until it executes something else: nobody inside may trace it, or reach this interpreter
    # through its /proc/<pid>/exe (CVE-2019-5736).
    privileges.set_not_dumpable()
    # Mounts of the host appear here too; nothing that is mounted here appears there.
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE, None)
    os.umask(0)
    state = sweep.OwnerFolder.create(state_folder)
    os.chdir(state.layers)
    in_memory = not state.holds_layers(rootless=rootless)
    if in_memory:
        os.chdir("/")
        syscalls.mount("tmpfs", state.layers, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0700")
        os.chdir(state.layers)
        state.make_places()
    # The owner is not in our mount namespace: it fills this tmpfs through a descriptor of it.
    syscalls.mount("tmpfs", state.images, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0700")
    images = os.open(state.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    zygote = Zygote(control, owner, state)
    sweeper = sweep.sweep(state_folder)
    if sweeper:
        zygote.adopt(sweeper)
    gc.freeze()  # what is there now is never collected, and not copied by the collector in a child
    gc.disable()
    own = os.pidfd_open(os.getpid())
    facts = (zygote.last_capability, in_memory, _read("uid_map"), _read("gid_map"))
    say(control, "ready", state.path, *facts, fds=(own, images))
    os.close(own)
    os.close(images)
    return zygote


def _read(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        return file.read()


if __name__ == "__main__":
    main(rootless=sys.argv[1] == "rootless", state_folder=sys.argv[2])
