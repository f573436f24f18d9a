"""skopeo and umoci read the store as the image layout that it is, and what they write is found."""

import json
import shutil
import subprocess

import pytest
from stored_images import name_image, put_image, put_index, ref

from pycontain.store.store import Store

NAME = "docker.io/library/x:1"


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def image_id(store, text):
    """The one digest that stays: skopeo compresses layers as it copies."""
    return store.find(ref(text)).manifest.config.digest


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    name_image(store, "y:1", "c")
    manifest = put_image(store, "a", "b")
    store.names.set(ref("x:1"), manifest, index=put_index(store, manifest))
    return store


@needs("skopeo")
def test_skopeo_inspects_an_image_by_its_full_name(store):
    described = json.loads(run("skopeo", "inspect", f"oci:{store.path}:{NAME}"))
    assert described["Digest"] == str(store.find(ref("x:1")).descriptor.digest)
    assert len(described["Layers"]) == 2


@needs("skopeo")
def test_skopeo_copies_an_image_out(store, tmp_path):
    """It verifies every digest on the way."""
    run("skopeo", "copy", f"oci:{store.path}:{NAME}", f"oci:{tmp_path}/out:{NAME}")
    assert image_id(Store(tmp_path / "out"), "x:1") == image_id(store, "x:1")


@needs("skopeo")
def test_what_skopeo_copies_in_is_found(store, tmp_path):
    other = Store(tmp_path / "other")
    name_image(other, "z:1", "d")
    run(
        "skopeo", "copy", f"oci:{other.path}:docker.io/library/z:1", f"oci:{store.path}:docker.io/library/z:1"
    )
    assert image_id(store, "z:1") == image_id(other, "z:1")
    assert store.verify().ok
    assert store.gc().blobs == ()


@needs("umoci")
def test_umoci_lists_the_names(store):
    assert set(run("umoci", "list", "--layout", store.path).split()) == {NAME, "docker.io/library/y:1"}


@needs("umoci")
def test_umoci_reads_an_image_that_was_chosen_from_an_index(store):
    assert "LAYER" in run("umoci", "stat", "--image", f"{store.path}:{NAME}")


@needs("umoci")
def test_umoci_unpacks_an_image(store, tmp_path):
    run("umoci", "unpack", "--rootless", "--image", f"{store.path}:{NAME}", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle/rootfs/file").read_text() == "b"


@needs("umoci")
def test_collecting_by_umoci_leaves_the_images(store):
    run("umoci", "gc", "--layout", store.path)
    assert store.find(ref("x:1"))
    assert store.verify().ok
