"""What pytest reports of the containers of a failed test."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pycontain
from pycontain.errors import PycontainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from pycontain import Running
    from pycontain.testing.factory import ContainerFactory

_TAIL = 50  # lines of each container
_PACKAGE = os.path.dirname(pycontain.__file__) + os.sep

# What a payload prints must not drive the terminal of who reads the report: ECMA-48, C0 and C1 but for the tab.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def leave_out_internals(error: BaseException) -> None:
    """Of an error of ours show the lines that led to it, and not how we have found out: its traceback ends at our door."""
    if not isinstance(error, PycontainError):
        return
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = _outside(found.__traceback__)
        found = found.__cause__


def _outside(traceback: TracebackType | None) -> TracebackType | None:
    """*traceback* without its end that is inside of our package."""
    last, entry = None, traceback
    while entry is not None:
        if not entry.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            last = entry
        entry = entry.tb_next
    if last is None:
        return None
    last.tb_next = None
    return traceback


def sections(
    factories: Iterable[ContainerFactory], own: Iterable[ContainerFactory], began: float
) -> Iterator[tuple[str, str]]:
    """A title and the last lines for each container: of the test's *own*, and of others that have printed since it *began*."""
    owned = set(own)
    for factory in factories:
        for running in factory.started:
            since = None if factory in owned else began
            lines = [printable(line.text) for line in running.logs(since=since, tail=_TAIL)]
            if lines or factory in owned:
                yield f"container {running.name}, {running.image}, {_state(running)}", "\n".join(lines)


def _state(running: Running) -> str:
    if running.status != "exited":
        return running.status
    done = running.wait()
    return f"exit code {done.exit_code}" if done.signal is None else f"signal {done.signal}"


def printable(text: str) -> str:
    """*text* without colours, and with its other control characters spelled out."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", _COLOUR.sub("", text))
