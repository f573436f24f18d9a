"""What acts on images and trees have in common: time that nobody else has a part in, and clearing up."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from benchmarks.measure import Unavailable, timed

if TYPE_CHECKING:
    from collections.abc import Callable


def flushed(folder: str, act: Callable[[], object]) -> float:
    """The milliseconds of *act*, begun when all that was written to *folder*'s file system is on the disk.

    So nobody pays for what another left to be written. What was read stays in memory, for all alike.
    """
    call("sync", "--file-system", folder)
    return timed(act)()


def remove_tree(path: str) -> None:
    """Remove *path* if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def call(*argv: str) -> str:
    """Run a program and give what it prints; :class:`Unavailable` with its last words when it fails."""
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"{' '.join(argv)!r} fails here: {said[-1] if said else done.returncode}")
    return done.stdout.decode()


def require(program: str, package: str) -> None:
    """:class:`Unavailable` unless *program* is here."""
    if shutil.which(program) is None:
        raise Unavailable(f"{program} is not installed (Debian: {package})")


def require_root() -> None:
    """:class:`Unavailable` unless we are root."""
    if os.geteuid() != 0:
        raise Unavailable("needs root, for a mount namespace and the owners of files")
