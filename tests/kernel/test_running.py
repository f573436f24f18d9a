"""``start``: a container that runs while its owner does other things."""

import gc
import marshal
import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import CommandNotFound, CommandTimeout, InvalidSpec, SandboxError
from pycontain.kernel.descriptors import pid_of
from pycontain.runtime import engine as engines
from pycontain.runtime.exchange import NOTIFY, Exchange

HOST = Container("host:")


def start(script, container=HOST):
    return container.start("sh", "-c", script)


def ready(running, text="ready"):
    """Wait until the payload has made /ready."""
    return comes_true(lambda: running.exec("cat", "/ready").stdout.strip() == text)


def test_what_a_running_container_says_of_itself():
    with HOST.name("web").start("sleep", "100") as running:
        assert (running.name, running.status, str(running.image)) == ("web", "running", "host:")
        assert len(running.id) == 64
        assert running.spec == HOST.name("web").spec
        assert "web" in repr(running)
        assert "sleep 100" in repr(running)


def test_without_a_name_it_is_the_beginning_of_the_id():
    with HOST.start("sleep", "100") as running:
        assert running.name == running.id[:12]


def test_the_pid_is_that_of_pid_1_on_the_host():
    with HOST.start("sleep", "100") as running:
        status = Path(f"/proc/{running.pid}/status").read_text()
        numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid"))
        assert (numbers[0], numbers[-1]) == (str(running.pid), "1")


def test_leaving_the_block_ends_everything():
    mark = new_mark()
    with start(f"setsid sleep {mark} & sleep {mark}"):
        assert comes_true(lambda: len(marked(mark)) >= 2)
    assert marked(mark) == []


def test_an_exception_in_the_block_passes_and_ends_everything():
    mark = new_mark()
    with pytest.raises(KeyError, match="mine"), HOST.start("sleep", mark):
        raise KeyError("mine")
    assert marked(mark) == []


def test_wait_returns_the_result_every_time_it_is_asked():
    with start("echo x; exit 3") as running:
        first = running.wait()
        assert (first.stdout, first.exit_code) == ("x\n", 3)
        assert running.wait() is first
        assert running.status == "exited"
    assert running.wait() is first


def test_wait_gives_up_and_the_container_goes_on():
    with start("echo x; sleep 100") as running:
        assert comes_true(lambda: running._exchange.stdout.bytes() == b"x\n")
        with pytest.raises(CommandTimeout) as caught:
            running.wait(timeout=0.05)
        assert (caught.value.result.stdout, caught.value.result.exit_code) == ("x\n", None)
        assert running.status == "running"
        assert running.exec("true").ok


def test_many_threads_wait_for_one_container():
    results = []
    with start("sleep 0.2; exit 5") as running:
        threads = [threading.Thread(target=lambda: results.append(running.wait())) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [result.exit_code for result in results] == [5] * 10


def test_stop_asks_first():
    with start("trap 'echo bye; exit 9' TERM; echo ready > /ready; while :; do sleep 0.01; done") as running:
        assert ready(running)
        result = running.stop()
        assert (result.stdout, result.exit_code) == ("bye\n", 9)


def test_stop_kills_what_does_not_listen():
    with start("trap '' TERM; echo ready > /ready; while :; do sleep 0.01; done") as running:
        assert ready(running)
        assert running.stop(timeout=0.05).signal == signal.SIGKILL


def test_stop_uses_the_signal_that_the_container_names():
    container = HOST.stop_signal("USR1")
    script = "trap 'exit 4' USR1; trap 'exit 5' TERM; echo ready > /ready; while :; do sleep 0.01; done"
    with start(script, container) as running:
        assert ready(running)
        assert running.stop().exit_code == 4


def test_stop_of_a_container_that_has_ended_returns_its_result():
    with start("exit 6") as running:
        running.wait()
        assert running.stop().exit_code == 6


@pytest.mark.parametrize("name", ["SIGUSR1", "usr1", 10])
def test_kill_sends_a_signal_by_name_or_number(name):
    with start("trap 'exit 8' USR1; echo ready > /ready; while :; do sleep 0.01; done") as running:
        assert ready(running)
        running.kill(name)
        assert running.wait(10).exit_code == 8


def test_kill_without_a_name_ends_the_whole_container():
    mark = new_mark()
    with start(f"setsid sleep {mark} & sleep {mark}") as running:
        running.kill()
        assert running.wait(10).signal == signal.SIGKILL
        assert comes_true(lambda: marked(mark) == [])


def test_kill_has_no_effect_on_what_has_ended():
    with start("exit 2") as running:
        running.wait()
        running.kill()
        assert running.wait().exit_code == 2


def test_kill_refuses_what_is_no_signal():
    with HOST.start("sleep", "100") as running:
        with pytest.raises(InvalidSpec, match="NOPE"):
            running.kill("NOPE")
        assert running.status == "running"


def test_a_signal_in_real_time_reaches_the_payload():
    """signal(7): SIGRTMIN to SIGRTMAX are signals too; systemd as a payload is stopped by SIGRTMIN+3."""
    script = (
        "import signal, sys; signal.signal(37, lambda *_: sys.exit(7)); open('/ready', 'w').write('ready')"
    )
    with HOST.start("python3", "-c", f"{script}\nwhile True: signal.pause()") as running:
        assert ready(running)
        running.kill("SIGRTMIN+3")
        assert running.wait(10).exit_code == 7


def test_close_may_be_repeated():
    running = HOST.start("sleep", "100")
    running.close()
    running.close()
    assert (running.status, running.wait().signal) == ("exited", signal.SIGKILL)


def test_a_container_that_nobody_refers_to_is_ended():
    mark = new_mark()
    running = HOST.start("sleep", mark)
    assert comes_true(lambda: marked(mark))
    del running
    gc.collect()
    assert comes_true(lambda: not marked(mark))


def test_output_is_taken_although_nobody_reads():
    with start("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2") as running:
        result = running.wait(60)
        assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)


