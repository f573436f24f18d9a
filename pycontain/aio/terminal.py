"""``Terminal`` that is awaited."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Self

from pycontain.aio.streams import Readiness
from pycontain.aio.watching import has_news
from pycontain.process import terminal

if TYPE_CHECKING:
    from types import TracebackType


class Terminal:
    """A session with a terminal inside, as :class:`pycontain.Terminal`; reading and writing are awaited. One task reads at a time."""

    def __init__(self, session: terminal.Terminal) -> None:
        self._session = session
        self._room = Readiness(to_write=True)
        self._reading = False

    def __repr__(self) -> str:
        return repr(self._session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach_now()

    @property
    def missed(self) -> int:
        """How many bytes were thrown away unread."""
        return self._session.missed

    @property
    def closed(self) -> bool:
        """Whether it was detached."""
        return self._session.closed

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._session.size

    async def read(self, size: int = 1 << 16, *, timeout: float | None = None) -> bytes:
        """What was printed, at least one byte and at most *size*, or nothing at the end. After *timeout* seconds :class:`NotReady`."""
        if not self._session._rest and not await self._more(timeout) and not self._session._ended():
            raise terminal._silent(timeout)
        return self._session.read(size, timeout=0)

    async def read_until(self, wanted: str | bytes, *, timeout: float | None = None) -> bytes:
        """All that is printed up to and with *wanted*. :class:`NotReady` after *timeout* seconds; nothing is lost by that, nor by a cancellation.

        :class:`SandboxError` when the payload ends before.
        """
        text = wanted.encode() if isinstance(wanted, str) else bytes(wanted)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._session._rest.find(text) < 0:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not await self._more(left):
                raise self._session._without(wanted, timeout)
        return self._session.read_until(text, timeout=0)

    async def _more(self, timeout: float | None) -> bool:
        """Have more of what was printed; False at the end, and when the time is up."""
        if self._reading:
            raise RuntimeError("another task is reading this terminal already")
        session, deadline = self._session, None if timeout is None else time.monotonic() + timeout
        self._reading = True
        try:
            while not session._more(0):
                left = None if deadline is None else deadline - time.monotonic()
                if session._ended() or (left is not None and left <= 0):
                    return False
                await has_news(session._log, self._has_news, left)
        finally:
            self._reading = False
        await asyncio.sleep(0)  # others have their turn, also when it never pauses
        return True

    def _has_news(self) -> bool:
        return self._session._log.ended or self._session._cursor.number < self._session._log.next

    async def write(self, content: str | bytes, *, timeout: float | None = None) -> None:
        r"""Type *content*: Enter is ``"\r"``, Ctrl-C ``"\x03"``, Ctrl-D ``"\x04"``; as :meth:`pycontain.Terminal.write`."""
        left = memoryview(content.encode() if isinstance(content, str) else bytes(content))
        deadline = None if timeout is None else time.monotonic() + timeout
        while left:
            self._session._require_attached()
            master = self._session._master
            try:
                left = left[os.write(master, left) :]
            except BlockingIOError:
                time_left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not await self._room.wait(master, time_left):
                    raise terminal._full(timeout) from None
            except OSError as error:
                raise terminal._gone(error) from error

    async def resize(self, columns: int, rows: int) -> None:
        """Change the window, of which the program in the foreground is told (SIGWINCH)."""
        self._session.resize(columns, rows)

    async def detach(self) -> None:
        """Let go of it; the payload goes on. Safe to repeat."""
        self._detach_now()

    def _detach_now(self) -> None:
        """The same, for who cannot wait."""
        if not self.closed:
            self._room.close()
            self._session.detach()
