"""The compiled filter answers every call as the policy says, on every ABI."""

import itertools
from errno import ENOSYS, EPERM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seccomp_machine import MACHINES, Machine, horizon_of, meaning, names_by_number

from pycontain.errors import InvalidSpec
from pycontain.kernel.syscall_tables import Abi, numbers_of
from pycontain.sandbox.seccomp import Action, Answer, Arg, Case, Op, Policy, resolve
from pycontain.sandbox.seccomp_default import default_profile
from pycontain.sandbox.seccomp_filter import compile_filter, compile_profile

ALLOW = Answer(Action.ALLOW).returns
DENY = Answer(Action.ERRNO, EPERM).returns
NO_SUCH_CALL = Answer(Action.ERRNO, ENOSYS).returns
KILL = Answer(Action.KILL_PROCESS).returns

ODD_NUMBERS = (983041, 983046, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def default_policy(architecture="x86_64", capabilities=()):
    return resolve(
        default_profile(), capabilities=frozenset(capabilities), architecture=architecture, kernel=(6, 18)
    )


@pytest.fixture(scope="module")
def default():
    return Machine(compile_filter(default_policy()))


def ask(machine, abi, name, *args):
    return machine.ask(abi, numbers_of(abi)[name], (*args, *[0] * (6 - len(args))))


# --- the law --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [(), ("SYS_ADMIN", "SYS_TIME")], ids=["none", "some"])
@pytest.mark.parametrize("architecture", MACHINES)
def test_the_default_answers_every_number_as_it_says(architecture, capabilities):
    policy = default_policy(architecture, capabilities)
    machine = Machine(compile_filter(policy))
    for abi in policy.abis:
        numbers = {*range(abi.first_number, abi.first_number + 600), *ODD_NUMBERS}
        known = names_by_number(Abi.X32)
        for number in numbers:
            # High numbers of x86_64 are x32: one audit architecture, two ABIs.
            spoken = Abi.X32 if abi is Abi.X86_64 and number in known else abi
            spoken = Abi.X86_64 if abi is Abi.X32 and number < Abi.X32.first_number else spoken
            assert machine.ask(abi, number) == meaning(policy, spoken, number), (abi, number)


def interesting(policy):
    """Values around everything that the policy compares with."""
    values = {arg.value for _, cases in policy.calls for case in cases for arg in case.args}
    near = {value + step for value in values for step in (-1, 0, 1)}
    high = {value + (1 << 32) for value in near} | {value | 0xFFFFFFFF_00000000 for value in near}
    return sorted(value for value in near | high | {0, 1 << 63} if 0 <= value < 1 << 64)


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_default_compares_arguments_as_it_says(architecture):
    policy = default_policy(architecture)
    machine = Machine(compile_filter(policy))
    for abi, name in itertools.product(policy.abis, ("socket", "personality", "clone")):
        number = numbers_of(abi)[name]
        for value in interesting(policy):
            args = (value, 0, 0, 0, 0, 0)
            assert machine.ask(abi, number, args) == meaning(policy, abi, number, args), (abi, name, value)


NAMES = ("read", "ioctl", "mmap", "socket", "bind", "semop", "prctl", "mseal", "no_such_call")
values = st.one_of(
    st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
answers = st.builds(
    lambda action, errno: Answer(action, errno if action is Action.ERRNO else 0),
    st.sampled_from(Action),
    st.integers(0, 4095),
)
arguments = st.builds(Arg, st.integers(0, 5), st.sampled_from(Op), values, values)
conditional = st.builds(Case, st.lists(arguments, min_size=1, max_size=3).map(tuple), answers)
cases = st.one_of(
    st.builds(Case, st.just(()), answers).map(lambda case: (case,)),
    st.lists(conditional, max_size=3).map(tuple),
)


@st.composite
def policies(draw):
    family = MACHINES[draw(st.sampled_from(list(MACHINES)))]
    others = draw(st.sets(st.sampled_from(family[1:])))
    calls = draw(st.dictionaries(st.sampled_from(NAMES), cases))
    return Policy(
        (family[0], *(abi for abi in family[1:] if abi in others)),
        draw(answers),
        tuple(sorted(calls.items())),
    )


@settings(max_examples=300)
@given(policies(), st.data())
def test_any_policy_is_answered_as_it_says(policy, data):
    machine = Machine(compile_filter(policy))
    abi = data.draw(st.sampled_from(policy.abis))
    name = data.draw(st.sampled_from([name for name in (*NAMES, "listxattrat") if name in numbers_of(abi)]))
    near = [arg.value for _, cases in policy.calls for case in cases for arg in case.args]
    value = st.one_of(values, st.sampled_from(near)) if near else values
    args = data.draw(st.tuples(*[value] * 6))
    number = numbers_of(abi)[name]
    assert machine.ask(abi, number, args) == meaning(policy, abi, number, args)


# --- facts worth their own name -------------------------------------------------------------------------


def test_an_unknown_architecture_kills(default):
    assert default.ask(Abi.AARCH64, 63) == KILL


@pytest.mark.parametrize("abi", MACHINES["x86_64"])
def test_a_call_newer_than_the_profile_does_not_exist(default, abi):
    assert default.ask(abi, horizon_of(default_policy(), abi)) == ALLOW
    assert default.ask(abi, horizon_of(default_policy(), abi) + 1) == NO_SUCH_CALL


def test_a_known_call_that_is_not_allowed_is_not_permitted(default):
    assert ask(default, Abi.X86_64, "keyctl") == DENY


def test_arms_private_calls_do_not_move_the_horizon():
    machine = Machine(compile_filter(default_policy("aarch64")))
    assert ask(machine, Abi.ARM, "set_tls") == ALLOW
    assert machine.ask(Abi.ARM, 470) == NO_SUCH_CALL


def test_nothing_is_beyond_the_horizon_of_a_profile_that_allows():
    policy = Policy((Abi.X86_64,), Answer(Action.ALLOW), (("keyctl", (Case((), Answer(Action.ERRNO, 1)),)),))
    machine = Machine(compile_filter(policy))
    assert machine.ask(Abi.X86_64, 5000) == ALLOW
    assert ask(machine, Abi.X86_64, "keyctl") == DENY


def test_x32_is_no_way_around_a_profile_that_does_not_speak_of_it():
    policy = Policy((Abi.X86_64,), Answer(Action.ALLOW), (("keyctl", (Case((), Answer(Action.ERRNO, 1)),)),))
    assert ask(Machine(compile_filter(policy)), Abi.X32, "keyctl") == NO_SUCH_CALL


@pytest.mark.parametrize("family", [38, 40])
@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_the_upper_half_of_an_int_hides_nothing(default, family, upper):
    """The kernel casts the address family to int: 0x1_0000_0026 is AF_ALG."""
    assert ask(default, Abi.X86_64, "socket", upper + family) == DENY


def test_a_negative_int_in_a_profile_may_be_written_in_64_bits():
    minus_one = Case((Arg(0, Op.EQ, (1 << 64) - 1),), Answer(Action.ALLOW))
    machine = Machine(
        compile_filter(Policy((Abi.X86_64,), Answer(Action.ERRNO, 1), (("personality", (minus_one,)),)))
    )
    assert ask(machine, Abi.X86_64, "personality", 0xFFFFFFFF) == ALLOW


def i386(default: Answer, **calls: Case) -> Machine:
    return Machine(
        compile_filter(
            Policy((Abi.X86_64, Abi.I386), default, tuple((name, (case,)) for name, case in calls.items()))
        )
    )


def test_a_rule_reaches_the_call_behind_socketcall_and_ipc():
    allowed = Case((), Answer(Action.ALLOW))
    machine = i386(Answer(Action.ERRNO, 1), accept=allowed, semop=allowed)
    assert ask(machine, Abi.I386, "socketcall", 5) == ALLOW
    assert ask(machine, Abi.I386, "socketcall", 1) == DENY
    assert ask(machine, Abi.I386, "ipc", 1) == ALLOW
    assert ask(machine, Abi.I386, "ipc", 0x10001) == ALLOW
    assert ask(machine, Abi.I386, "ipc", 2) == DENY


def test_a_permission_with_conditions_does_not_reach_behind_socketcall():
    machine = i386(Answer(Action.ERRNO, 1), socket=Case((Arg(0, Op.EQ, 1),), Answer(Action.ALLOW)))
    assert ask(machine, Abi.I386, "socket", 1) == ALLOW
    assert ask(machine, Abi.I386, "socketcall", 1) == DENY


def test_a_prohibition_with_conditions_reaches_behind_socketcall_without_them():
    machine = i386(Answer(Action.ALLOW), socket=Case((Arg(0, Op.EQ, 40),), Answer(Action.ERRNO, 1)))
    assert ask(machine, Abi.I386, "socket", 1) == ALLOW
    assert ask(machine, Abi.I386, "socketcall", 1) == DENY
    assert ask(machine, Abi.I386, "socketcall", 2) == ALLOW


@pytest.mark.parametrize("abi", [Abi.X86_64, Abi.I386])
def test_a_call_decided_by_its_number_passes_few_instructions(default, abi):
    packets = [numbers_of(abi)[name] for name in ("read", "write", "close", "futex", "openat", "mmap", "brk")]
    data = [
        number.to_bytes(4, "little") + abi.audit_arch.to_bytes(4, "little") + bytes(56) for number in packets
    ]
    assert max(default.trace(packet)[1] for packet in data) <= 14


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_default_is_a_quarter_of_what_the_kernel_takes(architecture):
    assert len(compile_filter(default_policy(architecture))) // 8 < 1024


def test_a_profile_is_compiled_once():
    wanted = {"capabilities": frozenset({"CHOWN"}), "architecture": "x86_64", "kernel": (6, 18)}
    assert compile_profile(default_profile(), **wanted) is compile_profile(default_profile(), **wanted)


def test_a_profile_that_the_kernel_would_not_take_is_refused():
    many = tuple(Case((Arg(0, Op.EQ, value),), Answer(Action.ALLOW)) for value in range(1000))
    with pytest.raises(InvalidSpec, match="too large"):
        compile_filter(Policy((Abi.X86_64,), Answer(Action.ERRNO, 1), (("mmap", many),)))
