"""The pytest plugin, by the reports of runs of its own: each with a few tests that are meant to fail."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest
from owners import comes_true, marked, new_mark

import pycontain

ROOT = Path(pycontain.__file__).parents[1]


@attrs.frozen
class Report:
    """What a run of pytest has printed."""

    status: int
    text: str

    def of(self, test):
        """What it says of one test that failed, or whose fixture did."""
        found = re.search(
            rf"^_+ (?:ERROR at setup of )?{test} _+\n(.*?)(?=^_+ [\w ]+ _+$|^=+ )",
            self.text,
            re.MULTILINE | re.DOTALL,
        )
        assert found, self.text
        return found[1]


def run_pytest(folder, source, *arguments, program=("-m", "pytest")):
    """Run the tests of *source* in *folder* by a pytest of their own."""
    (folder / "test_it.py").write_text(textwrap.dedent(source))
    done = subprocess.run(
        [
            sys.executable,
            *program,
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",  # half a second
            "--rootdir",
            folder,
            *arguments,
            "test_it.py",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return Report(done.returncode, done.stdout)


SUITE = r"""
import pytest
from pycontain import Container
from pycontain.errors import CommandNotFound
from pycontain.testing import ContainerFactory

BOX = Container("host:").name("box")
SAY = ("sh", "-c", "while read words; do echo said $words; done")
kept = []

def say(running, words):
    running.stdin.write(words.encode() + b"\n")
    running.stdin.flush()
    running.wait_for(log=words)

@pytest.fixture(scope="module")
def shared(module_container):
    return module_container(BOX.name("shared"), *SAY, stdin=-1)

@pytest.fixture
def broken(container):
    return container(BOX, "sh", "-c", "echo no room >&2; exit 3").wait_for(port=5432)

def test_passes(container):
    assert isinstance(container, ContainerFactory)
    kept.append(container("host:", "sh", "-c", "echo a secret of who passes; sleep 1000").wait_for(log="passes"))
    assert kept[0].status == "running"

def test_it_has_ended(container):
    assert kept[0].status == "exited"

def test_fails(container):
    container(BOX, "sh", "-c", "echo one; echo two >&2; sleep 1000").wait_for(log="two")
    container(BOX.name("other"), "sleep", "1000")
    assert False

def test_hostile(container):
    container(BOX, "printf", r"\033[31mred\033[0m \033[2J \302\233 \a\n").wait()
    assert False

def test_long(container):
    container(BOX, "seq", "1000").wait()
    assert False

def test_fixture_fails(broken):
    pass

def test_cannot_be_executed(container):
    container(BOX, "pyhton")

def test_error_that_is_expected(container):
    with pytest.raises(CommandNotFound):
        container(BOX, "pyhton")

def test_speaks(shared):
    say(shared, "before")

def test_sees_its_own(shared):
    say(shared, "after")
    assert False

def test_does_not_use_it():
    assert False

def test_nothing_was_printed(shared):
    assert False

class TestOfAClass:
    def test_first(self, class_container, session_container):
        kept[:] = class_container(BOX, "sleep", "1000"), session_container(BOX, "sleep", "1000")

    def test_second(self):
        assert [running.status for running in kept] == ["running", "running"]

def test_after_the_class():
    assert [running.status for running in kept] == ["exited", "running"]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return run_pytest(tmp_path_factory.mktemp("suite"), SUITE, "--strict-config", "--strict-markers")


def test_containers_end_with_what_they_were_started_for(suite):
    wanted = {
        "test_fails",
        "test_hostile",
        "test_long",
        "test_cannot_be_executed",
        "test_sees_its_own",
        "test_does_not_use_it",
        "test_nothing_was_printed",
    }
    assert set(re.findall(r"^FAILED test_it.py::(\w+)", suite.text, re.MULTILINE)) == wanted
    assert "7 failed, 7 passed, 1 error" in suite.text


def test_the_report_of_a_failed_test_has_the_output_of_each_container(suite):
    first, second = re.findall(
        r"^-+ (container .*?) -+\n((?:(?!---).*\n)*)", suite.of("test_fails"), re.MULTILINE
    )
    assert (first[0], sorted(first[1].split())) == ("container box, host:, running", ["one", "two"])
    assert second[0] == "container other, host:, running"


