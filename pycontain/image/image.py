"""Images: pulled, pushed, loaded, saved, found, named and looked at. What ``Container`` runs."""

from __future__ import annotations

import json
import os
import re
import weakref
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import attrs

from pycontain.errors import HostUnsupported, ImageNotFound, InvalidReference
from pycontain.image.progress import Callback, reporter_of
from pycontain.image.runnable import StoredSource, import_image, platform_of
from pycontain.kernel.trees import remove_tree
from pycontain.oci.config import ExecutionParameters, History, ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.manifest import Manifest
from pycontain.oci.media_types import CONFIG, MANIFEST
from pycontain.oci.reference import Reference
from pycontain.oci.source import HostImage, RegistrySource, Rootfs, Source, parse_source
from pycontain.runtime.probe import is_privileged
from pycontain.store.store import Store as _Store
from pycontain.store.store import StoredImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pycontain.image.transfer import Found, Unpacking
    from pycontain.layers.entries import Limits as LayerLimits
    from pycontain.oci.chain import Layer
    from pycontain.registry.credentials import Credentials
    from pycontain.registry.settings import RegistrySettings
    from pycontain.runtime.unpack import Unpacker
    from pycontain.store.collect import Collected
    from pycontain.store.leases import Lease

#: Who we are at a registry: credentials, or a user name and a password.
Auth: TypeAlias = "Credentials | tuple[str, str]"

#: The repository of images that nobody gave a name.
_UNNAMED = ("localhost", "image")

_FULL_ID = 64
_ID = re.compile(rf"(?:sha256:)?([0-9a-f]{{3,{_FULL_ID}}})")


@attrs.frozen
class HistoryEntry:
    """One step of an image's making. *size* is that of its layer's blob, and *digest* the blob's; empty without one."""

    created: str
    created_by: str
    comment: str
    size: int
    digest: str


