"""Every system call number, tried inside: what the kernel answers is what the profile says, by every ABI of the machine."""

import errno
import json
import os
import shutil
import subprocess
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from seccomp_machine import meaning, names_by_number

from pycontain import Container
from pycontain.errors import CommandNotExecutable
from pycontain.kernel.syscall_tables import ARM_PRIVATE, Abi, numbers_of
from pycontain.runtime import engine as engines
from pycontain.sandbox import capabilities
from pycontain.sandbox.seccomp import Action, Answer, parse_profile, resolve
from pycontain.sandbox.seccomp_default import default_profile
from pycontain.sandbox.single_id import IDENTITIES, OWNERS

HERE = Path(__file__).parent
# By machine: each ABI, and what compiles a program that can call by it.
COMPILERS = {
    "x86_64": dict.fromkeys(("x86_64", "x32", "i386"), ("gcc", "-mno-red-zone")),
    "aarch64": {"aarch64": ("gcc",), "arm": ("arm-linux-gnueabihf-gcc", "-marm")},
}.get(os.uname().machine, {})
ABIS = {name: Abi[name.upper()] for name in COMPILERS}
CASES = Path(os.environ.get("PYCONTAIN_CASES", HERE.parents[2] / "shared/cases")) / "seccomp_default.json"
ALLOW = Answer(Action.ALLOW).returns
# Of i386 one number for many calls, told apart by an argument; and one whose result, an address, may look like an errno.
NOT_TOLD = {"socketcall", "ipc", "brk"}
# kernel/seccomp.c lets these pass whatever a filter says (Linux 6.14 and 6.18); from here they do nothing.
NOT_FILTERED = {"uretprobe", "uprobe"}

pytestmark = pytest.mark.skipif(not ABIS, reason="the survey is not written for this machine")


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """The name of an ABI → the program for it, static, so that it runs in any image."""
    folder = tmp_path_factory.mktemp("survey")

    @cache
    def compiled(compiler, *options):
        if shutil.which(compiler) is None:
            pytest.skip(f"needs {compiler}")
        flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-static", *options)
        subprocess.run([compiler, *flags, "-o", folder / compiler, HERE / "survey.c"], check=True)
        return folder / compiler

    return lambda name: compiled(*COMPILERS[name])


@pytest.fixture(scope="module")
def policy():
    """Docker's default for our capabilities, from Docker's own document where it is there."""
    profile = parse_profile(json.loads(CASES.read_text())["profile"]) if CASES.exists() else default_profile()
    facts = engines.engine().facts
    return resolve(
        profile, capabilities=capabilities.DEFAULT, architecture=facts.machine, kernel=facts.kernel
    )


def numbers(abi):
    """What is tried: the highest number of all tables is below 700, but Arm has some of its own far above."""
    return [range(701), *[range(ARM_PRIVATE, ARM_PRIVATE + 8)] * (abi is Abi.ARM)]


def ask(survey, container, name, argument):
    """Number → how the call ended, inside *container*."""
    found = {}
    for part in numbers(ABIS[name]):
        done = container.mount(survey(name), "/survey", read_only=True).run(
            "/survey", name, str(part[0]), str(part[-1]), argument
        )
        assert done.ok, done.stderr
        lines = (line.split() for line in done.stdout.splitlines())
        found |= {int(number): answer for number, answer in lines}
    assert list(found) == [*chain(*numbers(ABIS[name]))]
    return found


def was_let_through(name, answer, bare):
    """Whether a call ends as it does without the filter, however long that takes."""
    refused = answer in {str(errno.EPERM), str(errno.ENOSYS)}
    # Strict mode, seccomp(SECCOMP_SET_MODE_STRICT), is not for who has a filter.
    return answer == bare or (not refused and ("waits" in (answer, bare) or name == "seccomp"))


@pytest.mark.parametrize("argument", ["-1", "0"])
@pytest.mark.parametrize("name", ABIS)
def test_the_syscall_survey_equals_the_profile(survey, policy, name, argument):
    abi = ABIS[name]
    try:
        bare = ask(survey, Container("host:").seccomp("unconfined"), name, argument)
    except CommandNotExecutable:
        pytest.skip(f"this processor has no {name}")
    if set(bare.values()) == {"ended"}:
        pytest.skip(f"this kernel has no {name}")
    answers = ask(survey, Container("host:"), name, argument)
    width = 0xFFFFFFFF if abi in {Abi.I386, Abi.ARM} else 0xFFFFFFFF_FFFFFFFF
    args = (int(argument) & width,) * 6
    names = names_by_number(abi)
    # Where one id is mapped these claim to have been done, for the sake of package managers.
    pretended = {*OWNERS, *IDENTITIES} if engines.engine().facts.single_id else set()
    wrong, seen = [], Counter()
    for number, answer in answers.items():
        call = names.get(number + abi.first_number)
        if call in NOT_TOLD:
            continue
        wanted = meaning(policy, abi, number + abi.first_number, args)
        allowed = wanted == ALLOW or (call in NOT_FILTERED and answer == bare[number])
        seen["allowed" if allowed else "refused"] += 1
        fits = was_let_through(call, answer, bare[number]) if allowed else answer == str(wanted & 0xFFFF)
        if allowed and call in pretended:
            fits = answer == "0"
        if not fits:
            wrong.append(f"{number} {call}: {answer}, wanted {wanted:#x}, without a filter {bare[number]}")
    assert wrong == []
    assert min(seen["allowed"], seen["refused"]) > 50


def test_the_survey_without_a_filter_is_another_one(survey, policy):
    """It could tell: without a filter some call that the profile refuses ends otherwise."""
    name, abi = next(iter(ABIS.items()))
    bare = ask(survey, Container("host:").seccomp("unconfined"), name, "0")
    refused = [number for number in numbers_of(abi).values() if meaning(policy, abi, number) != ALLOW]
    assert sum(bare[number] not in {str(errno.EPERM), str(errno.ENOSYS)} for number in refused) > 20
