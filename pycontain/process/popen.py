"""``Process``: one more command in a container that runs, in the hands of the caller as subprocess.Popen has it.

What differs from there has a reason. The command is given no descriptor of ours: a file or the owner's own streams are at the
other end of a thread that carries the bytes. So ``None`` means the owner's own output, as in subprocess, and for input nothing: to
read ahead of a terminal or a pipe that somebody else reads would take his bytes away. ``kill()`` ends all that the command has
started, since nobody inside needs it any more.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import selectors
import signal as signals
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Generic, Self, TypeVar

import attrs

from pycontain.errors import CommandTimeout, InvalidSpec, SandboxError
from pycontain.kernel.descriptors import pid_of
from pycontain.process.completed import completed_of, shortened
from pycontain.process.prepared import new_id, send
from pycontain.process.pump import Pump
from pycontain.process.signals import parse_signal, signal_number
from pycontain.process.terminal import Terminal
from pycontain.runtime import engine as engines
from pycontain.runtime.exchange import BOUNDED, NOTIFY, STDIN, Exchange, Sink, Wait
from pycontain.runtime.failure import failure_of
from pycontain.runtime.log import Log
from pycontain.runtime.watch import watcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import TypeAlias

    from pycontain.process.completed import Completed
    from pycontain.process.prepared import Prepared
    from pycontain.runtime.exchange import Steps

    Redirection: TypeAlias = "int | IO[Any] | None"
    """PIPE, DEVNULL or STDOUT of :mod:`subprocess`, a descriptor, a file with one, or None."""

Text = TypeVar("Text", str, bytes)

_NAMES = ("standard input", "standard output", "standard error")
_CHUNK = 1 << 15
_KEPT = 1 << 20  # of what a terminal shows


class WaitTimeout(CommandTimeout, subprocess.TimeoutExpired):
    """The command had not ended in time, and goes on. Whoever knows :mod:`subprocess` catches its ``TimeoutExpired``."""

    def __init__(self, message: str, *, result: Completed[Any], timeout: float = 0.0) -> None:
        super().__init__(message, result=result)
        self.cmd = list(result.argv)
        self.timeout = timeout
        self.output = result.stdout or None
        self.stderr = result.stderr or None


@attrs.frozen
class Coding:
    """How bytes and text become each other: UTF-8, what is none becomes U+FFFD, newlines stay."""

    encoding: str = "utf-8"
    errors: str = "replace"

    @classmethod
    def parse(cls, encoding: str | None, errors: str | None) -> Coding:
        """Names that Python knows, or :class:`InvalidSpec`."""
        found = cls(encoding or "utf-8", errors or "replace")
        try:
            codecs.lookup(found.encoding)
            codecs.lookup_error(found.errors)
        except LookupError as error:
            raise InvalidSpec(str(error)) from None
        return found

    def encode(self, text: str) -> bytes:
        """The bytes; nothing of the input is replaced."""
        return text.encode(self.encoding, "strict" if self.errors == "replace" else self.errors)

    def decode(self, content: bytes) -> str:
        """The text."""
        return content.decode(self.encoding, self.errors)

    def reader(self, file: IO[bytes]) -> IO[str]:
        """*file* as text; it is closed with it."""
        return io.TextIOWrapper(file, self.encoding, self.errors, newline="\n")

    def writer(self, file: IO[bytes], *, lines: bool) -> IO[str]:
        """The same to write, with nothing held back, or only up to the end of a line."""
        errors = "strict" if self.errors == "replace" else self.errors
        return io.TextIOWrapper(
            file, self.encoding, errors, newline="\n", line_buffering=lines, write_through=True
        )


def _number_of(given: Redirection, stream: int) -> int:
    """The descriptor that *given* stands for; None is our own *stream*, and -1 that there is none."""
    if given is None:
        return stream
    try:
        fd = given if isinstance(given, int) else given.fileno()
        os.fstat(fd)
    except (OSError, OverflowError, AttributeError, ValueError) as error:
        raise InvalidSpec(f"{given!r} is no open file, PIPE or DEVNULL for {_NAMES[stream]}") from error
    return fd


class Plumbing:
    """The streams of one command: far ends for it, and what is at our ends."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.drained: dict[int, Sink] = {}
        self.pipes = [-1, -1, -1]
        self.has_input = False
        self.pumps: list[Pump] = []
        self._over = -1
        self._carrying = 0
        self._lock = threading.Lock()
        self._open: list[int] = []
        self._planned: list[tuple[int, int, int]] = []  # stream, source, sink

    @classmethod
    def of_input(cls, stdin: Redirection) -> Plumbing:
        """Only standard input; there is no far end when that is nothing."""
        streams = cls()
        with streams.closing_on_failure():
            streams.feed(stdin)
        return streams

    @classmethod
    def of_all(cls, stdin: Redirection, stdout: Redirection, stderr: Redirection) -> Plumbing:
        """Of all three."""
        streams = cls()
        with streams.closing_on_failure():
            streams.feed(stdin)
            streams.take(1, stdout)
            if isinstance(stderr, int) and stderr == subprocess.STDOUT:
                streams.given.append(os.dup(streams.given[-1]))
            else:
                streams.take(2, stderr)
        return streams

    @contextlib.contextmanager
    def closing_on_failure(self) -> Iterator[None]:
        """For the time of a block."""
        try:
            yield
        except OSError as error:
            self.close()
            raise engines.shortage(error) from error
        except BaseException:
            self.close()
            raise

    def _pipe(self) -> tuple[int, int]:
        pair = os.pipe2(os.O_CLOEXEC)
        self._open += pair
        return pair

    def _give(self, fd: int) -> None:
        self._open.remove(fd)
        self.given.append(fd)

    def _dup(self, fd: int) -> int:
        """A copy of a descriptor of somebody's, who may close it any time."""
        copy = os.dup(fd)
        self._open.append(copy)
        return copy

    def feed(self, stdin: Redirection) -> None:
        """Where standard input comes from."""
        if stdin is None or (isinstance(stdin, int) and stdin == subprocess.DEVNULL):
            return
        self.has_input = True
        theirs, ours = self._pipe()
        self._give(theirs)
        if isinstance(stdin, int) and stdin == subprocess.PIPE:
            self.pipes[0] = ours
        else:
            os.set_blocking(ours, False)
            self._planned.append((0, self._dup(_number_of(stdin, 0)), ours))

    def take(self, stream: int, where: Redirection) -> None:
        """Where an output goes."""
        ours, theirs = self._pipe()
        self._give(theirs)
        if isinstance(where, int) and where == subprocess.PIPE:
            self.pipes[stream] = ours
            return
        if isinstance(where, int) and where == subprocess.DEVNULL:
            self._drain(ours)
            return
        try:
            self._planned.append((stream, ours, self._dup(_number_of(where, stream))))
        except OSError:
            if where is not None:
                raise
            self._drain(ours)  # our own is closed

    def _drain(self, ours: int) -> None:
        """What nobody wants is read all the same; /dev/null itself is the host's, and is not handed over."""
        os.set_blocking(ours, False)
        self._open.remove(ours)
        self.drained[ours] = Sink(0)

    def start(self) -> None:
        """Have bytes carried. From now on the pumps own their ends."""
        if not self._planned:
            return
        self._over = os.eventfd(0)
        self._carrying = len(self._planned)
        for stream, source, sink in self._planned:
            self._open.remove(source)
            self._open.remove(sink)
            own, owed = (source, sink), bool(stream)
            self.pumps.append(
                Pump(_NAMES[stream], source, sink, own, self._over, owed=owed, ended=self._pump_ended)
            )
        engines.abandon_in_fork(self)
        for pump in self.pumps:
            pump.start()

    def _pump_ended(self) -> None:
        with self._lock:
            self._carrying -= 1
            if not self._carrying:
                os.close(self._over)
                self._over = -1

    def end(self) -> None:
        """The command has gone: the pumps bring home what is on its way, and end."""
        with self._lock:
            if self._over >= 0:
                os.eventfd_write(self._over, 1)

    def finish(self, timeout: float | None) -> bool:
        """Whether the pumps end in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for pump in self.pumps:
            pump.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(pump.is_alive() for pump in self.pumps)

    def failure(self) -> SandboxError | None:
        """What went wrong with a file of the caller's."""
        return next(filter(None, (pump.failure() for pump in self.pumps)), None)

    def abandon(self) -> None:
        """In the child of a fork there are no pumps, and their ends are the parent's."""
        for fd in (*(fd for pump in self.pumps for fd in pump.own), self._over):
            with contextlib.suppress(OSError):
                os.close(fd)

    def file(self, stream: int, bufsize: int, coding: Coding | None) -> IO[Any] | None:
        """The file at our end of a pipe, which is the caller's; None where there is none."""
        fd = self.pipes[stream]
        if fd < 0:
            return None
        self._open.remove(fd)
        raw: IO[bytes] = open(  # noqa: SIM115 - the caller closes it
            fd, "rb" if stream else "wb", -1 if coding is not None or bufsize == 1 else bufsize
        )
        if coding is None:
            return raw
        return coding.reader(raw) if stream else coding.writer(raw, lines=bufsize == 1)

    def close(self) -> None:
        """Let go of what nobody has taken over, before anything was started."""
        for fd in (*self._open, *self.given, *self.drained):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._open.clear()
        self.given.clear()
        self.drained.clear()


