"""From the bytes of a tar to entries and their content, in one pass and without looking back.

Reads what POSIX, GNU tar, star and Go's archive/tar write: v7, ustar, pax with global headers, GNU long names and
links, base-256 numbers, and sparse files in all four forms. The caller brings an iterator of byte chunks and takes
from each entry as much content as it likes::

    decoder = Decoder(chunks)
    for entry in decoder:
        for offset, piece in decoder.content():
            ...

An archive ends at its first zero block, or at a clean end of the bytes, as GNU tar has it; what follows is read,
counts in the diff ID and means nothing. Where programs differ in how they read a header, this follows containerd
(Go's archive/tar), since that is what images are made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.errors import InvalidImage, UnsupportedEntry
from pycontain.layers import sparse
from pycontain.layers.entries import DEFAULT_LIMITS, DEVICES, Entry, Kind, clean, printable
from pycontain.layers.headers import (
    BLOCK,
    CHECKSUM_AT,
    HEADER,
    ID_BEYOND,
    POSIX_MAGIC,
    SECOND,
    SIZE_AT,
    XATTR,
    ZEROS,
    checksum_matches,
    number,
    padded,
    pax_number,
    pax_records,
    pax_time,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pycontain.layers.entries import Limits, Segments, Xattrs

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # POSIX "contiguous", a file to everybody
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"D": Kind.DIRECTORY,  # GNU: a directory followed by a list of its names
    b"S": Kind.FILE,  # GNU: sparse, the old form
}
_WITH_CONTENT = frozenset(b"0\07DS")  # the size field of all others is without meaning (Go, POSIX for links)
_VOLUME_LABEL = b"V"
_EXTENDED, _GLOBAL = frozenset({b"x", b"X"}), b"g"  # X: Solaris
_LONG = {b"L": b"path", b"K": b"linkpath"}  # GNU, in the words of pax
_EXTENSIONS = _EXTENDED | _LONG.keys() | {_GLOBAL, _VOLUME_LABEL}
_FIELDS = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})  # what a pax record overrides
_OLD_SPARSE = b"S"

_MAX_EXTENSION = 1 << 20  # bytes of all headers before an entry; Go allows as much for one
_TIME_BEYOND = (1 << 62) * SECOND  # a time_t with room to spare
_MAJOR_BEYOND, _MINOR_BEYOND = 1 << 12, 1 << 20  # dev_t of Linux

_Records = dict[bytes, bytes]
_NO_RECORDS: _Records = {}


class Decoder:
    """Iterate over the entries of the tar in *chunks*; :class:`InvalidImage` where it is none or ends too soon.

    The chunks may be any buffers of bytes. *compressed* tells how many bytes the chunks so far were made of; without
    it there is no ratio to judge. When the iteration ends, all chunks were read.
    """

    def __init__(
        self,
        chunks: Iterable[bytes | memoryview],
        limits: Limits = DEFAULT_LIMITS,
        compressed: Callable[[], int] | None = None,
    ) -> None:
        self.path = b""  # of the latest entry, for whoever reports an error
        self.entries = 0
        self._limits = limits
        self._compressed = compressed
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._at = 0
        self._received = 0
        self._content = 0  # stored bytes of the latest entry that were not taken yet
        self._padding = 0
        self._segments: Segments | None = None
        self._globals: _Records = {}

    def __iter__(self) -> Iterator[Entry]:
        """Give the entries in order; content that was not taken is skipped."""
        while (header := self._next_header()) is not None:
            entry = self._entry(header) if header[156:157] in _KINDS else self._extended(header)
            if entry is None:
                break
            self.path = entry.path
            self.entries += 1
            self._limits.check_entry(entry, self.entries)
            yield entry
        while self._refill():
            pass

    def content(self) -> Iterator[tuple[int, memoryview]]:
        """Give what is stored of the latest entry, as (offset in the file, bytes), in order and once."""
        for offset, length in ((0, self._content),) if self._segments is None else self._segments:
            at = offset
            while at < offset + length:
                piece = self._piece(offset + length - at)
                yield at, piece
                at += len(piece)

    # --- headers ----------------------------------------------------------------------------------------

    def _next_header(self) -> bytes | None:
        self._skip(self._content + self._padding)
        self._content = self._padding = 0
        if self._at == len(self._chunk) and not self._refill():
            return None
        block = self._take(BLOCK)
        if block == ZEROS:
            return None
        if not checksum_matches(block, number(block[CHECKSUM_AT])):
            after = f"after {printable(self.path)!r}" if self.entries else "from its start"
            raise InvalidImage(f"the layer is no tar archive {after}: a header's checksum is wrong")
        return block

    def _extended(self, header: bytes) -> Entry | None:
        """Gather the headers that extend the entry after them; None when the archive ends instead."""
        records: list[tuple[bytes, bytes]] = []
        long: _Records = {}
        room = _MAX_EXTENSION
        following: bytes | None = header
        while following is not None and (flag := following[156:157]) not in _KINDS:
            if flag not in _EXTENSIONS:
                where = printable(text(following[:100]))
                raise UnsupportedEntry(f"the entry {where!r} has the unknown tar type {flag!r}", path=where)
            body = self._extension(following, room)
            room -= BLOCK + len(body)  # an entry may have many such headers, but not more in all
            if flag in _EXTENDED:
                records += pax_records(body)
            elif flag == _GLOBAL:
                self._globals |= {key: value for key, value in pax_records(body) if key in _FIELDS}
            elif flag in _LONG:
                long[_LONG[flag]] = text(body)
            following = self._next_header()
        if following is None:
            if records or long:
                raise self._ends_too_soon()
            return None
        return self._entry(following, self._globals | long | dict(records), records)

    def _extension(self, header: bytes, room: int) -> bytes:
        size = number(header[SIZE_AT])
        if not 0 <= size <= room:
            raise InvalidImage(f"the extended headers after {printable(self.path)!r} are too long")
        return self._take(padded(size))[:size]

    def _entry(
        self, header: bytes, pax: _Records = _NO_RECORDS, records: Iterable[tuple[bytes, bytes]] = ()
    ) -> Entry:
        name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, major, minor, prefix = HEADER.unpack(
            header
        )
        path, target = text(name), text(link)
        if prefix[0] and magic == POSIX_MAGIC:
            path = text(prefix) + b"/" + path
        sizes = number(size), number(uid), number(gid), number(mtime) * SECOND
        if pax or self._globals:
            pax = pax or self._globals
            path, target = pax.get(b"path") or path, pax.get(b"linkpath") or target
            sizes = _overridden(pax, *sizes)
        stored, owner, group, modified = sizes
        kind = _KINDS[flag]
        if kind is Kind.FILE and path.endswith(b"/"):
            kind = Kind.DIRECTORY  # v7 had no other way to say it
        self._content = stored if flag[0] in _WITH_CONTENT else 0
        self._padding = -self._content % BLOCK
        real = self._content
        self._segments = None
        if flag == _OLD_SPARSE or (pax and any(key.startswith(b"GNU.sparse.") for key in pax)):
            path, real = self._sparse(header, path, pax, records)
        entry = Entry(
            path=clean(path),
            kind=kind,
            mode=number(mode) & 0o7777,
            uid=owner,
            gid=group,
            mtime=modified,
            size=real if kind is Kind.FILE else 0,
            target=_target(kind, target),
            device=(number(major), number(minor)) if kind in DEVICES else (0, 0),
            xattrs=_xattrs(pax) if pax else (),
            segments=self._segments,
        )
        return _checked(entry, stored)

    def _sparse(
        self, header: bytes, path: bytes, pax: _Records, records: Iterable[tuple[bytes, bytes]]
    ) -> tuple[bytes, int]:
        """Read the map of a sparse file and return the file's name and real size."""
        if header[156:157] == _OLD_SPARSE:
            size = sparse.old_gnu_size(header)
            found = list(sparse.old_gnu_segments(header, self._blocks()))
        elif pax.get(b"GNU.sparse.major") == b"1":
            size = pax_number(pax.get(b"GNU.sparse.realsize", b""))
            found = sparse.data_segments(self._content_blocks())
        elif b"GNU.sparse.map" in pax or b"GNU.sparse.numblocks" in pax:
            size = pax_number(pax.get(b"GNU.sparse.size", b""))
            found = sparse.pax_segments(records)
        else:
            return path, self._content
        self._segments = sparse.checked(found, size=size, stored=self._content)
        return pax.get(b"GNU.sparse.name") or path, size

    def _blocks(self) -> Iterator[bytes]:
        while True:
            yield self._take(BLOCK)

    def _content_blocks(self) -> Iterator[bytes]:
        while self._content >= BLOCK:
            self._content -= BLOCK
            yield self._take(BLOCK)
        raise InvalidImage("the map of a sparse file in the layer is malformed")

    # --- bytes ------------------------------------------------------------------------------------------

    def _refill(self) -> bool:
        """Go to the next chunk, the present one being used up; False at the end of the bytes."""
        for chunk in self._chunks:
            self._received += len(chunk)
            compressed = self._compressed() if self._compressed else self._received
            self._limits.check_bytes(self._received, compressed, self.path)
            self._chunk, self._at = memoryview(chunk), 0
            if len(chunk):
                return True
        self._chunk, self._at = memoryview(b""), 0
        return False

    def _ends_too_soon(self) -> InvalidImage:
        return InvalidImage(f"the layer ends too soon, in or after {printable(self.path)!r}")

    def _available(self) -> int:
        if self._at == len(self._chunk) and not self._refill():
            raise self._ends_too_soon()
        return len(self._chunk) - self._at

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._chunk):
            taken = self._chunk[self._at : end].tobytes()
            self._at = end
            return taken
        pieces = []
        while size:
            length = min(size, self._available())
            pieces.append(self._chunk[self._at : self._at + length].tobytes())
            self._at += length
            size -= length
        return b"".join(pieces)

    def _piece(self, most: int) -> memoryview:
        length = min(most, self._available())
        piece = self._chunk[self._at : self._at + length]
        self._at += length
        self._content -= length
        return piece

    def _skip(self, size: int) -> None:
        while size:
            length = min(size, self._available())
            self._at += length
            size -= length


