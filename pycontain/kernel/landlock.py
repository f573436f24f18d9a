"""landlock(7): whether this kernel lets a program build walls around itself."""

from __future__ import annotations

import ctypes

_CREATE_RULESET = 444
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION


def abi_version() -> int:
    """landlock_create_ruleset(2), asked for the version only: 0 when Landlock is not built in or not switched on."""
    libc = ctypes.CDLL(None)
    libc.syscall.restype = ctypes.c_long
    version: int = libc.syscall(
        ctypes.c_long(_CREATE_RULESET), ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)
    )
    return max(version, 0)
