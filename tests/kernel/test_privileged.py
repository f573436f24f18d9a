"""A container whose walls are taken away: what is open then, and what stays."""

import os

import pytest

from pycontain import Container
from pycontain.runtime.engine import engine
from pycontain.sandbox.spec import MASKED_PATHS

HOST = Container("host:")
OPEN = HOST.privileged()


def sh(script, container=OPEN):
    return container.run("sh", "-c", script)


def status(container):
    lines = container.run("cat", "/proc/self/status").check().stdout.splitlines()
    return dict(line.split(":\t") for line in lines if ":\t" in line)


def test_it_has_every_capability_that_there_is():
    found = status(OPEN)
    with open("/proc/self/status") as file:
        own = next(line.split()[1] for line in file if line.startswith("CapBnd"))
    wanted = (1 << engine().facts.last_capability + 1) - 1
    if not engine().facts.rootless:
        wanted &= int(own, 16)  # root may lack some itself
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == wanted


def test_there_is_no_filter_and_no_no_new_privs():
    found = status(OPEN)
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("0", "0")


def test_a_filter_brings_no_new_privs_back():
    found = status(OPEN.seccomp("default"))
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")


def test_nothing_is_masked_and_its_own_settings_can_be_written():
    mounts = sh("cut -d' ' -f2 /proc/self/mounts").check().stdout.split()
    assert not set(mounts) & {*MASKED_PATHS, "/proc/sys"}
    assert sh("echo 1 > /proc/sys/net/ipv4/ip_forward").ok


def test_it_may_mount_and_make_namespaces():
    assert sh("mkdir /m && mount -t tmpfs none /m && unshare -m true").ok


def test_the_devices_of_the_host_are_there():
    nodes = [name for name in ("loop-control", "fuse", "kvm", "net/tun") if os.path.exists(f"/dev/{name}")]
    script = "".join(f"test -c /dev/{name} && " for name in nodes) + "head -c 1 /dev/zero > /dev/null"
    assert sh(script).ok


def test_its_terminals_are_its_own():
    assert sh("ls /dev/pts").stdout.split() == ["ptmx"]


def test_a_later_call_takes_back_what_it_names():
    dropped = OPEN.capabilities(drop=["SYS_ADMIN"])
    assert not sh("mkdir /m && mount -t tmpfs none /m", dropped).ok


def test_an_exec_is_privileged_too():
    with OPEN.start("sleep", "infinity") as running:
        assert running.exec("sh", "-c", "mkdir /m && mount -t tmpfs none /m").ok


def test_the_host_is_still_elsewhere():
    """Namespaces stay: nothing that is mounted, set or named inside is seen outside."""
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        before = file.read()
    other = "0" if before == "1\n" else "1"
    assert sh(f"mount -t tmpfs none /mnt; echo {other} > /proc/sys/net/ipv4/ip_forward; hostname other").ok
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        assert file.read() == before
    assert os.uname().nodename != "other"


@pytest.mark.rootless
def test_for_an_ordinary_user_it_is_root_of_nothing_outside():
    assert sh("cat /etc/shadow; chmod 666 /dev/zero").stderr.count("\n") == 2
