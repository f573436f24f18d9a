"""A directory tree below one descriptor, walked so that no name and no link leads out of it.

The kernel is only ever given one name at a time, relative to the descriptor of a directory that was opened before, and
never follows a link: each directory on the way is opened with O_NOFOLLOW, and a symbolic link found there is read and
walked here, where ``/`` is the root of the tree and ``..`` stops at it. That is openat2(2) with RESOLVE_IN_ROOT, done
by hand for two reasons: directories that a layer only implies are made on the way, and each real directory becomes one
:class:`Directory`, whatever the names by which it was reached, so that what a layer put into it can be written down.

Each directory is opened once, as long as few are open: entries of a tar lie close together.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from typing import TYPE_CHECKING, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from pycontain.layers.entries import Entry, Limits

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN = 64  # descriptors of directories; several layers may be applied at once
_MAX_LINKS = 40  # as the kernel: path_resolution(7)
_SEARCHABLE = 0o700  # what we need on a directory to work in it


@attrs.define(eq=False)
class Directory:
    """A real directory of the tree, and what the present layer did to it."""

    name: bytes
    _above: Directory | None = attrs.field(repr=False)
    depth: int
    ours: bool
    """Whether what we make in it belongs to us without a chown: it may be setgid, or on a file system with grpid."""

    found: os.stat_result | None = attrs.field(default=None, repr=False)
    """What it was before this layer; None when this layer made it."""

    entry: Entry | None = None
    """The layer's entry for it, to be applied when nothing is put into it any more."""

    fd: int = -1
    children: dict[bytes, Directory] = attrs.field(factory=dict, repr=False)
    placed: set[bytes] = attrs.field(factory=set, repr=False)
    """The names that this layer put here, which its own whiteouts spare."""

    whiteouts: set[bytes] = attrs.field(factory=set, repr=False)
    """The names that the layer hides here; kept only where a later directory has to become opaque."""

    opaque: bool = False
    """Whether the layer hides what the layers below have in it."""

    @property
    def parent(self) -> Directory:
        """The directory above; the root's is the root, as path_resolution(7) has it."""
        return self._above or self

    @property
    def is_hiding(self) -> bool:
        """Whether nothing of the layers below shows here, because it or a directory above is opaque."""
        return self.opaque or (self._above is not None and self._above.is_hiding)

    @property
    def path(self) -> bytes:
        """The path below the root, without links."""
        names = []
        directory = self
        while directory._above is not None:
            names.append(directory.name)
            directory = directory._above
        return b"/".join(reversed(names))


