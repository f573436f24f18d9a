"""Verifying: every stored byte is read again, and what is wrong is brought anew or taken away.

A damaged blob is worse than none: it looks as if the image were complete. So it never stays.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Final

import attrs

from pycontain.errors import InvalidImage, PycontainError, StoreCorrupt
from pycontain.oci.descriptor import Descriptor
from pycontain.store.blobs import OCTETS
from pycontain.store.contents import Contents
from pycontain.store.files import storing
from pycontain.store.leases import CONTENT
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.oci.digest import Digest
    from pycontain.store.store import Store

_CHUNK: Final = 2**20


@attrs.frozen
class Damage:
    """A blob that is needed and is not here, or whose bytes are not those of its digest.

    *images* are the names that need it. *problem* says in words what is wrong.
    """

    descriptor: Descriptor
    images: tuple[str, ...]
    problem: str


@attrs.frozen
class Verified:
    """What was found: how much was read, and each damage with what became of it.

    *repaired* were brought anew. *removed* are gone: the images that need them count as not here until they are pulled
    again.
    """

    blobs: int
    bytes: int
    repaired: tuple[Damage, ...]
    removed: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be now."""
        return not self.removed


#: Brings the bytes of a damaged blob, or None when it cannot; it may raise one of our errors to say the same.
Repair = "Callable[[Damage], bytes | BinaryIO | None]"


def verify(store: Store, repair: Callable[[Damage], bytes | BinaryIO | None] | None) -> Verified:
    """See :meth:`Store.verify`."""
    with storing(store.path):
        return _Verification(store, repair).run()
