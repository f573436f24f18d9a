"""Devices of the host: what a builder takes, when the kernel needs a list, and what the list's program answers."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain import Container
from pycontain.errors import InvalidSpec
from pycontain.sandbox.device_filter import compile_filter
from pycontain.sandbox.devices import DEFAULT, Device, Rule, needs_list, v1_writes
from pycontain.sandbox.paths import HostPath, RootPath

HOST = Container("host:")


def device(access="rwm"):
    return Device(HostPath("/dev/fuse"), RootPath("/dev/fuse"), access)


# --- the builder ----------------------------------------------------------------------------------------


def test_a_device_is_at_the_same_path_and_fully_there_unless_told_otherwise():
    assert HOST.device("/dev/fuse").spec.devices == (device(),)
    assert HOST.device("/dev/fuse", "/dev/x", "wr").spec.devices == (
        Device(HostPath("/dev/fuse"), RootPath("/dev/x"), "rw"),
    )


@pytest.mark.parametrize(
    "arguments",
    [("",), ("/dev/fuse", "/proc/x"), ("/dev/fuse", "x"), ("/dev/fuse", "/dev/x", ""), ("/dev/fuse", "/dev/x", "rx"),
     ("/dev/fuse", "/dev/x", "rr"), ("/dev/fuse", "/dev/x", None), ("/dev/fuse\0",)],
)  # fmt: skip
def test_wrong_values_are_refused_at_once(arguments):
    with pytest.raises(InvalidSpec):
        HOST.device(*arguments)


def test_two_things_cannot_be_at_one_place():
    with pytest.raises(InvalidSpec, match="already something at /dev/fuse"):
        HOST.device("/dev/fuse").device("/dev/kvm", "/dev/fuse")


# --- when a list is needed ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MKNOD", "SYS_ADMIN", "DAC_READ_SEARCH"])
def test_a_capability_that_reaches_other_nodes_needs_one_but_in_a_user_namespace(name):
    assert needs_list({"CHOWN", name}, (), user_namespace=False)
    assert not needs_list({"CHOWN", name}, (), user_namespace=True)


@pytest.mark.parametrize("userns", [True, False])
def test_a_part_of_the_access_needs_one(userns):
    assert needs_list((), (device("rm"),), user_namespace=userns)
    assert not needs_list((), (device("rw"),), user_namespace=userns)


def test_the_default_capabilities_need_none():
    assert not needs_list(HOST.spec.capabilities, (device(),), user_namespace=False)


# --- the list -------------------------------------------------------------------------------------------


def test_the_files_of_v1_take_everything_away_first():
    writes = v1_writes((Rule("b", 7, 0, "r"), Rule("c", 136, None)))
    assert [(file, text) for _, file, text in writes] == [
        ("devices.deny", "a"),
        ("devices.allow", "b 7:0 r"),
        ("devices.allow", "c 136:* rwm"),
    ]


def answer(program, kind, major, minor, access):
    """What the kernel would get: an interpreter for the instructions that the compiler uses."""
    wanted = sum({"m": 1, "r": 2, "w": 4}[mark] for mark in access)
    context = struct.pack("<III", wanted << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = list(struct.iter_unpack("<BBhi", program))
    registers = {1: None}
    place = 0
    while True:
        operation, pair, jump, value = code[place]
        target, source = pair & 15, pair >> 4
        place += 1
        match operation:
            case 0x61:
                assert registers[source] is None, "only the context can be read"
                registers[target] = struct.unpack_from("<I", context, jump)[0]
            case 0x54:
                registers[target] &= value
            case 0x74:
                registers[target] >>= value
            case 0xBC:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = value
            case 0x55:
                place += jump if registers[target] != value else 0
            case 0x95:
                return registers[0]
            case _:
                pytest.fail(f"unknown instruction {operation:#x}")


kinds = st.sampled_from("bc")
numbers = st.integers(0, 3)
accesses = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
rules = st.lists(st.builds(Rule, kinds, st.none() | numbers, st.none() | numbers, accesses), max_size=4)


@given(rules, kinds, numbers, numbers, accesses)
def test_the_program_allows_what_one_rule_allows(rules, kind, major, minor, access):
    allowed = any(
        rule.kind == kind
        and rule.major in {None, major}
        and rule.minor in {None, minor}
        and set(access) <= set(rule.access)
        for rule in rules
    )
    assert answer(compile_filter(rules), kind, major, minor, access) == allowed


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        (("c", 1, 3, "rw"), 1),
        (("c", 136, 9, "rw"), 1),
        (("b", 8, 0, "m"), 1),
        (("b", 8, 0, "r"), 0),
        (("c", 1, 1, "r"), 0),
    ],
)
def test_the_default_is_dockers(wanted, allowed):
    """Every node may be made; /dev/null and terminals be opened, a disk and /dev/mem not."""
    assert answer(compile_filter(DEFAULT), *wanted) == allowed
