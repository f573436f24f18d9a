"""``pycontain.build``: from a Dockerfile and a context to an image in the store."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pycontain.building.context import open_context, read_dockerfile
from pycontain.building.run import container_of
from pycontain.building.session import BuildProgress, Session, Stopped
from pycontain.building.stage import Site
from pycontain.container.lowering import control_group
from pycontain.dockerfile.graph import recipe_of
from pycontain.dockerfile.parser import parse
from pycontain.errors import BuildError, InvalidSpec
from pycontain.image.image import Image, image_of, name_of
from pycontain.image.runnable import platform_of
from pycontain.image.transfer import Unpacking, store_document
from pycontain.interruption import carried, ended_by
from pycontain.oci.reference import Reference
from pycontain.process.prepared import Run
from pycontain.runtime.engine import engine
from pycontain.store.builds import Built
from pycontain.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pycontain.building.state import State
    from pycontain.dockerfile.graph import Recipe
    from pycontain.image.transfer import Found
    from pycontain.oci.platform import Platform

_MARK = "pycontain.build.v1 "
_MOST_AT_ONCE = 8


def build(
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
    r"""Build the image that a Dockerfile describes, and give it. Each RUN is a container of ours.

    *context* is the directory that COPY reads, None for none; *dockerfile* a path in it, or of a file elsewhere. Only what *target*, a
    stage (the last one by default), needs is built. *args* are build arguments, *secrets* what ``RUN --mount=type=secret`` shows by
    id, *ssh* sockets of agents by id. *tags* name the image; without one it gets a name from its digest. *network* is what RUN reaches,
    as :meth:`Container.network` has it. Layers are cached in the store; *no_cache* makes all of them anew, and *cache_from* names images
    that were built before. *pull* as for :meth:`Container.pull`. *memory*, *cpus* and *pids* limit each RUN as
    :meth:`Container.limits` says, and one that takes longer than *run_timeout* seconds is killed. *progress* is called with each :class:`BuildProgress`, or True prints.

    :class:`DockerfileError` for what the Dockerfile says, :class:`InstructionFailed` for what went wrong when it was done. Then no name
    has changed, and layers that were made stay in the cache.

    >>> import pathlib, tempfile, pycontain
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "Dockerfile").write_text("FROM scratch\nENV GREETING=hello\n")
    ...     pycontain.build(folder).config.config.env[-1]
    'GREETING=hello'
    """
    folder = None if context is None else os.fspath(context)
    content, path = read_dockerfile(folder, dockerfile)
    wanted = platform_of(platform)
    given = _texts("args", args)
    references = tuple(map(Reference.parse, (tags,) if isinstance(tags, str) else tags))
    platforms = _platforms(wanted, platform_of(None), target)
    timeout = Run.parse(input_=None, timeout=run_timeout, text=True, max_output=0).timeout
    box = container_of({}, network)  # which refuses a network that there is not
    if (memory, cpus, pids) != (None, None, None):
        box = box.limits(memory=memory, cpus=cpus, pids=pids)
    document = parse(content)
    recipe = recipe_of(document, given, platforms)
    order = recipe.order(recipe.target(target))
    store = store or Store.default()
    running = engine()
    control_group(box.spec, running)  # which refuses limits that this host cannot keep
    with store.lease() as lease, Unpacking(running) as unpacking:
        session = Session(
            running,
            store,
            lease,
            unpacking,
            open_context(folder, path),
            wanted,
            given,
            {name: _bytes(value) for name, value in (secrets or {}).items()},
            dict(ssh or {}),
            network,
            box.spec.limits,
            timeout,
            pull,
            no_cache,
            _epoch(given),
            tell=_teller(progress),
        )
        session.imported = _imported(cache_from, store)
        state = _Stages(session, recipe, platforms).build(order)
        if labels:
            merged: Any = {**state.said.labels, **_texts("labels", labels)}
            state = state.saying(labels=merged)
        found = session.unpacked(state)
        return _named(found, store, references)


def _texts(what: str, given: Mapping[str, str] | None) -> dict[str, str]:
    texts = dict(given or {})
    wrong = [name for name, value in texts.items() if not isinstance(name, str) or not isinstance(value, str)]
    if wrong:
        raise InvalidSpec(f"{what}: the value of {wrong[0]!r} is no text")
    return texts


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _epoch(args: Mapping[str, str]) -> int | None:
    """The moment that nothing in the image is later than (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    text = args.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))
    if not text:
        return None
    if not text.isdigit():
        raise BuildError(f"SOURCE_DATE_EPOCH={text} is no number of seconds")
    return int(text)


