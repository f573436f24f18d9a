"""``exec("true")`` in a running container, against a plain subprocess of the same static binary."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.measure import PAUSE, compare, grow, timed
from benchmarks.owner import open_owner
from benchmarks.results import Goal, Growth, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from benchmarks.remote import Remote

_IDLE = (1, 10, 100)


def measure(bench: Bench) -> Iterator[Row | Growth]:
    with bench.container().start("sleep", "infinity") as running:
        ours = timed(lambda: running.exec("true", check=True))
        for name, pause in (("in turn", 0), ("after 20 ms of rest", PAUSE)):
            row = Row("exec", f'exec("true"), {name}', "subprocess, no walls", goal=Goal(3.0, 2.0))
            yield compare(row, ours, bench.subprocess_true(), bench.rounds, pause)
    with ExitStack() as stack:
        owners = {idle: stack.enter_context(open_owner(bench.rootfs, idle=idle)) for idle in _IDLE}
        contestants = {float(idle): _asking(owner) for idle, owner in owners.items()}
        yield grow(Growth("exec", 'exec("true")', "with running containers", ()), contestants, bench.rounds)


def _asking(owner: Remote) -> Once:
    return lambda: float(owner.ask("exec"))
