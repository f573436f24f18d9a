"""A descriptor points at content: what it is, its digest and its size (image-spec, descriptor.md)."""

from __future__ import annotations

from typing import Final, Self

import attrs

from pycontain.errors import DigestMismatch
from pycontain.oci.codec import (
    BASE64,
    DIGEST,
    EMPTY,
    MEDIA_TYPE,
    SIZE,
    TEXT_MAP,
    FrozenMap,
    Json,
    array_of,
    frozen,
    object_of,
    optional,
    required,
    text_like,
)
from pycontain.oci.digest import Digest
from pycontain.oci.platform import PLATFORM, Platform


@attrs.frozen
class Descriptor:
    """The way from one document or layout to a blob. ``data``, when there, is the blob itself, and verified."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: FrozenMap[str] = attrs.field(default=EMPTY, converter=frozen)
    data: bytes | None = attrs.field(default=None, repr=False)
    artifact_type: str = ""
    platform: Platform | None = None
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)

    def __attrs_post_init__(self) -> None:
        if self.data is not None:
            self.check(self.data)

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Self:
        """Describe *content*."""
        return cls(media_type, Digest.of(content), len(content))

    def check(self, content: bytes) -> None:
        """Raise :class:`DigestMismatch` unless *content* has this size and this digest."""
        if len(content) != self.size:
            raise DigestMismatch(
                f"{self.digest} has {len(content)} bytes where its descriptor says {self.size}",
                expected=str(self.digest),
            )
        self.digest.check(content)


# Any URI is allowed here; which ones are fetched is the registry client's choice.
_URL = text_like(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+", "a URL")

DESCRIPTOR: Final = object_of(
    Descriptor,
    media_type=required("mediaType", MEDIA_TYPE),
    digest=required("digest", DIGEST),
    size=required("size", SIZE),
    urls=optional("urls", array_of(_URL)),
    annotations=optional("annotations", TEXT_MAP),
    data=optional("data", BASE64),
    artifact_type=optional("artifactType", MEDIA_TYPE),
    platform=optional("platform", PLATFORM),
)
