"""Pushing to docker-registry and to our own, with skopeo as a witness both ways."""

import io
import shutil
import subprocess

import attrs
import pytest
from fault_proxy import cut, cut_body, lost, serve_faults, status
from fault_proxy import proxy as proxy  # noqa: PLC0414 - a fixture
from registry_server import SOON, make_image, make_index, serve_either

from pycontain.errors import DigestMismatch, InvalidImage, RegistryError, TransferInterrupted
from pycontain.oci import media_types
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.layout import INDEX_FILE, LAYOUT_FILE, REF_NAME, ImageLayout, blob_path
from pycontain.oci.manifest import Index, Manifest, parse_document
from pycontain.registry.client import Registry
from pycontain.registry.credentials import Credentials
from pycontain.registry.push import push_image
from pycontain.registry.settings import RegistrySettings

SETTINGS = RegistrySettings(plain_http=True, retries=SOON)
LAYER = media_types.LAYER_GZIP


@pytest.fixture(scope="module", params=["docker-registry", "ours"])
def server(tmp_path_factory, request):
    with serve_either(request.param, tmp_path_factory) as server:
        yield server


@pytest.fixture
def registry(proxy):
    with Registry(proxy.address, SETTINGS) as registry:
        yield registry


@pytest.fixture
def repository(registry, request):
    """A repository for each test."""
    return registry.repository(f"tests/{request.node.name.partition('[')[0].lower().replace('_', '-')}")


def described(content):
    return Descriptor.of(content, LAYER)


def pushed(repository, content, chunk_size=None):
    return repository.push_blob(described(content), io.BytesIO(content), chunk_size)


def stored(repository, content):
    return repository.read_blob(described(content)) == content


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1000])
def test_a_blob_arrives_whole(repository, chunk_size):
    content = f"content in chunks of {chunk_size}".encode()
    assert pushed(repository, content, chunk_size)
    assert stored(repository, content)


@pytest.mark.parametrize("chunk_size", [None, 10])
def test_an_empty_blob_can_be_pushed(registry, chunk_size):
    repository = registry.repository(f"empty/{chunk_size}".lower())
    assert pushed(repository, b"", chunk_size)
    assert repository.has_blob(Digest.of(b""))


def test_a_blob_that_is_there_is_not_sent_again(repository, proxy):
    pushed(repository, b"once")
    assert not pushed(repository, b"once")
    assert len(proxy.lines("PUT .*")) == 1


def test_a_blob_is_mounted_from_another_repository(repository, registry, proxy):
    pushed(registry.repository("tests/source"), b"shared")
    proxy.asked.clear()
    assert repository.mount_blob(Digest.of(b"shared"), "tests/source")
    assert repository.has_blob(Digest.of(b"shared"))
    assert proxy.lines("(PUT|PATCH) .*") == []


def test_a_blob_that_is_not_there_is_not_mounted_and_no_upload_stays_open(repository, proxy):
    assert not repository.mount_blob(Digest.of(b"missing"), "tests/source")
    assert len(proxy.lines("DELETE .*/blobs/uploads/.*")) == 1


def test_content_without_its_digest_is_refused_by_the_registry(repository):
    with pytest.raises(RegistryError) as caught:
        repository.push_blob(described(b"promised"), io.BytesIO(b"different"[:8]))
    assert caught.value.code == "DIGEST_INVALID"


def test_content_that_is_too_short_is_noticed_here(repository):
    with pytest.raises(InvalidImage, match="ends 4 bytes before"):
        repository.push_blob(described(b"12345678"), io.BytesIO(b"1234"))


def test_a_manifest_that_is_not_what_its_descriptor_says_is_not_sent(repository, proxy):
    with pytest.raises(DigestMismatch):
        repository.push_manifest(Descriptor.of(b"{}", media_types.MANIFEST), b"{ }")
    assert proxy.asked == []


