"""bpf(2), for the one use that we have: a program that a cgroup v2 group asks about devices. Light to import, for the zygote."""

from __future__ import annotations

import ctypes
import os
import struct

# asm/unistd_64.h, asm-generic/unistd.h
_NUMBERS = {"x86_64": 321, "aarch64": 280}

# linux/bpf.h
_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2

# With the interpreter lock held, as in syscalls.py.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def attach_device_filter(group: int, program: bytes) -> None:
    """Have *program*, ``struct bpf_insn[]``, asked at each open and mknod of a device in the *group*, a directory of cgroup v2.

    Programs of the groups above are asked too, and all must agree. It ends with the group. EPERM: only the machine's root may.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    loaded = _bpf(
        _PROG_LOAD,
        struct.pack(
            "=IIQQ",
            _TYPE_CGROUP_DEVICE,
            len(program) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
        ),
    )
    try:
        _bpf(_PROG_ATTACH, struct.pack("=IIII", group, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
    finally:
        os.close(loaded)


def _bpf(command: int, attributes: bytes) -> int:
    """The descriptor that bpf(2) returns, which the kernel makes close-on-exec, or 0."""
    number = ctypes.c_long(_NUMBERS[os.uname().machine])
    # bpf(2): what the kernel knows beyond the given size it takes as 0.
    argument = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _syscall(number, ctypes.c_int(command), argument, ctypes.c_uint(len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
