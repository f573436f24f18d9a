"""``run -i -t``: a payload's terminal shown on the owner's, which is given back as it was on every way out."""

import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from owners import PATIENCE, comes_true

import pycontain

CLI = (sys.executable, "-m", "pycontain")
ENV = {**os.environ, "PYTHONPATH": str(Path(pycontain.__file__).parents[1]), "PS1": "$ "}


class Screen:
    """A terminal of a user, with a program on it that it controls."""

    def __init__(self, *words, columns=90, rows=33):
        self.keyboard, self.terminal = os.openpty()
        self.shown = b""
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.terminal)
        # setsid(1) -c makes the terminal the controlling one.
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.terminal)
        self.program = subprocess.Popen(["setsid", "-c", *words], env=ENV, **streams)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait()
        os.close(self.keyboard)
        os.close(self.terminal)

    def resize(self, columns, rows):
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.keyboard, text.encode())

    def wait_for(self, text):
        """Read until *text* is shown, and return what came with it."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} is not in {self.shown[-300:]!r}"
            if select.select([self.keyboard], [], [], left)[0]:
                self.shown += os.read(self.keyboard, 1 << 16)
        taken, _, self.shown = self.shown.partition(text.encode())
        return taken.decode()

    def is_raw(self):
        return not termios.tcgetattr(self.terminal)[3] & termios.ICANON

    def ends(self):
        """The status with which the program ends; the terminal must be as it was."""
        status = self.program.wait(PATIENCE)
        assert termios.tcgetattr(self.terminal) == self.before
        return status


def run(*words, **window):
    return Screen(*CLI, "run", *words, **window)


def shell(**window):
    return run("-it", "-e", "PS1=$ ", "host:", "sh", **window)


def test_a_shell():
    with shell() as screen:
        screen.wait_for("$ ")
        assert screen.is_raw()
        screen.type("tty; echo $TERM $((6 * 7))\r")
        screen.wait_for("/dev/pts/0\r\nxterm 42\r\n")
        screen.type("exit 3\r")
        assert screen.ends() == 3


def test_the_window_is_that_of_the_owner_and_follows_it():
    with shell(columns=101, rows=37) as screen:
        screen.wait_for("$ ")
        screen.type("stty size\r")
        screen.wait_for("37 101")
        screen.resize(55, 22)
        screen.type("until [ \"$(stty size)\" = '22 55' ]; do sleep 0.01; done; echo changed to it\r")
        screen.wait_for("changed to it\r\n")
        screen.type("exit\r")
        assert screen.ends() == 0


def test_ctrl_c_goes_to_the_payload_alone():
    with run(
        "-it", "host:", "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done"
    ) as screen:
        screen.wait_for("ready")
        screen.type("\x03")
        screen.wait_for("caught")
        assert screen.ends() == 5


def test_a_signal_to_the_command_line_goes_to_the_payload():
    with run(
        "-it", "host:", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done"
    ) as screen:
        screen.wait_for("ready")
        screen.program.send_signal(signal.SIGTERM)
        assert screen.ends() == 6


def test_a_payload_that_kills_itself():
    with run("-it", "host:", "sh", "-c", "stty raw -echo; echo ready; kill -9 $$") as screen:
        assert screen.ends() == 128 + signal.SIGKILL


def test_what_cannot_be_started():
    with run("-it", "host:", "nothing-here") as screen:
        screen.wait_for("pycontain: nothing-here is not in the PATH of the container\r\n")
        assert screen.ends() == 127


def test_a_timeout():
    with run("-it", "--timeout", "0.5", "host:", "sleep", "1000") as screen:
        screen.wait_for("did not end within 0.5 s")
        assert screen.ends() == 124


def test_an_exception_on_our_side():
    """The zygote is killed, say by the host's OOM killer."""
    with shell() as screen:
        screen.wait_for("$ ")
        children = Path(f"/proc/{screen.program.pid}/task/{screen.program.pid}/children").read_text().split()
        for pid in map(int, children):
            os.kill(pid, signal.SIGKILL)
        assert screen.ends() != 0


def test_what_is_printed_is_complete():
    with run("-t", "host:", "seq", "20000") as screen:
        shown = screen.wait_for("20000\r")
        assert shown.split() == [str(n) for n in range(1, 20000)]
        assert screen.ends() == 0


def test_without_i_keys_stay_here():
    with run(
        "-t", "host:", "sh", "-c", "trap 'echo caught; exit 5' INT; tty; while :; do sleep 0.02; done"
    ) as screen:
        screen.wait_for("/dev/pts/0")
        assert not screen.is_raw()
        screen.type("\x03")
        assert screen.ends() == 5


def test_keys_without_a_terminal_are_refused():
    done = subprocess.run(
        [*CLI, "run", "-it", "host:", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=ENV,
    )
    assert done.returncode == 125
    assert "no terminal" in done.stderr


def test_a_terminal_for_a_payload_whose_output_is_a_pipe():
    done = subprocess.run(
        [*CLI, "run", "-t", "host:", "sh", "-c", "tty; stty size"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=ENV,
    )
    assert (done.stdout, done.returncode) == (b"/dev/pts/0\r\n24 80\r\n", 0)


def test_ctrl_p_alone_goes_to_the_payload():
    script = "stty raw -echo; echo ready; head -c 2 | od -An -tx1"
    with run("-it", "host:", "sh", "-c", script) as screen:
        screen.wait_for("ready")
        screen.type("\x10a")
        screen.wait_for("10 61")
        assert screen.ends() == 0


@pytest.mark.skipif(not shutil.which("bash"), reason="needs a shell with jobs")
def test_ctrl_p_ctrl_q_detaches_and_fg_attaches_again():
    with Screen("bash", "--norc", "-i") as screen:
        screen.wait_for("$ ")
        screen.type(f"{' '.join(CLI)} run -it -e PS1='in: ' host: sh\r")
        screen.wait_for("in: ")
        screen.wait_for("in: ")
        screen.type("echo before\r")
        screen.wait_for("before\r\nin: ")
        screen.type("\x10\x11")
        screen.wait_for("detached")
        screen.wait_for("Stopped")
        screen.type("echo $((6 * 7)) outside\r")
        screen.wait_for("42 outside")
        screen.type("fg\r")
        assert comes_true(screen.is_raw)
        screen.type("echo after $((6 * 7))\r")
        screen.wait_for("after 42\r\n")
        screen.type("exit 3\r")
        screen.wait_for("$ ")
        screen.type("echo status $?\r")
        screen.wait_for("status 3")
        screen.type("exit\r")
        assert screen.program.wait(PATIENCE) == 0
