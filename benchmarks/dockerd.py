"""A Docker daemon of our own, for as long as a block lasts.

It has a mount namespace and folders of its own, and leaves the network as it is: no bridge, no rules, no forwarding. One that
runs containers runs in a private cgroup, as runc does.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.measure import Unavailable
from benchmarks.private_cgroup import open_place
from benchmarks.trees import remove_tree, require, require_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PATIENCE = 30.0  # seconds
_LOOK_EVERY = 0.1
_NETWORK_AS_IT_IS = ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")


def hiding(folder: str) -> tuple[str, ...]:
    """What runs a command with a mount namespace of its own, in which *folder* is empty."""
    script = f'mount -t tmpfs tmpfs {folder} && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


@contextmanager
def open_daemon(folder: str) -> Iterator[tuple[str, ...]]:
    """One that pulls and builds nothing but images; the docker(1) that talks to it."""
    _prepare(folder)
    with open(f"{folder}/log", "wb") as log:
        daemon = subprocess.Popen(_argv(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _client(folder, lambda: daemon.poll() is None)
    finally:
        daemon.terminate()
        daemon.wait()
        remove_tree(folder)


@contextmanager
def open_daemon_for_containers(folder: str) -> Iterator[tuple[str, ...]]:
    """One that runs containers, in a private cgroup; the docker(1) that talks to it."""
    _prepare(folder)
    with open_place() as place:
        started = 'exec "$@" </dev/null >"$LOG" 2>&1 & echo $! >&2'
        _, _, pid = place.ask(["env", f"LOG={folder}/log", "sh", "-c", started, "sh", *_argv(folder)])
        daemon = os.pidfd_open(int(pid))
        try:
            yield _client(folder, lambda: not _has_ended(daemon, 0))
        finally:
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            _has_ended(daemon, _PATIENCE)
            os.close(daemon)
            remove_tree(folder)


def _prepare(folder: str) -> None:
    for program in ("docker", "dockerd"):
        require(program, "docker.io")
    require_root()
    os.mkdir(folder)


def _argv(folder: str) -> tuple[str, ...]:
    folders = (f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid")
    return (
        *hiding("/run"),
        *("dockerd", f"--host=unix://{folder}/socket", "--oom-score-adjust=0"),
        *(*_NETWORK_AS_IT_IS, *folders),
    )


def _client(folder: str, lives: Callable[[], bool]) -> tuple[str, ...]:
    client: Sequence[str] = ("docker", "--config", f"{folder}/config", "--host", f"unix://{folder}/socket")
    deadline = time.monotonic() + _PATIENCE
    while lives() and time.monotonic() < deadline:
        if subprocess.run((*client, "version"), capture_output=True, check=False).returncode == 0:
            return tuple(client)
        time.sleep(_LOOK_EVERY)
    with open(f"{folder}/log", encoding="utf-8", errors="replace") as file:
        said = file.read().strip().splitlines()
    raise Unavailable(f"dockerd does not start here: {said[-1] if said else 'it says nothing'}")


def _has_ended(pidfd: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))