@attrs.frozen(repr=False, eq=False, kw_only=True)
class Image(StoredImage):
    """An image in a store, for one platform. A value: equal to every other of the same digest in the same store.

    ``reference`` is the name by which it was found, if it was. What a name means may change; an ``Image`` does not.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    store: _Store
    local: HostImage | None = None

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """The digest of its manifest, by which a registry knows it."""
        return str(self.descriptor.digest)

    @property
    def id(self) -> str:
        """The digest of its config, by which ``docker images`` knows it."""
        return str(self.manifest.config.digest)

    @property
    def size(self) -> int:
        """The bytes of all its blobs, as they are stored and sent."""
        return self.descriptor.size + sum(blob.size for blob in (self.manifest.config, *self.manifest.layers))

    @property
    def created(self) -> datetime | None:
        """When it was made, as it says itself."""
        return datetime.fromisoformat(self.config.created) if self.config.created else None

    @property
    def platform(self) -> str:
        """For which machines it is, like ``linux/arm64/v8``."""
        return str(self.config.platform)

    @property
    def references(self) -> tuple[str, ...]:
        """Every name that means it now, as people write them."""
        return tuple(reference.familiar for reference in self.names)

    @property
    def source(self) -> Source | StoredSource:
        """What a container of exactly this image is made from."""
        return self.local or StoredSource(self.found, self.store.path)

    @property
    def found(self) -> Found:
        """The same as transfers know it."""
        from pycontain.image.transfer import Found  # noqa: PLC0415 - loads what unpacks, too

        return Found(self.descriptor, self.manifest, self.config, self.layers, self.index)

    @property
    def names(self) -> tuple[Reference, ...]:
        """The same as values."""
        entries = self.store.names.list()
        found = (entry.reference for entry in entries if entry.descriptor.digest == self.descriptor.digest)
        return tuple(filter(None, found))

    def history(self) -> tuple[HistoryEntry, ...]:
        """How it was made, the last step first. Without a history each layer is a step."""
        layers = list(self.layers)
        steps = self.config.history or tuple(History() for _ in layers)
        entries = []
        for step in steps:
            layer = layers.pop(0) if layers and not step.empty_layer else None
            size, digest = (layer.descriptor.size, str(layer.descriptor.digest)) if layer else (0, "")
            entries.append(HistoryEntry(step.created, step.created_by, step.comment, size, digest))
        return tuple(reversed(entries))

    def inspect(self) -> dict[str, Any]:
        """Everything that it says, as JSON values with the keys of ``docker image inspect``."""
        document = json.loads(self.config.encode())
        return {
            "Id": self.id,
            "Digest": self.digest,
            "RepoTags": [name.familiar for name in self.names if name.tag],
            "RepoDigests": sorted({f"{name.familiar_name}@{self.digest}" for name in self.names}),
            "Created": self.config.created,
            "Author": self.config.author,
            "Architecture": self.config.architecture,
            "Variant": self.config.variant,
            "Os": self.config.os,
            "Size": self.size,
            "Config": document.get("config", {}),
            "RootFS": {"Type": "layers", "Layers": [str(layer.diff_id) for layer in self.layers]},
            "History": document.get("history", []),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str]:
        return self.digest, self.store.path

    def __str__(self) -> str:
        return self.reference.familiar if self.reference else self.id

    def __repr__(self) -> str:
        return f"<Image {self} {self.platform}>"

    def _repr_html_(self) -> str:
        from pycontain.jupyter.html import image_html  # noqa: PLC0415 - only a notebook asks

        return image_html(self)

    # --- from and to registries -------------------------------------------------------------------------

    @classmethod
    def pull(
        cls,
        reference: str,
        *,
        platform: str | None = None,
        policy: str = "always",
        auth: Auth | None = None,
        tls_verify: bool = True,
        plain_http: bool | None = None,
        ca: str | None = None,
        mirrors: Iterable[str] = (),
        progress: bool | Callback = False,
        unpack: bool | None = None,
        layer_limits: LayerLimits | None = None,
        store: _Store | None = None,
    ) -> Image:
        """Bring an image from its registry into the store, and give it.

        *platform* is this machine's unless given. *policy*: ``always`` asks the registry and fetches what is new,
        ``missing`` asks it when the store has no such image, ``newer`` makes do with what the store has when the
        registry does not answer, ``never`` asks nobody. *unpack* makes it ready to run; by default, when it is for
        this machine; *layer_limits* bounds what each layer may unpack to. For *auth*, *plain_http*, *ca* and *mirrors* see :class:`RegistrySettings`;
        without them :func:`configure_registry` holds. For *progress* see :mod:`pycontain.image.progress`.

        On failure the name means what it meant, and what came is kept for the next try.
        """
        from pycontain.image.remote import Policy, pull  # noqa: PLC0415 - loads the registry client

        wanted = platform_of(platform)
        store = store or Store()
        name = _registry_reference(reference)
        with (
            _unpacking(layer_limits, on=platform is None if unpack is None else unpack) as unpacking,
            store.lease() as lease,
        ):
            found = pull(
                store,
                lease,
                name,
                wanted,
                Policy.parse(policy),
                settings=_settings(
                    name, auth, tls_verify=tls_verify, plain_http=plain_http, ca=ca, mirrors=mirrors
                ),
                reporter=reporter_of(progress),
                unpacking=unpacking,
            )
        return _image(found, store, name)

    def push(
        self,
        reference: str | None = None,
        *,
        auth: Auth | None = None,
        tls_verify: bool = True,
        plain_http: bool | None = None,
        ca: str | None = None,
        progress: bool | Callback = False,
        all_platforms: bool = False,
    ) -> str:
        """Push it to *reference*, or to the one name that it has, and give the digest by which it is there now.

        What the registry has is not sent again. *all_platforms* pushes the index from which it was chosen, with all
        that it lists, which must be in the store.
        """
        from pycontain.image.remote import push  # noqa: PLC0415 - loads the registry client

        pushed = self.index if all_platforms and self.index else self.descriptor
        name = _registry_reference(reference) if reference else self._only_reference()
        push(
            self.store,
            pushed,
            name,
            self.manifest.layers,
            settings=_settings(name, auth, tls_verify=tls_verify, plain_http=plain_http, ca=ca, mirrors=()),
            reporter=reporter_of(progress),
        )
        return str(pushed.digest)

    def _only_reference(self) -> Reference:
        names = _given_names(self)
        if self.reference in names:
            return self.reference
        if len(names) != 1:
            raise InvalidReference(
                f"{self} has {len(names)} names that could be pushed to",
                hint="say which: image.push('registry/name:tag')",
            )
        return names[0]

    # --- from and to files ------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        platform: str | None = None,
        store: _Store | None = None,
    ) -> tuple[Image, ...]:
        """Bring every image of an archive or an OCI layout into the store, with its names, and give them.

        *source* is a path, or a stream that is read to its end and not closed: what ``docker save``, ``podman save``,
        skopeo or :meth:`save` wrote, compressed or not. An image without a name gets one from its digest.
        """
        from pycontain.image.archive import open_archive  # noqa: PLC0415 - tarfile takes 10 ms
        from pycontain.image.progress import Reporter  # noqa: PLC0415
        from pycontain.image.transfer import bring, read_documents  # noqa: PLC0415

        store = store or Store()
        wanted = platform_of(platform)
        path = source if hasattr(source, "read") else os.fspath(source)
        loaded = []
        with open_archive(path, store.folder.partial) as archive, store.lease() as lease:  # type: ignore[arg-type]
            for archived in archive.images:
                found = read_documents(store, lease, archive, archived.descriptor, wanted)
                bring(store, archive, found, Reporter())
                for name in archived.references or (name_of(found),):
                    store.names.set(name, found.descriptor, index=found.index)
                    loaded.append(_image(found, store, name))
        return tuple(loaded)

    def save(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        format: str = "oci",  # noqa: A002 - the word of podman save
        *,
        also: Iterable[Image] = (),
    ) -> None:
        """Write it, and the images *also*, into one tar: a file, which is whole or not there, or a stream.

        Each has in it the name by which it was found; one that was not found by a name has all its names.
        *format* ``oci`` is an OCI image layout, ``docker`` what ``docker load`` of every version reads.
        """
        from pycontain.image.saving import Format, open_target, write_archive  # noqa: PLC0415

        images = _names_by_content([self, *also])
        chosen = Format.parse(format)
        path = target if hasattr(target, "write") else os.path.abspath(os.fspath(target))
        with open_target(path) as out, self.store.lease() as lease:  # type: ignore[arg-type]
            for found, _ in images:
                lease.protect(*found.digests)
            write_archive(self.store, images, out, chosen)

    @classmethod
    def from_rootfs(
        cls,
        path: str | os.PathLike[str],
        *,
        tag: str | None = None,
        config: ExecutionParameters | None = None,
        platform: str | None = None,
        store: _Store | None = None,
    ) -> Image:
        """Make an image with one layer of a root file system: a directory, or a tar of one, compressed or not.

        *config* says how it is run. The same tree and config give the same image.
        """
        from pycontain.image.importing import store_rootfs  # noqa: PLC0415 - only who makes images needs it

        store = store or Store()
        with store.lease() as lease:
            found = store_rootfs(
                store,
                lease,
                os.path.abspath(path),
                config or ExecutionParameters(),
                platform_of(platform),
            )
            name = Reference.parse(tag) if tag else name_of(found)
            store.names.set(name, found.descriptor)
        return _image(found, store, name)

    @classmethod
    def host(cls) -> Image:
        """The image ``host:``, this machine as it is: no layers, nothing in the store."""
        from pycontain.runtime.host_image import describe_host  # noqa: PLC0415 - reads much of this machine

        tree = describe_host()
        env = (("PATH", ":".join(tree.path)), *tree.environment)
        here = platform_of(None)
        config = ImageConfig(
            here.architecture,
            here.os,
            RootFS(()),
            ExecutionParameters(env=tuple(f"{name}={value}" for name, value in env)),
            variant=here.variant,
        )
        manifest = Manifest(Descriptor.of(config.encode(), CONFIG), ())
        return cls(
            reference=None,
            descriptor=Descriptor.of(manifest.encode(), MANIFEST),
            manifest=manifest,
            config=config,
            layers=(),
            store=Store(),
            local=HostImage(),
        )

    # --- by name ----------------------------------------------------------------------------------------

    @classmethod
    def find(cls, name: str, *, platform: str | None = None, store: _Store | None = None) -> Image:
        """The image that *name* means in the store; nobody is asked for it.

        *name* is a reference, an image ID or the beginning of one, or names an image on disk with its transport, which
        is then brought into the store. :class:`ImageNotFound` when there is none.
        """
        from pycontain.image.remote import not_stored  # noqa: PLC0415 - loads the registry client

        store = store or Store()
        wanted = platform_of(platform)
        if image := _find_id(store, name):
            return image
        match parse_source(name):
            case HostImage():
                return cls.host()
            case Rootfs(path):
                return cls.from_rootfs(path, store=store)
            case RegistrySource(reference):
                stored = store.find(reference, wanted if platform else None)
                if stored is None:
                    raise not_stored(store, reference, wanted)
                return image_of(stored, store)
            case source:
                lease = store.lease()
                image = _image(import_image(source, store, lease, wanted, reporter_of(False)), store, None)
                weakref.finalize(image, _release, lease, os.getpid())
                return image

    def tag(self, reference: str) -> None:
        """Let *reference* mean it, too; from now on, whatever it meant before."""
        self.store.names.set(Reference.parse(reference), self.descriptor, index=self.index)

    def untag(self, reference: str) -> None:
        """Let *reference* mean nothing any more; :class:`ImageNotFound` unless it means this image."""
        parsed = Reference.parse(reference)
        if parsed not in self.names:
            raise ImageNotFound(
                f"{self.id} has no name {parsed.familiar}",
                reference=str(parsed),
                hint=f"it has {', '.join(self.references) or 'none'}",
            )
        self.store.names.remove([parsed])

    def remove(self) -> Collected:
        """Take all its names away, and free what nothing needs any more, its layers mostly.

        Containers that run on it are not disturbed; what they stand on is freed by a later collection.
        """
        self.store.names.remove(self.names)
        with _Remover() as remover:
            return self.store.gc(remove_tree=remover.remove_tree)


# --- the store ------------------------------------------------------------------------------------------


class Store(_Store):
    """The store of images, whose images are :class:`Image`, and whose trees are removed by whom they belong to."""

    def images(self) -> tuple[Image, ...]:
        """Every image that is complete, as it was last named; one with two names is there twice."""
        return tuple(image_of(stored, self) for stored in super().images())

    def gc(
        self,
        *,
        max_bytes: int | None = None,
        unused_for: float | None = None,
        build_caches: bool = False,
        dry_run: bool = False,
        remove_tree: Callable[[str], object] | None = None,
        timeout: float | None = None,
    ) -> Collected:
        """As it is inherited; *remove_tree* is found out: layers that were unpacked without root need the zygote."""
        with _Remover() as remover:
            return super().gc(
                max_bytes=max_bytes,
                unused_for=unused_for,
                build_caches=build_caches,
                dry_run=dry_run,
                remove_tree=remove_tree or remover.remove_tree,
                timeout=timeout,
            )


class _Remover:
    """Removes trees, ours directly and those with other owners in the zygote's user namespace."""

    _unpacker: Unpacker | None = None

    def remove_tree(self, path: str) -> None:
        if is_privileged():
            remove_tree(path)
            return
        if self._unpacker is None:
            from pycontain.runtime.engine import engine  # noqa: PLC0415 - only this needs a zygote
            from pycontain.runtime.unpack import Unpacker  # noqa: PLC0415 - as above

            self._unpacker = Unpacker(engine())
        self._unpacker.remove_tree(path)

    def __enter__(self) -> _Remover:  # noqa: PYI034 - nobody derives from it
        return self

    def __exit__(self, *_: object) -> None:
        if self._unpacker:
            self._unpacker.close()


