"""The way of a layer's bytes from its stream to whoever applies them: counted, hashed, inflated, read ahead."""

from __future__ import annotations

import hashlib
import io
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from pycontain.layers.compression import MAGIC_LENGTH, decompress, detect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_AHEAD = 8  # chunks


class MeasuredStream(io.RawIOBase):
    """Read *stream* through, counting and, if it is *hashed*, hashing what passes; does not close it."""

    def __init__(self, stream: BinaryIO, *, hashed: bool) -> None:
        super().__init__()
        self.size = 0
        self._stream = stream
        self._hash = hashlib.sha256() if hashed else None
        self._head = b""

    @property
    def digest(self) -> str:
        """The digest of what was read so far."""
        assert self._hash
        return f"sha256:{self._hash.hexdigest()}"

    def peek(self, length: int) -> bytes:
        """Return the next *length* bytes, fewer only at the end, and leave them to be read."""
        while len(self._head) < length and (more := self._fetch(length - len(self._head))):
            self._head += more
        return self._head

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base says "any buffer"
        """Read up to the length of *buffer*."""
        read, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        read = read or self._fetch(len(buffer))
        buffer[: len(read)] = read
        return len(read)

    def _fetch(self, length: int) -> bytes:
        read = self._stream.read(length)
        self.size += len(read)
        if self._hash:
            self._hash.update(read)
        return read


class LayerBytes:
    """The uncompressed bytes of the layer in *stream*, made in a thread of their own and a little ahead.

    A context manager to iterate over once. Afterwards :attr:`diff_id` is the digest of what was given out, and
    :attr:`size` the length of the stream; :attr:`digest` is that of the stream, for who wants it *hashed*. Leaving it
    ends the thread, once the stream's present read returns.
    """

    def __init__(self, stream: BinaryIO, *, hashed: bool = False) -> None:
        self.failure: Exception | None = None  # what reading or inflating ended with, once it was raised
        self._stream = MeasuredStream(stream, hashed=hashed)
        self._hash = hashlib.sha256()
        self._queue: Queue[bytes | Exception | None] = Queue(_AHEAD)
        self._stopped = False
        self._thread = Thread(target=self._run, name="pycontain-inflate", daemon=True)

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed bytes so far."""
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def digest(self) -> str:
        """The digest of the stored bytes so far."""
        return self._stream.digest

    @property
    def size(self) -> int:
        """The number of stored bytes read so far."""
        return self._stream.size

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass  # now there is room for the one chunk that the thread may still hold
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        """Give the chunks in order; what went wrong in the thread is raised here."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                self.failure = item
                raise item
            yield item

    def _run(self) -> None:
        last: Exception | None = None
        try:
            for chunk in self._chunks():
                self._queue.put(chunk)
                if self._stopped:
                    return
        except Exception as error:  # noqa: BLE001 - belongs to the thread that iterates, and is raised there
            last = error
        self._queue.put(last)

    def _chunks(self) -> Iterator[bytes]:
        compression = detect(self._stream.peek(MAGIC_LENGTH))
        for chunk in decompress(cast("BinaryIO", self._stream), compression):
            self._hash.update(chunk)
            yield chunk
