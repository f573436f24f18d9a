"""Where a store is and what lies where in it: an OCI image layout, and a folder of our own beside its files.

::

    STORE/oci-layout, index.json, blobs/    the image layout; index.json is the truth about names
    STORE/pycontain/version                 which pycontain can read the rest
    STORE/pycontain/locks/                  content and names, see pycontain.store.store
    STORE/pycontain/leases/                 what processes are using
    STORE/pycontain/partial/                blobs on their way
    STORE/pycontain/snapshots/<kind>/       unpacked layers
    STORE/pycontain/used/                   when each manifest was last used
    STORE/pycontain/tidied                  when somebody last looked for what killed processes left
"""

from __future__ import annotations

import fcntl
import os

import attrs

from pycontain.errors import InvalidImage, StoreError
from pycontain.oci.layout import BLOBS, INDEX_FILE, LAYOUT_FILE, ImageLayout
from pycontain.oci.manifest import Index
from pycontain.store.files import read_file, replace_file, storing

VERSION = "1"

#: The lock that collecting takes alone, and shares with everybody who makes something count as used.
CONTENT = "content"
#: The lock of ``index.json``.
NAMES = "names"

_PRIVATE = 0o700  # snapshots hold programs that are set-uid root
_BESIDE = ".new"
_LOCKS = (CONTENT, NAMES)
_FOLDERS = ("locks", "leases", "partial", "snapshots", "used")
# What a folder may hold before it becomes a store: what mkfs makes, and what a killed creation leaves.
_NOTHING = {"lost+found", LAYOUT_FILE + _BESIDE}


@attrs.frozen
class Folder:
    """The paths in the store at *path*, which is absolute."""

    path: str

    @property
    def own(self) -> str:
        """What image-spec knows nothing of."""
        return f"{self.path}/pycontain"

    @property
    def index(self) -> str:
        """``index.json``."""
        return f"{self.path}/{INDEX_FILE}"

    @property
    def partial(self) -> str:
        """Blobs on their way."""
        return f"{self.own}/partial"

    @property
    def leases(self) -> str:
        """What processes are using."""
        return f"{self.own}/leases"

    @property
    def snapshots(self) -> str:
        """Unpacked layers, one folder for each kind."""
        return f"{self.own}/snapshots"

    @property
    def used(self) -> str:
        """A file for each manifest, with the time of its last use."""
        return f"{self.own}/used"

    @property
    def tidied(self) -> str:
        """An empty file whose time says when the store was last tidied."""
        return f"{self.own}/tidied"

    def lock(self, name: str) -> str:
        """The file of the lock *name*."""
        return f"{self.own}/locks/{name}"


def default_path() -> str:
    """``PYCONTAIN_STORE``; else ``/var/lib/pycontain/store`` for root, and for others a folder below ``XDG_DATA_HOME``."""
    if chosen := os.environ.get("PYCONTAIN_STORE"):
        return chosen
    if os.geteuid() == 0:
        return "/var/lib/pycontain/store"
    return f"{data_home()}/pycontain"


def data_home() -> str:
    """Where a user's programs keep what is to stay: ``XDG_DATA_HOME``, else ``~/.local/share``."""
    given = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: relative paths are to be ignored.
    return given if given.startswith("/") else os.path.expanduser("~/.local/share")


def open_folder(path: str) -> Folder:
    """The store at *path*, created when nothing is there, adopted when an image layout is.

    :class:`StoreError` when something else is there, or the store of a newer pycontain.
    """
    folder = Folder(os.path.abspath(path))
    with storing(folder.path):
        try:
            version = _version_of(folder)
        except (FileNotFoundError, NotADirectoryError):
            version = _create(folder)
    if version != VERSION:
        raise StoreError(
            f"the store {folder.path} has the format {version[:20]!r}, and this pycontain knows {VERSION!r}",
            path=folder.path,
            hint="update pycontain, or use another store: Store(path), or PYCONTAIN_STORE in the environment",
        )
    return folder


def _version_of(folder: Folder) -> str:
    return read_file(f"{folder.own}/version").decode(errors="replace").strip()


def _create(folder: Folder) -> str:
    os.makedirs(folder.path, _PRIVATE, exist_ok=True)
    here = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(here, fcntl.LOCK_EX)
        _make_layout(folder)
        os.makedirs(folder.own, _PRIVATE, exist_ok=True)
        for name in _FOLDERS:
            os.makedirs(f"{folder.own}/{name}", _PRIVATE, exist_ok=True)
        for name in _LOCKS:  # now, because later the disk may be full, and collecting must still be possible
            os.close(os.open(folder.lock(name), os.O_WRONLY | os.O_CREAT, 0o600))
        if not os.path.exists(f"{folder.own}/version"):  # last: with it the store is complete
            replace_file(f"{folder.own}/version", f"{VERSION}\n".encode(), f"{folder.own}/version{_BESIDE}")
        return _version_of(folder)
    finally:
        os.close(here)


def _make_layout(folder: Folder) -> None:
    layout = f"{folder.path}/{LAYOUT_FILE}"
    if os.path.exists(layout):
        _check_layout(folder, read_file(layout))
    elif set(os.listdir(folder.path)) <= _NOTHING:
        replace_file(layout, ImageLayout().encode(), layout + _BESIDE)
    else:
        raise StoreError(
            f"{folder.path} is no store and not empty",
            path=folder.path,
            hint="name a folder that is new or empty",
        )
    if not os.path.exists(folder.index):
        replace_file(folder.index, Index(()).encode(), folder.index + _BESIDE)
    os.makedirs(f"{folder.path}/{BLOBS}/sha256", exist_ok=True)


def _check_layout(folder: Folder, content: bytes) -> None:
    try:
        ImageLayout.parse(content)
    except InvalidImage as error:
        raise StoreError(
            f"{folder.path} is an image layout that cannot be a store: {error}", path=folder.path
        ) from error