def image_of(stored: StoredImage, store: _Store) -> Image:
    """What *store* has as *stored*, with its config."""
    from pycontain.image.transfer import found_of  # noqa: PLC0415 - loads what unpacks, too

    return _image(found_of(store, stored), store, stored.reference)


def _image(found: Found, store: _Store, reference: Reference | None) -> Image:
    return Image(
        reference=reference,
        descriptor=found.descriptor,
        manifest=found.manifest,
        index=found.index,
        config=found.config,
        layers=found.layers,
        store=store,
    )


def _given_names(image: Image) -> tuple[Reference, ...]:
    return tuple(name for name in image.names if (name.registry, name.repository) != _UNNAMED)


def _names_by_content(images: Iterable[Image]) -> list[tuple[Found, tuple[Reference, ...]]]:
    """Each image once, with the names that it shall have in an archive."""
    names: dict[str, tuple[Found, dict[Reference, None]]] = {}
    for image in images:
        _, found = names.setdefault(image.digest, (image.found, {}))
        given = _given_names(image)
        found.update(dict.fromkeys((image.reference,) if image.reference in given else given))
    return [(found, tuple(named)) for found, named in names.values()]


def name_of(found: Found) -> Reference:
    """The name of an image that nobody gave one."""
    return Reference(*_UNNAMED, None, found.descriptor.digest)


