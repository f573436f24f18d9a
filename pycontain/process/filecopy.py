"""Files and trees between the host and a container, as streams between descriptors of both sides.

What comes out of a container was arranged by its payload. So below the target on the host each name is resolved from a
descriptor of the target, through no link (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS): no name, and no link
that came before, leads out of it. What goes in is read in the same way, since the payload may have the host's directory
mounted, and swap what is in it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import attrs

from pycontain import errors
from pycontain.errors import InvalidSpec, PathIsNoFile, PycontainError, SandboxError
from pycontain.interruption import go_on
from pycontain.kernel import syscalls
from pycontain.process.files import inside, path_error
from pycontain.runtime.opener import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.process.files import Files, Found, Owner
    from pycontain.sandbox.paths import RootPath

_CHUNK = 1 << 20
_WITHOUT_SIZE = (
    64 << 20
)  # the most that is taken of a file that does not say how long it is, as those of proc(5)
_BELOW = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_PERMISSIONS = 0o777
_BESIDE = b".pycontain-"
_BATCH_BYTES = 48 << 10  # of the paths in a request
# The file system has none, or no more room for them; it may not be read or set; it was removed just now.
_NO_ATTRIBUTE = {
    errno.ENOTSUP,
    errno.E2BIG,
    errno.ERANGE,
    errno.ENOSPC,
    errno.EPERM,
    errno.EACCES,
    errno.ENODATA,
}
_REPLACED = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EOPNOTSUPP,
}  # it is not there any more, or another type


@attrs.frozen
class Copied:
    """What :meth:`Files.put` or :meth:`Files.get` has copied.

    ``path`` is where it is now, empty for a stream; ``files`` counts files and links, ``bytes`` their content. ``skipped`` are
    the paths, below what was copied, of what was not: sockets, fifos, devices, the kernel's trees, and what was removed meanwhile.
    """

    path: str
    files: int = 0
    bytes: int = 0
    skipped: tuple[str, ...] = ()


class _Count:
    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.skipped: list[str] = []

    def of(self, path: str) -> Copied:
        return Copied(path, self.files, self.bytes, tuple(self.skipped))

    def skip(self, path: bytes) -> None:
        self.skipped.append(os.fsdecode(path))


@contextmanager
def _host(path: str | bytes) -> Iterator[None]:
    """Tell what the kernel says of the host's *path* as a :class:`PathError`."""
    try:
        yield
    except PycontainError:
        raise
    except OSError as error:
        raise path_error(error.errno or 0, os.fsdecode(path), on_host=True) from error


# --- content --------------------------------------------------------------------------------------------


def _pour(source: int, size: int, write: Callable[[int, bytes], Any], skip: Callable[[int], Any]) -> int:
    """Copy the first *size* bytes of the file *source*, or all of one that says 0; how many there were.

    *write* is given each piece and where it belongs, *skip* the place behind a hole. A file that grows meanwhile is taken as
    long as it was.
    """
    if size == 0:
        return _pour_unsized(source, write)
    position = 0
    go_on()
    while position < size:
        start, end = _next_data(source, position, size)
        if start > position:
            skip(start)
        position = start
        while position < end:
            piece = os.pread(source, min(end - position, _CHUNK), position)
            if not piece:  # it has been shortened
                return position
            write(position, piece)
            position += len(piece)
            go_on()
    return position


def _next_data(source: int, position: int, size: int) -> tuple[int, int]:
    """lseek(2): the next part of a sparse file that is no hole; all of one whose file system does not tell."""
    try:
        start = os.lseek(source, position, os.SEEK_DATA)
        return min(start, size), min(os.lseek(source, start, os.SEEK_HOLE), size)
    except OSError as error:
        return (size, size) if error.errno == errno.ENXIO else (position, size)


def _pour_unsized(source: int, write: Callable[[int, bytes], Any]) -> int:
    done = 0
    while piece := os.read(source, _CHUNK):
        go_on()
        if done + len(piece) > _WITHOUT_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        write(done, piece)
        done += len(piece)
    return done


