"""Tests whose bodies are coroutines, each in an event loop of its own."""

import asyncio
import functools
import gc
import time

from owners import PATIENCE


def in_loop(test):
    """Run *test*, a coroutine function, in a loop that tells of every callback and coroutine that goes wrong."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        told = []

        async def body():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
            await test(*args, **kwargs)

        asyncio.run(body(), debug=True)
        gc.collect()  # a task whose error nobody has asked for says so at its end
        assert told == []

    return run


async def comes_true(condition, patience=PATIENCE):
    """Whether *condition* comes true in time, while the loop goes on."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.002)
    return True


async def cancelled(task):
    """Cancel *task*, and wait until it has ended by that."""
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()
