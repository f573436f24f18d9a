"""``.dockerignore``: which paths of a build context are left out, and the same patterns for ``COPY --exclude`` and globs.

The wildcards are those of Go's ``filepath.Match``, with ``**`` for any number of directories.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class PatternError(ValueError):
    """A pattern that means nothing."""


@attrs.frozen
class Pattern:
    """One line of the file: *path* relative to the context; *exception* takes a path back in."""

    path: str
    exception: bool = False

    def matches(self, path: str) -> bool:
        """Whether it means *path* itself."""
        return _matcher(self.path)(path)

    def matches_below(self, path: str) -> bool:
        """Whether it means *path*, or a directory that *path* is in."""
        return any(self.matches(each) for each in _with_parents(path))


@attrs.frozen
class Ignore:
    """The patterns of a file, in order: the last that matches decides."""

    patterns: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """Read a ``.dockerignore``; comments and empty lines mean nothing. :class:`PatternError`."""
        lines = (
            line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#")
        )
        return cls.of(line for line in lines if line)

    @classmethod
    def of(cls, lines: Iterable[str]) -> Ignore:
        """The same from patterns that are one by one."""
        return cls(tuple(filter(None, map(_parse, lines))))

    def ignores(self, path: str) -> bool:
        """Whether *path*, without a slash at either end, is left out; a pattern for a directory means all in it."""
        ignored = False
        for pattern in self.patterns:
            if pattern.exception == ignored and pattern.matches_below(path):
                ignored = not pattern.exception
        return ignored

    def may_hold_exceptions(self, path: str) -> bool:
        """Whether in the directory *path*, which is left out, something may be taken back in."""
        return any(pattern.exception and _may_be_below(pattern.path, path) for pattern in self.patterns)


def clean(path: str) -> str:
    """*path* without ``.``, ``..``, and slashes that mean nothing; the context itself is ``.``."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts) or "."


def _parse(line: str) -> Pattern | None:
    exception = line.startswith("!")
    text = line[1:].strip() if exception else line
    if not text:
        raise PatternError("'!' alone takes nothing back in")
    path = clean(text)
    _matcher(path)
    return Pattern(path, exception)


def _with_parents(path: str) -> Iterator[str]:
    yield path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _may_be_below(pattern: str, folder: str) -> bool:
    for wanted, name in zip(pattern.split("/"), folder.split("/"), strict=False):
        if "**" in wanted:
            return True
        if not _matcher(wanted)(name):
            return False
    return True


# --- matching -------------------------------------------------------------------------------------------


class _Many(Enum):
    """What stands for any number of characters, as a regular expression."""

    NAMES = "[^/]*"
    ANYTHING = ".*"
    FOLDERS = "(?:.*/)?"


_Symbol: TypeAlias = "_Many | str"  # a text is a regular expression for one character
_FEW = 2


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Callable[[str], bool]:
    tokens = tuple(_tokens(pattern))
    if sum(isinstance(token, _Many) for token in tokens) <= _FEW:
        expression = "".join(token.value if isinstance(token, _Many) else token for token in tokens)
        compiled = re.compile(expression, re.DOTALL)
        return lambda path: compiled.fullmatch(path) is not None
    return _Automaton(tokens).matches


class _Automaton:
    """The same in steps, since a regular expression with many repetitions can be made to take for ever."""

    def __init__(self, tokens: tuple[_Symbol, ...]) -> None:
        self._tokens = [
            token if isinstance(token, _Many) else re.compile(token, re.DOTALL) for token in tokens
        ]

    def matches(self, path: str) -> bool:
        """Whether all of *path* is meant."""
        places = self._entered({0})
        for letter in path:
            places = self._entered({new for place in places for new in self._moved(place, letter)})
            if not places:
                return False
        return len(self._tokens) in places

    def _moved(self, place: int, letter: str) -> Iterator[int]:
        inside, place = place < 0, abs(place) - 1 if place < 0 else place
        token = self._tokens[place] if place < len(self._tokens) else None
        if token is _Many.FOLDERS:
            yield -place - 1  # inside of it, which only a slash leaves
            if letter == "/":
                yield place + 1
        elif token is _Many.ANYTHING or (token is _Many.NAMES and letter != "/"):
            yield place
        elif isinstance(token, re.Pattern) and token.fullmatch(letter) and not inside:
            yield place + 1

    def _entered(self, places: set[int]) -> set[int]:
        found = set(places)
        for place in places:
            here = place
            while 0 <= here < len(self._tokens) and isinstance(self._tokens[here], _Many):
                here += 1
                found.add(here)
        return found


def _tokens(pattern: str) -> Iterator[_Symbol]:
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            if pattern[at : at + 1] != "*":
                yield _Many.NAMES
                continue
            at += 1
            if pattern[at : at + 1] == "/" and at + 1 < len(pattern):
                at += 1
                yield _Many.FOLDERS
            else:
                at += pattern[at : at + 1] == "/"
                yield _Many.ANYTHING
        elif letter == "?":
            yield "[^/]"
        elif letter == "[":
            text, at = _class(pattern, at)
            yield text
        elif letter == "\\":
            if at == len(pattern):
                raise PatternError(f"{pattern!r} ends with an escape of nothing")
            yield re.escape(pattern[at])
            at += 1
        else:
            yield re.escape(letter)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """``[a-z]`` as filepath.Match has it: no empty one, and ``-`` only between two characters or escaped."""
    made = "["
    if pattern[at : at + 1] == "^":
        made, at = "[^/", at + 1
    first = True
    while first or pattern[at : at + 1] != "]":
        low, at = _member(pattern, at)
        made += re.escape(low)
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1)
            if high < low:
                raise PatternError(f"{pattern!r}: {low}-{high} is no range")
            made += "-" + re.escape(high)
        first = False
    return made + "]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    letter = pattern[at : at + 1]
    if letter == "\\":
        at += 1
        letter = pattern[at : at + 1]
    elif letter in {"-", "]"}:
        raise PatternError(f"{pattern!r}: {letter!r} in brackets is written '\\{letter}'")
    if not letter:
        raise PatternError(f"{pattern!r} has no closing bracket")
    return letter, at + 1
