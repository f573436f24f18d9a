"""Writing images of a store into one tar: an OCI image layout, or what ``docker load`` and ``podman load`` know.

Nothing but the images decides about the bytes: the same images give the same archive. It is written from front to back,
so that it may go into a pipe.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import closing, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO

import attrs

from pycontain.errors import DigestMismatch, InvalidSpec, PycontainError, StoreError
from pycontain.image.archive import FULL_NAME, MANIFEST_FILE
from pycontain.interruption import go_on
from pycontain.layers.encode import encode
from pycontain.layers.entries import Entry, Kind
from pycontain.layers.pipeline import LayerBytes
from pycontain.oci.layout import INDEX_FILE, LAYOUT_FILE, REF_NAME, ImageLayout, blob_path
from pycontain.oci.manifest import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.image.transfer import Found
    from pycontain.oci.chain import Layer
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.digest import Digest
    from pycontain.oci.reference import Reference
    from pycontain.store.store import Store

_CHUNK = 1 << 20
_MODE = 0o644


class Format(StrEnum):
    """What an archive looks like inside."""

    OCI = "oci"
    """An OCI image layout: every blob as it is. For skopeo, podman, buildah, umoci, containerd, Docker from 25 on."""

    DOCKER = "docker"
    """``manifest.json`` with uncompressed layers, as ``docker save`` always wrote. For all that reads such files."""

    @classmethod
    def parse(cls, text: str) -> Format:
        """Read a format; :class:`InvalidSpec` for any other word."""
        try:
            return cls(text)
        except ValueError:
            raise InvalidSpec(
                f"{text!r} is no format of archives", hint=f"use one of {', '.join(cls)}"
            ) from None


@attrs.frozen
class Member:
    """A file of the archive: its name and its bytes, which are opened when it is its turn."""

    name: str
    size: int
    content: Iterable[bytes] = attrs.field(repr=False)

    @classmethod
    def of(cls, name: str, content: bytes) -> Member:
        """A small file."""
        return cls(name, len(content), (content,))


def write_archive(
    store: Store, images: Iterable[tuple[Found, tuple[Reference, ...]]], out: BinaryIO, format_: Format
) -> None:
    """Write *images*, each with the names that it shall have, to *out*, which is not closed."""
    members = _oci(store, list(images)) if format_ is Format.OCI else _docker(store, list(images))
    out.writelines(encode(map(_entry, members)))


def _entry(member: Member) -> tuple[Entry, Iterable[bytes]]:
    return Entry(member.name.encode(), Kind.FILE, mode=_MODE, size=member.size), member.content


# --- OCI ------------------------------------------------------------------------------------------------


def _oci(store: Store, images: list[tuple[Found, tuple[Reference, ...]]]) -> Iterator[Member]:
    yield Member.of(LAYOUT_FILE, ImageLayout().encode())
    yield Member.of(INDEX_FILE, Index(tuple(_lines(images))).encode())
    blobs = {
        blob.digest: blob  # images share them
        for found, _ in images
        for blob in (found.descriptor, found.manifest.config, *found.manifest.layers)
    }
    for blob in blobs.values():
        yield Member(blob_path(blob.digest), blob.size, _blob(store, blob))


def _lines(images: list[tuple[Found, tuple[Reference, ...]]]) -> Iterator[Descriptor]:
    for found, references in images:
        platform = found.descriptor.platform or found.config.platform
        plain = attrs.evolve(found.descriptor, platform=platform, data=None)
        if not references:
            yield plain
        for reference in references:
            annotations = {REF_NAME: str(reference), FULL_NAME: str(reference)}
            yield attrs.evolve(plain, annotations=annotations)  # type: ignore[arg-type] # converted


def _blob(store: Store, blob: Descriptor) -> Iterator[bytes]:
    hasher = blob.digest.hasher()
    with store.blobs.open(blob.digest) as file:
        while chunk := file.read(_CHUNK):
            go_on()
            hasher.update(chunk)
            yield chunk
    blob.digest.check_hex(hasher.hexdigest())


# --- Docker ---------------------------------------------------------------------------------------------


def _docker(store: Store, images: list[tuple[Found, tuple[Reference, ...]]]) -> Iterator[Member]:
    listed = []
    for layer in {layer.diff_id: layer for found, _ in images for layer in found.layers}.values():
        yield from _uncompressed(store, layer)
    for config in {found.manifest.config.digest: None for found, _ in images}:
        yield Member.of(_config_name(config), store.blobs.read(config))
    for found, references in images:
        listed.append(
            {
                "Config": _config_name(found.manifest.config.digest),
                # Docker's name of an image has a tag and no digest.
                "RepoTags": [f"{one.familiar_name}:{one.tag}" for one in references if one.tag],
                "Layers": [_layer_name(layer) for layer in found.layers],
            }
        )
    yield Member.of(MANIFEST_FILE, json.dumps(listed, separators=(",", ":")).encode())


def _config_name(digest: Digest) -> str:
    return f"{digest.hex}.json"


def _layer_name(layer: Layer) -> str:
    return f"{layer.diff_id.hex}.tar"


def _uncompressed(store: Store, layer: Layer) -> Iterator[Member]:
    """The layer's tar, whose length must be known first: in a file without a name for that time."""
    with tempfile.TemporaryFile(dir=store.folder.partial) as spool:
        with store.blobs.open(layer.descriptor.digest) as blob, LayerBytes(blob) as tar:
            for chunk in tar:
                spool.write(chunk)
        if tar.diff_id != str(layer.diff_id):
            raise DigestMismatch(
                f"the layer's content has the digest {tar.diff_id}, and its image says {layer.diff_id}",
                expected=str(layer.diff_id),
                found=tar.diff_id,
            )
        size = spool.tell()
        spool.seek(0)
        yield Member(_layer_name(layer), size, iter(lambda: spool.read(_CHUNK), b""))


# --- where it goes --------------------------------------------------------------------------------------


@contextmanager
def open_target(target: str | BinaryIO) -> Iterator[BinaryIO]:
    """A stream to write to. A file appears when it is complete; what was there before stays until then."""
    if not isinstance(target, str):
        yield target
        return
    beside = f"{target}.{os.urandom(4).hex()}.part"
    try:
        with closing(open(beside, "xb")) as file:
            yield file
        os.replace(beside, target)
    except OSError as error:
        if isinstance(error, PycontainError):  # some of ours are its kin
            raise
        raise StoreError(f"{target} cannot be written: {error.strerror}", path=target) from error
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
