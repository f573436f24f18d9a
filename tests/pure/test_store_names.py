"""Names: what a reference means, whole images only, and what others wrote into ``index.json`` stays."""

import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_images import name_image, put_image, put_index, ref

from pycontain.errors import ImageNotFound, InvalidImage, StoreCorrupt
from pycontain.oci.platform import Platform
from pycontain.store.blobs import BlobMissing
from pycontain.store.store import Store

ARM = Platform("linux", "arm64")
INTEL = Platform("linux", "amd64")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def index_json(store):
    return json.loads(Path(store.folder.index).read_text(encoding="utf-8"))


@pytest.fixture
def both(store):
    """``x:1`` chosen for Intel from an index of two platforms, both of which are here."""
    intel, arm = put_image(store, "a"), put_image(store, "b", architecture="arm64")
    index = put_index(store, attrs.evolve(intel, platform=INTEL), attrs.evolve(arm, platform=ARM))
    store.names.set(ref("x:1"), intel, index=index)
    return intel, arm, index


def test_a_name_means_a_manifest(store):
    manifest = put_image(store, "a")
    store.names.set(ref("x:1"), manifest)
    assert store.names.get(ref("x:1")).descriptor.digest == manifest.digest


def test_a_name_that_is_not_here_means_nothing(store):
    assert store.names.get(ref("x:1")) is None


def test_a_name_can_move(store):
    name_image(store, "x:1", "a")
    moved = name_image(store, "x:1", "b")
    assert store.names.get(ref("x:1")) == moved
    assert len(store.names.list()) == 1


def test_a_name_can_be_removed_twice(store):
    name_image(store, "x:1", "a")
    store.names.remove([ref("x:1")])
    store.names.remove([ref("x:1")])
    assert store.names.list() == ()


def test_an_unchanged_name_does_not_write_the_file(store):
    name_image(store, "x:1", "a")
    before = Path(store.folder.index).stat().st_ino
    name_image(store, "x:1", "a")
    assert Path(store.folder.index).stat().st_ino == before


def test_another_store_on_the_same_folder_sees_the_change(store):
    other = Store(store.path)
    assert other.names.get(ref("x:1")) is None
    name_image(store, "x:1", "a")
    assert other.names.get(ref("x:1"))


@pytest.mark.parametrize("part", ["manifest", "config", "layer", "index"])
def test_no_name_leads_to_half_an_image(store, both, part):
    intel, _, index = both
    image = store.find(ref("x:1"))
    missing = {
        "manifest": intel,
        "config": image.manifest.config,
        "layer": image.manifest.layers[0],
        "index": index,
    }[part]
    store.blobs.remove(missing.digest)
    with pytest.raises(BlobMissing, match=str(missing.digest)):
        store.names.set(ref("y:1"), intel, index=index)
    assert store.names.get(ref("y:1")) is None


def test_a_name_cannot_mean_what_is_no_manifest(store):
    with pytest.raises(InvalidImage):
        store.names.set(ref("x:1"), store.blobs.put(b"no manifest"))


def test_an_entry_says_the_image_id_and_the_platform(store):
    entry = name_image(store, "x:1", "a")
    manifest = store.find(ref("x:1")).manifest
    assert entry.image_id == manifest.config.digest
    assert entry.descriptor.platform == INTEL
    assert store.names.get(ref("x:1")) == entry


def test_an_image_is_found_by_the_beginning_of_its_id(store):
    entry = name_image(store, "x:1", "a")
    name_image(store, "y:1", "a", author="another config")
    assert store.names.find_id(entry.image_id.hex[:12]) == (entry,)


def test_an_image_is_found_by_the_digest_of_its_manifest(store):
    entry = name_image(store, "x:1", "a")
    assert store.names.get(ref(f"x@{entry.descriptor.digest}")) == entry


def test_an_image_is_found_by_the_digest_of_its_index(store, both):
    _, _, index = both
    assert store.names.get(ref(f"x:2@{index.digest}")).index == index


def test_a_digest_is_not_found_in_another_repository(store):
    entry = name_image(store, "x:1", "a")
    assert store.names.get(ref(f"xx@{entry.descriptor.digest}")) is None


def test_the_entry_is_the_manifest_and_names_the_index(store, both):
    intel, _, index = both
    entry = store.names.get(ref("x:1"))
    assert (entry.descriptor.digest, entry.index) == (intel.digest, index)


def test_annotations_of_a_descriptor_are_kept(store):
    described = attrs.evolve(put_image(store, "a"), annotations={"k": "v"})
    store.names.set(ref("x:1"), described)
    assert dict(store.names.get(ref("x:1")).descriptor.annotations) == {"k": "v"}


