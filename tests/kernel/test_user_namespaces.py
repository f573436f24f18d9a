"""Root's containers have user namespaces of their own: who is who inside, outside, and on disk."""

import errno
import fcntl
import os
import stat
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from owners import run_owner
from trees import busybox_tree

from pycontain import Container
from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.kernel import syscalls
from pycontain.runtime import engine as engines
from pycontain.runtime import probe, users

HOST = Container("host:")
HIGH = 0x4000_0000  # where ranges begin when /etc/subuid has nothing for root
SEARCH = """
import ctypes, os
NUMBERS = {"x86_64": {"add_key": 248, "keyctl": 250}, "aarch64": {"add_key": 217, "keyctl": 219}}[os.uname().machine]
def keyctl(name, *args):
    return ctypes.CDLL(None).syscall(ctypes.c_long(NUMBERS[name]), *args)
print(keyctl("keyctl", 10, ctypes.c_int(-3), b"user", b"pycontain-test", 0) > 0)
"""


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def outside(running):
    """The uid on the host of the container's root."""
    return int(status_of(running.pid)["Uid"].split()[0])


def upper_with(name):
    """Where the container of this owner writes that has made *name*."""
    layers = Path(engines.engine().folder) / "layers"
    return next(path for path in layers.glob("*/upper") if (path / name).exists())


def python(container, source, *args):
    """The output of a Python program inside."""
    done = container.run("python3", "-I", "-c", source, *args)
    assert done.ok, done.stderr
    return done.stdout


@pytest.fixture
def rootfs(tmp_path):
    return busybox_tree(tmp_path / "root")


@pytest.fixture
def overlay(tmp_path):
    """A directory on a file system that cannot be idmapped, as the zygote sees it too."""
    for name in ("one", "two", "place"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "open").write_text("for all")
    (tmp_path / "one" / "secret").write_text("of root")
    (tmp_path / "one" / "secret").chmod(0o600)
    place = str(tmp_path / "place")
    syscalls.mount("overlay", place, "overlay", 0, f"lowerdir={tmp_path}/one:{tmp_path}/two")
    yield tmp_path / "place"
    syscalls.umount2(place, syscalls.MNT_DETACH)


# --- who is who -----------------------------------------------------------------------------------------


@pytest.mark.root
def test_root_inside_is_nobody_outside():
    with HOST.start("sleep", "infinity") as running:
        found = status_of(running.pid)
        ids = {*found["Uid"].split(), *found["Gid"].split(), *found["Groups"].split()}
        assert all(int(number) >= HIGH for number in ids)
        assert running.exec("id", "-u").stdout == "0\n"


@pytest.mark.root
def test_no_two_containers_share_ids():
    with ExitStack() as stack:
        firsts = sorted(outside(stack.enter_context(HOST.start("sleep", "infinity"))) for _ in range(5))
    assert all(late - early >= users.COUNT for early, late in pairwise(firsts))


@pytest.mark.root
def test_no_two_owners_share_ids():
    """They know nothing of each other, but the file of locks."""
    with HOST.start("sleep", "infinity") as running:
        code, out, err = run_owner("""
            from pathlib import Path
            from pycontain import Container
            with Container("host:").start("sleep", "infinity") as running:
                print(Path(f"/proc/{running.pid}/uid_map").read_text().split()[1])
        """)
        assert (code, err) == (0, "")
        assert abs(int(out) - outside(running)) >= users.COUNT


@pytest.mark.root
def test_ids_of_containers_that_have_ended_are_used_again():
    firsts = {HOST.run("cat", "/proc/self/uid_map").stdout.split()[1] for _ in range(12)}
    assert len(firsts) <= 4  # one that runs, one that is about to be reaped, and the next


@pytest.mark.root
def test_a_user_inside_is_nobody_outside():
    with HOST.user("1000:1000").start("sleep", "infinity") as running:
        assert outside(running) >= HIGH
        assert running.exec("id", "-u").stdout == "1000\n"


