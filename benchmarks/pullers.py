"""Those who bring an image from a registry and unpack it: ourselves, docker, podman, and skopeo with umoci.

Each starts with nothing of the image and removes it between the rounds, outside of the time that counts. Everything is
on the file system of the benchmark's folder.

docker needs a daemon, which is ours. podman and skopeo keep notes in /var/lib/containers,
so each of their commands has an empty /var/lib of its own.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import attrs

from benchmarks.dockerd import hiding, open_daemon
from benchmarks.trees import call, flushed, remove_tree, require, require_root
from pycontain import Image, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.measure import Once


class Puller(Protocol):
    """One who pulls."""

    def pull(self, reference: str) -> float:
        """Pull and unpack; what it took, in milliseconds."""

    def remove(self, reference: str) -> None:
        """Remove the image, and the layers that no other needs."""


def pulling(puller: Puller, reference: str) -> Once:
    """A measurement of a pull that leaves nothing of the image behind."""

    def once() -> float:
        took = puller.pull(reference)
        puller.remove(reference)
        return took

    return once


@attrs.frozen
class Ours:
    """``Image.pull`` in this process, whose zygote runs already."""

    folder: str

    def pull(self, reference: str) -> float:
        return flushed(self.folder, lambda: Image.pull(reference, store=Store(self.folder)))

    def remove(self, reference: str) -> None:
        Image.find(reference, store=Store(self.folder)).remove()


@attrs.frozen
class Commands:
    """A program that pulls, and the one that removes; the reference comes last."""

    folder: str
    pulling: Sequence[str]
    removing: Sequence[str]

    def pull(self, reference: str) -> float:
        return flushed(self.folder, lambda: call(*self.pulling, reference))

    def remove(self, reference: str) -> None:
        call(*self.removing, reference)


@attrs.frozen
class SkopeoAndUmoci:
    """``skopeo copy`` to an image layout, then ``umoci unpack`` of it."""

    folder: str

    def pull(self, reference: str) -> float:
        return flushed(self.folder, lambda: self._pull(reference))

    def _pull(self, reference: str) -> None:
        layout = f"oci:{self.folder}/layout:image"
        call(*hiding("/var/lib"), "skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", layout)
        call("umoci", "unpack", "--image", f"{self.folder}/layout:image", f"{self.folder}/bundle")

    def remove(self, reference: str) -> None:
        del reference
        for name in ("layout", "bundle"):
            remove_tree(f"{self.folder}/{name}")


@contextmanager
def ours(bench: Bench) -> Iterator[Puller]:
    folder = f"{bench.folder}/store"
    Store(folder)
    yield Ours(folder)
    remove_tree(folder)


@contextmanager
def our_command(bench: Bench) -> Iterator[Puller]:
    """The same as a command, as docker and podman are: with an interpreter, its imports and a zygote of its own."""
    folder = f"{bench.folder}/store-of-the-command"
    Store(folder)
    command = ("env", f"PYCONTAIN_STORE={folder}", sys.executable, "-m", "pycontain")
    yield Commands(folder, (*command, "pull"), (*command, "rmi"))
    remove_tree(folder)


@contextmanager
def docker(bench: Bench) -> Iterator[Puller]:
    """``docker pull``, by a daemon of our own."""
    folder = f"{bench.folder}/docker"
    with open_daemon(folder) as client:
        yield Commands(folder, (*client, "pull", "--quiet"), (*client, "rmi", "--force"))


@contextmanager
def podman(bench: Bench) -> Iterator[Puller]:
    """``podman pull`` with the storage driver overlay."""
    require("podman", "podman")
    require_root()
    folder = f"{bench.folder}/podman"
    os.mkdir(folder)
    place = (f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=overlay")
    client = (*hiding("/var/lib"), "podman", *place)
    yield Commands(folder, (*client, "pull", "--quiet", "--tls-verify=false"), (*client, "rmi", "--force"))
    remove_tree(folder)


@contextmanager
def skopeo_and_umoci(bench: Bench) -> Iterator[Puller]:
    """``skopeo copy`` and ``umoci unpack``, one after the other."""
    require("skopeo", "skopeo")
    require("umoci", "umoci")
    require_root()
    folder = f"{bench.folder}/skopeo"
    os.mkdir(folder)
    yield SkopeoAndUmoci(folder)
    remove_tree(folder)
