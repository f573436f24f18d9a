"""Where the time of one start goes: phases as the owner sees them, then each step of the plan, in its own words."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from pycontain import Container

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.bench import Bench
    from pycontain.process import Completed

_PHASES = (
    ("resolve", "find the image and the compiled plan"),
    ("snapshot", "to the zygote, and its turn"),
    ("clone", "the process and its namespaces"),
    ("setup", "the steps below, until the payload is spawned"),
    ("run", "the payload, as its init sees it"),
)
_WIDTH = 110


def profiles(bench: Bench) -> str:
    """The profiles of the usual container and of the embedded image."""
    containers = (bench.container(), Container("host:"))
    return "\n\n".join(profile(container, bench.rounds) for container in containers)


def profile(container: Container, rounds: int) -> str:
    """Run ``true`` so many times and show the medians in microseconds."""
    container.run("true", check=True)
    runs = [container.run("true", check=True, profile=True) for _ in range(rounds)]
    total = statistics.median(run.duration for run in runs)
    phases = (*(f"{name}: {what}" for name, what in _PHASES), "end: its init and its namespaces go")
    # The first step makes the child, which reads the clock after each of the others.
    steps = [f"{number:>2} {step}" for number, step in enumerate(container.plan("true").steps)][1:]
    return "\n".join(
        (
            f'{container!r}.run("true"): {total * 1e6:,.0f} µs, median of {rounds}',
            *_lines(phases, map(_phases, runs), total),
            *_lines(steps, (run.timings.steps for run in runs), total),
        )
    )


def _lines(names: Iterable[str], runs: Iterable[tuple[float, ...]], total: float) -> Iterator[str]:
    for name, times in zip(names, zip(*runs, strict=True), strict=True):
        median = statistics.median(times)
        text = f"{median * 1e6:>7,.0f} µs {median / total:>6.1%}  {name}"
        yield text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _phases(run: Completed[str]) -> tuple[float, ...]:
    known = tuple(getattr(run.timings, name) for name, _ in _PHASES)
    return (*known, run.duration - sum(known))
