"""The twins of what a running container can do, each once, and what is different in an event loop."""

import asyncio
import io
import socket
import subprocess
import sys
from subprocess import DEVNULL, PIPE, STDOUT

import pytest
from loops import cancelled, comes_true, in_loop
from owners import marked, new_mark
from worlds import World

import pycontain
from pycontain import aio
from pycontain.errors import (
    CommandFailed,
    CommandNotFound,
    InvalidSpec,
    NothingListens,
    NotReady,
    PathNotFound,
    SandboxError,
)
from pycontain.process.popen import WaitTimeout

HOST = aio.Container("host:")
SERVER = "import socket; s = socket.create_server(('127.0.0.1', 80)); print('up', flush=True)\n"
ECHO = SERVER + "while True:\n c, _ = s.accept(); c.sendall(c.recv(100).upper()); c.close()"


def start(script="sleep infinity", container=HOST):
    return container.start("sh", "-c", script)


def served(program=ECHO):
    return HOST.start(sys.executable, "-c", program)


# --- popen ----------------------------------------------------------------------------------------------


@in_loop
async def test_a_dialogue():
    async with start() as running, running.popen("cat", stdin=PIPE, stdout=PIPE) as process:
        await process.stdin.write(b"one\n")
        assert await process.stdout.readline() == b"one\n"
        await process.stdin.write(b"two\nthree")
        await process.stdin.close()
        assert [line async for line in process.stdout] == [b"two\n", b"three"]
        assert await process.wait() == 0


@in_loop
async def test_text_is_decoded_also_when_it_comes_in_pieces():
    script = r"printf '\303'; sleep 0.02; printf '\244\n\303'"
    async with start() as running, running.popen("sh", "-c", script, stdout=PIPE, text=True) as process:
        assert await process.stdout.readline() == "ä\n"
        assert await process.stdout.read() == "\N{REPLACEMENT CHARACTER}"
        assert await process.stdout.read() == ""


@in_loop
async def test_reading_so_much():
    async with start() as running, running.popen("sh", "-c", "printf 123456789", stdout=PIPE) as process:
        assert await process.stdout.read(4) == b"1234"
        assert await process.stdout.read1(2) == b"56"
        assert await process.stdout.read(100) == b"789"
        assert await process.stdout.read1() == b""


@in_loop
async def test_much_is_written_while_it_is_read():
    content = b"0123456789abcde\n" * 50_000
    async with start() as running, running.popen("cat", stdin=PIPE, stdout=PIPE) as process:

        async def feed():
            await process.stdin.write(content)
            await process.stdin.close()

        _, found = await asyncio.gather(feed(), process.stdout.read())
        assert found == content


@in_loop
async def test_a_read_that_is_cancelled_loses_nothing():
    async with start() as running, running.popen("cat", stdin=PIPE, stdout=PIPE) as process:
        await process.stdin.write(b"half")
        reading = asyncio.create_task(process.stdout.read(8))
        await asyncio.sleep(0.02)
        assert await cancelled(reading)
        await process.stdin.write(b"half")
        assert await process.stdout.read(8) == b"halfhalf"
        await process.stdin.close()


@in_loop
async def test_two_tasks_do_not_read_the_same_pipe():
    async with start() as running, running.popen("cat", stdin=PIPE, stdout=PIPE) as process:
        reading = asyncio.create_task(process.stdout.readline())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await process.stdout.readline()
        await process.stdin.write(b"line\n")
        assert await reading == b"line\n"
        await process.stdin.close()


@in_loop
async def test_who_reads_what_is_closed_is_told():
    async with start() as running:
        process = await running.popen("sleep", "infinity", stdout=PIPE)
        reading = asyncio.create_task(process.stdout.read())
        await asyncio.sleep(0)
        await process.stdout.close()
        with pytest.raises(ValueError, match="closed"):
            await reading
        process.kill()
        assert await process.wait() == -9


