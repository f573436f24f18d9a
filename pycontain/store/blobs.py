"""Blobs: immutable bytes under their digest, whole from the moment they can be seen.

A blob is written beside its place, hashed on the way, flushed to the disk and renamed. So whatever ends the writer, and
be it the power, a blob that is there is complete; that its bytes are still the same is checked by who reads them.
Directories are not flushed: file systems keep the order of renames, and a blob that is lost is fetched again.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import attrs

from pycontain.errors import DigestMismatch, InvalidImage, StoreCorrupt, StoreError
from pycontain.oci.codec import MAX_DOCUMENT_BYTES
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import HEX_LENGTHS, Digest
from pycontain.oci.layout import BLOBS, blob_path
from pycontain.store.files import remove_file, storing
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from pycontain.store.folder import Folder

OCTETS: Final = "application/octet-stream"

#: What the lock of a blob on its way is called after its file.
LOCK_SUFFIX: Final = ".lock"

_CHUNK = 2**20
_ANY = Digest("sha256", "0" * 64)  # its algorithm counts


class BlobMissing(StoreError):
    """The store does not have the blob that was asked for."""

    def __init__(self, digest: Digest, path: str) -> None:
        super().__init__(f"the store has no blob {digest}", path=path, hint="pull the image again")


@attrs.frozen
class Blobs:
    """The blobs of the store in *folder*."""

    folder: Folder

    def path(self, digest: Digest) -> str:
        """Where the blob of *digest* is, or would be."""
        return f"{self.folder.path}/{blob_path(digest)}"

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here."""
        return self.size(digest) is not None

    def size(self, digest: Digest) -> int | None:
        """The size of the blob, None when it is not here."""
        with storing(self.folder.path):
            try:
                return os.stat(self.path(digest)).st_size
            except FileNotFoundError:
                return None

    def open(self, digest: Digest) -> BinaryIO:
        """The blob for reading, not verified; the caller closes it."""
        with storing(self.folder.path):
            try:
                return open(self.path(digest), "rb")
            except FileNotFoundError as error:
                raise BlobMissing(digest, self.folder.path) from error

    def read(self, digest: Digest, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """The verified bytes of a blob of up to *limit* bytes."""
        with self.open(digest) as file, storing(self.folder.path):
            content = file.read(limit + 1)
        if len(content) > limit:
            raise InvalidImage(f"the blob {digest} has more than {limit} bytes")
        try:
            digest.check(content)
        except DigestMismatch as error:
            raise StoreCorrupt(
                f"the stored bytes of {digest} have changed: they are {error.found}",
                path=self.path(digest),
                hint="repair the store: Store.verify()",
            ) from error
        return content

    def put(
        self, source: bytes | BinaryIO, expected: Descriptor | None = None, *, media_type: str = OCTETS
    ) -> Descriptor:
        """Store the rest of *source* and describe it; *media_type* says what it is when nothing is *expected*.

        Safe to repeat: success means "these bytes are stored", not "this call stored them". What is stored already is
        not read again. :class:`DigestMismatch` when the bytes are not the expected ones. On failure nothing is visible.
        """
        if isinstance(source, bytes):
            expected = expected or Descriptor.of(source, media_type)
        if expected and self.has(expected.digest):
            return expected
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with Incoming(self, f"put-{os.urandom(12).hex()}", expected, keep=False) as incoming:
            if incoming.complete:  # another process has stored it since we looked
                return incoming.commit(media_type)
            while chunk := stream.read(_CHUNK):
                incoming.write(chunk)
            return incoming.commit(media_type)

    def partial(self, descriptor: Descriptor, *, timeout: float | None = None) -> Incoming:
        """Begin to store the blob of *descriptor*, or go on where an earlier try, of any process, ended.

        A context manager; left without a commit, it keeps the bytes for the next try. When another process is
        at the same blob, it waits for it, for *timeout* seconds or for ever, and then mostly finds the blob
        :attr:`~Incoming.complete`. Hold one at a time in each thread: who waits for a second while holding the first can
        wait in a circle.
        """
        name = f"{descriptor.digest.algorithm}-{descriptor.digest.hex}"
        return Incoming(self, name, descriptor, keep=True, timeout=timeout)

    def __iter__(self) -> Iterator[Digest]:
        """Every blob whose digest pycontain can compute, in no order."""
        for algorithm, length in HEX_LENGTHS.items():
            try:
                names = os.listdir(f"{self.folder.path}/{BLOBS}/{algorithm}")
            except FileNotFoundError:
                continue
            # Other programs may write beside a blob before they rename it.
            yield from (Digest(algorithm, name) for name in names if len(name) == length and name.isalnum())

    def remove(self, digest: Digest) -> None:
        """Remove a blob; nothing to do when it is gone. Who reads it can go on."""
        with storing(self.folder.path):
            remove_file(self.path(digest))


class Incoming:
    """A blob on its way into the store, which nobody else writes meanwhile.

    ``offset`` bytes of it are here. ``complete`` says that there is nothing to do: the blob is in the store.
    """

    def __init__(
        self,
        blobs: Blobs,
        name: str,
        expected: Descriptor | None,
        *,
        keep: bool,
        timeout: float | None = None,
    ) -> None:
        self.offset = 0
        self.complete = False
        self._blobs = blobs
        self._expected = expected
        self._keep = keep
        self._path = f"{blobs.folder.partial}/{name}"
        self._fd = -1
        self._hash = (expected.digest if expected else _ANY).hasher()
        with storing(blobs.folder.path):
            self._lock = Lock.take(self._path + LOCK_SUFFIX, timeout=timeout)
            try:
                self._begin()
            except BaseException:
                self._close()
                raise

    def _begin(self) -> None:
        stored = self._blobs.size(self._expected.digest) if self._expected else None
        if stored is not None:
            self.complete, self.offset = True, stored
            self._lock.remove()
            return
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        while chunk := os.read(self._fd, _CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)
        if self._expected and self.offset > self._expected.size:
            self.restart()

    @property
    def remaining(self) -> int:
        """How many bytes are missing. Only for a blob that is expected."""
        assert self._expected
        return self._expected.size - self.offset

    def open(self) -> BinaryIO:
        """The bytes that are here, for reading from the first; the caller closes it. It stays valid."""
        with storing(self._blobs.folder.path):
            return open(self._blobs.path(self._digest) if self.complete else self._path, "rb")

    def write(self, chunk: bytes | memoryview) -> None:
        """Add *chunk*. When the disk is full, what did fit is kept."""
        if self._expected and len(chunk) > self.remaining:
            self.restart()
            raise DigestMismatch(
                f"{self._digest} should have {self._expected.size} bytes, and more are coming",
                expected=str(self._digest),
            )
        left = memoryview(chunk)
        with storing(self._blobs.folder.path):
            while left:
                written = os.write(self._fd, left)
                self._hash.update(left[:written])
                self.offset += written
                left = left[written:]

    def restart(self) -> None:
        """Forget the bytes that are here; :attr:`offset` is 0."""
        with storing(self._blobs.folder.path):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = self._digest.hasher()
        self.offset = 0

    def commit(self, media_type: str = OCTETS) -> Descriptor:
        """Verify the blob and make it visible.

        :class:`DigestMismatch` when it is not what was expected, and then its bytes are forgotten. One that is only too
        short fails too, and is kept.
        """
        if self.complete:
            assert self._expected
            return self._expected
        if self._expected:
            self._check(self._expected)
        found = self._expected or Descriptor(
            media_type, Digest("sha256", self._hash.hexdigest()), self.offset
        )
        with storing(self._blobs.folder.path):
            os.fdatasync(self._fd)
            _rename(self._path, self._blobs.path(found.digest))
        self._expected, self.complete = found, True
        self._close()
        return found

    def _check(self, expected: Descriptor) -> None:
        if self.offset < expected.size:
            raise DigestMismatch(
                f"{expected.digest} should have {expected.size} bytes, and only {self.offset} came",
                expected=str(expected.digest),
            )
        try:
            expected.digest.check_hex(self._hash.hexdigest())
        except DigestMismatch:
            self.restart()
            raise

    @property
    def _digest(self) -> Digest:
        return self._expected.digest if self._expected else _ANY

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.complete and not (self._keep and self.offset):
            remove_file(self._path)
        self._close()


def _rename(path: str, place: str) -> None:
    try:
        os.rename(path, place)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(place), exist_ok=True)  # of another algorithm than sha256
        os.rename(path, place)
