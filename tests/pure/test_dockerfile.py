"""Dockerfiles as values: instructions, errors, words and patterns."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.dockerfile import instructions as said
from pycontain.dockerfile.ignore import Ignore, PatternError
from pycontain.dockerfile.instructions import parse_instructions
from pycontain.dockerfile.parser import parse
from pycontain.dockerfile.words import WordError, expand
from pycontain.errors import DockerfileError


def only(text):
    (found,) = parse_instructions(parse(text))
    return found


def refused(text):
    with pytest.raises(DockerfileError) as caught:
        parse_instructions(parse(text))
    return caught.value


def test_an_unknown_instruction_is_shown_with_its_line_and_what_it_may_mean():
    error = refused("FROM a\n\nCOPPY a b\n")
    assert str(error) == "line 3 of the Dockerfile: unknown instruction: COPPY"
    assert error.__notes__ == ["   3 | COPPY a b", "did you mean COPY?"]
    assert (error.line, error.last_line) == (3, 3)


def test_an_unknown_flag_names_the_one_that_may_be_meant():
    assert "did you mean --chown?" in str(refused("COPY --chwon=1 a b"))


def test_lines_that_are_continued_are_all_shown():
    error = refused("FROM a\nENV a=b \\\n  c\n")
    assert (error.line, error.last_line) == (2, 3)


def test_comments_between_continued_lines_are_left_out():
    assert only("RUN a && \\\n# no\n\n   b").command.words == ("a &&    b",)


def test_carriage_returns_mean_nothing():
    assert only("ENV a=b\r\n").pairs == (("a", "b"),)


def test_a_byte_order_mark_means_nothing():
    assert only(b"\xef\xbb\xbfENV a=b").pairs == (("a", "b"),)


def test_what_is_not_utf8_is_refused_with_its_line():
    assert refused(b"FROM a\nENV a=\xff\n").line == 2


def test_a_second_directive_is_refused():
    assert "second # escape=" in str(refused("# escape=`\n# escape=`\nFROM a"))


def test_a_heredoc_of_run():
    found = only("RUN <<EOF\necho a\nEOF\n")
    assert (found.command.words, found.command.heredocs[0].content) == (("<<EOF",), "echo a\n")


def test_a_heredoc_of_copy_is_a_source():
    found = only('COPY <<-"A" <<B /there/\n\tone\nA\ntwo\nB\n')
    assert [(one.name, one.text(), one.expand) for one in found.contents] == [
        ("A", "one\n", False),
        ("B", "two\n", True),
    ]


def test_a_heredoc_without_an_end_is_refused():
    assert "has no end" in str(refused("RUN <<EOF\necho\n"))


def test_the_mounts_of_run():
    found = only("RUN --mount=type=cache,target=/x,sharing=locked --mount=target=/src,rw make")
    assert found.mounts == (
        said.Mount("cache", (("target", "/x"), ("sharing", "locked"))),
        said.Mount("bind", (("target", "/src"), ("rw", "true"))),
    )


@pytest.mark.parametrize("text", ["RUN --mount=type=wood,target=/x a", "RUN --mount=type=cache a"])
def test_wrong_mounts_are_refused(text):
    refused(text)


def test_durations_of_a_healthcheck():
    found = only("HEALTHCHECK --interval=1m30s --retries=2 CMD true")
    assert (found.test, found.interval, found.retries) == (("CMD-SHELL", "true"), 90 * 10**9, 2)


def test_onbuild_keeps_the_text_of_its_trigger():
    assert only("ONBUILD RUN a  b").trigger == "RUN a  b"


@pytest.mark.parametrize("text", ["ONBUILD FROM a", "ONBUILD ONBUILD RUN a"])
def test_what_onbuild_cannot_be_for(text):
    refused(text)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text):
    with suppress(DockerfileError):
        parse_instructions(parse(text))


@given(st.text(alphabet="ab${}:-+?#%/*\\\"' ", max_size=40))
def test_any_word_is_expanded_or_refused(word):
    with suppress(WordError):
        expand(word, {"a": "bab", "b": ""})


def test_words_cannot_nest_without_end():
    with pytest.raises(WordError):
        expand("${a:-" * 10_000, {})


def test_words_cannot_grow_without_end():
    with pytest.raises(WordError):
        expand("$a" * 2000, {"a": "x" * 1000})


def test_a_pattern_that_would_take_for_ever_is_refused():
    with pytest.raises(WordError):
        expand("${a//" + "*a" * 50 + "b/}", {"a": "a" * 50_000})


def test_many_wildcards_take_their_steps_and_no_more():
    """A regular expression would go back and forth over it for years."""
    assert not Ignore.of(["**/" * 20 + "*a" * 20 + "b"]).ignores("a/" * 50 + "a" * 100)


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        (["a"], "a/b/c", True),
        (["a", "!a/b"], "a/b/c", False),
        (["/a/../b"], "b", True),
        (["**/b/**/*.c", "x"], "a/b/c/d.c", True),
        (["**/b/**/*.c", "x"], "b/d.c", True),
        (["**/b/*/**/*.c"], "b/d.c", False),
        (["*/*/*.txt"], "a/b/c.txt", True),
        (["*/*/*.txt"], "a/c.txt", False),
    ],
)
def test_what_is_ignored(patterns, path, ignored):
    assert Ignore.of(patterns).ignores(path) == ignored


def test_comments_of_an_ignore_file_mean_nothing():
    assert Ignore.parse("# a\n\n  b  \n") == Ignore.of(["b"])


def test_an_exception_of_nothing_is_refused():
    with pytest.raises(PatternError):
        Ignore.parse("!\n")
