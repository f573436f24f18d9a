"""``restart``: a payload that is started again, in the same container."""

import signal
import subprocess
import time

import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import CommandNotFound, CommandTimeout, InvalidSpec

HOST = Container("host:")
COUNT = "echo x >> /tmp/runs; n=$(wc -l < /tmp/runs); echo run $n; "


def start(policy, script, container=HOST):
    return container.restart(policy).start("sh", "-c", script)


def left_behind(running, mark):
    return sum(process.command == ("sleep", mark) for process in running.top())


def test_after_a_failure_until_it_succeeds_in_the_same_container():
    with start("on-failure", COUNT + "[ $n -ge 3 ]") as running:
        pid = running.pid
        result = running.wait(20)
        assert (result.exit_code, result.stdout) == (0, "run 1\nrun 2\nrun 3\n")
        assert (running.restarts, running.pid) == (2, pid)


def test_at_most_so_often():
    with start("on-failure:1", COUNT + "exit $n") as running:
        assert running.wait(20).exit_code == 2
        assert running.restarts == 1


def test_a_signal_is_a_failure():
    with start("on-failure:1", COUNT + "kill -9 $$") as running:
        assert running.wait(20).signal == signal.SIGKILL
        assert running.restarts == 1


def test_success_is_the_end_unless_it_is_always():
    with start("on-failure", "exit 0") as running:
        assert (running.wait(20).exit_code, running.restarts) == (0, 0)
    with start("always", COUNT) as running:
        assert comes_true(lambda: running.restarts >= 2)
        assert running.status == "running"


def test_stop_is_the_end_in_a_pause_too():
    with start("always", "exit 1") as running:
        assert comes_true(lambda: running.restarts >= 2)
        result = running.stop()  # in the pause, or just when it runs
        assert (result.exit_code, result.signal) in {(1, None), (None, signal.SIGTERM)}
    with start("always", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done") as running:
        running.wait_for(log="up")
        assert running.stop().exit_code == 7
        assert running.restarts == 0


def test_the_stop_signal_of_the_container_counts():
    box = HOST.stop_signal("USR1")
    with start("always", "trap 'exit 7' USR1 TERM; echo up; while :; do sleep 0.01; done", box) as running:
        running.wait_for(log="up")
        running.kill("TERM")
        assert comes_true(lambda: running.restarts == 1)
        assert comes_true(lambda: len(running.logs()) == 2)
        assert running.stop().exit_code == 7


def test_the_payload_cannot_ask_for_its_end():
    with start("always", "kill -TERM 1; kill -TERM $$") as running:
        assert comes_true(lambda: running.restarts >= 2)


def test_a_kill_ends_everything():
    mark = new_mark()
    with start("always", f"setsid sleep {mark} & sleep {mark}") as running:
        assert comes_true(lambda: len(marked(mark)) >= 2)
        running.kill()
        assert running.wait(20).signal == signal.SIGKILL
        assert marked(mark) == []


def test_who_was_left_behind_is_ended_first():
    mark = new_mark()
    with start(
        "on-failure:1",
        COUNT + f"setsid sleep {mark} & (setsid sleep {mark} &); [ $n -lt 2 ] || sleep 1000; exit 1",
    ) as running:
        assert comes_true(lambda: running.restarts == 1)
        assert comes_true(lambda: len(running.logs()) == 2)
        assert comes_true(lambda: left_behind(running, mark) == 2)


def test_a_timeout_ends_it():
    with pytest.raises(CommandTimeout):
        HOST.restart("always").run("true", timeout=0.3)


def test_its_input_goes_on():
    with HOST.restart("always").start(
        "sh", "-c", "read line; echo got $line", stdin=subprocess.PIPE
    ) as running:
        lines = running.lines()
        for word in ("one", "two"):
            running.stdin.write(f"{word}\n".encode())
            running.stdin.flush()
            assert next(lines).text == f"got {word}"


def test_on_a_terminal_each_leads_its_session():
    with start("on-failure:1", "tty; ps -o tpgid= -p $$ | tr -d ' '; echo $$; exit 1", HOST.tty()) as running:
        running.wait(20)
        shown = [str(line) for line in running.logs()]
    assert [shown[0], shown[3]] == ["/dev/pts/0"] * 2
    assert (shown[1], shown[4]) == (shown[2], shown[5])


def test_an_exec_beside_it_ends_with_the_payload_or_goes_on_but_none_hangs():
    with start("on-failure:1", "while [ ! -e /tmp/go ]; do sleep 0.01; done; rm /tmp/go; exit 1") as running:
        process = running.popen("sleep", "1000")
        running.exec("touch", "/tmp/go")
        assert comes_true(lambda: running.restarts == 1)
        process.kill()
        assert process.wait(20) == -9
        assert running.exec("true").ok


def test_a_command_that_is_not_there_is_no_failure_of_the_payload():
    began = time.monotonic()
    with pytest.raises(CommandNotFound):
        HOST.restart("always").start("nothing-here")
    assert time.monotonic() - began < 60


def test_a_payload_that_removes_itself():
    script = "printf '#!/bin/sh\\nrm /tmp/me; exit 1' > /tmp/me; chmod +x /tmp/me"
    box = HOST.restart("on-failure:2").entrypoint(
        "/bin/sh", "-c", f"[ -e /tmp/ran ] || {{ {script}; touch /tmp/ran; }}; exec /tmp/me"
    )
    with box.start() as running:
        assert running.wait(20).exit_code == 127
        assert running.restarts == 2


@pytest.mark.parametrize("wrong", ["sometimes", "on-failure:", "on-failure:-1", "on-failure:x", "", 3])
def test_what_is_no_policy_is_refused(wrong):
    with pytest.raises(InvalidSpec):
        HOST.restart(wrong)


def test_it_needs_the_init():
    with pytest.raises(InvalidSpec, match="init"):
        HOST.init(False).restart("always")
    with pytest.raises(InvalidSpec, match="init"):
        HOST.restart("always").init(False)
    assert HOST.restart("always").restart("no") == HOST
