"""What the watcher's thread tells, heard in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.aio.threads import Bell
from pycontain.runtime.watch import watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.runtime.log import Log
    from pycontain.runtime.watch import Watched


async def has_ended(watched: Watched, timeout: float | None) -> bool:
    """Whether it ends within *timeout* seconds."""
    if not watched.done.is_set():
        bell = Bell()
        watcher().listen(watched, bell.ring)
        try:
            await bell.heard(timeout)
        finally:
            watcher().unlisten(watched, bell.ring)
    return watched.done.is_set()


async def has_news(log: Log, news: Callable[[], bool], timeout: float | None = None) -> bool:
    """Whether *log* gets something within *timeout* seconds; it has already when *news* says so."""
    bell = Bell()
    log.listen(bell.ring)
    try:
        return news() or await bell.heard(timeout)
    finally:
        log.unlisten(bell.ring)