class Tree:
    """The tree below *root*, an open directory or the path of one; a context manager that closes what it opened."""

    def __init__(self, root: int | str | bytes, limits: Limits) -> None:
        self.me = os.geteuid(), os.getegid()
        self._limits = limits
        self._open: deque[Directory] = deque()
        self._known: dict[bytes, Directory] = {}
        if isinstance(root, int):
            fd = os.open(".", _OPEN, dir_fd=root)
        else:
            fd = os.open(root, _OPEN & ~os.O_NOFOLLOW)  # the caller's own path may lead through links
        found = os.fstat(fd)
        self.root = Directory(b"", None, 0, ours=self._is_ours(found), found=found, fd=fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._close(self._open.popleft())
        self._close(self.root)

    # --- finding ----------------------------------------------------------------------------------------

    def fd(self, directory: Directory) -> int:
        """Return the descriptor of *directory*, good until the next call of any method."""
        closed = []
        above = directory
        while above.fd < 0:
            closed.append(above)
            above = above.parent
        for one in reversed(closed):
            self._opened(one, os.open(one.name, _OPEN, dir_fd=one.parent.fd))
        return directory.fd

    def place(self, path: bytes) -> Directory:
        """Return the directory at the clean *path*, making what is missing on the way; the layer has put all of it there."""
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._walk(path, make=True)
        return known

    def find(self, path: bytes) -> Directory:
        """Return the directory at the clean *path*; :class:`FileNotFoundError` when there is none."""
        return self._known.get(path) or self._walk(path, make=False)

    def _walk(self, path: bytes, *, make: bool) -> Directory:
        here = self.root
        links = 0
        pending = path.split(b"/")[::-1]
        while pending:
            name = pending.pop()
            if name in {b"", b"."}:
                continue
            step = here.parent if name == b".." else self._step(here, name, make=make)
            if isinstance(step, Directory):
                here = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            here = self.root if step.startswith(b"/") else here
            pending += step.split(b"/")[::-1]
        return here

    def _step(self, here: Directory, name: bytes, *, make: bool) -> Directory | bytes:
        """Go from *here* to *name*: a directory, or the text of a symbolic link."""
        child = here.children.get(name)
        if child is None:
            try:
                child = self._enter(here, name)
            except FileNotFoundError:
                if not make:
                    raise
                child = self.make(here, name)
            except NotADirectoryError:
                if (link := self.read_link(here, name)) is not None:
                    return link
                if not make:
                    raise
                child = self.directory_at(here, name)  # where a lower layer has a file
        if make:
            here.placed.add(name)
        return child

    def read_link(self, directory: Directory, name: bytes) -> bytes | None:
        """Return the text of the symbolic link *name*, None when it is something else."""
        try:
            return os.readlink(name, dir_fd=self.fd(directory))
        except OSError as error:
            if error.errno != errno.EINVAL:  # readlink(2): not a symbolic link
                raise
            return None

    # --- making and removing ----------------------------------------------------------------------------

    def make(self, base: Directory, name: bytes) -> Directory:
        """Make the directory *name*, for us alone until :meth:`closing` says what it shall be."""
        if base.depth >= self._limits.max_depth:
            raise self._limits.exceeded("max_depth", base.path + b"/" + name)
        os.mkdir(name, _SEARCHABLE, dir_fd=self.fd(base))
        child = base.children[name] = Directory(name, base, base.depth + 1, ours=base.ours)
        child.opaque = name in base.whiteouts
        base.placed.add(name)
        return child

    def directory_at(self, base: Directory, name: bytes) -> Directory:
        """Return the directory *name*, which replaces what is there unless that is one."""
        try:
            return self.enter(base, name)
        except NotADirectoryError:
            self.remove(base, name)
            return self.make(base, name)

    def enter(self, base: Directory, name: bytes) -> Directory:
        """Return the directory *name*, which is there; :class:`NotADirectoryError` when it is none, or a link."""
        return base.children.get(name) or self._enter(base, name)

    def remove(self, base: Directory, name: bytes) -> None:
        """Remove *name* and all below it, if it is there."""
        try:
            os.unlink(name, dir_fd=self.fd(base))
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._remove_directory(self.enter(base, name))
        self._known.clear()  # paths may have led through it
        base.placed.discard(name)

    def remove_lower(self, top: Directory) -> None:
        """Remove from *top* and the directories below it what the present layer did not put there."""
        pending = [top]
        while pending:
            directory = pending.pop()
            for name in self.names(directory):
                if name not in directory.placed:
                    self.remove(directory, name)
                elif (child := directory.children.get(name)) is not None:
                    pending.append(child)

    def names(self, directory: Directory) -> list[bytes]:
        """List *directory*."""
        return [os.fsencode(name) for name in os.listdir(self.fd(directory))]

    def _remove_directory(self, top: Directory) -> None:
        pending = [top]
        while pending:
            directory = pending[-1]
            below = [name for name in self.names(directory) if not self._unlinked(directory, name)]
            if below:
                pending += [self.enter(directory, name) for name in below]
                continue
            pending.pop()
            self._forget(directory)
            os.rmdir(directory.name, dir_fd=self.fd(directory.parent))

    def _unlinked(self, directory: Directory, name: bytes) -> bool:
        try:
            os.unlink(name, dir_fd=self.fd(directory))
        except IsADirectoryError:
            return False
        return True

    # --- descriptors ------------------------------------------------------------------------------------

    def closing(self) -> Iterator[Directory]:
        """Give every directory that was entered, those below before those above."""
        order = []
        pending = [self.root]
        while pending:
            order.append(directory := pending.pop())
            pending += directory.children.values()
        yield from reversed(order)

    def _enter(self, base: Directory, name: bytes) -> Directory:
        try:
            fd = os.open(name, _OPEN, dir_fd=self.fd(base))
            found = os.fstat(fd)
        except PermissionError:
            found = self._unlock(base, name)
            fd = os.open(name, _OPEN, dir_fd=self.fd(base))
        child = Directory(name, base, base.depth + 1, ours=self._is_ours(found), found=found)
        base.children[name] = child
        self._opened(child, fd)
        if self.locked(child):
            os.chmod(fd, stat.S_IMODE(found.st_mode) | _SEARCHABLE)
        return child

    def locked(self, directory: Directory) -> bool:
        """Tell whether we had to change the mode of *directory*, which was there before, to work in it."""
        found = directory.found
        return found is not None and self.me[0] != 0 and found.st_mode & _SEARCHABLE != _SEARCHABLE

    def _unlock(self, base: Directory, name: bytes) -> os.stat_result:
        """Make a directory readable that even its owner may not read, and return what it was."""
        # O_PATH needs no permission on it, and /proc/self/fd leads chmod(2) to the very directory that was opened.
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd(base))
        try:
            found = os.fstat(fd)
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(found.st_mode) | _SEARCHABLE)
        finally:
            os.close(fd)
        return found

    def _opened(self, directory: Directory, fd: int) -> None:
        directory.fd = fd
        self._open.append(directory)
        if len(self._open) > _MAX_OPEN:
            self._close(self._open.popleft())

    def _forget(self, directory: Directory) -> None:
        if directory.fd >= 0:
            self._open.remove(directory)
            self._close(directory)
        del directory.parent.children[directory.name]

    def _close(self, directory: Directory) -> None:
        os.close(directory.fd)
        directory.fd = -1

    def _is_ours(self, found: os.stat_result) -> bool:
        return (found.st_uid, found.st_gid) == self.me
