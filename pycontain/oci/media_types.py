"""The media types that pycontain knows: those of image-spec, and Docker's schema 2 twins of them."""

from __future__ import annotations

from typing import Final, Literal

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"

LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP: Final = LAYER + "+gzip"
LAYER_ZSTD: Final = LAYER + "+zstd"

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD: Final = DOCKER_LAYER + ".zstd"

#: Deprecated: layers that may be fetched only from the ``urls`` of their descriptor, and not be pushed.
NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"

MANIFESTS: Final = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({INDEX, DOCKER_INDEX})
SCHEMA_1: Final = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws")
)

Compression = Literal["none", "gzip", "zstd"]

#: Every layer media type, and how its tar is compressed.
LAYERS: Final[dict[str, Compression]] = {
    **dict.fromkeys((LAYER, NONDISTRIBUTABLE, DOCKER_LAYER, DOCKER_FOREIGN), "none"),
    **dict.fromkeys(
        (LAYER_GZIP, NONDISTRIBUTABLE + "+gzip", DOCKER_LAYER_GZIP, DOCKER_FOREIGN + ".gzip"), "gzip"
    ),
    **dict.fromkeys((LAYER_ZSTD, NONDISTRIBUTABLE + "+zstd", DOCKER_LAYER_ZSTD), "zstd"),
}

#: Docker's name for a thing, and the name that image-spec has for the same bytes.
OCI_TWINS: Final[dict[str, str]] = {
    DOCKER_MANIFEST: MANIFEST,
    DOCKER_INDEX: INDEX,
    DOCKER_CONFIG: CONFIG,
    DOCKER_LAYER: LAYER,
    DOCKER_LAYER_GZIP: LAYER_GZIP,
    DOCKER_LAYER_ZSTD: LAYER_ZSTD,
    DOCKER_FOREIGN: NONDISTRIBUTABLE,
    DOCKER_FOREIGN + ".gzip": NONDISTRIBUTABLE + "+gzip",
}


def is_distributable(media_type: str) -> bool:
    """Whether a registry may hold blobs of this type."""
    return not media_type.startswith((NONDISTRIBUTABLE, DOCKER_FOREIGN))
