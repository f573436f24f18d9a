"""A tree is removed, and nothing that is mounted in it."""

import errno
import os

import pytest

from pycontain.kernel import syscalls
from pycontain.kernel.trees import remove_tree


@pytest.mark.root
@pytest.mark.parametrize("bound", [False, True])
def test_what_is_mounted_in_a_tree_stays(tmp_path, bound):
    """Another file system, and another directory of the same one."""
    inner = tmp_path / "tree/a/mounted"
    inner.mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    source, kind = (str(tmp_path / "kept"), None) if bound else ("tmpfs", "tmpfs")
    syscalls.mount(source, str(inner), kind, syscalls.MS_BIND if bound else 0, None)
    try:
        (inner / "file").touch()
        with pytest.raises(OSError, match="a file system is mounted there") as caught:
            remove_tree(str(tmp_path / "tree"))
        assert caught.value.errno == errno.EBUSY
        assert (inner / "file").exists()
    finally:
        syscalls.umount2(str(inner), 0)
    remove_tree(str(tmp_path / "tree"))
    assert not os.path.lexists(tmp_path / "tree")
