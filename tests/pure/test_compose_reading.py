"""A document to the values of a project: what each key means, what is refused and why, and all problems at once."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pycontain.compose import reading
from pycontain.compose import service as keys
from pycontain.compose.document import document_of
from pycontain.compose.parsing import parse
from pycontain.compose.reading import project_of
from pycontain.compose.tree import Notes, node_of
from pycontain.compose.values import (
    Attachment,
    Build,
    Check,
    Dependency,
    Disk,
    Grant,
    Hook,
    Mounted,
    Port,
    ProjectNetwork,
    ProjectVolume,
    Source,
)

ENVIRONMENT = {"OURS": "from us", "SSH_AUTH_SOCK": "/agent"}


def read(text, notes=None, **options):
    document = parse(text, "f") if isinstance(text, str) else node_of(text)
    given_ = {"name": "p", "folder": "/at", "home": "/home/me", "variables": ENVIRONMENT, **options}
    return project_of(document, notes or Notes(), **given_)


REST = """
  a: {image: x}
  b: {image: x, healthcheck: {test: t}}
networks: {front: {}, back: {}}
volumes: {data: {}}
secrets: {s: {file: ./s}}
configs: {c: {content: text}}
"""


def service_of(key, notes=None):
    return read(f"services:\n  it:\n    image: x\n    {key}\n{REST}", notes).service("it")


MEANINGS = {
    # what runs
    "command: sleep 5": {"command": ("sleep", "5")},
    "command: [sh, -c, 'echo a b']": {"command": ("sh", "-c", "echo a b")},
    "command: sh -c 'echo a b'": {"command": ("sh", "-c", "echo a b")},
    "command: [sleep, 5]": {"command": ("sleep", "5")},
    "entrypoint: []": {"entrypoint": ()},
    "entrypoint: /run.sh -x": {"entrypoint": ("/run.sh", "-x")},
    "environment: {A: 1, B: true, C: 1.5, D: , OURS: , E: ''}": {
        "environment": (("A", "1"), ("B", "true"), ("C", "1.5"), ("OURS", "from us"), ("E", ""))
    },
    "environment: [A=1, B=c=d, OURS, NONE, E=]": {
        "environment": (("A", "1"), ("B", "c=d"), ("OURS", "from us"), ("E", ""))
    },
    "working_dir: /src": {"working_dir": "/src"},
    "user: 1000": {"user": "1000"},
    "init: true": {"init": True},
    "tty: 'true'": {"tty": True},
    "stdin_open: true": {"stdin_open": True},
    "restart: always": {"restart": "always"},
    "restart: unless-stopped": {"restart": "always"},
    "restart: 'no'": {"restart": "no"},
    "restart: no": {"restart": "no"},
    "restart: on-failure:3": {"restart": "on-failure:3"},
    "stop_signal: SIGINT": {"stop_signal": "SIGINT"},
    "stop_grace_period: 1m30s": {"stop_grace_period": 90.0},
    "stop_grace_period: 500ms": {"stop_grace_period": 0.5},
    "healthcheck: {test: curl -f x, interval: 5s, timeout: 1s, retries: 2, start_period: 1m, start_interval: 1s}": {
        "healthcheck": Check(("CMD-SHELL", "curl -f x"), 5.0, 1.0, 2, 60.0, 1.0)
    },
    "healthcheck: {test: [CMD, a, b]}": {"healthcheck": Check(("CMD", "a", "b"))},
    "healthcheck: {test: [CMD-SHELL, a b]}": {"healthcheck": Check(("CMD-SHELL", "a b"))},
    "healthcheck: {test: [NONE]}": {"healthcheck": Check(("NONE",))},
    "healthcheck: {disable: true}": {"healthcheck": Check(("NONE",))},
    "post_start: [{command: echo x, user: root, environment: {A: b}}]": {
        "post_start": (Hook(("echo", "x"), "root", None, (("A", "b"),)),)
    },
    "pre_stop: [{command: [a], working_dir: /}]": {"pre_stop": (Hook(("a",), None, "/"),)},
    "depends_on: [a, b]": {"depends_on": (Dependency("a"), Dependency("b"))},
    "depends_on: {b: {condition: service_healthy}, none: {condition: service_started, required: false}}": {
        "depends_on": (Dependency("b", "service_healthy"), Dependency("none", required=False))
    },
    "links: [a, 'b:db']": {
        "links": (("a", "a"), ("b", "db")),
        "depends_on": (Dependency("a"), Dependency("b")),
    },
    "build: ctx": {"build": Build("/at/ctx")},
    "build: {context: ctx, dockerfile: D, target: t, args: [A=1, OURS], tags: [x, y], no_cache: true, pull: true}": {
        "build": Build(
            "/at/ctx",
            dockerfile="D",
            target="t",
            args=(("A", "1"), ("OURS", "from us")),
            tags=("x", "y"),
            no_cache=True,
            pull=True,
        )
    },
    "build: {dockerfile_inline: FROM x, network: default, platforms: [linux/arm64], cache_from: [c]}": {
        "build": Build(
            "/at", dockerfile_inline="FROM x", network="private", platform="linux/arm64", cache_from=("c",)
        )
    },
    "build: {secrets: [s, {source: s, target: t}], ssh: [default, k=/sock], labels: {l: v}}": {
        "build": Build(
            "/at",
            secrets=(Grant("s", "s"), Grant("s", "t")),
            ssh=(("default", "/agent"), ("k", "/sock")),
            labels=(("l", "v"),),
        )
    },
    "platform: linux/arm64": {"platform": "linux/arm64"},
    "pull_policy: if_not_present": {"pull_policy": "missing"},
    "profiles: [debug]": {"profiles": ("debug",)},
    "scale: 3": {"scale": 3},
    "attach: false": {"attach": False},
    # how it is called
    "container_name: mine": {"container_name": "mine"},
    "hostname: box": {"hostname": "box"},
    "domainname: example.org": {"domainname": "example.org"},
    "labels: [a=b, c]": {"labels": (("a", "b"), ("c", ""))},
    # what it sees
    "volumes: [/anonymous]": {"volumes": (Mounted("volume", "/anonymous"),)},
    "volumes: ['data:/data:ro']": {"volumes": (Mounted("volume", "/data", "data", read_only=True),)},
    "volumes: ['./src:/src:ro']": {"volumes": (Mounted("bind", "/src", "/at/src", read_only=True),)},
    "volumes: ['~/x:/x']": {"volumes": (Mounted("bind", "/x", "/home/me/x"),)},
    "volumes: ['../up:/up', '/abs:/abs', 'data:/d:nocopy']": {
        "volumes": (
            Mounted("bind", "/up", "/up"),
            Mounted("bind", "/abs", "/abs"),
            Mounted("volume", "/d", "data", nocopy=True),
        )
    },
    "volumes: [{type: bind, source: ., target: /src, read_only: true, bind: {create_host_path: false}}]": {
        "volumes": (Mounted("bind", "/src", "/at", read_only=True, create_host_path=False),)
    },
    "volumes: [{type: volume, source: data, target: /d, volume: {nocopy: true}}]": {
        "volumes": (Mounted("volume", "/d", "data", nocopy=True),)
    },
    "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]": {
        "volumes": (Mounted("tmpfs", "/t", size=1 << 20, mode=0o700),)
    },
    "tmpfs: /run": {"volumes": (Mounted("tmpfs", "/run"),)},
    "tmpfs: ['/run:size=64m,mode=755', /tmp]": {
        "volumes": (Mounted("tmpfs", "/run", size=64 << 20, mode=0o755), Mounted("tmpfs", "/tmp"))
    },
    "secrets: [s]": {"secrets": (Grant("s", "/run/secrets/s"),)},
    "secrets: [{source: s, target: t, mode: 0440}]": {"secrets": (Grant("s", "/run/secrets/t", 0o440),)},
    "configs: [c, {source: c, target: /etc/c}]": {"configs": (Grant("c", "/c"), Grant("c", "/etc/c"))},
    "devices: ['/dev/fuse', '/dev/a:/dev/b:r', '/dev/c:rw']": {
        "devices": (("/dev/fuse", "/dev/fuse", "rwm"), ("/dev/a", "/dev/b", "r"), ("/dev/c", "/dev/c", "rw"))
    },
    "devices: [{source: /dev/a, target: /dev/b, permissions: r}]": {"devices": (("/dev/a", "/dev/b", "r"),)},
    "read_only: true": {"read_only": True},
    "shm_size: 128m": {"shm_size": 128 << 20},
    "storage_opt: {size: 1G}": {"disk": 1 << 30},
    # whom it reaches
    "network_mode: none": {"network_mode": "none", "networks": ()},
    "network_mode: bridge": {"network_mode": "private", "networks": ()},
    "user: u": {"networks": (Attachment("default"),)},
    "networks: [front, back]": {"networks": (Attachment("front"), Attachment("back"))},
    "networks: {front: , back: {aliases: [x], ipv4_address: 10.1.2.3, priority: 9}}": {
        "networks": (Attachment("back", ("x",), "10.1.2.3"), Attachment("front"))
    },
    "ports: [8080, '8000:80', '127.0.0.1:81:81', '6060:6060/udp', '0.0.0.0:82:82']": {
        "ports": (
            Port(8080),
            Port(80, 8000),
            Port(81, 81),
            Port(6060, 6060, protocol="udp"),
            Port(82, 82, "0.0.0.0"),
        )
    },
    "ports: ['9000-9001:80-81', '[::1]:6:6', '127.0.0.1::7']": {
        "ports": (Port(80, 9000), Port(81, 9001), Port(6, 6, "::1"), Port(7))
    },
    "ports: [{target: 80, published: '8080', host_ip: 0.0.0.0, protocol: tcp, mode: host}]": {
        "ports": (Port(80, 8080, "0.0.0.0"),)
    },
    "expose: [80, '81/udp']": {"expose": ("80", "81/udp")},
    "dns: 1.1.1.1": {"dns": ("1.1.1.1",)},
    "extra_hosts: ['a:1.2.3.4', 'b=::1', 'c:[::1]']": {
        "extra_hosts": (("a", "1.2.3.4"), ("b", "::1"), ("c", "::1"))
    },
    "extra_hosts: {a: 1.2.3.4}": {"extra_hosts": (("a", "1.2.3.4"),)},
    # what it may
    "privileged: true": {"privileged": True},
    "cap_add: [NET_ADMIN]": {"cap_add": ("NET_ADMIN",)},
    "cap_drop: [ALL]": {"cap_drop": ("ALL",)},
    "security_opt: ['no-new-privileges:true', 'seccomp:unconfined', 'apparmor=unconfined']": {
        "seccomp": "unconfined"
    },
    "security_opt: ['seccomp:./p.json']": {"seccomp": "/at/p.json"},
    "userns_mode: host": {"userns_mode": "host"},
    "sysctls: {net.core.somaxconn: 1024}": {"sysctls": (("net.core.somaxconn", "1024"),)},
    "ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}, core: -1}": {
        "ulimits": (("nproc", 65535, 65535), ("nofile", 1, 2), ("core", -1, -1))
    },
    # what it may use
    "mem_limit: 1g": {"mem_limit": 1 << 30},
    "memswap_limit: -1": {"memswap_limit": -1},
    "cpus: '0.5'": {"cpus": 0.5},
    "cpu_quota: 50000": {"cpus": 0.5},
    "cpu_shares: 512": {"cpu_shares": 512},
    "cpuset: 0-1": {"cpuset": "0-1"},
    "pids_limit: 10": {"pids_limit": 10},
    "blkio_config: {weight: 300, device_read_bps: [{path: /dev/sda, rate: 12mb}]}": {
        "io_weight": 300,
        "io": (Disk("/dev/sda", read_bps=12 << 20),),
    },
    "deploy: {replicas: 2, resources: {limits: {cpus: '1.5', memory: 1g, pids: 5}}}": {
        "scale": 2,
        "cpus": 1.5,
        "mem_limit": 1 << 30,
        "pids_limit": 5,
    },
    "deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}": {"restart": "on-failure:3"},
    "deploy: {restart_policy: {condition: any}}": {"restart": "always"},
    # what is so anyhow
    "ipc: private": {},
    "pid: ": {},
    "isolation: default": {},
    "oom_kill_disable: false": {},
    "x-anything: [1, 2]": {},
}


@pytest.mark.parametrize(("key", "wanted"), MEANINGS.items())
def test_a_key_means(key, wanted):
    notes = Notes()
    found = service_of(key, notes)
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert (notes.problems, notes.warnings) == ([], [])


PROBLEMS = {
    "imge: x": "services.it.imge: there is no such key, did you mean image?",
    "command: 'a \"b'": "cannot be split into words",
    "command: []": "cannot take the image's away",
    "environment: text": "'text' is no list",
    "environment: {A: [1]}": "services.it.environment.A: [1] is no text",
    "init: maybe": "neither true nor false",
    "scale: x": "no whole number",
    "scale: -1": "no whole number",
    "restart: sometimes": "is no policy",
    "stop_grace_period: 5": "5 is no duration; write 30s",
    "stop_grace_period: 5x": "is no duration",
    "healthcheck: {test: [curl]}": "begins with",
    "healthcheck: {tests: x}": "services.it.healthcheck.tests: there is no such key, did you mean test?",
    "depends_on: [nobody]": "it depends on nobody, and there is no such service",
    "depends_on: [it]": "it depends on itself",
    "depends_on: {a: {condition: ready}}": "is none of service_started",
    "build: {context: x, dokerfile: y}": "did you mean dockerfile?",
    "build: https://github.com/a/b.git": "a context is a folder here",
    "build: {context: x, platforms: [a, b]}": "one platform at a time",
    "build: {context: x, privileged: true}": "never privileged",
    "build: {context: x, additional_contexts: {a: b}}": "not more contexts",
    "pull_policy: daily": "is no policy here",
    "volumes: ['nowhere:/x']": "there is no volume 'nowhere'; name it below volumes",
    "volumes: ['relative']": "no absolute path",
    "volumes: ['data:/x:what']": "has the option 'what'",
    "volumes: ['data:/x', 'data:/x']": "more than one thing is mounted at /x",
    "volumes: [{type: npipe, target: /x}]": "is none of bind, volume, tmpfs",
    "volumes: [{type: bind, target: /x}]": "a bind has a source",
    "volumes: [{type: bind, source: ., target: /x, bind: {propagation: rshared}}]": "mounts are private",
    "volumes: [{type: volume, source: data, target: /x, volume: {subpath: y}}]": "as a whole",
    "tmpfs: '/x:wrong=1'": "takes size=SIZE",
    "tmpfs: '/x:exec'": "not 'exec'",
    "expose: [x]": "is no port",
    "secrets: [none]": "there is no secret 'none'",
    "configs: [none]": "there is no config 'none'",
    "secrets: [{source: s, mode: 9}]": "",
    "secrets: [{source: s, mode: '9'}]": "no mode",
    "networks: [nowhere]": "there is no network 'nowhere'",
    "networks: {front: {ipv6_address: '::1'}}": "one of IPv4",
    "networks: {front: {ipv4_address: x}}": "is no address",
    "network_mode: 'service:a'": "find each other by name",
    "network_mode: mine": "is no mode",
    "ports: ['x']": "is no port",
    "ports: ['80:81:82:83']": "is no",
    "ports: ['70000:80']": "70000 is no port",
    "ports: ['80-81:80']": "let them be as many",
    "ports: ['5-4:5-4']": "ends before it begins",
    "ports: ['80:80/icmp']": "is no protocol",
    "ports: {80: 80}": "is no list",
    "dns: name.example": "is no address",
    "extra_hosts: ['host.docker.internal:host-gateway']": "publish it inside",
    "security_opt: ['label:type:x']": "cannot be kept",
    "userns_mode: mine": "none of host",
    "ulimits: {nofile: {soft: 1}}": "has soft and hard",
    "mem_limit: much": "is no size",
    "cpus: many": "is no number",
    "deploy: {mode: global}": "one mode: replicated",
    "deploy: {restart_policy: {condition: any, max_attempts: 2}}": "use condition: on-failure",
    "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}": "devices are named",
    "blkio_config: {weight_device: [{path: /dev/sda, weight: 1}]}": "limit one by its rates",
    "container_name: x\n    scale: 2": "scale asks for 2 containers",
    "ports: ['80:80']\n    scale: 2": "cannot all have port 80",
    "network_mode: none\n    networks: [front]": "exclude each other",
    "cpus: 1\n    deploy: {resources: {limits: {cpus: 2}}}": "say different things",
    "post_start: [{user: x}]": "it has no command",
    "post_start: [{command: x, privileged: true}]": "the container's own walls",
}


@pytest.mark.parametrize(("key", "said"), [item for item in PROBLEMS.items() if item[1]])
def test_what_is_wrong_is_said_with_its_place(key, said):
    notes = Notes()
    service_of(key, notes)
    assert len(notes.problems) == 1, notes.problems
    assert said in notes.problems[0]
    assert notes.problems[0].startswith("f:")


REFUSED = sorted(name for name, key in keys.SERVICE.items() if isinstance(key, keys.Refused))
UNNEEDED = sorted(name for name, key in keys.SERVICE.items() if isinstance(key, keys.Unneeded))


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_cannot_be_honoured_is_refused_with_the_reason(name):
    notes = Notes()
    service_of(f"{name}: x", notes)
    assert notes.problems == [f"f:4: services.it.{name}: {keys.SERVICE[name].why}"]


@pytest.mark.parametrize("name", UNNEEDED)
def test_a_key_that_is_left_out_is_noted(name):
    notes = Notes()
    service_of(f"{name}: x", notes)
    assert (notes.problems, notes.warnings) == ([], [f"f:4: services.it.{name}: {keys.SERVICE[name].why}"])


PAGE = Path(__file__).parents[2] / "docs/reference/compose.md"


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            *keys.SERVICE,
            *keys.BUILD,
            *keys.DEPLOY,
            *reading.NETWORK,
            *reading.VOLUME,
            *reading.SECRET,
            *reading.CONFIG,
            *reading.PROJECT,
        }
    ),
)
def test_the_reference_has_every_key(name):
    """By itself in backticks, or at the beginning or end of something longer, as ``deploy``'s ``resources.limits``."""
    assert re.search(rf"`([a-z_]+\.)?{name}([:.][^`]*)?`", PAGE.read_text(encoding="utf-8"))


