"""Platforms, chain IDs, and the way from an index to the layers of one image."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontain.errors import DigestMismatch, InvalidImage, NoMatchingPlatform
from pycontain.oci import media_types
from pycontain.oci.chain import Layer, chain_ids_of, layers_of
from pycontain.oci.choice import MAX_DOCUMENTS, choose, resolve
from pycontain.oci.codec import MAX_DOCUMENT_BYTES
from pycontain.oci.config import ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Index, Manifest
from pycontain.oci.platform import Platform

law = settings(deadline=None)
known = st.sampled_from(
    [
        "amd64",
        "x86_64",
        "arm",
        "ARM64",
        "aarch64",
        "armhf",
        "armel",
        "i686",
        "s390x",
        "v8",
        "v1",
        "8",
        "7",
        "V3",
        "",
    ]
)
parts = known | st.text(max_size=5)
platforms = st.builds(Platform, os=parts, architecture=parts, variant=parts)
diff_id_lists = st.lists(st.binary(max_size=3).map(Digest.of), max_size=4).map(tuple)


# --- laws -----------------------------------------------------------------------------------------------


@law
@given(platforms)
def test_the_normal_form_is_its_own_normal_form(platform):
    assert platform.normal().normal() == platform.normal()


@law
@given(platforms)
def test_what_runs_is_normal_and_starts_with_the_platform_itself(platform):
    runnable = platform.runnable()
    assert runnable[0] == platform.normal()
    assert [each.normal() for each in runnable] == list(runnable)
    assert len(set(runnable)) == len(runnable)


@law
@given(diff_id_lists, diff_id_lists)
def test_chains_are_associative(lower, upper):
    below = chain_ids_of(lower)
    parent = below[-1] if below else None
    assert chain_ids_of(lower + upper) == below + chain_ids_of(upper, parent=parent)


# --- platforms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("armv7l", "linux/arm/v7"),
        ("i686", "linux/386"),
        ("Linux/S390X", "linux/s390x"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_platforms_are_read_into_their_normal_form(text, normal):
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "x" * 99])
def test_a_wrong_platform_is_refused(text):
    with pytest.raises(InvalidImage, match="is no platform"):
        Platform.parse(text)


def test_the_repr_of_a_platform_is_its_text():
    assert repr(Platform("linux", "arm", "v7")) == "Platform(linux/arm/v7)"


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("linux/arm/v8", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v6", "arm/v6 arm/v5"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/riscv64", "riscv64"),
    ],
)
def test_what_runs_where_the_best_first(text, runs):
    assert [str(each).removeprefix("linux/") for each in Platform.parse(text).runnable()] == runs.split()


# --- choosing -------------------------------------------------------------------------------------------


def entry(name, platform=None, media_type=media_types.MANIFEST, **more):
    parts = platform.split("/") if platform else None
    return Descriptor(
        media_type, Digest.of(name.encode()), 7, platform=Platform(*parts, **more) if parts else None
    )


def chosen(wanted, *entries):
    names = {entry.digest: entry for entry in entries}
    return names[choose(Index(entries), Platform.parse(wanted)).digest]


AMD64 = entry("1", "linux/amd64")
AMD64_V3 = entry("2", "linux/amd64/v3")
ARM_V6 = entry("3", "linux/arm/v6")
ARM_V7 = entry("4", "linux/arm/v7")
ARM64 = entry("5", "linux/arm64/v8")
ATTESTATION = entry("6", "unknown/unknown")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("linux/amd64", AMD64),
        ("linux/amd64/v2", AMD64),
        ("linux/amd64/v4", AMD64_V3),
        ("linux/arm/v8", ARM_V7),
        ("linux/arm/v6", ARM_V6),
        ("linux/aarch64", ARM64),
    ],
)
def test_the_best_entry_is_chosen(wanted, expected):
    assert chosen(wanted, ATTESTATION, AMD64, AMD64_V3, ARM_V6, ARM_V7, ARM64) is expected


def test_of_equal_entries_the_first_is_chosen():
    assert chosen("linux/amd64", AMD64, entry("9", "linux/x86_64")) is AMD64


def test_a_platform_that_is_not_there_is_told_which_are():
    with pytest.raises(NoMatchingPlatform) as caught:
        chosen("linux/s390x", AMD64, ARM64, AMD64, ATTESTATION)
    assert (
        str(caught.value) == "the image does not exist for linux/s390x: there is linux/amd64, linux/arm64/v8"
    )
    assert caught.value.wanted == "linux/s390x"
    assert caught.value.available == ("linux/amd64", "linux/arm64/v8")


def test_a_machine_never_gets_a_variant_that_it_cannot_run():
    with pytest.raises(NoMatchingPlatform):
        chosen("linux/arm/v6", ARM_V7)


def test_a_single_entry_without_a_platform_is_for_everyone():
    only = entry("1")
    assert chosen("linux/s390x", only, entry("2", media_type="text/plain")) is only


def test_an_attestation_beside_it_changes_nothing():
    only = entry("1")
    assert chosen("linux/s390x", only, ATTESTATION) is only


def test_several_entries_without_platforms_are_no_choice():
    with pytest.raises(NoMatchingPlatform, match="its index names no platform"):
        chosen("linux/amd64", entry("1"), entry("2"))


def test_an_entry_without_a_platform_is_no_stand_in():
    with pytest.raises(NoMatchingPlatform):
        chosen("linux/s390x", AMD64, entry("1"))


def test_an_index_with_attestations_alone_has_no_image():
    with pytest.raises(NoMatchingPlatform):
        chosen("linux/amd64", ATTESTATION)


def test_an_entry_that_is_no_manifest_is_passed_over():
    assert chosen("linux/amd64", entry("1", "linux/amd64", media_type="text/plain"), AMD64) is AMD64


def test_an_os_version_counts_when_it_is_asked_for():
    old = entry("1", "windows/amd64", os_version="10.0.1")
    new = entry("2", "windows/amd64", os_version="10.0.2")
    assert choose(Index((old, new)), Platform("windows", "amd64", os_version="10.0.2")) is new


def test_an_entry_that_needs_more_features_is_passed_over():
    special = entry("1", "linux/amd64", os_features=("quantum",))
    assert chosen("linux/amd64", special, AMD64) is AMD64


# --- the whole way --------------------------------------------------------------------------------------

CONFIG = ImageConfig("amd64", "linux", RootFS((Digest.of(b"1"), Digest.of(b"2"))))
LAYERS = (
    Descriptor.of(b"one", media_types.LAYER_GZIP),
    Descriptor.of(b"two", media_types.DOCKER_LAYER_GZIP),
)
MANIFEST = Manifest(Descriptor.of(CONFIG.encode(), media_types.CONFIG), LAYERS)
HERE = Platform("linux", "amd64")


class Blobs(dict):
    """Content by digest, as a registry has it."""

    def add(self, document):
        content = document.encode()
        descriptor = Descriptor.of(content, document.media_type)
        self[descriptor.digest] = content
        return descriptor

    def read(self, descriptor):
        return self[descriptor.digest]


def nested(blobs, depth):
    descriptor = blobs.add(MANIFEST)
    for _ in range(depth):
        descriptor = blobs.add(Index((descriptor,)))
    return descriptor


@pytest.mark.parametrize("depth", range(MAX_DOCUMENTS))
def test_indexes_lead_to_the_manifest(depth):
    blobs = Blobs()
    descriptor, manifest = resolve(nested(blobs, depth), HERE, blobs.read)
    assert manifest == MANIFEST
    assert descriptor == Descriptor.of(MANIFEST.encode(), media_types.MANIFEST)


def test_a_chain_of_indexes_ends():
    blobs = Blobs()
    with pytest.raises(InvalidImage, match="more than 3 indexes"):
        resolve(nested(blobs, MAX_DOCUMENTS), HERE, blobs.read)


def test_an_index_cannot_contain_itself():
    """A cycle needs an index that holds its own digest; a server can only claim to have one."""
    itself = Descriptor(media_types.INDEX, Digest.of(b"x"), 0)
    content = Index((itself,)).encode()
    itself = Descriptor(media_types.INDEX, Digest.of(b"x"), len(content))
    with pytest.raises(DigestMismatch):
        resolve(itself, HERE, lambda _: content)


def test_a_manifest_bomb_is_not_read():
    bomb = Descriptor(media_types.MANIFEST, Digest.of(b"x"), MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(InvalidImage, match="has 4194305 bytes"):
        resolve(bomb, HERE, lambda _: pytest.fail("it was read"))


def test_layers_have_all_their_names():
    one, two = CONFIG.diff_ids
    assert layers_of(MANIFEST, CONFIG) == (
        Layer(LAYERS[0], one, one),
        Layer(LAYERS[1], two, Digest.of(f"{one} {two}".encode())),
    )


def test_documents_that_disagree_about_the_layers_are_refused():
    with pytest.raises(InvalidImage, match="the manifest has 1 layers and the config 2"):
        layers_of(Manifest(MANIFEST.config, LAYERS[:1]), CONFIG)


def test_an_artifact_has_no_layers_that_can_be_applied():
    artifact = Manifest(MANIFEST.config, (Descriptor.of(b"", "application/vnd.example"),))
    with pytest.raises(InvalidImage, match=r"it is application/vnd\.example"):
        layers_of(artifact, CONFIG)
