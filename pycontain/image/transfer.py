"""Bringing an image into a store: its documents, then its layers, several at a time and unpacked while they come.

The order makes everything safe to end at any moment. A lease protects what is about to be brought, then it is looked
for; each blob becomes visible when it is verified, each unpacked layer when its content is verified too; the name comes
last. So there is never a name for half an image, and the next try, in any process, goes on where this one ended.

A layer is unpacked from the file that its download is still writing::

    registry ── thread ──> partial file ── sendfile(2) ──> pipe ──> unpacker: inflate, hash, apply
                  hash          └── commit: the digest is right ──> blob     └── commit: so is the diff ID ──> snapshot

So are those above it at the same time, one for each processor; they become visible from the lowest up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

import attrs

from pycontain.errors import InvalidImage, PycontainError, StoreCorrupt
from pycontain.image.progress import Phase
from pycontain.interruption import carried, ended_by
from pycontain.layers.entries import DEFAULT_LIMITS, Limits, Whiteouts
from pycontain.oci.chain import layers_of
from pycontain.oci.choice import resolve
from pycontain.oci.config import ImageConfig
from pycontain.oci.media_types import CONFIG, DOCKER_CONFIG
from pycontain.store.blobs import BlobMissing
from pycontain.store.snapshots import Kind
from pycontain.store.store import StoredImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future, ThreadPoolExecutor
    from types import TracebackType

    from pycontain.image.progress import Reporter
    from pycontain.oci.chain import Layer
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.digest import Digest
    from pycontain.oci.manifest import Manifest
    from pycontain.oci.platform import Platform
    from pycontain.oci.reference import Reference
    from pycontain.runtime.engine import Engine
    from pycontain.runtime.unpack import Unpacked, Unpacker
    from pycontain.store.leases import Lease
    from pycontain.store.snapshots import Active, Committed
    from pycontain.store.store import Store

_log = logging.getLogger(__name__)

PARALLEL: Final = 4
_CHUNK: Final = 256 << 10
_PIPE: Final = 1 << 20  # bytes; between two processes, so that they wake each other seldom
_CONFIGS: Final = frozenset({CONFIG, DOCKER_CONFIG})
_PATIENCE: Final = 1.0  # seconds for a thread to notice that nobody wants its blob any more


class Origin(Protocol):
    """Where an image comes from. Several threads may ask at once; whoever asks verifies what comes."""

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document."""

    def open(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        """A blob from *offset*, which is at most its size. The caller closes it."""


class _Nowhere:
    def read(self, descriptor: Descriptor) -> bytes:
        raise BlobMissing(descriptor.digest, "")

    def open(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        del offset
        raise BlobMissing(descriptor.digest, "")


#: The origin of an image that is in the store already.
nowhere: Final[Origin] = _Nowhere()


@attrs.frozen
class Found:
    """An image whose documents are in the store; its layers are there or on their way."""

    descriptor: Descriptor
    manifest: Manifest = attrs.field(repr=False)
    config: ImageConfig = attrs.field(repr=False)
    layers: tuple[Layer, ...] = attrs.field(repr=False)
    index: Descriptor | None = None

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """The snapshots it stands on, the lowest first."""
        return tuple(layer.chain_id for layer in self.layers)

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Everything that a lease has to protect."""
        blobs = (self.descriptor, self.manifest.config, *(layer.descriptor for layer in self.layers))
        index = (self.index.digest,) if self.index else ()
        return (*(blob.digest for blob in blobs), *index, *self.chain_ids)

    def stored(self, reference: Reference | None) -> StoredImage:
        """The same as the store tells it."""
        return StoredImage(reference, self.descriptor, self.manifest, self.index)


# --- documents ------------------------------------------------------------------------------------------


def read_documents(store: Store, lease: Lease, origin: Origin, top: Descriptor, wanted: Platform) -> Found:
    """Follow *top* to the image for *wanted*, bring its documents into *store*, and protect all that it needs."""

    def read(descriptor: Descriptor) -> bytes:
        lease.protect(descriptor.digest)
        with suppress(BlobMissing):
            try:
                return store.blobs.read(descriptor.digest)
            except StoreCorrupt:  # here is the chance to mend it
                store.blobs.remove(descriptor.digest)
        content = origin.read(descriptor)
        store_document(store, descriptor, content)
        return content

    descriptor, manifest = resolve(top, wanted, read)
    if manifest.config.media_type not in _CONFIGS:
        raise InvalidImage(
            f"{descriptor.digest} is no image of programs: its config is {manifest.config.media_type}"
        )
    config = ImageConfig.parse(read(manifest.config))
    index = top if top.digest != descriptor.digest else None
    found = Found(descriptor, manifest, config, layers_of(manifest, config), index)
    lease.protect(*found.digests)
    return found


def store_document(store: Store, descriptor: Descriptor, content: bytes) -> None:
    """Store a document, verified; another process may be doing the same."""
    with store.blobs.partial(descriptor) as incoming:
        if not incoming.complete:
            incoming.restart()  # a document is not worth going on with
            incoming.write(content)
            incoming.commit()


def find_stored(store: Store, lease: Lease, reference: Reference, wanted: Platform) -> Found | None:
    """The image that *reference* means in *store*, protected; None when it is not there with all its blobs."""
    with suppress(BlobMissing):  # collected just now
        image = store.find(reference, wanted)
        while image is not None:
            found = found_of(store, image)
            lease.protect(*found.digests)
            again = store.find(reference, wanted)  # protect first, then look
            if again == image:
                return found
            image = again
    return None


def found_of(store: Store, image: StoredImage) -> Found:
    """What the store has as *image*."""
    config = store.read_config(image.manifest)
    return Found(image.descriptor, image.manifest, config, layers_of(image.manifest, config), image.index)


# --- blobs ----------------------------------------------------------------------------------------------


class Arrival:
    """A blob on its way: as much of it as is here can be read from :attr:`file`."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.file: BinaryIO | None = None
        self._have = 0
        self._ended = False
        self._error: BaseException | None = None
        self._news = threading.Condition()

    def begin(self, file: BinaryIO, have: int) -> None:
        """The first *have* bytes are in *file*, which belongs to the arrival from now on."""
        with self._news:
            self.file, self._have = file, have
            self._news.notify_all()

    def advance(self, have: int) -> None:
        """There are *have* bytes now."""
        with self._news:
            self._have = have
            self._news.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """It is stored and verified, or failed; what is said first counts."""
        with self._news:
            if not self._ended:
                self._ended, self._error = True, error
                self._news.notify_all()

    def wait_to_begin(self) -> bool:
        """Wait for the first bytes; False when there is nothing more to wait for."""
        with self._news:
            self._news.wait_for(lambda: self.file or self._ended)
            return not self._ended

    def wait_beyond(self, position: int) -> int:
        """Wait for more than *position* bytes; the number there is, which is *position* when no more come."""
        with self._news:
            self._news.wait_for(lambda: self._have > position or self._ended)
            return max(self._have, position)

    def result(self) -> None:
        """Wait until it is stored; raise why it failed."""
        with self._news:
            self._news.wait_for(lambda: self._ended)
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Let go of the file."""
        if self.file:
            self.file.close()


class _Stopped(Exception):
    """The transfer has failed elsewhere."""


class Arrivals:
    """Blobs that come in parallel, in threads of their own; a context manager that ends what is not finished."""

    def __init__(
        self, store: Store, origin: Origin, descriptors: Iterable[Descriptor], reporter: Reporter
    ) -> None:
        self._store = store
        self._origin = origin
        self._reporter = reporter
        self._arrivals = {
            descriptor.digest: Arrival(descriptor) for descriptor in descriptors
        }  # a layer may be there twice
        self._waiting = deque(self._arrivals.values())
        self._stopped = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        missing = []
        for arrival in self._waiting:
            if self._store.blobs.has(arrival.descriptor.digest):
                arrival.end()
            else:
                missing.append(arrival)
        self._waiting = deque(missing)
        # Daemons, because one may wait for a silent registry when the program wants to end.
        self._threads += (
            threading.Thread(target=carried(self._work), name="pycontain-pull", daemon=True)
            for _ in range(min(PARALLEL, len(missing)))
        )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(_PATIENCE)
        for arrival in self._arrivals.values():
            arrival.close()

    def stop(self) -> None:
        """Nobody wants what is not here yet; who waits for it need not wait longer."""
        self._stopped = True
        for arrival in self._arrivals.values():
            arrival.end(_Stopped())

    def __getitem__(self, digest: Digest) -> Arrival:
        return self._arrivals[digest]

    def wait(self) -> None:
        """Wait until all are stored; raise why the first failed."""
        for arrival in self._arrivals.values():
            arrival.result()

    def _work(self) -> None:
        while not self._stopped:
            try:
                arrival = self._waiting.popleft()
            except IndexError:
                return
            try:
                self._bring(arrival)
            except BaseException as error:  # noqa: BLE001 - belongs to the thread that waits, and is raised there
                arrival.end(error)
            else:
                arrival.end()

    def _bring(self, arrival: Arrival) -> None:
        descriptor = arrival.descriptor
        with self._store.blobs.partial(descriptor) as incoming:
            if incoming.complete:  # another process brought it meanwhile
                return
            arrival.begin(incoming.open(), incoming.offset)
            with self._origin.open(descriptor, incoming.offset) as stream:
                while chunk := stream.read(_CHUNK):
                    if self._stopped:
                        raise _Stopped
                    incoming.write(chunk)
                    arrival.advance(incoming.offset)
                    self._reporter.say(descriptor.digest, Phase.DOWNLOAD, incoming.offset, descriptor.size)
            incoming.commit()


# --- snapshots ------------------------------------------------------------------------------------------


_KINDS: Final = {
    Kind.OVERLAY_ROOT: Whiteouts.OVERLAY,
    Kind.OVERLAY_USER: Whiteouts.USER_OVERLAY,
    Kind.OVERLAY_SINGLE: Whiteouts.USER_OVERLAY,
}


def kind_of(engine: Engine) -> Kind:
    """The snapshots that the containers of *engine* can stand on."""
    if not engine.facts.rootless:
        return Kind.OVERLAY_ROOT
    return Kind.OVERLAY_SINGLE if engine.facts.single_id else Kind.OVERLAY_USER


class Unpacking:
    """Unpacks the layers of images for *engine*; a context manager. Its process starts with the first that is missing."""

    def __init__(self, engine: Engine, limits: Limits = DEFAULT_LIMITS) -> None:
        self.kind = kind_of(engine)
        self.limits = limits
        self._engine = engine
        self._unpacker: Unpacker | None = None
        self._making = threading.Lock()

    @property
    def unpacker(self) -> Unpacker:
        """The process that unpacks."""
        from pycontain.runtime.unpack import Unpacker  # noqa: PLC0415 - most starts find their layers unpacked

        with self._making:
            self._unpacker = self._unpacker or Unpacker(self._engine)
            return self._unpacker

    def whiteouts(self, parent: Digest | None) -> Whiteouts:
        """How a layer above *parent* is to mark what it hides; in the lowest there is nothing to hide."""
        return _KINDS[self.kind] if parent else Whiteouts.REMOVE

    def stop(self) -> None:
        """End what is being unpacked; who waits for it gets an error. May be repeated, and used again."""
        unpacker, self._unpacker = self._unpacker, None
        if unpacker:
            unpacker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def bring(
    store: Store, origin: Origin, found: Found, reporter: Reporter, unpacking: Unpacking | None = None
) -> None:
    """Store every layer of *found* and, with *unpacking*, unpack it. A lease protects them already."""
    with (
        Arrivals(store, origin, (layer.descriptor for layer in found.layers), reporter) as arrivals,
        ended_by(arrivals.stop, *(() if unpacking is None else (unpacking.stop,))),
    ):
        if unpacking:
            with _Layers(store, arrivals, unpacking, reporter) as layers:
                layers.unpack(found)
        arrivals.wait()
    for layer in found.layers:
        size = layer.descriptor.size
        reporter.say(layer.descriptor.digest, Phase.DONE, size, size)


@attrs.frozen
class _Begun:
    """A layer on its way to a snapshot: *committed* when there was nothing to do, else *active* and being applied."""

    active: Active
    whiteouts: Whiteouts
    applied: Future[Unpacked]


class _Layers:
    """The layers of an image on their way to snapshots, several at once; a context manager that ends what is not finished.

    A layer can be applied before those below it are, except for the directories that it does not describe; so each is
    applied when it comes, and finished and committed when those below it are.

    Locks are taken from the lowest layer up, and whoever unpacks the same layer is waited for. He took his in this order
    too, so nobody waits in a circle.
    """

    def __init__(self, store: Store, arrivals: Arrivals, unpacking: Unpacking, reporter: Reporter) -> None:
        self._store = store
        self._snapshots = store.snapshots(unpacking.kind)
        self._arrivals = arrivals
        self._unpacking = unpacking
        self._reporter = reporter
        self._pool: ThreadPoolExecutor | None = None
        self._below: list[str] = []
        self._begun: deque[Committed | _Begun] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._arrivals.stop()
            self._unpacking.stop()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        for begun in reversed(self._begun):  # the locks in the reverse order
            if isinstance(begun, _Begun):
                with begun.active:
                    pass

    def unpack(self, found: Found) -> None:
        """Have a snapshot of each layer."""
        parent: Digest | None = None
        for layer in found.layers:
            self._begin(layer, parent)
            parent = layer.chain_id
            while self._begun and self._is_applied(self._begun[0]):
                self._finish()
        while self._begun:
            self._finish()

    def _begin(self, layer: Layer, parent: Digest | None) -> None:
        committed = self._snapshots.find(layer.chain_id)
        if committed is not None:
            self._begun.append(committed)
            return
        with ExitStack() as stack:
            active = stack.enter_context(self._snapshots.prepare(layer.chain_id, parent))
            if active.committed is not None:
                self._begun.append(active.committed)
                return
            whiteouts, unpacker = self._unpacking.whiteouts(parent), self._unpacking.unpacker
            applied = self._threads().submit(self._apply, layer, unpacker, active.path, whiteouts)
            self._begun.append(_Begun(active, whiteouts, applied))
            stack.pop_all()

    def _threads(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - most starts find their layers unpacked

        self._pool = self._pool or ThreadPoolExecutor(_at_once(), "pycontain-unpack")
        return self._pool

    @staticmethod
    def _is_applied(begun: Committed | _Begun) -> bool:
        return not isinstance(begun, _Begun) or begun.applied.done()

    def _finish(self) -> None:
        """Have a snapshot of the lowest layer that has none yet."""
        begun = self._begun[0]
        committed = self._commit(begun) if isinstance(begun, _Begun) else begun
        self._begun.popleft()
        self._below.insert(0, committed.path)

    def _commit(self, begun: _Begun) -> Committed:
        unpacked, path = begun.applied.result(), begun.active.path
        if self._below and unpacked.undescribed:
            self._unpacking.unpacker.adopt(path, unpacked.undescribed, self._below, begun.whiteouts)
        with begun.active:
            return self._snapshots.commit(begun.active, unpacked.written)

    def _apply(self, layer: Layer, unpacker: Unpacker, target: str, whiteouts: Whiteouts) -> Unpacked:
        def apply(fd: int) -> Unpacked:
            return unpacker.apply(
                fd, target, whiteouts=whiteouts, diff_id=str(layer.diff_id), limits=self._unpacking.limits
            )

        descriptor = layer.descriptor
        arrival = self._arrivals[descriptor.digest]
        if arrival.wait_to_begin():
            unpacked = _apply_arriving(arrival, apply)
        else:
            arrival.result()
            self._reporter.say(descriptor.digest, Phase.UNPACK, 0, descriptor.size)
            with self._store.blobs.open(descriptor.digest) as file:
                unpacked = apply(file.fileno())
        for loss in unpacked.lost:
            _log.debug("layer %s: not unpacked: %s of %r: %s", layer.diff_id, *loss)
        self._reporter.say(descriptor.digest, Phase.UNPACK, descriptor.size, descriptor.size)
        return unpacked


def _at_once() -> int:
    """How many layers to unpack at once: one for each processor that we may use."""
    return min(PARALLEL, len(os.sched_getaffinity(0)))


def _apply_arriving(arrival: Arrival, apply: Callable[[int], Unpacked]) -> Unpacked:
    """Apply a layer while it comes. The result counts only when the layer is verified, so wait for that too."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with suppress(PermissionError):  # pipe(7): an ordinary user may have too many of them
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE)
    feeder = threading.Thread(target=_feed, args=(arrival, write_end), name="pycontain-feed", daemon=True)
    feeder.start()
    try:
        unpacked = apply(read_end)
    except PycontainError:
        arrival.result()  # a cut or wrong download is the better reason
        raise
    finally:
        os.close(read_end)
    feeder.join()
    arrival.result()
    return unpacked


def _feed(arrival: Arrival, write_end: int) -> None:
    """Write the blob to a pipe as it comes, without its bytes passing through this process."""
    assert arrival.file
    position = 0
    try:
        while (have := arrival.wait_beyond(position)) > position:
            sent = os.sendfile(write_end, arrival.file.fileno(), position, have - position)
            if not sent:  # the file was emptied: what came was wrong
                return
            position += sent
    except (
        BrokenPipeError,
        ValueError,
    ):  # nobody reads it any more, or the file is closed: the transfer failed
        pass
    finally:
        os.close(write_end)
