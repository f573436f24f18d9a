"""Pulling from docker-registry and from our own: what is read, verified and refused."""

import gc
import threading

import pytest
from registry_server import SOON, make_image, make_index, serve_either

from pycontain.errors import ImageNotFound, InvalidReference, RegistryError
from pycontain.oci import choice
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.media_types import CONFIG
from pycontain.oci.platform import Platform
from pycontain.oci.reference import Reference
from pycontain.registry.client import Registry
from pycontain.registry.push import push_image
from pycontain.registry.settings import RegistrySettings

IMAGE = make_image(b"a" * 100_000, bytes(range(256)) * 5_000)
INDEX = make_index(amd64=make_image(b"amd64"), arm64=make_image(b"arm64", architecture="arm64"))


@pytest.fixture(scope="module", params=["docker-registry", "ours"])
def server(tmp_path_factory, request):
    with serve_either(request.param, tmp_path_factory) as server:
        with Registry(server.address, RegistrySettings(retries=SOON)) as registry:
            repository = registry.repository("team/app")
            push_image(repository, IMAGE.descriptor, IMAGE, "1")
            push_image(repository, INDEX.descriptor, INDEX, "multi")
        yield server


@pytest.fixture
def registry(server):
    with Registry(server.address, RegistrySettings(retries=SOON)) as registry:
        yield registry


@pytest.fixture
def repository(registry):
    return registry.repository("team/app")


def layers_of(image, repository):
    return choice.resolve(image.descriptor, Platform("linux", "amd64"), repository.read_manifest)[1].layers


def test_a_tag_is_resolved_to_the_descriptor_of_its_manifest(repository):
    assert repository.resolve("1") == IMAGE.descriptor


def test_a_digest_is_resolved_to_itself(repository):
    assert repository.resolve(IMAGE.descriptor.digest) == IMAGE.descriptor


def test_a_reference_may_name_the_version(repository):
    assert repository.resolve(Reference.parse(f"{repository}:1")) == IMAGE.descriptor


def test_a_reference_to_another_repository_is_refused(repository):
    with pytest.raises(InvalidReference, match="is not in the repository"):
        repository.resolve(Reference.parse(f"{repository}2:1"))


def test_a_text_that_is_no_tag_is_refused_before_anything_is_sent(repository):
    with pytest.raises(InvalidReference, match="is no tag"):
        repository.resolve("../../../token")


def test_a_manifest_comes_with_its_descriptor(repository):
    assert repository.manifest("1") == (IMAGE.descriptor, IMAGE.content)


def test_an_index_leads_to_the_manifest_for_a_platform(repository):
    top = repository.resolve("multi")
    assert top == INDEX.descriptor
    chosen, _ = choice.resolve(top, Platform("linux", "arm64"), repository.read_manifest)
    assert str(chosen.platform) == "linux/arm64"


def test_a_blob_is_streamed_to_its_end(repository):
    for layer in layers_of(IMAGE, repository):
        with repository.blob(layer, verify=True) as stream:
            assert stream.read() == IMAGE.blobs[layer.digest]
            assert stream.read(10) == b""


def test_a_blob_can_be_opened_at_an_offset(repository):
    layer = layers_of(IMAGE, repository)[1]
    with repository.blob(layer, 1000) as stream:
        assert stream.tell() == 1000
        assert stream.read() == IMAGE.blobs[layer.digest][1000:]


def test_a_blob_that_is_there_already_is_not_asked_for(registry):
    layer = Descriptor.of(b"complete", CONFIG)
    with registry.repository("no/such").blob(layer, layer.size) as stream:
        assert stream.read() == b""


def test_an_offset_beyond_the_end_is_a_mistake_of_the_caller(repository):
    with pytest.raises(ValueError, match="offset 9"):
        repository.blob(Descriptor.of(b"12345678", CONFIG), 9)


def test_layers_come_in_parallel_through_one_registry(repository):
    layers = layers_of(IMAGE, repository) * 4
    found = [None] * len(layers)

    def pull(number):
        with repository.blob(layers[number], verify=True) as stream:
            found[number] = stream.read()

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(len(layers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [IMAGE.blobs[layer.digest] for layer in layers]


def test_a_stream_that_is_closed_early_leaves_nothing_open(repository):
    """A stream is also good in a half-read state; the fixture looks for descriptors that are left."""
    with repository.blob(layers_of(IMAGE, repository)[1]) as stream:
        stream.read(10)
    gc.collect()


def test_tags_are_listed(repository):
    assert sorted(repository.tags()) == ["1", "multi"]


@pytest.mark.parametrize("version", ["nothing", Digest.of(b"nothing")], ids=str)
def test_an_unknown_version_is_not_found(repository, version):
    with pytest.raises(ImageNotFound, match="has no image") as caught:
        repository.resolve(version)
    assert str(version) in caught.value.reference


def test_an_unknown_repository_is_not_found(registry):
    with pytest.raises(ImageNotFound):
        registry.repository("no/such").manifest("1")
    with pytest.raises(ImageNotFound):
        list(registry.repository("no/such").tags())


def test_an_unknown_blob_is_an_error_of_the_registry(repository):
    with pytest.raises(RegistryError) as caught:
        repository.blob(Descriptor.of(b"nowhere", CONFIG))
    assert (caught.value.status, caught.value.code) == (404, "BLOB_UNKNOWN")
    assert caught.value.registry == repository.registry.name


def test_a_small_blob_is_read_whole(repository):
    manifest = choice.resolve(IMAGE.descriptor, Platform("linux", "amd64"), repository.read_manifest)[1]
    assert repository.read_blob(manifest.config) == IMAGE.blobs[manifest.config.digest]


def test_data_in_a_descriptor_is_the_blob_and_nobody_is_asked(registry):
    descriptor = Descriptor(CONFIG, Digest.of(b"{}"), 2, data=b"{}")
    assert registry.repository("no/such").read_blob(descriptor) == b"{}"