def _find_id(store: _Store, text: str) -> Image | None:
    """The image whose ID, or whose digest, begins with the hex digits in *text*; None when it is no such text."""
    found = _ID.fullmatch(text)
    if found is None or (":" not in text and len(text) < _FULL_ID and store.names.get(Reference.parse(text))):
        return None
    entries = store.names.find_id(found[1]) or tuple(
        entry for entry in store.names.list() if str(entry.descriptor.digest).startswith(f"sha256:{found[1]}")
    )
    if len({entry.descriptor.digest for entry in entries}) > 1:
        names = sorted({entry.name for entry in entries})
        raise ImageNotFound(
            f"{text} is the beginning of several image IDs",
            reference=text,
            hint=f"give more digits, or a name: {', '.join(names)}",
        )
    stored = [store.find(entry.reference) for entry in entries if entry.reference]
    complete = [image for image in stored if image]
    if complete:
        return image_of(complete[0], store)
    if ":" in text or len(text) == _FULL_ID:
        raise ImageNotFound(
            f"the store has no image {text}", reference=text, hint="pycontain images lists those it has"
        )
    return None


def _registry_reference(text: str) -> Reference:
    source = parse_source(text)
    if not isinstance(source, RegistrySource):
        raise InvalidReference(
            f"{text!r} is not in a registry", text=text, hint="Image.find() and load() read it"
        )
    return source.reference


