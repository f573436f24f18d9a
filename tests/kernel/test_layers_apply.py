"""Applying entries to a real file system, as root and as an ordinary user."""

import gzip
import hashlib
import io
import os
import resource
import stat
import threading
from contextlib import suppress

import pytest
import zstandard
from layer_tree import (
    MTIME,
    Device,
    Dir,
    Fifo,
    File,
    HardLink,
    LayerTree,
    Symlink,
    layer,
)

from pycontain.errors import (
    DigestMismatch,
    InvalidImage,
    LayerError,
    LayerTooLarge,
    PycontainError,
    TransferInterrupted,
    UnsupportedEntry,
)
from pycontain.layers.apply import Devices, Lost, Ownership, apply
from pycontain.layers.entries import Kind, Limits
from pycontain.layers.pipeline import LayerBytes

IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give files away and make devices")
as_user = pytest.mark.skipif(IS_ROOT, reason="root may do all of this")


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("untouched")
    (tmp_path / "root").mkdir()
    return LayerTree(tmp_path / "root")


@pytest.fixture
def outside(tree):
    """What attacks aim at; the test fails when one got there."""
    folder = tree.root.parent / "outside"
    before = os.lstat(folder / "victim")
    yield folder
    assert os.listdir(folder) == ["victim"]
    assert (folder / "victim").read_text() == "untouched"
    after = os.lstat(folder / "victim")
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
    assert sorted(os.listdir(tree.root.parent)) == ["outside", "root"]


# --- files ----------------------------------------------------------------------------------------------


def test_a_file_has_its_content_mode_and_time(tree):
    tree.apply(File("f", b"content", mode=0o640, mtime=MTIME + 5))
    assert tree.read("f") == b"content"
    assert tree.mode("f") == 0o640
    assert tree.stat("f").st_mtime_ns == MTIME + 5


def test_a_file_of_many_chunks_is_whole(tree):
    content = os.urandom(1_000_003)
    tree.apply(File("a", b"x"), File("large", content), File("z", b"x"))
    assert tree.read("large") == content


def test_the_umask_does_not_count(tree):
    before = os.umask(0o077)
    try:
        tree.apply(Dir("d", mode=0o777), File("d/f", mode=0o666), Fifo("p", mode=0o666))
    finally:
        os.umask(before)
    assert [tree.mode(name) for name in ("d", "d/f", "p")] == [0o777, 0o666, 0o666]


def test_set_id_and_sticky_bits_are_kept(tree):
    tree.apply(File("su", b"x", mode=0o6755), Dir("tmp", mode=0o1777))
    assert (tree.mode("su"), tree.mode("tmp")) == (0o6755, 0o1777)


def test_a_directory_keeps_its_time_though_files_come_into_it_later(tree):
    tree.apply(Dir("d", mtime=MTIME), File("d/f"), Dir("d/e", mtime=MTIME + 1), File("d/e/f"))
    assert tree.stat("d").st_mtime_ns == MTIME
    assert tree.stat("d/e").st_mtime_ns == MTIME + 1


def test_the_entry_of_a_directory_may_come_after_what_is_in_it(tree):
    tree.apply(File("d/f"), Dir("d", mode=0o700, mtime=MTIME))
    assert (tree.mode("d"), tree.stat("d").st_mtime_ns) == (0o700, MTIME)


def test_a_directory_of_mode_0_can_be_filled_in_the_same_layer(tree):
    tree.apply(Dir("d", mode=0), File("d/e/f", b"in"), Dir("d/e", mode=0))
    assert tree.mode("d") == 0
    os.chmod(tree.path("d"), 0o700)
    assert tree.mode("d/e") == 0
    os.chmod(tree.path("d/e"), 0o700)
    assert tree.read("d/e/f") == b"in"


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o300, 0o555])
def test_a_directory_that_is_locked_can_be_filled_by_the_next_layer_and_stays_locked(tree, mode):
    tree.apply(Dir("d", mode=mode, mtime=MTIME))
    tree.apply(File("d/f", b"in"))
    assert (tree.mode("d"), tree.stat("d").st_mtime_ns) == (mode, MTIME)
    os.chmod(tree.path("d"), 0o700)
    assert tree.read("d/f") == b"in"


