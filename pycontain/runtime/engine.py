"""The owner's side of the zygote: start it, ask it, notice when it is gone.

One engine per process. It is started by the first container or by :func:`prewarm`, is safe to use from every thread
(a request is one packet, with a channel of its own for the answers), and is left alone by a fork: the child of a fork
gets its own.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import marshal
import os
import select
import signal
import socket
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from pycontain.errors import HostUnsupported, SandboxError
from pycontain.kernel import descriptors
from pycontain.runtime import probe
from pycontain.runtime.loading import loading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycontain.runtime.delegation import Access
    from pycontain.runtime.systemd import Manager
    from pycontain.sandbox.host import HostFacts

_PACKET_LIMIT = 64 << 10  # well below net.core.wmem_default
_CONTROL = 3
_PLANS_KEPT = 256
# unix(7): the other end has closed; the second error, when it left something unread.
_GONE = (BrokenPipeError, ConnectionResetError)
_START_TIMEOUT = 30.0
_PROGRAM = (
    "import sys; mode, state, *path = sys.argv[1:]; sys.path += path; "
    "from pycontain.runtime.launch import main; main(mode, state, sys.orig_argv[1:5])"
)


def state_folder() -> str:
    """Where writable layers lie: ``PYCONTAIN_STATE``, else /var/lib for root, else below XDG_STATE_HOME."""
    chosen = os.environ.get("PYCONTAIN_STATE")
    if chosen:
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/lib/pycontain/state"
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "pycontain")


class Held(Protocol):
    """What an engine can keep for its containers."""

    def release(self) -> None:
        """End it."""

    def abandon(self) -> None:
        """Let go of it in the child of a fork: it is the parent's. May be called after its end, too."""


