"""What ``pycontain.testing`` gives to the tests of others."""

import http.client
import os
import socket
import threading
import urllib.error
import urllib.request

import pytest
from owners import comes_true

from pycontain import Container, ExecutionParameters, Image
from pycontain.errors import CommandNotFound, HostUnsupported, InvalidSpec
from pycontain.testing import ContainerFactory, make_image, no_leaks, registry, temporary_store

SLEEP = ("sleep", "1000")


# --- containers ------------------------------------------------------------------------------------------


def test_the_last_container_ends_first():
    ended = []
    with ContainerFactory() as container:
        for name in ("first", "second"):
            running = container(Container("host:").name(name), *SLEEP)
            thread = threading.Thread(
                target=lambda running=running: ended.append(running.wait() and running.name)
            )
            thread.start()
        container.close()
        assert comes_true(lambda: len(ended) == 2)
        container.close()
    assert ended == ["second", "first"]
    assert container.closed


def test_a_container_may_be_closed_before():
    with ContainerFactory() as container:
        container("host:", *SLEEP).close()
        container("host:", *SLEEP)
    assert [running.status for running in container.started] == ["exited", "exited"]


def test_what_was_started_ends_when_the_next_cannot_start():
    container = ContainerFactory()
    with pytest.raises(CommandNotFound), container:
        container("host:", *SLEEP) and container("host:", "nothing-here")
    assert [running.status for running in container.started] == ["exited"]


def test_input_is_passed_on():
    with ContainerFactory() as container:
        assert container("host:", "cat", input="words").wait().stdout == "words"


def test_wrong_arguments_are_refused_as_ever():
    with ContainerFactory() as container, pytest.raises(InvalidSpec):
        container("host:", "true", max_output="much")
    assert container.started == ()


# --- leaks -----------------------------------------------------------------------------------------------


def test_what_is_left_behind_is_named():
    with pytest.raises(AssertionError) as caught, no_leaks(patience=0):
        running = Container("host:").start(*SLEEP)
    running.close()
    assert str(caught.value).startswith("left behind:\n  ")
    assert f"processes: {running.pid} pycontain-init" in str(caught.value)


def test_nothing_is_left_of_a_container():
    with no_leaks():
        Container("host:").run("true", check=True)


def test_an_error_of_the_block_comes_first():
    with pytest.raises(CommandNotFound), no_leaks(patience=0):
        Container("host:").run("nothing-here")


# --- images ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store():
    with temporary_store() as made:
        yield made


def test_an_image_has_its_files(store):
    made = make_image(
        "one:1", {"/etc/deep/file": "text", "bytes": b"\xff", "run": "#!/bin/sh\n"}, busybox=True
    )
    command = "cat /etc/deep/file; stat -c '%n %a %u' /etc/deep /etc/deep/file /bytes /run"
    printed = Container(made).run("sh", "-c", command, check=True).stdout
    assert printed == "text/etc/deep 755 0\n/etc/deep/file 644 0\n/bytes 644 0\n/run 755 0\n"


def test_an_image_says_how_it_is_run(store):
    config = ExecutionParameters(cmd=("echo", "by itself"), env=("PATH=/bin",))
    make_image("two:1", {}, busybox=True, config=config)
    assert Container("two:1").run().stdout == "by itself\n"


def test_equal_values_make_equal_images(store):
    made = [make_image(f"{name}:1", {"a/b": "1", "c": "2"}) for name in ("three", "four")]
    other = make_image("five:1", {"a/b": "1", "c": "3"})
    assert made[0].digest == made[1].digest != other.digest


def test_an_image_may_be_for_another_machine(store):
    assert make_image("six:1", {"a": ""}, platform="linux/riscv64").platform == "linux/riscv64"


def test_without_busybox_the_host_is_told_what_it_lacks(store, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostUnsupported, match="static busybox"):
        make_image("seven:1", {}, busybox=True)


