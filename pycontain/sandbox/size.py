"""Amounts of bytes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_LONGEST = 64  # digits and unit: more than any machine has bytes
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(given: str | int) -> int:
    """Bytes from ``"64M"``, ``"1.5G"``, ``"512k"``, ``"100"`` or a number; K, M, G, T are powers of 1024, as in Docker."""
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 0:
            raise ValueError(f"a size cannot be negative: {given}")
        return int(given)
    match = _SIZE.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is None or len(match[0]) > _LONGEST:
        raise ValueError(f"{given!r} is no size; write 512k, 64M or 1.5G")
    whole, fraction, unit = match[1], match[2] or "", match[3].lower()
    scaled = int(whole + fraction) << _SHIFT[unit]
    return scaled // int("1" + "0" * len(fraction))
