"""Start latency when the owner is large: forking it would cost its page tables, and nobody forks it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.measure import compare, grow
from benchmarks.owner import open_owner
from benchmarks.results import Goal, Growth, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from benchmarks.remote import Remote

_SMALL, _MIDDLE, _LARGE = 50, 1000, 4000  # megabytes
_SPARE = 1000


def measure(bench: Bench) -> Iterator[Row | Growth]:
    row = Row("owner size", "owner of 4 GB", "owner of 50 MB", goal=Goal(1.1))
    if _available_megabytes() < _SMALL + _MIDDLE + _LARGE + _SPARE:
        yield Row(row.act, row.ours, row.peer, goal=row.goal, missing="less than 6 GB of memory are free")
        return
    with ExitStack() as stack:
        sizes = (_SMALL, _MIDDLE, _LARGE)
        owners = {
            size: _asking(stack.enter_context(open_owner(bench.rootfs, megabytes=size))) for size in sizes
        }
        yield compare(row, owners[_LARGE], owners[_SMALL], bench.rounds)
        contestants = {size / 1000: owner for size, owner in owners.items()}
        yield grow(Growth("owner size", 'run("true")', "GB of the owner", ()), contestants, bench.rounds)


def _asking(owner: Remote) -> Once:
    return lambda: float(owner.ask("run"))


def _available_megabytes() -> int:
    """proc_meminfo(5)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("MemAvailable:"))
