"""What a layer hides: in a tree of all layers, and as overlayfs' markers in a tree of its own."""

import os
import stat
import tempfile
from itertools import permutations
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from layer_tree import Dir, File, LayerTree, Opaque, Symlink, Whiteout

from pycontain.errors import UnsafeEntry
from pycontain.layers.entries import Whiteouts


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "root").mkdir()
    return LayerTree(tmp_path / "root")


# --- removing -------------------------------------------------------------------------------------------


def test_a_whiteout_removes_a_file_of_a_lower_layer(tree):
    tree.apply(File("d/a"), File("d/b"))
    tree.apply(Whiteout("d/a"))
    assert tree.names() == ["d/", "d/b"]


def test_a_whiteout_removes_a_directory_with_all_that_is_in_it(tree):
    tree.apply(File("d/e/f/g"), Dir("d/e/locked", mode=0), Symlink("d/l", to="e"))
    tree.apply(Whiteout("d"))
    assert tree.names() == []


def test_a_whiteout_of_nothing_does_nothing(tree):
    tree.apply(Whiteout("missing"), Whiteout("d/missing"))
    assert tree.names() == ["d/"]


def test_a_whiteout_leaves_the_time_of_the_directory_alone(tree):
    tree.apply(Dir("d"), File("d/f"))
    before = tree.stat("d").st_mtime_ns
    tree.apply(Whiteout("d/f"))
    assert tree.stat("d").st_mtime_ns == before


def test_a_whiteout_acts_through_links_of_directories_as_names_do(tree):
    tree.apply(File("d/f"), Symlink("l", to="/d"))
    tree.apply(Whiteout("l/f"))
    assert tree.names() == ["d/", "l"]


def test_a_whiteout_removes_a_link_and_not_what_it_names(tree):
    tree.apply(File("d/f"), Symlink("l", to="d"))
    tree.apply(Whiteout("l"))
    assert tree.names() == ["d/", "d/f"]


def test_an_opaque_whiteout_leaves_the_directory_and_its_attributes(tree):
    tree.apply(Dir("d", mode=0o710), File("d/a"), File("d/b/c"))
    tree.apply(Opaque("d"))
    assert (tree.names(), tree.mode("d")) == (["d/"], 0o710)


def test_an_opaque_whiteout_reaches_directories_that_the_layer_shares(tree):
    tree.apply(File("d/shared/old"), File("d/old/old"))
    tree.apply(File("d/shared/new"), Opaque("d"))
    assert tree.names() == ["d/", "d/shared/", "d/shared/new"]


def test_an_opaque_whiteout_of_the_root_hides_everything(tree):
    tree.apply(File("a/b"), File("c"))
    tree.apply(File("new"), Opaque(""))
    assert tree.names() == ["new"]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_whiteouts_spare_what_their_own_layer_puts_there_in_any_order(tree, order):
    tree.apply(File("d/f", b"old"), File("d/gone"), File("f", b"old"))
    entries = [File("d/f", b"new"), Whiteout("d"), File("f", b"new"), Whiteout("f")]
    tree.apply(*[entries[i] for i in order])
    assert tree.names() == ["d/", "d/f", "f"]
    assert tree.read("d/f") == tree.read("f") == b"new"


NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/b/a", "a/b/c"])
LOWER = st.lists(NAMES.map(lambda name: File(f"{name}/f", b"old")), max_size=6)
UPPER = st.lists(
    st.one_of(
        NAMES.map(lambda name: File(f"{name}/f", b"new")),
        NAMES.map(lambda name: File(f"{name}/g", b"new")),
        NAMES.map(Whiteout),
        NAMES.map(lambda name: Whiteout(f"{name}/f")),
        NAMES.map(Opaque),
    ),
    max_size=8,
    unique_by=lambda pair: pair[0].path,
)


