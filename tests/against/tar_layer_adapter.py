"""pycontain's side of run-tar-layers: apply the layers in order to one tree."""

from pycontain.layers.apply import apply


def apply_layers(layer_paths, root):
    for path in layer_paths:
        with open(path, "rb") as stream:
            apply(stream, root)
