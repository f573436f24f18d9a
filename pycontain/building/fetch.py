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
_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)")


def is_git(text: str) -> bool:
    """Whether ADD means a repository."""
    return text.startswith(("git@", "git://", "ssh://")) or (
        is_url(text) and text.partition("#")[0].endswith(".git")
    )


def is_url(text: str) -> bool:
    """Whether ADD means something to fetch."""
    return text.startswith(("http://", "https://"))


def fetched(url: str, checksum: str, session: Session) -> tuple[str, bytes]:
    """The file's name and its content."""
    import urllib3  # noqa: PLC0415 - few builds fetch anything

    name = posixpath.basename(unquote(urlsplit(url).path))
    if not name or "/" in name or name in {".", ".."}:
        raise BuildError(f"{url} has no file name", hint="name the file in the destination, and in the URL")
    content = bytearray()
    try:
        with urllib3.PoolManager(retries=urllib3.Retry(3)) as pool:
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
    match = _CHECKSUM.fullmatch(checksum)
    if match is None:
        raise BuildError(f"--checksum={checksum} is none", hint="write sha256:…")
    found = hashlib.new(match[1], content).hexdigest()
    if found != match[2]:
        raise BuildError(f"{url} is {match[1]}:{found}, and should be {checksum}")
