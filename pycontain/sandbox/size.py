"""Amounts of bytes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str | int) -> int:
    """Bytes from ``"64M"``, ``"1.5G"``, ``"512k"``, ``"100"`` or a number; K, M, G, T are powers of 1024, as in Docker."""
    if isinstance(text, int):
        if text < 0:
            raise ValueError(f"a size cannot be negative: {text}")
        return text
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 512k, 64M or 1.5G")
    return int(float(match[1]) * (1 << _SHIFT[match[2].lower()]))
