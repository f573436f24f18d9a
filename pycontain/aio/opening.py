"""What is begun with ``await`` or with ``async with``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from types import TracebackType


class _Opened(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Thing = TypeVar("Thing", bound=_Opened)


class Opening(Generic[Thing]):
    """Something that is about to begin: ``await`` it and close it yourself, or let ``async with`` do both."""

    def __init__(self, coroutine: Coroutine[Any, Any, Thing]) -> None:
        self._coroutine = coroutine
        self._opened: Thing | None = None

    def __await__(self) -> Generator[Any, Any, Thing]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> Thing:
        self._opened = await self._coroutine
        return await self._opened.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        await self._opened.__aexit__(kind, error, trace)
