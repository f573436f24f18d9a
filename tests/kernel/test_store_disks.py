"""The store on real file systems: a full disk, one that cannot hold overlays, and a view of 127 layers.

Everything happens in mount namespaces of their own, as root of the machine or of a user namespace.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pycontain.runtime.probe import is_privileged

TESTS = Path(__file__).parent.parent

PRELUDE = """
import errno, os, sys
from pathlib import Path
from pycontain.errors import StoreError
from pycontain.kernel import syscalls
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.store.blobs import OCTETS
from pycontain.store.snapshots import Kind
from pycontain.store.store import Store
from stored_images import *

place = sys.argv[1]
kind = Kind(sys.argv[2])

def mount(kind, options=None):
    syscalls.mount("none", place, kind, 0, options)

def fill():
    "Use up the disk to the last byte."
    with open(f"{place}/ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC, error

def make_room():
    os.unlink(f"{place}/ballast")

def fails_for_lack_of_room(act, *arguments, **options):
    try:
        act(*arguments, **options)
    except StoreError as error:
        assert "the disk is full" in str(error), error
        assert "gc" in error.__notes__[0]
    else:
        raise AssertionError("there was room")
"""


def _namespaces():
    return ["unshare", "-m"] if is_privileged() else ["unshare", "-Urm"]


def _namespaces_work():
    return shutil.which("unshare") and subprocess.run([*_namespaces(), "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _namespaces_work(), reason="user namespaces are not allowed here")


@pytest.fixture
def inside(tmp_path):
    """Run Python with mounts of its own."""

    def run(code):
        kind = "overlay-privileged" if is_privileged() else "overlay-user"
        argv = [*_namespaces(), sys.executable, "-W", "error", "-c", PRELUDE + code, str(tmp_path), kind]
        environment = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


# --- a full disk ----------------------------------------------------------------------------------------


def test_a_full_disk_when_the_store_is_created(inside):
    inside("""
mount("tmpfs", "size=16k,mode=755")
os.mkdir(f"{place}/s")
fill()
fails_for_lack_of_room(Store, f"{place}/s")
make_room()
assert Store(f"{place}/s").images() == ()
""")


def test_a_full_disk_when_a_blob_is_put(inside):
    inside("""
mount("tmpfs", "size=1m,mode=755")
store = Store(f"{place}/s")
fails_for_lack_of_room(store.blobs.put, bytes(2**20))
assert list(store.blobs) == os.listdir(store.folder.partial) == []
assert store.blobs.put(bytes(2**19)).size == 2**19
""")


def test_a_full_disk_in_a_download_keeps_what_did_fit(inside):
    inside("""
mount("tmpfs", "size=1m,mode=755")
store = Store(f"{place}/s")
content = os.urandom(2**19)
expected = Descriptor.of(content, OCTETS)
with open(f"{place}/ballast", "wb") as file:
    file.write(bytes(700_000))
with store.blobs.partial(expected) as incoming:
    fails_for_lack_of_room(incoming.write, content)
assert not store.blobs.has(expected.digest)
make_room()
with store.blobs.partial(expected) as incoming:
    assert 0 < incoming.offset < expected.size
    incoming.write(content[incoming.offset :])
    incoming.commit()
assert store.blobs.read(expected.digest) == content
""")


def test_a_full_disk_when_a_name_is_set(inside):
    """The name still means what it meant, and the second try succeeds."""
    inside("""
mount("tmpfs", "size=1m,mode=755")
store = Store(f"{place}/s")
before = name_image(store, "x:1", "a")
after = put_image(store, "b")
fill()
fails_for_lack_of_room(store.names.set, ref("x:1"), after)
assert store.names.list() == (before,)
make_room()
store.names.set(ref("x:1"), after)
assert store.find(ref("x:1")).descriptor.digest == after.digest
""")


def test_a_full_disk_when_a_lease_protects(inside):
    inside("""
mount("tmpfs", "size=1m,mode=755")
store = Store(f"{place}/s")
stray = store.blobs.put(b"stray")
store.gc(dry_run=True)
with store.lease() as lease:
    fill()
    many = [Digest.of(b"%d" % number) for number in range(1000)]
    fails_for_lack_of_room(lease.protect, *many)
    make_room()
    lease.protect(stray.digest)
    assert store.gc().blobs == ()
""")


def test_collecting_makes_room_on_a_full_disk(inside):
    inside("""
mount("tmpfs", "size=1m,mode=755")
store = Store(f"{place}/s")
store.gc()
put_snapshots(store, kind, name_image(store, "x:1", "a"))
store.remove_image(ref("x:1"))
fill()
assert store.gc().snapshots
name_image(store, "x:1", "a")
""")


def test_a_full_disk_when_a_snapshot_is_made(inside):
    inside("""
mount("tmpfs", "size=1m,nr_inodes=30,mode=755")
store = Store(f"{place}/s")
snapshots = store.snapshots(kind)
def make(name):
    with snapshots.prepare(Digest.of(name), None) as active:
        snapshots.commit(active, 1)
def make_many():
    for number in range(30):
        make(b"%d" % number)
fails_for_lack_of_room(make_many)
made = snapshots.list()
assert made
store.gc()
assert snapshots.list() == ()
make(b"0")
""")


# --- file systems ---------------------------------------------------------------------------------------


def test_a_file_system_that_cannot_hold_overlays_is_named_and_images_can_still_be_kept(inside):
    """ramfs has no extended attributes."""
    inside("""
mount("ramfs")
store = Store(f"{place}/s")
name_image(store, "x:1", "a")
assert store.find(ref("x:1"))
try:
    store.snapshots(kind).prepare(Digest.of(b"a"), None)
except StoreError as error:
    assert "cannot hold the layers of an overlay" in str(error), error
else:
    raise AssertionError
assert os.listdir(store.folder.snapshots) == []
""")


def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(inside):
    inside("""
mount("tmpfs", "mode=755")
name_image(Store(f"{place}/s"), "x:1", "a")
syscalls.mount(None, place, None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY, None)
store = Store(f"{place}/s")
assert store.find(ref("x:1"))
try:
    name_image(store, "x:1", "b")
except StoreError as error:
    assert "read-only" in str(error), error
else:
    raise AssertionError
""")


# --- overlays -------------------------------------------------------------------------------------------


def test_the_view_of_an_image_with_127_layers_can_be_mounted(inside):
    """Named by descriptors, as 127 paths do not fit into the page that mount(2) takes."""
    inside("""
store = Store(f"{place}/s")
snapshots = store.snapshots(kind)
chain_ids = [Digest.of(b"%d" % number) for number in range(127)]
for number, chain_id in enumerate(chain_ids):
    with snapshots.prepare(chain_id, None) as active:
        Path(active.path, f"file-{number}").touch()
        Path(active.path, "topmost").write_text(str(number))
        snapshots.commit(active, 1)
fds = [os.open(path, os.O_PATH) for path in snapshots.mounts(chain_ids).lowerdirs]
options = "lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in fds) + ",userxattr" * kind.userxattr
os.mkdir(f"{place}/root")
syscalls.mount("overlay", f"{place}/root", "overlay", syscalls.MS_RDONLY, options)
assert len(os.listdir(f"{place}/root")) == 128
assert Path(place, "root/topmost").read_text() == "126"
""")


def test_the_marks_of_whiteouts_are_understood(inside):
    inside("""
import stat
store = Store(f"{place}/s")
snapshots = store.snapshots(kind)
lower, upper = chain_ids = Digest.of(b"lower"), Digest.of(b"upper")
with snapshots.prepare(lower, None) as active:
    Path(active.path, "hidden").touch()
    Path(active.path, "opaque").mkdir()
    Path(active.path, "opaque/hidden").touch()
    snapshots.commit(active, 1)
with snapshots.prepare(upper, lower) as active:
    os.mknod(f"{active.path}/hidden", stat.S_IFCHR, 0)
    os.mkdir(f"{active.path}/opaque")
    os.setxattr(f"{active.path}/opaque", ("user" if kind.userxattr else "trusted") + ".overlay.opaque", b"y")
    snapshots.commit(active, 1)
options = "lowerdir=" + ":".join(snapshots.mounts(chain_ids).lowerdirs) + ",userxattr" * kind.userxattr
os.mkdir(f"{place}/root")
syscalls.mount("overlay", f"{place}/root", "overlay", syscalls.MS_RDONLY, options)
assert os.listdir(f"{place}/root") == ["opaque"]
assert os.listdir(f"{place}/root/opaque") == []
""")
