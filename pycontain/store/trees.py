"""Removing a tree that an image made: names are arbitrary, directories may be deep, and closed to their owner."""

from __future__ import annotations

import os
from contextlib import suppress

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_gone = suppress(FileNotFoundError)  # somebody else is removing the same tree


def remove_tree(path: str) -> None:
    """Remove *path* and all that is below it, following no link; nothing to do when it is gone.

    May be repeated, and run by two processes at once. It has to run as somebody who owns the files: for a rootless
    store, as root of its user namespace.
    """
    with _gone:
        top = os.open(path, _FOLDER)
        try:
            os.fchmod(top, 0o700)
            # Each directory is emptied at the top, and those in it move up first: so depth costs no stack.
            while names := os.listdir(top):
                for name in names:
                    _remove(name, top)
        finally:
            os.close(top)
        os.rmdir(path)


def _remove(name: str, top: int) -> None:
    with _gone:
        try:
            os.unlink(name, dir_fd=top)
        except IsADirectoryError:
            _remove_directory(name, top)


def _remove_directory(name: str, top: int) -> None:
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for below in os.listdir(folder):
            _remove_or_lift(below, folder, top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _remove_or_lift(name: str, folder: int, top: int) -> None:
    with _gone:
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            os.chmod(name, 0o700, dir_fd=folder)  # rename(2): moving a directory writes its ".."
            os.rename(name, os.urandom(16).hex(), src_dir_fd=folder, dst_dir_fd=top)
