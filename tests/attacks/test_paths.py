"""Paths that the image or a neighbour chose, where the runtime mounts, masks and writes."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from trees import busybox_tree

from pycontain import Container
from pycontain.errors import StepFailed

STATE = """
for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/scsi /proc/acpi /sys/firmware; do
  if [ -d $path ]; then [ -z "$(ls $path)" ] || echo "unmasked $path"
  elif [ -e $path ]; then [ -z "$(head -c 1 $path 2>/dev/null)" ] || echo "unmasked $path"; fi
done
for path in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/irq/default_smp_affinity; do
  [ ! -e $path ] || ! (: >> $path) 2>/dev/null || echo "writable $path"
done
[ -e /proc/self/status ] || echo "no proc"
"""


@pytest.fixture
def tree(tmp_path):
    return busybox_tree(tmp_path / "tree")


@pytest.fixture
def canary(tmp_path):
    """A file of the host that no attack may touch, or see."""
    path = tmp_path / "canary"
    path.write_text("alive")
    yield path
    assert path.read_text() == "alive"


def is_walled(tree, *prepared):
    """Whether a container of this root either does not start, with a typed error, or has all its masks."""
    container = Container(f"rootfs:{tree}")
    for prepare in prepared:
        container = prepare(container)
    try:
        done = container.run("/bin/busybox", "sh", "-c", STATE)
    except StepFailed:
        return True
    assert done.stdout == ""
    return done.ok


def test_the_probe_sees_what_is_not_masked(tree, without):
    without("kernel_masks")
    done = Container(f"rootfs:{tree}").run("/bin/busybox", "sh", "-c", STATE)
    assert "unmasked /proc/interrupts" in done.stdout or "unmasked /proc/timer_list" in done.stdout


def test_masked_paths_are_masked(tree):
    assert is_walled(tree)


LINKS = {
    "proc-link": {"proc": "/evil"},
    "proc-to-sys": {"proc": "/sys"},
    "sys-link": {"sys": "/evil"},
    "dev-link": {"dev": "/evil"},
    "dev-to-proc": {"dev": "/proc"},
    "dev-to-proc-sys": {"dev": "/proc/sys"},
    "all": {"proc": "/evil", "sys": "/evil", "dev": "/evil"},
    "loop": {"proc": "/sys", "sys": "/dev", "dev": "/proc"},
    "above": {"proc": "../../../../../../proc"},
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
def test_mounts_of_the_runtime_through_links_cve_2019_16884_cve_2025_52881(tree, links):
    """With /proc elsewhere the masks, and what is written below /proc, would land on files of the image's choice."""
    (tree / "evil").mkdir()
    for name, target in links.items():
        os.symlink(target, tree / name)
    assert is_walled(tree)


@pytest.mark.parametrize(
    "target", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/kcore", "/evil"]
)
@pytest.mark.parametrize("name", ["null", "console", "pts", "shm", "ptmx", "zero", "fd"])
def test_dev_null_is_a_link_cve_2025_31133_cve_2025_52565(tree, name, target):
    """runc bound the image's /dev/null over what it masks, and a terminal over the image's /dev/console."""
    (tree / "dev").mkdir()
    os.symlink(target, tree / "dev" / name)
    assert is_walled(tree)


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/evil"])
@pytest.mark.parametrize("name", ["dev/console", "dev/pts", "dev/ptmx", "dev"])
def test_a_terminal_is_put_over_a_link_cve_2025_52565(tree, name, target):
    """The container's own terminal is bound at /dev/console."""
    (tree / "evil").mkdir()
    (tree / name).parent.mkdir(exist_ok=True)
    os.symlink(target, tree / name)
    assert is_walled(tree, lambda container: container.tty())


def test_proc_is_a_file(tree):
    (tree / "proc").write_text("")
    assert is_walled(tree)


TARGETS = ("/proc/sys/kernel", "/proc/sysrq-trigger", "/proc/self/attr", "/sys/fs/cgroup", "/proc/1")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["tmpfs", "mount", "file", "secret"])
def test_targets_of_mounts_through_links_into_proc_cve_2025_52881(tree, tmp_path, kind, target):
    """What a user mounts must not cover the kernel's files: a fake /proc/self/attr switched AppArmor off."""
    os.symlink(target, tree / "innocent")
    (tree / "run").mkdir()
    os.symlink(target, tree / "run/secrets")
    (tmp_path / "given").mkdir()
    prepare = {
        "tmpfs": lambda c: c.tmpfs("/innocent"),
        "mount": lambda c: c.mount(tmp_path / "given", "/innocent"),
        "file": lambda c: c.file("/innocent", "x"),
        "secret": lambda c: c.secret("key", "x"),
    }[kind]
    with pytest.raises(StepFailed):
        prepare(Container(f"rootfs:{tree}")).run("true")


