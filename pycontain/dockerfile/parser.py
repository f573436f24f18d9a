"""From the text of a Dockerfile to its instructions as they are written: one node for each, with lines and heredocs.

What a line means is not judged here, only how it is divided: directives, comments, continued lines, flags, arguments.
The rules are those of BuildKit's parser, which differ from instruction to instruction.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import attrs

from pycontain.dockerfile.heredoc import Heredoc, heredocs_in
from pycontain.errors import DockerfileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_SPACES = re.compile(r"[\t\v\f\r ]+")
_MAX_BYTES = 4 << 20
_NO_FLAGS_BEYOND = "--"


@attrs.frozen
class Node:
    """One instruction as it is written. *keyword* is in lower case, *flags* are whole (``--from=base``).

    *exec_form*: the arguments were a JSON array. *nested* is what ONBUILD is for. *lines* are the first and the last, from 1.
    """

    keyword: str
    flags: tuple[str, ...]
    args: tuple[str, ...]
    text: str
    lines: tuple[int, int]
    exec_form: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    nested: Node | None = None


@attrs.frozen
class Document:
    """A Dockerfile: its directives, and its nodes in order. *source* are its lines, for messages."""

    nodes: tuple[Node, ...]
    source: tuple[str, ...] = attrs.field(repr=False)
    syntax: str = ""
    escape: str = "\\"
    check: str = ""

    def error(self, problem: str, lines: tuple[int, int], hint: str | None = None) -> DockerfileError:
        """What to raise because of *problem* in *lines*."""
        return error_at(self.source, problem, lines, hint)


def error_at(
    source: tuple[str, ...], problem: str, lines: tuple[int, int], hint: str | None = None
) -> DockerfileError:
    """The error that names *lines* of *source*, shows them, and says what to do."""
    first, last = lines
    where = f"line {first}" if first == last else f"lines {first} to {last}"
    shown = "\n".join(
        f"{number:4} | {source[number - 1]}" for number in range(first, last + 1) if number <= len(source)
    )
    error = DockerfileError(
        f"{where} of the Dockerfile: {problem}", line=first, last_line=last, hint=shown or None
    )
    return error.with_hint(hint) if hint else error


def parse(text: str | bytes) -> Document:
    """Divide a Dockerfile into its instructions. :class:`DockerfileError`."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise error_at((), "it is not UTF-8", (line, line), "save it as UTF-8") from None
    if len(text) > _MAX_BYTES:
        raise error_at((), f"it has more than {_MAX_BYTES} characters", (1, 1))
    return _Parser(text.removeprefix("\ufeff")).parse()


def parse_instruction(text: str) -> Node:
    """A single instruction that is not in a file, such as what ONBUILD has left in an image. :class:`DockerfileError`."""
    nodes = parse(text).nodes
    if len(nodes) != 1:
        raise error_at(tuple(text.splitlines()), "it is not one instruction", (1, 1))
    return nodes[0]


class _Parser:
    def __init__(self, text: str) -> None:
        self._raw = text.split("\n")
        if self._raw[-1] == "":
            self._raw.pop()
        self.source = tuple(line.removesuffix("\r") for line in self._raw)
        self._at = 0
        self._directives: dict[str, str] = {}
        self._escape = "\\"

    def parse(self) -> Document:
        self._read_directives()
        nodes = tuple(self._nodes())
        if not nodes:
            raise error_at(self.source, "it has no instructions", (1, 1), "begin with FROM")
        return Document(
            nodes,
            self.source,
            self._directives.get("syntax", ""),
            self._escape,
            self._directives.get("check", ""),
        )

    def _read_directives(self) -> None:
        for number, line in enumerate(self.source, 1):
            match = _DIRECTIVE.fullmatch(line.strip())
            if match is None:
                break
            name, value = match[1].lower(), match[2]
            if name not in _DIRECTIVES:
                continue
            if name in self._directives:
                raise self._error(f"there is a second # {name}=", number, number, "keep one of them")
            self._directives[name] = value
        escape = self._directives.get("escape", "\\")
        if escape not in {"\\", "`"}:
            raise self._error(f"{escape!r} cannot be the escape", 1, 1, "write # escape=\\ or # escape=`")
        self._escape = escape

    def _error(self, problem: str, first: int, last: int, hint: str | None = None) -> DockerfileError:
        return error_at(self.source, problem, (first, last), hint)

    def _nodes(self) -> Iterator[Node]:
        continued = re.compile(rf"([^{re.escape(self._escape)}]|^){re.escape(self._escape)}[ \t]*$")
        while self._at < len(self.source):
            line = self._take().lstrip()
            first = self._at
            parts: list[str] = []
            while True:
                if not line.lstrip().startswith("#") and (line.strip() or not parts):
                    match = continued.search(line)
                    parts.append(line[: match.start()] + match[1] if match else line)
                    if match is None:
                        break
                elif not parts:
                    break
                if self._at == len(self.source):
                    break
                line = self._take()
            text = "".join(parts)
            if text.strip():
                yield self._node(text, first)

    def _take(self) -> str:
        self._at += 1
        return self.source[self._at - 1]

    def _node(self, text: str, first: int) -> Node:
        node = self._divided(text, first, self._at)
        inner = node.nested or node
        if inner.keyword in {"add", "copy", "run"} and "<<" in text:
            exempt = inner.exec_form and inner.keyword != "run"
            heredocs = () if exempt else tuple(self._content(one, first) for one in heredocs_in(text))
            node = attrs.evolve(node, heredocs=heredocs)
            if node.nested:
                node = attrs.evolve(node, nested=attrs.evolve(node.nested, heredocs=heredocs))
        return attrs.evolve(node, lines=(first, self._at))

    def _content(self, heredoc: Heredoc, first: int) -> Heredoc:
        lines: list[str] = []
        while self._at < len(self.source):
            line = self._take()
            if (line.lstrip("\t") if heredoc.chomp else line) == heredoc.name:
                return attrs.evolve(heredoc, content="".join(lines))
            lines.append(self._raw[self._at - 1] + "\n")
        raise self._error(
            f"the here-document {heredoc.name} has no end",
            first,
            first,
            f"write {heredoc.name} alone in a line where it ends",
        )

    def _divided(self, text: str, first: int, last: int) -> Node:
        keyword, *rest = _SPACES.split(text.strip(), maxsplit=1)
        keyword = keyword.lower()
        flags, arguments = _flags(rest[0]) if rest else ((), "")
        arguments = arguments.strip()
        try:
            if keyword == "onbuild" and arguments:
                nested = self._divided(arguments, first, last)
                return Node(keyword, flags, (), text, (first, last), nested=nested)
            args, exec_form = _ARGUMENTS.get(keyword, _ignored)(arguments, self._escape)
        except ValueError as error:
            if isinstance(error, DockerfileError):
                raise
            raise self._error(f"{keyword.upper()} {error}", first, last) from None
        return Node(keyword, flags, args, text, (first, last), exec_form)


