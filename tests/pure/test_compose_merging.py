"""One file over another, and what extends and includes: the compose-spec's "Merge and override"."""

import pytest

from pycontain.compose.loading import load
from pycontain.compose.merging import merged, settled
from pycontain.compose.parsing import parse
from pycontain.compose.tree import Notes
from pycontain.errors import ComposeError, InvalidProject

MERGES = {
    "a scalar": ("user: a", "user: b", {"user": "b"}),
    "nothing": ("user: a", "user:", {"user": "a"}),
    "what is new": ("user: a", "tty: true", {"user": "a", "tty": True}),
    "a list": ("cap_add: [A, B]", "cap_add: [B, C]", {"cap_add": ["A", "B", "C"]}),
    "a command": ("command: [a, b]", "command: [c]", {"command": ["c"]}),
    "an entrypoint": ("entrypoint: [a]", "entrypoint: b", {"entrypoint": "b"}),
    "a test": (
        "healthcheck: {test: [CMD, a], retries: 2}",
        "healthcheck: {test: [CMD, b]}",
        {"healthcheck": {"test": ["CMD", "b"], "retries": 2}},
    ),
    "lists of variables": (
        "environment: [A=1, B=2]",
        "environment: {B: 3, C: 4}",
        {"environment": {"A": "1", "B": 3, "C": 4}},
    ),
    "labels": ("labels: {a: x}", "labels: [a=y=z]", {"labels": {"a": "y=z"}}),
    "dependencies": (
        "depends_on: [a]",
        "depends_on: {b: {condition: service_healthy}}",
        {"depends_on": {"a": {"condition": "service_started"}, "b": {"condition": "service_healthy"}}},
    ),
    "networks": (
        "networks: [a]",
        "networks: {b: {aliases: [x]}}",
        {"networks": {"a": None, "b": {"aliases": ["x"]}}},
    ),
    "mounts by their target": (
        "volumes: [one:/a, two:/b]",
        "volumes: [three:/a]",
        {"volumes": ["three:/a", "two:/b"]},
    ),
    "secrets by their target": (
        "secrets: [a, {source: b, target: x}]",
        "secrets: [{source: c, target: x}]",
        {"secrets": ["a", {"source": "c", "target": "x"}]},
    ),
    "ports": ("ports: ['80:80']", "ports: ['80:80', '81:81']", {"ports": ["80:80", "81:81"]}),
    "a build": ("build: dir", "build: {target: x}", {"build": {"context": "dir", "target": "x"}}),
    "one text and a list": ("dns: 1.1.1.1", "dns: [8.8.8.8]", {"dns": ["1.1.1.1", "8.8.8.8"]}),
    "hosts": ("extra_hosts: ['a:1.2.3.4']", "extra_hosts: ['a=4.3.2.1']", {"extra_hosts": {"a": "4.3.2.1"}}),
    "a reset": ("ports: ['80:80']", "ports: !reset []", {}),
    "a reset of one variable": (
        "environment: {A: 1, B: 2}",
        "environment: {A: !reset null}",
        {"environment": {"B": 2}},
    ),
    "an override": ("ports: ['80:80']", "ports: !override ['81:81']", {"ports": ["81:81"]}),
}


@pytest.mark.parametrize(("base", "over", "wanted"), MERGES.values(), ids=MERGES)
def test_a_service_is_merged(base, over, wanted):
    trees = (parse(f"services:\n  s:\n    {text}\n", "f") for text in (base, over))
    assert settled(merged(*trees)).plain()["services"]["s"] == wanted


# --- files ----------------------------------------------------------------------------------------------


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)


def loaded(*paths, environment=None, notes=None, **options):
    notes = notes or Notes()
    given = {"name": None, "folder": None, "env_files": None, **options}
    found = load([str(path) for path in paths], notes, environment=environment or {}, **given)
    return found, found.document.plain()["services"]


