"""One registry or mirror, asked with authorization: a transport, an authorizer and an address as one."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import attrs

from pycontain.registry.auth import Authorizer
from pycontain.registry.challenge import Scope, merged, to_pull
from pycontain.registry.credentials import find_credentials
from pycontain.registry.failure import refusal
from pycontain.registry.transport import Request, Transport, origin_of

if TYPE_CHECKING:
    from pycontain.registry.auth import CredentialSource
    from pycontain.registry.credentials import Credentials
    from pycontain.registry.settings import Endpoint, RegistrySettings
    from pycontain.registry.transport import Answer

BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401


@attrs.frozen
class Purpose:
    """What a request is for: the words for its failure, what must be allowed, what a 404 means.

    ``act`` completes "cannot …"; with ``reference``, a 404 is :class:`ImageNotFound`.
    """

    act: str
    repository: str
    scopes: frozenset[Scope] = attrs.field(converter=merged)
    reference: str = ""

    @classmethod
    def pull(cls, repository: str, what: str, reference: str = "") -> Self:
        """Read *what*."""
        return cls(f"pull {what}", repository, [to_pull(repository)], reference)


@attrs.define(eq=False)
class Session:
    """Requests to one endpoint. Threads may share it."""

    endpoint: Endpoint
    transport: Transport = attrs.field(repr=False)
    authorizer: Authorizer = attrs.field(repr=False)
    _scheme: str
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, endpoint: Endpoint, settings: RegistrySettings, auth: Credentials | None) -> Self:
        """A session that talks to nobody before its first request. *auth* goes before what files say."""
        transport = Transport(settings)
        authorizer = Authorizer(endpoint.name, transport, _source(endpoint.name, auth))
        return cls(endpoint, transport, authorizer, endpoint.scheme)

    def close(self) -> None:
        """End idle connections."""
        self.transport.close()

    def repository(self, name: str) -> str:
        """The registry's repository *name*, as this endpoint calls it."""
        return f"{self.endpoint.prefix}/{name}" if self.endpoint.prefix else name

    def address(self, repository: str, path: str) -> str:
        """Where *path* of *repository* is."""
        return f"{self._found_scheme()}://{self.endpoint.host}/v2/{repository}/{path}"

    def send(self, request: Request, purpose: Purpose, *good: int) -> Answer:
        """The answer when its status is one of *good*; any other is raised as :func:`refusal` says."""
        answer = self.ask(request, purpose)
        if answer.status in good:
            return answer
        raise refusal(
            answer,
            registry=self.endpoint.name,
            act=purpose.act,
            authorization=self.authorizer.authorization(purpose.scopes),
            reference=purpose.reference,
        )

    def fetch(self, request: Request, purpose: Purpose, limit: int) -> tuple[Answer, bytes]:
        """The answer to a read, and its whole body."""
        return self.transport.fetch(lambda: self.send(request, purpose, 200), limit)

    def ask(self, request: Request, purpose: Purpose) -> Answer:
        """The answer, whatever it says after a challenge was met. The caller closes it."""
        authorization = self.authorizer.authorization(purpose.scopes)
        answer = self._authorized(request, authorization)
        # Only the registry may ask who we are, not a host to which it redirects.
        if answer.status != UNAUTHORIZED or not self._is_ours(answer.url):
            return answer
        answer.close()
        authorization = self.authorizer.answer(answer, purpose.repository, purpose.scopes, authorization)
        return self._authorized(request, authorization)

    def _authorized(self, request: Request, authorization: str) -> Answer:
        # An upload's address is the registry's choice, and may be elsewhere.
        ours = authorization if self._is_ours(request.url) else ""
        return self.transport.send(attrs.evolve(request, authorization=ours))

    def _is_ours(self, url: str) -> bool:
        return origin_of(url) == origin_of(f"{self._found_scheme()}://{self.endpoint.host}")

    def _found_scheme(self) -> str:
        with self._lock:
            if not self._scheme:
                # distribution-spec, end-1: a registry says 200, 401 or 404 here. Servers that expect TLS say 400.
                with self.transport.send(Request("GET", f"http://{self.endpoint.host}/v2/")) as answer:
                    self._scheme = "https" if answer.status == BAD_REQUEST else "http"
            return self._scheme


def _source(registry: str, auth: Credentials | None) -> CredentialSource:
    if auth is not None:
        return lambda _: auth
    return partial(find_credentials, registry)
