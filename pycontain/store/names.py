"""Names: which reference means which manifest. The truth is ``index.json``, where other programs read it too.

An entry points at one manifest, also when it was chosen from an index, because umoci and others cannot follow an index
whose other manifests are not here. The index is named in an annotation, and so is the config, whose digest is the image
ID: so an image is found by either without reading its documents. The name itself is ``org.opencontainers.image.ref.name``
with the full text of the reference: ``skopeo inspect oci:STORE:docker.io/library/alpine:latest``.

A thousand entries are 0.5 MB of JSON that parse in 2 ms, so there is no second index that could disagree. What others
wrote into the file is kept.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from pycontain.errors import InvalidImage, InvalidReference, StoreCorrupt
from pycontain.oci.codec import decode, encode
from pycontain.oci.config import ImageConfig
from pycontain.oci.descriptor import DESCRIPTOR, Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.layout import INDEX_FILE, REF_NAME
from pycontain.oci.manifest import Manifest, parse_document
from pycontain.oci.media_types import CONFIG, DOCKER_CONFIG
from pycontain.oci.reference import Reference
from pycontain.store.blobs import BlobMissing
from pycontain.store.files import read_file, replace_file, storing
from pycontain.store.folder import CONTENT, NAMES
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from pycontain.store.blobs import Blobs
    from pycontain.store.folder import Folder

_Line: TypeAlias = dict[str, Any]
_Lines: TypeAlias = list[_Line]

#: Our annotations of an entry: the index that the manifest was chosen from, as a descriptor, and the image ID.
INDEX_ANNOTATION: Final = "pycontain.index"
ID_ANNOTATION: Final = "pycontain.image-id"

_OURS = (REF_NAME, INDEX_ANNOTATION, ID_ANNOTATION)
_CONFIGS = (CONFIG, DOCKER_CONFIG)


@attrs.frozen
class Entry:
    """One line of ``index.json``; *name* is empty when it has none.

    *descriptor* points at a manifest when we wrote the line, and may point at an index or anything else when another
    program did.
    """

    name: str
    descriptor: Descriptor
    index: Descriptor | None = None
    image_id: Digest | None = None

    @property
    def reference(self) -> Reference | None:
        """The name, when it is the full text of a reference."""
        try:
            reference = Reference.parse(self.name)
        except InvalidReference:
            return None
        return reference if str(reference) == self.name else None


def _encode(entry: Entry) -> _Line:
    annotations = {**entry.descriptor.annotations, REF_NAME: entry.name}
    if entry.index:
        annotations[INDEX_ANNOTATION] = encode(DESCRIPTOR, entry.index).decode()
    if entry.image_id:
        annotations[ID_ANNOTATION] = str(entry.image_id)
    written = attrs.evolve(entry.descriptor, annotations=annotations, data=None)  # type: ignore[arg-type] # converted
    line: _Line = json.loads(encode(DESCRIPTOR, written))
    return line


def _decode(line: _Line) -> Entry:
    descriptor = decode(DESCRIPTOR, json.dumps(line).encode(), INDEX_FILE)
    annotations = dict(descriptor.annotations)
    name, index, image_id = (annotations.pop(key, "") for key in _OURS)
    return Entry(
        name,
        attrs.evolve(descriptor, annotations=annotations),  # type: ignore[arg-type] # converted
        decode(DESCRIPTOR, index.encode(), INDEX_ANNOTATION) if index else None,
        Digest.parse(image_id) if image_id else None,
    )


@attrs.frozen
class _Listing:
    """``index.json`` as it was at one moment."""

    content: bytes
    document: _Line
    by_name: dict[str, _Line]

    @property
    def lines(self) -> _Lines:
        found: _Lines = self.document["manifests"]
        return found


class Names:
    """The names of the store in *folder*. Reading takes no lock and sees one moment."""

    def __init__(self, folder: Folder, blobs: Blobs) -> None:
        self._folder = folder
        self._blobs = blobs
        self._seen: _Listing | None = None

    def get(self, reference: Reference) -> Entry | None:
        """What *reference* means.

        With a digest it may be stored under any name of its repository; the digest is that of the manifest or of the index.
        """
        listing = self._read()
        if line := listing.by_name.get(str(reference)):
            return self._decoded(line)
        if reference.digest is None:
            return None
        wanted, repository = str(reference.digest), (f"{reference.name}:", f"{reference.name}@")
        for name, line in listing.by_name.items():
            if name.startswith(repository):
                index = line["annotations"].get(INDEX_ANNOTATION, "")
                if line.get("digest") == wanted or f'"{wanted}"' in index:
                    return self._decoded(line)
        return None

    def find_id(self, prefix: str) -> tuple[Entry, ...]:
        """The entries whose image ID begins with the hex digits *prefix*; those that pycontain wrote."""
        wanted = f"sha256:{prefix}"
        lines = self._read().by_name.values()
        return tuple(
            self._decoded(line)
            for line in lines
            if line["annotations"].get(ID_ANNOTATION, "").startswith(wanted)
        )

    def list(self) -> tuple[Entry, ...]:
        """Every entry, also those without a name."""
        return tuple(map(self._decoded, self._read().lines))

    def set(self, reference: Reference, descriptor: Descriptor, *, index: Descriptor | None = None) -> Entry:
        """Let *reference* mean the manifest of *descriptor*, which was chosen from *index*, from now on.

        :class:`BlobMissing` unless the manifest, its config, its layers and the index are all stored: no name leads to
        half an image.
        """
        with storing(self._folder.path), Lock.take(self._folder.lock(CONTENT), shared=True):
            entry = self._described(Entry(str(reference), descriptor, index))
            self._edit(lambda lines: [*_without({entry.name}, lines), _encode(entry)])
        return entry

    def remove(self, references: Iterable[Reference | str]) -> None:
        """Let these mean nothing any more; nothing to do when they do not. The blobs stay until they are collected."""
        names = set(map(str, references))
        with storing(self._folder.path):
            self._edit(lambda lines: _without(names, lines))

    def _described(self, entry: Entry) -> Entry:
        if entry.index:
            self._require(entry.index)
        document = parse_document(self._blobs.read(entry.descriptor.digest), entry.descriptor.media_type)
        if not isinstance(document, Manifest):
            return entry
        for needed in (document.config, *document.layers):
            self._require(needed)
        if document.config.media_type not in _CONFIGS:  # an artifact is for no platform
            return entry
        config = ImageConfig.parse(self._blobs.read(document.config.digest))
        return attrs.evolve(
            entry,
            descriptor=attrs.evolve(entry.descriptor, platform=entry.descriptor.platform or config.platform),
            image_id=document.config.digest,
        )

    def _require(self, descriptor: Descriptor) -> None:
        if not self._blobs.has(descriptor.digest):
            raise BlobMissing(descriptor.digest, self._folder.path)

    def _edit(self, change: Callable[[_Lines], _Lines]) -> None:
        with Lock.take(self._folder.lock(NAMES)):
            document = self._read().document
            lines = change(document["manifests"])
            if lines != document["manifests"]:
                content = json.dumps(
                    {**document, "manifests": lines},
                    ensure_ascii=False,
                    sort_keys=True,
                    separators=(",", ":"),
                )
                replace_file(self._folder.index, content.encode(), f"{self._folder.own}/{INDEX_FILE}.new")

    def _read(self) -> _Listing:
        with storing(self._folder.path):
            content = read_file(self._folder.index)
        if self._seen is None or self._seen.content != content:
            self._seen = self._parse(content)
        return self._seen

    def _parse(self, content: bytes) -> _Listing:
        try:
            document = json.loads(content)
            by_name = {name: line for line in document["manifests"] if (name := _name_of(line))}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unreadable(error) from error
        return _Listing(content, document, by_name)

    def _decoded(self, line: _Line) -> Entry:
        try:
            return _decode(line)
        except InvalidImage as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._folder.index} is no index of images: {error}",
            path=self._folder.path,
            hint="move it away; the images can be pulled again",
        )


def _without(names: Container[str], lines: _Lines) -> _Lines:
    return [line for line in lines if _name_of(line) not in names]


def _name_of(line: _Line) -> str:
    name: str = (line.get("annotations") or {}).get(REF_NAME, "")
    return name
