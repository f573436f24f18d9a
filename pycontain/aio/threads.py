"""What blocks for a moment and has no descriptor to wait on, done in threads of ours while the event loop goes on.

They are not the loop's own (``asyncio.to_thread``): those are few, and a program that fills them with long work of its own would
keep every container from starting. A cancelled call is not left behind: one that has not begun never does, and one that has
begun is waited for, and what it made is undone. Work that takes long is told to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from pycontain.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable

Given = TypeVar("Given")

_MOST = 40  # at a time; each is idle nearly always, waiting for the zygote or a disk

_threads: ThreadPoolExecutor | None = None


def _forked() -> None:
    global _threads  # noqa: PLW0603 - the threads are the parent's
    _threads = None


os.register_at_fork(after_in_child=_forked)


def submit(act: Callable[[], Given], interruption: Interruption | None = None) -> Future[Given]:
    """Have *act* done in a thread, with the context variables of here; *interruption* may be said to it."""
    global _threads  # noqa: PLW0603 - one pool for one process
    if _threads is None:
        _threads = ThreadPoolExecutor(_MOST, "pycontain-aio")
    if interruption is not None:
        return _threads.submit(copy_context().run, interruption.carry_out, act)
    return _threads.submit(copy_context().run, act)


async def in_thread(
    act: Callable[[], Given], *, undo: Callable[[Given], object] | None = None, surely: bool = False
) -> Given:
    """What *act* returns or raises, done in a thread.

    When the caller is cancelled, what has not begun never does, unless it is *surely* to be done. What has begun is waited for: work that
    takes long is interrupted, see :mod:`pycontain.interruption`, and *undo* is given what came to its end all the same.
    """
    interruption = None if surely else Interruption()
    job = submit(act, interruption)
    cancelled = await ended(job, interruption)
    if cancelled is None:
        return job.result()
    if undo is not None and not job.cancelled() and job.exception() is None:
        undo(job.result())
    raise cancelled


async def ended(
    job: Future[Given], interruption: Interruption | None = None
) -> asyncio.CancelledError | None:
    """Wait until *job* has ended; the first cancellation that came meanwhile is returned, and told to the job by *interruption*."""
    bell, cancelled = Bell(), None
    job.add_done_callback(bell.ring)
    while not job.done():
        try:
            await bell.heard()
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            if interruption is not None and not job.cancel():
                interruption.interrupt()
    return cancelled


class Bell:
    """Rung in any thread, and heard by one task of the event loop that was running when it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._rung = False

    def ring(self, *_: object) -> None:
        """Wake who hears it, now or as soon as he listens."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody hears it
                self._loop.call_soon_threadsafe(self._wake)

    async def heard(self, timeout: float | None = None) -> bool:
        """Wait until it is rung; False after *timeout* seconds. It may also be heard once more than it was rung."""
        if not self._rung:
            self._waiter = self._loop.create_future()
            timer = None if timeout is None else self._loop.call_later(timeout, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        rung, self._rung = self._rung, False
        return rung

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
