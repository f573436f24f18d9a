"""Snapshots: unpacked layers as an interface. A snapshotter says where trees are and mounts nothing.

The words are containerd's. A snapshot begins *active*: a private directory, which somebody fills. Committing makes it
*committed*: it has the chain ID as its key, never changes, and others may stand on it. What a container is given is a
view of a chain of committed snapshots: the lower directories of an overlay.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pycontain.oci.digest import Digest
    from pycontain.sandbox.spec import Rootfs
    from pycontain.store.locks import Lock


class Kind(Enum):
    """Who may use a snapshot: those who agree on the owners of files and on how an overlay marks whiteouts."""

    OVERLAY_ROOT = "overlay-privileged"
    """Made by root: ``trusted.overlay.*`` and ``user.overlay.*``, owners as the image has them.

    In the namespace of the host the first count; in one of its own, which sees the layers idmapped, the others.
    """

    OVERLAY_USER = "overlay-user"
    """Made in a user namespace with subordinate ids: ``user.overlay.*``, owners shifted."""

    OVERLAY_SINGLE = "overlay-single"
    """Made in a user namespace with one id: ``user.overlay.*``, one owner for all."""

    @property
    def userxattr(self) -> bool:
        """Whether the overlay is mounted with ``userxattr``."""
        return self is not Kind.OVERLAY_ROOT


@attrs.frozen
class Committed:
    """A snapshot that is complete. *size* is in bytes, as its maker counted."""

    chain_id: Digest
    parent: Digest | None
    path: str
    size: int


@attrs.define(eq=False)
class Active:
    """A snapshot that is being filled, in the empty directory *path*, by nobody else.

    With *committed* there is nothing to fill: somebody has committed it while this one waited. A context manager: left
    without a commit, what it holds is thrown away.
    """

    chain_id: Digest
    parent: Digest | None
    path: str
    _lock: Lock
    _abandon: Callable[[Active], None]
    committed: Committed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon(self)


class Snapshotter(Protocol):
    """What every kind of snapshot can do. Chain IDs are the keys; every act may be repeated."""

    def find(self, chain_id: Digest) -> Committed | None:
        """The committed snapshot, if there is one."""
        ...

    def prepare(self, chain_id: Digest, parent: Digest | None) -> Active:
        """Begin a snapshot on top of *parent*, which need not be committed before this one is.

        When somebody prepares the same one, in this process or another, this waits until he has committed it, has given
        up or was killed; then :attr:`Active.committed` says whether it is done. Who holds several takes them from the
        lowest layer up, or he can wait in a circle.
        """
        ...

    def commit(self, active: Active, size: int) -> Committed:
        """Make the snapshot visible at once and for good, or give the one that somebody committed earlier."""
        ...

    def mounts(self, chain_ids: Sequence[Digest]) -> Rootfs:
        """What to mount to see the chain, the lowest layer first. :class:`StoreError` when one is not committed."""
        ...

    def list(self) -> tuple[Committed, ...]:
        """Every committed snapshot, in no order."""
        ...

    def remove(self, chain_id: Digest) -> None:
        """Make a snapshot that nobody stands on invisible; :meth:`sweep` removes its files."""
        ...

    def sweep(self, remove_tree: Callable[[str], object]) -> None:
        """Remove the files of removed snapshots and of those whose maker is gone, each tree with *remove_tree*."""
        ...
