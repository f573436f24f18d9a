"""``pycontain.aio``: containers in an event loop, and what a cancellation ends."""

import asyncio
import gc
import signal
import threading

import pytest
from loops import cancelled, comes_true, in_loop
from owners import eventually, marked, new_mark, run_owner, start_owner

import pycontain
from pycontain import aio
from pycontain.errors import CommandFailed, CommandNotFound, CommandTimeout, InvalidSpec, SandboxError

HOST = aio.Container("host:")
FOREVER = "sleep infinity"
QUIET = ("-W", "error")  # without -X dev, with which a loop on a busy machine says that it was slow


def start(script=FOREVER, container=HOST):
    return container.start("sh", "-c", script)


# --- run ------------------------------------------------------------------------------------------------


@in_loop
async def test_run_gives_what_the_blocking_run_gives():
    done = await HOST.run("sh", "-c", "cat; echo err >&2; exit 3", input="in\n")
    assert isinstance(done, pycontain.Completed)
    assert (done.exit_code, done.stdout, done.stderr) == (3, "in\n", "err\n")


@in_loop
async def test_the_loop_goes_on_while_a_container_runs():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await HOST.run("sleep", "0.05")
    counting.cancel()
    assert turns > 100


@in_loop
async def test_run_with_check_raises():
    with pytest.raises(CommandFailed) as failed:
        await HOST.run("sh", "-c", "echo no >&2; exit 1", check=True)
    assert failed.value.result.stderr == "no\n"


@in_loop
async def test_a_timeout_of_run_is_a_command_timeout_with_what_was_printed():
    with pytest.raises(CommandTimeout) as expired:
        await HOST.run("sh", "-c", f"echo begun; exec {FOREVER}", timeout=0.1)
    assert (expired.value.result.stdout, expired.value.result.signal) == ("begun\n", signal.SIGKILL)


@in_loop
async def test_a_command_that_is_not_there():
    with pytest.raises(CommandNotFound):
        await HOST.run("no-such-program")


@in_loop
async def test_wrong_arguments_are_refused():
    with pytest.raises(InvalidSpec):
        await HOST.run("true", timeout=-1)


@in_loop
async def test_much_output_and_much_input_at_once():
    content = b"0123456789abcde\n" * 100_000
    done = await HOST.run("cat", input=content, text=False)
    assert done.stdout == content


@in_loop
async def test_a_terminal_is_fed_and_read():
    done = await HOST.tty().run("cat", input="typed\n")
    assert "typed" in done.stdout


@in_loop
async def test_a_hundred_at_once():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(HOST.run("echo", str(number))) for number in range(100)]
    assert [task.result().stdout for task in tasks] == [f"{number}\n" for number in range(100)]


@in_loop
async def test_a_cancelled_run_ends_its_container_before_the_caller_goes_on():
    mark = new_mark()
    task = asyncio.create_task(HOST.run("sh", "-c", f"setsid sleep {mark} & trap '' TERM; sleep {mark}"))
    assert await comes_true(lambda: len(marked(mark)) == 3)
    assert await cancelled(task)
    assert marked(mark) == []


@in_loop
async def test_a_run_that_is_cancelled_again_and_again_ends_its_container_all_the_same():
    mark = new_mark()
    task = asyncio.create_task(HOST.run("sleep", mark))
    assert await comes_true(lambda: marked(mark))
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert marked(mark) == []


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
@in_loop
async def test_a_run_may_be_cancelled_at_any_moment(turns):
    mark = new_mark()
    task = asyncio.create_task(HOST.run("sleep", mark))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert await cancelled(task)
    assert marked(mark) == []


@in_loop
async def test_asyncio_timeout_ends_a_container():
    mark = new_mark()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await HOST.run("sleep", mark)
    assert marked(mark) == []


@in_loop
async def test_one_that_fails_ends_the_others_of_its_group():
    mark = new_mark()

    async def group():
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(HOST.run("sleep", mark))
            assert await comes_true(lambda: len(marked(mark)) == 3)
            group.create_task(HOST.run("false", check=True))

    with pytest.raises(ExceptionGroup) as failed:
        await group()
    assert failed.value.split(CommandFailed)[1] is None
    assert marked(mark) == []


