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
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import attrs

from pycontain import errors
from pycontain.errors import InvalidSpec, PathIsNoFile, PycontainError, SandboxError
from pycontain.files import inside, path_error
from pycontain.kernel import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.files import Files, Found, Owner
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
            _put_file(files, fd, name, target, owner, count, mode=mode, follow=True)
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
        while piece := source.read(_CHUNK):
            if not isinstance(piece, bytes):
                raise InvalidSpec("the open file gives no bytes", hint='open it with "rb"')
            write(count.bytes, piece)
            count.bytes += len(piece)

    files.replace(target, pour, mode=mode, owner=owner)
    count.files += 1


def _put_file(
    files: Files,
    fd: int,
    name: str | bytes,
    target: bytes,
    owner: Owner | None,
    count: _Count,
    *,
    mode: int | None = None,
    follow: bool,
) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):  # it was replaced just now
        raise _no_file(os.fsdecode(name))

    def pour(out: int) -> None:
        write, skip = _to_file(out, target, inside)
        with _host(name):
            done = _pour(fd, found.st_size, write, skip)
        count.bytes += done

    files.replace(
        target,
        pour,
        mode=stat.S_IMODE(found.st_mode) if mode is None else mode,
        owner=owner or (found.st_uid, found.st_gid),
        times=(found.st_atime_ns, found.st_mtime_ns),
        follow=follow,
    )
    count.files += 1


class _Put:
    """The tree below the host's open directory *top* on its way to *target*."""

    def __init__(self, files: Files, top: int, target: bytes, owner: Owner | None, count: _Count) -> None:
        self.files = files
        self.top = top
        self.target = target
        self.owner = owner
        self.count = count
        self.made: list[tuple[bytes, os.stat_result]] = []

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
        try:
            fd = syscalls.openat2(self.top, below or b".", _FOLDER, resolve=_BELOW)
        except FileNotFoundError:
            self.count.skip(below)
            return
        try:
            found = os.fstat(fd)
            path = self.target.rstrip(b"/") + b"/" + below if below else self.target
            if self.files.make_directory(path, 0o700, self._owner_of(found)):
                self.made.append((path, found))
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                inner = below + b"/" + name if below else name
                try:
                    if self._entry(fd, name, inner):
                        yield inner
                except FileNotFoundError as error:
                    if isinstance(error, PycontainError) and not cast("Any", error).on_host:
                        raise
                    self.count.skip(inner)
        finally:
            os.close(fd)

    def _entry(self, folder: int, name: bytes, inner: bytes) -> bool:
        """Copy what is no directory; whether it is one."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        path = self.target.rstrip(b"/") + b"/" + inner
        match stat.S_IFMT(found.st_mode):
            case stat.S_IFDIR:
                return True
            case stat.S_IFLNK:
                text = os.readlink(name, dir_fd=folder)
                times = found.st_atime_ns, found.st_mtime_ns
                self.files.ask(path, "symlink", path, text, *self._owner_of(found), times)
                self.count.files += 1
            case stat.S_IFREG:
                fd = syscalls.openat2(folder, name, _READ, resolve=_BELOW)
                try:
                    _put_file(self.files, fd, name, path, self.owner, self.count, follow=False)
                finally:
                    os.close(fd)
            case _:
                self.count.skip(inner)
        return False


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
            with suppress(FileExistsError):
                os.mkdir(name, 0o700)
            with _opened(name, _FOLDER) as top:
                _Get(files, source, top, count, keep_ids=keep_ids).run()
        else:
            if os.path.isdir(name):
                name = os.path.join(name, os.path.basename(path))
            folder, last = os.path.split(name)
            with _opened(folder, os.O_PATH | os.O_DIRECTORY) as parent:
                _get_file(files, source, parent, os.fsencode(last), name, count, keep_ids=keep_ids)
    return count.of(name)


def _get_stream(files: Files, source: bytes, target: BinaryIO, count: _Count) -> None:
    def write(_: int, piece: bytes) -> None:
        target.write(piece)

    place = 0

    with files.reader(source) as (found, fd):

        def whole(position: int, piece: bytes) -> None:
            nonlocal place
            fill(position)
            write(position, piece)
            place += len(piece)

        def fill(position: int) -> None:
            nonlocal place
            while place < position:  # a stream has no holes
                zeros = bytes(min(position - place, _CHUNK))
                write(place, zeros)
                place += len(zeros)

        count.bytes += _pour(fd, found.size, whole, fill)
    count.files += 1


def _get_file(
    files: Files,
    source: bytes,
    parent: int,
    name: bytes,
    shown: str | bytes,
    count: _Count,
    *,
    keep_ids: bool,
) -> None:
    """Copy the file *source* to the *name* in the host's open directory *parent*, in one instant."""
    with files.reader(source) as (found, fd):
        beside = _BESIDE + os.urandom(8).hex().encode()
        with _host(shown):
            out = os.open(beside, _NEW, 0o600, dir_fd=parent)
            try:
                write, skip = _to_file(out, os.fsencode(shown), _host)
                with inside(source):
                    done = _pour(fd, found.size, write, skip)
                if keep_ids:
                    os.fchown(out, found.uid, found.gid)
                os.fchmod(out, found.mode & _PERMISSIONS)
                os.utime(out, ns=(found.atime, found.mtime))
                os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(beside, dir_fd=parent)
                raise
            finally:
                os.close(out)
    count.files += 1
    count.bytes += done


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

    def _look(self, path: bytes) -> Found | None:
        try:
            return self.files.find(path)
        except errors.PathError:
            return None

    def run(self) -> None:
        top = self.files.find(self.source or b"/")
        self.kernel.discard(top.device)  # who asks for it gets it
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
            for name, found in entries:
                if name in {b"", b".", b".."} or b"/" in name:
                    raise SandboxError(f"the container has a file with the name {name!r}")
                inner = below + b"/" + name if below else name
                with _host(inner):
                    if self._entry(fd, name, inner, found):
                        self.made.append((inner, found))
                        yield inner
        finally:
            os.close(fd)

    def _entry(self, folder: int, name: bytes, inner: bytes, found: Found) -> bool:
        """Copy what is no directory, and make what is one; whether its content is to be copied."""
        match stat.S_IFMT(found.mode):
            case stat.S_IFDIR if found.device in self.kernel:
                self.count.skip(inner)
            case stat.S_IFDIR:
                with suppress(FileExistsError):  # what is there is opened later, and must be a directory
                    os.mkdir(name, 0o700, dir_fd=folder)
                return True
            case stat.S_IFLNK:
                self._link(folder, name, found)
                self.count.files += 1
            case stat.S_IFREG:
                try:
                    _get_file(
                        self.files,
                        self.source + b"/" + inner,
                        folder,
                        name,
                        inner,
                        self.count,
                        keep_ids=self.keep_ids,
                    )
                except (
                    errors.PathNotFound,
                    errors.PathIsNoDirectory,
                    errors.PathIsDirectory,
                    PathIsNoFile,
                ) as error:
                    if error.on_host:
                        raise
                    self.count.skip(inner)  # it was removed or replaced meanwhile
            case _:
                self.count.skip(inner)
        return False

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
