"""``Volume`` whose verbs are awaited."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pycontain import volume
from pycontain.aio.threads import in_thread
from pycontain.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from datetime import datetime
    from types import TracebackType

    from pycontain.volume import VolumeUsage


class Volume:
    """The volume *name*, as :class:`pycontain.Volume`: it is created, when it is missing, by ``await`` or ``async with``, or the first use.

    >>> import asyncio
    >>> from pycontain import aio
    >>> async def main():
    ...     async with aio.Volume() as cache:
    ...         box = aio.Container("host:").volume(cache, "/var/cache/own")
    ...         await box.run("sh", "-c", "echo kept > /var/cache/own/f", check=True)
    ...         return (await box.run("cat", "/var/cache/own/f")).stdout.strip()
    >>> asyncio.run(main())
    'kept'
    """

    def __init__(self, name: str | None = None, *, labels: Mapping[str, str] | None = None) -> None:
        if name is not None:
            try:
                volume.parse_name(name)
            except ValueError as error:
                raise InvalidSpec(str(error)) from None
        self._name = name
        self._labels = labels
        self._volume: volume.Volume | None = None
        self._making = threading.Lock()

    @classmethod
    def _of(cls, found: volume.Volume) -> Self:
        twin = cls(found.name)
        twin._volume = found
        return twin

    def _made(self) -> volume.Volume:
        with self._making:
            if self._volume is None:
                self._volume = volume.Volume(self._name, labels=self._labels)
            return self._volume

    async def _begun(self) -> Self:
        await in_thread(self._made)
        return self

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._begun().__await__()

    async def __aenter__(self) -> Self:
        try:
            return await self
        except BaseException:  # it may have been made all the same
            await in_thread(self._end, surely=True)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await in_thread(self._end, surely=True)

    def _end(self) -> None:
        if self._volume is not None:
            self._volume.__exit__()

    def __repr__(self) -> str:
        return f"<Volume {self._name or '(not made yet)'}>" if self._volume is None else repr(self._volume)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and self._known == other._known

    def __hash__(self) -> int:
        return hash(self._known)

    @classmethod
    async def find(cls, name: str) -> Self:
        """The volume *name*, which is there; :class:`VolumeNotFound` when it is not."""
        return cls._of(await in_thread(partial(volume.Volume.find, name)))

    @classmethod
    async def list(cls) -> tuple[Self, ...]:
        """All volumes, by name."""
        return tuple(map(cls._of, await in_thread(volume.Volume.list)))

    @classmethod
    async def prune(cls, *, all: bool = False) -> tuple[str, ...]:
        """Remove volumes that nobody uses: those that were made without a name, or *all*. Their names."""
        return await in_thread(partial(volume.Volume.prune, all=all))

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def _known(self) -> volume.Volume:
        """What is made already; so short a work is not worth a thread."""
        return self._made()

    @property
    def name(self) -> str:
        """Its name."""
        return self._name or self._known.name

    @property
    def made(self) -> bool:
        """Whether this object created it."""
        return self._known.made

    @property
    def path(self) -> str:
        """Its content on the host."""
        return self._known.path

    @property
    def labels(self) -> dict[str, str]:
        """The labels that it was created with."""
        return self._known.labels

    @property
    def created(self) -> datetime:
        """When it was created."""
        return self._known.created

    @property
    def anonymous(self) -> bool:
        """Whether it was created without a name."""
        return self._known.anonymous

    @property
    def in_use(self) -> bool:
        """Whether a container has it now, of any process."""
        return self._known.in_use

    async def usage(self) -> VolumeUsage:
        """What it takes on the disk; every file is looked at."""
        return await in_thread(lambda: self._made().usage())

    async def inspect(self) -> dict[str, Any]:
        """Everything about it, as JSON values with the keys of ``docker volume inspect``."""
        return await in_thread(lambda: self._made().inspect())

    async def remove(self) -> None:
        """Remove it with all that is in it; :class:`VolumeInUse` while a container has it, :class:`VolumeNotFound`."""
        await in_thread(lambda: self._made().remove())
