"""Pulls that fail: the error says why, no half of an image is visible, and the next try succeeds."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from busybox_images import busybox_layer, image, layers_of, push_test_image, root
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import Dir, File, HardLink, layer

import pycontain
from pycontain import Container
from pycontain.errors import (
    DigestMismatch,
    ImageNotFound,
    InvalidImage,
    InvalidSpec,
    LayerTooLarge,
    RegistryError,
    StoreError,
)
from pycontain.image import Image, Store
from pycontain.image.progress import Phase
from pycontain.image.runnable import runnable
from pycontain.kernel import syscalls
from pycontain.layers.entries import Limits
from pycontain.oci.digest import Digest
from pycontain.oci.source import parse_source
from pycontain.runtime import engine as engines
from pycontain.store.snapshots import Kind

sys.path.append(str(Path(__file__).parent.parent / "against"))  # the registry is started there
from fault_proxy import corrupt, cut, stall, status, with_body
from fault_proxy import proxy as proxy  # noqa: PLC0414 - a fixture
from registry_server import server as server  # noqa: PLC0414 - a fixture

BLOBS = "GET .*/blobs/.*"
RANDOM = layer(root(File("random", os.urandom(3_000_000))))


@pytest.fixture
def made(tmp_path):
    return image(busybox_layer(tmp_path), RANDOM, layer(root(File("etc/version", b"12\n"))))


@pytest.fixture
def reference(server, proxy, made):
    """An image of three layers, asked for through the proxy."""
    name = f"app{os.urandom(4).hex()}:1"
    push_test_image(server.address, name, made)
    return f"{proxy.address}/{name}"


def visible(store):
    """The images and layers that somebody could use."""
    return [entry.name for entry in store.names.list()], [
        found for kind in Kind for found in store.snapshots(kind).list()
    ]


def assert_runs(reference):
    assert Container(reference).run("cat", "/etc/version").stdout == "12\n"


def blob_of(made, number):
    return f"GET .*/blobs/{layers_of(made)[number].digest}"


# --- on the way -----------------------------------------------------------------------------------------


def test_a_cut_connection_is_mended_on_the_way(store, proxy, reference):
    proxy.fail(BLOBS, cut(after=1000), times=2)
    assert_runs(reference)


def test_a_registry_that_goes_away_is_named_and_the_next_try_goes_on(store, proxy, made, reference):
    pattern = blob_of(made, 1)
    proxy.fail(pattern, cut(after=1_000_000))
    proxy.always(pattern, status(404))
    with pytest.raises(RegistryError):
        Image.pull(reference)
    assert visible(store)[0] == []
    proxy.heal()
    before = len(proxy.asked)
    assert_runs(reference)
    (again,) = (asked for asked in proxy.asked[before:] if str(layers_of(made)[1].digest) in asked.path)
    assert again.headers["Range"] == "bytes=1000000-"


def test_a_flipped_bit_is_found_and_the_next_try_succeeds(store, proxy, made, reference):
    proxy.fail(blob_of(made, 1), corrupt(2_000_000))
    with pytest.raises(DigestMismatch):
        Container(reference).run("true")
    names, snapshots = visible(store)
    assert names == []
    assert len(snapshots) <= 1  # the lowest layer was sound
    assert_runs(reference)


def test_the_first_layer_flipped(store, proxy, made, reference):
    """While it is unpacked it is not verified yet; its tree must not become visible."""
    proxy.fail(blob_of(made, 0), corrupt(500_000))
    with pytest.raises(DigestMismatch):
        Container(reference).run("true")
    assert visible(store) == ([], [])
    assert_runs(reference)


@pytest.mark.parametrize("content", [b"{}", b"", b"not json", b'{"schemaVersion":2}'])
def test_a_manifest_that_is_none(store, proxy, reference, content):
    proxy.fail("GET .*/manifests/.*", with_body(content))
    with pytest.raises((InvalidImage, RegistryError)):
        Container(reference).run("true")
    assert visible(store) == ([], [])
    assert_runs(reference)


def test_a_config_that_is_another_one(store, proxy, made, reference):
    config = Digest.parse(json.loads(made.content)["config"]["digest"])
    proxy.fail(f"GET .*/blobs/{config}", with_body(b"x" * len(made.blobs[config])))
    with pytest.raises(DigestMismatch):
        Container(reference).run("true")
    assert_runs(reference)


def test_a_refusal_is_passed_on(store, proxy, reference):
    proxy.always(BLOBS, status(404))
    with pytest.raises(RegistryError):
        Container(reference).run("true")
    assert visible(store) == ([], [])
    proxy.heal()
    assert_runs(reference)


def test_a_callback_may_end_a_pull(store, reference):
    def enough(event):
        if event.phase is Phase.DOWNLOAD:
            raise KeyError(event.layer)

    with pytest.raises(KeyError):
        Image.pull(reference, progress=enough)
    assert visible(store)[0] == []
    assert_runs(reference)


# --- images that are wrong themselves -------------------------------------------------------------------


def test_a_wrong_diff_id_is_refused_every_time(store, server, tmp_path):
    base = busybox_layer(tmp_path)
    lying = image(base, RANDOM, diff_ids=(Digest.of(base), Digest.of(b"something else")))
    reference = push_test_image(server.address, "lying:1", lying)
    for _ in range(2):
        with pytest.raises(DigestMismatch, match="its image says"):
            Container(reference).run("true")
        assert visible(store)[0] == []


def test_a_layer_that_is_no_tar(store, server, tmp_path):
    reference = push_test_image(server.address, "notar:1", image(busybox_layer(tmp_path), b"x" * 5000))
    with pytest.raises(InvalidImage):
        Container(reference).run("true")
    assert visible(store)[0] == []


def test_more_diff_ids_than_layers(store, server, tmp_path):
    base = busybox_layer(tmp_path)
    reference = push_test_image(server.address, "more:1", image(base, diff_ids=(Digest.of(base),) * 2))
    with pytest.raises(InvalidImage, match="2"):
        Container(reference).run("true")


def test_a_hard_link_to_a_lower_layer_is_refused(store, server, tmp_path):
    """In its own layer there is no such file; Docker refuses it too."""
    made = image(busybox_layer(tmp_path), layer(root(HardLink("sh2", to="bin/busybox"))))
    with pytest.raises(InvalidImage, match="hard link"):
        Container(push_test_image(server.address, "link:1", made)).run("true")


def test_what_was_unpacked_of_a_refused_layer_is_swept(store, server, tmp_path):
    made = image(
        busybox_layer(tmp_path), layer(root(Dir("d", mode=0)), root(File("d/f")))[:-1024] + b"x" * 512
    )
    with pytest.raises(InvalidImage):
        Container(push_test_image(server.address, "half:1", made)).run("true")
    pycontain.shutdown()
    store.gc()
    assert store.usage().bytes == 0


# --- policies -------------------------------------------------------------------------------------------


def pull(reference, policy):
    return runnable(parse_source(reference), engines.engine(), policy=policy)


def test_never_asks_nobody(store, proxy, reference):
    with pytest.raises(ImageNotFound) as caught:
        pull(reference, "never")
    assert proxy.asked == []
    assert caught.value.__notes__ == [f"pull it: Image.pull({reference!r})"]


def test_never_takes_what_is_there(store, proxy, reference):
    Image.pull(reference)
    before = len(proxy.asked)
    pull(reference, "never")
    assert len(proxy.asked) == before


def test_always_asks_and_fetches_nothing_again(store, proxy, reference):
    Image.pull(reference)
    before = len(proxy.asked)
    pull(reference, "always")
    assert [str(asked) for asked in proxy.asked[before:] if asked.path != "/v2/"] == [
        f"HEAD /v2/{reference.partition('/')[2].replace(':', '/manifests/')}"
    ]


def test_always_fails_without_its_registry(store, proxy, reference):
    Image.pull(reference)
    proxy.always(".*", status(404))
    with pytest.raises((RegistryError, ImageNotFound)):
        pull(reference, "always")


def test_newer_makes_do_without_its_registry(store, proxy, reference):
    Image.pull(reference)
    proxy.always(".*", status(403))
    pull(reference, "newer")


def test_newer_fetches_what_is_new(store, server, proxy, reference, tmp_path):
    old = Image.pull(reference)
    name = reference.partition("/")[2]
    push_test_image(server.address, name, image(busybox_layer(tmp_path), RANDOM))
    assert Image.pull(reference, policy="missing") == old
    assert Image.pull(reference, policy="newer") != old


def test_a_policy_that_there_is_not(store, reference):
    with pytest.raises(InvalidSpec, match="sometimes"):
        Image.pull(reference, policy="sometimes")


def test_a_tag_that_is_not_there_is_answered_with_the_one_that_was_meant(store, server, tmp_path):
    push_test_image(server.address, "tagged:3.20", image(busybox_layer(tmp_path)))
    with pytest.raises(ImageNotFound) as caught:
        Image.pull(f"{server.address}/tagged:3.2")
    assert caught.value.__notes__[-1] == "did you mean 3.20?"


def test_a_layer_that_is_larger_than_the_caller_allows(store, reference):
    with pytest.raises(LayerTooLarge) as caught:
        Image.pull(reference, layer_limits=Limits(max_bytes=2_000_000))
    assert "max_bytes" in str(caught.value) + str(caught.value.__notes__)
    assert visible(store)[0] == []
    assert Image.pull(reference).references == (reference,)


# --- a full disk ----------------------------------------------------------------------------------------


@pytest.fixture
def small(store):
    """A store on a file system of its own; the function gives it another size."""
    os.mkdir(f"{store.path}-small")
    syscalls.mount("none", f"{store.path}-small", "tmpfs", 0, "size=1m,mode=755")

    def resize(size):
        options = f"size={size}"
        syscalls.mount("none", f"{store.path}-small", "tmpfs", syscalls.MS_REMOUNT, options)
        return Store(f"{store.path}-small")

    yield resize
    pycontain.shutdown()
    syscalls.umount2(f"{store.path}-small", syscalls.MNT_DETACH)
    os.rmdir(f"{store.path}-small")


@pytest.mark.root
@pytest.mark.parametrize("size", ["2m", "6m"])
def test_a_disk_that_becomes_full_is_named_and_with_more_room_the_next_try_succeeds(small, reference, size):
    """With 2 MB the blobs do not fit, with 6 MB they do and the layers do not."""
    store = small(size)
    with pytest.raises(StoreError, match=r"full|No space") as caught:
        Image.pull(reference, store=store)
    assert caught.value.__notes__
    assert visible(store)[0] == []
    image = Image.pull(reference, store=small("64m"))
    assert store.verify().ok
    assert Container(image).run("cat", "/etc/version").stdout == "12\n"


# --- killed ---------------------------------------------------------------------------------------------

PULLER = """
import sys
from pycontain.image import Image
def say(event):
    print(event.phase, event.bytes, flush=True)
