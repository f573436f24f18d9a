"""Terminals: of a container and of commands in it, and the sessions with them."""

import os
import signal
import subprocess
import termios
import threading

import pytest
from owners import comes_true, marked, new_mark, run_owner

from pycontain import Container
from pycontain.errors import InvalidSpec, NotReady, SandboxError

HOST = Container("host:")
BOX = HOST.tty()
PYTHON = "import os, sys, fcntl, struct, signal, time, termios\n"


@pytest.fixture(scope="module")
def running():
    with HOST.start("sleep", "1000") as running:
        # It has a control group from now on, which is no leak of a test.
        assert running.exec("true", timeout=60).ok
        yield running


def lines(done):
    return done.stdout.replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("init", [True, False])
def test_all_three_are_one_terminal_of_the_containers_own(init):
    script = "for fd in 0 1 2; do readlink /proc/self/fd/$fd; done; tty; ls /dev/pts"
    assert lines(BOX.init(init).run("sh", "-c", script)) == ["/dev/pts/0"] * 4 + ["0  ptmx"]


@pytest.mark.parametrize("init", [True, False])
def test_the_payload_leads_the_session_that_the_terminal_controls(init):
    script = (
        PYTHON + "print(os.getsid(0) == os.getpid() == os.tcgetpgrp(0)); open('/dev/tty', 'w').write('here')"
    )
    assert lines(BOX.init(init).run("python3", "-c", script)) == ["True", "here"]


def test_the_console_is_the_same_terminal():
    done = BOX.run("sh", "-c", "echo loud > /dev/console; stat -c '%t %T' /dev/console /dev/pts/0")
    loud, console, slave = lines(done)
    assert loud == "loud"
    assert console == slave


def test_no_descriptor_but_the_three(running):
    assert running.exec("ls", "/proc/self/fd", tty=True).stdout.split() == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3 is that of ls
    assert BOX.run("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]


def test_it_belongs_to_the_user_of_the_payload(privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    done = BOX.user("1000:1000").run("sh", "-c", "stat -c %u $(tty); echo x > $(tty)")
    assert lines(done) == ["1000", "x"]


@pytest.mark.parametrize(
    "box",
    [BOX.untrusted(required=False), BOX.userns("host"), BOX.read_only(), BOX.privileged(), BOX.landlock()],
)
def test_behind_all_walls(box):
    assert lines(box.run("sh", "-c", "tty; stty size; echo x > /dev/tty")) == ["/dev/pts/0", "24 80", "x"]


def test_the_window_has_the_size_that_was_asked_for():
    assert lines(HOST.tty(columns=132, rows=50).run("stty", "size")) == ["50 132"]


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"rows": 70_000}, {"rows": "24"}])
def test_a_size_that_is_none_is_refused(wrong):
    with pytest.raises(InvalidSpec):
        HOST.tty(**wrong)


def test_term_is_set_and_can_be_changed():
    assert lines(BOX.run("sh", "-c", "echo $TERM")) == ["xterm"]
    assert lines(BOX.env(TERM="dumb").run("sh", "-c", "echo $TERM")) == ["dumb"]
    assert lines(HOST.run("sh", "-c", "echo $TERM")) == [""]


def test_without_it_there_is_no_terminal():
    assert HOST.tty().tty(False) == HOST
    assert not HOST.run("sh", "-c", "exec 3<>/dev/tty").ok


@pytest.mark.parametrize(("given", "shown"), [("abc\n", "abc\r\nabc\r\n"), ("abc", "abcabc"), ("", "")])
def test_input_is_typed_and_ends(given, shown):
    done = BOX.run("cat", input=given)
    assert (done.stdout, done.stderr, done.exit_code) == (shown, "", 0)


def test_no_bytes_are_lost_at_the_end():
    for _ in range(10):
        done = BOX.run("sh", "-c", "stty -opost; head -c 100000 /dev/zero", text=False)
        assert done.stdout == bytes(100_000)


