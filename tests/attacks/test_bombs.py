"""Taking all there is: processes, memory, disk, descriptors. Each bomb would go on far beyond the limit, and has an end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pycontain import Container
from pycontain.errors import CommandTimeout, HostUnsupported
from pycontain.runtime import delegation

HOST = Container("host:")
MIB = 1 << 20
MANY = 300  # processes of a fork bomb that nobody stops; the jail has room for them


@pytest.fixture(autouse=True)
def outside_is_well():
    """After each bomb this process can still fork, and what it starts can take memory."""
    yield
    done = subprocess.run(
        [sys.executable, "-c", "print(len(bytearray(64 << 20)))"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{64 * MIB}\n"


@pytest.fixture
def limited():
    """A container with limits on memory and processes, where control groups can have them."""
    access = delegation.Access.probe()
    missing = {"memory", "pids"} - access.versions().keys()
    if missing:
        pytest.skip(f"no control groups here: {access.refusal(min(missing))}")
    return HOST.limits(memory="64M", swap=0, pids=32)


# --- processes -------------------------------------------------------------------------------------------

FORKS = f"""
import os, time
made = 0
for _ in range({MANY}):
    try:
        pid = os.fork()
    except OSError as error:
        print(error.strerror)
        break
    if pid == 0:
        time.sleep(100)
        os._exit(0)
    made += 1
print(made)
"""
ENDLESS = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def test_fork_bomb(limited):
    """Whose children live on; when the payload ends they end."""
    lines = limited.run("python3", "-I", "-c", FORKS).stdout.split("\n")
    assert lines[0] == "Resource temporarily unavailable"
    assert 16 < int(lines[1]) < 32


def test_fork_bomb_would_go_on_without_the_limit():
    assert HOST.run("python3", "-I", "-c", FORKS).stdout == f"{MANY}\n"


def test_endless_fork_bomb(limited):
    """Everyone forks, again and again; the timeout ends them all."""
    with pytest.raises(CommandTimeout):
        limited.run("python3", "-I", "-c", ENDLESS, timeout=1)


def test_endless_fork_bomb_in_an_exec(limited):
    with limited.start("sleep", "100") as running:
        with pytest.raises(CommandTimeout):
            running.exec("python3", "-I", "-c", ENDLESS, timeout=1)
        assert running.exec("true").ok


def test_endless_fork_bomb_when_the_owner_kills(limited):
    with limited.start("python3", "-I", "-c", ENDLESS) as running:
        running.kill()
        assert running.wait(30).signal == signal.SIGKILL


THREADS = f"""
import os, threading
event = threading.Event()
made = 0
try:
    for _ in range({MANY}):
        threading.Thread(target=event.wait, daemon=True).start()
        made += 1
except RuntimeError as error:
    print(error)
print(made, flush=True)
os._exit(0)
"""


def test_thread_bomb(limited):
    """A thread is a task as a process is."""
    lines = limited.run("python3", "-I", "-c", THREADS).stdout.split("\n")
    assert lines[0] == "can't start new thread"
    assert int(lines[1]) < 32


# --- memory ------------------------------------------------------------------------------------------------

EAT = "import sys\nkept = []\nfor _ in range(256): kept.append(b'x' * (1 << 20))\nprint('ate it all')"
FILL = """
import sys
with open(sys.argv[1], "wb", buffering=0) as file:
    for _ in range(256):
        file.write(b"x" * (1 << 20))
print("ate it all")
"""
PIPES = """
import fcntl, os
kept = []
for _ in range(400):
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 65536)
    except BlockingIOError:
        pass
    kept.append(reader)
