"""The compressions of layers, told by their first bytes; the only module that knows the compressors.

They are imported when the first layer needs them, by name: pycontain is often imported without such a need.
"""

from __future__ import annotations

from enum import Enum
from gzip import BadGzipFile
from importlib import import_module
from typing import TYPE_CHECKING

from pycontain.errors import InvalidImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

# Large enough that threads seldom meet, small enough to stay in a core's cache on the way from inflate to write.
CHUNK = 256 << 10

# One byte of zstd can become 32 KiB, and its decompressor gives out all that it can make of what it was fed.
_ZSTD_FEED = 4 << 10
# A layer is packed while somebody waits: ISA-L's level 2 is ten times as fast as zlib's 6, for a tenth more bytes.
_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3

_ZSTD_WINDOW = 1 << 27  # what the zstd program accepts; more is only asked for to exhaust memory


class Compression(Enum):
    """How a layer's tar is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


_MAGIC = {
    b"\x1f\x8b\x08": Compression.GZIP,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
# RFC 8878, 3.1.2: sixteen magic numbers for frames without content, with which pzstd begins.
_MAGIC |= {bytes((0x50 + i, 0x2A, 0x4D, 0x18)): Compression.ZSTD for i in range(16)}
MAGIC_LENGTH = max(map(len, _MAGIC))


def detect(head: bytes) -> Compression:
    """Return the compression of a layer that begins with *head*, of :data:`MAGIC_LENGTH` bytes or all that there is.

    :class:`InvalidImage` for a compression that layers do not use. Whether bytes without a magic number are a tar is
    not said.
    """
    for magic, found in _MAGIC.items():
        if head.startswith(magic):
            if isinstance(found, Compression):
                return found
            raise InvalidImage(
                f"the layer is compressed with {found}, which OCI images do not use",
                hint="compress it with gzip or zstd, or not at all",
            )
    return Compression.NONE


def decompress(stream: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Give the uncompressed bytes of *stream* in chunks, to its end; :class:`InvalidImage` when it is damaged."""
    match compression:
        case Compression.NONE:
            return iter(lambda: stream.read(CHUNK), b"")
        case Compression.GZIP:
            return _gunzip(stream)
        case Compression.ZSTD:
            return _unzstd(stream)


def compress(chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """Give *chunks* compressed; nothing but their bytes and the compressor's version decides what comes out."""
    match compression:
        case Compression.NONE:
            yield from chunks
            return
        case Compression.GZIP:
            isal_zlib = import_module("isal.isal_zlib")
            # Window bits from 16 up ask for gzip's frame, which isal writes without a time or a name.
            compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 16 + isal_zlib.MAX_WBITS)
        case Compression.ZSTD:
            zstandard = import_module("zstandard")
            compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    for chunk in chunks:
        if piece := compressor.compress(chunk):
            yield piece
    yield compressor.flush()


def _gunzip(stream: BinaryIO) -> Iterator[bytes]:
    igzip = import_module("isal.igzip")
    broken = (BadGzipFile, import_module("isal.isal_zlib").error)
    with igzip.IGzipFile(fileobj=stream, mode="rb") as file:
        try:
            while chunk := file.read1(CHUNK):
                yield chunk
        except EOFError as error:
            raise _ends_too_soon(Compression.GZIP) from error
        except broken as error:
            raise _damaged(Compression.GZIP) from error


def _unzstd(stream: BinaryIO) -> Iterator[bytes]:
    zstandard = import_module("zstandard")
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = context.decompressobj()
    started = False
    pieces: list[bytes] = []
    while fed := stream.read(_ZSTD_FEED):
        while fed:
            try:
                pieces.append(frame.decompress(fed))
            except zstandard.ZstdError as error:
                raise _damaged(Compression.ZSTD) from error
            started, fed = not frame.eof, frame.unused_data
            if frame.eof:
                frame = context.decompressobj()
        if sum(map(len, pieces)) >= CHUNK:
            yield b"".join(pieces)
            pieces.clear()
    if started:
        raise _ends_too_soon(Compression.ZSTD)
    yield b"".join(pieces)


def _ends_too_soon(compression: Compression) -> InvalidImage:
    return InvalidImage(f"the layer's {compression.value} stream ends too soon")


def _damaged(compression: Compression) -> InvalidImage:
    return InvalidImage(f"the layer's {compression.value} stream is damaged")
