"""Unpacking the layers of a stored image, against umoci and tar; how time and memory grow with what is in a layer."""

from __future__ import annotations

import os
import statistics
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.images import DEBIAN, debian_store, large_files, small_files, write_layer
from benchmarks.measure import Peer, against
from benchmarks.results import Goal, Growth, Row
from benchmarks.trees import call, flushed, remove_tree, require, require_root
from pycontain import Image, Store
from pycontain.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from pycontain.layers.entries import Entry

    Open = Callable[[Bench], AbstractContextManager[Once]]

_ENTRIES = (1_000, 10_000, 100_000)
_FEW = 3  # rounds for each of them
_MILLION = 1_000_000  # once, because it takes minutes
_MEGABYTES = (10, 100, 1000)  # once


def measure(bench: Bench) -> Iterator[Row | Growth]:
    store = debian_store(bench.cache)
    peers = (
        Peer("umoci unpack", _umoci(store), Goal(0.35, 0.15)),
        Peer("tar -xzf", _tar(store), Goal(0.6, 0.25)),
    )
    ours = _ours(Store(f"{bench.folder}/unpacked"), store)
    for peer in peers:
        yield against(bench, Row("unpack", "Debian, 3 gzip layers", ""), ours, peer, bench.long_rounds)
    remove_tree(f"{bench.folder}/unpacked")
    yield from _over_entries(bench)
    yield from _over_bytes(bench)


# --- Debian ---------------------------------------------------------------------------------------------


def _ours(store: Store, debian: Store) -> Once:
    """What was unpacked of the image is removed between the rounds; its blobs stay."""
    image = Image.find(DEBIAN, store=debian)
    for descriptor in (*image.manifest.layers, image.manifest.config, image.descriptor):
        with debian.blobs.open(descriptor.digest) as file:
            store.blobs.put(file, descriptor)
    store.names.set(Reference.parse(DEBIAN), image.descriptor)

    def once() -> float:
        took = flushed(store.path, lambda: Image.pull(DEBIAN, policy="never", store=store))
        for name in os.listdir(store.folder.snapshots):
            remove_tree(f"{store.folder.snapshots}/{name}")
        return took

    return once


def _umoci(debian: Store) -> Open:
    @contextmanager
    def opened(bench: Bench) -> Iterator[Once]:
        require("umoci", "umoci")
        require_root()
        bundle = f"{bench.folder}/bundle"
        argv = ("umoci", "unpack", "--image", f"{debian.path}:{DEBIAN}", bundle)
        yield _making(bundle, lambda: call(*argv))

    return opened


def _tar(debian: Store) -> Open:
    layers = [debian.blobs.path(layer.digest) for layer in Image.find(DEBIAN, store=debian).manifest.layers]

    @contextmanager
    def opened(bench: Bench) -> Iterator[Once]:
        require("tar", "tar")
        yield _extracting(f"{bench.folder}/tree", layers)

    return opened


def _extracting(tree: str, layers: Sequence[str]) -> Once:
    def extract() -> None:
        os.mkdir(tree)
        for layer in layers:
            call("tar", "-xzf", layer, "-C", tree)

    return _making(tree, extract)


def _making(tree: str, act: Callable[[], object]) -> Once:
    """A measurement of *act*, which makes *tree*."""

    def once() -> float:
        took = flushed(os.path.dirname(tree), act)
        remove_tree(tree)
        return took

    return once


# --- layers of any size ---------------------------------------------------------------------------------


def _over_entries(bench: Bench) -> Iterator[Growth]:
    layers = {
        float(count): _layer(bench, f"{count}-entries", small_files(count, "top"))
        for count in (*_ENTRIES, _MILLION)
    }
    ours: dict[float, float] = {}
    theirs: dict[float, float] = {}
    peaks: dict[float, float] = {}
    for count, layer in layers.items():
        rounds = 1 if count == _MILLION else min(_FEW, bench.long_rounds)
        times, more = [], []
        for _ in range(rounds):
            took, peaks[count] = _apply_alone(bench, layer)
            times.append(took)
            more.append(_extracting(f"{bench.folder}/tree", [layer])())
        ours[count], theirs[count] = statistics.median(times), statistics.median(more)
        os.unlink(layer)
    axis = "entries"
    yield Growth("unpack", "a layer", axis, tuple(ours.items()))
    yield Growth("unpack", "tar -xzf of the same", axis, tuple(theirs.items()))
    yield Growth("unpack", "peak memory", axis, tuple(peaks.items()), unit="MB")


def _over_bytes(bench: Bench) -> Iterator[Growth]:
    ours: dict[float, float] = {}
    peaks: dict[float, float] = {}
    for megabytes in _MEGABYTES:
        layer = _layer(bench, f"{megabytes}-megabytes", large_files(megabytes))
        ours[megabytes], peaks[megabytes] = _apply_alone(bench, layer)
        os.unlink(layer)
    axis = "MB in the layer"
    yield Growth("unpack", "a layer", axis, tuple(ours.items()))
    yield Growth("unpack", "peak memory", axis, tuple(peaks.items()), unit="MB")


def _layer(bench: Bench, name: str, entries: Iterable[tuple[Entry, Iterable[bytes]]]) -> str:
    path = f"{bench.folder}/{name}.tar.gz"
    write_layer(path, entries)
    return path


def _apply_alone(bench: Bench, layer: str) -> tuple[float, float]:
    """Apply *layer* in a fresh process: milliseconds, and the megabytes that the process had at its largest."""
    tree = f"{bench.folder}/tree"
    os.mkdir(tree)
    call("sync", "--file-system", bench.folder)
    took, peak = map(float, call(sys.executable, "-m", "benchmarks.applying", layer, tree).split())
    remove_tree(tree)
    return took, peak
