"""``Running``: a container while it runs, and all that can be asked of it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import attrs

from pycontain.errors import CommandTimeout, InvalidSpec, SandboxError
from pycontain.kernel.descriptors import pid_of
from pycontain.process.completed import completed_of, shortened
from pycontain.process.prepared import Run, is_number, new_id, send
from pycontain.process.signals import parse_signal, signal_number
from pycontain.process.starting import conclude
from pycontain.runtime.exchange import BOUNDED, Exchange, carry_out
from pycontain.runtime.failure import has_exited
from pycontain.runtime.loading import loading
from pycontain.runtime.watch import watcher
from pycontain.sandbox.network import LOOPBACK, NO_NETWORKING

if TYPE_CHECKING:
    import re
    import socket
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import IO

    from pycontain.container import Container, ContainerSpec
    from pycontain.image import Image
    from pycontain.network.inside import Place
    from pycontain.network.wiring import Wiring
    from pycontain.process.changes import Change, WritableLayer
    from pycontain.process.completed import Completed
    from pycontain.process.files import Files
    from pycontain.process.health import Health, Monitor
    from pycontain.process.logs import LogLine, Moment
    from pycontain.process.popen import Plumbing, Process, Redirection
    from pycontain.process.prepared import Prepared
    from pycontain.process.readiness import Condition
    from pycontain.process.resources import ProcessStatus, Resources, Stats
    from pycontain.process.terminal import Terminal
    from pycontain.runtime.exchange import Steps
    from pycontain.runtime.log import Cursor, Log
    from pycontain.sandbox.limits import Disks, Pages
    from pycontain.sandbox.network import PublishedPort

_LAST_WORDS = 10.0  # how long the kernel may take to end what was killed


def _both(*acts: Callable[[], None]) -> Callable[[], None]:
    def act() -> None:
        for each in acts:
            each()

    return act


class Running:
    """A container that was started: a context manager that kills and cleans when its block is left.

    Thread-safe. It belongs to the process that started it: in the child of a fork its methods raise.
    """

    def __init__(
        self,
        container: Container,
        prepared: Prepared,
        exchange: Exchange,
        log: Log,
        streams: Plumbing | None,
        ident: str,
        began: float,
        wiring: Wiring | None = None,
    ) -> None:
        self.id = ident
        self.name = container.spec.name or ident[:12]
        self.spec: ContainerSpec = container.spec
        self._container = container
        self._prepared = prepared
        self._exchange = exchange
        self._log = log
        self._began = began
        self._wired = wiring
        self._pid = pid_of(exchange.pidfd)
        self._process = os.getpid()
        self._completed: Completed[str] | None = None
        self._paused = False
        self._lock = threading.Lock()
        self._files: Files | None = None
        self._monitor: Monitor | None = None
        self._sessions: weakref.WeakSet[Terminal] = weakref.WeakSet()
        self._left: tuple[Cursor, bytes] | None = None  # where the last session has ended
        self.stdin: IO[bytes] | None = None if streams is None else streams.file(0, -1, None)
        self._streams = streams
        if streams is not None:
            streams.start()
        self._watched = watcher().add(exchange, log.end if streams is None else _both(streams.end, log.end))
        self._finalizer = weakref.finalize(self, watcher().release, self._watched)
        self._finalizer.atexit = False  # the zygote's end is the end of all containers

    def __repr__(self) -> str:
        return f"<Running {self.name} {self.status} {shortened(' '.join(self._prepared.argv))}>"

    def _repr_html_(self) -> str:
        from pycontain.jupyter.html import running_html  # noqa: PLC0415 - only a notebook asks

        return running_html(self, self._prepared.argv)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def image(self) -> str:
        """The image, as the container names it."""
        return str(self.spec.image)

    @property
    def pid(self) -> int:
        """The host's number of the container's PID 1."""
        return self._pid

    @property
    def restarts(self) -> int:
        """How often the payload was started again, see :meth:`Container.restart`."""
        return self._exchange.restarts

    @property
    def status(self) -> str:
        """``running``, ``paused`` or ``exited``."""
        if self._watched.done.is_set():
            return "exited"
        return "paused" if self._paused else "running"

    def wait(self, timeout: float | None = None) -> Completed[str]:
        """Wait for the end; after *timeout* seconds raise :class:`CommandTimeout`, and the container goes on."""
        self._require_owner()
        if not self._watched.done.wait(timeout):
            raise self._still_runs(timeout or 0.0)
        if self._streams is not None:
            self._streams.finish(None)
            error = self._streams.failure()
            if error is not None:
                raise error
        with self._lock:
            if self._completed is None:
                self._completed = completed_of(self._exchange, self._prepared.argv, self._began, text=True)
        return self._completed

    def _still_runs(self, timeout: float) -> CommandTimeout:
        """The error of a wait that took *timeout* seconds."""
        partial = completed_of(self._exchange, self._prepared.argv, self._began, text=True)
        partial = attrs.evolve(partial, exit_code=None, signal=None, timed_out=True)
        return CommandTimeout(f"{self.name} still runs after {timeout:g} s", result=partial)

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send *signal* to the payload, SIGKILL to the whole container. Without effect when it has exited."""
        self._require_owner()
        try:
            number = signal_number(parse_signal(signal))
        except ValueError as error:
            raise InvalidSpec(str(error)) from None
        watcher().command(self._watched, "signal", number)

    def stop(self, timeout: float = 10) -> Completed[str]:
        """Send the stop signal, SIGKILL after *timeout* seconds, and wait for the end. What is paused is resumed for it."""
        self._ask_to_stop()
        if not self._watched.done.wait(timeout):
            self.kill()
        return self.wait()

    def _ask_to_stop(self) -> None:
        self.kill(self.spec.stop_signal or self._prepared.compiled.image.stop_signal)
        self.resume()

    def close(self) -> None:
        """Kill what still runs and wait until it is gone. Safe to repeat; the result stays readable by ``wait()``."""
        if os.getpid() != self._process:
            return
        self.kill()
        self._watched.done.wait(_LAST_WORDS)
        self._finalizer()
        if self._files is not None:  # now, for its opener has ended too, whatever it was waiting for
            self._files.close()
        if self._wired is not None:
            self._wired.close()
        for terminal in list(self._sessions):
            terminal.detach()
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # what was written and never read
                self.stdin.close()

    # --- output ---------------------------------------------------------------------------------------

    def lines(
        self, *, follow: bool = True, since: Moment | None = None, tail: int | None = None
    ) -> Iterator[LogLine]:
        """The lines that it prints, from both streams in order of arrival, until it ends; without *follow* those that are there.

        Of what is there only the last *tail* lines, and none from before *since*. Every call reads for itself, and as slowly as
        it likes: the payload waits for nobody. Who falls behind by more than ``max_output`` misses lines, and is told.
        """
        self._require_owner()
        with loading:
            from pycontain.process.logs import check, lines_of  # noqa: PLC0415 - for those who use it

        return lines_of(self._log, self, follow=follow, since=check(since, tail), tail=tail)

    def logs(self, *, since: Moment | None = None, tail: int | None = None) -> tuple[LogLine, ...]:
        """The lines that are there now, with one that is not complete yet."""
        return tuple(self.lines(follow=False, since=since, tail=tail))

    def attach(self) -> Terminal:
        """A session with the terminal of a container that was started with :meth:`Container.tty`; see :class:`Terminal`.

        It begins with what was printed since the last session has ended, or since the start. Any number may be open. What has exited
        can still be read.
        """
        self._require_owner()
        if not self._prepared.has_terminal:
            raise SandboxError(
                f"the container {self.name} has no terminal",
                hint="start it with .tty(), or give a command one: .popen(…, tty=True)",
            )
        with loading:
            from pycontain.process.terminal import Terminal  # noqa: PLC0415 - for those who use it

        master = watcher().open_terminal(self._watched)
        with self._lock:
            cursor, rest = self._left or (self._log.cursor(), b"")
        terminal = Terminal(self._log, cursor.copy(), master, rest, self._leave)
        self._sessions.add(terminal)
        return terminal

    def _leave(self, cursor: Cursor, rest: bytes) -> None:
        with self._lock:
            self._left = cursor, rest

    # --- readiness --------------------------------------------------------------------------------------

    def wait_for(
        self,
        *,
        port: int | str | None = None,
        http: str | None = None,
        log: str | re.Pattern[str] | None = None,
        file: str | None = None,
        command: str | Sequence[str] | None = None,
        healthy: bool = False,
        timeout: float = 60,
    ) -> Self:
        """Wait until it is ready, as all that is given says, and return self.

        *port*: somebody accepts connections there. *http*: a server answers with a status below 400. Both as seen from inside,
        whatever the network is. *log*: a line with this text, or one that the pattern is found in. *file*: a path exists.
        *command*: it exits with 0; a text is for the shell. *healthy*: its health check says so.

        :class:`CommandFailed` at once when the container ends before, :class:`NotReady` after *timeout* seconds; both have what it
        printed last.
        """
        wanted = self._conditions(
            port=port, http=http, log=log, file=file, command=command, healthy=healthy, timeout=timeout
        )
        from pycontain.process.readiness import wait_for  # noqa: PLC0415 - for those who use it

        wait_for(self, self._watched.done, wanted, timeout)
        return self

    def _conditions(
        self,
        *,
        port: int | str | None,
        http: str | None,
        log: str | re.Pattern[str] | None,
        file: str | None,
        command: str | Sequence[str] | None,
        healthy: bool,
        timeout: float,
    ) -> tuple[Condition, ...]:
        """What :meth:`wait_for` waits for."""
        self._require_owner()
        if not (is_number(timeout) and timeout >= 0):
            raise InvalidSpec(f"timeout={timeout!r} is no number of seconds")
        with loading:
            from pycontain.process.readiness import conditions  # noqa: PLC0415 - for those who use it

        wanted = tuple(
            conditions(
                self._log,
                port=port,
                http=http,
                log=log,
                file=file,
                command=command,
                monitor=self._required_monitor() if healthy else None,
            )
        )
        if not wanted:
            raise InvalidSpec("there is nothing to wait for", hint="name it: .wait_for(port=5432)")
        return wanted

    @property
    def health(self) -> Health:
        """How it is, as its health check says: see :class:`Health`. The first look begins the probes."""
        with loading:
            from pycontain.process.health import Health  # noqa: PLC0415 - as above

        monitor = self._health_monitor()
        return Health("none") if monitor is None else monitor.now

    def _required_monitor(self) -> Monitor:
        monitor = self._health_monitor()
        if monitor is None:
            raise InvalidSpec(
                f"{self.name} has no health check",
                hint="give it one with .health(), or wait for something else",
            )
        return monitor

    def _health_monitor(self) -> Monitor | None:
        self._require_owner()
        with loading:
            from pycontain.process.health import Monitor, command_of  # noqa: PLC0415 - as above

        check = self.spec.health or self._prepared.compiled.image.health
        if check is None or not command_of(check):
            return None
        with self._lock:
            if self._monitor is None:
                started = self._exchange.started or self._exchange.began
                self._monitor = Monitor(weakref.ref(self), self._watched.done, check, started)
            return self._monitor

    # --- resources --------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Have every process inside stand still until :meth:`resume`; it can still be stopped and killed. Safe to repeat."""
        with self._lock:
            self._resources().pause()
            self._paused = True

    def resume(self) -> None:
        """Let what is paused go on. Without effect when it is not paused, or has exited."""
        self._require_owner()
        with self._lock:
            if not self._paused:
                return
            try:
                self._resources().resume()
            except SandboxError:
                if not self._watched.done.wait(_LAST_WORDS):  # unless it has exited, or is about to
                    raise
            self._paused = False

    def stats(self) -> Stats:
        """What the container uses now; see :class:`Stats`."""
        return self._resources().stats()

    def top(self) -> tuple[ProcessStatus, ...]:
        """The processes inside, by their numbers there; the first is our init, or the payload without one."""
        return self._resources().top()

    def update(
        self,
        *,
        memory: str | int | None = None,
        memory_high: str | int | None = None,
        swap: str | int | None = None,
        cpus: float | Literal["max"] | None = None,
        cpu_weight: int | None = None,
        cpuset: str | None = None,
        cpuset_mems: str | None = None,
        pids: int | Literal["max"] | None = None,
        io: Disks | None = None,
        io_weight: int | None = None,
        hugetlb: Pages | None = None,
    ) -> None:
        """Change limits, with the words of :meth:`Container.limits`; what is None stays as it is, and "max" ends a limit.

        All are changed, or :class:`HostUnsupported` says why not and none is. A container without such a limit gets one;
        of memory it counts what is used from then on. To take away what there is not has no effect.
        """
        self._require_owner()
        with self._lock:
            changed = self._container.limits(
                memory=memory,
                memory_high=memory_high,
                swap=swap,
                cpus=cpus,
                cpu_weight=cpu_weight,
                cpuset=cpuset,
                cpuset_mems=cpuset_mems,
                pids=pids,
                io=io,
                io_weight=io_weight,
                hugetlb=hugetlb,
                required=self.spec.limits_required,
            )
            cgroup = self._container.changed_limits(changed, self._prepared)
            if cgroup.writes:
                self._resources().update(cgroup)
            self._container, self.spec = changed, changed.spec

    def _resources(self) -> Resources:
        from pycontain.process.resources import Resources  # noqa: PLC0415 - who does not ask pays nothing

        self._require_owner()
        if self._watched.done.is_set():
            raise has_exited(self.name)
        return Resources(self._prepared.engine, self.id, self.name, self._pid)

    # --- network ----------------------------------------------------------------------------------------

    def connect(
        self, port: int | str, host: str = "127.0.0.1", *, timeout: float | None = 10.0
    ) -> socket.socket:
        """A connected socket, made inside the container's network namespace; the caller closes it.

        It reaches what listens there whatever the container's network is, also none, and nothing has to be published.
        *host* is an address of IPv4 or IPv6, or ``localhost``. In place of a number, *port* may be the path of a unix socket
        inside, or the name of an abstract one after an ``@``. The socket is blocking and has no timeout of its own.

        Raises :class:`NothingListens`, :class:`ConnectTimeout` after *timeout* seconds, :class:`NetworkError`.
        """
        with self._opened_pidfd() as pidfd:
            return self._place(pidfd).connect(port, host, timeout)

    def listen(self, port: int | str, host: str = "127.0.0.1") -> socket.socket:
        """A listening socket inside the container's network namespace, on which the caller serves and which he closes.

        Port 0 takes a free one, which ``getsockname()`` tells. An abstract unix socket is named with an ``@``. What the
        container connects to there is answered by this process. Raises :class:`PortInUse`, :class:`NetworkError`.
        """
        with self._opened_pidfd() as pidfd:
            return self._place(pidfd).listen(port, host)

    def _place(self, pidfd: int) -> Place:
        with loading:
            from pycontain.network.inside import Place  # noqa: PLC0415 - who needs no sockets pays nothing

        shared = self.spec.networking.mode == "host"
        return Place(self._prepared.engine, pidfd, self.name, shared=shared)

    @property
    def ports(self) -> tuple[PublishedPort, ...]:
        """The ports that are published now, with the host's ports that they got."""
        return () if self._wired is None else self._wired.ports.published

    def publish(
        self, port: int, host_port: int | None = None, *, host_ip: str = LOOPBACK, protocol: str = "tcp"
    ) -> tuple[str, int]:
        """As :meth:`Container.publish`, while it runs. Returns where it is reached: ``(address, port)``."""
        described = self._container.publish(port, host_port, host_ip=host_ip, protocol=protocol)
        taken = self._wiring().ports.publish(described.spec.networking.published[-1])
        return taken.host_ip, taken.host_port

    def unpublish(self, port: int, protocol: str = "tcp") -> None:
        """Close all that leads to *port*, and the connections that came through it."""
        self._wiring().ports.unpublish(port, protocol)

    def address(self, port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Where a published *port* is reached: ``(address, port)``, as :func:`socket.create_connection` takes it."""
        found = [each for each in self.ports if (each.port, each.protocol) == (port, protocol)]
        if not found:
            raise InvalidSpec(
                f"port {port}/{protocol} of {self.name} is not published",
                hint=f"call .publish({port}) on the container, or on what runs",
            )
        return found[0].reached_at

    def _wiring(self) -> Wiring:
        with self.wired() as (wiring, _):
            return wiring

    @contextmanager
    def wired(self) -> Iterator[tuple[Wiring, int]]:
        """What it has on the host beside itself, and a pidfd of its PID 1 for the block; for :class:`Network`."""
        if self.spec.networking.mode == "host":
            raise InvalidSpec(
                f"{self.name} has the host's network, which is neither published nor connected",
                hint='its ports are those of the host; start it with .network("private") for ports of its own',
            )
        with loading:
            from pycontain.network.wiring import Wiring  # noqa: PLC0415 - as above

        with self._opened_pidfd() as pidfd:
            with self._lock:
                if self._wired is None:
                    engine, hostname = self._prepared.engine, self._prepared.compiled.sandbox.hostname
                    wiring = Wiring.prepare(NO_NETWORKING, engine, self.id, self.name, hostname)
                    wiring.enter(pidfd)
                    self._wired = wiring
            yield self._wired, pidfd

    @contextmanager
    def _opened_pidfd(self) -> Iterator[int]:
        self._require_owner()
        pidfd = watcher().open_pidfd(self._watched)
        if pidfd < 0:
            raise has_exited(self.name)
        try:
            yield pidfd
        finally:
            os.close(pidfd)

    # --- files ------------------------------------------------------------------------------------------

    @property
    def files(self) -> Files:
        """What is in the container, to be read, written and copied from outside: see :class:`Files`."""
        with self._lock:
            if self._files is None:
                from pycontain.process.files import Files  # noqa: PLC0415 - who does not ask pays nothing

                prepared = self._prepared
                self._files = Files(
                    prepared.engine,
                    self.id,
                    self.name,
                    prepared.compiled.sandbox.user,
                    self._require_owner,
                    self._watched.done,
                )
            return self._files

    def diff(self) -> tuple[Change, ...]:
        """What the container has written to its root: each path that is added, modified or deleted, sorted.

        What is mounted, its tmpfs, secrets and files that were injected are no part of it, nor are the image's volumes.
        """
        return self._layer().changes()

    def commit(
        self,
        tag: str | None = None,
        *,
        message: str = "",
        author: str = "",
        changes: Iterable[str] = (),
        pause: bool | None = None,
    ) -> Image:
        """Make an image of the container's, with what it has written as one more layer; *tag* names it.

        What was mounted or injected is not in it, nor is the container's own environment. *changes* are instructions as
        ``'CMD ["python3", "app.py"]'`` or ``"ENV A=b"``: also ENTRYPOINT, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR.
        *pause*: whether the container stands still meanwhile; None, where the host can have that. Of ``rootfs:`` an image
        is made first; ``host:`` has no layers, and raises :class:`ImageError`.
        """
        from pycontain.process.changes import commit  # noqa: PLC0415 - as above

        return commit(
            self, self._layer(), tag=tag, message=message, author=author, changes=changes, pause=pause
        )

    def _layer(self) -> WritableLayer:
        from pycontain.process.changes import WritableLayer  # noqa: PLC0415 - as above

        prepared, watched = self._prepared, self._watched
        return WritableLayer(
            prepared.engine,
            self.id,
            self.name,
            prepared.compiled,
            self.files,
            lambda: watcher().open_layer(watched),
        )

    # --- more commands ----------------------------------------------------------------------------------

    @overload
    def exec(
        self,
        *argv: str,
        input: str | bytes | None = ...,
        timeout: float | None = ...,
        check: bool = ...,
        text: Literal[True] = ...,
        max_output: str | int = ...,
        env: Mapping[str, str] | None = ...,
        user: str | int | None = ...,
        workdir: str | None = ...,
        tty: bool = ...,
    ) -> Completed[str]: ...

    @overload
    def exec(
        self,
        *argv: str,
        input: str | bytes | None = ...,
        timeout: float | None = ...,
        check: bool = ...,
        text: Literal[False],
        max_output: str | int = ...,
        env: Mapping[str, str] | None = ...,
        user: str | int | None = ...,
        workdir: str | None = ...,
        tty: bool = ...,
    ) -> Completed[bytes]: ...

    def exec(
        self,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run gave it
        timeout: float | None = None,
        check: bool = False,
        text: bool = True,
        max_output: str | int = "64M",
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
        workdir: str | None = None,
        tty: bool = False,
    ) -> Completed[Any]:
        """Run one more command inside, with the container's own user, environment, limits and walls.

        *timeout* kills the whole tree of this command, and nothing else of the container. With *tty* it has a terminal of its
        own, and ``stdout`` is what that showed. The rest is as in ``run``.
        A container that is paused executes nothing.
        """
        return carry_out(
            self._exec(
                argv,
                input_=input,
                timeout=timeout,
                check=check,
                text=text,
                max_output=max_output,
                env=env,
                user=user,
                workdir=workdir,
                tty=tty,
                bounded=timeout is not None,
            )
        )

    def _exec(
        self,
        argv: tuple[str, ...],
        *,
        input_: str | bytes | None,
        timeout: float | None,
        check: bool,
        text: bool,
        max_output: str | int,
        env: Mapping[str, str] | None,
        user: str | int | None,
        workdir: str | None,
        tty: bool,
        bounded: bool,
    ) -> Steps[Completed[Any]]:
        """What :meth:`exec` does. *bounded*: it may have to end before it does so by itself."""
        began = time.monotonic()
        self._require_owner()
        run = Run.parse(
            input_=input_,
            timeout=timeout,
            text=text,
            max_output=max_output,
            most=self._container.spec.output,
        )
        prepared = self._prepare_command(argv, env, user, workdir, tty=tty)
        options = BOUNDED if bounded else 0
        counted = "memory" in prepared.compiled.sandbox.cgroup.controllers
        exchange = Exchange(
            input_=run.input, limit=run.max_output, options=options, counted=counted, terminal=tty
        )
        try:
            send(prepared.engine, ("exec", self.id, new_id(), exchange.options, *prepared.wire()), exchange)
            completed = yield from conclude(exchange, prepared, run, began)
        finally:
            exchange.close()
        return completed.check() if check else completed

    @overload
    def popen(
        self,
        *argv: str,
        stdin: Redirection = ...,
        stdout: Redirection = ...,
        stderr: Redirection = ...,
        bufsize: int = ...,
        text: Literal[True],
        encoding: str | None = ...,
        errors: str | None = ...,
        env: Mapping[str, str] | None = ...,
        user: str | int | None = ...,
        workdir: str | None = ...,
        tty: bool = ...,
    ) -> Process[str]: ...

    @overload
    def popen(
        self,
        *argv: str,
        stdin: Redirection = ...,
        stdout: Redirection = ...,
        stderr: Redirection = ...,
        bufsize: int = ...,
        text: bool = ...,
        encoding: str,
        errors: str | None = ...,
        env: Mapping[str, str] | None = ...,
        user: str | int | None = ...,
        workdir: str | None = ...,
        tty: bool = ...,
    ) -> Process[str]: ...

    @overload
    def popen(
        self,
        *argv: str,
        stdin: Redirection = ...,
        stdout: Redirection = ...,
        stderr: Redirection = ...,
        bufsize: int = ...,
        text: Literal[False] = ...,
        encoding: None = ...,
        errors: None = ...,
        env: Mapping[str, str] | None = ...,
        user: str | int | None = ...,
        workdir: str | None = ...,
        tty: bool = ...,
    ) -> Process[bytes]: ...

    def popen(
        self,
        *argv: str,
        stdin: Redirection = None,
        stdout: Redirection = None,
        stderr: Redirection = None,
        bufsize: int = -1,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
        workdir: str | None = None,
        tty: bool = False,
    ) -> Process[Any]:
        """Start one more command inside and return at once: a :class:`Process`, which behaves as subprocess.Popen.

        Streams are PIPE, DEVNULL or STDOUT of :mod:`subprocess`, a file or a descriptor. None is the owner's own output, and
        no input. They are bytes, or with *text* or an *encoding* str: UTF-8, and newlines stay. With *tty* the command has a
        terminal instead, ``Process.terminal``. The rest is as in ``exec``.
        """
        return carry_out(
            self._popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                bufsize=bufsize,
                text=text,
                encoding=encoding,
                errors=errors,
                env=env,
                user=user,
                workdir=workdir,
                tty=tty,
            )
        )

    def _popen(
        self,
        argv: tuple[str, ...],
        *,
        stdin: Redirection,
        stdout: Redirection,
        stderr: Redirection,
        bufsize: int,
        text: bool,
        encoding: str | None,
        errors: str | None,
        env: Mapping[str, str] | None,
        user: str | int | None,
        workdir: str | None,
        tty: bool,
    ) -> Steps[Process[Any]]:
        """What :meth:`popen` does."""
        self._require_owner()
        prepared = self._prepare_command(argv, env, user, workdir, tty=tty)
        with loading:
            from pycontain.process.popen import Coding, Plumbing, popen  # noqa: PLC0415 - for those who use it

        coding = Coding.parse(encoding, errors) if text or encoding or errors else None
        if tty:
            if (stdin, stdout, stderr, coding) != (None, None, None, None):
                raise InvalidSpec("a command with a terminal has no other streams", hint="use its .terminal")
            return (yield from popen(prepared, self.id, Plumbing(), None, -1))
        streams = Plumbing.of_all(stdin, stdout, stderr)
        return (yield from popen(prepared, self.id, streams, coding, bufsize))

    def _prepare_command(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str] | None,
        user: str | int | None,
        workdir: str | None,
        *,
        tty: bool,
    ) -> Prepared:
        if not argv:
            raise InvalidSpec("there is no command to execute", hint="give one: .exec('ls', '-l')")
        if self._watched.done.is_set():
            raise has_exited(self.name)
        if self._paused:
            raise SandboxError(f"the container {self.name} is paused", hint="call resume() before")
        return self._container.prepare_exec(
            self._prepared, argv, env=env, user=user, workdir=workdir, tty=tty
        )

    def _require_owner(self) -> None:
        if os.getpid() != self._process:
            raise SandboxError(
                f"{self.name} belongs to process {self._process}, of which this one is a fork",
                hint="start containers in the process that uses them",
            )