def test_who_closes_the_terminal_may_open_it_again():
    script = (
        "exec < /dev/null > /dev/null 2>&1; sleep 0.1; echo back > /dev/tty; sleep 0.1; echo again > /dev/tty"
    )
    assert lines(BOX.run("sh", "-c", script)) == ["back", "again"]


def test_its_lines_are_one_stream():
    with BOX.start("sh", "-c", "echo out; echo err >&2") as running:
        assert [(line.stream, line.text, line.end) for line in running.lines()] == [
            ("stdout", "out", "\r\n"),
            ("stdout", "err", "\r\n"),
        ]


# --- sessions -------------------------------------------------------------------------------------------


def test_a_dialogue_with_a_shell():
    with BOX.env(PS1="$ ").start("sh") as running, running.attach() as terminal:
        terminal.read_until("$ ")
        terminal.write("echo $((6 * 7))\r")
        assert terminal.read_until("42\r\n") == b"echo $((6 * 7))\r\n42\r\n"
        terminal.write("exit 3\r")
        assert running.wait(20).exit_code == 3
        assert b"exit 3" in b"".join(iter(terminal.read, b""))


def test_ctrl_c_interrupts_what_is_in_the_foreground():
    with BOX.env(PS1="$ ").start("sh") as running, running.attach() as terminal:
        terminal.read_until("$ ")
        terminal.write("sleep 1000\r")
        assert comes_true(lambda: running.exec("pidof", "sleep").ok)
        terminal.write("\x03")
        terminal.read_until("^C")
        terminal.write("echo $?\r")
        terminal.read_until("130")
        assert running.status == "running"


def test_a_new_size_is_told():
    script = (
        PYTHON
        + "signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b'%d %d!' % os.get_terminal_size())); print('ready', flush=True)\n"
        + "while True: signal.pause()"
    )
    with BOX.start("python3", "-c", script) as running, running.attach() as terminal:
        terminal.read_until("ready")
        assert terminal.size == (80, 24)
        terminal.resize(100, 30)
        terminal.read_until("100 30!")
        assert terminal.size == (100, 30)
        with pytest.raises(InvalidSpec):
            terminal.resize(-1, 30)


def test_a_session_begins_where_the_last_one_ended():
    with BOX.start("sh", "-c", "stty -echo; echo one; read x; echo two; read x; echo three") as running:
        with running.attach() as terminal:
            assert terminal.read_until("one\r\n") == b"one\r\n"
            terminal.write("\r")
            terminal.read_until("tw")
        with running.attach() as terminal:
            assert terminal.read_until("o\r\n") == b"o\r\n"
            terminal.write("\r")
            terminal.read_until("three")


def test_several_sessions_see_the_same():
    with (
        BOX.start("sh", "-c", "stty -echo; read x; echo got $x") as running,
        running.attach() as one,
        running.attach() as other,
    ):
        one.write("it\r")
        assert one.read_until("got it\r\n") == other.read_until("got it\r\n")


def test_a_read_gives_up_and_loses_nothing():
    with BOX.start("sh", "-c", "printf half; sleep 1000") as running, running.attach() as terminal:
        with pytest.raises(NotReady, match="'whole'") as caught:
            terminal.read_until("whole", timeout=0.2)
        assert "half" in caught.value.__notes__[0]
        assert isinstance(caught.value, TimeoutError)
        assert terminal.read() == b"half"
        with pytest.raises(NotReady):
            terminal.read(timeout=0.01)


def test_the_end_comes_before_what_was_waited_for():
    with BOX.start("echo", "x") as running, running.attach() as terminal:
        with pytest.raises(SandboxError, match="ended before") as caught:
            terminal.read_until("y")
        assert "x" in caught.value.__notes__[0]
        assert terminal.read() == b"x\r\n"
        assert terminal.read() == b""


