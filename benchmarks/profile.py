"""Where the time of one start goes: phases as the owner sees them, then each step of the plan, in its own words."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.measure import PAUSE
from pycontain import Container

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.bench import Bench
    from pycontain.process import Completed

_PHASES = (
    ("resolve", "find the image and the compiled plan"),
    ("snapshot", "to the zygote, and its turn"),
    ("clone", "a process in its namespaces, made now or in advance"),
    ("setup", "the steps, and spawning the payload"),
    ("run", "the payload, as its init sees it"),
)
_WIDTH = 110


def profiles(bench: Bench) -> str:
    """The profiles of the usual container and of the embedded image."""
    return "\n\n".join(
        profile(container, bench.rounds) for container in (bench.container(), Container("host:"))
    )


def profile(container: Container, rounds: int) -> str:
    """Run ``true`` so many times and show medians: of ordinary starts the phases, of profiled ones the steps.

    A profiled start performs every step itself. An ordinary one finds the first steps done, by a process that was
    made in advance, so its setup is shorter than the sum of the steps.
    """
    ordinary, profiled = _runs(container, rounds, profile=False), _runs(container, rounds, profile=True)
    steps = [f"{number:>2} {step}" for number, step in enumerate(container.plan("true").steps)]
    phases = (*(f"{name}: {what}" for name, what in _PHASES), "end: the word of it to the owner")
    return "\n".join(
        (
            f'{container!r}.run("true"), median of {rounds}: {_total(ordinary):,.0f} µs',
            *_lines(phases, map(_phases, ordinary)),
            f"every step in turn: {_total(profiled):,.0f} µs",
            # The first step makes the process, and the last is the payload: both are in the phases.
            *_lines(steps[1:-1], (run.timings.steps for run in profiled)),
        )
    )


def _runs(container: Container, rounds: int, *, profile: bool) -> list[Completed[str]]:
    found = []
    for _ in range(rounds + 1):
        time.sleep(PAUSE)
        found.append(container.run("true", check=True, profile=profile))
    return found[1:]


def _total(runs: Iterable[Completed[str]]) -> float:
    return statistics.median(run.duration for run in runs) * 1e6


def _phases(run: Completed[str]) -> tuple[float, ...]:
    known = tuple(getattr(run.timings, name) for name, _ in _PHASES)
    return (*known, run.duration - sum(known))


def _lines(names: Sequence[str], runs: Iterable[tuple[float, ...]]) -> Iterator[str]:
    for name, times in zip(names, zip(*runs, strict=True), strict=True):
        text = f"{statistics.median(times) * 1e6:>7,.0f} µs  {name}"
        yield text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
