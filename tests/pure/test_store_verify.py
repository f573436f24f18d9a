"""Verifying: a flipped byte is found, and repaired or taken away; what is missing is named."""

import io
from pathlib import Path

import attrs
import pytest
from stored_images import layer_of, name_image, put_image, put_index, ref

from pycontain.errors import RegistryError
from pycontain.oci.digest import Digest
from pycontain.oci.platform import Platform
from pycontain.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def image(store):
    """``x:1``, of two layers."""
    name_image(store, "x:1", "a", "b")
    return store.find(ref("x:1"))


def flip(store, digest, at=-1):
    """Flip one bit of a stored byte."""
    path = Path(store.blobs.path(digest))
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def descriptors_of(image):
    return {
        "manifest": image.descriptor,
        "config": image.manifest.config,
        "layer": image.manifest.layers[1],
    }


PARTS = ["manifest", "config", "layer"]


def test_a_sound_store_is_ok(store, image):
    verified = store.verify()
    assert verified.ok
    assert verified.blobs == 4
    assert verified.bytes == store.usage().blobs


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_byte_is_found_and_taken_away(store, image, part):
    wrong = descriptors_of(image)[part]
    flip(store, wrong.digest)
    verified = store.verify()
    assert not verified.ok
    assert [damage.descriptor.digest for damage in verified.removed] == [wrong.digest]
    assert verified.removed[0].images == (str(ref("x:1")),)
    assert "have changed" in verified.removed[0].problem
    assert not store.blobs.has(wrong.digest)
    assert store.find(ref("x:1")) is None


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("wrap", [bytes, io.BytesIO])
def test_a_flipped_byte_is_repaired(store, image, part, wrap):
    wrong = descriptors_of(image)[part]
    sound = store.blobs.read(wrong.digest)
    flip(store, wrong.digest)
    asked = []

    def repair(damage):
        asked.append(damage.descriptor.digest)
        return wrap(sound)

    verified = store.verify(repair)
    assert verified.ok
    assert asked == [wrong.digest]
    assert [damage.descriptor.digest for damage in verified.repaired] == [wrong.digest]
    assert store.find(ref("x:1")) == image
    assert store.blobs.read(wrong.digest) == sound


def test_what_a_repaired_document_leads_to_is_repaired_too(store, image):
    wrong = [image.descriptor, image.manifest.layers[0]]
    sound = {descriptor.digest: store.blobs.read(descriptor.digest) for descriptor in wrong}
    for descriptor in wrong:
        flip(store, descriptor.digest)
    verified = store.verify(lambda damage: sound[damage.descriptor.digest])
    assert [damage.descriptor.digest for damage in verified.repaired] == list(sound)


def test_a_blob_cut_short_is_found(store, image):
    path = Path(store.blobs.path(image.manifest.layers[0].digest))
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.verify().ok


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_blob_is_found_and_repaired(store, image, part):
    missing = descriptors_of(image)[part]
    sound = store.blobs.read(missing.digest)
    store.blobs.remove(missing.digest)
    assert store.verify().removed[0].problem == "it is missing"
    assert store.verify(lambda _: sound).ok
    assert store.find(ref("x:1")) == image


def test_a_repair_that_brings_wrong_bytes_is_refused(store, image):
    wrong = image.manifest.layers[0]
    flip(store, wrong.digest)
    verified = store.verify(lambda _: b"something else")
    assert not verified.ok
    assert "repairing failed" in verified.removed[0].problem
    assert not store.blobs.has(wrong.digest)


def test_a_repair_that_cannot_reach_the_registry_is_reported(store, image):
    def repair(_damage):
        raise RegistryError("nobody answers")

    flip(store, image.manifest.layers[0].digest)
    assert store.verify(repair).removed[0].problem.endswith("repairing failed: nobody answers")


def test_a_damaged_blob_that_no_image_needs_is_just_removed(store, image):
    stray = store.blobs.put(b"stray")
    flip(store, stray.digest)
    verified = store.verify(lambda _: pytest.fail("nobody needs it"))
    assert verified.ok
    assert [damage.descriptor.digest for damage in verified.removed] == [stray.digest]


def test_a_damage_names_every_image_that_needs_it(store, image):
    name_image(store, "y:1", "a")
    flip(store, Digest.of(layer_of("a")))
    assert store.verify().removed[0].images == (str(ref("x:1")), str(ref("y:1")))


def test_a_damaged_blob_of_another_platform_is_damage_too(store):
    intel, arm = put_image(store, "a"), put_image(store, "b", architecture="arm64")
    index = put_index(store, intel, attrs.evolve(arm, platform=Platform("linux", "arm64")))
    store.names.set(ref("x:1"), intel, index=index)
    flip(store, Digest.of(layer_of("b")))
    assert not store.verify().ok


def test_a_platform_that_was_not_pulled_is_no_damage(store):
    intel, arm = put_image(store, "a"), put_image(store, "b", architecture="arm64")
    store.names.set(ref("x:1"), intel, index=put_index(store, intel, arm))
    store.blobs.remove(arm.digest)
    assert store.verify().ok


def test_an_image_can_be_stored_again_after_its_blob_was_taken_away(store, image):
    flip(store, image.manifest.layers[0].digest)
    store.verify()
    name_image(store, "x:1", "a", "b")
    assert store.find(ref("x:1")) == image
