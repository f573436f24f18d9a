"""Answering a registry's challenge: with a user name and password, or with a token from its token server.

::

    registry     401, WWW-Authenticate: Bearer realm="https://auth…/token",service="…",scope="repository:a:pull"
    token server GET realm?service&scope [Basic]     or, with an identity token, POST realm, grant_type=refresh_token
    registry     the same request again, Authorization: Bearer TOKEN

(distribution, "Token Authentication" and "OAuth2 token".) Credentials are looked up when a challenge comes, and not
kept; tokens are kept for their scopes until shortly before they expire. The token server is the registry's choice,
so credentials go to it; they go without TLS only when the registry itself is spoken to without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlencode

import attrs

from pycontain.errors import InvalidImage, RegistryError, Unauthorized
from pycontain.oci.codec import FrozenMap, Json, parse_json
from pycontain.registry.challenge import Challenge, Scope, merged, parse_challenges, parse_scopes
from pycontain.registry.credentials import Credentials
from pycontain.registry.transport import Body, Request, host_of, origin_of

if TYPE_CHECKING:
    from pycontain.registry.transport import Answer, Transport

MAX_TOKEN_BYTES: Final = 2**18

_CLIENT = "pycontain"
_SHORTEST_LIFE = 60.0  # what a token lives at least, and when the server does not say (distribution, "token")
_LONGEST_LIFE = 86400.0
_MARGIN = 10.0  # seconds before its end from which a token is not used any more

#: Finds the credentials for a repository, or None.
CredentialSource: TypeAlias = Callable[[str], Credentials | None]


@attrs.frozen
class _Kept:
    authorization: str = attrs.field(repr=False)
    until: float = float("inf")


@attrs.define(eq=False)
class Authorizer:
    """The tokens and passwords of one registry. Threads may share it."""

    registry: str
    transport: Transport = attrs.field(repr=False)
    find: CredentialSource = attrs.field(repr=False)
    _kept: dict[frozenset[Scope], _Kept] = attrs.field(factory=dict, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    def authorization(self, scopes: frozenset[Scope]) -> str:
        """The header for a request that needs *scopes*, when an earlier challenge told it; else empty."""
        kept = self._kept.get(scopes)
        return kept.authorization if kept and time.monotonic() < kept.until else ""

    def answer(self, challenged: Answer, repository: str, scopes: frozenset[Scope], refused: str) -> str:
        """The header that answers the challenge in *challenged*, a 401 to a request with *refused*.

        Raises :class:`Unauthorized` when there is nothing better to say than *refused*.
        """
        with self._lock:
            known = self.authorization(scopes)
            if known and known != refused:
                return known  # another thread was here first
            self._kept[scopes] = kept = self._ask(challenged, repository, scopes)
        if kept.authorization == refused:
            raise self._unauthorized("does not accept the credentials", "log in again, or correct auth=")
        return kept.authorization

    def _ask(self, challenged: Answer, repository: str, scopes: frozenset[Scope]) -> _Kept:
        challenges = {
            challenge.scheme: challenge
            for challenge in reversed(parse_challenges(challenged.headers.get("WWW-Authenticate", "")))
        }
        credentials = self.find(repository)
        if credentials and credentials.registry_token:
            return _Kept(f"Bearer {credentials.registry_token}")
        if "bearer" in challenges:
            wanted = merged([*scopes, *parse_scopes(challenges["bearer"].parameters.get("scope", ""))])
            return self._fetch_token(challenges["bearer"], wanted, credentials, challenged.url)
        if "basic" not in challenges:
            offered = ", ".join(challenges) or "nothing that can be read"
            raise self._unauthorized(
                f"asks for authentication by {offered}", "pycontain speaks Basic and Bearer"
            )
        if not credentials:
            raise self._unauthorized(
                "wants a user name and a password",
                f"log in to {self.registry}, or pass auth=Credentials(username, password)",
            )
        return _Kept(credentials.basic())

    def _fetch_token(
        self, challenge: Challenge, scopes: frozenset[Scope], credentials: Credentials | None, asked_from: str
    ) -> _Kept:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm, asked_from)
        query = [("service", challenge.parameters.get("service", ""))]
        query += [("scope", str(scope)) for scope in sorted(scopes)]
        if credentials and credentials.identity_token:
            request = _exchange(realm, query, credentials.identity_token)
        else:
            request = _question(realm, query, credentials)
        start = time.monotonic()
        _, content = self.transport.fetch(lambda: self._send(request), MAX_TOKEN_BYTES)
        token, lifetime = _parse_token(content, host_of(realm))
        return _Kept(f"Bearer {token}", start + lifetime - _MARGIN)

    def _send(self, request: Request) -> Answer:
        answer = self.transport.send(request)
        if answer.status != 200:
            answer.close()
            raise self._no_token(request.url, answer.status)
        return answer

    def _check_realm(self, realm: str, asked_from: str) -> None:
        if origin_of(realm)[0] == "http" and asked_from.startswith("https:"):
            raise RegistryError(
                f"{self.registry} names a token server without TLS, {host_of(realm)}, which is refused",
                registry=self.registry,
            )

    def _no_token(self, realm: str, status: int) -> RegistryError:
        # The server's words are left out: it may repeat what it was sent.
        sentence = f"{host_of(realm)}, the token server of {self.registry}, gives no token (HTTP {status})"
        if status in (401, 403):
            return Unauthorized(
                sentence,
                registry=self.registry,
                status=status,
                hint=f"log in to {self.registry} again, or correct auth=",
            )
        return RegistryError(sentence, registry=self.registry, status=status)

    def _unauthorized(self, what: str, hint: str) -> Unauthorized:
        return Unauthorized(f"{self.registry} {what}", registry=self.registry, status=401, hint=hint)


def _question(realm: str, query: list[tuple[str, str]], credentials: Credentials | None) -> Request:
    authorization = ""
    if credentials:
        query = [*query, ("account", credentials.username)]
        authorization = credentials.basic()
    separator = "&" if "?" in realm else "?"
    return Request("GET", realm + separator + urlencode(query), authorization=authorization)


def _exchange(realm: str, query: list[tuple[str, str]], identity_token: str) -> Request:
    scopes = " ".join(value for name, value in query if name == "scope")
    form = {
        "grant_type": "refresh_token",
        "service": query[0][1],
        "client_id": _CLIENT,
        "scope": scopes,
        "refresh_token": identity_token,
    }
    return Request(
        "POST",
        realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=Body.of(urlencode(form).encode()),
        confined=True,
    )


def _parse_token(content: bytes, server: str) -> tuple[str, float]:
    try:
        members = parse_json(content, "token")
    except InvalidImage:
        members = None  # the cause could quote the token
    if not isinstance(members, FrozenMap):
        raise RegistryError(f"{server} gives a token that cannot be read", registry=server)
    token = members.get("token") or members.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryError(f"{server} gives a token that cannot be read", registry=server)
    return token, _lifetime_of(members.get("expires_in"))


def _lifetime_of(expires_in: Json) -> float:
    if not isinstance(expires_in, int | float):
        return _SHORTEST_LIFE
    return float(min(max(expires_in, _SHORTEST_LIFE), _LONGEST_LIFE))
