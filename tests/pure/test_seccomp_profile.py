"""Seccomp profiles in Docker's format: what is read, what is refused, what it means for one container."""

import json
import subprocess
import sys

import pytest

from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.kernel import seccomp
from pycontain.kernel.syscall_tables import Abi, int_arguments, numbers_of
from pycontain.sandbox.seccomp import Action, Answer, Arg, Case, Op, parse_profile, resolve
from pycontain.sandbox.seccomp_default import default_profile

ALLOW = Answer(Action.ALLOW)
DENY = {"defaultAction": "SCMP_ACT_ERRNO"}


def profile(*rules, **fields):
    return parse_profile({**DENY, **fields, "syscalls": list(rules)})


def allow(*names, **fields):
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **fields}


def condition(index, op, value, **fields):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, **fields}


def policy(*rules, capabilities=(), architecture="x86_64", kernel=(6, 18), **fields):
    return resolve(
        profile(*rules, **fields),
        capabilities=frozenset(capabilities),
        architecture=architecture,
        kernel=kernel,
    )


def cases(name, *rules, **fields):
    return dict(policy(*rules, **fields).calls).get(name)


# --- reading --------------------------------------------------------------------------------------------


def test_text_and_bytes_and_a_mapping_are_the_same_profile():
    document = {**DENY, "syscalls": [allow("read")]}
    text = json.dumps(document)
    assert parse_profile(text) == parse_profile(text.encode()) == parse_profile(document)


def test_an_errno_that_is_not_written_is_eperm():
    assert profile().default == Answer(Action.ERRNO, 1)


def test_an_errno_belongs_to_errno_and_trace_only():
    assert profile(defaultAction="SCMP_ACT_ALLOW", defaultErrnoRet=38).default == ALLOW


def test_kill_is_the_thread_as_in_libseccomp():
    assert profile(defaultAction="SCMP_ACT_KILL").default == Answer(Action.KILL_THREAD)


def test_the_old_form_with_one_name_is_read():
    assert profile({"name": "read", "action": "SCMP_ACT_ALLOW", "args": None}).rules[0].names == ("read",)


def test_architectures_and_archmap_name_the_same_abis():
    flat = profile(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_S390X"])
    mapped = profile(archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}])
    assert flat == mapped
    assert flat.abis == (Abi.X86_64, Abi.I386)


