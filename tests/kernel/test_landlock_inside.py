"""Landlock as a second wall: what it adds to the first, and what it leaves alone."""

import pytest

from pycontain import Container
from pycontain.errors import HostUnsupported
from pycontain.runtime.engine import engine
from pycontain.sandbox.landlock import LEAST_VERSION

HOST = Container("host:")
WALLED = HOST.landlock()
STRICT = WALLED.read_only().tmpfs("/tmp")


def sh(script, container=WALLED):
    return container.run("sh", "-c", script)


@pytest.fixture(autouse=True)
def version():
    found = engine().facts.landlock
    if found < LEAST_VERSION:
        with pytest.raises(HostUnsupported, match="Landlock"):
            WALLED.run("true")
        pytest.skip("no Landlock here")
    return found


def test_no_mount_can_be_changed_whatever_the_capabilities():
    admin = WALLED.capabilities(add=["SYS_ADMIN"]).seccomp("unconfined")
    done = sh("mount -t tmpfs none /mnt || umount /dev/shm || mount -o remount,rw /sys || echo denied", admin)
    assert done.stdout == "denied\n"


def test_no_device_node_can_be_made(privilege):
    """EACCES is Landlock's word, and EPERM that of the capability that is missing."""
    if privilege == "single":
        pytest.skip("where one id is mapped the call is answered by a filter")
    assert "Permission denied" in sh("mknod /dev/shm/c c 1 3").stderr
    assert "not permitted" in sh("mknod /dev/shm/c c 1 3", HOST).stderr
    assert sh("mknod /p p").ok


def test_files_can_be_made_moved_and_linked_between_directories():
    script = "mkdir -p /a /b; echo x > /a/f; mv /a/f /b/f; ln /b/f /a/g; mv /a /b/a; rm -r /b; : > /tmp/t; truncate -s 9 /tmp/t"
    assert sh(script).check().stderr == ""


def test_terminals_work():
    assert WALLED.run("python3", "-c", "import pty; pty.spawn(['stty', '-a'])").ok


def test_an_ordinary_user_can_work(privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    user = STRICT.tmpfs("/closed", mode=0o700).user("1000")
    assert sh("echo x > /tmp/x && mv /tmp/x /tmp/y && cat /tmp/y", user).stdout == "x\n"


def test_a_read_only_root_has_its_writable_places():
    done = sh("echo x > /tmp/x && echo x > /dev/shm/x && echo x > /dev/null && cat /tmp/x /dev/shm/x", STRICT)
    assert done.check().stdout == "x\nx\n"


def test_then_nothing_in_proc_can_be_written():
    """By file modes and mounts alone it could: what a process may change of itself."""
    assert "denied" in sh("echo x > /proc/self/comm", STRICT).stderr
    assert sh("echo x > /proc/self/comm", HOST.read_only()).ok


def test_a_mount_can_be_written_and_a_read_only_one_not(tmp_path):
    (tmp_path / "ro").mkdir()
    (tmp_path / "rw").mkdir()
    tmp_path.chmod(0o755)
    box = STRICT.mount(tmp_path / "ro", "/ro", read_only=True).mount(tmp_path / "rw", "/rw")
    assert sh("echo x > /rw/x; echo x > /ro/x", box).stderr.count("cannot create") == 1
    assert (tmp_path / "rw" / "x").read_text() == "x\n"


def test_a_file_that_was_put_there_can_be_changed():
    done = sh("echo y >> /etc/x && cat /etc/x", STRICT.file("/etc/x", "x\n"))
    assert done.stdout == "x\ny\n"


def test_a_command_of_exec_is_behind_it_too_and_apart_from_the_payload(version):
    """So it is not the default: kill(1), pidof(1) and debuggers by exec work without it."""
    with STRICT.start("sleep", "infinity") as running:
        assert "denied" in running.exec("sh", "-c", "echo x > /proc/self/comm").stderr
        pid = running.exec("sh", "-c", "grep -l sleep /proc/[0-9]*/comm").stdout.split("/")[2]
        assert not running.exec("readlink", f"/proc/{pid}/exe").ok
        assert running.exec("kill", "-0", pid).ok == (version < 6)
        assert running.stop().signal is not None


def test_without_it_they_do():
    with HOST.start("sleep", "infinity") as running:
        pid = running.exec("sh", "-c", "grep -l sleep /proc/[0-9]*/comm").stdout.split("/")[2]
        assert running.exec("readlink", f"/proc/{pid}/exe").ok
        assert running.exec("kill", "-0", pid).ok
