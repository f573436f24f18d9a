"""What a running container has written to its root: as changes, and as one more layer of an image."""

from __future__ import annotations

import marshal
import os
import socket
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import attrs

from pycontain.errors import HostUnsupported, ImageError, InvalidSpec, SandboxError
from pycontain.kernel import descriptors
from pycontain.layers.entries import Whiteouts
from pycontain.oci.source import HostImage, Rootfs
from pycontain.runtime.unpack import Unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pycontain.image import Image
    from pycontain.image.transfer import Found
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.digest import Digest
    from pycontain.process.files import Files
    from pycontain.process.prepared import Compiled
    from pycontain.process.running import Running
    from pycontain.runtime.engine import Engine
    from pycontain.store.leases import Lease
    from pycontain.store.store import Store

_CHUNK = 1 << 20
_PACKET_LIMIT = 1 << 16


class ChangeKind(StrEnum):
    """What happened to a path."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


_LETTERS = {ChangeKind.ADDED: "A", ChangeKind.MODIFIED: "C", ChangeKind.DELETED: "D"}


@attrs.frozen
class Change:
    """A path of the root that is not as the image has it. A directory in which something changed is modified, too."""

    kind: ChangeKind
    path: str

    def __str__(self) -> str:
        """As ``docker diff`` prints it: A, C or D, and the path."""
        return f"{_LETTERS[self.kind]} {self.path}"


@attrs.frozen(eq=False)
class WritableLayer:
    """The writable layer of the running container *ident*. *open_layer* gives a descriptor of one that is in memory, or -1."""

    engine: Engine
    ident: str
    name: str
    compiled: Compiled
    files: Files
    open_layer: Callable[[], int]

    def changes(self) -> tuple[Change, ...]:
        """All that has changed, by path."""
        with self._survey("list") as (unpacker, answer):
            (found,) = unpacker.finish(answer, self.name)
        changes = (Change(ChangeKind(kind), "/" + os.fsdecode(path)) for kind, path in found)
        return tuple(sorted(changes, key=lambda change: change.path))

    @contextmanager
    def tar(self) -> Iterator[Iterator[bytes]]:
        """The same as the bytes of a layer; at the end of the block it is whole, or an error is raised."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with open(reader, "rb", buffering=0) as stream, ExitStack() as stack:
            try:
                unpacker, answer = stack.enter_context(self._survey("write", writer))
            finally:
                os.close(writer)
            yield iter(lambda: stream.read(_CHUNK), b"")
            unpacker.finish(answer, self.name)
        os.close(self._open()[0])  # which raises when it has ended, and its files were being removed

    @contextmanager
    def _survey(self, act: str, *further: int) -> Iterator[tuple[Unpacker, BinaryIO]]:
        """Have an unpacker look at the upper directory."""
        with ExitStack() as stack:
            upper, first = self._open()
            stack.callback(os.close, upper)
            question = stack.enter_context(open(os.memfd_create("pycontain-survey"), "w+b"))
            marshal.dump(self._question(first), question)
            question.seek(0)
            unpacker = self._unpacker(stack)
            fds = (question.fileno(), upper, *further)
            yield unpacker, stack.enter_context(unpacker.begin("changes", "", act, fds=fds))

    def _unpacker(self, stack: ExitStack) -> Unpacker:
        return stack.enter_context(Unpacker(self.engine))

    def _question(self, first: tuple[int, ...]) -> tuple[Any, ...]:
        """What :class:`pycontain.runtime.changes.Survey` is made of."""
        return (*self._lower(), self._whiteouts(), self._left_out(), first)

    def _open(self) -> tuple[int, tuple[int, ...]]:
        """A descriptor of the upper directory, and the first of its ids when they are not the container's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self.engine.request(("layer", self.ident), (theirs.fileno(),))
            packet, fds, _ = descriptors.receive(ours, _PACKET_LIMIT, 1)
        if not packet:
            raise SandboxError(
                f"the container {self.name} has exited, and what it wrote is gone", hint="start it again"
            )
        _, first = marshal.loads(packet)
        if self.compiled.sandbox.layer_size is None:
            return fds[0], ()
        os.close(fds[0])  # which is below the file system in memory
        fd = self.open_layer()
        if fd < 0:
            raise SandboxError(f"the container {self.name} has exited, and what it wrote is gone")
        return fd, first

    def _lower(self) -> tuple[tuple[str, ...], str]:
        marks = Whiteouts.USER_OVERLAY if self.engine.facts.rootless else Whiteouts.OVERLAY
        return tuple(map(str, self.compiled.image.rootfs.lowerdirs)), marks.value

    def _whiteouts(self) -> str:
        user = self.engine.facts.rootless or self.compiled.sandbox.userns.own
        kind = Whiteouts.USER_OVERLAY if user else Whiteouts.OVERLAY
        return str(kind.value)

    def _left_out(self) -> frozenset[bytes]:
        """What is mounted, and the image's volumes, whose content is no part of a layer, as for Docker."""
        mounts, _ = self.files.ask("/", "mounts")
        volumes = map(os.fsencode, self.compiled.sandbox.own_volumes)
        return frozenset(path[1:] for path in (*mounts, *volumes)) - {b""}


# --- an image of it -------------------------------------------------------------------------------------


