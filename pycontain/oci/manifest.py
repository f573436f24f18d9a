"""Manifests and indexes, of OCI and of Docker schema 2 (image-spec, manifest.md and image-index.md).

The two formats differ only in their media types, so one class reads both and keeps the name it found.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.codec import (
    EMPTY,
    MEDIA_TYPE,
    SCHEMA_VERSION,
    TEXT_MAP,
    FrozenMap,
    Json,
    array_of,
    encode,
    frozen,
    object_of,
    optional,
    parse_json,
    required,
)
from pycontain.oci.descriptor import DESCRIPTOR, Descriptor
from pycontain.oci.media_types import INDEX, INDEXES, MANIFEST, MANIFESTS, SCHEMA_1


@attrs.frozen
class Manifest:
    """One image: its config, and its layers from the lowest to the topmost."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str = MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: FrozenMap[str] = attrs.field(default=EMPTY, converter=frozen)
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)

    def encode(self) -> bytes:
        """The manifest as canonical JSON."""
        return encode(_MANIFEST, self)


@attrs.frozen
class Index:
    """Several manifests under one digest, usually one for each platform."""

    manifests: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str = INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: FrozenMap[str] = attrs.field(default=EMPTY, converter=frozen)
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)

    def encode(self) -> bytes:
        """The index as canonical JSON."""
        return encode(_INDEX, self)


Document: TypeAlias = Manifest | Index

_SHARED_MEMBERS: Final = {
    "schema_version": required("schemaVersion", SCHEMA_VERSION),
    "media_type": required("mediaType", MEDIA_TYPE),
    "artifact_type": optional("artifactType", MEDIA_TYPE),
    "subject": optional("subject", DESCRIPTOR),
    "annotations": optional("annotations", TEXT_MAP),
}
_MANIFEST: Final = object_of(
    Manifest,
    config=required("config", DESCRIPTOR),
    layers=required("layers", array_of(DESCRIPTOR)),
    **_SHARED_MEMBERS,
)
_INDEX: Final = object_of(Index, manifests=required("manifests", array_of(DESCRIPTOR)), **_SHARED_MEMBERS)

# What servers say that know nothing about the bytes.
_SAYS_NOTHING = {"", "application/json", "application/octet-stream", "text/plain"}


def parse_document(content: bytes, media_type: str | None = None) -> Document:
    """Read a manifest or an index, whichever it is.

    *media_type* is what others say about the bytes: a descriptor, or a registry's Content-Type. When they, the
    document's own ``mediaType`` and its members contradict each other, the document is refused, because another
    reader might take it for something else (CVE-2021-41190). Docker's name for a format and OCI's are no
    contradiction: the document's own counts.
    """
    said = (media_type or "").partition(";")[0].strip()
    said = "" if said in _SAYS_NOTHING else said
    members = parse_json(content, "manifest")
    if not isinstance(members, FrozenMap):
        raise InvalidImage("the manifest is not a JSON object")
    own = members.get("mediaType") or said
    if members.get("schemaVersion") == 1 or "fsLayers" in members or {own, said} & SCHEMA_1:
        raise InvalidImage(
            "the image has a Docker manifest of schema 1, a retired format that pycontain does not read",
            hint="convert it: skopeo copy --format oci docker://IMAGE docker://NEW-IMAGE",
        )
    if "manifests" in members:
        if "config" in members or "layers" in members:
            raise InvalidImage("the document has the members of an index and those of a manifest")
        _check_kind("an index", INDEXES, own, said)
        return _INDEX.read(FrozenMap({**members, "mediaType": own or INDEX}), "index")
    _check_kind("a manifest", MANIFESTS, own, said)
    return _MANIFEST.read(FrozenMap({**members, "mediaType": own or MANIFEST}), "manifest")


def _check_kind(kind: str, names: frozenset[str], own: Json, said: str) -> None:
    for name in filter(None, (own, said)):
        if name not in names:
            raise InvalidImage(f"the document has the members of {kind} and the media type {name!r}")
