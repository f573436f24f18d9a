"""Lines of what a container prints, for ``async for``."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Self

from pycontain.aio.threads import Bell, in_thread
from pycontain.process.logs import Reader, present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.process.logs import LogLine
    from pycontain.runtime.log import Log

_AT_ONCE = 256  # lines, between which other tasks have their turn


class Lines:
    """An iterator that follows a log. It holds nothing that would have to be closed, and keeps its *owner* alive."""

    def __init__(
        self, owner: object, log: Log, *, follow: bool, since: float | None, tail: int | None
    ) -> None:
        self._owner = owner
        self._log = log
        self._follow = follow
        self._reader = Reader(log)
        self._present: Iterator[LogLine] | None = present(
            self._reader, log.next, follow=follow, since=since, tail=tail
        )
        self._choosing = since is not None or tail is not None
        self._ready: deque[LogLine] = deque()
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._fill()
        return self._ready.popleft()

    async def _fill(self) -> None:
        """Have some more, or find that it is over."""
        if self._present is not None:
            await self._begin(self._present)
            return
        some, self._over = self._reader.some()
        self._ready += some
        if some:
            await asyncio.sleep(0)
        elif not self._over:
            await self._news()

    async def _begin(self, present: Iterator[LogLine]) -> None:
        some: Callable[[], list[LogLine]] = partial(list, islice(present, _AT_ONCE))
        if self._choosing:  # then all that has been printed is looked at, which may be much
            found = await in_thread(some, undo=self._ready.extend)
        else:
            found = some()
            await asyncio.sleep(0)
        self._ready += found
        if not found:
            self._present, self._over = None, not self._follow

    async def _news(self) -> None:
        bell = Bell()
        self._log.listen(bell.ring)
        try:
            if not self._reader.has_news():
                await bell.heard()
        finally:
            self._log.unlisten(bell.ring)
