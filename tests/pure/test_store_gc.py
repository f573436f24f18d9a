"""Collecting: what nothing leads to goes, what is used stays, and the answer says what went."""

import os
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_images import layer_of, name_image, put_image, put_index, put_snapshots, ref

from pycontain.errors import StoreBusy, StoreCorrupt
from pycontain.image.importing import store_rootfs
from pycontain.oci.config import ExecutionParameters
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Manifest
from pycontain.oci.media_types import MANIFEST
from pycontain.oci.platform import Platform
from pycontain.store.blobs import OCTETS
from pycontain.store.folder import CONTENT
from pycontain.store.leases import read_leases
from pycontain.store.locks import Lock
from pycontain.store.snapshots import Kind
from pycontain.store.store import Store

KIND = Kind.OVERLAY_USER
STRAY = b"nothing leads here"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def blobs(store):
    return frozenset(store.blobs)


def bytes_on_disk(store):
    return sum(store.blobs.size(digest) for digest in store.blobs)


def used(store, entry, when):
    """Pretend that the image was last used at *when*."""
    store.touch(entry.descriptor.digest)
    os.utime(Path(store.folder.used, f"sha256-{entry.descriptor.digest.hex}"), (when, when))


# --- what stays and what goes ---------------------------------------------------------------------------


def test_what_no_name_leads_to_is_removed(store):
    name_image(store, "x:1", "a", "b")
    kept = blobs(store)
    stray = store.blobs.put(STRAY)
    collected = store.gc()
    assert (collected.blobs, collected.bytes) == ((stray.digest,), len(STRAY))
    assert blobs(store) == kept


def test_a_removed_image_is_freed(store):
    name_image(store, "x:1", "a")
    store.remove_image(ref("x:1"))
    store.gc()
    assert blobs(store) == frozenset()


def test_what_two_images_share_is_freed_with_the_last(store):
    name_image(store, "x:1", "shared", "a")
    name_image(store, "y:1", "shared", "b")
    shared = Digest.of(layer_of("shared"))
    for name, is_left in (("x:1", True), ("y:1", False)):
        store.remove_image(ref(name))
        store.gc()
        assert store.blobs.has(shared) is is_left


def test_an_image_with_two_names_is_freed_with_the_last(store):
    for name in ("x:1", "x:2"):
        name_image(store, name, "a")
    store.remove_image(ref("x:1"))
    assert store.gc().blobs == ()


def test_every_platform_of_the_index_that_is_here_stays(store):
    intel, arm = put_image(store, "a"), put_image(store, "b", architecture="arm64")
    index = put_index(store, intel, attrs.evolve(arm, platform=Platform("linux", "arm64")))
    store.names.set(ref("x:1"), intel, index=index)
    assert store.gc().blobs == ()


def test_manifests_of_the_index_that_were_never_pulled_are_no_problem(store):
    intel = put_image(store, "a")
    elsewhere = Descriptor(MANIFEST, Digest.of(b"elsewhere"), 9)
    store.names.set(ref("x:1"), intel, index=put_index(store, intel, elsewhere))
    assert store.gc().blobs == ()


def test_a_subject_stays(store):
    subject = put_image(store, "a")
    config = store.blobs.put(b"{}", media_type="application/vnd.oci.empty.v1+json")
    artifact = store.blobs.put(Manifest(config, (), subject=subject).encode(), media_type=MANIFEST)
    store.names.set(ref("x:1"), artifact)
    assert store.gc().blobs == ()


def test_what_a_strange_document_mentions_stays(store):
    """Another program put it there and may understand it."""
    layer = store.blobs.put(b"layer")
    strange = store.blobs.put(f'{{"blobSum": "{layer.digest}"}}'.encode(), media_type=MANIFEST)
    name_image(store, "x:1", "a")
    text = Path(store.folder.index).read_text()
    line = f'{{"mediaType": "{MANIFEST}", "digest": "{strange.digest}", "size": {strange.size}}}'
    Path(store.folder.index).write_text(text.replace('"manifests":[', f'"manifests":[{line},'))
    assert store.gc(max_bytes=0).images == (str(ref("x:1")),)
    assert blobs(store) == {layer.digest, strange.digest}


def test_a_damaged_document_stops_the_collection(store):
    """What it led to would be lost."""
    entry = name_image(store, "x:1", "a")
    before = blobs(store)
    Path(store.blobs.path(entry.descriptor.digest)).write_bytes(b"{}")
    with pytest.raises(StoreCorrupt):
        store.gc()
    assert blobs(store) == before


def test_layers_of_an_image_stay_unpacked(store):
    entry = name_image(store, "x:1", "a", "b")
    chain_ids = put_snapshots(store, KIND, entry)
    assert store.gc().snapshots == ()
    assert all(map(store.snapshots(KIND).find, chain_ids))


