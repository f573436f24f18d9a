"""From a source to a tree on disk that a container can stand on, with what the image says about running.

A tree is made once for each zygote and kept by it. An image of the store is looked up anew when names have changed
since, so that a tag that moved means the new image to the next container; that look costs one stat(2).
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from pycontain.errors import ImageNotFound, InvalidImage
from pycontain.oci.platform import Platform
from pycontain.oci.source import (
    DockerArchive,
    HostImage,
    OciArchive,
    OciLayout,
    RegistrySource,
    Rootfs,
    Source,
)
from pycontain.runtime.loading import loading
from pycontain.sandbox.image import RunnableImage
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.spec import DEFAULT_PATH
from pycontain.sandbox.spec import Rootfs as RootfsTree
from pycontain.store.folder import default_path

if TYPE_CHECKING:
    from pycontain.image.progress import Reporter
    from pycontain.image.transfer import Found, Unpacking
    from pycontain.oci.config import ExecutionParameters
    from pycontain.runtime.engine import Engine
    from pycontain.sandbox.host import HostFacts, IdRange
    from pycontain.store.leases import Lease
    from pycontain.store.store import Store

_KERNEL_TREES = ("/proc/", "/sys/", "/dev/")

_locks: dict[Any, threading.Lock] = {}
os.register_at_fork(after_in_child=_locks.clear)  # another thread of the parent may have held one


@attrs.frozen
class StoredSource:
    """An image that is in the store at the path *store*, whatever its names mean by now."""

    found: Found
    store: str

    def __str__(self) -> str:
        return str(self.found.manifest.config.digest)


ImageSource: TypeAlias = "RegistrySource | OciLayout | OciArchive | DockerArchive | StoredSource"


@attrs.frozen
class _Made:
    image: RunnableImage
    stamp: object  # what the source looked like when it was made


def runnable(
    source: Source | StoredSource, engine: Engine, *, policy: str = "missing", platform: str | None = None
) -> RunnableImage:
    """The image of *source* as a tree on disk, made once for each zygote.

    *policy* is that of :class:`pycontain.image.remote.Policy`; *platform* is this machine's, or one that it can emulate.
    """
    key = (source, platform, default_path())
    with _locks.setdefault(key, threading.Lock()):
        made: _Made | None = engine.images.get(key)
        stamp = _stamp_of(source)
        if made is None or made.stamp != stamp or policy in {"always", "newer"}:
            image = _make(source, engine, policy, platform)
            # What was brought just now changed the store itself, so look again.
            made = engine.images[key] = _Made(image, _stamp_of(source))
        return made.image


def _stamp_of(source: Source | StoredSource) -> object:
    match source:
        case RegistrySource():
            path = os.path.join(default_path(), "index.json")
        case OciLayout(path):
            path = os.path.join(path, "index.json")
        case OciArchive(path) | DockerArchive(path):
            pass
        case _:
            return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _make(source: Source | StoredSource, engine: Engine, policy: str, platform: str | None) -> RunnableImage:
    match source:
        case HostImage():
            return _host(engine)
        case Rootfs(path):
            return _rootfs(path, engine)
        case _:
            return _stored(source, engine, policy, platform)


# --- trees without an image -----------------------------------------------------------------------------


def _host(engine: Engine) -> RunnableImage:
    with loading:
        from pycontain.runtime import host_image  # noqa: PLC0415 - only who runs host: pays for it

    tree = host_image.describe_host()
    if engine.facts.memory_idmapped:
        folder = os.path.join(engine.folder, "images", "host")
        with suppress(FileExistsError):
            os.mkdir("host", 0o755, dir_fd=engine.images_fd)
            host_image.write_skeleton(tree, f"/proc/self/fd/{engine.images_fd}/host")
    else:  # on disk a container with its own user namespace can stand on it
        folder = engine.new_tree()
        host_image.write_skeleton(tree, folder)
    return RunnableImage(
        RootfsTree(
            (HostPath(folder),),
            tuple((HostPath.parse(source), RootPath.parse(inside)) for source, inside in tree.binds),
        ),
        env=(("PATH", ":".join(tree.path)), *tree.environment),
        masked_paths=tuple(RootPath.parse(path) for path in tree.hidden),
    )


def _rootfs(path: str, engine: Engine) -> RunnableImage:
    absolute = os.path.abspath(path)
    if os.path.isdir(absolute):
        return RunnableImage(_tree(absolute, engine.facts))
    with loading:
        from pycontain.runtime.unpack import unpack  # noqa: PLC0415 - only a tar needs what it imports

    try:
        archive = open(absolute, "rb")  # noqa: SIM115 - closed below, opened apart so that only this is translated
    except FileNotFoundError:
        raise ImageNotFound(
            f"there is nothing at {absolute}",
            reference=f"rootfs:{path}",
            hint="correct the path after rootfs:",
        ) from None
    except OSError as error:
        raise InvalidImage(
            f"{absolute} cannot be read: {error.strerror}", hint="see its mode and its parents'"
        ) from error
    with archive:
        tree = engine.new_tree()
        try:
            entries = unpack(engine, archive.fileno(), tree).entries
        except BaseException as error:
            os.rmdir(tree)
            if isinstance(error, InvalidImage):
                raise _no_tree(absolute, str(error)) from error
            raise
        if not entries:
            os.rmdir(tree)
            raise _no_tree(absolute, "it is empty")
    return RunnableImage(_tree(tree, engine.facts))


def _tree(top: str, facts: HostFacts, *below: HostPath) -> RootfsTree:
    """The directory *top* on those *below*, with the status of its root as the container is to see it."""
    # Root's layers have the image's ids. In a user namespace they are shifted, and an id that is not mapped is nobody's.
    found = os.stat(top)
    uid, gid = found.st_uid, found.st_gid
    if facts.rootless:
        uid, gid = _inside(facts.uid_map, uid), _inside(facts.gid_map, gid)
    return RootfsTree((HostPath.parse(top), *below), (), stat.S_IMODE(found.st_mode), uid, gid)


def _inside(ranges: tuple[IdRange, ...], outside: int) -> int:
    mapped = (found for one in ranges if (found := one.inside_of(outside)) is not None)
    return next(mapped, 0)


def _no_tree(path: str, problem: str) -> InvalidImage:
    return InvalidImage(
        f"{path} holds no root file system: {problem}",
        hint="name a directory, or a tar, tar.gz or tar.zst of one",
    )


# --- images of the store --------------------------------------------------------------------------------


def _stored(source: ImageSource, engine: Engine, policy: str, platform: str | None) -> RunnableImage:
    # Only images need what these import.
    with loading:
        from pycontain.image.transfer import Unpacking  # noqa: PLC0415
        from pycontain.store.store import Store  # noqa: PLC0415

    store = Store(source.store) if isinstance(source, StoredSource) else Store.default()
    wanted = platform_of(platform)
    with store.lease() as lease, Unpacking(engine) as unpacking:
        found = obtain(source, store, lease, wanted, policy, unpacking)
        # As long as this zygote lives, its containers may stand on it.
        _lease_of(engine, store).protect(*found.digests)
        store.touch(found.descriptor.digest)
        return runnable_of(store, found, engine, unpacking)


def obtain(
    source: ImageSource, store: Store, lease: Lease, wanted: Platform, policy: str, unpacking: Unpacking
) -> Found:
    """The image of *source*, brought into *store* as *policy* says, unpacked, and protected by *lease*."""
    with loading:
        from pycontain.image.progress import Reporter  # noqa: PLC0415 - as above
        from pycontain.image.transfer import bring, nowhere  # noqa: PLC0415

    if isinstance(source, StoredSource):
        lease.protect(*source.found.digests)
        bring(store, nowhere, source.found, Reporter(), unpacking)
        return source.found
    if isinstance(source, RegistrySource):
        with loading:
            from pycontain.image.remote import Policy, pull  # noqa: PLC0415
            from pycontain.registry.settings import settings_of  # noqa: PLC0415 - as above

        return pull(
            store,
            lease,
            source.reference,
            wanted,
            Policy.parse(policy),
            settings=settings_of(source.reference.registry),
            reporter=Reporter(),
            unpacking=unpacking,
        )
    return import_image(source, store, lease, wanted, Reporter(), unpacking)


def import_image(
    source: OciLayout | OciArchive | DockerArchive,
    store: Store,
    lease: Lease,
    wanted: Platform,
    reporter: Reporter,
    unpacking: Unpacking | None = None,
) -> Found:
    """Bring the image that *source* names into *store*, where it gets no name: the lease keeps it."""
    with loading:
        from pycontain.image.archive import choose_image, open_source  # noqa: PLC0415 - as above
        from pycontain.image.transfer import bring, read_documents  # noqa: PLC0415

    with open_source(source, store.folder.partial) as archive:
        image = choose_image(archive, source)
        found = read_documents(store, lease, archive, image.descriptor, wanted)
        bring(store, archive, found, reporter, unpacking)
    return found


def platform_of(text: str | None) -> Platform:
    """The platform that *text* names; without a text this machine's."""
    return Platform.parse(text or os.uname().machine)


