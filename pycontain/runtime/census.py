"""Which processes a container has, by proc(5): all that descend from its PID 1 and from the commands executed in it.

A process whose parent ends comes to the next subreaper above it, or to PID 1 of its PID namespace, so it stays a descendant.

The zygote imports this module.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DEAD = "ZX"


class Entry:
    """A process, as /proc/PID/status has it. *numbers* are its pids from the PID namespace of /proc down to its own."""

    __slots__ = ("fields", "numbers", "parent", "pid")

    def __init__(self, pid: int, fields: dict[str, str]) -> None:
        self.pid = pid
        self.fields = fields
        self.parent = int(fields["PPid"])
        self.numbers = [int(number) for number in fields["NSpid"].split()]


def read(pid: int | str) -> Entry | None:
    """A process by its number in /proc, or "self"; None when it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The first thread of a process may have ended before the others.
    dead = fields.get("State", "X")[0] in _DEAD and int(fields.get("Threads", 0)) < 2
    if dead or "NSpid" not in fields:
        return None
    return Entry(int(fields["Pid"]), fields)


def descendants(roots: Iterable[int], zygote: Entry) -> Iterator[Entry]:
    """The living children of *zygote* that are *roots* in its PID namespace, and all processes below them."""
    children = _by_parent()
    wanted, place = set(roots), len(zygote.numbers) - 1
    found = [entry for entry in children.get(zygote.pid, ()) if entry.numbers[place] in wanted]
    yield from _all_below(found, children)


def below(pid: int) -> Iterator[int]:
    """All processes below *pid*, by their numbers in /proc."""
    children = _by_parent()
    return (entry.pid for entry in _all_below(list(children.get(pid, ())), children))


def _by_parent() -> dict[int, list[Entry]]:
    children: dict[int, list[Entry]] = {}
    for entry in map(read, filter(str.isdigit, os.listdir("/proc"))):
        if entry is not None:
            children.setdefault(entry.parent, []).append(entry)
    return children


def _all_below(found: list[Entry], children: dict[int, list[Entry]]) -> Iterator[Entry]:
    while found:
        entry = found.pop()
        yield entry
        found += children.get(entry.pid, ())
