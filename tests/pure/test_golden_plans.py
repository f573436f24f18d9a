"""What the sandbox does, as texts: a change to it is a change to a file in ``tests/plans``, to be read with care.

To write the files anew after a change that is wanted::

    PYCONTAIN_GOLDEN=write python -m pytest tests/pure/test_golden_plans.py && git diff tests/plans
"""

import os
from pathlib import Path

import attrs
import pytest

from pycontain.sandbox import capabilities
from pycontain.sandbox.compile import compile_exec, compile_plan
from pycontain.sandbox.devices import DEFAULT, Device, with_list
from pycontain.sandbox.host import HostFacts, IdRange
from pycontain.sandbox.limits import NO_CGROUP, Limits, cgroup_of
from pycontain.sandbox.network import Net
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.spec import File, Mount, Rootfs, SandboxSpec, Secret, Tmpfs, UserNamespace

PLANS = Path(__file__).parents[1] / "plans"

ROOT = HostFacts(kernel=(6, 1))
ROOTLESS = HostFacts(
    kernel=(6, 1),
    euid=1000,
    rootless=True,
    uid_map=(IdRange(0, 1000, 1), IdRange(1, 100000, 65536)),
    gid_map=(IdRange(0, 1000, 1), IdRange(1, 100000, 65536)),
)
SINGLE = attrs.evolve(ROOTLESS, uid_map=(IdRange(0, 1000, 1),), gid_map=(IdRange(0, 1000, 1),))

OWN = UserNamespace(own=True)

PLAIN = SandboxSpec(
    Rootfs((HostPath("/images/top"), HostPath("/images/base"))), argv=("sh", "-c", "echo hello")
)
FULL = SandboxSpec(
    Rootfs(
        (HostPath("/images/host"),),
        ((HostPath("/usr"), RootPath("/usr")), (HostPath("/opt/python"), RootPath("/opt/python"))),
    ),
    argv=("python3", "-m", "app"),
    env=(("PATH", "/usr/bin"), ("DEBUG", "1")),
    workdir=RootPath("/src"),
    user="app:staff",
    hostname="box",
    mounts=(
        Mount(HostPath("/home/u/src/data"), RootPath("/src/data")),
        Mount(HostPath("/home/u/src"), RootPath("/src"), read_only=True),
    ),
    tmpfs=(Tmpfs(RootPath("/scratch"), 64 << 20), Tmpfs(RootPath("/run"), mode=0o755)),
    files=(
        File(RootPath("/etc/app.toml"), b"golden-content"),
        File(RootPath("/run/secrets/token"), Secret(b"golden-secret"), 0o400),
    ),
    read_only=True,
    init=False,
    capabilities=frozenset({"NET_BIND_SERVICE"}),
    masked_paths=(*PLAIN.masked_paths, RootPath("/usr/local/etc")),
    rlimits=(("nofile", 1024, 4096),),
    cgroup=cgroup_of(
        Limits(memory=256 << 20, memory_high=192 << 20, swap=0, cpus=0.5, pids=64, cpuset="0-1"),
        {"memory": 2, "cpu": 2, "pids": 2},
    ),
    seccomp=bytes(8 * 3),
)

WALLS = attrs.evolve(
    PLAIN,
    devices=(Device(HostPath("/dev/fuse"), RootPath("/dev/fuse")),),
    cgroup=with_list(NO_CGROUP, DEFAULT, 2),
    read_only=True,
    landlock=True,
    scratch=(Tmpfs(RootPath("/tmp"), 64 << 20),),
    time_offset=(-1_500_000_000, 86_400_000_000_000),
    layer_size=64 << 20,
    sysctls=(("net.ipv4.ip_forward", "1"), ("kernel.domainname", "example.org")),
    seccomp=bytes(8 * 3),
)

