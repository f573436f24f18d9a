"""Every system call number, tried inside: what the kernel answers is what the profile says, by every ABI of the machine."""

import errno
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from seccomp_machine import meaning, names_by_number

from pycontain import Container
from pycontain.kernel.syscall_tables import Abi, numbers_of
from pycontain.runtime import engine as engines
from pycontain.sandbox import capabilities
from pycontain.sandbox.seccomp import Action, Answer, parse_profile, resolve
from pycontain.sandbox.seccomp_default import default_profile
from pycontain.sandbox.single_id import IDENTITIES, OWNERS

HERE = Path(__file__).parent
LAST = 700  # the highest number of all tables is below
ABIS = {"x86_64": Abi.X86_64, "x32": Abi.X32, "i386": Abi.I386}
CASES = Path(os.environ.get("PYCONTAIN_CASES", HERE.parents[2] / "shared/cases")) / "seccomp_default.json"
ALLOW = Answer(Action.ALLOW).returns
# Of i386 one number for many calls, told apart by an argument; and one whose result, an address, may look like an errno.
NOT_TOLD = {"socketcall", "ipc", "brk"}
# kernel/seccomp.c lets these pass whatever a filter says (Linux 6.14 and 6.18); from here they do nothing.
NOT_FILTERED = {"uretprobe", "uprobe"}

pytestmark = [
    pytest.mark.skipif(
        os.uname().machine != "x86_64", reason="the survey is written for x86_64 and its 32-bit ABIs"
    ),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """The program, static, so that it runs in any image."""
    program = tmp_path_factory.mktemp("survey") / "survey"
    flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-mno-red-zone", "-static")
    subprocess.run(["gcc", *flags, "-o", program, HERE / "survey.c"], check=True)
    return program


@pytest.fixture(scope="module")
def policy():
    """Docker's default for our capabilities, from Docker's own document where it is there."""
    profile = parse_profile(json.loads(CASES.read_text())["profile"]) if CASES.exists() else default_profile()
    facts = engines.engine().facts
    return resolve(
        profile, capabilities=capabilities.DEFAULT, architecture=facts.machine, kernel=facts.kernel
    )


def ask(survey, container, abi, argument):
    """Number → how the call ended, inside *container*."""
    done = container.mount(survey, "/survey", read_only=True).run("/survey", abi, "0", str(LAST), argument)
    assert done.ok, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert len(found) == LAST + 1
    return {int(number): answer for number, answer in found.items()}


def was_let_through(name, answer, bare):
    """Whether a call ends as it does without the filter, however long that takes."""
    refused = answer in {str(errno.EPERM), str(errno.ENOSYS)}
    # Strict mode, seccomp(SECCOMP_SET_MODE_STRICT), is not for who has a filter.
    return answer == bare or (not refused and ("waits" in (answer, bare) or name == "seccomp"))


@pytest.mark.parametrize("argument", ["-1", "0"])
@pytest.mark.parametrize("name", ABIS)
def test_the_syscall_survey_equals_the_profile(survey, policy, name, argument):
    abi = ABIS[name]
    bare = ask(survey, Container("host:").seccomp("unconfined"), name, argument)
    if set(bare.values()) == {"ended"}:
        pytest.skip(f"this kernel has no {name}")
    answers = ask(survey, Container("host:"), name, argument)
    width = 0xFFFFFFFF if abi is Abi.I386 else 0xFFFFFFFF_FFFFFFFF
    args = (int(argument) & width,) * 6
    names = names_by_number(abi)
    # Where one id is mapped these claim to have been done, for the sake of package managers.
    pretended = {*OWNERS, *IDENTITIES} if engines.engine().facts.single_id else set()
    wrong, seen = [], Counter()
    for number in range(LAST + 1):
        call, answer = names.get(number + abi.first_number), answers[number]
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
    bare = ask(survey, Container("host:").seccomp("unconfined"), "x86_64", "0")
    refused = [
        number for number in numbers_of(Abi.X86_64).values() if meaning(policy, Abi.X86_64, number) != ALLOW
    ]
    assert sum(bare[number] not in {str(errno.EPERM), str(errno.ENOSYS)} for number in refused) > 20