def _platforms(target: Platform, here: Platform, stage: str | None) -> dict[str, str]:
    """The arguments that are there without a declaration, for FROM; in a stage ARG makes them visible."""
    values = {"TARGETSTAGE": stage or "default"}
    for prefix, each in (("TARGET", target), ("BUILD", here)):
        values |= {
            f"{prefix}PLATFORM": str(each.normal()),
            f"{prefix}OS": each.os,
            f"{prefix}ARCH": each.architecture,
            f"{prefix}VARIANT": each.variant,
        }
    return values


def _teller(progress: bool | Callable[[BuildProgress], object]) -> Callable[[BuildProgress], object]:  # noqa: FBT001 - the public argument
    lock = threading.Lock()
    if not progress:
        return lambda _: None
    report = progress if callable(progress) else _print

    def tell(news: BuildProgress) -> None:
        with lock:
            report(news)

    return tell


def _print(news: BuildProgress) -> None:
    """One line on standard error."""
    mark = f"[{news.stage} {news.step}/{news.steps}]"
    match news.event:
        case "begin":
            sys.stderr.write(f"{mark} {news.instruction}\n")
        case "cached":
            sys.stderr.write(f"{mark} cached\n")
        case "output":
            sys.stderr.write(f"{mark} | {news.text}\n")
    sys.stderr.flush()


def _imported(given: str | Image | Iterable[str | Image], store: Store) -> dict[str, Built]:
    """The layers of images that were built before, by the keys that their histories tell."""
    images = (given,) if isinstance(given, str | Image) else tuple(given)
    found: dict[str, Built] = {}
    for each in images:
        image = Image.find(each, store=store) if isinstance(each, str) else each
        steps = [step for step in image.config.history if not step.empty_layer]
        for step, layer in zip(steps, image.layers, strict=False):
            if step.comment.startswith(_MARK):
                found[step.comment.removeprefix(_MARK)] = Built(layer.descriptor, layer.diff_id)
    return found


def _named(found: Found, store: Store, references: tuple[Reference, ...]) -> Image:
    """Store the two documents and, at the end, the names."""
    store_document(store, found.manifest.config, found.config.encode())
    store_document(store, found.descriptor, found.manifest.encode())
    names = references or (name_of(found),)
    for name in names:
        store.names.set(name, found.descriptor)
    return image_of(found.stored(names[0]), store)


class _Stages:
    """The stages of one build, in threads: each waits for those that it needs."""

    def __init__(self, session: Session, recipe: Recipe, platforms: Mapping[str, str]) -> None:
        self._session = session
        self._recipe = recipe
        self._platforms = platforms
        self._results: dict[int, Future[State]] = {}
        self._lock = threading.Lock()

    def build(self, order: tuple[int, ...]) -> State:
        """The state of the last of *order*, in which each stands after those that it needs."""
        with ended_by(self._session.stop):
            return self._build(order)

    def _build(self, order: tuple[int, ...]) -> State:
        if len(order) == 1:
            return self._site(order[0]).build()
        with ThreadPoolExecutor(min(len(order), _MOST_AT_ONCE), "pycontain-build") as pool:
            try:
                with self._lock:
                    for index in order:
                        self._results[index] = pool.submit(carried(self._site(index).build))
                return self._first(order)
            except BaseException:
                self._session.stop()
                raise

    def _first(self, order: tuple[int, ...]) -> State:
        """The last result; when stages fail, the error of the first that did so by itself."""
        from concurrent.futures import FIRST_EXCEPTION, wait  # noqa: PLC0415 - as above

        wait([self._results[index] for index in order], return_when=FIRST_EXCEPTION)
        for error in self._errors(order):
            if not isinstance(error, Stopped):
                raise error
        return self._results[order[-1]].result()

    def _errors(self, order: tuple[int, ...]) -> Iterator[BaseException]:
        for index in order:
            result = self._results[index]
            if result.done() and (error := result.exception()) is not None:
                yield error

    def _site(self, index: int) -> Site:
        return Site(self._session, self._recipe, self._recipe.stages[index], self._platforms, self._other)

    def _other(self, index: int) -> State:
        with self._lock:
            result = self._results.get(index)
        if result is not None:
            return result.result()
        # Only ONBUILD of a base image asks for what the Dockerfile does not.
        return self._site(index).build()
