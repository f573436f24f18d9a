"""``run_attached``: a container on this process's own standard streams, as a command line has it.

The payload is never given our descriptors, see :mod:`pycontain.process.pump`. What crosses is bytes, and nobody's slowness holds up
signals or a timeout.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from pycontain.errors import CommandTimeout, SandboxError
from pycontain.process.completed import completed_of
from pycontain.process.prepared import Prepared, Run, new_id
from pycontain.process.pump import Pump
from pycontain.process.starting import enter_networks
from pycontain.runtime.exchange import NOTIFY, PROFILE, Exchange, Expired, converse
from pycontain.runtime.failure import failure_of

if TYPE_CHECKING:
    from types import FrameType

    from pycontain.container import Container
    from pycontain.process import Completed
    from pycontain.process.console import Console

_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_NAMES = ("standard input", "standard output", "standard error")


def run_attached(
    container: Container,
    *argv: str,
    stdin: bool = False,
    timeout: float | None = None,
    profile: bool = False,
) -> Completed[bytes]:
    """Run to the end on the descriptors 0, 1 and 2 of this process; the result holds no output, it has passed through.

    With *stdin* the payload reads what we would read, else nothing. A container with a terminal is shown on ours, which is raw
    meanwhile if there is *stdin*, and Ctrl-P Ctrl-Q stops this process as a job of its shell. Called from the main thread, signals that would
    end this process go to the payload instead, except those that are ignored here. *timeout* kills the container and
    raises :class:`CommandTimeout`; *profile* fills ``timings.steps``.
    """
    began = time.monotonic()
    tty = container.spec.tty is not None
    run = Run.parse(input_=b"" if stdin and not tty else None, timeout=timeout, text=False, max_output=0)
    prepared = container._prepare(argv)  # noqa: SLF001 - one more verb of Container, in a module of its own
    options = NOTIFY | (PROFILE if profile else 0)
    ident = new_id()
    wiring = prepared.wiring(ident)
    exchange = Exchange(input_=run.input, limit=0, options=options, counted=prepared.limited, terminal=tty)
    expired = False
    with (
        contextlib.closing(wiring) if wiring is not None else contextlib.nullcontext(),
        _console(exchange, stdin=stdin) if tty else _Pumps(exchange) as streams,
        contextlib.closing(exchange),
        _Signals(exchange) as signals,
    ):
        try:
            _begin(prepared, exchange, ident)
            converse(exchange, run.deadline(began), until=streams.is_ready)
            streams.connect()
            enter_networks(exchange, wiring, run.deadline(began))
            converse(exchange, run.deadline(began), until=lambda: exchange.started is not None)
            signals.let_through()
            converse(exchange, run.deadline(began))
        except Expired:
            expired = True
    error = failure_of(exchange, prepared.plan, prepared.engine) or streams.failure()
    if error is not None:
        raise error
    completed: Completed[bytes] = completed_of(exchange, prepared.argv, began, text=False, timed_out=expired)
    if expired:
        line = " ".join(prepared.argv)
        raise CommandTimeout(f"{line!r} did not end within {timeout:g} s and was killed", result=completed)
    return completed


def _console(exchange: Exchange, *, stdin: bool) -> Console:
    from pycontain.process.console import Console  # noqa: PLC0415 - for who has a terminal

    return Console(exchange, stdin=stdin)


def _begin(prepared: Prepared, exchange: Exchange, ident: str) -> None:
    try:
        exchange.held = prepared.volumes()
        request = prepared.request(ident, exchange.options)
        prepared.engine.request(request, exchange.fds_to_send())
    finally:
        exchange.sent()


class _Pumps:
    """The pumps of one exchange, from its first byte to its last."""

    def __init__(self, exchange: Exchange) -> None:
        self._over = os.eventfd(0)
        feed, exchange.stdin = exchange.stdin, -1
        stdout, stderr = exchange.streams
        exchange.streams.clear()  # they are read here
        self._pumps = [
            Pump(_NAMES[1], stdout, 1, (stdout,), self._over),
            Pump(_NAMES[2], stderr, 2, (stderr,), self._over),
        ]
        if feed >= 0:
            self._pumps.append(Pump(_NAMES[0], 0, feed, (feed,), self._over, owed=False))

    def __enter__(self) -> Self:
        for pump in self._pumps:
            pump.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.eventfd_write(self._over, 1)
        for pump in self._pumps:
            pump.join()
        os.close(self._over)

    def is_ready(self) -> bool:
        """Whether they may be connected: pipes are there from the beginning."""
        return True

    def connect(self) -> None:
        """They carry already."""

    def failure(self) -> SandboxError | None:
        """What went wrong with a stream of ours."""
        return next(filter(None, (pump.failure() for pump in self._pumps)), None)


class _Signals:
    """For the time of a block, what is sent to us goes to the payload; until there is one it is kept."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._kept: list[int] | None = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _FORWARDED:
                # nohup(1), and shells for what they start in the background, have signals ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def let_through(self) -> None:
        """The payload runs: it gets what was kept, and from now on everything at once."""
        kept, self._kept = self._kept or (), None
        for number in kept:
            self._exchange.command("signal", number)

    def _forward(self, number: int, _: FrameType | None) -> None:
        if self._kept is None:
            self._exchange.command("signal", number)
        else:
            self._kept.append(number)
