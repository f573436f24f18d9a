"""What a container prints, as it arrives from both streams: a ring in memory that any number of readers follow.

The thread that reads the pipes adds a record for each piece that it gets and never waits for a reader. A reader has a place of
its own in the ring, takes what is behind it in its own thread, and is told when the ring has gone over it.

It lies in memory and not in a file: a disk that is slow would hold up the one thread that reads for all containers, and what
a payload prints may be secret. Of each stream the beginning is kept for the result of the container; as long as the ring has
dropped nothing that is what is in the ring, so nothing is kept twice.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pycontain.runtime.exchange import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Record: TypeAlias = "tuple[float, int, bytes]"
    """When it came, in seconds since the epoch, the stream's number (0 is standard output), and what."""

_LEAST = 1 << 20  # of the ring, so that who follows sees something whatever is kept
_OVERHEAD = 128  # bytes that a record takes beside its content
_NOTHING: Record = (0.0, 0, b"")  # in the place of what was dropped
_BATCH = 256  # records, or
_BATCH_SIZE = 1 << 20  # bytes that a reader takes at once


class Log:
    """The last *limit* bytes of both streams in order of arrival, and the first *limit* of each."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ended = False
        self.streams = LoggedSink(self, 0), LoggedSink(self, 1)
        self._most = max(limit, _LEAST)
        self._changed = threading.Condition(threading.Lock())
        self._listeners: list[Callable[[], object]] = []
        self._records: list[Record] = []
        self._gone = 0  # how many of them have been dropped, and are still in the list
        self._first = 0  # the number of the first that has not
        self._size = 0  # of those that have not, with overhead
        self._dropped = 0  # bytes of those before
        self._totals = [0, 0]
        self._heads = Sink(limit), Sink(limit)

    def add(self, stream: int, chunk: bytes) -> None:
        """Append what has just come."""
        with self._changed:
            self._records.append((time.time(), stream, chunk))
            self._totals[stream] += len(chunk)
            self._size += len(chunk) + _OVERHEAD
            if self._size > self._most:
                self._drop()
            self._tell()

    def _drop(self) -> None:
        while self._size > self._most:
            _, stream, chunk = self._records[self._gone]
            self._records[self._gone] = _NOTHING
            self._heads[stream].take(chunk)
            self._dropped += len(chunk)
            self._size -= len(chunk) + _OVERHEAD
            self._gone += 1
            self._first += 1
        if self._gone > len(self._records) // 2:
            del self._records[: self._gone]
            self._gone = 0

    def end(self) -> None:
        """Nothing more comes. Safe to repeat."""
        with self._changed:
            self.ended = True
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        for tell in self._listeners:
            tell()

    def listen(self, tell: Callable[[], object]) -> None:
        """Have *tell* called whenever there is news, in the thread that brings it. It may neither wait nor raise."""
        with self._changed:
            self._listeners.append(tell)

    def unlisten(self, tell: Callable[[], object]) -> None:
        """No more of that."""
        with self._changed:
            self._listeners.remove(tell)

    def cursor(self) -> Cursor:
        """A place at the oldest record that is there."""
        with self._changed:
            return Cursor(self._first, self._dropped)

    def read(
        self, cursor: Cursor, timeout: float | None, before: int | None = None
    ) -> tuple[list[Record], int]:
        """Some of the next records, and how many bytes were dropped before them; the cursor moves on.

        Waits until there are some; none are at the end, after *timeout* seconds, and from number *before* on.
        """
        with self._changed:
            if before is None:
                self._changed.wait_for(lambda: self.ended or cursor.number < self._next(), timeout)
            missed = 0
            if cursor.number < self._first:
                missed = self._dropped - cursor.passed
                cursor.number, cursor.passed = self._first, self._dropped
            start = cursor.number - self._first + self._gone
            most = _BATCH if before is None else max(0, min(_BATCH, before - cursor.number))
            found, size = [], 0
            for record in self._records[start : start + most]:
                found.append(record)
                size += len(record[2])
                if size >= _BATCH_SIZE:
                    break
        cursor.number += len(found)
        cursor.passed += size
        return found, missed

    def _next(self) -> int:
        return self._first + len(self._records) - self._gone

    @property
    def next(self) -> int:
        """The number of the record that comes next."""
        with self._changed:
            return self._next()

    def kept(self, stream: int) -> bytes:
        """The first bytes of *stream*, at most *limit*."""
        with self._changed:
            head = self._heads[stream].bytes()
            inside = [chunk for _, number, chunk in self._records[self._gone :] if number == stream]
        return b"".join((head, *inside))[: self.limit]  # for which the watcher need not wait

    def is_truncated(self, stream: int) -> bool:
        """Whether *stream* had more than *limit* bytes."""
        return self._totals[stream] > self.limit


class LoggedSink(Sink):
    """One stream of a log, as an exchange fills it."""

    def __init__(self, log: Log, stream: int) -> None:
        self._log = log
        self._stream = stream

    def take(self, chunk: bytes) -> None:
        """Append to the log."""
        self._log.add(self._stream, chunk)

    def bytes(self) -> bytes:
        """What is kept for the result."""
        return self._log.kept(self._stream)

    @property
    def truncated(self) -> bool:  # type: ignore[override]
        """Whether there was more."""
        return self._log.is_truncated(self._stream)


class Cursor:
    """A reader's place in a log. For one thread at a time."""

    __slots__ = ("number", "passed")

    def __init__(self, number: int, passed: int) -> None:
        self.number = number  # of the record that is read next
        self.passed = passed  # bytes of those before

    def copy(self) -> Cursor:
        """One more at the same place."""
        return Cursor(self.number, self.passed)
