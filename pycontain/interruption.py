"""How work that takes long is told, from another thread, that nobody waits for it any more.

Whoever waits has the work done in a thread, below an :class:`Interruption`. The work knows nothing of who that is: where it may wait
for long it says what would end that (:func:`ended_by`), or asks from time to time (:func:`go_on`). In a call that nobody can
interrupt both cost nothing.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Given = TypeVar("Given")


class Interrupted(BaseException):
    """Nobody waits for the result. Not an Exception: what tries again after an error shall not."""


class Interruption:
    """A word to the threads that do one piece of work. It is said once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said = threading.Event()
        self._ends: list[Callable[[], object]] = []

    def interrupt(self) -> None:
        """Nobody waits any more. May be repeated, in any thread; does not wait."""
        with self._lock:
            self._said.set()
            ends, self._ends = self._ends, []
        for end in ends:
            end()

    def carry_out(self, act: Callable[[], Given]) -> Given:
        """Do *act*, which can be interrupted, in this thread."""
        before, _local.current = _current(), self
        try:
            return act()
        finally:
            _local.current = before

    def add(self, end: Callable[[], object]) -> None:
        """Have *end* called by the interruption; :class:`Interrupted` when that was before."""
        with self._lock:
            if self._said.is_set():
                raise Interrupted
            self._ends.append(end)

    def remove(self, end: Callable[[], object]) -> None:
        """No more of that."""
        with self._lock:
            if end in self._ends:
                self._ends.remove(end)

    def check(self) -> None:
        """Raise :class:`Interrupted` when it was said."""
        if self._said.is_set():
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Let time pass; :class:`Interrupted` as soon as it is."""
        if self._said.wait(seconds):
            raise Interrupted


_local = threading.local()


def _current() -> Interruption | None:
    return getattr(_local, "current", None)


def is_interruptible() -> bool:
    """Whether somebody may interrupt what this thread does."""
    return _current() is not None


def go_on() -> None:
    """Raise :class:`Interrupted` when nobody waits for what this thread does."""
    current = _current()
    if current is not None:
        current.check()


def pause(seconds: float) -> None:
    """Let time pass; :class:`Interrupted` as soon as nobody waits."""
    current = _current()
    if current is not None:
        current.wait(seconds)
    elif seconds:
        time.sleep(seconds)


@contextmanager
def ended_by(*ends: Callable[[], object]) -> Iterator[None]:
    """For the time of a block, each of *ends* is called when nobody waits any more, by another thread; it must not wait."""
    current = _current()
    if current is None:
        yield
        return
    for end in ends:
        current.add(end)
    try:
        yield
    finally:
        for end in ends:
            current.remove(end)


def carried(act: Callable[[], Given]) -> Callable[[], Given]:
    """*act* for another thread that does a part of this one's work."""
    current = _current()
    return act if current is None else lambda: current.carry_out(act)
