"""PID 1: an init that reaps and forwards, or the payload itself."""

import signal
from pathlib import Path

import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import CommandNotExecutable, CommandNotFound, StepFailed

HOST = Container("host:")
BARE = HOST.init(False)


def ready(running):
    return comes_true(lambda: running.exec("cat", "/ready").stdout == "ready\n")


def test_pid_1_is_an_init_and_the_payload_its_child():
    assert HOST.run("sh", "-c", "cat /proc/1/comm; echo $PPID").stdout == "pycontain-init\n1\n"


def test_the_init_names_nothing_of_the_host(state_folder):
    shown = HOST.run("sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/1/environ 2>/dev/null").stdout
    assert shown.strip() == "pycontain-init"


@pytest.mark.parametrize("name", ["environ", "maps", "mem", "exe", "root/proc/version", "cwd/proc/version"])
def test_the_init_cannot_be_looked_into(name):
    assert HOST.run("head", "-c", "1", f"/proc/1/{name}").stdout == ""


@pytest.mark.parametrize("number", [1, 2, 3, 9, 15, 19, 11])
def test_the_init_cannot_be_ended_or_stopped_from_inside(number):
    """pid_namespaces(7). Signals that can be handled go to the payload, which ignores them here."""
    script = f"trap '' HUP INT QUIT TERM SEGV; kill -{number} 1; sleep 0.05; exit 3"
    assert HOST.run("sh", "-c", script).exit_code == 3


def test_orphans_are_reaped():
    script = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; echo ready > /ready; sleep 100"
    with HOST.start("sh", "-c", script) as running:
        assert ready(running)
        count = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c -E ') Z |sleep. S' "
        assert comes_true(lambda: running.exec("sh", "-c", count).stdout == "1\n")


def test_a_thousand_orphans_do_not_hide_the_payloads_end():
    script = "i=0; while [ $i -lt 300 ]; do (true &) ; i=$((i+1)); done; exit 9"
    assert HOST.run("sh", "-c", script).exit_code == 9


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "WINCH", "ALRM"])
def test_a_signal_is_forwarded(name):
    script = f"trap 'exit 5' {name}; echo ready > /ready; while :; do sleep 0.01; done"
    with HOST.start("sh", "-c", script) as running:
        assert ready(running)
        running.kill(name)
        assert running.wait(10).exit_code == 5


def test_a_signal_that_the_payload_does_not_handle_ends_it():
    with HOST.start("sleep", "100") as running:
        running.kill("TERM")
        assert running.wait(10).signal == signal.SIGTERM


def test_a_signal_sent_at_once_is_not_lost():
    for _ in range(20):
        with HOST.start("sleep", "100") as running:
            running.kill("TERM")
            assert running.wait(10).signal == signal.SIGTERM


def test_when_the_payload_ends_everything_ends():
    mark = new_mark()
    assert HOST.run("sh", "-c", f"setsid sleep {mark} > /dev/null 2>&1 & sleep 0.05").ok
    assert marked(mark) == []


def test_a_payload_may_kill_everything_that_it_sees():
    assert HOST.run("sh", "-c", "sleep 100 & kill -9 -1; sleep 1; exit 4").exit_code == 4


def test_a_payload_may_become_a_daemon_and_that_is_its_end():
    assert HOST.run("sh", "-c", "setsid sh -c 'sleep 100' & exit 0").exit_code == 0


# --- init(False) ----------------------------------------------------------------------------------------


def test_without_init_the_payload_is_pid_1():
    assert BARE.run("sh", "-c", "echo $$ $PPID").stdout == "1 0\n"


@pytest.mark.parametrize("code", [0, 5, 255])
def test_without_init_exit_codes_are_the_same(code):
    assert BARE.run("sh", "-c", f"exit {code}").exit_code == code


def test_without_init_a_start_returns_when_the_payload_was_executed():
    for _ in range(20):
        with BARE.start("sleep", "100") as running:
            assert Path(f"/proc/{running.pid}/cmdline").read_bytes() == b"sleep\x00100\x00"


def test_without_init_an_exec_works_at_once():
    with BARE.start("sleep", "100") as running:
        assert running.exec("cat", "/proc/1/cmdline").stdout == "sleep\x00100\x00"


def test_without_init_a_missing_program_is_named():
    for verb in (BARE.run, BARE.start):
        with pytest.raises(CommandNotFound, match="nothing-here"):
            verb("nothing-here")


def test_without_init_a_program_that_cannot_be_executed_is_named():
    for verb in (BARE.run, BARE.start):
        with pytest.raises(CommandNotExecutable, match="/etc/hosts"):
            verb("/etc/hosts")


def test_without_init_a_failed_step_is_named():
    for verb in (BARE.workdir("/nowhere").run, BARE.workdir("/nowhere").start):
        with pytest.raises(StepFailed, match="/nowhere"):
            verb("true")


def test_without_init_input_and_output_are_the_same():
    result = BARE.run("cat", input="x" * 300_000)
    assert len(result.stdout) == 300_000


def test_without_init_a_handled_signal_arrives():
    with BARE.start(
        "sh", "-c", "trap 'exit 6' TERM; echo ready > /ready; while :; do sleep 0.01; done"
    ) as running:
        assert ready(running)
        assert running.stop().exit_code == 6


def test_without_init_a_stop_kills_what_does_not_listen():
    """pid_namespaces(7): PID 1 is not ended by a signal that it does not handle."""
    with BARE.start("sleep", "100") as running:
        assert running.stop(timeout=0.05).signal == signal.SIGKILL


def test_without_init_everything_ends_with_the_payload():
    mark = new_mark()
    assert BARE.run("sh", "-c", f"setsid sleep {mark} & exit 0").ok
    assert marked(mark) == []


def test_without_init_usage_is_counted():
    usage = BARE.run("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").usage
    assert usage.cpu_user + usage.cpu_system > 0.01


def test_without_init_the_time_of_the_payload_is_counted():
    assert BARE.run("sleep", "0.1").timings.run >= 0.08


def test_a_payload_that_closes_every_descriptor_goes_on():
    script = "import os, time; os.closerange(0, 100); time.sleep(0.1); os._exit(3)"
    assert HOST.run("python3", "-c", script).exit_code == 3
    assert BARE.run("python3", "-c", script).exit_code == 3
