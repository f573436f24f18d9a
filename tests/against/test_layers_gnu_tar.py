"""GNU tar as the witness: what it writes we read as Python's tarfile does, and what we write it unpacks."""

import io
import os
import shutil
import subprocess
import tarfile

import pytest

from pycontain.layers.decode import Decoder
from pycontain.layers.diff import diff
from pycontain.layers.encode import encode
from pycontain.layers.entries import Kind, Whiteouts

pytestmark = pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")

HOLE = 1 << 20


@pytest.fixture
def folder(tmp_path):
    """A tree with what the formats differ in."""
    top = tmp_path / "tree"
    (top / "dir" / "sub").mkdir(parents=True)
    (top / "dir" / "file").write_bytes(os.urandom(3000))
    (top / "dir" / ("long" * 60)).write_text("long name")
    (top / "link").symlink_to("target/" * 30)
    os.link(top / "dir" / "file", top / "hard")
    os.mkfifo(top / "fifo")
    with open(top / "sparse", "wb") as file:
        for at in range(0, 40 * HOLE, 4 * HOLE):
            file.seek(at)
            file.write(b"data")
        file.truncate(41 * HOLE)
    os.utime(top / "dir" / "file", ns=(0, 1_700_000_000_123_456_789))
    return top


def tar(folder, *options):
    argv = ["tar", "--create", "--sort=name", *options, "-C", str(folder), "."]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def ours(archive):
    decoder = Decoder([archive])
    found = {}
    for entry in decoder:
        content = io.BytesIO(bytes(entry.size))
        for at, piece in decoder.content():
            content.seek(at)
            content.write(piece)
        found[entry.path] = (entry, content.getvalue())
    return found


def tarfiles(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        return {
            os.fsencode(os.path.normpath(member.name)).removeprefix(b"."): (
                member,
                read.extractfile(member).read() if member.isreg() else b"",
            )
            for member in read
        }


FORMS = [
    ("--format=gnu",),
    ("--format=posix",),
    ("--format=gnu", "--sparse"),
    ("--format=posix", "--sparse", "--sparse-version=0.0"),
    ("--format=posix", "--sparse", "--sparse-version=0.1"),
    ("--format=posix", "--sparse", "--sparse-version=1.0"),
]


@pytest.mark.parametrize("options", FORMS, ids=" ".join)
def test_what_gnu_tar_writes_is_read_as_tarfile_reads_it(folder, options):
    archive = tar(folder, *options)
    found, witness = ours(archive), tarfiles(archive)
    assert found.keys() == witness.keys()
    for path, (entry, content) in found.items():
        member, expected = witness[path]
        assert content == expected
        assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
        assert entry.mtime // 10**9 == int(member.mtime // 1)
        if entry.kind in {Kind.SYMLINK, Kind.HARD_LINK}:
            assert entry.target == os.fsencode(member.linkname).removeprefix(b"./")


@pytest.mark.parametrize("options", FORMS[2:], ids=" ".join)
def test_the_holes_that_gnu_tar_found_are_not_stored(folder, options):
    entry, _ = ours(tar(folder, *options))[b"sparse"]
    assert entry.size == 41 * HOLE
    assert entry.stored < 1 << 20


def test_fractions_of_a_second_are_read_exactly(folder):
    entry, _ = ours(tar(folder, "--format=posix"))[b"dir/file"]
    assert entry.mtime == 1_700_000_000_123_456_789


def test_gnu_tar_unpacks_what_we_write(folder, tmp_path):
    archive = b"".join(encode(diff(str(folder), whiteouts=Whiteouts.REMOVE)))
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    argv = ["tar", "--extract", "--preserve-permissions", "-C", str(unpacked)]
    subprocess.run(argv, input=archive, check=True, capture_output=True)
    again = b"".join(encode(diff(str(unpacked), whiteouts=Whiteouts.REMOVE)))
    assert archive == again


def test_gnu_tar_sees_no_difference_to_a_sparse_archive_of_ours(folder, tmp_path):
    """Entries that GNU tar wrote sparse, written again by us, in the same form."""
    decoder = Decoder([tar(folder, "--format=posix", "--sparse")])
    contents = ((entry, [bytes(piece) for _, piece in decoder.content()]) for entry in decoder)
    archive = tmp_path / "again.tar"
    archive.write_bytes(b"".join(encode(contents)))
    done = subprocess.run(
        ["tar", "--compare", "-f", str(archive), "-C", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")
