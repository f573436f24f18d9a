"""The fields of a tar header: numbers, names and pax records, read strictly.

Sources: POSIX.1-2017 ``pax``, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar
Format"; tar(5).
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from struct import Struct

from pycontain.errors import InvalidImage

BLOCK = 512
ZEROS = bytes(BLOCK)
SECOND = 1_000_000_000  # nanoseconds

# name mode uid gid size mtime checksum type linkname magic+version uname gname major minor prefix
HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
SIZE_AT, CHECKSUM_AT = slice(124, 136), slice(148, 156)

XATTR = b"SCHILY.xattr."  # star's prefix in pax keys, which all others took over

POSIX_MAGIC = b"ustar\x0000"

# (uid_t) -1 means "leave it" to chown(2), so it is the first number that is no id.
ID_BEYOND = (1 << 32) - 1

_ADLER_MODULUS = 65521


def padded(size: int) -> int:
    """Return *size* rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def checksum(block: bytes) -> int:
    """Return the sum of the header's bytes, with its checksum field taken as spaces."""
    return sum(block) - sum(block[CHECKSUM_AT]) + 8 * ord(" ")


def checksum_matches(block: bytes, stored: int) -> bool:
    """Tell whether *stored* is the sum of *block*'s bytes, unsigned or, as some old programs had it, signed."""
    # The low half of Adler-32 is 1 + the sum of all bytes modulo 65521: forty times faster than sum().
    expected = stored + sum(block[CHECKSUM_AT]) - 8 * ord(" ")
    if zlib.adler32(block) & 0xFFFF == (1 + expected) % _ADLER_MODULUS:
        return True
    signed = checksum(block) - 256 * sum(byte > 127 for i, byte in enumerate(block) if not 148 <= i < 156)
    return signed == stored


@lru_cache(4096)
def number(field: bytes) -> int:
    """Read a header's number: octal digits, or GNU's base 256 when the first bit is set."""
    if field[0] & 0x80:
        return _base_256(field)
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass  # an 8 or a 9: answered as any other text
    raise InvalidImage(f"a tar header holds {digits!r} where an octal number belongs")


def _base_256(field: bytes) -> int:
    # GNU tar: the first bit only marks the form; the second is the sign of a two's complement number.
    value = int.from_bytes(field, "big") & ~(1 << (8 * len(field) - 1))
    width = 8 * len(field) - 1
    return value - (1 << width) if value >> (width - 1) else value


def text(field: bytes) -> bytes:
    """Return the bytes before the first NUL."""
    return field.partition(b"\0")[0]


def pax_number(value: bytes) -> int:
    """Read a pax record's decimal number, which is never negative."""
    if not value.isdigit() or len(value) > 20:
        raise InvalidImage(f"a pax record holds {value[:40]!r} where a decimal number belongs")
    return int(value)


def pax_time(value: bytes) -> int:
    """Read a pax record's time, ``[-]SECONDS[.FRACTION]``, as nanoseconds."""
    negative = value.startswith(b"-")
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise InvalidImage(f"a pax record holds {value[:40]!r} where a time belongs")
    # Digits below the nanosecond are cut, as clock_gettime(2) would.
    nanoseconds = pax_number(seconds) * SECOND + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if negative else nanoseconds


def pax_records(body: bytes) -> list[tuple[bytes, bytes]]:
    """Read the records of a pax header, each ``LENGTH KEY=VALUE`` and a newline, in order."""
    records = []
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        digits = body[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        whole = at < end <= len(body) and body[end - 1] == ord("\n") and equals
        if not whole or not key or b"\0" in key:
            raise InvalidImage("a pax header of the layer is malformed")
        records.append((key, value))
        at = end
    return records
