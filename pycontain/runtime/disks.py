"""From a path to the disk that control groups know it by: ``major:minor`` of the whole of it."""

from __future__ import annotations

import os
import stat

from pycontain.errors import HostUnsupported

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


def _no_disk(path: str, found: str) -> HostUnsupported:
    return HostUnsupported(f"a limit on io at {path}", needs="a disk there", found=found, hint=_HINT)
