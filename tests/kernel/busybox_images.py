"""Images whose only program is a static busybox, in a registry or on disk, and a store of their own for each test."""

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import attrs
import pytest
from layer_tree import Dir, File, Symlink, layer
from trees import TOOLS, busybox_tree

from pycontain.oci import media_types
from pycontain.oci.config import ExecutionParameters, ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.layout import REF_NAME, ImageLayout, blob_path
from pycontain.oci.manifest import Index, Manifest
from pycontain.oci.platform import Platform
from pycontain.testing import temporary_store

sys.path.append(str(Path(__file__).parent.parent / "against"))  # the registry is started there
from registry_server import SOON, TestImage

from pycontain.registry.client import Registry
from pycontain.registry.push import push_image
from pycontain.registry.settings import RegistrySettings

HERE = Platform.parse(os.uname().machine)
SETTINGS = RegistrySettings(retries=SOON)
ROOT = {"uid": 0, "gid": 0}


def root(made):
    """The same entry, owned by root of the image."""
    entry, content = made
    return attrs.evolve(entry, **ROOT), content


def busybox_layer(tmp_path, *more):
    """The lowest layer: busybox with its links, and *more* entries."""
    tree = busybox_tree(tmp_path / f"busybox-{os.urandom(4).hex()}")
    program = (tree / "bin" / "busybox").read_bytes()
    shutil.rmtree(tree)
    links = [Symlink(f"bin/{name}", to="busybox") for name in TOOLS]
    own = [Dir("bin"), File("bin/busybox", program, mode=0o755), *links, Dir("etc"), Dir("tmp", mode=0o1777)]
    return layer(*map(root, own), *more)


def image(*layers, platform=HERE, diff_ids=None, **parameters):
    """An image of these uncompressed layers, which it stores with gzip."""
    packed = [gzip.compress(tar, compresslevel=1, mtime=0) for tar in layers]
    config = ImageConfig(
        platform.architecture,
        platform.os,
        RootFS(tuple(diff_ids or map(Digest.of, layers))),
        ExecutionParameters(**parameters),
        variant=platform.variant,
    ).encode()
    described = tuple(Descriptor.of(blob, media_types.LAYER_GZIP) for blob in packed)
    manifest = Manifest(Descriptor.of(config, media_types.CONFIG), described).encode()
    blobs = {Digest.of(blob): blob for blob in (manifest, config, *packed)}
    return TestImage(Descriptor.of(manifest, media_types.MANIFEST), blobs)


def layers_of(made):
    """The descriptors of an image's layers."""
    return [
        Descriptor(one["mediaType"], Digest.parse(one["digest"]), one["size"])
        for one in json.loads(made.content)["layers"]
    ]


def index_of(images):
    """An index of images by platform; only a text is brought into its normal form."""
    listed = tuple(
        attrs.evolve(made.descriptor, platform=Platform.parse(key) if isinstance(key, str) else key)
        for key, made in images.items()
    )
    content = Index(listed).encode()
    blobs = {Digest.of(content): content}
    for made in images.values():
        blobs |= made.blobs
    return TestImage(Descriptor.of(content, media_types.INDEX), blobs)


def push_test_image(address, name, made):
    """Put an image into the registry at *address* and give its reference."""
    repository, _, tag = name.partition(":")
    with Registry(address, SETTINGS) as registry:
        push_image(registry.repository(repository), made.descriptor, made, tag)
    return f"{address}/{name}"


def write_layout(folder, **images):
    """An OCI layout with these images by tag."""
    lines = []
    for tag, made in images.items():
        for digest, content in made.blobs.items():
            path = Path(folder) / blob_path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        lines.append(attrs.evolve(made.descriptor, annotations={REF_NAME: tag}))
    (Path(folder) / "index.json").write_bytes(Index(tuple(lines)).encode())
    (Path(folder) / "oci-layout").write_bytes(ImageLayout().encode())
    return Path(folder)


def docker_save(path, images):
    """A file as docker save wrote it before it became an OCI layout too: *images* by reference."""
    with tarfile.open(path, "w") as tar:

        def add(name, content):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        listed = []
        for reference, made in images.items():
            config = Digest.parse(json.loads(made.content)["config"]["digest"])
            names = []
            for one in layers_of(made):
                content = gzip.decompress(made.blobs[one.digest])
                names.append(f"{Digest.of(content).hex}/layer.tar")
                add(names[-1], content)
            add(f"{config.hex}.json", made.blobs[config])
            listed.append({"Config": f"{config.hex}.json", "RepoTags": [reference], "Layers": names})
        add("manifest.json", json.dumps(listed).encode())
    return path


@pytest.fixture
def store():
    """The default store of this test."""
    with temporary_store() as made:
        yield made