@in_loop
async def test_waiting_takes_no_threads():
    """Thirty containers that run, and the threads that there are: the loop watches them all."""
    tasks = [asyncio.create_task(HOST.run("sh", "-c", "echo; read _", input="")) for _ in range(5)]
    await asyncio.gather(*tasks)
    mark = new_mark()
    before = threading.active_count()
    tasks = [asyncio.create_task(HOST.run("sleep", mark)) for _ in range(60)]
    assert await comes_true(lambda: len(marked(mark)) == 60)
    assert threading.active_count() <= max(before, 40 + 3)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# --- start ----------------------------------------------------------------------------------------------


@in_loop
async def test_what_a_running_container_says_of_itself():
    async with HOST.name("web").start("sleep", "100") as running:
        assert (running.name, running.status, running.image) == ("web", "running", "host:")
        assert len(running.id) == 64
        assert running.spec == HOST.name("web").spec
        assert "web" in repr(running)
        assert running.pid > 0
    assert running.status == "exited"


@in_loop
async def test_start_can_be_awaited():
    running = await start()
    assert running.status == "running"
    await running.close()
    assert running.status == "exited"


@in_loop
async def test_leaving_the_block_ends_everything():
    mark = new_mark()
    async with start(f"setsid sleep {mark} & sleep {mark}"):
        assert await comes_true(lambda: len(marked(mark)) >= 2)
    assert marked(mark) == []


@in_loop
async def test_a_block_that_is_cancelled_ends_everything_also_when_it_is_cancelled_again():
    mark = new_mark()

    async def hold():
        async with HOST.start("sleep", mark):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    assert await comes_true(lambda: marked(mark))
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert marked(mark) == []


@pytest.mark.parametrize("turns", [1, 2, 5, 20])
@in_loop
async def test_a_start_that_is_cancelled_leaves_nothing(turns):
    mark = new_mark()
    started = []

    async def begin():
        started.append(await HOST.start("sleep", mark))
        await asyncio.Event().wait()

    task = asyncio.create_task(begin())
    for _ in range(turns):
        await asyncio.sleep(0)
    assert await cancelled(task)
    for running in started:  # a busy machine may have needed fewer turns: then it is ours to end
        await running.kill()
    assert await comes_true(lambda: marked(mark) == [])


@in_loop
async def test_wait_gives_the_result():
    async with start("echo out; exit 4") as running:
        done = await running.wait()
    assert (done.stdout, done.exit_code) == ("out\n", 4)
    assert await running.wait() is done


