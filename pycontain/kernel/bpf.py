"""Classic BPF as text for programs: jumps to labels in, the bytes of ``struct sock_filter[]`` out. Pure.

An instruction is 8 bytes: code, two jump distances of 8 bits, and a constant of 32 bits (linux/filter.h).
A conditional jump reaches 255 instructions; :func:`assemble` turns one that must go further into a short jump
over two unconditional ones, which reach everywhere. Jumps only go forward, so a program always ends.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# linux/bpf_common.h. LD_ABS reads 32 bits of the packet, for seccomp of struct seccomp_data, into A.
LD_ABS = 0x20
LD_IMM = 0x00
AND = 0x54
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
RET = 0x06

MAX_INSTRUCTIONS = 4096
"""``BPF_MAXINSNS``: the kernel takes no longer program."""

_REACH = 255
_LONG = 3


@attrs.frozen(eq=False)
class Label:
    """A place in a program: the instruction that follows it. Each label is itself and no other."""


@attrs.frozen
class Statement:
    """An instruction that is followed by the next one, or a return."""

    code: int
    k: int


@attrs.frozen
class Jump:
    """Compare A with *k* and go on at *true* or at *false*; None is the next instruction."""

    code: int
    k: int
    true: Label | None = None
    false: Label | None = None


Item: TypeAlias = Label | Statement | Jump


def assemble(items: Sequence[Item]) -> bytes:
    """The program as the kernel reads it, in the byte order of x86_64 and aarch64 (little-endian).

    Raises ValueError when it has more than MAX_INSTRUCTIONS instructions, or a jump that goes back.
    """
    long: frozenset[int] = frozenset()
    while True:
        places = _places(items, long)
        too_far = _jumps_beyond_reach(items, places)
        if too_far <= long:
            break
        long |= too_far  # a longer jump can push others out of reach, never into it, so this ends
    program = b"".join(_encode(items, places, long))
    if len(program) > 8 * MAX_INSTRUCTIONS:
        raise ValueError(f"{len(program) // 8} BPF instructions, the kernel takes {MAX_INSTRUCTIONS}")
    return program


def _places(items: Sequence[Item], long: frozenset[int]) -> Mapping[Label | int, int]:
    """Where each label and each item (by its index) comes to stand."""
    places: dict[Label | int, int] = {}
    place = 0
    for index, item in enumerate(items):
        places[index] = place
        if isinstance(item, Label):
            places[item] = place
        else:
            place += _LONG if index in long else 1
    return places


def _jumps_beyond_reach(items: Sequence[Item], places: Mapping[Label | int, int]) -> frozenset[int]:
    return frozenset(
        index
        for index, item in enumerate(items)
        if isinstance(item, Jump)
        for target in (item.true, item.false)
        if target is not None and places[target] - places[index] - 1 > _REACH
    )


def _encode(
    items: Iterable[Item], places: Mapping[Label | int, int], long: frozenset[int]
) -> Iterator[bytes]:
    for index, item in enumerate(items):
        match item:
            case Label():
                pass
            case Statement(code, k):
                yield _instruction(code, 0, 0, k)
            case Jump(code, k, true, false) if index in long:
                after = places[index] + _LONG
                yield _instruction(code, 0, 1, k)
                yield _instruction(JA, 0, 0, _distance(places, true, after - 1, after))
                yield _instruction(JA, 0, 0, _distance(places, false, after, after))
            case Jump(code, k, true, false):
                after = places[index] + 1
                yield _instruction(
                    code, _distance(places, true, after, after), _distance(places, false, after, after), k
                )


def _distance(places: Mapping[Label | int, int], target: Label | None, origin: int, after: int) -> int:
    """How many instructions lie between *origin* and *target*; no target is the place *after* the jump."""
    distance = (after if target is None else places[target]) - origin
    if distance < 0:
        raise ValueError("a BPF program jumps only forward")
    return distance


def _instruction(code: int, true: int, false: int, k: int) -> bytes:
    return struct.pack("<HBBI", code, true, false, k)
