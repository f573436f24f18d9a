"""Which images to forget, so that a store keeps its limits. Computed from values; nothing is touched."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


@attrs.frozen
class Named(Generic[T]):
    """A name as the choice sees it: when its image was last used, what it needs, whether it is in use now."""

    name: str
    last_used: float
    needs: frozenset[T]
    in_use: bool = False


def choose_forgotten(
    images: Iterable[Named[T]],
    sizes: Mapping[T, int],
    protected: Iterable[T] = (),
    *,
    unused_since: float | None = None,
    max_bytes: int | None = None,
) -> tuple[str, ...]:
    """The names to forget: those not used since *unused_since*, then the least recently used, until at most
    *max_bytes* are left or only images in use are.

    *sizes* has the bytes of each thing that is stored; what two images share counts once, and is freed with the last of
    them. What is *protected* is never freed.
    """
    ordered = sorted(images, key=lambda image: (image.last_used, image.name))
    users = Counter(thing for image in ordered for thing in image.needs)
    users.update(set(protected))
    total = sum(sizes.get(thing, 0) for thing in users)
    forgotten = []
    for image in ordered:
        too_old = unused_since is not None and image.last_used < unused_since
        too_much = max_bytes is not None and total > max_bytes
        if image.in_use or not (too_old or too_much):
            continue
        forgotten.append(image.name)
        users.subtract(image.needs)
        total -= sum(sizes.get(thing, 0) for thing in image.needs if not users[thing])
    return tuple(forgotten)