def test_a_payload_that_does_not_read_holds_up_who_types():
    with (
        BOX.start("sh", "-c", "stty raw -echo; echo ready; sleep 1000") as running,
        running.attach() as terminal,
    ):
        terminal.read_until("ready")
        with pytest.raises(NotReady, match="did not read"):
            terminal.write("x" * 1_000_000, timeout=0.1)


def test_a_megabyte_passes_both_ways():
    content = os.urandom(1 << 20)
    with (
        BOX.start("sh", "-c", "stty raw -echo; echo ready; head -c 1048576") as running,
        running.attach() as terminal,
    ):
        terminal.read_until("ready")
        terminal.read_until("\n")
        writer = threading.Thread(target=terminal.write, args=(content,))
        writer.start()
        got = b"".join(iter(terminal.read, b""))
        writer.join()
    assert got == content


def test_leaving_the_block_ends_who_reads():
    with BOX.start("sleep", "1000") as running:
        terminal = running.attach()
        reader = threading.Thread(target=terminal.read)
        reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert terminal.closed


def test_a_session_that_was_detached_types_nothing():
    with BOX.start("sleep", "1000") as running:
        terminal = running.attach()
        terminal.detach()
        terminal.detach()
        with pytest.raises(SandboxError, match="detached"):
            terminal.write("x")
        assert running.status == "running"
        assert "detached" in repr(terminal)


def test_a_session_that_nobody_refers_to_leaves_nothing_behind():
    with BOX.start("sleep", "1000") as running:
        running.attach()


def test_there_is_nothing_to_attach_to_without_a_terminal(running):
    with pytest.raises(SandboxError, match="no terminal") as caught:
        running.attach()
    assert "tty" in caught.value.__notes__[0]


def test_what_has_exited_can_be_read_and_not_typed_to():
    with BOX.start("echo", "x") as running:
        running.wait()
        with running.attach() as terminal:
            assert terminal.read_until("x") == b"x"
            with pytest.raises(SandboxError, match="ended"):
                terminal.write("y")


def test_a_terminal_and_a_pipe_are_too_much():
    with pytest.raises(InvalidSpec, match="attach"):
        BOX.start("cat", stdin=subprocess.PIPE)


# --- commands -------------------------------------------------------------------------------------------


def test_an_exec_on_a_terminal(running):
    done = running.exec(
        "sh", "-c", "tty; stty size; echo err >&2; read x; echo $x; exit 3", tty=True, input="in\n"
    )
    assert done.exit_code == 3
    assert sorted(done.stdout.split()) == sorted(["in", "/dev/pts/0", "24", "80", "err", "in"])
    assert not running.exec("tty").ok


def test_an_exec_on_a_terminal_by_a_spare(running):
    for _ in range(3):
        assert running.exec("tty", tty=True).ok


def test_a_command_beside_a_terminal_has_none_unless_it_is_told():
    with BOX.start("sleep", "1000") as running:
        assert running.exec("tty").stdout == "not a tty\n"
        assert running.exec("tty", tty=True).stdout == "/dev/pts/1\r\n"


def test_a_timeout_of_a_command_on_a_terminal(running):
    mark = new_mark()
    with pytest.raises(TimeoutError) as caught:
        running.exec("sh", "-c", f"echo early; sleep {mark}", tty=True, timeout=0.3)
    assert caught.value.result.stdout == "early\r\n"
    assert marked(mark) == []


def test_popen_on_a_terminal(running):
    with running.popen("sh", "-c", "read x; echo got $x; tty", tty=True) as process:
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        process.terminal.write("it\r")
        process.terminal.read_until("got it")
        process.terminal.read_until("/dev/pts/")
        assert process.wait(20) == 0
    assert process.terminal.closed


def test_what_loses_its_terminal_is_hung_up(running):
    process = running.popen("sh", "-c", "echo ready; sleep 1000", tty=True)
    process.terminal.read_until("ready")
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == -signal.SIGHUP
    process.terminal.detach()


