"""prctl(2) and capabilities(7), through python-prctl.

python-prctl knows the capabilities up to CAP_BPF by name; sets travel here as masks, and what lies beyond its
table goes through the same ``prctl`` call by number.
"""

from __future__ import annotations

import signal

import _prctl
import prctl

PR_CAPBSET_DROP = 24
_PR_SET_NAME_LIMIT = 15


def set_parent_death_signal() -> None:
    """PR_SET_PDEATHSIG: SIGKILL for the caller when the thread that forked it ends; cleared by new credentials."""
    prctl.set_pdeathsig(signal.SIGKILL)


def set_not_dumpable() -> None:
    """PR_SET_DUMPABLE 0: nobody inside may trace the caller or look through its /proc entry; execve(2) undoes it."""
    prctl.set_dumpable(0)


def set_dumpable() -> None:
    """PR_SET_DUMPABLE 1: for the moments in which the caller is alone in its PID namespace, and needs its own /proc entry."""
    prctl.set_dumpable(1)


def set_child_subreaper() -> None:
    """PR_SET_CHILD_SUBREAPER: orphans below the caller become its children."""
    prctl.set_child_subreaper(1)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS, for good."""
    prctl.set_no_new_privs(1)


def set_name(name: str) -> None:
    """PR_SET_NAME and the argument area: what ps(1) shows, in place of a command line that names host paths."""
    prctl.set_name(name[:_PR_SET_NAME_LIMIT])
    prctl.set_proctitle(name)


def drop_bounding_set(keep: int, last: int) -> None:
    """PR_CAPBSET_DROP for each capability from 0 to *last* that is not a bit of *keep*."""
    for number in dropped(keep, last):
        _prctl.prctl(PR_CAPBSET_DROP, number)


def dropped(keep: int, last: int) -> list[int]:
    """The capabilities from 0 to *last* that are not a bit of *keep*."""
    return [number for number in range(last + 1) if not keep >> number & 1]


def last_capability() -> int:
    """The highest capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def limit_capabilities(keep: int, last: int) -> None:
    """capset(2): clear what is not a bit of *keep*; nothing is inheritable. What the caller lacks stays lacking."""
    clear = [number for number in range(last + 1) if not keep >> number & 1]
    _prctl.set_caps([], [], [], clear, clear, list(range(last + 1)))
