"""``pycontain.aio`` has all of ``pycontain``: no name, no method and no parameter is in the one and not in the other."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pycontain
from pycontain import aio
from pycontain.process.readiness import Condition

TWINS = sorted(set(aio._HOMES) & set(pycontain._HOMES))
CLASSES = [name for name in TWINS if isinstance(getattr(pycontain, name), type)]
FUNCTIONS = [name for name in TWINS if name not in CLASSES]

WITHOUT_A_TWIN = {"Project", "RunningProject"}
"""Projects of compose are brought up by threads of their own, and have no twin yet: the documentation says so."""

NOT_FOR_USERS = {
    "Container": {"prepare_exec", "changed_limits", "compiled_on"},
    "Files": {
        *("ask", "begin", "close", "discard", "entries", "find", "finish", "make_directory", "opened"),
        *("abandon", "owner", "reader", "replace"),
    },
    "Image": {"found", "local"},
    "Network": {"join", "leave", "lines"},
    "Running": {"wired"},
    "Store": {
        *("blobs", "find", "folder", "forget_use", "last_used", "lease", "names", "read_config"),
        *("snapshots", "sweep", "touch"),
    },
    "Terminal": {"abandon"},
}
"""What is public for other modules of ours, and in no page of the reference."""

FIELDS = {
    "Files": set(),
    "Image": set(),
    "Network": {"name", "internal"},
    "Process": {"args", "argv", "pid", "stdin", "stdout", "stderr", "terminal"},
    "Running": {"files", "id", "name", "spec", "stdin"},
    "Terminal": {"missed"},
    "Volume": {"name", "made"},
}
"""What instances have, on either side."""

ONLY_HERE = {"Running": {"open_connection"}}

NOT_AWAITED = {
    *("Process.poll", "Process.send_signal", "Process.terminate", "Process.kill"),  # as in asyncio
    *("Running.start", "Running.popen", "Running.attach", "Container.start"),  # for async with, too
    *("Running.lines", "Files.walk"),  # for async for
    "Store.default",
}

CONTEXTS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def described(cls):
    """The public members of a class by name, without what it has of object."""
    return {name: member for name, member in inspect.getmembers(cls) if not name.startswith("_")}


def parameters_of(function):
    """What a caller sees: name, kind and default of each parameter."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def methods():
    for name in CLASSES:
        for method, member in described(getattr(pycontain, name)).items():
            if callable(member) and method not in NOT_FOR_USERS.get(name, ()):
                yield f"{name}.{method}"


METHODS = sorted(methods())


def member_of(module, path):
    name, _, method = path.partition(".")
    return getattr(getattr(module, name), method)


def test_every_public_name_is_there():
    assert set(pycontain.__all__) - set(aio.__all__) == WITHOUT_A_TWIN


@pytest.mark.parametrize("name", sorted(set(pycontain.__all__) - set(TWINS) - WITHOUT_A_TWIN))
def test_what_has_no_verbs_that_wait_is_the_same_object(name):
    assert getattr(aio, name) is getattr(pycontain, name)


@pytest.mark.parametrize("name", CLASSES)
def test_a_twin_has_every_public_member_and_no_other(name):
    here, there = (set(described(getattr(module, name))) for module in (aio, pycontain))
    but = NOT_FOR_USERS.get(name, set()) | FIELDS.get(name, set()) | ONLY_HERE.get(name, set())
    assert here - but == there - but


@pytest.mark.parametrize("path", METHODS)
def test_a_method_takes_what_its_twin_takes(path):
    assert parameters_of(member_of(aio, path)) == parameters_of(member_of(pycontain, path))


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_a_function_and_a_constructor_take_what_their_twins_take(name):
    if name in {"Files", "Image", "Process", "Running", "Terminal"}:  # which nobody constructs
        assert len(parameters_of(getattr(aio, name))) == 1
    else:
        assert parameters_of(getattr(aio, name)) == parameters_of(getattr(pycontain, name))


BUILDERS = sorted(
    f"Container.{name}"
    for name, member in described(pycontain.container.Description).items()
    if callable(member)
)


@pytest.mark.parametrize("path", sorted({*METHODS} - {*BUILDERS}))
def test_a_method_is_awaited(path):
    assert inspect.iscoroutinefunction(member_of(aio, path)) == (path not in NOT_AWAITED)


@pytest.mark.parametrize("path", BUILDERS)
def test_what_describes_gives_a_container_of_the_same_kind(path):
    assert inspect.signature(member_of(aio, path)).return_annotation == "Self"


@pytest.mark.parametrize("path", METHODS)
def test_a_method_says_what_it_does(path):
    assert member_of(aio, path).__doc__


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_a_context_manager_is_one_here(name):
    for there, here in CONTEXTS.items():
        assert hasattr(getattr(pycontain, name), there) == hasattr(getattr(aio, name), here)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_awaited(name):
    assert inspect.iscoroutinefunction(getattr(aio, name))


def test_a_described_container_is_a_value():
    box = aio.Container("host:").env(A="1").untrusted()
    assert box == aio.Container(box.spec)
    assert hash(box) == hash(aio.Container(box.spec))
    assert isinstance(box, aio.Container)
    assert pycontain.Container(box.spec).spec == box.spec


def test_every_condition_is_looked_at_here_too():
    """:mod:`pycontain.aio.readiness` has a case for each that :mod:`pycontain.process.readiness` has."""
    from pycontain.aio import readiness as looked_at
    from pycontain.process import readiness

    conditions = {
        name
        for name, member in vars(readiness).items()
        if isinstance(member, type) and member.__module__ == readiness.__name__ and member is not Condition
    }
    source = inspect.getsource(looked_at._look)
    assert {name for name in conditions if f"case readiness.{name}(" not in source} == set()


def modules_after(program):
    path = [str(Path(pycontain.__file__).parent.parent), *filter(None, sys.path)]
    script = f"import sys; sys.path += sys.argv[1:]; {program}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", script, *path]
    return set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


def test_importing_the_package_loads_no_more_than_pycontain():
    more = modules_after("from pycontain import aio") - modules_after("import pycontain, importlib")
    assert more == {"pycontain.aio"}


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no_such"):
        aio.no_such  # noqa: B018 - it raises


def test_the_names_are_listed():
    assert set(aio.__all__) <= set(dir(aio))
