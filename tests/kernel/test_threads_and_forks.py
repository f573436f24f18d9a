"""Owners with threads, owners that fork, are interrupted or just end, and owners with an event loop."""

import signal
import threading

import pytest
from owners import comes_true, marked, new_mark, run_owner, start_owner

from pycontain import Container

HOST = Container("host:")


def test_16_threads_start_a_hundred_containers():
    results = []

    def work(first):
        for number in range(first, 100, 16):
            result = HOST.run("sh", "-c", f"cat; echo {number}; exit {number}", input=f"{number}:")
            results.append((number, result.stdout, result.exit_code))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(number, f"{number}:{number}\n", number) for number in range(100)]


def test_threads_that_start_use_and_close_containers():
    failures = []

    def work(number):
        try:
            for _ in range(4):
                with HOST.hostname(f"n{number}").start("sleep", "100") as running:
                    assert running.exec("hostname").stdout == f"n{number}\n"
        except BaseException as error:  # noqa: BLE001 - told below, in the thread of the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_container_outlives_the_thread_that_started_it():
    """prctl(2): a parent-death signal comes when the thread that forked ends; ours hangs on the zygote."""
    started = []
    thread = threading.Thread(target=lambda: started.append(HOST.start("sleep", "1000")))
    thread.start()
    thread.join()
    with started[0] as running:
        assert running.exec("true").ok


def test_the_first_container_may_be_started_by_many_threads_at_once(tmp_path):
    code = """
        import threading
        from pycontain import Container
        results = []
        barrier = threading.Barrier(8)
        def work():
            barrier.wait()
            results.append(Container("host:").run("echo", "x").stdout)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        print(results == ["x\\\\n"] * 8)
    """.replace("\\\\n", "\\n")
    assert run_owner(code, state=tmp_path) == (0, "True\n", "")


FORK = """
    import os, sys
    from pycontain import Container
    c = Container("host:")
    with c.start("sleep", os.environ["MARK"]) as running:
        child = os.fork()
        if child == 0:
            print(c.run("echo", "child").stdout, end="", flush=True)
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), running.status, flush=True)
        print(running.exec("echo", "parent").stdout, end="")
        print(c.run("echo", "again").stdout, end="")
"""


def test_the_child_of_a_fork_has_its_own_zygote_and_leaves_the_parents_alone(tmp_path):
    mark = new_mark()
    assert run_owner(FORK, state=tmp_path, MARK=mark) == (0, "child\n0 running\nparent\nagain\n", "")
    assert marked(mark) == []


def test_in_the_child_of_a_fork_the_parents_container_is_refused(tmp_path):
    code = """
        import os
        from pycontain import Container
        from pycontain.errors import SandboxError
        running = Container("host:").start("sleep", "100")
        child = os.fork()
        if child == 0:
            for act in (running.wait, running.kill, running.stop, lambda: running.exec("true")):
                try:
                    act()
                except SandboxError as error:
                    assert error.__notes__
                else:
                    os._exit(1)
            running.close()
            del running
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), running.status)
        running.close()
    """
    assert run_owner(code, state=tmp_path) == (0, "0 running\n", "")


def test_a_fork_while_another_thread_starts_its_first_container(tmp_path):
    """Whatever lock that thread holds, the child does not wait for it."""
    code = """
        import os, signal, threading, time
        from pycontain import Container
        c = Container("host:")
        thread = threading.Thread(target=lambda: [c.run("true") for _ in range(20)])
        thread.start()
        codes = set()
        for _ in range(8):
            time.sleep(0.02)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(0 if c.run("echo", "x").stdout == "x\\n" else 1)
            codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        thread.join()
        print(codes)
    """
    assert run_owner(code, state=tmp_path) == (0, "{0}\n", "")


@pytest.mark.parametrize("lock", ["pycontain.runtime.watch._making"])
def test_a_fork_while_a_lock_is_held(tmp_path, lock):
    """The same, with no luck needed."""
    module, _, name = lock.rpartition(".")
    code = f"""
        import os, signal
        import {module}
        from pycontain import Container
        {module}.{name}.acquire()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with Container("host:").start("sleep", "100") as running:
                os._exit(0 if running.exec("true").ok else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        {module}.{name}.release()
    """
    assert run_owner(code, state=tmp_path) == (0, "0\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, sys\n"
        "from pycontain import Container\n"
        "def work(number):\n"
        "    return Container('host:').run('echo', str(number)).stdout\n"
        "if __name__ == '__main__':\n"
        "    Container('host:').run('true')\n"
        "    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:\n"
        "        print(pool.map(work, range(4)))\n"
        "    print(Container('host:').run('echo', 'x').stdout, end='')\n"
    )
    code = f"""
        import subprocess, sys
        print(subprocess.run([sys.executable, {str(program)!r}, {method!r}], capture_output=True, text=True))
    """
    _, out, _ = run_owner(code, state=tmp_path / "state")
    assert "returncode=0" in out
    assert "['0\\\\n', '1\\\\n', '2\\\\n', '3\\\\n']\\nx\\n" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_container(tmp_path, number):
    mark = new_mark()
    code = """
        import os, signal, time
        from pycontain import Container
        def interrupt(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, interrupt)
        try:
            Container("host:").run("sleep", os.environ["MARK"])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(Container("host:").run("echo", "again").stdout, end="", flush=True)
        while True:
            time.sleep(1)
    """
    with start_owner(code, state=tmp_path, MARK=mark) as owner:
        try:
            assert comes_true(lambda: len(marked(mark)) == 1)
            owner.send_signal(number)
            assert owner.stdout.readline() == "interrupted\n"
            assert comes_true(lambda: not marked(mark), patience=1)
            assert owner.stdout.readline() == "again\n"
        finally:
            owner.kill()
        assert owner.communicate() == ("", "")


