"""Devices of the host inside, and the wall around all others."""

import os
import stat

import pytest

from pycontain import Container
from pycontain.errors import HostUnsupported, StepFailed
from pycontain.runtime import delegation
from pycontain.runtime.engine import engine
from pycontain.sandbox.steps import JoinCgroup

HOST = Container("host:")
FULL = "/dev/full"


def sh(script, container):
    return container.run("sh", "-c", script)


@pytest.fixture
def listed():
    """A container that may make nodes, where the kernel can be told which may be opened."""
    if engine().facts.rootless:
        pytest.skip("in a user namespace nodes that are made there cannot be opened, and no list is kept")
    if "devices" not in delegation.Access.probe().versions():
        pytest.skip("no devices controller here")
    return HOST.userns("host").capabilities(add=["MKNOD"])


@pytest.fixture
def disk():
    """A block device of the machine."""
    found = [f"/dev/{name}" for name in sorted(os.listdir("/sys/block")) if os.path.exists(f"/dev/{name}")]
    if not found:
        pytest.skip("no block device here")
    return found[0]


# --- what is given --------------------------------------------------------------------------------------


def test_a_device_is_there_and_works():
    done = sh(
        "head -c 3 /dev/mine | od -An -c; cat /proc/version > /dev/mine", HOST.device(FULL, "/dev/mine")
    )
    assert done.stdout.split() == [r"\0"] * 3
    assert "No space left" in done.stderr


def test_it_can_be_outside_of_dev():
    assert sh("head -c 1 /opt/mine | wc -c", HOST.device(FULL, "/opt/mine")).stdout == "1\n"


def test_its_mode_cannot_be_changed_from_inside():
    before = os.stat(FULL).st_mode
    assert not sh("chmod 600 /dev/mine", HOST.device(FULL, "/dev/mine")).ok
    assert os.stat(FULL).st_mode == before


def test_other_nodes_of_the_host_are_not_there():
    """Their mount is that of one node, not of all /dev."""
    assert sorted(sh("ls /dev", HOST.device(FULL, "/dev/mine")).stdout.split()) == sorted(
        {*sh("ls /dev", HOST).stdout.split(), "mine"}
    )


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(StepFailed, match=r"no device /dev/nonsense"):
        HOST.device("/dev/nonsense").run("true")


@pytest.mark.parametrize("path", ["/dev", "/etc/passwd"])
def test_what_is_no_device_is_named(path):
    with pytest.raises(StepFailed, match="no device node"):
        HOST.device(path, "/dev/mine").run("true")


def test_a_link_of_the_image_to_proc_does_not_take_it():
    with pytest.raises(StepFailed, match="tree of the kernel"):
        HOST.device(FULL, "/dev/stdin").run("true")


# --- the list -------------------------------------------------------------------------------------------


@pytest.mark.rootless
def test_a_part_of_the_access_is_refused_where_nobody_can_keep_it():
    with pytest.raises(HostUnsupported, match="part of its access"):
        HOST.device(FULL, "/dev/mine", "r").run("true")


@pytest.mark.rootless
def test_unless_required_it_is_left_out_and_said():
    wanted = HOST.device(FULL, "/dev/mine", "r").limits(required=False)
    assert "left out: devices" in str(wanted.plan("true")).splitlines()[0]


@pytest.mark.rootless
def test_a_node_that_is_made_in_a_user_namespace_is_of_no_use():
    done = sh("mknod /dev/mine c 1 5; head -c 1 /dev/mine", HOST.capabilities(add=["MKNOD"]))
    assert (done.ok, done.stdout) == (False, "")


def test_a_disk_cannot_be_opened_by_who_may_make_its_node(listed, disk):
    numbers = os.stat(disk).st_rdev
    done = sh(f"mknod /dev/disk b {os.major(numbers)} {os.minor(numbers)} && head -c 1 /dev/disk", listed)
    assert "cannot open" in done.stderr
    assert "Operation not permitted" in done.stderr


def test_nor_by_who_may_mount(disk, listed):
    """devtmpfs has every node of the machine."""
    admin = HOST.userns("host").capabilities(add=["SYS_ADMIN"]).seccomp("unconfined")
    done = sh(f"mkdir /d && mount -t devtmpfs none /d && head -c 1 /d/{os.path.basename(disk)}", admin)
    assert "Operation not permitted" in done.stderr


def test_its_own_nodes_and_terminals_work(listed):
    script = "mknod /dev/mine c 1 5 && head -c 2 /dev/mine | wc -c; echo x > /dev/null; python3 -c 'import os; os.openpty()'"
    done = sh(script, listed)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_given_disk_can_be_read_and_with_r_not_written(listed, disk):
    done = sh("head -c 0 /dev/disk && echo read; echo > /dev/disk", HOST.device(disk, "/dev/disk", "r"))
    assert done.stdout == "read\n"
    assert "Operation not permitted" in done.stderr


def test_an_exec_meets_the_same_list(listed, disk):
    numbers = os.stat(disk).st_rdev
    with listed.start("sleep", "infinity") as running:
        script = f"mknod /dev/disk b {os.major(numbers)} {os.minor(numbers)} && head -c 1 /dev/disk"
        assert "Operation not permitted" in running.exec("sh", "-c", script).stderr


def test_without_such_a_capability_there_is_no_group():
    assert not any(isinstance(step, JoinCgroup) for step in HOST.device(FULL, "/dev/mine").plan("true").steps)


def test_an_image_cannot_bring_a_node_that_opens():
    """The root is mounted nodev, and so is all that the user mounts."""
    lines = [line.split() for line in HOST.tmpfs("/t").run("cat", "/proc/self/mounts").stdout.splitlines()]
    places = {fields[1]: set(fields[3].split(",")) for fields in lines}
    assert {"nodev"} <= places["/"] & places["/t"]


def test_the_list_is_a_program_in_v2(listed, disk):
    """The group of a pure v2 host has no files for devices; see the pure tests for what the program says."""
    from pycontain.kernel import cgroupfs
    from pycontain.sandbox.device_filter import compile_filter
    from pycontain.sandbox.devices import DEFAULT

    unified = next((one for one in delegation.probe() if one.version == 2), None)
    if unified is None:
        pytest.skip("no v2 hierarchy here")
    with delegation.locked(unified.folder) as own:
        group = cgroupfs.make_group("pycontain-test-devices", own)
        pid = os.fork()
        if pid == 0:
            try:
                cgroupfs.attach_device_filter(group, compile_filter(DEFAULT))
                cgroupfs.write(group, "cgroup.procs", "0")
                os.close(os.open("/dev/null", os.O_WRONLY))
                os.open(disk, os.O_RDONLY)
            except PermissionError as error:
                os._exit(0 if error.filename == disk else 2)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        os.close(group)
        cgroupfs.remove("pycontain-test-devices", own)
    assert stat.S_ISBLK(os.stat(disk).st_mode)
    assert os.waitstatus_to_exitcode(status) == 0