# --- arguments ------------------------------------------------------------------------------------------

_Args = tuple[tuple[str, ...], bool]


def _flags(rest: str) -> tuple[tuple[str, ...], str]:
    """The words at the beginning that start with ``--``, without quotes, and what comes after them."""
    flags: list[str] = []
    at = 0
    while True:
        while rest[at : at + 1].isspace():
            at += 1
        if not rest.startswith("--", at):
            return tuple(flags), rest[at:]
        word, at = _flag(rest, at)
        if word == _NO_FLAGS_BEYOND:
            return tuple(flags), rest[at:]
        flags.append(word)


def _flag(rest: str, at: int) -> tuple[str, int]:
    word, quote = "", ""
    while at < len(rest):
        letter = rest[at]
        if not quote and letter.isspace():
            break
        at += 1
        if letter == "\\":
            word += rest[at : at + 1]
            at += 1
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        else:
            word += letter
    return word, at


def parse_json_words(text: str) -> tuple[str, ...] | None:
    """The exec form: an array of texts; None when it is something else. :class:`ValueError` for an array of other things."""
    if not text.lstrip().startswith("["):
        return None
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in given):
        raise ValueError("has a JSON array of something else than texts")
    return tuple(given)


def split_words(text: str, escape: str) -> tuple[str, ...]:
    """Divide at spaces that are neither quoted nor escaped; quotes and escapes stay."""
    words, word, quote, began = [], "", "", False
    at = 0
    while at < len(text):
        letter = text[at]
        at += 1
        if not quote and letter.isspace():
            if began:
                words.append(word)
            word, began = "", False
            continue
        began = True
        if letter == escape and quote != "'":
            if at == len(text):
                break
            word += letter + text[at]
            at += 1
            continue
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        word += letter
    if word:
        words.append(word)
    return tuple(words)


def _text(rest: str, escape: str) -> _Args:
    del escape
    return ((rest,) if rest else ()), False


def _spaced(rest: str, escape: str) -> _Args:
    del escape
    return tuple(filter(None, _SPACES.split(rest))), False


def _command(rest: str, escape: str) -> _Args:
    words = parse_json_words(rest)
    return _text(rest, escape) if words is None else (words, True)


def _list(rest: str, escape: str) -> _Args:
    words = parse_json_words(rest)
    return _spaced(rest, escape) if words is None else (words, True)


def _assignments(rest: str, escape: str) -> _Args:
    """Three for each: the name, the value, and how they were joined, as BuildKit's tree has them."""
    words = split_words(rest, escape)
    if not words:
        return (), False
    if "=" not in words[0]:
        name, *value = _SPACES.split(rest, maxsplit=1)
        if not value:
            raise ValueError("must have two arguments: a name and a value")
        return (name, value[0], ""), False
    parts: list[str] = []
    for word in words:
        name, equals, value_text = word.partition("=")
        if not equals:
            raise ValueError(f"has {word!r}, which is no name=value; a value with spaces is quoted")
        parts += (name, value_text, "=")
    return tuple(parts), False


def _names(rest: str, escape: str) -> _Args:
    return split_words(rest, escape), False


def _health(rest: str, escape: str) -> _Args:
    kind, *command = rest.split(None, 1) if rest else ("",)
    if not kind:
        return (), False
    args, exec_form = _command(command[0], escape) if command else ((), False)
    return (kind, *args), exec_form


def _ignored(rest: str, escape: str) -> _Args:
    del rest, escape
    return (), False


_ARGUMENTS: dict[str, Callable[[str, str], _Args]] = {
    "add": _list,
    "arg": _names,
    "cmd": _command,
    "copy": _list,
    "entrypoint": _command,
    "env": _assignments,
    "expose": _spaced,
    "from": _spaced,
    "healthcheck": _health,
    "label": _assignments,
    "maintainer": _text,
    "run": _command,
    "shell": _command,
    "stopsignal": _text,
    "user": _text,
    "volume": _list,
    "workdir": _text,
}
