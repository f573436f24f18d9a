"""Removing a tree that others made: names are arbitrary, directories may be deep, and closed to their owner.

A tree may be deeper than descriptors or a stack can be. So below a certain depth a directory is first moved up to the
top. The zygote imports this module.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from pycontain.kernel import syscalls

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 32
_gone = suppress(FileNotFoundError)  # somebody else is removing the same tree


def remove_tree(path: str, budget: int = -1) -> bool:
    """Remove *path* and all that is below it, following no link; nothing to do when it is gone.

    False, and much of it may be left, when there are more than *budget* entries. May be repeated, and run by two
    processes at once. It has to run as somebody who owns the files: for what a user namespace made, as its root.
    What is mounted in the tree is not touched: EBUSY, as from rmdir(2), and some of the rest may be gone.
    """
    try:
        top = _open(path, None)
    except FileNotFoundError:
        return True
    try:
        if not empty(top, budget):
            return False
    finally:
        os.close(top)
    with _gone:
        os.rmdir(path)
    return True


def empty(folder: int, budget: int = -1) -> bool:
    """Remove all that is below the open directory *folder*; *budget* as for :func:`remove_tree`."""
    return _empty(folder, folder, 0, [budget])


def _empty(folder: int, top: int, depth: int, budget: list[int]) -> bool:
    while names := os.listdir(folder):  # again, because directories may have been moved to the top
        for name in names:
            if budget[0] == 0:
                return False
            budget[0] -= 1
            with _gone:
                if not _remove(name, folder, top, depth, budget):
                    return False
    return True


def _remove(name: str, folder: int, top: int, depth: int, budget: list[int]) -> bool:
    try:
        try:
            os.unlink(name, dir_fd=folder)
        except PermissionError:
            os.fchmod(folder, 0o700)  # it may be closed to its owner
            os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return _remove_directory(name, folder, top, depth, budget)
    return True


def _remove_directory(name: str, folder: int, top: int, depth: int, budget: list[int]) -> bool:
    if depth == _DEPTH:
        try:
            _lift(name, folder, top)
        except PermissionError:
            os.chmod(name, 0o700, dir_fd=folder)  # rename(2): moving a directory writes its ".."
            _lift(name, folder, top)
        return True
    below = _open(name, folder)
    try:
        if not _empty(below, top, depth + 1, budget):
            return False
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)
    return True


def _lift(name: str, folder: int, top: int) -> None:
    os.rename(name, os.urandom(16).hex(), src_dir_fd=folder, dst_dir_fd=top)


def _open(name: str, folder: int | None) -> int:
    try:
        return _open_directory(name, folder)
    except PermissionError:  # closed to its owner
        os.chmod(name, 0o700, dir_fd=folder)
        return _open_directory(name, folder)


def _open_directory(name: str, folder: int | None) -> int:
    if folder is None:
        return os.open(name, _FOLDER)
    try:
        return syscalls.openat2(folder, name, _FOLDER, resolve=syscalls.RESOLVE_NO_XDEV)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, "a file system is mounted there", name) from error
        raise
