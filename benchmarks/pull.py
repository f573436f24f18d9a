"""Pulling a Debian of three layers from a registry on this machine until it can be run, against those who do the same."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks import pullers
from benchmarks.images import DEBIAN, SIBLING, add_layer, debian_store, small_files, store_image
from benchmarks.local_registry import serve_registry
from benchmarks.measure import Peer, Unavailable, against, grow
from benchmarks.results import Goal, Growth, Row
from pycontain import Image, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from benchmarks.pullers import Puller

    Open = Callable[[Bench], AbstractContextManager[Puller]]

_GOAL = Goal(0.6, 0.3)
_PEERS: tuple[tuple[str, Open, Goal | None], ...] = (
    ("docker pull", pullers.docker, _GOAL),
    ("podman pull, overlay", pullers.podman, _GOAL),
    ("skopeo copy, umoci unpack", pullers.skopeo_and_umoci, None),
)
_COMMANDS = _PEERS[:2]
_LAYERS = (1, 10, 100)
_ENTRIES = 100  # in each of them


def measure(bench: Bench) -> Iterator[Row | Growth]:
    debian = debian_store(bench.cache)
    with serve_registry(f"{bench.folder}/registry") as address, pullers.ours(bench) as ours:
        names = {name: f"{address}/{name.rpartition('/')[2]}" for name in (DEBIAN, SIBLING)}
        for name, reference in names.items():
            Image.find(name, store=debian).push(reference)
        whole, sibling = names[DEBIAN], names[SIBLING]
        for name, open_puller, goal in _PEERS:
            peer = Peer(name, _whole(open_puller, whole), goal)
            row = Row("pull", "Image.pull, unpacked: Debian, 3 layers", "")
            yield against(bench, row, pullers.pulling(ours, whole), peer, bench.long_rounds)
        with pullers.our_command(bench) as command:
            for name, open_puller, _ in _COMMANDS:
                peer = Peer(name, _whole(open_puller, whole))
                row = Row("pull", "python -m pycontain pull: the same", "")
                yield against(bench, row, pullers.pulling(command, whole), peer, bench.long_rounds)
        ours.pull(whole)
        for name, open_puller, goal in _COMMANDS:
            peer = Peer(name, _beside(open_puller, whole, sibling), goal)
            row = Row("pull", "Image.pull of one that shares 2 of 3 layers", "")
            yield against(bench, row, pullers.pulling(ours, sibling), peer, bench.long_rounds)
        yield from _over_layers(bench, address, ours)


def _whole(open_puller: Open, reference: str) -> Callable[[Bench], AbstractContextManager[Once]]:
    @contextmanager
    def opened(bench: Bench) -> Iterator[Once]:
        with open_puller(bench) as puller:
            yield pullers.pulling(puller, reference)

    return opened


def _beside(open_puller: Open, there: str, reference: str) -> Callable[[Bench], AbstractContextManager[Once]]:
    """The same when the image *there* has been pulled, and stays."""

    @contextmanager
    def opened(bench: Bench) -> Iterator[Once]:
        with open_puller(bench) as puller:
            puller.pull(there)
            yield pullers.pulling(puller, reference)

    return opened


def _over_layers(bench: Bench, address: str, ours: Puller) -> Iterator[Row | Growth]:
    store = Store(f"{bench.folder}/store-of-small-layers")
    made = [
        add_layer(store, f"{bench.folder}/layer", small_files(_ENTRIES, f"layer{number}"))
        for number in range(max(_LAYERS))
    ]
    names = {}
    for count in _LAYERS:
        names[float(count)] = f"{address}/layers:{count}"
        store_image(store, f"localhost/layers:{count}", made[:count]).push(names[float(count)])
    yield _growth("Image.pull, unpacked", ours, names, bench)
    try:
        with pullers.docker(bench) as docker:
            yield _growth("docker pull", docker, names, bench)
    except Unavailable as reason:
        yield Row("pull", "layers", "docker pull", missing=str(reason))


def _growth(what: str, puller: Puller, names: dict[float, str], bench: Bench) -> Growth:
    contestants = {count: pullers.pulling(puller, name) for count, name in names.items()}
    return grow(Growth("pull", what, "layers of 100 entries", ()), contestants, bench.long_rounds)
