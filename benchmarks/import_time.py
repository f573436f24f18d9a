"""``import pycontain`` in a fresh interpreter, less the interpreter itself."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING

from benchmarks.bench import command
from benchmarks.measure import interleave, timed
from benchmarks.results import Goal, Row, Spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench


def measure(bench: Bench) -> Iterator[Row]:
    ours = timed(command(sys.executable, "-c", "import pycontain; pycontain.Container"))
    bare = timed(command(sys.executable, "-c", "pass"))
    series = interleave({"ours": ours, "bare": bare}, bench.rounds)
    costs = [mine - theirs for mine, theirs in zip(series["ours"], series["bare"], strict=True)]
    yield Row(
        "import time",
        "import pycontain",
        "a bare interpreter",
        Spread.of(series["ours"]),
        Spread.of(series["bare"]),
        statistics.median(costs),
        Goal(60, 30),
        score_unit="ms more",
    )
