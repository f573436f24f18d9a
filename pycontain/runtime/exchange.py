"""One command that runs: its streams and its channel, read until it is gone.

An :class:`Exchange` does no waiting itself. :func:`converse` waits for one in the calling thread, which is what
``run`` and ``exec`` need; :mod:`pycontain.runtime.watch` waits for all that were started, in one thread.

What has to be done for a command before, between and after its waits is a generator of :class:`Wait`: :func:`carry_out` does it
in the calling thread, and an event loop may do the waiting instead.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pycontain.kernel import descriptors
from pycontain.runtime import engine as engines

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeAlias

Given = TypeVar("Given")

_CHUNK = 1 << 16
LAST_WORDS = 10.0  # how long a killed container may take to be gone before that is an error of the host
_IN, _OUT = select.POLLIN | select.POLLHUP | select.POLLERR, select.POLLOUT | select.POLLHUP | select.POLLERR

# Bits of a request's options, as pycontain.runtime.zygote reads them: BOUNDED is a command that has a timeout.
STDIN, NOTIFY, PROFILE, BOUNDED, TERMINAL, KEEP = 1, 2, 4, 8, 16, 32


class Sink:
    """What a stream delivered: at most *limit* bytes of it, and whether there was more."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.truncated = False
        # One piece: a payload that writes single bytes must not cost forty times as many.
        self._kept = bytearray()

    def take(self, chunk: bytes) -> None:
        """Keep what fits."""
        room = self.limit - len(self._kept)
        if len(chunk) > room:
            self.truncated = True
            chunk = chunk[:room]
        self._kept += chunk

    def bytes(self) -> bytes:
        """All that was kept."""
        return bytes(self._kept)


class Held(Protocol):
    """Something that a container needs, and nobody after it."""

    def release(self) -> None:
        """Let go of it; may be repeated."""