@pytest.mark.root
def test_an_exec_is_in_the_same_namespace():
    with HOST.start("sleep", "infinity") as running:
        maps = {running.exec("cat", "/proc/self/uid_map", "/proc/self/gid_map").stdout for _ in range(3)}
        maps.add(
            Path(f"/proc/{running.pid}/uid_map").read_text()
            + Path(f"/proc/{running.pid}/gid_map").read_text()
        )
        assert len(maps) == 1
        namespace = running.exec("readlink", "/proc/self/ns/user").stdout.strip()
        assert namespace == os.readlink(f"/proc/{running.pid}/ns/user") != os.readlink("/proc/self/ns/user")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])
def test_every_namespace_belongs_to_the_containers_own(kind):
    """ioctl_ns(2), NS_GET_USERNS: whose capabilities count for it."""
    with HOST.start("sleep", "infinity") as running:
        ours = os.stat("/proc/self/ns/user").st_ino
        with open(f"/proc/{running.pid}/ns/{kind}", "rb") as namespace:
            parent = fcntl.ioctl(namespace, 0xB702 if kind == "user" else 0xB701)
        found = os.fstat(parent).st_ino
        os.close(parent)
        assert found == (ours if kind == "user" else os.stat(f"/proc/{running.pid}/ns/user").st_ino)


@pytest.mark.root
def test_host_is_explicit():
    with HOST.userns("host").start("sleep", "infinity") as running:
        assert outside(running) == 0
        assert os.readlink(f"/proc/{running.pid}/ns/user") == os.readlink("/proc/self/ns/user")


@pytest.mark.rootless
@pytest.mark.parametrize("mode", ["auto", "private", "host"])
def test_without_root_it_is_the_zygotes(mode):
    with HOST.userns(mode).start("sleep", "infinity") as running:
        zygotes = os.readlink(f"/proc/{running.pid}/ns/user")
        assert zygotes != os.readlink("/proc/self/ns/user")
        assert outside(running) == os.getuid()


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidSpec, match=r"keep-id.*auto, private, host"):
        HOST.userns("keep-id")


@pytest.mark.parametrize("user", ["0:0", "65534:65534"])
def test_standard_output_can_be_opened_again(user, privilege):
    if privilege == "single" and user != "0:0":
        pytest.skip("one id is mapped")
    again = HOST.user(user)
    assert again.run("sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr").stdout == "a\n"
    with again.start("sleep", "infinity") as running:
        assert running.exec("sh", "-c", "echo a > /dev/stdout").stdout == "a\n"


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.root
def test_files_of_the_image_keep_their_owners(rootfs):
    (rootfs / "of-a-user").write_text("")
    os.chown(rootfs / "of-a-user", 1000, 65534)
    script = "stat -c %u:%g /bin/busybox /of-a-user / /proc/self/"
    assert Container(f"rootfs:{rootfs}").run("sh", "-c", script).stdout == "0:0\n1000:65534\n0:0\n0:0\n"


@pytest.mark.root
def test_a_chown_inside_is_the_same_number_on_disk(rootfs):
    """As apt-get does it for a package's user; nothing on disk knows of the range."""
    (rootfs / "of-the-image").write_text("x")
    script = "echo y > /new; busybox chown 1000:65534 /new /of-the-image; busybox mkdir /d; busybox chown 33 /d; exec sleep 999"
    with Container(f"rootfs:{rootfs}").start("sh", "-c", script) as running:
        running.exec("sh", "-c", 'while [ "$(stat -c %u /d)" != 33 ]; do :; done', timeout=20)
        upper = upper_with("of-the-image")
        owners = {
            name: (found.st_uid, found.st_gid)
            for name in ("new", "of-the-image", "d")
            if (found := os.stat(upper / name))
        }
        assert owners == {"new": (1000, 65534), "of-the-image": (1000, 65534), "d": (33, 0)}
    assert os.stat(rootfs / "of-the-image").st_uid == 0


