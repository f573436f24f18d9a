"""Words with variables, held against the test data of BuildKit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pycontain.dockerfile.words import WordError, expand

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")


def cases_of(key):
    file = CASES / "shell_word_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    cases = json.loads(file.read_text())[key]
    return [pytest.param(case, id=str(number)) for number, case in enumerate(cases)]


@pytest.mark.parametrize("case", [*cases_of("env_word"), *cases_of("mandatory"), *cases_of("matches")])
def test_a_word(case):
    if case.get("error"):
        with pytest.raises(WordError):
            expand(case["input"], case["env"])
    else:
        assert expand(case["input"], case["env"]).text == case["expect"]


@pytest.mark.parametrize("case", cases_of("words"))
def test_words(case):
    assert list(expand(case["input"], case["env"]).words) == case["expect"]


@pytest.mark.parametrize("case", cases_of("matches"))
def test_which_variables_were_asked_for(case):
    if case is not None and not case.get("error"):
        found = expand(case["input"], case["env"])
        assert (found.matched, found.unmatched) == (set(case["matched"]), set(case["unmatched"]))