def test_nothing_is_shown_of_a_test_that_passes(suite):
    assert "a secret of who passes" not in suite.text


def test_output_does_not_drive_the_terminal(suite):
    assert "container box, host:, exit code 0" in suite.of("test_hostile")
    assert r"red \x1b[2J \x9b \x07" in suite.of("test_hostile")
    assert not set(suite.text) & set("\x1b\x9b\a")


def test_of_long_output_the_end_is_shown(suite):
    assert re.findall(r"^\d+$", suite.of("test_long"), re.MULTILINE) == [
        str(number) for number in range(951, 1001)
    ]


def test_a_fixture_that_fails_is_reported_too(suite):
    said = suite.of("test_fixture_fails")
    assert "CommandFailed: box ended with exit code 3 before there was port 5432" in said
    assert "container box, host:, exit code 3" in said


def test_an_error_of_ours_is_shown_without_our_insides(suite):
    assert str(ROOT) not in suite.text
    said = suite.of("test_cannot_be_executed")
    assert "E       pycontain.errors.CommandNotFound: pyhton is not in the PATH of the container\n" in said
    assert said.count("\n") < 15


def test_of_a_container_for_several_tests_what_came_during_this_one_is_shown(suite):
    assert "said after" in suite.of("test_sees_its_own")
    assert "said before" not in suite.text
    assert "container shared" not in suite.of("test_nothing_was_printed")


def test_a_test_without_containers_is_reported_as_ever(suite):
    assert "container" not in suite.of("test_does_not_use_it")


UNSUPPORTED = """
from pycontain import Container

def test_unsupported(container):
    container(Container("host:").limits(hugetlb={"128k": "4M"}), "true")
"""


def test_what_the_host_cannot_do_fails(tmp_path):
    report = run_pytest(tmp_path, UNSUPPORTED)
    assert "1 failed" in report.text
    assert "HostUnsupported: " in report.of("test_unsupported")


def test_what_the_host_cannot_do_is_skipped_when_that_is_wanted(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\ncontainer_unsupported = skip\n")
    report = run_pytest(tmp_path, UNSUPPORTED, "-rs")
    assert "1 skipped" in report.text
    assert re.search(r"^SKIPPED \[1\] test_it.py:5: no container here: ", report.text, re.MULTILINE)


def test_a_setting_that_is_none_is_refused(tmp_path):
    report = run_pytest(tmp_path, "def test_nothing(): pass", "-o", "container_unsupported=perhaps")
    assert (report.status, report.text) == (
        pytest.ExitCode.USAGE_ERROR,
        "ERROR: container_unsupported = perhaps: it is fail or skip\n\n",
    )


def test_a_test_that_hangs_leaves_nothing(tmp_path):
    """The thread of pytest-timeout ends the process on the spot, so no fixture is torn down: the kernel cleans."""
    mark = new_mark()
    source = f"""
    import threading
    def test_hangs(container):
        container("host:", "sleep", "{mark}")
        threading.Event().wait()
    """
    report = run_pytest(tmp_path, source, "--timeout=0.7", "--timeout-method=thread")
    assert "Timeout" in report.text
    assert comes_true(lambda: marked(mark) == [])


def test_pytest_may_run_where_we_are_imported_already(tmp_path):
    """As it does for every installed package with a plugin, it has assertions of ours in mind."""
    source = "import pytest\ndef test_it(): pytest.register_assert_rewrite('pycontain')"
    program = "import sys, pycontain, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    report = run_pytest(tmp_path, source, program=("-c", program))
    assert (report.status, "1 passed" in report.text) == (0, True)


def test_each_worker_of_a_parallel_run_owns_its_containers(tmp_path):
    pytest.importorskip("xdist")
    source = """
    import os, pytest
    @pytest.fixture(scope="session")
    def shared(session_container):
        return session_container("host:", "sh", "-c", "echo from a worker; sleep 1000").wait_for(log="worker")
    @pytest.mark.parametrize("number", range(4))
    def test_both(shared, number):
        assert shared.exec("true").ok
        assert number < 3
    """
    report = run_pytest(tmp_path, source, "-n2")
    assert "1 failed, 3 passed" in report.text
    assert "2 workers" in report.text