@pytest.mark.root
def test_capabilities_of_a_file_are_the_containers(rootfs):
    """capabilities(7): a version 3 attribute holds for one user namespace; on disk it names no id of the range."""
    value = bytes.fromhex("0100000202000000") + bytes(12)
    source = f"""
import os, time
open("/f", "w").close()
os.setxattr("/f", "security.capability", {value!r})
open("/done", "w").close()
time.sleep(999)
"""
    with HOST.start("python3", "-c", source) as running:
        running.exec("sh", "-c", "while [ ! -e /done ]; do :; done", timeout=20)
        assert os.getxattr(upper_with("done") / "f", "security.capability") == value


@pytest.mark.root
def test_a_mount_keeps_the_owners_of_the_host(tmp_path):
    (tmp_path / "theirs").write_text("x")
    os.chown(tmp_path / "theirs", 1000, 1001)
    tmp_path.chmod(0o777)
    mounted = HOST.mount(tmp_path, "/m")
    assert mounted.run("stat", "-c", "%u:%g", "/m/theirs").stdout == "1000:1001\n"
    mounted.user("1000:1000").run("touch", "/m/by-a-user", check=True)
    mounted.run("touch", "/m/by-root", check=True)
    assert [(tmp_path / name).stat().st_uid for name in ("by-a-user", "by-root")] == [1000, 0]


@pytest.mark.root
def test_owners_beyond_the_range_are_nobody(tmp_path):
    (tmp_path / "far").write_text("x")
    os.chown(tmp_path / "far", 70_000, 70_000)
    (tmp_path / "far").chmod(0o600)
    mounted = HOST.mount(tmp_path, "/m")
    assert mounted.run("stat", "-c", "%u", "/m/far").stdout == "65534\n"
    assert "Permission denied" in mounted.run("cat", "/m/far").stderr


@pytest.mark.root
def test_what_cannot_be_idmapped_is_nobodys(overlay):
    """So it is readable as far as everybody may read it, and a private file of root stays private."""
    mounted = HOST.mount(overlay, "/m")
    assert mounted.run("stat", "-c", "%u", "/m/open").stdout == "65534\n"
    assert mounted.run("cat", "/m/open").stdout == "for all"
    assert "Permission denied" in mounted.run("cat", "/m/secret").stderr


@pytest.mark.root
def test_a_mount_below_a_mount_that_cannot_be_idmapped(overlay):
    """The upper one is translated, the lower is nobody's."""
    mounted = HOST.mount(overlay.parent, "/m")
    assert mounted.run("stat", "-c", "%u", "/m/one/secret", "/m/place/secret").stdout == "0\n65534\n"


@pytest.mark.root
def test_an_image_that_cannot_be_idmapped(rootfs, tmp_path):
    """``auto`` does without and says so, ``private`` refuses."""
    for name in ("empty", "shown"):
        (tmp_path / name).mkdir()
    shown = str(tmp_path / "shown")
    syscalls.mount("overlay", shown, "overlay", 0, f"lowerdir={rootfs}:{tmp_path}/empty")
    try:
        container = Container(f"rootfs:{shown}")
        assert "the host's user namespace (the file system of" in str(container.plan("true")).split("\n")[0]
        assert container.run("cat", "/proc/self/uid_map").stdout.split()[1] == "0"
        with pytest.raises(HostUnsupported, match="cannot be idmapped"):
            container.userns("private").run("true")
    finally:
        syscalls.umount2(shown, syscalls.MNT_DETACH)


@pytest.mark.root
def test_more_mounts_than_a_packet_has_descriptors(tmp_path):
    """unix(7): 253."""
    container = HOST
    for number in range(260):
        container = container.mount(tmp_path, f"/mnt/{number}", read_only=True)
    assert len(container.run("ls", "/mnt").stdout.split()) == 260


