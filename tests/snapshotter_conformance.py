"""What every snapshotter must do. A test class inherits :class:`SnapshotterConformance` and says how to make one.

Nothing is mounted or applied here: the facts are about keys, visibility, races and what is left behind.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pycontain.errors import StoreError
from pycontain.kernel.trees import remove_tree
from pycontain.oci.digest import Digest

PATIENCE = 20.0  # seconds
BASE, TOP, OTHER = (Digest.of(name) for name in (b"base", b"top", b"other"))


def wait_until_somebody_waits_for_a_lock(place):
    """proc_locks(5): a line with an arrow is somebody who waits; the file is named by its inode."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        locks = {str(path.stat().st_ino) for path in Path(place).rglob("*.lock")}
        waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
        if any(words[6].rpartition(":")[2] in locks for words in waiting):
            return
        time.sleep(0.005)
    raise AssertionError("nobody waits for a lock")


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
            if active.committed is None:
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

    def test_who_prepares_the_same_waits_and_finds_it_done(self, snapshots, place):
        found = []

        def prepare():
            with snapshots.prepare(BASE, None) as second:
                found.append((second.committed, snapshots.commit(second, 2)))

        with snapshots.prepare(BASE, None) as first:
            Path(first.path, "file").write_text("first")
            thread = threading.Thread(target=prepare)
            thread.start()
            wait_until_somebody_waits_for_a_lock(place)
            assert found == []
            made = snapshots.commit(first, 1)
        thread.join()
        assert found == [(made, made)]
        snapshots.sweep(remove_tree)
        assert self.trees_in(place) == [f"{made.path}/file"]

    def test_who_waits_makes_it_himself_when_the_first_gives_up(self, snapshots):
        made = []
        thread = threading.Thread(target=lambda: made.append(self.make(snapshots, BASE)))
        with snapshots.prepare(BASE, None) as first:
            thread.start()
            Path(first.path, "other").touch()
        thread.join()
        assert made == [snapshots.find(BASE)]
        assert os.listdir(made[0].path) == ["file"]

    def test_others_are_prepared_meanwhile(self, snapshots):
        with snapshots.prepare(BASE, None):
            assert self.make(snapshots, TOP) == snapshots.find(TOP)

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

    @pytest.fixture
    def half_made(self, snapshots, place):
        """A snapshotter where a process was killed when it made BASE."""
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
        return snapshots

    def test_sweeping_removes_what_a_killed_process_was_making(self, half_made, place):
        half_made.sweep(remove_tree)
        assert self.trees_in(place) == []

    def test_what_a_killed_process_was_making_is_made_from_the_start(self, half_made):
        with half_made.prepare(BASE, None) as active:
            assert active.committed is None
            assert os.listdir(active.path) == []

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
