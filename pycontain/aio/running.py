"""``Running`` whose methods are awaited."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, overload
from weakref import WeakSet

from pycontain.aio.attendance import carry_out
from pycontain.aio.files import Files
from pycontain.aio.image import Image
from pycontain.aio.lines import Lines
from pycontain.aio.opening import Opening
from pycontain.aio.process import Process
from pycontain.aio.readiness import wait_for
from pycontain.aio.streams import Writer, raw_of
from pycontain.aio.terminal import Terminal
from pycontain.aio.threads import in_thread
from pycontain.aio.watching import has_ended
from pycontain.process.logs import check as check_choice
from pycontain.sandbox.network import LOOPBACK

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from types import TracebackType

    from pycontain import Change, Completed, Health, LogLine, ProcessStatus, PublishedPort, Stats, process
    from pycontain.container import ContainerSpec
    from pycontain.network.inside import Opened, Place
    from pycontain.process.logs import Moment
    from pycontain.process.popen import Redirection
    from pycontain.runtime.exchange import Steps
    from pycontain.sandbox.limits import Disks, Pages


class Running:
    """A container that was started, as :class:`pycontain.Running`: what is known is read, what acts or waits is awaited.

    It belongs to no event loop: it may be started in one and be waited for in another, also in several at once.
    """

    def __init__(self, running: process.Running) -> None:
        self._running = running
        self._sessions: WeakSet[Terminal] = WeakSet()
        self.files = Files(running.files)
        self.stdin: Writer[bytes] | None = None
        if running.stdin is not None:
            running.stdin = raw_of(running.stdin)  # which it closes at its end
            self.stdin = Writer(running.stdin, None)

    @classmethod
    async def _started(cls, steps: Steps[process.Running]) -> Self:
        return cls(await carry_out(steps, undo=lambda running: running.close()))

    def __repr__(self) -> str:
        return repr(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- what is known ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._running.id

    @property
    def name(self) -> str:
        """The name that it was given, else the beginning of the id."""
        return self._running.name

    @property
    def spec(self) -> ContainerSpec:
        """What it was started from, with later changes of its limits."""
        return self._running.spec

    @property
    def image(self) -> str:
        """The image, as the container names it."""
        return self._running.image

    @property
    def pid(self) -> int:
        """The host's number of the container's PID 1."""
        return self._running.pid

    @property
    def restarts(self) -> int:
        """How often the payload was started again."""
        return self._running.restarts

    @property
    def status(self) -> str:
        """``running``, ``paused`` or ``exited``."""
        return self._running.status

    @property
    def ports(self) -> tuple[PublishedPort, ...]:
        """The ports that are published now, with the host's ports that they got."""
        return self._running.ports

    @property
    def health(self) -> Health:
        """How it is, as its health check says: see :class:`Health`. The first look begins the probes."""
        return self._running.health

    # --- life cycle -------------------------------------------------------------------------------------

    async def wait(self, timeout: float | None = None) -> Completed[str]:
        """Wait for the end; after *timeout* seconds raise :class:`CommandTimeout`. Also who is cancelled leaves the container alone."""
        self._running._require_owner()
        if not await has_ended(self._running._watched, timeout):
            raise self._running._still_runs(timeout or 0.0)
        return await in_thread(self._running.wait)

    async def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send *signal* to the payload, SIGKILL to the whole container. Without effect when it has exited."""
        self._running.kill(signal)

    async def stop(self, timeout: float = 10) -> Completed[str]:
        """Send the stop signal, SIGKILL after *timeout* seconds, and wait for the end. What is paused is resumed for it."""
        await in_thread(self._running._ask_to_stop)
        if not await has_ended(self._running._watched, timeout):
            self._running.kill()
        return await self.wait()

    async def close(self) -> None:
        """Kill what still runs and wait until it is gone, whatever is cancelled meanwhile. Safe to repeat."""
        for session in list(self._sessions):
            session._detach_now()
        if self.stdin is not None:
            self.stdin._close_now()
        await in_thread(self._running.close, surely=True)

    # --- output -----------------------------------------------------------------------------------------

    def lines(
        self, *, follow: bool = True, since: Moment | None = None, tail: int | None = None
    ) -> AsyncIterator[LogLine]:
        """The lines that it prints, for ``async for``, as :meth:`pycontain.Running.lines`."""
        self._running._require_owner()
        return Lines(self, self._running._log, follow=follow, since=check_choice(since, tail), tail=tail)

    async def logs(self, *, since: Moment | None = None, tail: int | None = None) -> tuple[LogLine, ...]:
        """The lines that are there now, with one that is not complete yet."""
        return await in_thread(partial(self._running.logs, since=since, tail=tail))

    def attach(self) -> Opening[Terminal]:
        """A session with its terminal: ``async with running.attach() as terminal``, or awaited; see :meth:`pycontain.Running.attach`."""
        return Opening(self._attached())

    async def _attached(self) -> Terminal:
        session = Terminal(self._running.attach())
        self._sessions.add(session)
        return session

    # --- readiness --------------------------------------------------------------------------------------

    async def wait_for(
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
        """Wait until it is ready, as all that is given says, and return self; see :meth:`pycontain.Running.wait_for`."""
        conditions = self._running._conditions(
            port=port, http=http, log=log, file=file, command=command, healthy=healthy, timeout=timeout
        )
        await wait_for(self, conditions, timeout)
        return self

    # --- resources --------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Have every process inside stand still until :meth:`resume`. Safe to repeat."""
        await in_thread(self._running.pause)

    async def resume(self) -> None:
        """Let what is paused go on. Without effect when it is not paused, or has exited."""
        await in_thread(self._running.resume)

    async def stats(self) -> Stats:
        """What the container uses now; see :class:`Stats`."""
        return await in_thread(self._running.stats)

    async def top(self) -> tuple[ProcessStatus, ...]:
        """The processes inside, by their numbers there."""
        return await in_thread(self._running.top)

    async def update(
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
        """Change limits, with the words of :meth:`Container.limits`, as :meth:`pycontain.Running.update`."""
        await in_thread(
            partial(
                self._running.update,
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
            )
        )

    # --- network ----------------------------------------------------------------------------------------

    async def connect(
        self, port: int | str, host: str = "127.0.0.1", *, timeout: float | None = 10.0
    ) -> socket.socket:
        """A connected socket, made inside the container's network namespace, as :meth:`pycontain.Running.connect`; it does not block.

        ``loop.sock_recv`` and its kin take it, and ``asyncio.open_connection(sock=…)``; the caller closes it.
        """
        place, opened = await in_thread(partial(self._opened, port, host), undo=_close)
        made = opened.made
        made.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                if made.family == socket.AF_UNIX and opened.address is not None:
                    made.connect(opened.address)  # unix(7): it is done at once, or not at all
                elif opened.address is not None:
                    await asyncio.get_running_loop().sock_connect(made, opened.address)
        except OSError as error:
            made.close()
            raise place.refused(error, opened.where, opened.number, timeout) from error
        except BaseException:
            made.close()
            raise
        return made

    def _opened(self, port: int | str, host: str) -> tuple[Place, Opened]:
        with self._running._opened_pidfd() as pidfd:
            place = self._running._place(pidfd)
            return place, place.open(port, host)

    async def open_connection(
        self, port: int | str, host: str = "127.0.0.1", *, timeout: float | None = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The same as streams, as :func:`asyncio.open_connection` has them."""
        made = await self.connect(port, host, timeout=timeout)
        try:
            if made.family == socket.AF_UNIX:
                return await asyncio.open_unix_connection(sock=made)
            return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise

    async def listen(self, port: int | str, host: str = "127.0.0.1") -> socket.socket:
        """A listening socket inside the container's network namespace, as :meth:`pycontain.Running.listen`; it does not block.

        ``asyncio.start_server(…, sock=…)`` serves on it; the caller closes it.
        """
        made = await in_thread(partial(self._running.listen, port, host), undo=lambda made: made.close())
        made.setblocking(False)
        return made

    async def publish(
        self, port: int, host_port: int | None = None, *, host_ip: str = LOOPBACK, protocol: str = "tcp"
    ) -> tuple[str, int]:
        """As :meth:`Container.publish`, while it runs. Returns where it is reached: ``(address, port)``."""
        return await in_thread(
            partial(self._running.publish, port, host_port, host_ip=host_ip, protocol=protocol)
        )

    async def unpublish(self, port: int, protocol: str = "tcp") -> None:
        """Close all that leads to *port*, and the connections that came through it."""
        await in_thread(partial(self._running.unpublish, port, protocol))

    async def address(self, port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Where a published *port* is reached: ``(address, port)``."""
        return self._running.address(port, protocol)

    # --- changes ----------------------------------------------------------------------------------------

    async def diff(self) -> tuple[Change, ...]:
        """What the container has written to its root: each path that is added, modified or deleted, sorted."""
        return await in_thread(self._running.diff)

    async def commit(
        self,
        tag: str | None = None,
        *,
        message: str = "",
        author: str = "",
        changes: Iterable[str] = (),
        pause: bool | None = None,
    ) -> Image:
        """Make an image of the container's, with what it has written as one more layer, as :meth:`pycontain.Running.commit`."""
        commit = partial(
            self._running.commit, tag, message=message, author=author, changes=tuple(changes), pause=pause
        )
        return Image(await in_thread(commit))

    # --- more commands ----------------------------------------------------------------------------------

    @overload
    async def exec(
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
    async def exec(
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

    async def exec(
        self,
        *argv: str,
        input: str | bytes | None = None,
        timeout: float | None = None,
        check: bool = False,
        text: bool = True,
        max_output: str | int = "64M",
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
        workdir: str | None = None,
        tty: bool = False,
    ) -> Completed[Any]:
        """Run one more command inside, as :meth:`pycontain.Running.exec`. Who is cancelled meanwhile learns it when its tree has ended."""
        return await carry_out(
            self._running._exec(
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
                bounded=True,  # any task may be cancelled
            )
        )

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
    ) -> Opening[Process[str]]: ...

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
    ) -> Opening[Process[str]]: ...

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
    ) -> Opening[Process[bytes]]: ...

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
    ) -> Opening[Process[Any]]:
        """Start one more command inside: ``async with running.popen(…) as process``, or ``process = await running.popen(…)``.

        As :meth:`pycontain.Running.popen`, and the streams of the :class:`Process` are awaited; *bufsize* changes nothing, for
        nothing is held back.
        """
        steps = self._running._popen(
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
        return Opening(Process._started(steps))


def _close(opened: tuple[Place, Opened]) -> None:
    opened[1].made.close()