def _to_file(
    target: int, path: bytes, on: Callable[[bytes], Any]
) -> tuple[Callable[[int, bytes], None], Callable[[int], None]]:
    """What :func:`_pour` needs to write to the descriptor *target*, whose errors *on* explains."""

    def write(position: int, piece: bytes) -> None:
        with on(path):
            rest = memoryview(piece)
            while rest:
                count = os.pwrite(target, rest, position)
                rest, position = rest[count:], position + count

    def skip(position: int) -> None:
        with on(path):
            os.ftruncate(target, position)

    return write, skip


def _carry_attributes(source: int, target: int) -> None:
    """Give the open file *target* the extended attributes of users that *source* has, as far as its file system takes them.

    No others: those of the system are what their name says on one side only, and user.overlay is how overlays are made (xattr(7)).
    """
    try:
        names = os.listxattr(source)
    except OSError:  # its file system has none
        return
    for name in names:
        if name.startswith("user.") and not name.startswith("user.overlay."):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in _NO_ATTRIBUTE:
                    raise


# --- into the container ---------------------------------------------------------------------------------


def put(
    files: Files,
    source: str | os.PathLike[str] | BinaryIO,
    path: RootPath,
    *,
    owner: Owner | None,
    mode: int | None,
) -> Copied:
    """As :meth:`Files.put`; *owner* None keeps the ids."""
    count = _Count()
    target = os.fsencode(path)
    if hasattr(source, "read"):
        _put_stream(files, cast("BinaryIO", source), target, owner or (0, 0), mode, count)
        return count.of(path)
    name = os.path.abspath(os.fspath(source))
    with _host(name):
        found = os.stat(name)
        if stat.S_ISDIR(found.st_mode):
            with _opened(name, _FOLDER) as top:
                _Put(files, top, target, owner, count).run(mode)
            return count.of(path)
        if not stat.S_ISREG(found.st_mode):
            raise _no_file(name)
        target = _into(files, target, os.fsencode(os.path.basename(name)))
        with _opened(name, _READ) as fd:
            _put_file(files, fd, name, target, owner, count, mode)
    return count.of(os.fsdecode(target))


def _no_file(path: str) -> PathIsNoFile:
    return PathIsNoFile(
        f"{path} of the host is neither a file nor a directory",
        path=path,
        on_host=True,
        errno=errno.EOPNOTSUPP,
        hint="open it yourself, and give the open file",
    )


@contextmanager
def _opened(path: str | bytes, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _into(files: Files, target: bytes, name: bytes) -> bytes:
    """Where a file called *name* goes: to *target*, or into it when that is a directory."""
    try:
        found = files.find(target)
    except (errors.PathNotFound, errors.PathIsNoDirectory):
        return target
    return target.rstrip(b"/") + b"/" + name if stat.S_ISDIR(found.mode) else target


def _put_stream(
    files: Files, source: BinaryIO, target: bytes, owner: Owner, mode: int | None, count: _Count
) -> None:
    def pour(fd: int) -> None:
        write, _ = _to_file(fd, target, inside)
        while piece := source.read(_CHUNK):  # what it raises is to reach its owner unchanged
            if not isinstance(piece, bytes):
                raise InvalidSpec("the open file gives no bytes", hint='open it with "rb"')
            write(count.bytes, piece)
            count.bytes += len(piece)

    files.replace(target, pour, mode=mode, owner=owner)
    count.files += 1


def _put_file(
    files: Files, fd: int, name: str, target: bytes, owner: Owner | None, count: _Count, mode: int | None
) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):  # it was replaced just now
        raise _no_file(name)

    def pour(out: int) -> None:
        count.bytes += _carry(fd, found.st_size, name, out, target)
        _carry_attributes(fd, out)

    files.replace(
        target,
        pour,
        mode=stat.S_IMODE(found.st_mode) if mode is None else mode,
        owner=owner or (found.st_uid, found.st_gid),
        times=(found.st_atime_ns, found.st_mtime_ns),
    )
    count.files += 1


