"""Where a path leads in a tree that is not mounted as a root: links are followed by us, and never out of it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pycontain.errors import LayerError
from pycontain.kernel import syscalls
from pycontain.layers.entries import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    Look = Callable[[bytes], "tuple[int, bytes] | None"]

_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_MOST_LINKS = 40  # path_resolution(7)


def look(top: int, path: bytes) -> tuple[int, bytes] | None:
    """``(mode, target of a link)`` of what is at *path* below the directory *top*, in which no link is followed."""
    try:
        fd = syscalls.openat2(top, path or b".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, resolve=_BENEATH)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise LayerError(f"{printable(path)!r} cannot be looked at: {error.strerror}") from error
        return None
    try:
        mode = os.fstat(fd).st_mode
        return mode, os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(mode) else b""
    finally:
        os.close(fd)


def resolved(path: bytes, look: Look, *, follow_last: bool = True) -> bytes:
    """*path* without links and ``..``, relative to the root. What is not there is taken as it is written."""
    done: list[bytes] = []
    names = [name for name in reversed(path.split(b"/")) if name]
    links = 0
    while names:
        name = names.pop()
        if name == b".":
            continue
        if name == b"..":
            del done[-1:]
            continue
        found = look(b"/".join((*done, name)))
        if found is None or not stat.S_ISLNK(found[0]) or not (names or follow_last):
            done.append(name)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise LayerError(f"{printable(path)!r} leads through too many links", path=printable(path))
        if found[1].startswith(b"/"):
            done.clear()
        names += [part for part in reversed(found[1].split(b"/")) if part]
    return b"/".join(done)