PRIVILEGED = attrs.evolve(
    PLAIN, privileged=True, capabilities=frozenset(capabilities.NAMES), masked_paths=(), read_only_paths=()
)
VOLUMES = attrs.evolve(
    PLAIN,
    rootfs=Rootfs((HostPath("/images/top"),), mode=0o711, uid=3, gid=4),
    mounts=(
        Mount(HostPath("/home/u/db"), RootPath("/var/db")),
        Mount(HostPath("/home/u/x"), RootPath("/data/x")),
    ),
    tmpfs=(Tmpfs(RootPath("/scratch")),),
    volumes=tuple(map(RootPath, ("/data", "/scratch", "/scratch/deep", "/var/db", "/var/db/deep"))),
)
NAMED_VOLUMES = attrs.evolve(
    PLAIN,
    mounts=(
        Mount(HostPath("/volumes/cache/data"), RootPath("/cache"), volume="cache", fill=True),
        Mount(HostPath("/volumes/seed/data"), RootPath("/seed"), read_only=True, volume="seed"),
    ),
    capabilities=frozenset({"SYS_ADMIN"}),
    userns=OWN,
)


GOLDEN = {
    "root": compile_plan(PLAIN, ROOT),
    "rootless": compile_plan(PLAIN, ROOTLESS),
    "rootless-single-id": compile_plan(PLAIN, SINGLE),
    "full": compile_plan(FULL, ROOT),
    "full-rootless": compile_plan(FULL, ROOTLESS),
    "walls": compile_plan(WALLS, attrs.evolve(ROOT, landlock=7)),
    "walls-single-id": compile_plan(
        attrs.evolve(WALLS, read_only=False, pretending=bytes(8 * 5)), attrs.evolve(SINGLE, landlock=2)
    ),
    "privileged": compile_plan(PRIVILEGED, ROOT),
    "privileged-rootless": compile_plan(PRIVILEGED, ROOTLESS),
    "volumes": compile_plan(VOLUMES, ROOT),
    "named-volumes": compile_plan(NAMED_VOLUMES, ROOT),
    "volumes-read-only": compile_plan(attrs.evolve(VOLUMES, read_only=True), ROOT),
    "walls-exec": compile_exec(WALLS, attrs.evolve(ROOT, landlock=7)),
    "exec": compile_exec(FULL, ROOT),
    "terminal": compile_plan(attrs.evolve(PLAIN, terminal=(80, 24), restart=(False, 3, 15)), ROOT),
    "terminal-no-init": compile_plan(attrs.evolve(PLAIN, terminal=(80, 24), init=False, userns=OWN), ROOT),
    "terminal-exec": compile_exec(attrs.evolve(PLAIN, terminal=(132, 50)), ROOT),
    "network-private": compile_plan(
        attrs.evolve(PLAIN, net=Net(connected=True, resolver="nameserver 192.0.2.53\n")), ROOT
    ),
    "network-live": compile_plan(attrs.evolve(PLAIN, net=Net(connected=True, resolver="", live=True)), ROOT),
    "network-host": compile_plan(attrs.evolve(PLAIN, net=Net(shared=True)), ROOT),
    "network-host-rootless": compile_plan(attrs.evolve(PLAIN, net=Net(shared=True)), ROOTLESS),
    "network-host-exec": compile_exec(attrs.evolve(PLAIN, net=Net(shared=True)), ROOT),
    "own-users": compile_plan(attrs.evolve(PLAIN, userns=OWN), ROOT),
    "full-own-users": compile_plan(attrs.evolve(FULL, userns=OWN), ROOT),
    "exec-own-users": compile_exec(attrs.evolve(FULL, userns=OWN), ROOT),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_plan_is_what_it_was(name):
    path = PLANS / f"{name}.txt"
    text = f"{GOLDEN[name]}\n"
    if os.environ.get("PYCONTAIN_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "see the top of this test for how to accept it"


def test_there_is_no_file_without_its_plan():
    assert {path.stem for path in PLANS.glob("*.txt")} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_no_content_is_in_a_golden_plan(name):
    assert "golden-" not in (PLANS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDEN)
def test_every_step_says_why(name):
    assert [str(step) for step in GOLDEN[name].steps if not step.because and "mkdir" not in str(step)] == []
