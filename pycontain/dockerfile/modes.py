"""File modes as chmod(1) takes them: octal digits, or ``u=rwX,go+r``."""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_ALL = 0o7777


def check_mode(text: str) -> None:
    """Raise :class:`ValueError` unless *text* is a mode."""
    changed_mode(text, 0, folder=False)


def changed_mode(text: str, mode: int, *, folder: bool) -> int:
    """What *mode* becomes. :class:`ValueError` when *text* says nothing."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= _ALL:
        return int(text, 8)
    for part in text.split(","):
        clause = _CLAUSE.fullmatch(part)
        if clause is None:
            raise ValueError(f"{text!r} is no mode; write 755, or u=rwX,go=rX")
        who = clause[1].replace("a", "ugo") or "ugo"
        mask = sum({_WHO[letter] for letter in who})
        for sign, letters in _ACTION.findall(clause[2]):
            bits = _bits(letters, mode, folder=folder) & mask
            gone = {"=": mask, "-": bits, "+": 0}[sign]
            mode = mode & ~gone | (0 if sign == "-" else bits)
    return mode & _ALL


def _bits(letters: str, mode: int, *, folder: bool) -> int:
    bits = 0
    for letter in letters:
        if letter == "X":
            bits |= 0o111 if folder or mode & 0o111 else 0
        elif letter == "s":
            bits |= 0o6000
        elif letter == "t":
            bits |= 0o1000
        else:
            bits |= _BITS[letter]
    return bits