def test_labels_of_selinux_are_not_set_and_that_is_said():
    notes = Notes()
    service_of("volumes: ['./src:/src:ro,z']", notes)
    assert notes.warnings == ["f:4: services.it.volumes[0]: labels of SELinux stay as they are"]


def test_of_two_restarts_that_of_deploy_holds():
    notes = Notes()
    found = service_of("restart: always\n    deploy: {restart_policy: {condition: on-failure}}", notes)
    assert (found.restart, notes.problems, len(notes.warnings)) == ("on-failure", [], 1)


def test_all_problems_are_said_at_once():
    notes = Notes()
    read(
        "services:\n  a:\n    imge: x\n    ports: [x]\n  b:\n    image: x\n    depends_on: [c]\nnetwork: {}\n",
        notes,
    )
    assert len(notes.problems) == 5
    assert {problem.split(": ")[0] for problem in notes.problems} == {"f:3", "f:4", "f:6", "f:8"}


WHOLE = {
    "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}": "it waits for itself: a → b → a",
    "services: {a: }": "it needs an image or a build",
    "services: {a: {}}": "it has neither an image nor a build",
    "services: [a]": "is no mapping",
    "services: {a b: {image: x}}": "a name has letters",
    "{}": "there are no services",
    "services: {a: {image: x}}\nnetworks: {n: {external: true}}": "there is none that others have made",
    "services: {a: {image: x}}\nnetworks: {n: {driver: overlay}}": "no driver 'overlay'",
    "services: {a: {image: x}}\nnetworks: {n: {enable_ipv6: true}}": "one of IPv4",
    "services: {a: {image: x}}\nnetworks: {n: {ipam: {config: [{subnet: x}]}}}": "is no address",
    "services: {a: {image: x}}\nnetworks: {n: {ipam: {config: [{subnet: 10.0.0.0/8, gateway: 10.0.0.9}]}}}": "name the subnet alone",
    "services: {a: {image: x}}\nvolumes: {v: {driver: nfs}}": "no driver 'nfs'",
    "services: {a: {image: x}}\nvolumes: {v: {driver_opts: {a: b}}}": "has no options",
    "services: {a: {image: x}}\nsecrets: {s: {external: true}}": "there is no swarm",
    "services: {a: {image: x}}\nsecrets: {s: {}}": "one of file and environment",
    "services: {a: {image: x}}\nconfigs: {s: {file: x, content: y}}": "one of file, environment and content",
    "services: {a: {image: x}}\nmodels: {m: {model: x}}": "language models",
    "services: {a: {image: x, container_name: n}, b: {image: x, container_name: n}}": "is called n, too",
    "services: {a: {image: x, ports: ['1:1']}, b: {image: x, ports: ['1:2']}}": "is published twice",
}


