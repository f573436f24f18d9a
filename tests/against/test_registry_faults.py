"""Pulling through a proxy that breaks things: typed errors, no credentials elsewhere, and a second try succeeds."""

import io
import os

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
from fault_proxy import proxy as proxy  # noqa: PLC0414 - a fixture
from registry_server import SOON, make_image, serve_registry

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


PASSING = {
    "cut before the answer": cut(-1),
    "cut at its start": cut(0),
    "cut": cut(100),
    "stalled at its start": stall(0),
    "stalled": stall(100),
    "429": status(429),
    "429 with Retry-After": status(429, {"Retry-After": "0"}),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "504": status(504),
    "without ranges": without_range(),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("request_line", [MANIFESTS, BLOBS], ids=["manifest", "blob"])
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


@pytest.mark.parametrize("answer", [b"", b"[", b"[]", b'{"tags":5}', b'{"tags":[5]}'])
def test_nonsense_instead_of_tags_is_an_error_of_the_registry(repository, proxy, answer):
    proxy.always("GET .*/tags/list", status(200, {}, answer))
    with pytest.raises(RegistryError, match="sends no list of tags"):
        list(repository.tags())


def test_a_repository_without_tags_has_none(repository, proxy):
    proxy.always("GET .*/tags/list", status(200, {}, b'{"name":"app","tags":null}'))
    assert list(repository.tags()) == []


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
    ("flipped blob", BLOBS, corrupt(20), DigestMismatch),
    ("truncated manifest", MANIFESTS, with_body(IMAGE.content[:-1]), DigestMismatch),
    ("truncated blob", BLOBS, with_body(BLOB[:-1]), DigestMismatch),
    ("longer blob", BLOBS, with_body(BLOB + b"x"), DigestMismatch),
    ("other digest", MANIFESTS, with_headers(docker_content_digest=str(Digest.of(b""))), DigestMismatch),
    ("broken digest", MANIFESTS, with_headers(docker_content_digest="sha256:0"), InvalidImage),
    ("lying media type", MANIFESTS, with_headers(content_type=media_types.INDEX), InvalidImage),
    ("strange media type", MANIFESTS, with_headers(content_type="image/png"), InvalidImage),
    ("manifest bomb", MANIFESTS, with_body(BOMB), RegistryError),
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
def test_a_lasting_fault_has_a_typed_error_and_the_next_try_succeeds(
    repository, proxy, request_line, fault, error
):
    proxy.always(request_line, fault)
    with pytest.raises(error):
        pull(repository)
    proxy.heal()
    assert_whole(pull(repository))


def test_bytes_after_the_end_are_refused_also_when_no_length_announced_them(repository, proxy):
    def longer(number, headers, body):
        return (
            number,
            {name: value for name, value in headers.items() if name != "Content-Length"},
            body + b"x",
        )

    proxy.always(BLOBS, changed(longer))
    with pytest.raises(DigestMismatch, match="more than"):
        pull(repository)


def test_a_head_by_digest_must_answer_with_that_digest(repository, proxy):
    other = Digest.of(b"another")
    proxy.fail(HEADS, with_headers(docker_content_digest=str(other)))
    with pytest.raises(DigestMismatch) as caught:
        repository.resolve(IMAGE.descriptor.digest)
    assert (caught.value.expected, caught.value.found) == (str(IMAGE.descriptor.digest), str(other))


def test_a_document_larger_than_any_is_not_asked_for(repository, proxy):
    with pytest.raises(InvalidImage, match="more than the"):
        repository.read_blob(attrs.evolve(MANIFEST.config, size=MAX_DOCUMENT_BYTES + 1))
    assert proxy.asked == []


def test_a_manifest_of_another_size_than_its_descriptor_says_is_refused(repository):
    with pytest.raises(DigestMismatch):
        repository.read_manifest(attrs.evolve(IMAGE.descriptor, size=IMAGE.descriptor.size - 1))


def test_a_stream_after_an_error_can_be_read_on(repository, proxy):
    """What was read before is good, and the same stream may be asked again."""
    proxy.fail(BLOBS, cut(after=70_000))
    proxy.fail(BLOBS, status(500), times=SOON.attempts)
    read = b""
    with repository.blob(LAYER) as stream:
        with pytest.raises(RegistryError):  # noqa: PT012 - nobody knows which read it is
            while block := stream.read(1000):
                read += block
        assert stream.tell() == len(read)
        assert str(len(read)) in repr(stream)
        assert read + stream.read() == BLOB


def test_a_stream_can_be_wrapped_as_any_file(repository):
    with io.BufferedReader(repository.blob(LAYER)) as file:
        assert file.read(5) + file.read() == BLOB


def test_the_pages_of_tags_are_bounded(repository, proxy):
    again = {"Link": '</v2/app/tags/list>; rel="next"'}
    proxy.always("GET .*/tags/list", status(200, again, b'{"tags":["1"]}'))
    with pytest.raises(RegistryError, match="pages of tags"):
        list(repository.tags())


def test_an_unknown_host_is_an_error_of_the_registry():
    with (
        Registry("no-such-host.invalid", SETTINGS) as registry,
        pytest.raises(RegistryError, match=r"there is no host no-such-host\.invalid"),
    ):
        registry.repository("app").resolve("1")


def test_a_closed_port_is_an_error_of_the_registry(proxy):
    with serve_faults() as gone:
        pass
    with (
        Registry(gone.address, SETTINGS) as registry,
        pytest.raises(TransferInterrupted, match="cannot be reached"),
    ):
        registry.repository("app").resolve("1")


def test_the_wish_of_the_server_for_a_long_wait_is_passed_on(repository, proxy):
    proxy.always(MANIFESTS, status(429, {"Retry-After": "3600"}))
    with pytest.raises(TooManyRequests) as caught:
        repository.manifest("1")
    assert "'3600'" in caught.value.__notes__[0]
    assert len(proxy.lines(MANIFESTS)) == 1


def test_attempts_are_bounded(repository, proxy):
    proxy.always(MANIFESTS, status(503))
    with pytest.raises(RegistryError):
        repository.manifest("1")
    assert len(proxy.lines(MANIFESTS)) == SOON.attempts


def test_redirects_are_bounded(repository, proxy):
    proxy.always(BLOBS, redirect("?again"))
    with pytest.raises(RegistryError, match="redirects more than 5 times"):
        repository.blob(LAYER)
    assert len(proxy.lines(BLOBS)) == 6


def test_an_error_has_the_words_of_the_registry_in_one_line_without_control_characters(repository, proxy):
    body = b'{"errors":[{"code":"DENIED","message":"not\\u001b[31m\\n' + b"x" * 5000 + b'"}]}'
    proxy.always(MANIFESTS, status(403, {}, body))
    with pytest.raises(Denied) as caught:
        repository.manifest("1")
    assert (caught.value.code, caught.value.status) == ("DENIED", 403)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


# --- another host ---------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere():
    with serve_faults() as elsewhere:
        yield elsewhere


@pytest.fixture
def trusting(proxy):
    """A client that has shown its credentials to the proxy."""
    settings = attrs.evolve(SETTINGS, auth=Credentials("somebody", SECRET))
    proxy.fail(HEADS, status(401, {"WWW-Authenticate": 'Basic realm="tests"'}))
    with Registry(proxy.address, settings) as registry:
        repository = registry.repository("app")
        repository.resolve("1")
        assert "Authorization" in proxy.asked[-1].headers
        yield repository


def test_a_redirect_to_another_host_is_followed_without_credentials(trusting, proxy, elsewhere):
    proxy.fail(BLOBS, redirect(f"http://{elsewhere.address}/bucket/blob?signature=1"))
    elsewhere.fail("GET /bucket/.*", status(200, {}, BLOB))
    with trusting.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB
    assert "Authorization" in proxy.asked[-1].headers
    assert "Authorization" not in elsewhere.asked[0].headers


def test_another_port_is_another_host(trusting, proxy, elsewhere):
    proxy.fail(MANIFESTS, redirect(f"http://{elsewhere.address}/x"))
    elsewhere.fail("GET /x", status(200, {"Content-Type": media_types.MANIFEST}, IMAGE.content))
    assert trusting.manifest("1")[0] == IMAGE.descriptor
    assert "Authorization" not in elsewhere.asked[0].headers


def test_a_redirect_on_the_same_host_keeps_the_credentials(trusting, proxy):
    proxy.fail(BLOBS, redirect("/elsewhere/here"))
    proxy.fail("GET /elsewhere/here", status(200, {}, BLOB))
    with trusting.blob(LAYER) as stream:
        assert stream.read() == BLOB
    assert "Authorization" in proxy.asked[-1].headers


def test_another_host_may_not_ask_for_credentials(trusting, proxy, elsewhere):
    proxy.fail(BLOBS, redirect(f"http://{elsewhere.address}/x"))
    elsewhere.always(".*", status(401, {"WWW-Authenticate": f'Basic realm="http://{elsewhere.address}/"'}))
    with pytest.raises(Unauthorized):
        trusting.blob(LAYER)
    assert all("Authorization" not in asked.headers for asked in elsewhere.asked)


def test_a_blob_goes_on_at_the_place_where_it_was_redirected(repository, proxy, elsewhere):
    proxy.always(BLOBS, redirect(f"http://{elsewhere.address}/x"))
    cut_short = status(200, {"Content-Length": len(BLOB)}, BLOB[:5000])
    rest = {"Content-Range": f"bytes 5000-{len(BLOB) - 1}/{len(BLOB)}"}
    elsewhere.fail("GET /x", cut_short)
    elsewhere.fail("GET /x", status(206, rest, BLOB[5000:]))
    with repository.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB


def test_the_next_page_of_tags_may_not_be_elsewhere(trusting, proxy, elsewhere):
    """Its request would carry the credentials, so it carries none, and the other host gives nothing."""
    link = {"Link": f'<http://{elsewhere.address}/tags>; rel="next"'}
    proxy.fail("GET .*/tags/list", status(200, link, b'{"tags":["1"]}'))
    elsewhere.always(".*", status(401, {"WWW-Authenticate": "Basic"}))
    with pytest.raises(Unauthorized):
        list(trusting.tags())
    assert "Authorization" not in elsewhere.asked[0].headers


def test_tags_come_page_by_page(repository, proxy):
    proxy.fail(
        "GET .*/tags/list", status(200, {"Link": '</v2/app/tags/list?last=1>; rel="next"'}, b'{"tags":["1"]}')
    )
    proxy.fail("GET .*/tags/list.last=1", status(200, {}, b'{"tags":["2"]}'))
    assert list(repository.tags()) == ["1", "2"]


def test_the_secret_is_in_no_error(trusting, proxy, caplog):
    """A registry that repeats what it was sent does not make us repeat it."""
    echo = b'{"errors":[{"code":"DENIED","message":"no %s for you"}]}' % SECRET.encode()
    proxy.always(MANIFESTS, status(403, {}, echo))
    with caplog.at_level("DEBUG"), pytest.raises(Denied) as caught:
        trusting.manifest("1")
    seen = (
        f"{caught.value!r} {caught.value.__notes__} {caplog.text} {trusting!r} {trusting.registry.settings!r}"
    )
    assert SECRET not in seen
    assert "no *** for you" in str(caught.value)


# --- mirrors --------------------------------------------------------------------------------------------


@pytest.fixture
def mirrored(proxy, elsewhere):
    """A client of the proxied registry with *elsewhere* as its mirror, below a prefix."""
    settings = attrs.evolve(
        SETTINGS, mirrors=(f"http://{elsewhere.address}/hub",), auth=Credentials("somebody", SECRET)
    )
    with Registry(proxy.address, settings) as registry:
        yield registry.repository("app")


def test_a_mirror_is_asked_first(mirrored, proxy, elsewhere):
    found = {"Content-Type": media_types.MANIFEST}
    elsewhere.fail("GET /v2/hub/app/manifests/1", status(200, found, IMAGE.content))
    elsewhere.fail(f"GET /v2/hub/app/blobs/{LAYER.digest}", status(200, {}, BLOB))
    assert mirrored.manifest("1")[0] == IMAGE.descriptor
    with mirrored.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB
    assert proxy.asked == []


def test_a_mirror_never_gets_the_credentials_of_the_registry(mirrored, elsewhere, monkeypatch, tmp_path):
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none"))
    elsewhere.always(".*", status(401, {"WWW-Authenticate": "Basic"}))
    assert_whole(pull(mirrored))
    assert all("Authorization" not in asked.headers for asked in elsewhere.asked)


@pytest.mark.parametrize(
    "fault",
    [status(404), status(500), status(200, {}, b"<html>"), redirect("?again")],
    ids=["404", "500", "nonsense", "circle"],
)
def test_the_registry_is_asked_when_a_mirror_fails(mirrored, elsewhere, fault):
    elsewhere.always(".*", fault)
    assert mirrored.resolve("1") == IMAGE.descriptor
    assert_whole(pull(mirrored))


def test_the_registry_goes_on_where_a_mirror_keeps_breaking(mirrored, proxy, elsewhere):
    elsewhere.fail("GET .*", status(200, {"Content-Length": len(BLOB)}, BLOB[:5000]))
    elsewhere.always("GET .*", cut_at_once(len(BLOB)))
    with mirrored.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB
    assert proxy.asked[-1].headers["Range"] == "bytes=5000-"


def cut_at_once(size):
    return status(206, {"Content-Length": size - 5000, "Content-Range": f"bytes 5000-{size - 1}/{size}"})


def test_the_registry_goes_on_where_a_mirror_gave_up(mirrored, proxy, elsewhere):
    elsewhere.fail("GET .*", status(200, {"Content-Length": len(BLOB)}, BLOB[:5000]))
    elsewhere.always("GET .*", status(404))
    with mirrored.blob(LAYER, verify=True) as stream:
        assert stream.read() == BLOB
    assert proxy.asked[-1].headers["Range"] == "bytes=5000-"


# --- proxies of the environment -------------------------------------------------------------------------


def test_the_proxy_of_the_environment_is_used(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://user:secret@{proxy.address}")
    found = {"Content-Type": media_types.MANIFEST}
    proxy.fail("GET http://registry.example:5000/v2/app/manifests/1", status(200, found, IMAGE.content))
    with Registry("registry.example:5000", SETTINGS) as registry:
        assert registry.repository("app").manifest("1")[0] == IMAGE.descriptor
    assert proxy.asked[0].headers["proxy-authorization"] == "Basic dXNlcjpzZWNyZXQ="


def test_a_proxy_that_cannot_be_reached_is_named_in_the_hint(monkeypatch):
    with serve_faults() as gone:
        monkeypatch.setenv("http_proxy", f"http://{gone.address}")
    with (
        Registry("registry.example:5000", SETTINGS) as registry,
        pytest.raises(TransferInterrupted, match="through the proxy") as caught,
    ):
        registry.repository("app").resolve("1")
    assert "NO_PROXY" in caught.value.__notes__[0]


def test_hosts_of_no_proxy_are_reached_without(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "invalid")
    with (
        Registry("no-such-host.invalid", SETTINGS) as registry,
        pytest.raises(RegistryError, match="there is no host"),
    ):
        registry.repository("app").resolve("1")
    assert proxy.asked == []


def test_loopback_addresses_are_reached_without_a_proxy(repository, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert repository.resolve("1") == IMAGE.descriptor


# --- another process ------------------------------------------------------------------------------------


def test_a_forked_child_has_connections_of_its_own(server):
    """Two processes on one connection would read each other's answers."""
    with Registry(server.address, SETTINGS) as registry:
        repository = registry.repository("app")
        repository.resolve("1")
        child = os.fork()
        if not child:
            code = 1
            try:
                code = int(repository.resolve("1") != IMAGE.descriptor)
            finally:
                os._exit(code)
        assert repository.resolve("1") == IMAGE.descriptor
    assert os.waitpid(child, 0)[1] == 0
