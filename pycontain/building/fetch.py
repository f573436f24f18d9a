"""ADD of a URL: over HTTP, verified when the Dockerfile says what it must be."""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pycontain.errors import BuildError

if TYPE_CHECKING:
    from pycontain.building.session import Session

_MOST = 1 << 30
_CHUNK = 1 << 20
_CONNECT, _SILENT = 30.0, 60.0  # seconds
_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)")


def is_url(text: str) -> bool:
    """Whether ADD means something to fetch."""
    return text.startswith(("http://", "https://"))


def check_checksum(text: str) -> None:
    """Raise :class:`ValueError` unless *text* is a digest that can be checked."""
    match = _CHECKSUM.fullmatch(text)
    if match is None or len(match[2]) != 2 * hashlib.new(match[1]).digest_size:
        raise ValueError(f"--checksum={text} is no digest; write sha256:… with 64 hexadecimal digits")


def fetched(url: str, checksum: str, session: Session) -> tuple[str, bytes]:
    """The file's name and its content."""
    import urllib3  # noqa: PLC0415 - few builds fetch anything

    name = posixpath.basename(unquote(urlsplit(url).path))
    if not name or "\0" in name or name in {".", ".."}:
        raise BuildError(f"{url} has no file name", hint="name the file in the destination, and in the URL")
    content = bytearray()
    try:
        with urllib3.PoolManager(
            retries=urllib3.Retry(3), timeout=urllib3.Timeout(connect=_CONNECT, read=_SILENT)
        ) as pool:
            answer = pool.request("GET", url, preload_content=False)
            try:
                if answer.status != 200:
                    raise BuildError(f"{url} answers with status {answer.status}")
                for piece in answer.stream(_CHUNK):
                    session.go_on()
                    content += piece
                    if len(content) > _MOST:
                        raise BuildError(f"{url} has more than {_MOST} bytes")
            finally:
                answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise BuildError(f"{url} cannot be fetched: {error}") from error
    if checksum:
        _check(url, bytes(content), checksum)
    return name, bytes(content)


def _check(url: str, content: bytes, checksum: str) -> None:
    name, _, wanted = checksum.partition(":")
    found = hashlib.new(name, content).hexdigest()
    if found != wanted:
        raise BuildError(f"{url} is {name}:{found}, and should be {checksum}")
