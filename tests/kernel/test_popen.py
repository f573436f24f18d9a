"""``popen``: a command in a container that runs, as subprocess.Popen has it."""

import gc
import os
import pickle
import signal
import subprocess
import threading
from subprocess import DEVNULL, PIPE, STDOUT

import pytest
from owners import comes_true, marked, new_mark, run_owner

from pycontain import Container
from pycontain.errors import CommandNotFound, CommandTimeout, InvalidSpec, SandboxError

HOST = Container("host:")


@pytest.fixture(scope="module")
def running():
    with HOST.start("sleep", "1000") as running:
        # It has a control group from now on, which is no leak of a test.
        assert running.exec("true", timeout=60).ok
        yield running


@pytest.fixture
def sh(running):
    def popen(script, **options):
        return running.popen("sh", "-c", script, **options)

    return popen


def test_a_dialogue(running):
    with running.popen("cat", stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"one\n"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0


def test_a_dialogue_in_text(running):
    with running.popen("cat", stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as process:
        process.stdin.write("ä\r\n")
        assert process.stdout.readline() == "ä\r\n"


def test_an_encoding_and_what_is_none_of_it(sh):
    assert sh(r"printf '\344\n'", stdout=PIPE, encoding="latin-1").communicate()[0] == "ä\n"
    assert sh(r"printf '\344'", stdout=PIPE, text=True).communicate()[0] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -15 $$", -15), ("kill -9 $$", -9), ("true", 0)]
)
def test_the_return_code_is_that_of_subprocess(sh, script, code):
    process = sh(script)
    assert process.wait() == code
    assert (process.returncode, process.poll()) == (code, code)


def test_poll_and_returncode_are_none_while_it_runs(running):
    process = running.popen("sleep", "1000")
    assert (process.poll(), process.returncode) == (None, None)
    process.kill()
    assert process.wait() == -9


def test_a_wait_gives_up_with_an_error_of_both_kinds_and_the_command_goes_on(running):
    process = running.popen("sleep", "1000")
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process.wait(timeout=0.01)
    assert isinstance(caught.value, CommandTimeout)
    assert (caught.value.cmd, caught.value.timeout) == (["sleep", "1000"], 0.01)
    assert pickle.loads(pickle.dumps(caught.value)).timeout == 0.01
    assert process.poll() is None
    process.terminate()
    assert process.wait() == -15


def test_communicate_carries_64_mib_both_ways(running):
    content = os.urandom(1 << 16) * 1024
    out, err = running.popen("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE).communicate(content)
    assert out == content
    assert err == b""


def test_communicate_goes_on_after_a_timeout_and_loses_nothing(sh, running):
    mark = f"/go-{new_mark()}"
    process = sh(
        f"echo one; while [ ! -e {mark} ]; do sleep 0.01; done; cat", stdin=PIPE, stdout=PIPE, text=True
    )
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process.communicate("two\n", timeout=0.1)
    assert caught.value.output == "one\n"
    with pytest.raises(ValueError, match="no more input"):
        process.communicate("three\n")
    running.exec("touch", mark)
    assert process.communicate(timeout=20) == ("one\ntwo\n", None)
    assert process.returncode == 0


def test_communicate_with_a_command_that_does_not_read(running):
    assert running.popen("true", stdin=PIPE, stdout=PIPE).communicate(b"x" * 1_000_000) == (b"", None)


def test_input_without_a_pipe_is_refused(running):
    process = running.popen("true", stdout=PIPE)
    with pytest.raises(ValueError, match="no PIPE"):
        process.communicate(b"x")
    assert process.communicate() == (b"", None)


def test_input_of_the_wrong_kind_is_refused(running):
    process = running.popen("cat", stdin=PIPE, stdout=PIPE)
    with pytest.raises(TypeError, match="bytes"):
        process.communicate("text")
    assert process.communicate(b"x") == (b"x", None)


def test_standard_error_may_go_where_standard_output_goes(sh):
    process = sh("echo a; echo b >&2; echo c", stdout=PIPE, stderr=STDOUT)
    assert process.communicate() == (b"a\nb\nc\n", None)
    assert process.stderr is None


def test_devnull(sh):
    process = sh(
        "readlink /proc/self/fd/0 >&2; head -c 1000000 /dev/zero", stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    assert process.communicate() == (None, b"/dev/null\n")
    assert process.returncode == 0


def test_files_on_both_sides(running, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    content = os.urandom(1_000_000)
    source.write_bytes(content)
    with source.open("rb") as stdin, target.open("wb") as stdout:
        process = running.popen("cat", stdin=stdin, stdout=stdout.fileno())
        assert process.wait(60) == 0
        assert target.read_bytes() == content  # which is there when wait() returns


def test_a_file_that_cannot_be_written_is_told(sh):
    with open("/dev/full", "wb") as full:
        process = sh("echo x; exit 3", stdout=full)
        with pytest.raises(SandboxError, match="standard output broke: No space left"):
            process.wait(60)
        with pytest.raises(SandboxError):
            process.communicate()
        assert process.returncode == 3


def test_what_cannot_be_read_is_told(running, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        process = running.popen("cat", stdin=folder, stdout=DEVNULL)
        with pytest.raises(SandboxError, match="standard input broke: Is a directory"):
            process.wait(60)
        with (
            HOST.start("cat", stdin=folder) as other,
            pytest.raises(SandboxError, match="standard input broke"),
        ):
            other.wait(60)
    finally:
        os.close(folder)


def test_the_command_gets_no_descriptor_of_ours(running, tmp_path):
    """A file is more than its bytes: by /proc/self/fd/1 it could be read, and written from its beginning."""
    with (tmp_path / "log").open("w+b") as log:
        assert running.popen("sh", "-c", "readlink /proc/self/fd/1; ls /proc/self/fd", stdout=log).wait() == 0
        log.seek(0)
        shown = log.read().decode().split()
    assert shown[0].startswith("pipe:")
    assert shown[1:] == ["0", "1", "2", "3"]  # 3 is that of ls


def test_none_is_our_own_output_and_no_input():
    code = """
        from pycontain import Container
        with Container("host:").start("sleep", "1000") as running:
            assert running.popen("sh", "-c", "cat; echo out; echo err >&2").wait() == 0
    """
    assert run_owner(code) == (0, "out\n", "err\n")


def test_what_is_no_file_is_refused(running):
    with pytest.raises(InvalidSpec, match="standard output"):
        running.popen("true", stdout="log")
    with pytest.raises(InvalidSpec, match="standard input"):
        running.popen("true", stdin=12345)
    with pytest.raises(InvalidSpec, match="no-such"):
        running.popen("true", encoding="no-such")


def test_a_missing_command_is_named(running):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        running.popen("nothing-here", stdin=PIPE, stdout=PIPE)
    with pytest.raises(CommandNotFound):
        running.popen("nothing-here")
    with pytest.raises(InvalidSpec):
        running.popen()


def test_the_pid_is_that_of_the_command_on_the_host(running):
    mark = new_mark()
    process = running.popen("sleep", mark)
    assert marked(mark) == [process.pid]
    process.kill()
    process.wait()


def test_a_signal_goes_to_the_command_itself(sh):
    process = sh("trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.01; done", stdout=PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal("USR1")
    assert process.communicate() == (b"got\n", None)
    assert process.returncode == 4


def test_it_can_be_stopped_and_continued(running):
    process = running.popen("sleep", "1000")

    def state():
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]

    process.send_signal(signal.SIGSTOP)
    assert comes_true(lambda: state() == "T")
    process.send_signal(signal.SIGCONT)
    assert comes_true(lambda: state() == "S")
    process.kill()
    assert process.wait() == -9


@pytest.mark.parametrize("init", [True, False])
def test_kill_ends_all_that_it_has_started_and_nothing_else(init):
    mark, other = new_mark(), new_mark()
    with HOST.init(init).start("sleep", other) as running:
        process = running.popen("sh", "-c", f"setsid sleep {mark} & (setsid sleep {mark} &); sleep {mark}")
        assert comes_true(lambda: len(marked(mark)) >= 3)
        process.kill()
        assert process.wait() == -9
        assert comes_true(lambda: not marked(mark))
        assert marked(other)


def test_signals_for_what_has_ended_have_no_effect(running):
    process = running.popen("true")
    process.wait()
    process.kill()
    process.terminate()
    process.send_signal(signal.SIGSTOP)
    assert process.wait() == 0


def test_what_is_no_signal_is_refused(running):
    process = running.popen("sleep", "1000")
    with pytest.raises(InvalidSpec):
        process.send_signal("NOPE")
    process.kill()
    process.wait()


def test_a_command_that_nobody_refers_to_goes_on(running):
    mark = new_mark()
    running.popen("sleep", mark, stdout=DEVNULL)
    gc.collect()
    assert comes_true(lambda: marked(mark))
    os.kill(marked(mark)[0], signal.SIGTERM)
    assert comes_true(lambda: not marked(mark))


def test_a_forgotten_command_with_a_file_leaves_nothing_behind(running, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        running.popen("echo", "x", stdout=log)
        gc.collect()
        assert comes_true(lambda: (tmp_path / "log").read_bytes() == b"x\n")


def test_it_ends_with_its_container():
    mark = new_mark()
    with HOST.start("sleep", "1000") as running:
        process = running.popen("sleep", mark, stdout=PIPE)
    assert process.wait(20) == -9
    assert process.communicate() == (b"", None)
    assert marked(mark) == []


def test_what_the_pipe_holds_can_be_read_after_the_end():
    with HOST.start("sleep", "1000") as running:
        process = running.popen("echo", "late", stdout=PIPE)
        process.wait()
    with process.stdout as stdout:
        assert stdout.read() == b"late\n"


def test_a_reader_that_leaves_ends_the_command(running):
    process = running.popen("yes", stdout=PIPE)
    process.stdout.read(2)
    process.stdout.close()
    assert process.wait(20) == -signal.SIGPIPE


def test_env_user_and_workdir(running, privilege):
    user = None if privilege == "single" else "1000:1000"
    process = running.popen(
        "sh", "-c", "echo $A; pwd; id -u", env={"A": "1"}, workdir="/usr", user=user, stdout=PIPE
    )
    assert process.communicate()[0].split() == [b"1", b"/usr", b"0" if user is None else b"1000"]


def test_many_at_once(running):
    processes = [running.popen("sh", "-c", f"echo {n}; exit {n}", stdout=PIPE) for n in range(30)]
    assert [(p.communicate()[0], p.returncode) for p in processes] == [(b"%d\n" % n, n) for n in range(30)]


def test_many_threads_wait_for_one(sh):
    process, codes = sh("read line; exit 7", stdin=PIPE), []
    threads = [threading.Thread(target=lambda: codes.append(process.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    process.stdin.close()
    for thread in threads:
        thread.join()
    assert codes == [7] * 8


def test_a_container_that_has_exited_or_is_paused_takes_none(running):
    with HOST.start("true") as other:
        other.wait()
        with pytest.raises(SandboxError, match="exited"):
            other.popen("true")


def test_what_an_exec_spare_did_in_advance_serves_a_popen_too(running):
    assert running.exec("true").ok
    assert running.popen("echo", "x", stdout=PIPE).communicate()[0] == b"x\n"


def test_in_the_child_of_a_fork_it_is_not_ours():
    code = """
        import os
        from subprocess import PIPE
        from pycontain import Container
        from pycontain.errors import SandboxError
        with Container("host:").start("sleep", "1000") as running:
            process = running.popen("cat", stdin=PIPE, stdout=open("/dev/null", "wb"))
            if os.fork() == 0:
                try:
                    process.wait()
                except SandboxError as error:
                    print("refused", error, flush=True)
                os._exit(0)
            os.wait()
            process.kill()
            print(process.wait())
    """
    code, stdout, stderr = run_owner(code, python=())
    assert (code, stdout.splitlines()[0].split()[0], stdout.splitlines()[1]) == (0, "refused", "-9"), stderr


def test_its_words(running):
    process = running.popen("sleep", "1000")
    assert process.args == ["sleep", "1000"]
    assert "sleep 1000" in repr(process)
    process.kill()
    process.wait()
