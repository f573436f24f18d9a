"""Sending blobs: start an upload, send the bytes at once or in chunks, close it with the digest.

distribution-spec 1.1, "Pushing blobs". An upload lives at an address that each answer may change. What may be
repeated differs: starting one twice is harmless, a chunk sent twice is not. So after an accident the registry is
asked: for the blob, because only the answer may have been lost; then, with chunks, for the place that it reached;
and when it does not know that any more, a new upload begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlencode

import attrs

from pycontain.errors import RegistryError, TransferInterrupted
from pycontain.interruption import pause
from pycontain.registry.challenge import to_pull, to_push
from pycontain.registry.session import Purpose
from pycontain.registry.transport import PASSING_TROUBLE, Body, Request, redirected

if TYPE_CHECKING:
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.digest import Digest
    from pycontain.registry.session import Session
    from pycontain.registry.transport import Answer

_BYTES = {"Content-Type": "application/octet-stream"}
_RANGE = re.compile(r"0-([0-9]{1,19})")

# Of an upload that broke off, and that a new one may replace.
_LOST_UPLOAD = {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"}
_LOST_STATUS = PASSING_TROUBLE | {416}
_NO_MOUNT = (401, 403, 404, 405)


def has_blob(session: Session, purpose: Purpose, digest: Digest) -> bool:
    """Whether the repository of *purpose* has the blob."""
    request = Request("HEAD", session.address(purpose.repository, f"blobs/{digest}"))
    with session.send(request, purpose, 200, 404) as answer:
        return answer.status == 200


def mount_blob(session: Session, repository: str, digest: Digest, source: str) -> bool:
    """Make the blob of the repository *source* one of *repository* too; False when the registry does not."""
    purpose = Purpose(f"push to {repository}", repository, [to_push(repository), to_pull(source)])
    query = urlencode({"mount": str(digest), "from": source})
    request = Request("POST", session.address(repository, f"blobs/uploads/?{query}"))
    with session.send(request, purpose, 201, 202, *_NO_MOUNT) as answer:
        mounted = answer.status == 201
    if answer.status == 202:
        # The registry began an upload instead (distribution-spec, "Mounting a blob from another repository").
        session.ask(Request("DELETE", _location_of(answer)), purpose).close()
    return mounted


@attrs.define(eq=False)
class Upload:
    """One blob on its way into a repository."""

    session: Session
    repository: str
    descriptor: Descriptor
    chunk_size: int | None
    _failures: int = 0

    def is_stored(self) -> bool:
        """Whether the registry has the blob."""
        return has_blob(self.session, self._purpose, self.descriptor.digest)

    def perform(self, source: BinaryIO) -> None:
        """Send the bytes of *source*, from its start. Afterwards the registry has the blob."""
        while True:
            try:
                self._send(source)
            except RegistryError as error:
                self._pause(error)
                if self.is_stored():
                    return
            else:
                return

    @property
    def _purpose(self) -> Purpose:
        act = f"push {self.descriptor.digest} to {self.repository}"
        return Purpose(act, self.repository, [to_push(self.repository)])

    def _send(self, source: BinaryIO) -> None:
        request = Request("POST", self.session.address(self.repository, "blobs/uploads/"))
        with self.session.send(request, self._purpose, 202) as answer:
            location = _location_of(answer)
        body = Body(source, self.descriptor.size)
        if self.chunk_size is not None:
            location = self._send_chunks(source, location, max(self.chunk_size, _least_chunk(answer)))
            body = Body.of(b"")
        separator = "&" if "?" in location else "?"
        closing = f"{location}{separator}digest={quote(str(self.descriptor.digest), safe='')}"
        request = Request("PUT", closing, headers=_BYTES, body=body, repeatable=False)
        self.session.send(request, self._purpose, 201).close()

    def _send_chunks(self, source: BinaryIO, location: str, chunk_size: int) -> str:
        offset = 0
        while offset < self.descriptor.size:
            length = min(chunk_size, self.descriptor.size - offset)
            try:
                location = self._send_chunk(location, Body(source, length, offset))
                offset += length
            except RegistryError as error:
                self._pause(error)
                location, offset = self._ask_place(location)
        return location

    def _send_chunk(self, location: str, body: Body) -> str:
        headers = {**_BYTES, "Content-Range": f"{body.offset}-{body.offset + body.length - 1}"}
        request = Request("PATCH", location, headers=headers, body=body, repeatable=False)
        with self.session.send(request, self._purpose, 202) as answer:
            return _location_of(answer)

    def _ask_place(self, location: str) -> tuple[str, int]:
        with self.session.send(Request("GET", location), self._purpose, 204) as answer:
            reached = _RANGE.fullmatch(answer.headers.get("Range", ""))
            # Registries say 0-0 for none and for one byte; the first chunk again is refused if it was one.
            offset = int(reached[1]) + 1 if reached and reached[1] != "0" else 0
            return _location_of(answer, location), offset

    def _pause(self, error: RegistryError) -> None:
        """Wait before another try; raise *error* when it would not help."""
        passing = isinstance(error, TransferInterrupted) or error.status in _LOST_STATUS
        self._failures += 1
        wait = self.session.transport.wait_after(self._failures)
        if wait is None or not (passing or error.code in _LOST_UPLOAD):
            raise error
        pause(wait)


def _least_chunk(answer: Answer) -> int:
    text = answer.headers.get("OCI-Chunk-Min-Length", "")
    return int(text) if text.isdecimal() else 1


def _location_of(answer: Answer, otherwise: str | None = None) -> str:
    """The upload's next address, with the same care as for a redirect."""
    location = answer.headers.get("Location") or otherwise
    if not location:
        raise RegistryError(f"{answer.url} names no place for an upload", status=answer.status)
    return redirected(Request("GET", answer.url), location).url
