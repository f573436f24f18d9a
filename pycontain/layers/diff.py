"""Making a layer: from a tree of files to sorted entries, with overlayfs' markers told as whiteouts.

A directory comes before what is in it, first its whiteouts and then its names in the order of their bytes, so that
the same tree gives the same layer on every file system. Of extended attributes a layer keeps file capabilities and
``user.``, as they mean the same on every host.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import LayerError, UnsupportedEntry
from pycontain.layers.entries import (
    DEVICES,
    OPAQUE_WHITEOUT,
    OVERLAY_XATTRS,
    WHITEOUT_PREFIX,
    Entry,
    Kind,
    Whiteouts,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import FileIO

    from pycontain.layers.entries import Xattrs

    Contents = tuple[Entry, Iterable[bytes]]

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY  # a fifo may have taken the file's place just now
_CHUNK = 256 << 10

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
}  # a socket means nothing without the program that listens on it

_KEPT_XATTRS = (b"user.", b"security.capability")
# overlayfs.rst: with these a file or directory has its content elsewhere, in a lower layer or below another name.
_ELSEWHERE = ("redirect", "metacopy")


def diff(
    upper: int | str,
    *,
    whiteouts: Whiteouts = Whiteouts.OVERLAY,
    include_root: bool = False,
    newest: int | None = None,
    leave_out: Callable[[bytes], bool] = lambda _: False,
    any_name: bool = False,
) -> Iterator[Contents]:
    """Give the layer that the tree below *upper*, an open directory or a path, is: sorted entries with their content.

    *whiteouts* says by which markers the tree tells what it hides; with ``REMOVE`` it tells nothing, and the layer is
    the whole tree. *include_root* adds an entry for the root itself, which an upper directory has for no reason of its
    own. No time will be later than *newest* (nanoseconds), so that a build can be repeated. A path of which *leave_out*
    is true is not in it, nor what is below. With *any_name* a file whose name no layer can hold is given all the same, for one who only looks.

    Each content has to be taken before the next entry, and is closed then. The tree must not change meanwhile; a file that does is found
    out by :func:`~pycontain.layers.encode.encode`. :class:`LayerError` for what cannot be read,
    :class:`UnsupportedEntry` for what no layer can hold.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with _explained(b""):
        top = os.open(".", flags, dir_fd=upper) if isinstance(upper, int) else os.open(upper, flags)
    walk = _Walk(whiteouts, newest, leave_out, any_name=any_name)
    try:
        if include_root:
            yield walk.entry(b"", os.fstat(top), walk.xattrs(top, b"")), ()
        walk.enter(top, b"")
        yield from walk.contents()
    finally:
        walk.close()


@attrs.frozen
class _Level:
    """A directory on the way down: its names still to come, last first."""

    fd: int
    path: bytes
    names: list[tuple[bytes, os.stat_result]]


