"""The wildcards of a shell's ``${name#pattern}``: ``*`` and ``?``, in time that a stranger cannot choose.

Regular expressions would match the same, and can be made to take for ever; so the pattern is walked as an automaton,
one step for each character and place in the pattern, and what would take too many steps is refused.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STEPS = 20_000_000  # seconds, not minutes


class Wild(Enum):
    """What is not a character of its own."""

    ANY = "?"
    MANY = "*"


Symbol: TypeAlias = "str | Wild"


def parse_pattern(text: str) -> tuple[Symbol, ...]:
    """The pattern in *text*, where a backslash takes the meaning from ``*``, ``?`` and itself. :class:`ValueError`."""
    tokens: list[Symbol] = []
    letters = iter(text)
    for letter in letters:
        if letter == "\\":
            following = next(letters, "")
            if following not in {"*", "?", "\\", "}", "/"}:
                raise ValueError(f"'\\{following}' is no escape in a pattern; there are \\* \\? \\\\")
            tokens.append(following)
        else:
            tokens.append(Wild(letter) if letter in {"*", "?"} else letter)
    return tuple(tokens)


def without_prefix(tokens: Sequence[Symbol], value: str, *, longest: bool) -> str:
    """*value* without what matches at its beginning, the shortest or the longest."""
    ends = list(_ends(tokens, value, 1))
    return value[ends[-1 if longest else 0] :] if ends else value


def without_suffix(tokens: Sequence[Symbol], value: str, *, longest: bool) -> str:
    """*value* without what matches at its end."""
    turned = without_prefix(tuple(reversed(tokens)), value[::-1], longest=longest)
    return turned[::-1]


def replaced(tokens: Sequence[Symbol], value: str, replacement: str, *, everywhere: bool) -> str:
    """*value* with the first longest match replaced, or all that follow each other."""
    made, start = [], 0
    while start <= len(value):
        end = max(_ends(tokens, value[start:], len(value) + 1), default=0)
        if end:
            made.append(replacement)
            start += end
            if not everywhere:
                break
        else:
            made.append(value[start : start + 1])
            start += 1
    return "".join(made) + value[start:]


def _ends(tokens: Sequence[Symbol], value: str, times: int) -> Iterator[int]:
    """Every length of a beginning of *value* that the whole pattern matches, the shortest first."""
    if (len(tokens) + 1) * (len(value) + 1) * times > _STEPS:
        raise ValueError("the value is too long for this pattern")
    places = _closure(tokens, {0})
    if len(tokens) in places:
        yield 0
    for position, letter in enumerate(value, 1):
        moved = {place if tokens[place] is Wild.MANY else place + 1
                 for place in places
                 if place < len(tokens) and tokens[place] in {Wild.MANY, Wild.ANY, letter}}  # fmt: skip
        places = _closure(tokens, moved)
        if not places:
            return
        if len(tokens) in places:
            yield position


def _closure(tokens: Sequence[Symbol], places: set[int]) -> set[int]:
    found = set(places)
    for place in places:
        here = place
        while here < len(tokens) and tokens[here] is Wild.MANY:
            here += 1
            found.add(here)
    return found