def _carry(fd: int, size: int, name: str | bytes, out: int, target: bytes) -> int:
    """Copy the host's open file *name* to the container's *target*; how many bytes there were."""
    write, skip = _to_file(out, target, inside)
    with _host(name):
        return _pour(fd, size, write, skip)


def _batches(names: list[bytes], above: bytes) -> Iterator[list[bytes]]:
    """A few of the *names* below *above* at a time: a request wakes two processes, and holds so many descriptors and bytes."""
    batch: list[bytes] = []
    length = 0
    for name in names:
        if batch and (len(batch) == AT_ONCE or length + len(above) + len(name) > _BATCH_BYTES):
            yield batch
            batch, length = [], 0
        batch.append(name)
        length += len(above) + len(name)
    if batch:
        yield batch


Sources: TypeAlias = "dict[bytes, tuple[int, os.stat_result]]"


class _Put:
    """The tree below the host's open directory *top* on its way to *target*."""

    def __init__(self, files: Files, top: int, target: bytes, owner: Owner | None, count: _Count) -> None:
        self.files = files
        self.top = top
        self.target = target
        self.owner = owner
        self.count = count
        self.made: list[tuple[bytes, os.stat_result]] = []
        # Files of several names, by device and inode here: the path of the first, and its device and inode there.
        self.linked: dict[tuple[int, int], tuple[bytes, int, int]] = {}

    def run(self, mode: int | None) -> None:
        pending = [b""]
        while pending:
            pending += reversed(list(self._directory(pending.pop())))
        # A directory may be closed to its owner, and its time changes with every name in it.
        for path, found in reversed(self.made):
            bits = stat.S_IMODE(found.st_mode) if mode is None or path != self.target else mode
            times = found.st_atime_ns, found.st_mtime_ns
            self.files.ask(path, "settle", path, bits, *self._owner_of(found), times)

    def _owner_of(self, found: os.stat_result) -> Owner:
        return self.owner or (found.st_uid, found.st_gid)

    def _directory(self, below: bytes) -> Iterator[bytes]:
        """Copy what is in a directory, and give the directories in it."""
        try:
            fd = syscalls.openat2(self.top, below or b".", _FOLDER, resolve=_BELOW)
        except FileNotFoundError:
            self.count.skip(below)
            return
        try:
            found = os.fstat(fd)
            path = self._target(below)
            if self.files.make_directory(path, 0o700, self._owner_of(found)):
                self.made.append((path, found))
            regular = []
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                inner = below + b"/" + name if below else name
                match self._entry(fd, name, inner):
                    case stat.S_IFDIR:
                        yield inner
                    case stat.S_IFREG:
                        regular.append(inner)
            for batch in _batches(regular, self.target):
                self._regular(fd, batch)
        finally:
            os.close(fd)

    def _target(self, inner: bytes) -> bytes:
        return self.target.rstrip(b"/") + b"/" + inner if inner else self.target

    def _entry(self, folder: int, name: bytes, inner: bytes) -> int:
        """Copy a link; the type of what is there, 0 when there is no more to do."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            kind = stat.S_IFMT(found.st_mode)
            text = os.readlink(name, dir_fd=folder) if kind == stat.S_IFLNK else b""
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EINVAL}:
                raise
            self.count.skip(inner)  # it was removed or replaced just now
            return 0
        if kind == stat.S_IFLNK:
            path, times = self._target(inner), (found.st_atime_ns, found.st_mtime_ns)
            self.files.ask(path, "symlink", path, text, *self._owner_of(found), times)
            self.count.files += 1
        elif kind not in {stat.S_IFDIR, stat.S_IFREG}:
            self.count.skip(inner)
        return kind

    def _regular(self, folder: int, inners: list[bytes]) -> None:
        """Copy a few files."""
        with ExitStack() as stack:
            sources: Sources = {}
            for inner in inners:
                fd = self._source(folder, os.path.basename(inner), stack)
                if fd >= 0:
                    sources[inner] = fd, os.fstat(fd)
                else:
                    self.count.skip(inner)
            first, further = self._first_names(sources)
            if first:
                self._copy(first)
            for inner, source in further.items():
                if not self._link(inner, source[1]):
                    self._copy({inner: source})

    def _first_names(self, sources: Sources) -> tuple[Sources, Sources]:
        """Those that are to be copied, and further names of files that are, or are copied already."""
        first: Sources = {}
        further: Sources = {}
        known = set(self.linked)
        for inner, (fd, found) in sources.items():
            key = found.st_dev, found.st_ino
            (further if found.st_nlink > 1 and key in known else first)[inner] = fd, found
            known.add(key)
        return first, further

    def _link(self, inner: bytes, found: os.stat_result) -> bool:
        """Give what was copied one more name; False where that cannot be, so that it has to be copied again."""
        copied = self.linked.get((found.st_dev, found.st_ino))
        if copied is None:
            return False
        path = self._target(inner)
        try:
            self.files.ask(path, "link", path, *copied)
        except errors.PathError:
            return False
        self.count.files += 1
        return True

    def _source(self, folder: int, name: bytes, stack: ExitStack) -> int:
        """Open a regular file of the host; -1 when it is none any more."""
        try:
            fd = syscalls.openat2(folder, name, _READ, resolve=_BELOW)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
                error.filename = None
                raise path_error(error.errno or 0, os.fsdecode(name), on_host=True) from error
            return -1
        stack.callback(os.close, fd)
        return fd if stat.S_ISREG(os.fstat(fd).st_mode) else -1

    def _copy(self, sources: Sources) -> None:
        begun = self.files.begin([self._target(inner) for inner in sources], follow=False)
        good = [each for each in begun if not isinstance(each, errors.PathError)]
        try:
            try:
                finished = []
                linked: dict[tuple[int, int], tuple[bytes, int, int]] = {}
                for one, (inner, (fd, found)) in zip(begun, sources.items(), strict=True):
                    if isinstance(one, errors.PathError):
                        raise one
                    self.count.bytes += _carry(fd, found.st_size, inner, one.fd, one.path)
                    _carry_attributes(fd, one.fd)
                    if found.st_nlink > 1:
                        there = os.fstat(one.fd)
                        linked[found.st_dev, found.st_ino] = one.path, there.st_dev, there.st_ino
                    times = found.st_atime_ns, found.st_mtime_ns
                    finished.append((one, stat.S_IMODE(found.st_mode), self._owner_of(found), times))
            finally:
                for each in good:
                    os.close(each.fd)
            self.files.finish(finished)
            self.linked |= linked
            self.count.files += len(finished)
        except BaseException:
            self.files.discard(good)
            raise


# --- out of the container -------------------------------------------------------------------------------


def get(files: Files, path: RootPath, target: str | os.PathLike[str] | BinaryIO, *, keep_ids: bool) -> Copied:
    """As :meth:`Files.get`."""
    count = _Count()
    source = os.fsencode(path)
    if hasattr(target, "write"):
        _get_stream(files, source, cast("BinaryIO", target), count)
        return count.of("")
    name = os.path.abspath(os.fspath(target))
    found = files.find(source)
    with _host(name):
        if stat.S_ISDIR(found.mode):
            made = _make(name)
            with _opened(name, _FOLDER) as top:
                _Get(files, source, top, count, keep_ids=keep_ids).run(made=made)
        else:
            if os.path.isdir(name):
                name = os.path.join(name, os.path.basename(path))
            folder, last = os.path.split(name)
            with _opened(folder, os.O_PATH | os.O_DIRECTORY) as parent:
                _get_file(files, source, parent, os.fsencode(last), name, count, keep_ids=keep_ids)
    return count.of(name)


def _make(name: str | bytes, folder: int | None = None) -> bool:
    """Make a directory of the host's; False when something is there, which is opened later, and must be a directory."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    return True


