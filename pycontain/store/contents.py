"""What an image needs: every blob and every layer that its entry leads to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.chain import chain_ids_of
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Index, parse_document
from pycontain.oci.media_types import CONFIG, DOCKER_CONFIG, INDEXES, MANIFESTS, SCHEMA_1

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.oci.descriptor import Descriptor
    from pycontain.store.blobs import Blobs
    from pycontain.store.names import Entry

_DOCUMENTS = INDEXES | MANIFESTS
_CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})
_STRANGE = SCHEMA_1 | {"application/vnd.oci.artifact.manifest.v1+json"}
_MENTION = re.compile(r"sha(?:256:[a-f0-9]{64}|512:[a-f0-9]{128})")


@attrs.frozen
class Needs:
    """What can be reached from something: blobs, stored or not, by descriptor, and chain IDs of layers."""

    blobs: frozenset[Digest]
    chain_ids: frozenset[Digest]


@attrs.define(eq=False)
class Contents:
    """Reads the documents in *blobs*, each once: images share them."""

    blobs: Blobs
    _links: dict[Digest, tuple[Descriptor | Digest, ...]] = attrs.field(factory=dict)
    _chains: dict[Digest, tuple[Digest, ...]] = attrs.field(factory=dict)

    def needs_of(self, entry: Entry) -> Needs:
        """Everything that *entry* leads to. :class:`StoreCorrupt` when a document on the way is damaged."""
        blobs: set[Digest] = set()
        chain_ids: set[Digest] = set()
        for descriptor in self.walk(entry):
            blobs.add(digest_of(descriptor))
            chain_ids.update(self._chain_of(descriptor))
        return Needs(frozenset(blobs), frozenset(chain_ids))

    def walk(self, entry: Entry) -> Iterator[Descriptor | Digest]:
        """What *entry* leads to, itself first, each once; of a document in a strange format only digests are known."""
        waiting: list[Descriptor | Digest] = [entry.descriptor]
        if entry.index:
            waiting.append(entry.index)
        seen = set()
        while waiting:
            found = waiting.pop()
            digest = digest_of(found)
            if digest not in seen:
                seen.add(digest)
                yield found
                waiting.extend(self.links_of(found))

    def links_of(self, found: Descriptor | Digest) -> tuple[Descriptor | Digest, ...]:
        """What the document *found* points at; nothing when it is no document or not here."""
        if isinstance(found, Digest) or found.media_type not in _DOCUMENTS | _STRANGE:
            return ()
        if found.digest not in self._links:
            stored = self.blobs.has(found.digest)
            self._links[found.digest] = _links_in(self.blobs.read(found.digest), found) if stored else ()
        return self._links[found.digest]

    def _chain_of(self, found: Descriptor | Digest) -> tuple[Digest, ...]:
        if isinstance(found, Digest) or found.media_type not in _CONFIGS:
            return ()
        if found.digest not in self._chains:
            stored = self.blobs.has(found.digest)
            self._chains[found.digest] = _chain_in(self.blobs.read(found.digest)) if stored else ()
        return self._chains[found.digest]


def _links_in(content: bytes, descriptor: Descriptor) -> tuple[Descriptor | Digest, ...]:
    try:
        document = parse_document(content, descriptor.media_type)
    except InvalidImage:
        # Another program put it here and may understand it: what it mentions is not to be lost.
        return tuple(map(Digest.parse, _MENTION.findall(content.decode(errors="replace"))))
    own = document.manifests if isinstance(document, Index) else (document.config, *document.layers)
    return (*own, document.subject) if document.subject else own


def _chain_in(content: bytes) -> tuple[Digest, ...]:
    try:
        config: Any = json.loads(content)
        return chain_ids_of(map(Digest.parse, config["rootfs"]["diff_ids"]))
    except (ValueError, TypeError, KeyError, AttributeError):  # what has no layers has no chain
        return ()


def digest_of(found: Descriptor | Digest) -> Digest:
    """Under which digest *found* is stored."""
    return found if isinstance(found, Digest) else found.digest
