"""The system calls that Python does not have, each under the name of its manual page.

Every function raises :class:`OSError` with the kernel's errno and returns what the man page says. The zygote
imports this module, so it needs only ``os``, ``struct`` and ``ctypes``. Calls are made with the interpreter
lock held (``PyDLL``): they are short, and :func:`clone3` returns in a child where nobody else could hand the
lock back.
"""
# ruff: noqa: I001, PLC0414 - "X as X" is how a module says that it also offers X, and one statement is enough

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache

from pycontain.kernel.constants import (
    AT_EMPTY_PATH as AT_EMPTY_PATH,
    AT_RECURSIVE as AT_RECURSIVE,
    CLONE_INTO_CGROUP as CLONE_INTO_CGROUP,
    CLONE_NEWCGROUP as CLONE_NEWCGROUP,
    CLONE_NEWIPC as CLONE_NEWIPC,
    CLONE_NEWNET as CLONE_NEWNET,
    CLONE_NEWNS as CLONE_NEWNS,
    CLONE_NEWPID as CLONE_NEWPID,
    CLONE_NEWTIME as CLONE_NEWTIME,
    CLONE_NEWUSER as CLONE_NEWUSER,
    CLONE_NEWUTS as CLONE_NEWUTS,
    CLONE_PARENT as CLONE_PARENT,
    CLONE_PIDFD as CLONE_PIDFD,
    CLOSE_RANGE_CLOEXEC as CLOSE_RANGE_CLOEXEC,
    MNT_DETACH as MNT_DETACH,
    MOUNT_ATTR_IDMAP as MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV as MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC as MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID as MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY as MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH as MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH as MOVE_MOUNT_T_EMPTY_PATH,
    MS_BIND as MS_BIND,
    MS_NODEV as MS_NODEV,
    MS_NOEXEC as MS_NOEXEC,
    MS_NOSUID as MS_NOSUID,
    MS_PRIVATE as MS_PRIVATE,
    MS_RDONLY as MS_RDONLY,
    MS_REC as MS_REC,
    MS_REMOUNT as MS_REMOUNT,
    MS_SHARED as MS_SHARED,
    MS_SLAVE as MS_SLAVE,
    MS_STRICTATIME as MS_STRICTATIME,
    OPEN_TREE_CLONE as OPEN_TREE_CLONE,
    RESOLVE_BENEATH as RESOLVE_BENEATH,
    RESOLVE_IN_ROOT as RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS as RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS as RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV as RESOLVE_NO_XDEV,
)

_AT_FDCWD = -100
# Calls newer than Linux 5.0 have one number on every architecture; these are older.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# asm/unistd_64.h, asm-generic/unistd.h: what runtime.calls makes without Python's own wrappers.
_NUMBERS = {
    "x86_64": {
        "close": 3, "ioctl": 16, "socket": 41, "prctl": 157, "mount": 165, "openat": 257, "mkdirat": 258,
        "mknodat": 259, "symlinkat": 266, "faccessat": 269, "write": 1, "keyctl": 250,
    },
    "aarch64": {
        "close": 57, "ioctl": 29, "socket": 198, "prctl": 167, "mount": 40, "openat": 56, "mkdirat": 34,
        "mknodat": 33, "symlinkat": 36, "faccessat": 48, "write": 64, "keyctl": 219,
    },
}  # fmt: skip
_OPEN_TREE, _MOVE_MOUNT, _CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 428, 429, 435, 436, 437, 442

_libc = ctypes.PyDLL(None, use_errno=True)
_long = ctypes.c_long
_int = ctypes.c_int
_path = ctypes.c_char_p
_syscall = _libc.syscall
_syscall.restype = _long
_syscall.argtypes = [_long] * 7  # the widest call here; the kernel ignores what a call does not take
_mount = _libc.mount
_mount.argtypes = [_path, _path, _path, ctypes.c_ulong, _path]
_umount2 = _libc.umount2
_umount2.argtypes = [_path, _int]
_unshare = _libc.unshare
_unshare.argtypes = [_int]
_setdomainname = _libc.setdomainname
_setdomainname.argtypes = [_path, ctypes.c_size_t]
_setns = _libc.setns
_setns.argtypes = [_int, _int]


raw = _syscall
"""syscall(2) itself: a number and six numbers; -1 says that ctypes.get_errno() has the errno."""


def number_of(name: str) -> int:
    """The number of one of the calls that :data:`raw` is for."""
    everywhere = {"open_tree": _OPEN_TREE, "move_mount": _MOVE_MOUNT, "mount_setattr": _MOUNT_SETATTR}
    return everywhere.get(name) or _NUMBERS[os.uname().machine][name]


