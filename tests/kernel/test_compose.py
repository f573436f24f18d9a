"""Several services together: their order, what they wait for, what they print, and how they end."""

import json
import os
import signal
import threading
import urllib.request

import pytest
from owners import comes_true, marked, new_mark, run_owner, start_owner
from test_network_private import BEGIN, without_pasta
from worlds import World, nobody

import pycontain
from pycontain import Container, Project
from pycontain.errors import InvalidProject, InvalidSpec, NotReady, ServiceFailed, VolumeNotFound

ALONE = {"image": "host:", "network_mode": "none"}
SLEEP = {**ALONE, "command": ["sleep", "1000"]}


def shell(script, **more):
    return {**ALONE, "command": ["sh", "-c", script], **more}


def after(name, condition):
    return {"depends_on": {name: {"condition": condition}}}


def project(**services):
    return Project(services, name="p")


# --- order ----------------------------------------------------------------------------------------------


def test_services_start_after_those_that_they_wait_for():
    order = []
    with project(c={**SLEEP, "depends_on": ["b"]}, b={**SLEEP, "depends_on": ["a"]}, a=SLEEP).up(
        started=lambda label, _: order.append(label)
    ) as running:
        assert order == ["a", "b", "c"]
        assert {each.status for each in running.containers.values()} == {"running"}


def test_who_waits_for_health_starts_when_it_is_there(tmp_path):
    """The check looks for a file that the service makes last; who waits reads it at once."""
    shared = {"volumes": [f"{tmp_path}:/shared"]}
    with project(
        db=shell(
            "sleep 0.1; touch /shared/ready; sleep 1000",
            healthcheck={"test": "test -e /shared/ready", "start_interval": "20ms"},
            **shared,
        ),
        app=shell("ls /shared", **shared, **after("db", "service_healthy")),
    ).up() as running:
        assert running.wait("app")["app"].stdout == "ready\n"


def test_who_waits_for_completion_starts_after_it(tmp_path):
    shared = {"volumes": [f"{tmp_path}:/shared"]}
    with project(
        setup=shell("sleep 0.1; touch /shared/done", **shared),
        app=shell("ls /shared", **shared, **after("setup", "service_completed_successfully")),
    ).up() as running:
        assert {label: done.stdout for label, done in running.wait().items()} == {
            "setup": "",
            "app": "done\n",
        }


def test_what_nothing_connects_starts_at_the_same_time():
    """Each waits, in the start of its container, until the other one starts too."""
    both = threading.Barrier(2, timeout=20)
    with project(a=SLEEP, b=SLEEP).up(started=lambda *_: both.wait()) as running:
        assert set(running) == {"a", "b"}


def test_up_waits_for_health_unless_it_is_told_not_to():
    never = {**SLEEP, "healthcheck": {"test": "false", "interval": "1000s"}}
    with project(a=never).up(wait=False) as running:
        assert running["a"].status == "running"
    with pytest.raises(NotReady, match=r"not up within 0\.2 s: a is not healthy yet"):
        project(a=never).up(timeout=0.2)


def test_only_what_is_named_and_what_it_needs_is_started():
    with project(a=SLEEP, b={**SLEEP, "depends_on": ["a"]}, c=SLEEP).up("b") as running:
        assert set(running) == {"a", "b"}


# --- failures -------------------------------------------------------------------------------------------


def test_a_failed_dependency_ends_all_with_what_it_printed():
    mark = new_mark()
    with pytest.raises(
        ServiceFailed, match="the service setup ended with exit code 3, and app waits"
    ) as caught:
        project(
            other={**ALONE, "command": ["sleep", mark]},
            setup=shell("echo so it goes >&2; exit 3"),
            app={**SLEEP, **after("setup", "service_completed_successfully")},
        ).up()
    assert (caught.value.service, caught.value.result.exit_code) == ("setup", 3)
    assert caught.value.__notes__ == ["it printed last:\nso it goes"]
    assert comes_true(lambda: not marked(mark))


def test_an_unhealthy_dependency_ends_all():
    with pytest.raises(ServiceFailed, match="p-db-1 is unhealthy: 1 probes in a row have failed") as caught:
        project(
            db={**SLEEP, "healthcheck": {"test": "echo not yet; false", "interval": "0s", "retries": 1}},
            app={**SLEEP, **after("db", "service_healthy")},
        ).up()
    assert "not yet" in caught.value.__notes__[0]


