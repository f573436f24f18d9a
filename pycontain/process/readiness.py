"""Waiting until what runs is ready: until something holds, the container has ended, or the time is up."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import attrs

from pycontain.errors import (
    CommandFailed,
    CommandNotExecutable,
    CommandNotFound,
    CommandTimeout,
    ConnectTimeout,
    InvalidSpec,
    NothingListens,
    NotReady,
    PathError,
    PycontainError,
)
from pycontain.process.completed import how_it_ended, shortened
from pycontain.process.logs import Reader

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from pycontain.process import Completed, Running
    from pycontain.process.health import Health, Monitor
    from pycontain.runtime.log import Log

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
PATIENCE = 5.0  # seconds for one attempt
LAST_WORDS = 1.0  # seconds until the end of a container is known to all
_TAIL = 20
STATUS_LINE = 1024  # bytes


class Condition(Protocol):
    """Something to wait for; ``str()`` of it names it in a sentence."""

    def holds(self, running: Running, left: float) -> bool:
        """Whether it does. May wait for *left* seconds, or less."""


@attrs.frozen
class Port:
    """Somebody accepts connections there, seen from inside."""

    port: int | str

    def __str__(self) -> str:
        return f"port {self.port}"

    def holds(self, running: Running, left: float) -> bool:
        """Connect, and let go."""
        try:
            running.connect(self.port, timeout=min(left, PATIENCE) or None).close()
        except (NothingListens, ConnectTimeout):
            return False
        return True


@attrs.frozen
class Http:
    """A server answers *target* with a status below 400, seen from inside."""

    host: str
    port: int | str
    target: str

    def __str__(self) -> str:
        return f"an answer of http://{self.host}:{self.port}{self.target}"

    def holds(self, running: Running, left: float) -> bool:
        """Ask, and read the status line alone: the answer is a stranger's."""
        deadline = time.monotonic() + min(left, PATIENCE)
        answer = b""
        try:
            with running.connect(self.port, self.host, timeout=max(0.01, min(left, PATIENCE))) as connection:
                connection.settimeout(PATIENCE)
                connection.sendall(self.request())
                while b"\n" not in answer and len(answer) < STATUS_LINE:
                    connection.settimeout(max(0.001, deadline - time.monotonic()))
                    chunk = connection.recv(STATUS_LINE)
                    if not chunk:
                        return False
                    answer += chunk
        except (NothingListens, ConnectTimeout):
            return False
        except PycontainError:
            raise
        except OSError:  # it has let go, or takes too long
            return False
        return is_well_answered(answer)

    def request(self) -> bytes:
        """What is asked."""
        head = f"GET {self.target} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nConnection: close\r\n\r\n"
        return head.encode()


def is_well_answered(answer: bytes) -> bool:
    """Whether it begins with a status below 400."""
    return bool(re.match(rb"HTTP/\d\.\d [23]\d\d\b", answer))


class Line:
    """A line that matches was printed, since the start."""

    def __init__(self, log: Log, wanted: str | re.Pattern[str]) -> None:
        self._wanted = wanted
        self.reader = Reader(log)

    def __str__(self) -> str:
        text = self._wanted if isinstance(self._wanted, str) else self._wanted.pattern
        return f"a line with {text!r}"

    def holds(self, running: Running, left: float) -> bool:
        """Look at the lines as they come."""
        del running
        return any(self.matches(line.text) for line in self.reader.for_some_time(left))

    def matches(self, text: str) -> bool:
        """Whether *text* is what is wanted."""
        if isinstance(self._wanted, str):
            return self._wanted in text
        return self._wanted.search(text) is not None


@attrs.frozen
class Path:
    """There is something at the path inside."""

    path: str

    def __str__(self) -> str:
        return f"the file {self.path}"

    def holds(self, running: Running, left: float) -> bool:
        """Look."""
        del left
        return running.files.exists(self.path)


