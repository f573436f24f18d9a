"""What a COPY or ADD makes: a layer, from a tree or from archives in it, for the place where it shall lie.

It is read in two steps. What is to be copied comes first: sources are looked up in their tree as in a root, so that no
link leads out of it, and give entries and contents; their digest, without times, is what the build cache knows them by. Then
each entry gets its place: links on the way to the destination are followed in the tree of the stage, and what is there decides
as it does for ``cp``. Nothing is written to that tree: the result is the tar of a layer.

The digest of a build context is taken in the owner's process; all else in a child of the unpacker, which can read every
file of a stage and sees nothing else.
"""

from __future__ import annotations

import bz2
import errno
import hashlib
import lzma
import marshal
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.dockerfile.ignore import Ignore, Pattern
from pycontain.dockerfile.modes import changed_mode
from pycontain.errors import BuildError, PycontainError
from pycontain.kernel import syscalls
from pycontain.layers.compression import Compression, decompress, detect
from pycontain.layers.decode import Decoder
from pycontain.layers.diff import diff
from pycontain.layers.encode import encode
from pycontain.layers.entries import DEFAULT_LIMITS, WHITEOUT_PREFIX, Entry, Kind, Whiteouts, printable
from pycontain.runtime.resolution import look, resolved
from pycontain.sandbox.accounts import UnknownAccount, resolve_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    Contents = tuple[Entry, Iterable[bytes]]

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 256 << 10
_HEAD = 512  # of an archive: one block of a tar
_ACCOUNTS_LIMIT = 4 << 20
_WILD = frozenset(b"*?[\\")
_MOST_MATCHES = 1 << 20
_SPECIAL = {
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
}


@attrs.frozen
class Found:
    """One source that was found: the *name* it gets, and its entries relative to it, the source itself as ``b""``."""

    name: bytes
    entries: Iterator[Contents]
    folder: bool
    above: tuple[Entry, ...] = ()  # with --parents, the directories that it is in