print("ate it all")
"""


def test_memory_bomb(limited):
    done = limited.run("python3", "-I", "-c", EAT)
    assert done.oom_killed
    assert done.stdout == ""


def test_memory_bomb_would_go_on_without_the_limit():
    assert HOST.run("python3", "-I", "-c", EAT).stdout == "ate it all\n"


def test_memory_bomb_through_tmpfs(limited):
    """What lies in a tmpfs is memory of who wrote it."""
    done = limited.tmpfs("/big").run("python3", "-I", "-c", FILL, "/big/file")
    assert done.oom_killed
    assert done.stdout == ""


def test_memory_bomb_through_tmpfs_would_go_on_without_the_limit():
    assert HOST.tmpfs("/big").run("python3", "-I", "-c", FILL, "/big/file").stdout == "ate it all\n"


def test_memory_bomb_through_tmpfs_with_a_size():
    done = HOST.tmpfs("/big", size="8M").run("python3", "-I", "-c", FILL, "/big/file")
    assert "No space left on device" in done.stderr


def test_memory_bomb_through_shm():
    """64 MiB are there for everyone, limits or not."""
    assert "No space left on device" in HOST.run("python3", "-I", "-c", FILL, "/dev/shm/file").stderr


def test_memory_bomb_through_shm_counts(limited):
    done = limited.limits(memory="32M").run("python3", "-I", "-c", FILL, "/dev/shm/file")
    assert done.oom_killed


@pytest.mark.parametrize("place", ["/dev", "/proc", "/sys", "/etc/hosts"])
def test_memory_bomb_through_the_runtimes_own_tmpfs(limited, place):
    """Which nobody asked for, so nobody thinks of its size."""
    path = place if place == "/etc/hosts" else f"{place}/file"
    done = limited.run("python3", "-I", "-c", FILL, path)
    assert "ate it all" not in done.stdout


def test_memory_bomb_through_pipes(limited):
    """Kernel memory is memory."""
    done = limited.run("python3", "-I", "-c", PIPES)
    assert done.oom_killed or "OSError" in done.stderr


HUGE_PAGES = """
import mmap
pages = mmap.mmap(-1, 4 << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB
for number in range(4):
    pages[number << 21] = 1
    print(number + 1, flush=True)
"""


@pytest.fixture
def huge_pages():
    """A container, where the host has four huge pages of 2 MiB to give; a machine that is thrown away sets them aside."""
    if "hugetlb" not in delegation.Access.probe().versions():
        pytest.skip("no control groups for huge pages here")
    aside = Path("/proc/sys/vm/nr_hugepages")
    before = aside.read_text() if aside.exists() else ""
    if before and "PYCONTAIN_THROWAWAY" in os.environ and os.access(aside, os.W_OK):
        aside.write_text(str(int(before) + 8))
    free = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    if int(free.get("HugePages_Free", "0")) < 4 or free["Hugepagesize"].split() != ["2048", "kB"]:
        pytest.skip("this host has set no huge pages aside")
    yield HOST
    if aside.read_text() != before:
        aside.write_text(before)


def test_huge_page_bomb(huge_pages):
    """Their memory is not counted as memory; hugetlb_cgroup: who touches one too many gets SIGBUS."""
    done = huge_pages.limits(hugetlb={"2M": "4M"}).run("python3", "-I", "-c", HUGE_PAGES)
    assert (done.stdout, done.signal) == ("1\n2\n", signal.SIGBUS)


def test_huge_pages_for_nobody(huge_pages):
    done = huge_pages.limits(hugetlb={"2M": 0}).run("python3", "-I", "-c", HUGE_PAGES)
    assert (done.stdout, done.signal) == ("", signal.SIGBUS)


def test_huge_page_bomb_would_go_on_without_the_limit(huge_pages):
    """And when the limit is taken away it does so again."""
    bomb = ("python3", "-I", "-c", HUGE_PAGES)
    assert huge_pages.run(*bomb).stdout == "1\n2\n3\n4\n"
    with huge_pages.limits(hugetlb={"2M": "4M"}).start("sleep", "600") as running:
        assert running.exec(*bomb).signal == signal.SIGBUS
        running.update(hugetlb={"2M": "max"})
        assert running.exec(*bomb).stdout == "1\n2\n3\n4\n"


MQUEUE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("flags", "maxmsg", "msgsize", "curmsgs", "a", "b", "c", "d")]
made = 0
for number in range(2000):
    attributes = Attributes(0, 10, 8192)
    if libc.mq_open(f"/q{number}".encode(), 0o102, 0o600, ctypes.byref(attributes)) < 0:
        break
    made += 1
print(made)
"""


def test_message_queues_have_an_end():
    """mq_overview(7): RLIMIT_MSGQUEUE, 800 KiB, or queues_max of the own IPC namespace."""
    assert int(HOST.run("python3", "-I", "-c", MQUEUE).stdout) < 300


# --- disk ------------------------------------------------------------------------------------------------


def test_filling_the_disk():
    done = layer_of(8).run("python3", "-I", "-c", FILL, "/file")
    assert "No space left on device" in done.stderr


def test_filling_the_disk_would_go_on_without_the_limit():
    assert HOST.run("python3", "-I", "-c", FILL, "/file").stdout == "ate it all\n"


INODES = """
import os
os.mkdir("/many")
for number in range(100_000):
    os.close(os.open(f"/many/{number}", os.O_CREAT | os.O_WRONLY))
"""


def test_filling_the_disk_with_inodes():
    """Files that hold nothing are not for nothing."""
    assert "No space left on device" in layer_of(8).run("python3", "-I", "-c", INODES).stderr


def layer_of(mib):
    container = HOST.limits(disk=mib * MIB)
    try:
        container.plan("true")
    except HostUnsupported as error:
        pytest.skip(str(error))
    return container


@pytest.mark.parametrize("place", ["/file", "/etc/file", "/usr/file", "/dev/file", "/proc/file"])
def test_filling_the_disk_of_a_read_only_root(place):
    """/dev is a tmpfs of its own, with a size."""
    done = HOST.read_only().run("python3", "-I", "-c", FILL, place)
    assert done.stdout == ""


# --- descriptors -------------------------------------------------------------------------------------------

DESCRIPTORS = """
import os, resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
made = 0
try:
    for _ in range(100_000):
        os.dup(0)
        made += 1
except OSError as error:
    print(error.strerror)
print(made)
"""


def test_a_hundred_thousand_descriptors():
    lines = HOST.limits(files=256).run("python3", "-I", "-c", DESCRIPTORS).stdout.split("\n")
    assert lines[0] == "Too many open files"
    assert int(lines[1]) < 256


def test_a_hundred_thousand_descriptors_do_not_harm_the_zygote():
    """It has a limit of its own, and goes on when a container has used up its."""
    with HOST.start("python3", "-I", "-c", f"{DESCRIPTORS}\nimport time; time.sleep(100)") as running:
        assert running.exec("true").ok
        assert HOST.run("true").ok


SENT = """
import array, os, socket
kept = []
for _ in range(400):
    one, other = socket.socketpair()
    one.setblocking(False)
    try:
        for _ in range(250):
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    except OSError as error:
        print(error.strerror)
        break
    kept.append(other)
"""


def test_descriptors_in_flight(limited):
    """unix(7): those on the way count too, ETOOMANYREFS; and what is on the way is memory."""
    done = limited.limits(files=256).run("python3", "-I", "-c", SENT)
    assert done.oom_killed or "many" in done.stdout + done.stderr