@attrs.frozen
class Command:
    """A command inside exits with 0."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"success of {shortened(' '.join(self.argv))}"

    def holds(self, running: Running, left: float) -> bool:
        """Run it."""
        try:
            return running.exec(*self.argv, timeout=max(left, 0.01)).ok
        except CommandTimeout:
            return False


class Healthy:
    """The health check says that it is well."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def __str__(self) -> str:
        return "health"

    def holds(self, running: Running, left: float) -> bool:
        """Wait for the next verdict; :class:`NotReady` at once when that is no."""
        return self.judge(running, self.monitor.wait_until(lambda health: health.status != "starting", left))

    def judge(self, running: Running, health: Health) -> bool:
        """What *health* says."""
        if health.status == "unhealthy":
            error = NotReady(
                f"{running.name} is unhealthy: {health.failures} probes in a row have failed",
                waited_for="health",
            )
            said = health.last.tail() if health.last is not None else "it could not be executed"
            raise error.with_hint(f"the last probe said:\n{said or 'nothing'}")
        return health.status == "healthy"


def conditions(
    printed: Log,
    *,
    port: int | str | None,
    http: str | None,
    log: str | re.Pattern[str] | None,
    file: str | None,
    command: str | Sequence[str] | None,
    monitor: Monitor | None,
) -> Iterator[Condition]:
    """What the arguments of :meth:`Running.wait_for` ask for, in the order in which it comes true mostly."""
    if log is not None:
        yield Line(printed, log)
    if file is not None:
        yield Path(file)
    if port is not None and http is None:
        yield Port(port)
    if http is not None:
        yield _http(http, port)
    if command is not None:
        yield Command(("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command))
    if monitor is not None:
        yield Healthy(monitor)


def _http(given: str, port: int | str | None) -> Http:
    try:
        url = urlsplit(given)
        path = url.path or "/"
        target = f"{path}?{url.query}" if url.query else path
        if any(not "!" <= letter <= "~" for letter in given):
            raise ValueError
        if url.scheme == "http" and url.hostname:
            return Http(url.hostname, port or url.port or 80, target)
    except ValueError:
        pass
    else:
        if port is not None and not url.scheme and not url.netloc and given.startswith("/"):
            return Http("127.0.0.1", port, target)
    raise InvalidSpec(
        f"http={given!r} is no address that can be asked",
        hint='write "http://localhost:8080/ready", as it is seen from inside, or port=8080 and "/ready"',
    )


def wait_for(
    running: Running, ended: threading.Event, conditions: Sequence[Condition], timeout: float
) -> None:
    """Wait for each of *conditions*; :class:`CommandFailed` when the container ends before, :class:`NotReady` in time."""
    deadline = time.monotonic() + timeout
    for condition in conditions:
        pause = FIRST_PAUSE
        while True:
            over = ended.is_set()
            left = deadline - time.monotonic()
            if _holds(condition, running, ended, max(0.0, left)):
                break
            if over:
                raise ended_before(running, condition)
            if left <= 0:
                raise not_ready(running, condition, timeout)
            ended.wait(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)


def _holds(condition: Condition, running: Running, ended: threading.Event, left: float) -> bool:
    try:
        return condition.holds(running, left)
    except (CommandNotFound, CommandNotExecutable, InvalidSpec, NotReady):
        raise
    except PycontainError as error:
        if ended.wait(LAST_WORDS):  # what runs nowhere cannot be asked
            raise ended_before(running, condition) from error
        if isinstance(error, PathError):
            return False
        raise


def not_ready(running: Running, condition: Condition, timeout: float) -> PycontainError:
    """The error when the time is up."""
    return NotReady(
        f"{running.name} was not ready within {timeout:g} s: there was no {condition}",
        waited_for=str(condition),
    ).with_hint(_printed(running))


def ended_before(running: Running, condition: Condition) -> CommandFailed:
    """The error when it has ended."""
    result: Completed[str] = running.wait()
    sentence = f"{running.name} ended with {how_it_ended(result)} before there was {condition}"
    return CommandFailed(sentence, result=result).with_hint(_printed(running))


def _printed(running: Running) -> str:
    tail = "\n".join(map(str, running.logs(tail=_TAIL)))
    return f"it printed last:\n{tail}" if tail else "it printed nothing"
