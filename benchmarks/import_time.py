"""``import pycontain`` in a fresh interpreter, less the interpreter itself; and the first use, which loads the rest.

As a user has it: what was compiled once is in ``__pycache__``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import interleave, timed
from benchmarks.results import Goal, Row, Spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once

_IMPORTS = ("import pycontain", "from pycontain import Container")


def measure(bench: Bench) -> Iterator[Row]:
    programs = ("pass", *_IMPORTS)
    series = interleave({code: _running(code) for code in programs}, bench.rounds)
    for code in _IMPORTS:
        costs = [mine - bare for mine, bare in zip(series[code], series["pass"], strict=True)]
        yield Row(
            "import time",
            code,
            "a bare interpreter",
            Spread.of(series[code]),
            Spread.of(series["pass"]),
            statistics.median(costs),
            Goal(60, 30),
            score_unit="ms more",
        )


def _running(code: str) -> Once:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    argv = [sys.executable, "-c", code]

    def run() -> None:
        subprocess.run(argv, env=environment, check=True)

    run()
    return timed(run)
