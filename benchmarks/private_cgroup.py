"""A place where runc and crun run without touching the machine's cgroups.

runc writes to ``cgroup.subtree_control`` of every cgroup above its container's, up to the root that it sees, and does
not put it back. crun refuses a machine that mixes cgroup v1 and v2. So both run below a cgroup of our own, which is
the root of all that can be seen in a cgroup namespace and a mount namespace of our own. It is removed afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.measure import Unavailable
from benchmarks.remote import Remote, serve
from pycontain.kernel import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNT_POINT = "/sys/fs/cgroup"


@contextmanager
def open_place() -> Iterator[Remote]:
    """A process in there: asked with an argv, it runs it and answers with milliseconds, exit code and errors."""
    if os.geteuid() != 0:
        raise Unavailable("needs root, for a mount namespace with a cgroup of its own")
    folder = f"{_own_cgroup()}/pycontain-benchmark-{os.getpid()}"
    try:
        os.mkdir(folder)
    except OSError as error:
        raise Unavailable(f"no cgroup can be made at {folder}: {error.strerror}") from error
    try:
        with Remote("benchmarks.private_cgroup", folder) as remote:
            yield remote
    finally:
        for path, _, _ in os.walk(
            folder, topdown=False
        ):  # docker leaves the parent of its containers' cgroups
            os.rmdir(path)


def _own_cgroup() -> str:
    """The folder of this process's own cgroup in the v2 hierarchy, cgroups(7)."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounted = [line.split() for line in file if " - cgroup2 " in line]
    if not mounted:
        raise Unavailable("there is no cgroup2 file system")
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = next(line.strip()[3:] for line in file if line.startswith("0::"))
    return f"{mounted[0][4]}{own.rstrip('/')}"


def main() -> None:
    folder = json.loads(sys.argv[1])
    with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    syscalls.unshare(syscalls.CLONE_NEWCGROUP | syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
    syscalls.umount2(_MOUNT_POINT, syscalls.MNT_DETACH)
    syscalls.mount("cgroup2", _MOUNT_POINT, "cgroup2", 0, None)
    serve(_run)


def _run(argv: list[str]) -> tuple[float, int, str]:
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, check=False)
    took = (time.perf_counter() - began) * 1000
    return took, done.returncode, done.stderr.decode(errors="replace").strip()


if __name__ == "__main__":
    main()