def test_a_program_that_is_not_there_ends_all():
    with pytest.raises(
        ServiceFailed, match="the service app is being started, and failed: nonsense is not in the PATH"
    ):
        project(db=SLEEP, app={**ALONE, "command": "nonsense", "depends_on": ["db"]}).up()


def test_one_failure_among_many_is_told_once():
    broken = {**ALONE, "command": "nonsense"}
    with pytest.raises(ServiceFailed):
        project(a=broken, b=broken, c=broken, d={**SLEEP, "depends_on": ["a"]}).up()


def test_an_interrupt_of_up_leaves_nothing():
    mark = new_mark()

    def interrupt(label, running):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        project(
            a={**ALONE, "command": ["sleep", mark]},
            b={**SLEEP, "healthcheck": {"test": "false", "interval": "1000s"}},
        ).up(started=interrupt)
    assert comes_true(lambda: not marked(mark))


# --- what runs ------------------------------------------------------------------------------------------


def test_lines_of_all_have_their_names():
    with project(a=shell("echo one"), b=shell("echo two >&2")).up() as running:
        assert sorted(map(str, running.lines())) == ["a | one", "b | two"]
        assert sorted(str(line) for line in running.logs("b")) == ["b | two"]


def test_lines_are_left_early():
    with project(a=shell("yes")).up() as running:
        lines = running.lines()
        assert str(next(lines)) == "a | y"
        lines.close()


def test_containers_of_a_scaled_service_have_numbers():
    with project(a={**SLEEP, "scale": 2}, b=SLEEP).up() as running:
        assert {label: each.name for label, each in running.containers.items()} == {
            "a-1": "p-a-1",
            "a-2": "p-a-2",
            "b": "p-b-1",
        }
        assert running.exec("a-2", "hostname").stdout.strip() == running["a-2"].id[:12]


def test_a_service_of_no_containers_is_fine():
    with project(a={**SLEEP, "scale": 0}, b={**SLEEP, "depends_on": ["a"]}).up() as running:
        assert set(running) == {"b"}


def test_a_label_that_there_is_not_is_named():
    with project(a=SLEEP).up() as running, pytest.raises(InvalidSpec, match="no container 'b'"):
        running.exec("b", "true")


def test_stop_ends_who_waits_before_whom_it_waits_for():
    """Each takes a moment to end, so the order of the ends is the order of the stops."""
    script = "trap 'sleep 0.1; date +%s%N; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    services = {name: shell(script) for name in "abc"}
    services["b"] |= {"depends_on": ["a"]}
    services["c"] |= {"depends_on": ["b"]}
    with project(**services).up() as running:
        for each in running.containers.values():
            each.wait_for(log="ready")
        ended = {label: int(done.stdout.split()[1]) for label, done in running.stop().items()}
    assert sorted(ended, key=ended.get) == ["c", "b", "a"]


def test_stop_kills_after_the_grace_period():
    deaf = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done", stop_grace_period="100ms")
    with project(a=deaf).up() as running:
        running["a"].wait_for(log="ready")
        assert running.stop()["a"].signal == signal.SIGKILL


def test_ports_lead_inside():
    service = {**ALONE, "command": "python3 -m http.server 80 --directory /usr/share", "ports": [80]}
    with project(web=service).up() as running:
        running["web"].wait_for(port=80)
        host, port = running["web"].address(80)
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=20) as answer:
            assert answer.status == 200


def test_hooks_run_after_the_start_and_before_the_stop(tmp_path):
    service = {
        **SLEEP,
        "volumes": [f"{tmp_path}:/shared"],
        "post_start": [{"command": ["sh", "-c", "echo $A > /shared/after"], "environment": {"A": "x"}}],
        "pre_stop": [{"command": "touch before", "working_dir": "/shared"}],
    }
    with project(a=service).up() as running:
        assert (tmp_path / "after").read_text() == "x\n"
        running.stop(0)
    assert (tmp_path / "before").exists()


def test_a_hook_that_hangs_holds_up_no_stop():
    with project(
        a={**SLEEP, "pre_stop": [{"command": "sleep 1000"}], "stop_grace_period": "50ms"}
    ).up() as running:
        assert running.stop()["a"].signal == signal.SIGTERM


