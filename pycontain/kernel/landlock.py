"""landlock(7): a program builds walls around itself, which nothing that it starts can leave. Light to import, for the zygote."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from pycontain.kernel import syscalls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_OF_FILES = 0xC007  # the rights that landlock_add_rule(2) takes for something else than a directory


def abi_version() -> int:
    """landlock_create_ruleset(2), asked for the version only: 0 when Landlock is not built in or not switched on."""
    return max(int(syscalls.raw(_CREATE_RULESET, 0, 0, _VERSION, 0, 0, 0)), 0)


def create_ruleset(handled: int, scoped: int) -> int:
    """landlock_create_ruleset(2): a descriptor of rules that deny the accesses *handled* to files; the caller closes it."""
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", handled, 0, scoped), 24)
    # What a kernel does not know of the structure must be 0.
    return syscalls.call(_CREATE_RULESET, ctypes.addressof(attributes), 24, 0)


def add_rule(ruleset: int, path: str, allowed: int) -> None:
    """landlock_add_rule(2): allow *allowed* to what is at *path* and below; for a file what of it is for files."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            allowed &= _OF_FILES
        if allowed:  # ENOMSG is what the kernel says of a rule without any
            attributes = ctypes.create_string_buffer(struct.pack("=Qi", allowed, place), 12)
            syscalls.call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.addressof(attributes), 0)
    finally:
        os.close(place)


def restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2), for good. no_new_privs must be set, or CAP_SYS_ADMIN be there."""
    syscalls.call(_RESTRICT_SELF, ruleset, 0)
