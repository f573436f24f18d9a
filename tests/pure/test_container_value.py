"""``Container``: a value; every builder method returns a new one or says all that is wrong."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.container import Container
from pycontain.errors import ImageError, InvalidReference, InvalidSpec, PycontainError

HOST = Container("host:")

CHANGES = {
    "env": lambda c: c.env(A="1"),
    "workdir": lambda c: c.workdir("/x"),
    "user": lambda c: c.user("u:g"),
    "hostname": lambda c: c.hostname("box"),
    "name": lambda c: c.name("web"),
    "entrypoint": lambda c: c.entrypoint("a", "b"),
    "mount": lambda c: c.mount("/a", "/b", read_only=True),
    "tmpfs": lambda c: c.tmpfs("/t", size="1M", mode=0o700),
    "file": lambda c: c.file("/f", "x", mode=0o600),
    "secret": lambda c: c.secret("s", "x"),
    "read_only": lambda c: c.read_only(),
    "init": lambda c: c.init(False),
    "stop_signal": lambda c: c.stop_signal("INT"),
    "label": lambda c: c.label(a="b"),
    "capabilities": lambda c: c.capabilities(drop=["CHOWN"]),
    "rlimit": lambda c: c.rlimit("nofile", 10),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_method_returns_a_new_value_and_leaves_the_old(change):
    before = HOST.spec
    changed = change(HOST)
    assert changed != HOST
    assert HOST.spec == before
    assert change(HOST) == changed
    assert hash(change(HOST)) == hash(changed)
    assert len({HOST, changed, change(HOST)}) == 2


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_value_survives_pickling(change):
    changed = change(HOST)
    copy = pickle.loads(pickle.dumps(changed))
    assert copy == changed
    assert hash(copy) == hash(changed)


@given(st.permutations(sorted(set(CHANGES))))
def test_the_order_of_unrelated_calls_does_not_matter(order):
    container = expected = HOST
    for name in order:
        container = CHANGES[name](container)
    for change in CHANGES.values():
        expected = change(expected)
    assert set(container.spec.files) == set(expected.spec.files)
    fields = [name for name in CHANGES if name not in {"file", "secret", "entrypoint", "mount", "label"}]
    known = [name for name in fields if hasattr(container.spec, name)]
    assert [getattr(container.spec, name) for name in known] == [
        getattr(expected.spec, name) for name in known
    ]


def test_a_value_cannot_be_changed():
    with pytest.raises(AttributeError):
        HOST.spec = None
    with pytest.raises(AttributeError):
        HOST.spec.user = "x"


def test_the_repr_names_what_was_changed_and_no_value_of_a_variable():
    text = repr(HOST.env(TOKEN="hush").user("u"))
    assert "host:" in text
    assert "user='u'" in text
    assert "TOKEN" in text
    assert "hush" not in text


def test_a_later_value_wins_and_a_mapping_and_keywords_mix():
    container = HOST.env({"a.b": "1", "C": "1"}, C="2").env(D="3")
    assert dict(container.spec.env) == {"a.b": "1", "C": "2", "D": "3"}


def test_a_signal_is_written_as_people_write_it():
    assert {
        HOST.stop_signal(given).spec.stop_signal for given in ("TERM", "sigterm", "SIGTERM", 15, "15")
    } == {"SIGTERM"}


@pytest.mark.parametrize("given", ["SIGRTMIN+3", "RTMIN+3", "SIGRTMAX-2"])
def test_a_signal_in_real_time_has_a_name(given):
    """image-spec, config.StopSignal: "SIGNAME", for instance SIGKILL or SIGRTMIN+3."""
    assert HOST.stop_signal(given).spec.stop_signal


WRONG = {
    "env name empty": lambda c: c.env({"": "x"}),
    "env name with =": lambda c: c.env({"a=b": "x"}),
    "env name with NUL": lambda c: c.env({"a\0": "x"}),
    "env name no text": lambda c: c.env({5: "x"}),
    "env value number": lambda c: c.env(A=5),
    "env value None": lambda c: c.env(A=None),
    "env value NUL": lambda c: c.env(A="\0"),
    "env list": lambda c: c.env([("A", "B")]),
    "env text": lambda c: c.env("A=B"),
    "workdir relative": lambda c: c.workdir("x"),
    "workdir with ..": lambda c: c.workdir("/a/../b"),
    "workdir empty": lambda c: c.workdir(""),
    "workdir NUL": lambda c: c.workdir("/\0"),
    "workdir number": lambda c: c.workdir(5),
    "workdir None": lambda c: c.workdir(None),
    "user empty": lambda c: c.user(""),
    "user None": lambda c: c.user(None),
    "user negative": lambda c: c.user(-1),
    "user float": lambda c: c.user(1.5),
    "user bool": lambda c: c.user(True),
    "user three parts": lambda c: c.user("a:b:c"),
    "user without group": lambda c: c.user("a:"),
    "user space": lambda c: c.user("a b"),
    "user newline": lambda c: c.user("a\n"),
    "user slash": lambda c: c.user("../a"),
    "hostname empty": lambda c: c.hostname(""),
    "hostname long": lambda c: c.hostname("a" * 65),
    "hostname space": lambda c: c.hostname("a b"),
    "hostname dash": lambda c: c.hostname("-a"),
    "hostname newline": lambda c: c.hostname("a\n"),
    "hostname None": lambda c: c.hostname(None),
    "name empty": lambda c: c.name(""),
    "name slash": lambda c: c.name("a/b"),
    "name newline": lambda c: c.name("a\n"),
    "name number": lambda c: c.name(5),
    "entrypoint number": lambda c: c.entrypoint("a", 5),
    "entrypoint NUL": lambda c: c.entrypoint("a\0"),
    "entrypoint list": lambda c: c.entrypoint(["a", "b"]),
    "mount target relative": lambda c: c.mount("/a", "b"),
    "mount target top": lambda c: c.mount("/a", "/"),
    "mount target top in disguise": lambda c: c.mount("/a", "//./"),
    "mount target /proc": lambda c: c.mount("/a", "/proc"),
    "mount target in /proc": lambda c: c.mount("/a", "/proc/self"),
    "mount target in /sys": lambda c: c.mount("/a", "//sys/./fs"),
    "mount target ..": lambda c: c.mount("/a", "/b/../proc"),
    "mount target None": lambda c: c.mount("/a", None),
    "mount source None": lambda c: c.mount(None, "/b"),
    "mount source bytes": lambda c: c.mount(b"/a", "/b"),
    "mount source NUL": lambda c: c.mount("/a\0", "/b"),
    "mount source empty": lambda c: c.mount("", "/b"),
    "mount twice": lambda c: c.mount("/a", "/b").mount("/c", "/b/"),
    "mount over tmpfs": lambda c: c.tmpfs("/b").mount("/c", "/b"),
    "tmpfs over file": lambda c: c.file("/b", "").tmpfs("/b"),
    "file over mount": lambda c: c.mount("/a", "/b").file("/b", ""),
    "secret twice": lambda c: c.secret("a", "x").secret("a", "y"),
    "file over secret": lambda c: c.secret("a", "x").file("/run/secrets/a", "y"),
    "tmpfs relative": lambda c: c.tmpfs("x"),
    "tmpfs size text": lambda c: c.tmpfs("/x", size="big"),
    "tmpfs size negative": lambda c: c.tmpfs("/x", size=-1),
    "tmpfs size zero": lambda c: c.tmpfs("/x", size=0),
    "tmpfs size float": lambda c: c.tmpfs("/x", size=1.5),
    "tmpfs size list": lambda c: c.tmpfs("/x", size=[]),
    "tmpfs size too large": lambda c: c.tmpfs("/x", size="9" * 400),
    "tmpfs mode": lambda c: c.tmpfs("/x", mode=0o10000),
    "tmpfs mode text": lambda c: c.tmpfs("/x", mode="755"),
    "file relative": lambda c: c.file("x", ""),
    "file number": lambda c: c.file("/x", 5),
    "file None": lambda c: c.file("/x", None),
    "file path number": lambda c: c.file(5, ""),
    "file mode": lambda c: c.file("/x", "", mode=-1),
    "file mode text": lambda c: c.file("/x", "", mode="644"),
    "file surrogate": lambda c: c.file("/x", "\ud800"),
    "secret name slash": lambda c: c.secret("../x", "x"),
    "secret name number": lambda c: c.secret(5, "x"),
    "secret value number": lambda c: c.secret("x", 5),
    "secret surrogate": lambda c: c.secret("x", "\ud800"),
    "stop_signal": lambda c: c.stop_signal("NOPE"),
    "stop_signal zero": lambda c: c.stop_signal(0),
    "stop_signal large": lambda c: c.stop_signal(65),
    "stop_signal None": lambda c: c.stop_signal(None),
    "stop_signal float": lambda c: c.stop_signal(9.5),
    "label number": lambda c: c.label(a=5),
    "label list": lambda c: c.label(["a"]),
    "capability": lambda c: c.capabilities(add=["NOPE"]),
    "capability number": lambda c: c.capabilities(add=[5]),
    "capability text": lambda c: c.capabilities(drop="ALL"),
    "capability None": lambda c: c.capabilities(drop=None),
    "rlimit name": lambda c: c.rlimit("nope", 5),
    "rlimit name None": lambda c: c.rlimit(None, 5),
    "rlimit negative": lambda c: c.rlimit("nofile", -2),
    "rlimit soft above hard": lambda c: c.rlimit("nofile", 10, 5),
    "rlimit soft unlimited": lambda c: c.rlimit("nofile", -1, 5),
    "rlimit text": lambda c: c.rlimit("nofile", "5"),
    "rlimit float": lambda c: c.rlimit("nofile", 1.5),
    "rlimit large": lambda c: c.rlimit("nofile", 1 << 64),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_refused_when_the_method_is_called(change):
    with pytest.raises(InvalidSpec) as caught:
        change(HOST)
    assert caught.value.problems
    assert isinstance(caught.value, ValueError)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)


MANY = {
    "env": (lambda c: c.env({"": "x", "a=b": "y", "C": 5}), 3),
    "mount": (lambda c: c.mount("/a\0", "b"), 2),
    "tmpfs": (lambda c: c.tmpfs("x", size="big", mode=-1), 3),
    "file": (lambda c: c.file("x", 5, mode=-1), 3),
    "secret": (lambda c: c.secret("a/b", 5), 2),
    "rlimit": (lambda c: c.rlimit("nope", -5), 2),
    "capabilities": (lambda c: c.capabilities(add=["A", "B"], drop=["C"]), 3),
    "entrypoint": (lambda c: c.entrypoint("\0", "a", "b\0"), 2),
    "label": (lambda c: c.label(a=1, b=2), 2),
}


@pytest.mark.parametrize(("change", "count"), MANY.values(), ids=MANY.keys())
def test_all_problems_are_named_at_once(change, count):
    with pytest.raises(InvalidSpec) as caught:
        change(HOST)
    assert len(caught.value.problems) == count


def test_a_secret_is_not_in_the_complaint_about_it():
    with pytest.raises(InvalidSpec) as caught:
        HOST.secret("a/b", "hush")
    assert "hush" not in repr(caught.value)


@pytest.mark.parametrize("given", ["", "::", "rootfs:", "UPPER CASE", "a b"])
def test_what_is_no_image(given):
    with pytest.raises(PycontainError) as caught:
        Container(given)
    assert isinstance(caught.value, ImageError | InvalidSpec | InvalidReference)


@pytest.mark.parametrize("given", [None, 5, b"host:", ["host:"]])
def test_what_is_no_name_of_an_image(given):
    with pytest.raises(InvalidSpec):
        Container(given)


@pytest.mark.parametrize(
    "options",
    [
        {"input": 5},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "1"},
        {"max_output": "big"},
        {"max_output": -1},
        {"max_output": None},
        {"max_output": 1.5},
    ],
    ids=str,
)
def test_a_wrong_option_of_run_is_refused_before_anything_is_started(options):
    with pytest.raises(InvalidSpec):
        HOST.run("true", **options)


def test_all_wrong_options_of_run_are_named_at_once():
    with pytest.raises(InvalidSpec) as caught:
        HOST.run("true", input=5, timeout=-1, max_output="big")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("path", ["/a", "/a/b", "/a//b/", "/./a", "/with space", "/häi", "/...", "/a..b"])
def test_a_path_in_the_container_is_tidied(path):
    parsed = HOST.workdir(path).spec.workdir
    assert parsed.startswith("/")
    assert "//" not in parsed
    assert "/./" not in parsed


@given(st.text(max_size=12))
def test_any_text_as_a_path_is_taken_or_refused(text):
    for change in (
        HOST.workdir,
        lambda t: HOST.mount("/a", t),
        lambda t: HOST.mount(t, "/a"),
        HOST.user,
        HOST.hostname,
        HOST.name,
    ):
        try:
            change(text)
        except InvalidSpec as error:
            assert error.problems  # noqa: PT017 - it may be right