Image.pull(sys.argv[1], progress=say)
"""


def test_killed_in_the_middle_another_process_goes_on(store, proxy, made, reference):
    proxy.fail(blob_of(made, 1), stall(after=2_000_000))
    path = os.path.dirname(os.path.dirname(pycontain.__file__))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", PULLER, reference]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first:
        while not first.stdout.readline().startswith(f"{Phase.DOWNLOAD} 2000000"):
            assert first.poll() is None
        first.send_signal(signal.SIGKILL)
    assert visible(store)[0] == []
    before = len(proxy.asked)
    assert_runs(reference)
    (again,) = (asked for asked in proxy.asked[before:] if str(layers_of(made)[1].digest) in asked.path)
    assert again.headers["Range"] == "bytes=2000000-"


def test_interrupted_it_ends_at_once(store, proxy, made, reference):
    """Also while a registry is silent, which may take a minute to be noticed."""
    proxy.fail(blob_of(made, 1), stall(after=2_000_000))
    path = os.path.dirname(os.path.dirname(pycontain.__file__))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", PULLER, reference]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not process.stdout.readline().startswith(f"{Phase.DOWNLOAD} 2000000"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert "KeyboardInterrupt" in process.stderr.read()
    assert visible(store)[0] == []
    assert_runs(reference)
