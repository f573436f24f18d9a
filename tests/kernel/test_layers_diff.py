"""Trees to layers, and that this undoes applying them."""

import io
import os
import socket
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from layer_tree import MTIME, Device, Dir, Fifo, File, HardLink, LayerTree, Opaque, Symlink, Whiteout

from pycontain.errors import LayerError, UnsupportedEntry
from pycontain.layers.apply import apply
from pycontain.layers.compression import Compression
from pycontain.layers.diff import diff
from pycontain.layers.encode import encode
from pycontain.layers.entries import Kind, Limits, Whiteouts
from pycontain.layers.pack import pack

MARKERS = Whiteouts.USER_OVERLAY  # the ones that an ordinary user may make


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "root").mkdir()
    return LayerTree(tmp_path / "root")


def changes(tree, **options):
    """The layer that *tree* is, with contents as bytes."""
    return [
        (entry, b"".join(content)) for entry, content in diff(str(tree.root), whiteouts=MARKERS, **options)
    ]


def paths(tree, **options):
    return [entry.path for entry, _ in changes(tree, **options)]


def joined(entries):
    return [(entry, b"".join(content)) for entry, content in entries]


# --- round trips ----------------------------------------------------------------------------------------


def test_a_layer_comes_back_as_it_was_applied(tree):
    entries = [
        Dir("a", mode=0o750),
        File("a/.wh..wh..opq", uid=0, gid=0, mtime=0),
        File("a/f", b"content", mode=0o4711, xattrs=((b"user.x", b"1"),)),
        HardLink("a/g", to="a/f", mode=0o4711),
        Fifo("a/p", mode=0o600),
        Symlink("a/z", to="../f"),
        Dir("b", xattrs=((b"user.y", b""),), mtime=MTIME + 1),
        File("b/.wh.gone", uid=0, gid=0, mtime=0),
        File("b/empty"),
    ]
    tree.apply(*entries, whiteouts=MARKERS)
    assert changes(tree) == joined(entries)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices and give files away")
def test_devices_and_owners_come_back(tree):
    entries = [Device("null", 1, 3, mode=0o666, uid=5), Device("sda", 8, 1, kind=Kind.BLOCK_DEVICE, gid=6)]
    tree.apply(*entries, whiteouts=Whiteouts.OVERLAY)
    assert joined(diff(str(tree.root))) == joined(entries)


@pytest.mark.skipif(os.geteuid() != 0, reason="attributes of trusted. are for root")
def test_the_markers_of_a_privileged_overlay_are_told(tree):
    tree.apply(Dir("d"), Opaque("d"), Whiteout("e"), whiteouts=Whiteouts.OVERLAY)
    assert [entry.path for entry, _ in diff(str(tree.root))] == [b".wh.e", b"d", b"d/.wh..wh..opq"]


FILES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "ü", ".x", "long" * 40]), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=600),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(FILES, st.integers(0, 0o777), st.sampled_from(Compression))
def test_what_is_packed_and_applied_is_the_same_tree(files, mode, compression):
    with tempfile.TemporaryDirectory() as folder:
        first, second = (LayerTree(Path(folder) / name) for name in ("one", "two"))
        for tree in (first, second):
            tree.root.mkdir()
        first.apply(*[File(name, content, mode=mode | 0o400) for name, content in files.items()])
        out = io.BytesIO()
        packed = pack(encode(diff(str(first.root), whiteouts=MARKERS)), out, compression)
        out.seek(0)
        applied = apply(out, str(second.root), whiteouts=MARKERS, diff_id=packed.diff_id)
        assert (applied.diff_id, applied.size) == (packed.diff_id, packed.size)
        assert changes(first) == changes(second)


# --- order ----------------------------------------------------------------------------------------------


def test_entries_are_sorted_by_bytes_directories_first_and_whiteouts_before_names(tree):
    tree.apply(
        File("b"),
        File(b"\xff"),
        File("Z"),
        File("a/2"),
        File("a/1"),
        Whiteout("a/z"),
        File("a.b"),
        whiteouts=MARKERS,
    )
    assert paths(tree) == [b"Z", b"a", b"a/.wh.z", b"a/1", b"a/2", b"a.b", b"b", b"\xff"]


def test_two_trees_of_the_same_content_give_the_same_bytes(tmp_path):
    entries = [Dir("d"), *[File(f"d/{i}", b"x" * i) for i in range(40)], Symlink("l", to="d")]
    results = []
    for name, made in (("one", entries), ("two", entries[::-1])):
        tree = LayerTree(tmp_path / name)
        tree.root.mkdir()
        tree.apply(*made)
        out = io.BytesIO()
        results.append((pack(encode(diff(str(tree.root), whiteouts=MARKERS)), out), out.getvalue()))
    assert results[0] == results[1]


def test_of_hard_links_the_first_in_order_has_the_content(tree):
    tree.apply(File("z", b"x"), HardLink("a", to="z"), HardLink("m", to="z"))
    assert [(entry.path, entry.kind, entry.target) for entry, _ in changes(tree)] == [
        (b"a", Kind.FILE, b""),
        (b"m", Kind.HARD_LINK, b"a"),
        (b"z", Kind.HARD_LINK, b"a"),
    ]


