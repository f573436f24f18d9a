"""What the docs show is so: their Python runs, their commands print what is printed, docstrings' examples hold.

The ``python`` blocks of one file run in order, in one namespace, as one program in an empty folder. Of ``console``
blocks the commands ``$ python -m pycontain ...`` run; output that follows is compared, where ``...`` or ``…`` stands
for anything and white space does not count. A block is left out by a reason in its first line::

    ```python no-run: needs a registry
"""

import doctest
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest

import pycontain

ROOT = Path(__file__).parent.parent
PACKAGE = Path(pycontain.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ (?P<command>(?:.*\\\n)*.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

RUN_BLOCKS = """
namespace = {"__name__": "__main__"}
for source, line in blocks:
    exec(compile("\\n" * line + source, page, "exec"), namespace)
"""
RUN_DOCTESTS = (
    "import doctest, importlib, sys; sys.exit(doctest.testmod(importlib.import_module(sys.argv[1]))[0])"
)


@attrs.frozen
class Block:
    """A fenced block: its text, and the number of the line before it."""

    source: str
    line: int


def blocks_of(page, language):
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        left_out, _, reason = found["options"].strip().partition(":")
        if found["language"] == language and left_out == "no-run":
            assert reason, f"{page}: a block that is not run needs a reason, as in ```{language} no-run: why"
        elif found["language"] == language:
            yield Block(textwrap.dedent(found["body"]), text.count("\n", 0, found.start("body")))


def commands():
    """``(where, command, output)`` for each command of ours in the pages."""
    for page in PAGES:
        for block in blocks_of(page, "console"):
            for found in COMMAND.finditer(block.source):
                if found["command"].startswith("python -m pycontain"):
                    yield f"{page.relative_to(ROOT)}:{block.line}", found["command"], found["output"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """For programs that make containers, with a state folder of their own; a host that cannot make them skips."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYCONTAIN_STATE": str(tmp_path_factory.mktemp("state")),
        "PYCONTAIN_VOLUMES": str(tmp_path_factory.mktemp("volumes")),
    }
    trial = run([sys.executable, "-c", "import pycontain; pycontain.prewarm()"], environment)
    if "HostUnsupported" in trial.stdout:
        pytest.skip(trial.stdout.strip().splitlines()[-1])
    return environment


def run(command, environment, cwd=None):
    """Run with standard output and error as one, as they are seen on a terminal."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=environment, cwd=cwd, check=False, text=True, timeout=300, **streams)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if list(blocks_of(page, "python"))], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page, environment, tmp_path):
    blocks = [attrs.astuple(block) for block in blocks_of(page, "python")]
    script = f"blocks = {blocks!r}\npage = {str(page)!r}\n{RUN_BLOCKS}"
    done = run([sys.executable, "-W", "error", "-c", script], environment, tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("where", "command", "output"), list(commands()))
def test_a_command_prints_what_the_page_shows(where, command, output, environment, tmp_path):
    done = run(["sh", "-c", command], environment, tmp_path)
    if not output.strip():
        assert done.returncode == 0, done.stdout
        return
    wanted = output.replace("…", "...")
    assert doctest.OutputChecker().check_output(wanted, done.stdout, LOOSELY), (
        f"{where} printed\n{done.stdout}"
    )


def modules_with_examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("module", list(modules_with_examples()))
def test_the_examples_in_docstrings_hold(module, environment, tmp_path):
    done = run([sys.executable, "-W", "error", "-c", RUN_DOCTESTS, module], environment, tmp_path)
    assert done.returncode == 0, done.stdout