def _overridden(pax: _Records, size: int, uid: int, gid: int, mtime: int) -> tuple[int, int, int, int]:
    # POSIX: an empty value takes the record away, and the header's field counts again.
    return (
        pax_number(pax[b"size"]) if pax.get(b"size") else size,
        pax_number(pax[b"uid"]) if pax.get(b"uid") else uid,
        pax_number(pax[b"gid"]) if pax.get(b"gid") else gid,
        pax_time(pax[b"mtime"]) if pax.get(b"mtime") else mtime,
    )


def _target(kind: Kind, link: bytes) -> bytes:
    if kind is Kind.HARD_LINK:
        return clean(link)
    return link if kind is Kind.SYMLINK else b""


def _xattrs(pax: _Records) -> Xattrs:
    return tuple(sorted((key.removeprefix(XATTR), pax[key]) for key in pax if key.startswith(XATTR)))


def _checked(entry: Entry, stored: int) -> Entry:
    """Return *entry*; :class:`InvalidImage` when a value is one that no system call takes."""
    wrong = ""
    if stored < 0:
        wrong = "a negative size"
    elif not (0 <= entry.uid < ID_BEYOND and 0 <= entry.gid < ID_BEYOND):
        wrong = "an owner that is no user or group id"
    elif not -_TIME_BEYOND < entry.mtime < _TIME_BEYOND:
        wrong = "a time beyond all clocks"
    elif not (0 <= entry.device[0] < _MAJOR_BEYOND and 0 <= entry.device[1] < _MINOR_BEYOND):
        wrong = "a device number that Linux does not have"
    elif b"\0" in entry.path or b"\0" in entry.target:
        wrong = "a NUL byte in a name"
    elif entry.kind is Kind.SYMLINK and not entry.target:
        wrong = "an empty target"
    if wrong:
        raise InvalidImage(f"the entry {printable(entry.path)!r} of the layer has {wrong}")
    return entry