def test_a_symbolic_link_has_its_text_and_its_own_time(tree):
    tree.apply(Symlink("l", to="../nowhere"))
    assert os.readlink(tree.path("l")) == "../nowhere"
    assert tree.stat("l").st_mtime_ns == MTIME


def test_a_fifo_is_made_and_never_opened(tree):
    tree.apply(Fifo("p", mode=0o620))
    assert stat.S_ISFIFO(tree.stat("p").st_mode)
    assert tree.mode("p") == 0o620


def test_names_may_be_any_bytes(tree):
    tree.apply(File(b"\xff\n \\", b"x"), Symlink("l", to=b"\xfe"))
    assert sorted(os.listdir(os.fsencode(tree.root))) == [b"l", b"\xff\n \\"]
    assert os.readlink(os.fsencode(tree.path("l"))) == b"\xfe"


def test_the_holes_of_a_sparse_file_stay_holes(tree):
    size = 64 << 20
    tree.apply(File("s", b"abcde", size=size, segments=((1 << 20, 3), (size - 8, 2))))
    assert tree.stat("s").st_size == size
    assert tree.stat("s").st_blocks * 512 < 1 << 20
    with open(tree.path("s"), "rb") as file:
        file.seek(1 << 20)
        assert file.read(5) == b"abc\0\0"
        file.seek(size - 8)
        assert file.read() == b"de" + bytes(6)


def test_user_attributes_are_set_even_on_a_file_that_is_read_only(tree):
    tree.apply(File("f", mode=0o400, xattrs=((b"user.a", b"1\0"),)), Dir("d", xattrs=((b"user.b", b""),)))
    assert os.getxattr(tree.path("f"), "user.a") == b"1\0"
    assert os.getxattr(tree.path("d"), "user.b") == b""


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # VFS_CAP_REVISION_2, cap_net_raw=ep


@as_root
def test_file_capabilities_survive_the_change_of_owner(tree):
    tree.apply(File("ping", b"x", mode=0o755, uid=7, xattrs=((b"security.capability", CAPABILITY),)))
    assert os.getxattr(tree.path("ping"), "security.capability") == CAPABILITY
    assert tree.stat("ping").st_uid == 7


@as_user
def test_file_capabilities_that_the_kernel_refuses_are_recorded(tree):
    applied = tree.apply(File("ping", b"x", xattrs=((b"security.capability", CAPABILITY),)))
    assert [(loss.what, loss.entry.path) for loss in applied.recorded] == [(Lost.XATTR, b"ping")]


@pytest.mark.parametrize("name", [b"user.overlay.opaque", b"trusted.overlay.redirect"])
def test_a_layer_cannot_speak_to_overlayfs(tree, name):
    applied = tree.apply(Dir("d", xattrs=((name, b"y"),)))
    assert os.listxattr(tree.path("d")) == []
    assert [loss.what for loss in applied.recorded] == [Lost.XATTR]


def test_attributes_of_a_symbolic_link_are_its_own_or_recorded(tree):
    applied = tree.apply(File("f"), Symlink("l", to="f", xattrs=((b"trusted.x", b"1"), (b"user.y", b"2"))))
    lost = [loss.reason.partition(":")[0] for loss in applied.recorded]
    assert lost == (["user.y"] if IS_ROOT else ["trusted.x", "user.y"])
    assert os.listxattr(tree.path("f")) == []


# --- owners and devices ---------------------------------------------------------------------------------


@as_root
def test_everything_belongs_to_its_owner(tree):
    tree.apply(
        Dir("d", uid=1, gid=2),
        File("d/f", uid=3, gid=4),
        Symlink("l", to="d", uid=5, gid=6),
        Fifo("p", uid=7),
    )
    owners = [(tree.stat(name).st_uid, tree.stat(name).st_gid) for name in ("d", "d/f", "l", "p")]
    assert owners == [(1, 2), (3, 4), (5, 6), (7, 0)]


