"""The list of allowed devices as an eBPF program, for cgroup v2, which has no files for it.

The kernel runs it at each open and mknod(2) of a device node by a process of the group, with ``struct bpf_cgroup_dev_ctx``
(linux/bpf.h): what is wanted and the kind of node in one word, then the major and the minor number. 1 means yes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.sandbox.devices import Rule

DEVICE_FILTER = "BPF_CGROUP_DEVICE"
"""What :mod:`pycontain.kernel.cgroupfs` takes for such a program, where other limits have the name of a file."""

# linux/bpf.h: BPF_DEVCG_DEV_* and BPF_DEVCG_ACC_*.
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ANY = 7

# linux/bpf_common.h and linux/bpf.h: instruction classes, sizes and operations, put together.
_LOAD = 0x61  # dst = *(u32 *)(src + off)
_AND = 0x54  # 32 bits wide, as the next two
_SHIFT_RIGHT = 0x74
_COPY = 0xBC
_SET = 0xB7
_JUMP_UNLESS_EQUAL = 0x55
_EXIT = 0x95

_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)  # registers


def compile_filter(rules: Iterable[Rule]) -> bytes:
    """``struct bpf_insn[]`` that allows what one of *rules* allows."""
    program = [
        _instruction(_LOAD, _KIND, _CONTEXT, 0),
        _instruction(_LOAD, _WANTED, _CONTEXT, 0),
        _instruction(_LOAD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD, _MINOR, _CONTEXT, 8),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
    ]
    for rule in rules:
        program += _allow(rule)
    return b"".join((*program, _instruction(_SET, _RESULT, value=0), _instruction(_EXIT)))


def _allow(rule: Rule) -> Iterator[bytes]:
    """Return 1 if *rule* allows it; else go on behind these instructions."""
    refused = _ANY & ~sum(_ACCESS[mark] for mark in rule.access)
    tests = [(_KIND, _KINDS[rule.kind])]
    tests += [
        (register, number)
        for register, number in ((_MAJOR, rule.major), (_MINOR, rule.minor))
        if number is not None
    ]
    rest = len(tests) + 5  # the tests, three for the access, two for the answer
    for place, (register, number) in enumerate(tests, 1):
        yield _instruction(_JUMP_UNLESS_EQUAL, register, jump=rest - place, value=number)
    # What is wanted and not allowed; the context is not read any more.
    yield _instruction(_COPY, _CONTEXT, _WANTED)
    yield _instruction(_AND, _CONTEXT, value=refused)
    yield _instruction(_JUMP_UNLESS_EQUAL, _CONTEXT, jump=2)
    yield _instruction(_SET, _RESULT, value=1)
    yield _instruction(_EXIT)


def _instruction(code: int, target: int = 0, source: int = 0, jump: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, jump, value)
