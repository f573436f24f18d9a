"""A process that pulls every image of a list into a store, in any order, as a registry client would.

Run by ``test_store_soak.py``, often at once and killed at any moment: ``store_worker.py STORE REGISTRY SEED``. The
registry is another store, which nobody changes.
"""

import random
import sys

from stored_images import ref

from pycontain.oci.chain import chain_ids_of
from pycontain.oci.config import ImageConfig
from pycontain.store.snapshots import Kind
from pycontain.store.store import Store

PIECE = 3000


def fetch(registry, store, descriptor):
    with store.blobs.partial(descriptor) as incoming:
        if incoming.complete:
            return
        with registry.blobs.open(descriptor.digest) as source:
            source.seek(incoming.offset)
            while piece := source.read(PIECE):
                incoming.write(piece)
        incoming.commit()


def unpack(store, config):
    snapshots, parent = store.snapshots(Kind.OVERLAY_USER), None
    for chain_id in chain_ids_of(config.diff_ids):
        if not snapshots.find(chain_id):
            with snapshots.prepare(chain_id, parent) as active:
                snapshots.commit(active, 1000)
        parent = chain_id


def pull(registry, store, entry):
    image = registry.find(entry.reference)
    config = registry.read_config(image.manifest)
    blobs = [*image.manifest.layers, image.manifest.config, image.descriptor]
    with store.lease() as lease:
        lease.protect(*(blob.digest for blob in blobs), *chain_ids_of(config.diff_ids))
        for blob in blobs:
            fetch(registry, store, blob)
        unpack(store, ImageConfig.parse(store.blobs.read(image.manifest.config.digest)))
        store.names.set(entry.reference, image.descriptor)
        store.touch(image.descriptor.digest)


def main():
    path, registry_path, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    registry, store = Store(registry_path), Store(path)
    entries = list(registry.names.list())
    chance.shuffle(entries)
    for entry in entries:
        if chance.random() < 0.2 and entry.reference != ref("fixed:1"):
            store.names.remove([entry.reference])
        if chance.random() < 0.2:
            store.gc()
        pull(registry, store, entry)


if __name__ == "__main__":
    main()
