"""Long work of ``pycontain.aio`` that is cancelled ends at once, and leaves nothing behind."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import threading

import pytest
from loops import comes_true, in_loop
from owners import PATIENCE, marked, new_mark
from trees import busybox_tree

from pycontain import aio
from pycontain.interruption import Interrupted, Interruption, ended_by, go_on, pause
from pycontain.testing import temporary_store


@pytest.fixture
def store():
    with temporary_store() as made:
        yield aio.Store(made.path)


async def is_cancelled_soon(task):
    """Whether it has ended long before any time-out of a registry."""
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    return task.cancelled()


class SilentRegistry:
    """A registry that answers as *documents* says, by path, and falls silent at every other path, or in the middle of a document.

    ``asked`` is set then, and ``left`` when the client has gone.
    """

    def __init__(self, documents=None):
        self.documents = documents or {}
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def answer(self, reader, writer):
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                method, path, *_ = (await reader.readuntil(b"\r\n\r\n")).decode().split()
                if path not in self.documents:
                    break
                kind, content, sent = self.documents[path]
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
                writer.write(head.encode() + (b"" if method == "HEAD" else content[:sent]))
                await writer.drain()
                if sent < len(content) and method != "HEAD":
                    break
            self.asked.set()
            await reader.read()
            self.left.set()

    @contextlib.asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}/a:1"


def an_image_that_stops_in_the_middle():
    """What a registry has of an image whose layer does not come to its end."""
    layer = os.urandom(1 << 20)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]}}
    ).encode()
    kinds = "application/vnd.oci.image."
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kinds}manifest.v1+json",
            "config": _described(f"{kinds}config.v1+json", config),
            "layers": [_described(f"{kinds}layer.v1.tar", layer)],
        }
    ).encode()
    blobs = "/v2/a/blobs/"
    return {
        "/v2/a/manifests/1": (f"{kinds}manifest.v1+json", manifest, len(manifest)),
        f"/v2/a/manifests/{_digest(manifest)}": (f"{kinds}manifest.v1+json", manifest, len(manifest)),
        blobs + _digest(config): ("application/octet-stream", config, len(config)),
        blobs + _digest(layer): ("application/octet-stream", layer, 1 << 19),
    }


def _digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _described(kind, content):
    return {"mediaType": kind, "digest": _digest(content), "size": len(content)}


def pulling():
    return [thread for thread in threading.enumerate() if thread.name == "pycontain-pull"]


@in_loop
async def test_a_pull_from_a_registry_that_is_silent(store):
    registry = SilentRegistry()
    async with registry.serving() as reference:
        task = asyncio.create_task(aio.Image.pull(reference, plain_http=True, unpack=False, store=store))
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
        assert await is_cancelled_soon(task)
        await asyncio.wait_for(registry.left.wait(), PATIENCE)


@in_loop
async def test_a_pull_in_the_middle_of_a_layer(store):
    registry = SilentRegistry(an_image_that_stops_in_the_middle())
    async with registry.serving() as reference:
        pull = aio.Image.pull(reference, plain_http=True, unpack=False, platform="linux/amd64", store=store)
        task = asyncio.create_task(pull)
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
        assert await is_cancelled_soon(task)
        await asyncio.wait_for(registry.left.wait(), PATIENCE)
        assert await comes_true(lambda: pulling() == [])
    assert await store.images() == ()


@in_loop
async def test_a_run_whose_image_does_not_come(store, monkeypatch):
    monkeypatch.setenv("PYCONTAIN_STORE", store.path)
    registry = SilentRegistry()
    async with registry.serving() as reference:
        task = asyncio.create_task(aio.Container(reference).run("true"))
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
        assert await is_cancelled_soon(task)


@in_loop
async def test_a_build_ends_with_its_commands(store, tmp_path):
    tree = busybox_tree(tmp_path / "tree")
    mark = new_mark()
    await aio.Image.from_rootfs(tree, tag="base:1", store=store)
    (tmp_path / "Dockerfile").write_text(f"FROM base:1\nRUN /bin/sleep {mark}\n")
    task = asyncio.create_task(aio.build(tmp_path, tags="made:1", pull="never", store=store))
    assert await comes_true(lambda: marked(mark) or task.done())
    assert await is_cancelled_soon(task)
    assert await comes_true(lambda: marked(mark) == [])
    assert [str(image) for image in await store.images()] == ["base:1"]


@in_loop
async def test_who_waits_for_a_lock_of_another(store, tmp_path):
    """Garbage is collected by one process at a time; flock(2) itself cannot be interrupted in a thread."""
    await store.images()
    held = [os.open(path, os.O_RDWR) for path in _locks(store.path)]
    for fd in held:
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        task = asyncio.create_task(store.gc())
        await asyncio.sleep(0.02)
        assert not task.done()
        assert await is_cancelled_soon(task)
    finally:
        for fd in held:
            os.close(fd)


def _locks(folder):
    for above, _, names in os.walk(folder):
        yield from (os.path.join(above, name) for name in names if "lock" in above + name)


# --- the word itself ------------------------------------------------------------------------------------


def test_an_interruption_calls_what_ends_the_work_once():
    called = []
    interruption = Interruption()

    def work():
        with ended_by(lambda: called.append(1)):
            interruption.interrupt()
            interruption.interrupt()
            go_on()

    with pytest.raises(Interrupted):
        interruption.carry_out(work)
    assert called == [1]


def test_work_that_begins_after_the_interruption_does_not_begin():
    interruption = Interruption()
    interruption.interrupt()
    for act in (go_on, lambda: pause(1000), lambda: ended_by(print).__enter__()):
        with pytest.raises(Interrupted):
            interruption.carry_out(act)


def test_work_that_nobody_can_interrupt_goes_on():
    go_on()
    pause(0)
    with ended_by(lambda: pytest.fail("nobody has interrupted it")):
        pass
