"""The owner's own terminal while a payload's is shown on it: raw, and given back as it was.

Between the two a thread carries bytes, as for other streams: the payload has its own terminal, and never this one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
import tty
from typing import TYPE_CHECKING, Any, Self

from pycontain.process.pump import Pump
from pycontain.process.terminal import resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.errors import SandboxError
    from pycontain.runtime.exchange import Exchange

_ESCAPE, _DETACH = b"\x10", b"\x11"  # Ctrl-P Ctrl-Q, as docker run has them


def window() -> tuple[int, int]:
    """Columns and rows of the terminal that we are on; 80 and 24 where there is none, or it does not know."""
    for fd in (1, 0, 2):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(fd)
            if columns and rows:
                return columns, rows
    return 80, 24


class RawMode:
    """termios(3): the terminal at descriptor 0 passes every key on, until it is given back."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Make it raw. Stops us (SIGTTOU) as long as we are in the background."""
        with self._lock:
            if self._before is None:
                self._before = termios.tcgetattr(0)
                tty.setraw(0, termios.TCSADRAIN)

    def leave(self) -> None:
        """Give it back as it was. Safe to repeat."""
        with self._lock:
            before, self._before = self._before, None
            if before is not None:
                with contextlib.suppress(termios.error):  # it has gone
                    termios.tcsetattr(0, termios.TCSADRAIN, before)


class Keys(Pump):
    """Carries what is typed, and looks for the keys that detach: then the shell gets us as a job that is stopped."""

    def __init__(self, sink: int, over: int, raw: RawMode, attached: Callable[[], None]) -> None:
        super().__init__("standard input", 0, sink, (sink,), over, owed=False)
        self._raw = raw
        self._attached = attached
        self._held = b""  # a Ctrl-P, whose meaning the next key decides

    def carry(self, chunk: bytes) -> bytes:
        """What of *chunk* goes to the payload now."""
        passed, self._held = self._held + chunk, b""
        before, keys, after = passed.partition(_ESCAPE + _DETACH)
        if keys:
            self._write(before)
            self._detach()
            return self.carry(after)
        if passed.endswith(_ESCAPE):
            passed, self._held = passed[:-1], _ESCAPE
        return passed

    def _detach(self) -> None:
        """Stop, as Ctrl-Z does it to other programs; the payload goes on. A shell without jobs cannot have us stopped."""
        self._raw.leave()
        os.write(2, b"\r\ndetached; fg attaches again\r\n")
        # To this thread, and not to the process: it stops before it goes on.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        self._raw.enter()
        self._attached()


class Console:
    """The pumps between the terminal of an exchange and ours, from :meth:`connect` to the end of a block.

    *stdin*: what is typed goes to the payload; our terminal is raw then.
    """

    def __init__(self, exchange: Exchange, *, stdin: bool) -> None:
        self._exchange = exchange
        self._stdin = stdin
        self._raw = RawMode()
        self._over = os.eventfd(0)
        self._pumps: list[Pump] = []
        self._window = -1
        self._before: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.eventfd_write(self._over, 1)
            for pump in self._pumps:
                pump.join()
        finally:
            self._raw.leave()
            if self._before is not None:
                signal.signal(signal.SIGWINCH, self._before)
            if self._window >= 0:
                os.close(self._window)
            os.close(self._over)

    def is_ready(self) -> bool:
        """Whether the payload's terminal is there."""
        return self._exchange.terminal >= 0

    def connect(self) -> None:
        """Take the terminal over and begin to carry."""
        exchange = self._exchange
        if not self.is_ready():  # the start has failed
            return
        master, exchange.terminal = exchange.terminal, -1
        del exchange.streams[master]
        self._window = os.dup(master)
        self._pumps.append(Pump("standard output", master, 1, (master,), self._over))
        if self._stdin:
            self._pumps.append(Keys(os.dup(master), self._over, self._raw, self._resize))
            self._raw.enter()
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGWINCH, self._resize)
            self._resize()  # it may have changed since the plan was made
        for pump in self._pumps:
            pump.start()

    def _resize(self, *_: object) -> None:
        resize(self._window, *window())

    def failure(self) -> SandboxError | None:
        """What went wrong with a stream of ours."""
        return next(filter(None, (pump.failure() for pump in self._pumps)), None)
