"""Collecting: what no name and no lease leads to is removed, and names too when the store is to be smaller.

It works in two halves. Under the lock ``content``, alone, it looks and makes things invisible: names are dropped, blobs
unlinked, trees renamed. Then it removes the files of those trees, which may take long and disturbs nobody. Killed at any
moment, it leaves a store in order with less done.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from pycontain.oci.digest import Digest
from pycontain.store.blobs import LOCK_SUFFIX
from pycontain.store.builds import BuildCache
from pycontain.store.cache_mounts import CacheMounts
from pycontain.store.contents import Contents, Needs
from pycontain.store.files import remove_file, storing
from pycontain.store.folder import CONTENT
from pycontain.store.leases import read_leases
from pycontain.store.locks import Lock
from pycontain.store.retention import Named, choose_forgotten
from pycontain.store.snapshots import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.store.folder import Folder
    from pycontain.store.names import Entry
    from pycontain.store.store import Store

_RESUMED_WITHIN: Final = 7 * 24 * 3600.0  # seconds

#: A thing that takes space: a blob, or a snapshot of a kind.
Thing: TypeAlias = Digest | tuple[Kind, Digest]


@attrs.frozen
class Usage:
    """What a store holds, in bytes but for *images*, which counts names.

    *reclaimable* is what collecting would free without forgetting a name.
    """

    images: int
    blobs: int
    snapshots: int
    partial: int
    reclaimable: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.blobs + self.snapshots + self.partial


@attrs.frozen
class Collected:
    """What was removed, or with *dry_run* what would be: names of images, blobs, snapshots, and how many *bytes*.

    *partial* counts the bytes of downloads that nobody goes on with; they are in *bytes* too. *build_caches* counts folders of
    ``RUN --mount=type=cache``, whose bytes are not known.
    """

    images: tuple[str, ...]
    blobs: tuple[Digest, ...]
    snapshots: tuple[tuple[Kind, Digest], ...]
    partial: int
    bytes: int
    dry_run: bool
    build_caches: int = 0


@attrs.frozen
class Survey:
    """A store at one moment: its entries with what they need, its things with their sizes, and what is protected."""

    entries: tuple[tuple[Entry, Needs], ...]
    sizes: dict[Thing, int]
    protected: frozenset[Thing]

    def reachable(self, forgotten: frozenset[str] = frozenset()) -> set[Thing]:
        """Everything that is needed once the names *forgotten* are gone."""
        found = set(self.protected)
        for entry, needs in self.entries:
            if entry.name not in forgotten:
                found |= _things_of(needs)
        return found

    def size_of(self, things: set[Thing]) -> int:
        """The bytes that *things* take."""
        return sum(self.sizes.get(thing, 0) for thing in things)


def survey_of(store: Store) -> Survey:
    """Look at everything. Things that come meanwhile may be missed unless the lock ``content`` is held."""
    contents = Contents(store.blobs)
    sizes: dict[Thing, int] = {digest: store.blobs.size(digest) or 0 for digest in store.blobs}
    for kind in Kind:
        sizes.update({(kind, found.chain_id): found.size for found in store.snapshots(kind).list()})
    leased = read_leases(store.folder)
    return Survey(
        tuple((entry, contents.needs_of(entry)) for entry in store.names.list()),
        sizes,
        leased | {(kind, digest) for kind in Kind for digest in leased},
    )


def usage_of(store: Store) -> Usage:
    """What *store* holds."""
    with storing(store.path):
        survey = survey_of(store)
        partial = _partials(store.folder, remove=False)
    everything = set(survey.sizes)
    return Usage(
        images=len(survey.entries),
        blobs=survey.size_of({thing for thing in everything if isinstance(thing, Digest)}),
        snapshots=survey.size_of({thing for thing in everything if not isinstance(thing, Digest)}),
        partial=partial.all,
        reclaimable=survey.size_of(everything - survey.reachable()) + partial.idle,
    )


def collect(
    store: Store,
    remove_tree: Callable[[str], object],
    *,
    max_bytes: int | None,
    unused_for: float | None,
    build_caches: bool,
    dry_run: bool,
    timeout: float | None,
) -> Collected:
    """See :meth:`Store.gc`."""
    with storing(store.path):
        with Lock.take(store.folder.lock(CONTENT), timeout=timeout):
            survey = survey_of(store)
            forgotten = frozenset(_forgotten(store, survey, max_bytes, unused_for))
            garbage = set(survey.sizes) - survey.reachable(forgotten)
            if not dry_run:
                # On a full disk, names can be dropped only when there is room for the list of the others.
                _make_invisible(store, garbage - survey.reachable())
                store.names.remove(forgotten)
                _make_invisible(store, garbage & survey.reachable())
        if not dry_run:
            store.sweep(remove_tree)
            BuildCache(store).tidy()
        partial = _partials(store.folder, remove=not dry_run).idle
        caches: tuple[str, ...] = ()
        if build_caches or unused_for is not None:
            caches = CacheMounts(store.folder).collect(
                remove_tree, unused_since=time.time() - (unused_for or 0.0), dry_run=dry_run
            )
    return Collected(
        images=tuple(sorted(forgotten)),
        blobs=tuple(sorted(thing for thing in garbage if isinstance(thing, Digest))),
        snapshots=tuple(
            sorted((thing for thing in garbage if not isinstance(thing, Digest)), key=lambda thing: thing[1])
        ),
        partial=partial,
        bytes=survey.size_of(garbage) + partial,
        dry_run=dry_run,
        build_caches=len(caches),
    )


def _forgotten(
    store: Store, survey: Survey, max_bytes: int | None, unused_for: float | None
) -> tuple[str, ...]:
    if max_bytes is None and unused_for is None:
        return ()
    named = [
        Named(
            entry.name,
            store.last_used(entry.descriptor.digest),
            frozenset(_things_of(needs)),
            in_use=not entry.name or entry.descriptor.digest in survey.protected,
        )
        for entry, needs in survey.entries
    ]
    unused_since = None if unused_for is None else time.time() - unused_for
    return choose_forgotten(
        named, survey.sizes, survey.protected, unused_since=unused_since, max_bytes=max_bytes
    )


def _things_of(needs: Needs) -> set[Thing]:
    return set(needs.blobs) | {(kind, chain_id) for kind in Kind for chain_id in needs.chain_ids}


def _make_invisible(store: Store, garbage: set[Thing]) -> None:
    for thing in garbage:
        if isinstance(thing, Digest):
            store.blobs.remove(thing)
            store.forget_use(thing)
        else:
            kind, chain_id = thing
            store.snapshots(kind).remove(chain_id)


@attrs.frozen
class _Partials:
    """Bytes of blobs on their way: of all, and of those that nobody is bringing."""

    all: int
    idle: int


def _partials(folder: Folder, *, remove: bool, unused_for: float = 0.0) -> _Partials:
    everything = idle = 0
    for name in {name.removesuffix(LOCK_SUFFIX) for name in os.listdir(folder.partial)}:
        path = f"{folder.partial}/{name}"
        size, changed = _size_and_time_of(path)
        everything += size
        if time.time() - changed >= unused_for and (lock := Lock.try_take(path + LOCK_SUFFIX)):
            idle += size
            if remove:
                remove_file(path)
            lock.remove()
    return _Partials(everything, idle)


def _size_and_time_of(path: str) -> tuple[int, float]:
    try:
        found = os.stat(path)
    except FileNotFoundError:  # only its lock is there
        return 0, 0.0
    return found.st_size, found.st_mtime


def tidy(folder: Folder) -> None:
    """Remove what killed processes left and nobody will miss: their leases, and downloads of the week before.

    Trees are left to :meth:`Store.sweep`, because it takes somebody who owns their files.
    """
    with storing(folder.path):
        read_leases(folder)
        _partials(folder, remove=True, unused_for=_RESUMED_WITHIN)
