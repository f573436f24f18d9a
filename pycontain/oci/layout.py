"""The image layout: names of the files in a folder of images (image-spec, image-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pycontain.oci.codec import EMPTY, FrozenMap, Json, decode, encode, frozen, object_of, required, text_like

if TYPE_CHECKING:
    from pycontain.oci.digest import Digest

LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
BLOBS: Final = "blobs"

#: The annotation of a descriptor in ``index.json`` that holds the image's tag.
REF_NAME: Final = "org.opencontainers.image.ref.name"


@attrs.frozen
class ImageLayout:
    """The content of ``oci-layout``, which marks a folder as an image layout."""

    image_layout_version: str = "1.0.0"
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)

    @staticmethod
    def parse(content: bytes) -> ImageLayout:
        """Read ``oci-layout``; a version other than 1.0.0 is refused, as the specification asks."""
        return decode(_LAYOUT, content, LAYOUT_FILE)

    def encode(self) -> bytes:
        """The document as canonical JSON."""
        return encode(_LAYOUT, self)


_LAYOUT: Final = object_of(
    ImageLayout, image_layout_version=required("imageLayoutVersion", text_like(r"1\.0\.0", "1.0.0"))
)


def blob_path(digest: Digest) -> str:
    """Where the blob of *digest* is, from the layout's folder."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex}"
