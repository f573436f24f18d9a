"""Applying a layer: from its bytes to a tree of files, which nothing in the layer can leave.

What is made of an entry follows image-spec layer.md, "Applying Changesets", and containerd where that is silent: an
entry replaces what has its name, only a directory keeps a directory; missing parents are made; names and hard links
go through symbolic links inside the root. Whiteouts hide what lower layers put there and never what the layer itself
puts there, in whatever order they come.

Files get their attributes at once, in the order owner (which clears set-id bits and capabilities), extended
attributes (which need write permission), mode, times; directories when everything is in them.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import attrs

from pycontain.errors import DigestMismatch, InvalidImage, LayerError, PycontainError, UnsupportedEntry
from pycontain.layers.decode import Decoder
from pycontain.layers.entries import (
    DEFAULT_LIMITS,
    DEVICES,
    OVERLAY_XATTRS,
    WHITEOUT_PREFIX,
    Entry,
    Kind,
    Limits,
    Opaque,
    Whiteouts,
    hidden_by,
    is_aufs_leftover,
    printable,
)
from pycontain.layers.pipeline import LayerBytes
from pycontain.layers.tree import Directory, Tree

if TYPE_CHECKING:
    from collections.abc import Callable

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600  # until the content is in it
_SET_ID = stat.S_ISUID | stat.S_ISGID
_IMPLIED_MODE = 0o755
_FILE_TYPES = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK}

_Made = TypeVar("_Made")

# chown(2): EPERM for one who is not root, EINVAL for an id that the user namespace does not map, EOVERFLOW the same
# on an idmapped mount.
_UNMAPPED = frozenset({errno.EPERM, errno.EINVAL, errno.EOVERFLOW})
_NO_XATTR = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.ENOSPC}
)


class Ownership(Enum):
    """What to do when a file cannot be given to its owner."""

    KEEP = "keep"
    """Fail."""

    SQUASH = "squash"
    """Leave it to the caller, without set-id bits."""


class Devices(Enum):
    """What to do when a device cannot be made, as in a user namespace."""

    MAKE = "make"
    """Fail."""

    RECORD = "record"
    """Leave it out and say so in :attr:`Applied.recorded`."""


class Lost(Enum):
    """What of an entry is not in the tree."""

    DEVICE = "device"
    SET_ID = "set-id bits"
    XATTR = "extended attribute"
    ENTRY = "entry"


@attrs.frozen
class Loss:
    """Something that a layer says and the tree does not hold; *reason* is for people."""

    what: Lost
    entry: Entry
    reason: str


@attrs.frozen
class Applied:
    """What was applied: the digest of the layer's content, and how the tree differs from it.

    *diff_id* is the digest of the uncompressed tar. *size* counts the stored bytes, *written* the bytes of files, and
    *squashed* the entries that stayed with the caller. *implied* are the directories that the layer uses and has no
    entry for: they have mode 0755, the caller's ids and the epoch, and should get what a lower layer says about them.
    *describes_root* tells whether the layer has an entry for the root.
    """

    diff_id: str
    size: int
    entries: int
    written: int
    squashed: int = 0
    recorded: tuple[Loss, ...] = ()
    implied: tuple[bytes, ...] = ()
    describes_root: bool = False


def apply(
    stream: BinaryIO,
    root: int | str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    whiteouts: Whiteouts = Whiteouts.REMOVE,
    ownership: Ownership = Ownership.KEEP,
    devices: Devices = Devices.MAKE,
    diff_id: str | None = None,
) -> Applied:
    """Apply the layer in *stream*, compressed or not, to the tree below *root*, an open directory or a path.

    The stream is read to its end and not closed. Nobody else may change the tree meanwhile. Nothing outside of the
    root is touched, whatever the layer says. On failure the tree holds a part of the layer and is to be thrown away:
    :class:`InvalidImage` for bytes that are no layer, :class:`DigestMismatch` when they are not those of *diff_id*,
    :class:`LayerError` and its kin for what cannot be applied. What reading the stream raises passes unchanged.
    """
    with _opened(root, limits) as tree, LayerBytes(stream) as layer:
        applier = _Applier(
            tree=tree,
            layer=layer,
            decoder=Decoder(layer, limits, lambda: layer.size),
            whiteouts=whiteouts,
            ownership=ownership,
            devices=devices,
        )
        applier.run()
    if diff_id is not None and diff_id != layer.diff_id:
        raise DigestMismatch(
            f"the layer's content has the digest {layer.diff_id}, and its image says {diff_id}",
            expected=diff_id,
            found=layer.diff_id,
        )
    return Applied(
        diff_id=layer.diff_id,
        size=layer.size,
        entries=applier.decoder.entries,
        written=applier.written,
        squashed=applier.squashed,
        recorded=tuple(applier.recorded),
        implied=tuple(sorted(applier.implied)),
        describes_root=applier.tree.root.entry is not None,
    )


def _opened(root: int | str, limits: Limits) -> Tree:
    try:
        return Tree(root, limits)
    except OSError as error:
        raise LayerError(f"the root {root!r} cannot be opened: {error.strerror}", path=str(root)) from error


@attrs.define(eq=False, kw_only=True)
class _Applier:
    """One layer on its way into one tree."""

    tree: Tree
    layer: LayerBytes
    decoder: Decoder
    whiteouts: Whiteouts
    ownership: Ownership
    devices: Devices
    written: int = 0
    squashed: int = 0
    recorded: list[Loss] = attrs.field(factory=list)
    implied: list[bytes] = attrs.field(factory=list)

    @property
    def overlay(self) -> bool:
        """Whether whiteouts become markers."""
        return self.whiteouts is not Whiteouts.REMOVE

    def run(self) -> None:
        """Apply all entries, then give the directories what they are to have."""
        for entry in self.decoder:
            try:
                self._place(entry)
            except OSError as error:
                if error is self.layer.failure:
                    raise
                raise _explained(entry, error) from error
        for directory in self.tree.closing():
            try:
                self._finish(directory)
            except OSError as error:
                raise _explained(directory.entry or _implied(directory), error) from error

    # --- entries ----------------------------------------------------------------------------------------

    def _place(self, entry: Entry) -> None:
        above, _, name = entry.path.rpartition(b"/")
        if not name:
            self._root(entry)
        elif name.startswith(WHITEOUT_PREFIX) or above.startswith(WHITEOUT_PREFIX):
            self._whiteout_or_else(entry, above, name)
        else:
            self._make(entry, above, name)

    def _make(self, entry: Entry, above: bytes, name: bytes) -> None:
        parent = self.tree.place(above)
        _MAKERS[entry.kind](self, parent, name, entry)
        parent.placed.add(name)

    def _root(self, entry: Entry) -> None:
        if entry.kind is Kind.DIRECTORY:
            self.tree.root.entry = entry
        else:  # containerd ignores it as well
            self._lose(Lost.ENTRY, entry, "it names the root, which is a directory")

    def file(self, parent: Directory, name: bytes, entry: Entry) -> None:
        fd = self._anew(parent, name, lambda at: os.open(name, _CREATE, _PRIVATE, dir_fd=at))
        try:
            for offset, piece in self.decoder.content():
                self._write(fd, offset, piece)
            if entry.segments is not None:
                os.ftruncate(fd, entry.size)
            self._dress(fd, entry, ours=parent.ours)
        finally:
            os.close(fd)

    def _anew(self, parent: Directory, name: bytes, make: Callable[[int], _Made]) -> _Made:
        """Call *make* with the descriptor of *parent*; once more, without what has the *name* there, if it must be."""
        try:
            return make(self.tree.fd(parent))
        except FileExistsError:
            self.tree.remove(parent, name)
            return make(self.tree.fd(parent))

    def _write(self, fd: int, offset: int, piece: memoryview) -> None:
        self.written += len(piece)
        while piece:
            count = os.pwrite(fd, piece, offset)
            offset += count
            piece = piece[count:]

    def directory(self, parent: Directory, name: bytes, entry: Entry) -> None:
        child = parent.children.get(name)
        try:
            child = child or self.tree.make(parent, name)
        except FileExistsError:
            child = self.tree.directory_at(parent, name)
        child.entry = entry

    def symlink(self, parent: Directory, name: bytes, entry: Entry) -> None:
        tree = self.tree
        self._anew(parent, name, lambda at: os.symlink(entry.target, name, dir_fd=at))
        fd = tree.fd(parent)
        if not parent.ours or (entry.uid, entry.gid) != tree.me:
            self._own(entry, lambda: os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False))
        for key, value in entry.xattrs:
            self._set_xattr(b"/proc/self/fd/%d/%s" % (fd, name), key, value, entry, follow=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=fd, follow_symlinks=False)

    def hard_link(self, parent: Directory, name: bytes, entry: Entry) -> None:
        above, _, target = entry.target.rpartition(b"/")
        source = self.tree.find(above)
        if source is parent and target == name:
            return  # it is itself already
        source_fd = os.dup(self.tree.fd(source))  # to stay open whatever the tree opens
        try:
            self._link(source_fd, target or b".", parent, name)
        finally:
            os.close(source_fd)

    def _link(self, source_fd: int, target: bytes, parent: Directory, name: bytes) -> None:
        os.stat(target, dir_fd=source_fd, follow_symlinks=False)  # before anything is removed for its sake
        # linkat(2) without AT_SYMLINK_FOLLOW: a link to a symbolic link is one more name of the symbolic link.
        self._anew(
            parent,
            name,
            lambda at: os.link(target, name, src_dir_fd=source_fd, dst_dir_fd=at, follow_symlinks=False),
        )

    def special(self, parent: Directory, name: bytes, entry: Entry) -> None:
        mode, device = _FILE_TYPES[entry.kind] | _PRIVATE, os.makedev(*entry.device)
        try:
            self._anew(parent, name, lambda at: os.mknod(name, mode, device, dir_fd=at))
        except PermissionError:
            if self.devices is Devices.MAKE or entry.kind is Kind.FIFO:
                raise
            self._lose(Lost.DEVICE, entry, "the kernel lets only root of the host make devices")
            return
        # open(2): O_PATH does not open the device, and /proc/self/fd leads to what it refers to and nowhere else.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.tree.fd(parent))
        try:
            self._dress(f"/proc/self/fd/{fd}", entry, ours=parent.ours)
        finally:
            os.close(fd)

    # --- whiteouts --------------------------------------------------------------------------------------

    def _whiteout_or_else(self, entry: Entry, above: bytes, name: bytes) -> None:
        if is_aufs_leftover(entry.path):
            return
        hidden = hidden_by(entry.path)
        if hidden is None:
            self._make(entry, above, name)
        elif isinstance(hidden, Opaque):
            self._hide_all(self.tree.place(above))
        else:
            self._hide(self.tree.place(above), hidden)

    def _hide_all(self, directory: Directory) -> None:
        if self.overlay:
            directory.opaque = True
        else:
            self.tree.remove_lower(directory)

    def _hide(self, parent: Directory, name: bytes) -> None:
        if name in parent.placed:
            if name in parent.children:
                self._hide_all(parent.children[name])
        elif not self.overlay:
            self.tree.remove(parent, name)
        elif name not in parent.whiteouts:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self.tree.fd(parent))
        if self.overlay:
            parent.whiteouts.add(name)

    # --- attributes -------------------------------------------------------------------------------------

    def _dress(self, file: int | str, entry: Entry, *, ours: bool) -> None:
        mode = entry.mode
        if (not ours or (entry.uid, entry.gid) != self.tree.me) and not self._own(
            entry, lambda: os.chown(file, entry.uid, entry.gid)
        ):
            mode = self._without_set_id(entry)
        for key, value in entry.xattrs:
            self._set_xattr(file, key, value, entry)
        os.chmod(file, mode)
        os.utime(file, ns=(entry.mtime, entry.mtime))

    def _own(self, entry: Entry, chown: Callable[[], None]) -> bool:
        """Give the file to its owner; False when it had to stay with us."""
        try:
            chown()
        except OSError as error:
            if error.errno not in _UNMAPPED:
                raise
            if self.ownership is Ownership.KEEP:
                raise _cannot_own(entry, error) from error
            self.squashed += 1
            return False
        return True

    def _without_set_id(self, entry: Entry) -> int:
        # A set-id file would run as the caller instead of its owner.
        if entry.mode & _SET_ID:
            self._lose(Lost.SET_ID, entry, f"it could not be given to {entry.uid}:{entry.gid}")
        return entry.mode & ~_SET_ID

    def _set_xattr(
        self, file: int | str | bytes, key: bytes, value: bytes, entry: Entry, *, follow: bool = True
    ) -> None:
        if key.startswith(OVERLAY_XATTRS):
            self._lose(Lost.XATTR, entry, f"{printable(key)} belongs to overlayfs")
            return
        try:
            os.setxattr(file, key, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
            self._lose(Lost.XATTR, entry, f"{printable(key)}: {error.strerror}")

    def _finish(self, directory: Directory) -> None:
        entry = directory.entry
        found = directory.found
        self._drop_idle_markers(directory)
        fd = self.tree.fd(directory)
        if directory.opaque and self.overlay:
            self._mark_opaque(fd)
        if entry is not None:
            self._dress(fd, entry, ours=directory.ours)
        elif found is None:
            self.implied.append(directory.path)
            self._dress(fd, _implied(directory, *self.tree.me), ours=True)
        else:
            self._restore(fd, directory, found)

    def _mark_opaque(self, fd: int) -> None:
        os.setxattr(fd, self.whiteouts.value + "opaque", b"y")
        if self.whiteouts is Whiteouts.OVERLAY:
            # Root's containers have user namespaces, too. tmpfs(5) before Linux 6.6 cannot hold it, and is no layer there.
            try:
                os.setxattr(fd, Whiteouts.USER_OVERLAY.value + "opaque", b"y")
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise

    def _drop_idle_markers(self, directory: Directory) -> None:
        # Where nothing shines through, overlayfs does not look for markers, and lists them as files.
        if self.overlay and directory.whiteouts and directory.is_hiding:
            for name in directory.whiteouts - directory.placed:
                self.tree.remove(directory, name)

    def _restore(self, fd: int, directory: Directory, found: os.stat_result) -> None:
        if self.tree.locked(directory):
            os.chmod(fd, stat.S_IMODE(found.st_mode))
        with suppress(PermissionError):  # a directory of somebody else, into which we may only write
            os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _lose(self, what: Lost, entry: Entry, reason: str) -> None:
        self.recorded.append(Loss(what, entry, reason))


_MAKERS = {
    Kind.FILE: _Applier.file,
    Kind.DIRECTORY: _Applier.directory,
    Kind.SYMLINK: _Applier.symlink,
    Kind.HARD_LINK: _Applier.hard_link,
    Kind.CHARACTER_DEVICE: _Applier.special,
    Kind.BLOCK_DEVICE: _Applier.special,
    Kind.FIFO: _Applier.special,
}


def _implied(directory: Directory, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(directory.path, Kind.DIRECTORY, mode=_IMPLIED_MODE, uid=uid, gid=gid)


def _cannot_own(entry: Entry, error: OSError) -> LayerError:
    where = printable(entry.path)
    return LayerError(
        f"{where!r} cannot be given to its owner {entry.uid}:{entry.gid}: {error.strerror}",
        path=where,
        hint="map this id into the user namespace, or apply with ownership=Ownership.SQUASH",
    )


def _explained(entry: Entry, error: OSError) -> PycontainError:
    """Return the error for the system call that failed at *entry*."""
    where = printable(entry.path)
    if error.errno == errno.ELOOP:
        return InvalidImage(f"the path {where!r} goes through too many symbolic links")
    if error.errno == errno.ENAMETOOLONG:
        return UnsupportedEntry(f"a name in {where!r} is longer than the file system holds", path=where)
    if entry.kind is Kind.HARD_LINK and error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EPERM}:
        target = printable(entry.target)
        return InvalidImage(f"{where!r} is a hard link to {target!r}, which is no file of the tree")
    sentence = f"the {entry.kind.value} {where!r} cannot be made: {error.strerror}"
    if entry.kind in DEVICES and error.errno == errno.EPERM:
        return UnsupportedEntry(
            sentence, path=where, hint="apply with devices=Devices.RECORD to leave it out"
        )
    return LayerError(sentence, path=where)
