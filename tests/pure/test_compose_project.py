"""``Project`` as a value: from files and from Python, its containers, and which services it starts."""

import pytest

from pycontain import Container, Project
from pycontain.errors import InvalidProject, InvalidSpec
from pycontain.oci.config import Healthcheck
from pycontain.sandbox.limits import Limits
from pycontain.sandbox.network import PublishedPort
from pycontain.sandbox.spec import Mount, Tmpfs, VolumeMount

MOST = {
    "image": "host:",
    "environment": {"A": "1"},
    "working_dir": "/src",
    "user": "1000:1000",
    "hostname": "box",
    "domainname": "example.org",
    "labels": ["team=x"],
    "entrypoint": ["python3"],
    "init": True,
    "read_only": True,
    "tty": True,
    "restart": "on-failure:2",
    "stop_signal": "INT",
    "platform": "linux/amd64",
    "pull_policy": "never",
    "cap_drop": ["ALL"],
    "cap_add": ["NET_BIND_SERVICE"],
    "security_opt": ["seccomp=unconfined"],
    "userns_mode": "host",
    "devices": ["/dev/null:/dev/nothing:r"],
    "sysctls": {"net.core.somaxconn": 99},
    "ulimits": {"nofile": {"soft": 10, "hard": 20}},
    "mem_limit": "64m",
    "memswap_limit": "96m",
    "cpus": 0.5,
    "cpu_shares": 512,
    "cpuset": "0",
    "pids_limit": 9,
    "shm_size": "1m",
    "storage_opt": {"size": "2m"},
    "volumes": [
        "./src:/src:ro",
        "data:/data",
        "/own",
        {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 4096}},
    ],
    "configs": [{"source": "c", "target": "/etc/c"}],
    "secrets": ["s"],
    "ports": ["8000:80"],
    "dns": ["192.0.2.1"],
    "extra_hosts": {"db": "192.0.2.2"},
    "network_mode": "none",
    "healthcheck": {"test": ["CMD", "true"], "interval": "2s", "retries": 5},
}


@pytest.fixture
def spec(tmp_path):
    project = Project(
        {"it": MOST},
        name="p",
        folder=tmp_path,
        volumes={"data": None},
        configs={"c": {"content": "x"}},
        secrets={"s": {"environment": "S"}},
    )
    return project.container("it").spec


def test_a_service_becomes_a_container(spec, tmp_path):
    found = (
        (spec.name, spec.env, spec.workdir, spec.user, spec.hostname, spec.labels),
        (spec.entrypoint, spec.init, spec.read_only, spec.tty, spec.restart, spec.stop_signal),
        (spec.platform, spec.pull, spec.seccomp, spec.userns, spec.capabilities),
        (spec.sysctls, spec.rlimits, spec.disk),
    )
    assert found == (
        ("p-it-1", (("A", "1"),), "/src", "1000:1000", "box", (("team", "x"),)),
        (("python3",), True, True, (80, 24), (False, 2), "SIGINT"),
        ("linux/amd64", "never", "unconfined", "host", frozenset({"NET_BIND_SERVICE"})),
        (
            (("net.core.somaxconn", "99"), ("kernel.domainname", "example.org")),
            (("nofile", 10, 20),),
            2 << 20,
        ),
    )


def test_what_it_sees_is_mounted(spec, tmp_path):
    assert spec.mounts == (Mount(str(tmp_path / "src"), "/src", read_only=True),)
    assert spec.volumes == (VolumeMount("p_data", "/data"), VolumeMount("", "/own"))
    assert set(spec.tmpfs) == {Tmpfs("/dev/shm", 1 << 20), Tmpfs("/t", 4096)}
    assert [device.target for device in spec.devices] == ["/dev/nothing"]
    assert [(file.path, file.mode) for file in spec.files] == [("/etc/c", 0o444), ("/run/secrets/s", 0o400)]


def test_what_it_may_use_is_limited(spec):
    assert spec.limits == Limits(memory=64 << 20, swap=32 << 20, cpus=0.5, cpu_weight=50, cpuset="0", pids=9)


def test_whom_it_reaches_is_described(spec):
    networking = spec.networking
    assert (networking.mode, networking.dns, networking.hosts, networking.published) == (
        "none",
        ("192.0.2.1",),
        (("db", "192.0.2.2"),),
        (PublishedPort(80, 8000),),
    )


def test_a_health_check_keeps_its_form(spec):
    assert spec.health == Healthcheck(("CMD", "true"), interval=2_000_000_000, retries=5)


def test_a_container_is_a_service_or_its_image():
    box = Container("host:").env(A="1")
    project = Project({"one": box, "two": {"image": box, "environment": {"B": "2"}}})
    assert [project.container(name).spec.env for name in ("one", "two")] == [
        (("A", "1"),),
        (("A", "1"), ("B", "2")),
    ]


WRONG = {
    "cap_add": (["FLY"], "services.a.cap_add: 'FLY' is no capability"),
    "image": ("UPPER case", "services.a.image: "),
    "sysctls": ({"vm.swappiness": 1}, "services.a.sysctls: "),
    "ulimits": ({"wings": 1}, "services.a.ulimits.wings: 'wings' is no resource limit"),
    "mem_limit": ("1k", "services.a.mem_limit: "),
    "memswap_limit": ("1m", "services.a.memswap_limit: it is memory and swap together"),
    "user": ("a b", "services.a.user: "),
    "hostname": ("-x", "services.a.hostname: "),
    "volumes": (["/proc"], "services.a.volumes[0]: nothing can be put at /proc"),
    "healthcheck": ({"interval": "1s"}, "services.a.healthcheck: it has no test"),
    "platform": ("a/b/c/d", "services.a.platform: "),
    "stop_signal": ("SIGWHAT", "services.a.stop_signal: 'SIGWHAT' is no signal"),
    "secrets": (
        [{"source": "s", "target": "/etc/s"}],
        "services.a.secrets.s: a secret is put below /run/secrets",
    ),
}