@in_loop
async def test_communicate():
    script = "cat; echo err >&2"
    async with start() as running:
        process = await running.popen("sh", "-c", script, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
        assert await process.communicate("in\n") == ("in\n", "err\n")
        assert process.returncode == 0


@in_loop
async def test_communicate_goes_on_after_its_time_is_up():
    script = "echo one; until [ -e /tmp/go ]; do sleep 0.01; done; echo two"
    async with start() as running:
        process = await running.popen("sh", "-c", script, stdout=PIPE)
        with pytest.raises(WaitTimeout):
            await process.communicate(timeout=0.05)
        await running.exec("touch", "/tmp/go")
        assert await process.communicate() == (b"one\ntwo\n", None)


@in_loop
async def test_signals_and_return_codes():
    async with start() as running:
        process = await running.popen("sleep", "infinity", stdout=DEVNULL, stderr=STDOUT)
        assert (process.poll(), process.returncode) == (None, None)
        with pytest.raises(subprocess.TimeoutExpired):
            await process.wait(timeout=0.01)
        process.terminate()
        assert await process.wait() == -15
        assert process.poll() == -15


@in_loop
async def test_a_file_gets_all_that_was_printed(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        async with start() as running:
            process = await running.popen("seq", "1000", stdout=file)
            await process.wait()
    assert (tmp_path / "out").read_text().splitlines()[-1] == "1000"


@in_loop
async def test_a_cancelled_block_of_a_command_ends_its_tree_and_nothing_else():
    tree = new_mark()
    async with start() as running:

        async def hold():
            async with running.popen("sh", "-c", f"setsid sleep {tree} & sleep {tree}") as process:
                await process.wait()

        task = asyncio.create_task(hold())
        assert await comes_true(lambda: len(marked(tree)) == 3)
        assert await cancelled(task)
        assert await comes_true(lambda: marked(tree) == [])
        assert running.status == "running"


@pytest.mark.parametrize("turns", [1, 2, 5, 20])
@in_loop
async def test_a_popen_that_is_cancelled_leaves_no_command(turns):
    mark = new_mark()
    async with start() as running:

        async def begin():
            await running.popen("sleep", mark, stdin=PIPE, stdout=PIPE)
            await asyncio.Event().wait()

        task = asyncio.create_task(begin())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await cancelled(task)
    assert marked(mark) == []


@in_loop
async def test_a_command_that_is_not_there():
    async with start() as running:
        with pytest.raises(CommandNotFound):
            await running.popen("no-such-program")
        with pytest.raises(InvalidSpec):
            await running.popen("true", stdout=12345)


# --- the input of a container ---------------------------------------------------------------------------


@in_loop
async def test_a_container_can_be_written_to():
    async with HOST.start("tr", "a-z", "A-Z", stdin=PIPE) as running:
        await running.stdin.write(b"hello\n")
        await running.stdin.close()
        assert [str(line) async for line in running.lines()] == ["HELLO"]


@in_loop
async def test_who_writes_to_a_container_that_is_closed_does_not_wait_for_ever():
    running = await HOST.start("sleep", "infinity", stdin=PIPE)
    writing = asyncio.create_task(running.stdin.write(bytes(1 << 20)))
    await asyncio.sleep(0.01)
    await running.close()
    with pytest.raises((ValueError, BrokenPipeError)):
        await writing


# --- terminals ------------------------------------------------------------------------------------------


@in_loop
async def test_a_session_with_a_terminal():
    async with HOST.tty().env(PS1="$ ").start("sh") as running, running.attach() as terminal:
        await terminal.read_until("$ ", timeout=20)
        await terminal.write("echo $((6 * 7))\r")
        assert b"42" in await terminal.read_until("42", timeout=20)
        await terminal.resize(100, 30)
        assert terminal.size == (100, 30)
    assert terminal.closed


@in_loop
async def test_a_terminal_that_is_silent_and_one_that_ends():
    async with HOST.tty().start("sh", "-c", "read x; echo got $x") as running, running.attach() as terminal:
        with pytest.raises(NotReady):
            await terminal.read(timeout=0.01)
        with pytest.raises(NotReady):
            await terminal.read_until("never", timeout=0.01)
        reading = asyncio.create_task(terminal.read_until("got"))
        await asyncio.sleep(0.01)
        assert await cancelled(reading)
        await terminal.write("it\r")
        assert b"got it" in await terminal.read_until("got it", timeout=20)
        await running.wait()
        with pytest.raises(SandboxError):
            await terminal.read_until("more")
        assert (await terminal.read()).strip() == b""
        assert await terminal.read() == b""


@in_loop
async def test_a_command_with_a_terminal():
    async with start() as running, running.popen("sh", "-c", "tty; stty size", tty=True) as process:
        assert b"24 80" in await process.terminal.read_until("24 80", timeout=20)


@in_loop
async def test_a_terminal_that_is_full_waits():
    script = "stty raw -echo; echo up; sleep infinity"
    async with HOST.tty().start("sh", "-c", script) as running, running.attach() as terminal:
        await terminal.read_until("up", timeout=20)
        with pytest.raises(NotReady):
            await terminal.write("x" * 100_000, timeout=0.05)


# --- readiness ------------------------------------------------------------------------------------------


@in_loop
async def test_waiting_for_a_port_a_line_a_file_and_a_command():
    async with served() as running:
        assert await running.wait_for(port=80, log="up", file="/usr", command="true") is running


@in_loop
async def test_waiting_for_a_server_that_answers():
    async with HOST.start(sys.executable, "-m", "http.server", "8000") as running:
        await running.wait_for(http="http://localhost:8000/")


@in_loop
async def test_waiting_for_health():
    box = HOST.health("test -e /tmp/well", start_interval=0.05)
    async with start("touch /tmp/well; sleep infinity", box) as running:
        await running.wait_for(healthy=True)
        assert running.health.status == "healthy"


@in_loop
async def test_what_ends_before_it_is_ready():
    async with start("echo no configuration >&2; exit 3") as running:
        with pytest.raises(CommandFailed, match="before there was port 5432") as failed:
            await running.wait_for(port=5432)
    assert failed.value.result.exit_code == 3


@in_loop
async def test_what_is_not_ready_in_time_goes_on():
    async with start("echo loading; sleep infinity") as running:
        for condition in ({"port": 80}, {"log": "never"}, {"file": "/never"}, {"command": "false"}):
            with pytest.raises(NotReady):
                await running.wait_for(timeout=0.05, **condition)
        assert running.status == "running"
        with pytest.raises(InvalidSpec):
            await running.wait_for()


@in_loop
async def test_a_wait_for_readiness_can_be_cancelled():
    async with start() as running:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await running.wait_for(port=80, timeout=100)
        assert running.status == "running"


# --- sockets --------------------------------------------------------------------------------------------


@in_loop
async def test_connecting_to_what_listens_inside():
    async with served() as running:
        await running.wait_for(log="up")
        loop = asyncio.get_running_loop()
        with await running.connect(80) as connection:
            await loop.sock_sendall(connection, b"hello")
            assert await loop.sock_recv(connection, 100) == b"HELLO"
        reader, writer = await running.open_connection(80)
        writer.write(b"streams")
        assert await reader.read() == b"STREAMS"
        writer.close()
        await writer.wait_closed()


@in_loop
async def test_nothing_listens():
    async with start() as running:
        with pytest.raises(NothingListens):
            await running.connect(80)
        with pytest.raises(NothingListens):
            await running.connect("@nobody")


@in_loop
async def test_serving_inside():
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()
        await writer.wait_closed()

    program = "import socket; s = socket.create_connection(('127.0.0.1', 99)); s.sendall(b'hi\\n'); print(s.recv(9))"
    async with start() as running:
        server = await asyncio.start_server(answer, sock=await running.listen(99))
        async with server:
            done = await running.exec(sys.executable, "-c", program)
        assert done.stdout == "b'HI\\n'\n"


@in_loop
async def test_publishing_while_it_runs():
    async with served() as running:
        await running.wait_for(log="up")
        address = await running.publish(80)
        assert await running.address(80) == address
        assert [port.port for port in running.ports] == [80]
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"world")
        assert await reader.read() == b"WORLD"
        writer.close()
        await writer.wait_closed()
        await running.unpublish(80)
        assert running.ports == ()


# --- files, resources, changes --------------------------------------------------------------------------


@in_loop
async def test_files(tmp_path):
    async with start() as running:
        files = running.files
        await files.mkdir("/tmp/a/b", parents=True)
        await files.write_text("/tmp/a/f", "text")
        await files.write_bytes("/tmp/a/b/g", b"bytes")
        assert await files.read_text("/tmp/a/f") == "text"
        assert await files.read_bytes("/tmp/a/b/g") == b"bytes"
        assert (await files.stat("/tmp/a/f")).size == 4
        assert await files.list("/tmp/a") == ("b", "f")
        assert [found async for found in files.walk("/tmp/a")] == [
            ("/tmp/a", ["b"], ["f"]),
            ("/tmp/a/b", [], ["g"]),
        ]
        assert (await files.get("/tmp/a", tmp_path / "copy")).files == 2
        assert (await files.put(io.BytesIO(b"put"), "/tmp/put")).bytes == 3
        await files.remove("/tmp/a", recursive=True)
        assert not await files.exists("/tmp/a")
        with pytest.raises(PathNotFound):
            await files.read_text("/tmp/a/f")


@in_loop
async def test_resources():
    async with start() as running:
        assert (await running.top())[0].pid == 1
        assert (await running.stats()) is not None


@in_loop
async def test_changes():
    async with start("echo new > /new; sleep infinity") as running:
        await running.wait_for(file="/new")
        assert "/new" in [change.path for change in await running.diff()]


@in_loop
async def test_a_plan_and_an_explanation_are_values():
    assert isinstance(await HOST.plan("true"), type(pycontain.Container("host:").plan("true")))
    assert (await HOST.explain()) == pycontain.Container("host:").explain()


# --- what is not a container ----------------------------------------------------------------------------


@in_loop
async def test_the_doctor_and_a_warm_start():
    await aio.prewarm()
    assert (await aio.doctor()).ok


@in_loop
async def test_volumes():
    async with aio.Volume(labels={"a": "b"}) as volume:
        assert (volume.made, volume.labels, volume.anonymous) == (True, {"a": "b"}, True)
        await HOST.volume(volume, "/data").run("sh", "-c", "echo kept > /data/f", check=True)
        assert (await HOST.volume(volume, "/data").run("cat", "/data/f")).stdout == "kept\n"
        assert await aio.Volume.find(volume.name) == volume
        assert volume in await aio.Volume.list()
        assert (await volume.inspect())["Name"] == volume.name
        assert (await volume.usage()).entries > 0
    assert volume.name not in [each.name for each in await aio.Volume.list()]
    named = await aio.Volume("of-aio")
    await named.remove()


NETWORKS = """
import asyncio, sys
from pycontain import aio

HOST = aio.Container("host:")
FIND = "import socket; socket.create_connection(('web', 80), 10); print('found')"

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60
    async with aio.Network() as network:
        async with HOST.start("sleep", "1000") as web:
            address = await network.connect(web, aliases=["web"])
            assert await network.address(web) == address
            with await web.listen(80, "0.0.0.0"):
                print((await HOST.network(network).run(sys.executable, "-c", FIND)).stdout, end="")
            await network.disconnect(web)
        assert network.containers == ()

asyncio.run(main())
"""


@pytest.mark.root
def test_networks():
    """On a host of its own, see :mod:`worlds`."""
    with World(forwards=True) as world:
        assert world.run(NETWORKS) == "found\n"


@in_loop
async def test_images_and_builds(tmp_path):
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    (rootfs / "file").write_text("content")
    store = aio.Store(tmp_path / "store")
    image = await aio.Image.from_rootfs(rootfs, tag="made:1", store=store)
    assert image.references == ("made:1",)
    assert await aio.Image.find("made:1", store=store) == image
    assert await store.images() == (image,)
    await image.tag("made:2")
    await image.untag("made:1")
    assert image.references == ("made:2",)
    await image.save(tmp_path / "made.tar")
    assert (await image.inspect())["RepoTags"] == ["made:2"]
    assert len(await image.history()) == 1
    (tmp_path / "Dockerfile").write_text("FROM made:2\nENV GREETING=hello\n")
    news = []
    built = await aio.build(tmp_path, tags="built:1", store=store, pull="never", progress=news.append)
    assert built.config.config.env == ("GREETING=hello",)
    assert news
    await built.remove()
    await image.remove()
    assert await store.images() == ()
    assert (await aio.Image.load(tmp_path / "made.tar", store=store))[0] == image
    assert (await store.verify()) is not None
    assert (await store.usage()).images == 1
    assert (await store.gc(dry_run=True)) is not None


@in_loop
async def test_what_a_callback_raises_ends_the_build(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV A=b\n")

    def tell(news):
        raise KeyError(news.instruction)

    with pytest.raises(KeyError):
        await aio.build(tmp_path, store=aio.Store(tmp_path / "store"), progress=tell)


@in_loop
async def test_the_twin_of_an_image_runs(tmp_path):
    image = await aio.Image.host()
    assert (await aio.Container(image).run("echo", "hi")).stdout == "hi\n"


def test_sockets_do_not_block():
    async def main():
        async with served() as running:
            await running.wait_for(log="up")
            with await running.connect(80) as connection, await running.listen(0) as listener:
                return connection.getblocking(), listener.getblocking(), isinstance(listener, socket.socket)

    assert asyncio.run(main()) == (False, False, True)
