"""Blobs: whole or not there, safe to repeat, and downloads go on where they ended."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pycontain.errors import DigestMismatch, InvalidImage, StoreBusy, StoreCorrupt
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.store.blobs import OCTETS, BlobMissing
from pycontain.store.store import Store

CONTENT = b"content" * 1000
EXPECTED = Descriptor.of(CONTENT, OCTETS)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def leftovers(store):
    return os.listdir(store.folder.partial)


def test_a_blob_is_where_the_image_layout_says(store):
    store.blobs.put(b"abc")
    place = "blobs/sha256/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Path(store.path, place).read_bytes() == b"abc"


def test_bytes_are_described(store):
    assert store.blobs.put(b"abc", media_type="text/plain") == Descriptor.of(b"abc", "text/plain")


def test_a_stream_is_described(store):
    assert store.blobs.put(io.BytesIO(CONTENT)) == EXPECTED


def test_a_blob_can_be_put_again(store):
    assert store.blobs.put(CONTENT) == store.blobs.put(CONTENT)
    assert list(store.blobs) == [EXPECTED.digest]


def test_what_is_stored_already_is_not_read_again(store):
    store.blobs.put(CONTENT)
    assert store.blobs.put(None, EXPECTED) == EXPECTED


def test_nothing_is_left_beside_a_blob(store):
    store.blobs.put(CONTENT)
    assert leftovers(store) == []


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1], CONTENT + b"x", b"X" + CONTENT[1:]])
def test_other_bytes_than_expected_are_refused(store, wrong):
    with pytest.raises(DigestMismatch):
        store.blobs.put(io.BytesIO(wrong), EXPECTED)
    assert not store.blobs.has(EXPECTED.digest)
    assert leftovers(store) == []


def test_a_stream_that_fails_leaves_nothing(store):
    class Broken(io.RawIOBase):
        def read(self, _size):
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.blobs.put(Broken(), EXPECTED)
    assert leftovers(store) == []


def test_sha512_has_a_folder_of_its_own(store):
    digest = Digest.of(CONTENT, "sha512")
    store.blobs.put(CONTENT, Descriptor(OCTETS, digest, len(CONTENT)))
    assert store.blobs.read(digest) == CONTENT
    assert list(store.blobs) == [digest]


def test_a_missing_blob_is_named(store):
    with pytest.raises(BlobMissing, match=str(EXPECTED.digest)):
        store.blobs.open(EXPECTED.digest)


def test_a_blob_that_has_changed_is_not_read(store):
    store.blobs.put(CONTENT)
    Path(store.blobs.path(EXPECTED.digest)).write_bytes(b"X" + CONTENT[1:])
    with pytest.raises(StoreCorrupt) as caught:
        store.blobs.read(EXPECTED.digest)
    assert "verify" in caught.value.__notes__[0]


def test_a_blob_over_the_limit_is_not_read_into_memory(store):
    store.blobs.put(CONTENT)
    with pytest.raises(InvalidImage, match="more than 10 bytes"):
        store.blobs.read(EXPECTED.digest, 10)


def test_files_that_other_programs_write_beside_blobs_are_no_blobs(store):
    Path(store.path, "blobs/sha256/oci-put-blob123").write_bytes(b"x")
    assert list(store.blobs) == []


# --- partial --------------------------------------------------------------------------------------------


def test_a_partial_blob_cannot_be_seen(store):
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(CONTENT)
        assert not store.blobs.has(EXPECTED.digest)
        incoming.commit()
    assert store.blobs.read(EXPECTED.digest) == CONTENT


def test_a_try_goes_on_where_the_one_before_ended(store):
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(CONTENT[:100])
    with store.blobs.partial(EXPECTED) as incoming:
        assert (incoming.offset, incoming.remaining) == (100, len(CONTENT) - 100)
        incoming.write(CONTENT[100:])
        assert incoming.commit() == EXPECTED
    assert leftovers(store) == []


def test_what_came_earlier_can_be_read_back(store):
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(CONTENT[:100])
        with incoming.open() as earlier:
            assert earlier.read() == CONTENT[:100]


def test_a_blob_that_is_here_is_complete_at_once(store):
    store.blobs.put(CONTENT)
    with store.blobs.partial(EXPECTED) as incoming:
        assert incoming.complete
        assert incoming.commit() == EXPECTED
        with incoming.open() as file:
            assert file.read() == CONTENT


def test_wrong_bytes_are_forgotten_so_that_the_next_try_can_succeed(store):
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(b"X" * len(CONTENT))
        with pytest.raises(DigestMismatch):
            incoming.commit()
    with store.blobs.partial(EXPECTED) as incoming:
        assert incoming.offset == 0


def test_too_many_bytes_are_refused_as_they_come(store):
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(CONTENT)
        with pytest.raises(DigestMismatch, match="more are coming"):
            incoming.write(b"x")


def test_too_few_bytes_are_kept(store):
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(CONTENT[:100])
        with pytest.raises(DigestMismatch, match="only 100 came"):
            incoming.commit()
    with store.blobs.partial(EXPECTED) as incoming:
        assert incoming.offset == 100


def test_a_partial_blob_can_begin_anew(store):
    """A server may send all of it though a part was asked for."""
    with store.blobs.partial(EXPECTED) as incoming:
        incoming.write(b"wrong")
        incoming.restart()
        incoming.write(CONTENT)
        incoming.commit()
    assert store.blobs.read(EXPECTED.digest) == CONTENT


def test_a_try_that_brought_nothing_leaves_nothing(store):
    with store.blobs.partial(EXPECTED):
        pass
    assert leftovers(store) == []


def test_a_partial_blob_longer_than_the_blob_is_forgotten(store):
    """Nothing that pycontain does makes one; a copied or edited store may hold it."""
    name = f"{EXPECTED.digest.algorithm}-{EXPECTED.digest.hex}"
    Path(store.folder.partial, name).write_bytes(CONTENT + b"x")
    with store.blobs.partial(EXPECTED) as incoming:
        assert incoming.offset == 0


def test_who_comes_second_waits_and_finds_the_blob(store):
    found = []

    def second():
        with Store(store.path).blobs.partial(EXPECTED) as incoming:
            found.append(incoming.complete)

    with store.blobs.partial(EXPECTED) as incoming:
        thread = threading.Thread(target=second)
        thread.start()
        incoming.write(CONTENT)
        incoming.commit()
    thread.join()
    assert found == [True]


def test_who_does_not_want_to_wait_is_told_for_whom(store):
    with store.blobs.partial(EXPECTED), pytest.raises(StoreBusy) as caught:
        store.blobs.partial(EXPECTED, timeout=0)
    assert f"(pid {os.getpid()})" in caught.value.holder


def test_a_try_goes_on_after_one_that_was_killed(store):
    code = f"""
import os, signal
from pycontain.store.store import Store
from pycontain.oci.descriptor import Descriptor
incoming = Store({store.path!r}).blobs.partial(Descriptor.of({CONTENT!r}, {OCTETS!r}))
incoming.write({CONTENT[:100]!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -9
    with store.blobs.partial(EXPECTED, timeout=0) as incoming:
        assert incoming.offset == 100
        incoming.write(CONTENT[100:])
        incoming.commit()
