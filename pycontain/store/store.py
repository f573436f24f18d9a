"""The store of images: blobs, names, snapshots and leases of one folder, shared with any number of processes.

Two locks order what cannot be done in one rename. ``names`` is held while ``index.json`` is edited. ``content`` is held
alone while garbage is looked for and made invisible, and shared while something begins to count as used: when a name is
set, and when a lease protects. Who needs both takes ``content`` first. Everything else needs no lock: blobs and
snapshots never change and come into sight by rename.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import attrs

from pycontain.errors import ImageNotFound, NoMatchingPlatform, StoreError
from pycontain.kernel.trees import remove_tree
from pycontain.oci.choice import resolve
from pycontain.oci.config import ImageConfig
from pycontain.oci.manifest import Index, Manifest, parse_document
from pycontain.oci.media_types import INDEXES, MANIFESTS
from pycontain.store.blobs import BlobMissing, Blobs
from pycontain.store.files import remove_file, storing
from pycontain.store.folder import default_path, open_folder
from pycontain.store.leases import Lease
from pycontain.store.names import Names
from pycontain.store.overlay import OverlaySnapshots
from pycontain.store.snapshots import Kind, Snapshotter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.digest import Digest
    from pycontain.oci.platform import Platform
    from pycontain.oci.reference import Reference
    from pycontain.store.collect import Collected, Usage
    from pycontain.store.names import Entry
    from pycontain.store.verify import Repair, Verified

_USE_RESOLUTION: Final = 60.0  # seconds
_TIDY_EVERY: Final = 24 * 3600.0  # seconds


@attrs.frozen
class StoredImage:
    """An image for one platform that is here with all its blobs.

    *index* is what its manifest was chosen from; the manifests for other platforms may be here or not.
    """

    reference: Reference | None
    descriptor: Descriptor
    manifest: Manifest = attrs.field(repr=False)
    index: Descriptor | None = None


class Store:
    """The images in the folder *path*, which is created when needed.

    Without *path*: ``PYCONTAIN_STORE``, else ``/var/lib/pycontain/store`` for root and ``pycontain`` below ``XDG_DATA_HOME`` for
    others. Opening an existing store is cheap, and a store holds nothing open.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.folder = open_folder(os.fspath(path) if path is not None else default_path())
        self.blobs = Blobs(self.folder)
        self.names = Names(self.folder, self.blobs)
        self._snapshots: dict[Kind, Snapshotter] = {
            kind: OverlaySnapshots(self.folder, kind) for kind in Kind
        }
        self._tidy()

    @classmethod
    def default(cls) -> Self:
        """The store that is used when none is named."""
        return cls()

    @property
    def path(self) -> str:
        """The folder, absolute."""
        return self.folder.path

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def snapshots(self, kind: Kind) -> Snapshotter:
        """The unpacked layers of one kind."""
        return self._snapshots[kind]

    def lease(self) -> Lease:
        """Begin a lease: what it protects is not collected while this process holds it."""
        return Lease.open(self.folder)

    # --- images -----------------------------------------------------------------------------------------

    def find(self, reference: Reference, platform: Platform | None = None) -> StoredImage | None:
        """The image that *reference* means here, for *platform* or as it was last named.

        None when it is not here for that platform with all its blobs, so that a pull can bring it. One manifest is
        read, however many images there are.
        """
        entry = self.names.get(reference)
        return next(self._images_of(entry, platform), None) if entry else None

    def images(self) -> tuple[StoredImage, ...]:
        """Every image that is complete, as it was last named; one with two names is there twice."""
        return tuple(image for entry in self.names.list() for image in self._images_of(entry, None))

    def remove_image(self, reference: Reference) -> None:
        """Let *reference* mean nothing any more; :meth:`gc` frees what nothing else needs.

        :class:`ImageNotFound` when it meant nothing.
        """
        entry = self.names.get(reference)
        if entry is None:
            raise ImageNotFound(f"the store has no image {reference.familiar}", reference=str(reference))
        self.names.remove([entry.name])

    def read_config(self, manifest: Manifest) -> ImageConfig:
        """The config of an image that is here."""
        return ImageConfig.parse(self.blobs.read(manifest.config.digest))

    def _images_of(self, entry: Entry, platform: Platform | None) -> Iterator[StoredImage]:
        index = entry.index
        if index is None and entry.descriptor.media_type in INDEXES:
            index = entry.descriptor
        with suppress(BlobMissing, NoMatchingPlatform):
            for descriptor in self._choices(entry.descriptor, index, platform):
                if image := self._complete(entry, descriptor, index):
                    yield image

    def _choices(
        self, named: Descriptor, index: Descriptor | None, platform: Platform | None
    ) -> Iterator[Descriptor]:
        if named.media_type in MANIFESTS and _fits(named, platform):
            yield named
        elif index and platform:
            yield resolve(index, platform, self._read)[0]
        elif index:  # another program named an index, and may have stored any of its manifests
            document = parse_document(self._read(index), index.media_type)
            yield from document.manifests if isinstance(document, Index) else ()

    def _complete(self, entry: Entry, descriptor: Descriptor, index: Descriptor | None) -> StoredImage | None:
        if not self.blobs.has(descriptor.digest):
            return None
        manifest = parse_document(self._read(descriptor), descriptor.media_type)
        if not isinstance(manifest, Manifest):
            return None
        if not all(self.blobs.has(needed.digest) for needed in (manifest.config, *manifest.layers)):
            return None
        return StoredImage(entry.reference, descriptor, manifest, index)

    def _read(self, descriptor: Descriptor) -> bytes:
        return self.blobs.read(descriptor.digest)

    # --- use --------------------------------------------------------------------------------------------

    def touch(self, digest: Digest) -> None:
        """Note that the image with the manifest *digest* is used now; at most one write a minute."""
        with storing(self.path):
            _note_time(self._use_of(digest), _USE_RESOLUTION)

    def last_used(self, digest: Digest) -> float:
        """When the image with the manifest *digest* was last used, or else stored, in seconds since the epoch."""
        for path in (self._use_of(digest), self.blobs.path(digest)):
            with suppress(FileNotFoundError):
                return os.stat(path).st_mtime
        return 0.0

    def forget_use(self, digest: Digest) -> None:
        """Forget when *digest* was used: it is collected."""
        remove_file(self._use_of(digest))

    def _use_of(self, digest: Digest) -> str:
        return f"{self.folder.used}/{digest.algorithm}-{digest.hex}"

    # --- care -------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What the store holds, in bytes, and what :meth:`gc` would free."""
        from pycontain.store.collect import usage_of  # noqa: PLC0415 - starting a container never needs it

        return usage_of(self)

    def gc(
        self,
        *,
        max_bytes: int | None = None,
        unused_for: float | None = None,
        build_caches: bool = False,
        dry_run: bool = False,
        remove_tree: Callable[[str], object] = remove_tree,
        timeout: float | None = None,
    ) -> Collected:
        """Remove what no name and no lease leads to, and what killed processes left.

        Before that, names are dropped whose image was not used for *unused_for* seconds, and then the least recently used
        ones until the store has at most *max_bytes*. A name whose manifest a lease protects stays, so the store may
        stay larger. Folders of ``RUN --mount=type=cache`` go when they were not used for so long, or with *build_caches* all that no
        build is using. With *dry_run* nothing changes, and the answer says what would.

        *remove_tree* removes one directory; in a rootless store it must run as root of the user namespace that owns
        the files. :class:`StoreBusy` when another process collects for longer than *timeout* seconds.
        """
        from pycontain.store.collect import collect  # noqa: PLC0415 - starting a container never needs it

        return collect(
            self,
            remove_tree,
            max_bytes=max_bytes,
            unused_for=unused_for,
            build_caches=build_caches,
            dry_run=dry_run,
            timeout=timeout,
        )

    def sweep(self, remove_tree: Callable[[str], object] = remove_tree) -> None:
        """Remove the trees of removed and abandoned snapshots. *remove_tree* as for :meth:`gc`."""
        for snapshots in self._snapshots.values():
            snapshots.sweep(remove_tree)

    def _tidy(self) -> None:
        with suppress(OSError, StoreError):  # a store that can only be read is not tidied
            if not _note_time(self.folder.tidied, _TIDY_EVERY):
                return
            from pycontain.store.collect import tidy  # noqa: PLC0415 - once a day

            tidy(self.folder)

    def verify(self, repair: Repair | None = None) -> Verified:
        """Read every blob again. What is damaged is brought by *repair* or else removed, and so is what is missing.

        An image that stays incomplete is not found any more, so that it is pulled again. Unpacked layers are not
        read: their bytes were verified before they became visible, and what a container sees cannot change them.
        """
        from pycontain.store.verify import verify  # noqa: PLC0415 - starting a container never needs it

        return verify(self, repair)


def _note_time(path: str, resolution: float) -> bool:
    """Set the time of the file *path* to now, unless that is at most *resolution* seconds ago. Whether it was set."""
    try:
        if time.time() - os.stat(path).st_mtime <= resolution:
            return False
        os.utime(path)
    except FileNotFoundError:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return True


def _fits(descriptor: Descriptor, platform: Platform | None) -> bool:
    if platform is None or descriptor.platform is None:
        return True
    return str(descriptor.platform.normal()) in map(str, platform.runnable())