class Exchange:
    """The owner's ends of one command: channel, standard input, output and error.

    *counted*: there is a control group, and what it counted comes with the last word and is waited for. *given* are the far
    ends of streams whose near ends are somebody else's: then it has none itself; *feed* is the
    far end of standard input alone. *sinks* take what the streams deliver, instead of keeping *limit* bytes of each. With a
    *terminal* the one stream is that, which the child makes and hands over; input ends there with the character for it.
    """

    def __init__(
        self,
        *,
        input_: bytes | None,
        limit: int,
        options: int = 0,
        counted: bool = False,
        given: list[int] | None = None,
        feed: int = -1,
        sinks: tuple[Sink, Sink] | None = None,
        terminal: bool = False,
    ) -> None:
        self.streams: dict[int, Sink] = {}
        self.stdin = self.pidfd = self.layer = -1
        self.terminal = -1  # the master
        self._slave = -1  # as long as it is open, who closes a terminal inside may open it again
        self._input = memoryview(input_ or b"")
        self.stdout, self.stderr = sinks or (Sink(limit), Sink(limit))
        self.options = options
        self._fed = False  # whether a terminal is
        self._counted = counted
        self.usage: dict[str, int | float] = {}  # what the control group counted
        self.held: tuple[Held, ...] = ()  # what is the container's until it has ended
        self._given: list[int] = given or []
        if feed >= 0:
            self._given.append(feed)
            self.options |= STDIN
        try:
            self.channel, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            for fd in self._given:
                os.close(fd)
            raise engines.shortage(error) from error
        try:
            if terminal:
                self.options |= TERMINAL
                self._fed = input_ is not None
            elif given is None:
                self._open_streams(wants_input=input_ is not None)
        except OSError as error:
            self.close()
            raise engines.shortage(error) from error
        self.began = time.monotonic()
        self.started: float | None = None
        self.restarts = 0
        self.result: tuple[Any, ...] | None = None
        self.gone: tuple[Any, ...] | None = None
        self.failed: tuple[Any, ...] | None = None
        self.no_folder: tuple[Any, ...] | None = None
        self.unsupported: tuple[str, ...] | None = None
        self.unusable: tuple[Any, ...] | None = None
        self.broken = ""
        self.lost = False  # whether the channel ended without a word
        self.finished = False  # whether nothing more will come
        self.ended = 0.0
        engines.abandon_in_fork(self)

    def _open_streams(self, *, wants_input: bool) -> None:
        if wants_input:
            theirs, self.stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.stdin, False)
            self._given.append(theirs)
            self.options |= STDIN
        for sink in (self.stdout, self.stderr):
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self.streams[ours] = sink
            self._given.append(theirs)

    def fds_to_send(self) -> tuple[int, ...]:
        """The far ends, as a request carries them: the channel first."""
        return (self._far.fileno(), *self._given)

    def sent(self) -> None:
        """Close the far ends: the zygote and the child have them."""
        self._far.close()
        for fd in self._given:
            os.close(fd)
        self._given.clear()

    def interest(self) -> dict[int, int]:
        """What to wait for, by descriptor."""
        wanted = dict.fromkeys(self.streams, _IN)
        if not self.finished:
            wanted[self.channel.fileno()] = _IN
        if self.stdin >= 0:
            wanted[self.stdin] = _OUT
        return wanted

    def attend(self, fd: int) -> None:
        """Do what *fd* is ready for. It may be taken out of :meth:`interest` by that."""
        if fd in self.streams:
            self._read(fd)
        elif fd == self.stdin:
            self._feed()
        else:
            self._listen()

    def _read(self, fd: int) -> bool:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            chunk = b""  # so the master of a terminal says that nobody has it open
        if chunk:
            self.streams[fd].take(chunk)
            return True
        del self.streams[fd]
        if fd != self.terminal:  # which sessions may still ask for
            os.close(fd)
        return False

    def _feed(self) -> None:
        try:
            written = os.write(self.stdin, self._input[:_CHUNK])
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EIO}:
                raise
            written = len(self._input)  # the payload reads no more: as in subprocess, not an error
        self._input = self._input[written:]
        if not self._input:
            os.close(self.stdin)
            self.stdin = -1

    def _listen(self) -> None:
        try:
            packet, fds, _ = descriptors.receive(self.channel, _CHUNK, 2, socket.MSG_DONTWAIT)
        except BlockingIOError:  # what epoll(7) has told was of an earlier descriptor of this number
            return
        except ConnectionResetError:
            packet, fds = b"", []
        if not packet:
            if self.gone is None:  # the zygote died, and with it everything, or never got our end
                self.gone = (signal.SIGKILL, 0.0, 0.0, 0, 0, 0)
                self.lost = True
            self._finish()
            return
        kind, *content = marshal.loads(packet)
        if kind == "terminal":
            self._take_terminal(fds)
        elif kind == "layer" and fds:
            self.layer = fds[0]
        elif fds:
            self.pidfd = fds[0]
        self._hear(kind, *content)

    def _take_terminal(self, fds: list[int]) -> None:
        """Its master and its slave come, unless we have no descriptor left for them."""
        *_, self.terminal, self._slave = (-1, -1, *fds)
        if len(fds) < 2:
            raise engines.shortage(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        os.set_blocking(self.terminal, False)
        self.streams[self.terminal] = self.stdout
        if self._fed:
            # termios(3): VEOF ends what was typed; after a part of a line the first one only hands that over.
            end = b"\4" if self._input[-1:] in {b"", b"\n"} else b"\4\4"
            self._input = memoryview(bytes(self._input) + end)
            try:
                self.stdin = os.dup(self.terminal)
            except OSError as error:
                raise engines.shortage(error) from error

    def _hear(self, kind: str, *content: Any) -> None:
        match kind:
            case "started":
                (self.started,) = content
            case "restarted":
                (self.restarts,) = content
            case "failed" | "unusable" | "unsupported":
                setattr(self, kind, content)
            case "no folder":
                self.no_folder = content
            case "broken":
                (self.broken,) = content
            case "result":
                alone, *result = content
                self.result = tuple(result)
            case "gone":
                *gone, self.usage = content
                self.gone = tuple(gone)
        # After a result without others all that is left is our own init, on its way out. The init may say so before the zygote
        # has come to say which process it is.
        last = {"failed", "no folder", "unsupported", "unusable", "broken", "gone"}
        told = self.pidfd >= 0 or not self.options & NOTIFY
        if kind in last or (kind == "result" and alone and told and not self._counted):
            self._finish()

    def _finish(self) -> None:
        """Take what the pipes still hold. Nobody of the command is left; who else writes is not waited for."""
        self.finished = True
        self.ended = time.monotonic()
        for fd in list(self.streams):
            while self._read(fd):
                pass

    def command(self, *message: Any) -> None:
        """Send a command to the zygote: ``"signal", N`` or ``"end"``. Without effect when all is over."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send(marshal.dumps(message))

    def signal(self, number: int) -> None:
        """Send a signal to the process of the pidfd that we have, or leave it to the zygote."""
        if self.pidfd < 0:
            self.command("signal", number)
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Let go of everything; a container that still runs is killed by that. Safe to repeat."""
        self.channel.close()
        self._far.close()
        own = (self.stdin, self.pidfd, self.layer, self.terminal, self._slave)
        for fd in {*self.streams, *self._given, *own}:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.streams.clear()
        self._given.clear()
        self.stdin = self.pidfd = self.layer = self.terminal = self._slave = -1
        for held in self.held:
            held.release()

    def abandon(self) -> None:
        """The same, in the child of a fork: the parent's container lives on."""
        self.close()


class Expired(Exception):
    """The time is up and the command has been killed."""


def converse(exchange: Exchange, deadline: float | None, until: Callable[[], bool] | None = None) -> None:
    """Attend to *exchange* until it is finished, or *until* says that it is enough, in this thread.

    At *deadline* (of time.monotonic) the command is killed and :class:`Expired` raised once it is gone. An exception
    from a signal handler, such as KeyboardInterrupt, kills the command as well and goes on.
    """
    poll = select.poll()
    registered: dict[int, int] = {}
    expired = False
    try:
        while not (exchange.finished or (until is not None and until())):
            _register(poll, registered, exchange.interest())
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
            ready = poll.poll(timeout)
            for fd, _ in ready:
                exchange.attend(fd)
            if not ready and not exchange.finished:
                if expired:
                    raise undying()
                expired, deadline = True, time.monotonic() + LAST_WORDS
                exchange.command("end")
    except BaseException:
        exchange.command("end")
        raise
    if expired:
        raise Expired


def undying() -> OSError:
    """What was killed is still there."""
    return OSError(errno.EBUSY, "the container does not end although it was killed")


class Wait:
    """What is to be waited for, with the arguments of :func:`converse`."""

    __slots__ = ("deadline", "exchange", "until")

    def __init__(
        self, exchange: Exchange, deadline: float | None = None, until: Callable[[], bool] | None = None
    ) -> None:
        self.exchange = exchange
        self.deadline = deadline
        self.until = until


if TYPE_CHECKING:
    Steps: TypeAlias = Generator[Wait, None, Given]
    """What is done for a command; it stands still at each wait, and is told of the error when that ends with one."""


def carry_out(steps: Steps[Given]) -> Given:
    """The result of *steps*, all of whose waiting is done in this thread."""
    try:
        wait = next(steps)
        while True:
            try:
                converse(wait.exchange, wait.deadline, wait.until)
            except BaseException as error:  # noqa: BLE001 - the steps let it through when they have tidied up
                wait = steps.throw(error)
            else:
                wait = next(steps)
    except StopIteration as end:
        result: Given = end.value
        return result


def _register(poll: select.poll, registered: dict[int, int], wanted: dict[int, int]) -> None:
    if registered == wanted:
        return
    for fd in registered.keys() - wanted.keys():
        with contextlib.suppress(KeyError):
            poll.unregister(fd)
    for fd in wanted.keys() - registered.keys():
        poll.register(fd, wanted[fd])
    registered.clear()
    registered.update(wanted)
