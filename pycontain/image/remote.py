"""Images in registries: pulling them by a policy, and pushing them."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import attrs

from pycontain.errors import ImageNotFound, InvalidSpec, NoMatchingPlatform, PycontainError, RegistryError
from pycontain.image.progress import Phase
from pycontain.image.transfer import bring, find_stored, nowhere, read_documents
from pycontain.interruption import ended_by
from pycontain.oci.media_types import INDEXES, MANIFESTS
from pycontain.registry.client import Registry
from pycontain.registry.push import push_image

if TYPE_CHECKING:
    from pycontain.image.progress import Reporter
    from pycontain.image.transfer import Found, Unpacking
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.platform import Platform
    from pycontain.oci.reference import Reference
    from pycontain.registry.client import Repository
    from pycontain.registry.settings import RegistrySettings
    from pycontain.store.leases import Lease
    from pycontain.store.store import Store

_DOCUMENTS: Final = MANIFESTS | INDEXES
_TAGS_LOOKED_AT: Final = 1000
_TAGS_SHOWN: Final = 10


class Policy(StrEnum):
    """When to ask a registry for an image."""

    MISSING = "missing"
    """When the store does not have it."""

    ALWAYS = "always"
    """Every time; what the store has already is not fetched again."""

    NEVER = "never"
    """Not at all: no connection is made."""

    NEWER = "newer"
    """Every time, and what the store has will do when the registry does not answer."""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy; :class:`InvalidSpec` for any other word."""
        try:
            return cls(text)
        except ValueError:
            raise InvalidSpec(f"{text!r} is no pull policy", hint=f"use one of {', '.join(cls)}") from None