class Engine:
    """A running zygote."""

    def __init__(
        self, control: socket.socket, pidfd: int, images: int, facts: HostFacts, folder: str, errors: int
    ) -> None:
        self.control = control
        self.pidfd = pidfd
        self.images_fd = images  # a tmpfs that only the zygote has mounted
        self.facts = facts
        self.folder = folder
        self.images: dict[Any, Any] = {}  # trees made below the folder, by source; they go with it
        self.plans: dict[Any, Any] = {}  # what was compiled for this zygote's facts, by spec
        self._access: Access | None = None
        self._thawer: threading.Thread | None = None  # there when v1 has frozen a container
        self._manager: Manager | None = None  # systemd, which is looked for once
        self._looked = False
        self._leaf = ""  # of the control groups: where we moved to make room
        self._room = threading.Lock()
        self._errors = errors
        self._kept = contextlib.ExitStack()
        self._abandoned = contextlib.ExitStack()
        self._closed = False

    @classmethod
    def start(cls) -> Engine:
        """Spawn a zygote and wait until it is ready; raise :class:`HostUnsupported` when the host forbids it."""
        rootless = not probe.is_privileged()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise shortage(error) from error
        errors = os.memfd_create("pycontain-zygote-stderr", os.MFD_CLOEXEC)
        launcher = 0
        try:
            ours.settimeout(_START_TIMEOUT)
            launcher = _spawn(theirs, errors, rootless=rootless)
            theirs.close()
            # It may have ended already; what it said is read below.
            with _Fd(os.pidfd_open(os.getpid())) as owner, contextlib.suppress(*_GONE):
                socket.send_fds(ours, [b"owner"], [owner])
                if not rootless:
                    ours.send(marshal.dumps(probe.id_pool()))
            # Needed by the first plan, and loaded now because the zygote takes as long to start.
            with loading:
                import pycontain.sandbox.compile  # noqa: F401, PLC0415

            engine = cls(ours, *_introduce(ours, launcher, errors, rootless=rootless), errors)
        except BaseException:
            ours.close()
            os.close(errors)
            raise
        finally:
            theirs.close()
            if launcher:
                _wait(launcher)
        ours.settimeout(None)
        return engine

    def request(self, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        """Send one request; the answers come through the channel whose other end is the first of *fds*."""
        packet = marshal.dumps(message)
        try:
            if len(packet) <= _PACKET_LIMIT:
                socket.send_fds(self.control, [packet], fds)
                return
            with _Fd(os.memfd_create("pycontain-request", os.MFD_CLOEXEC)) as body:
                with open(body, "wb", closefd=False) as file:
                    file.write(packet)
                os.lseek(body, 0, os.SEEK_SET)
                # The zygote takes the body out of the list, so the channel is the first again.
                socket.send_fds(self.control, [marshal.dumps(("large",))], (body, *fds))
        except OSError as error:
            raise self.broken() from error

    def idmaps(self, paths: Sequence[str]) -> tuple[bool, ...]:
        """Whether each of *paths* can be a layer of a container with its own user namespace; for root."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self.request(("idmaps", *map(str, paths)), (theirs.fileno(),))
            answer = ours.recv(_PACKET_LIMIT)
        if not answer:
            raise self.broken()
        said: tuple[bool, ...] = marshal.loads(answer)[1:]
        return said

    def new_tree(self) -> str:
        """Make an empty directory on disk for a tree that goes with the zygote."""
        path = os.path.join(self.folder, "trees", os.urandom(8).hex())
        os.makedirs(path, 0o755)
        return path

    def keep(self, held: Held) -> None:
        """Hold something for the containers until all of them have ended; the child of a fork lets go of it."""
        self._kept.callback(held.release)
        self._abandoned.callback(held.abandon)

    def remember(self, key: Any, compiled: Any) -> None:
        """Keep a compiled plan; when there are too many, begin anew."""
        if len(self.plans) >= _PLANS_KEPT:
            self.plans.clear()
        self.plans[key] = compiled

    def access(self) -> Access:
        """What this process may use of its control groups: looked up until there is room for ours, then known."""
        from pycontain.runtime.delegation import Access  # noqa: PLC0415 - only who wants limits pays for it

        if self._access is not None:
            return self._access
        access = Access.probe(zygote=descriptors.pid_of(self.pidfd))
        mount = access.may_need_manager()
        if mount:
            if not self._looked:
                from pycontain.runtime.systemd import Manager  # noqa: PLC0415 - as above

                self._manager, self._looked = Manager.find(mount), True
            access.manager = self._manager
        return access

    def make_room(self, controllers: Iterable[str]) -> None:
        """Have room for control groups with *controllers*: as :func:`delegation.make_room`, or in a scope of systemd's."""
        from pycontain.runtime import delegation  # noqa: PLC0415 - as above

        with self._room:
            access = self.access()
            if access.needs_scope(controllers):
                access = self._enter_scope(access)
            elif self._access is not None or delegation.IN_EVERY_GROUP.issuperset(controllers):
                return
            self._leaf = delegation.make_room(access)
            self._access = access

    def _enter_scope(self, access: Access) -> Access:
        """Have the zygote and what is below it moved, and see what it may use there."""
        from pycontain.runtime import census, delegation  # noqa: PLC0415 - as above

        assert access.manager is not None
        below = census.below(access.zygote)
        access.manager.start_scope([access.zygote, *(pid for pid in below if pid != access.zygote)])
        return delegation.Access(delegation.probe(access.zygote), access.zygote)

    def expect_frozen(self) -> None:
        """Be ready for a zygote that is killed when v1 has frozen a container, of which then not even the end is known."""
        with self._room:
            if self._thawer is None:
                self._thawer = threading.Thread(target=self._thaw, name="pycontain-thawer", daemon=True)
                self._thawer.start()

    def _thaw(self) -> None:
        _ended(self.control.fileno(), None, select.POLLHUP)
        if not self._closed:
            self._let_die()

    def _let_die(self) -> None:
        """A zygote that was killed ends after its containers, and those that v1 has frozen do not end."""
        from pycontain.runtime import cgroups  # noqa: PLC0415 - as above

        with contextlib.suppress(OSError):  # another process's zygote has begun to sweep
            cgroups.let_die(os.path.join(self.folder, "cgroups"))

    def _give_room_back(self) -> None:
        if self._leaf:
            from pycontain.runtime import cgroups, delegation  # noqa: PLC0415 - as above

            # The host took the group away from us meanwhile: then it is the host's to remove.
            with contextlib.suppress(OSError):
                cgroups.sweep(
                    os.path.join(self.folder, "cgroups")
                )  # of a zygote that was killed; others leave none
                delegation.give_room_back(self._leaf)

    def broken(self) -> SandboxError:
        """The error for a zygote that has gone, with what it said last."""
        text = os.pread(self._errors, 1 << 16, 0).decode(errors="replace").strip()
        error = SandboxError("the zygote has ended unexpectedly, and every container of this process with it")
        return error.with_hint(text or "it was probably killed: see the kernel's log for the OOM killer")

    @property
    def alive(self) -> bool:
        """Whether requests may be sent: a zygote that dies lets go of its socket before the kernel has ended it."""
        return not (self._closed or _ended(self.pidfd, 0) or _ended(self.control.fileno(), 0, select.POLLHUP))

    def close(self) -> None:
        """End every container and the zygote, and wait until all that they held is removed."""
        if self._closed:
            return
        self._closed = True
        if self._thawer is not None:
            killed = _ended(self.control.fileno(), 0, select.POLLHUP)
            with contextlib.suppress(OSError):  # a socket that is being polled is closed by this alone
                self.control.shutdown(socket.SHUT_RDWR)
            if killed:
                self._let_die()
        self.control.close()  # the zygote takes it for a close
        _ended(self.pidfd, None)
        self._reap_zygote()
        self._give_room_back()
        try:
            self._kept.close()
        finally:
            self.abandon()

    def _reap_zygote(self) -> None:
        try:
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:  # the program reaps all children itself, or ignores SIGCHLD
            return
        if ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status:
            # The next zygote sweeps what is left, but this is a defect of ours and shall be known.
            text = os.pread(self._errors, 1 << 16, 0).decode(errors="replace").strip()
            warnings.warn(f"the zygote failed at its end: {text}", RuntimeWarning, stacklevel=2)

    def abandon(self) -> None:
        """Let go of the descriptors, as the child of a fork must; the zygote is not ours."""
        self._closed = True
        self.control.close()
        for fd in (self.pidfd, self.images_fd, self._errors):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._abandoned.close()


def shortage(error: OSError) -> SandboxError:
    """The owner itself is out of something that every start needs."""
    return SandboxError(
        f"this process cannot open what a container needs: {error.strerror}",
        hint="close what is not used, or raise the limit: ulimit -n, fs.file-max",
    )


class _Fd:
    """A descriptor for the time of a block."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _spawn(control: socket.socket, errors: int, *, rootless: bool) -> int:
    interpreter = sys.executable or getattr(sys, "_base_executable", "")
    if not interpreter:
        raise HostUnsupported(
            "the zygote",
            needs="sys.executable, a Python interpreter to start it with",
            found=repr(sys.executable),
            hint="an embedding program sets it before the first container is started",
        )
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [package_root, *(entry for entry in sys.path if entry and os.path.isdir(entry))]
    mode = "rootless" if rootless else "root"
    # A program without standard streams may have ours at 0 to 3, where the actions would run over one another.
    with _Fd(_above(control.fileno())) as far_control, _Fd(_above(errors)) as far_errors:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, far_errors, 2),
            (os.POSIX_SPAWN_DUP2, far_control, _CONTROL),
        ]
        try:
            return os.posix_spawn(
                interpreter,
                [interpreter, "-I", "-S", "-c", _PROGRAM, mode, state_folder(), *path],
                {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                file_actions=actions,
                # signal(7): an ignored SIGCHLD would be inherited, and the zygote could wait for nobody.
                setsigdef=sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
                setsigmask=(),
            )
        except OSError as error:
            raise HostUnsupported(
                f"the zygote: {interpreter} cannot be executed",
                needs="sys.executable to be this Python",
                found=os.strerror(error.errno or 0),
                hint="set sys.executable to the interpreter before the first container is started",
            ) from error


def _above(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def _introduce(
    control: socket.socket, launcher: int, errors: int, *, rootless: bool
) -> tuple[int, int, HostFacts, str]:
    """Answer what the launcher asks until the zygote is ready: its pidfd, its images, its facts and its folder."""
    while True:
        try:
            packet, fds, _ = descriptors.receive(control, 1 << 16, 2)
        except ConnectionResetError:  # unix(7): it has ended with our packet unread; what it said comes after
            continue
        except TimeoutError as error:
            raise SandboxError(
                f"the zygote was not ready within {_START_TIMEOUT:g} s",
                hint="see whether the host is overloaded",
            ) from error
        if not packet:
            text = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip()
            raise SandboxError("the zygote could not be started").with_hint(
                text or f"{sys.executable} ended at once; is it this Python?"
            )
        match marshal.loads(packet):
            case ("userns",):
                answer = "mapped" if map_ids(launcher) else "single"
                with contextlib.suppress(*_GONE):  # as above
                    control.send(marshal.dumps((answer,)))
            case ("refused", number, _, trace):
                _reap(fds)
                raise probe.refusal(number, rootless=rootless) from SandboxError(trace)
            case ("folder", number, path, trace):
                _reap(fds)
                raise probe.folder_refusal(number, path or state_folder()) from SandboxError(trace)
            case (
                "ready",
                folder,
                last_capability,
                in_memory,
                uid_map,
                gid_map,
                landlock,
                refusal,
                memory_idmapped,
            ):
                facts = probe.host_facts(
                    rootless=rootless,
                    last_capability=last_capability,
                    layers_in_memory=in_memory,
                    layers_volatile=not in_memory and probe.syncs_dearly(folder),
                    uid_map=uid_map,
                    gid_map=gid_map,
                    landlock=landlock,
                    userns_refusal=probe.userns_refusal(*refusal) if refusal else "",
                    memory_idmapped=memory_idmapped,
                )
                return fds[0], fds[1], facts, folder


def _reap(fds: list[int]) -> None:
    """Wait for a zygote that said no, by the pidfd that came with its word; a launcher is waited for elsewhere."""
    for pidfd in fds:
        _ended(pidfd, None)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def map_ids(pid: int) -> bool:
    """Run newuidmap(1) and newgidmap(1) for *pid*: own ids to 0, subordinate ids from 1 on.

    False, and nothing written, when there are no subordinate ids or no program that may map them.
    """
    uid, gid = os.geteuid(), os.getegid()
    subuids, subgids = probe.subordinate_ids("/etc/subuid", uid), probe.subordinate_ids("/etc/subgid", uid)
    newuidmap, newgidmap = probe.find_program("newuidmap"), probe.find_program("newgidmap")
    if not (subuids and subgids and newuidmap and newgidmap):
        return False
    if _run_quietly(newuidmap, pid, uid, subuids) != 0:
        return False  # it has no set-user-ID bit here, say: nothing is written yet
    if _run_quietly(newgidmap, pid, gid, subgids) != 0:
        raise HostUnsupported(
            "subordinate group ids",
            needs="newgidmap with its set-user-ID bit and ranges in /etc/subgid that are its own",
            found="newgidmap refused",
            hint="reinstall Debian's uidmap, and compare /etc/subuid with /etc/subgid",
        )
    return True


def _run_quietly(program: str, pid: int, own: int, ranges: tuple[tuple[int, int], ...]) -> int:
    lines, inside = ["0", str(own), "1"], 1
    for start, count in ranges:
        lines += [str(inside), str(start), str(count)]
        inside += count
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return _wait(os.posix_spawn(program, [program, str(pid), *lines], os.environ, file_actions=quiet))


def _wait(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:  # the program reaps all children itself, or ignores SIGCHLD
        return 0


def _ended(fd: int, timeout: int | None, event: int = select.POLLIN) -> bool:
    """Whether the process of a pidfd ends within *timeout* milliseconds, pidfd_open(2), or a socket's other end."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(timeout))


# --- the engine of this process -------------------------------------------------------------------------

_lock = threading.Lock()
_engine: Engine | None = None
_fork_listeners: weakref.WeakSet[Any] = weakref.WeakSet()


def engine() -> Engine:
    """The engine of this process, started when there is none or when the last one was killed."""
    global _engine  # noqa: PLW0603 - one zygote for one process is the design
    current = _engine
    if current is not None and current.alive:
        return current
    with _lock:
        if _engine is not None and not _engine.alive:
            _engine.close()
            _engine = None
        if _engine is None:
            _engine = Engine.start()
        return _engine


def prewarm() -> None:
    """Start the zygote now (about 20 ms), so that the first container does not wait for it."""
    engine()


def shutdown() -> None:
    """End every container of this process and its zygote, and wait until nothing is left. Safe to repeat.

    It happens by itself when the interpreter ends; the next container starts anew.
    """
    global _engine
    with _lock:
        current, _engine = _engine, None
    if current is not None:
        current.close()


def abandon_in_fork(holder: Any) -> None:
    """Have ``holder.abandon()`` called in the child of a fork, which owns none of its parent's containers."""
    _fork_listeners.add(holder)


def _forked() -> None:
    global _engine, _lock  # noqa: PLW0603 - as above
    _lock = threading.Lock()  # another thread of the parent may have held it
    for holder in list(_fork_listeners):
        holder.abandon()
    _fork_listeners.clear()
    if _engine is not None:
        _engine.abandon()
        _engine = None


os.register_at_fork(after_in_child=_forked)
atexit.register(shutdown)
