"""The overlay snapshotter."""

import errno
import os
from pathlib import Path

import pytest
from snapshotter_conformance import BASE, OTHER, SnapshotterConformance

from pycontain.errors import StoreError
from pycontain.kernel.trees import remove_tree
from pycontain.store import overlay
from pycontain.store.snapshots import Kind
from pycontain.store.store import Store

KINDS = [
    pytest.param(Kind.OVERLAY_ROOT, marks=pytest.mark.root),
    Kind.OVERLAY_USER,
    Kind.OVERLAY_SINGLE,
]


class TestOverlay(SnapshotterConformance):
    opening = """
from pycontain.store.store import Store
from pycontain.store.snapshots import Kind
snapshots = Store(folder).snapshots(Kind.OVERLAY_USER)
"""

    @pytest.fixture
    def snapshots(self, place):
        return Store(place).snapshots(Kind.OVERLAY_USER)

    def test_what_was_made_before_the_machine_stopped_is_not_trusted(self, snapshots, monkeypatch):
        """It was not flushed: the power may have failed."""
        self.make(snapshots, BASE)
        monkeypatch.setattr(overlay, "_boot_id", lambda: "another boot")
        assert snapshots.list() == ()
        assert snapshots.find(BASE) is None
        assert self.make(snapshots, BASE) == snapshots.find(BASE)

    def test_what_was_there_for_longer_than_the_kernel_keeps_anything_back_is(self, snapshots, monkeypatch):
        made = self.make(snapshots, BASE)
        os.utime(Path(made.path).parent / "record", (0, 0))
        assert snapshots.find(BASE) == made
        monkeypatch.setattr(overlay, "_boot_id", lambda: "another boot")
        assert snapshots.find(BASE) == made

    @pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"chain-id": "x", "parent": null}'])
    def test_a_damaged_record_makes_no_snapshot(self, snapshots, record):
        made = self.make(snapshots, BASE)
        (Path(made.path).parent / "record").write_bytes(record)
        assert snapshots.find(BASE) is None
        assert self.make(snapshots, BASE) == snapshots.find(BASE)

    def test_a_snapshot_that_is_collected_while_it_is_made_is_named(self, snapshots, monkeypatch):
        monkeypatch.setattr(snapshots, "find", lambda _: None)
        with snapshots.prepare(BASE, None) as active, pytest.raises(StoreError, match="removed while"):
            snapshots.commit(active, 1)

    def test_kinds_are_apart(self, snapshots, place):
        self.make(snapshots, BASE)
        assert Store(place).snapshots(Kind.OVERLAY_SINGLE).find(BASE) is None

    def test_a_name_in_the_folder_is_short(self, snapshots):
        """127 of them are to fit into the options of one mount."""
        made = self.make(snapshots, OTHER)
        assert len(os.path.relpath(made.path, snapshots.folder)) == 32 + len("/fs")

    def test_a_commit_that_fails_leaves_nothing(self, snapshots, place, monkeypatch):
        def fail(*_):
            raise OSError(errno.EIO, "Input/output error")

        with snapshots.prepare(BASE, None) as active, monkeypatch.context() as patch:
            patch.setattr(os, "rename", fail)
            with pytest.raises(StoreError, match="Input/output error"):
                snapshots.commit(active, 1)
        snapshots.sweep(remove_tree)
        assert os.listdir(snapshots.folder) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_system_is_asked_once_whether_it_can_hold_overlays(tmp_path, kind, monkeypatch):
    snapshots = Store(tmp_path).snapshots(kind)
    with snapshots.prepare(BASE, None):
        pass
    monkeypatch.delattr(os, "setxattr")
    with snapshots.prepare(BASE, None):
        pass


def test_a_file_system_without_the_marks_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    store = Store(tmp_path)
    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(StoreError, match="cannot hold the layers of an overlay") as caught:
        store.snapshots(Kind.OVERLAY_USER).prepare(BASE, None)
    assert "PYCONTAIN_STORE" in caught.value.__notes__[0]
    assert os.listdir(store.folder.snapshots) == []


def test_whether_the_attribute_is_of_the_user():
    assert [kind.userxattr for kind in Kind] == [False, True, True]
