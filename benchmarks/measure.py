"""Measuring two things against each other: A B A B, never all of A and then all of B.

Whatever disturbs the machine then disturbs both, and each ratio is of two neighbours in time.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, TypeVar

import attrs

from benchmarks.results import Growth, Row, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench
    from benchmarks.results import Goal

    Once = Callable[[], float]  # does it once and returns what it took

Name = TypeVar("Name", bound="Hashable")

_WARM_UP = 3
# What the last act left to be done after it had answered must not fall into the next one's time: we ourselves
# let an init exit and make a spare child then.
PAUSE = 0.02


class Unavailable(Exception):
    """Something cannot be measured here; the text says why."""


@attrs.frozen
class Peer:
    """Somebody to be compared with: *open* gives the act, or raises :class:`Unavailable`."""

    name: str
    open: Callable[[Bench], AbstractContextManager[Once]]
    goal: Goal | None = None


def timed(act: Callable[[], object]) -> Once:
    """*act* as a measurement in milliseconds."""

    def once() -> float:
        began = time.perf_counter()
        act()
        return (time.perf_counter() - began) * 1000

    return once


def in_a_row(once: Once, times: int) -> Once:
    """A measurement of so many without a pause: the mean of what each took."""
    return lambda: statistics.fmean(once() for _ in range(times))


def interleave(
    contestants: Mapping[Name, Once], rounds: int, pause: float = PAUSE
) -> dict[Name, list[float]]:
    """Every contestant once per round, in the same order, each after *pause* seconds; the first rounds do not count."""
    found: dict[Name, list[float]] = {name: [] for name in contestants}
    for number in range(-min(_WARM_UP, rounds), rounds):
        for name, once in contestants.items():
            time.sleep(pause)
            took = once()
            if number >= 0:
                found[name].append(took)
    return found


def compare(row: Row, ours: Once, peer: Once, rounds: int, pause: float = PAUSE) -> Row:
    """Fill *row*: the score is the median of the ratios of the pairs."""
    series = interleave({"ours": ours, "peer": peer}, rounds, pause)
    ratio = statistics.median(
        mine / theirs for mine, theirs in zip(series["ours"], series["peer"], strict=True)
    )
    return attrs.evolve(
        row, ours_spread=Spread.of(series["ours"]), peer_spread=Spread.of(series["peer"]), score=ratio
    )


def against(bench: Bench, row: Row, ours: Once, peer: Peer, rounds: int, pause: float = PAUSE) -> Row:
    """Compare with a *peer* that may not be there."""
    row = attrs.evolve(row, peer=peer.name, goal=peer.goal)
    try:
        with peer.open(bench) as theirs:
            return compare(row, ours, theirs, rounds, pause)
    except Unavailable as reason:
        return attrs.evolve(row, missing=str(reason))


def grow(growth: Growth, contestants: Mapping[float, Once], rounds: int) -> Growth:
    """Fill *growth*: one contestant for each size, interleaved as rivals are."""
    series = interleave(contestants, rounds)
    return attrs.evolve(growth, points=tuple((size, statistics.median(series[size])) for size in contestants))
