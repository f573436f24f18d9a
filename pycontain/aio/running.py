"""``Running`` whose methods are awaited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from pycontain.aio.attendance import carry_out
from pycontain.aio.lines import Lines
from pycontain.aio.threads import Bell, in_thread
from pycontain.process.logs import check as check_choice
from pycontain.runtime.watch import watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from pycontain import Completed, LogLine, process
    from pycontain.container import ContainerSpec
    from pycontain.process.logs import Moment
    from pycontain.runtime.exchange import Steps


class Running:
    """A container that was started, as :class:`pycontain.Running`: what is known is read, what acts or waits is awaited.

    It belongs to no event loop: it may be started in one and be waited for in another, also in several at once.
    """

    def __init__(self, running: process.Running) -> None:
        self._running = running

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

    # --- life cycle -------------------------------------------------------------------------------------

    async def wait(self, timeout: float | None = None) -> Completed[str]:
        """Wait for the end; after *timeout* seconds raise :class:`CommandTimeout`. Also who is cancelled leaves the container alone."""
        self._running._require_owner()
        if not await self._ended(timeout):
            raise self._running._still_runs(timeout or 0.0)
        return await in_thread(self._running.wait)

    async def _ended(self, timeout: float | None) -> bool:
        """Whether it ends within *timeout* seconds."""
        watched = self._running._watched
        if watched.done.is_set():
            return True
        bell = Bell()
        watcher().listen(watched, bell.ring)
        try:
            await bell.heard(timeout)
        finally:
            watcher().unlisten(watched, bell.ring)
        return watched.done.is_set()

    async def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send *signal* to the payload, SIGKILL to the whole container. Without effect when it has exited."""
        self._running.kill(signal)

    async def stop(self, timeout: float = 10) -> Completed[str]:
        """Send the stop signal, SIGKILL after *timeout* seconds, and wait for the end. What is paused is resumed for it."""
        await in_thread(self._running._ask_to_stop)
        if not await self._ended(timeout):
            self._running.kill()
        return await self.wait()

    async def close(self) -> None:
        """Kill what still runs and wait until it is gone, whatever is cancelled meanwhile. Safe to repeat."""
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
