"""COPY and ADD: what is to be copied from where, its digest for the cache, and the layer it becomes."""

from __future__ import annotations

import marshal
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.dockerfile.ignore import clean
from pycontain.errors import BuildError, PycontainError
from pycontain.layers.entries import Whiteouts
from pycontain.runtime.copying import Copying

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.building.session import Session
    from pycontain.building.state import State
    from pycontain.runtime.unpack import Unpacker
    from pycontain.store.builds import Built

_CHUNK = 1 << 20


@attrs.frozen
class Origin:
    """Where sources are: the directory *path*, or the merged *trees* of a stage or an image."""

    path: str = ""
    trees: tuple[str, ...] = ()


def digest(session: Session, copying: Copying, origin: Origin) -> str:
    """The digest of the sources. Those of the context are read here, with the rights of the caller."""
    if not origin.trees:
        fresh = Copying(*copying.values())
        if not origin.path:
            return fresh.digest()
        fresh.source = os.open(origin.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return fresh.digest()
        finally:
            os.close(fresh.source)
    with ExitStack() as stack:
        unpacker, answer = _begin(session, stack, copying, origin, (), "digest")
        return str(unpacker.finish(answer, "")[0])


def layer(session: Session, copying: Copying, origin: Origin, below: State) -> tuple[Built, str]:
    """The layer on top of *below*, stored, and the digest of what was copied."""
    trees = session.trees(below)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(reader, "rb", buffering=0) as stream, ExitStack() as stack:
        try:
            unpacker, answer = _begin(session, stack, copying, origin, trees, "write", writer)
        finally:
            os.close(writer)
        found: list[str] = []

        def chunks() -> Iterator[bytes]:
            while chunk := stream.read(_CHUNK):
                yield chunk
            found.append(str(unpacker.finish(answer, "")[0]))  # what has failed is not stored

        return session.store_layer(chunks()), found[0]


def tree(session: Session, copying: Copying, origin: Origin, stack: ExitStack) -> tuple[str, str]:
    """A directory with what is to be copied, for as long as *stack*, and the digest of it."""
    path = session.engine.new_tree()
    stack.callback(session.unpacking.unpacker.remove_tree, path)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(reader, "rb", buffering=0) as stream, ExitStack() as own:
        try:
            unpacker, answer = _begin(session, own, copying, origin, (), "write", writer)
        finally:
            os.close(writer)
        try:
            session.unpacking.unpacker.apply(stream.fileno(), path)
        except PycontainError:
            unpacker.finish(answer, "")  # which says better why there was no tar
            raise
        return path, str(unpacker.finish(answer, "")[0])


def _begin(
    session: Session,
    stack: ExitStack,
    copying: Copying,
    origin: Origin,
    below: tuple[str, ...],
    act: str,
    *further: int,
) -> tuple[Unpacker, Any]:
    rootless = session.engine.facts.rootless
    whiteouts = (Whiteouts.USER_OVERLAY if rootless else Whiteouts.OVERLAY).value
    question = stack.enter_context(os.fdopen(os.memfd_create("pycontain-copy"), "w+b"))
    marshal.dump((origin.trees, below, whiteouts, *copying.values()), question)
    question.seek(0)
    unpacker = session.unpacking.unpacker
    fds = (question.fileno(), *further)
    return unpacker, stack.enter_context(unpacker.begin("copy", origin.path, act, fds=fds))


def source_pattern(text: str, *, parents: bool = False) -> bytes:
    """A source as :class:`Copying` takes it: relative to the root, above which nothing is."""
    pivot = parents and "/./" in text
    if pivot:
        above, _, below = text.partition("/./")
        return os.fsencode(f"{_relative(above)}/./{_relative(below)}")
    return os.fsencode(_relative(text))


def _relative(text: str) -> str:
    cleaned = clean(text)
    return "" if cleaned == "." else cleaned


def destination(text: str, workdir: str) -> bytes:
    """Where it goes, absolute; a slash at the end stays, and says that it is a directory."""
    folder = text.endswith(("/", "/.")) or text in {".", "./"}
    path = text if text.startswith("/") else f"{workdir.rstrip('/')}/{text}"
    if "\0" in path:
        raise BuildError("the destination has a NUL byte")
    return os.fsencode(path.rstrip("/") + ("/" if folder else ""))