def test_a_store_is_gone_afterwards(monkeypatch):
    monkeypatch.setenv("PYCONTAIN_STORE", "/nonexistent/store")
    with temporary_store() as made:
        Container(make_image("eight:1", {}, busybox=True)).run("true", check=True)
        assert os.path.isdir(made.path)
    assert not os.path.exists(os.path.dirname(made.path))
    assert os.environ["PYCONTAIN_STORE"] == "/nonexistent/store"


# --- a registry ------------------------------------------------------------------------------------------


def ask(method, url, content=None, **headers):
    """``(status, headers, body)``."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_what_is_pushed_can_be_run_by_its_name(store):
    with registry() as address:
        made = make_image(f"{address}/team/app:1", {"said": "hello"}, busybox=True)
        made.push()
        made.remove()
        assert Container(f"{address}/team/app:1").run("cat", "/said").stdout == "hello"


def test_nothing_listens_afterwards():
    with registry() as address:
        host, _, port = address.partition(":")
        connection = http.client.HTTPConnection(host, int(port))
        connection.request("GET", "/v2/")
        assert connection.getresponse().read() == b"{}"
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


@pytest.fixture(scope="module")
def served(store):
    """The URL of a repository with one image under three tags, and the image."""
    with registry() as address:
        for tag in ("a", "b", "c"):
            image = make_image(f"{address}/app:{tag}", {"file": "0123456789" * 1000})
            Image.push(image, f"{address}/app:{tag}")
        yield f"http://{address}/v2/app", image


def test_tags_come_in_pages(served):
    url, _ = served
    _, headers, body = ask("GET", f"{url}/tags/list?n=2")
    assert body == b'{"name": "app", "tags": ["a", "b"]}'
    assert headers["Link"] == '</v2/app/tags/list?n=2&last=b>; rel="next"'
    assert ask("GET", f"{url}/tags/list?n=2&last=b")[2] == b'{"name": "app", "tags": ["c"]}'


def test_a_blob_comes_in_parts(served):
    url, image = served
    blob = f"{url}/blobs/{image.layers[0].descriptor.digest}"
    whole = ask("GET", blob)[2]
    status, headers, part = ask("GET", blob, Range="bytes=2-5")
    assert (status, part, headers["Content-Range"]) == (206, whole[2:6], f"bytes 2-5/{len(whole)}")
    assert ask("GET", blob, Range=f"bytes={len(whole)}-")[0] == 416
    assert ask("HEAD", blob)[1]["Content-Length"] == str(len(whole))


def test_what_is_deleted_is_not_found(served):
    url, _ = served
    _, _, content = ask("GET", f"{url}/manifests/a")
    ask("PUT", f"{url}/manifests/gone", content, Content_Type="application/json")
    assert ask("DELETE", f"{url}/manifests/gone")[0] == 202
    assert ask("GET", f"{url}/manifests/gone")[0] == 404
    assert ask("GET", f"{url}/manifests/a")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("GET", "manifests/nothing", None, 404, b"MANIFEST_UNKNOWN"),
        ("PUT", "manifests/wrong", b"[", 400, b"MANIFEST_INVALID"),
        ("PUT", "manifests/wrong", b'{"layers": [{"digest": "sha256:0"}]}', 400, b"MANIFEST_BLOB_UNKNOWN"),
        ("PUT", f"manifests/sha256:{'0' * 64}", b"{}", 400, b"DIGEST_INVALID"),
        ("POST", f"blobs/uploads/?digest=sha256:{'0' * 64}", b"x", 400, b"DIGEST_INVALID"),
        ("PATCH", "blobs/uploads/0", b"x", 404, b"BLOB_UPLOAD_UNKNOWN"),
        ("GET", "nothing", None, 404, b"UNSUPPORTED"),
    ],
)
def test_a_refusal_has_the_code_of_the_specification(served, method, path, content, status, code):
    found, _, body = ask(method, f"{served[0]}/{path}", content)
    assert (found, code in body) == (status, True)
