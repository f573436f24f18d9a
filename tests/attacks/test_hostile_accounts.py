"""/etc/passwd and /etc/group of an image, read by the runtime while it still has rights."""

import os

import pytest
from trees import busybox_tree

from pycontain import Container
from pycontain.errors import StepFailed

IDS = "id -u; id -g"


@pytest.fixture
def tree(tmp_path):
    tree = busybox_tree(tmp_path / "tree")
    (tree / "etc").mkdir()
    return tree


def ids(tree, user):
    """The uid and gid that *user* becomes, or None when the start is refused."""
    try:
        done = Container(f"rootfs:{tree}").user(user).run("/bin/busybox", "sh", "-c", IDS)
    except StepFailed:
        return None
    assert done.ok, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.mark.parametrize(
    "number",
    [
        "-1",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "0x0",
        " 0",
        "+0",
        "\N{ARABIC-INDIC DIGIT ZERO}",
        "",
        "1e0",
    ],
)
def test_an_id_that_setresuid_would_not_take_literally(tree, number):
    """setresuid(2): -1 means "unchanged", which is root; 2**32 wraps to it."""
    (tree / "etc/passwd").write_text(f"app:x:{number}:{number}::/:/bin/sh\n")
    assert ids(tree, "app") is None


@pytest.mark.parametrize("user", ["4294967295", "4294967296", "0:4294967295", "-1"])
def test_a_number_that_setresuid_would_not_take_literally(tree, user):
    with pytest.raises((StepFailed, ValueError)):
        Container(f"rootfs:{tree}").user(user).run("true")


def test_a_name_that_looks_like_a_number(tree, privilege):
    """A user "1000" that the image says is root: names come first, as in Docker, and root inside is what it says."""
    (tree / "etc/passwd").write_text("1000:x:0:0::/:/bin/sh\n")
    assert ids(tree, "1000") == (0, 0)


def make_huge(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


FILES = {
    "huge": make_huge,
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "endless": lambda path: os.symlink("/dev/zero", path),
    "terminal": lambda path: os.symlink("/dev/tty", path),
    "init": lambda path: os.symlink("/proc/1/environ", path),
    "itself": lambda path: os.symlink(path.name, path),
    "memory": lambda path: os.symlink("/proc/self/mem", path),
    "sysrq": lambda path: os.symlink("/proc/sysrq-trigger", path),
    "nul": lambda path: path.write_bytes(b"\0" * (1 << 20)),
    "no newline": lambda path: path.write_bytes(b"a" * (3 << 20)),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4096),
    "colons": lambda path: path.write_bytes(b":" * (3 << 20)),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_hostile_etc_passwd_and_group(tree, name, kind):
    """None blocks, none fills the memory, and none makes root of a name that it does not hold."""
    (tree / "etc/passwd").write_text("other:x:1:1::/:/bin/sh\n")
    (tree / "etc" / name).unlink(missing_ok=True)
    FILES[kind](tree / "etc" / name)
    assert ids(tree, "app:staff") is None


def test_a_link_leads_to_a_file_of_the_image_and_not_of_the_host(tree, tmp_path):
    canary = tmp_path / "passwd"
    canary.write_text("app:x:0:0::/:/bin/sh\n")
    os.symlink(f"../../../../../../../..{canary}", tree / "etc/passwd")
    assert ids(tree, "app") is None


@pytest.mark.parametrize("count", [65_536, 65_537, 100_000])
def test_a_hundred_thousand_groups(tree, count, privilege):
    """setgroups(2) takes 65536; what it refuses is an error, and never a start with the groups of root."""
    if privilege == "single":
        pytest.skip("with a single id there are no groups to set")
    (tree / "etc/passwd").write_text("app:x:1:1::/:/bin/sh\n")
    lines = "".join(f"g{gid}:x:{gid % 60_000}:app\n" for gid in range(count))
    (tree / "etc/group").write_text(lines)
    if count <= 65_536:
        assert ids(tree, "app") == (1, 1)
        return
    with pytest.raises(StepFailed, match="more groups than a process can have"):
        Container(f"rootfs:{tree}").user("app").run("true")


def test_groups_that_are_not_mapped(tree, privilege):
    if privilege != "subids":
        pytest.skip("here all groups are mapped, or none can be set")
    (tree / "etc/passwd").write_text("app:x:1:1::/:/bin/sh\n")
    (tree / "etc/group").write_text("far:x:4000000000:app\n")
    assert ids(tree, "app") is None


def test_a_home_that_is_no_path(tree):
    (tree / "etc/passwd").write_text("app:x:0:0::../../etc:/bin/sh\n")
    assert Container(f"rootfs:{tree}").user("app").run("sh", "-c", "echo $HOME").stdout == "/\n"