@pytest.mark.parametrize("kind", ["tmpfs", "mount", "file"])
def test_targets_of_mounts_through_links_out_of_the_root(tree, tmp_path, canary, kind):
    """An absolute link of the image is a path of the image, however many dots it has."""
    place = os.path.relpath(canary.parent, "/")
    os.symlink(f"../../../../../../../../{place}", tree / "innocent")
    (tmp_path / "given").mkdir()
    prepare = {
        "tmpfs": lambda c: c.tmpfs("/innocent/deep"),
        "mount": lambda c: c.mount(tmp_path / "given", "/innocent/deep"),
        "file": lambda c: c.file("/innocent/canary", "dead"),
    }[kind]
    before = sorted(os.listdir(canary.parent))
    done = prepare(Container(f"rootfs:{tree}")).run("sh", "-c", f"ls /{place}")
    assert done.stdout.split() in (["deep"], ["canary"])  # inside, a place of that name was made
    assert sorted(os.listdir(canary.parent)) == before


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
@pytest.mark.parametrize(
    "target", ["canary", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/dev/null"]
)
def test_hostile_hosts_file(tree, canary, name, target):
    """/etc/hosts of the image may be a link to anywhere; what is written is a new file, mounted inside."""
    (tree / "etc").mkdir()
    os.symlink(str(canary) if target == "canary" else target, tree / "etc" / name)
    assert is_walled(tree)


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_hostile_hosts_file_of_another_kind(tree, name, kind):
    """A fifo that is opened would wait for ever."""
    (tree / "etc").mkdir()
    path = tree / "etc" / name
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    assert is_walled(tree)


# --- races ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def swapping(one, other):
    """Exchange the two again and again, from a process of its own."""
    process = subprocess.Popen([sys.executable, Path(__file__).parent / "swaps.py", one, other])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def host_mounts():
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/", "../../../../../../../../tmp"])
@pytest.mark.parametrize("kind", ["tmpfs", "mount", "file"])
def test_symlink_races_on_mount_targets_cve_2021_30465(tree, tmp_path, canary, kind, target):
    """A neighbour that shares a volume swaps the directory of a mount target for a link while we look it up."""
    volume = tmp_path / "volume"
    (volume / "dir" / "target").mkdir(parents=True)
    os.symlink(target, volume / "link")
    (tmp_path / "given").mkdir()
    container = Container(f"rootfs:{tree}").mount(volume, "/volume")
    container = {
        "tmpfs": lambda c: c.tmpfs("/volume/dir/target"),
        "mount": lambda c: c.mount(tmp_path / "given", "/volume/dir/target"),
        "file": lambda c: c.file("/volume/dir/file", "x"),
    }[kind](container)
    before, ended = host_mounts(), set()
    with swapping(volume / "dir", volume / "link"):
        for _ in range(15):
            try:
                done = container.run("/bin/busybox", "sh", "-c", STATE)
            except StepFailed:
                ended.add("refused")
            else:
                assert done.stdout == ""
                ended.add("started")
    assert host_mounts() == before
    assert not os.path.exists("/tmp/target")


def test_the_swaps_do_happen(tmp_path):
    """What the race lives on: the name is now a directory, now a link."""
    (tmp_path / "dir").mkdir()
    os.symlink("/proc", tmp_path / "link")
    seen = set()
    with swapping(tmp_path / "dir", tmp_path / "link"):
        deadline = threading.Event()
        for _ in range(4000):
            seen.add((tmp_path / "dir").is_symlink())
            if len(seen) == 2:
                break
            deadline.wait(0.001)
    assert seen == {True, False}


def test_masks_cannot_be_moved_away_from_inside():
    """CVE-2023-27561: who renames a directory above a mask has the file below it bare."""
    script = "mv /proc/sys /proc/x || mv /proc /elsewhere || mv /sys /elsewhere || mv /dev /elsewhere; ls -d /elsewhere"
    assert Container("host:").run("sh", "-c", script).stdout == ""
