"""Signals, ptrace, sockets and terminals: ways to other processes that are no files."""

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pycontain import Container

HOST = Container("host:")


@pytest.fixture
def victim():
    """A process of the same user outside, which lives on."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    alive = process.poll() is None
    process.kill()
    process.wait()
    assert alive


KILL_ALL = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for pid in range(-1, 1000):
    if pid in (0, os.getpid(), -1):
        continue
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            pass
try:
    os.kill(-1, signal.SIGKILL)
except OSError:
    pass
print("alive")
"""


def test_signals_to_outside_processes(victim):
    assert HOST.run("python3", "-I", "-c", KILL_ALL).stdout == "alive\n"


def test_a_signal_by_the_number_that_the_victim_has_outside(victim):
    done = HOST.run("python3", "-I", "-c", f"import os; os.kill({victim.pid + 10_000_000}, 0)")
    assert "ProcessLookupError" in done.stderr
    done = HOST.run("python3", "-I", "-c", f"import os; os.kill({max(victim.pid, 50)}, 9)")
    assert "ProcessLookupError" in done.stderr


PTRACE = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_DETACH = 16, 0x4206, 17
found = {}
def note(name, result):
    found[name] = "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
numbers = json.loads(sys.argv[1])
pid = int(sys.argv[2])
note("attach", libc.ptrace(PTRACE_ATTACH, pid, None, None))
note("seize", libc.ptrace(PTRACE_SEIZE, pid, None, None))
iov = (ctypes.c_void_p * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
note("read", libc.process_vm_readv(pid, iov, 1, iov, 1, 0))
try:
    fd = os.pidfd_open(pid)
except OSError as error:
    found["pidfd"] = errno.errorcode[error.errno]
else:
    note("pidfd", libc.syscall(438, fd, 0, 0))
note("kcmp", libc.syscall(numbers["kcmp"], os.getpid(), pid, 2, 0, 0))
print(json.dumps(found))
"""


def ptrace(pid, run=HOST.run):
    numbers = {"kcmp": 312 if os.uname().machine == "x86_64" else 272}
    done = run("python3", "-I", "-c", PTRACE, json.dumps(numbers), str(pid))
    assert done.ok, done.stderr
    return json.loads(done.stdout)


def test_ptrace_of_outside_processes(victim):
    """Their numbers mean nobody inside."""
    found = ptrace(max(victim.pid, 50))
    assert set(found.values()) <= {"ESRCH", "EPERM"}, found


def test_ptrace_of_the_init():
    """It was forked from the zygote, and knows what the zygote knows."""
    found = ptrace(1)
    assert set(found.values()) <= {"EPERM", "EACCES"}, found


def test_ptrace_of_the_supervisor_of_an_exec():
    """It is confined as the payload is, and is not to be looked into either."""
    with HOST.start("sleep", "100") as running:
        found = ptrace(1, running.exec)
    assert set(found.values()) <= {"EPERM", "EACCES"}, found


def test_processes_of_the_host_are_not_seen(victim):
    done = HOST.run(
        "python3", "-I", "-c", "import os; print(max(map(int, filter(str.isdigit, os.listdir('/proc')))))"
    )
    assert int(done.stdout) < 10
    commands = HOST.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "sleep 1000" not in commands


# --- abstract sockets -----------------------------------------------------------------------------------

CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    try:
        client.connect("\\0" + sys.argv[1])
    except OSError as error:
        print(error.strerror)
    else:
        print("connected")
"""


@pytest.fixture
def abstract():
    """The name of an abstract socket of the host, as D-Bus, X11 and containerd have had them (CVE-2020-15257)."""
    name = f"pycontain-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield name


def test_abstract_unix_sockets_cve_2020_15257(abstract):
    assert HOST.run("python3", "-I", "-c", CONNECT, abstract).stdout == "Connection refused\n"


def test_abstract_sockets_are_open_to_others(abstract):
    done = subprocess.run(
        [sys.executable, "-I", "-c", CONNECT, abstract], capture_output=True, text=True, check=True
    )
    assert done.stdout == "connected\n"


def test_a_list_of_the_hosts_sockets(abstract):
    """unix(7) names all of a network namespace in /proc/net/unix."""
    assert abstract not in HOST.run("cat", "/proc/net/unix").stdout


def test_loopback_of_the_host():
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        assert "ConnectionRefusedError" in HOST.run("python3", "-I", "-c", code).stderr


# --- the terminal of the owner ----------------------------------------------------------------------------

TIOCSTI = """
import fcntl, os, termios
TIOCLINUX, TIOCL_SETSEL, TIOCL_PASTESEL = 0x541C, 2, 3
def put(fd):
    for byte in b"id\\n":
        fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))
def paste(fd):  # ioctl_console(2): what is selected on a virtual console, as the mouse does
    fcntl.ioctl(fd, TIOCLINUX, bytes([TIOCL_SETSEL, 1, 0, 1, 0, 9, 0, 1, 0, 2, 0]))
    fcntl.ioctl(fd, TIOCLINUX, bytes([TIOCL_PASTESEL]))
for name in ("/dev/tty", "/dev/console", "/dev/tty1", "/dev/pts/0", "/proc/1/fd/0", 0, 1, 2):
    for act in (put, paste):
        try:
            act(os.open(name, os.O_RDWR | os.O_NONBLOCK) if isinstance(name, str) else name)
        except OSError as error:
            print(name, error.strerror)
        else:
            print(name, "typed")
try:
    os.setsid()
except OSError:
    pass
try:
    fcntl.ioctl(0, termios.TIOCSCTTY, 1)
except OSError:
    pass
else:
    print("has a controlling terminal")
"""

ON_A_TERMINAL = """
import select, sys
from pycontain import Container
print(Container("host:").run("python3", "-I", "-c", sys.argv[1]).stdout)
with open("/dev/tty", "rb") as terminal:
    print("waiting:", *select.select([terminal], [], [], 0)[0])
"""


def on_a_terminal(*argv):
    """Run a program as a shell does, on a terminal that is its controlling one; what it printed there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last one has closed it
        while chunk := os.read(terminal, 4096):
            shown += chunk
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    return shown.decode()


@pytest.mark.parametrize("init", ["True", "False"])
def test_terminal_injection_tiocsti_cve_2017_5226(init):
    """What is put into the terminal's input, the shell executes when we have ended."""
    code = ON_A_TERMINAL.replace('Container("host:")', f'Container("host:").init({init})')
    assert "typed" not in (shown := on_a_terminal(sys.executable, "-c", code, TIOCSTI))
    assert "/dev/tty" in shown
    assert "has a controlling terminal" not in shown
    assert "waiting:\r\n" in shown  # nothing is there for the shell to read


def test_what_is_typed_into_the_containers_own_terminal_reaches_no_other_tiocsti():
    """That one it may use as it likes: nobody outside reads commands from it."""
    code = ON_A_TERMINAL.replace('("host:")', '("host:").tty()')
    shown = on_a_terminal(sys.executable, "-c", code, TIOCSTI)
    assert "/dev/tty" in shown
    assert "waiting:\r\n" in shown


def test_terminal_injection_on_the_command_line():
    """There the payload's streams are those of the terminal, through pipes."""
    argv = (sys.executable, "-m", "pycontain", "run", "host:", "python3", "-I", "-c", TIOCSTI)
    shown = on_a_terminal(*argv)
    assert "/dev/tty" in shown
    assert "typed" not in shown


ON_ITS_DESCRIPTORS = """
import select, sys
from pycontain import Container
with Container("host:").start("sleep", "600") as running:
    process = running.popen("python3", "-I", "-c", sys.argv[1], stdin=0, stdout=1, stderr=2)
    print("ended:", process.wait())
with open("/dev/tty", "rb") as terminal:
    print("waiting:", *select.select([terminal], [], [], 0)[0])
"""


def test_terminal_injection_through_inherited_descriptors_tiocsti():
    """Who gives a payload the terminal gives it to read and write, and nothing more: it is the owner's session's."""
    shown = on_a_terminal(sys.executable, "-c", ON_ITS_DESCRIPTORS, TIOCSTI)
    for number in range(3):
        tried = [line for line in shown.splitlines() if line.startswith(f"{number} ")]
        assert len(tried) == 2, shown
    assert "typed" not in shown
    assert "has a controlling terminal" not in shown
    assert "ended: 0\r\nwaiting:\r\n" in shown


def test_the_terminal_would_be_reached_by_a_plain_subprocess():
    """At least /dev/tty can be opened there; whether it takes TIOCSTI is for the kernel."""
    shown = on_a_terminal(sys.executable, "-I", "-c", TIOCSTI)
    assert "/dev/tty No such device or address" not in shown
    switch = Path("/proc/sys/dev/tty/legacy_tiocsti")  # Linux 6.2
    if not switch.exists() or switch.read_text() == "1\n":
        assert "/dev/tty typed" in shown
        assert "0 typed" in shown


def test_the_terminal_is_not_there_at_all():
    shown = on_a_terminal(sys.executable, "-c", ON_A_TERMINAL, TIOCSTI)
    assert "/dev/tty No such device or address" in shown
