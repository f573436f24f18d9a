"""The build cache: which layer an instruction made, by a key of all that it depends on. One small file for each.

A record only points at a blob. It protects nothing: what no name leads to is collected, and then its record is worth nothing,
and is removed by who finds out.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.store.files import read_file, remove_file, replace_file, storing

if TYPE_CHECKING:
    from pycontain.store.leases import Lease
    from pycontain.store.store import Store


@attrs.frozen
class Built:
    """A layer that was built: its blob and its diff ID."""

    descriptor: Descriptor
    diff_id: Digest


@attrs.frozen
class BuildCache:
    """The cache in *store*; unrelated processes share it."""

    store: Store

    def find(self, key: str, lease: Lease) -> Built | None:
        """The layer of *key*, protected by *lease*; None when it was not built, or is not there any more."""
        path = self._path(key)
        with storing(self.store.path):
            try:
                built = _parse(read_file(path))
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError, InvalidImage):
                remove_file(path)
                return None
        lease.protect(built.descriptor.digest)  # first, and then look
        if self.store.blobs.size(built.descriptor.digest) == built.descriptor.size:
            return built
        remove_file(path)
        return None

    def keep(self, key: str, built: Built) -> None:
        """Remember what *key* has made; a later one replaces it."""
        members = {
            "media-type": built.descriptor.media_type,
            "digest": str(built.descriptor.digest),
            "size": built.descriptor.size,
            "diff-id": str(built.diff_id),
        }
        path = self._path(key)
        with storing(self.store.path):
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            replace_file(path, json.dumps(members).encode(), f"{path}.{os.urandom(8).hex()}")

    def tidy(self) -> None:
        """Remove the records of layers that are not there any more."""
        folder = os.path.dirname(self._path(""))
        with suppress(FileNotFoundError):  # nothing was ever built
            for name in os.listdir(folder):
                with suppress(FileNotFoundError, ValueError, KeyError, TypeError, InvalidImage):
                    if not self.store.blobs.has(_parse(read_file(f"{folder}/{name}")).descriptor.digest):
                        remove_file(f"{folder}/{name}")

    def _path(self, key: str) -> str:
        return f"{self.store.folder.own}/builds/{key}"


def _parse(content: bytes) -> Built:
    members: dict[str, Any] = json.loads(content)
    digest = Digest.parse(members["digest"])
    return Built(Descriptor(members["media-type"], digest, members["size"]), Digest.parse(members["diff-id"]))