class _Walk:
    """A walk through one tree, depth first; without recursion, since a payload chooses the depth."""

    def __init__(
        self,
        whiteouts: Whiteouts,
        newest: int | None,
        leave_out: Callable[[bytes], bool],
        *,
        any_name: bool,
    ) -> None:
        self._leave_out = leave_out
        self._any_name = any_name
        self._overlay = whiteouts is not Whiteouts.REMOVE
        self._prefix = whiteouts.value
        self._newest = newest
        self._levels: list[_Level] = []
        self._first: dict[tuple[int, int], bytes] = {}  # path of each inode that has more names to come

    def enter(self, fd: int, path: bytes) -> None:
        """Go down into the directory *fd* at *path*, which is closed on the way up."""
        names: list[tuple[bytes, os.stat_result]] = []
        self._levels.append(_Level(fd, path, names))
        with os.scandir(fd) as found, _explained(path):
            names += ((os.fsencode(one.name), one.stat(follow_symlinks=False)) for one in found)
        names.sort(key=lambda one: (not self._hides(one[1]), one[0]), reverse=True)

    def close(self) -> None:
        """Close what is open; to be called in any case."""
        while self._levels:
            os.close(self._levels.pop().fd)

    def contents(self) -> Iterator[Contents]:
        """Give what is in the directory that was entered, and below."""
        while self._levels:
            level = self._levels[-1]
            if not level.names:
                os.close(self._levels.pop().fd)
                continue
            name, found = level.names.pop()
            path = level.path + b"/" + name if level.path else name
            if self._leave_out(path):
                continue
            with _explained(path):
                if name.startswith(WHITEOUT_PREFIX) and not self._any_name:
                    raise _unsupported(path, "its name would be read as a whiteout")
                yield from self._one(level, name, path, found)

    def _one(self, level: _Level, name: bytes, path: bytes, found: os.stat_result) -> Iterator[Contents]:
        if self._hides(found):
            yield _whiteout(level.path, WHITEOUT_PREFIX + name), ()
        elif stat.S_ISDIR(found.st_mode):
            fd = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=level.fd)
            self.enter(fd, path)
            yield self.entry(path, found, self.xattrs(fd, path)), ()
            if self._is_opaque(fd):
                yield _whiteout(path, OPAQUE_WHITEOUT), ()
        elif (
            found.st_nlink > 1
            and (first := self._first.setdefault((found.st_dev, found.st_ino), path)) != path
        ):
            yield (
                attrs.evolve(
                    self.entry(path, found), kind=Kind.HARD_LINK, size=0, device=(0, 0), target=first
                ),
                (),
            )
        elif stat.S_ISREG(found.st_mode):
            # A file object, since a number that is closed too early may soon name another file.
            with open(_open_file(name, level.fd, found, path), "rb", buffering=0) as file:
                yield self.entry(path, found, self.xattrs(file.fileno(), path)), _chunks(file, path)
        elif stat.S_ISLNK(found.st_mode):
            yield attrs.evolve(self.entry(path, found), target=os.readlink(name, dir_fd=level.fd)), ()
        elif not stat.S_ISSOCK(found.st_mode):
            yield self.entry(path, found), ()

    def entry(self, path: bytes, found: os.stat_result, xattrs: Xattrs = ()) -> Entry:
        """Return the entry of what was *found* at *path*."""
        kind = _KINDS[stat.S_IFMT(found.st_mode)]
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime=found.st_mtime_ns if self._newest is None else min(found.st_mtime_ns, self._newest),
            size=found.st_size if kind is Kind.FILE else 0,
            device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in DEVICES else (0, 0),
            xattrs=xattrs,
        )

    def xattrs(self, fd: int, path: bytes) -> Xattrs:
        """Return the extended attributes of *fd* that a layer keeps."""
        names = sorted(os.listxattr(fd))
        if self._overlay and (odd := {self._prefix + name for name in _ELSEWHERE} & set(names)):
            raise _unsupported(path, f"overlayfs keeps a part of it elsewhere ({odd.pop()})")
        kept = [name for name in map(os.fsencode, names) if name.startswith(_KEPT_XATTRS)]
        return tuple((name, os.getxattr(fd, name)) for name in kept if not name.startswith(OVERLAY_XATTRS))

    def _hides(self, found: os.stat_result) -> bool:
        return self._overlay and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def _is_opaque(self, fd: int) -> bool:
        name = self._prefix + "opaque"
        return self._overlay and name in os.listxattr(fd) and os.getxattr(fd, name) == b"y"


def _whiteout(directory: bytes, name: bytes) -> Entry:
    return Entry(directory + b"/" + name if directory else name, Kind.FILE)


def _open_file(name: bytes, folder: int, found: os.stat_result, path: bytes) -> int:
    """Open what was *found* there, and nothing that has taken its place."""
    fd = os.open(name, _OPEN | _AT_ONCE, dir_fd=folder)
    now = os.fstat(fd)
    # A number may be used again, so the type counts too.
    if not os.path.samestat(now, found) or not stat.S_ISREG(now.st_mode):
        os.close(fd)
        where = printable(path)
        raise LayerError(
            f"{where!r} was replaced while it was read", path=where, hint="try again when nobody writes there"
        )
    return fd


def _chunks(file: FileIO, path: bytes) -> Iterator[bytes]:
    with _explained(path):
        while chunk := file.read(_CHUNK):
            yield chunk


def _unsupported(path: bytes, why: str) -> UnsupportedEntry:
    where = printable(path)
    return UnsupportedEntry(f"a layer cannot hold {where!r}: {why}", path=where)


@contextmanager
def _explained(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = printable(path)
        raise LayerError(f"{where!r} cannot be read: {error.strerror}", path=where) from error
