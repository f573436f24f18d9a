"""Starts from many threads: the rate, against the same starts one after the other."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.measure import compare, grow
from benchmarks.results import Goal, Growth, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once

_STARTS = 200
_THREADS = (1, 2, 4, 8)
_PATIENCE = 60  # seconds; a start that is lost among others must end the act, not stop it for ever


def measure(bench: Bench) -> Iterator[Row | Growth]:
    row = Row("threads", "200 starts, 8 threads", "one thread", goal=Goal(1.5, 1.9, at_least=True))
    yield compare(
        Row(row.act, row.ours, row.peer, goal=row.goal, unit="starts/s"),
        _rate(bench, 8),
        _rate(bench, 1),
        bench.long_rounds,
    )
    contestants = {float(threads): _rate(bench, threads) for threads in _THREADS}
    yield grow(
        Growth("threads", "200 starts", "threads", (), unit="starts/s"), contestants, bench.long_rounds
    )


def _rate(bench: Bench, threads: int) -> Once:
    container = bench.container()

    def once() -> float:
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(lambda _: container.run("true", check=True, timeout=_PATIENCE), range(_STARTS)))
            return _STARTS / (time.perf_counter() - began)

    return once