def test_a_registry_that_stored_another_manifest_is_not_believed(repository, proxy):
    image = make_image(b"x")
    push_image(repository, image.descriptor, image)
    proxy.fail("PUT .*", status(201, {"Docker-Content-Digest": str(Digest.of(b"another"))}))
    with pytest.raises(DigestMismatch):
        repository.push_manifest(image.descriptor, image.content, "1")


def test_indexes_of_indexes_of_indexes_are_not_pushed(repository, proxy):
    image = make_image(b"deep down")
    for _ in range(5):
        image = make_index(amd64=image)
    with pytest.raises(InvalidImage, match="indexes of indexes"):
        push_image(repository, image.descriptor, image, "1")
    assert proxy.asked == []


def test_an_image_is_pushed_and_its_tag_is_the_last(repository, proxy):
    image = make_image(b"one", b"two")
    push_image(repository, image.descriptor, image, "1.0")
    assert repository.manifest("1.0") == (image.descriptor, image.content)
    assert proxy.lines("PUT .*")[-1] == f"PUT /v2/{repository.name}/manifests/1.0"


def test_a_second_push_sends_no_blob(repository, proxy):
    image = make_image(b"twice")
    push_image(repository, image.descriptor, image, "1")
    proxy.asked.clear()
    push_image(repository, image.descriptor, image, "2")
    assert proxy.lines("(POST|PATCH|PUT .*/uploads/) .*") == []


def test_an_image_without_a_tag_is_pushed_by_its_digest(repository):
    image = make_image(b"untagged")
    push_image(repository, image.descriptor, image)
    assert repository.resolve(image.descriptor.digest) == image.descriptor


def test_an_index_is_pushed_with_all_that_it_lists(repository):
    index = make_index(amd64=make_image(b"x"), arm64=make_image(b"y", architecture="arm64"))
    push_image(repository, index.descriptor, index, "multi")
    assert repository.manifest("multi")[1] == index.content
    for digest in index.blobs:
        found = repository.has_blob(digest) or repository.resolve(digest)
        assert found


def test_layers_come_from_a_repository_that_has_them(repository, registry, proxy):
    image = make_image(b"a base", b"and more")
    push_image(registry.repository("tests/base"), image.descriptor, image, "1")
    proxy.asked.clear()
    push_image(repository, image.descriptor, image, "1", mount_from=["tests/base"])
    assert proxy.lines("PUT .*/uploads/.*") == []
    assert repository.resolve("1") == image.descriptor


def test_layers_that_may_not_be_distributed_are_not_pushed(repository, proxy):
    image = make_image(b"plain")
    foreign = Descriptor(
        media_types.DOCKER_FOREIGN, Digest.of(b"elsewhere"), 9, urls=("https://example.com/x",)
    )
    manifest = Manifest(Descriptor.of(b"{}", media_types.CONFIG), (foreign,)).encode()
    top = Descriptor.of(manifest, media_types.MANIFEST)
    image = attrs.evolve(image, descriptor=top, blobs={top.digest: manifest, Digest.of(b"{}"): b"{}"})
    push_image(repository, top, image, "1")
    assert proxy.lines(f".*{foreign.digest}.*") == []


# --- accidents ------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 20


@pytest.mark.parametrize("chunk_size", [None, 1000])
@pytest.mark.parametrize(
    "fault",
    [cut(-1), cut_body(500), lost(), status(429), status(503)],
    ids=["cut", "body", "lost", "429", "503"],
)
@pytest.mark.parametrize("request_line", ["POST .*", "PATCH .*", "PUT .*"])
def test_an_upload_survives_an_accident(registry, proxy, chunk_size, fault, request_line):
    repository = registry.repository("tests/accidents")
    content = f"{chunk_size} {fault} {request_line}".encode() + CONTENT
    proxy.fail(request_line, fault)
    assert pushed(repository, content, chunk_size)
    assert stored(repository, content)


