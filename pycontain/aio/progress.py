"""Callbacks of long work, called in the event loop that waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

News = TypeVar("News")


def in_loop(progress: bool | Callable[[News], object]) -> bool | Callable[[News], None]:  # noqa: FBT001 - the public argument's type
    """*progress* for a thread: it is called in the loop that runs now, and what it raises is raised in the thread."""
    if not callable(progress):
        return progress
    loop, call = asyncio.get_running_loop(), progress

    def tell(news: News) -> None:
        told: Future[None] = Future()

        def act() -> None:
            try:
                call(news)
            except BaseException as error:  # noqa: BLE001 - for the thread
                told.set_exception(error)
            else:
                told.set_result(None)

        try:
            loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop is closed, and nobody wants to know
            return
        told.result()

    return tell
