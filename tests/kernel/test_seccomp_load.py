"""The kernel takes our filter and answers as it says, for root and for an ordinary user."""

import ctypes
import errno
import json
import mmap
import os
import signal
import struct

import pytest

from pycontain.kernel.seccomp import set_filter
from pycontain.kernel.syscall_tables import Abi, numbers_of
from pycontain.sandbox.seccomp import Action, Answer, Case, Policy
from pycontain.sandbox.seccomp_default import default_profile
from pycontain.sandbox.seccomp_filter import compile_filter, compile_profile

pytestmark = pytest.mark.kernel

MACHINE = os.uname().machine
if MACHINE not in ("x86_64", "aarch64"):
    pytest.skip(f"no filters for {MACHINE}", allow_module_level=True)

NATIVE = {"x86_64": Abi.X86_64, "aarch64": Abi.AARCH64}[MACHINE]
PR_SET_NO_NEW_PRIVS = 38
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def default() -> bytes:
    release = os.uname().release.split(".")
    return compile_profile(
        default_profile(),
        capabilities=frozenset(),
        architecture=MACHINE,
        kernel=(int(release[0]), int(release[1])),
    )


def call(name_or_number, *args) -> int:
    """0, or the errno."""
    number = numbers_of(NATIVE)[name_or_number] if isinstance(name_or_number, str) else name_or_number
    failed = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, (*args, *[0] * (6 - len(args))))) == -1
    return ctypes.get_errno() if failed else 0


def in_a_child(act, *, uid=None):
    """What *act* returns in a forked child, or the signal that ended it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            result = act()
        except OSError as error:
            result = error.errno
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(text) if os.WIFEXITED(status) else signal.Signals(os.WTERMSIG(status))


@pytest.fixture(params=["as we are", "as nobody"])
def filtered(request):
    """Run something under a filter, the default unless another one is given."""
    if request.param == "as nobody" and os.geteuid() != 0:
        pytest.skip("we are an ordinary user already")
    uid = NOBODY if request.param == "as nobody" else None

    def run(act, program=None):
        program = program or default()

        def confined():
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            set_filter(program)
            return act()

        return in_a_child(confined, uid=uid)

    return run


def test_the_default_loads_and_lets_python_go_on(filtered):
    assert filtered(lambda: [os.getpid() > 0, os.listdir("/proc/self/fd") != []]) == [True, True]


@pytest.mark.parametrize(
    ("name", "args", "unfiltered"),
    [
        ("keyctl", (0, -3, 0), 0),
        ("unshare", (0,), 0),
        ("io_uring_setup", (1, 0), errno.EFAULT),
        ("socket", (38, 5, 0), 0),
        ("socket", ((1 << 32) + 38, 5, 0), 0),
        ("personality", (0x0400000,), 0),
        ("clone", (0x10000000 | signal.SIGCHLD,), 0),
    ],
)
def test_a_call_that_is_not_allowed_gets_eperm(filtered, name, args, unfiltered):
    """*unfiltered* is what the kernel alone would say, where it is configured to."""
    assert filtered(lambda: call(name, *args)) == errno.EPERM


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("getpid", ()),
        ("getppid", ()),
        ("socket", (1, 1, 0)),
        ("socket", (2, 1, 0)),
        ("personality", (0xFFFFFFFF,)),
        ("memfd_create", (0,)),
    ],
)
def test_a_call_that_is_allowed_gets_the_kernels_own_answer(filtered, name, args):
    assert filtered(lambda: call(name, *args)) == in_a_child(lambda: call(name, *args))


def test_clone3_gets_enosys_so_that_the_c_library_uses_clone(filtered):
    assert filtered(lambda: call("clone3", 0, 0)) == errno.ENOSYS
    assert in_a_child(lambda: call("clone3", 0, 0)) == errno.EINVAL


def test_a_call_newer_than_the_profile_gets_enosys(filtered):
    """open_tree_attr of Linux 6.15, unknown to the profile."""
    assert filtered(lambda: call("open_tree_attr", -1, 0, -1)) == errno.ENOSYS


def test_fork_and_threads_work(filtered):
    def act():
        import threading

        thread = threading.Thread(target=os.getpid)
        thread.start()
        thread.join()
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert filtered(act) == 7


def test_an_unknown_architecture_kills_the_process(filtered):
    """A filter for another machine sees nothing but a foreign architecture."""
    foreign = Abi.AARCH64 if NATIVE is Abi.X86_64 else Abi.X86_64
    program = compile_filter(
        Policy((foreign,), Answer(Action.ALLOW), (("read", (Case((), Answer(Action.TRAP)),)),))
    )
    assert filtered(lambda: 0, program) is signal.SIGSYS


def test_without_no_new_privs_an_ordinary_user_may_not_filter():
    uid = NOBODY if os.geteuid() == 0 else None
    assert in_a_child(lambda: set_filter(default()), uid=uid) == errno.EACCES


def test_a_program_that_is_none_is_refused(filtered):
    assert filtered(lambda: set_filter(bytes(8))) == errno.EINVAL


# --- i386 on x86_64 -------------------------------------------------------------------------------------


def i386_call(name, first=0, second=0) -> int:
    """Make a call through int 0x80, as a 32-bit program does; 0 or the errno."""
    code = b"".join(
        [
            b"\x53",  # push rbx
            b"\xb8" + struct.pack("<I", numbers_of(Abi.I386)[name]),  # mov eax, number
            b"\xbb" + struct.pack("<I", first & 0xFFFFFFFF),  # mov ebx, first
            b"\xb9" + struct.pack("<I", second & 0xFFFFFFFF),  # mov ecx, second
            b"\xcd\x80",  # int 0x80
            b"\x5b",  # pop rbx
            b"\xc3",  # ret
        ]
    )
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(code)
        start = ctypes.c_char.from_buffer(page)
        result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(start))()
        del start
    return -result if result < 0 else 0


@pytest.fixture
def i386():
    if MACHINE != "x86_64" or in_a_child(lambda: i386_call("getpid")) != 0:
        pytest.skip("no i386 programs on this kernel")


@pytest.mark.parametrize(
    ("name", "args", "answer"),
    [
        ("getpid", (), 0),
        ("keyctl", (0, -3), errno.EPERM),
        ("unshare", (0,), errno.EPERM),
        ("socket", (38, 5), errno.EPERM),
        ("clone3", (0, 0), errno.ENOSYS),
        ("open_tree_attr", (), errno.ENOSYS),
    ],
)
def test_an_i386_call_meets_the_same_policy(filtered, i386, name, args, answer):
    assert filtered(lambda: i386_call(name, *args)) == answer
