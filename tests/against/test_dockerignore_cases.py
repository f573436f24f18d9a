"""What a .dockerignore leaves out, held against the test data of moby/patternmatcher."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pycontain.dockerfile.ignore import Ignore, PatternError

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")


def cases_of(key):
    file = CASES / "dockerignore_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    cases = json.loads(file.read_text())[key]
    return [pytest.param(case, id=str(number)) for number, case in enumerate(cases)]


@pytest.mark.parametrize("case", cases_of("match"))
def test_what_is_left_out(case):
    if case.get("error"):
        with pytest.raises(PatternError):
            Ignore.of(case["patterns"])
    else:
        assert Ignore.of(case["patterns"]).ignores(case["path"].rstrip("/")) == case["ignored"]
