"""Pulling through a proxy that breaks things: typed errors, no credentials elsewhere, and a second try succeeds."""

import os
import signal
import subprocess
import sys

import attrs
import pytest
from fault_proxy import (
    changed,
    corrupt,
    cut,
    redirect,
    serve_faults,
    stall,
    status,
    with_body,
    with_headers,
    without_range,
)
from registry_server import SOON, make_image, serve_registry

import pycontain
from pycontain.errors import (
    Denied,
    DigestMismatch,
    ImageNotFound,
    InvalidImage,
    PycontainError,
    RegistryError,
    TooManyRequests,
    TransferInterrupted,
    Unauthorized,
)
from pycontain.oci import media_types
from pycontain.oci.codec import MAX_DOCUMENT_BYTES
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import parse_document
from pycontain.registry.client import Registry
from pycontain.registry.credentials import Credentials
from pycontain.registry.push import push_image
from pycontain.registry.settings import RegistrySettings

SETTINGS = RegistrySettings(plain_http=True, retries=SOON, read_timeout=0.3)
SECRET = "correct-horse-battery"
IMAGE = make_image(os.urandom(300_000))
MANIFEST = parse_document(IMAGE.content)
LAYER = MANIFEST.layers[0]
BLOB = IMAGE.blobs[LAYER.digest]

MANIFESTS = "GET .*/manifests/.*"
HEADS = "HEAD .*/manifests/.*"
BLOBS = "GET .*/blobs/.*"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        with Registry(server.address, SETTINGS) as registry:
            push_image(registry.repository("app"), IMAGE.descriptor, IMAGE, "1")
        yield server


@pytest.fixture
def proxy(server):
    with serve_faults(server.address) as proxy:
        yield proxy


@pytest.fixture
def repository(proxy):
    with Registry(proxy.address, SETTINGS) as registry:
        yield registry.repository("app")


def pull(repository):
    """The whole image."""
    descriptor, content = repository.manifest("1")
    manifest = parse_document(content)
    blobs = {}
    for blob in (manifest.config, *manifest.layers):
        with repository.blob(blob, verify=True) as stream:
            blobs[blob.digest] = stream.read()
    return descriptor, blobs


def assert_whole(pulled):
    descriptor, blobs = pulled
    assert descriptor == IMAGE.descriptor
    assert all(content == IMAGE.blobs[digest] for digest, content in blobs.items())


# --- what heals by itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *(cut(-1), cut(0), cut(100), stall(0), stall(100)),
        *(status(429), status(429, {"Retry-After": "0"}), status(500), status(502), status(503), status(504)),
        *(without_range(),),
    ],
    ids="cut-before cut-at-0 cut-at-100 stall-0 stall-100 429 retry-after 500 502 503 504 without-range".split(),
)
@pytest.mark.parametrize("request_line", [MANIFESTS, BLOBS])
def test_a_passing_fault_is_not_noticed(repository, proxy, fault, request_line):
    proxy.fail(request_line, fault)
    proxy.fail(request_line, fault)
    assert_whole(pull(repository))


