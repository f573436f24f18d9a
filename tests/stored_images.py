"""Small true images for tests of the store: a layer is a tar of one file."""

import io
import tarfile

from pycontain.oci.chain import chain_ids_of
from pycontain.oci.config import ImageConfig, RootFS
from pycontain.oci.manifest import Index, Manifest
from pycontain.oci.media_types import CONFIG, INDEX, LAYER, MANIFEST
from pycontain.oci.reference import Reference


def ref(text):
    return Reference.parse(text)


def layer_of(text):
    """The bytes of a layer whose only file holds *text*."""
    file = io.BytesIO()
    content = text.encode()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def put_image(store, *texts, author="", architecture="amd64"):
    """Store an image with a layer for each of *texts*, and describe its manifest."""
    layers = tuple(store.blobs.put(layer_of(text), media_type=LAYER) for text in texts)
    diff_ids = tuple(layer.digest for layer in layers)
    config = ImageConfig(architecture, "linux", RootFS(diff_ids), author=author)
    described = store.blobs.put(config.encode(), media_type=CONFIG)
    return store.blobs.put(Manifest(described, layers).encode(), media_type=MANIFEST)


def put_index(store, *manifests):
    """Store an index of *manifests*, which say their platforms, and describe it."""
    return store.blobs.put(Index(manifests).encode(), media_type=INDEX)


def name_image(store, text, *texts, author=""):
    """Store an image, give it a name, and return its entry."""
    return store.names.set(ref(text), put_image(store, *texts, author=author))


def put_snapshots(store, kind, entry, size=1000):
    """Unpack the image of *entry*, as far as a store can tell, and return its chain IDs."""
    manifest = store.find(entry.reference).manifest
    chain_ids = []
    for chain_id in chain_ids_of(store.read_config(manifest).diff_ids):
        with store.snapshots(kind).prepare(chain_id, chain_ids[-1] if chain_ids else None) as active:
            store.snapshots(kind).commit(active, size)
        chain_ids.append(chain_id)
    return tuple(chain_ids)
