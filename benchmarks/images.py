"""Images to measure with: a real Debian in three layers, made once and kept, and layers of any size.

Debian comes from mmdebstrap, which knows this machine's own sources. It is asked for one set of packages after the
other, and what a set adds or changes is a layer, as a Dockerfile would have made it::

    debian:three-layers   the essential packages  +  apt  +  ca-certificates and what minbase has
    debian:sibling        the same two            +  python3-minimal and what minbase has

The layers are gzip by zlib's usual level, as Docker writes them, so none of those who unpack them is at an advantage.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING, BinaryIO, cast

from benchmarks.measure import Unavailable
from pycontain import Image, Store
from pycontain.errors import ImageNotFound
from pycontain.layers.compression import Compression
from pycontain.layers.encode import encode
from pycontain.layers.entries import Entry, Kind
from pycontain.layers.pack import pack
from pycontain.oci.config import ExecutionParameters, ImageConfig, RootFS
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Manifest
from pycontain.oci.media_types import CONFIG, LAYER_GZIP, MANIFEST
from pycontain.oci.platform import Platform
from pycontain.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pycontain.oci.descriptor import Descriptor

DEBIAN = "localhost/debian:three-layers"
SIBLING = "localhost/debian:sibling"

_SUITE = "bookworm"
_SETS = {
    "essential": ("--variant=essential",),
    "apt": ("--variant=apt",),
    "certificates": ("--variant=minbase", "--include=ca-certificates"),
    "python": ("--variant=minbase", "--include=python3-minimal"),
}
_IMAGES = {DEBIAN: ("essential", "apt", "certificates"), SIBLING: ("essential", "apt", "python")}
_EPOCH = (
    "1700000000"  # a time for what the makers of the sets write, so that it does not differ from set to set
)
_GZIP_LEVEL = 6
_COPY = 1 << 20


# --- Debian ---------------------------------------------------------------------------------------------


def debian_store(folder: str) -> Store:
    """A store in *folder* with both images; they are made when it does not have them, which takes a minute."""
    store = Store(f"{folder}/debian-{_SUITE}")
    if not all(_has(store, name) for name in _IMAGES):
        _make_debian(store)
    return store


def _has(store: Store, name: str) -> bool:
    try:
        Image.find(name, store=store)
    except ImageNotFound:
        return False
    return True


def _make_debian(store: Store) -> None:
    if shutil.which("mmdebstrap") is None:
        raise Unavailable("mmdebstrap is not installed (Debian: mmdebstrap)")
    with tempfile.TemporaryDirectory(dir=store.path) as folder:
        layers: dict[tuple[str, str], tuple[Descriptor, Digest]] = {}
        for name, sets in _IMAGES.items():
            for below, added in zip(("", *sets), sets, strict=False):
                if (below, added) not in layers:
                    tars = [_debian(folder, one) if one else None for one in (below, added)]
                    layers[below, added] = _add_layer(store, f"{folder}/layer", _difference(*tars))
            store_image(store, name, [layers[pair] for pair in zip(("", *sets), sets, strict=False)])


def _debian(folder: str, name: str) -> str:
    tar = f"{folder}/{name}.tar"
    if not os.path.exists(tar):
        argv = ["mmdebstrap", "--quiet", *_SETS[name], _SUITE, tar]
        done = subprocess.run(
            argv, env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise Unavailable(f"mmdebstrap fails here: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return tar


def _difference(below: str | None, above: str | None) -> Callable[[BinaryIO], None]:
    """What writes the entries of *above* that *below* has not, with the directories they are in. Nothing was removed."""
    assert above

    def write(out: BinaryIO) -> None:
        known = _contents(below) if below else {}
        with (
            tarfile.open(above) as source,
            tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as layer,
        ):
            members = {member.name: member for member in source}
            wanted: dict[str, None] = {}
            for name, described in _described(source):
                if known.get(name) != described:
                    parts = name.split("/")
                    wanted |= dict.fromkeys("/".join(parts[: n + 1]) for n in range(len(parts)))
                    if members[name].islnk():
                        wanted[members[name].linkname] = None
            for name, member in members.items():
                if name in wanted:
                    layer.addfile(member, source.extractfile(member) if member.isreg() else None)

    return write


def _contents(tar: str) -> dict[str, object]:
    with tarfile.open(tar) as source:
        return dict(_described(source))


def _described(source: tarfile.TarFile) -> Iterator[tuple[str, object]]:
    for member in source:
        content = source.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
        owner = member.mode, member.uid, member.gid, member.type, member.linkname
        mtime = 0 if member.isdir() else member.mtime
        yield member.name, (owner, mtime, str(Digest.of(content)))


# --- images of layers -----------------------------------------------------------------------------------


def store_image(
    store: Store, name: str, layers: Sequence[tuple[Descriptor, Digest]], env: tuple[str, ...] = ()
) -> Image:
    """An image of *layers* that are in *store*, under *name*."""
    platform = Platform.parse(os.uname().machine)
    config = ImageConfig(
        platform.architecture,
        platform.os,
        RootFS(tuple(diff_id for _, diff_id in layers)),
        ExecutionParameters(env=env, cmd=("sh",)),
        variant=platform.variant,
    )
    described = store.blobs.put(config.encode(), media_type=CONFIG)
    manifest = Manifest(described, tuple(layer for layer, _ in layers))
    descriptor = store.blobs.put(manifest.encode(), media_type=MANIFEST)
    store.names.set(Reference.parse(name), descriptor)
    return Image.find(name, store=store)


def _add_layer(store: Store, path: str, write: Callable[[BinaryIO], None]) -> tuple[Descriptor, Digest]:
    with open(path, "w+b") as tar:
        write(tar)
        tar.seek(0)
        diff_id = Digest.of(tar.read())
        tar.seek(0)
        with (
            open(f"{path}.gz", "w+b") as packed,
            gzip.GzipFile("", "wb", _GZIP_LEVEL, cast("BinaryIO", packed), mtime=0) as zipped,
        ):
            shutil.copyfileobj(tar, zipped, _COPY)
        with open(f"{path}.gz", "rb") as packed:
            return store.blobs.put(packed, media_type=LAYER_GZIP), diff_id


# --- layers of any size ---------------------------------------------------------------------------------

_IN_DIRECTORY = 100


def small_files(count: int, top: str) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """So many entries below the directory *top*: a hundred to each directory, of which half are files of 512 bytes.

    A quarter are symbolic links and nearly a quarter hard links, so that a million are not 4 GB of pages.
    """
    yield Entry(top.encode(), Kind.DIRECTORY, mode=0o755), ()
    for number in range(count - 1):
        place, nth = divmod(number, _IN_DIRECTORY)
        directory = b"%s/d%05d" % (top.encode(), place)
        path = b"%s/f%02d" % (directory, nth)
        if nth == 0:
            yield Entry(directory, Kind.DIRECTORY, mode=0o755), ()
        elif nth % 4 == 2:
            yield Entry(path, Kind.SYMLINK, mode=0o777, target=b"f01"), ()
        elif nth % 4 == 0:
            yield Entry(path, Kind.HARD_LINK, target=b"%s/f%02d" % (directory, nth - 1)), ()
        else:
            content = b"%-511d\n" % number
            yield Entry(path, Kind.FILE, size=len(content)), (content,)


def large_files(megabytes: int) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """So many megabytes in files of one, of which a third does not compress."""
    noise = os.urandom(1 << 20)
    for number in range(megabytes):
        content = noise[: 350 << 10] + b"%8d" % number * (1 << 17)
        content = content[: 1 << 20]
        yield Entry(b"file%05d" % number, Kind.FILE, size=len(content)), (content,)


def write_layer(path: str, entries: Iterable[tuple[Entry, Iterable[bytes]]]) -> str:
    """Write a gzip layer of *entries* to *path*; its diff ID."""
    with open(path, "wb") as out:
        return pack(encode(entries), out, Compression.GZIP).diff_id


def add_layer(
    store: Store, path: str, entries: Iterable[tuple[Entry, Iterable[bytes]]]
) -> tuple[Descriptor, Digest]:
    """Put a layer of *entries* into *store*, by way of the file *path*."""
    diff_id = write_layer(path, entries)
    with open(path, "rb") as file:
        return store.blobs.put(file, media_type=LAYER_GZIP), Digest.parse(diff_id)
