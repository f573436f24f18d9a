"""Starting a container: to run to its end, or to be left running. What waits is yielded, see :data:`~pycontain.runtime.exchange.Steps`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pycontain.errors import CommandTimeout
from pycontain.process.completed import completed_of, shortened
from pycontain.process.prepared import new_id
from pycontain.runtime.exchange import NOTIFY, PROFILE, Expired, Wait, carry_out
from pycontain.runtime.failure import failure_of
from pycontain.runtime.loading import loading

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.container import Container
    from pycontain.network.wiring import Wiring
    from pycontain.process.completed import Completed
    from pycontain.process.popen import Plumbing, Redirection
    from pycontain.process.prepared import Prepared, Run
    from pycontain.process.running import Running
    from pycontain.runtime.exchange import Exchange, Steps


def run_to_end(prepared: Prepared, run: Run, *, check: bool, began: float) -> Steps[Completed[Any]]:
    """Start, wait, and judge."""
    ident = new_id()
    wiring = prepared.wiring(ident)
    try:
        options = (PROFILE if run.profile else 0) | (0 if wiring is None else NOTIFY)
        exchange = prepared.begin(run, options, ident)
        try:
            completed = yield from conclude(exchange, prepared, run, began, wiring)
        finally:
            exchange.close()
    finally:
        if wiring is not None:
            wiring.close()
    return completed.check() if check else completed


def start(
    container: Container, prepared: Prepared, run: Run, stdin: Redirection, *, began: float
) -> Steps[Running]:
    """Start; the end is when the payload runs, or the error why it does not."""
    with loading:
        from pycontain.process.running import Running  # noqa: PLC0415 - run() does without
        from pycontain.runtime.log import Log  # noqa: PLC0415 - as above

    ident, log = new_id(), Log(run.max_output)
    wiring = prepared.wiring(ident)
    exchange: Exchange | None = None
    streams: Plumbing | None = None
    try:
        streams = None if stdin is None else _input_from(stdin)
        exchange = prepared.begin(run, NOTIFY, ident, log, streams)
        yield from _enter(exchange, wiring, None)
        yield Wait(exchange, None, _begun(exchange))
        error = failure_of(exchange, prepared.plan, prepared.engine)
        if error is not None:
            raise error
    except BaseException:
        for held in (exchange, streams, wiring):
            if held is not None:
                held.close()
        raise
    return Running(container, prepared, exchange, log, streams, ident, began, wiring)


def _begun(exchange: Exchange) -> Callable[[], bool]:
    return lambda: exchange.started is not None and exchange.pidfd >= 0


def _input_from(stdin: Redirection) -> Plumbing:
    with loading:
        from pycontain.process.popen import Plumbing  # noqa: PLC0415 - for those who use it

    return Plumbing.of_input(stdin)


def conclude(
    exchange: Exchange, prepared: Prepared, run: Run, began: float, wiring: Wiring | None = None
) -> Steps[Completed[Any]]:
    """Wait for the end of what was asked for, and say what it has delivered; raise why it never ran, or that its time was up."""
    expired, argv = False, prepared.argv
    try:
        yield from _enter(exchange, wiring, run.deadline(began))
        yield Wait(exchange, run.deadline(began))
    except Expired:
        expired = True
    failure = failure_of(exchange, prepared.plan, prepared.engine)
    if failure is not None:
        raise failure
    completed = completed_of(exchange, argv, began, text=run.text, timed_out=expired)
    if expired:
        error = CommandTimeout(
            f"{shortened(' '.join(argv))} did not end within {run.timeout:g} s and was killed",
            result=completed,
        )
        tail = completed.tail()
        raise error.with_hint(f"it printed last:\n{tail}" if tail else "it had printed nothing")
    return completed


def enter_networks(exchange: Exchange, wiring: Wiring | None, deadline: float | None) -> None:
    """Join the container to what *wiring* holds, as soon as there is a process inside."""
    carry_out(_enter(exchange, wiring, deadline))


def _enter(exchange: Exchange, wiring: Wiring | None, deadline: float | None) -> Steps[None]:
    if wiring is None:
        return
    yield Wait(exchange, deadline, lambda: exchange.pidfd >= 0)
    if not exchange.finished:
        wiring.enter(exchange.pidfd)
