"""Calls into the kernel that would lead out, or to parts of it that nobody inside needs."""

import json
import os
from pathlib import Path

import pytest

from pycontain import Container
from pycontain.kernel.syscall_tables import Abi, numbers_of

NATIVE = {"x86_64": Abi.X86_64, "aarch64": Abi.AARCH64}[os.uname().machine]
SOURCE = (Path(__file__).parent / "attempts.py").read_text()

NAMESPACES = ("NEWUSER", "NEWNS", "NEWPID", "NEWNET", "NEWUTS", "NEWIPC", "NEWCGROUP", "NEWTIME")
MOUNTS = (
    "mount_tmpfs", "mount_proc", "mount_cgroup", "mount_bind", "remount_proc_sys", "unmount_a_mask",
    "clone_a_mount", "open_a_file_system", "change_a_mount", "pivot",
)  # fmt: skip
UNSHARES = tuple(f"unshare_{name}" for name in NAMESPACES)
CLONES = tuple(f"clone_{name}" for name in NAMESPACES if name != "NEWTIME")
CLONES3 = tuple(f"clone3_{name}" for name in NAMESPACES)
KEYS = ("keyctl", "add_key", "request_key")
OTHERS = (
    "setns", "bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "open_by_handle", "init_module", "kexec_load",
    "set_the_clock", "reboot", "read_kernel_messages", "swap_on", "packet_socket", "vsock",
)  # fmt: skip
DEVICES = ("device_zero", "device_mem", "device_disk", "device_loop", "device_in_dev")
KERNEL_FILES = (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/fs/file-max",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/kernel/randomize_va_space",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
)


def attempts(container, *names):
    """How each attempt ended in *container*."""
    armed = container.file("/attempts.py", SOURCE).file("/numbers.json", json.dumps(dict(numbers_of(NATIVE))))
    done = armed.run("python3", "-I", "/attempts.py", *names)
    assert done.ok, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ordinary():
    """How all of it ends in a container as it is by default."""
    names = (*MOUNTS, *UNSHARES, *CLONES, *CLONES3, *KEYS, *OTHERS, *DEVICES, *KERNEL_FILES)
    return attempts(Container("host:"), *names)


@pytest.mark.parametrize("name", MOUNTS)
def test_mounting_from_inside(ordinary, name):
    assert ordinary[name] == "EPERM"


def test_mounting_would_succeed_without_walls(unwalled):
    assert set(attempts(unwalled, *MOUNTS).values()) == {"done"}


@pytest.mark.parametrize("name", [*UNSHARES, *CLONES])
def test_namespaces_from_inside(ordinary, name):
    assert ordinary[name] == "EPERM"


@pytest.mark.parametrize("name", CLONES3)
def test_clone3_is_not_there_so_that_clone_is_asked(ordinary, name):
    """Its flags are in memory, where no filter sees them; glibc falls back on ENOSYS."""
    assert ordinary[name] == "ENOSYS"


def test_namespaces_would_be_made_without_walls(unwalled):
    assert set(attempts(unwalled, *UNSHARES, *CLONES, *CLONES3).values()) == {"done"}


@pytest.mark.parametrize("name", KEYS)
def test_keyrings(ordinary, name):
    assert ordinary[name] == "EPERM"


def test_keyrings_would_answer_without_the_filter(unwalled):
    assert set(attempts(unwalled, *KEYS).values()) == {"done"}


@pytest.mark.parametrize("name", OTHERS)
def test_parts_of_the_kernel_that_nobody_inside_needs(ordinary, name):
    assert ordinary[name] == "EPERM"


@pytest.mark.root
def test_these_parts_would_be_reached_without_walls(unwalled):
    harmless = (
        "setns",
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "io_uring_setup",
        "open_by_handle",
        "packet_socket",
    )
    done = attempts(unwalled, *harmless)
    assert {name for name, result in done.items() if result == "EPERM"} == set(), done


@pytest.mark.parametrize("name", DEVICES)
def test_raw_devices(ordinary, name, privilege):
    """Where one id is mapped mknod(2) claims to have made a node, for the sake of package managers; there is none."""
    assert ordinary[name] == ("ENOENT" if privilege == "single" else "EPERM")


@pytest.mark.root
def test_device_nodes_would_be_made_without_walls(unwalled):
    """Those outside of /dev could still not be opened: the root is mounted nodev."""
    done = attempts(unwalled, "device_zero", "device_in_dev")
    assert done == {"device_zero": "EACCES", "device_in_dev": "done"}


@pytest.mark.parametrize("path", KERNEL_FILES)
def test_proc_sys_and_sysrq_writes(ordinary, path):
    """CVE-2025-52881 and its kin want to end here: core_pattern names a program that the kernel runs as root."""
    assert ordinary[path] in {"EROFS", "EACCES", "ENOENT", "EPERM"}


@pytest.mark.root
def test_sysrq_and_core_pattern_would_be_writable_without_masks(unmasked):
    done = attempts(unmasked, "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern")
    assert done["/proc/sys/kernel/core_pattern"] == "done"
    assert done["/proc/sysrq-trigger"] in {"done", "ENOENT"}  # a kernel may be without


RELEASE_AGENT = """
import json, os, attempts
found = [os.path.join(folder, "release_agent") for folder, _, names in os.walk("/sys/fs/cgroup") if "release_agent" in names]
results = {}
for flags in (0x10000000 | 0x02000000 | 0x00020000, 0x02000000 | 0x00020000):
    results[hex(flags)] = attempts.outcome(lambda: attempts.call("unshare", flags))
for controller in ("memory", "rdma", "pids"):
    results[controller] = attempts.outcome(lambda: attempts.call("mount", b"cgroup", b"/tmp", b"cgroup", 0, controller.encode()))
print(json.dumps([found, results]))
"""


def test_release_agent_cve_2022_0492():
    """A v1 hierarchy mounted anew, in a user namespace if need be, has a file that names a program for the host."""
    container = (
        Container("host:")
        .file("/attempts.py", SOURCE)
        .file("/numbers.json", json.dumps(dict(numbers_of(NATIVE))))
    )
    done = container.env(PYTHONPATH="/").run("python3", "-c", RELEASE_AGENT)
    assert done.ok, done.stderr
    found, results = json.loads(done.stdout)
    assert found == []
    assert set(results.values()) == {"EPERM"}


CHROOT = """
import os
os.makedirs("/tmp/trap")
top = os.open("/", os.O_RDONLY)
os.chroot("/tmp/trap")
os.fchdir(top)
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print(open("/etc/hostname").read().strip(), os.path.exists("/mark-of-the-outside"))
"""


def test_a_chroot_is_left_and_the_container_is_not(tmp_path):
    """The root was pivoted, so above it there is nothing; chroot(2) alone would not hold."""
    done = Container("host:").hostname("box").run("python3", "-c", CHROOT)
    assert done.stdout == "box False\n", done.stderr
