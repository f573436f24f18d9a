"""Bytes through standard output, from the payload to the caller, against ``subprocess``."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from benchmarks.measure import compare, grow, timed
from benchmarks.results import Growth, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once

_MEGABYTE = 1 << 20
_SIZES = {"1 KB": 1 << 10, "64 KB": 1 << 16, "1 MB": _MEGABYTE, "16 MB": 16 << 20, "64 MB": 64 << 20}


def measure(bench: Bench) -> Iterator[Row | Growth]:
    for name, size in _SIZES.items():
        rounds = bench.rounds if size <= _MEGABYTE else bench.long_rounds
        row = Row("output", f"run: {name} to stdout", "subprocess, no walls")
        yield compare(row, _ours(bench, size), _theirs(bench, size), rounds)
    yield _growth(bench, "run", _ours)
    yield _growth(bench, "subprocess", _theirs)


def _growth(bench: Bench, what: str, act: Callable[[Bench, int], Once]) -> Growth:
    contestants = {size / _MEGABYTE: act(bench, size) for size in _SIZES.values()}
    return grow(Growth("output", what, "MB to stdout", ()), contestants, bench.long_rounds)


def _ours(bench: Bench, size: int) -> Once:
    container = bench.container()
    argv = ("head", "-c", str(size), "/dev/zero")

    def run() -> None:
        assert len(container.run(*argv, text=False, max_output=size).stdout) == size

    return timed(run)


def _theirs(bench: Bench, size: int) -> Once:
    argv = (f"{bench.rootfs}/bin/head", "-c", str(size), "/dev/zero")

    def run() -> None:
        assert len(subprocess.run(argv, capture_output=True, check=True).stdout) == size

    return timed(run)
