"""What cgroups(7) gives the tests, found without the help of what is tested: by shell-like looks at /proc and /sys."""

import os
from pathlib import Path

from pycontain.testing.leaks import own_groups, zygote_pid


def _text(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def is_v2(group):
    return os.path.exists(f"{group}/cgroup.controllers")


def may_make_groups(group):
    """Whether this user may mkdir(2) there and write pids."""
    writable = os.access(group, os.W_OK) and os.access(f"{group}/cgroup.procs", os.W_OK)
    return writable and not os.statvfs(group).f_flag & os.ST_RDONLY


def _only_ours(group):
    """cgroup-v2.rst: whether the group may pass controllers on when we and our children have left it."""
    if not os.path.exists(f"{group}/cgroup.events"):  # the root of all
        return True
    pids = set(_text(f"{group}/cgroup.procs").split())
    return all(_descends(pid) for pid in pids)


def _descends(pid):
    while pid not in {"0", "", str(os.getpid())}:
        pid = next(
            (
                line.split()[1]
                for line in _text(f"/proc/{pid}/status").splitlines()
                if line.startswith("PPid:")
            ),
            "",
        )
    return pid == str(os.getpid())


def _controllers_of_v1(group):
    """By the mount that *group* is on: the root of a hierarchy need not have a file of each of its controllers."""
    for line in _text("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        place, (kind, _, options) = before.split()[4], after.split()
        if kind == "cgroup" and f"{group}/".startswith(f"{place}/"):
            return set(options.split(",")) & {"memory", "cpu", "cpuset", "pids", "blkio", "hugetlb"}
    return set()


def limitable():
    """The controllers whose limits this process may set on its children: ``{name: version}``; blkio is io."""
    found = {}
    for group in filter(may_make_groups, own_groups()):
        if is_v2(group):
            if _only_ours(group):
                found |= dict.fromkeys(_text(f"{group}/cgroup.controllers").split(), 2)
        else:
            found |= dict.fromkeys((name.replace("blkio", "io") for name in _controllers_of_v1(group)), 1)
    return found


def can_pause():
    """Whether this process may freeze its children: in v2, whoever else is in its group, or in the freezer of v1."""
    groups = [group for group in own_groups() if may_make_groups(group)]
    return any(is_v2(group) or "/freezer" in group for group in groups)


def groups_of(pid):
    """The directories of ours that a process is in: ``{controllers: path in the hierarchy}``."""
    lines = [line.split(":", 2) for line in _text(f"/proc/{pid}/cgroup").splitlines()]
    return {
        names: path
        for _, names, path in lines
        if "/pycontain-" in path and "/pycontain-owner" not in path.rpartition("/")[0] + path
    }


def settings_of(pid, names):
    """Of these files, those that the groups of a process have, and what they say: ``{name: text}``."""
    groups = [group for group in own_groups(pid) if "/pycontain-" in group]
    texts = ((name, _text(f"{group}/{name}").strip()) for group in groups for name in names)
    return {name: text for name, text in texts if text}


def zygote():
    """The zygote of the tests' own engine, 0 when there is none."""
    return zygote_pid()