@as_root
def test_set_id_bits_survive_the_change_of_owner(tree):
    tree.apply(File("su", b"x", mode=0o4755, uid=7))
    assert tree.mode("su") == 0o4755


@as_root
def test_a_file_in_a_setgid_directory_of_a_lower_layer_has_its_own_group(tree):
    tree.apply(Dir("mail", mode=0o2775, gid=8))
    tree.apply(File("mail/root", b"x"), Dir("mail/new"), Symlink("mail/l", to="x"))
    assert [tree.stat(f"mail/{name}").st_gid for name in ("root", "new", "l")] == [0, 0, 0]


@as_user
def test_a_file_of_root_fails_by_default(tree):
    with pytest.raises(LayerError, match="'f' cannot be given to its owner 0:0") as caught:
        tree.apply(File("f", uid=0, gid=0))
    assert "SQUASH" in caught.value.__notes__[0]


@as_user
def test_squashed_files_stay_with_the_caller_and_are_counted(tree):
    applied = tree.apply(
        Dir("d", uid=0),
        File("d/f", uid=0),
        Symlink("l", to="d", uid=0),
        File("mine"),
        ownership=Ownership.SQUASH,
    )
    assert applied.squashed == 3
    assert tree.stat("d/f").st_uid == os.geteuid()


@as_user
def test_squashed_files_lose_their_set_id_bits(tree):
    """A program of root's that runs as its owner must not run as the caller instead."""
    applied = tree.apply(
        File("su", b"x", uid=0, mode=0o6755), File("mine", mode=0o4755), ownership=Ownership.SQUASH
    )
    assert (tree.mode("su"), tree.mode("mine")) == (0o755, 0o4755)
    assert [(loss.what, loss.entry.path) for loss in applied.recorded] == [(Lost.SET_ID, b"su")]


@as_root
def test_devices_have_their_numbers_mode_and_owner(tree):
    tree.apply(
        Device("null", 1, 3, mode=0o666, uid=1, gid=2),
        Device("sda", 8, 300, kind=Kind.BLOCK_DEVICE, mode=0o660),
    )
    null, sda = tree.stat("null"), tree.stat("sda")
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev) == (True, os.makedev(1, 3))
    assert (tree.mode("null"), null.st_uid, null.st_gid) == (0o666, 1, 2)
    assert (stat.S_ISBLK(sda.st_mode), sda.st_rdev) == (True, os.makedev(8, 300))


@as_user
def test_a_device_fails_by_default(tree):
    with pytest.raises(UnsupportedEntry, match="'null'") as caught:
        tree.apply(Device("null", 1, 3))
    assert "RECORD" in caught.value.__notes__[0]


@as_user
def test_a_device_may_be_recorded_instead(tree):
    applied = tree.apply(Device("null", 1, 3), devices=Devices.RECORD)
    assert [(loss.what, loss.entry.device) for loss in applied.recorded] == [(Lost.DEVICE, (1, 3))]
    assert tree.names() == []


# --- hard links -----------------------------------------------------------------------------------------


def test_a_hard_link_is_one_more_name(tree):
    tree.apply(File("a", b"x"), HardLink("d/b", to="a"))
    assert os.path.samefile(tree.path("a"), tree.path("d/b"))


def test_a_hard_link_reaches_a_file_of_a_lower_layer(tree):
    tree.apply(File("lower", b"x"))
    tree.apply(HardLink("upper", to="lower"))
    assert tree.stat("lower").st_nlink == 2


def test_a_hard_link_to_a_symbolic_link_is_that_symbolic_link(tree):
    tree.apply(File("f", b"x"), Symlink("l", to="f"), HardLink("h", to="l"))
    assert tree.stat("h").st_ino == tree.stat("l").st_ino != tree.stat("f").st_ino


def test_a_hard_link_to_itself_changes_nothing(tree):
    tree.apply(File("f", b"x"), HardLink("f", to="f"))
    assert tree.read("f") == b"x"


