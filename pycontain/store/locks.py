"""Locks between unrelated processes, which end with their holder and know its name.

A lock is an flock(2) on a file of its own. The kernel lets go of it when the holder ends, however it ends. Who holds
one alone has written into the file who it is; that text serves messages only.
"""

from __future__ import annotations

import fcntl
import math
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import attrs

from pycontain.errors import StoreBusy
from pycontain.interruption import is_interruptible
from pycontain.interruption import pause as pause_for
from pycontain.store.files import read_file, remove_file

if TYPE_CHECKING:
    from types import TracebackType

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds


@attrs.frozen
class Holder:
    """A process: its number, when it started, for numbers are used again, and what it runs."""

    pid: int
    started: int
    program: str

    @classmethod
    def this(cls) -> Self:
        """This process."""
        pid = os.getpid()
        program = os.path.basename(sys.argv[0]) or "python"
        return cls(pid, _start_of(pid), program.replace("\n", " "))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the first line of a lock's file; None when nobody wrote one."""
        pid, _, rest = text.partition("\n")[0].partition(" ")
        started, _, program = rest.partition(" ")
        if not (pid.isdecimal() and started.isdecimal()):
            return None
        return cls(int(pid), int(started), program)

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        try:
            return _start_of(self.pid) == self.started
        except OSError:
            return False

    @property
    def line(self) -> str:
        """The holder as one line of a file, for :meth:`parse`."""
        return f"{self.pid} {self.started} {self.program}\n"

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})"


def _start_of(pid: int) -> int:
    # proc(5), /proc/pid/stat: the 22nd field, in clock ticks since boot; the second may hold spaces and parentheses.
    return int(read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])


@attrs.define(eq=False)
class Lock:
    """A lock that is held. A context manager that lets go of it."""

    path: str
    fd: int

    @classmethod
    def take(
        cls, path: str, *, timeout: float | None = None, shared: bool = False, sign: bool = True
    ) -> Self:
        """Wait for the lock at *path*, for *timeout* seconds or for ever, and hold it.

        *shared* holders exclude the others only. Who holds it alone writes his name into it, unless *sign* is false. :class:`StoreBusy` names the holder when the time is over.
        """
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                _wait(fd, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout)
                if _is_at(fd, path):  # else the holder removed it, and a lock on it excludes nobody
                    if sign and not shared:
                        _sign(fd)
                    return cls(path, fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    @classmethod
    def try_take(cls, path: str, *, sign: bool = True) -> Self | None:
        """Hold the lock at *path* if nobody does; *sign* as above."""
        try:
            return cls.take(path, timeout=0, sign=sign)
        except StoreBusy:
            return None

    def release(self) -> None:
        """Let go of the lock; may be repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove the file and let go: for a lock on something that is no more. Who waits for it starts over."""
        if self.fd >= 0:
            remove_file(self.path)
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _sign(fd: int) -> None:
    with suppress(OSError):  # on a full disk the name is missing in messages, and collecting can make room
        os.pwrite(fd, Holder.this().line.encode(), 0)


def _wait(fd: int, path: str, operation: int, timeout: float | None) -> None:
    if timeout is None and not is_interruptible():
        fcntl.flock(fd, operation)
        return
    deadline, pause = time.monotonic() + (math.inf if timeout is None else timeout), _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if (left := deadline - time.monotonic()) <= 0:
                raise _busy(fd, path, timeout or 0.0) from None
            pause_for(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return


def _busy(fd: int, path: str, timeout: float) -> StoreBusy:
    written = Holder.parse(os.pread(fd, 4096, 0).decode(errors="replace"))
    holder = str(written) if written and written.is_alive else ""
    return StoreBusy(
        f"the store's lock {path} was not free within {timeout:g} s: {holder or 'another process'} holds it",
        path=path,
        holder=holder,
        hint="wait for it to end, or give it more time",
    )


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