def test_ctrl_c_at_the_keyboard_reaches_neither_zygote_nor_payload(tmp_path):
    """A terminal sends SIGINT to the whole process group; only the owner is to decide."""
    mark = new_mark()
    code = """
        import os, signal, time
        from pycontain import Container
        caught = []
        signal.signal(signal.SIGINT, lambda *_: caught.append(1))
        with Container("host:").start("sleep", os.environ["MARK"]) as running:
            os.killpg(0, signal.SIGINT)
            while not caught:
                time.sleep(0.01)
            print(running.exec("true").ok, running.status)
    """
    assert run_owner(code, state=tmp_path, MARK=mark) == (0, "True running\n", "")


def test_inside_a_running_event_loop(tmp_path):
    code = """
        import asyncio
        from pycontain import Container
        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60  # a slow machine is not what is asked here
            direct = Container("host:").run("echo", "a").stdout
            threads = await asyncio.gather(*(
                asyncio.to_thread(Container("host:").run, "echo", str(n)) for n in range(4)
            ))
            return direct, [r.stdout for r in threads]
        print(asyncio.run(main(), debug=False) == ("a\\n", ["0\\n", "1\\n", "2\\n", "3\\n"]))
    """
    assert run_owner(code, state=tmp_path) == (0, "True\n", "")


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "sys.exit(0)",
        "raise SystemExit",
        "del running",
        "threading.Thread(target=sys.exit).start()",
        "threading.Thread(target=lambda: time.sleep(0.1)).start()",
        "globals()['x'] = [running]; x.append(x)",
        "import gc; gc.disable()",
        "pycontain.shutdown()",
        "running.close()",
        "atexit.register(lambda: running.close())",
        "atexit.register(lambda: Container('host:').run('true'))",
        "threading.Thread(target=running.wait, daemon=True).start()",
        "threading.Thread(target=lambda: Container('host:').run('sleep', '100'), daemon=True).start(); time.sleep(0.1)",
    ],
)
def test_an_interpreter_ends_cleanly_with_a_container_left_open(tmp_path, ending):
    mark = new_mark()
    code = f"""
        import atexit, os, sys, threading, time
        import pycontain
        from pycontain import Container
        running = Container("host:").start("sleep", os.environ["MARK"])
        {ending}
    """
    assert run_owner(code, state=tmp_path, MARK=mark) == (0, "", "")
    assert marked(mark) == []
    assert list(tmp_path.rglob("*")) == []


def test_os_exit_ends_everything_too(tmp_path):
    mark = new_mark()
    code = """
        import os
        from pycontain import Container
        running = Container("host:").start("sleep", os.environ["MARK"])
        os._exit(3)
    """
    assert run_owner(code, state=tmp_path, MARK=mark) == (3, "", "")
    assert comes_true(lambda: not marked(mark), patience=2)
    assert comes_true(lambda: list(tmp_path.iterdir()) == [], patience=5)


def test_an_owner_that_executes_another_program_ends_its_containers(tmp_path):
    """execve(2) closes what is close-on-exec, which is how the zygote learns that nobody owns it."""
    mark = new_mark()
    code = """
        import os, sys
        from pycontain import Container
        running = Container("host:").start("sleep", os.environ["MARK"])
        os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read(); print('other')"])
    """
    assert run_owner(code, state=tmp_path, MARK=mark) == (0, "other\n", "")
    assert comes_true(lambda: not marked(mark), patience=2)


def test_subprocesses_of_the_owner_inherit_nothing(tmp_path):
    code = """
        import os, subprocess
        from pycontain import Container
        def inherited():
            shown = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout
            return shown.split()
        before = inherited()
        with Container("host:").start("sleep", "100") as running:
            running.exec("true")
            print(inherited() == before)
    """
    assert run_owner(code, state=tmp_path) == (0, "True\n", "")


def test_import_starts_nothing(tmp_path):
    code = """
        import os, threading
        before = set(os.listdir("/proc/self/fd"))
        import pycontain
        pycontain.Container("host:").env(A="1")
        print(set(os.listdir("/proc/self/fd")) == before, threading.active_count())
    """
    assert run_owner(code, state=tmp_path / "state") == (0, "True 1\n", "")
    assert not (tmp_path / "state").exists()
