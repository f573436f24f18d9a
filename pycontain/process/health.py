"""Whether the payload is well, by a command that is run inside again and again: Docker's HEALTHCHECK.

The probes of a container begin when somebody asks, and end with it; each is an ``exec``, and a thread of the container's own waits
for it. Other than Docker's, which are the interval apart from the beginning, the first comes at once and more of them soon until one
succeeds: so who waits for a container does not wait for the next one. They count as failures as far apart as Docker's would.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Literal

import attrs

from pycontain.errors import CommandTimeout, InvalidSpec, PycontainError
from pycontain.oci.config import Healthcheck

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from pycontain.process import Completed, Running

_SECOND = 10**9  # the unit of the document is a nanosecond
_INTERVAL = _TIMEOUT = 30.0  # Docker's, as the number of retries
_SOON = 1.0
_RETRIES = 3
_KEPT = "4K"  # of what a probe prints, as Docker keeps it


@attrs.frozen
class Health:
    """How a container is; ``str()`` of it is its status.

    ``failures`` are the probes in a row that have failed and count, ``last`` is the result of the last probe: a
    :class:`Completed`, also when it took too long.
    """

    status: Literal["none", "starting", "healthy", "unhealthy"]
    failures: int = 0
    last: Completed[str] | None = None

    def __str__(self) -> str:
        return self.status


def healthcheck(
    argv: tuple[str, ...],
    *,
    interval: float | None,
    timeout: float | None,
    retries: int | None,
    start_period: float | None,
    start_interval: float | None,
) -> Healthcheck:
    """The check that the words describe: no command is none, one is a line for the shell, more are executed as they are."""
    times = {
        "interval": interval,
        "timeout": timeout,
        "start_period": start_period,
        "start_interval": start_interval,
    }
    problems = [
        f"{name}={value!r} is no number of seconds" for name, value in times.items() if not _is_time(value)
    ]
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 1):
        problems.append(f"retries={retries!r} is no number of probes")
    problems += [f"{word!r} is no text" for word in argv if not isinstance(word, str) or "\0" in word]
    if problems:
        raise InvalidSpec(tuple(problems))
    kind = ("NONE", "CMD-SHELL")[len(argv)] if len(argv) < 2 else "CMD"
    return Healthcheck(
        (kind, *argv),
        interval=_nanoseconds(interval),
        timeout=_nanoseconds(timeout),
        start_period=_nanoseconds(start_period),
        start_interval=_nanoseconds(start_interval),
        retries=retries or 0,
    )


def _nanoseconds(seconds: float | None) -> int:
    return round((seconds or 0) * _SECOND)


def _is_time(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value < 1 << 31)  # type: ignore[operator]


def command_of(check: Healthcheck | None) -> tuple[str, ...]:
    """The command line of a probe; nothing when there is no check."""
    match check.test if check is not None else ():
        case ("CMD", *argv):
            return tuple(argv)
        case ("CMD-SHELL", line):
            return ("/bin/sh", "-c", line)
        case _:
            return ()


class Monitor:
    """The probes of one container, in a thread. It ends when *ended* is set, or nobody refers to the container any more."""

    def __init__(
        self, running: weakref.ref[Running], ended: threading.Event, check: Healthcheck, began: float
    ) -> None:
        self.now = Health("starting")
        self._running = running
        self._ended = ended
        self._argv = command_of(check)
        self._interval = check.interval / _SECOND or _INTERVAL
        self._timeout = check.timeout / _SECOND or _TIMEOUT
        self._retries = check.retries or _RETRIES
        self._soon = min(check.start_interval / _SECOND or _SOON, self._interval)
        self._counts_from = began + check.start_period / _SECOND
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="pycontain-health", daemon=True).start()

    def wait_until(self, wanted: Callable[[Health], bool], timeout: float) -> Health:
        """The health when it is as *wanted*, or after *timeout* seconds, or when the container has ended."""
        with self._changed:
            self._changed.wait_for(lambda: wanted(self.now) or self._ended.is_set(), timeout)
            return self.now

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                running = self._running()
                if running is None:
                    return
                if running.status == "running":
                    self._probe(running)
                del running
                self._ended.wait(self._soon if self.now.status == "starting" else self._interval)
        finally:
            with self._changed:
                self._changed.notify_all()

    def _probe(self, running: Running) -> None:
        try:
            last = running.exec(*self._argv, timeout=self._timeout, max_output=_KEPT)
        except CommandTimeout as error:
            last = error.result
        except PycontainError:
            if running.status != "running" or self._ended.wait(_SOON):
                return  # it was ending, or was paused meanwhile
            self._judge(None, well=False)  # the command cannot be executed, say
            return
        self._judge(last, well=last.ok)

    def _judge(self, last: Completed[str] | None, *, well: bool) -> None:
        before, moment = self.now, time.monotonic()
        if well:
            now = Health("healthy", 0, last)
        elif before.status == "starting" and moment < self._counts_from:
            now = Health("starting", before.failures, last)
        else:
            failures = before.failures + 1
            now = Health("unhealthy" if failures >= self._retries else before.status, failures, last)
            self._counts_from = moment + self._interval
        with self._changed:
            self.now = now
            self._changed.notify_all()
