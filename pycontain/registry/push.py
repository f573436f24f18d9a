"""Pushing whole images: every blob in parallel, then the manifests from the leaves up, at last the tag.

What the registry has is not sent. Nothing is visible under the tag before everything below it is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.choice import MAX_DOCUMENTS
from pycontain.oci.manifest import Document, Index, Manifest, parse_document
from pycontain.oci.media_types import is_distributable
from pycontain.registry.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycontain.oci.descriptor import Descriptor
    from pycontain.registry.client import Repository, Version

PARALLEL: Final = 4


class ImageSource(Protocol):
    """Where the bytes of an image come from. Several threads may ask at once."""

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or an index."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob, seekable. The caller closes it."""


@attrs.frozen
class _Document:
    descriptor: Descriptor
    content: bytes = attrs.field(repr=False)
    value: Document


def push_image(
    repository: Repository,
    descriptor: Descriptor,
    source: ImageSource,
    version: Version | None = None,
    *,
    mount_from: Iterable[str] = (),
    chunk_size: int | None = None,
    parallel: int = PARALLEL,
) -> None:
    """Store the image *descriptor*, a manifest or an index with all that it lists, under a tag or by digest alone.

    *mount_from* are repositories of the same registry that may have some of its blobs. Safe to repeat. On failure
    the tag is what it was; blobs that went through stay, and the next try skips them.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - most programs only pull

    documents = tuple(_documents_of(descriptor, source, MAX_DOCUMENTS))
    mounts = tuple(mount_from)

    def push(blob: Descriptor) -> None:
        upload = Upload(repository.registry.origin, repository.name, blob, chunk_size)
        if upload.is_stored() or any(repository.mount_blob(blob.digest, other) for other in mounts):
            return
        with source.open(blob) as file:
            upload.perform(file)

    threads = ThreadPoolExecutor(parallel, "pycontain-push")
    try:
        for pushed in [threads.submit(push, blob) for blob in _blobs_of(documents)]:
            pushed.result()
    finally:
        threads.shutdown(cancel_futures=True)
    for document in documents:
        top = document.descriptor is descriptor
        repository.push_manifest(document.descriptor, document.content, version if top else None)


def _documents_of(descriptor: Descriptor, source: ImageSource, room: int) -> Iterator[_Document]:
    """*descriptor* and all documents below it, each after those that it lists."""
    if not room:
        raise InvalidImage(f"the image holds more than {MAX_DOCUMENTS - 1} indexes of indexes")
    content = source.read(descriptor)
    document = parse_document(content, descriptor.media_type)
    if isinstance(document, Index):
        for listed in document.manifests:
            yield from _documents_of(listed, source, room - 1)
    yield _Document(descriptor, content, document)


def _blobs_of(documents: Iterable[_Document]) -> tuple[Descriptor, ...]:
    """Each blob once, the largest first, so that none is left over for the end."""
    manifests = [document.value for document in documents if isinstance(document.value, Manifest)]
    blobs = {
        blob.digest: blob
        for manifest in manifests
        for blob in (manifest.config, *manifest.layers)
        if is_distributable(blob.media_type)
    }
    return tuple(sorted(blobs.values(), key=lambda blob: -blob.size))
