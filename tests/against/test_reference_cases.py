"""References, held against the test data of distribution/reference."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pycontain.errors import InvalidReference
from pycontain.oci.digest import Digest
from pycontain.oci.reference import Reference

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")

# Cases that do not hold here, and why.
DIFFERENT = {
    "validname@sha512:" + "f" * 128: "we compute sha512; the Go test was built without it",
    "a/" * 128
    + "a": "a test of the grammar alone; with Docker Hub in front its 257 characters are over the limit",
}


def cases_of(key):
    file = CASES / "reference_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    cases = json.loads(file.read_text())[key]
    return [
        pytest.param(case, id=str(number))
        for number, case in enumerate(cases)
        if case.get("input") not in DIFFERENT
    ]


def is_reference(text):
    try:
        Reference.parse(text)
    except InvalidReference:
        return False
    return True


def means(reference, name):
    """Whether *name*, which the grammar alone took apart, is what we filled in."""
    return reference.name in {name, f"docker.io/{name}", f"docker.io/library/{name}"}


@pytest.mark.parametrize(("text", "accepted"), list(zip(DIFFERENT, (True, False), strict=True)))
def test_cases_that_differ_on_purpose(text, accepted):
    assert is_reference(text) == accepted


@pytest.mark.parametrize("case", cases_of("parse"))
def test_the_parts_are_found(case):
    if case["error"]:
        assert not is_reference(case["input"])
        return
    found = Reference.parse(case["input"])
    assert means(found, case["name"])
    assert found.registry == (case["domain"] or "docker.io")
    assert found.tag == (case["tag"] or (None if case["digest"] else "latest"))
    assert str(found.digest or "") == case["digest"]


@pytest.mark.parametrize("case", cases_of("with_tag"))
def test_with_tag(case):
    assert str(Reference.parse(case["name"]).with_tag(case["tag"])) == case["combined"]


@pytest.mark.parametrize("case", cases_of("with_digest"))
def test_with_digest(case):
    digest = Digest(*case["digest"].split(":"))  # 37 digits: the case tests the joining, not the digest
    found = Reference.parse(case["name"]).with_digest(digest)
    assert case["combined"] in {str(found), found.familiar}


@pytest.mark.parametrize("case", cases_of("with_name_failure"))
def test_what_is_no_name(case):
    assert not is_reference(case["input"])


@pytest.mark.parametrize("case", cases_of("parse_named"))
def test_a_canonical_name_is_its_own_normal_form(case):
    found = Reference.parse(case["input"])
    assert (found.name == case["input"]) == ("err" not in case)
    if "err" not in case:
        assert (found.registry, found.repository) == (case["domain"], case["path"])


@pytest.mark.parametrize("case", cases_of("normalized_valid"))
def test_what_docker_accepts(case):
    assert is_reference(case["input"]) == case["valid"]


@pytest.mark.parametrize("case", cases_of("repository_info"))
@pytest.mark.parametrize("key", ["FamiliarName", "FullName", "AmbiguousName"])
def test_every_way_to_write_a_name_leads_to_it(case, key):
    found = Reference.parse(case[key] or case["FullName"])
    assert found.registry == case["Domain"]
    assert found.repository == case["RemoteName"]
    assert found.familiar_name == case["FamiliarName"]
    assert found.name == case["FullName"]


@pytest.mark.parametrize("case", cases_of("any_reference"))
def test_any_reference(case):
    found = Reference.parse(case["input"])
    assert case["string"] in {str(found), found.name}
    assert not case["is_digest_only"]


@pytest.mark.parametrize("case", cases_of("split_hostname"))
def test_the_registry_is_split_off(case):
    found = Reference.parse(case["input"])
    assert (found.registry, found.repository) == (case["domain"], case["path"])


@pytest.mark.parametrize("case", cases_of("familiar_match"))
def test_patterns_match_the_familiar_form(case):
    assert Reference.parse(case["reference"]).matches(case["pattern"]) == case["expected"]


@pytest.mark.parametrize("case", cases_of("docker_ref"))
def test_docker_normal_form(case):
    assert str(Reference.parse(case["input"])) == case["expected"]


@pytest.mark.parametrize("case", cases_of("regexp_domain"))
def test_the_grammar_of_registries(case):
    try:
        Reference(case["input"], "x", "latest")
    except InvalidReference:
        assert not case["match"]
    else:
        assert case["match"]


@pytest.mark.parametrize("case", cases_of("regexp_fullname"))
def test_the_grammar_of_names(case):
    assert is_reference(case["input"]) == case["match"]
    if case.get("subs"):
        assert means(Reference.parse(case["input"]), "/".join(filter(None, case["subs"])))


@pytest.mark.parametrize("case", cases_of("regexp_reference"))
def test_the_grammar_of_references(case):
    assert is_reference(case["input"]) == case["match"]
    if case.get("subs"):
        name, tag, digest = case["subs"]
        found = Reference.parse(case["input"])
        assert means(found, name)
        assert (found.tag or "", str(found.digest or "")) == (tag, digest)


@pytest.mark.parametrize("case", cases_of("regexp_identifier"))
def test_the_grammar_of_image_ids(case):
    """What has not exactly 64 digits is a name."""
    assert is_reference(case["input"]) != case["match"]
