"""The near ends of pipes, as files that are awaited."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
from typing import IO, TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.process.popen import Coding

Text = TypeVar("Text", str, bytes)

_CHUNK = 1 << 16  # what a pipe holds, pipe(7)


class Readiness:
    """Waits until a descriptor is ready, and is woken when that is about to be closed. One task at a time."""

    def __init__(self, *, to_write: bool) -> None:
        self._to_write = to_write
        self._waiter: asyncio.Future[bool] | None = None
        self._forget: Callable[[], object] = lambda: None

    async def wait(self, fd: int, timeout: float | None = None) -> bool:
        """Whether *fd* becomes ready within *timeout* seconds; ValueError when it is closed meanwhile."""
        if self._waiter is not None:
            raise RuntimeError(f"another task is {'writing' if self._to_write else 'reading'} here already")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        add, remove = (
            (loop.add_writer, loop.remove_writer) if self._to_write else (loop.add_reader, loop.remove_reader)
        )
        add(fd, _settle, waiter, True)
        self._forget = lambda: remove(fd)
        timer = None if timeout is None else loop.call_later(timeout, _settle, waiter, False)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
            self._let_go()

    def close(self) -> None:
        """The descriptor is closed next: a number that others may get must not be watched any more."""
        self._let_go()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ValueError("I/O operation on closed file"))

    def _let_go(self) -> None:
        forget, self._forget = self._forget, lambda: None
        forget()


def _settle(waiter: asyncio.Future[bool], ready: bool) -> None:  # noqa: FBT001 - a callback has no keywords
    if not waiter.done():
        waiter.set_result(ready)


def raw_of(file: IO[Any]) -> IO[bytes]:
    """The file below *file*'s buffers, which are empty; *file* is of no more use."""
    while hasattr(file, "detach"):
        file = file.detach()
    os.set_blocking(file.fileno(), False)
    return file


class _End:
    """One end of a pipe."""

    _to_write: bool

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._readiness = Readiness(to_write=self._to_write)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def fileno(self) -> int:
        """Its descriptor, which does not block."""
        return self._file.fileno()

    async def close(self) -> None:
        """Close it; who waits there gets a ValueError. Safe to repeat."""
        self._close_now()

    def _close_now(self) -> None:
        """The same, for who cannot wait."""
        if not self._file.closed:
            self._readiness.close()
            self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_now()


class Reader(_End, Generic[Text]):
    """What a command prints, as a file that is awaited. A read that is cancelled loses nothing."""

    _to_write = False

    def __init__(self, file: IO[bytes], coding: Coding | None) -> None:
        super().__init__(file)
        self._decoder = (
            None if coding is None else codecs.getincrementaldecoder(coding.encoding)(coding.errors)
        )
        self._coding = coding
        self._nothing: Any = b"" if coding is None else ""
        self._newline: Any = b"\n" if coding is None else "\n"
        self._buffer: Any = self._nothing
        self._at = 0  # how much of it was read
        self._ended = False

    async def read(self, size: int = -1) -> Text:
        """*size* bytes or characters, or all up to the end; less only at the end."""
        pieces, have = [self._rest()], len(self._buffer) - self._at
        self._buffer, self._at = self._nothing, 0
        try:
            while (size < 0 or have < size) and (piece := await self._next()):
                pieces.append(piece)
                have += len(piece)
        finally:
            self._buffer = self._nothing.join(pieces)
        return self._take(len(self._buffer) if size < 0 else size)

    async def read1(self, size: int = -1) -> Text:
        """What is there, at most *size*, and at least something; nothing at the end."""
        if self._at == len(self._buffer):
            self._buffer, self._at = await self._next(), 0
        return self._take(len(self._buffer) if size < 0 else size)

    async def readline(self) -> Text:
        """A line with its end, or what is left; nothing at the end."""
        start = self._at
        while (place := self._buffer.find(self._newline, start)) < 0:
            piece = await self._next()
            if not piece:
                return self._take(len(self._buffer))
            rest = self._rest()
            self._buffer, self._at, start = rest + piece, 0, len(rest)
        return self._take(place + 1 - self._at)

    async def read_bytes(self) -> bytes:
        """Some bytes as they were written, none at the end: of what was not read yet, whatever became of it."""
        rest, self._buffer, self._at = self._rest(), self._nothing, 0
        if self._decoder is None or self._coding is None:
            return rest or await self._next()  # type: ignore[no-any-return]
        left: bytes = self._coding.encode(rest) + self._decoder.getstate()[0]
        self._decoder.reset()
        return left or await self._chunk()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Text:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def _rest(self) -> Any:
        return self._buffer[self._at :]

    def _take(self, size: int) -> Text:
        taken: Text = self._buffer[self._at : self._at + size]
        self._at += len(taken)
        return taken

    async def _next(self) -> Any:
        """Some more, nothing at the end."""
        while not self._ended:
            chunk = await self._chunk()
            piece = chunk if self._decoder is None else self._decoder.decode(chunk, final=not chunk)
            if piece:  # else it ends within a character
                return piece
        return self._nothing

    async def _chunk(self) -> bytes:
        while not self._ended:
            try:
                chunk = os.read(self._file.fileno(), _CHUNK)
            except BlockingIOError:
                await self._readiness.wait(self._file.fileno())
            else:
                self._ended = not chunk
                return chunk
        return b""


class Writer(_End, Generic[Text]):
    """What a command reads, as a file that is awaited. Nothing is held back."""

    _to_write = True

    def __init__(self, file: IO[bytes], coding: Coding | None) -> None:
        super().__init__(file)
        self._coding = coding

    async def write(self, content: Text) -> int:
        """Write all of it, waiting while the pipe is full; its length.

        BrokenPipeError when nobody will read it. Who is cancelled meanwhile may have written a part.
        """
        if isinstance(content, str):
            if self._coding is None:
                raise TypeError("the stream takes bytes, not str; ask for text=True")
            left = memoryview(self._coding.encode(content))
        elif self._coding is None:
            left = memoryview(content).cast("B")
        else:
            raise TypeError(f"the stream takes str, not {type(content).__name__}")
        while left:
            left = left[await self.write_some(left) :]
        return len(content)

    async def write_some(self, content: memoryview) -> int:
        """Write what there is room for, at least something; how many bytes."""
        while True:
            try:
                return os.write(self._file.fileno(), content[:_CHUNK])
            except BlockingIOError:
                await self._readiness.wait(self._file.fileno())

    async def writelines(self, lines: list[Text] | tuple[Text, ...]) -> None:
        """Write each of them."""
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Nothing is held back; it is here because files have it."""

    def _close_now(self) -> None:
        """Close it."""
        with contextlib.suppress(BrokenPipeError):
            super()._close_now()
