"""Lines of what a container prints: made from the pieces that its log has, in the thread of who reads them."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from itertools import chain, dropwhile
from typing import TYPE_CHECKING, Literal

import attrs

from pycontain.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from pycontain.runtime.log import Log

    Moment: TypeAlias = "float | datetime"

_LONGEST = 1 << 20
_CHARACTER = 4  # bytes of UTF-8


@attrs.frozen
class LogLine:
    r"""One line of what a container printed; ``str()`` of it is its text.

    ``time`` is when its last byte came, in seconds since the epoch. ``end`` is what ended it and is not in ``text``: ``"\n"``,
    ``"\r\n"``, or nothing for what was not ended, because it is the last or longer than 1 MiB; then the rest follows. *missed*
    bytes of both streams had been thrown away before it when it was read, because more was printed than is kept.
    """

    stream: Literal["stdout", "stderr"]
    time: float
    text: str
    end: str = "\n"
    missed: int = 0

    def __str__(self) -> str:
        return self.text


_STREAMS: tuple[Literal["stdout"], Literal["stderr"]] = ("stdout", "stderr")


class Splitter:
    """Bytes, in whatever pieces they come, to ``(line, end)``: joined again they are what came.

    A line of more than *longest* bytes comes in parts, cut between characters where it is UTF-8; all but the last end in nothing.
    """

    def __init__(self, longest: int = _LONGEST) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []  # of the line that is not complete
        self._length = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The lines that *chunk* completes. To be exhausted before the next call."""
        first, *lines = chunk.split(b"\n")
        self._pieces.append(first)
        self._length += len(first)
        if lines:
            *complete, rest = self._take(), *lines
            for line in complete:
                *parts, last = self._parts(line)
                yield from ((part, b"") for part in parts)
                yield (last[:-1], b"\r\n") if last.endswith(b"\r") else (last, b"\n")
            self._pieces, self._length = [rest], len(rest)
        if self._length > self._longest:
            *parts, rest = self._parts(self._take())
            yield from ((part, b"") for part in parts)
            self._pieces, self._length = [rest], len(rest)

    def rest(self) -> bytes:
        """What has come of a line that is not complete; it is forgotten."""
        return self._take()

    def _take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces, self._length = [], 0
        return taken

    def _parts(self, line: bytes) -> list[bytes]:
        """*line* in parts of at most the longest, the last with at least one byte."""
        parts, start = [], 0
        while len(line) - start > self._longest:
            most = start + self._longest
            # Where a character begins, if that is near; else it is no UTF-8.
            places = range(most, max(start, most - _CHARACTER), -1)
            cut = next((place for place in places if line[place] & 0xC0 != 0x80), most)
            parts.append(line[start:cut])
            start = cut
        return [*parts, line[start:]]


class Reader:
    """Lines from a cursor; it has what is incomplete of both streams."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._cursor = log.cursor()
        self._splitters = Splitter(), Splitter()
        self._times = [0.0, 0.0]  # of the last piece
        self._missed = 0

    def until(self, number: int) -> Iterator[LogLine]:
        """The lines that the records before *number* complete."""
        while True:
            records, missed = self._log.read(self._cursor, 0, number)
            yield from self._lines(records, missed)
            if not records:
                return

    def follow(self) -> Iterator[LogLine]:
        """The lines until the container ends, as they come."""
        while True:
            records, missed = self._log.read(self._cursor, None)
            yield from self._lines(records, missed)
            if not records:
                return

    def some(self) -> tuple[list[LogLine], bool]:
        """The lines that some of the next records complete, without waiting, and whether the container has ended and these are the last."""
        ended = self._log.ended
        records, missed = self._log.read(self._cursor, 0)
        lines = list(self._lines(records, missed))
        over = ended and not records
        return [*lines, *self.incomplete()] if over else lines, over

    def has_news(self) -> bool:
        """Whether there is something that was not read, or will be nothing more."""
        return self._log.ended or self._cursor.number < self._log.next

    def for_some_time(self, seconds: float) -> Iterator[LogLine]:
        """The same for at most *seconds*; what is not complete at the container's end is the last of them."""
        deadline = time.monotonic() + seconds
        while True:
            records, missed = self._log.read(self._cursor, max(0.0, deadline - time.monotonic()))
            yield from self._lines(records, missed)
            if not records:
                if self._log.ended:
                    yield from self.incomplete()
                return

    def incomplete(self) -> Iterator[LogLine]:
        """What has come of lines that are not complete."""
        for stream in sorted((0, 1), key=self._times.__getitem__):
            rest = self._splitters[stream].rest()
            if rest:
                yield self._line(stream, self._times[stream], rest, b"")

    def _lines(self, records: list[tuple[float, int, bytes]], missed: int) -> Iterator[LogLine]:
        if missed:
            yield from self.incomplete()
            self._missed += missed
        for moment, stream, chunk in records:
            self._times[stream] = moment
            for line, end in self._splitters[stream].feed(chunk):
                yield self._line(stream, moment, line, end)

    def _line(self, stream: int, moment: float, line: bytes, end: bytes) -> LogLine:
        missed, self._missed = self._missed, 0
        return LogLine(_STREAMS[stream], moment, line.decode(errors="replace"), end.decode(), missed)


def check(since: Moment | None, tail: int | None) -> float | None:
    """The moment in seconds since the epoch; :class:`InvalidSpec` for what is none, and for a tail that is no number."""
    problems = []
    moment = since.timestamp() if isinstance(since, datetime) else since
    if moment is not None and (isinstance(moment, bool) or not isinstance(moment, int | float)):
        problems.append(f"since={since!r} is no moment; write seconds since the epoch, or a datetime")
    if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int) or tail < 0):
        problems.append(f"tail={tail!r} is no number of lines")
    if problems:
        raise InvalidSpec(tuple(problems))
    return moment


def lines_of(
    log: Log, owner: object, *, follow: bool, since: float | None, tail: int | None
) -> Iterator[LogLine]:
    """The lines of *log* that are there now, then those that come; *owner* lives as long as the iterator."""
    return _lines(Reader(log), log.next, owner, follow=follow, since=since, tail=tail)


def present(
    reader: Reader, now: int, *, follow: bool, since: float | None, tail: int | None
) -> Iterator[LogLine]:
    """The lines of the records before *now*; unless others *follow*, with those that are not complete."""
    lines = reader.until(now) if follow else chain(reader.until(now), reader.incomplete())
    if since is not None:
        lines = dropwhile(lambda line: line.time < since, lines)
    yield from lines if tail is None else deque(lines, tail)


def _lines(
    reader: Reader, now: int, _owner: object, *, follow: bool, since: float | None, tail: int | None
) -> Iterator[LogLine]:
    yield from present(reader, now, follow=follow, since=since, tail=tail)
    if follow:
        yield from reader.follow()
        yield from reader.incomplete()
