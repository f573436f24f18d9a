"""What each wall costs: ``run("true")`` with it, against the same container without."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from benchmarks.measure import PAUSE, compare, timed
from benchmarks.results import Row
from pycontain.errors import HostUnsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from pycontain import Container


def measure(bench: Bench) -> Iterator[Row]:
    for name, with_it, without, without_it in _pairs(bench.container()):
        row = Row("walls", name, without)
        try:
            yield compare(row, _settled(with_it), _settled(without_it), bench.rounds)
        except HostUnsupported as reason:
            yield attrs.evolve(row, missing=str(reason))


def _pairs(usual: Container) -> Iterator[tuple[str, Container, str, Container]]:
    """A wall, a container with it, how the other one is described, and that one."""
    yield "user namespace of its own", usual.userns("private"), 'userns("host")', usual.userns("host")
    yield "seccomp, Docker's profile", usual, 'seccomp("unconfined")', usual.seccomp("unconfined")
    yield "no capabilities", usual.capabilities(drop=("ALL",)), "podman's set", usual
    yield "read-only root", usual.read_only(), "writable root", usual
    yield "Landlock", usual.landlock(), "none", usual
    yield (
        "memory, pids and CPU limits",
        usual.limits(memory="256M", pids=64, cpus=1),
        "no control group",
        usual,
    )
    yield "64 MiB writable layer", usual.limits(disk="64M"), "no limit on it", usual
    yield "an init", usual, "init(False)", usual.init(False)
    yield "untrusted()", usual.untrusted(required=False), "the defaults", usual


def _settled(container: Container) -> Once:
    """One run after another of the same kind, so that the spare is the right one, as it is for who starts many."""
    once = timed(lambda: container.run("true", check=True))

    def settled() -> float:
        once()
        time.sleep(PAUSE)
        return once()

    return settled
