"""Verifying: every stored byte is read again, and what is wrong is brought anew or taken away.

A damaged blob is worse than none: it looks as if the image were complete. So it never stays.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

import attrs

from pycontain.errors import PycontainError
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.media_types import MANIFESTS
from pycontain.store.blobs import OCTETS
from pycontain.store.contents import Contents, digest_of
from pycontain.store.files import storing
from pycontain.store.folder import CONTENT
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

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
        """Whether every image is as it should be now."""
        return not any(damage.images for damage in self.removed)


#: Brings the bytes of a damaged blob, or None; an error of ours says the same with a reason. Streams are closed.
Repair: TypeAlias = "Callable[[Damage], bytes | BinaryIO | None]"


def verify(store: Store, repair: Repair | None) -> Verified:
    """See :meth:`Store.verify`."""
    with storing(store.path):
        return _Verification(store, repair).run()


@attrs.define(eq=False)
class _Verification:
    store: Store
    repair: Repair | None
    blobs: int = 0
    bytes: int = 0
    bad: dict[Digest, _Wrong] = attrs.field(factory=dict)
    repaired: list[Damage] = attrs.field(factory=list)
    removed: list[Damage] = attrs.field(factory=list)

    def run(self) -> Verified:
        for digest in self.store.blobs:
            self._check(digest)
        tried: set[Digest] = set()
        # A document that is repaired leads to more, so look again until nothing new is found.
        while new := {digest: damage for digest, damage in self._damages().items() if digest not in tried}:
            tried |= set(new)
            for damage in new.values():
                self._mend(damage)
        self.removed += [
            Damage(Descriptor(OCTETS, digest, wrong.size), (), wrong.problem)
            for digest, wrong in self.bad.items()
            if digest not in tried
        ]
        return Verified(self.blobs, self.bytes, tuple(self.repaired), tuple(self.removed))

    def _check(self, digest: Digest) -> None:
        """Hash one blob, and take it away when it is wrong."""
        hasher = digest.hasher()
        try:
            file = open(self.store.blobs.path(digest), "rb")  # noqa: SIM115 - closed by the next line
        except FileNotFoundError:  # collected meanwhile
            return
        with file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
            size = file.tell()
            self.blobs += 1
            self.bytes += size
            found = hasher.hexdigest()
            if found != digest.hex:
                self.bad[digest] = _Wrong(
                    size, f"its bytes have changed: they are {digest.algorithm}:{found}"
                )
                self._take_away(digest, file.fileno())

    def _take_away(self, digest: Digest, fd: int) -> None:
        with Lock.take(self.store.folder.lock(CONTENT)), suppress(FileNotFoundError):
            # Somebody else may have found it too, and have repaired it.
            if os.path.samestat(os.fstat(fd), os.stat(self.store.blobs.path(digest))):
                self.store.blobs.remove(digest)

    def _damages(self) -> dict[Digest, Damage]:
        """What is not here and should be: what was damaged, and what the manifest of a name points at.

        Other manifests of an index are allowed to be missing: they are for other platforms.
        """
        contents = Contents(self.store.blobs)
        damages: dict[Digest, Damage] = {}
        for entry in self.store.names.list():
            required = {entry.descriptor.digest}
            if entry.descriptor.media_type in MANIFESTS:
                required |= set(map(digest_of, contents.links_of(entry.descriptor)))
            for found in contents.walk(entry):
                digest = digest_of(found)
                if digest in required | set(self.bad) and not self.store.blobs.has(digest):
                    damage = damages.get(digest) or self._damage_of(found)
                    damages[digest] = attrs.evolve(damage, images=(*damage.images, entry.name))
        return damages

    def _damage_of(self, found: Descriptor | Digest) -> Damage:
        wrong = self.bad.get(digest_of(found), _Wrong(0, "it is missing"))
        descriptor = found if isinstance(found, Descriptor) else Descriptor(OCTETS, found, wrong.size)
        return Damage(descriptor, (), wrong.problem)

    def _mend(self, damage: Damage) -> None:
        try:
            brought = self.repair(damage) if self.repair else None
            if brought is None:
                self.removed.append(damage)
                return
            with io.BytesIO(brought) if isinstance(brought, bytes) else brought as stream:
                self.store.blobs.put(stream, damage.descriptor)
        except PycontainError as error:
            self.removed.append(attrs.evolve(damage, problem=f"{damage.problem}; repairing failed: {error}"))
        else:
            self.repaired.append(damage)


@attrs.frozen
class _Wrong:
    size: int
    problem: str
