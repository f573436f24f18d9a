"""The error tree: what its docstring draws is what there is, and an error survives the way to another process."""

import builtins
import copy
import errno
import inspect
import pickle
import re

import attrs
import pytest

from pycontain import errors
from pycontain.errors import PycontainError
from pycontain.process import Completed

WORD = re.compile(r"(\w+)(?:\((\w+)\))?")


def classes():
    return [
        value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, PycontainError) and not name.startswith("_")
    ]


def drawn():
    """``{name: (parent, base from the standard library)}`` as the module's docstring draws the tree."""
    tree, branch = {}, ""
    for line in errors.__doc__.splitlines():
        if not re.search("[│├└]", line):
            continue
        for place, (name, base) in enumerate(WORD.findall(line)):
            if place == 0 and "──" in line:
                branch, parent = name, "PycontainError"
            else:
                # DigestMismatch(InvalidImage): a leaf whose parent is another leaf.
                parent = base if base in tree else branch
            tree[name] = (parent, "" if base in tree else base)
    return tree


def test_the_drawing_has_every_class_and_no_other():
    assert {"PycontainError", *drawn()} == {cls.__name__ for cls in classes()}


@pytest.mark.parametrize(("name", "parent", "base"), [(name, *bases) for name, bases in drawn().items()])
def test_a_class_hangs_where_it_is_drawn(name, parent, base):
    cls = getattr(errors, name)
    public = [above for above in cls.__mro__[1:] if not above.__name__.startswith("_")]
    assert public[0].__name__ == parent
    assert not base or issubclass(cls, getattr(builtins, base))


@pytest.mark.parametrize(("name", "base"), [(name, base) for name, (_, base) in drawn().items() if base])
def test_who_knows_only_the_standard_library_catches_it(name, base):
    with pytest.raises(getattr(builtins, base)):
        raise example(getattr(errors, name))


RESULT = Completed(("false",), 1, None, "out", "err")
VALUES = {
    "available": ("linux/arm64",),
    "errno": errno.EACCES,
    "index": 3,
    "line": 4,
    "port": 8080,
    "problems": ("this is wrong", "so is that"),
    "result": RESULT,
    "status": 404,
}


def example(cls):
    """An error with every field set to a value that is not its default, and with two notes."""
    fields = {
        name: VALUES.get(name, f"a {name}")
        for name in inspect.signature(cls).parameters
        if name not in {"message", "hint", "problems", "feature"}
    }
    first = VALUES["problems"] if cls is errors.InvalidSpec else "a sentence"
    error = cls(first, **fields, hint="the next step")
    error.add_note("one more note")
    return error


def pickled(error):
    return pickle.loads(pickle.dumps(error))


@pytest.fixture(params=classes(), ids=lambda cls: cls.__name__)
def error(request):
    return example(request.param)


@pytest.fixture(params=[pickled, copy.copy, copy.deepcopy])
def sent(request, error):
    return request.param(error)


def test_it_keeps_its_class_and_its_sentence(error, sent):
    assert (type(sent), str(sent), sent.args) == (type(error), str(error), error.args)


def test_it_keeps_its_fields(error, sent):
    assert vars(sent) == vars(error)


def test_it_keeps_its_notes(error, sent):
    assert sent.__notes__ == error.__notes__ == ["the next step", "one more note"]


def test_kin_of_oserror_keep_what_the_kernel_said(error, sent):
    if isinstance(error, OSError):
        assert (sent.errno, sent.strerror) == (error.errno, error.strerror)


@pytest.mark.parametrize(
    "cls", [errors.StepFailed, errors.CommandNotFound, errors.CommandNotExecutable, errors.PortInUse]
)
def test_an_error_of_the_kernel_has_its_errno_and_our_sentence(cls):
    error = cls("a sentence", errno=errno.EACCES)
    assert (error.errno, error.strerror, str(error)) == (errno.EACCES, "Permission denied", "a sentence")


def test_with_hint_returns_the_error_to_be_raised():
    error = PycontainError("a sentence")
    assert error.with_hint("the next step") is error
    assert error.__notes__ == ["the next step"]


def test_without_a_hint_there_is_no_note():
    assert not hasattr(PycontainError("a sentence"), "__notes__")


def test_all_problems_of_a_spec_are_in_its_sentence():
    assert str(errors.InvalidSpec(("this is wrong", "so is that"))) == "this is wrong; so is that"


def test_what_a_host_lacks_is_said_in_one_sentence():
    error = errors.HostUnsupported("idmapped mounts", needs="Linux 5.12", found="5.10")
    assert str(error) == "this host cannot provide idmapped mounts: it needs Linux 5.12, found 5.10"


def test_a_result_travels_with_its_error():
    error = pickle.loads(pickle.dumps(errors.CommandFailed("it failed", result=RESULT)))
    assert attrs.asdict(error.result) == attrs.asdict(RESULT)