def test_layers_of_a_removed_image_are_freed(store):
    entry = name_image(store, "x:1", "a", "b")
    chain_ids = put_snapshots(store, KIND, entry, size=500)
    before = bytes_on_disk(store)
    store.remove_image(ref("x:1"))
    collected = store.gc()
    assert {chain_id for _, chain_id in collected.snapshots} == set(chain_ids)
    assert collected.bytes == before + 2 * 500
    assert os.listdir(Path(store.folder.snapshots, KIND.value)) == []


def test_trees_are_removed_as_the_caller_says(store):
    """In a rootless store their files belong to ids that only a user namespace can act for."""
    entry = name_image(store, "x:1", "a")
    put_snapshots(store, KIND, entry)
    store.remove_image(ref("x:1"))
    trees = []
    store.gc(remove_tree=trees.append)
    assert [os.path.dirname(tree) for tree in trees] == [f"{store.folder.snapshots}/{KIND.value}"]


# --- limits ---------------------------------------------------------------------------------------------


def test_what_was_not_used_for_long_is_forgotten(store):
    old, new = (name_image(store, f"{name}:1", name) for name in ("old", "new"))
    used(store, old, time.time() - 3600)
    used(store, new, time.time() - 60)
    assert store.gc(unused_for=600).images == (old.name,)
    assert store.names.list() == (new,)
    assert store.usage().reclaimable == 0


def test_the_least_recently_used_are_forgotten_until_it_fits(store):
    entries = [name_image(store, f"x:{number}", "x" * 1000 * number) for number in range(1, 4)]
    for entry, when in zip(entries, (30, 10, 20), strict=True):
        used(store, entry, when)
    limit = store.usage().bytes - 1
    assert store.gc(max_bytes=limit).images == (entries[1].name,)
    assert store.usage().bytes <= limit


def test_use_is_recorded_once_a_minute(store):
    entry = name_image(store, "x:1", "a")
    used(store, entry, 1000.0)
    store.touch(entry.descriptor.digest)
    touched = store.last_used(entry.descriptor.digest)
    assert touched > 1000.0
    store.touch(entry.descriptor.digest)
    assert store.last_used(entry.descriptor.digest) == touched


def test_an_image_that_was_never_used_counts_from_when_it_came(store):
    entry = name_image(store, "x:1", "a")
    assert time.time() - store.last_used(entry.descriptor.digest) < 600
    assert store.last_used(Digest.of(b"not here")) == 0.0


def test_use_is_forgotten_with_the_image(store):
    entry = name_image(store, "x:1", "a")
    store.touch(entry.descriptor.digest)
    store.gc(max_bytes=0)
    assert os.listdir(store.folder.used) == []


def test_what_others_named_without_a_name_is_not_forgotten(store):
    name_image(store, "x:1", "a")
    text = Path(store.folder.index).read_text()
    Path(store.folder.index).write_text(text.replace(str(ref("x:1")), ""))
    assert store.gc(max_bytes=0).images == ()


def test_a_dry_run_says_what_would_go_and_changes_nothing(store):
    entry = name_image(store, "x:1", "a")
    put_snapshots(store, KIND, entry)
    store.blobs.put(STRAY)
    with store.blobs.partial(Descriptor.of(b"abc", OCTETS)) as incoming:
        incoming.write(b"ab")
    before = blobs(store)
    would = store.gc(max_bytes=0, dry_run=True)
    assert blobs(store) == before
    assert store.find(ref("x:1"))
    assert store.gc(max_bytes=0) == attrs.evolve(would, dry_run=False)
    assert store.usage().bytes == 0


def test_usage_counts_everything_once(store):
    put_snapshots(store, KIND, name_image(store, "x:1", "shared", "a"), size=500)
    name_image(store, "y:1", "shared", "b")
    stored = bytes_on_disk(store)
    store.blobs.put(STRAY)
    with store.blobs.partial(Descriptor.of(b"abc", OCTETS)) as incoming:
        incoming.write(b"ab")
        busy = store.usage()
    usage = store.usage()
    assert (usage.images, usage.blobs, usage.snapshots, usage.partial) == (2, stored + len(STRAY), 1000, 2)
    assert usage.bytes == usage.blobs + usage.snapshots + usage.partial
    assert (busy.reclaimable, usage.reclaimable) == (len(STRAY), len(STRAY) + 2)
    assert store.gc().bytes == usage.reclaimable


# --- partial downloads ----------------------------------------------------------------------------------


def test_a_download_that_nobody_goes_on_with_is_removed(store):
    with store.blobs.partial(Descriptor.of(b"abc", OCTETS)) as incoming:
        incoming.write(b"ab")
    assert store.gc().partial == 2
    assert os.listdir(store.folder.partial) == []


