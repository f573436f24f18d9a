"""Images in folders and files of others: OCI layouts, tars of them, and what ``docker save`` writes. Only read, never changed.

An :class:`Archive` lists its images and is the origin of their blobs; whoever brings these into a store verifies them.
What docker-archive lacks, descriptors and a manifest, is made from what it has: the config stays as it is, and with it
the image ID.

Names in an archive lead to nothing but its own members. A tar is read in place, by the offsets of its members.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import tempfile
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self, cast

import attrs

from pycontain.errors import ImageNotFound, InvalidImage, InvalidReference
from pycontain.layers.compression import MAGIC_LENGTH, Compression, detect
from pycontain.layers.entries import DEFAULT_LIMITS
from pycontain.layers.pipeline import LayerBytes
from pycontain.oci.codec import (
    EMPTY,
    MAX_DOCUMENT_BYTES,
    TEXT,
    TEXTS,
    FrozenMap,
    Json,
    array_of,
    decode,
    object_of,
    optional,
    required,
)
from pycontain.oci.config import ImageConfig
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.layout import INDEX_FILE, LAYOUT_FILE, REF_NAME, ImageLayout, blob_path
from pycontain.oci.manifest import Index, Manifest, parse_document
from pycontain.oci.media_types import CONFIG, INDEX, LAYER, LAYER_GZIP, LAYER_ZSTD, MANIFEST
from pycontain.oci.reference import Reference
from pycontain.oci.source import DockerArchive, OciArchive, OciLayout

if TYPE_CHECKING:
    from types import TracebackType

MANIFEST_FILE: Final = "manifest.json"
#: Where Docker and containerd keep the full reference, while ``ref.name`` may be the tag alone.
FULL_NAME: Final = "io.containerd.image.name"

_MAX_MEMBERS: Final = 65_536
_MAX_LINKS: Final = 8
_CHUNK: Final = 1 << 20
_MEDIA_TYPES: Final = {
    Compression.NONE: LAYER,
    Compression.GZIP: LAYER_GZIP,
    Compression.ZSTD: LAYER_ZSTD,
}


# --- files by name --------------------------------------------------------------------------------------


class Files(Protocol):
    """Files by their names, in a folder or a tar. Threads may share it."""

    @property
    def what(self) -> str:
        """The folder or file, for messages."""

    def open(self, name: str) -> BinaryIO | None:
        """The file *name* from its start; None when there is none. The caller closes it."""

    def close(self) -> None:
        """Let go of what is open; files that were given out stay good."""


@attrs.frozen
class _Folder:
    what: str

    def open(self, name: str) -> BinaryIO | None:
        try:
            return open(os.path.join(self.what, name), "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self.what, error) from error

    def close(self) -> None:
        pass


class _Section(io.RawIOBase):
    """A part of a file; it has a descriptor of its own and shares no position."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd = os.dup(fd)
        self._start = start
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # the base says "any buffer"
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._position)]
        count = os.preadv(self._fd, [view], self._start + self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class _Tar:
    """The members of a tar, of which only regular files and links to them count."""

    def __init__(self, what: str, file: BinaryIO) -> None:
        self.what = what
        self._file = file
        self._sections: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._scan(file)
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidImage(f"{what} is no sound tar: {error}") from error
        except OSError as error:
            raise _unreadable(what, error) from error

    def _scan(self, file: BinaryIO) -> None:
        reached, count = -1, 0
        # Where it is opened, tarfile reads the first header, and complains of what is no tar.
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as tar:
            while member := tar.next():
                count += 1
                if member.offset <= reached or count > _MAX_MEMBERS:
                    raise InvalidImage(f"{self.what} has headers that lead back, or more than {_MAX_MEMBERS}")
                reached = member.offset
                name = _plain(member.name)
                if member.isreg() and not member.issparse():
                    self._sections[name] = (member.offset_data, member.size)
                elif member.issym():
                    self._links[name] = _plain(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    self._links[name] = _plain(member.linkname)

    def open(self, name: str) -> BinaryIO | None:
        # docker save links layers that images share
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                break
            name = self._links[name]
        section = self._sections.get(name)
        return cast("BinaryIO", _Section(self._file.fileno(), *section)) if section else None

    def close(self) -> None:
        self._file.close()


def _plain(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _unreadable(what: str, error: OSError) -> InvalidImage:
    return InvalidImage(f"{what} cannot be read: {error.strerror}", hint="see its mode and its parents'")


# --- archives -------------------------------------------------------------------------------------------


@attrs.frozen
class Archived:
    """An image in an archive: what it is called there, and its manifest, or index of some."""

    names: tuple[str, ...]
    descriptor: Descriptor

    @property
    def references(self) -> tuple[Reference, ...]:
        """The names that are references. A tag alone names no repository, so it is none."""
        found: dict[Reference, None] = {}  # two annotations may say the same
        for name in self.names:
            if ":" in name or "/" in name:
                with suppress(InvalidReference):
                    found[Reference.parse(name)] = None
        return tuple(found)

    def is_called(self, name: str) -> bool:
        """Whether *name* means this image, as it is written or in another form of the same reference."""
        if name in self.names:
            return True
        try:
            return Reference.parse(name) in self.references
        except InvalidReference:
            return False


class Archive(Protocol):
    """Images in files; the origin of their blobs. A context manager that closes what is open."""

    images: tuple[Archived, ...]

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document."""

    def open(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        """A blob from *offset*."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Opened:
    """What both kinds of archive do with their files."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise InvalidImage(f"{name} in {self._files.what} has more than {MAX_DOCUMENT_BYTES} bytes")
        return content

    def _open(self, name: str) -> BinaryIO:
        file = self._files.open(name)
        if file is None:
            raise InvalidImage(
                f"{self._files.what} has no {name}", hint="it is not what it should be, or not all of it"
            )
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()


class Layout(_Opened):
    """An OCI image layout."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        ImageLayout.parse(self._read(LAYOUT_FILE))
        index = parse_document(self._read(INDEX_FILE), INDEX)
        if not isinstance(index, Index):
            raise InvalidImage(f"the {INDEX_FILE} of {files.what} is no index")
        self.images = tuple(map(_archived, index.manifests))

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document."""
        return self._read(blob_path(descriptor.digest))

    def open(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        """A blob from *offset*."""
        file = self._open(blob_path(descriptor.digest))
        file.seek(offset)
        return file


def _archived(descriptor: Descriptor) -> Archived:
    names = (descriptor.annotations.get(key) for key in (FULL_NAME, REF_NAME))
    return Archived(tuple(filter(None, names)), attrs.evolve(descriptor, annotations=EMPTY))


@attrs.frozen
class _Listed:
    """One image in ``manifest.json``."""

    config: str
    repo_tags: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    extra: FrozenMap[Json] = EMPTY


_LISTED: Final = array_of(
    object_of(
        _Listed,
        config=required("Config", TEXT),
        repo_tags=optional("RepoTags", TEXTS),
        layers=optional("Layers", TEXTS),
    )
)


class DockerSave(_Opened):
    """What ``docker save`` writes, in its old and its new form."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._names: dict[Digest, str] = {}
        self._documents: dict[Digest, bytes] = {}
        listed = decode(_LISTED, self._read(MANIFEST_FILE), MANIFEST_FILE)
        self.images = tuple(map(self._describe, listed))

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or a config."""
        return self._documents[descriptor.digest]

    def open(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        """A layer from *offset*."""
        file = self._open(self._names[descriptor.digest])
        file.seek(offset)
        return file

    def _describe(self, listed: _Listed) -> Archived:
        content = self._read(_plain(listed.config))
        config = ImageConfig.parse(content)
        if len(config.diff_ids) != len(listed.layers):
            raise InvalidImage(
                f"{listed.config} in {self._files.what} is for {len(config.diff_ids)} layers,"
                f" and {MANIFEST_FILE} lists {len(listed.layers)}"
            )
        layers = tuple(map(self._describe_layer, map(_plain, listed.layers), config.diff_ids))
        manifest = Manifest(self._keep(content, CONFIG), layers)
        return Archived(listed.repo_tags, self._keep(manifest.encode(), MANIFEST))

    def _describe_layer(self, name: str, diff_id: Digest) -> Descriptor:
        with self._open(name) as file:
            compression = detect(file.read(MAGIC_LENGTH))
            size = file.seek(0, os.SEEK_END)
            # What is not compressed has its diff ID as its digest, or is wrong.
            digest = diff_id if compression is Compression.NONE else _digest_of(file)
        self._names[digest] = name
        return Descriptor(_MEDIA_TYPES[compression], digest, size)

    def _keep(self, content: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor.of(content, media_type)
        self._documents[descriptor.digest] = content
        return descriptor


def _digest_of(file: BinaryIO) -> Digest:
    import hashlib  # noqa: PLC0415 - rarely needed

    file.seek(0)
    hasher = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        hasher.update(chunk)
    return Digest("sha256", hasher.hexdigest())


# --- opening --------------------------------------------------------------------------------------------


def open_source(source: OciLayout | OciArchive | DockerArchive, scratch: str) -> Layout | DockerSave:
    """The archive that *source* names. A compressed one is inflated into a file without a name below *scratch*."""
    match source:
        case OciLayout(path):
            if not os.path.isdir(path):
                raise ImageNotFound(
                    f"there is no folder {path}", reference=str(source), hint="correct the path after oci:"
                )
            return Layout(_Folder(path))
        case OciArchive(path):
            return _closing_on_error(_open_tar(path, str(source), scratch), Layout)
        case DockerArchive(path):
            return _closing_on_error(_open_tar(path, str(source), scratch), DockerSave)


def open_archive(source: str | BinaryIO, scratch: str) -> Layout | DockerSave:
    """The archive at a path or in a stream, of whichever kind it is; a stream is not closed.

    A stream that cannot be sought, or is compressed, goes into a file without a name below *scratch* first.
    """
    if isinstance(source, str) and os.path.isdir(source):
        return Layout(_Folder(source))
    files = (
        _open_tar(source, source, scratch)
        if isinstance(source, str)
        else _tar_of(source, "the stream", scratch)
    )
    with ExitStack() as on_error:
        on_error.callback(files.close)
        marks = [name for name in (LAYOUT_FILE, MANIFEST_FILE) if _has(files, name)]
        if not marks:
            raise InvalidImage(
                f"{files.what} holds no images: it has neither {LAYOUT_FILE} nor {MANIFEST_FILE}",
                hint="for a tar of a root file system there is Image.from_rootfs()",
            )
        archive = Layout(files) if LAYOUT_FILE in marks else DockerSave(files)
        on_error.pop_all()
    return archive


def _has(files: Files, name: str) -> bool:
    file = files.open(name)
    if file is None:
        return False
    file.close()
    return True


def _closing_on_error(files: Files, kind: type[Layout | DockerSave]) -> Layout | DockerSave:
    try:
        return kind(files)
    except BaseException:
        files.close()
        raise


def _open_tar(path: str, reference: str, scratch: str) -> _Tar:
    try:
        file = open(path, "rb")  # noqa: SIM115 - the tar keeps it, or what was made of it
    except FileNotFoundError:
        raise ImageNotFound(
            f"there is no file {path}", reference=reference, hint="correct the path"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        return _tar_of(file, path, scratch)


def _tar_of(stream: BinaryIO, what: str, scratch: str) -> _Tar:
    file = _own_file(stream, scratch)
    try:
        return _Tar(what, file)
    except BaseException:
        file.close()
        raise


def _own_file(stream: BinaryIO, scratch: str) -> BinaryIO:
    """A file with the uncompressed rest of *stream*: its own when possible."""
    if _is_file(stream) and stream.tell() == 0:
        head = stream.read(MAGIC_LENGTH)
        stream.seek(0)
        if detect(head) is Compression.NONE:
            file = open(os.dup(stream.fileno()), "rb")  # noqa: SIM115 - the caller keeps it
            file.seek(0)  # a buffered stream may have read ahead
            return file
    return _spool(stream, scratch)


def _is_file(stream: BinaryIO) -> bool:
    try:
        return stream.seekable() and stream.fileno() >= 0
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return False


def _spool(stream: BinaryIO, scratch: str) -> BinaryIO:
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - the caller keeps it
    try:
        with LayerBytes(stream) as content:  # a compressed archive is compressed as a layer is
            for chunk in content:
                file.write(chunk)
                DEFAULT_LIMITS.check_bytes(file.tell(), content.size, b"")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


# --- choosing -------------------------------------------------------------------------------------------


def choose_image(archive: Layout | DockerSave, source: OciLayout | OciArchive | DockerArchive) -> Archived:
    """The image of *archive* that *source* names; the only one when it names none."""
    wanted = source.reference if isinstance(source, DockerArchive) else source.tag
    found = [image for image in archive.images if wanted is None or image.is_called(str(wanted))]
    if len({image.descriptor.digest for image in found}) == 1:
        return found[0]
    names = [name for image in archive.images for name in image.names]
    if wanted is None:
        sentence = f"{source} holds {len(archive.images)} images"
    else:
        sentence = f"{source.path} holds no image {wanted}" if not found else f"{source} is ambiguous"
    raise ImageNotFound(
        sentence,
        reference=str(source),
        hint=f"it has {', '.join(names[:10])}" if names else "none of its images has a name",
    )