def commit(
    running: Running,
    layer: WritableLayer,
    *,
    tag: str | None,
    message: str,
    author: str,
    changes: Iterable[str],
    pause: bool | None,
) -> Image:
    """As :meth:`Running.commit`."""
    from pycontain.image.image import image_of, name_of  # noqa: PLC0415 - who only looks at changes needs no images
    from pycontain.oci.reference import Reference  # noqa: PLC0415 - as above
    from pycontain.store.store import Store  # noqa: PLC0415 - as above

    lines = _lines(changes)
    stored = layer.compiled.image.stored
    reference = Reference.parse(tag) if tag else None
    store = Store(cast("Any", stored).store) if stored is not None else Store.default()
    with store.lease() as lease:
        base = _base(running, stored, store, lease)
        parameters = _parameters(base, lines)
        with _standing_still(running, wanted=pause):
            descriptor, diff_id = _store_layer(layer, store, lease)
        found = _store_image(
            base, parameters, descriptor, diff_id, store, lease, message=message, author=author
        )
        name = reference or name_of(found)
        store.names.set(name, found.descriptor)
        return image_of(found.stored(name), store)


def _lines(changes: Iterable[str]) -> tuple[str, ...]:
    lines = (changes,) if isinstance(changes, str) else tuple(changes)
    if not all(isinstance(line, str) for line in lines):
        raise InvalidSpec("changes are texts such as 'CMD [\"python3\"]'")
    return lines


def _parameters(base: Found, lines: tuple[str, ...]) -> Any:
    from pycontain.oci.instruction import changed  # noqa: PLC0415 - few ask for it

    parameters, problems = base.config.config, []
    for line in lines:
        try:
            parameters = changed(parameters, line)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise InvalidSpec(tuple(problems))
    return parameters


def _base(running: Running, stored: object, store: Store, lease: Lease) -> Found:
    """The image on which the container stands; of a plain root file system one is made."""
    if stored is not None:
        found: Found = cast("Any", stored).found
        lease.protect(*found.digests)
        return found
    match running.spec.image:
        case Rootfs(path):
            from pycontain.image.importing import store_rootfs  # noqa: PLC0415 - as above
            from pycontain.image.runnable import platform_of  # noqa: PLC0415 - as above
            from pycontain.oci.config import ExecutionParameters  # noqa: PLC0415 - as above

            return store_rootfs(store, lease, os.path.abspath(path), ExecutionParameters(), platform_of(None))
        case HostImage():
            raise ImageError(
                "host: has no layers, so there can be no image of what was changed in it",
                hint="use an image of a registry, or rootfs:; or copy with files.get()",
            )
    raise ImageError(f"{running.image} has no layers that are stored")


@contextmanager
def _standing_still(running: Running, *, wanted: bool | None) -> Iterator[None]:
    """For the time of the block nothing changes inside, when that is *wanted*, or None and the host can."""
    if wanted is False or running.status == "paused":
        yield
        return
    try:
        running.pause()
    except HostUnsupported as error:
        if wanted:
            raise error.with_hint("or commit while it goes on: pause=False") from None
        yield
        return
    try:
        yield
    finally:
        running.resume()


def _store_layer(layer: WritableLayer, store: Store, lease: Lease) -> tuple[Descriptor, Digest]:
    from pycontain.layers.pack import pack  # noqa: PLC0415 - loads what compresses
    from pycontain.oci.digest import Digest  # noqa: PLC0415 - as above
    from pycontain.oci.media_types import LAYER_GZIP  # noqa: PLC0415 - as above
    from pycontain.store.blobs import Incoming  # noqa: PLC0415 - as above

    with Incoming(store.blobs, f"put-{os.urandom(12).hex()}", None, keep=False) as incoming:
        with layer.tar() as chunks:
            packed = pack(chunks, cast("BinaryIO", incoming))
        lease.protect(Digest.parse(packed.digest))  # first, and then make it visible
        return incoming.commit(LAYER_GZIP), Digest.parse(packed.diff_id)


def _store_image(
    base: Found,
    parameters: Any,
    layer: Descriptor,
    diff_id: Digest,
    store: Store,
    lease: Lease,
    *,
    message: str,
    author: str,
) -> Found:
    from pycontain.image.transfer import Found, store_document  # noqa: PLC0415
    from pycontain.oci.chain import layers_of  # noqa: PLC0415 - as above
    from pycontain.oci.config import History  # noqa: PLC0415
    from pycontain.oci.descriptor import Descriptor  # noqa: PLC0415
    from pycontain.oci.manifest import Manifest  # noqa: PLC0415
    from pycontain.oci.media_types import CONFIG, MANIFEST, OCI_TWINS  # noqa: PLC0415

    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    # Without a history each layer is a step; with one it must go on, or the two would not fit together.
    before = base.config.history or tuple(History() for _ in base.layers)
    config = attrs.evolve(
        base.config,
        config=parameters,
        created=now,
        author=author or base.config.author,
        rootfs=attrs.evolve(base.config.rootfs, diff_ids=(*base.config.diff_ids, diff_id)),
        history=(*before, History(now, "pycontain commit", author, message)),
    )
    below = (
        attrs.evolve(each, media_type=OCI_TWINS.get(each.media_type, each.media_type))
        for each in base.manifest.layers
    )
    manifest = Manifest(Descriptor.of(config.encode(), CONFIG), (*below, layer))
    descriptor = Descriptor.of(manifest.encode(), MANIFEST)
    found = Found(descriptor, manifest, config, layers_of(manifest, config))
    lease.protect(*found.digests)
    store_document(store, manifest.config, config.encode())
    store_document(store, descriptor, manifest.encode())
    return found
