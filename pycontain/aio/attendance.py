"""Commands in the care of an event loop: their channels and streams are among the descriptors that it watches.

So a thousand that run need no thousand threads. What has to be done for a command is what the blocking calls do, the very same
generators (:mod:`pycontain.runtime.exchange`): here each part between two waits is done in a thread, and the loop waits.
"""

from __future__ import annotations

import asyncio
import select
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pycontain.aio.threads import ended, submit
from pycontain.interruption import Interruption
from pycontain.runtime.exchange import LAST_WORDS, Expired, Wait, undying

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.runtime.exchange import Steps

Given = TypeVar("Given")

_IN = select.POLLIN


class _Result:
    """What steps have come to."""

    def __init__(self, value: object) -> None:
        self.value = value


def _go_on(steps: Steps[object], error: BaseException | None) -> Wait | _Result:
    """Do what comes before the next wait; *error* is how the last one has ended."""
    try:
        return next(steps) if error is None else steps.throw(error)
    except StopIteration as end:  # which no future can carry
        return _Result(end.value)


async def carry_out(steps: Steps[Given], undo: Callable[[Given], object] | None = None) -> Given:
    """The result of *steps*. When the caller is cancelled the command is killed, and its end waited for, before he learns it.

    *undo* is given a result that comes too late.
    """
    error: BaseException | None = None
    begun = False
    while True:
        # The first part may pull an image, and can be interrupted; those after it tidy up, and cannot.
        interruption = None if begun else Interruption()
        job = submit(partial(_go_on, steps, error), interruption)
        cancelled = await ended(job, interruption)
        if job.cancelled():
            assert cancelled is not None
            raise cancelled
        begun = True
        if cancelled is not None and job.exception() is not None:
            raise cancelled
        reached = job.result()
        if isinstance(reached, _Result):
            result: Given = reached.value  # type: ignore[assignment] # the steps return nothing else
            if cancelled is None:
                return result
            if undo is not None:
                undo(result)
            raise cancelled
        error = await _Attendance(reached).over(cancelled)


class _Attendance:
    """One wait, as :func:`pycontain.runtime.exchange.converse` does it for a thread."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._exchange = wait.exchange
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._ending: BaseException | None = None  # why it was killed
        self._timer: asyncio.TimerHandle | None = None
        self._registered: dict[int, int] = {}

    async def over(self, cancelled: asyncio.CancelledError | None) -> BaseException | None:
        """Attend until there is nothing more to wait for; how it ended, if not as wished. It is *cancelled* already, maybe."""
        try:
            if self._wait.deadline is not None:
                left = max(0.0, self._wait.deadline - time.monotonic())
                self._timer = self._loop.call_later(left, self._expire)
            if cancelled is not None:
                self._end(cancelled)
            self._look()
            while True:
                try:
                    await self._over
                except asyncio.CancelledError as error:
                    self._over = self._loop.create_future()
                    self._end(error)
                    self._look()
                else:
                    return self._ending
        except BaseException as error:
            self._exchange.command("end")
            if isinstance(error, Exception):
                return error
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._watch({})

    def _end(self, why: BaseException) -> None:
        """Kill it, and go on until it is gone."""
        if self._ending is None:
            self._exchange.command("end")
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(LAST_WORDS, self._give_up)
        if not isinstance(self._ending, asyncio.CancelledError):
            self._ending = why

    def _expire(self) -> None:
        self._end(Expired())

    def _give_up(self) -> None:
        if not self._over.done():
            self._over.set_exception(undying())

    def _look(self) -> None:
        """See what to watch for, or that it is over."""
        exchange, until = self._exchange, self._wait.until
        if exchange.finished or (self._ending is None and until is not None and until()):
            if not self._over.done():
                self._over.set_result(None)
        else:
            self._watch(exchange.interest())

    def _ready(self, fd: int) -> None:
        try:
            if (
                fd == self._exchange.stdin
            ):  # which may be closed now; as a copy of a terminal's it would stay in epoll(7)
                del self._registered[fd]
                self._loop.remove_writer(fd)
            self._exchange.attend(fd)
            self._look()
        except BaseException as error:  # noqa: BLE001 - for who waits
            self._watch({})
            if not self._over.done():
                self._over.set_exception(error)

    def _watch(self, wanted: dict[int, int]) -> None:
        # A descriptor that was closed has left epoll(7) by itself, and the loop forgives that.
        for fd in self._registered.keys() - wanted.keys():
            if self._registered[fd] & _IN:
                self._loop.remove_reader(fd)
            else:
                self._loop.remove_writer(fd)
        for fd in wanted.keys() - self._registered.keys():
            if wanted[fd] & _IN:
                self._loop.add_reader(fd, self._ready, fd)
            else:
                self._loop.add_writer(fd, self._ready, fd)
        self._registered = dict(wanted)
