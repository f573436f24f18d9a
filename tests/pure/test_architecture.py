"""The map of the imports, as docs/explanation/design.md draws it, and what must not be imported at all."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pycontain
from pycontain.runtime import engine

PACKAGE = Path(pycontain.__file__).parent

LAYERS = (
    {"errors", "interruption"},
    {"oci"},
    {"kernel"},
    {"layers", "sandbox", "dockerfile"},
    {"registry", "store"},
    {"runtime"},
    {"image", "volume"},
    {"network"},
    {"process"},
    {"container"},
    {"building", "diagnosis"},
    {"compose"},
)
"""An import leads to a lower layer, or stays inside its package, so there is no circle of packages. All that is not named
here is above: there, everybody may know everybody."""

TOP = len(LAYERS)

TYPES_ONLY = {
    ("errors", "process"),
    ("volume", "process"),
    ("network", "process"),
    ("process", "container"),
}
"""Who may name a type of a higher layer, below ``if TYPE_CHECKING``: what is handed down is known above."""

UPWARD = {("image", "jupyter.html"), ("process", "jupyter.html")}
"""Which package asks a module above it, late: a notebook asks a value itself for its HTML."""

PURE = {
    *("oci", "sandbox", "dockerfile", "errors"),
    *("kernel.bpf", "kernel.constants", "kernel.syscall_tables"),
    *("layers.decode", "layers.entries", "layers.headers", "layers.sparse"),
    *("compose.cursor", "compose.document", "compose.dotenv", "compose.interpolation", "compose.merging"),
    *(
        "compose.parsing",
        "compose.reading",
        "compose.service",
        "compose.shortened",
        "compose.tree",
        "compose.values",
    ),
}
IMPURE = {"asyncio", "ctypes", "os", "shutil", "socket", "subprocess", "threading", "time"}
PURE_BUT = {("errors", "os")}
"""``os.strerror`` makes the text of an errno."""

VAGUE = re.compile(r"(^|_)(utils?|helpers?|managers?|common)(_|$)")

NOT_FOR_IMPORT = {"asyncio", "concurrent", "isal", "pyroute2", "subprocess", "urllib3", "yaml", "zstandard"}
"""What ``import pycontain`` leaves for first use."""

NOT_FOR_THE_ZYGOTE = {
    *(
        "asyncio",
        "attr",
        "attrs",
        "json",
        "pathlib",
        "re",
        "shutil",
        "subprocess",
        "traceback",
        "typing",
        "urllib3",
    )
}
"""The zygote's size is the cost of a fork."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """A module's name without the ``pycontain.`` in front: ``oci.digest``, ``container``, ``__init__``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def top_of(module):
    return module.split(".")[0]


def layer_of(module):
    return next((number for number, names in enumerate(LAYERS) if top_of(module) in names), TOP)


def imports_of(path):
    """``(module, only_types)`` for each import in a file, wherever it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        below
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for below in ast.walk(statement)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node in typing) for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from ((f"{module}.{alias.name}", node in typing) for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"{path}:{node.lineno} has a relative import: write it in full")


def own_imports_of(path):
    """The same for our own modules, without the ``pycontain.`` in front."""
    for module, only_types in imports_of(path):
        head, _, rest = module.partition(".")
        if head == "pycontain":
            yield rest or "__init__", only_types


def may_import(here, there, only_types):
    if only_types and (top_of(here), top_of(there)) in TYPES_ONLY:
        return True
    if any(top_of(here) == package and there.startswith(f"{module}.") for package, module in UPWARD):
        return True
    return top_of(here) == top_of(there) or layer_of(here) == TOP or layer_of(there) < layer_of(here)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_lead_down_or_stay_inside_their_package(path):
    here = name_of(path)
    forbidden = [
        there for there, only_types in own_imports_of(path) if not may_import(here, there, only_types)
    ]
    assert forbidden == []


def is_pure(module):
    return any(module == name or module.startswith(f"{name}.") for name in PURE)


PURE_MODULES = [path for path in MODULES if is_pure(name_of(path))]


def test_the_pure_modules_exist():
    assert {name for name in PURE if not any(name_of(path).startswith(name) for path in MODULES)} == set()


@pytest.mark.parametrize("path", PURE_MODULES, ids=name_of)
def test_pure_modules_touch_nothing(path):
    impure = {top_of(module) for module, only_types in imports_of(path) if not only_types} & IMPURE
    assert {module for module in impure if (name_of(path), module) not in PURE_BUT} == set()


@pytest.mark.parametrize("path", PURE_MODULES, ids=name_of)
def test_pure_modules_import_only_pure_modules_of_ours(path):
    assert {
        there for there, only_types in own_imports_of(path) if not only_types and not is_pure(there)
    } == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_named_after_its_subject(path):
    assert not any(VAGUE.search(part) for part in name_of(path).split("."))


def loaded_by(program, *argv):
    """The top-level modules that are loaded in a bare interpreter after *program*."""
    script = f"{program}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-I", "-S", "-c", script, *argv]
    return set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


PATH = [str(PACKAGE.parent), *filter(None, sys.path)]


def test_importing_pycontain_loads_nothing_heavy():
    program = "import sys; sys.path += sys.argv[1:]; import pycontain"
    assert loaded_by(program, *PATH) & NOT_FOR_IMPORT == set()


def test_the_zygote_stays_small():
    """What the engine has its interpreter do, up to the call of main(), and what that imports."""
    program = engine._PROGRAM.rpartition("main(")[0] + "import pycontain.runtime.zygote"
    assert loaded_by(program, "root", "/nonexistent", *PATH) & NOT_FOR_THE_ZYGOTE == set()


def test_the_pytest_plugin_loads_nothing_of_ours_until_it_is_used():
    """Whoever has pycontain installed pays for it in every run of pytest."""
    program = (
        "import sys; sys.path += sys.argv[1:]; import pytest; before = set(sys.modules); "
        "import pycontain.pytest_plugin; print(*set(sys.modules) - before); sys.exit()"
    )
    command = [sys.executable, "-I", "-S", "-c", program, *PATH]
    loaded = set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert loaded == {"pycontain", "pycontain.pytest_plugin"}


@pytest.mark.parametrize("name", ["aio", "errors", "testing"])
def test_a_module_of_the_interface_needs_no_import_of_its_own(name):
    """``import pycontain`` is enough for ``except pycontain.errors.CommandFailed``."""
    script = f"import pycontain; print(pycontain.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"pycontain.{name}\n"


def test_every_name_of_the_interface_is_there():
    missing = [name for name in pycontain.__all__ if not hasattr(pycontain, name)]
    assert not missing
