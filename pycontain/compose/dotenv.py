"""Files of variables, ``.env`` and ``env_file``: a line for each. Pure."""

from __future__ import annotations

import re
from collections import ChainMap
from typing import TYPE_CHECKING

from pycontain.compose.interpolation import interpolated

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 4 << 20  # characters of all values; a stranger's may stand for each other
_LINE = re.compile(
    r"""
    [ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*
    (?:(?:=|:[ \t])[ \t]*(?:
        '(?P<literal>[^']*)'[ \t]*(?:\#[^\n]*)?
      | "(?P<quoted>(?:[^"\\]|\\.)*)"[ \t]*(?:\#[^\n]*)?
      | (?P<bare>(?!['"])[^\n]*)
    ))?(?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_EMPTY = re.compile(r"[ \t]*(?:\#[^\n]*)?(?:\n|\Z)")
_COMMENT = re.compile(r"(?:^|[ \t]+)\#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "$": "$$"}


def parse(text: str, variables: Mapping[str, str], *, raw: bool = False) -> dict[str, str | None]:
    r"""The variables of *text*, in order; None for a name alone.

    ``NAME=value``, also after ``export``; in single quotes as it is, in double quotes with ``\n`` and its kin, and both over
    several lines; a ``#`` after a space begins a comment. Except in single quotes it is interpolated, with *variables* before those
    of earlier lines. *raw*: all after the first ``=`` is the value. ValueError names the line.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    return _raw(text) if raw else _cooked(text, variables)


def _raw(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if _EMPTY.fullmatch(line):
            continue
        name, equals, value = line.partition("=")
        if not name.strip():
            raise ValueError(f"line {number} has no name")
        found[name.strip()] = value if equals else None
    return found


def _cooked(text: str, variables: Mapping[str, str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    earlier: dict[str, str] = {}
    room = _MOST
    known = ChainMap(dict(variables), earlier)
    place = 0
    while place < len(text):
        empty = _EMPTY.match(text, place)
        if empty is not None:
            place = empty.end()
            continue
        line = _LINE.match(text, place)
        if line is None:
            raise ValueError(f"line {_number(text, place)} is no NAME=VALUE")
        name = line["name"]
        try:
            found[name] = value = _value(line, known)
        except ValueError as error:
            raise ValueError(f"line {_number(text, place)}: {error}") from None
        earlier.pop(name, None)
        if value is not None:
            earlier[name] = value
            room -= len(value)
        if room < 0:
            raise ValueError(
                f"line {_number(text, place)}: the values are longer than {_MOST >> 20} MiB in all"
            )
        place = line.end()
    return found


def _number(text: str, place: int) -> int:
    """Of the line at *place*."""
    return text.count("\n", 0, place) + 1


def _value(line: re.Match[str], known: Mapping[str, str]) -> str | None:
    if line["literal"] is not None:
        return line["literal"]
    if line["quoted"] is not None:
        return interpolated(
            _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), line["quoted"]), known
        )
    if line["bare"] is not None:
        return interpolated(_COMMENT.sub("", line["bare"]).strip(), known)
    return None
