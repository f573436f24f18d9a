"""What is left when a command has ended."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from pycontain.errors import CommandFailed
from pycontain.process.signals import signal_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycontain.runtime.exchange import Exchange

Text = TypeVar("Text", str, bytes)

_TAIL_LINES = 20


def shortened(text: str | bytes) -> str:
    """*text* as a repr shows it."""
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}… ({len(text)})"


@attrs.frozen
class Usage:
    """What the command used: seconds of CPU time, a peak of memory, and what went from and to disks, in bytes.

    A container with limits has a control group that counts all of it, as far as its controllers do. Otherwise the peak
    is the largest resident set of one of its processes, and times and bytes are of those that ended before its PID 1.
    """

    cpu_user: float = 0.0
    cpu_system: float = 0.0
    memory_peak: int = 0
    io_read: int = 0
    io_write: int = 0


@attrs.frozen
class Timings:
    """Where the time went, in seconds.

    ``resolve`` finds the image and compiles the plan, ``snapshot`` hands it to the zygote and waits for its turn,
    ``clone`` makes the process and its namespaces, ``setup`` performs the steps, ``run`` is the payload's own time.
    ``steps`` has the seconds of each step of the plan when a profile was asked for.
    """

    resolve: float = 0.0
    snapshot: float = 0.0
    clone: float = 0.0
    setup: float = 0.0
    run: float = 0.0
    steps: tuple[float, ...] = ()


@attrs.frozen
class Completed(Generic[Text]):
    """A command that has ended.

    ``exit_code`` is None when a signal ended it, and ``signal`` is that signal's number. ``duration`` is in seconds, as
    the caller saw it. ``oom_killed``: the kernel killed a process because the container reached its limit on memory (while
    this command ran, which may have been another one); it is counted only where there is a limit. ``truncated``: a stream had more than ``max_output`` bytes and the rest was thrown away.
    """

    argv: tuple[str, ...] = attrs.field(repr=lambda argv: shortened(" ".join(argv)))
    exit_code: int | None
    signal: int | None
    stdout: Text = attrs.field(repr=shortened)
    stderr: Text = attrs.field(repr=shortened)
    duration: float = 0.0
    timed_out: bool = False
    oom_killed: bool = False
    truncated: bool = False
    usage: Usage = attrs.field(factory=Usage, repr=False)
    timings: Timings = attrs.field(factory=Timings, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it exited with code 0."""
        return self.exit_code == 0

    def check(self) -> Completed[Text]:
        """Return self, or raise :class:`CommandFailed` with the end of what it printed."""
        if self.ok:
            return self
        line = shortened(" ".join(self.argv))
        error = CommandFailed(f"{line} ended with {how_it_ended(self)}", result=self)
        tail = self.tail()
        raise error.with_hint(f"it printed last:\n{tail}" if tail else "it printed nothing")

    def tail(self) -> str:
        """The last lines of standard error, or of standard output when that is empty."""
        printed = self.stderr or self.stdout
        text = printed if isinstance(printed, str) else printed.decode(errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def _repr_html_(self) -> str:
        from pycontain.jupyter.html import completed_html  # noqa: PLC0415 - only a notebook asks

        return completed_html(self)


def how_it_ended(done: Completed[Any]) -> str:
    """For a sentence."""
    return f"exit code {done.exit_code}" if done.signal is None else f"signal {signal_name(done.signal)}"


def completed_of(
    exchange: Exchange, argv: tuple[str, ...], began: float, *, text: bool, timed_out: bool = False
) -> Completed[Any]:
    """What an exchange that is finished, or was cut short, has delivered."""
    gone = exchange.gone or (0, 0.0, 0.0, 0, 0, 0)
    # An init reports its payload's status and usage; without one, or when it was killed, the zygote's view counts.
    status, *used, started, ended, times = exchange.result or (*gone, exchange.started, None, ())
    exit_code, signal = wait_status(status)
    taken, begun, *steps = times or (exchange.began, exchange.began)
    ended = ended or exchange.ended or time.monotonic()
    started = started or begun
    return Completed(
        argv=argv,
        exit_code=exit_code,
        signal=signal,
        stdout=_decoded(exchange.stdout.bytes(), text=text),
        stderr=_decoded(exchange.stderr.bytes(), text=text),
        duration=time.monotonic() - began,
        timed_out=timed_out,
        oom_killed=exchange.usage.get("oom_kills", 0) > 0,
        truncated=exchange.stdout.truncated or exchange.stderr.truncated,
        usage=_usage(exchange.usage, *used),
        timings=Timings(
            resolve=exchange.began - began,
            snapshot=taken - exchange.began,
            clone=begun - taken,
            setup=max(0.0, started - begun),
            run=max(0.0, ended - started),
            steps=tuple(after - before for before, after in pairwise((begun, *steps))),
        ),
    )


def _usage(
    counted: Mapping[str, float], user: float, system: float, peak: int, read: int, written: int
) -> Usage:
    """From getrusage(2), whose peak is in kB and whose blocks are of 512 bytes, and from what a group has counted."""
    return Usage(
        counted.get("cpu_user", user),
        counted.get("cpu_system", system),
        int(counted.get("memory_peak", peak << 10)),
        int(counted.get("io_read", read << 9)),
        int(counted.get("io_write", written << 9)),
    )


def _decoded(content: bytes, *, text: bool) -> str | bytes:
    return content.decode(errors="replace") if text else content


def wait_status(status: int) -> tuple[int | None, int | None]:
    """``(exit_code, signal)`` from a status of wait(2); one of them is None."""
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (None, -code)
