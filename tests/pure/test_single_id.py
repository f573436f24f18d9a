"""The filter for a namespace with one id, run by the interpreter of the seccomp tests."""

import pytest
from seccomp_machine import MACHINES, Machine

from pycontain import Container
from pycontain.container.lowering import pretending_program
from pycontain.kernel.syscall_tables import numbers_of
from pycontain.sandbox.host import HostFacts, IdRange
from pycontain.sandbox.seccomp import Action, Answer
from pycontain.sandbox.single_id import IDENTITIES, NODES, OWNERS, pretending_filter

DONE, ALLOWED = Answer(Action.ERRNO, 0).returns, Answer(Action.ALLOW).returns
SINGLE = HostFacts(rootless=True, uid_map=(IdRange(0, 1000, 1),))
MANY = HostFacts(rootless=True, uid_map=(IdRange(0, 1000, 1), IdRange(1, 100000, 65536)))
ABIS = [(machine, abi) for machine, abis in MACHINES.items() for abi in abis]


@pytest.fixture(params=ABIS, ids=lambda pair: pair[1].name)
def ask(request):
    architecture, abi = request.param
    machine, numbers = Machine(pretending_filter(HostFacts(machine=architecture))), numbers_of(abi)

    def answer(name, *args):
        if name not in numbers:  # no ABI has all of them
            return None
        return machine.ask(abi, numbers[name], (*args, *[0] * (6 - len(args))))

    return answer


def test_owners_and_identities_are_done(ask):
    assert {ask(name, 1, 2, 3) for name in (*OWNERS, *IDENTITIES)} - {None} == {DONE}


@pytest.mark.parametrize("kind", [0o020666, 0o060600])
def test_device_nodes_are_made(ask, kind):
    assert {ask(name, *[1] * place, kind) for name, place in NODES.items()} - {None} == {DONE}


@pytest.mark.parametrize("kind", [0o010666, 0o100644, 0o140600, 0o644])
def test_other_nodes_are_really_made(ask, kind):
    assert {ask(name, *[1] * place, kind) for name, place in NODES.items()} - {None} == {ALLOWED}


@pytest.mark.parametrize("name", ["seccomp", "execve", "capset", "fchmod", "getuid", "prctl"])
def test_everything_else_is_left_to_the_next_filter(ask, name):
    assert ask(name) == ALLOWED


def test_it_is_there_where_one_id_is_mapped_and_only_there():
    spec = Container("host:").spec
    assert pretending_program(spec, SINGLE) is not None
    assert pretending_program(spec, MANY) is None
    assert pretending_program(spec, HostFacts()) is None


def test_without_filters_there_is_none():
    assert pretending_program(Container("host:").seccomp("unconfined").spec, SINGLE) is None
