"""A chain ID names the result of applying layers in order (image-spec, config.md, "Layer ChainID")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.digest import Digest
from pycontain.oci.media_types import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycontain.oci.config import ImageConfig
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.manifest import Manifest


@attrs.frozen
class Layer:
    """One layer of an image by all its names: the blob, the tar in it, and the tree it makes with those below."""

    descriptor: Descriptor
    diff_id: Digest
    chain_id: Digest


def chain_ids_of(diff_ids: Iterable[Digest], parent: Digest | None = None) -> tuple[Digest, ...]:
    """The chain ID after each of *diff_ids*, on top of the chain *parent*.

    So ``chain_ids_of(a + b)`` is ``chain_ids_of(a)`` and then ``chain_ids_of(b, parent=the last of those)``.
    """
    chain = []
    for diff_id in diff_ids:
        parent = Digest.of(f"{parent} {diff_id}".encode()) if parent else diff_id
        chain.append(parent)
    return tuple(chain)


def layers_of(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    """The layers of an image, the lowest first, when its two documents agree about them."""
    for descriptor in manifest.layers:
        if descriptor.media_type not in LAYERS:
            raise InvalidImage(
                f"{descriptor.digest} is no layer that can be applied: it is {descriptor.media_type}"
            )
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidImage(
            f"the manifest has {len(manifest.layers)} layers and the config {len(config.diff_ids)}"
        )
    return tuple(map(Layer, manifest.layers, config.diff_ids, chain_ids_of(config.diff_ids)))