def test_later_files_go_over_earlier_ones_and_paths_are_of_the_first(tmp_path):
    write(
        tmp_path, a="services: {s: {image: x, build: ctx}}", over__b="services: {s: {image: y, env_file: []}}"
    )
    found, services = loaded(tmp_path / "a", tmp_path / "over/b")
    assert services["s"]["image"] == "y"
    assert services["s"]["build"] == str(tmp_path / "ctx")
    assert found.folder == str(tmp_path)


def test_a_file_and_its_override_are_found_in_a_folder_above(tmp_path, monkeypatch):
    write(
        tmp_path,
        **{"compose.yaml": "services: {s: {image: x}}", "compose.override.yaml": "services: {s: {user: u}}"},
    )
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    found, services = loaded()
    assert services == {"s": {"image": "x", "user": "u"}}
    assert found.name == tmp_path.name.replace(".", "").lower()


def test_without_a_file_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ComposeError, match=r"no compose\.yaml"):
        loaded()


def test_variables_are_those_of_env_below_ours(tmp_path):
    write(tmp_path, a="services: {s: {image: '$ONE-$TWO'}}", **{".env": "ONE=file\nTWO=file"})
    assert loaded(tmp_path / "a", environment={"TWO": "ours"})[1]["s"]["image"] == "file-ours"


def test_a_named_env_file_takes_the_place_of_env(tmp_path):
    write(
        tmp_path, a="services: {s: {image: '${ONE}${TWO:-x}'}}", other="ONE=other", **{".env": "ONE=1\nTWO=2"}
    )
    assert loaded(tmp_path / "a", env_files=[str(tmp_path / "other")])[1]["s"]["image"] == "otherx"


NAMES = {
    "given": ({"name": "given"}, {"COMPOSE_PROJECT_NAME": "ours"}, "given"),
    "of the environment": ({}, {"COMPOSE_PROJECT_NAME": "ours"}, "ours"),
    "of the file": ({}, {}, "file"),
}


@pytest.mark.parametrize(("options", "environment", "wanted"), NAMES.values(), ids=NAMES)
def test_a_name_is_chosen(tmp_path, options, environment, wanted):
    write(tmp_path, a="name: file\nservices: {s: {image: x}}")
    assert loaded(tmp_path / "a", environment=environment, **options)[0].name == wanted


def test_a_service_extends_another_one_of_its_file(tmp_path):
    write(
        tmp_path,
        a="services: {base: {image: x, environment: {A: 1}}, s: {extends: base, environment: {B: 2}}}",
    )
    assert loaded(tmp_path / "a")[1]["s"] == {"image": "x", "environment": {"A": 1, "B": 2}}


def test_paths_of_what_is_extended_are_those_of_its_own_file(tmp_path):
    write(
        tmp_path,
        a="services: {s: {extends: {file: common/b, service: base}, volumes: ['./own:/own']}}",
        common__b="services: {base: {build: ctx, volumes: ['./data:/data', name:/named]}}",
    )
    assert loaded(tmp_path / "a")[1]["s"] == {
        "build": str(tmp_path / "common/ctx"),
        "volumes": [f"{tmp_path}/common/data:/data", "name:/named", f"{tmp_path}/own:/own"],
    }


def test_an_extension_of_itself_is_refused(tmp_path):
    write(tmp_path, a="services: {a: {extends: b}, b: {extends: a}}")
    notes = Notes()
    loaded(tmp_path / "a", notes=notes)
    assert any("it extends itself: a → b → a" in problem for problem in notes.problems)


def test_a_long_chain_of_extensions_is_refused(tmp_path):
    """A stranger's file, and Python's stack has an end."""
    chain = ", ".join(f"s{place}: {{extends: s{place + 1}}}" for place in range(500))
    write(tmp_path, a=f"services: {{{chain}, s500: {{image: x}}}}")
    notes = Notes()
    loaded(tmp_path / "a", notes=notes)
    assert any("too deep" in problem for problem in notes.problems)


