"""Our compiler and libseccomp make programs that give the same answers, and our tables are its tables.

Both programs run on the same machine of the tests. Where we differ on purpose the calls are kept apart: numbers
beyond the horizon (runc adds those to libseccomp's program), set upper halves of int arguments, and conditions
on the calls behind socketcall and ipc. What libseccomp is too old to know is left out of the policy.
"""

import ctypes
import ctypes.util
import itertools
import os
import subprocess
import tempfile

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seccomp_machine import MACHINES, Machine, bits_of, horizon_of, names_by_number

from pycontain.kernel.syscall_tables import I386_IPC, I386_SOCKETCALL, Abi, numbers_of
from pycontain.sandbox.seccomp import Action, Answer, Arg, Case, Op, Policy, resolve
from pycontain.sandbox.seccomp_default import default_profile
from pycontain.sandbox.seccomp_filter import compile_filter

pytestmark = pytest.mark.against

try:
    LIBRARY = ctypes.CDLL("libseccomp.so.2")
except OSError:
    pytest.skip("libseccomp.so.2 is not installed", allow_module_level=True)

# seccomp.h
BADARCH = 2
OPS = {Op.NE: 1, Op.LT: 2, Op.LE: 3, Op.EQ: 4, Op.GE: 5, Op.GT: 6, Op.MASKED_EQ: 7}
X32 = 0x4000003E  # libseccomp's own token; the kernel says x86_64


class Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


LIBRARY.seccomp_init.restype = ctypes.c_void_p
LIBRARY.seccomp_init.argtypes = [ctypes.c_uint32]
LIBRARY.seccomp_release.argtypes = [ctypes.c_void_p]
LIBRARY.seccomp_release.restype = None
LIBRARY.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
LIBRARY.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
LIBRARY.seccomp_arch_exist.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
LIBRARY.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
LIBRARY.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
LIBRARY.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
LIBRARY.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
LIBRARY.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]


def token(abi: Abi) -> int:
    return X32 if abi is Abi.X32 else abi.audit_arch


UNKNOWN = -1


def native(name: str) -> int:
    return LIBRARY.seccomp_syscall_resolve_name(name.encode())


def their_number(abi: Abi, name: str) -> int:
    return LIBRARY.seccomp_syscall_resolve_name_arch(token(abi), name.encode())


def must(result: int) -> None:
    assert result == 0, os.strerror(-result)


def program_of_libseccomp(policy: Policy) -> bytes:
    context = LIBRARY.seccomp_init(policy.default.returns)
    try:
        must(LIBRARY.seccomp_attr_set(context, BADARCH, Answer(Action.KILL_PROCESS).returns))
        own = LIBRARY.seccomp_arch_native() & 0xFFFFFFFF
        for abi in policy.abis:
            if LIBRARY.seccomp_arch_exist(context, token(abi)) < 0:
                must(LIBRARY.seccomp_arch_add(context, token(abi)))
        if own not in map(token, policy.abis):
            must(LIBRARY.seccomp_arch_remove(context, own))
        for name, cases in policy.calls:
            for case in cases:
                add_rule(context, name, case)
        with tempfile.TemporaryFile() as file:
            must(LIBRARY.seccomp_export_bpf(context, file.fileno()))
            file.seek(0)
            return file.read()
    finally:
        LIBRARY.seccomp_release(context)


def add_rule(context, name: str, case: Case) -> None:
    comparisons = [Comparison(arg.index, OPS[arg.op], arg.value, arg.value_two) for arg in case.args]
    array = (Comparison * len(comparisons))(*comparisons)
    must(LIBRARY.seccomp_rule_add_array(context, case.answer.returns, native(name), len(comparisons), array))


def known_to_libseccomp(policy: Policy) -> Policy:
    calls = tuple((name, cases) for name, cases in policy.calls if native(name) != UNKNOWN)
    return attrs.evolve(policy, calls=calls)


