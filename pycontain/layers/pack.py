"""Writing a layer: compressed, and hashed on both sides of the compressor in the same pass."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs

from pycontain.interruption import go_on
from pycontain.layers.compression import Compression, compress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO


@attrs.frozen
class Packed:
    """A layer that was written: *diff_id* of its tar, *digest* and *size* of the stored bytes."""

    diff_id: str
    digest: str
    size: int


def pack(chunks: Iterable[bytes], out: BinaryIO, compression: Compression = Compression.GZIP) -> Packed:
    """Write the tar in *chunks* to *out*, which is not closed; the same chunks and compressor give the same bytes."""
    uncompressed = hashlib.sha256()
    stored = hashlib.sha256()
    size = 0
    for piece in compress(_hashed(chunks, uncompressed), compression):
        stored.update(piece)
        out.write(piece)
        size += len(piece)
    return Packed(f"sha256:{uncompressed.hexdigest()}", f"sha256:{stored.hexdigest()}", size)


def _hashed(chunks: Iterable[bytes], into: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        go_on()
        into.update(chunk)
        yield chunk