def _settings(
    name: Reference,
    auth: Auth | None,
    *,
    tls_verify: bool,
    plain_http: bool | None,
    ca: str | None,
    mirrors: Iterable[str],
) -> RegistrySettings:
    """What the process has said about the registry of *name*, and over it what this call says."""
    from pycontain.registry.credentials import Credentials  # noqa: PLC0415 - only who talks to a registry needs it
    from pycontain.registry.settings import settings_of  # noqa: PLC0415 - as above

    configured = settings_of(name.registry)
    given: tuple[str, ...] = tuple(mirrors)
    return attrs.evolve(
        configured,
        plain_http=configured.plain_http if plain_http is None else plain_http,
        tls_verify=configured.tls_verify and tls_verify,
        ca=ca or configured.ca,
        mirrors=given or configured.mirrors,  # type: ignore[arg-type] # a converter takes any iterable
        auth=(Credentials(*auth) if isinstance(auth, tuple) else auth) or configured.auth,
    )


@contextmanager
def _unpacking(limits: LayerLimits | None, *, on: bool) -> Iterator[Unpacking | None]:
    if not on:
        yield None
        return
    from pycontain.image.transfer import Unpacking  # noqa: PLC0415 - as above
    from pycontain.layers.entries import DEFAULT_LIMITS  # noqa: PLC0415 - as below
    from pycontain.runtime.engine import engine  # noqa: PLC0415 - who only stores images needs no zygote

    try:
        current = engine()
    except HostUnsupported as error:
        error.add_note("an image can be stored all the same: Image.pull(..., unpack=False)")
        raise
    with Unpacking(current, limits or DEFAULT_LIMITS) as unpacking:
        yield unpacking


def _release(lease: Lease, owner: int) -> None:
    if os.getpid() == owner:  # in the child of a fork, the lease is still its parent's
        lease.release()