def test_a_file_that_is_longer_than_a_packet():
    content = os.urandom(1 << 20).hex()
    assert HOST.file("/long", content).run("wc", "-c", "/long").stdout.split()[0] == str(2 << 20)


@pytest.mark.root
def test_a_device_is_the_containers_roots(tmp_path):
    """The node of the host would be nobody's; this one has its mode, and an owner who is inside."""
    os.mknod(tmp_path / "own", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    container = HOST.device(str(tmp_path / "own"), "/dev/mine")
    assert container.run("stat", "-c", "%a %u:%g", "/dev/mine").stdout == "600 0:0\n"
    assert container.run("head", "-c", "3", "/dev/mine").stdout == "\0\0\0"
    assert "Permission denied" in container.user("1000").run("head", "-c", "3", "/dev/mine").stderr
    assert "Read-only" in container.run("chmod", "666", "/dev/mine").stderr


# --- power inside is none outside -----------------------------------------------------------------------

MIGHTY = HOST.capabilities(add=["ALL"]).seccomp("unconfined")
MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
source, target, kind, flags = sys.argv[1:5]
result = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(int(flags)), None)
print(os.strerror(ctypes.get_errno()) if result else "done")
"""
REMOUNT_WRITABLE = str(syscalls.MS_REMOUNT | syscalls.MS_BIND)


@pytest.mark.root
def test_all_capabilities_can_mount_what_a_namespace_may():
    assert python(MIGHTY, MOUNT, "none", "/mnt", "tmpfs", "0") == "done\n"


@pytest.mark.root
def test_all_capabilities_mount_no_disk(rootfs, tmp_path):
    """Neither of a node of the image, which does not open, nor of one that is made, which cannot be."""
    disk = os.stat(tmp_path).st_dev
    os.mknod(rootfs / "disk", stat.S_IFBLK | 0o666, disk)
    container = Container(f"rootfs:{rootfs}").capabilities(add=["ALL"]).seccomp("unconfined")
    assert "Permission denied" in container.run("sh", "-c", "cat /disk > /dev/null").stderr
    assert not container.run("sh", "-c", "mount -o remount,dev / && cat /disk > /dev/null").ok
    assert "permitted" in container.run("sh", "-c", "busybox mknod /own b 8 0").stderr
    assert not container.run("sh", "-c", "busybox mkdir /m; mount -t ext4 /disk /m").ok


@pytest.mark.root
def test_all_capabilities_write_nothing_of_the_host(tmp_path):
    """What is read-only can be made writable by who may mount; it is nobody's, so it is not written all the same."""
    (tmp_path / "f").write_text("x")
    shown = MIGHTY.mount(tmp_path, "/m", read_only=True)
    for place in ("/usr", "/m"):
        assert python(shown, MOUNT, "none", place, "none", REMOUNT_WRITABLE) == "done\n"
    remount = "mount -o remount,bind,rw /usr; mount -o remount,bind,rw /m; touch /usr/x /m/x; echo y > /m/f"
    assert shown.run("sh", "-c", remount).stderr.count("Permission denied") == 3
    assert (tmp_path / "f").read_text() == "x"
    assert not os.path.exists("/usr/x")


@pytest.mark.root
@pytest.mark.parametrize(
    "path", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"]
)
def test_all_capabilities_set_nothing_of_the_kernel(path):
    """The mounts over them are the container's to take away; the files belong to the host's root."""
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    source = f"""
import ctypes
libc = ctypes.CDLL(None)
for place in ("/proc/sys", "/proc/sysrq-trigger"):
    libc.umount2(place.encode(), 2)
try:
    open({path!r}, "r+b", buffering=0).close()
    print("opened")
except OSError as error:
    print(error.errno)
"""
    assert python(MIGHTY, source) in {f"{errno.EACCES}\n", f"{errno.EPERM}\n"}