def test_popen_with_a_terminal_has_no_other_streams(running):
    with pytest.raises(InvalidSpec, match="terminal"):
        running.popen("true", tty=True, stdout=subprocess.PIPE)


def test_many_terminals_at_once(running):
    processes = [running.popen("sh", "-c", f"read x; echo $x {n}", tty=True) for n in range(20)]
    for n, process in enumerate(processes):
        process.terminal.write("hello\r")
        process.terminal.read_until(f"hello {n}\r\n")
        assert process.wait(20) == 0
        process.terminal.detach()


# --- what a payload cannot do ---------------------------------------------------------------------------


def test_a_payload_can_type_into_its_own_terminal_at_most():
    """TIOCSTI on everything that it has: what is typed comes back to itself, and never to the owner."""
    script = PYTHON + (
        "for fd in range(0, 64):\n"
        "    for byte in b'typed':\n"
        "        try: fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))\n"
        "        except OSError: break\n"
        "print('done')"
    )
    owner, terminal = os.openpty()
    try:
        attributes = termios.tcgetattr(terminal)
        assert lines(BOX.run("python3", "-c", script))[-1].endswith("done")
        assert HOST.run("python3", "-c", script).stdout == "done\n"
        os.set_blocking(owner, False)
        with pytest.raises(BlockingIOError):
            os.read(owner, 1)
        assert termios.tcgetattr(terminal) == attributes
    finally:
        os.close(owner)
        os.close(terminal)


def test_the_terminals_of_the_host_are_out_of_reach():
    before = set(os.listdir("/dev/pts"))
    with BOX.start("sleep", "1000") as running:
        assert set(os.listdir("/dev/pts")) == before
        assert running.exec("ls", "/dev/pts").stdout.split() == ["0", "ptmx"]


def test_something_else_in_the_place_of_ptmx_is_refused(privilege):
    """Root inside with CAP_SYS_ADMIN may mount what he likes there; nothing but a terminal is handed to the owner."""
    box = HOST.capabilities(add=["SYS_ADMIN"]).seccomp("unconfined").userns("host")
    with box.start("sh", "-c", "mount --bind /dev/zero /dev/pts/ptmx && echo done; sleep 1000") as running:
        assert next(running.lines()).text == "done"
        with pytest.raises(OSError, match="pts/ptmx"):
            running.exec("true", tty=True)


def test_an_owner_without_descriptors_says_so():
    """The terminal is handed over by its master and its slave: two descriptors, for which there may be no room."""
    code = """
        import os, resource
        from pycontain import Container
        from pycontain.errors import SandboxError
        box = Container("host:").tty()
        assert box.run("true").ok
        here = len(os.listdir("/proc/self/fd"))
        for room in range(1, 12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (here + room, 4096))
            try:
                done = box.run("echo", "x")
            except SandboxError as error:
                assert "cannot open" in str(error) or "descriptor" in str(error), error
            else:
                assert done.stdout == "x\\r\\n"
                break
        else:
            raise AssertionError("it never worked")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        assert len(os.listdir("/proc/self/fd")) == here
    """
    assert run_owner(code, python=())[0::2] == (0, "")


def test_in_the_child_of_a_fork_sessions_are_not_ours():
    code = """
        import os
        from pycontain import Container
        with Container("host:").tty().start("cat") as running, running.attach() as terminal:
            if os.fork() == 0:
                print(terminal.closed, len(os.listdir("/proc/self/fd")) < 12, flush=True)
                os._exit(0)
            os.wait()
            terminal.write("hello\\r")
            terminal.read_until("hello\\r\\nhello")
            print("still here")
    """
    # Since 3.12 Python warns of a fork beside threads, which is what is tried here.
    quiet = ("-W", "ignore::DeprecationWarning")
    assert run_owner(code, python=quiet) == (0, "True True\nstill here\n", "")