def test_no_time_is_later_than_the_newest_that_is_allowed(tree):
    tree.apply(File("new", mtime=MTIME + 5), File("old", mtime=MTIME - 5))
    assert [entry.mtime for entry, _ in changes(tree, newest=MTIME)] == [MTIME, MTIME - 5]


def test_the_root_is_an_entry_only_when_asked_for(tree):
    tree.apply(Dir("", mode=0o711))
    assert paths(tree) == []
    ((entry, _),) = changes(tree, include_root=True)
    assert (entry.path, entry.kind, entry.mode) == (b"", Kind.DIRECTORY, 0o711)


def test_the_tree_may_be_an_open_directory(tree):
    tree.apply(File("f", b"x"))
    fd = os.open(tree.root, os.O_PATH)
    try:
        assert [entry.path for entry, _ in diff(fd, whiteouts=MARKERS)] == [b"f"]
    finally:
        os.close(fd)


# --- what a layer does not hold -------------------------------------------------------------------------


def test_a_plain_tree_has_no_markers(tree):
    """A device without number is a device there."""
    tree.apply(Whiteout("x"), Dir("d"), Opaque("d"), whiteouts=MARKERS)
    found = list(diff(str(tree.root), whiteouts=Whiteouts.REMOVE))
    assert [(entry.path, entry.kind) for entry, _ in found] == [
        (b"d", Kind.DIRECTORY),
        (b"x", Kind.CHARACTER_DEVICE),
    ]


def test_sockets_are_left_out(tree):
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(tree.root)  # a socket's path is short
        try:
            listening.bind("s")
        finally:
            os.chdir(here)
        assert paths(tree) == []


def test_attributes_that_mean_something_to_this_host_only_are_left_out(tree):
    tree.apply(Dir("d", xattrs=((b"user.kept", b"1"),)), Opaque("d"), whiteouts=MARKERS)
    os.setxattr(tree.path("d"), "user.overlay.impure", b"y")
    assert changes(tree)[0][0].xattrs == ((b"user.kept", b"1"),)


def test_a_name_that_would_be_read_as_a_whiteout_is_refused(tree):
    tree.path(".wh.x").write_text("")
    with pytest.raises(UnsupportedEntry, match="read as a whiteout") as caught:
        changes(tree)
    assert caught.value.path == ".wh.x"


@pytest.mark.parametrize("name", ["redirect", "metacopy"])
def test_what_overlayfs_keeps_elsewhere_is_refused(tree, name):
    tree.apply(Dir("d"))
    os.setxattr(tree.path("d"), f"user.overlay.{name}", b"/x")
    with pytest.raises(UnsupportedEntry, match=name):
        changes(tree)


def test_a_file_that_shrinks_meanwhile_is_found_out(tree):
    tree.apply(File("f", b"content"))

    def shrinking():
        for entry, content in diff(str(tree.root), whiteouts=MARKERS):
            os.truncate(tree.path("f"), 3)
            yield entry, content

    with pytest.raises(LayerError, match="'f' has not the size"):
        list(encode(shrinking()))


def test_a_tree_that_is_missing_is_a_layer_error(tree):
    with pytest.raises(LayerError):
        list(diff(str(tree.path("missing"))))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tree):
    tree.apply(File("d/f", mode=0))
    with pytest.raises(LayerError, match="'d/f' cannot be read: Permission denied"):
        changes(tree)


def test_a_walk_that_is_given_up_leaves_no_descriptor(tree):
    tree.apply(File("a/b/c/f", b"x"))
    before = os.listdir("/proc/self/fd")
    walk = diff(str(tree.root), whiteouts=MARKERS)
    for _ in range(4):
        next(walk)
    walk.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_tree_deeper_than_pythons_stack_can_be_walked(tree):
    """A payload chooses how deep its directories are."""
    depth = 400
    tree.apply(Dir("d/" * depth), limits=Limits(max_depth=depth))
    assert len(paths(tree)) == depth


def test_content_that_is_asked_for_too_late_is_closed(tree):
    tree.apply(File("a", b"x"), File("b", b"y"))
    (_, content), _ = diff(str(tree.root), whiteouts=MARKERS)
    with pytest.raises(ValueError, match="closed"):
        next(iter(content))


@pytest.mark.parametrize("kind", ["fifo", "link", "other file", "directory"])
def test_what_takes_the_place_of_a_file_meanwhile_is_not_read(tmp_path, kind):
    """A payload can do that to its layer: with a fifo it would hold the reader up, with a link lead it to another file."""
    (tmp_path / "secret").write_text("of the host")
    top = tmp_path / "top"
    top.mkdir()
    for name in ("a", "b"):
        (top / name).write_text(name)
    entries = diff(str(top))
    next(entries)  # now it knows what both are
    (top / "b").unlink()
    match kind:
        case "fifo":
            os.mkfifo(top / "b")
        case "link":
            (top / "b").symlink_to(tmp_path / "secret")
        case "directory":
            (top / "b").mkdir()
        case _:
            os.link(tmp_path / "secret", top / "b")
    with pytest.raises(LayerError):
        next(entries)


def test_what_is_left_out(tmp_path):
    """With what is below, and with the other names of its files."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_text("x")
    os.link(tmp_path / "a" / "b" / "f", tmp_path / "z")
    entries = [entry for entry, _ in diff(str(tmp_path), leave_out={b"a"}.__contains__)]
    assert [(entry.path, entry.kind) for entry in entries] == [(b"z", Kind.FILE)]
