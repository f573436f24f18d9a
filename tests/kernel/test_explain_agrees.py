"""What explain() claims of each wall is what a payload finds inside, whatever the container is."""

import json
import os
import resource
from pathlib import Path

import pytest

from pycontain import Container
from pycontain.kernel.syscall_tables import Abi, numbers_of
from pycontain.runtime.engine import engine

NATIVE = {"x86_64": Abi.X86_64, "aarch64": Abi.AARCH64}[os.uname().machine]
NUMBERS = {name: numbers_of(NATIVE)[name] for name in ("unshare", "keyctl")}
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "user")
HOST = Container("host:")

CONTAINERS = {
    "default": HOST,
    "untrusted": HOST.untrusted(required=False),
    "read-only": HOST.read_only(),
    "open": HOST.userns("host").capabilities(add=["ALL"]).seccomp("unconfined").init(False).tmpfs("/endless"),
    "privileged": HOST.privileged(),
    "shifted": HOST.time_offset(boottime=1000).limits(disk="8M", required=False).rlimit("fsize", 1 << 30),
    "limited": HOST.limits(memory="64M", swap=0, pids=20, cpus=0.5, required=False),
}
"""Between them every wall is there once and not there once, except those that always are."""
ALWAYS = {f"{name} namespace" for name in NAMESPACES} - {"time namespace", "user namespace"}
ALWAYS |= {"descriptors", "lifetime", "output"}

LOOK = """
import ctypes, json, os, resource, stat, sys
asked = json.load(open("/asked.json"))
libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
mounts = [line.split() for line in open("/proc/self/mountinfo")]

def is_read_only(path):
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)

def is_empty(path):
    if not os.path.exists(path):
        return True
    try:
        return not (os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    except PermissionError:
        return True

def answers(name, *args):
    if os.fork() == 0:
        done = libc.syscall(ctypes.c_long(asked["numbers"][name]), *map(ctypes.c_long, args)) >= 0
        os._exit(done)
    return os.wait()[1] != 0

def can_write(path, flags=0):
    try:
        os.close(os.open(path, os.O_WRONLY | flags, 0o600))
    except OSError:
        return False
    return True

def remounted(path):
    MS_REMOUNT, MS_BIND = 0x20, 0x1000
    libc.mount(b"none", path.encode(), None, ctypes.c_ulong(MS_REMOUNT | MS_BIND), None)
    return can_write(path + "/file", os.O_CREAT)

def can_open(path):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True

def makes_a_device():
    try:
        os.mknod("/dev/made", 0o600 | stat.S_IFCHR, os.makedev(1, 11))  # kmsg, which is on no list
    except OSError:
        return False
    return can_open("/dev/made")

def size_of(mount):
    space = os.statvfs(mount)
    return space.f_blocks * space.f_frsize

memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
tmpfs = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "tmpfs" and can_write(fields[4], os.O_TMPFILE)]
found = {f"{name} namespace": os.readlink(f"/proc/self/ns/{name}") != link for name, link in asked["namespaces"].items()}
found |= {
    "capabilities": int(status["CapBnd"], 16) not in asked["capabilities"],
    "no_new_privs": status["NoNewPrivs"].strip() == "1",
    "seccomp": status["Seccomp"].strip() == "2",
    "nested user namespaces": not answers("unshare", 0x10000000),
    "keyrings": not answers("keyctl", 0, -3, 1, 0, 0),
    "masked paths": all(map(is_empty, asked["masked"])),
    "read-only paths": all(is_read_only(path) for path in asked["protected"] if os.path.exists(path)),
    "read-only /sys": is_read_only("/sys"),
    "read-only root": is_read_only("/"),
    "disk": is_read_only("/") or size_of("/") <= 8 << 20,
    "tmpfs sizes": all(size_of(place) < memory // 4 for place in tmpfs),
    "files of the host": not (can_write("/shown/file", os.O_CREAT) or remounted("/shown")),
    "devices": not os.path.exists("/dev/kmsg") and not makes_a_device(),
    "rlimits": any(list(resource.getrlimit(number)) != asked["rlimits"][number] for number in range(16)),
    "init": os.getppid() == 1,
    "session": os.getsid(0) > 0 and not can_open("/dev/tty"),
    "descriptors": {int(name) for name in os.listdir("/proc/self/fd") if can_open(f"/proc/self/fd/{name}")} <= {0, 1, 2},
}
if is_read_only("/"):  # else there is no place that it alone forbids
    found["landlock"] = not can_write("/etc/hosts")
print(json.dumps(found))
"""


def own_bounding_set():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd"))


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Of each container, what explain() says and what was found in it: ``{name: (walls, findings)}``."""
    shown = tmp_path_factory.mktemp("shown")
    shown.chmod(0o777)
    plain = HOST.explain()
    asked = {
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES},
        "capabilities": [own_bounding_set(), (2 << engine().facts.last_capability) - 1],
        "rlimits": [resource.getrlimit(number) for number in range(16)],
        "masked": plain["masked paths"].what.split(", "),
        "protected": plain["read-only paths"].what.split(", "),
        "numbers": NUMBERS,
    }
    found = {}
    for name, container in CONTAINERS.items():
        box = container.mount(shown, "/shown", read_only=name != "open").file(
            "/asked.json", json.dumps(asked)
        )
        inside = json.loads(box.run("python3", "-I", "-c", LOOK, check=True).stdout)
        with box.start("sleep", "600") as running:
            stats = running.stats()
        inside |= {"memory": stats.memory_limit is not None, "pids": stats.pids_limit is not None}
        found[name] = (box.explain(), inside)
    return found


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_claimed_of_each_wall_is_what_is_found_inside(observed, name):
    walls, inside = observed[name]
    claimed = {wall: walls[wall].stands for wall in inside}
    assert claimed == inside


def test_every_wall_is_looked_at(observed):
    """Those that are counted by control groups are hit by payloads elsewhere; a lifetime is seen by who kills the owner."""
    walls = {wall.name for explained, _ in observed.values() for wall in explained}
    seen = {wall for _, inside in observed.values() for wall in inside}
    assert walls - seen == {"lifetime", "output", "swap", "cpus"}


def test_a_wall_that_can_be_missing_is_seen_missing(observed, privilege):
    """Otherwise its probe could say yes to everything."""
    missing = {wall for _, inside in observed.values() for wall, stands in inside.items() if not stands}
    possible = {wall for _, inside in observed.values() for wall in inside} - ALWAYS
    if privilege != "root":  # there they always are
        possible -= {"user namespace", "read-only /sys"}
    assert possible <= missing


def test_ports_and_ways_out_have_a_line_where_there_are_any():
    """What leads in and out is no secret of the options."""
    assert not {"way out", "published ports"} & {wall.name for wall in HOST.explain().walls}
    walls = {wall.name: wall for wall in HOST.network("private").publish(80, 8080).explain().walls}
    assert not walls["way out"].stands
    assert "127.0.0.1:8080->80/tcp" in walls["published ports"].because