def test_max_output_holds_for_what_was_started():
    with HOST.start("printf", "0123456789", max_output=4) as running:
        result = running.wait()
        assert (result.stdout, result.truncated) == ("0123", True)


def test_input_is_fed_in_the_background():
    content = "x" * (1 << 20)
    with HOST.start("cat", input=content) as running:
        assert running.wait(60).stdout == content


def test_start_raises_when_there_is_nothing_to_run():
    with pytest.raises(CommandNotFound, match="nothing-here"):
        HOST.start("nothing-here")


def test_a_payload_that_ends_at_once_was_started_all_the_same():
    for _ in range(20):
        with HOST.start("true") as running:
            assert running.wait(10).exit_code == 0


def test_usage_and_timings_are_there_too():
    with HOST.start("sleep", "0.02") as running:
        result = running.wait()
    assert 0 < result.timings.run <= result.duration
    assert result.usage.memory_peak > 0


def test_containers_do_not_see_each_other():
    with HOST.start("sleep", "100") as one, HOST.start("sleep", "200") as other:
        seen = one.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        assert "sleep 100" in seen
        assert "sleep 200" not in seen
        assert one.id != other.id


def test_when_the_zygote_is_killed_everything_ends_and_the_next_container_starts():
    mark = new_mark()
    with HOST.start("sleep", mark) as running:
        zygote = engines.engine().pidfd
        signal.pidfd_send_signal(zygote, signal.SIGKILL)
        assert running.wait(10).signal == signal.SIGKILL
        assert marked(mark) == []
        assert HOST.run("echo", "again").stdout == "again\n"


def test_a_run_whose_zygote_is_killed_raises_what_happened():
    zygote = engines.engine().pidfd
    threading.Timer(0.3, signal.pidfd_send_signal, (zygote, signal.SIGKILL)).start()
    with pytest.raises(SandboxError, match="zygote") as caught:
        HOST.run("sleep", "100")
    assert caught.value.__notes__


def test_shutdown_ends_what_runs_and_may_be_repeated():
    mark = new_mark()
    with HOST.start("sleep", mark) as running:
        engines.shutdown()
        engines.shutdown()
        assert marked(mark) == []
        assert running.wait(10).signal == signal.SIGKILL


def test_a_large_writable_layer_is_removed(state_folder):
    """More entries than the zygote removes by itself."""
    assert HOST.run("sh", "-c", "mkdir /m && cd /m && seq 1000 | xargs touch").ok

    def sizes():
        return sum(len(files) for _, _, files in os.walk(state_folder))

    assert comes_true(lambda: sizes() < 1000)


def test_a_tree_deeper_than_any_path_is_removed():
    script = "import os\nfor _ in range(1000): os.mkdir('deep'); os.chdir('deep')"  # PATH_MAX is 4096
    assert HOST.workdir("/tmp").run("python3", "-c", script).ok
    assert HOST.run("true", timeout=30).ok


def test_a_result_that_overtakes_the_pid_is_not_the_end():
    """The init and the zygote speak to the owner over one channel, and a payload may end before the zygote goes on."""
    exchange = Exchange(input_=None, limit=0, options=NOTIFY)
    zygote = exchange._far

    def say(*message, fds=()):
        socket.send_fds(zygote, [marshal.dumps(message)], list(fds))
        exchange.attend(exchange.channel.fileno())

    try:
        say("started", 1.0)
        say("result", True, 0, 0.0, 0.0, 0, 0, 0)
        assert not exchange.finished
        pidfd = os.pidfd_open(os.getpid())
        say("pid", fds=(pidfd,))
        os.close(pidfd)
        assert pid_of(exchange.pidfd) == os.getpid()
        say("gone", 0, 0.0, 0.0, 0, 0, 0, {})
        assert exchange.finished
    finally:
        exchange.close()
