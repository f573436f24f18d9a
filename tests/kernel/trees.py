"""A root file system on one static program, and nothing else: no /proc, no /dev, no /etc."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BUSYBOX = shutil.which("busybox")
TOOLS = (
    "cat",
    "echo",
    "env",
    "false",
    "head",
    "id",
    "kill",
    "ls",
    "mount",
    "pwd",
    "sh",
    "sleep",
    "stat",
    "true",
)


def _is_static(program):
    text = subprocess.run(["readelf", "-l", program], capture_output=True, text=True, check=False).stdout
    return "INTERP" not in text


def busybox_tree(folder):
    """Make a root in *folder* and return its path."""
    if BUSYBOX is None or not _is_static(BUSYBOX):
        pytest.skip("needs a static busybox")
    bin_ = Path(folder) / "bin"
    bin_.mkdir(parents=True)
    shutil.copy(BUSYBOX, bin_ / "busybox")
    for name in TOOLS:
        os.symlink("busybox", bin_ / name)
    return Path(folder)


def listing(folder):
    """Every path below *folder* with type, mode, size and time: equal listings are equal trees."""
    found = {}
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            status = os.lstat(os.path.join(path, name))
            found[os.path.relpath(os.path.join(path, name), folder)] = (
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_uid,
            )
    return found