def test_a_hard_link_replaces_what_has_its_name(tree):
    tree.apply(File("a", b"new"), File("b/c", b"old"), HardLink("b", to="a"))
    assert tree.read("b") == b"new"


def test_applying_a_hard_link_twice_is_the_same_as_once(tree):
    tree.apply(File("a", b"x"), HardLink("b", to="a"), HardLink("b", to="a"))
    assert tree.stat("a").st_nlink == 2


@pytest.mark.parametrize("target", ["missing", "missing/f", "f/g", "d", ""])
def test_a_hard_link_to_no_file_is_refused_and_removes_nothing(tree, target):
    tree.apply(Dir("d"), File("f"), File("kept", b"x"))
    with pytest.raises(InvalidImage, match="'kept' is a hard link to"):
        tree.apply(HardLink("kept", to=target))


def test_a_target_that_is_missing_costs_the_old_file_nothing(tree):
    with pytest.raises(InvalidImage):
        tree.apply(File("kept", b"x"), HardLink("kept", to="missing"))
    assert tree.read("kept") == b"x"


# --- replacing ------------------------------------------------------------------------------------------

OLD = {
    "file": [File("x", b"old")],
    "full directory": [Dir("x"), File("x/y/z", b"old")],
    "symbolic link": [Dir("target"), File("target/kept", b"kept"), Symlink("x", to="target")],
    "fifo": [Fifo("x")],
}


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("between", ["layers", "entries"])
def test_a_file_replaces_whatever_has_its_name(tree, old, between):
    if between == "layers":
        tree.apply(*OLD[old])
        tree.apply(File("x", b"new"))
    else:
        tree.apply(*OLD[old], File("x", b"new"))
    assert stat.S_ISREG(tree.stat("x").st_mode)
    assert tree.read("x") == b"new"


@pytest.mark.parametrize("old", OLD)
def test_a_symbolic_link_replaces_whatever_has_its_name(tree, old):
    tree.apply(*OLD[old])
    tree.apply(Symlink("x", to="new"))
    assert os.readlink(tree.path("x")) == "new"


@pytest.mark.parametrize("old", ["file", "symbolic link", "fifo"])
def test_a_directory_replaces_whatever_is_none(tree, old):
    tree.apply(*OLD[old])
    tree.apply(Dir("x"), File("x/new", b"new"))
    assert os.listdir(tree.path("x")) == ["new"]
    assert "target/new" not in tree.names()


def test_a_directory_keeps_what_is_in_the_directory_that_was_there(tree):
    tree.apply(Dir("x", mode=0o700), File("x/y", b"old"))
    tree.apply(Dir("x", mode=0o755))
    assert (tree.read("x/y"), tree.mode("x")) == (b"old", 0o755)


def test_a_file_gives_way_to_a_directory_that_the_layer_implies(tree):
    tree.apply(File("x", b"old"))
    tree.apply(File("x/y", b"new"))
    assert tree.names() == ["x/", "x/y"]


def test_a_file_replaces_a_full_directory_that_nobody_may_enter(tree):
    tree.apply(Dir("x", mode=0), Dir("x/y", mode=0), File("x/y/z"))
    tree.apply(File("x", b"new"))
    assert tree.names() == ["x"]


def test_a_directory_that_was_replaced_in_its_own_layer_is_made_anew(tree):
    tree.apply(File("d/old"), File("d"), File("d/new"))
    assert tree.names() == ["d/", "d/new"]


def test_a_link_that_is_replaced_leads_nowhere_any_more(tree):
    tree.apply(Dir("a"), Dir("b"), Symlink("l", to="a"), File("l/1"), Symlink("l", to="b"), File("l/2"))
    assert tree.names() == ["a/", "a/1", "b/", "b/2", "l"]


# --- directories that no entry names --------------------------------------------------------------------


def test_missing_directories_are_made_and_named(tree):
    applied = tree.apply(File("a/b/f"), Dir("a/c"))
    assert applied.implied == (b"a", b"a/b")
    assert (tree.mode("a"), tree.stat("a").st_mtime_ns) == (0o755, 0)


