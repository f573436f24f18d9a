"""What all stages of one build share: the engine, the store and its cache, the context, and what the caller has given."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import attrs

from pycontain.errors import BuildError, ImageError
from pycontain.image.progress import Reporter
from pycontain.image.runnable import obtain, platform_of
from pycontain.image.transfer import bring, nowhere
from pycontain.layers.pack import pack
from pycontain.oci.config import ExecutionParameters
from pycontain.oci.digest import Digest
from pycontain.oci.media_types import LAYER_GZIP
from pycontain.oci.source import HostImage, Rootfs, parse_source
from pycontain.store.blobs import Incoming
from pycontain.store.builds import BuildCache, Built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import BinaryIO

    from pycontain.building.context import Context
    from pycontain.building.state import State
    from pycontain.image.transfer import Found, Unpacking
    from pycontain.oci.platform import Platform
    from pycontain.runtime.engine import Engine
    from pycontain.sandbox.limits import Limits
    from pycontain.store.leases import Lease
    from pycontain.store.store import Store


class Stopped(Exception):
    """The build has failed elsewhere."""


@attrs.frozen
class BuildProgress:
    """News of one instruction: *event* is ``begin``, ``cached``, ``output`` (with *text*), or ``end``.

    *step* counts the instructions of a *stage* from 1, of *steps*.
    """

    stage: str
    step: int
    steps: int
    instruction: str
    event: str
    text: str = ""


@attrs.define(eq=False)
class Session:
    """One build. Threads of its stages share it."""

    engine: Engine
    store: Store
    lease: Lease
    unpacking: Unpacking
    context: Context
    platform: Platform
    args: Mapping[str, str]
    secrets: Mapping[str, bytes] = attrs.field(repr=False)
    ssh: Mapping[str, str]
    network: str
    limits: Limits
    timeout: float | None
    policy: str
    no_cache: bool
    epoch: int | None
    imported: Mapping[str, Built] = attrs.field(factory=dict)
    tell: Callable[[BuildProgress], object] = lambda _: None
    _failed: threading.Event = attrs.field(factory=threading.Event)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _lock_running: threading.Lock = attrs.field(factory=threading.Lock)
    _running: list[Callable[[], object]] = attrs.field(factory=list)
    _images: dict[str, Found] = attrs.field(factory=dict)

    def stop(self) -> None:
        """Have the threads of all stages end soon, and what they run."""
        with self._lock_running:
            self._failed.set()
            for end in self._running:
                end()

    @contextmanager
    def stopping(self, end: Callable[[], object]) -> Iterator[None]:
        """For the time of the block, *end* is called when the build fails elsewhere."""
        with self._lock_running:
            self.go_on()
            self._running.append(end)
        try:
            yield
        finally:
            with self._lock_running:
                self._running.remove(end)

    def go_on(self) -> None:
        """Raise :class:`Stopped` when another stage has failed."""
        if self._failed.is_set():
            raise Stopped

    # --- images and trees -------------------------------------------------------------------------------

    def image(self, name: str, platform: str = "") -> Found:
        """The image that *name* means, in the store and unpacked."""
        key = f"{platform} {name}"
        with self._lock:  # one after the other: whoever comes second finds it there
            if key not in self._images:
                self._images[key] = self._obtain(name, platform_of(platform) if platform else self.platform)
            return self._images[key]

    def _obtain(self, name: str, platform: Platform) -> Found:
        match source := parse_source(name):
            case HostImage():
                raise ImageError(
                    "host: has no layers, so no image can be built on it",
                    hint="build on an image of a registry, or on rootfs:DIR",
                )
            case Rootfs(path):
                from pycontain.image.importing import store_rootfs  # noqa: PLC0415 - few build on one

                found = store_rootfs(
                    self.store, self.lease, os.path.abspath(path), ExecutionParameters(), platform
                )
                self._unpack(found)
                return found
            case _:
                return obtain(source, self.store, self.lease, platform, self.policy, self.unpacking)

    def _unpack(self, found: Found) -> None:
        self.lease.protect(*found.digests)
        bring(self.store, nowhere, found, Reporter(), self.unpacking)

    def unpacked(self, state: State) -> Found:
        """*state* as an image whose layers are unpacked."""
        found = state.found()
        snapshots = self.store.snapshots(self.unpacking.kind)
        self.lease.protect(*found.digests)
        if not all(snapshots.find(chain_id) for chain_id in found.chain_ids):
            with self._lock:
                self._unpack(found)
        return found

    def trees(self, state: State) -> tuple[str, ...]:
        """The directories of its layers, the topmost first."""
        found = self.unpacked(state)
        return tuple(map(str, self.store.snapshots(self.unpacking.kind).mounts(found.chain_ids).lowerdirs))

    # --- layers -----------------------------------------------------------------------------------------

    def cached(self, key: str) -> Built | None:
        """The layer that *key* made, in this store or in an image of ``cache_from``."""
        if self.no_cache:
            return None
        found = BuildCache(self.store).find(key, self.lease)
        if found is None and (found := self.imported.get(key)) is not None:
            self.lease.protect(found.descriptor.digest)
        return found

    def keep(self, key: str, built: Built) -> None:
        """Remember what *key* made."""
        BuildCache(self.store).keep(key, built)

    def store_layer(self, chunks: Iterable[bytes]) -> Built:
        """Store the tar in *chunks* as a layer; on failure nothing is visible."""
        blobs = self.store.blobs
        with Incoming(blobs, f"put-{os.urandom(12).hex()}", None, keep=False) as incoming:
            packed = pack(chunks, cast("BinaryIO", incoming))
            self.lease.protect(Digest.parse(packed.digest))  # first, and then make it visible
            return Built(incoming.commit(LAYER_GZIP), Digest.parse(packed.diff_id))

    def secret(self, ident: str) -> bytes | None:
        """The secret that the caller gave as *ident*."""
        return self.secrets.get(ident)


def refuse_platform(platform: Platform) -> None:
    """Raise unless containers of *platform* run here."""
    here = platform_of(None)
    if str(platform.normal()) not in map(str, here.runnable()):
        raise BuildError(f"RUN cannot be carried out for {platform} on {here}")
