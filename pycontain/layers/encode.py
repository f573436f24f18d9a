"""From entries to the bytes of a tar: the same entries give the same bytes, always and everywhere.

The form is pax: a plain ustar header where everything fits into one, with a pax header before it for what does not
(long names, large numbers, fractions of seconds, extended attributes, sparse files in GNU's form 1.0). Names are
written as the bytes they are. No user names, no access times, no block padding beyond the two zero blocks that end the
archive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.errors import LayerError, UnsupportedEntry
from pycontain.layers.entries import Entry, Kind, printable
from pycontain.layers.headers import BLOCK, HEADER, POSIX_MAGIC, SECOND, XATTR, ZEROS, checksum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FLAGS = {
    Kind.FILE: b"0",
    Kind.HARD_LINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER_DEVICE: b"3",
    Kind.BLOCK_DEVICE: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_EXTENDED = b"x"
_NAME, _LINK, _PREFIX = 100, 100, 155  # bytes of these fields
_ID_DIGITS, _LARGE_DIGITS = 7, 11  # octal digits of uid and gid; of size and mtime

_Records = dict[bytes, bytes]


def encode(contents: Iterable[tuple[Entry, Iterable[bytes]]]) -> Iterator[bytes]:
    """Give the bytes of the tar with these entries, each with what is stored of it, in their order.

    Contents are read one after the other, each before the next entry is asked for. :class:`LayerError` when one is
    longer or shorter than its entry says.
    """
    for entry, content in contents:
        yield from _headers(entry)
        if entry.kind is Kind.FILE:
            yield from _exactly(entry, content)
            yield bytes(-entry.stored % BLOCK)
    yield ZEROS * 2


def _exactly(entry: Entry, content: Iterable[bytes]) -> Iterator[bytes]:
    left = entry.stored
    for piece in content:
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        where = printable(entry.path)
        raise LayerError(
            f"{where!r} has not the size that its entry says", path=where, hint="did it change meanwhile?"
        )


# --- headers --------------------------------------------------------------------------------------------


def _headers(entry: Entry) -> Iterator[bytes]:
    path = entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path
    path = path if entry.path else b"./"
    records = _records(entry, path)
    sparse_map = b"" if entry.segments is None else _sparse_map(entry.segments)
    size = len(sparse_map) + entry.stored
    if not _fits(size, _LARGE_DIGITS):
        records[b"size"] = b"%d" % size
    if records:
        body = b"".join(_record(key, records[key]) for key in sorted(records))
        yield _header(b"PaxHeaders/" + path, _EXTENDED, size=len(body))
        yield body + bytes(-len(body) % BLOCK)
    yield _header(path, _FLAGS[entry.kind], entry=entry, size=size)
    yield sparse_map


def _header(path: bytes, flag: bytes, *, size: int, entry: Entry | None = None) -> bytes:
    entry = entry or Entry(b"", Kind.FILE)
    prefix, name = _split(path) or (b"", path[:_NAME])
    fields = (
        name,
        _octal(entry.mode, _ID_DIGITS),
        _octal(entry.uid, _ID_DIGITS),
        _octal(entry.gid, _ID_DIGITS),
        _octal(size, _LARGE_DIGITS),
        _octal(entry.mtime // SECOND, _LARGE_DIGITS),
        b" " * 8,
        flag,
        entry.target[:_LINK],
        POSIX_MAGIC,
        b"",
        b"",
        _octal(entry.device[0], _ID_DIGITS),
        _octal(entry.device[1], _ID_DIGITS),
        prefix,
    )
    block = HEADER.pack(*fields)
    return block[:148] + b"%06o\0 " % checksum(block) + block[156:]


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Divide *path* at a slash into what the two name fields of ustar hold; None when it is too long for them."""
    if len(path) <= _NAME:
        return b"", path
    slash = path.find(b"/", len(path) - _NAME - 1, len(path) - 1)
    return None if not 0 < slash <= _PREFIX else (path[:slash], path[slash + 1 :])


def _octal(value: int, digits: int) -> bytes:
    # What does not fit stands in a pax record, which counts; zero is what the field then says to readers of old.
    return b"%0*o\0" % (digits, value if _fits(value, digits) else 0)


def _fits(value: int, digits: int) -> bool:
    return 0 <= value < 1 << 3 * digits


# --- pax records ----------------------------------------------------------------------------------------


def _records(entry: Entry, path: bytes) -> _Records:
    records: _Records = {}
    if _split(path) is None:
        records[b"path"] = path
    if len(entry.target) > _LINK:
        records[b"linkpath"] = entry.target
    if entry.mtime % SECOND or not _fits(entry.mtime // SECOND, _LARGE_DIGITS):
        records[b"mtime"] = _time(entry.mtime)
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if not _fits(number, _ID_DIGITS):
            records[key] = b"%d" % number
    if entry.segments is not None:
        records |= {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
        records |= {b"GNU.sparse.name": path, b"GNU.sparse.realsize": b"%d" % entry.size}
    for key, value in entry.xattrs:
        if b"=" in key:
            where = printable(entry.path)
            raise UnsupportedEntry(
                f"a layer cannot hold the extended attribute {printable(key)!r} of {where!r}", path=where
            )
        records[XATTR + key] = value
    return records


def _record(key: bytes, value: bytes) -> bytes:
    # POSIX: the length counts its own digits.
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), SECOND)
    sign = b"-" if nanoseconds < 0 else b""
    return b"%s%d%s" % (sign, seconds, (b".%09d" % fraction).rstrip(b"0") if fraction else b"")


def _sparse_map(segments: Iterable[tuple[int, int]]) -> bytes:
    numbers = [number for segment in segments for number in segment]
    lines = b"".join(b"%d\n" % number for number in (len(numbers) // 2, *numbers))
    return lines + bytes(-len(lines) % BLOCK)
