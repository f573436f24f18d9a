"""The disks as control groups know them: ``major:minor`` of the whole of one, and who of them heeds a weight."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pycontain.errors import HostUnsupported
from pycontain.runtime.delegation import parse_mounts

_HINT = "name the disk: lsblk -d -o PATH,MAJ:MIN"


def disk_of(path: str) -> str:
    """``major:minor`` of the block device at *path*, or of the one that has the file at *path*; of a partition, its disk.

    A text that is such a pair is returned as it is. :class:`HostUnsupported` when there is no disk.
    """
    if not path.startswith("/"):
        return path
    try:
        found = os.stat(path)
    except OSError as error:
        raise _no_disk(path, error.strerror or "") from error
    device = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    entry = f"/sys/dev/block/{number}"
    if not os.path.isdir(entry):
        # btrfs and ZFS, overlayfs, and file systems in memory or in the network have numbers of their own.
        raise _no_disk(path, "a file system that lies on no disk, or on several")
    if os.path.exists(f"{entry}/partition"):
        with open(f"{os.path.realpath(entry)}/../dev", encoding="ascii") as file:
            return file.read().strip()
    return number


def number_of(path: str) -> int:
    """The device that is at *path*, or has the file there, as a number; 0 when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev


def _no_disk(path: str, found: str) -> HostUnsupported:
    return HostUnsupported(f"a limit on io at {path}", needs="a disk there", found=found, hint=_HINT)


# --- weights --------------------------------------------------------------------------------------------


def weighers(version: int) -> tuple[str, ...]:
    """The files of a group of that *version* whose weight some disk of this host heeds now.

    That is one with the scheduler bfq (block/bfq-iosched.rst), or in v2 one for which the administrator has switched
    io.cost on (cgroup-v2.rst, "IO Interface Files"). Elsewhere such a file may be there and do nothing.
    """
    bfq = any("[bfq]" in text for text in _schedulers().values())
    if version == 1:
        return ("blkio.bfq.weight",) if bfq else ()
    return ("io.bfq.weight",) * bfq + ("io.weight",) * _has_cost_model()


def _schedulers() -> dict[str, str]:
    """Disks, each with its schedulers; the one in brackets is in use. One that has gone meanwhile is none."""
    found = {}
    for name in os.listdir("/sys/block"):
        try:
            found[name] = Path("/sys/block", name, "queue/scheduler").read_text(encoding="ascii")
        except OSError:
            continue
    return found


def _has_cost_model() -> bool:
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    for version, _, root, point in mounts:
        if version == 2 and root == "/":
            try:
                return "enable=1" in Path(point, "io.cost.qos").read_text(encoding="ascii")
            except FileNotFoundError:
                return False  # in the root of all alone, and not of every kernel
    return False


def no_weights() -> HostUnsupported:
    """The error for a host whose disks all serve who comes first."""
    used = {
        f"{name}: {text.split('[')[1].split(']')[0]}"
        for name, text in _schedulers().items()
        if "[" in text and "[none]" not in text
    }
    return HostUnsupported(
        "a weight of io (io_weight)",
        needs="a disk whose scheduler is bfq, or one with io.cost",
        found=", ".join(sorted(used)) or "disks without a scheduler",
        hint="as root: echo bfq > /sys/block/DISK/queue/scheduler; or leave io_weight= out",
    )
