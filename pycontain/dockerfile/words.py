"""Words of a Dockerfile: quotes, escapes, and variables with defaults, alternatives and patterns, as BuildKit has them.

One pass from left to right. A Dockerfile may come from a stranger: nesting and the length of what comes out have an end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from pycontain.dockerfile.patterns import parse_pattern, replaced, without_prefix, without_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DEPTH = 32
_SPACE = re.compile(r"\s")
_LENGTH = 1 << 20  # characters of one word; more than execve(2) would take
_SPECIAL = "@*#?-$!0"  # the shell's own parameters, which are never set here
_END = ""


class WordError(ValueError):
    """A word that cannot be read."""


@attrs.frozen
class Expansion:
    """*text* is the word without quotes, *words* what spaces that are not quoted divide it into.

    *matched* and *unmatched* are the variables that were asked for, set or not.
    """

    text: str
    words: tuple[str, ...]
    matched: frozenset[str]
    unmatched: frozenset[str]


def expand(
    word: str,
    variables: Mapping[str, str],
    escape: str = "\\",
    *,
    raw: bool = False,
    quotes: bool = True,
    keep_unset: bool = False,
) -> Expansion:
    """Expand *word*; :class:`WordError` when it breaks the grammar, or a variable that must be set is not.

    With *raw* quotes and escapes stay where they are; without *quotes* they have no meaning at all. With *keep_unset*
    what is not set stays as it is written.
    """
    reader = _Reader(word, variables, escape, raw=raw, quotes=quotes, keep_unset=keep_unset)
    text, words = reader.read("", raw=raw)
    return Expansion(text, words, frozenset(reader.matched), frozenset(reader.unmatched))


@attrs.define(eq=False)
class _Words:
    """The words found so far, and the one that is not at its end."""

    done: list[str] = attrs.field(factory=list)
    current: list[str] = attrs.field(
        factory=list
    )  # joined at its end: a text that grows by letters takes the square of its length

    def add(self, text: str, *, quoted: bool) -> None:
        first, *further = [text] if quoted else _SPACE.split(text)
        self.current.append(first)
        for piece in further:
            self.end()
            self.current.append(piece)

    def end(self) -> None:
        word = "".join(self.current)
        if word:
            self.done.append(word)
        self.current.clear()


class _Reader:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        *,
        raw: bool,
        quotes: bool,
        keep_unset: bool,
    ) -> None:
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()
        self._text = text
        self._at = 0
        self._depth = 0
        self._room = _LENGTH
        self._variables = variables
        self._escape = escape
        self._raw_quotes = raw
        self._keep_unset = keep_unset
        self._special: dict[str, Callable[[bool], str]] = {"$": self._dollar}
        if quotes:
            self._special |= {"'": self._single, '"': self._double}

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._peek()
        self._at += len(letter)
        return letter

    def read(self, stop: str, *, raw: bool) -> tuple[str, tuple[str, ...]]:
        """Read up to *stop*, or to the end when that is empty."""
        self._depth += 1
        if self._depth > _DEPTH:
            raise WordError("variables are nested too deeply")
        parts: list[str] = []
        words = _Words()
        while (letter := self._peek()) != _END:
            if letter == stop:
                self._next()
                break
            special = self._special.get(letter)
            if special is not None:
                found = special(raw)
                words.add(found, quoted=letter != "$")
            elif letter == self._escape:
                self._next()
                found = (letter if raw else "") + self._next()
                if raw or found:
                    words.add(found, quoted=True)
            else:
                found = self._next()
                words.add(found, quoted=False)
            self._spend(found)
            parts.append(found)
        else:
            if stop:
                raise WordError(f"the closing {stop!r} is missing")
        words.end()
        self._depth -= 1
        return "".join(parts), tuple(words.done)

    def _spend(self, found: str) -> None:
        self._room -= len(found)
        if self._room < 0:
            raise WordError(f"it expands to more than {_LENGTH} characters")

    def _single(self, raw: bool) -> str:  # noqa: FBT001 - all three are called alike
        del raw
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordError("the closing single quote is missing")
        start, self._at = self._at, end + 1
        return self._text[start : end + 1] if self._raw_quotes else self._text[start + 1 : end]

    def _double(self, raw: bool) -> str:  # noqa: FBT001 - as above
        quote = self._next()
        parts = [quote] if self._raw_quotes else []
        while (letter := self._peek()) != quote:
            if letter == _END:
                raise WordError("the closing double quote is missing")
            if letter == "$":
                parts.append(self._dollar(raw))
                continue
            self._next()
            if letter == self._escape:
                if raw:
                    parts.append(letter)
                following = self._peek()
                if following == _END:
                    continue
                if following in {'"', "$", self._escape}:
                    letter = self._next()
                elif raw:
                    continue
            parts.append(letter)
        self._next()
        return "".join(parts) + (quote if self._raw_quotes else "")

    # --- variables --------------------------------------------------------------------------------------

    def _dollar(self, raw: bool) -> str:  # noqa: FBT001 - as above
        del raw
        start = self._at
        self._next()
        if self._peek() != "{":
            name = self._name()
            value = self._value(name) if name else "$"
            return self._text[start : self._at] if value is None and self._keep_unset else value or ""
        self._next()
        if self._peek() in {"{", "}", ":", _END}:
            raise WordError("${…} has no name")
        name = self._name()
        found = self._substituted(name)
        if self._keep_unset and name not in self._variables:
            return self._text[start : self._at]
        return found

    def _name(self) -> str:
        start = self._at
        if self._peek().isdigit():
            while self._peek().isdigit():
                self._next()
        elif self._peek() and self._peek() in _SPECIAL:
            self._next()
        else:
            while self._peek().isalnum() or self._peek() == "_":
                self._next()
        return self._text[start : self._at]

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def _substituted(self, name: str) -> str:
        """What comes after the name in ``${name…}``, applied."""
        modifier = self._next()
        if modifier == "}":
            return self._value(name) or ""
        if modifier == ":" and self._peek() in {"-", "+", "?"}:
            return self._chosen(name, self._next(), empty_is_unset=True)
        if modifier in {"-", "+", "?"}:
            return self._chosen(name, modifier, empty_is_unset=False)
        if modifier in {"#", "%"}:
            return self._trimmed(name, modifier)
        if modifier == "/":
            return self._replaced(name)
        if modifier == _END:
            raise WordError("the closing '}' is missing")
        raise WordError(f"${{{name}{modifier}…}} is no substitution; there are :- - :+ + :? ? # ## % %% / //")

    def _chosen(self, name: str, modifier: str, *, empty_is_unset: bool) -> str:
        word, _ = self.read("}", raw=False)
        value = self._value(name)
        there = value is not None and (value != "" or not empty_is_unset)
        if modifier == "+":
            return word if there else ""
        if there:
            return value or ""
        if modifier == "-":
            return word
        raise WordError(f"{name}: {word or 'it must be set' + (' and not empty' if empty_is_unset else '')}")

    def _trimmed(self, name: str, modifier: str) -> str:
        longest = self._peek() == modifier
        if longest:
            self._next()
        word, _ = self.read("}", raw=True)
        trim = without_prefix if modifier == "#" else without_suffix
        return self._matching(lambda: trim(parse_pattern(word), self._value(name) or "", longest=longest))

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        word, _ = self.read("/", raw=True)
        replacement, _ = self.read("}", raw=True)
        return self._matching(
            lambda: replaced(parse_pattern(word), self._value(name) or "", replacement, everywhere=everywhere)
        )

    @staticmethod
    def _matching(match: Callable[[], str]) -> str:
        try:
            return match()
        except WordError:
            raise
        except ValueError as error:
            raise WordError(str(error)) from None
