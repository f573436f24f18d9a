"""Removing trees that others made."""

import os
import threading
from pathlib import Path

from pycontain.kernel.trees import remove_tree


def test_a_deep_tree_is_removed(tmp_path):
    """Deeper than descriptors, stack and paths go."""
    folder = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("tree", dir_fd=folder)
    for name in ["tree", *["d"] * 3000]:
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
        os.mkdir("d", dir_fd=folder)
        Path(f"/proc/self/fd/{folder}/file").touch()
    os.close(folder)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_directories_that_are_closed_to_their_owner_are_removed(tmp_path):
    inner = tmp_path / "tree/a/b/c"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for folder in (inner, inner.parent, inner.parent.parent):
        folder.chmod(0)
    (tmp_path / "tree").chmod(0o500)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    (tmp_path / "tree/d/link").symlink_to(tmp_path / "kept")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_a_tree_that_is_gone_is_no_problem(tmp_path):
    remove_tree(str(tmp_path / "tree"))


def test_a_tree_may_be_removed_by_many_at_once(tmp_path):
    for number in range(300):
        (tmp_path / f"tree/{number % 7}/{number % 5}/{number}").mkdir(parents=True)
    threads = [threading.Thread(target=remove_tree, args=(str(tmp_path / "tree"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == []


def test_more_entries_than_the_budget_are_not_removed(tmp_path):
    for number in range(5):
        (tmp_path / f"tree/{number}").mkdir(parents=True)
    assert not remove_tree(str(tmp_path / "tree"), 3)
    assert remove_tree(str(tmp_path / "tree"), 3)
    assert os.listdir(tmp_path) == []
