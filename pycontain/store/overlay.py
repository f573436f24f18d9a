"""The overlay snapshotter: one directory for each layer, as lower directories of an overlay.

::

    snapshots/<kind>/<32 hex digits>/fs        a committed layer, named after its chain ID
    snapshots/<kind>/<32 hex digits>/record    the whole chain ID, the parent, the size
    snapshots/<kind>/new-<32 digits>/fs        an active one, locked by new-<32 digits>.lock
    snapshots/<kind>/trash-<random>            what is to be removed

128 bits of the chain ID are as hard to collide as a path can afford to be short: the 127 layers that an image may have
must be named in one page of mount options, or by descriptors.

A layer is thousands of files, and flushing them would cost more than unpacking them. So its record says in which boot
it was made. As long as that boot lasts, its files are what was written; when it has lasted for longer than the kernel
keeps anything back, so they are on the disk. Only a layer that was young when the machine stopped is not trusted, and
is unpacked again.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import InvalidImage, StoreError
from pycontain.oci.digest import Digest
from pycontain.sandbox.paths import HostPath
from pycontain.sandbox.spec import Rootfs
from pycontain.store.files import read_file, replace_file, storing
from pycontain.store.folder import CONTENT
from pycontain.store.locks import Lock
from pycontain.store.snapshots import Active, Committed, Kind, Snapshotter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pycontain.store.folder import Folder

_NAME_LENGTH = 32
_NEW, _LOCK, _TRASH = "new-", ".lock", "trash-"
_SETTLED_AFTER = (
    120.0  # seconds; the kernel writes back after 30 (vm.dirty_expire_centisecs) and looks every 5
)


class OverlaySnapshots(Snapshotter):
    """The snapshots of one *kind* in the store in *folder*."""

    def __init__(self, folder: Folder, kind: Kind) -> None:
        self.kind = kind
        self.folder = f"{folder.snapshots}/{kind.value}"
        self._store = folder

    def find(self, chain_id: Digest) -> Committed | None:
        """The committed snapshot, if there is one."""
        with storing(self._store.path):
            return self._read(chain_id)

    def prepare(self, chain_id: Digest, parent: Digest | None) -> Active:
        """Begin a snapshot. The first of a kind finds out whether the file system can hold it."""
        with storing(self._store.path):
            self._make_folder()
            name = f"{self.folder}/{_NEW}{chain_id.hex[:_NAME_LENGTH]}"
            active = Active(chain_id, parent, f"{name}/fs", Lock.take(name + _LOCK), self._abandon)
            try:
                active.committed = self._read(chain_id)
                if active.committed is None:
                    self._throw_away(name)  # of one that was killed
                    os.mkdir(name, 0o700)
                    os.mkdir(active.path, 0o755)
            except BaseException:
                self._abandon(active)
                raise
            return active

    def commit(self, active: Active, size: int) -> Committed:
        """Make the snapshot visible, or give the one that somebody committed earlier."""
        if active.committed is not None:
            return active.committed
        made = os.path.dirname(active.path)
        with storing(self._store.path):
            with open(f"{made}/record", "wb") as file:
                file.write(_Record(active.chain_id, active.parent, size, _boot_id()).encode())
            try:
                os.rename(made, self._place(active.chain_id))
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
        self._abandon(active)
        committed = self.find(active.chain_id)
        if committed is None:
            raise StoreError(
                f"the snapshot {active.chain_id} was removed while it was made",
                path=self._store.path,
                hint="protect it with a lease, and try again",
            )
        return committed

    def mounts(self, chain_ids: Sequence[Digest]) -> Rootfs:
        """The directories of the chain."""
        return Rootfs(tuple(HostPath(self._require(chain_id).path) for chain_id in reversed(chain_ids)))

    def list(self) -> tuple[Committed, ...]:
        """Every committed snapshot."""
        with storing(self._store.path):
            records = [_read_record(f"{self.folder}/{name}") for name in self._names() if _is_committed(name)]
            return tuple(self._committed(record) for record in records if record and self._trusts(record))

    def remove(self, chain_id: Digest) -> None:
        """Make the snapshot invisible."""
        with storing(self._store.path):
            self._throw_away(self._place(chain_id))

    def sweep(self, remove_tree: Callable[[str], object]) -> None:
        """Remove the files of snapshots that are removed, abandoned or not to be trusted."""
        with storing(self._store.path):
            self._throw_away_leftovers()
            for name in self._names():
                if name.startswith(_TRASH):
                    remove_tree(f"{self.folder}/{name}")

    # --- places -----------------------------------------------------------------------------------------

    def _place(self, chain_id: Digest) -> str:
        return f"{self.folder}/{chain_id.hex[:_NAME_LENGTH]}"

    def _names(self) -> Iterator[str]:
        with suppress(FileNotFoundError):  # no snapshot of this kind was ever made
            yield from os.listdir(self.folder)

    def _make_folder(self) -> None:
        if os.path.isdir(self.folder):
            return
        probe = f"{self._store.snapshots}/probe-{os.urandom(8).hex()}"
        os.mkdir(probe, 0o700)
        try:
            self._check_file_system(probe)
            os.makedirs(self.folder, 0o700, exist_ok=True)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(f"{probe}/whiteout")
            os.rmdir(probe)

    def _check_file_system(self, probe: str) -> None:
        """Raise unless the two marks of overlayfs can be made here (kernel documentation, overlayfs.rst)."""
        attribute = "user.overlay.opaque" if self.kind.userxattr else "trusted.overlay.opaque"
        try:
            os.setxattr(probe, attribute, b"y")
            os.mknod(f"{probe}/whiteout", stat.S_IFCHR, os.makedev(0, 0))
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.EPERM, errno.EINVAL}:
                raise
            raise StoreError(
                f"the file system of {self._store.path} cannot hold the layers of an overlay",
                path=self._store.path,
                hint="put the store on ext4, xfs, btrfs or tmpfs: Store(path), or PYCONTAIN_STORE in the environment",
            ) from error

    def _abandon(self, active: Active) -> None:
        with storing(self._store.path):
            self._throw_away(os.path.dirname(active.path))
            active._lock.remove()  # noqa: SLF001 - an active snapshot is a part of its snapshotter

    def _throw_away(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.rename(path, f"{self.folder}/{_TRASH}{os.urandom(8).hex()}")

    def _throw_away_leftovers(self) -> None:
        for name in self._names():
            path = f"{self.folder}/{name}"
            if name.endswith(_LOCK) and (lock := Lock.try_take(path)):
                self._throw_away(path.removesuffix(_LOCK))
                lock.remove()
            elif _is_committed(name):
                self._distrust(path)

    # --- records ----------------------------------------------------------------------------------------

    def _require(self, chain_id: Digest) -> Committed:
        found = self.find(chain_id)
        if found is None:
            raise StoreError(
                f"the layer {chain_id} is not unpacked", path=self._store.path, hint="pull the image again"
            )
        return found

    def _read(self, chain_id: Digest) -> Committed | None:
        path = self._place(chain_id)
        record = _read_record(path)
        if record is None or record.chain_id != chain_id or not self._trusts(record):
            self._distrust(path)
            return None
        self._settle(path, record)
        return self._committed(record)

    def _committed(self, record: _Record) -> Committed:
        return Committed(record.chain_id, record.parent, f"{self._place(record.chain_id)}/fs", record.size)

    @staticmethod
    def _trusts(record: _Record) -> bool:
        return record.boot in ("", _boot_id())

    def _distrust(self, path: str) -> None:
        """Throw away what is at *path* if it is still not to be trusted: somebody may have made it anew."""
        if not os.path.isdir(path):
            return
        with Lock.take(self._store.lock(CONTENT)):
            record = _read_record(path)
            if record is None or not self._trusts(record):
                self._throw_away(path)

    def _settle(self, path: str, record: _Record) -> None:
        """Note that the files are on the disk, once they must be."""
        if record.boot and time.time() - os.stat(f"{path}/record").st_mtime > _SETTLED_AFTER:
            settled = attrs.evolve(record, boot="").encode()
            with suppress(OSError):  # in a store that can only be read, the note is not missed
                replace_file(f"{path}/record", settled, f"{path}/record.{os.urandom(8).hex()}")


@attrs.frozen
class _Record:
    """What is known of a snapshot. *boot* is that of its making, empty when it does not matter any more."""

    chain_id: Digest
    parent: Digest | None
    size: int
    boot: str

    @classmethod
    def parse(cls, content: bytes) -> _Record:
        members: dict[str, Any] = json.loads(content)
        parent = members["parent"]
        return cls(
            Digest.parse(members["chain-id"]),
            Digest.parse(parent) if parent else None,
            members["size"],
            members["boot"],
        )

    def encode(self) -> bytes:
        members = {
            "chain-id": str(self.chain_id),
            "parent": str(self.parent) if self.parent else None,
            "size": self.size,
            "boot": self.boot,
        }
        return json.dumps(members).encode()


def _read_record(path: str) -> _Record | None:
    try:
        return _Record.parse(read_file(f"{path}/record"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, InvalidImage):
        return None  # what has no sound record is no snapshot


def _is_committed(name: str) -> bool:
    return not name.startswith((_NEW, _TRASH))


@cache
def _boot_id() -> str:
    # random(4): the same for as long as the kernel runs
    return read_file("/proc/sys/kernel/random/boot_id").decode().strip()