def _fail(path: str | bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def call(number: int, *arguments: int) -> int:
    """The same for a call without a function here, with its errno as OSError."""
    return _call(number, *arguments)


def is_absent(number: int) -> bool:
    """Whether the kernel, or a filter before it, does not know a call: it is made with arguments that no call takes."""
    return raw(number, -1, -1, -1, -1, -1, -1) < 0 and ctypes.get_errno() == 38  # ENOSYS


def _call(number: int, *arguments: int) -> int:
    padding = (0,) * (6 - len(arguments))
    result: int = _syscall(number, *arguments, *padding)
    if result < 0:
        raise _fail()
    return result


KEYCTL_JOIN_SESSION_KEYRING = 1
_EMPTY = ctypes.create_string_buffer(b"")


def clone3(flags: int, *, exit_signal: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork like clone3(2): ``(0, -1)`` in the child, ``(pid, pidfd)`` in the parent, who closes the pidfd.

    Only for a process with one thread: nothing of Python is prepared for or told of the fork.
    *cgroup* is a directory descriptor, used with ``CLONE_INTO_CGROUP``.
    """
    pidfd = ctypes.c_int(-1)
    size = 88  # CLONE_ARGS_SIZE_VER2, Linux 5.7
    fields = (flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup, 0))
    arguments = ctypes.create_string_buffer(struct.pack("=11Q", *fields), size)
    pid = _call(_CLONE3, ctypes.addressof(arguments), size)
    return pid, pidfd.value if pid else -1


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _unshare(ctypes.c_int(flags & 0xFFFF_FFFF)) < 0:
        raise _fail()


def setns(fd: int, flags: int) -> None:
    """setns(2): *fd* is a namespace file, or a pidfd with one or more ``CLONE_NEW*`` flags (Linux 5.8)."""
    if _setns(fd, flags) < 0:
        raise _fail()


def mount(source: str | None, target: str, fstype: str | None, flags: int, options: str | None) -> None:
    """mount(2)."""
    result = _mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if fstype is None else fstype.encode(),
        flags,
        None if options is None else os.fsencode(options),
    )
    if result < 0:
        raise _fail(target)


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    if _umount2(os.fsencode(target), flags) < 0:
        raise _fail(target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    new, old = ctypes.c_char_p(os.fsencode(new_root)), ctypes.c_char_p(os.fsencode(put_old))
    _call(
        _PIVOT_ROOT[os.uname().machine],
        ctypes.cast(new, ctypes.c_void_p).value or 0,
        ctypes.cast(old, ctypes.c_void_p).value or 0,
    )


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    if _setdomainname(name.encode(), len(name.encode())) < 0:
        raise _fail()


def join_session_keyring() -> None:
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: a new keyring without a name, in the place of the inherited one."""
    _call(number_of("keyctl"), KEYCTL_JOIN_SESSION_KEYRING, 0)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): a descriptor of the mount at *path*; the caller closes it."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        return _call(_OPEN_TREE, dirfd, ctypes.addressof(name), flags | os.O_CLOEXEC)
    except OSError as error:
        error.filename = path
        raise


def read_only_copy(path: str) -> int:
    """open_tree(2) and mount_setattr(2): *path* on a mount that is nowhere attached; the caller closes it."""
    tree = open_tree(_AT_FDCWD, path, OPEN_TREE_CLONE)
    mount_setattr(tree, set_=MOUNT_ATTR_RDONLY)
    return tree


def move_mount(tree: int, target: int) -> None:
    """move_mount(2) by descriptors: attach the detached *tree* at the place that *target* has open."""
    empty = ctypes.addressof(_EMPTY)
    _call(_MOVE_MOUNT, tree, empty, target, empty, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(
    tree: int,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on the mount that *tree* has open (Linux 5.12)."""
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", set_, clear, propagation, userns), 32)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call(_MOUNT_SETATTR, tree, ctypes.addressof(_EMPTY), flags, ctypes.addressof(attributes), 32)


@cache
def _open_how(flags: int, mode: int, resolve: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("=3Q", flags | os.O_CLOEXEC, mode, resolve), 24)


def openat2(dirfd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), always with ``O_CLOEXEC``; the caller closes the descriptor.

    Names may be arbitrary bytes. A path resolved with ``RESOLVE_IN_ROOT`` may give EAGAIN when somebody
    renames below the root at the same moment; that is retried here.
    """
    how = _open_how(flags, mode, resolve)
    name = ctypes.create_string_buffer(os.fsencode(path))
    for _ in range(64):
        result: int = _syscall(_OPENAT2, dirfd, ctypes.addressof(name), ctypes.addressof(how), 24, 0, 0)
        if result >= 0:
            return result
        if ctypes.get_errno() != 11:  # EAGAIN
            break
    raise _fail(path)


def close_range(first: int, last: int = 0xFFFF_FFFF, flags: int = 0) -> None:
    """close_range(2): close every descriptor from *first* to *last*, both included (Linux 5.9)."""
    _call(_CLOSE_RANGE, first, last, flags)
