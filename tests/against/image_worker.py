"""A process that pulls and unpacks every image of a list, in any order; ``test_images_soak.py`` runs and kills it.

``image_worker.py SEED REFERENCE...``. Now and then it takes a name away, or collects.
"""

import random
import sys

from pycontain.image import Image, Store
from pycontain.oci.reference import Reference


def main():
    seed, *references = sys.argv[1:]
    chance = random.Random(int(seed))
    chance.shuffle(references)
    store = Store()
    for reference in references:
        Image.pull(reference, policy=chance.choice(["always", "missing"]))
        if chance.random() < 0.15:
            store.gc()
        if chance.random() < 0.15:
            store.names.remove([Reference.parse(reference)])


if __name__ == "__main__":
    main()
