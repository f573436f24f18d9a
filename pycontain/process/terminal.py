"""``Terminal``: the other side of a payload's terminal, pty(7).

The terminal is made inside, of the container's own devpts, and the owner has its master. A payload never has the owner's terminal,
into which it could type (TIOCSTI). What it prints is its own: who shows it on a terminal gives it the power of that terminal's
escape sequences, as with every program that runs there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
import threading
import time
import weakref
from typing import TYPE_CHECKING, Self

from pycontain.errors import InvalidSpec, NotReady, SandboxError
from pycontain.runtime import engine as engines

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pycontain.runtime.log import Cursor, Log

_TAIL = 2000


class Terminal:
    """A session with a terminal inside: a context manager that detaches. Thread-safe; one thread reads at a time.

    *master* is -1 when the payload has ended: then it can only be read. Nothing that the payload prints waits for a reader; who falls behind by more than is kept has it counted in ``missed``.
    """

    def __init__(
        self,
        log: Log,
        cursor: Cursor,
        master: int,
        rest: bytes = b"",
        detached: Callable[[Cursor, bytes], None] | None = None,
    ) -> None:
        self.missed = 0
        self._log = log
        self._cursor = cursor
        self._rest = rest
        self._master = master
        self._detached = detached
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._close = weakref.finalize(self, os.close, master) if master >= 0 else weakref.finalize(self, int)
        self._close.atexit = False
        engines.abandon_in_fork(self)

    def __repr__(self) -> str:
        return f"<Terminal {'detached' if self.closed else 'attached'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    @property
    def closed(self) -> bool:
        """Whether it was detached."""
        return not self._close.alive

    def read(self, size: int = 1 << 16, *, timeout: float | None = None) -> bytes:
        """What was printed, at least one byte and at most *size*, or nothing at the end. After *timeout* seconds :class:`NotReady`."""
        with self._reading:
            if not self._rest and not self._more(timeout):
                if self._ended():
                    return b""
                raise _silent(timeout)
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken

    def read_until(self, wanted: str | bytes, *, timeout: float | None = None) -> bytes:
        """All that is printed up to and with *wanted*. :class:`NotReady` after *timeout* seconds, and then nothing is lost.

        :class:`SandboxError` when the payload ends before.
        """
        text = wanted.encode() if isinstance(wanted, str) else bytes(wanted)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while (place := self._rest.find(text)) < 0:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._more(left):
                    raise self._without(wanted, timeout)
            end = place + len(text)
            taken, self._rest = self._rest[:end], self._rest[end:]
            return taken

    def _more(self, timeout: float | None) -> bool:
        records, missed = self._log.read(self._cursor, timeout)
        self.missed += missed
        self._rest += b"".join(chunk for _, _, chunk in records)
        return bool(records)

    def _without(self, wanted: str | bytes, timeout: float | None) -> SandboxError:
        what = f"{wanted!r} on the terminal"
        printed = self._rest[-_TAIL:].decode(errors="replace") or "nothing"
        if self._ended():
            error = SandboxError(f"the payload ended before there was {what}")
        else:
            error = NotReady(f"there was no {what} within {timeout:g} s", waited_for=what)
        return error.with_hint(f"it printed last:\n{printed}")

    def _ended(self) -> bool:
        return self._log.ended and self._cursor.number >= self._log.next

    def write(self, content: str | bytes, *, timeout: float | None = None) -> None:
        r"""Type *content*: Enter is ``"\r"``, Ctrl-C ``"\x03"``, Ctrl-D ``"\x04"``.

        A terminal holds some thousand bytes; more waits until the payload has read, and after *timeout* seconds is
        :class:`NotReady`, with a part of it typed. :class:`SandboxError` when the payload has ended.
        """
        left = memoryview(content.encode() if isinstance(content, str) else bytes(content))
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._writing:
            while left:
                self._require_attached()
                try:
                    left = left[os.write(self._master, left) :]
                except BlockingIOError:
                    if not self._has_room(deadline):
                        raise _full(timeout) from None
                except OSError as error:
                    raise _gone(error) from error

    def _has_room(self, deadline: float | None) -> bool:
        poll = select.poll()
        poll.register(self._master, select.POLLOUT)
        return bool(poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000))

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        self._require_attached()
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(self._master, termios.TIOCGWINSZ, bytes(8)))
        return columns, rows

    def resize(self, columns: int, rows: int) -> None:
        """Change the window, of which the program in the foreground is told (SIGWINCH)."""
        self._require_attached()
        resize(self._master, columns, rows)

    def detach(self) -> None:
        """Let go of it; the payload goes on. Safe to repeat."""
        if self._close.alive:
            self._close()
            if self._detached is not None:
                self._detached(self._cursor, self._rest)

    def abandon(self) -> None:
        """In the child of a fork: it is the parent's."""
        self._close()

    def _require_attached(self) -> None:
        if self.closed:
            raise SandboxError("this terminal was detached", hint="attach() gives another one")
        if self._master < 0:
            raise SandboxError("the payload has ended", hint="what it printed can still be read")


def _silent(timeout: float | None) -> NotReady:
    return NotReady(f"nothing was printed within {timeout:g} s", waited_for="output of the terminal")


def _full(timeout: float | None) -> NotReady:
    return NotReady(
        f"the payload did not read what was typed within {timeout:g} s", waited_for="room in the terminal"
    )


def _gone(error: OSError) -> Exception:
    if error.errno != errno.EIO:
        return error
    return SandboxError("the payload has closed its terminal, or ended")


def resize(master: int, columns: int, rows: int) -> None:
    """ioctl_tty(2), TIOCSWINSZ."""
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    except struct.error:
        raise InvalidSpec(f"{columns!r} and {rows!r} are no columns and rows of a window") from None
