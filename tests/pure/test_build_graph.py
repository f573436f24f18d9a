"""Stages, their order, and the variables that an instruction sees: values, without a build."""

import pytest

from pycontain.dockerfile.graph import recipe_of
from pycontain.dockerfile.instructions import Arg, parse_instructions
from pycontain.dockerfile.modes import changed_mode
from pycontain.dockerfile.parser import parse
from pycontain.dockerfile.scope import Scope
from pycontain.errors import DockerfileError


def recipe(text, **given):
    return recipe_of(parse(text), given, {"TARGETARCH": "arm64"})


def names(made, target=None):
    return [made.stages[index].name for index in made.order(made.target(target))]


CHAIN = "FROM x AS a\nFROM a AS b\nFROM y AS other\nFROM z\nCOPY --from=b /1 /2\nRUN --mount=from=a,target=/m true\n"


def test_only_what_the_target_needs_is_built_and_in_order():
    assert names(recipe(CHAIN)) == ["a", "b", "3"]
    assert names(recipe(CHAIN), "other") == ["other"]


def test_a_stage_can_be_named_by_its_number():
    assert names(recipe(CHAIN), "1") == ["a", "b"]


def test_a_target_that_is_not_there_names_the_one_that_may_be_meant():
    with pytest.raises(DockerfileError) as caught:
        recipe(CHAIN).target("othre")
    assert caught.value.__notes__[-1] == "did you mean other?"


def test_a_stage_that_needs_itself_is_refused():
    made = recipe("FROM x AS a\nCOPY --from=a /1 /2\n")
    with pytest.raises(DockerfileError, match="circle: a → a"):
        made.order(0)


def test_from_means_earlier_stages_only():
    """The same name later is another image."""
    assert recipe("FROM x AS debian\nFROM debian AS later\nFROM later2\n").stages[1].base == 0
    assert recipe("FROM busybox AS one\nFROM one AS busybox\n").stages[0].base is None


def test_from_sees_arguments_before_it_and_the_platform():
    made = recipe("ARG V=1\nFROM base-$TARGETARCH:$V AS a\nARG V\n", V="2")
    assert made.stages[0].image == "base-arm64:2"


@pytest.mark.parametrize("text", ["RUN true\nFROM x", "ARG A=1", "FROM $NOTHING"])
def test_what_has_no_base_is_refused(text):
    with pytest.raises(DockerfileError):
        recipe(text)


def scope(text, given=None, defaults=None):
    document = parse(text)
    made = Scope(document, given or {}, defaults or {})
    for one in parse_instructions(document):
        assert isinstance(one, Arg)
        made = made.declared(one)
    return made


def test_a_given_argument_wins_over_its_default_and_env_over_both():
    made = scope("ARG A=1\nARG B=$A-b", {"A": "2"})
    assert made.variables == {"A": "2", "B": "2-b"}
    assert made.with_env(("A=3",)).variables["A"] == "3"


def test_an_argument_without_a_value_is_not_there():
    assert scope("ARG A").variables == {}


def test_an_argument_before_from_is_there_when_it_is_declared_again():
    assert scope("ARG A", defaults={"A": "1"}).variables == {"A": "1"}
    assert scope("ARG A=2", defaults={"A": "1"}).variables == {"A": "2"}


def test_proxies_are_in_no_history():
    made = scope("ARG HTTP_PROXY", {"HTTP_PROXY": "http://user:pw@x", "no_proxy": "y"})
    assert made.arguments == {}
    assert made.proxies == {"HTTP_PROXY": "http://user:pw@x", "no_proxy": "y"}


@pytest.mark.parametrize(
    ("text", "mode", "folder", "made"),
    [
        ("755", 0o600, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("+x", 0o644, False, 0o755),
        ("go-r", 0o644, False, 0o600),
        ("u+s", 0o755, False, 0o4755),
    ],
)
def test_modes(text, mode, folder, made):
    assert changed_mode(text, mode, folder=folder) == made


@pytest.mark.parametrize("text", ["", "99", "u", "x=r", "77777"])
def test_what_is_no_mode(text):
    with pytest.raises(ValueError):
        changed_mode(text, 0o644, folder=False)
