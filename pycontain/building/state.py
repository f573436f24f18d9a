"""What a stage has become so far, as a value: layers, and the config with its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pycontain.image.transfer import Found
from pycontain.oci.chain import Layer, chain_ids_of, layers_of
from pycontain.oci.config import ExecutionParameters, History, ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.manifest import Manifest
from pycontain.oci.media_types import CONFIG, MANIFEST, OCI_TWINS
from pycontain.sandbox.spec import DEFAULT_PATH

if TYPE_CHECKING:
    from pycontain.oci.digest import Digest
    from pycontain.oci.platform import Platform
    from pycontain.store.builds import Built


@attrs.frozen
class State:
    """An image in the making."""

    config: ImageConfig
    layers: tuple[Layer, ...] = ()

    @classmethod
    def empty(cls, platform: Platform) -> State:
        """``FROM scratch``."""
        config = ImageConfig(
            platform.architecture,
            platform.os,
            RootFS(()),
            ExecutionParameters(env=(f"PATH={DEFAULT_PATH}",), working_dir="/"),
            variant=platform.variant,
        )
        return cls(config)

    @classmethod
    def on(cls, found: Found) -> State:
        """``FROM`` this image. Without a history each of its layers is a step; with one it must go on."""
        layers = tuple(
            attrs.evolve(
                layer,
                descriptor=attrs.evolve(
                    layer.descriptor,
                    media_type=OCI_TWINS.get(layer.descriptor.media_type, layer.descriptor.media_type),
                ),
            )
            for layer in found.layers
        )
        history = found.config.history or tuple(History() for _ in layers)
        return cls(attrs.evolve(found.config, history=history), layers)

    @property
    def said(self) -> ExecutionParameters:
        """How the image is run."""
        return self.config.config

    @property
    def chain_id(self) -> Digest | None:
        """What all its layers are."""
        return self.layers[-1].chain_id if self.layers else None

    def saying(self, **changes: Any) -> State:
        """The same with other parameters."""
        return attrs.evolve(self, config=attrs.evolve(self.config, config=attrs.evolve(self.said, **changes)))

    def noted(self, history: History) -> State:
        """The same with one more step that made no layer."""
        return self._with_history(attrs.evolve(history, empty_layer=True))

    def with_layer(self, built: Built, history: History) -> State:
        """The same with one more layer."""
        (chain_id,) = chain_ids_of((built.diff_id,), self.chain_id)
        layer = Layer(built.descriptor, built.diff_id, chain_id)
        return attrs.evolve(self._with_history(history), layers=(*self.layers, layer))

    def _with_history(self, history: History) -> State:
        config = attrs.evolve(
            self.config,
            history=(*self.config.history, history),
            created=history.created or self.config.created,
        )
        return attrs.evolve(self, config=config)

    def found(self) -> Found:
        """It as an image, whose documents need not be stored."""
        diff_ids = tuple(layer.diff_id for layer in self.layers)
        config = attrs.evolve(self.config, rootfs=attrs.evolve(self.config.rootfs, diff_ids=diff_ids))
        manifest = Manifest(
            Descriptor.of(config.encode(), CONFIG), tuple(layer.descriptor for layer in self.layers)
        )
        descriptor = Descriptor.of(manifest.encode(), MANIFEST)
        return Found(descriptor, manifest, config, layers_of(manifest, config))
