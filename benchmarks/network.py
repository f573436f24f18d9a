"""What a network costs a start, and what a published port carries; see :mod:`benchmarks.network_world`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measure import compare
from benchmarks.network_world import MEGABYTES, open_world
from benchmarks.results import Goal, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench


def measure(bench: Bench) -> Iterator[Row]:
    with open_world(bench.rootfs) as world:
        row = Row("network", 'run("true") with network("private")', "with none", goal=Goal(2.5, 1.5))
        yield compare(
            row, lambda: float(world.ask("private")), lambda: float(world.ask("none")), bench.rounds
        )
        row = Row(
            "network",
            f"{MEGABYTES} MB by a published port",
            "the same over the veth pair",
            goal=Goal(2.0, 1.2),
        )
        yield compare(
            row, lambda: float(world.ask("published")), lambda: float(world.ask("direct")), bench.long_rounds
        )
