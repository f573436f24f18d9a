"""``Image`` and ``Store`` whose verbs are awaited."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pycontain import image
from pycontain.aio.progress import in_loop
from pycontain.aio.threads import in_thread
from pycontain.store.folder import default_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from pycontain.image import HistoryEntry
    from pycontain.image.image import Auth
    from pycontain.image.progress import Callback
    from pycontain.image.runnable import StoredSource
    from pycontain.layers.entries import Limits as LayerLimits
    from pycontain.oci.chain import Layer
    from pycontain.oci.config import ExecutionParameters, ImageConfig
    from pycontain.oci.descriptor import Descriptor
    from pycontain.oci.manifest import Manifest
    from pycontain.oci.reference import Reference
    from pycontain.oci.source import Source
    from pycontain.store.collect import Collected, Usage
    from pycontain.store.verify import Repair, Verified


class Image:
    """An image in a store, as :class:`pycontain.Image`: a value whose verbs are awaited.

    ``aio.Image(image)`` is the twin of one that is there.
    """

    def __init__(self, image: image.Image) -> None:
        self._image = image

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self._image == other._image

    def __hash__(self) -> int:
        return hash(self._image)

    def __str__(self) -> str:
        return str(self._image)

    def __repr__(self) -> str:
        return repr(self._image)

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def reference(self) -> Reference | None:
        """The name by which it was found, if it was."""
        return self._image.reference

    @property
    def digest(self) -> str:
        """The digest of its manifest, by which a registry knows it."""
        return self._image.digest

    @property
    def id(self) -> str:
        """The digest of its config, by which ``docker images`` knows it."""
        return self._image.id

    @property
    def descriptor(self) -> Descriptor:
        """What names its manifest."""
        return self._image.descriptor

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return self._image.manifest

    @property
    def index(self) -> Descriptor | None:
        """What its manifest was chosen from."""
        return self._image.index

    @property
    def config(self) -> ImageConfig:
        """Its config."""
        return self._image.config

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers, the lowest first."""
        return self._image.layers

    @property
    def size(self) -> int:
        """The bytes of all its blobs, as they are stored and sent."""
        return self._image.size

    @property
    def created(self) -> datetime | None:
        """When it was made, as it says itself."""
        return self._image.created

    @property
    def platform(self) -> str:
        """For which machines it is, like ``linux/arm64/v8``."""
        return self._image.platform

    @property
    def references(self) -> tuple[str, ...]:
        """Every name that means it now, as people write them."""
        return self._image.references

    @property
    def names(self) -> tuple[Reference, ...]:
        """The same as values."""
        return self._image.names

    @property
    def source(self) -> Source | StoredSource:
        """What a container of exactly this image is made from."""
        return self._image.source

    @property
    def store(self) -> Store:
        """The store that it is in."""
        return Store(self._image.store.path)

    async def history(self) -> tuple[HistoryEntry, ...]:
        """How it was made, the last step first. Without a history each layer is a step."""
        return self._image.history()

    async def inspect(self) -> dict[str, Any]:
        """Everything that it says, as JSON values with the keys of ``docker image inspect``."""
        return await in_thread(self._image.inspect)

    # --- from and to registries -------------------------------------------------------------------------

    @classmethod
    async def pull(
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
        store: Store | None = None,
    ) -> Self:
        """Bring an image from its registry into the store, and give it, as :meth:`pycontain.Image.pull`.

        *progress* is called in the event loop. Who is cancelled meanwhile learns it when nothing of the pull is under way any more; what
        came is kept for the next try, and the name means what it meant.
        """
        pull = partial(
            image.Image.pull,
            reference,
            platform=platform,
            policy=policy,
            auth=auth,
            tls_verify=tls_verify,
            plain_http=plain_http,
            ca=ca,
            mirrors=tuple(mirrors),
            progress=in_loop(progress),
            unpack=unpack,
            layer_limits=layer_limits,
        )
        return cls(await in_thread(lambda: pull(store=_blocking(store))))

    async def push(
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
        """Push it to *reference*, or to the one name that it has, as :meth:`pycontain.Image.push`."""
        push = partial(
            self._image.push,
            reference,
            auth=auth,
            tls_verify=tls_verify,
            plain_http=plain_http,
            ca=ca,
            progress=in_loop(progress),
            all_platforms=all_platforms,
        )
        return await in_thread(push)

    # --- from and to files ------------------------------------------------------------------------------

    @classmethod
    async def load(
        cls,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        platform: str | None = None,
        store: Store | None = None,
    ) -> tuple[Self, ...]:
        """Bring every image of an archive or an OCI layout into the store, as :meth:`pycontain.Image.load`."""
        load = partial(image.Image.load, source, platform=platform)
        return tuple(map(cls, await in_thread(lambda: load(store=_blocking(store)))))

    async def save(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        format: str = "oci",
        *,
        also: Iterable[Image] = (),
    ) -> None:
        """Write it, and the images *also*, into one tar, as :meth:`pycontain.Image.save`."""
        others = [each._image for each in also]
        await in_thread(partial(self._image.save, target, format, also=others))

    @classmethod
    async def from_rootfs(
        cls,
        path: str | os.PathLike[str],
        *,
        tag: str | None = None,
        config: ExecutionParameters | None = None,
        platform: str | None = None,
        store: Store | None = None,
    ) -> Self:
        """Make an image with one layer of a root file system, as :meth:`pycontain.Image.from_rootfs`."""
        make = partial(image.Image.from_rootfs, path, tag=tag, config=config, platform=platform)
        return cls(await in_thread(lambda: make(store=_blocking(store))))

    @classmethod
    async def host(cls) -> Self:
        """The image ``host:``, this machine as it is: no layers, nothing in the store."""
        return cls(await in_thread(image.Image.host))

    # --- by name ----------------------------------------------------------------------------------------

    @classmethod
    async def find(cls, name: str, *, platform: str | None = None, store: Store | None = None) -> Self:
        """The image that *name* means in the store, as :meth:`pycontain.Image.find`; nobody is asked for it."""
        find = partial(image.Image.find, name, platform=platform)
        return cls(await in_thread(lambda: find(store=_blocking(store))))

    async def tag(self, reference: str) -> None:
        """Let *reference* mean it, too; from now on, whatever it meant before."""
        await in_thread(partial(self._image.tag, reference))

    async def untag(self, reference: str) -> None:
        """Let *reference* mean nothing any more; :class:`ImageNotFound` unless it means this image."""
        await in_thread(partial(self._image.untag, reference))

    async def remove(self) -> Collected:
        """Take all its names away, and free what nothing needs any more, as :meth:`pycontain.Image.remove`."""
        return await in_thread(self._image.remove)


class Store:
    """The store of images, as :class:`pycontain.Store`. The folder is opened, and made when it is missing, by the first use."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = os.path.abspath(os.fspath(path) if path is not None else default_path())
        self._store: image.Store | None = None
        self._opening = threading.Lock()

    @classmethod
    def default(cls) -> Self:
        """The store that is used when none is named."""
        return cls()

    @property
    def path(self) -> str:
        """The folder, absolute."""
        return self._path

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def _opened(self) -> image.Store:
        with self._opening:
            if self._store is None:
                self._store = image.Store(self._path)
            return self._store

    async def images(self) -> tuple[Image, ...]:
        """Every image that is complete, as it was last named; one with two names is there twice."""
        return tuple(map(Image, await in_thread(lambda: self._opened().images())))

    async def remove_image(self, reference: Reference) -> None:
        """Let *reference* mean nothing any more; :meth:`gc` frees what nothing else needs."""
        await in_thread(lambda: self._opened().remove_image(reference))

    async def usage(self) -> Usage:
        """What the store holds, in bytes, and what :meth:`gc` would free."""
        return await in_thread(lambda: self._opened().usage())

    async def verify(self, repair: Repair | None = None) -> Verified:
        """Read everything and say what is wrong, as :meth:`pycontain.Store.verify`."""
        return await in_thread(lambda: self._opened().verify(repair))

    async def gc(
        self,
        *,
        max_bytes: int | None = None,
        unused_for: float | None = None,
        build_caches: bool = False,
        dry_run: bool = False,
        remove_tree: Callable[[str], object] | None = None,
        timeout: float | None = None,
    ) -> Collected:
        """Remove what no name and no lease leads to, as :meth:`pycontain.Store.gc`."""
        return await in_thread(
            lambda: self._opened().gc(
                max_bytes=max_bytes,
                unused_for=unused_for,
                build_caches=build_caches,
                dry_run=dry_run,
                remove_tree=remove_tree,
                timeout=timeout,
            )
        )


def _blocking(store: Store | None) -> image.Store | None:
    return None if store is None else store._opened()