@attrs.frozen
class RegistryOrigin:
    """A repository as the origin of an image."""

    repository: Repository

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest, an index or a config."""
        if descriptor.media_type in _DOCUMENTS:
            return self.repository.read_manifest(descriptor)
        return self.repository.read_blob(descriptor)

    def open(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        """A blob from *offset*."""
        return cast("BinaryIO", self.repository.blob(descriptor, offset))


# --- pulling --------------------------------------------------------------------------------------------


def pull(
    store: Store,
    lease: Lease,
    reference: Reference,
    wanted: Platform,
    policy: Policy,
    *,
    settings: RegistrySettings,
    reporter: Reporter,
    unpacking: Unpacking | None = None,
) -> Found:
    """Have the image *reference* in *store*, by *policy*, and with *unpacking* unpacked; *lease* protects all of it.

    On failure the name means what it meant. What was fetched and verified stays for the next try, until it is collected.
    """
    found = None if policy is Policy.ALWAYS else find_stored(store, lease, reference, wanted)
    if found and policy is not Policy.NEWER:
        return _unpacked(store, found, reporter, unpacking)
    if policy is Policy.NEVER:
        raise not_stored(store, reference, wanted)
    try:
        return _fetch(store, lease, reference, wanted, settings, reporter, unpacking)
    except RegistryError:
        if not found:
            raise
        return _unpacked(store, found, reporter, unpacking)


def _unpacked(store: Store, found: Found, reporter: Reporter, unpacking: Unpacking | None) -> Found:
    if unpacking:
        bring(store, nowhere, found, reporter, unpacking)
    return found


def _fetch(
    store: Store,
    lease: Lease,
    reference: Reference,
    wanted: Platform,
    settings: RegistrySettings,
    reporter: Reporter,
    unpacking: Unpacking | None,
) -> Found:
    with Registry(reference.registry, settings) as registry, ended_by(registry.interrupt):
        repository = registry.repository(reference.repository)
        try:
            top = repository.resolve(reference)
        except ImageNotFound as error:
            error.add_note(_next_step(repository, reference))
            raise
        origin = RegistryOrigin(repository)
        found = read_documents(store, lease, origin, top, wanted)
        check_platform(found, reference.familiar, wanted)
        bring(store, origin, found, reporter, unpacking)
    store.names.set(reference, found.descriptor, index=found.index)
    store.touch(found.descriptor.digest)
    return found


def check_platform(found: Found, name: str, wanted: Platform) -> None:
    """Refuse an image that says that it is for another machine; one from an index was chosen already."""
    made_for = found.config.platform.normal()
    runnable = {str(platform) for platform in wanted.runnable()}
    if found.index is None and made_for.architecture and str(made_for) not in runnable:
        raise NoMatchingPlatform(
            f"{name} is an image for {made_for}, and {wanted} is wanted",
            wanted=str(wanted),
            available=(str(made_for),),
            hint=f"to have it all the same, ask for the platform {made_for}",
        )


# --- names that are not there ---------------------------------------------------------------------------


def not_stored(store: Store, reference: Reference, wanted: Platform) -> ImageNotFound:
    """The error for an image that is not in *store*, with what was meant or what to do."""
    stored = store.names.get(reference)
    if stored is not None:
        sentence = f"the store has {reference.familiar} for another platform than {wanted}, or not all of it"
        return ImageNotFound(sentence, reference=str(reference), hint="pull it")
    names = [entry.reference.familiar for entry in store.names.list() if entry.reference]
    return ImageNotFound(
        f"the store has no image {reference.familiar}",
        reference=str(reference),
        hint=_did_you_mean(reference.familiar, names) or f"pull it: Image.pull({reference.familiar!r})",
    )


def _next_step(repository: Repository, reference: Reference) -> str:
    """Say which tag may have been meant, when the registry tells its tags."""
    tags: list[str] = []
    if reference.tag is not None:
        with suppress(PycontainError):
            tags = list(islice(repository.tags(), _TAGS_LOOKED_AT))
    if not tags:
        return "check the name; for a private image, the credentials too"
    return _did_you_mean(reference.tag or "", tags) or f"it has the tags {', '.join(tags[:_TAGS_SHOWN])}"


def _did_you_mean(text: str, names: list[str]) -> str | None:
    import difflib  # noqa: PLC0415 - only a name that is not there pays for it

    close = difflib.get_close_matches(text, names, 1)
    return f"did you mean {close[0]}?" if close else None


# --- pushing --------------------------------------------------------------------------------------------


class _Counted(io.FileIO):
    """A blob whose reading is reported."""

    def __init__(self, fd: int, descriptor: Descriptor, reporter: Reporter) -> None:
        super().__init__(fd)
        self._descriptor = descriptor
        self._reporter = reporter

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self._reporter.say(self._descriptor.digest, Phase.PUSH, self.tell(), self._descriptor.size)
        return chunk


@attrs.frozen
class _StoreSource:
    """The store as the source of what is pushed."""

    store: Store
    reporter: Reporter

    def read(self, descriptor: Descriptor) -> bytes:
        return self.store.blobs.read(descriptor.digest)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        with self.store.blobs.open(descriptor.digest) as file:
            return cast("BinaryIO", _Counted(os.dup(file.fileno()), descriptor, self.reporter))


def push(
    store: Store,
    descriptor: Descriptor,
    reference: Reference,
    layers: tuple[Descriptor, ...],
    *,
    settings: RegistrySettings,
    reporter: Reporter,
) -> None:
    """Push a manifest, or an index with all that it lists, to *reference*; *layers* are those that are reported."""
    mount_from = {
        entry.reference.repository
        for entry in store.names.list()
        if entry.reference
        and entry.descriptor.digest == descriptor.digest
        and entry.reference.registry == reference.registry
        and entry.reference.repository != reference.repository
    }
    with Registry(reference.registry, settings) as registry, ended_by(registry.interrupt):
        push_image(
            registry.repository(reference.repository),
            descriptor,
            _StoreSource(store, reporter),
            None if reference.tag is None else reference.tag,
            mount_from=sorted(mount_from),
        )
    for layer in layers:
        reporter.say(layer.digest, Phase.DONE, layer.size, layer.size)
