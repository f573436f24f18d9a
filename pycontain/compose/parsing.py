"""YAML to a tree. Nothing in a file can make an object or run a program, and its size and depth have an end. Pure.

PyYAML reads YAML 1.1, compose files are YAML 1.2 in which ``on`` is a text and ``22:22`` no number of seconds. So PyYAML scans and
composes here, and plain scalars are resolved by the rules of 1.2, with the octal numbers of 1.1 that modes of files are written in.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.compose.tree import Node, Rule
from pycontain.errors import ComposeError, InvalidProject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MOST_BYTES = 1 << 20
_MOST_NODES = 100_000
_DEEPEST = 64
_TAG = "tag:yaml.org,2002:"

# YAML 1.2.2, 10.3.2: the tags of the core schema; first letters are how PyYAML finds the expression.
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
    ("merge", r"<<", "<"),
)  # fmt: skip


def parse(text: str, file: str) -> Node | None:
    """The tree of *text*, with *file* as where it is from; None when there is nothing in it.

    :class:`InvalidProject` for what is no YAML, for a tag that there is not, and for what is too large or too deep.
    """
    if len(text) > MOST_BYTES:
        raise InvalidProject(f"{file}: it is longer than {MOST_BYTES >> 20} MiB")
    yaml = _yaml()
    try:
        documents = list(yaml.compose_all(text, Loader=_loader()))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise InvalidProject(f"{file}:{line}: this is no YAML: {said}") from error
    except yaml.YAMLError as error:
        raise InvalidProject(f"{file}: this is no YAML: {error}") from error
    except RecursionError as error:
        raise InvalidProject(f"{file}: it is deeper than {_DEEPEST} levels") from error
    if len(documents) > 1:
        raise InvalidProject(
            f"{file}:{documents[1].start_mark.line + 1}: a second document begins here",
            hint="give each a file of its own",
        )
    return _Conversion(file).node(documents[0], 0) if documents else None


def _yaml() -> ModuleType:
    try:
        import yaml  # noqa: PLC0415 - an extra, and only for who has files
    except ImportError as error:
        raise ComposeError(
            "compose files are YAML, and PyYAML is not installed", hint="pip install 'pycontain[compose]'"
        ) from error
    return yaml


@functools.cache
def _loader() -> Any:
    class Loader(_yaml().SafeLoader):  # type: ignore[misc] # the module is loaded late
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's way

    for name, expression, letters in _SCALARS:
        Loader.add_implicit_resolver(
            f"{_TAG}{name}",
            re.compile(f"(?:{expression})\\Z"),
            ["" if letter == "\0" else letter for letter in letters],
        )
    return Loader


@attrs.define
class _Conversion:
    """From PyYAML's nodes to ours. An alias is the same node again, so its size is counted before anybody walks through it."""

    file: str
    _sizes: dict[int, int] = attrs.field(factory=dict)
    _made: dict[int, Node] = attrs.field(factory=dict)
    _open: set[int] = attrs.field(factory=set)

    def node(self, found: Any, depth: int) -> Node:
        key = id(found)
        if key in self._open:
            raise self._error(found, "an alias stands inside of what it stands for")
        if depth > _DEEPEST:
            raise self._error(found, f"it is deeper than {_DEEPEST} levels")
        if key not in self._made:
            self._open.add(key)
            self._made[key] = self._convert(found, depth)
            self._open.discard(key)
            self._sizes[key] = 1 + sum(self._sizes[id(part)] for part in _parts(found))
            if self._sizes[key] > _MOST_NODES:
                raise self._error(found, f"with its aliases it has more than {_MOST_NODES} values")
        return self._made[key]

    def _convert(self, found: Any, depth: int) -> Node:
        rule, tag = self._tag(found)
        kind = type(found).__name__
        if kind == "MappingNode" and tag == "map":
            value: Any = self._mapping(found, depth)
        elif kind == "SequenceNode" and tag == "seq":
            value = [self.node(item, depth + 1) for item in found.value]
        elif kind == "ScalarNode" and tag in {"str", "merge", "bool", "null", "int", "float"}:
            value = self._scalar(found, tag)
        else:
            raise self._error(found, f"there is no tag {found.tag}")
        return Node(value, self.file, found.start_mark.line + 1, rule)

    def _tag(self, found: Any) -> tuple[Rule, str]:
        if found.tag in {Rule.RESET.value, Rule.OVERRIDE.value}:
            kind = type(found)
            plain = getattr(found, "style", None) is None
            # As if there were no tag: what a plain scalar looks like decides.
            tag = _loader()("").resolve(
                kind, found.value if isinstance(found.value, str) else None, (plain, not plain)
            )
            return Rule(found.tag), tag.removeprefix(_TAG)
        return Rule.MERGE, found.tag.removeprefix(_TAG)

    def _scalar(self, found: Any, tag: str) -> object:
        text: str = found.value
        try:
            match tag:
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return _integer(text)
                case "float":
                    return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            raise self._error(found, f"{text!r} is no {tag}") from None
        return text

    def _mapping(self, found: Any, depth: int) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in found.value:
            if type(key).__name__ != "ScalarNode":
                raise self._error(key, "a key is a text")
            made = self.node(value, depth + 1)
            self.node(key, depth + 1)
            if key.tag == f"{_TAG}merge":
                for other in made.value if isinstance(made.value, list) else [made]:
                    if not isinstance(other.value, dict):
                        raise self._error(value, "<< takes a mapping, or a list of them")
                    merged = {**other.value, **merged}
            elif key.value in own:
                raise self._error(key, f"{key.value!r} is there already")
            else:
                own[key.value] = made
        return {**merged, **own}

    def _error(self, found: Any, problem: str) -> InvalidProject:
        return InvalidProject(f"{self.file}:{found.start_mark.line + 1}: {problem}")


def _parts(found: Any) -> Iterator[Any]:
    match type(found).__name__:
        case "SequenceNode":
            yield from found.value
        case "MappingNode":
            for key, value in found.value:
                yield key
                yield value


def _integer(text: str) -> int:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return sign * int(
            digits, 8 if not set(digits) & set("89") else 10
        )  # 0644, as YAML 1.1 and Go's reader have it
    return sign * int(digits, 0)