def test_what_others_wrote_is_kept(store):
    document = index_json(store)
    stranger = {
        "mediaType": "application/x",
        "digest": "sha256:" + "0" * 64,
        "size": 1,
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
        "strange": [1],
    }
    document |= {"manifests": [stranger], "annotations": {"who": "others"}}
    Path(store.folder.index).write_text(json.dumps(document), encoding="utf-8")
    name_image(store, "x:1", "a")
    assert index_json(store)["annotations"] == {"who": "others"}
    assert index_json(store)["manifests"][0] == stranger


def test_a_name_of_others_is_no_reference(store):
    entry = name_image(store, "x:1", "a")
    assert entry.reference == ref("x:1")
    assert attrs.evolve(entry, name="latest").reference is None
    assert attrs.evolve(entry, name="not a reference").reference is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"manifests": 1}', b'{"manifests": [1]}'])
def test_a_damaged_index_is_named(store, content):
    Path(store.folder.index).write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"index\.json"):
        store.names.get(ref("x:1"))


def test_a_damaged_entry_is_named(store):
    Path(store.folder.index).write_text('{"manifests": [{"digest": "x"}]}', encoding="utf-8")
    with pytest.raises(StoreCorrupt, match=r"index\.json"):
        store.names.list()


# --- find -----------------------------------------------------------------------------------------------


def test_find_gives_the_manifest(store):
    entry = name_image(store, "x:1", "a", "b")
    found = store.find(ref("x:1"))
    assert found.descriptor == entry.descriptor
    assert len(found.manifest.layers) == 2
    assert store.read_config(found.manifest).platform == INTEL


def test_find_looks_into_the_index_for_another_platform(store, both):
    _, arm, _ = both
    assert store.find(ref("x:1"), ARM).descriptor.digest == arm.digest


def test_find_gives_nothing_for_a_platform_that_was_not_pulled(store, both):
    _, arm, _ = both
    store.blobs.remove(arm.digest)
    assert store.find(ref("x:1"), ARM) is None
    assert store.find(ref("x:1"), INTEL)


def test_find_gives_nothing_for_a_platform_that_does_not_exist(store, both):
    assert store.find(ref("x:1"), Platform("linux", "s390x")) is None


def test_find_gives_an_image_that_the_platform_can_run(store):
    name_image(store, "x:1", "a")
    assert store.find(ref("x:1"), Platform("linux", "amd64", "v3"))
    assert store.find(ref("x:1"), ARM) is None


@pytest.mark.parametrize("part", ["config", "layer"])
def test_find_gives_nothing_when_a_blob_is_missing(store, part):
    name_image(store, "x:1", "a")
    manifest = store.find(ref("x:1")).manifest
    store.blobs.remove((manifest.config if part == "config" else manifest.layers[0]).digest)
    assert store.find(ref("x:1")) is None


def test_an_index_that_others_named_gives_the_manifests_that_are_here(store):
    intel, arm = put_image(store, "a"), put_image(store, "b", architecture="arm64")
    index = put_index(store, attrs.evolve(intel, platform=INTEL), attrs.evolve(arm, platform=ARM))
    store.names.set(ref("x:1"), index)
    store.blobs.remove(intel.digest)
    assert [image.descriptor.digest for image in store.images()] == [arm.digest]
    assert store.find(ref("x:1")).index.digest == index.digest


def test_images_are_listed_with_their_names(store):
    name_image(store, "x:1", "a")
    name_image(store, "y:1", "b")
    assert {image.reference for image in store.images()} == {ref("x:1"), ref("y:1")}


def test_an_image_is_removed_by_its_name(store):
    name_image(store, "x:1", "a")
    store.remove_image(ref("x:1"))
    assert store.images() == ()


def test_an_image_that_is_not_here_cannot_be_removed(store):
    with pytest.raises(ImageNotFound, match="x:1"):
        store.remove_image(ref("x:1"))


# --- a law ----------------------------------------------------------------------------------------------

texts = st.sampled_from(["a:1", "a:2", "r:5000/b:1", "localhost/c:Z"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["set", "remove"]), texts, st.integers(0, 2)), max_size=12))
def test_names_behave_as_a_dict(tmp_path_factory, acts):
    store = Store(tmp_path_factory.mktemp("law") / "store")
    images = [put_image(store, "layer", author=str(number)) for number in range(3)]
    model = {}
    for act, text, number in acts:
        if act == "set":
            store.names.set(ref(text), images[number])
            model[text] = images[number].digest
        else:
            store.names.remove([ref(text)])
            model.pop(text, None)
    assert {entry.name: entry.descriptor.digest for entry in store.names.list()} == {
        str(ref(text)): digest for text, digest in model.items()
    }
