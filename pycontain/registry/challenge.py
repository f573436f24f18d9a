"""How a registry asks who we are: the challenges of WWW-Authenticate, and the scopes of tokens. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from pycontain.oci.codec import EMPTY, FrozenMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_CHALLENGE: Final = 16 * 2**10

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2, "token"
# One item of the list: a scheme, a parameter, or a scheme with its first parameter (RFC 9110, 11.6.1).
_ITEM = re.compile(
    rf"[ \t,]*(?:(?P<scheme>{_WORD})(?:[ \t]+(?=[^ \t,=])|(?=[ \t]*(?:,|$))))?"
    rf"(?:(?P<name>{_WORD})[ \t]*=[ \t]*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>{_WORD})))?"
)
_ESCAPED = re.compile(r"\\(.)")


@attrs.frozen
class Challenge:
    """One way to authenticate that a server offers; ``scheme`` and the names of parameters are lower-case."""

    scheme: str
    parameters: FrozenMap[str] = EMPTY


def parse_challenges(text: str) -> tuple[Challenge, ...]:
    """Read a WWW-Authenticate header. What breaks the grammar ends the list: servers are not all careful."""
    found: list[tuple[str, dict[str, str]]] = []
    for scheme, name, value in _items(text[:MAX_CHALLENGE]):
        if scheme:
            found.append((scheme, {}))
        if name and found:
            found[-1][1].setdefault(name, value)
    return tuple(Challenge(scheme, FrozenMap(parameters)) for scheme, parameters in found)


def _items(text: str) -> Iterator[tuple[str, str, str]]:
    place = 0
    while (item := _ITEM.match(text, place)) and item.lastgroup:
        quoted, plain = item["quoted"], item["plain"]
        value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain or ""
        yield (item["scheme"] or "").lower(), (item["name"] or "").lower(), value
        place = item.end()


# --- scopes ---------------------------------------------------------------------------------------------


def _actions(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen(order=True)
class Scope:
    """What a token allows: actions on one resource, ``repository:library/alpine:pull``."""

    resource: str
    actions: frozenset[str] = attrs.field(converter=_actions, order=sorted)

    def __str__(self) -> str:
        return f"{self.resource}:{','.join(sorted(self.actions))}"


def to_pull(repository: str) -> Scope:
    """Read *repository*."""
    return Scope(f"repository:{repository}", ("pull",))


def to_push(repository: str) -> Scope:
    """Read and write *repository*."""
    return Scope(f"repository:{repository}", ("pull", "push"))


def parse_scopes(text: str) -> frozenset[Scope]:
    """Read the scopes of a challenge: words of ``type:name:action,action``. Others are left out."""
    return merged(
        Scope(resource, [action for action in actions.split(",") if action])
        for resource, colon, actions in (word.rpartition(":") for word in text.split())
        if colon and ":" in resource
    )


def merged(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The same permissions with one scope for each resource."""
    actions: dict[str, frozenset[str]] = {}
    for scope in scopes:
        actions[scope.resource] = actions.get(scope.resource, frozenset()) | scope.actions
    return frozenset(Scope(resource, allowed) for resource, allowed in actions.items())
