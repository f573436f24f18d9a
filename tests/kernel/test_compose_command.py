"""``python -m pycontain compose`` as a shell sees it."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
import yaml

from pycontain.__main__ import main

CLI = (sys.executable, "-m", "pycontain", "compose")
LOOP = "trap 'echo ended; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
FILE = """
name: p
x-alone: &alone {image: "host:", network_mode: none}
services:
  loop: {<<: *alone, command: [sh, -c, $LOOP]}
  work: {<<: *alone, command: [sh, -c, "echo out $$A; echo err >&2; exit ${STATUS:-0}"], environment: {A: "1"}}
  late: {<<: *alone, command: "echo late", depends_on: {work: {condition: service_completed_successfully}}}
  debug: {<<: *alone, command: "echo debug", profiles: [debug]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "compose.yaml").write_text(FILE)
    (tmp_path / ".env").write_text(f'LOOP="{LOOP}"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def running(*words, **streams):
    """``up``, which is killed when its test gives up."""
    with subprocess.Popen([*CLI, "up", *words], stdout=subprocess.PIPE, **streams) as up:
        try:
            yield up
        finally:
            if up.poll() is None:
                up.kill()


def compose(*words, **environment):
    return subprocess.run(
        [*CLI, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture
def here(capfd, monkeypatch):
    """The same in this process, for what starts nothing: ``(status, stdout, stderr)``."""

    def called(*words, **environment):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            status = main(["compose", *words])
        return status, *capfd.readouterr()

    return called


def test_up_shows_what_is_printed_and_ends_with_the_last():
    done = compose("up", "work", "late")
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["late  | late", "work  | out 1"])
    assert "work  | err\n" in done.stderr


def test_what_failed_is_said_and_all_ends():
    done = compose("up", "loop", "late", STATUS="3")
    assert done.returncode == 125
    assert (
        "the service work ended with exit code 3, and late waits for its success\n  it printed last:\n  err"
        in done.stderr
    )


def test_all_ends_with_one_whose_status_is_taken():
    done = compose("up", "--exit-code-from", "work", "loop", "work", STATUS="5")
    assert done.returncode == 5
    assert done.stderr.endswith("pycontain: work ended with exit code 5\npycontain: stopping\n")


def test_all_ends_with_the_first_that_ends():
    done = compose("up", "--abort-on-container-exit", "--no-log-prefix", "loop", "work", STATUS="4")
    assert done.returncode == 4
    assert "out 1\n" in done.stdout


def test_ctrl_c_stops_in_order_and_a_second_one_kills(folder):
    for script, signals, wanted in ((LOOP, 1, "loop  | ended\n"), (DEAF, 2, "")):
        (folder / ".env").write_text(f'LOOP="{script}"\n')
        with running("loop", stderr=subprocess.PIPE, text=True) as up:
            assert up.stdout.readline() == "loop  | ready\n"
            up.send_signal(signal.SIGINT)
            assert up.stderr.readline() == "pycontain: stopping\n"
            if signals == 2:
                up.send_signal(signal.SIGINT)
            assert up.stdout.read() == wanted
            assert up.wait(20) == 130


def test_a_reader_that_leaves_ends_all(folder):
    (folder / ".env").write_text("LOOP=yes\n")
    with running("-t", "0", "loop", stderr=subprocess.DEVNULL) as up:
        up.stdout.read(10)
        up.stdout.close()
        assert up.wait(20) == 128 + signal.SIGTERM


def test_scale_gives_labels():
    done = compose("up", "--scale", "work=2", "work")
    assert sorted(done.stdout.splitlines()) == ["work-1 | out 1", "work-2 | out 1"]


def test_config_prints_the_project(here):
    found = yaml.safe_load(here("config")[1])
    assert found == json.loads(here("config", "--format", "json")[1])
    assert (found["name"], found["services"]["late"]["command"]) == ("p", ["echo", "late"])


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--services", "loop\nwork\nlate\n"),
        ("--images", "host:\n"),
        ("--profiles", "debug\n"),
        ("--volumes", ""),
    ],
)
def test_config_prints_names(here, option, wanted):
    assert here("config", option) == (0, wanted, "")


def test_profiles_are_chosen_by_options_and_environment(here):
    by_option = here("--profile", "debug", "config", "--services")
    by_environment = here("config", "--services", COMPOSE_PROFILES="debug")
    assert by_option == by_environment == (0, "loop\nwork\nlate\ndebug\n", "")


def test_files_and_a_name_are_chosen(folder, here):
    (folder / "over.yaml").write_text("services: {work: {command: 'true'}}")
    found = json.loads(
        here("-f", "compose.yaml", "-f", "over.yaml", "-p", "other", "config", "--format", "json")[1]
    )
    assert (found["name"], found["services"]["work"]["command"]) == ("other", ["true"])


def test_a_file_is_read_from_standard_input():
    done = subprocess.run(
        [*CLI, "-f", "-", "config", "--services"],
        input=FILE,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "loop\nwork\nlate\n"


def test_run_exits_as_its_command_does():
    done = compose("run", "-e", "B=2", "-w", "/tmp", "work", "sh", "-c", "echo $A $B $(pwd); exit 9")
    assert (done.returncode, done.stdout) == (9, "1 2 /tmp\n")


def test_run_starts_what_the_service_waits_for():
    assert compose("run", "late", STATUS="3").returncode == 125
    assert compose("run", "--no-deps", "late", STATUS="3").stdout == "late\n"


def test_run_passes_input_on():
    done = subprocess.run(
        [*CLI, "run", "--entrypoint", "cat", "work"],
        input="hello",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "hello"


def test_run_has_a_terminal_where_there_is_one():
    leader, follower = pty.openpty()
    with open(leader, "rb", buffering=0) as screen:
        command = [*CLI, "run", "work", "sh", "-c", "tty; exit 3"]
        process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
        os.close(follower)
        assert process.wait(60) == 3
        assert screen.read(100) == b"/dev/pts/0\r\n"


def test_all_problems_are_printed_with_their_lines(folder, here):
    (folder / "compose.yaml").write_text("services:\n  a:\n    imge: x\n    volumes: x\n    restart: often\n")
    status, _, complaint = here("up")
    assert status == 125
    assert complaint.startswith("pycontain: the project is wrong in 4 places\n  ")
    assert "compose.yaml:3: services.a.imge: there is no such key, did you mean image?" in complaint
    assert "compose.yaml:5: services.a.restart: 'often' is no policy" in complaint


@pytest.mark.parametrize("verb", ["down", "ps", "exec", "logs"])
def test_a_verb_that_needs_a_daemon_says_so(here, verb):
    status, _, complaint = here(verb)
    assert (status, f"there is no compose {verb} without a daemon" in complaint) == (125, True)


def test_nothing_runs_in_the_background(here):
    assert "leave -d out" in here("up", "-d")[2]