@attrs.define(eq=False)
class Copying:
    """One COPY or ADD, as plain values: they travel to where it is done.

    *sources* are patterns in the tree, *texts* files that are given with name, content and mode. *ignored* are the patterns of
    .dockerignore, each with whether it is an exception. *keep_owners* is for what comes from a stage or an image. *owner* and
    *mode* are as --chown and --chmod have them. *made* is the time of what has none, and no time is later than *newest*, both in
    nanoseconds.
    """

    sources: tuple[bytes, ...]
    texts: tuple[tuple[str, bytes, int], ...]
    destination: bytes
    ignored: tuple[tuple[str, bool], ...]
    exclude: tuple[str, ...]
    keep_owners: bool
    owner: str
    mode: str
    parents: bool
    unpack: bool
    made: int
    newest: int | None
    folder: bool = False  # only the directory at the destination is made
    source: int = attrs.field(default=-1, init=False)
    below: int = attrs.field(default=-1, init=False)
    ids: tuple[int, int] | None = attrs.field(default=None, init=False)
    known: set[bytes] = attrs.field(factory=set, init=False)  # directories that are made here
    links: dict[bytes, bytes] = attrs.field(factory=dict, init=False)  # what archives have brought
    hashed: hashlib._Hash = attrs.field(factory=hashlib.sha256, init=False)

    def values(self) -> tuple[Any, ...]:
        """What to give to make the same one elsewhere."""
        return attrs.astuple(self, filter=lambda field, _: field.init, recurse=False)

    def do(self, act: str, tree: str, below: str, out: int) -> tuple[str]:
        """``digest`` the sources, or ``write`` the layer to the descriptor *out*; the digest in any case."""
        self.source, self.below = os.open(tree, _FOLDER), os.open(below, _FOLDER)
        if act == "digest":
            return (self.digest(),)
        self.ids = self._ids()
        with open(out, "wb", buffering=1 << 20, closefd=False) as file:
            try:
                file.writelines(encode(self._layer()))
            except BrokenPipeError:  # the owner has given up
                os._exit(0)
        return (self.hashed.hexdigest(),)

    def digest(self) -> str:
        """The digest of what would be copied, from the tree that is open as *source*."""
        for found in self._found():
            for _, content in found.entries:
                for _ in content:
                    pass
        return self.hashed.hexdigest()

    # --- what is to be copied ---------------------------------------------------------------------------

    def _found(self) -> Iterator[Found]:
        for name, content, mode in self.texts:
            entry = Entry(b"", Kind.FILE, mode, mtime=self.made, size=len(content))
            yield Found(
                os.fsencode(name), self._counted(os.fsencode(name), iter([(entry, (content,))])), folder=False
            )
        for source in self.sources:
            matches = list(self._matches(source))
            if not matches and not _WILD & set(source):
                raise self._missing(source)
            for match in matches:
                yield self._one(match, source)

    def _missing(self, source: bytes) -> BuildError:
        text = printable(source)
        if self._is_ignored(source):
            return BuildError(f"{text!r} is left out by .dockerignore", hint="add a line !" + text)
        return BuildError(
            f"{text!r} is not there", hint="paths are relative to the build context, or to / of --from"
        )

    def _is_ignored(self, path: bytes) -> bool:
        return self._ignore.ignores(os.fsdecode(path)) if self.ignored and path else False

    @property
    def _ignore(self) -> Ignore:
        return Ignore(tuple(Pattern(text, exception) for text, exception in self.ignored))

    def _matches(self, source: bytes) -> Iterator[bytes]:
        """The paths that *source* means, in order; a name without wildcards means itself."""
        folders = [b""]
        plain = source.replace(b"/./", b"/") if self.parents else source
        for part in filter(None, plain.split(b"/")):
            if not _WILD & set(part):
                folders = [_join(folder, part) for folder in folders]
                continue
            folders = [path for folder in folders for path in self._named(folder, part)]
            if len(folders) > _MOST_MATCHES:
                raise BuildError(f"{printable(source)!r} means more than {_MOST_MATCHES} files")
        for path in folders:
            kind = self._kind(path)
            if kind is not None and not self._is_left_out(path, folder=stat.S_ISDIR(kind)):
                yield path

    def _named(self, folder: bytes, pattern: bytes) -> Iterator[bytes]:
        wanted = Pattern(os.fsdecode(pattern))
        deep = b"**" in pattern
        try:
            fd = self._open(folder, _FOLDER)
        except OSError:
            return
        try:
            with os.scandir(fd) as entries:
                names = sorted((os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in entries)
        finally:
            os.close(fd)
        for name, is_folder in names:
            path = _join(folder, name)
            if wanted.matches(os.fsdecode(name)):
                yield path
            if deep and is_folder:
                yield from self._named(path, pattern)

    def _open(self, path: bytes, flags: int) -> int:
        return syscalls.openat2(self.source, path or b".", flags | os.O_CLOEXEC, resolve=_IN_ROOT)

    def _kind(self, path: bytes) -> int | None:
        """The mode of what *path* leads to."""
        try:
            fd = self._open(path, os.O_PATH)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise BuildError(f"{printable(path)!r} cannot be read: {error.strerror}") from error
            return None
        try:
            return os.fstat(fd).st_mode
        finally:
            os.close(fd)

    def _is_left_out(self, path: bytes, *, folder: bool) -> bool:
        if not self.ignored:
            return False
        real = resolved(path, lambda each: look(self.source, each))
        hidden = self._is_hidden if folder else self._is_ignored
        return hidden(path) or hidden(real)

    def _is_hidden(self, path: bytes) -> bool:
        ignore = self._ignore
        text = os.fsdecode(path)
        return bool(path) and ignore.ignores(text) and not ignore.may_hold_exceptions(text)

    def _one(self, path: bytes, source: bytes) -> Found:
        with _reading(path):
            fd = self._open(path, os.O_PATH)
            try:
                found = os.fstat(fd)
            finally:
                os.close(fd)
            above = tuple(self._above(path, source)) if self.parents else ()
            name = path
            if self.parents:
                name = _join(*(entry.path for entry in above[-1:]), os.path.basename(path))
            if stat.S_ISDIR(found.st_mode):
                return Found(name, self._counted(name, self._tree(path)), folder=True, above=above)
            if stat.S_ISREG(found.st_mode):
                entries = self._file(path)
            elif stat.S_IFMT(found.st_mode) in _SPECIAL and self.keep_owners:
                entries = iter([(_entry(b"", found), ())])
            else:
                raise BuildError(f"{printable(path)!r} is neither a file nor a directory")
            excluded = any(Pattern(each).matches_below(os.fsdecode(path)) for each in self.exclude)
            excluded = excluded or any(
                Pattern(each).matches_below(os.fsdecode(os.path.basename(path))) for each in self.exclude
            )
            entries = iter(()) if excluded else entries
            return Found(name, self._counted(name, entries), folder=False, above=above)

    def _above(self, path: bytes, source: bytes) -> Iterator[Entry]:
        """The directories of *path*, from the pivot of *source* on, with their status."""
        pivot = source.partition(b"/./")[0].count(b"/") + 1 if b"/./" in source else 0
        parts = path.split(b"/")
        for number in range(pivot + 1, len(parts)):
            fd = self._open(b"/".join(parts[:number]), os.O_PATH)
            try:
                yield _entry(b"/".join(parts[pivot:number]), os.fstat(fd))
            finally:
                os.close(fd)

    def _file(self, path: bytes) -> Iterator[Contents]:
        with _reading(path), open(self._open(path, _OPEN), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BuildError(f"{printable(path)!r} was replaced while it was read")
            yield _entry(b"", found, _xattrs(file.fileno())), _chunks(file)

    def _tree(self, path: bytes) -> Iterator[Contents]:
        fd = self._open(path, _FOLDER)
        try:
            real = resolved(path, lambda each: look(self.source, each))
            yield from self._kept(
                diff(fd, whiteouts=Whiteouts.REMOVE, include_root=True, leave_out=self._leaver(real)), real
            )
        finally:
            os.close(fd)

    def _leaver(self, folder: bytes) -> Any:
        exclude = Ignore.of(self.exclude)

        def leave_out(path: bytes) -> bool:
            text = os.fsdecode(path)
            excluded = exclude.ignores(text) and not exclude.may_hold_exceptions(text)
            return excluded or (bool(self.ignored) and self._is_hidden(_join(folder, path)))

        return leave_out

    def _kept(self, contents: Iterable[Contents], folder: bytes) -> Iterator[Contents]:
        """Without directories that are only walked for an exception in them, unless there is one."""
        waiting: list[Entry] = []
        exclude = Ignore.of(self.exclude)
        for entry, content in contents:
            path = _join(folder, entry.path)
            hidden = entry.path and (
                (self.ignored and self._is_ignored(path)) or exclude.ignores(os.fsdecode(entry.path))
            )
            waiting = [one for one in waiting if entry.path.startswith(one.path + b"/")]
            if hidden:
                if entry.kind is Kind.DIRECTORY:
                    waiting.append(entry)
                continue
            for one in waiting:
                yield one, ()
            waiting = []
            yield entry, content

    def _counted(self, name: bytes, contents: Iterable[Contents]) -> Iterator[Contents]:
        """The same with owners as they shall be, and their digest."""
        self.hashed.update(marshal.dumps(("source", name), 2))
        for entry, content in contents:
            owned = entry if self.keep_owners else attrs.evolve(entry, uid=0, gid=0)
            self.hashed.update(marshal.dumps(_identity(owned), 2))
            yield owned, self._hashed(content)

    def _hashed(self, content: Iterable[bytes]) -> Iterator[bytes]:
        for piece in content:
            self.hashed.update(piece)
            yield piece

    # --- where it goes ----------------------------------------------------------------------------------

    def _layer(self) -> Iterator[Contents]:
        folder = self.destination.endswith((b"/", b"/.")) or self.destination in {b"", b"."}
        top = resolved(self.destination, self._look)
        if self.folder:
            yield from self._parents(top)
        there = self._look(top)
        is_folder = there is not None and stat.S_ISDIR(there[0])
        for found in self._found():
            if self.parents or found.folder or folder or is_folder or self._made_already(top):
                yield from self._into(top, found)
            else:
                yield from self._parents(os.path.dirname(top))
                yield from self._placed(top, found.entries)

    def _made_already(self, path: bytes) -> bool:
        return path in self.known

    def _into(self, top: bytes, found: Found) -> Iterator[Contents]:
        place = top
        if self.parents:
            yield from self._parents(top)
            for entry in found.above:
                yield from self._made(attrs.evolve(self._owned(entry), path=_join(top, entry.path)))
            place = _join(top, found.name)
        elif not found.folder:
            yield from self._parents(top)
            place = _join(top, os.path.basename(found.name))
        else:
            yield from self._parents(os.path.dirname(top))
        yield from self._placed(place, found.entries)

    def _parents(self, path: bytes) -> Iterator[Contents]:
        """The directories on the way to *path*, as far as they are not there."""
        names = path.split(b"/") if path else []
        for number in range(1, len(names) + 1):
            folder = b"/".join(names[:number])
            uid, gid = self.ids or (0, 0)
            yield from self._made(Entry(folder, Kind.DIRECTORY, 0o755, uid, gid, self._time(self.made)))

    def _made(self, entry: Entry) -> Iterator[Contents]:
        there = None if entry.path in self.known else self._look(entry.path)
        if there is not None and not stat.S_ISDIR(there[0]):
            raise BuildError(
                f"{printable(b'/' + entry.path)!r} is no directory, so nothing can be put into it"
            )
        if there is None and entry.path not in self.known:
            self.known.add(entry.path)
            yield entry, ()

    def _placed(self, place: bytes, contents: Iterable[Contents]) -> Iterator[Contents]:
        for entry, content in contents:
            path = _join(place, entry.path)
            if self.unpack and entry.kind is Kind.FILE and not entry.path:
                yield from self._maybe_unpacked(place, entry, content)
                continue
            moved = attrs.evolve(self._owned(entry), path=path)
            if entry.kind is Kind.HARD_LINK:
                moved = attrs.evolve(moved, target=_join(place, entry.target))
            if not path:
                continue  # the root itself is there
            if entry.kind is Kind.DIRECTORY:
                yield from self._directory(moved, root=not entry.path)
            else:
                if not entry.path:
                    self._refuse_directory(path)
                yield moved, content

    def _directory(self, entry: Entry, *, root: bool) -> Iterator[Contents]:
        """A directory; what a source itself becomes keeps what is there already, as for BuildKit."""
        if root:
            yield from self._made(entry)
        else:
            self.known.add(entry.path)
            yield entry, ()

    def _refuse_directory(self, path: bytes) -> None:
        there = self._look(path)
        if path in self.known or (there is not None and stat.S_ISDIR(there[0])):
            raise BuildError(
                f"{printable(b'/' + path)!r} is a directory, and a file cannot take its place",
                hint="end the destination with a slash to copy into it",
            )

    def _owned(self, entry: Entry) -> Entry:
        uid, gid = self.ids or (entry.uid, entry.gid)
        mode = entry.mode
        if self.mode and entry.kind is not Kind.SYMLINK:
            mode = changed_mode(self.mode, mode, folder=entry.kind is Kind.DIRECTORY)
        return attrs.evolve(entry, uid=uid, gid=gid, mode=mode, mtime=self._time(entry.mtime))

    def _time(self, time: int) -> int:
        return time if self.newest is None else min(time, self.newest)

    def _look_in(self, top: bytes, path: bytes) -> tuple[int, bytes] | None:
        """The same for a path below *top*, with the links that an archive has brought already."""
        place = _join(top, path)
        if place in self.links:
            return stat.S_IFLNK, self.links[place]
        return None if place in self.known else self._look(place)

    def _look(self, path: bytes) -> tuple[int, bytes] | None:
        return look(self.below, path)

    def _ids(self) -> tuple[int, int] | None:
        """Whom --chown names, by the accounts of the stage."""
        if not self.owner:
            return None
        try:
            uid, gid, *_ = resolve_user(self.owner, self._accounts("passwd"), self._accounts("group"))
        except UnknownAccount as error:
            if self.folder:  # of WORKDIR: Docker lets USER name somebody who is not there yet
                return None
            raise BuildError(f"the image has no account {error}, to which it shall belong") from None
        return (uid, gid) if ":" in self.owner else (uid, uid if self.owner.isdigit() else gid)

    def _accounts(self, name: str) -> str:
        try:
            fd = syscalls.openat2(self.below, f"etc/{name}", _OPEN, resolve=_IN_ROOT)
        except OSError:  # then only numbers are known
            return ""
        with open(fd, "rb") as file:
            return file.read(_ACCOUNTS_LIMIT).decode(errors="replace")

    # --- archives ---------------------------------------------------------------------------------------

    def _maybe_unpacked(self, place: bytes, entry: Entry, content: Iterable[bytes]) -> Iterator[Contents]:
        """What is in an archive, below the destination; another file as it is."""
        with _spooled(content) as file:
            if not _is_archive(file):
                self._refuse_directory(place)
                yield attrs.evolve(self._owned(entry), path=place), iter(lambda: file.read(_CHUNK), b"")
                return
            top = resolved(self.destination, self._look)
            yield from self._parents(top)
            decoder = Decoder(_inflated(file), DEFAULT_LIMITS)
            for one in decoder:
                yield from self._unpacked(top, one, decoder)

    def _unpacked(self, top: bytes, entry: Entry, decoder: Decoder) -> Iterator[Contents]:
        if os.path.basename(entry.path).startswith(WHITEOUT_PREFIX):
            raise BuildError(
                f"the archive has {printable(entry.path)!r}, which in a layer means something else"
            )
        if not entry.path:
            return
        # For the archive the destination is the root, above which nothing is; its own links lead on in it, too.
        above, name = os.path.split(entry.path)
        folder = _join(top, resolved(above, lambda path: self._look_in(top, path)))
        yield from self._parents(folder)
        uid, gid = self.ids or (entry.uid, entry.gid)
        path = _join(folder, name)
        moved = attrs.evolve(entry, path=path, uid=uid, gid=gid, mtime=self._time(entry.mtime))
        if entry.kind is Kind.HARD_LINK:
            target = resolved(entry.target, lambda each: self._look_in(top, each), follow_last=False)
            moved = attrs.evolve(moved, target=_join(top, target))
        if entry.kind is Kind.SYMLINK:
            self.links[path] = entry.target
        if entry.kind is Kind.DIRECTORY:
            there = self._look_in(b"", path)
            if there is not None and stat.S_ISLNK(there[0]):
                return  # it is used as the directory that it leads to
            self.known.add(path)
        yield moved, (bytes(piece) for _, piece in decoder.content())


def _identity(entry: Entry) -> tuple[Any, ...]:
    """What of an entry counts for the cache: all but its time."""
    return (
        *(entry.path, entry.kind.value, entry.mode, entry.uid, entry.gid, entry.size),
        *(entry.target, entry.device, entry.xattrs),
    )


def _join(*parts: bytes) -> bytes:
    return b"/".join(filter(None, parts))


def _entry(path: bytes, found: os.stat_result, xattrs: Any = ()) -> Entry:
    kind = (
        Kind.DIRECTORY if stat.S_ISDIR(found.st_mode) else _SPECIAL.get(stat.S_IFMT(found.st_mode), Kind.FILE)
    )
    device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in _SPECIAL.values() else (0, 0)
    size = found.st_size if kind is Kind.FILE else 0
    mode = stat.S_IMODE(found.st_mode)
    return Entry(
        path, kind, mode, found.st_uid, found.st_gid, found.st_mtime_ns, size, device=device, xattrs=xattrs
    )


def _xattrs(fd: int) -> tuple[tuple[bytes, bytes], ...]:
    names = sorted(map(os.fsencode, os.listxattr(fd)))
    kept = [
        name
        for name in names
        if name == b"security.capability"
        or (name.startswith(b"user.") and not name.startswith(b"user.overlay."))
    ]
    return tuple((name, os.getxattr(fd, name)) for name in kept)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


@contextmanager
def _reading(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(f"{printable(path)!r} cannot be read: {error.strerror}") from error


@contextmanager
def _spooled(content: Iterable[bytes]) -> Iterator[BinaryIO]:
    """All of *content* in a file without a name, since an archive is known by its beginning and read twice."""
    with open(os.memfd_create("archive", os.MFD_CLOEXEC), "w+b") as file:
        file.writelines(content)
        file.seek(0)
        yield file


def _is_archive(file: BinaryIO) -> bool:
    """Whether a tar begins here, compressed or not. The position is the beginning afterwards."""
    head = b""
    try:
        for piece in _inflated(file):
            head += piece
            if len(head) >= _HEAD:
                break
    except (PycontainError, OSError, EOFError, lzma.LZMAError):  # it only begins like one
        return False
    finally:
        file.seek(0)
    return _looks_like_tar(head)


def _looks_like_tar(head: bytes) -> bool:
    """By the checksum of the first header (POSIX, pax, "ustar Interchange Format")."""
    if len(head) < _HEAD:
        return False
    try:
        said = int(head[148:156].split(b"\0")[0].strip() or b"-", 8)
    except ValueError:
        return False
    return said == sum(head[:148]) + 8 * 32 + sum(head[156:_HEAD])


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"BZh"):
        with bz2.BZ2File(file) as plain:
            yield from iter(lambda: plain.read(_CHUNK), b"")
    elif head == b"\xfd7zXZ\0":
        with lzma.LZMAFile(file) as unpacked:
            yield from iter(lambda: unpacked.read(_CHUNK), b"")
    else:
        yield from decompress(file, detect(head) if head else Compression.NONE)
