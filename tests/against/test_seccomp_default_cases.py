"""Our default profile is Docker's, on x86_64 and aarch64, for every capability and kernel."""

import json
import os
from pathlib import Path

import pytest

from pycontain.sandbox.seccomp import Action, Answer, parse_profile, resolve
from pycontain.sandbox.seccomp_default import default_profile

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES", Path(__file__).parents[3] / "shared/cases"))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

try:
    DOCKER = json.loads((CASES / "seccomp_default.json").read_text())
except FileNotFoundError:
    pytest.skip("no test data of other projects", allow_module_level=True)

CAPABILITIES = sorted(
    {
        name
        for rule in DOCKER["profile"]["syscalls"]
        for where in ("includes", "excludes")
        for name in rule.get(where, {}).get("caps", ())
    }
)


def capabilities_of(case) -> frozenset[str]:
    first, *added = case["caps"].split("+")
    assert first == "default"
    return frozenset(name.removeprefix("CAP_") for name in (*DOCKER["default_caps"], *added))


def in_dockers_words(arg) -> dict:
    words = {"index": arg.index, "value": arg.value, "op": f"SCMP_CMP_{arg.op.name}"}
    return words | ({"valueTwo": arg.value_two} if arg.value_two else {})


@pytest.mark.parametrize(
    "case", DOCKER["resolved"], ids=lambda case: f"{case['caps']}-{case['arch']}-{case['kernel']}"
)
def test_what_the_default_means_for_a_set_of_capabilities(case):
    """The three parts of a resolved case: allowed, allowed with conditions, another errno."""
    policy = resolve(
        default_profile(),
        capabilities=capabilities_of(case),
        architecture=MACHINES[case["arch"]],
        kernel=tuple(map(int, case["kernel"].split("."))),
    )
    allow = Answer(Action.ALLOW)
    each = [(name, one) for name, cases in policy.calls for one in cases]
    assert sorted(name for name, one in each if one.answer == allow and not one.args) == sorted(
        case["unconditional_allow"]
    )
    conditional = [
        {"name": name, "action": "SCMP_ACT_ALLOW", "args": [in_dockers_words(arg) for arg in one.args]}
        for name, one in each
        if one.args
    ]
    assert sorted(conditional, key=str) == sorted(case["conditional"], key=str)
    assert [
        {"name": name, "action": "SCMP_ACT_ERRNO", "errnoRet": one.answer.errno}
        for name, one in each
        if one.answer != allow
    ] == case["explicit_errno"]


@pytest.mark.parametrize("kernel", [(4, 7), (5, 10), (6, 18)])
@pytest.mark.parametrize("architecture", MACHINES.values())
@pytest.mark.parametrize("capability", ["none", "all", *CAPABILITIES])
def test_dockers_own_document_resolves_to_the_same_policy(capability, architecture, kernel):
    capabilities = {"none": [], "all": CAPABILITIES}.get(capability, [capability])
    both = [
        resolve(
            profile,
            capabilities=frozenset(name.removeprefix("CAP_") for name in capabilities),
            architecture=architecture,
            kernel=kernel,
        )
        for profile in (default_profile(), parse_profile(DOCKER["profile"]))
    ]
    assert both[0] == both[1]
