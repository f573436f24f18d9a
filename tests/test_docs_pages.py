"""The pages of the documentation hold together: what they say is printed is printed, programs equal pages, links lead somewhere.

In a page, ``print(x)  # text`` says what that line prints, and a block that begins with ```` ```text printed ```` what
the block above it does; ``...`` or ``…`` stands for anything, and white space does not count.

To write the latter anew after a change that is wanted::

    PYCONTAIN_GOLDEN=write python -m pytest tests/test_docs_pages.py && git diff docs
"""

import doctest
import os
import re
import sys

import pytest
from test_docs_run import FENCE, LOOSELY, PAGES, ROOT, blocks_of, environment, run  # noqa: F401 - environment is a fixture

SAID = re.compile(r"^ *print\(.*\) +# (?P<said>.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)#\s]*)(?:#(?P<place>[^)\s]*))?\)")
MARK = "\x1f"  # ASCII's unit separator, between what two blocks print
TUTORIALS = sorted((ROOT / "docs" / "tutorial").glob("*.py"))


def said_in(page):
    """What *page* says that its Python prints, in order."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        if found["language"] == "text" and found["options"].strip() == "printed":
            yield found["body"]
        elif found["language"] == "python" and "no-run" not in found["options"]:
            yield from (line["said"] + "\n" for line in SAID.finditer(found["body"]))


def is_as_said(page, printed):
    """Whether the blocks of *page* have *printed* what it says."""
    wanted = "".join(said_in(page)).replace("…", "...")
    return doctest.OutputChecker().check_output(wanted, "".join(printed), LOOSELY)


def rewritten(page, printed):
    """The text of *page* with each block that shows what the one above it prints as *printed* has it."""
    outputs = [""]

    def replace(found):
        if found["language"] == "python" and "no-run" not in found["options"]:
            outputs.append(printed[len(outputs) - 1])
        elif found["options"].strip() == "printed":
            return f"```text printed\n{outputs[-1]}```"
        return found[0]

    return FENCE.sub(replace, page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if any(said_in(page))], ids=lambda page: page.name)
def test_a_page_says_what_its_python_prints(page, environment, tmp_path):  # noqa: F811 - the fixture
    source = f"\nprint({MARK!r}, end='')\n".join(block.source for block in blocks_of(page, "python"))
    done = run([sys.executable, "-W", "error", "-c", source], environment, tmp_path)
    printed = done.stdout.split(MARK)
    as_said = is_as_said(page, printed)
    if not as_said and os.environ.get("PYCONTAIN_GOLDEN") == "write":
        page.write_text(rewritten(page, printed), encoding="utf-8")
        as_said = is_as_said(page, printed)
    assert as_said, "".join(printed)


@pytest.mark.parametrize("program", TUTORIALS, ids=lambda path: path.name)
def test_a_tutorial_is_the_program_beside_it(program):
    """The page's blocks in order are the file but for empty lines, so that who reads one has the other."""
    page = program.with_name(program.stem.removeprefix("test_").replace("_", "-") + ".md")
    blocks = "\n".join(block.source for block in blocks_of(page, "python"))
    lines = (text.split("\n") for text in (program.read_text(encoding="utf-8"), blocks))
    assert len({tuple(filter(None, text)) for text in lines}) == 1


@pytest.mark.parametrize(
    "program", [path for path in TUTORIALS if path.name.startswith("test_")], ids=lambda path: path.name
)
def test_a_tutorial_that_is_a_test_passes(program, environment, tmp_path):  # noqa: F811 - the fixture
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, program]
    done = run(command, environment, tmp_path)
    assert done.returncode == 0, done.stdout


def headings_of(page):
    """The anchors of *page*, as GitHub makes them."""
    for line in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    broken = []
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / link["target"]).resolve() if link["target"] else page
        if link["target"].startswith(("http:", "https:")):
            continue
        if not target.exists() or (link["place"] and link["place"] not in headings_of(target)):
            broken.append(link[0])
    assert broken == []


def test_every_page_can_be_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = (page.relative_to(ROOT / "docs") for page in PAGES if page.parent != ROOT)
    assert [str(page) for page in pages if f"({page})" not in index and page.name != "index.md"] == []