class _Broken(Exception):
    """What the caller's open file has raised, which is to reach him unchanged."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _get_stream(files: Files, source: bytes, target: BinaryIO, count: _Count) -> None:
    place = 0

    def write(position: int, piece: bytes) -> None:
        nonlocal place
        fill(position)
        give(piece)
        place += len(piece)

    def fill(position: int) -> None:
        nonlocal place
        while place < position:  # a stream has no holes
            zeros = bytes(min(position - place, _CHUNK))
            give(zeros)
            place += len(zeros)

    def give(piece: bytes) -> None:
        try:
            target.write(piece)
        except Exception as error:
            raise _Broken(error) from error

    try:
        with files.reader(source) as (found, fd):
            count.bytes += _pour(fd, found.size, write, fill)
    except _Broken as broken:
        raise broken.error from None
    count.files += 1


def _get_file(
    files: Files, source: bytes, parent: int, name: bytes, shown: str, count: _Count, *, keep_ids: bool
) -> None:
    with files.reader(source) as (found, fd):
        _take(found, fd, source, parent, name, shown, count, keep_ids=keep_ids)


def _take(
    found: Found,
    fd: int,
    source: bytes,
    parent: int,
    name: bytes,
    shown: str | bytes,
    count: _Count,
    *,
    keep_ids: bool,
) -> tuple[int, int]:
    """Copy the open file *source* to the *name* in the host's open directory *parent*, in one instant; its device and inode there."""
    beside = _BESIDE + os.urandom(8).hex().encode()
    with _host(shown):
        out = os.open(beside, _NEW, 0o600, dir_fd=parent)
        try:
            write, skip = _to_file(out, os.fsencode(shown), _host)
            with inside(source):
                done = _pour(fd, found.size, write, skip)
            _carry_attributes(fd, out)
            if keep_ids:
                os.fchown(out, found.uid, found.gid)
            os.fchmod(out, found.mode & _PERMISSIONS)
            os.utime(out, ns=(found.atime, found.mtime))
            made = os.fstat(out)
            os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=parent)
            raise
        finally:
            os.close(out)
    count.files += 1
    count.bytes += done
    return made.st_dev, made.st_ino


