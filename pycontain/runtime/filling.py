"""What is done with the content of volumes where all of its owners are known: in a child of the unpacker."""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from pycontain.kernel import syscalls
from pycontain.layers.apply import Devices, Ownership, apply
from pycontain.layers.diff import diff
from pycontain.layers.encode import encode
from pycontain.layers.entries import Limits, Whiteouts
from pycontain.sandbox.accounts import UnknownAccount, resolve_user

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_ACCOUNTS_LIMIT = 4 << 20
_ENDLESS = Limits(
    max_bytes=1 << 62, max_entries=1 << 62, max_ratio=1 << 62
)  # the image was unpacked within its own
_BLOCK = 512  # stat(2): the unit of st_blocks


def fill(below: str, tree: str, path: str, user: str, ownership: Ownership, devices: Devices) -> None:
    """Copy what the image *below* has in the directory *path* to *tree*; if it has none, give that to *user*."""
    top = os.open(below, _FOLDER)
    try:
        source = syscalls.openat2(top, path[1:], _FOLDER, resolve=_IN_ROOT)
    except OSError:  # nothing is there, or no directory
        _give(tree, top, user)
        return
    chunks = encode(diff(source, whiteouts=Whiteouts.REMOVE, include_root=True))
    stream = io.BufferedReader(_Chunks(chunks))
    apply(stream, tree, limits=_ENDLESS, ownership=ownership, devices=devices)


class _Chunks(io.RawIOBase):
    """A file of what comes out of an iterator."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base says "any buffer"
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _give(tree: str, top: int, user: str) -> None:
    # An unknown user, the start will say so; an id that is not mapped is no user here.
    with suppress(UnknownAccount, OSError):
        uid, gid, _, _ = resolve_user(user, _text(top, "etc/passwd"), _text(top, "etc/group"))
        os.chown(tree, uid, gid)


def _text(top: int, path: str) -> str:
    try:
        fd = syscalls.openat2(top, path, os.O_RDONLY | os.O_NONBLOCK, resolve=_IN_ROOT)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return file.read(_ACCOUNTS_LIMIT).decode("utf-8", "surrogateescape")


def measure(path: str) -> tuple[int, int]:
    """The bytes on the disk, and the number of entries, below *path*; a file with several names counts once.

    It may change meanwhile, by somebody who wants us to look elsewhere: each directory is found from the top, through no
    link. One whose path is longer than the kernel takes counts, and what is in it does not.
    """
    total = entries = 0
    seen: set[tuple[int, int]] = set()
    pending = [b""]
    top = os.open(path, _FOLDER)
    try:
        while pending:
            below = pending.pop()
            for name, found in _entries(top, below):
                entries += 1
                if stat.S_ISDIR(found.st_mode):
                    pending.append(below + b"/" + name if below else name)
                elif found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * _BLOCK
    finally:
        os.close(top)
    return total, entries


def _entries(top: int, below: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    try:
        fd = syscalls.openat2(top, below or b".", _FOLDER, resolve=_BENEATH)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return
    try:
        for name in map(os.fsencode, os.listdir(fd)):
            with suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)
