"""Carries the bytes of a stream between the container and a descriptor of ours that the payload is never given.

An open file is more than the bytes that come out of it: a directory leads out of the root, ``/proc/self/fd/1`` opens a log
anew for reading, flags are shared with the shell, a terminal can be told to type. So every stream of a payload is a pipe or a
terminal of its own, and where it shall go somewhere else a thread carries it.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from typing import TYPE_CHECKING

from pycontain.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 16  # what a pipe holds, pipe(7)


class Pump(threading.Thread):
    """Carries bytes from *source* to *sink* until one of them ends, then closes its *own* descriptors and calls *ended*.

    When *over* can be read the payload has gone: then nothing more is waited for that comes from it or goes to it. Output is
    *owed* to its reader, however long he takes; input to a payload that has gone is not.
    """

    def __init__(
        self,
        name: str,
        source: int,
        sink: int,
        own: tuple[int, ...],
        over: int,
        *,
        owed: bool = True,
        ended: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(name=f"pycontain {name}", daemon=True)
        self.source = source
        self.sink = sink
        self.own = own
        self.over = over
        self.owed = owed
        self.ended = ended
        self.error: OSError | None = None

    def run(self) -> None:
        """Carry."""
        try:
            while wait_for(self.source, select.POLLIN, self.over):
                chunk = os.read(self.source, _CHUNK)
                if not (chunk and self._write(self.carry(chunk))):
                    break
        except OSError as error:
            # EPIPE: who reads has left, and the payload learns it from its own pipe. EIO: the terminal has gone.
            if error.errno not in {errno.EPIPE, errno.EIO}:
                self.error = error
        finally:
            for fd in self.own:
                os.close(fd)
            if self.ended is not None:
                self.ended()

    def carry(self, chunk: bytes) -> bytes:
        """What of *chunk* is carried."""
        return chunk

    def failure(self) -> SandboxError | None:
        """What went wrong, as an error of ours."""
        if self.error is None:
            return None
        error = SandboxError(f"{self.name.removeprefix('pycontain ')} broke: {self.error.strerror}")
        error.__cause__ = self.error
        return error

    def _write(self, chunk: bytes) -> bool:
        while chunk:
            try:
                chunk = chunk[os.write(self.sink, chunk) :]
            except BlockingIOError:
                if not wait_for(self.sink, select.POLLOUT, *(() if self.owed else (self.over,))):
                    return False
        return True


def wait_for(fd: int, event: int, *over: int) -> bool:
    """Wait for *fd*; False when it is not ready and *over* is."""
    poll = select.poll()
    for other in over:
        poll.register(other, select.POLLIN)
    poll.register(fd, event)
    return any(ready == fd for ready, _ in poll.poll())
