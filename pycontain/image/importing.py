"""Making an image of a root file system that is on disk: a directory, or a tar of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, cast

import attrs

from pycontain.errors import ImageNotFound, InvalidImage
from pycontain.image.transfer import Found, store_document
from pycontain.layers.compression import MAGIC_LENGTH, Compression, detect
from pycontain.layers.decode import Decoder
from pycontain.layers.diff import diff
from pycontain.layers.encode import encode
from pycontain.layers.entries import DEFAULT_LIMITS, Whiteouts
from pycontain.layers.pack import pack
from pycontain.layers.pipeline import LayerBytes
from pycontain.oci.chain import layers_of
from pycontain.oci.config import ExecutionParameters, ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Manifest
from pycontain.oci.media_types import CONFIG, LAYER, LAYER_GZIP, LAYER_ZSTD, MANIFEST
from pycontain.store.blobs import Incoming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.layers.entries import Entry
    from pycontain.oci.platform import Platform
    from pycontain.store.leases import Lease
    from pycontain.store.store import Store

_MEDIA_TYPES = {Compression.NONE: LAYER, Compression.GZIP: LAYER_GZIP, Compression.ZSTD: LAYER_ZSTD}


def store_rootfs(
    store: Store, lease: Lease, path: str, parameters: ExecutionParameters, platform: Platform
) -> Found:
    """Store the tree at *path* as an image of one layer, protected by *lease*."""
    read = _layer_of_directory if os.path.isdir(path) else _layer_of_tar
    layer, diff_id = read(store, lease, path)
    config = ImageConfig(
        platform.architecture, platform.os, RootFS((diff_id,)), parameters, variant=platform.variant
    )
    manifest = Manifest(Descriptor.of(config.encode(), CONFIG), (layer,))
    descriptor = Descriptor.of(manifest.encode(), MANIFEST)
    found = Found(descriptor, manifest, config, layers_of(manifest, config))
    lease.protect(*found.digests)
    store_document(store, manifest.config, config.encode())
    store_document(store, descriptor, manifest.encode())
    return found


def _layer_of_directory(store: Store, lease: Lease, path: str) -> tuple[Descriptor, Digest]:
    with Incoming(store.blobs, f"put-{os.urandom(12).hex()}", None, keep=False) as incoming:
        packed = pack(encode(_owned_by_root(path)), cast("BinaryIO", incoming))
        lease.protect(Digest.parse(packed.digest))  # first, and then make it visible
        return incoming.commit(LAYER_GZIP), Digest.parse(packed.diff_id)


def _owned_by_root(path: str) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """What an ordinary user owns belongs to root in the image, as it does in a container without subordinate ids."""
    uid, gid = os.geteuid(), os.getegid()
    for entry, content in diff(path, whiteouts=Whiteouts.REMOVE, include_root=True):
        owner = 0 if entry.uid == uid else entry.uid
        group = 0 if entry.gid == gid else entry.gid
        yield attrs.evolve(entry, uid=owner, gid=group), content


def _layer_of_tar(store: Store, lease: Lease, path: str) -> tuple[Descriptor, Digest]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below, opened apart so that only this is translated
    except FileNotFoundError:
        raise ImageNotFound(
            f"there is nothing at {path}", reference=path, hint="name a directory or a tar"
        ) from None
    except OSError as error:
        raise InvalidImage(
            f"{path} cannot be read: {error.strerror}", hint="see its mode and its parents'"
        ) from error
    with file:
        media_type = _MEDIA_TYPES[detect(file.read(MAGIC_LENGTH))]
        file.seek(0)
        with LayerBytes(file, hashed=True) as layer:
            # It is read to its end, so that what is no tar is refused now and not when it is run.
            entries = sum(1 for _ in Decoder(layer, DEFAULT_LIMITS, lambda: layer.size))
        if not entries:
            raise InvalidImage(f"{path} is empty", hint="name a directory or a tar of a root file system")
        file.seek(0)
        descriptor = Descriptor(media_type, Digest.parse(layer.digest), layer.size)
        lease.protect(descriptor.digest)  # as above
        store.blobs.put(file, descriptor)
    return descriptor, Digest.parse(layer.diff_id)
