"""Choosing: from an index, maybe of further indexes, to the one manifest for a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pycontain.errors import InvalidImage, NoMatchingPlatform
from pycontain.oci.codec import MAX_DOCUMENT_BYTES
from pycontain.oci.manifest import Manifest, parse_document
from pycontain.oci.media_types import INDEXES, MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.manifest import Index
    from pycontain.oci.platform import Platform

#: How many documents are read on the way to a manifest. Two suffice for every image seen so far.
MAX_DOCUMENTS: Final = 4

_READABLE = MANIFESTS | INDEXES

# What buildkit gives to attestations, so that nobody runs them.
_NOWHERE = "unknown/unknown"


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The manifest, or further index, that fits *wanted* best; of equals the first, as image-spec asks.

    An index that says nothing of platforms and has one entry gives that entry. Otherwise
    :class:`NoMatchingPlatform` lists the platforms there are.
    """
    entries = [entry for entry in index.manifests if entry.media_type in _READABLE]
    entries = [entry for entry in entries if str(entry.platform) != _NOWHERE]
    for platform in wanted.runnable():
        for entry in entries:
            if entry.platform and _satisfies(entry.platform.normal(), platform):
                return entry
    available = tuple(dict.fromkeys(str(entry.platform) for entry in entries if entry.platform))
    if not available and len(entries) == 1:
        return entries[0]
    raise _no_match(wanted, available)


def _satisfies(offered: Platform, wanted: Platform) -> bool:
    return (
        (offered.os, offered.architecture, offered.variant)
        == (wanted.os, wanted.architecture, wanted.variant)
        and wanted.os_version in ("", offered.os_version)
        and set(offered.os_features) <= set(wanted.os_features)
    )


def _no_match(wanted: Platform, available: tuple[str, ...]) -> NoMatchingPlatform:
    choice = f"there is {', '.join(available)}" if available else "its index names no platform"
    return NoMatchingPlatform(
        f"the image does not exist for {wanted}: {choice}", wanted=str(wanted), available=available
    )


def resolve(
    descriptor: Descriptor, wanted: Platform, read: Callable[[Descriptor], bytes]
) -> tuple[Descriptor, Manifest]:
    """Follow *descriptor* through indexes to the manifest for *wanted*, and give both.

    *read* fetches the bytes of a descriptor. They are verified here, so no index can contain itself; a long chain
    of indexes ends at :data:`MAX_DOCUMENTS`, and nothing is read that claims to be larger than a document may be.
    """
    for _ in range(MAX_DOCUMENTS):
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise InvalidImage(
                f"the manifest {descriptor.digest} has {descriptor.size} bytes, more than {MAX_DOCUMENT_BYTES}"
            )
        content = read(descriptor)
        descriptor.check(content)
        document = parse_document(content, descriptor.media_type)
        if isinstance(document, Manifest):
            return descriptor, document
        descriptor = choose(document, wanted)
    raise InvalidImage(f"the image hides behind more than {MAX_DOCUMENTS - 1} indexes of indexes")