def test_remarks_are_not_read():
    assert profile(allow("read", comment="why", errno="EPERM"), defaultErrno="EPERM") == profile(
        allow("read")
    )


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
        ("[]", "profile: is not an object"),
        ({}, "profile.defaultAction: None is none of"),
        ({"defaultAction": "ALLOW"}, "profile.defaultAction: 'ALLOW' is none of"),
        ({**DENY, "defaultErrnoRet": 4096}, "profile.defaultErrnoRet: 4096"),
        ({**DENY, "defaultErrnoRet": True}, "profile.defaultErrnoRet: True"),
        ({**DENY, "sycalls": []}, "unknown key sycalls"),
        ({**DENY, "syscalls": {}}, "profile.syscalls: is not a list"),
        ({**DENY, "listenerPath": "/run/agent"}, "listenerPath"),
        ({**DENY, "flags": "LOG"}, "profile.flags: is not a list"),
        ({**DENY, "architectures": ["amd64"]}, "'amd64' is not an architecture"),
        ({**DENY, "archMap": [{}]}, "archMap[0].architecture: is not a name"),
        (
            {
                **DENY,
                "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86"}],
            },
            "both architectures and archMap",
        ),
        ({**DENY, "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}, "syscalls[0]: needs either names"),
        ({**DENY, "syscalls": [allow("read", name="write")]}, "syscalls[0]: needs either names"),
        ({**DENY, "syscalls": [allow("read", 3)]}, "syscalls[0].names: is not a list of names"),
        ({**DENY, "syscalls": [allow("read", arg=[])]}, "syscalls[0]: unknown key arg"),
        ({**DENY, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}, "syscalls[0].action"),
        ({**DENY, "syscalls": [allow("read", args=[condition(6, "EQ", 0)])]}, "syscalls[0].args[0].index"),
        ({**DENY, "syscalls": [allow("read", args=[condition(0, "IS", 0)])]}, "syscalls[0].args[0].op"),
        ({**DENY, "syscalls": [allow("read", args=[condition(0, "EQ", -1)])]}, "syscalls[0].args[0].value"),
        ({**DENY, "syscalls": [allow("read", args=[condition(0, "EQ", 1 << 64)])]}, "args[0].value"),
        (
            {**DENY, "syscalls": [allow("read", includes={"cap": []})]},
            "syscalls[0].includes: unknown key cap",
        ),
        ({**DENY, "syscalls": [allow("read", excludes={"minKernel": "new"})]}, "excludes.minKernel: 'new'"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(source, place):
    with pytest.raises(InvalidSpec) as caught:
        parse_profile(source)
    assert place in str(caught.value)


def test_every_wrong_rule_is_named():
    with pytest.raises(InvalidSpec) as caught:
        profile({}, allow("read"), {})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "seccomp syscalls[0]",
        "seccomp syscalls[2]",
    ]


# --- meaning --------------------------------------------------------------------------------------------


def test_a_rule_needs_all_capabilities_that_it_includes():
    rule = allow("bpf", includes={"caps": ["CAP_BPF", "CAP_PERFMON"]})
    assert cases("bpf", rule, capabilities={"BPF"}) is None
    assert cases("bpf", rule, capabilities={"BPF", "PERFMON"}) == (Case((), ALLOW),)


def test_a_rule_is_out_with_any_capability_that_it_excludes():
    rule = allow("bpf", excludes={"caps": ["CAP_BPF", "CAP_PERFMON"]})
    assert cases("bpf", rule, capabilities={"PERFMON"}) is None


@pytest.mark.parametrize("kernel", [(4, 7), (3, 10)])
def test_a_rule_waits_for_its_kernel(kernel):
    rule = allow("ptrace", includes={"minKernel": "4.8"})
    assert cases("ptrace", rule, kernel=kernel) is None
    assert cases("ptrace", rule, kernel=(4, 10))


def test_a_rule_can_end_with_a_kernel():
    rule = allow("ptrace", excludes={"minKernel": "4.8"})
    assert cases("ptrace", rule, kernel=(4, 8)) is None
    assert cases("ptrace", rule, kernel=(4, 7))


def test_arches_are_those_of_the_machine():
    rule = allow("breakpoint", includes={"arches": ["arm", "arm64"]}, excludes={"arches": ["amd64"]})
    assert cases("breakpoint", rule) is None
    assert cases("breakpoint", rule, architecture="aarch64")


def test_the_machines_own_abi_is_always_in_force_and_those_of_others_never():
    assert policy(architectures=["SCMP_ARCH_ARM", "SCMP_ARCH_X86"]).abis == (Abi.X86_64, Abi.I386)


def test_another_machine_is_not_supported():
    with pytest.raises(HostUnsupported, match="riscv64"):
        policy(architecture="riscv64")


def test_conditions_on_different_arguments_must_all_hold():
    rule = allow("socket", args=[condition(0, "EQ", 1), condition(1, "EQ", 2)])
    assert cases("socket", rule) == (Case((Arg(0, Op.EQ, 1), Arg(1, Op.EQ, 2)), ALLOW),)


def test_of_conditions_on_one_argument_any_is_enough():
    """As in runc, where libseccomp could not take them together."""
    rule = allow("socket", args=[condition(0, "EQ", 1), condition(0, "EQ", 2)])
    assert cases("socket", rule) == (Case((Arg(0, Op.EQ, 1),), ALLOW), Case((Arg(0, Op.EQ, 2),), ALLOW))


def test_a_rule_without_conditions_wins():
    rules = [
        allow("socket", args=[condition(0, "EQ", 1)]),
        {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS"},
        allow("socket"),
    ]
    assert cases("socket", *rules) == (Case((), Answer(Action.KILL_PROCESS)),)


def test_a_rule_that_repeats_the_default_is_as_good_as_absent():
    rules = [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO"},
        allow("socket", args=[condition(0, "EQ", 1)]),
    ]
    assert cases("socket", *rules) == (Case((Arg(0, Op.EQ, 1),), ALLOW),)
    assert cases("socket", rules[0]) == ()


# --- the default, and the tables ------------------------------------------------------------------------


def default(*, capabilities=(), architecture="x86_64"):
    return dict(
        resolve(
            default_profile(),
            capabilities=frozenset(capabilities),
            architecture=architecture,
            kernel=(6, 18),
        ).calls
    )


def test_the_default_names_only_calls_that_exist():
    """riscv_hwprobe and sync_file_range2 are Docker's, for machines that are not ours."""
    names = {name for rule in default_profile().rules for name in rule.names}
    known = set().union(*(numbers_of(abi) for abi in Abi))
    assert names - known == {"riscv_hwprobe", "sync_file_range2"}


@pytest.mark.parametrize(
    "name", ["keyctl", "add_key", "io_uring_setup", "userfaultfd", "kexec_load", "mount", "pivot_root", "bpf"]
)
def test_the_default_leaves_out(name):
    assert name not in default()


def test_sys_admin_brings_namespaces_back():
    assert default(capabilities={"SYS_ADMIN"})["clone3"] == (Case((), ALLOW),)
    assert default()["clone3"] == (Case((), Answer(Action.ERRNO, 38)),)


def test_x32_has_its_own_numbers_for_a_few_calls():
    x32, x86_64 = numbers_of(Abi.X32), numbers_of(Abi.X86_64)
    assert x32["read"] == 0x4000_0000 + x86_64["read"]
    assert x32["execve"] == 0x4000_0000 + 520
    assert "epoll_ctl_old" not in x32


@pytest.mark.parametrize("abi", Abi)
def test_no_two_calls_share_a_number(abi):
    numbers = numbers_of(abi).values()
    assert len(set(numbers)) == len(numbers)


def test_int_arguments_are_of_known_calls():
    known = set().union(*(numbers_of(abi) for abi in Abi))
    assert {name for name, _ in int_arguments()} <= known


def test_loading_a_filter_needs_no_other_module_of_ours():
    """The zygote imports it, and pays for each module at every fork."""
    code = f"import runpy, sys; runpy.run_path({seccomp.__file__!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert not {"attrs", "attr", "pycontain"} & set(done.stdout.split())
