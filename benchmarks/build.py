"""A rebuild in which nothing has changed: a Dockerfile of so many instructions, all of them in the cache, against buildah."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pycontain
from benchmarks.bench import command
from benchmarks.measure import Peer, Unavailable, against, grow, timed
from benchmarks.pullers import _hiding
from benchmarks.results import Goal, Growth, Row
from benchmarks.trees import call, remove_tree, require, require_root
from pycontain import Image, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once

_BASE = "localhost/benchmark/base:1"
_MADE = "localhost/benchmark/built:1"
_SIZES = (5, 20, 60)
_FILES = 50  # in each directory that is copied


def measure(bench: Bench) -> Iterator[Row | Growth]:
    store = Store(f"{bench.folder}/store-of-builds")
    dockerfile = f"{bench.folder}/Dockerfile-of-the-base"
    with open(dockerfile, "w", encoding="utf-8") as file:  # not from_rootfs: buildah wants a history
        file.write("FROM scratch\nCOPY . /\n")
    pycontain.build(bench.rootfs, dockerfile=dockerfile, tags=_BASE, store=store)
    ours = {float(size): _ours(bench, size, store) for size in _SIZES}
    row = Row("build", "build, 20 instructions, all cached", "")
    peer = Peer("buildah build --layers", _buildah, Goal(0.2, 0.05))
    yield against(bench, row, ours[20.0], peer, bench.long_rounds)
    yield grow(Growth("build", "build, all cached", "instructions", ()), ours, bench.long_rounds)
    remove_tree(store.path)


def _context(bench: Bench, size: int) -> str:
    """A context with a Dockerfile of *size* instructions: a fifth each of ENV, COPY and WORKDIR, the rest RUN."""
    folder = f"{bench.folder}/context-{size}"
    if os.path.isdir(folder):
        return folder
    lines = [f"FROM {_BASE}"]
    for number in range(size - 1):
        match number % 5:
            case 0:
                lines.append(f"ENV NAME{number}={number}")
            case 1:
                _fill(f"{folder}/files-{number}")
                lines.append(f"COPY files-{number} /files-{number}/")
            case 2:
                lines.append(f"WORKDIR /work-{number}")
            case _:
                lines.append(f"RUN echo {number} > /made-{number}")
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return folder


def _fill(folder: str) -> None:
    os.makedirs(folder)
    for number in range(_FILES):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(b"x" * 4096)


def _ours(bench: Bench, size: int, store: Store) -> Once:
    folder = _context(bench, size)

    def build() -> None:
        pycontain.build(folder, tags=_MADE, store=store)

    build()
    return timed(build)


@contextmanager
def _buildah(bench: Bench) -> Iterator[Once]:
    """The same base, context and Dockerfile; its RUN is in a chroot, which a cached build never sees."""
    require("buildah", "buildah")
    require_root()
    folder = f"{bench.folder}/buildah"
    os.mkdir(folder)
    client = (*_hiding("/var/lib"), "buildah", f"--root={folder}/root", f"--runroot={folder}/run")
    client += ("--storage-driver=overlay",)
    store = Store(f"{bench.folder}/store-of-builds")
    Image.find(_BASE, store=store).save(f"{folder}/base.tar")
    context = _context(bench, 20)
    build = ("build", "--quiet", "--layers", "--isolation=chroot", "--pull-never", "-t", _MADE, context)
    try:
        call(*client, "pull", "--quiet", f"oci-archive:{folder}/base.tar")
        call(*client, *build)
    except OSError as reason:
        raise Unavailable(f"buildah cannot build here: {reason}") from reason
    yield timed(command(*client, *build))
    remove_tree(folder)
