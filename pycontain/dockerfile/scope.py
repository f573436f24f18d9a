"""Which variables an instruction sees: those of the image, and the build arguments that its stage has declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pycontain.dockerfile.words import WordError, expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pycontain.dockerfile.instructions import Arg, Instruction
    from pycontain.dockerfile.parser import Document

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

#: Build arguments that RUN has without an ARG, and that are in no history and no key of the cache.
PROXIES: Final = frozenset((*_PROXIES, *map(str.lower, _PROXIES)))


@attrs.frozen
class Scope:
    """The variables at one place in a stage. *given* are build arguments, *defaults* what ARG before FROM and the platform say."""

    document: Document
    given: Mapping[str, str]
    defaults: Mapping[str, str]
    env: Mapping[str, str] = attrs.field(factory=dict)
    args: Mapping[str, str] = attrs.field(factory=dict)

    def declared(self, arg: Arg) -> Scope:
        """The scope after *arg*."""
        args = dict(self.args)
        for name, default in arg.pairs:
            if name in self.given:
                args[name] = self.given[name]
            elif default is not None:
                args[name] = attrs.evolve(self, args=args).text(arg, default)
            elif name in self.defaults:
                args[name] = self.defaults[name]
        return attrs.evolve(self, args=args)

    def with_env(self, entries: Iterable[str]) -> Scope:
        """The scope after ENV has made these ``NAME=value`` of the image."""
        return attrs.evolve(self, env=dict(entry.split("=", 1) for entry in entries))

    @property
    def variables(self) -> dict[str, str]:
        """All of them: ENV wins over ARG."""
        return {**self.args, **self.env}

    @property
    def arguments(self) -> dict[str, str]:
        """What RUN gets beside the variables of the image."""
        return {
            name: value for name, value in self.args.items() if name not in self.env and name not in PROXIES
        }

    @property
    def proxies(self) -> dict[str, str]:
        """What RUN gets and nobody writes down."""
        return {name: value for name, value in self.given.items() if name in PROXIES and name not in self.env}

    def text(self, one: Instruction, word: str, *, quotes: bool = True) -> str:
        """*word* expanded; :class:`DockerfileError` for the line of *one*."""
        return self._expand(one, word, quotes=quotes)[0]

    def words(self, one: Instruction, word: str) -> tuple[str, ...]:
        """The same, divided at spaces."""
        return self._expand(one, word, quotes=True)[1]

    def _expand(self, one: Instruction, word: str, *, quotes: bool) -> tuple[str, tuple[str, ...]]:
        try:
            found = expand(word, self.variables, self.document.escape, quotes=quotes)
        except WordError as error:
            shown = word if len(word) < 80 else f"{word[:77]}…"
            raise self.document.error(f"{shown!r} cannot be expanded: {error}", one.lines) from None
        return found.text, found.words