class _Get:
    """The tree *source* of the container on its way into the host's open directory *top*."""

    def __init__(self, files: Files, source: bytes, top: int, count: _Count, *, keep_ids: bool) -> None:
        self.files = files
        self.source = source.rstrip(b"/")
        self.top = top
        self.keep_ids = keep_ids
        self.count = count
        self.kernel = {
            found.device for place in (b"/proc", b"/sys") if (found := self._look(place)) is not None
        }
        self.made: list[tuple[bytes, Found]] = []
        # Files of several names, by device and inode there: the path of the first, and its device and inode here.
        self.linked: dict[tuple[int, int], tuple[bytes, tuple[int, int]]] = {}

    def _look(self, path: bytes) -> Found | None:
        try:
            return self.files.find(path)
        except errors.PathError:
            return None

    def run(self, *, made: bool) -> None:
        top = self.files.find(self.source or b"/")
        self.kernel.discard(top.device)  # who asks for it gets it
        if made:
            self.made.append((b"", top))
        pending = [b""]
        while pending:
            pending += reversed(list(self._directory(pending.pop())))
        for below, found in reversed(self.made):
            with _host(below):
                fd = syscalls.openat2(self.top, below or b".", _FOLDER, resolve=_BELOW)
                try:
                    if self.keep_ids:
                        os.fchown(fd, found.uid, found.gid)
                    os.fchmod(fd, found.mode & _PERMISSIONS)
                    os.utime(fd, ns=(found.atime, found.mtime))
                finally:
                    os.close(fd)

    def _directory(self, below: bytes) -> Iterator[bytes]:
        path = self.source + b"/" + below if below else self.source or b"/"
        try:
            entries = self.files.entries(path)
        except (errors.PathNotFound, errors.PathIsNoDirectory):
            if not below:
                raise
            self.count.skip(below)
            return
        with _host(below):
            fd = syscalls.openat2(self.top, below or b".", _FOLDER, resolve=_BELOW)
        try:
            regular = []
            for name, found in entries:
                if name in {b"", b".", b".."} or b"/" in name:
                    raise SandboxError(f"the container has a file with the name {name!r}")
                inner = below + b"/" + name if below else name
                with _host(inner):
                    match self._entry(fd, name, inner, found):
                        case stat.S_IFDIR:
                            yield inner
                        case stat.S_IFREG:
                            regular.append(inner)
            for batch in _batches(regular, self.source):
                self._regular(fd, batch)
        finally:
            os.close(fd)

    def _entry(self, folder: int, name: bytes, inner: bytes, found: Found) -> int:
        """Copy a link, make a directory; the type of what is there, 0 when there is no more to do."""
        kind = stat.S_IFMT(found.mode)
        if kind == stat.S_IFDIR and found.device not in self.kernel:
            if _make(name, folder):  # what was there before keeps its mode and owner
                self.made.append((inner, found))
        elif kind == stat.S_IFLNK:
            self._link(folder, name, found)
            self.count.files += 1
        elif kind != stat.S_IFREG:
            self.count.skip(inner)
            return 0
        return kind

    def _regular(self, folder: int, inners: list[bytes]) -> None:
        """Copy a few files."""
        sources = [self.source + b"/" + inner for inner in inners]
        left = dict(zip(inners, self.files.opened(sources), strict=True))
        try:
            for inner, source in zip(inners, sources, strict=True):
                opened = left[inner]
                if isinstance(opened, errors.PathError):
                    if opened.errno not in _REPLACED:
                        raise opened
                    self.count.skip(inner)
                    continue
                found, fd = opened
                name = os.path.basename(inner)
                there = os.fstat(fd)
                key = there.st_dev, there.st_ino
                if there.st_nlink > 1 and key in self.linked and self._again(folder, name, *self.linked[key]):
                    self.count.files += 1
                    continue
                made = _take(found, fd, source, folder, name, inner, self.count, keep_ids=self.keep_ids)
                if there.st_nlink > 1:
                    self.linked[key] = inner, made
        finally:
            for opened in left.values():
                if not isinstance(opened, errors.PathError):
                    os.close(opened[1])

    def _again(self, folder: int, name: bytes, first: bytes, made: tuple[int, int]) -> bool:
        """Give what was copied to *first* one more name; False where that cannot be, or it is something else by now."""
        beside = _BESIDE + os.urandom(8).hex().encode()
        above, _, last = first.rpartition(b"/")
        try:
            parent = syscalls.openat2(self.top, above or b".", _FOLDER, resolve=_BELOW)
            try:
                os.link(last, beside, src_dir_fd=parent, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(parent)
        except OSError:
            return False
        try:
            found = os.stat(beside, dir_fd=folder, follow_symlinks=False)
            if (found.st_dev, found.st_ino) != made:
                return False
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):  # rename(2): it stays when both are the same file
                os.unlink(beside, dir_fd=folder)
        return True

    def _link(self, folder: int, name: bytes, found: Found) -> None:
        beside = _BESIDE + os.urandom(8).hex().encode()
        os.symlink(found.target, beside, dir_fd=folder)
        try:
            if self.keep_ids:
                os.chown(beside, found.uid, found.gid, dir_fd=folder, follow_symlinks=False)
            os.utime(beside, ns=(found.atime, found.mtime), dir_fd=folder, follow_symlinks=False)
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(beside, dir_fd=folder)
            raise
