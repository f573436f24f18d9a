"""HTTP with manners: the only module that talks it, and the only one that knows urllib3.

What holds for every request:

* An ``Authorization`` header goes to the scheme, host and port for which it was made, and not along a redirect
  to another. A redirect from TLS to plain HTTP is refused.
* What may be repeated is repeated after an accident (a broken or silent connection, a status of
  :data:`PASSING_TROUBLE`), with back-off, and not before the time that Retry-After asks for.
* Errors of urllib3, TLS and sockets become kin of :class:`RegistryError`, with the original as cause.
* Nothing is read without a limit, and nothing is decompressed.

Redirects and retries are ours, because urllib3's would carry headers along and read bodies that we must bound.
A transport may be used by many threads, and by a forked child, which gets connections of its own.
"""

from __future__ import annotations

import io
import os
import random
import re
import socket
import time
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self
from urllib.parse import unquote, urljoin, urlsplit

import attrs

from pycontain.errors import InvalidImage, RegistryError, TransferInterrupted
from pycontain.interruption import Interrupted, pause
from pycontain.oci.codec import EMPTY, FrozenMap, frozen
from pycontain.registry.settings import is_loopback

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    import urllib3

    from pycontain.registry.settings import RegistrySettings

MAX_REDIRECTS: Final = 5

#: Statuses that another try may not meet: 408, 429 and those of servers and gateways in trouble.
PASSING_TROUBLE: Final = frozenset({408, 429, 500, 502, 503, 504})

TOO_MANY_REQUESTS: Final = 429

_READS = frozenset({"GET", "HEAD"})
_BLOCK = 2**18
_LITTLE = 2**16  # reading so much to its end is cheaper than a new connection
_MAX_IDLE = 8  # connections kept for each host; layers come in parallel
_USER_AGENT = "pycontain"


@attrs.frozen
class Body:
    """*length* bytes of *source* from *offset*, to be sent, maybe more than once."""

    source: BinaryIO
    length: int
    offset: int = 0

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Send *content*."""
        return cls(io.BytesIO(content), len(content))


def _headers(members: Mapping[str, str]) -> FrozenMap[str]:
    return frozen(members)


@attrs.frozen
class Request:
    """One request. ``repeatable`` says that doing it twice is as good as doing it once.

    ``authorization`` is for the origin of ``url``. ``confined`` requests carry a secret in their body and follow no
    redirect to another origin.
    """

    method: str
    url: str
    headers: FrozenMap[str] = attrs.field(default=EMPTY, converter=_headers)
    body: Body | None = attrs.field(default=None, repr=False)
    authorization: str = attrs.field(default="", repr=False)
    repeatable: bool = True
    confined: bool = False


@attrs.define(eq=False)
class Answer:
    """A status, headers, and a body that is still to be read. Close it, or use it in a ``with``.

    ``url`` is where it came from, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    _stream: urllib3.BaseHTTPResponse = attrs.field(repr=False)

    def read(self, size: int = _BLOCK) -> bytes:
        """Some bytes, at most *size*; none at the end. :class:`TransferInterrupted` when the connection breaks."""
        with _translated(self.url):
            return self._stream.read1(size, decode_content=False)

    def read_all(self, limit: int) -> bytes:
        """The whole body; :class:`RegistryError` when it is longer than *limit*."""
        content = self.read_start(limit + 1)
        if len(content) > limit:
            host = host_of(self.url)
            raise RegistryError(
                f"{host} sends more than the {limit} bytes that an answer may have", registry=host
            )
        return content

    def read_start(self, limit: int) -> bytes:
        """The body up to *limit* bytes."""
        blocks = []
        while limit > 0 and (block := self.read(min(limit, _BLOCK))):
            blocks.append(block)
            limit -= len(block)
        return b"".join(blocks)

    def skip(self, size: int) -> None:
        """Pass over *size* bytes."""
        while size > 0 and (block := self.read(min(size, _BLOCK))):
            size -= len(block)

    def close(self) -> None:
        """Give the connection back, or end it when much is left unread. May be called twice."""
        try:
            left = self._stream.length_remaining
            if left is not None and left <= _LITTLE and not self._stream.closed:
                self.read_start(_LITTLE)
        except RegistryError:
            pass  # nobody waits for these bytes
        finally:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@attrs.frozen
class _PoolKey:
    pid: int
    tls: bool
    proxy: str | None


