"""An owner in a process of its own: of a given size, with so many idle containers, perhaps as another user."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.bench import usual_container
from benchmarks.measure import timed
from benchmarks.remote import Remote, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pycontain.process import Running

_PAGE = 4096
_MEGABYTE = 1 << 20


def open_owner(rootfs: str, *, megabytes: int = 0, idle: int = 0, prefix: Sequence[str] = ()) -> Remote:
    """Start one that has touched *megabytes* and holds *idle* containers; *prefix* is the command that starts it."""
    settings = {"rootfs": rootfs, "megabytes": megabytes, "idle": idle}
    return Remote("benchmarks.owner", settings, prefix=prefix)


def main() -> None:
    settings = json.loads(sys.argv[1])
    ballast = bytearray(settings["megabytes"] * _MEGABYTE)
    ballast[::_PAGE] = b"\1" * len(range(0, len(ballast), _PAGE))  # touched: every page is in a page table
    container = usual_container(settings["rootfs"])
    with ExitStack() as stack:
        idle = [stack.enter_context(container.start("sleep", "infinity")) for _ in range(settings["idle"])]
        run = timed(lambda: container.run("true", check=True))
        exec_ = timed(lambda: idle[0].exec("true", check=True))
        answers: dict[str, Callable[[], object]] = {
            "run": run,
            "exec": exec_,
            "memory": lambda: _memory(idle),
        }
        run()
        serve(lambda request: answers[request]())


def _memory(idle: list[Running]) -> dict[str, int]:
    """Bytes of the zygote and of all inits together: their share of all pages, and what is theirs alone."""
    pids = [running.pid for running in idle]
    with open(f"/proc/{pids[0]}/status", encoding="ascii") as file:
        zygote = next(int(line.split()[1]) for line in file if line.startswith("PPid:"))
    sums = {"pss": 0, "private": 0}
    for pid in (zygote, *pids):
        rollup = _smaps_rollup(pid)
        sums["pss"] += rollup["Pss"]
        sums["private"] += rollup["Private_Clean"] + rollup["Private_Dirty"]
    return sums


def _smaps_rollup(pid: int) -> dict[str, Any]:
    """proc_pid_smaps(5): field → bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        next(file)  # the range of addresses
        return {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in file)}


if __name__ == "__main__":
    main()
