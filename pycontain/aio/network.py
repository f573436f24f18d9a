"""``Network`` whose verbs are awaited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from pycontain import network
from pycontain.aio.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from pycontain.aio.running import Running


class Network:
    """A network of this process, as :class:`pycontain.Network`, made by ``async with`` or the first container on it."""

    def __init__(self, name: str | None = None, subnet: str | None = None, internal: bool = False) -> None:  # noqa: FBT001, FBT002 - as its twin
        self._network = network.Network(name, subnet, internal)

    def __repr__(self) -> str:
        return repr(self._network)

    async def __aenter__(self) -> Self:
        try:
            await in_thread(self._network.__enter__)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """Its name, for people."""
        return self._network.name

    @property
    def internal(self) -> bool:
        """Whether there is no way out."""
        return self._network.internal

    @property
    def subnet(self) -> str:
        """Its addresses, such as ``10.193.7.0/24``; a network that is not made yet is made for it."""
        return self._network.subnet

    @property
    def gateway(self) -> str:
        """The address of its way out, which nobody has when it is internal."""
        return self._network.gateway

    @property
    def containers(self) -> tuple[str, ...]:
        """The names of those that are on it now."""
        return self._network.containers

    async def address(self, running: Running) -> str:
        """The address of *running* on it."""
        return self._network.address(running._running)

    async def connect(self, running: Running, *, aliases: Iterable[str] = (), ip: str | None = None) -> str:
        """Put what runs on this network, too; returns its address there."""
        names = aliases if isinstance(aliases, str) else tuple(aliases)
        return await in_thread(partial(self._network.connect, running._running, aliases=names, ip=ip))

    async def disconnect(self, running: Running) -> None:
        """Take it off this network; its connections there break."""
        await in_thread(partial(self._network.disconnect, running._running))

    async def close(self) -> None:
        """Take all containers off it and remove it, whatever is cancelled meanwhile. Safe to repeat."""
        await in_thread(self._network.close, surely=True)
