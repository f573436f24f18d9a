"""``Process`` whose waiting is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from pycontain.aio.attendance import carry_out
from pycontain.aio.streams import Reader, Writer, raw_of
from pycontain.aio.terminal import Terminal
from pycontain.aio.watching import has_ended

if TYPE_CHECKING:
    from types import TracebackType

    from pycontain.process import popen
    from pycontain.runtime.exchange import Steps

Text = TypeVar("Text", str, bytes)

_PAUSE = 0.01  # seconds


class Process(Generic[Text]):
    """A command in a running container, as :class:`pycontain.Process`, which see; ``wait()`` and ``communicate()`` are awaited.

    ``stdin`` is a :class:`Writer`, ``stdout`` and ``stderr`` are a :class:`Reader`, for those that are pipes. As in asyncio, what
    only sends a signal is no coroutine.
    """

    def __init__(self, process: popen.Process[Any]) -> None:
        self._process = process
        self.argv = process.argv
        self.args = process.args
        self.pid = process.pid
        coding = process._coding
        self.stdin: Writer[Text] | None = None
        self.stdout: Reader[Text] | None = None
        self.stderr: Reader[Text] | None = None
        if process.stdin is not None:
            self.stdin = Writer(raw_of(process.stdin), coding)
        if process.stdout is not None:
            self.stdout = Reader(raw_of(process.stdout), coding)
        if process.stderr is not None:
            self.stderr = Reader(raw_of(process.stderr), coding)
        self.terminal = None if process.terminal is None else Terminal(process.terminal)
        self._talk: _Communication | None = None

    @classmethod
    async def _started(cls, steps: Steps[popen.Process[Any]]) -> Self:
        return cls(await carry_out(steps, undo=_discard))

    def __repr__(self) -> str:
        return repr(self._process)

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._process.returncode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; after *timeout* seconds raise :class:`WaitTimeout`. Then, and when it is cancelled, the command goes on."""
        self._process._require_owner()
        if not await self._settle(timeout):
            raise self._process._expired(timeout or 0.0)
        return self._process.wait()

    async def communicate(
        self, input: Text | None = None, timeout: float | None = None
    ) -> tuple[Text | None, Text | None]:
        """Feed *input*, read both streams to their end, wait. After a :class:`WaitTimeout` or a cancellation it may be called again; nothing is lost."""
        self._process._require_owner()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._talk is None:
            self._talk = _Communication(self, self._process._encoded(input))
        elif input:
            raise ValueError("communicate() has begun; no more input can be given")
        complete = await self._talk.go_on(timeout)
        out, err = (self._process._decoded(content) for content in self._talk.delivered())
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not (complete and await self._settle(left)):
            raise self._process._expired(timeout or 0.0, out, err)
        self._process.wait()
        return out, err

    def send_signal(self, signal: str | int) -> None:
        """Send *signal*, by number or name, to the command itself; SIGKILL ends it as :meth:`kill`. No effect when it has ended."""
        self._process.send_signal(signal)

    def terminate(self) -> None:
        """Send SIGTERM to the command itself."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, and all that it has started, with SIGKILL. Without effect when it has ended."""
        self._process.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipes and wait. Who is cancelled, in the block or here, goes on when the command and all that it has started have ended."""
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                stream._close_now()
        if self.terminal is not None:
            self.terminal._detach_now()
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        if cancelled is not None:
            self.kill()
        while True:
            try:
                await self.wait()
            except asyncio.CancelledError as again:
                cancelled = cancelled or again
                self.kill()
            else:
                break
        if cancelled is not None and cancelled is not error:
            raise cancelled

    async def _settle(self, timeout: float | None) -> bool:
        """Whether it has ended within *timeout* seconds, and everything that it wrote is where it belongs."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not await has_ended(self._process._watched, timeout):
            return False
        while not self._process._streams.finish(0):  # mostly, there is nothing that is carried
            if deadline is not None and time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_PAUSE)
        return True


def _discard(process: popen.Process[Any]) -> None:
    """Nobody gets it any more."""
    process.kill()
    for file in (process.stdin, process.stdout, process.stderr):
        if file is not None:
            file.close()
    if process.terminal is not None:
        process.terminal.detach()


class _Communication:
    """What :meth:`Process.communicate` has left to do: it may be cancelled at any moment, and go on later."""

    def __init__(self, process: Process[Any], content: bytes) -> None:
        self._stdin, self._outputs = process.stdin, (process.stdout, process.stderr)
        self._input = memoryview(content)
        self._collected = [bytearray(), bytearray()]

    async def go_on(self, timeout: float | None) -> bool:
        """Carry bytes until all is done; False when the time is up before."""
        jobs = [self._feed(), *(self._drain(number) for number in (0, 1))]
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            _, pending = await asyncio.wait(tasks, timeout=timeout)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc] # which it is not None
        return not pending

    async def _feed(self) -> None:
        if self._stdin is None or self._stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            while self._input:
                self._input = self._input[await self._stdin.write_some(self._input) :]
        await self._stdin.close()

    async def _drain(self, number: int) -> None:
        stream = self._outputs[number]
        if stream is None or stream.closed:
            return
        while chunk := await stream.read_bytes():
            self._collected[number] += chunk
        await stream.close()

    def delivered(self) -> tuple[bytes | None, bytes | None]:
        """What both streams have brought so far."""
        out, err = (
            None if stream is None else bytes(collected)
            for stream, collected in zip(self._outputs, self._collected, strict=True)
        )
        return out, err
