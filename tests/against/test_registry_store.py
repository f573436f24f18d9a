"""A registry and a store together: a blob goes from the stream into the store, in as many tries as it takes."""

import os
import signal
import subprocess
import sys

import pytest
from fault_proxy import corrupt, cut, stall
from fault_proxy import proxy as proxy  # noqa: PLC0414 - a fixture
from registry_server import SOON, make_image, serve_registry

import pycontain
from pycontain.errors import DigestMismatch, TransferInterrupted
from pycontain.oci.manifest import parse_document
from pycontain.registry.client import Registry
from pycontain.registry.push import push_image
from pycontain.registry.settings import RegistrySettings
from pycontain.store.store import Store

SETTINGS = RegistrySettings(plain_http=True, retries=SOON)
IMAGE = make_image(os.urandom(300_000))
LAYER = parse_document(IMAGE.content).layers[0]
BLOBS = "GET .*/blobs/.*"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        with Registry(server.address, SETTINGS) as registry:
            push_image(registry.repository("app"), IMAGE.descriptor, IMAGE, "1")
        yield server


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def pull(proxy, store):
    with (
        Registry(proxy.address, SETTINGS) as registry,
        store.blobs.partial(LAYER) as incoming,
        registry.repository("app").blob(LAYER, incoming.offset) as stream,
    ):
        while chunk := stream.read(4096):
            incoming.write(chunk)
        incoming.commit()


def assert_stored(store):
    assert store.blobs.read(LAYER.digest) == IMAGE.blobs[LAYER.digest]


def test_a_second_try_goes_on_where_the_first_ended(proxy, store):
    proxy.fail(BLOBS, cut(after=100_000))
    proxy.fail(BLOBS, cut(-1), times=SOON.attempts)
    with pytest.raises(TransferInterrupted):
        pull(proxy, store)
    pull(proxy, store)
    assert_stored(store)
    assert proxy.asked[-1].headers["Range"] != "bytes=0-"


def test_a_flipped_blob_is_forgotten_and_a_second_try_succeeds(proxy, store):
    proxy.fail(BLOBS, corrupt(1000))
    with pytest.raises(DigestMismatch):
        pull(proxy, store)
    assert not store.blobs.has(LAYER.digest)
    pull(proxy, store)
    assert_stored(store)


PULLER = """
import sys
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.registry.client import Registry
from pycontain.store.store import Store

address, digest, size, path = sys.argv[1:]
layer = Descriptor("application/octet-stream", Digest.parse(digest), int(size))
with Registry(address) as registry, Store(path).blobs.partial(layer) as incoming:
    with registry.repository("app").blob(layer, incoming.offset) as stream:
        while chunk := stream.read(4096):
            incoming.write(chunk)
            print(incoming.offset, flush=True)
    incoming.commit()
"""


def test_another_process_goes_on_after_a_kill(proxy, store):
    script = [sys.executable, "-c", PULLER, proxy.address, str(LAYER.digest), str(LAYER.size), store.path]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(pycontain.__file__))}
    proxy.fail(BLOBS, stall(after=50_000))
    with subprocess.Popen(script, env=environment, stdout=subprocess.PIPE) as first:
        reached = int(first.stdout.readline())
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    assert reached > 0
    subprocess.run(script, env=environment, stdout=subprocess.DEVNULL, check=True)
    assert_stored(store)
    start = int(proxy.asked[-1].headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert reached <= start < LAYER.size