@pytest.mark.parametrize(("key", "value", "said"), [(key, *rest) for key, rest in WRONG.items()])
def test_what_no_container_takes_is_wrong_before_anything_starts(key, value, said):
    with pytest.raises(InvalidProject) as caught:
        Project({"a": {"image": "host:", key: value}}, secrets={"s": {"environment": "X"}})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(said)


def test_what_no_container_takes_is_said_with_its_line(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "services:\n  a:\n    image: 'host:'\n    cap_add:\n    - FLY\n    user: a b\n"
    )
    with pytest.raises(InvalidProject) as caught:
        Project.from_file(tmp_path / "compose.yaml")
    places = [problem.split(": ")[0].removeprefix(str(tmp_path)) for problem in caught.value.problems]
    assert sorted(places) == ["/compose.yaml:5", "/compose.yaml:6"]


def test_a_project_in_python_is_the_one_of_the_file(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "name: p\nservices: {a: {image: 'host:', command: [x], volumes: ['./a:/a']}}\nvolumes: {v: {}}\n"
    )
    services = {"a": {"image": "host:", "command": ["x"], "volumes": ["./a:/a"]}}
    in_python = Project(services, name="p", folder=tmp_path, volumes={"v": {}})
    assert Project.from_file(tmp_path / "compose.yaml") == in_python


def test_warnings_are_kept(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "version: '3'\nservices: {a: {image: '${X}host:', logging: {driver: syslog}}}"
    )
    warnings = Project.from_file(tmp_path / "compose.yaml", environment={}).warnings
    assert [warning.removeprefix(f"{tmp_path}/") for warning in warnings] == [
        "compose.yaml:2: services.a.image: the variable X is not set, and is empty here",
        "compose.yaml:1: version: it is of no use any more; take it out",
        "compose.yaml:2: services.a.logging: what is printed is kept in memory, see lines() and logs()",
    ]


def test_without_pyyaml_the_fix_is_named(tmp_path, monkeypatch):
    import sys

    from pycontain.errors import ComposeError

    (tmp_path / "compose.yaml").write_text("services: {}")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ComposeError, match="PyYAML is not installed") as caught:
        Project.from_file(tmp_path / "compose.yaml")
    assert caught.value.__notes__ == ["pip install 'pycontain[compose]'"]


def test_python_needs_no_pyyaml(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    assert Project({"a": Container("host:")}).config()["services"]["a"]["image"] == "host:"


def test_extends_is_for_files():
    with pytest.raises(InvalidProject, match="merge the mappings"):
        Project({"a": {"image": "host:", "extends": "b"}, "b": {"image": "host:"}})


@pytest.mark.parametrize("name", ["Upper", "", "a b", "-x", "../x"])
def test_a_name_that_is_none_is_refused(name):
    if not name:
        assert Project({"a": Container("host:")}, name=name).name  # that of the folder
        return
    with pytest.raises(InvalidProject, match="is no name for a project"):
        Project({"a": Container("host:")}, name=name)


CHOICE = {
    "a": {"image": "host:", "depends_on": ["b"]},
    "b": {"image": "host:", "depends_on": {"d": {"condition": "service_started", "required": False}}},
    "c": {"image": "host:"},
    "d": {"image": "host:", "profiles": ["debug"]},
    "e": {"image": "host:", "profiles": ["debug"], "depends_on": ["d"]},
    "f": {"image": "host:", "profiles": ["more"], "depends_on": ["d"]},
}
CHOSEN = [
    ((), (), "abc"),
    (("a",), (), "ab"),
    (("c",), (), "c"),
    ((), ("debug",), "abcde"),
    (("a",), ("debug",), "abd"),
    (("d",), (), "d"),
]


@pytest.mark.parametrize(("named", "profiles", "wanted"), CHOSEN)
def test_services_are_chosen_with_what_they_wait_for(named, profiles, wanted):
    project = Project(CHOICE, profiles=profiles)
    assert "".join(each.name for each in project._chosen(named, dependencies=True)) == wanted


def test_a_needed_service_whose_profile_is_not_chosen_is_refused():
    with pytest.raises(InvalidProject, match="whose profiles are not chosen: debug"):
        Project(CHOICE)._chosen(("f",), dependencies=True)


def test_a_project_of_profiles_alone_starts_nothing_in_silence():
    with pytest.raises(InvalidProject, match="no service of p is chosen: all of them have profiles, debug"):
        Project({"a": {"image": "host:", "profiles": ["debug"]}}, name="p").up()


def test_labels_are_not_shared():
    services = {"a": {"image": "host:", "scale": 2}, "a-1": {"image": "host:"}}
    with pytest.raises(InvalidProject, match="two containers would be called a-1"):
        Project(services).up()


def test_scale_gives_another_project():
    project = Project({"a": Container("host:")})
    assert (project.scale(a=3).services["a"].scale, project.services["a"].scale) == (3, 1)


def test_scale_is_refused_where_there_can_be_one():
    with pytest.raises(InvalidSpec, match="port 80 of the host"):
        Project({"a": {"image": "host:", "ports": ["80:80"]}}).scale(a=2)


def test_secrets_and_variables_are_in_no_repr(tmp_path):
    project = Project({"a": {"image": "host:", "environment": {"TOKEN": "hunter2"}}})
    assert "hunter2" not in repr(project) + repr(project.spec)