@pytest.mark.root
@pytest.mark.parametrize("name", ["environ", "mem", "root", "fd", "maps"])
def test_the_init_cannot_be_looked_into(name):
    """It was forked and never executed anything, so it is the zygote's memory still."""
    source = f"""
import os
try:
    os.listdir("/proc/1/{name}") if "{name}" in ("root", "fd") else open("/proc/1/{name}", "rb").read(1)
    print("seen")
except OSError as error:
    print(error.errno)
"""
    assert python(MIGHTY, source) in {f"{errno.EACCES}\n", f"{errno.EPERM}\n"}


@pytest.mark.root
def test_no_user_namespace_inside():
    """user.max_user_namespaces of the own one; seccomp forbids it besides."""
    unfiltered = HOST.seccomp("unconfined")
    done = unfiltered.run("unshare", "--user", "true")
    assert "No space left" in done.stderr
    assert "permitted" in HOST.run("unshare", "--user", "true").stderr
    assert unfiltered.run("cat", "/proc/sys/user/max_user_namespaces").stdout == "0\n"


@pytest.mark.root
def test_who_may_mount_may_nest():
    assert (
        HOST.capabilities(add=["SYS_ADMIN"]).run("unshare", "--user", "--map-root-user", "id", "-u").stdout
        == "0\n"
    )


def test_the_keys_of_the_owner_stay_outside():
    """keyrings(7): a session keyring is inherited by all that is forked and executed."""
    lines = (
        f"search = {SEARCH!r}",
        "exec(search)",
        "keyctl('keyctl', 1, 0)  # a session keyring of our own",
        "assert keyctl('add_key', b'user', b'pycontain-test', b'secret', ctypes.c_size_t(6), ctypes.c_int(-3)) > 0",
        "exec(search)",
        "from pycontain import Container",
        "box = Container('host:').seccomp('unconfined')",
        "print(box.run('python3', '-c', search).stdout, end='')",
        "with box.start('sleep', 'infinity') as running:",
        "    print(running.exec('python3', '-c', search).stdout, end='')",
    )
    assert run_owner("\n".join(lines)) == (0, "False\nTrue\nFalse\nFalse\n", "")


# --- ranges ---------------------------------------------------------------------------------------------


def test_a_range_is_for_one_process(tmp_path):
    """Two zygotes, as far as the lock is concerned."""
    pool = ((7_000_000, 8_000_000, 2),)
    ours = users.Ranges(pool, os.open(tmp_path / "ids", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC))
    taken = {ours.take()}
    if os.fork() == 0:
        theirs = users.Ranges(pool, os.open(tmp_path / "ids", os.O_RDWR | os.O_CLOEXEC))
        os._exit(0 if theirs.take() not in taken else 1)
    assert os.wait()[1] == 0
    taken.add(ours.take())
    os.close(ours.locks)
    assert taken == {(7_000_000, 8_000_000), (7_065_536, 8_065_536)}  # the other process has ended


def test_ranges_come_to_an_end(tmp_path):
    locks = os.open(tmp_path / "ids", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    ranges = users.Ranges(((7_000_000, 7_000_000, 1),), locks)
    first = ranges.take()
    with pytest.raises(OSError, match="temporarily"):
        ranges.take()
    ranges.give_back(first)
    assert ranges.take() == first
    os.close(locks)


def test_what_is_granted_to_root_is_used(monkeypatch):
    granted = {"/etc/subuid": ((300_000, 200_000),), "/etc/subgid": ((600_000, 131_072),)}
    monkeypatch.setattr(probe, "subordinate_ids", lambda path, uid: granted[path] if uid == 0 else ())
    monkeypatch.setattr(probe, "read_setting", lambda path: "0 0 4294967295")
    assert probe.id_pool() == ((300_000, 600_000, 2),)


def test_nothing_is_given_away_that_is_not_mapped(monkeypatch):
    """As root of a container that has 65,536 ids itself."""
    monkeypatch.setattr(probe, "subordinate_ids", lambda path, uid: ())
    monkeypatch.setattr(probe, "read_setting", lambda path: "0 100000 65536")
    assert probe.id_pool() == ()
