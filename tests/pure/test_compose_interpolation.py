"""``${…}`` and files of variables: the compose-spec's "Interpolation", case by case, and its laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.compose import dotenv
from pycontain.compose.interpolation import interpolate, interpolated
from pycontain.compose.tree import Node, Notes, node_of
from pycontain.errors import InvalidProject

VARIABLES = {"A": "a", "EMPTY": "", "PORT": "8000"}

CASES = {
    "plain": "plain",
    "": "",
    "$A": "a",
    "${A}": "a",
    "$A$A": "aa",
    "$Ab": "",
    "x${A}y": "xay",
    "${A}b": "ab",
    "$$A": "$A",
    "$$$A": "$a",
    "$${A}": "${A}",
    "${EMPTY}": "",
    "${EMPTY:-d}": "d",
    "${EMPTY-d}": "",
    "${NONE:-d}": "d",
    "${NONE-d}": "d",
    "${NONE:-}": "",
    "${A:-d}": "a",
    "${A-d}": "a",
    "${A:+there}": "there",
    "${EMPTY:+there}": "",
    "${EMPTY+there}": "there",
    "${NONE+there}": "",
    "${NONE:-${A}}": "a",
    "${NONE:-${NONE:-deep}}": "deep",
    "${NONE:-$A-$PORT}": "a-8000",
    "${NONE:-a b:c?d}": "a b:c?d",
    "${NONE:-$$}": "$",
    "${A:?needed}": "a",
    "${A?needed}": "a",
    "${EMPTY?needed}": "",
    "${A:-${NONE:?never asked}}": "a",
    "http://$A:${PORT}/": "http://a:8000/",
}
WRONG = {
    "$": "write $$",
    "a $ b": "write $$",
    "$1": "write $$",
    "${": "followed by a name",
    "${}": "followed by a name",
    "${A": "is followed by",
    "${A:-b": "a } is missing",
    "${A/b/c}": "is followed by",
    "${NONE:?tell me}": "the variable NONE is required: tell me",
    "${EMPTY:?}": "the variable EMPTY is required",
    "${NONE?$A}": "required: a",
    "${A:-" * 40: "levels",
}


@pytest.mark.parametrize(("text", "wanted"), CASES.items())
def test_a_text_is_interpolated(text, wanted):
    assert interpolated(text, VARIABLES) == wanted


@pytest.mark.parametrize(("text", "said"), WRONG.items())
def test_what_cannot_be_interpolated_is_said(text, said):
    with pytest.raises(ValueError) as caught:
        interpolated(text, VARIABLES)
    assert said in str(caught.value)


def test_an_unset_variable_is_empty_and_noted_where_it_is_used():
    notes = Notes()
    tree = interpolate(node_of({"a": ["$NONE", "${NONE:-x}", "${A:+y}"]}), VARIABLES, notes)
    assert tree.plain() == {"a": ["", "x", "y"]}
    assert notes.warnings == ["a[0]: the variable NONE is not set, and is empty here"]


def test_what_is_not_taken_is_not_missed():
    missed = []
    interpolated("${A:-$NONE}", VARIABLES, missed.append)
    assert missed == []


def test_keys_are_not_interpolated():
    assert interpolate(node_of({"$A": "$A"}), VARIABLES, Notes()).plain() == {"$A": "a"}


@given(st.text())
def test_a_text_whose_dollars_are_doubled_stays(text):
    assert interpolated(text.replace("$", "$$"), VARIABLES) == text


@given(st.text(alphabet="$A{}:-+? "))
def test_any_text_is_interpolated_or_refused_with_a_sentence(text):
    notes = Notes()
    found = interpolate(node_of(text), VARIABLES, notes)
    assert isinstance(found.value, str)
    assert all("cannot be interpolated: " in problem for problem in notes.problems)


# --- files of variables ---------------------------------------------------------------------------------

FILES = {
    "A=b": {"A": "b"},
    "export A=b": {"A": "b"},
    " A = b ": {"A": "b"},
    "A: b": {"A": "b"},
    "A=b # comment": {"A": "b"},
    "A=b#no comment": {"A": "b#no comment"},
    "# comment\n\nA=b\n": {"A": "b"},
    "A=": {"A": ""},
    "A=\nB=c": {"A": "", "B": "c"},
    "A": {"A": None},
    "A=b=c": {"A": "b=c"},
    "A='b # $X'": {"A": "b # $X"},
    'A="b # c"': {"A": "b # c"},
    'A="one\\ntwo"': {"A": "one\ntwo"},
    'A="one\ntwo" # more\nB=c': {"A": "one\ntwo", "B": "c"},
    'A="say \\"x\\""': {"A": 'say "x"'},
    'A="\\$X"': {"A": "$X"},
    "A=b\nB=$A${A}": {"A": "b", "B": "bb"},
    "B=${X:-y}": {"B": "y"},
    "A=b\r\nB=c\r\n": {"A": "b", "B": "c"},
    "\ufeffA=b": {"A": "b"},
    "KEY.with-signs=1": {"KEY.with-signs": "1"},
}


@pytest.mark.parametrize(("text", "wanted"), FILES.items())
def test_a_file_of_variables(text, wanted):
    assert dotenv.parse(text, {}) == wanted


def test_our_environment_goes_before_earlier_lines():
    assert dotenv.parse("A=file\nB=$A", {"A": "ours"}) == {"A": "file", "B": "ours"}


def test_a_raw_file_is_taken_as_it_is():
    assert dotenv.parse("A='$B' # c\nC", {}, raw=True) == {"A": "'$B' # c", "C": None}


@pytest.mark.parametrize("text", ["A=b\n=c", "A=b\n1=c", 'A=b\nB="open', "A=b\nB=${"])
def test_a_wrong_line_is_named(text):
    with pytest.raises(ValueError, match="line 2"):
        dotenv.parse(text, {})


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z]{1,5}", fullmatch=True),
        st.text(alphabet=st.characters(exclude_characters="'\r", exclude_categories=["Cs"])),
    )
)
def test_what_is_in_single_quotes_comes_back(variables):
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    assert dotenv.parse(text, {}) == variables


@pytest.mark.timeout(30)
def test_a_file_of_many_variables_is_read_in_a_time_that_grows_with_it():
    """A megabyte of them, which is what a file may have; in quadratic time it took many minutes."""
    text = "".join(f"a{number}=x\n" for number in range(100_000))
    assert len(dotenv.parse(text, {})) == 100_000


def test_a_name_without_a_value_takes_an_earlier_one_away():
    assert dotenv.parse("A=x\nA\nB=${A:-none}", {}) == {"A": None, "B": "none"}


def test_variables_that_stand_for_each_other_do_not_fill_the_memory():
    """Forty lines that double would make a terabyte."""
    with pytest.raises(ValueError, match="more than 1 MiB"):
        dotenv.parse("A=xxxxxxxxxx\n" + "A=$A$A\n" * 40, {})
    many = "".join(f"B{number}=$A\n" for number in range(10))
    with pytest.raises(ValueError, match="MiB in all"):
        dotenv.parse(many, {"A": "x" * (1 << 19)})


def test_one_text_cannot_grow_without_end():
    with pytest.raises(ValueError, match="more than 1 MiB"):
        interpolated("$A" * 2000, {"A": "x" * 1000})


def test_a_file_cannot_grow_without_end():
    document = Node([Node("$A")] * 10)
    with pytest.raises(InvalidProject, match="more than 4 MiB"):
        interpolate(document, {"A": "x" * (1 << 19)}, Notes())


def test_a_note_is_short_however_long_the_text():
    notes = Notes()
    interpolate(Node("${" * 100_000), {}, notes)
    assert len(notes.problems[0]) < 1200
