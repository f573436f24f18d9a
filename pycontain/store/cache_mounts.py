"""The folders of ``RUN --mount=type=cache``: they outlive builds, are in no layer, and go when they were not used for long.

Beside a folder ``NAME`` lie the locks ``NAME.use``, which each user shares and whose time is that of the last use, and ``NAME.lock``,
which is for those who want to be alone.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import attrs

from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.store.folder import Folder

_USE, _ALONE, _GONE = ".use", ".lock", ".gone"


@attrs.frozen
class CacheMounts:
    """Those of one store; unrelated processes share them."""

    folder: Folder

    @property
    def path(self) -> str:
        """Where they are."""
        return f"{self.folder.own}/build-caches"

    @contextmanager
    def use(self, name: str, make: Callable[[str], object]) -> Iterator[str]:
        """The folder *name*, which stays for the time of the block; *make* makes the directory when it is not there."""
        os.makedirs(self.path, 0o700, exist_ok=True)
        path = f"{self.path}/{name}"
        with Lock.take(path + _USE, shared=True):
            os.utime(path + _USE)
            if not os.path.isdir(path):
                make(path)
            yield path

    def alone(self, name: str) -> Lock:
        """Wait until nobody else is alone with the folder *name*."""
        os.makedirs(self.path, 0o700, exist_ok=True)
        return Lock.take(f"{self.path}/{name}{_ALONE}")

    def try_alone(self, name: str) -> Lock | None:
        """The same without waiting."""
        os.makedirs(self.path, 0o700, exist_ok=True)
        return Lock.try_take(f"{self.path}/{name}{_ALONE}")

    def collect(
        self, remove_tree: Callable[[str], object], *, unused_since: float, dry_run: bool
    ) -> tuple[str, ...]:
        """Remove the folders that nobody uses now or has used since that moment; their names."""
        found = []
        for name in self._names():
            path = f"{self.path}/{name}"
            if _last_use(path) > unused_since:
                continue
            lock = Lock.try_take(path + _USE, sign=False)  # signed, it would look like a use
            if lock is None:
                continue
            with lock:
                if _last_use(path) > unused_since:  # it was used while we were looking
                    continue
                found.append(name)
                if not dry_run:
                    # First out of reach: a folder that is half removed is no cache.
                    os.rename(path, f"{path}.{os.urandom(8).hex()}{_GONE}")
                    lock.remove()
        if not dry_run:
            self._sweep(remove_tree)
        return tuple(found)

    def _names(self) -> list[str]:
        with suppress(FileNotFoundError):  # no build had one
            return sorted(name for name in os.listdir(self.path) if "." not in name)
        return []

    def _sweep(self, remove_tree: Callable[[str], object]) -> None:
        with suppress(FileNotFoundError):  # as above
            for name in os.listdir(self.path):
                if name.endswith(_GONE):
                    remove_tree(f"{self.path}/{name}")


def _last_use(path: str) -> float:
    for each in (path + _USE, path):
        with suppress(FileNotFoundError):
            return os.stat(each).st_mtime
    return 0.0
