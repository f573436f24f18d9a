"""A document as a tree whose every node knows where it was written, and the notes that are taken about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs

_DEEPEST = 64


class Rule(Enum):
    """How a node is merged over another: as the spec says, or as its tag does."""

    MERGE = ""
    RESET = "!reset"
    OVERRIDE = "!override"


@attrs.frozen(eq=False)
class Node:
    """A value, whose parts are nodes, with its *file* and *line*; both are empty for what was written in Python."""

    value: Any
    file: str = ""
    line: int = 0
    rule: Rule = Rule.MERGE

    @property
    def where(self) -> str:
        """For the beginning of a message."""
        return f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""

    def like(self, value: Any) -> Node:
        """Another value in the same place."""
        return attrs.evolve(self, value=value)

    def get(self, name: str) -> Node | None:
        """The part of this name, if it is a mapping that has it."""
        return self.value.get(name) if isinstance(self.value, dict) else None

    def with_part(self, name: str, part: Node | None) -> Node:
        """The mapping with another part of this name, or without it."""
        others = {key: value for key, value in self.value.items() if key != name}
        return self.like(others if part is None else {**others, name: part})

    def plain(self) -> Any:
        """The value without its nodes."""
        match self.value:
            case dict() as parts:
                return {name: part.plain() for name, part in parts.items()}
            case list() as items:
                return [item.plain() for item in items]
            case scalar:
                return scalar


def node_of(value: object, depth: int = 0) -> Node:
    """A tree of Python's own mappings, sequences and scalars; what else there is stays as it is."""
    if depth > _DEEPEST:
        raise ValueError(f"it is deeper than {_DEEPEST} levels")
    match value:
        case Node():
            return value
        case Mapping():
            return Node({str(name): node_of(part, depth + 1) for name, part in value.items()})
        case list() | tuple():
            return Node([node_of(item, depth + 1) for item in value])
        case _:
            return Node(value)


_LONGEST = 1000  # characters of a note; a stranger's text in it may be a megabyte


@attrs.define
class Notes:
    """What is wrong with a project, and what is left out of it without harm."""

    problems: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    _said: set[str] = attrs.field(factory=set, init=False, repr=False)

    def problem(self, node: Node, path: str, text: str) -> None:
        """Something that cannot stay."""
        self._note(self.problems, node, path, text)

    def warning(self, node: Node, path: str, text: str) -> None:
        """Something that does no harm."""
        self._note(self.warnings, node, path, text)

    def _note(self, notes: list[str], node: Node, path: str, text: str) -> None:
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
        note = f"{node.where}{path}: {text}" if path else f"{node.where}{text}"
        if note not in self._said:
            self._said.add(note)
            notes.append(note)