def default_policy(architecture: str, *capabilities: str) -> Policy:
    return known_to_libseccomp(
        resolve(
            default_profile(),
            capabilities=frozenset(capabilities),
            architecture=architecture,
            kernel=(6, 18),
        )
    )


ARGUMENTS = (0, 1, 8, 37, 38, 39, 40, 41, 131072, 131080, 0x7E020000, 0x10000000, 0x11, 0xFFFFFFFF)


@pytest.mark.parametrize("capabilities", [(), ("SYS_ADMIN", "SYS_PTRACE", "SYS_TIME")], ids=["none", "some"])
@pytest.mark.parametrize("architecture", MACHINES)
def test_the_default_gives_the_same_answer_to_every_call(architecture, capabilities):
    policy = default_policy(architecture, *capabilities)
    ours, theirs = Machine(compile_filter(policy)), Machine(program_of_libseccomp(policy))
    for abi in policy.abis:
        for number in range(abi.first_number, horizon_of(policy, abi) + 1):
            for value in ARGUMENTS:
                args = (value, 0, 0, 0, 0, 0)
                assert ours.ask(abi, number, args) == theirs.ask(abi, number, args), (abi, number, value)


@pytest.mark.parametrize("architecture", MACHINES)
def test_both_kill_on_an_unknown_architecture(architecture):
    policy = default_policy(architecture)
    (foreign,) = {"x86_64", "aarch64"} - {architecture}
    for program in (compile_filter(policy), program_of_libseccomp(policy)):
        assert Machine(program).ask(MACHINES[foreign][0], 0) == Answer(Action.KILL_PROCESS).returns


def test_libseccomp_is_deceived_by_the_upper_half_of_an_int():
    """Why we differ: this is AF_ALG to the kernel."""
    policy = default_policy("x86_64")
    number, args = numbers_of(Abi.X86_64)["socket"], ((1 << 32) + 38, 0, 0, 0, 0, 0)
    assert (
        Machine(program_of_libseccomp(policy)).ask(Abi.X86_64, number, args) == Answer(Action.ALLOW).returns
    )
    assert Machine(compile_filter(policy)).ask(Abi.X86_64, number, args) != Answer(Action.ALLOW).returns


# --- any policy -----------------------------------------------------------------------------------------

NAMES = ("read", "ioctl", "mmap", "prctl", "personality", "clone", "splice", "fallocate", "listxattr")
PLAIN = ("bind", "semget", "accept", "shmat")  # behind socketcall or ipc on i386

values = st.one_of(st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF))
wide = st.one_of(
    values, st.sampled_from([1 << 32, (1 << 32) + 1, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1)
)
answers = st.sampled_from(
    [
        Answer(Action.ALLOW),
        Answer(Action.ERRNO, 13),
        Answer(Action.TRAP),
        Answer(Action.LOG),
        Answer(Action.KILL_PROCESS),
    ]
)


def is_narrow(abi, name, index):
    """libseccomp compares 32 bits on x32 as well, and cuts what it compares with."""
    return abi is Abi.X32 or bits_of(abi, name, index) == 32


def several_conditions(abi, name):
    """Several arguments that must all fit, or several values for one argument.

    Mixtures make libseccomp 2.5 wrong: it allows what no rule allows, and the reverse.
    """

    def condition(index, ops=tuple(Op)):
        value = values if is_narrow(abi, name, index) else wide
        return st.builds(Arg, st.just(index), st.sampled_from(ops), value, value)

    indexes = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True)
    together = indexes.flatmap(lambda some: st.tuples(*map(condition, sorted(some)))).map(lambda args: [args])
    instead = st.integers(0, 5).flatmap(
        lambda index: st.lists(st.tuples(condition(index, (Op.EQ,))), max_size=3, unique=True)
    )
    return st.one_of(together, instead)