def test_chunks_go_on_from_the_place_that_the_registry_names(repository, proxy):
    """As distribution-spec has it; docker-registry 2.8 does not name it after an accident."""
    first, second = CONTENT[:3000], CONTENT[3000:]
    place = {"Location": "/v2/x/blobs/uploads/1"}
    proxy.fail("HEAD .*", status(404))
    proxy.fail("POST .*", status(202, place))
    proxy.fail("PATCH .*", cut(-1))
    proxy.fail("GET .*/uploads/1", status(204, {**place, "Range": f"0-{len(first) - 1}"}))
    proxy.fail("PATCH .*", status(202, place))
    proxy.fail("PUT .*", status(201))
    assert pushed(repository, CONTENT, len(CONTENT))
    again = [asked for asked in proxy.asked if asked.method == "PATCH"][-1]
    assert again.body == second
    assert again.headers["Content-Range"] == f"{len(first)}-{len(CONTENT) - 1}"


def test_chunks_are_as_large_as_the_registry_asks(repository, proxy):
    place = {"Location": "/v2/x/blobs/uploads/1", "OCI-Chunk-Min-Length": "4000"}
    proxy.fail("HEAD .*", status(404))
    proxy.fail("POST .*", status(202, place))
    proxy.always("PATCH .*", status(202, place))
    proxy.fail("PUT .*", status(201))
    pushed(repository, CONTENT, 1000)
    assert len(proxy.lines("PATCH .*")) == 2


def test_an_upload_without_a_place_is_an_error_of_the_registry(repository, proxy):
    proxy.always("POST .*", status(202))
    with pytest.raises(RegistryError, match="names no place"):
        pushed(repository, CONTENT)


def test_an_upload_that_never_works_ends_with_an_error(repository, proxy):
    proxy.always("PUT .*", cut(-1))
    with pytest.raises(TransferInterrupted):
        pushed(repository, CONTENT)
    assert len(proxy.lines("PUT .*")) == SOON.attempts


def test_an_upload_elsewhere_gets_no_credentials(server, proxy):
    with serve_faults() as elsewhere, Registry(proxy.address, with_password()) as registry:
        place = {"Location": f"http://{elsewhere.address}/upload"}
        proxy.fail("HEAD .*", status(401, {"WWW-Authenticate": "Basic"}))
        proxy.fail("HEAD .*", status(404))
        proxy.fail("POST .*", status(202, place))
        elsewhere.fail("PUT .*", status(201))
        pushed(registry.repository("x"), CONTENT)
        assert "Authorization" in proxy.asked[-1].headers
        assert "Authorization" not in elsewhere.asked[0].headers
        assert elsewhere.asked[0].body == CONTENT


def with_password():
    return attrs.evolve(SETTINGS, auth=Credentials("somebody", "s3cret"))


# --- witnesses ------------------------------------------------------------------------------------------


def skopeo(*arguments):
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("skopeo is not installed")
    result = subprocess.run([program, *arguments], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def test_skopeo_reads_what_we_pushed(repository, server, tmp_path):
    index = make_index(amd64=make_image(b"for amd64"), arm64=make_image(b"for arm64", architecture="arm64"))
    push_image(repository, index.descriptor, index, "1")
    place = f"docker://{server.address}/{repository.name}:1"
    skopeo("copy", "--all", "--src-tls-verify=false", "--insecure-policy", place, f"dir:{tmp_path}/copy")
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == index.content


def test_we_read_what_skopeo_pushed(repository, server, tmp_path):
    image = make_image(b"written", b"by hand")
    write_layout(tmp_path / "layout", image)
    place = f"docker://{server.address}/{repository.name}:1"
    skopeo("copy", "--dest-tls-verify=false", "--insecure-policy", f"oci:{tmp_path}/layout:1", place)
    assert repository.manifest("1") == (image.descriptor, image.content)
    manifest = parse_document(image.content)
    for blob in (manifest.config, *manifest.layers):
        assert repository.read_blob(blob) == image.blobs[blob.digest]


def write_layout(folder, image):
    for digest, content in image.blobs.items():
        path = folder / blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / LAYOUT_FILE).write_bytes(ImageLayout().encode())
    named = attrs.evolve(image.descriptor, annotations={REF_NAME: "1"})
    (folder / INDEX_FILE).write_bytes(Index((named,)).encode())