def test_a_directory_of_a_lower_layer_keeps_its_time_when_a_file_is_put_into_it(tree):
    tree.apply(Dir("d"))
    assert tree.apply(File("d/f")).implied == ()
    assert tree.stat("d").st_mtime_ns == MTIME


def test_the_entry_of_the_root_sets_its_mode_and_time(tree):
    tree.apply(Dir("./", mode=0o750))
    assert (tree.mode(""), tree.stat("").st_mtime_ns) == (0o750, MTIME)


def test_the_root_keeps_its_time_without_an_entry(tree):
    os.utime(tree.root, ns=(1, 2))
    tree.apply(File("f"))
    assert tree.stat("").st_mtime_ns == 2


def test_an_entry_that_would_replace_the_root_is_recorded_and_ignored(tree):
    applied = tree.apply(File("f"), Symlink("..", to="/etc"))
    assert [loss.what for loss in applied.recorded] == [Lost.ENTRY]
    assert tree.names() == ["f"]


def test_more_directories_than_descriptors_can_be_filled_in_turns(tree):
    names = [f"{i}/{j}" for i in range(20) for j in range(20)]
    tree.apply(*[File(f"{name}/a") for name in names], *[File(f"{name}/b") for name in reversed(names)])
    assert len([name for name in tree.names() if name.endswith(("/a", "/b"))]) == 800


def test_the_root_may_be_an_open_directory(tree):
    fd = os.open(tree.root, os.O_PATH)
    try:
        apply(io.BytesIO(layer(File("f", b"x"))), fd)
        os.fstat(fd)
    finally:
        os.close(fd)
    assert tree.read("f") == b"x"


def test_a_root_that_is_missing_is_named(tree):
    with pytest.raises(LayerError, match="missing"):
        apply(io.BytesIO(b""), str(tree.path("missing")))


# --- attacks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../outside/f", "/../outside/f", "a/../../outside/f", "./../../../outside/f"]
)
def test_dot_dot_in_a_name_stops_at_the_root(tree, outside, name):
    tree.apply(File(name, b"x"))
    assert tree.names() == ["outside/", "outside/f"]


@pytest.mark.parametrize("levels", [1, 2, 9])
def test_an_entry_cannot_escape_through_a_relative_link(tree, outside, levels):
    tree.apply(Symlink("out", to="../" * levels + "outside"), File("out/victim", b"x"))
    assert tree.read("outside/victim") == b"x"


def test_an_entry_cannot_escape_through_an_absolute_link(tree, outside):
    tree.apply(Symlink("out", to=outside), File("out/victim", b"x"))
    assert tree.read(str(outside).lstrip("/") + "/victim") == b"x"


def test_an_entry_cannot_escape_through_a_chain_of_links(tree, outside):
    tree.apply(
        Symlink("a", to="b/.."), Symlink("b", to="c"), Symlink("c", to=".."), File("a/outside/victim", b"x")
    )
    assert tree.read("outside/victim") == b"x"


def test_a_file_does_not_go_through_a_link_of_its_name(tree, outside):
    tree.apply(Symlink("l", to=outside / "victim"), File("l", b"x", mode=0o777))
    assert stat.S_ISREG(tree.stat("l").st_mode)


def test_a_directory_does_not_go_through_a_link_of_its_name(tree, outside):
    tree.apply(Symlink("l", to=outside), Dir("l", mode=0o777))
    assert stat.S_ISDIR(tree.stat("l").st_mode)


def test_a_link_of_a_lower_layer_does_not_lead_out(tree, outside):
    os.symlink(outside, tree.path("l"))
    tree.apply(File("l/victim", b"x"), Fifo("l/fifo"), Symlink("l/link", to="x"), Dir("l/dir"))
    assert tree.read(str(outside).lstrip("/") + "/victim") == b"x"