def popen(
    prepared: Prepared, ident: str, streams: Plumbing, coding: Coding | None, bufsize: int
) -> Steps[Process[Any]]:
    """Start a command in the container *ident*; *streams* are no more the caller's."""
    began = time.monotonic()
    options = BOUNDED | NOTIFY | (STDIN if streams.has_input else 0)
    counted = "memory" in prepared.compiled.sandbox.cgroup.controllers
    log = Log(_KEPT) if prepared.has_terminal else None
    try:
        exchange = Exchange(
            input_=None,
            limit=0,
            options=options,
            counted=counted,
            given=streams.given,
            sinks=log.streams if log is not None else None,
            terminal=log is not None,
        )
    except BaseException:
        streams.close()
        raise
    try:
        exchange.streams.update(streams.drained)
        streams.drained = {}
        request = ("exec", ident, new_id(), exchange.options, *prepared.wire())
        send(prepared.engine, request, exchange)
        yield Wait(exchange, None, lambda: exchange.started is not None)
        error = failure_of(exchange, prepared.plan, prepared.engine)
        if error is not None:
            raise error
    except BaseException:
        exchange.close()
        streams.close()
        raise
    return Process(prepared.argv, exchange, log, streams, coding, bufsize, began)


class Process(Generic[Text]):
    """A command in a running container, with the interface of :class:`subprocess.Popen`. Thread-safe.

    ``stdin``, ``stdout`` and ``stderr`` are files for those that are pipes, else None, and ``terminal`` is the session with its
    terminal if it has one; who holds them closes them. As there, what nobody refers to any more goes on; it ends with its
    container.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        exchange: Exchange,
        log: Log | None,
        streams: Plumbing,
        coding: Coding | None,
        bufsize: int,
        began: float,
    ) -> None:
        self.argv = argv
        self.args = list(argv)
        self.pid = pid_of(exchange.pidfd) if exchange.pidfd >= 0 else -1
        self._began = began
        self._coding = coding
        self._streams = streams
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._talk: _Communication | None = None
        self._exchange = exchange
        streams.start()
        self.terminal: Terminal | None = None
        if log is not None:
            self.terminal = Terminal(log, log.cursor(), os.dup(exchange.terminal))
        self._watched = watcher().add(exchange, streams.end if log is None else log.end)
        self.stdin: IO[Text] | None = streams.file(0, bufsize, coding)
        self.stdout: IO[Text] | None = streams.file(1, bufsize, coding)
        self.stderr: IO[Text] | None = streams.file(2, bufsize, coding)

    def __repr__(self) -> str:
        return f"<Process {self.pid} returncode={self.returncode} {shortened(' '.join(self.argv))}>"

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._returncode() if self._settle(0) else None

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; after *timeout* seconds raise :class:`WaitTimeout`, and the command goes on.

        :class:`SandboxError` when a file that was given could not be read or written.
        """
        self._require_owner()
        if not self._settle(timeout):
            raise self._expired(timeout or 0.0)
        error = self._streams.failure()
        if error is not None:
            raise error
        return self._returncode()

    def communicate(self, input: Text | None = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002 - as subprocess
        """Feed *input*, read both streams to their end, wait. After a :class:`WaitTimeout` it may be called again; nothing is lost."""
        self._require_owner()
        with self._lock:
            if self._talk is None:
                content = self._encoded(input)
                self._talk = _Communication(self.stdin, self.stdout, self.stderr, content)
            elif input:
                raise ValueError("communicate() has begun; no more input can be given")
            deadline = None if timeout is None else time.monotonic() + timeout
            complete = self._talk.go_on(deadline)
            out, err = (self._decoded(content) for content in self._talk.delivered())
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not (complete and self._settle(left)):
            raise self._expired(timeout or 0.0, out, err)
        error = self._streams.failure()
        if error is not None:
            raise error
        return out, err

    def send_signal(self, signal: str | int) -> None:
        """Send *signal*, by number or name, to the command itself; SIGKILL ends it as :meth:`kill`. No effect when it has ended."""
        self._require_owner()
        try:
            number = signal_number(parse_signal(signal))
        except ValueError as error:
            raise InvalidSpec(str(error)) from None
        if number == signals.SIGKILL:
            self.kill()
        else:
            watcher().signal(self._watched, number)

    def terminate(self) -> None:
        """Send SIGTERM to the command itself."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """End it, and all that it has started, with SIGKILL. Without effect when it has ended."""
        self._require_owner()
        watcher().command(self._watched, "end")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipes and wait, as subprocess does: a command that does not end by that has to be ended before."""
        try:
            for file in (self.stdout, self.stderr):
                if file is not None:
                    file.close()
        finally:
            if self.terminal is not None:
                self.terminal.detach()
            if self.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self.stdin.close()
            if kind is not KeyboardInterrupt and os.getpid() == self._owner:
                self.wait()

    def _settle(self, timeout: float | None) -> bool:
        """Whether it has ended within *timeout* seconds, and everything that it wrote is where it belongs."""
        began = time.monotonic()
        if not self._watched.done.wait(timeout):
            return False
        return self._streams.finish(
            None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        )

    def _returncode(self) -> int:
        done = self._completed()
        return -done.signal if done.signal is not None else done.exit_code or 0

    def _completed(self) -> Completed[Any]:
        return completed_of(self._exchange, self.argv, self._began, text=self._coding is not None)

    def _expired(self, timeout: float, out: Any = None, err: Any = None) -> WaitTimeout:
        partial = attrs.evolve(
            self._completed(),
            exit_code=None,
            signal=None,
            timed_out=True,
            stdout=out or b"",
            stderr=err or b"",
        )
        line = shortened(" ".join(self.argv))
        return WaitTimeout(f"{line} still runs after {timeout:g} s", result=partial, timeout=timeout)

    def _encoded(self, given: Any) -> bytes:
        if given is None:
            return b""
        if self.stdin is None:
            raise ValueError("there is input, but stdin is no PIPE")
        if isinstance(given, str) != (self._coding is not None):
            wanted = "bytes" if self._coding is None else "str"
            raise TypeError(f"input is not {wanted} but {type(given).__name__}")
        return given if self._coding is None else self._coding.encode(given)

    def _decoded(self, content: bytes | None) -> Any:
        return content if content is None or self._coding is None else self._coding.decode(content)

    def _require_owner(self) -> None:
        if os.getpid() != self._owner:
            raise SandboxError(
                f"the command {self.pid} belongs to process {self._owner}, of which this one is a fork",
                hint="use containers in the process that starts them",
            )


class _Communication:
    """What :meth:`Process.communicate` has left to do: it may be interrupted at any moment, and go on later."""

    def __init__(
        self, stdin: IO[Any] | None, stdout: IO[Any] | None, stderr: IO[Any] | None, content: bytes
    ) -> None:
        self.outputs = (stdout, stderr)
        self.collected = {file: bytearray() for file in self.outputs if file is not None}
        self.reading = [file for file in self.collected if not file.closed]
        self.stdin = stdin if stdin is not None and not stdin.closed else None
        self.input = memoryview(content)
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.flush()
            os.set_blocking(self.stdin.fileno(), False)

    def go_on(self, deadline: float | None) -> bool:
        """Carry bytes until all is done; False when *deadline* comes first."""
        self._close_when_fed()
        while self.reading or self.stdin is not None:
            with selectors.PollSelector() as selector:
                for file in self.reading:
                    selector.register(file, selectors.EVENT_READ)
                if self.stdin is not None:
                    selector.register(self.stdin, selectors.EVENT_WRITE)
                ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
            for key, _ in ready:
                self._attend(key.fileobj)
            if not ready and deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def _attend(self, file: Any) -> None:
        if self.stdin is not None and file is self.stdin:
            try:
                self.input = self.input[os.write(file.fileno(), self.input[:_CHUNK]) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.input = self.input[:0]
            self._close_when_fed()
            return
        chunk = os.read(file.fileno(), _CHUNK)
        if chunk:
            self.collected[file] += chunk
        else:
            file.close()
            self.reading.remove(file)

    def _close_when_fed(self) -> None:
        if self.stdin is not None and not self.input:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
            self.stdin = None

    def delivered(self) -> tuple[bytes | None, bytes | None]:
        """What both streams have brought so far."""
        out, err = (None if file is None else bytes(self.collected[file]) for file in self.outputs)
        return out, err
