"""The numbers that the zygote calls by, which it has beside its code, are those of the tables that the filter is made of."""

import pytest

from pycontain.kernel import cgroup_program, landlock, seccomp, syscalls
from pycontain.kernel.syscall_tables import Abi, numbers_of


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_machine_has_its_own_numbers(machine):
    known = syscalls._NUMBERS[machine] | {
        "pivot_root": syscalls._PIVOT_ROOT[machine],
        "seccomp": seccomp._NUMBERS[machine],
        "bpf": cgroup_program._NUMBERS[machine],
    }
    table = numbers_of(Abi[machine.upper()])
    assert known == {name: table[name] for name in known}


@pytest.mark.parametrize("abi", [Abi.X86_64, Abi.AARCH64])
def test_newer_calls_have_one_number_everywhere(abi):
    known = {
        "open_tree": syscalls._OPEN_TREE,
        "move_mount": syscalls._MOVE_MOUNT,
        "clone3": syscalls._CLONE3,
        "close_range": syscalls._CLOSE_RANGE,
        "openat2": syscalls._OPENAT2,
        "mount_setattr": syscalls._MOUNT_SETATTR,
        "landlock_create_ruleset": landlock._CREATE_RULESET,
        "landlock_add_rule": landlock._ADD_RULE,
        "landlock_restrict_self": landlock._RESTRICT_SELF,
    }
    assert known == {name: numbers_of(abi)[name] for name in known}
