"""Waiting until what runs is ready, and health checks."""

import gc
import re
import threading

import attrs
import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import CommandFailed, CommandNotFound, InvalidSpec, NotReady
from pycontain.image import runnable
from pycontain.image.runnable import with_parameters
from pycontain.oci.config import ExecutionParameters, Healthcheck
from pycontain.process.health import command_of
from pycontain.sandbox.image import RunnableImage
from pycontain.sandbox.spec import Rootfs

HOST = Container("host:")
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(503 if Handler.asked < 3 else 204 if self.path == '/ready?x=1' else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(('127.0.0.1', 8000), Handler).serve_forever()
"""


def start(script, container=HOST):
    return container.start("sh", "-c", script)


# --- what may be waited for -------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["ready", re.compile("^rea.y$")])
def test_a_line(wanted):
    with start("echo starting; sleep 0.05; echo ready >&2; sleep 1000") as running:
        assert running.wait_for(log=wanted) is running
        assert running.wait_for(log="starting") is running  # it was printed before
        assert running.status == "running"


def test_a_line_that_is_not_ended_yet_does_not_count():
    with start("printf rea; sleep 0.1; echo dy; sleep 1000") as running:
        running.wait_for(log="ready")


def test_a_file():
    with start("sleep 0.05; touch /tmp/ready; sleep 1000") as running:
        running.wait_for(file="/tmp/ready")


@pytest.mark.parametrize("command", ["test -e /tmp/ready", ("test", "-e", "/tmp/ready")])
def test_a_command(command):
    with start("sleep 0.05; touch /tmp/ready; sleep 1000") as running:
        running.wait_for(command=command)


def test_a_port_and_a_server_without_any_network():
    with HOST.start("python3", "-c", SERVER) as running:
        running.wait_for(port=8000)
        running.wait_for(http="http://localhost:8000/ready?x=1")
        running.wait_for(port=8000, http="/ready?x=1")
        with pytest.raises(NotReady, match=re.escape("an answer of http://127.0.0.1:8000/other")):
            running.wait_for(port=8000, http="/other", timeout=0.2)


def test_a_server_that_never_answers():
    listener = "import socket; s = socket.create_server(('127.0.0.1', 8000)); print('up', flush=True)\nwhile True: s.accept()[0].send(b'H')"
    with HOST.start("python3", "-c", listener) as running:
        running.wait_for(log="up", port=8000)
        with pytest.raises(NotReady):
            running.wait_for(port=8000, http="/", timeout=0.2)


def test_several_conditions_must_all_hold():
    with start("echo ready; sleep 1000") as running, pytest.raises(NotReady) as caught:
        running.wait_for(log="ready", file="/nothing", timeout=0.1)
    assert caught.value.waited_for == "the file /nothing"


# --- when it does not come ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ({"log": "never"}, "a line with 'never'"),
        ({"file": "/never"}, "the file /never"),
        ({"port": 1}, "port 1"),
        ({"command": "false"}, "success of '/bin/sh -c false'"),
        ({"command": ("sleep", "1000")}, "success of 'sleep 1000'"),
    ],
)
def test_the_time_is_up(condition, named):
    with start("echo words; sleep 1000") as running:
        running.wait_for(log="words")
        with pytest.raises(TimeoutError, match=re.escape(named)) as caught:
            running.wait_for(**condition, timeout=0.1)
        assert isinstance(caught.value, NotReady)
        assert caught.value.waited_for == named
        assert "words" in caught.value.__notes__[0]
        assert running.status == "running"


@pytest.mark.parametrize(
    "condition",
    [{"log": "never"}, {"file": "/never"}, {"port": 1}, {"port": 1, "http": "/"}, {"command": "false"}],
)
def test_it_fails_at_once_when_the_container_ends(condition):
    with start("echo last words >&2; exit 3") as running:
        with pytest.raises(CommandFailed, match="exit code 3 before there was") as caught:
            running.wait_for(**condition, timeout=1000)
        assert caught.value.result.exit_code == 3
        assert "last words" in caught.value.__notes__[0]


def test_a_payload_that_ends_while_it_is_waited_for():
    with start("sleep 0.1; exit 4") as running, pytest.raises(CommandFailed, match="exit code 4"):
        running.wait_for(command=("sleep", "1000"))


def test_what_was_said_before_the_end_is_enough():
    with start("echo ready") as running:
        running.wait()
        running.wait_for(log="ready")


def test_a_missing_command_is_named_at_once():
    with start("sleep 1000") as running, pytest.raises(CommandNotFound):
        running.wait_for(command=("nothing-here",))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"timeout": -1, "port": 1},
        {"http": "/path"},
        {"http": "ftp://x"},
        {"http": "http://a b"},
        {"healthy": True},
    ],
)
def test_wrong_arguments_are_refused(wrong):
    with start("sleep 1000") as running, pytest.raises(InvalidSpec):
        running.wait_for(**wrong)


def test_many_threads_wait_for_one():
    with start("sleep 0.1; echo ready; sleep 1000") as running:
        threads = [threading.Thread(target=running.wait_for, kwargs={"log": "ready"}) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


# --- health -----------------------------------------------------------------------------------------------


def test_without_a_check_there_is_no_health():
    with start("sleep 1000") as running:
        assert running.health.status == "none"
    with start("sleep 1000", HOST.health()) as running:
        assert str(running.health) == "none"


def test_it_becomes_healthy():
    box = HOST.health("test -e /tmp/well && echo fine", start_interval=0.02)
    with start("sleep 0.1; touch /tmp/well; sleep 1000", box) as running:
        assert running.health.status == "starting"
        running.wait_for(healthy=True)
        health = running.health
        assert (health.status, health.failures, health.last.stdout) == ("healthy", 0, "fine\n")


def test_it_becomes_unhealthy_and_well_again():
    box = HOST.health("test", "-e", "/tmp/well", interval=0.02, retries=2)
    with start("sleep 1000", box) as running:
        with pytest.raises(NotReady, match="unhealthy: 2 probes"):
            running.wait_for(healthy=True)
        assert running.health.failures >= 2
        running.files.write_text("/tmp/well", "")
        assert comes_true(lambda: running.health.status == "healthy")
        running.files.remove("/tmp/well")
        assert comes_true(lambda: running.health.status == "unhealthy")


def test_failures_do_not_count_in_the_beginning():
    box = HOST.health("false", interval=0.02, retries=1, start_period=1000)
    with start("sleep 1000", box) as running:
        with pytest.raises(NotReady):
            running.wait_for(healthy=True, timeout=0.2)
        assert (running.health.status, running.health.failures) == ("starting", 0)
        assert running.health.last.exit_code == 1


def test_probes_that_come_sooner_than_the_interval_count_once():
    box = HOST.health("echo x >> /tmp/probes; false", interval=1000, start_interval=0.01, retries=3)
    with start("sleep 1000", box) as running:
        assert running.health.status == "starting"
        assert comes_true(lambda: running.exec("sh", "-c", "wc -l < /tmp/probes").stdout.strip() > "4")
        assert (running.health.status, running.health.failures) == ("starting", 1)


def test_a_probe_that_takes_too_long_has_failed_and_is_killed():
    mark = new_mark()
    box = HOST.health(f"echo slow; sleep {mark}", interval=1000, timeout=0.5, retries=1)
    with start("sleep 1000", box) as running:
        with pytest.raises(NotReady) as caught:
            running.wait_for(healthy=True)
        assert "slow" in caught.value.__notes__[0]
        assert running.health.last.timed_out
        assert marked(mark) == []


def test_a_probe_that_cannot_be_executed_has_failed():
    with start("sleep 1000", HOST.health("nothing", "here", interval=0.02, retries=1)) as running:
        with pytest.raises(NotReady, match="unhealthy") as caught:
            running.wait_for(healthy=True)
        assert "could not be executed" in caught.value.__notes__[0]


def test_a_container_that_ends_is_not_waited_for():
    box = HOST.health("false", start_period=1000)
    with start("sleep 0.1; exit 5", box) as running, pytest.raises(CommandFailed, match="exit code 5"):
        running.wait_for(healthy=True)


def test_probes_end_with_the_container_and_with_who_refers_to_it():
    def probing():
        return [thread for thread in threading.enumerate() if thread.name == "pycontain-health"]

    mark = new_mark()
    box = HOST.health("true", interval=0.02)
    with start("sleep 1000", box) as running:
        running.wait_for(healthy=True)
        assert len(probing()) == 1
    assert comes_true(lambda: not probing())
    running = box.start("sleep", mark)
    running.wait_for(healthy=True)
    del running
    gc.collect()
    assert comes_true(lambda: not marked(mark))
    assert comes_true(lambda: not probing())


def test_the_check_of_an_image_is_known():
    check = Healthcheck(("CMD", "true"))
    assert with_parameters(RunnableImage(Rootfs(())), ExecutionParameters(healthcheck=check)).health == check


def test_the_check_of_an_image_counts_unless_the_container_has_its_own(monkeypatch):
    plain = HOST._prepare(("true",)).compiled.image
    checked = attrs.evolve(plain, health=Healthcheck(("CMD", "true")))
    monkeypatch.setattr(runnable, "runnable", lambda *_, **__: checked)
    with start("sleep 1000") as running:
        running.wait_for(healthy=True)
        assert running.health.status == "healthy"
    with start("sleep 1000", HOST.health()) as running:
        assert running.health.status == "none"


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        ((), ()),
        (("NONE",), ()),
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a b"), ("/bin/sh", "-c", "a b")),
    ],
)
def test_the_words_of_an_image(test, argv):
    assert command_of(Healthcheck(test)) == argv


def test_wrong_checks_are_refused():
    with pytest.raises(InvalidSpec) as caught:
        HOST.health("true", interval=-1, timeout="5", retries=0)
    assert len(caught.value.problems) == 3