def test_an_extension_of_nothing_is_refused(tmp_path):
    write(tmp_path, a="services: {a: {extends: b}}")
    notes = Notes()
    loaded(tmp_path / "a", notes=notes)
    assert notes.problems == [f"{tmp_path}/a:1: services.a.extends: there is no service 'b' to extend"]


def test_an_included_file_has_its_own_folder_and_variables(tmp_path):
    write(
        tmp_path,
        a="include: [sub/b]\nservices: {s: {image: x}}",
        sub__b="services: {t: {image: '$V', build: ctx}}\nvolumes: {v: {}}",
        **{"sub__.env": "V=theirs"},
    )
    found, services = loaded(tmp_path / "a")
    assert services["t"] == {"image": "theirs", "build": str(tmp_path / "sub/ctx")}
    assert found.document.plain()["volumes"] == {"v": {}}


def test_an_included_service_of_the_same_name_is_refused(tmp_path):
    write(tmp_path, a="include: [{path: b}]\nservices: {s: {image: x}}", b="services: {s: {image: y}}")
    notes = Notes()
    loaded(tmp_path / "a", notes=notes)
    assert "it is included, and there is another one of this name" in notes.problems[0]


def test_a_wrong_key_of_an_included_file_is_said(tmp_path):
    write(tmp_path, a="include: [b]\nservices: {s: {image: x}}", b="servces: {s: {image: y}}")
    notes = Notes()
    loaded(tmp_path / "a", notes=notes)
    assert notes.problems == [f"{tmp_path}/b:1: servces: there is no such key, did you mean services?"]


def test_a_file_may_be_included_by_two(tmp_path):
    write(tmp_path, a="include: [b, c]", b="include: [d]", c="include: [d]", d="services: {s: {image: x}}")
    notes = Notes()
    assert loaded(tmp_path / "a", notes=notes)[1] == {"s": {"image": "x"}}
    assert notes.problems == []


@pytest.mark.parametrize(("said", "wanted"), [("name: mine\n", "mine"), ("", None)])
def test_the_name_is_a_variable(tmp_path, said, wanted):
    write(tmp_path, a=f"{said}services: {{s: {{image: '${{COMPOSE_PROJECT_NAME}}'}}}}")
    found, services = loaded(tmp_path / "a")
    assert services["s"]["image"] == found.name == (wanted or found.name)


def test_an_inclusion_of_itself_is_refused(tmp_path):
    write(tmp_path, a="include: [a]")
    with pytest.raises(InvalidProject, match="it includes itself"):
        loaded(tmp_path / "a")


def test_env_files_lie_below_environment(tmp_path):
    write(
        tmp_path,
        a="services: {s: {image: x, env_file: [one, {path: two}, {path: none, required: false}], environment: [C=own]}}",
        one="A=1\nB=1\nC=1",
        two="B=2",
    )
    assert loaded(tmp_path / "a")[1]["s"]["environment"] == {"A": "1", "B": "2", "C": "own"}


def test_a_label_file_lies_below_labels(tmp_path):
    write(tmp_path, a="services: {s: {image: x, label_file: one, labels: {b: own}}}", one="a=1\nb=1")
    assert loaded(tmp_path / "a")[1]["s"]["labels"] == {"a": "1", "b": "own"}


def test_a_missing_env_file_is_named_with_its_place(tmp_path):
    write(tmp_path, a="services:\n  s:\n    env_file: none")
    notes = Notes()
    loaded(tmp_path / "a", notes=notes)
    assert notes.problems == [f"{tmp_path}/a:3: services.s.env_file: {tmp_path}/none: there is no such file"]


def test_a_fifo_is_no_compose_file(tmp_path):
    """Who opens one for reading waits for a writer."""
    import os

    os.mkfifo(tmp_path / "a")
    with pytest.raises(InvalidProject, match="it is no file"):
        loaded(tmp_path / "a")
