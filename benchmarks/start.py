"""``run("true")``: an overlay root, all namespaces, the default walls, no network; against those who do the like."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.measure import Peer, against, grow, timed
from benchmarks.owner import open_owner
from benchmarks.results import Goal, Growth, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from benchmarks.remote import Remote
    from pycontain import Container

_PEERS = (
    Peer("subprocess, no walls", peers.plain_subprocess),
    Peer("bwrap --unshare-all", peers.bwrap, Goal(1.0, 0.7)),
    Peer("bwrap … --proc --dev", peers.bwrap_with_proc_and_dev),
    Peer("crun run", peers.crun, Goal(0.7, 0.45)),
    Peer("sandlock", peers.sandlock, Goal(1.0, 0.6)),
    Peer("runc run", peers.runc, Goal(0.2, 0.12)),
    Peer("docker run", peers.docker, Goal(0.015, 0.01)),
)
_IDLE = (0, 10, 100, 500)
_MOUNTS = (0, 10, 50)


def measure(bench: Bench) -> Iterator[Row | Growth]:
    for peer in _PEERS:
        yield against(bench, Row("start", 'run("true")', ""), bench.run_true(), peer, bench.rounds)
    yield _beside_idle_containers(bench)
    yield _with_mounts(bench)


def _beside_idle_containers(bench: Bench) -> Growth:
    with ExitStack() as stack:
        owners = {idle: stack.enter_context(open_owner(bench, idle=idle)) for idle in _IDLE}
        contestants = {float(idle): _asking(owner) for idle, owner in owners.items()}
        return grow(Growth("start", 'run("true")', "beside idle containers", ()), contestants, bench.rounds)


def _asking(owner: Remote) -> Once:
    return lambda: float(owner.ask("run"))


def _with_mounts(bench: Bench) -> Growth:
    contestants: dict[float, Once] = {}
    container, made = bench.container(), 0
    for count in _MOUNTS:
        while made < count:
            container = container.mount(f"{bench.rootfs}/tmp", f"/mnt/{made}", read_only=True)
            made += 1
        contestants[count] = _running(container)
    return grow(Growth("start", 'run("true")', "with mounts of its own", ()), contestants, bench.rounds)


def _running(container: Container) -> Once:
    return timed(lambda: container.run("true", check=True))
