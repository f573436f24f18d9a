"""Leases: what a process is using is not collected, though no name leads to it.

A lease is a file below ``leases/`` with one digest a line: of blobs, or chain IDs of snapshots. It is locked as long as
its process lives, so it ends with it.

Protecting waits while somebody collects, because both take the lock ``content``. So who protects a thing first and
looks whether it is there afterwards can rely on what was seen.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.digest import Digest
from pycontain.store.files import read_file, storing
from pycontain.store.folder import CONTENT
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from pycontain.store.folder import Folder

_MARK = "+"


@attrs.define(eq=False)
class Lease:
    """What this holder is using. A context manager that ends the lease."""

    _folder: Folder
    _lock: Lock
    _protected: set[Digest] = attrs.field(factory=set)
    _adding: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    def open(cls, folder: Folder) -> Self:
        """Begin a lease on nothing."""
        with storing(folder.path):
            return cls(folder, Lock.take(f"{folder.leases}/{os.urandom(12).hex()}"))

    def protect(self, *digests: Digest) -> None:
        """Keep these blobs and snapshots until the lease ends, whether they are here already or not.

        A protected manifest also keeps the names that lead to it. Protect first, then look.
        """
        with self._adding:
            new = set(digests) - self._protected
            if new:
                self._add("".join(f"\n{_MARK}{digest}" for digest in new))
                self._protected |= new

    def _add(self, lines: str) -> None:
        with (
            storing(self._folder.path),
            Lock.take(self._folder.lock(CONTENT), shared=True),
            open(self._lock.path, "a", encoding="ascii") as file,
        ):
            file.write(lines)

    def release(self) -> None:
        """End the lease; may be repeated."""
        with storing(self._folder.path):
            self._lock.remove()

    def abandon(self) -> None:
        """Let go of it in the child of a fork, where it is still its parent's."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read_leases(folder: Folder) -> frozenset[Digest]:
    """Every digest that is protected. Leases of dead processes are removed."""
    protected: set[Digest] = set()
    for name in os.listdir(folder.leases):
        path = f"{folder.leases}/{name}"
        if dead := Lock.try_take(path):
            dead.remove()
            continue
        with suppress(FileNotFoundError):  # it ended just now
            protected.update(_parse(read_file(path).decode("ascii", "replace")))
    return frozenset(protected)


def _parse(content: str) -> Iterator[Digest]:
    for line in content.splitlines():
        if line.startswith(_MARK):  # the others name the holder
            with suppress(InvalidImage):  # cut short by a full disk; who wrote it was told
                yield Digest.parse(line.removeprefix(_MARK))
