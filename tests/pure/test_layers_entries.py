"""Paths, whiteouts and limits as values."""

import posixpath

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pycontain.errors import LayerTooLarge, UnsafeEntry
from pycontain.layers.entries import (
    Entry,
    Kind,
    Limits,
    Opaque,
    clean,
    hidden_by,
    is_aufs_leftover,
    printable,
)

PATHS = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".b", b"..c", b"d.", b"\xff"]), max_size=8).map(
    b"/".join
)


@given(PATHS)
def test_a_clean_path_is_what_posixpath_says_below_the_root(path):
    assert clean(path) == posixpath.normpath(b"/" + path).lstrip(b"/")


@given(PATHS)
def test_cleaning_twice_changes_nothing(path):
    assert clean(clean(path)) == clean(path)


def test_dot_dot_stops_at_the_root():
    assert clean(b"../../etc/../../passwd") == b"passwd"


def test_a_file_named_wh_hides_its_namesake():
    assert hidden_by(b"etc/.wh.passwd") == b"passwd"


def test_a_whiteout_may_hide_a_hidden_file():
    assert hidden_by(b".wh..profile") == b".profile"


def test_opq_hides_all_siblings():
    assert hidden_by(b"etc/.wh..wh..opq") is Opaque.OPAQUE


def test_a_directory_above_with_such_a_name_is_no_whiteout():
    assert hidden_by(b".wh.etc/somefile") is None


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"etc/.wh.."])
def test_a_whiteout_of_a_directory_itself_or_above_is_unsafe(name):
    with pytest.raises(UnsafeEntry) as caught:
        hidden_by(name)
    assert caught.value.path == printable(name)


@pytest.mark.parametrize(("path", "is_one"), [(b".wh..wh.plnk/7.9", True), (b".wh..wh..opq", False)])
def test_aufs_left_files_of_its_own_in_the_root(path, is_one):
    assert is_aufs_leftover(path) is is_one


def test_a_message_shows_bytes_that_are_no_text():
    assert printable(b"a\xffb") == r"a\xffb"


def test_an_entry_stores_its_size_unless_it_is_sparse():
    assert Entry(b"f", Kind.FILE, size=9).stored == 9
    assert Entry(b"f", Kind.FILE, size=9, segments=((0, 2), (7, 1))).stored == 3


@pytest.mark.parametrize(
    ("limit", "entry", "number"),
    [
        ("max_entries", Entry(b"a", Kind.FILE), 3),
        ("max_bytes", Entry(b"a", Kind.FILE, size=101), 1),
        ("max_name", Entry(b"a" * 11, Kind.FILE), 1),
        ("max_name", Entry(b"a", Kind.SYMLINK, target=b"t" * 11), 1),
        ("max_depth", Entry(b"a/b/c/d", Kind.FILE), 1),
    ],
)
def test_an_entry_beyond_a_limit_is_refused_and_the_hint_names_the_argument(limit, entry, number):
    limits = Limits(max_entries=2, max_bytes=100, max_name=10, max_depth=3)
    with pytest.raises(LayerTooLarge) as caught:
        limits.check_entry(entry, number)
    assert caught.value.path == printable(entry.path)
    assert f"Limits({limit}=" in caught.value.__notes__[0]


def test_an_entry_at_the_limits_is_accepted():
    limits = Limits(max_entries=2, max_bytes=100, max_name=10, max_depth=3)
    limits.check_entry(Entry(b"a/b/cccccc", Kind.FILE, size=100), 2)


def test_the_ratio_is_not_judged_before_64_mib():
    Limits(max_ratio=2).check_bytes(64 << 20, 1, b"")


def test_a_ratio_beyond_the_limit_is_refused():
    with pytest.raises(LayerTooLarge, match="2 times its compressed size, met at 'zeros'"):
        Limits(max_ratio=2).check_bytes(65 << 20, 32 << 20, b"zeros")


def test_more_bytes_than_the_limit_are_refused():
    with pytest.raises(LayerTooLarge, match="more than 100 bytes"):
        Limits(max_bytes=100).check_bytes(101, 101, b"")