def test_a_download_that_is_going_on_stays(store):
    with store.lease() as lease, store.blobs.partial(Descriptor.of(b"abc", OCTETS)) as incoming:
        lease.protect(Digest.of(b"abc"))
        incoming.write(b"ab")
        assert store.gc().partial == 0
        incoming.write(b"c")
        incoming.commit()
        assert store.gc().blobs == ()


def test_a_store_is_tidied_once_a_day_when_it_is_opened(store):
    """Downloads that may still be resumed stay."""
    for content, week in ((b"old", 8), (b"new", 6)):
        with store.blobs.partial(Descriptor.of(content, OCTETS)) as incoming:
            incoming.write(content[:2])
        then = time.time() - week * 24 * 3600
        os.utime(Path(store.folder.partial, f"sha256-{Digest.of(content).hex}"), (then, then))
    Path(store.folder.leases, "left").touch()
    Store(store.path)
    assert len(os.listdir(store.folder.partial)) == 2
    os.utime(store.folder.tidied, (0, 0))
    Store(store.path)
    assert os.listdir(store.folder.partial) == [f"sha256-{Digest.of(b'new').hex}"]
    assert os.listdir(store.folder.leases) == []


# --- leases ---------------------------------------------------------------------------------------------


def test_what_a_lease_protects_stays(store):
    stray = store.blobs.put(STRAY)
    with store.lease() as lease:
        lease.protect(stray.digest)
        lease.protect(stray.digest)
        assert store.gc().blobs == ()
    assert store.gc().blobs == (stray.digest,)


def test_layers_that_a_lease_protects_stay(store):
    entry = name_image(store, "x:1", "a")
    chain_ids = put_snapshots(store, KIND, entry)
    store.remove_image(ref("x:1"))
    with store.lease() as lease:
        lease.protect(*chain_ids)
        assert store.gc().snapshots == ()


def test_a_name_whose_manifest_is_protected_is_not_forgotten(store):
    entry = name_image(store, "x:1", "a")
    with store.lease() as lease:
        lease.protect(entry.descriptor.digest)
        assert store.gc(max_bytes=0).images == ()
    assert store.gc(max_bytes=0).images == (entry.name,)


def test_a_lease_ends_with_its_process(store):
    code = f"""
import os
from pycontain.oci.digest import Digest
from pycontain.store.store import Store
lease = Store({store.path!r}).lease()
lease.protect(Digest.of({STRAY!r}))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(os.listdir(store.folder.leases)) == 1
    store.blobs.put(STRAY)
    assert len(store.gc().blobs) == 1
    assert os.listdir(store.folder.leases) == []


def test_protecting_waits_while_somebody_collects(store):
    with Lock.take(store.folder.lock(CONTENT)):
        code = f"""
from pycontain.oci.digest import Digest
from pycontain.store.store import Store
lease = Store({store.path!r}).lease()
print("leased", flush=True)
lease.protect(Digest.of(b"x"))
print("protected", flush=True)
"""
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "leased\n"
        assert read_leases(store.folder) == frozenset()
    with other:
        assert other.stdout.readline() == "protected\n"


def test_who_does_not_want_to_wait_for_another_collection_is_told(store):
    with Lock.take(store.folder.lock(CONTENT)), pytest.raises(StoreBusy) as caught:
        store.gc(timeout=0)
    assert str(os.getpid()) in caught.value.holder


# --- a law ----------------------------------------------------------------------------------------------

contents = st.dictionaries(
    st.sampled_from(["v:1", "w:1", "x:1", "y:1"]),
    st.lists(st.sampled_from(["p", "q", "r"]), max_size=3),
    min_size=1,
)


@settings(max_examples=25, deadline=None)
@given(contents, st.integers(0, 12000))
def test_every_image_that_is_still_named_is_whole(tmp_path_factory, contents, limit):
    store = Store(tmp_path_factory.mktemp("law") / "store")
    for name, texts in contents.items():
        name_image(store, name, *texts, author=name)
    collected = store.gc(max_bytes=limit)
    assert len(store.images()) == len(store.names.list()) == len(contents) - len(collected.images)
    assert bytes_on_disk(store) <= limit
    assert store.verify().ok


class _Collecting:
    """A lease in whose every beginning somebody else collects."""

    def __init__(self, store, lease):
        self._store, self._lease = store, lease

    def protect(self, *digests):
        self._store.gc()
        self._lease.protect(*digests)


@pytest.mark.parametrize("kind", ["directory", "tar"])
def test_a_root_file_system_is_protected_before_it_is_visible(store, tmp_path, kind):
    """Else who collects at that moment takes the layer."""
    path = tmp_path / "root"
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(layer_of("x"))
    with store.lease() as lease:
        platform = Platform.parse("linux/amd64")
        parameters = ExecutionParameters()
        found = store_rootfs(store, _Collecting(store, lease), str(path), parameters, platform)
        assert store.blobs.has(found.layers[0].descriptor.digest)