def runnable_of(store: Store, found: Found, engine: Engine, unpacking: Unpacking) -> RunnableImage:
    """The image *found*, whose layers are unpacked and protected."""
    trees = store.snapshots(unpacking.kind).mounts(found.chain_ids).lowerdirs
    top, *below = trees or (engine.new_tree(),)  # FROM scratch, and nothing more
    image = RunnableImage(_tree(top, engine.facts, *below), stored=StoredSource(found, store.path))
    return with_parameters(image, found.config.config)


def with_parameters(image: RunnableImage, said: ExecutionParameters) -> RunnableImage:
    """*image* with what its configuration says about running (image-spec, config.md)."""
    env = {"PATH": DEFAULT_PATH}
    env.update((name, value) for name, _, value in (text.partition("=") for text in said.env))
    return attrs.evolve(
        image,
        env=tuple(env.items()),
        entrypoint=said.entrypoint,
        command=said.cmd,
        user=said.user,
        workdir=_workdir(said.working_dir),
        stop_signal=said.stop_signal or image.stop_signal,
        volumes=tuple(dict.fromkeys(filter(None, map(_volume, said.volumes)))),
        health=said.healthcheck,
    )


def _volume(text: str) -> RootPath | None:
    """The place of a volume; None below the trees of the kernel, where every container has its own already."""
    try:
        path = RootPath.parse(f"/{text}")
    except ValueError as error:
        raise InvalidImage(f"the image has an unusable volume: {error}") from error
    if path == "/":
        raise InvalidImage("the image says that its whole root is a volume", hint="use another image")
    return None if f"{path}/".startswith(_KERNEL_TREES) else path


def _workdir(text: str) -> RootPath:
    try:
        return RootPath.parse(f"/{text}")  # a relative one starts at the root, as for Docker
    except ValueError as error:
        raise InvalidImage(f"the image has an unusable WorkingDir: {error}") from error


# --- what an engine keeps -------------------------------------------------------------------------------


def _lease_of(engine: Engine, store: Store) -> Lease:
    """The lease that protects what the containers of *engine* stand on, until it ends."""
    key = ("lease", store.path)
    with _locks.setdefault(key, threading.Lock()):
        lease: Lease | None = engine.images.get(key)
        if lease is None:
            lease = engine.images[key] = store.lease()
            engine.keep(lease)
        return lease