def test_a_hard_link_cannot_reach_out(tree, outside):
    os.symlink(outside, tree.path("l"))
    for target in ("../outside/victim", str(outside / "victim"), "l/victim"):
        with pytest.raises(InvalidImage):
            tree.apply(HardLink("h", to=target))


def test_a_hard_link_through_a_link_to_a_file_outside_is_that_link(tree, outside):
    tree.apply(Symlink("l", to=outside / "victim"), HardLink("h", to="l"), File("h", b"x"))
    assert os.readlink(tree.path("l")) == str(outside / "victim")


def test_removing_a_directory_does_not_follow_the_links_in_it(tree, outside):
    tree.apply(Dir("d"), Symlink("d/l", to=outside))
    tree.apply(File("d"))
    assert tree.names() == ["d"]


def test_the_mode_of_a_directory_is_not_set_through_a_link_that_replaced_it(tree, outside):
    tree.apply(Dir("d", mode=0o777), Symlink("d", to=outside))
    assert os.readlink(tree.path("d")) == str(outside)


def test_a_loop_of_links_is_refused(tree):
    with pytest.raises(InvalidImage, match="'a/f' goes through too many symbolic links"):
        tree.apply(Symlink("a", to="b"), Symlink("b", to="a"), File("a/f"))


def test_a_link_into_nothing_makes_what_it_names_inside_the_root(tree, outside):
    tree.apply(Symlink("l", to="../../new/dir"), File("l/f", b"x"))
    assert tree.read("new/dir/f") == b"x"


# --- limits ---------------------------------------------------------------------------------------------


def test_a_bomb_is_stopped_on_the_way(tree):
    """After so many times the compressed bytes as were read; those are read in blocks of half a mebibyte."""
    bomb = gzip.compress(layer(File("zeros", bytes(200 << 20))), 1)
    with pytest.raises(LayerTooLarge, match="met at 'zeros'") as caught:
        apply(io.BytesIO(bomb), str(tree.root))
    assert "max_ratio" in caught.value.__notes__[0]
    assert tree.stat("zeros").st_size < 128 << 20


def test_links_cannot_be_used_to_go_deeper_than_the_limit(tree):
    entries = [Dir("d/d/d"), Symlink("l", to="d/d/d")]
    with pytest.raises(LayerTooLarge) as caught:
        tree.apply(*entries, Symlink("l/l", to="e/e"), File("l/l/f"), limits=Limits(max_depth=4))
    assert "max_depth" in caught.value.__notes__[0]


def test_the_default_depth_can_be_made_and_removed(tree):
    tree.apply(File("d/" * 255 + "f", b"x"))
    tree.apply(File("d", b"new"))
    assert tree.names() == ["d"]


def test_a_name_that_is_too_long_for_the_file_system_is_refused(tree):
    with pytest.raises(UnsupportedEntry, match="longer than the file system holds") as caught:
        tree.apply(File("x" * 256))
    assert caught.value.path == "x" * 256


# --- the bytes ------------------------------------------------------------------------------------------

LAYER = layer(Dir("d"), File("d/f", b"some content " * 5000), File("g", b"x"))
COMPRESSED = {
    "none": LAYER,
    "gzip": gzip.compress(LAYER),
    "gzip in members": gzip.compress(LAYER[:700]) + gzip.compress(LAYER[700:]),
    "zstd": zstandard.compress(LAYER),
    "zstd in frames": zstandard.compress(LAYER[:700]) + zstandard.compress(LAYER[700:]),
    "zstd after a skippable frame": b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(LAYER),
}


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("compression", COMPRESSED)
def test_the_compression_is_told_by_content(tree, compression):
    stored = COMPRESSED[compression]
    applied = apply(io.BytesIO(stored), str(tree.root), diff_id=sha256(LAYER))
    assert (applied.diff_id, applied.size) == (sha256(LAYER), len(stored))
    assert (applied.entries, applied.written) == (3, 65001)