def test_a_chain_of_dependencies_may_be_long():
    chain = ", ".join(f"s{place}: {{image: x, depends_on: [s{place + 1}]}}" for place in range(2000))
    notes = Notes()
    read(f"services: {{{chain}, s2000: {{image: x}}}}", notes)
    assert not notes.problems


@pytest.mark.parametrize(("text", "said"), WHOLE.items())
def test_what_is_wrong_with_the_whole_is_said(text, said):
    notes = Notes()
    read(text, notes)
    assert any(said in problem for problem in notes.problems), notes.problems


def test_what_belongs_to_the_project_is_called_after_it():
    project = read(f"services:\n  it: {{image: x}}\n{REST}")
    assert project.networks == (
        ProjectNetwork("front", "p_front"),
        ProjectNetwork("back", "p_back"),
        ProjectNetwork("default", "p_default"),
    )
    assert project.volumes == (ProjectVolume("data", "p_data"),)


def test_names_subnets_and_labels_are_chosen():
    project = read(
        "services: {a: {image: x}}\n"
        "networks: {default: {name: mine, internal: true, ipam: {config: [{subnet: 10.1.0.0/16}]}}}\n"
        "volumes: {v: {external: true}, w: {name: other, labels: [a=b]}, z: {external: true, name: there}}\n"
        "secrets: {s: {environment: OURS}}\n"
    )
    assert project.networks == (ProjectNetwork("default", "mine", internal=True, subnet="10.1.0.0/16"),)
    assert project.volumes == (
        ProjectVolume("v", "v", external=True),
        ProjectVolume("w", "other", labels=(("a", "b"),)),
        ProjectVolume("z", "there", external=True),
    )
    assert project.secrets == (Source("s", environment="OURS"),)


