"""A place in a document from which typed values are read: what is no such value is noted with its place, and reading goes on. Pure."""

from __future__ import annotations

import difflib
import re
import shlex
from typing import TYPE_CHECKING, TypeVar

import attrs

from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pycontain.compose.tree import Node, Notes

Value = TypeVar("Value")

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w))")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
}


@attrs.frozen
class At:
    """A node, the path that leads to it, and where notes are taken."""

    node: Node
    path: str
    notes: Notes

    def problem(self, text: str) -> None:
        """Note something that cannot stay."""
        self.notes.problem(self.node, self.path, text)

    def warning(self, text: str) -> None:
        """Note something that does no harm."""
        self.notes.warning(self.node, self.path, text)

    def below(self, name: str | int, node: Node) -> At:
        """The part of this name or number."""
        way = f"[{name}]" if isinstance(name, int) else f".{name}" if self.path else name
        return At(node, f"{self.path}{way}", self.notes)

    @property
    def is_null(self) -> bool:
        """Whether nothing is said."""
        return self.node.value is None

    def parts(self, known: Mapping[str, object] | tuple[str, ...] | None = None) -> dict[str, At]:
        """The parts of a mapping whose keys are all *known*; those that begin with ``x-`` are other people's."""
        if self.is_null:
            return {}
        if not isinstance(self.node.value, dict):
            self.problem(f"{_shown(self.node)} is no mapping")
            return {}
        found = {}
        for name, part in self.node.value.items():
            below = self.below(name, part)
            if known is None or name in known:
                found[name] = below
            elif not name.startswith("x-"):
                close = difflib.get_close_matches(name, known, 1)
                below.problem(f"there is no such key{f', did you mean {close[0]}?' if close else ''}")
        return found

    def items(self) -> list[At]:
        """The items of a sequence; a scalar is one."""
        if self.is_null:
            return []
        if isinstance(self.node.value, dict):
            self.problem("it is a mapping where a list is wanted")
            return []
        if not isinstance(self.node.value, list):
            return [self]
        return [self.below(number, item) for number, item in enumerate(self.node.value)]

    def sequence(self) -> list[At]:
        """The items of a sequence and nothing else."""
        if not isinstance(self.node.value, list | None):
            self.problem(f"{_shown(self.node)} is no list")
            return []
        return self.items()

    def text(self) -> str:
        """A text; a number is one, too."""
        match self.node.value:
            case bool() | None | dict() | list():
                self.problem(f"{_shown(self.node)} is no text")
                return ""
            case value:
                return str(value)

    def texts(self) -> tuple[str, ...]:
        """The items as texts."""
        return tuple(item.text() for item in self.items())

    def flag(self) -> bool:
        """True or false, also as a text: that is what a variable brings."""
        match self.node.value:
            case bool() as value:
                return value
            case str() as text if text.lower() in {"true", "false", "yes", "no", "1", "0"}:
                return text.lower() in {"true", "yes", "1"}
        self.problem(f"{_shown(self.node)} is neither true nor false")
        return False

    def whole(self, least: int = 0, most: int = 1 << 53) -> int:
        """A whole number."""
        value = self.node.value
        try:
            number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            self.problem(f"{_shown(self.node)} is no whole number from {least} to {most}")
            return least
        return number

    def number(self) -> float:
        """A number that is not negative."""
        value = self.node.value
        try:
            number = (
                float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
            )
        except (ValueError, OverflowError):
            number = -1.0
        if not 0 <= number < float("inf"):
            self.problem(f"{_shown(self.node)} is no number")
            return 0.0
        return number

    def size(self) -> int:
        """Bytes."""
        value = self.node.value
        try:
            # Docker's own form of a whole number of bytes may come as 1e9.
            return parse_size(int(value) if isinstance(value, float) and value.is_integer() else value)
        except ValueError as error:
            self.problem(str(error))
            return 0

    def duration(self) -> float:
        """Seconds, from a text as ``1m30s``."""
        value = self.node.value
        text = value if isinstance(value, str) else ""
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            if text == "0" or value == 0:
                return 0.0
            self.problem(f"{_shown(self.node)} is no duration; write 30s, 1m30s or 500ms")
            return 0.0
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)

    def words(self) -> tuple[str, ...]:
        """A command line: a list, or a text that is split as a shell would, without being given to one."""
        if isinstance(self.node.value, list):
            return self.texts()
        text = self.text()
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            self.problem(f"{text!r} cannot be split into words: {error}")
            return ()

    def choice(self, *choices: str) -> str:
        """One of *choices*."""
        text = self.text()
        if text not in choices:
            self.problem(f"{text!r} is none of {', '.join(choices)}")
        return text

    def pairs(self, sign: str = "=") -> Iterator[tuple[str, At]]:
        """Names with their values: of a mapping, or of a list of NAME=VALUE; the value of a name alone is null."""
        if isinstance(self.node.value, dict):
            yield from self.parts(None).items()
            return
        for item in self.sequence():
            name, there, value = item.text().partition(sign)
            yield name, At(item.node.like(value if there else None), item.path, self.notes)

    def texts_by_name(self, sign: str = "=") -> tuple[tuple[str, str], ...]:
        """The same as texts; what has no value is empty."""
        return tuple((name, value.plain_text()) for name, value in self.pairs(sign))

    def plain_text(self) -> str:
        """A scalar as compose writes it: true, and nothing for null."""
        match self.node.value:
            case None:
                return ""
            case bool() as value:
                return str(value).lower()
        return self.text()

    def attempt(self, read: Callable[[str], Value], otherwise: Value) -> Value:
        """What *read* makes of the text; its ValueError is a problem here."""
        try:
            return read(self.text())
        except ValueError as error:
            self.problem(str(error))
            return otherwise


def _shown(node: Node) -> str:
    plain = repr(node.plain())
    return plain if len(plain) <= 60 else f"{plain[:57]}…"