def test_a_hook_that_fails_ends_all():
    with pytest.raises(ServiceFailed, match="the service a executes false, and failed"):
        project(a={**SLEEP, "post_start": [{"command": "false"}]}).up()


def test_a_service_is_started_again_as_its_policy_says():
    with project(a=shell("echo x; exit 1", restart="on-failure:2")).up() as running:
        assert running.wait("a")["a"].stdout == "x\nx\nx\n"
        assert running["a"].restarts == 2


def test_secrets_configs_and_variables_come_to_their_places(tmp_path):
    (tmp_path / "file").write_text("from a file")
    script = "cat /run/secrets/s /c /etc/d; stat -c ' %a' /run/secrets/s /c; echo $V"
    found = Project(
        {
            "a": shell(
                script, secrets=["s"], configs=["c", {"source": "d", "target": "/etc/d"}], environment=["V"]
            )
        },
        secrets={"s": {"environment": "TOKEN"}},
        configs={"c": {"content": " and content, "}, "d": {"file": "file"}},
        folder=tmp_path,
        environment={"TOKEN": "secret", "V": "variable"},
    )
    with found.up() as running:
        assert running.wait()["a"].stdout == "secret and content, from a file 400\n 444\nvariable\n"


def test_a_secret_that_cannot_be_had_is_named_before_anything_starts():
    found = Project(
        {"a": {**SLEEP, "secrets": ["s", "t"]}}, secrets={"s": {"environment": "X"}, "t": {"file": "/no"}}
    )
    with pytest.raises(
        InvalidProject, match=r"secrets\.s: the variable X is not set; secrets\.t: /no: there is no such file"
    ):
        found.up()


def test_a_named_volume_is_shared_and_outlives_the_project():
    found = Project(
        {
            "write": shell("echo kept > /data/f", volumes=["data:/data"]),
            "read": shell(
                "cat /data/f", volumes=["data:/data:ro"], **after("write", "service_completed_successfully")
            ),
        },
        name="p",
        volumes={"data": {"labels": {"a": "b"}}},
    )
    with found.up() as running:
        assert running.wait("read")["read"].stdout == "kept\n"
    volume = pycontain.Volume.find("p_data")
    try:
        assert volume.labels == {"a": "b"}
    finally:
        volume.remove()


def test_an_external_volume_must_be_there():
    with pytest.raises(VolumeNotFound):
        Project({"a": {**SLEEP, "volumes": ["v:/v"]}}, volumes={"v": {"external": True}}).up()


def test_a_folder_that_is_mounted_is_made(tmp_path):
    with project(a=shell("touch /new/f", volumes=[f"{tmp_path}/new:/new"])).up() as running:
        assert running.wait()["a"].ok
    assert (tmp_path / "new/f").exists()


def test_input_stays_open_where_that_is_asked_for():
    with project(
        a={**ALONE, "command": "cat", "stdin_open": True}, b={**ALONE, "command": "cat"}
    ).up() as running:
        assert running.wait("b")["b"].ok
        running["a"].stdin.write(b"hello\n")
        running["a"].stdin.close()
        assert running.wait("a")["a"].stdout == "hello\n"


def test_a_command_is_run_once_with_what_it_needs(tmp_path):
    shared = {"volumes": [f"{tmp_path}:/shared"]}
    services = {
        "db": shell(
            "touch /shared/ready; sleep 1000",
            healthcheck={"test": "test -e /shared/ready", "start_interval": "20ms"},
            **shared,
        ),
        "app": {**SLEEP, **shared, "environment": {"A": "1"}, **after("db", "service_healthy")},
    }
    done = Project(services).run(
        "app", "sh", "-c", "echo $A$B; ls /shared; cat", input="x", env={"B": "2"}, check=True
    )
    assert done.stdout == "12\nready\nx"


# --- how it ends ----------------------------------------------------------------------------------------


def test_leaving_the_block_ends_everything():
    mark = new_mark()
    with project(a={**ALONE, "command": ["sleep", mark]}, b={**ALONE, "command": ["sleep", mark]}).up():
        assert comes_true(lambda: len(marked(mark)) == 2)
    assert comes_true(lambda: not marked(mark))