@settings(max_examples=60, deadline=None)
@given(LOWER, UPPER, st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(lower, upper, random):
    shuffled = upper.copy()
    random.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for name, entries in (("one", upper), ("two", shuffled)):
            tree = LayerTree(Path(folder) / name)
            tree.root.mkdir()
            tree.apply(*lower)
            tree.apply(*entries)
            results.append([(path, path[-1] != "/" and tree.read(path)) for path in tree.names()])
        assert results[0] == results[1]


@pytest.mark.parametrize("name", [".wh.", ".wh..", "d/.wh..."])
def test_a_whiteout_of_the_root_or_of_a_directory_itself_is_refused(tree, name):
    tree.apply(File("kept"), File("d/kept"))
    with pytest.raises(UnsafeEntry):
        tree.apply(File(name))
    assert tree.names() == ["d/", "d/kept", "kept"]


def test_what_aufs_left_is_ignored(tree):
    tree.apply(File(".wh..wh.plnk/12.3", b"x"), File(".wh..wh.aufs"), File("f"))
    assert tree.names() == ["f"]


def test_a_directory_may_be_called_as_a_whiteout_is(tree):
    tree.apply(File("etc/f"))
    tree.apply(File(".wh.etc/f"))
    assert tree.names() == [".wh.etc/", ".wh.etc/f", "etc/", "etc/f"]


# --- markers --------------------------------------------------------------------------------------------


def opaque(tree, name):
    return "user.overlay.opaque" in os.listxattr(tree.path(name))


def is_marker(tree, name):
    found = tree.stat(name)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


@pytest.fixture
def overlay(tree):
    """Apply a layer as a directory of an overlay, in the way that needs no privilege."""

    def apply_layer(*entries):
        return tree.apply(*entries, whiteouts=Whiteouts.USER_OVERLAY)

    return apply_layer


def test_a_whiteout_becomes_a_device_without_number(tree, overlay):
    overlay(Whiteout("d/gone"), File("d/f"))
    assert is_marker(tree, "d/gone")


def test_an_opaque_whiteout_becomes_an_attribute(tree, overlay):
    overlay(Dir("d", mode=0o500), Opaque("d"), Dir("e"))
    assert (opaque(tree, "d"), opaque(tree, "e")) == (True, False)
    assert tree.mode("d") == 0o500


def test_no_directory_is_opaque_for_another(tree, overlay):
    overlay(File("d/e/f"), Opaque("d/e"))
    assert (opaque(tree, "d"), opaque(tree, "d/e")) == (False, True)


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_of_a_file_that_the_layer_has_leaves_no_marker(tree, overlay, order):
    overlay(*[Whiteout("f"), File("f", b"new")][::order])
    assert tree.read("f") == b"new"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("directory", [Dir("d"), File("d/f")], ids=["named", "implied"])
def test_a_directory_that_replaces_one_becomes_opaque(tree, overlay, directory, order):
    overlay(*[Whiteout("d"), directory][::order])
    assert opaque(tree, "d")


def test_a_whiteout_that_comes_twice_is_one(tree, overlay):
    overlay(Whiteout("f"), Whiteout("f"))
    assert is_marker(tree, "f")


def test_a_file_that_became_a_directory_after_its_whiteout_is_opaque(tree, overlay):
    overlay(File("x"), Whiteout("x"), Dir("x"))
    assert opaque(tree, "x")


@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_marked_where_everything_is_hidden(tree, overlay, order):
    """overlayfs would list such a marker as a file that is not there."""
    overlay(*[Dir("d"), Dir("d/e"), Opaque("d"), Whiteout("d/f"), Whiteout("d/e/f"), Whiteout("g")][::order])
    assert tree.names() == ["d/", "d/e/", "g"]


@pytest.mark.skipif(os.geteuid() != 0, reason="attributes of trusted. are for root")
def test_the_markers_of_a_privileged_overlay_are_trusted(tree):
    tree.apply(File("d/f"), Opaque("d"), Whiteout("g"), whiteouts=Whiteouts.OVERLAY)
    assert os.getxattr(tree.path("d"), "trusted.overlay.opaque") == b"y"
    assert is_marker(tree, "g")


@pytest.mark.skipif(os.geteuid() != 0, reason="attributes of trusted. are for root")
def test_a_privileged_layer_is_one_for_a_user_namespace_too(tree):
    """Root's containers mount their overlays there, with userxattr."""
    tree.apply(File("d/f"), Opaque("d"), whiteouts=Whiteouts.OVERLAY)
    assert os.getxattr(tree.path("d"), "user.overlay.opaque") == b"y"
