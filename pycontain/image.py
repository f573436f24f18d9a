"""Images by name, and as trees on disk that a container can stand on."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from pycontain.errors import ImageNotFound, InvalidImage
from pycontain.oci.source import HostImage, Rootfs, Source
from pycontain.sandbox.image import RunnableImage
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.spec import Rootfs as RootfsTree

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine

_making = threading.Lock()


def runnable(source: Source, engine: Engine) -> RunnableImage:
    """The image of *source* as a tree on disk, made once for each zygote."""
    found: RunnableImage | None = engine.images.get(source)
    if found is None:
        with _making:
            found = engine.images.get(source) or _make(source, engine)
            engine.images[source] = found
    return found


def _make(source: Source, engine: Engine) -> RunnableImage:
    match source:
        case HostImage():
            return _host(engine)
        case Rootfs(path):
            return _rootfs(path, engine)
        case _:
            raise InvalidImage(f"{source} cannot be run yet", hint="use host: or rootfs:")


def _host(engine: Engine) -> RunnableImage:
    from pycontain.runtime import host_image  # noqa: PLC0415 - only who runs host: pays for it

    tree = host_image.describe_host()
    os.mkdir("host", 0o755, dir_fd=engine.images_fd)
    host_image.write_skeleton(tree, f"/proc/self/fd/{engine.images_fd}/host")
    folder = os.path.join(engine.folder, "images", "host")
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
        return RunnableImage(RootfsTree((HostPath.parse(absolute),)))
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
            unpack(engine, archive.fileno(), tree)
        except BaseException:
            os.rmdir(tree)
            raise
    return RunnableImage(RootfsTree((HostPath.parse(tree),)))