@pytest.mark.parametrize("compression", COMPRESSED)
def test_who_reads_a_layer_can_have_the_digest_of_what_is_stored(compression):
    stored = COMPRESSED[compression]
    with LayerBytes(io.BytesIO(stored), hashed=True) as layer:
        assert b"".join(layer) == LAYER
    assert (layer.digest, layer.diff_id) == (sha256(stored), sha256(LAYER))


def test_what_follows_the_end_of_the_archive_counts_in_the_diff_id(tree):
    stored = LAYER + bytes(9000) + b"trailing"
    assert apply(io.BytesIO(stored), str(tree.root)).diff_id == sha256(stored)


def test_a_stream_may_give_less_than_it_is_asked_for(tree):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7))

    assert apply(Slow(COMPRESSED["zstd"]), str(tree.root)).diff_id == sha256(LAYER)
    assert apply(Slow(COMPRESSED["gzip"]), str(tree.root)).diff_id == sha256(LAYER)


def test_a_diff_id_that_does_not_match_is_refused(tree):
    with pytest.raises(DigestMismatch) as caught:
        apply(io.BytesIO(LAYER), str(tree.root), diff_id="sha256:" + "0" * 64)
    assert caught.value.found == sha256(LAYER)


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_layer_that_is_cut_short_is_refused_wherever_it_is_cut(tree, compression):
    stored = COMPRESSED[compression]
    for cut in (1, 5, len(stored) // 2, len(stored) - 1):
        if compression == "none" and cut == len(stored) - 1:
            continue  # within the zero blocks at the end
        with pytest.raises(InvalidImage):
            apply(io.BytesIO(stored[:cut]), str(tree.root))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_flipped_bits_are_found_unless_they_change_nothing(tree, compression):
    """A time in a header or another coding of the same bytes says nothing about the content."""
    stored = bytearray(COMPRESSED[compression])
    for at in range(4, len(stored), 17):
        stored[at] ^= 0x10
        with suppress(PycontainError):
            apply(io.BytesIO(bytes(stored)), str(tree.root), diff_id=sha256(LAYER))
            assert tree.read("d/f") == b"some content " * 5000
        stored[at] ^= 0x10


@pytest.mark.parametrize(
    ("magic", "name"), [(b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x04\x22\x4d\x18", "lz4")]
)
def test_other_compressions_are_named(tree, magic, name):
    with pytest.raises(InvalidImage, match=name):
        apply(io.BytesIO(magic + bytes(100)), str(tree.root))


def test_garbage_is_no_layer(tree):
    with pytest.raises(InvalidImage):
        apply(io.BytesIO(b"garbage" * 1000), str(tree.root))


def test_garbage_after_a_gzip_member_is_refused(tree):
    with pytest.raises(InvalidImage, match="gzip stream"):
        apply(io.BytesIO(COMPRESSED["gzip"] + b"garbage"), str(tree.root))


def test_what_the_stream_raises_passes_unchanged(tree):
    error = TransferInterrupted("the registry closed the connection")

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100_000:
                raise error
            return super().read(min(size, 50_000))

    with pytest.raises(TransferInterrupted) as caught:
        apply(Broken(layer(File("f", os.urandom(1 << 20)))), str(tree.root))
    assert caught.value is error


def test_a_large_zstd_layer_comes_in_chunks(tree):
    stored = zstandard.compress(layer(File("f", os.urandom(1 << 20) + bytes(1 << 20))))
    assert apply(io.BytesIO(stored), str(tree.root)).written == 2 << 20


def test_what_the_file_system_refuses_is_told_with_its_reason(tree):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(LayerError, match="the file 'd/f' cannot be made: File too large") as caught:
            tree.apply(File("d/f", bytes(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.path == "d/f"


@pytest.mark.parametrize("entries", [[File("ok")], [File("a/b"), HardLink("h", to="missing"), File("x" * 9)]])
def test_neither_success_nor_failure_leaves_a_descriptor_or_a_thread(tree, entries):
    before = os.listdir("/proc/self/fd"), threading.active_count()
    with suppress(InvalidImage):
        apply(io.BytesIO(layer(*entries) + bytes(10 << 20)), str(tree.root))
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
