"""What a container has written to its root, as changes and as a layer: read from its upper directory.

It is done in a child of the unpacker, which may read what any of the container's users wrote, and sees the trees on which
the container stands, merged as the kernel merges them. The upper directory comes as a descriptor.

A start itself makes places for what it mounts, and they are nothing that the payload changed: mount points are left out
with all that is below, and so are directories that hold nothing else, or that are only there because of them. The
upper directory of a container whose file system in memory belongs to its own user namespace has its host's ids; they are
translated back.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import LayerError
from pycontain.kernel import syscalls
from pycontain.layers.diff import diff
from pycontain.layers.encode import encode
from pycontain.layers.entries import WHITEOUT_PREFIX, Kind, Opaque, Whiteouts, hidden_by, printable
from pycontain.runtime.resolution import look, resolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.layers.entries import Entry

ADDED, MODIFIED, DELETED = "added", "modified", "deleted"

_IDS = 65_536
_NOBODY = 65_534
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_BUFFER = 1 << 20
# linux/capability.h: vfs_cap_data and vfs_ns_cap_data, which ends with the root user of a namespace.
_CAPABILITY = b"security.capability"
_REVISION_2, _REVISION_3, _REVISION_MASK = 0x0200_0000, 0x0300_0000, 0xFF00_0000


@attrs.define(eq=False)
class _Change:
    kind: str
    path: bytes
    idle: bool  # of a directory: nothing of its own has changed


@attrs.define(eq=False)
class Survey:
    """What is asked about an upper directory; plain values, which travel to where it can be read.

    *whiteouts* are those of the upper directory, *mounts* the paths below which nothing belongs to the layer, *first* the host's
    ids of its user 0 when they are to be translated. With *resolve* the mounts are paths as they were asked for, in which links are
    to be followed. No time is later than *newest*.
    """

    lower: tuple[str, ...]
    lower_whiteouts: str
    whiteouts: str
    mounts: frozenset[bytes]
    first: tuple[int, int] | tuple[()] = ()
    resolve: bool = False
    newest: int | None = None
    upper: int = attrs.field(default=-1, init=False)
    below: int = attrs.field(default=-1, init=False)

    def do(self, act: str, upper: int, out: int, below: str) -> tuple[Any, ...]:
        """``list`` the changes, or ``write`` them as a tar to the descriptor *out*."""
        self.upper = upper
        self.below = os.open(below, _FOLDER)
        if self.resolve:
            self.mounts |= {resolved(path, self._look) for path in self.mounts} - {b""}
        changes = self.changes()
        if act == "list":
            return (tuple((change.kind, change.path) for change in changes),)
        kept = {change.path for change in changes}
        with open(out, "wb", buffering=_BUFFER, closefd=False) as file:
            try:
                file.writelines(encode(self._layer(kept)))
            except BrokenPipeError:  # the owner has given up
                os._exit(0)
        return ()

    # --- changes ----------------------------------------------------------------------------------------

    def changes(self) -> list[_Change]:
        """All of them, a directory before what is in it."""
        found: list[_Change] = []
        for entry, _ in self._walk(any_name=True):
            hidden = self._hidden(entry)
            if hidden is None:
                found.append(self._made(entry))
            elif isinstance(hidden, Opaque):
                found += (_Change(DELETED, path, idle=False) for path in self._covered(entry.path))
            elif self._lower(hidden) is not None:
                found.append(_Change(DELETED, hidden, idle=False))
        return _without_idle(found)

    def _made(self, entry: Entry) -> _Change:
        before = self._lower(entry.path)
        idle = False
        if entry.kind is Kind.DIRECTORY:
            if before is None:
                idle = any(mount.startswith(entry.path + b"/") for mount in self.mounts)
            else:
                own = stat.S_IFDIR | entry.mode, entry.uid, entry.gid
                idle = own == (before.st_mode, before.st_uid, before.st_gid)
        return _Change(ADDED if before is None else MODIFIED, entry.path, idle)

    def _hidden(self, entry: Entry) -> bytes | Opaque | None:
        """What a whiteout hides, as a path; a file that is only called like one hides nothing."""
        if not _is_whiteout(entry):
            return None
        hidden = hidden_by(entry.path)
        return os.path.join(os.path.dirname(entry.path), hidden) if isinstance(hidden, bytes) else hidden

    def _covered(self, opaque: bytes) -> Iterator[bytes]:
        """The names in the lower directory that one above it hides, and that are not there again."""
        folder = os.path.dirname(opaque)
        above = set(self._names(self.upper, folder))
        yield from (
            os.path.join(folder, name) for name in self._names(self.below, folder) if name not in above
        )

    @staticmethod
    def _names(top: int, folder: bytes) -> list[bytes]:
        try:
            fd = syscalls.openat2(top, folder or b".", _FOLDER, resolve=_BENEATH)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            return []
        try:
            return sorted(map(os.fsencode, os.listdir(fd)))
        finally:
            os.close(fd)

    def _lower(self, path: bytes) -> os.stat_result | None:
        """What the layers below have at *path*, if anything."""
        try:
            fd = syscalls.openat2(self.below, path or b".", os.O_PATH | os.O_NOFOLLOW, resolve=_BENEATH)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise LayerError(
                    f"{printable(path)!r} cannot be looked for below: {error.strerror}", path=printable(path)
                ) from error
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _look(self, path: bytes) -> tuple[int, bytes] | None:
        found = look(self.upper, path)
        return look(self.below, path) if found is None else found

    # --- the layer --------------------------------------------------------------------------------------

    def _layer(self, kept: set[bytes]) -> Iterator[tuple[Entry, Iterable[bytes]]]:
        for entry, content in self._walk():
            if entry.kind is not Kind.DIRECTORY or entry.path in kept:
                yield entry, content

    def _walk(self, *, any_name: bool = False) -> Iterator[tuple[Entry, Iterable[bytes]]]:
        contents = diff(
            self.upper,
            whiteouts=Whiteouts(self.whiteouts),
            include_root=self._root_is_changed(),
            newest=self.newest,
            leave_out=self.mounts.__contains__,
            any_name=any_name,
        )
        return self._translated(contents) if self.first else contents

    def _root_is_changed(self) -> bool:
        """Every upper directory has one; a layer says something of it only when the payload has."""
        found, before = os.stat(".", dir_fd=self.upper), os.fstat(self.below)
        uid, gid = self.first or (0, 0)
        own = found.st_mode, found.st_uid - uid, found.st_gid - gid
        return own != (before.st_mode, before.st_uid, before.st_gid)

    def _translated(
        self, contents: Iterable[tuple[Entry, Iterable[bytes]]]
    ) -> Iterator[tuple[Entry, Iterable[bytes]]]:
        assert self.first
        uid, gid = self.first
        for entry, content in contents:
            xattrs = tuple((key, _capability(key, value, uid)) for key, value in entry.xattrs)
            ids = _inside(entry.uid, uid), _inside(entry.gid, gid)
            inside = attrs.evolve(entry, xattrs=xattrs, uid=ids[0], gid=ids[1])
            yield entry if _is_whiteout(entry) else inside, content


def _is_whiteout(entry: Entry) -> bool:
    """Whether it is one of :func:`diff`, and not a file of the payload that is called so."""
    name = os.path.basename(entry.path)
    plain = not (entry.mtime or entry.size or entry.uid or entry.gid) and entry.kind is Kind.FILE
    return plain and name.startswith(WHITEOUT_PREFIX) and name not in {b".wh.", b".wh..", b".wh..."}


def _without_idle(changes: list[_Change]) -> list[_Change]:
    """Leave out directories that are as they were, unless something in them is not."""
    needed: set[bytes] = set()
    kept = []
    for change in reversed(changes):
        if not change.idle or change.path in needed:
            kept.append(change)
            needed.add(os.path.dirname(change.path))
    return kept[::-1]


def _inside(outside: int, first: int) -> int:
    return outside - first if 0 <= outside - first < _IDS else _NOBODY


def _capability(key: bytes, value: bytes, root: int) -> bytes:
    """A file capability of the container's own root user, as one that counts wherever the layer is used."""
    if key != _CAPABILITY or len(value) != 24:
        return value
    magic, *sets, owner = struct.unpack("<6I", value)
    if magic & _REVISION_MASK != _REVISION_3 or owner != root:
        return value
    return struct.pack("<5I", magic & ~_REVISION_MASK | _REVISION_2, *sets)
