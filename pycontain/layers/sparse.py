"""Maps of sparse files, in the four forms in which tar writes them.

Source: GNU tar manual, "Storing Sparse Files": the old GNU format, and 0.0, 0.1 and 1.0 in pax records. Each function
gives segments (offset, length) of stored bytes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pycontain.errors import InvalidImage
from pycontain.layers.headers import BLOCK, number, pax_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.layers.entries import Segments

_IN_HEADER, _IN_EXTENSION = (
    4,
    21,
)  # descriptors of the old format: in the header at 386, in a further block at 0
_HEADER_AT, _EXTENDED_AT, _REAL_SIZE_AT = 386, 482, 483
_CONTINUES_AT = _IN_EXTENSION * 24

MAX_MAP = 1 << 20  # bytes of a map; as for other extended headers


def old_gnu_size(header: bytes) -> int:
    """Return the real size of the file behind an old GNU sparse *header*."""
    return number(header[_REAL_SIZE_AT : _REAL_SIZE_AT + 12])


def old_gnu_segments(header: bytes, further: Iterator[bytes]) -> Iterator[tuple[int, int]]:
    """Read the map in *header*, taking extension blocks from *further* as long as there are more."""
    yield from _descriptors(header[_HEADER_AT:], _IN_HEADER)
    continues = header[_EXTENDED_AT]
    blocks = 0
    while continues:
        block = next(further)
        blocks += 1
        if blocks * BLOCK > MAX_MAP:
            raise InvalidImage("the map of a sparse file in the layer is too long")
        yield from _descriptors(block, _IN_EXTENSION)
        continues = block[_CONTINUES_AT]


def _descriptors(block: bytes, count: int) -> Iterator[tuple[int, int]]:
    for at in range(0, count * 24, 24):
        if block[at] == 0:  # an unused descriptor is all NUL
            return
        yield number(block[at : at + 12]), number(block[at + 12 : at + 24])


def pax_segments(records: Iterable[tuple[bytes, bytes]]) -> list[tuple[int, int]]:
    """Read the map from the records of form 0.0 (a pair of keys per segment) or 0.1 (one list)."""
    numbers: list[int] = []
    for key, value in records:
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            numbers.append(pax_number(value))
        elif key == b"GNU.sparse.map" and value:
            numbers = [pax_number(part) for part in value.split(b",")]
    return _pairs(numbers)


def data_segments(blocks: Iterator[bytes]) -> list[tuple[int, int]]:
    """Read the map of form 1.0: decimal lines at the start of the content, a count first, in whole *blocks*."""
    found = [next(blocks)]
    wanted = 1 + 2 * pax_number(found[0].partition(b"\n")[0])
    lines = found[0].count(b"\n")
    while lines < wanted:
        if len(found) * BLOCK >= MAX_MAP:
            raise InvalidImage("the map of a sparse file in the layer is too long")
        found.append(next(blocks))
        lines += found[-1].count(b"\n")
    return _pairs([pax_number(line) for line in b"".join(found).split(b"\n")[1:wanted]])


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise InvalidImage("the map of a sparse file in the layer is malformed")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def checked(segments: Iterable[tuple[int, int]], *, size: int, stored: int) -> Segments:
    """Return *segments* without empty ones, once they are ordered, inside *size* and as long as what is *stored*."""
    found = tuple((offset, length) for offset, length in segments if length)
    ends = [(0, 0), *found, (size, 0)]
    ordered = all(offset + length <= following for (offset, length), (following, _) in pairwise(ends))
    positive = all(offset >= 0 and length > 0 for offset, length in found)
    if not ordered or not positive or sum(length for _, length in found) != stored:
        raise InvalidImage("the map of a sparse file in the layer is malformed")
    return found
