"""The process that unpacks layers, from its first request to its end."""

import os
import shutil
import tempfile
import threading
import time

import pytest

from pycontain.errors import SandboxError
from pycontain.runtime import engine as engines
from pycontain.runtime.unpack import Unpacker
from pycontain.testing.leaks import Snapshot, wait_for_leaks


@pytest.fixture
def engine():
    return engines.engine()


@pytest.fixture
def target():
    """An empty directory that the zygote can reach, whoever runs it."""
    folder = tempfile.mkdtemp(prefix="pycontain-tree-", dir="/var/tmp")
    yield f"{folder}/tree"
    shutil.rmtree(folder)


def test_a_layer_that_never_ends_is_given_up_with_its_unpacker(engine, target):
    os.mkdir(target)
    before = Snapshot.take()
    read_end, write_end = os.pipe()
    failed = []

    def apply():
        with pytest.raises(SandboxError) as caught:
            unpacker.apply(read_end, target)
        failed.append(caught.value)

    with Unpacker(engine) as unpacker:
        thread = threading.Thread(target=apply)
        thread.start()
        while len(Snapshot.take().processes - before.processes) < 2:  # it, and its child for this layer
            time.sleep(0.01)
    thread.join()
    os.close(read_end)
    os.close(write_end)
    assert "was killed" in str(failed[0])
    assert wait_for_leaks(before) == []
