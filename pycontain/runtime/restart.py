"""The init of a container whose payload is started again when it ends.

It is the same container: its files, its mounts, its network, its streams, its terminal and its number stay. Whoever the payload has
left behind is ended first, as far as the init may, which is the payload's user as well.

Imported by a child before it leaves the host's files.
"""

from __future__ import annotations

import os
import signal
import time

from pycontain.runtime import supervise

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable

_ALL = signal.valid_signals()
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 60.0  # seconds, as Docker's
_LONG_ENOUGH = 10.0  # a payload that ran so long begins anew with the first pause
_A_MOMENT = 1.0  # for those who were killed
_CANNOT_EXECUTE = 126 << 8  # as a wait status


class Keeper:
    """When to start it again: *always* or only after a failure, at most *most* times (-1: any), until *stop* comes from outside."""

    def __init__(self, always: bool, most: int, stop: int) -> None:  # noqa: FBT001 - as the step says
        self._always = always
        self._most = most
        self._stop = stop
        self._asked = False  # to stop

    def stay(self, payload: int, spawn: Callable[[], int]) -> tuple[int, bool]:
        """As the init does, with each payload that *spawn* starts; the wait status of the last one, and whether it is alone."""
        count, pause = 0, _FIRST_PAUSE
        while True:
            began = time.monotonic()
            status, alone = self._stay(payload) if payload else (_CANNOT_EXECUTE, True)
            if self._asked or not (status or self._always) or count == self._most:
                return status, alone
            if time.monotonic() - began >= _LONG_ENOUGH:
                pause = _FIRST_PAUSE
            _end_others()
            if self._is_stopped_within(pause):
                return status, True
            pause = min(pause * 2, _LONGEST_PAUSE)
            count += 1
            supervise.report("restarted", count)
            try:
                payload = spawn()
            except supervise.CommandUnusable:  # the payload has removed itself, say
                payload = 0

    def _stay(self, payload: int) -> tuple[int, bool]:
        while True:
            received = signal.sigwaitinfo(_ALL)
            if received.si_signo == signal.SIGCHLD:
                status, alone = supervise.reap(payload)
                if status is not None:
                    return status, alone
            else:
                self._listen(received)
                try:
                    os.kill(payload, received.si_signo)
                except ProcessLookupError:
                    continue  # its SIGCHLD is on the way

    def _listen(self, received: signal.struct_siginfo) -> None:
        # Who is outside of our PID namespace has no number in it.
        self._asked = self._asked or (received.si_signo == self._stop and received.si_pid == 0)

    def _is_stopped_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._asked and (left := deadline - time.monotonic()) > 0:
            received = signal.sigtimedwait(_ALL, left)
            if received is not None and received.si_signo == signal.SIGCHLD:
                supervise.reap(0)
            elif received is not None:
                self._listen(received)
        return self._asked


def _end_others() -> None:
    """SIGKILL everybody else here, and reap who is ours; who does not end, or is not ours to kill, stays."""
    deadline = time.monotonic() + _A_MOMENT
    alone = False
    while not alone and time.monotonic() < deadline:
        try:
            os.kill(-1, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # there is nobody, or nobody whom we may
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
        _, alone = supervise.reap(0)