def test_profiles_choose_services():
    text = "services: {a: {image: x}, b: {image: x, profiles: [one]}, c: {image: x, profiles: [two]}}"
    chosen = {
        profiles: [each.name for each in read(text, profiles=profiles).active()]
        for profiles in ((), ("one",), ("one", "two"), ("*",))
    }
    assert chosen == {
        (): ["a"],
        ("one",): ["a", "b"],
        ("one", "two"): ["a", "b", "c"],
        ("*",): ["a", "b", "c"],
    }


@pytest.mark.parametrize("key", MEANINGS)
def test_the_normalised_document_means_the_same(key):
    """As ``config`` prints it; it is itself again when it is normalised once more."""
    project = read(f"services:\n  it:\n    image: x\n    {key}\n{REST}")
    document = document_of(project)
    printed = yaml.safe_dump(document, sort_keys=False)
    from pycontain.compose.interpolation import interpolate

    notes = Notes()
    again = project_of(
        interpolate(parse(printed, "f"), {}, notes),
        notes,
        name="p",
        folder="/at",
        home="/home/me",
        variables={},
    )
    assert notes.problems == []
    assert again == project
    assert document_of(again) == document


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(keys.SERVICE)), ANYTHING)
def test_a_key_may_have_any_value_and_is_read_or_refused(name, value):
    read({"services": {"a": {"image": "x", name: value}}})
