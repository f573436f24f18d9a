"""``Container("host:").run("true")``: this machine's own programs, without a download."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.bench import command
from benchmarks.measure import Peer, Unavailable, against, timed
from benchmarks.results import Row
from pycontain import Container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once


@contextmanager
def _rootfs(bench: Bench) -> Iterator[Once]:
    yield bench.run_true()


@contextmanager
def _bwrap(bench: Bench) -> Iterator[Once]:
    del bench
    if shutil.which("bwrap") is None:
        raise Unavailable("bwrap is not installed (Debian: bubblewrap)")
    yield timed(
        command("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true")
    )


@contextmanager
def _subprocess(bench: Bench) -> Iterator[Once]:
    del bench
    yield timed(command("true"))


_PEERS = (
    Peer("subprocess, no walls", _subprocess),
    Peer("our own rootfs: start", _rootfs),
    Peer("bwrap --ro-bind / /", _bwrap),
)


def measure(bench: Bench) -> Iterator[Row]:
    host = Container("host:")
    ours = timed(lambda: host.run("true", check=True))
    for peer in _PEERS:
        yield against(bench, Row("host start", 'host: run("true")', ""), ours, peer, bench.rounds)
