"""Challenges and scopes: the grammar of WWW-Authenticate, and what a token is asked to allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.registry.challenge import (
    MAX_CHALLENGE,
    Challenge,
    Scope,
    merged,
    parse_challenges,
    parse_scopes,
    to_pull,
    to_push,
)

WRITTEN = {
    "": (),
    "Basic": (Challenge("basic"),),
    'Basic realm="x"': (Challenge("basic", {"realm": "x"}),),
    "basic REALM=x": (Challenge("basic", {"realm": "x"}),),
    'Basic realm = "x"': (Challenge("basic", {"realm": "x"}),),
    r'Basic realm="a \"b\" \\ c"': (Challenge("basic", {"realm": r'a "b" \ c'}),),
    'Basic realm=""': (Challenge("basic", {"realm": ""}),),
    "Negotiate, Basic": (Challenge("negotiate"), Challenge("basic")),
    'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"': (
        Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"}),
    ),
    'Bearer realm="r" , service=s , Basic realm="x"': (
        Challenge("bearer", {"realm": "r", "service": "s"}),
        Challenge("basic", {"realm": "x"}),
    ),
    'Basic realm="x", Bearer realm="r",service="s"': (
        Challenge("basic", {"realm": "x"}),
        Challenge("bearer", {"realm": "r", "service": "s"}),
    ),
    'Bearer realm="first",realm="second"': (Challenge("bearer", {"realm": "first"}),),
    "Negotiate YWJjZA==, Basic": (Challenge("negotiate"),),
    'Basic realm="never closed': (Challenge("basic"),),
    'realm="nobody\'s"': (),
    "\0\0": (),
}


@pytest.mark.parametrize(("text", "challenges"), WRITTEN.items(), ids=WRITTEN)
def test_a_header_is_read_as_its_grammar_says(text, challenges):
    assert parse_challenges(text) == challenges


@given(st.text(max_size=200) | st.text('Bearer realm="\\=, ', max_size=200))
def test_no_text_breaks_the_parser(text):
    parse_challenges(text)


@pytest.mark.parametrize("unit", [" ", ",", "a", 'a="', "a ", "a=b,", "\\", '"', 'a="b" '])
def test_a_long_header_takes_no_long_time(unit):
    """It is cut, and the grammar does not backtrack; a slow one would never end here."""
    parse_challenges("Bearer " + unit * MAX_CHALLENGE)


words = st.from_regex(r"[a-z]{1,5}", fullmatch=True)
scopes = st.builds(
    Scope, st.builds("repository:{}/{}".format, words, words), st.frozensets(words, min_size=1, max_size=3)
)


def test_a_scope_is_written_with_sorted_actions():
    assert str(to_push("library/alpine")) == "repository:library/alpine:pull,push"


@given(scopes)
def test_a_scope_survives_the_round_trip(scope):
    assert parse_scopes(str(scope)) == {scope}


@given(st.lists(scopes))
def test_merged_scopes_have_each_resource_once_and_lose_no_action(listed):
    found = merged(listed)
    assert len({scope.resource for scope in found}) == len(found)
    for scope in listed:
        assert any(scope.resource == one.resource and scope.actions <= one.actions for one in found)


@given(st.lists(scopes))
def test_merging_again_changes_nothing(listed):
    assert merged(merged(listed)) == merged(listed)


def test_pull_and_push_of_one_repository_are_one_scope():
    assert merged([to_pull("a"), to_push("a")]) == {to_push("a")}


def test_words_that_are_no_scopes_are_left_out():
    assert parse_scopes("word a:b repository:x:pull") == {to_pull("x")}
