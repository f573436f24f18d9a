"""``Container`` whose verbs are awaited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import attrs

from pycontain import container
from pycontain.aio.attendance import carry_out
from pycontain.aio.network import Network
from pycontain.aio.opening import Opening
from pycontain.aio.running import Running
from pycontain.aio.threads import in_thread
from pycontain.aio.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycontain import Completed
    from pycontain import Network as BlockingNetwork
    from pycontain import Volume as BlockingVolume
    from pycontain.process.popen import Redirection
    from pycontain.sandbox.isolation import Isolation
    from pycontain.sandbox.plan import Plan


@attrs.frozen(repr=False)
class Container(container.Description):
    r"""A container as a value, as :class:`pycontain.Container`: what describes is the same, what acts is awaited.

    >>> import asyncio
    >>> from pycontain import aio
    >>> asyncio.run(aio.Container("host:").env(GREETING="hello").run("sh", "-c", "echo $GREETING")).stdout
    'hello\n'
    """

    @property
    def _blocking(self) -> container.Container:
        return container.Container(self.spec)

    def network(
        self,
        network: str | BlockingNetwork | Network,
        *,
        aliases: Iterable[str] = (),
        ip: str | None = None,
    ) -> Self:
        """Choose what the container reaches, as :meth:`pycontain.Container.network`; a :class:`Network` of either kind."""
        given = network._network if isinstance(network, Network) else network
        return super().network(given, aliases=aliases, ip=ip)

    def volume(
        self,
        volume: str | BlockingVolume | Volume | None,
        target: str,
        *,
        read_only: bool = False,
        copy: bool = True,
    ) -> Self:
        """Mount the named *volume* at *target*, as :meth:`pycontain.Container.volume`; a :class:`Volume` of either kind."""
        given = volume._made() if isinstance(volume, Volume) else volume
        return super().volume(given, target, read_only=read_only, copy=copy)

    @overload
    async def run(
        self,
        *argv: str,
        input: str | bytes | None = ...,
        timeout: float | None = ...,
        check: bool = ...,
        text: Literal[True] = ...,
        max_output: str | int = ...,
        profile: bool = ...,
    ) -> Completed[str]: ...

    @overload
    async def run(
        self,
        *argv: str,
        input: str | bytes | None = ...,
        timeout: float | None = ...,
        check: bool = ...,
        text: Literal[False],
        max_output: str | int = ...,
        profile: bool = ...,
    ) -> Completed[bytes]: ...

    async def run(
        self,
        *argv: str,
        input: str | bytes | None = None,
        timeout: float | None = None,
        check: bool = False,
        text: bool = True,
        max_output: str | int = "64M",
        profile: bool = False,
    ) -> Completed[Any]:
        """Run to the end, as :meth:`pycontain.Container.run`. Who is cancelled meanwhile learns it when the container has ended."""
        return await carry_out(
            self._blocking._run(
                argv,
                input_=input,
                timeout=timeout,
                check=check,
                text=text,
                max_output=max_output,
                profile=profile,
            )
        )

    def start(
        self,
        *argv: str,
        input: str | bytes | None = None,
        stdin: Redirection = None,
        max_output: str | int = "64M",
    ) -> Opening[Running]:
        """Start, as :meth:`pycontain.Container.start`: ``async with box.start(…) as running``, or ``running = await box.start(…)``.

        Leaving the block kills and cleans, and is not kept from that by being cancelled. Without a block, ``close()`` does it.
        """
        steps = self._blocking._start(argv, input_=input, stdin=stdin, max_output=max_output)
        return Opening(Running._started(steps))

    async def plan(self, *argv: str) -> Plan:
        """The steps that ``run`` would take on this host, as :meth:`pycontain.Container.plan`."""
        return await in_thread(partial(self._blocking.plan, *argv))

    async def explain(self) -> Isolation:
        """The effective isolation on this host as data, as :meth:`pycontain.Container.explain`."""
        return await in_thread(self._blocking.explain)
