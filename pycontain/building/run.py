"""RUN: a container on what the stage has become, whose writable layer stays until it is stored."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import attrs

from pycontain.container import Container, ContainerSpec
from pycontain.errors import PycontainError
from pycontain.image.runnable import runnable_of
from pycontain.oci.source import HostImage
from pycontain.process.changes import WritableLayer
from pycontain.process.completed import completed_of
from pycontain.process.prepared import Run, new_id
from pycontain.process.starting import enter_networks
from pycontain.runtime.exchange import KEEP, NOTIFY, Expired, Sink, converse
from pycontain.runtime.failure import failure_of
from pycontain.sandbox.limits import NO_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from pycontain.building.session import Session
    from pycontain.building.state import State
    from pycontain.image.transfer import Unpacking
    from pycontain.process.completed import Completed
    from pycontain.process.prepared import Prepared
    from pycontain.runtime.unpack import Unpacker
    from pycontain.sandbox.limits import Limits
    from pycontain.store.builds import Built

_MOST_OUTPUT = 1 << 20  # bytes of each stream that are kept for an error
_ALWAYS_MOUNTED = (
    *("/proc", "/sys", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"),
    "/etc/apt/apt.conf.d/zz-pycontain",
)


class _Tail(Sink):
    """Keeps the end of a stream, and gives its lines to somebody as they come."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__(_MOST_OUTPUT)
        self._tell = tell
        self._line = b""

    def take(self, chunk: bytes) -> None:
        """Keep the last of it."""
        self._kept += chunk
        if len(self._kept) > 2 * self.limit:
            del self._kept[: -self.limit]
            self.truncated = True
        *lines, self._line = (self._line + chunk)[-self.limit :].split(b"\n")
        for line in lines:
            self._tell(line.decode(errors="replace"))

    def end(self) -> None:
        """Give what has no line end."""
        if self._line:
            self._tell(self._line.decode(errors="replace"))


@attrs.frozen
class _Streams:
    streams: tuple[_Tail, _Tail]


@attrs.frozen(eq=False)
class _Kept(WritableLayer):
    """What a container has written that has ended. *mounted* are the places that are not of its layer."""

    mounted: frozenset[bytes]
    newest: int | None
    unpacking: Unpacking

    def _unpacker(self, stack: ExitStack) -> Unpacker:
        del stack  # it is of the whole build
        return self.unpacking.unpacker

    def _question(self, first: tuple[int, ...]) -> tuple[Any, ...]:
        return (*self._lower(), self._whiteouts(), self.mounted, first, True, self.newest)


def container_of(env: dict[str, str], network: str, limits: Limits = NO_LIMITS) -> Container:
    """The container of a RUN, before its mounts."""
    box = (
        Container(ContainerSpec(HostImage(), limits=limits)).entrypoint().network(network)
    )  # the image is given apart
    return box.env(env) if env else box


def run(
    session: Session,
    state: State,
    box: Container,
    argv: tuple[str, ...],
    tell: Callable[[str], object],
) -> tuple[Completed[str], Callable[[], Built]]:
    """Run *argv*; its result, and what stores its layer, once. The layer is given up when that is not called."""
    bare = state.saying(volumes=(), entrypoint=(), cmd=())
    found = session.unpacked(bare)
    image = runnable_of(session.store, found, session.engine, session.unpacking)
    compiled = box.compiled_on(image, session.engine)
    prepared = compiled.prepare(session.engine, argv, box.spec.networking, "build")
    ident = new_id()
    try:
        completed = _run(session, prepared, ident, tell)
        written = _Kept(
            session.engine,
            ident,
            "of RUN",
            compiled,
            cast("Any", None),
            lambda: -1,
            frozenset(os.fsencode(path)[1:] for path in _mounted(box)),
            None if session.epoch is None else session.epoch * 10**9,
            session.unpacking,
        )
        layer: list[Built] = []
        if completed.ok and not completed.timed_out:
            with written.tar() as chunks:
                layer.append(session.store_layer(chunks))
    finally:
        with suppress(PycontainError):  # the zygote is gone, and with it the layer
            session.engine.request(("release", ident), ())
    return completed, layer.pop


def _mounted(box: Container) -> tuple[str, ...]:
    spec = box.spec
    return (
        *_ALWAYS_MOUNTED,
        *(mount.target for mount in spec.mounts),
        *(tmpfs.target for tmpfs in spec.tmpfs),
        *(file.path for file in spec.files),
    )


def _run(session: Session, prepared: Prepared, ident: str, tell: Callable[[str], object]) -> Completed[str]:
    began = time.monotonic()
    deadline = None if session.timeout is None else began + session.timeout
    sinks = _Tail(tell), _Tail(tell)
    expired = False
    wiring = prepared.wiring(ident)
    try:
        options = KEEP | (0 if wiring is None else NOTIFY)
        exchange = prepared.begin(
            Run(None, None, True, _MOST_OUTPUT), options, ident, cast("Any", _Streams(sinks))
        )
        try:
            try:
                with session.stopping(lambda: exchange.command("end")):
                    enter_networks(exchange, wiring, deadline)
                    converse(exchange, deadline)
            except Expired:
                expired = True
            session.go_on()
        finally:
            exchange.close()
    finally:
        if wiring is not None:
            wiring.close()
    for sink in sinks:
        sink.end()
    failure = failure_of(exchange, prepared.plan, prepared.engine)
    if failure is not None:
        raise failure
    return completed_of(exchange, prepared.argv, began, text=True, timed_out=expired)
