"""``exec``: one more command in a container that runs."""

import signal
import sys
import threading

import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import (
    CommandFailed,
    CommandNotExecutable,
    CommandNotFound,
    CommandTimeout,
    InvalidSpec,
    SandboxError,
    StepFailed,
)

HOST = Container("host:")

# A process that never is where one looks: each generation forks the next and ends.
HOPPER = """
import os, sys
while True:
    if os.fork():
        os._exit(0)
"""


@pytest.fixture
def running():
    with HOST.start("sleep", "1000") as running:
        yield running


def sh(running, script, *, words=(), **options):
    return running.exec("sh", "-c", script, *words, **options)


def test_both_streams_and_the_exit_code_come_back(running):
    result = sh(running, "echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code, result.argv[0]) == ("out\n", "err\n", 3, "sh")


@pytest.mark.parametrize("number", [9, 15, 11, 37])
def test_a_signal_is_reported(running, number):
    result = sh(running, f"kill -{number} $$")
    assert (result.exit_code, result.signal) == (None, number)


def test_it_sees_the_same_files_and_processes(running):
    assert sh(running, "echo x > /made").ok
    assert running.exec("cat", "/made").stdout == "x\n"
    assert "sleep\x001000" in sh(running, "cat /proc/[0-9]*/cmdline").stdout


@pytest.mark.parametrize("kind", ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"])
def test_it_is_in_every_namespace_of_the_container(running, kind):
    inside = running.exec("readlink", f"/proc/self/ns/{kind}").stdout
    script = "for p in /proc/[0-9]*; do grep -qz sleep $p/cmdline && readlink $p/ns/" + kind + "; done"
    assert inside in sh(running, script).stdout.splitlines(keepends=True)


def test_input_and_bytes(running):
    assert running.exec("cat", input=b"\xff", text=False).stdout == b"\xff"


def test_without_input_it_reads_dev_null(running):
    assert running.exec("readlink", "/proc/self/fd/0").stdout == "/dev/null\n"


def test_max_output(running):
    result = running.exec("printf", "0123456789", max_output=3)
    assert (result.stdout, result.truncated) == ("012", True)


def test_check(running):
    with pytest.raises(CommandFailed, match="exit code 2"):
        sh(running, "exit 2", check=True)


def test_env_is_added_to_that_of_the_container():
    with HOST.env(A="1", B="1").start("sleep", "1000") as running:
        result = sh(running, 'echo "$A $B $C"', env={"B": "2", "C": "2"})
        assert result.stdout == "1 2 2\n"
        assert sh(running, 'echo "$A $B $C"').stdout == "1 1 \n"


def test_it_starts_where_the_container_starts_or_where_it_is_told():
    with HOST.workdir("/usr").start("sleep", "1000") as running:
        assert running.exec("pwd").stdout == "/usr\n"
        assert running.exec("pwd", workdir="/usr/bin").stdout == "/usr/bin\n"


def test_a_working_directory_that_the_payload_made(running):
    assert running.exec("mkdir", "/made").ok
    assert running.exec("pwd", workdir="/made").stdout == "/made\n"


def test_a_missing_working_directory_is_named(running):
    with pytest.raises(StepFailed, match="/nowhere"):
        running.exec("pwd", workdir="/nowhere")


def test_the_host_name_is_that_of_the_container():
    with HOST.hostname("box").start("sleep", "1000") as running:
        assert sh(running, "hostname; echo $HOSTNAME").stdout == "box\nbox\n"


def test_home_is_that_of_the_user():
    passwd = "root:x:0:0::/over/there:/bin/sh\n"
    with HOST.file("/etc/passwd", passwd).start("sleep", "1000") as running:
        assert sh(running, "echo $HOME").stdout == "/over/there\n"


def test_a_user_by_name_with_its_groups(privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    passwd = "root:x:0:0::/root:/bin/sh\nu:x:1000:1001::/home/u:/bin/sh\n"
    group = "root:x:0:\nu:x:1001:\nextra:x:1002:u\n"
    container = HOST.file("/etc/passwd", passwd).file("/etc/group", group)
    with container.start("sleep", "1000") as running:
        assert running.exec("id", "-u", user="u").stdout == "1000\n"
        assert running.exec("id", "-G", user="u").stdout == "1001 1002\n"
        assert running.exec("id", "-u").stdout == "0\n"


def test_it_runs_as_the_user_of_the_container(privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    with HOST.user("1000:1001").start("sleep", "1000") as running:
        assert sh(running, "id -u; id -g").stdout == "1000\n1001\n"


def test_an_unknown_user_is_named(running):
    with pytest.raises(StepFailed, match="nosuch"):
        running.exec("true", user="nosuch")


@pytest.mark.parametrize("init", [True, False])
def test_the_walls_are_those_of_the_payload(init):
    """Capabilities, no_new_privs, seccomp and signals of an exec are what the payload has."""
    fields = "^(Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn|Uid|Gid|Groups)"
    script = f"grep -E '{fields}' /proc/self/status"
    container = HOST.capabilities(drop=["CHOWN"]).init(init)
    payload = container.run("sh", "-c", script).stdout
    with container.start("sleep", "1000") as running:
        assert sh(running, script).stdout == payload


def test_its_limits_are_those_of_the_payload():
    with HOST.rlimit("nofile", 77).start("sleep", "1000") as running:
        assert sh(running, "ulimit -n").stdout == "77\n"


def test_no_descriptor_leaks_in(running):
    assert running.exec("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]  # 3 is that of ls


def test_its_parent_tells_nothing(running):
    script = "cat /proc/$PPID/environ /proc/$PPID/maps; cd /proc/$PPID; readlink exe cwd fd/3; cat fd/3"
    assert sh(running, script).stdout == ""


def test_the_command_line_of_its_parent_names_nothing_of_the_host(running, state_folder):
    shown = sh(running, "cat /proc/$PPID/cmdline | tr '\\0' ' '").stdout
    assert shown.strip()
    assert state_folder not in shown
    assert sys.prefix not in shown


def test_a_timeout_kills_the_tree_of_the_command_and_nothing_else(running):
    mark, other = new_mark(), new_mark()
    assert sh(running, f"setsid sleep {other} > /dev/null 2>&1 &").ok
    assert comes_true(lambda: marked(other))
    script = f"sleep {mark} & setsid sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; wait; sleep {mark}"
    with pytest.raises(CommandTimeout) as caught:
        sh(running, f"echo early; {script}", timeout=0.5)
    assert caught.value.result.stdout == "early\n"
    assert marked(mark) == []
    assert marked(other) != []
    assert running.status == "running"
    assert running.exec("true").ok


def test_a_timeout_kills_what_ignores_signals_and_what_is_stopped(running):
    mark = new_mark()
    with pytest.raises(CommandTimeout):
        sh(running, f"trap '' TERM INT HUP; sleep {mark} & kill -STOP $!; sleep {mark} & wait", timeout=0.5)
    assert marked(mark) == []


def test_a_timeout_kills_a_process_that_never_stays_the_same(running):
    mark = new_mark()
    with pytest.raises(CommandTimeout):
        sh(running, f'python3 -c "$1" {mark} & sleep 1000', words=("sh", HOPPER), timeout=0.5)
    assert comes_true(lambda: not marked(mark), patience=2)
    assert running.exec("true").ok


def test_a_timeout_of_one_exec_leaves_another_alone(running):
    results = []
    mark = new_mark()
    other = threading.Thread(target=lambda: results.append(sh(running, "sleep 1; echo whole", timeout=30)))
    other.start()
    with pytest.raises(CommandTimeout):
        running.exec("sleep", mark, timeout=0.2)
    other.join()
    assert results[0].stdout == "whole\n"


def test_the_end_of_the_command_is_the_end_whoever_holds_its_output(running):
    mark = new_mark()
    assert sh(running, f"sleep {mark} & echo done").stdout == "done\n"
    assert marked(mark) != []  # a command that was left behind belongs to the container now


def test_what_an_exec_leaves_behind_ends_with_the_container():
    mark = new_mark()
    with HOST.start("sleep", "1000") as running:
        sh(running, f"setsid sleep {mark} > /dev/null 2>&1 &")
        assert comes_true(lambda: marked(mark))
    assert marked(mark) == []


def test_orphans_of_an_exec_are_reaped(running):
    sh(running, "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done")
    count = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '"
    assert comes_true(lambda: sh(running, count).stdout == "0\n")


def test_an_exec_ends_with_its_container():
    mark = new_mark()
    with HOST.start("sleep", "1000") as running:
        threading.Timer(0.3, running.kill).start()
        result = running.exec("sleep", mark)
    assert result.signal == signal.SIGKILL
    assert marked(mark) == []


def test_an_exec_in_a_container_that_has_exited_says_so():
    with HOST.start("true") as running:
        running.wait()
        with pytest.raises(SandboxError, match="exited") as caught:
            running.exec("true")
        assert caught.value.__notes__


def test_an_exec_in_a_container_that_was_closed_says_so():
    running = HOST.start("sleep", "1000")
    running.close()
    with pytest.raises(SandboxError, match="exited"):
        running.exec("true")


def test_a_container_that_had_an_exec_ends_as_fast_as_one_that_had_none(running):
    """Nothing that was made ready for the next exec stands in the way."""
    assert running.exec("true").ok
    assert running.exec("true").ok
    running.kill()
    assert comes_true(lambda: running.status == "exited", patience=2)


def test_a_payload_that_ends_after_an_exec_is_noticed():
    with HOST.start("sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done; exit 3") as running:
        running.exec("touch", "/go")  # it may be killed at its own end: the payload's comes soon
        assert running.wait(2).exit_code == 3
        assert comes_true(lambda: running.status == "exited", patience=2)


def test_a_missing_program_is_named(running):
    with pytest.raises(CommandNotFound, match="nothing-here"):
        running.exec("nothing-here")


def test_a_program_that_cannot_be_executed_is_named(running):
    with pytest.raises(CommandNotExecutable, match="/etc/hosts"):
        running.exec("/etc/hosts")


def test_no_command_is_refused(running):
    with pytest.raises(InvalidSpec):
        running.exec()


def test_many_at_once(running):
    results = []

    def work(number):
        results.extend(running.exec("echo", str(number)).stdout == f"{number}\n" for _ in range(5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


def test_in_a_container_whose_payload_is_pid_1():
    mark = new_mark()
    with HOST.init(False).start("sleep", "1000") as running:
        assert running.exec("echo", "x").stdout == "x\n"
        with pytest.raises(CommandTimeout):
            sh(running, f"setsid sleep {mark} & sleep {mark}", timeout=0.3)
        assert marked(mark) == []
        assert running.status == "running"


def test_in_a_container_with_a_read_only_root():
    with HOST.read_only().start("sleep", "1000") as running:
        assert not sh(running, "echo x > /made").ok
