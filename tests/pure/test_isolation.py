"""explain(): what is said of a plan is what the plan does."""

import json

import attrs
import pytest

from pycontain.sandbox import capabilities
from pycontain.sandbox.compile import compile_plan
from pycontain.sandbox.devices import DEFAULT, with_list
from pycontain.sandbox.host import HostFacts, IdRange
from pycontain.sandbox.isolation import isolation_of, network_walls
from pycontain.sandbox.limits import NO_CGROUP, IoLimit, Limits, cgroup_of
from pycontain.sandbox.network import ON_NETWORKS, Membership, Networking
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.spec import Mount, Rootfs, SandboxSpec, Tmpfs, UserNamespace

PLAIN = SandboxSpec(Rootfs((HostPath("/layer"),)), seccomp=bytes(8), hostname="<b>")
ROOT = HostFacts(landlock=7)
SINGLE = HostFacts(rootless=True, euid=1000, uid_map=(IdRange(0, 1000, 1),))
ALL = frozenset(capabilities.NAMES)


def walls(host=ROOT, spec=PLAIN, reasons=None, **changes):
    return isolation_of(compile_plan(attrs.evolve(spec, **changes), host), reasons)


@pytest.mark.parametrize("name", ["mnt", "pid", "net", "ipc", "uts", "cgroup"])
def test_the_namespaces_of_every_container_stand(name):
    assert walls()[f"{name} namespace"].stands


def test_without_a_user_namespace_root_is_root_and_it_is_said():
    assert not walls()["user namespace"].stands
    assert "uid 1000" in walls(SINGLE)["user namespace"].what


OPENED = {
    "capabilities": {"capabilities": ALL},
    "no_new_privs": {"privileged": True, "seccomp": None},
    "seccomp": {"seccomp": None},
    "nested user namespaces": {"capabilities": frozenset({"SYS_ADMIN"})},
    "keyrings": {"seccomp_name": "given"},
    "masked paths": {"masked_paths": ()},
    "read-only paths": {"read_only_paths": ()},
    "read-only /sys": {"privileged": True},
    "devices": {"privileged": True},
    "tmpfs sizes": {"tmpfs": (Tmpfs(RootPath("/t")),)},
    "files of the host": {"mounts": (Mount(HostPath("/a"), RootPath("/a")),)},
    "init": {"init": False},
}


@pytest.mark.parametrize("name", OPENED)
def test_a_wall_that_is_taken_away_does_not_stand(name):
    assert walls()[name].stands
    opened = walls(**OPENED[name])[name]
    assert (opened.stands, bool(opened.because)) == (False, True)


ADDED = {
    "time namespace": {"time_offset": (0, 1)},
    "landlock": {"landlock": True},
    "read-only root": {"read_only": True},
    "disk": {"layer_size": 1 << 20},
    "memory": {"cgroup": cgroup_of(Limits(memory=6 << 20), {"memory": 2})},
    "pids": {"cgroup": cgroup_of(Limits(pids=9), {"pids": 1})},
    "cpus": {"cgroup": cgroup_of(Limits(cpus=0.5), {"cpu": 2})},
    "rlimits": {"rlimits": (("nofile", 9, 9),)},
}


@pytest.mark.parametrize("name", ADDED)
def test_a_wall_that_is_asked_for_stands_and_says_what_it_is(name):
    without = walls()[name]
    assert (without.stands, bool(without.because)) == (False, True)
    added = walls(**ADDED[name])[name]
    assert (added.stands, bool(added.what)) == (True, True)


def test_what_the_host_cannot_keep_has_its_reason():
    group = cgroup_of(Limits(pids=9, cpuset="0"), {})
    found = walls(cgroup=group, reasons={"pids": "no controller", "cpuset": "none either"})
    assert (found["pids"].stands, found["pids"].because) == (False, "no controller")
    assert found["cpuset"].because == "none either"


def test_a_list_of_devices_is_told():
    assert "list" in walls(cgroup=with_list(NO_CGROUP, DEFAULT, 2))["devices"].what


READ_ONLY = (Mount(HostPath("/a"), RootPath("/a"), read_only=True),)


@pytest.mark.parametrize("own", [False, True])
def test_a_read_only_mount_is_no_hole(own):
    """Whether it is bound, or cloned by the zygote."""
    assert walls(mounts=READ_ONLY, userns=UserNamespace(own=own))["files of the host"].stands
    writable = (attrs.evolve(READ_ONLY[0], read_only=False),)
    assert not walls(mounts=writable, userns=UserNamespace(own=own))["files of the host"].stands


def test_a_read_only_mount_is_one_for_who_may_remount():
    assert not walls(mounts=READ_ONLY, capabilities=frozenset({"SYS_ADMIN"}))["files of the host"].stands


def test_limits_that_few_ask_for_are_walls_where_they_are():
    limits = Limits(
        memory_high=6 << 20,
        cpuset="0",
        io=(IoLimit("8:0", read_bps=9),),
        hugetlb=((1 << 21, 0), (1 << 30, 0)),
    )
    group = cgroup_of(limits, {"memory": 2, "cpuset": 2, "io": 2, "hugetlb": 2})
    found = walls(cgroup=group)
    assert [found[name].what for name in ("memory_high", "cpuset", "io", "hugetlb")] == [
        "memory.high = 6291456",
        "cpuset.cpus = 0",
        "io.max = 8:0 rbps=9",
        "hugetlb.2MB.max = 0; hugetlb.1GB.max = 0",
    ]


def test_every_wall_has_one_name_and_one_line():
    found = walls()
    assert len({wall.name for wall in found}) == len(found)
    assert all(str(found).count(f" {wall.name} ") for wall in found)


def test_it_is_a_table_and_json():
    found = attrs.evolve(walls(), title="<i>")
    assert found._repr_html_().count("<tr>") == len(found) + 1
    assert "<i>" not in found._repr_html_()
    assert [wall["name"] for wall in json.loads(found.to_json())["walls"]] == [wall.name for wall in found]


def test_a_refused_start_is_said():
    assert "does not start here" in str(attrs.evolve(walls(), refused=("pids",)))


def test_there_is_no_other_wall():
    with pytest.raises(KeyError):
        walls()["nonsense"]


@attrs.frozen
class Named:
    """What of a network is read."""

    name: str
    internal: bool


@pytest.mark.parametrize("internal", [True, False])
def test_the_networks_of_a_container_are_named(internal):
    """One that leads out is enough."""
    members = (Membership(Named("inner", internal=True)), Membership(Named("outer", internal=internal)))
    (wall,) = network_walls(Networking(mode=ON_NETWORKS, networks=members))
    assert wall.stands is internal
    assert "inner, outer" in wall.what + wall.because
