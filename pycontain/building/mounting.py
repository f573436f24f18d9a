"""``RUN --mount``: what a RUN has beside the image, and nobody afterwards."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.building.stage import Site
    from pycontain.container import Container
    from pycontain.dockerfile import instructions as said


@attrs.define(eq=False)
class Mounts:
    """What is to be added to a container; *key* is what of it the cache knows."""

    key: list[Any] = attrs.field(factory=list)
    env: dict[str, str] = attrs.field(factory=dict)
    adds: list[Any] = attrs.field(factory=list)

    def add_to(self, box: Container) -> Container:
        """*box* with all of it."""
        for add in self.adds:
            box = add(box)
        return box


@contextmanager
def mounts_of(site: Site, one: said.Run) -> Iterator[Mounts]:
    """The mounts of *one*, for the time of the block."""
    with ExitStack():
        if one.mounts:
            raise site.scope.document.error("RUN --mount is not there yet", one.lines)
        yield Mounts()
