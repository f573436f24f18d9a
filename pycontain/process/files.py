"""``Files``: what is in a running container, read, written and copied from outside.

Every path is one of the container's: absolute, resolved from its root as the payload sees it, with all that is mounted
there. No link leads out. What the payload changes meanwhile can spoil a result, and never reaches the host.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from pycontain import errors
from pycontain.errors import InvalidSpec, PathIsNoFile, PathTooLarge, PycontainError, SandboxError
from pycontain.runtime import engine as engines
from pycontain.runtime.opener import Opener
from pycontain.sandbox.accounts import UnknownAccount, resolve_user
from pycontain.sandbox.paths import RootPath
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pycontain.process.filecopy import Copied
    from pycontain.runtime.engine import Engine

    Path = str | os.PathLike[str]
    Owner = tuple[int, int]
    Names = list[str]  # which is a method of Files

_CHUNK = 1 << 20
_ACCOUNTS_LIMIT = 4 << 20  # as for a start
_NEW_FILE = 0o644

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}

_LEAVES: dict[int, type[errors.PathError]] = {
    errno.ENOENT: errors.PathNotFound,
    errno.EEXIST: errors.PathExists,
    errno.EACCES: errors.PathForbidden,
    errno.EPERM: errors.PathForbidden,
    errno.EISDIR: errors.PathIsDirectory,
    errno.ENOTDIR: errors.PathIsNoDirectory,
}
_SENTENCES = {
    errno.ENOENT: ("there is no {path}", "see what is there: files.list() of the directory above"),
    errno.EEXIST: ("something is at {path} already", "remove it, or choose another path"),
    errno.EISDIR: ("{path} is a directory", "put() and get() copy directories, list() and walk() look into them"),
    errno.ENOTDIR: ("{path} is no directory, or something in front of its last name is none", None),
    errno.ENOTEMPTY: ("the directory {path} is not empty", "remove(path, recursive=True) removes all that is in it"),
    errno.EROFS: (
        "{path} is on a read-only file system",
        "give the container a place that can be written: .tmpfs(), .volume(), .mount()",
    ),
    errno.ENOSPC: ("there is no space left for {path}", "see .limits(disk=) and the size= of .tmpfs()"),
    errno.EDQUOT: ("there is no space left for {path}: a quota is used up", None),
    errno.ELOOP: (
        "{path} goes through too many links, or through one of /proc's own, which are not followed",
        None,
    ),
    errno.EBUSY: ("something is mounted at {path}", None),
    errno.EXDEV: ("something is mounted at {path} or below, and that is left alone", None),
    errno.EAGAIN: ("{path} cannot be opened now: it has no content yet, or a process inside holds a lease", None),
    errno.EINVAL: ("{path} cannot be given to this user: the container does not have its id", None),
}  # fmt: skip


def path_error(number: int, path: str, *, on_host: bool = False) -> errors.PathError:
    """The error for what the kernel said of *path*."""
    sentence, hint = _SENTENCES.get(number, (f"{{path}} cannot be used: {os.strerror(number)}", None))
    where = f"{path} of the host" if on_host else path
    leaf = _LEAVES.get(number, errors.PathError)
    return leaf(
        sentence.format(path=where), path=path, on_host=on_host, errno=number, hint=None if on_host else hint
    )


@attrs.frozen
class FileStatus:
    """What is at a path: its type, attributes and, of a symbolic link, the text that it leads to.

    ``kind`` is ``file``, ``directory``, ``symbolic link``, ``fifo``, ``socket``, ``character device`` or ``block device``.
    ``uid`` and ``gid`` are the container's own numbers, ``mode`` holds the permissions, ``size`` is in bytes and
    ``mtime_ns`` in nanoseconds since the epoch.
    """

    kind: str
    mode: int = attrs.field(repr=oct)
    size: int
    uid: int
    gid: int
    mtime_ns: int
    links: int = 1
    target: str = ""

    @property
    def mtime(self) -> float:
        """When its content was last changed, in seconds since the epoch."""
        return self.mtime_ns / 1e9

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind == "file"

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind == "directory"


@attrs.frozen
class Found:
    """What the opener says of a file."""

    mode: int
    size: int
    mtime: int
    atime: int
    uid: int
    gid: int
    links: int
    device: int
    target: bytes = b""

    @property
    def status(self) -> FileStatus:
        """The same for the user."""
        kind = _KINDS[stat.S_IFMT(self.mode)]
        target = os.fsdecode(self.target)
        permissions = stat.S_IMODE(self.mode)
        return FileStatus(kind, permissions, self.size, self.uid, self.gid, self.mtime, self.links, target)


@attrs.frozen
class Begun:
    """A file that is being written through *fd*: its number, and what the opener says of the one that is there, if one is."""

    path: bytes
    number: int
    old: tuple[Any, ...] | None
    fd: int

    @property
    def was(self) -> Found | None:
        """What is there."""
        return Found(*self.old) if self.old else None


class Files:
    """The files of a running container: :attr:`Running.files`. Thread-safe; it ends with the container.

    Errors are :class:`PathError` and its kin, which are also what the same call raises of a file of one's own.

    >>> from pycontain import Container
    >>> with Container("host:").start("sleep", "infinity") as running:
    ...     running.files.write_text("/tmp/greeting", "hello")
    ...     running.files.read_text("/tmp/greeting")
    'hello'
    """

    def __init__(
        self,
        engine: Engine,
        ident: str,
        name: str,
        user: str,
        require_owner: Callable[[], None],
        ended: threading.Event,
    ) -> None:
        self._engine = engine
        self._ident = ident
        self._name = name
        self._user = user
        self._require_owner = require_owner
        self._ended = ended
        self._opener: Opener | None = None
        self._let_go: weakref.finalize[..., Files] | None = None
        self._lock = threading.Lock()
        engines.abandon_in_fork(self)

    def __repr__(self) -> str:
        return f"<Files of {self._name}>"

    # --- reading ----------------------------------------------------------------------------------------

    def read_bytes(self, path: Path, *, max_size: str | int = "64M") -> bytes:
        """The content of a file; :class:`PathTooLarge` when it has more than *max_size* bytes."""
        limit = _size(max_size)
        place = root_path(path)
        with self.reader(os.fsencode(place)) as (_, fd):
            pieces, left = [], limit + 1
            while left and (piece := os.read(fd, min(left, _CHUNK))):
                pieces.append(piece)
                left -= len(piece)
        if not left:
            raise PathTooLarge(
                f"{place} has more than {limit} bytes",
                path=place,
                errno=errno.EFBIG,
                hint="get() copies files of any size; or raise max_size=",
            )
        return b"".join(pieces)

    def read_text(
        self, path: Path, *, encoding: str = "utf-8", errors: str = "strict", max_size: str | int = "64M"
    ) -> str:
        """The same as text."""
        return self.read_bytes(path, max_size=max_size).decode(encoding, errors)

    def stat(self, path: Path, *, follow: bool = True) -> FileStatus:
        """What is at *path*; with *follow* what it leads to if it is a symbolic link."""
        return self.find(os.fsencode(root_path(path)), follow=follow).status

    def exists(self, path: Path) -> bool:
        """Whether *path* leads to something."""
        try:
            self.stat(path)
        except (errors.PathNotFound, errors.PathIsNoDirectory):
            return False
        return True

    def list(self, path: Path = "/") -> tuple[str, ...]:
        """The names in a directory, sorted."""
        return tuple(os.fsdecode(name) for name, _ in self.entries(os.fsencode(root_path(path))))

    def walk(self, path: Path = "/") -> Iterator[tuple[str, Names, Names]]:
        """Each directory below *path*, itself first, as ``(path, names of directories, other names)``.

        As :func:`os.walk`: what is taken out of the first list is not walked, no link is followed, and a directory that
        is gone when its turn comes is left out.
        """
        pending = [str(root_path(path))]
        self.find(os.fsencode(pending[0]))  # the first must be there
        while pending:
            here = pending.pop()
            try:
                entries = self.entries(os.fsencode(here))
            except (errors.PathNotFound, errors.PathIsNoDirectory):
                if here == str(root_path(path)):
                    raise
                continue
            folders = [os.fsdecode(name) for name, found in entries if stat.S_ISDIR(found.mode)]
            others = [os.fsdecode(name) for name, found in entries if not stat.S_ISDIR(found.mode)]
            yield here, folders, others
            pending += [f"{here.rstrip('/')}/{name}" for name in reversed(folders)]

    # --- writing ----------------------------------------------------------------------------------------

    def write_bytes(
        self, path: Path, content: bytes, *, mode: int | None = None, user: str | int | None = None
    ) -> None:
        """Give the file *path* this content, in one instant: it is written beside and renamed. Links are followed.

        A new file has *mode* 0644 and belongs to the container's own user, or to *user*, as for :meth:`Container.user`; a
        file that is replaced keeps both unless they are given. What is mounted as a single file is written in its place.
        """
        if not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidSpec(
                f"the content is no bytes but {type(content).__name__}", hint="write_text() takes text"
            )
        place = os.fsencode(root_path(path))

        def pour(fd: int) -> None:
            rest = memoryview(content).cast("B")
            with inside(place):
                while rest:
                    rest = rest[os.write(fd, rest[:_CHUNK]) :]

        self.replace(place, pour, mode=mode, owner=self.owner(user), keep=user is None)

    def write_text(
        self,
        path: Path,
        content: str,
        *,
        encoding: str = "utf-8",
        mode: int | None = None,
        user: str | int | None = None,
    ) -> None:
        """The same with text."""
        if not isinstance(content, str):
            raise InvalidSpec(
                f"the content is no text but {type(content).__name__}", hint="write_bytes() takes bytes"
            )
        self.write_bytes(path, content.encode(encoding), mode=mode, user=user)

    def mkdir(
        self,
        path: Path,
        *,
        mode: int = 0o755,
        parents: bool = False,
        exist_ok: bool = False,
        user: str | int | None = None,
    ) -> None:
        """Make a directory, as :meth:`pathlib.Path.mkdir`; for its owner see :meth:`write_bytes`."""
        place = root_path(path)
        made = self.make_directory(os.fsencode(place), mode, self.owner(user), parents=parents)
        if not made and not exist_ok:
            raise path_error(errno.EEXIST, place)

    def remove(self, path: Path, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link, which is not followed, or an empty directory; *recursive*, with all that is in it.

        What is mounted below is not touched; then, and when a process inside goes on making files there, a part is left and
        :class:`PathError` raised.
        """
        place = root_path(path)
        try:
            self.ask(place, "remove", os.fsencode(place), recursive)
        except (errors.PathNotFound, errors.PathIsNoDirectory):
            if not missing_ok:
                raise

    # --- copying ----------------------------------------------------------------------------------------

    def put(
        self,
        source: Path | BinaryIO,
        path: Path,
        *,
        user: str | int | None = None,
        mode: int | None = None,
        keep_ids: bool = False,
    ) -> Copied:
        """Copy the host's *source*, a file, a directory or an open binary file, to *path*, and say what was copied.

        A file goes to *path*, or into it under its own name when that is a directory; it appears in one instant. What is in a
        directory goes into the directory *path*, which is made when it is missing. There a file replaces what has its
        name, and a directory or mount is never replaced by anything else. Modes and times are kept, symbolic links stay links, fifos, sockets and
        devices are left out. All of it belongs to *user*, by default the container's own; with *keep_ids* to the
        numbers that it has on the host.
        """
        from pycontain.process import filecopy  # noqa: PLC0415 - who reads a file need not load it

        owner = None if keep_ids else self.owner(user)
        return filecopy.put(self, source, root_path(path), owner=owner, mode=mode)

    def get(self, path: Path, target: Path | BinaryIO, *, keep_ids: bool = False) -> Copied:
        """Copy *path* of the container to *target* on the host, or into an open binary file, and say what was copied.

        As :meth:`put`, the other way. Nothing is written outside of *target*, whatever there is inside and whatever links
        are below *target*. It belongs to the calling user, or with *keep_ids* to the container's numbers; set-user-ID and
        set-group-ID bits stay behind. So do the trees of /proc and /sys when they lie below *path*, and what is removed meanwhile.
        """
        from pycontain.process import filecopy  # noqa: PLC0415 - as above

        return filecopy.get(self, root_path(path), target, keep_ids=keep_ids)

    # --- what copying is made of ------------------------------------------------------------------------

    def ask(self, path: str | bytes, *request: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Have the opener do something with *path*; the caller closes the descriptors of the answer."""
        self._require_owner()
        with self._lock:
            if self._ended.is_set():
                raise self._has_exited()
            try:
                return self._open().ask(*request)
            except EOFError:
                raise self._lost() from None
            except OSError as error:
                raise path_error(error.errno or 0, os.fsdecode(path)) from error
            except BaseException:
                self._close()  # the answer to this request must not be taken for that to the next
                raise

    @contextmanager
    def reader(self, path: bytes) -> Iterator[tuple[Found, int]]:
        """The status of a file, and a descriptor to read it."""
        (opened,) = self.opened((path,))
        if isinstance(opened, errors.PathError):
            raise opened
        found, fd = opened
        try:
            with inside(path):
                yield found, fd
        finally:
            os.close(fd)

    def opened(self, paths: Sequence[bytes]) -> Sequence[tuple[Found, int] | errors.PathError]:
        """The status of each of a few files, and a descriptor to read it, which the caller closes; or why there is none."""
        said, fds = self.ask(paths[0], "open", *paths)
        return [
            each if isinstance(each, errors.PathError) else (Found(*each[0]), each[1])
            for each in _with_descriptors(paths, said, fds)
        ]

    def begin(self, paths: Sequence[bytes], *, follow: bool) -> Sequence[Begun | errors.PathError]:
        """Begin to write a few files; each has to be finished or discarded."""
        said, fds = self.ask(paths[0], "create", follow, *paths)
        return [
            each if isinstance(each, errors.PathError) else Begun(path, each[0][0], each[0][1], each[1])
            for path, each in zip(paths, _with_descriptors(paths, said, fds), strict=True)
        ]

    def finish(self, files: Sequence[tuple[Begun, int, Owner, tuple[int, int] | None]]) -> None:
        """Give files what was written, their mode, owner and times, each in one instant."""
        finished = ((begun.number, mode, *owner, times) for begun, mode, owner, times in files)
        self.ask(files[0][0].path, "commit", *finished)

    def discard(self, files: Iterable[Begun]) -> None:
        """Leave what is not finished as it was. Nothing is said of what goes wrong: there is an error to tell already."""
        numbers = [begun.number for begun in files]
        with suppress(PycontainError):
            self.ask("/", "discard", *numbers)

    def find(self, path: bytes, *, follow: bool = True) -> Found:
        """What the opener says of *path*."""
        (status,), _ = self.ask(path, "stat", path, follow)
        return Found(*status)

    def entries(self, path: bytes) -> tuple[tuple[bytes, Found], ...]:
        """What the opener says of everything in a directory."""
        found, _ = self.ask(path, "list", path)
        return tuple((name, Found(*status)) for name, status in found)

    def replace(
        self,
        path: bytes,
        pour: Callable[[int], None],
        *,
        mode: int | None,
        owner: Owner,
        keep: bool = False,
        times: tuple[int, int] | None = None,
        follow: bool = True,
    ) -> None:
        """Have *pour* write the content of a file, and put it at *path*; with *keep* its owner stays what it was."""
        (begun,) = self.begin((path,), follow=follow)
        if isinstance(begun, errors.PathError):
            raise begun
        try:
            try:
                pour(begun.fd)
            finally:
                os.close(begun.fd)
            was = begun.was
            if mode is None:
                mode = stat.S_IMODE(was.mode) if was else _NEW_FILE
            self.finish([(begun, mode, (was.uid, was.gid) if was and keep else owner, times)])
        except BaseException:
            self.discard([begun])
            raise

    def make_directory(self, path: bytes, mode: int, owner: Owner, *, parents: bool = False) -> bool:
        """Make a directory; False when it is there. What is in the way raises :class:`PathExists`."""
        (made,), _ = self.ask(path, "mkdir", path, mode, *owner, parents)
        return bool(made)

    def owner(self, user: str | int | None) -> Owner:
        """The container's numbers of *user*, by its own accounts; None is its own user."""
        if self._engine.facts.single_id:
            return 0, 0  # there is no other
        text = self._user if user is None else str(user)
        if not text:
            return 0, 0
        try:
            uid, gid, _, _ = resolve_user(text, self._accounts("/etc/passwd"), self._accounts("/etc/group"))
        except UnknownAccount:
            raise InvalidSpec(
                f"the container has no user {text!r}",
                hint="give numbers, or add it to the image's /etc/passwd",
            ) from None
        return uid, gid

    def _accounts(self, path: str) -> str:
        try:
            return self.read_text(path, errors="surrogateescape", max_size=_ACCOUNTS_LIMIT)
        except errors.PathError:  # an image without accounts is an ordinary one
            return ""

    # --- its opener -------------------------------------------------------------------------------------

    def _open(self) -> Opener:
        if self._opener is None:
            try:
                self._opener = Opener(self._engine, self._ident)
            except OSError as error:
                raise engines.shortage(error) from error
            self._let_go = weakref.finalize(self, self._opener.close)
        return self._opener

    def _close(self) -> None:
        if self._let_go is not None:
            self._let_go()
        self._opener = self._let_go = None

    def _lost(self) -> SandboxError:
        """Why the opener has ended: with its container, or alone."""
        self._close()
        try:
            self._open().ask("stat", b"/", True)
        except (EOFError, OSError):
            self._close()
            return self._has_exited()
        return SandboxError(
            "the process that opened files in the container was killed, and there is a new one",
            hint="try again; the kernel's log may say why",
        )

    def _has_exited(self) -> SandboxError:
        return SandboxError(
            f"the container {self._name} has exited, and its files are gone with it",
            hint="copy them before it ends, or keep them on a .mount() or .volume()",
        )

    def close(self) -> None:
        """End the opener; the next call would start another one. May be repeated."""
        with self._lock:
            self._close()

    def abandon(self) -> None:
        """In the child of a fork: the opener is the parent's."""
        self._lock = threading.Lock()
        self._close()


def _with_descriptors(
    paths: Sequence[bytes], said: tuple[Any, ...], fds: tuple[int, ...]
) -> Iterator[tuple[Any, int] | errors.PathError]:
    """What the opener said of each path, with its descriptor, or as an error."""
    left = iter(fds)
    for path, (number, what) in zip(paths, said, strict=True):
        yield _refused(number, what, os.fsdecode(path)) if number else (what, next(left))


def _refused(number: int, mode: int, path: str) -> errors.PathError:
    if not mode:
        return path_error(number, path)
    return PathIsNoFile(
        f"{path} is a {_KINDS[stat.S_IFMT(mode)]}: it has no content of its own",
        path=path,
        errno=number,
        hint="read it inside, with exec() and a timeout",
    )


@contextmanager
def inside(path: bytes) -> Iterator[None]:
    """Tell what the kernel says of *path*, which is the container's and open here, as a :class:`PathError`."""
    try:
        yield
    except PycontainError:
        raise
    except OSError as error:
        raise path_error(error.errno or 0, os.fsdecode(path)) from error


def root_path(path: Path) -> RootPath:
    """The container's path that the user gave."""
    try:
        text = os.fsdecode(os.fspath(path))
        text.encode("utf-8", "surrogateescape")
        return RootPath.parse(text)
    except (TypeError, ValueError) as error:
        raise InvalidSpec(
            f"{path!r} is no path in a container: {error}", hint="write it as /from/the/root"
        ) from None


def _size(given: str | int) -> int:
    try:
        return parse_size(given)
    except ValueError as error:
        raise InvalidSpec(f"max_size: {error}") from None
