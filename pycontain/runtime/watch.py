"""One thread that attends to everything that was started and not waited for: output is taken as it comes.

So a payload never blocks because nobody reads, and a container's end is known the moment it happens.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING, Any

from pycontain.runtime import engine as engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pycontain.runtime.exchange import Exchange


class Watched:
    """An exchange in the care of the watcher. ``done`` is set when it is finished, after a call of *ended*; ``begun`` when the payload runs."""

    def __init__(self, exchange: Exchange, ended: Callable[[], object] | None) -> None:
        self.exchange = exchange
        self._ended = ended
        self.begun = threading.Event()
        self.done = threading.Event()
        self.registered: dict[int, int] = {}
        self.listeners: list[Callable[[], object]] = []

    def finish(self) -> None:
        """Nothing more comes, and the descriptors are let go of. Safe to repeat."""
        self.exchange.close()
        if self._ended is not None:
            self._ended()
        self.done.set()
        listeners, self.listeners = self.listeners, []
        for tell in listeners:
            tell()


class Watcher:
    """The thread and its epoll(7). Made by the first container that is started, in each process anew."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._lock = threading.RLock()
        self._watched: dict[int, Watched] = {}
        self._thread: threading.Thread | None = None
        engines.abandon_in_fork(self)

    def add(self, exchange: Exchange, ended: Callable[[], object] | None = None) -> Watched:
        """Begin to attend to *exchange*; only the watcher touches its descriptors from now on, and calls *ended* at its end."""
        watched = Watched(exchange, ended)
        with self._lock:
            self._register(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pycontain-watcher", daemon=True)
                self._thread.start()
        return watched

    def release(self, watched: Watched) -> None:
        """Stop attending and close the exchange, which kills what still runs. Safe to repeat."""
        if self is not _watcher:  # in the child of a fork: all was let go there
            return
        with self._lock:
            self._unregister(watched, watched.registered.keys())
            watched.finish()
            watched.begun.set()

    def open_pidfd(self, watched: Watched) -> int:
        """A pidfd of the process of the exchange, which the caller closes; -1 when all is over."""
        with self._lock:
            return -1 if watched.done.is_set() else os.dup(watched.exchange.pidfd)

    def open_layer(self, watched: Watched) -> int:
        """The same of the directory where the container writes, if it told us one; only one in memory is told of."""
        with self._lock:
            layer = -1 if watched.done.is_set() else watched.exchange.layer
            return os.dup(layer) if layer >= 0 else -1

    def open_terminal(self, watched: Watched) -> int:
        """The master of its terminal, which the caller closes; -1 when there is none any more."""
        with self._lock:
            return -1 if watched.exchange.terminal < 0 else os.dup(watched.exchange.terminal)

    def listen(self, watched: Watched, tell: Callable[[], object]) -> None:
        """Have *tell* called once the exchange is finished, at once when it is. It may neither wait nor raise."""
        with self._lock:
            if not watched.done.is_set():
                watched.listeners.append(tell)
                return
        tell()

    def unlisten(self, watched: Watched, tell: Callable[[], object]) -> None:
        """Nobody is to be told any more."""
        with self._lock, contextlib.suppress(ValueError):
            watched.listeners.remove(tell)

    def command(self, watched: Watched, *message: Any) -> None:
        """Send a command through the exchange's channel."""
        with self._lock:
            if not watched.done.is_set():
                watched.exchange.command(*message)

    def signal(self, watched: Watched, number: int) -> None:
        """Send a signal to the command itself."""
        with self._lock:
            if not watched.done.is_set():
                watched.exchange.signal(number)

    def abandon(self) -> None:
        """In the child of a fork: there is no thread, and the descriptors are the parent's."""
        global _watcher  # noqa: PLW0603 - one watcher for one process
        self._poll.close()
        _watcher = None

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                with self._lock:
                    watched = self._watched.get(fd)
                    if watched is not None:
                        self._attend(watched, fd)

    def _attend(self, watched: Watched, fd: int) -> None:
        exchange = watched.exchange
        exchange.attend(fd)
        if exchange.started is not None or exchange.finished:
            watched.begun.set()
        if exchange.finished:
            self._unregister(watched, watched.registered.keys())
            watched.finish()
        else:
            self._register(watched)

    def _register(self, watched: Watched) -> None:
        wanted = watched.exchange.interest()
        self._unregister(watched, watched.registered.keys() - wanted.keys())
        for fd in wanted.keys() - watched.registered.keys():
            self._watched[fd] = watched
            self._poll.register(fd, wanted[fd])
            watched.registered[fd] = wanted[fd]

    def _unregister(self, watched: Watched, fds: Iterable[int]) -> None:
        for fd in list(fds):
            del watched.registered[fd]
            del self._watched[fd]
            with contextlib.suppress(OSError):  # a descriptor that was closed has left epoll(7) by itself
                self._poll.unregister(fd)


_watcher: Watcher | None = None
_making = threading.Lock()


def _forked() -> None:
    global _making  # noqa: PLW0603 - another thread of the parent may have held it
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def watcher() -> Watcher:
    """The watcher of this process."""
    global _watcher  # noqa: PLW0603 - as above
    with _making:
        if _watcher is None:
            _watcher = Watcher()
        return _watcher