def test_a_blob_goes_on_where_it_was_cut(repository, proxy):
    proxy.fail(BLOBS, cut(after=70_000))
    with repository.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB
    start = int(proxy.asked[-1].headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 70_000


def test_a_server_without_ranges_sends_it_all_again(repository, proxy):
    proxy.fail(BLOBS, cut(after=70_000))
    proxy.fail(BLOBS, without_range())
    with repository.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB


def test_a_blob_is_cut_as_often_as_it_makes_progress(repository, proxy):
    """Failures count only until the next megabyte: a bad line that delivers is a line."""
    content = os.urandom(6 * 2**20)
    blob = Descriptor.of(content, media_types.LAYER)
    for start in range(0, len(content), 2**20):
        number = 206 if start else 200
        headers = {"Content-Length": len(content) - start}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        proxy.fail(f"GET .*/{blob.digest}", _some(number, headers, content[start : start + 2**20]))
    with repository.blob(blob, verify=True) as stream:
        assert stream.read() == content


def _some(number, headers, body):
    def fault(exchange, asked):
        exchange.send(number, headers, body)
        exchange.close_connection = True

    return fault


def test_a_head_that_is_not_understood_is_followed_by_a_get(repository, proxy):
    proxy.fail(HEADS, status(405))
    assert repository.resolve("1") == IMAGE.descriptor


@pytest.mark.parametrize(
    "headers",
    [
        {"docker_content_digest": None},
        {"content_length": "0"},
        {"content_length": None},
        {"content_type": "text/html"},
    ],
    ids=str,
)
def test_a_head_that_says_too_little_is_followed_by_a_get(repository, proxy, headers):
    proxy.fail(HEADS, with_headers(**headers))
    assert repository.resolve("1") == IMAGE.descriptor


def test_a_manifest_needs_no_digest_header(repository, proxy):
    proxy.fail(MANIFESTS, with_headers(docker_content_digest=None))
    assert repository.manifest("1") == (IMAGE.descriptor, IMAGE.content)


# --- what does not, and the second try ------------------------------------------------------------------

BOMB = b"[" * (MAX_DOCUMENT_BYTES + 1)
LASTING = [
    ("cut", MANIFESTS, cut(-1), TransferInterrupted),
    ("cut blob", BLOBS, cut(0), TransferInterrupted),
    ("stalled", MANIFESTS, stall(10), TransferInterrupted),
    ("stalled blob", BLOBS, stall(0), TransferInterrupted),
    ("flipped manifest", MANIFESTS, corrupt(20), DigestMismatch),
    ("flipped blob", BLOBS, corrupt(1000), DigestMismatch),
    ("truncated manifest", MANIFESTS, with_body(IMAGE.content[:-1]), DigestMismatch),
    ("truncated blob", BLOBS, with_body(BLOB[:-1]), DigestMismatch),
    ("longer blob", BLOBS, with_body(BLOB + b"x"), DigestMismatch),
    ("other digest", MANIFESTS, with_headers(docker_content_digest=str(Digest.of(b""))), DigestMismatch),
    ("broken digest", MANIFESTS, with_headers(docker_content_digest="sha256:0"), InvalidImage),
    ("lying media type", MANIFESTS, with_headers(content_type=media_types.INDEX), InvalidImage),
    ("strange media type", MANIFESTS, with_headers(content_type="image/png"), InvalidImage),
    ("manifest bomb", MANIFESTS, with_body(BOMB), InvalidImage),
    ("schema 1", MANIFESTS, with_body(b'{"schemaVersion":1}'), PycontainError),
    ("no manifest", MANIFESTS, with_body(b"hello"), PycontainError),
    ("other range", BLOBS, status(206, {"Content-Range": "bytes 5-9/10"}, b"12345"), RegistryError),
    ("range without range", BLOBS, status(206, {}, b"12345"), RegistryError),
    ("shorter than its offset", BLOBS, status(416), DigestMismatch),
    ("401", MANIFESTS, status(401), Unauthorized),
    ("401 blob", BLOBS, status(401, {"WWW-Authenticate": "Digest realm=x"}), Unauthorized),
    ("403", MANIFESTS, status(403), Denied),
    ("404", MANIFESTS, status(404), ImageNotFound),
    ("404 blob", BLOBS, status(404), RegistryError),
    ("418", BLOBS, status(418, {}, b"<html>teapot"), RegistryError),
    ("429", MANIFESTS, status(429), TooManyRequests),
    ("429 for long", BLOBS, status(429, {"Retry-After": "3600"}), TooManyRequests),
    ("500", BLOBS, status(500), RegistryError),
    ("redirect in a circle", BLOBS, redirect("?again"), RegistryError),
    ("redirect to a file", BLOBS, redirect("file:///etc/passwd"), RegistryError),
    ("redirect to nowhere", BLOBS, redirect("http://[/"), RegistryError),
    ("redirect to no port", BLOBS, redirect("http://127.0.0.1:port/"), RegistryError),
]


@pytest.mark.parametrize(
    ("request_line", "fault", "error"),
    [pytest.param(*case, id=name.replace(" ", "-")) for name, *case in LASTING],
)
def test_a_lasting_fault_has_a_typed_error_and_the_next_try_succeeds(repository, proxy, request_line, fault, error):
    proxy.always(request_line, fault)
    with pytest.raises(error):
        pull(repository)
    proxy.heal()
    assert_whole(pull(repository))


def test_bytes_after_the_end_are_refused_also_when_no_length_announced_them(repository, proxy):
    def longer(number, headers, body):
        return number, {name: value for name, value in headers.items() if name != "Content-Length"}, body + b"x"

    proxy.always(BLOBS, changed(longer))
    with pytest.raises(DigestMismatch, match="more than"):
        pull(repository)