@attrs.define(eq=False)
class Transport:
    """Sends requests as the settings of one registry say. Connections are made when needed and kept for the next."""

    settings: RegistrySettings
    _pools: dict[_PoolKey, urllib3.PoolManager] = attrs.field(factory=dict, repr=False)
    _opened: weakref.WeakSet[socket.socket] = attrs.field(factory=weakref.WeakSet, repr=False)
    _interrupted: bool = False

    def send(self, request: Request) -> Answer:
        """The answer, whatever its status, after redirects and retries. The caller closes it."""
        attempt = 1
        while True:
            try:
                answer = self._follow(request)
                wait = self._wait_after(request, attempt, answer)
                if wait is None:
                    return answer
                answer.close()
            except TransferInterrupted:
                wait = self.wait_after(attempt) if request.repeatable else None
                if wait is None:
                    raise
            pause(wait)
            attempt += 1

    def fetch(self, open_answer: Callable[[], Answer], limit: int) -> tuple[Answer, bytes]:
        """The answer, closed, and its whole body; *open_answer* is called again when reading the body breaks."""
        attempt = 1
        while True:
            with open_answer() as answer:
                try:
                    return answer, answer.read_all(limit)
                except TransferInterrupted:
                    wait = self.wait_after(attempt)
                    if wait is None:
                        raise
            pause(wait)
            attempt += 1

    def wait_after(self, attempt: int, asked: float = 0.0) -> float | None:
        """Seconds to wait after failed attempt number *attempt*, None to give up."""
        return self.settings.retries.wait_after(attempt, random.random(), asked)  # noqa: S311 - jitter is no secret

    def close(self) -> None:
        """End all idle connections. The transport may be used again."""
        while self._pools:
            self._pools.popitem()[1].clear()

    def _wait_after(self, request: Request, attempt: int, answer: Answer) -> float | None:
        # A server that limits the rate has not looked at the request, so any may be repeated.
        repeatable = request.repeatable or answer.status == TOO_MANY_REQUESTS
        if not repeatable or answer.status not in PASSING_TROUBLE:
            return None
        return self.wait_after(attempt, retry_after(answer.headers))

    # --- redirects --------------------------------------------------------------------------------------

    def _follow(self, request: Request) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._exchange(request)
            location = answer.headers.get("Location")
            if not location or not _is_redirect(request.method, answer.status):
                return answer
            answer.close()
            request = redirected(request, location)
        raise RegistryError(
            f"{host_of(request.url)} redirects more than {MAX_REDIRECTS} times", registry=host_of(request.url)
        )

    def _exchange(self, request: Request) -> Answer:
        headers = {"User-Agent": _USER_AGENT, **request.headers}
        if request.authorization:
            headers["Authorization"] = request.authorization
        body: _Reader | None = None
        if request.body:
            headers["Content-Length"] = str(request.body.length)
            body = _Reader(request.body)
        with _translated(request.url):
            stream = self._pool_for(request.url).urlopen(
                request.method,
                request.url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        return Answer(stream.status, stream.headers, request.url, stream)

    # --- connections ------------------------------------------------------------------------------------

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        # After a fork the parent's sockets are still open in the child, and must stay the parent's.
        key = _PoolKey(os.getpid(), url.startswith("https:"), _proxy_for(url))
        pool = self._pools.get(key)
        if pool is None:
            # Two threads may both come here; setdefault keeps one pool and the other was never used.
            pool = self._pools.setdefault(key, self._new_pool(key.proxy, tls=key.tls))
        return pool

    def _new_pool(self, proxy: str | None, *, tls: bool) -> urllib3.PoolManager:
        import urllib3  # noqa: PLC0415 - nothing but a registry needs it

        timeout = urllib3.Timeout(connect=self.settings.connect_timeout, read=self.settings.read_timeout)
        options: dict[str, Any] = {
            "maxsize": _MAX_IDLE,
            "timeout": timeout,
            "blocksize": _BLOCK,
            "ssl_context": _tls_context(self.settings) if tls else None,
        }
        if proxy is None:
            pool = urllib3.PoolManager(**options)
        else:
            userinfo = urllib3.util.parse_url(proxy).auth
            headers = urllib3.make_headers(proxy_basic_auth=unquote(userinfo)) if userinfo else None
            pool = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
        pool.pool_classes_by_scheme = _pool_classes(self._connected, verified=self.settings.tls_verify)
        return pool

    # --- interruption -----------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Break all connections, and make no more. In any thread."""
        self._interrupted = True
        for each in list(self._opened):
            with suppress(OSError):  # it was closed
                # The method of TLS sockets would take their state away from who is reading.
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def _connected(self, opened: socket.socket) -> None:
        self._opened.add(opened)
        if self._interrupted:
            raise Interrupted


# --- addresses ------------------------------------------------------------------------------------------


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what must be the same for an Authorization header to be sent."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError) as error:
        raise RegistryError(f"{_without_query(url)!r} is no address that can be asked") from error
    return parts.scheme, parts.hostname or "", port


_PORTS = {"http": 80, "https": 443}
_END_OF_HOST = re.compile(r"[/?#\\]")


def host_of(url: str) -> str:
    """Host and port as in the text of *url*, without a user name and a password."""
    return _END_OF_HOST.split(url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]


def redirected(request: Request, location: str) -> Request:
    """*request* sent to *location* instead, with what may go along."""
    url = _joined(request.url, location)
    before, after = origin_of(request.url), origin_of(url)
    if before == after:
        return attrs.evolve(request, url=url)
    if before[0] == "https" and after[0] != "https":
        raise RegistryError(
            f"{host_of(request.url)} redirects to {host_of(url)} without TLS, which is refused",
            registry=host_of(request.url),
        )
    if request.confined:
        raise RegistryError(
            f"{host_of(request.url)} redirects a request with a secret to {host_of(url)}, which is refused",
            registry=host_of(request.url),
        )
    return attrs.evolve(request, url=url, authorization="")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise RegistryError(f"{host_of(url)} redirects to no address that can be asked") from error


def _is_redirect(method: str, status: int) -> bool:
    # RFC 9110, 15.4: with the older statuses a client may change the method, so only reads follow them.
    return status in ({301, 302, 303, 307, 308} if method in _READS else {307, 308})


def _without_query(url: str) -> str:
    # Queries carry signatures, and the part before @ a password.
    return url.partition("?")[0].rpartition("@")[2][:200]


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names, as Go programs do it: never for loopback addresses."""
    from urllib import request  # noqa: PLC0415 - heavy

    proxies = request.getproxies_environment()
    proxy = proxies.get(url.partition(":")[0]) or proxies.get("all")
    host = host_of(url)
    bypass = request.proxy_bypass_environment  # type: ignore[attr-defined] # typeshed knows only macOS's
    if not proxy or is_loopback(host) or bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait (RFC 9110, 10.2.3); 0 when it does not, or nothing that can be read."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - heavy, and for bad days

    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


# --- what urllib3 is given ------------------------------------------------------------------------------


class _Reader:
    """A body as a file that urllib3 reads once."""

    def __init__(self, body: Body) -> None:
        body.source.seek(body.offset)
        self._source, self._left = body.source, body.length

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            return b""
        content = self._source.read(self._left if size < 0 else min(size, self._left))
        if not content:
            # Not an OSError: urllib3 would take it for the network's.
            raise InvalidImage(f"the content to be sent ends {self._left} bytes before its length")
        self._left -= len(content)
        return content


def _tls_context(settings: RegistrySettings) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - 20 ms, and nothing but TLS needs it

    context = ssl.create_default_context()
    if settings.ca is not None:
        try:
            context.load_verify_locations(
                **{"capath" if os.path.isdir(settings.ca) else "cafile": settings.ca}
            )
        except OSError as error:  # also what ssl raises
            raise RegistryError(
                f"{settings.ca} cannot be used as certificates to trust: {error.strerror or error}",
                hint="ca= takes a PEM file, or a folder as c_rehash makes it",
            ) from error
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _pool_classes(
    tell: Callable[[socket.socket], None], *, verified: bool
) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Pools that *tell* of each connection, and unless it is *verified* do not warn: the caller has said that it need not be."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - as above
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415 - as above

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            tell(made)
            return made

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            tell(made)  # for the time of the handshake
            return made

        def connect(self) -> None:
            super().connect()
            if isinstance(self.sock, socket.socket):
                tell(self.sock)  # which has taken the descriptor over
            if not verified:
                self.is_verified = True

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


# --- errors ---------------------------------------------------------------------------------------------


@contextmanager
def _translated(url: str) -> Iterator[None]:
    from urllib3 import exceptions as foreign  # noqa: PLC0415 - as above

    host = host_of(url)
    try:
        yield
    except foreign.SSLError as error:
        raise _tls_error(host, error.args[0]) from error
    except foreign.ProxyError as error:
        raise TransferInterrupted(
            f"{host} cannot be reached through the proxy",
            registry=host,
            hint="the proxy comes from HTTPS_PROXY, HTTP_PROXY or ALL_PROXY; NO_PROXY lists hosts to reach without",
        ) from error
    except foreign.NameResolutionError as error:
        raise RegistryError(
            f"there is no host {host}", registry=host, hint="check the name, and that this machine has DNS"
        ) from error
    except foreign.ConnectTimeoutError as error:  # also its kin NewConnectionError
        raise TransferInterrupted(
            f"{host} cannot be reached", registry=host, hint="check that it runs and that the port is right"
        ) from error
    except foreign.ReadTimeoutError as error:
        raise TransferInterrupted(f"{host} stopped answering", registry=host) from error
    except foreign.LocationValueError as error:
        raise RegistryError(f"{_without_query(url)!r} is no address that can be asked") from error
    except foreign.HTTPError as error:
        raise TransferInterrupted(f"the connection to {host} broke", registry=host) from error


# What OpenSSL calls it when the other side answers something that is not TLS.
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}


def _tls_error(host: str, error: Exception) -> RegistryError:
    import ssl  # noqa: PLC0415 - as above

    if isinstance(error, ssl.SSLCertVerificationError):
        return RegistryError(
            f"the certificate of {host} is not trusted: {error.verify_message}",
            registry=host,
            hint="pass the certificate of its authority with ca=, or tls_verify=False to trust anybody",
        )
    if getattr(error, "reason", None) in _NOT_TLS:
        return RegistryError(
            f"{host} does not speak TLS",
            registry=host,
            hint="when plain HTTP is really meant, use plain_http=True",
        )
    return TransferInterrupted(f"the TLS connection to {host} broke", registry=host)