@in_loop
async def test_a_wait_that_is_over_or_cancelled_leaves_the_container_alone():
    async with start() as running:
        with pytest.raises(CommandTimeout):
            await running.wait(timeout=0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await running.wait()
        assert running.status == "running"


@in_loop
async def test_any_number_of_tasks_wait():
    async with start("read _; exit 5", HOST) as running:
        tasks = [asyncio.create_task(running.wait()) for _ in range(20)]
        await running.kill("TERM")
        assert {done.exit_code for done in await asyncio.gather(*tasks)} <= {None, 5}


def test_it_may_be_started_in_one_loop_and_waited_for_in_another():
    async def begin():
        return await start("sleep 0.05; echo done")

    async def end(running):
        async with running:
            return await running.wait()

    running = asyncio.run(begin())
    assert asyncio.run(end(running)).stdout == "done\n"


@in_loop
async def test_stop_asks_and_then_kills():
    async with start("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done") as running:
        async for _ in running.lines():
            break
        assert (await running.stop()).exit_code == 7
    async with start("trap '' TERM; echo up; while :; do sleep 0.01; done") as running:
        async for _ in running.lines():
            break
        assert (await running.stop(timeout=0.05)).signal == signal.SIGKILL


# --- exec -----------------------------------------------------------------------------------------------


@in_loop
async def test_exec_runs_beside_the_payload():
    async with start() as running:
        done = await running.exec("sh", "-c", "cat; echo $WORD", input="in\n", env={"WORD": "word"})
        assert done.stdout == "in\nword\n"


@in_loop
async def test_a_cancelled_exec_ends_its_tree_and_nothing_else():
    tree, payload = new_mark(), new_mark()
    async with HOST.start("sleep", payload) as running:
        task = asyncio.create_task(running.exec("sh", "-c", f"setsid sleep {tree} & sleep {tree}"))
        assert await comes_true(lambda: len(marked(tree)) == 3)
        assert await cancelled(task)
        assert await comes_true(lambda: marked(tree) == [])
        assert len(marked(payload)) == 1
        assert (await running.exec("true")).ok


@in_loop
async def test_an_exec_that_takes_too_long():
    async with start() as running:
        with pytest.raises(CommandTimeout):
            await running.exec("sleep", "100", timeout=0.05)
        assert running.status == "running"


@in_loop
async def test_what_has_exited_executes_nothing():
    async with start("true") as running:
        await running.wait()
        with pytest.raises(SandboxError):
            await running.exec("true")


# --- lines ----------------------------------------------------------------------------------------------


@in_loop
async def test_lines_come_as_they_are_printed():
    script = "echo one; read _; echo two >&2; printf three"
    async with HOST.start("sh", "-c", script, input="") as running:
        lines = [(line.stream, line.text, line.end) async for line in running.lines()]
    assert sorted(lines) == [("stderr", "two", "\n"), ("stdout", "one", "\n"), ("stdout", "three", "")]


@in_loop
async def test_a_follower_is_woken_by_each_line():
    async with start("echo one; until [ -e /tmp/go ]; do sleep 0.01; done; echo two") as running:
        lines = running.lines()
        assert (await anext(lines)).text == "one"
        await running.exec("touch", "/tmp/go")
        assert (await anext(lines)).text == "two"
        assert await anext(lines, None) is None


@in_loop
async def test_followers_read_for_themselves():
    async with start("seq 1000") as running:

        async def follow():
            return [line.text async for line in running.lines()]

        assert await asyncio.gather(follow(), follow()) == [[str(n) for n in range(1, 1001)]] * 2


@in_loop
async def test_a_cancelled_follower_loses_nothing():
    async with start("echo one; sleep 0.05; echo two; sleep infinity") as running:
        lines = running.lines()
        assert (await anext(lines)).text == "one"
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        assert await cancelled(waiting)
        assert (await anext(lines)).text == "two"


@in_loop
async def test_lines_that_are_there():
    async with start("seq 10") as running:
        await running.wait()
        assert [line.text async for line in running.lines(follow=False, tail=2)] == ["9", "10"]
        assert [line.text for line in await running.logs(tail=1)] == ["10"]
        with pytest.raises(InvalidSpec):
            running.lines(tail=-1)


# --- the end of the loop --------------------------------------------------------------------------------


def test_a_loop_may_end_while_containers_run():
    """The loop says nothing of it, the container goes on, and ends with its owner."""
    code = """
        import asyncio, os
        from pycontain import aio

        box, kept = aio.Container("host:"), []

        async def main():
            kept.append(await box.start("sleep", os.environ["MARK"]))
            for _ in range(3):
                asyncio.create_task(kept[0].wait())
                asyncio.create_task(kept[0].exec("sleep", os.environ["MARK"]))
                asyncio.create_task(anext(kept[0].lines()))
            await asyncio.sleep(0.05)

        asyncio.run(main())
        print(kept[0].status)
    """
    mark = new_mark()
    assert run_owner(code, python=QUIET, MARK=mark) == (0, "running\n", "")
    assert marked(mark) == []


def test_a_loop_that_is_closed_over_its_tasks_leaves_nothing():
    """Nobody cancels them there; what they ran ends when they are forgotten."""
    mark = new_mark()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it says that tasks were destroyed, which is so
    tasks = [loop.create_task(HOST.run("sleep", mark)) for _ in range(3)]
    loop.run_until_complete(comes_true(lambda: len(marked(mark)) == 3))
    loop.close()
    del tasks
    gc.collect()
    assert eventually(lambda: marked(mark) == []) is not None


def test_an_interrupt_ends_what_runs():
    """Ctrl-C in asyncio.run cancels the task, and goes on as KeyboardInterrupt."""
    code = """
        import asyncio, os
        from pycontain import aio

        box = aio.Container("host:")

        async def main():
            await box.run("sleep", os.environ["MARK"])

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """
    mark = new_mark()
    with start_owner(code, python=QUIET, MARK=mark) as owner:
        assert asyncio.run(comes_true(lambda: marked(mark)))
        owner.send_signal(signal.SIGINT)
        out, err = owner.communicate(timeout=20)
    assert (out, err) == ("interrupted\n", "")
    assert marked(mark) == []
