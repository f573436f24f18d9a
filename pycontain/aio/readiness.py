"""Waiting until what runs is ready, as :mod:`pycontain.process.readiness` does it for threads: the same conditions, looked at without blocking."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from pycontain.aio.threads import in_thread
from pycontain.aio.watching import has_ended, has_news
from pycontain.errors import (
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
from pycontain.process import readiness
from pycontain.process.readiness import FIRST_PAUSE, LAST_WORDS, LONGEST_PAUSE, PATIENCE, STATUS_LINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycontain.aio.running import Running
    from pycontain.process.readiness import Condition


async def wait_for(running: Running, conditions: Sequence[Condition], timeout: float) -> None:
    """Wait for each of *conditions*; :class:`CommandFailed` when the container ends before, :class:`NotReady` in time."""
    deadline = time.monotonic() + timeout
    watched, blocking = running._running._watched, running._running
    for condition in conditions:
        pause = FIRST_PAUSE
        while True:
            over = watched.done.is_set()
            left = deadline - time.monotonic()
            if await _holds(condition, running, max(0.0, left)):
                break
            if over:
                raise await in_thread(partial(readiness.ended_before, blocking, condition))
            if left <= 0:
                raise readiness.not_ready(blocking, condition, timeout)
            await has_ended(watched, min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)


async def _holds(condition: Condition, running: Running, left: float) -> bool:
    try:
        return await _look(condition, running, left)
    except (CommandNotFound, CommandNotExecutable, InvalidSpec, NotReady):
        raise
    except PycontainError as error:
        if await has_ended(running._running._watched, LAST_WORDS):  # what runs nowhere cannot be asked
            raise await in_thread(partial(readiness.ended_before, running._running, condition)) from error
        if isinstance(error, PathError):
            return False
        raise


async def _look(condition: Condition, running: Running, left: float) -> bool:
    """What ``condition.holds()`` says."""
    match condition:
        case readiness.Port(port):
            return await _accepts(running, port, left)
        case readiness.Http():
            return await _answers(running, condition, left)
        case readiness.Line():
            return await _printed(condition, running, left)
        case readiness.Path(path):
            return await running.files.exists(path)
        case readiness.Command(argv):
            try:
                return (await running.exec(*argv, timeout=max(left, 0.01))).ok
            except CommandTimeout:
                return False
        case readiness.Healthy():
            return await _is_well(condition, running, left)
    raise AssertionError(condition)


async def _accepts(running: Running, port: int | str, left: float) -> bool:
    try:
        (await running.connect(port, timeout=min(left, PATIENCE) or None)).close()
    except (NothingListens, ConnectTimeout):
        return False
    return True


async def _answers(running: Running, wanted: readiness.Http, left: float) -> bool:
    loop, answer = asyncio.get_running_loop(), b""
    try:
        async with asyncio.timeout(max(0.01, min(left, PATIENCE))):
            with await running.connect(wanted.port, wanted.host, timeout=None) as connection:
                await loop.sock_sendall(connection, wanted.request())
                while b"\n" not in answer and len(answer) < STATUS_LINE:
                    chunk = await loop.sock_recv(connection, STATUS_LINE)
                    if not chunk:
                        return False
                    answer += chunk
    except (NothingListens, ConnectTimeout):
        return False
    except PycontainError:
        raise
    except OSError:  # it has let go, or takes too long: a TimeoutError is one
        return False
    return readiness.is_well_answered(answer)


async def _printed(wanted: readiness.Line, running: Running, left: float) -> bool:
    """Look at the lines as they come."""
    deadline, reader, log = time.monotonic() + left, wanted.reader, running._running._log
    while True:
        lines, over = reader.some()
        if any(wanted.matches(line.text) for line in lines):
            return True
        left = deadline - time.monotonic()
        if over or left <= 0:
            return False
        if not lines:
            await has_news(log, reader.has_news, left)
        await asyncio.sleep(0)


async def _is_well(wanted: readiness.Healthy, running: Running, left: float) -> bool:
    monitor, deadline = wanted.monitor, time.monotonic() + left
    pause = FIRST_PAUSE
    while monitor.now.status == "starting" and (left := deadline - time.monotonic()) > 0:
        if await has_ended(running._running._watched, min(pause, left)):
            break
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return wanted.judge(running._running, monitor.now)
