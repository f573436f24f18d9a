"""Memory of the processes that are ours while containers idle: the zygote and one init for each.

They stand beside what is documented of containerd-shim and runc, about 10 MB for each container: a figure, since
neither runs here without its daemon. The kernel's own memory for namespaces, mounts and tables of pages is not in it; nor is the payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measure import Unavailable
from benchmarks.owner import open_owner
from benchmarks.results import Goal, Growth, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_IDLE = (1, 10, 50, 100)
_MEGABYTE = 1 << 20
_SHIM = "containerd-shim: 10 MB, documented"


def measure(bench: Bench) -> Iterator[Row | Growth]:
    goal = Goal(2.0, 0.5)
    try:
        found = {idle: _memory(bench, idle) for idle in _IDLE}
    except Unavailable as reason:
        yield Row("memory", "zygote and inits", _SHIM, goal=goal, missing=str(reason))
        return
    growths = [
        Growth(
            "memory",
            f"zygote and inits, {kind}",
            "idle containers",
            tuple((float(idle), sizes[kind] / _MEGABYTE) for idle, sizes in found.items()),
            unit="MB",
        )
        for kind in ("pss", "private")
    ]
    yield Row(
        "memory",
        "one more idle container",
        _SHIM,
        score=growths[0].slope,
        goal=goal,
        unit="MB",
        score_unit="MB",
    )
    yield from growths


def _memory(bench: Bench, idle: int) -> dict[str, int]:
    with open_owner(bench.rootfs, idle=idle) as owner:
        sizes: dict[str, int] = owner.ask("memory")
        return sizes