def test_a_killed_owner_leaves_no_process_of_any_service(tmp_path):
    code = """
        import os
        from pycontain import Project
        service = {"image": "host:", "network_mode": "none", "command": ["sleep", os.environ["MARK"]]}
        with Project({"a": service, "b": {**service, "depends_on": ["a"]}}).up() as running:
            print("up", flush=True)
            running.wait()
    """
    mark = new_mark()
    with start_owner(code, state=tmp_path, MARK=mark, python=()) as owner:
        up, both = owner.stdout.readline(), comes_true(lambda: len(marked(mark)) == 2)
        owner.kill()
        assert (up, both, owner.stderr.read()) == ("up\n", True, "")
    assert comes_true(lambda: not marked(mark))


# --- networks -------------------------------------------------------------------------------------------

SERVE = "python3 -m http.server 80 --directory /srv"
ASK = (
    "import urllib.request as u; print(u.urlopen('http://web/name').read().decode(),"
    " u.urlopen('http://www/name').read().decode())"
)
NETWORKED = """
from pycontain import Project
project = Project(
    {
        "web": {
            "image": "host:", "command": SERVE, "networks": {"front": {"aliases": ["www"]}},
            "configs": [{"source": "name", "target": "/srv/name"}],
            "healthcheck": {"test": ["CMD", "python3", "-c", "import socket; socket.create_connection(('web', 80))"]},
        },
        "ask": {
            "image": "host:", "command": ["python3", "-c", ASK], "networks": ["front"],
            "depends_on": {"web": {"condition": "service_healthy"}},
        },
        "other": {
            "image": "host:", "networks": ["back"], "depends_on": ["web"],
            "command": ["python3", "-c", "import socket; socket.getaddrinfo('web', 80)"],
        },
    },
    networks={"front": {"internal": True}, "back": {"internal": True}},
    configs={"name": {"content": "found"}},
)
with project.up() as running:
    ended = running.wait("ask", "other")
    address = running.networks["front"].address(running["web"])
    answer = running.run("ask", "python3", "-c", "import socket; print(socket.gethostbyname('web'))").stdout
"""
JUDGED = {"ask": "found found\n", "other": "gaierror", "again": True}
JUDGE = """
judged = {"ask": ended["ask"].stdout, "other": ended["other"].stderr.split()[-8:][0:1], "again": answer == f"{address}\\n"}
judged["other"] = "gaierror" if "gaierror" in ended["other"].stderr else ended["other"].stderr
"""


@pytest.mark.rootless
def test_services_find_each_other_by_name():
    """In an owner of its own: a process keeps what its first network has opened."""
    code = f"import json\nSERVE = {SERVE!r}\nASK = {ASK!r}\n{NETWORKED}{JUDGE}\nprint(json.dumps(judged))"
    status, printed, complaint = run_owner(code)
    assert (status, complaint) == (0, "")
    assert json.loads(printed) == JUDGED


@pytest.mark.root
@pytest.mark.parametrize("who", ["root", "rootless"])
def test_services_find_each_other_by_name_on_hosts_of_our_own(who):
    if who == "rootless" and (without_pasta() or nobody() is None):
        pytest.skip("pasta is not there, or nobody can not read this checkout")
    with World(forwards=who == "root") as world:
        leading_out = NETWORKED.replace('"front": {"internal": True}', '"front": {}')
        code = f"{BEGIN}\nSERVE = {SERVE!r}\nASK = {ASK!r}\n{leading_out}{JUDGE}\nsay(**judged)"
        assert json.loads(world.run(code, uid=nobody() if who == "rootless" else None)) == JUDGED


def test_a_container_of_python_is_a_service():
    box = Container("host:").network("none").env(A="1")
    with Project(
        {"a": {"image": box, "command": ["sh", "-c", "echo $A"], "network_mode": "none"}}
    ).up() as running:
        assert running.wait()["a"].stdout == "1\n"


def test_a_forked_child_does_not_end_the_project():
    code = """
        import os
        from pycontain import Project
        service = {"image": "host:", "network_mode": "none", "command": "sleep 1000"}
        with Project({"a": service}).up() as running:
            pid = os.fork()
            if pid == 0:
                running.close()
                os._exit(0)
            print(os.waitpid(pid, 0)[1], running["a"].status)
    """
    # Since 3.12 Python warns of a fork beside threads, which is what is tried here.
    quiet = ("-W", "ignore::DeprecationWarning")
    assert run_owner(code, python=quiet) == (0, "0 running\n", "")
