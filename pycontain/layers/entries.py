"""What a layer says, as values: entries, the meaning of whiteouts, and the limits on all of it.

Paths are bytes, because that is what tar and Linux have: any byte but NUL. A path here is always *clean*: relative
to the root, without empty, ``.`` and ``..`` components; the root itself is ``b""``.
"""

from __future__ import annotations

from enum import Enum

import attrs

from pycontain.errors import LayerTooLarge, UnsafeEntry

# image-spec layer.md, "Whiteouts": a file named .wh.NAME hides NAME of the layers below, .wh..wh..opq all siblings.
WHITEOUT_PREFIX = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"
_AUFS_PREFIX = b".wh..wh."  # aufs kept its own files under such names; they are no part of any image

# Kernel documentation, filesystems/overlayfs.rst: what these say is for the snapshotter to say, never for a layer.
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")

Xattrs = tuple[tuple[bytes, bytes], ...]
Segments = tuple[tuple[int, int], ...]


class Kind(Enum):
    """What an entry makes: the file types of inode(7), and a further name for a file."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"

    __hash__ = object.__hash__  # Enum's is Python code, and every entry is looked up by its kind


DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})


@attrs.frozen
class Entry:
    """One entry of a layer, without its content.

    *target* is the text of a symbolic link, taken as it is, or the clean path that a hard link names. *mtime* is in
    nanoseconds. *device* is (major, minor). *segments*, when given, are the (offset, length) parts of a sparse file
    that are stored, in order; the rest up to *size* is a hole.
    """

    path: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Xattrs = ()
    segments: Segments | None = None

    @property
    def stored(self) -> int:
        """The bytes of content that follow the header."""
        return self.size if self.segments is None else sum(length for _, length in self.segments)


def clean(path: bytes) -> bytes:
    """Return *path* relative to the root, with ``.``, ``..`` and ``//`` resolved in the text; ``..`` stops at the root."""
    if path.startswith(b"./"):
        path = path[2:]
    path = path.rstrip(b"/")
    if b"/." not in path and b"//" not in path and path[:1] not in {b"/", b"."}:
        return path  # nearly all
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == b"..":
            del names[-1:]
        elif name not in {b"", b"."}:
            names.append(name)
    return b"/".join(names)


def printable(path: bytes) -> str:
    """Return *path* for a message; bytes that are not UTF-8 stay visible as escapes."""
    return path.decode(errors="backslashreplace") or "/"


# --- whiteouts ------------------------------------------------------------------------------------------


class Whiteouts(Enum):
    """How a tree on disk shows what a layer hides."""

    REMOVE = "remove"
    """By absence: the tree holds the lower layers too, and what is hidden is removed from it."""

    OVERLAY = "trusted.overlay."
    """By overlayfs' markers: the tree is the layer alone, a lower or upper directory of an overlay.

    A layer that is applied so has those of ``USER_OVERLAY`` as well, and can be mounted in both ways.
    """

    USER_OVERLAY = "user.overlay."
    """The same for an overlay that is mounted with ``userxattr``, as in a user namespace."""


class Opaque(Enum):
    """The whiteout that hides all siblings in the layers below."""

    OPAQUE = "opaque"


def hidden_by(path: bytes) -> bytes | Opaque | None:
    """Return the name that the entry at *path* hides beside it, or None when the entry is no whiteout.

    :class:`UnsafeEntry` when it would hide its own directory or the one above.
    """
    name = path.rpartition(b"/")[2]
    if not name.startswith(WHITEOUT_PREFIX):
        return None
    if name == OPAQUE_WHITEOUT:
        return Opaque.OPAQUE
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in {b"", b".", b".."}:
        where = printable(path)
        raise UnsafeEntry(f"the whiteout {where!r} names no file in its directory", path=where)
    return hidden


def is_aufs_leftover(path: bytes) -> bool:
    """Tell whether *path* is one of aufs' own files, which old images still carry."""
    name = path.partition(b"/")[0]
    return name.startswith(_AUFS_PREFIX) and name != OPAQUE_WHITEOUT


# --- limits ---------------------------------------------------------------------------------------------

_RATIO_COUNTS_FROM = (
    64 << 20
)  # below this an honest layer of zeros may compress a thousandfold and harm nobody

_EXCESS = {
    "max_bytes": "holds more than {} bytes",
    "max_entries": "holds more than {} entries",
    "max_ratio": "expands to more than {} times its compressed size",
    "max_name": "holds a path of more than {} bytes",
    "max_depth": "holds a path of more than {} directories",
}


@attrs.frozen(kw_only=True)
class Limits:
    """How much a layer may ask for; one that asks for more is refused with :class:`LayerTooLarge`.

    *max_bytes* bounds the uncompressed layer and the apparent size of each file, *max_entries* the entries, *max_ratio*
    uncompressed against compressed bytes (once there are 64 MiB), *max_name* the bytes of a path and of a link's target,
    and *max_depth* the components of a path, before and after links are followed.
    """

    max_bytes: int = 32 << 30
    max_entries: int = 1_000_000
    max_ratio: int = 200
    max_name: int = 4096
    max_depth: int = 256

    def check_bytes(self, uncompressed: int, compressed: int, path: bytes) -> None:
        """Refuse a layer of which *uncompressed* bytes came out of *compressed*, at the entry *path*."""
        if uncompressed > self.max_bytes:
            raise self.exceeded("max_bytes", path)
        if uncompressed > _RATIO_COUNTS_FROM and uncompressed > compressed * self.max_ratio:
            raise self.exceeded("max_ratio", path)

    def check_entry(self, entry: Entry, number: int) -> None:
        """Refuse *entry*, the *number*-th of its layer, when it breaks a limit by itself."""
        if number > self.max_entries:
            raise self.exceeded("max_entries", entry.path)
        if entry.size > self.max_bytes:
            raise self.exceeded("max_bytes", entry.path)
        if len(entry.path) > self.max_name or len(entry.target) > self.max_name:
            raise self.exceeded("max_name", entry.path)
        if entry.path.count(b"/") >= self.max_depth:
            raise self.exceeded("max_depth", entry.path)

    def exceeded(self, limit: str, path: bytes) -> LayerTooLarge:
        """Return the error for *limit*, met at the entry *path*."""
        where = printable(path[:200])
        sentence = _EXCESS[limit].format(getattr(self, limit))
        return LayerTooLarge(
            f"the layer {sentence}, met at {where!r}",
            path=where,
            hint=f"if you trust the image, raise the limit: limits=Limits({limit}=...)",
        )


DEFAULT_LIMITS = Limits()
