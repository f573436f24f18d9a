"""The functions of :mod:`pycontain` that wait, awaited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pycontain.aio.image import Image, Store, _blocking
from pycontain.aio.progress import in_loop
from pycontain.aio.threads import in_thread
from pycontain.runtime import engine

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from pycontain import BuildProgress, image
    from pycontain.diagnosis import Report


async def build(
    context: str | os.PathLike[str] | None = ".",
    *,
    dockerfile: str | os.PathLike[str] | None = None,
    target: str | None = None,
    args: Mapping[str, str] | None = None,
    secrets: Mapping[str, str | bytes] | None = None,
    ssh: Mapping[str, str] | None = None,
    tags: str | Iterable[str] = (),
    platform: str | None = None,
    cache_from: str | Image | Iterable[str | Image] = (),
    no_cache: bool = False,
    network: str = "none",
    progress: bool | Callable[[BuildProgress], object] = False,
    pull: str = "missing",
    labels: Mapping[str, str] | None = None,
    memory: str | int | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    run_timeout: float | None = None,
    store: Store | None = None,
) -> Image:
    """Build the image that a Dockerfile describes, as :func:`pycontain.build`. *progress* is called in the event loop.

    Who is cancelled meanwhile learns it when nothing of the build runs any more; layers that were made stay in the cache.
    """
    from pycontain.building.build import build as blocking  # noqa: PLC0415 - few build

    images = (cache_from,) if isinstance(cache_from, str | Image) else tuple(cache_from)
    given: list[str | image.Image] = [each._image if isinstance(each, Image) else each for each in images]
    act = partial(
        blocking,
        context,
        dockerfile=dockerfile,
        target=target,
        args=args,
        secrets=secrets,
        ssh=ssh,
        tags=tags if isinstance(tags, str) else tuple(tags),
        platform=platform,
        cache_from=given,
        no_cache=no_cache,
        network=network,
        progress=in_loop(progress),
        pull=pull,
        labels=labels,
        memory=memory,
        cpus=cpus,
        pids=pids,
        run_timeout=run_timeout,
    )
    return Image(await in_thread(lambda: act(store=_blocking(store))))


async def doctor() -> Report:
    """Look at this host and start a container on it, as :func:`pycontain.doctor`."""
    from pycontain.diagnosis import doctor as blocking  # noqa: PLC0415 - few ask

    return await in_thread(blocking)


async def prewarm() -> None:
    """Start the zygote now, so that the first container does not wait for it."""
    await in_thread(engine.prewarm)


async def shutdown() -> None:
    """End every container of this process and its zygote, and wait until nothing is left. Safe to repeat."""
    await in_thread(engine.shutdown, surely=True)
