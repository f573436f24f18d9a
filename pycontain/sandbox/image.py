"""An image as the sandbox needs it: a tree, and the defaults that its configuration gives to a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pycontain.sandbox.spec import DEFAULT_PATH, TOP, Rootfs

if TYPE_CHECKING:
    from pycontain.oci.config import Healthcheck
    from pycontain.sandbox.paths import RootPath


@attrs.frozen(cache_hash=True)
class RunnableImage:
    """What image-spec's ``config`` says about running, over a tree that is on disk."""

    rootfs: Rootfs
    env: tuple[tuple[str, str], ...] = (("PATH", DEFAULT_PATH),)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    workdir: RootPath = TOP
    stop_signal: str = "SIGTERM"  # as the configuration has it: a name or a number
    volumes: tuple[RootPath, ...] = ()
    masked_paths: tuple[RootPath, ...] = ()
    health: Healthcheck | None = None
    # What a store has it as, if it is from one: with the same layers and defaults it may still be another image.
    stored: object = attrs.field(default=None, eq=str, repr=False)
