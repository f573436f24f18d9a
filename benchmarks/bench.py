"""What all acts share: the number of rounds, and a throwaway root file system with one static program in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import attrs

from benchmarks.measure import Unavailable, timed
from pycontain import Container

if TYPE_CHECKING:
    from benchmarks.measure import Once

_APPLETS = ("cat", "head", "sh", "sleep", "true")


@attrs.frozen
class Bench:
    """One run of the benchmarks. *folder* is temporary, and every user may look into it; *cache* is kept for the next."""

    folder: str
    cache: str
    rounds: int = 30
    long_rounds: int = 5

    @property
    def rootfs(self) -> str:
        return f"{self.folder}/rootfs"

    def make_rootfs(self) -> None:
        """busybox-static under the names of a few of its applets, and the directories that every image has."""
        busybox = shutil.which("busybox")
        if busybox is None or not _is_static(busybox):
            raise Unavailable("a static busybox is not installed (Debian: busybox-static)")
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            os.makedirs(f"{self.rootfs}/{name}")
        shutil.copy(busybox, f"{self.rootfs}/bin/busybox")
        for applet in _APPLETS:
            os.link(f"{self.rootfs}/bin/busybox", f"{self.rootfs}/bin/{applet}")

    def container(self) -> Container:
        """The container that all acts start: the defaults, on the root file system above."""
        return usual_container(self.rootfs)

    def run_true(self) -> Once:
        """``run("true")`` in it."""
        container = self.container()
        return timed(lambda: container.run("true", check=True))

    def subprocess_true(self) -> Once:
        """``subprocess.run`` of the same static binary, without any container."""
        return timed(command(f"{self.rootfs}/bin/true"))


def usual_container(rootfs: str) -> Container:
    """All walls that a container has by default."""
    return Container(f"rootfs:{rootfs}")


class command:  # noqa: N801 - reads as a verb's object: timed(command("true"))
    """A program to run, with its output read as ``run`` reads it."""

    def __init__(self, *argv: str) -> None:
        self.argv = argv

    def __call__(self) -> None:
        subprocess.run(self.argv, capture_output=True, check=True)


def _is_static(program: str) -> bool:
    """elf(5): a dynamically linked program names its interpreter, which begins so on every Linux."""
    with open(program, "rb") as file:
        return b"/ld-" not in file.read(4096)
