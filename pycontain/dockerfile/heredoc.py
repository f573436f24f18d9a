"""Here-documents: ``<<EOF`` in a line, and the lines after it up to ``EOF``."""

from __future__ import annotations

import re

import attrs

from pycontain.dockerfile.words import WordError, expand

_WORD = re.compile(r"(\d*)<<(-?)([^<]*)")


@attrs.frozen
class Heredoc:
    """``<<NAME``, whose *content* follows the line. Unless its name is quoted, variables in it are to be expanded.

    *chomp*, of ``<<-``, removes tabs at the beginning of each line.
    """

    name: str
    expand: bool = True
    chomp: bool = False
    content: str = ""

    def text(self) -> str:
        """The content, chomped when it is to be."""
        if not self.chomp:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc that *word* begins, without content; None when it is another word. :class:`WordError`."""
    match = _WORD.fullmatch(word)
    return _named(match[3], chomp=bool(match[2])) if match and match[3] else None


def _named(text: str, *, chomp: bool) -> Heredoc | None:
    plain = expand(text, {}, keep_unset=True).words
    if len(plain) != 1:
        return None
    raw = expand(text, {}, keep_unset=True, raw=True).words
    return Heredoc(plain[0], expand=raw == plain, chomp=chomp)


def heredocs_in(line: str) -> tuple[Heredoc, ...]:
    """Every heredoc that *line* begins, in order."""
    found = []
    try:
        words = iter(expand(line, {}, keep_unset=True, raw=True).words)
        for word in words:
            match = _WORD.fullmatch(word)
            if match:  # a shell allows spaces before the name
                found.append(_named(match[3] or next(words, ""), chomp=bool(match[2])))
    except WordError:  # a shell may know better what it means
        return ()
    return tuple(filter(None, found))