@st.composite
def policies(draw, abi):
    """Of calls that *abi* has: libseccomp 2.5 can forget to load the number after one that it has not."""
    existing = [name for name in (*NAMES, *PLAIN) if name in numbers_of(abi)]
    default = draw(st.sampled_from([Answer(Action.ERRNO, 1), Answer(Action.ALLOW)]))
    other = answers.filter(lambda one: one != default)
    calls = {}
    for name in draw(st.sets(st.sampled_from(existing), max_size=6)):
        # One answer for all conditions of a call: their order is libseccomp's own.
        answer = draw(other)
        several = [] if name in PLAIN else draw(several_conditions(abi, name))
        calls[name] = tuple(Case(args, answer) for args in several) or (Case((), answer),)
    return Policy((abi,), default, tuple(sorted(calls.items())))


@pytest.mark.parametrize("abi", Abi)
@settings(max_examples=60, deadline=None, derandomize=True)  # what libseccomp gets wrong is not ours to find
@given(st.data())
def test_any_policy_gives_the_same_answers(abi, data):
    policy = data.draw(policies(abi))
    ours, theirs = Machine(compile_filter(policy)), Machine(program_of_libseccomp(policy))
    compared = [arg.value for _, cases in policy.calls for case in cases for arg in case.args]
    close = st.sampled_from(compared) if compared else values
    for name in (*NAMES, *PLAIN):
        number = numbers_of(abi).get(name)
        if number is None or number > horizon_of(policy, abi):
            continue
        args = data.draw(st.tuples(*[st.one_of(wide, close)] * 6))
        args = tuple(
            value & 0xFFFFFFFF if is_narrow(abi, name, index) else value for index, value in enumerate(args)
        )
        assert ours.ask(abi, number, args) == theirs.ask(abi, number, args), (name, args)


@pytest.mark.parametrize(
    ("carrier", "members"), [("socketcall", I386_SOCKETCALL), ("ipc", I386_IPC)], ids=["socketcall", "ipc"]
)
def test_both_reach_the_calls_behind_one_number(carrier, members):
    """libseccomp 2.5 forgets those that have no number of their own on i386."""
    for member, value in itertools.product(members.keys() & numbers_of(Abi.I386).keys(), range(30)):
        policy = Policy(
            MACHINES["x86_64"], Answer(Action.ERRNO, 1), ((member, (Case((), Answer(Action.ALLOW)),)),)
        )
        ours, theirs = Machine(compile_filter(policy)), Machine(program_of_libseccomp(policy))
        number, args = numbers_of(Abi.I386)[carrier], (value, 0, 0, 0, 0, 0)
        assert ours.ask(Abi.I386, number, args) == theirs.ask(Abi.I386, number, args), (member, value)


# --- the tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", Abi)
def test_libseccomp_has_the_same_numbers(abi):
    theirs = {name: their_number(abi, name) for name in numbers_of(abi)}
    known = {name: number for name, number in theirs.items() if number >= 0}
    assert len(known) > 300
    assert {name: numbers_of(abi)[name] for name in known} == known


@pytest.mark.parametrize("abi", Abi)
def test_libseccomp_knows_no_call_that_we_do_not(abi):
    LIBRARY.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    ours = names_by_number(abi)
    missing = [
        number
        for number in range(abi.first_number, abi.first_number + 600)
        if number not in ours and LIBRARY.seccomp_syscall_resolve_num_arch(token(abi), number)
    ]
    # A library of a later kernel than our tables may know newer ones.
    assert [number for number in missing if number - abi.first_number <= 469] == []


def test_the_headers_of_this_machine_have_the_same_numbers(tmp_path):
    source = tmp_path / "numbers.c"
    source.write_text("#include <asm/unistd.h>\n")
    try:
        done = subprocess.run(["cc", "-E", "-dM", source], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no C compiler with kernel headers")
    words = [line.split() for line in done.stdout.splitlines() if line.startswith("#define __NR_")]
    theirs = {name.removeprefix("__NR_"): int(number) for _, name, number in words if number.isdigit()}
    ours = numbers_of(MACHINES[os.uname().machine][0])
    assert len(theirs) > 250
    assert {name: ours.get(name) for name in theirs} == theirs
