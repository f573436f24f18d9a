"""``${VARIABLE:-default}`` in the texts of a compose file, as the compose-spec's "Interpolation" has it. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import InvalidProject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pycontain.compose.tree import Node, Notes

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_DEEPEST = 32
LONGEST = 1 << 20  # characters that variables make of one text; a stranger's may stand for each other
_MOST = 4 << 20  # and of all texts of a file


@attrs.define
class _Scan:
    """One text from its beginning to its end."""

    text: str
    variables: Mapping[str, str]
    unset: Callable[[str], None]
    place: int = 0
    room: int = LONGEST

    def until(self, end: str, depth: int, *, live: bool = True) -> str:
        """What comes before *end*, or the whole rest when that is empty. Where nothing is *live*, no variable is missed."""
        if depth > _DEEPEST:
            raise ValueError(f"there are more than {_DEEPEST} levels of braces")
        pieces: list[str] = []
        while self.place < len(self.text):
            letter = self.text[self.place]
            if letter == end:
                self.place += 1
                return "".join(pieces)
            self.place += 1
            pieces.append(self._variable(depth, live=live) if letter == "$" else letter)
        if end:
            raise ValueError("a } is missing after ${")
        return "".join(pieces)

    def _variable(self, depth: int, *, live: bool) -> str:
        if self._takes("$"):
            return "$"
        if not self._takes("{"):
            name = self._name("write $$ for a dollar sign")
            return self._value(name, live=live)
        name = self._name("${ is followed by a name")
        if self._takes("}"):
            return self._value(name, live=live)
        operator = _OPERATOR.match(self.text, self.place)
        if operator is None:
            raise ValueError(f"${{{name} is followed by }}, or by one of :- - :? ? :+ + and a text")
        self.place = operator.end()
        value = self.variables.get(name)
        there = bool(value) if operator[0][0] == ":" else value is not None
        kind = operator[0][-1]
        word = self.until("}", depth + 1, live=live and (there if kind == "+" else not there))
        if kind == "+":
            return word if there else ""
        if there:
            return self._spent(value or "", live=live)
        if kind == "?" and live:
            raise ValueError(f"the variable {name} is required{': ' + word if word else ''}")
        return word

    def _takes(self, letter: str) -> bool:
        if self.text.startswith(letter, self.place):
            self.place += 1
            return True
        return False

    def _name(self, otherwise: str) -> str:
        found = _NAME.match(self.text, self.place)
        if found is None:
            raise ValueError(otherwise)
        self.place = found.end()
        return found[0]

    def _value(self, name: str, *, live: bool) -> str:
        value = self.variables.get(name)
        if value is None and live:
            self.unset(name)
        return self._spent(value or "", live=live)

    def _spent(self, value: str, *, live: bool) -> str:
        self.room -= len(value) if live else 0
        if self.room < 0:
            raise ValueError(f"its variables make more than {LONGEST >> 20} MiB of it")
        return value


def interpolated(
    text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda _: None
) -> str:
    """*text* with the values of *variables* in it; *unset* is called with each name that has none, which is empty then.

    ValueError for what is not closed, for a ``$`` that begins nothing, and for a required variable that there is not.
    """
    return _Scan(text, variables, unset).until("", 0) if "$" in text else text


@attrs.define
class _Room:
    """How many characters variables may still make in one tree."""

    left: int = _MOST

    def spend(self, node: Node, made: str) -> str:
        self.left -= len(made)
        if self.left < 0:
            raise InvalidProject(f"{node.where}variables make more than {_MOST >> 20} MiB of the file")
        return made


def interpolate(
    node: Node, variables: Mapping[str, str], notes: Notes, path: str = "", room: _Room | None = None
) -> Node:
    """The tree with every text interpolated; keys stay. :class:`InvalidProject` when it grows without measure."""
    room = room or _Room()
    match node.value:
        case str() as text:

            def unset(name: str) -> None:
                notes.warning(node, path, f"the variable {name} is not set, and is empty here")

            try:
                if "$" not in text:
                    return node
                return node.like(room.spend(node, interpolated(text, variables, unset)))
            except InvalidProject:
                raise
            except ValueError as error:
                notes.problem(node, path, f"{text!r} cannot be interpolated: {error}")
                return node
        case dict() as parts:
            below = f"{path}." if path else ""
            return node.like(
                {
                    name: interpolate(part, variables, notes, f"{below}{name}", room)
                    for name, part in parts.items()
                }
            )
        case list() as items:
            return node.like(
                [
                    interpolate(item, variables, notes, f"{path}[{number}]", room)
                    for number, item in enumerate(items)
                ]
            )
        case _:
            return node
