"""Leases: what a process is using is not collected, though no name leads to it.

A lease is a file below ``leases/`` with one digest a line: of blobs, or chain IDs of snapshots. It is locked as long as
its process lives, so it ends with it.

Protecting waits while somebody collects, because both take the lock ``content``. So who protects a thing first and
looks whether it is there afterwards can rely on what was seen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

import attrs

from pycontain.store.files import read_file, storing
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from types import TracebackType

    from pycontain.oci.digest import Digest
    from pycontain.store.folder import Folder

#: The lock that collecting takes alone, and shares with everybody who makes something count as used.
CONTENT = "content"


@attrs.define(eq=False)
class Lease:
    """What this holder is using. A context manager that ends the lease."""

    _folder: Folder
    _lock: Lock
    _protected: set[Digest] = attrs.field(factory=set)

    @classmethod
    def open(cls, folder: Folder) -> Self:
        """Begin a lease on nothing."""
        with storing(folder.path):
            return cls(folder, Lock.take(f"{folder.leases}/{os.urandom(12).hex()}"))

    def protect(self, *digests: Digest) -> None:
        """Keep these blobs and snapshots until the lease ends, whether they are here already or not.

        A protected manifest also keeps the names that lead to it. Protect first, then look.
        """
        new = set(digests) - self._protected
        if not new:
            return
        lines = "".join(f"{digest}\n" for digest in new)
        with (
            storing(self._folder.path),
            Lock.take(self._folder.lock(CONTENT), shared=True),
            open(
                self._lock.path, "ab", buffering=0
            ) as file,  # threads may share a lease, and appending is atomic
        ):
            file.write(lines.encode())
        self._protected |= new

    def release(self) -> None:
        """End the lease; may be repeated."""
        with storing(self._folder.path):
            self._lock.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read_leases(folder: Folder) -> frozenset[str]:
    """Every digest that is protected, as text. Leases of dead processes are removed."""
    protected: set[str] = set()
    for name in os.listdir(folder.leases):
        path = f"{folder.leases}/{name}"
        if dead := Lock.try_take(path):
            dead.remove()
            continue
        try:
            lines = read_file(path).decode().splitlines()
        except FileNotFoundError:  # it ended just now
            continue
        protected.update(lines[1:])  # the first names the holder
    return frozenset(protected)
