"""``run("true")``: an overlay root, all namespaces, the default walls, no network; against those who do the like."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from benchmarks import peers
from benchmarks.measure import Peer, against, grow, in_a_row, timed
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
# Without a pause there is no time to prepare the next start: what is done in advance must be paid, too.
_IN_A_ROW = _PEERS[1:5]
_RUN = 30
_IDLE = (0, 10, 100, 500)
_MOUNTS = (0, 10, 50)


def measure(bench: Bench) -> Iterator[Row | Growth]:
    for peer in _PEERS:
        yield against(
            bench, Row("start", 'run("true"), in turn', ""), bench.run_true(), peer, bench.rounds, 0
        )
    for peer in _IN_A_ROW:
        row = Row("start", 'run("true"), after 20 ms of rest', "")
        yield against(bench, row, bench.run_true(), peer, bench.rounds)
    for peer in _IN_A_ROW:
        row = Row("start", f"{_RUN} runs without a pause, each", "")
        yield against(bench, row, in_a_row(bench.run_true(), _RUN), _repeated(peer), bench.long_rounds)
    yield _beside_idle_containers(bench)
    yield _with_mounts(bench)


def _repeated(peer: Peer) -> Peer:
    @contextmanager
    def open_repeated(bench: Bench) -> Iterator[Once]:
        with peer.open(bench) as once:
            yield in_a_row(once, _RUN)

    return attrs.evolve(peer, open=open_repeated, goal=None)  # the goals are of A B A B


def _beside_idle_containers(bench: Bench) -> Growth:
    with ExitStack() as stack:
        owners = {idle: stack.enter_context(open_owner(bench.rootfs, idle=idle)) for idle in _IDLE}
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
