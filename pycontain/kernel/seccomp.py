"""seccomp(2): put a filter on this thread. Light to import, for the zygote."""

from __future__ import annotations

import ctypes
import os

_SET_MODE_FILTER = 1

# Without this flag a kernel before 5.16 makes the thread pay for mitigations against speculative store bypass,
# which defend parts of one process from each other. runc sets it too.
_SPEC_ALLOW = 1 << 2

# asm/unistd_64.h, asm-generic/unistd.h
_NUMBERS = {"x86_64": 317, "aarch64": 277}


# With the interpreter lock held, as in syscalls.py: the zygote has one thread, and the call is short.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall


class _Program(ctypes.Structure):
    """``struct sock_fprog`` (linux/filter.h)."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def set_filter(program: bytes) -> None:
    """Filter every later system call of this thread, and of all it starts, with *program*.

    It cannot be taken back; a second filter is added to the first. no_new_privs must be set, or the caller
    must hold CAP_SYS_ADMIN in its user namespace. Raises OSError: EACCES without that right, EINVAL for a
    program that the kernel refuses.
    """
    number = ctypes.c_long(_NUMBERS[os.uname().machine])
    argument = _Program(len(program) // 8, program)
    if _syscall(number, ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_SPEC_ALLOW), ctypes.byref(argument)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
