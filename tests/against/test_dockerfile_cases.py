"""The parser of Dockerfiles, held against the test data of BuildKit."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from pycontain.dockerfile.heredoc import heredocs_in, parse_heredoc
from pycontain.dockerfile.instructions import parse_instructions
from pycontain.dockerfile.parser import parse, parse_json_words, split_words
from pycontain.dockerfile.words import WordError
from pycontain.errors import DockerfileError

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")

# Cases that do not hold here, and why.
DIFFERENT = {"invalidsyntax": "# syntax= names a frontend to download; there is one here, and it is built in"}


def cases_of(key):
    file = CASES / "dockerfile_parse_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    cases = json.loads(file.read_text())[key]
    return [
        pytest.param(case, id=f"{number}-{case.get('name', '')}")
        for number, case in enumerate(cases)
        if case.get("name") not in DIFFERENT
    ]


def tree_of(node):
    made = {"cmd": node.keyword, "flags": list(node.flags), "args": list(node.args)}
    if node.nested:
        made["nested"] = [tree_of(node.nested)]
    return made


@pytest.mark.parametrize("case", cases_of("ast"))
def test_the_tree(case):
    document = parse(base64.b64decode(case["dockerfile_b64"]))
    assert [tree_of(node) for node in document.nodes] == case["ast"]


@pytest.mark.parametrize("case", cases_of("negative"))
def test_what_is_no_dockerfile(case):
    with pytest.raises(DockerfileError):
        parse(case["dockerfile"])


@pytest.mark.parametrize("case", cases_of("json_form"))
def test_the_exec_form(case):
    if case["valid"]:
        assert list(parse_json_words(case["input"])) == case["value"]
    else:
        with pytest.raises(ValueError):
            parse_json_words(case["input"])


@pytest.mark.parametrize("case", cases_of("instruction_errors"))
def test_wrong_instructions(case):
    with pytest.raises(DockerfileError) as caught:
        parse_instructions(parse(case["dockerfile"]))
    assert case["expectedError"] in str(caught.value)


@pytest.mark.parametrize("case", cases_of("heredoc_words"))
def test_words_that_begin_a_heredoc(case):
    if case["kind"] == "error":
        with pytest.raises(WordError):
            parse_heredoc(case["input"])
        return
    found = parse_heredoc(case["input"])
    assert (found.name if found else None) == case.get("name")


@pytest.mark.parametrize("case", cases_of("heredoc_from_line"))
def test_heredocs_of_a_line(case):
    assert [found.name for found in heredocs_in(case["line"])] == (case["heredocNames"] or [])


@pytest.mark.parametrize("case", cases_of("parse_words"))
def test_words(case):
    assert list(split_words(case["input"], "\\")) == case["expect"]
