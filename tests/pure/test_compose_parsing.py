"""YAML to a tree: the values of YAML 1.2, and files that somebody hostile wrote."""

import pytest

from pycontain.compose.parsing import MOST_BYTES, parse
from pycontain.compose.tree import Rule
from pycontain.errors import InvalidProject

VALUES = {
    "text": "text",
    "1": 1,
    "-1": -1,
    "0644": 0o644,
    "0o644": 0o644,
    "0x1F": 31,
    "089": 89,
    "1.5": 1.5,
    "1e3": 1000.0,
    "true": True,
    "False": False,
    "~": None,
    "null": None,
    '""': "",
    "on": "on",
    "yes": "yes",
    "n": "n",
    "22:22": "22:22",
    "2001-01-01": "2001-01-01",
    "1_000": "1_000",
    "'1'": "1",
    '"true"': "true",
    "[a, 1]": ["a", 1],
    "{a: {b: c}}": {"a": {"b": "c"}},
    "!!str 1": "1",
    "!!int '1'": 1,
    "=": "=",
}


@pytest.mark.parametrize(("text", "wanted"), VALUES.items())
def test_a_value_is_that_of_yaml_1_2(text, wanted):
    found = parse(f"key: {text}", "f").plain()
    assert found == {"key": wanted}
    assert type(found["key"]) is type(wanted)


def test_every_value_knows_its_line():
    tree = parse("a:\n  b: [1,\n    2]\n", "compose.yaml")
    assert tree.get("a").get("b").value[1].where == "compose.yaml:3: "


def test_a_merge_key_gives_what_is_not_said():
    text = "x-a: &a {one: 1, two: 2}\nx-b: &b {two: 3, four: 4}\nc: {<<: [*a, *b], one: own}"
    assert parse(text, "f").plain()["c"] == {"one": "own", "two": 2, "four": 4}


def test_tags_of_the_merge_are_noted():
    tree = parse("a: !reset null\nb: !override [x]\nc: !reset 1", "f")
    assert [tree.get(name).rule for name in "abc"] == [Rule.RESET, Rule.OVERRIDE, Rule.RESET]
    assert tree.plain() == {"a": None, "b": ["x"], "c": 1}


def test_an_empty_file_is_nothing():
    assert parse("# nothing\n", "f") is None


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGE_BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: *a{n - 1}}}\n" for n in range(1, 40)
)
HOSTILE = {
    "a python object": ("a: !!python/object/apply:os.system ['true']", "there is no tag"),
    "a python name": ("a: !!python/name:os.system", "there is no tag"),
    "a tag of somebody": ("a: !mine 1", "there is no tag"),
    "binary": ("a: !!binary aGVsbG8=", "there is no tag"),
    "an alias bomb": (BOMB, "more than 100000 values"),
    "a bomb of merges": (MERGE_BOMB, "more than 100000 values"),
    "an alias in itself": ("a: &a [*a]", "inside of what it stands for"),
    "a mapping in itself": ("a: &a {b: *a}", "inside of what it stands for"),
    "too deep": ("a: " + "[" * 80 + "]" * 80, "deeper than"),
    "much too deep": ("a: " + "[" * 20_000, "deeper than"),
    "too long": ("a: " + "x" * MOST_BYTES, "longer than 1 MiB"),
    "a key twice": ("a: 1\nb: 2\na: 3", "f:3: 'a' is there already"),
    "a key that is a list": ("[a]: 1", "a key is a text"),
    "two documents": ("a: 1\n---\nb: 2", "a second document"),
    "no yaml": ("a: [", "this is no YAML"),
    "a control character": ("a: \x00", "this is no YAML"),
    "an alias of nothing": ("a: *b", "undefined alias"),
    "no number": ("a: !!int x", "'x' is no int"),
    "a merge of a text": ("a: {<<: text}", "takes a mapping"),
}


@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(text, said):
    with pytest.raises(InvalidProject) as caught:
        parse(text, "f")
    assert said in str(caught.value)
