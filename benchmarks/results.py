"""What a benchmark finds, as values: spreads, rows with a goal, and how a cost grows with a size."""

from __future__ import annotations

import statistics
from itertools import combinations
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class Spread:
    """The middle of a series, and the tenth and ninetieth of a hundred."""

    median: float
    p10: float
    p90: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(
            statistics.median(ordered), ordered[round(last * 0.1)], ordered[round(last * 0.9)], len(ordered)
        )

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.p10)}-{short(self.p90)})"


@attrs.frozen
class Goal:
    """The bound for a score, and the bound that we would be proud of; *at_least* when more is better."""

    bound: float
    stretch: float | None = None
    at_least: bool = False

    def verdict(self, score: float) -> str:
        if self.stretch is not None and self._reached(score, self.stretch):
            return "stretch"
        return "goal" if self._reached(score, self.bound) else "MISSED"

    def _reached(self, score: float, bound: float) -> bool:
        return score >= bound if self.at_least else score <= bound

    def text(self, bound: float | None) -> str:
        return "" if bound is None else f"{'≥' if self.at_least else '≤'} {short(bound)}"


@attrs.frozen
class Row:
    """One comparison. ``score`` is what the goal speaks of: a ratio, unless ``score_unit`` says otherwise.

    A row without a score could not be measured, and ``missing`` says why.
    """

    act: str
    ours: str
    peer: str
    ours_spread: Spread | None = None
    peer_spread: Spread | None = None
    score: float | None = None
    goal: Goal | None = None
    unit: str = "ms"
    score_unit: str = "x"
    missing: str = ""

    @property
    def verdict(self) -> str:
        if self.score is None:
            return "not run"
        return self.goal.verdict(self.score) if self.goal else ""

    def cells(self) -> tuple[str, ...]:
        score = "" if self.score is None else f"{short(self.score)} {self.score_unit}"
        return (
            self.act,
            self.ours,
            self.peer,
            "" if self.ours_spread is None else f"{self.ours_spread} {self.unit}",
            "" if self.peer_spread is None else f"{self.peer_spread} {self.unit}",
            score,
            "" if self.goal is None else self.goal.text(self.goal.bound),
            "" if self.goal is None else self.goal.text(self.goal.stretch),
            self.verdict,
        )


@attrs.frozen
class Growth:
    """Medians over a size axis: how the cost of *what* grows with each unit of *axis*."""

    act: str
    what: str
    axis: str
    points: tuple[tuple[float, float], ...]
    unit: str = "ms"

    @property
    def slope(self) -> float:
        """The median of the slopes between all pairs of points (Theil and Sen): one bad point does not turn it."""
        return statistics.median(
            (after - before) / (large - small)
            for (small, before), (large, after) in combinations(self.points, 2)
        )

    def cells(self) -> tuple[str, ...]:
        sizes = ", ".join(short(size) for size, _ in self.points)
        values = ", ".join(short(value) for _, value in self.points)
        return (
            self.act,
            self.what,
            f"{self.axis}: {sizes}",
            f"{values} {self.unit}",
            "",
            f"{self.slope:+.3g} {self.unit} each",
            "",
            "",
            "growth",
        )


HEAD = ("act", "ours", "against", "ours, median (p10-p90)", "theirs", "score", "goal", "stretch", "verdict")


def short(value: float) -> str:
    """Three digits that matter, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(found: Sequence[Row | Growth]) -> str:
    """A table for a terminal that is also Markdown, then what could not be run and why."""
    lines = [HEAD, *(result.cells() for result in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    text = "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )
    missing = [
        f"{row.act}, against {row.peer}: {row.missing}"
        for row in found
        if isinstance(row, Row) and row.missing
    ]
    return "\n".join((text, "", *(f"- not run: {line}" for line in missing)) if missing else (text,))


def as_json(result: Row | Growth) -> dict[str, object]:
    """The value with what is derived from it."""
    derived = {"verdict": result.verdict} if isinstance(result, Row) else {"slope": result.slope}
    return {"kind": type(result).__name__.lower(), **attrs.asdict(result), **derived}
