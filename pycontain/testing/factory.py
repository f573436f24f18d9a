"""``ContainerFactory``: starts containers one by one, and ends them all together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from pycontain import Container
from pycontain.errors import HostUnsupported

if TYPE_CHECKING:
    from pycontain import Image, Running
    from pycontain.process.popen import Redirection


class ContainerFactory:
    r"""Call it to start a container; leaving its block, or :meth:`close`, ends what it has started, the last one first.

    The fixture ``container`` of our pytest plugin is one. Without pytest it is a context manager:

    >>> with ContainerFactory() as container:
    ...     box = container("host:", "sh", "-c", "echo ready; sleep infinity").wait_for(log="ready")
    ...     box.exec("echo", "hello").stdout
    'hello\n'
    >>> box.status
    'exited'
    """

    def __init__(self, *, skip_unsupported: bool = False) -> None:
        self._started: list[Running] = []
        self._ends = ExitStack()
        self._skips = skip_unsupported
        self._closed = False

    def __repr__(self) -> str:
        return f"<ContainerFactory of {len(self._started)} containers>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self,
        image: str | Image | Container,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - as in Container.start
        stdin: Redirection = None,
        max_output: str | int = "64M",
    ) -> Running:
        """Start *image*, or a :class:`Container` that describes more, as :meth:`Container.start` does, and return at once.

        The result is to be waited for by its own words: ``.wait_for(port=5432)`` returns it too. It may be closed before.
        """
        __tracebackhide__ = True
        described = image if isinstance(image, Container) else Container(image)
        try:
            running = described.start(*argv, input=input, stdin=stdin, max_output=max_output)
        except HostUnsupported as error:
            if not self._skips:
                raise
            import pytest  # noqa: PLC0415 - only its plugin asks for this

            pytest.skip(f"no container here: {error}")
        self._started.append(running)
        return self._ends.enter_context(running)

    @property
    def started(self) -> tuple[Running, ...]:
        """All that it has started, in order, also those that have ended."""
        return tuple(self._started)

    @property
    def closed(self) -> bool:
        """Whether it has ended them."""
        return self._closed

    def close(self) -> None:
        """End what it has started. Safe to repeat; what they have printed stays readable."""
        self._closed = True
        self._ends.close()
