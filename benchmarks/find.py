"""``Image.find`` in a store of so many images: as the first act of a process, and again in a store that was read before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.images import add_layer, small_files, store_image
from benchmarks.measure import grow, timed
from benchmarks.results import Growth
from benchmarks.trees import remove_tree
from pycontain import Image, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once

_IMAGES = (1, 10, 100, 1000)


def measure(bench: Bench) -> Iterator[Growth]:
    stores = {float(count): _store(bench, count) for count in _IMAGES}
    by_name = {count: _finding(store, _name(int(count) // 2)) for count, store in stores.items()}
    yield grow(Growth("find", "Image.find, a store just opened", "images", ()), by_name, bench.rounds)
    again = {count: _finding_again(store, _name(int(count) // 2)) for count, store in stores.items()}
    yield grow(Growth("find", "Image.find, once more", "images", ()), again, bench.rounds)
    by_id = {
        count: _finding(store, Image.find(_name(0), store=store).id[:19]) for count, store in stores.items()
    }
    yield grow(Growth("find", "Image.find by the beginning of an ID", "images", ()), by_id, bench.rounds)
    for store in stores.values():
        remove_tree(store.path)


def _store(bench: Bench, images: int) -> Store:
    store = Store(f"{bench.folder}/store-of-{images}")
    layer = add_layer(store, f"{bench.folder}/layer", small_files(2, "top"))
    for number in range(images):
        store_image(store, _name(number), [layer], env=(f"NUMBER={number}",))
    return store


def _name(number: int) -> str:
    return f"registry.example/team/service-{number}:1.0"


def _finding(store: Store, name: str) -> Once:
    return timed(lambda: Image.find(name, store=Store(store.path)))


def _finding_again(store: Store, name: str) -> Once:
    return timed(lambda: Image.find(name, store=store))
