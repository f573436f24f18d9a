"""What every snapshotter must do. A test class inherits :class:`SnapshotterConformance` and says how to make one.

Nothing is mounted or applied here: the facts are about keys, visibility, races and what is left behind.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pycontain.errors import StoreError
from pycontain.oci.digest import Digest
from pycontain.store.trees import remove_tree

BASE, TOP, OTHER = (Digest.of(name) for name in (b"base", b"top", b"other"))


class SnapshotterConformance:
    """Override :meth:`snapshots` as a fixture; :attr:`opening` is code that makes the same in another process."""

    opening = ""
    """Python that binds ``snapshots``, with ``folder`` bound to :meth:`place` as a text."""

    @pytest.fixture
    def snapshots(self, place):
        """A snapshotter in the folder *place*."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, tmp_path):
        """Where the snapshotter keeps everything."""
        return tmp_path / "place"

    def make(self, snapshots, chain_id, parent=None, size=7):
        """Commit a snapshot that holds one file with the chain ID in it."""
        with snapshots.prepare(chain_id, parent) as active:
            Path(active.path, "file").write_text(str(chain_id))
            return snapshots.commit(active, size)

    def trees_in(self, place):
        """Every file named ``file``, which :meth:`make` made."""
        return [os.path.join(folder, "file") for folder, _, files in os.walk(place) if "file" in files]

    def test_nothing_is_there_at_first(self, snapshots):
        assert snapshots.find(BASE) is None
        assert snapshots.list() == ()

    def test_an_active_snapshot_is_an_empty_directory(self, snapshots):
        with snapshots.prepare(BASE, None) as active:
            assert os.listdir(active.path) == []

    def test_an_active_snapshot_cannot_be_found(self, snapshots):
        with snapshots.prepare(BASE, None):
            assert snapshots.find(BASE) is None
            assert snapshots.list() == ()

    def test_a_committed_snapshot_is_found(self, snapshots):
        made = self.make(snapshots, TOP, BASE, size=7)
        assert snapshots.find(TOP) == made
        assert (made.chain_id, made.parent, made.size) == (TOP, BASE, 7)
        assert snapshots.list() == (made,)

    def test_the_view_of_a_chain_has_the_topmost_layer_first(self, snapshots):
        made = {chain_id: self.make(snapshots, chain_id) for chain_id in (BASE, TOP)}
        assert snapshots.mounts((BASE, TOP)).lowerdirs == (made[TOP].path, made[BASE].path)

    def test_there_is_no_view_of_what_is_not_committed(self, snapshots):
        self.make(snapshots, BASE)
        with pytest.raises(StoreError, match=str(TOP)):
            snapshots.mounts((BASE, TOP))

    def test_leaving_without_a_commit_leaves_nothing_to_be_seen(self, snapshots, place):
        with snapshots.prepare(BASE, None) as active:
            Path(active.path, "file").touch()
        assert snapshots.find(BASE) is None
        snapshots.sweep(remove_tree)
        assert self.trees_in(place) == []

    def test_the_first_commit_counts_and_the_second_finds_it(self, snapshots, place):
        with snapshots.prepare(BASE, None) as first, snapshots.prepare(BASE, None) as second:
            Path(first.path, "file").write_text("first")
            Path(second.path, "file").write_text("second")
            made = snapshots.commit(first, 1)
            assert snapshots.commit(second, 2) == made
        assert Path(made.path, "file").read_text() == "first"
        snapshots.sweep(remove_tree)
        assert self.trees_in(place) == [f"{made.path}/file"]

    def test_many_may_commit_the_same_at_once(self, snapshots):
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(self.make(snapshots, BASE))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert set(found) == {snapshots.find(BASE)}

    def test_a_removed_snapshot_is_gone_at_once_and_its_files_when_swept(self, snapshots, place):
        self.make(snapshots, BASE)
        kept = self.make(snapshots, OTHER)
        snapshots.remove(BASE)
        snapshots.remove(BASE)
        assert snapshots.find(BASE) is None
        snapshots.sweep(remove_tree)
        assert snapshots.list() == (kept,)
        assert self.trees_in(place) == [f"{kept.path}/file"]

    def test_a_removed_snapshot_can_be_made_anew(self, snapshots):
        self.make(snapshots, BASE)
        snapshots.remove(BASE)
        assert self.make(snapshots, BASE) == snapshots.find(BASE)

    def test_sweeping_leaves_what_is_being_made(self, snapshots):
        with snapshots.prepare(BASE, None) as active:
            snapshots.sweep(remove_tree)
            assert os.path.isdir(active.path)

    def test_sweeping_removes_what_a_killed_process_was_making(self, snapshots, place):
        code = f"""
import os, pathlib
from pycontain.oci.digest import Digest
folder = {str(place)!r}
{self.opening}
active = snapshots.prepare(Digest.of(b"base"), None)
pathlib.Path(active.path, "file").touch()
os.kill(os.getpid(), 9)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        assert len(self.trees_in(place)) == 1
        snapshots.sweep(remove_tree)
        assert self.trees_in(place) == []

    def test_two_may_sweep_at_once(self, snapshots, place):
        for number in range(20):
            self.make(snapshots, Digest.of(b"%d" % number))
        for committed in snapshots.list():
            snapshots.remove(committed.chain_id)
        threads = [threading.Thread(target=snapshots.sweep, args=(remove_tree,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.trees_in(place) == []
