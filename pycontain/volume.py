"""Named volumes: directories of data that outlive containers, and that any number of them may share.

::

    VOLUMES/<name>/data        the content, as containers see it; owners are the container's own numbers
    VOLUMES/<name>/record      when it was made, and its labels
    VOLUMES/<name>/asked       of which images it was found out that they have nothing to begin with
    VOLUMES/.locks/<name>      shared by whoever uses it, held alone by whoever removes it
    VOLUMES/.new-…, .trash-…   on its way in and out

A volume comes into sight and goes by a rename, under a lock of the folder; so does the content that an image gives to a
volume that is still empty. What a killed process left behind is removed by the next one that makes or removes a volume.
A container's owner holds the volume's lock as long as the container runs, and a lock ends with its holder.
"""

from __future__ import annotations

import errno
import json
import os
import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import attrs

from pycontain.errors import InvalidSpec, PycontainError, StoreBusy, VolumeError, VolumeInUse, VolumeNotFound
from pycontain.kernel.trees import remove_tree
from pycontain.runtime.probe import is_privileged
from pycontain.runtime.sweep import locked
from pycontain.store.files import read_file, replace_file
from pycontain.store.folder import data_home
from pycontain.store.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pycontain.process.prepared import Compiled
    from pycontain.runtime.engine import Engine
    from pycontain.sandbox.spec import Mount

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PRIVATE = 0o700  # volumes may hold programs that are set-uid root
_LOCKS, _NEW, _TRASH = ".locks", ".new-", ".trash-"
_PATIENCE = 10.0  # seconds for somebody who is filling or removing it


def folder() -> str:
    """Where volumes are: ``PYCONTAIN_VOLUMES``, else /var/lib for root, else ``pycontain-volumes`` below XDG_DATA_HOME."""
    if chosen := os.environ.get("PYCONTAIN_VOLUMES"):
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/lib/pycontain/volumes"
    return f"{data_home()}/pycontain-volumes"


def data_of(name: str) -> str:
    """Where the content of the volume *name* is, or would be."""
    return f"{folder()}/{name}/data"


def parse_name(given: str | Volume) -> str:
    """The name that a volume has, or a text that may be one: letters, digits, dots, dashes and underscores."""
    name = given.name if isinstance(given, Volume) else given
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a volume; use letters, digits, dots, dashes and underscores"
        )
    return str.__str__(name)


@attrs.frozen
class VolumeUsage:
    """What a volume takes: ``bytes`` on the disk, and how many ``entries`` it holds."""

    bytes: int
    entries: int


class Volume:
    """The volume *name*, created when it is missing; without a name a new one with a name of its own.

    *labels* are given to a volume that is created; one that is there must have them, if they are said. As a context
    manager it is removed at the end if this made it.

    >>> from pycontain import Container, Volume
    >>> with Volume() as cache:
    ...     box = Container("host:").volume(cache, "/var/cache/own")
    ...     box.run("sh", "-c", "echo kept > /var/cache/own/f", check=True).ok
    ...     box.run("cat", "/var/cache/own/f").stdout.strip()
    True
    'kept'
    """

    name: str
    made: bool
    """Whether this object created it."""

    def __init__(self, name: str | None = None, *, labels: Mapping[str, str] | None = None) -> None:
        problems = []
        if name is not None:
            try:
                parse_name(name)
            except ValueError as error:
                problems.append(str(error))
        given = dict(labels or {})
        if not all(isinstance(word, str) for pair in given.items() for word in pair):
            problems.append("labels are texts by text")
        if problems:
            raise InvalidSpec(tuple(problems))
        self.name = os.urandom(16).hex() if name is None else name
        self._folder = folder()
        with _disk(self._folder):
            self.made = _create(self._folder, self.name, given, anonymous=name is None)
        if labels is not None and not self.made and given != self.labels:
            raise VolumeError(
                f"the volume {self.name} is there, with other labels: {self.labels}",
                volume=self.name,
                hint="remove it, or choose another name",
            )

    @classmethod
    def find(cls, name: str) -> Self:
        """The volume *name*, which is there; :class:`VolumeNotFound` when it is not."""
        found = cls.__new__(cls)
        found.name, found.made = name, False
        found._folder = folder()  # noqa: SLF001 - as __init__ does, and nothing is made
        if not _NAME.fullmatch(name) or not os.path.isdir(found.path):
            raise VolumeNotFound(
                f"there is no volume {name}", volume=name, hint="pycontain volume ls lists those there are"
            )
        return found

    @classmethod
    def list(cls) -> tuple[Self, ...]:
        """All volumes, by name."""
        with _disk(folder()), suppress(FileNotFoundError):  # nobody has made one yet
            names = sorted(filter(_NAME.fullmatch, os.listdir(folder())))
            return tuple(found for name in names if (found := cls._found(name)) is not None)
        return ()

    @classmethod
    def _found(cls, name: str) -> Self | None:
        with suppress(VolumeNotFound):  # it was removed just now
            return cls.find(name)
        return None

    @classmethod
    def prune(cls, *, all: bool = False) -> tuple[str, ...]:  # noqa: A002 - the word of docker volume prune
        """Remove volumes that nobody uses: those that were made without a name, or *all*. Their names."""
        removed = []
        for volume in cls.list():
            if all or volume.anonymous:
                with suppress(VolumeInUse, VolumeNotFound):
                    volume.remove()
                    removed.append(volume.name)
        return tuple(removed)

    def __repr__(self) -> str:
        return f"<Volume {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and (self.name, self._folder) == (other.name, other._folder)

    def __hash__(self) -> int:
        return hash((self.name, self._folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.made:
            with suppress(VolumeNotFound):
                self.remove()

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Its content on the host. As root, owners there are the containers' numbers; otherwise subordinate ids."""
        return f"{self._folder}/{self.name}/data"

    @property
    def labels(self) -> dict[str, str]:
        """The labels that it was created with."""
        return dict(self._record()["labels"])

    @property
    def created(self) -> datetime:
        """When it was created."""
        return datetime.fromisoformat(self._record()["created"])

    @property
    def anonymous(self) -> bool:
        """Whether it was created without a name."""
        return bool(self._record()["anonymous"])

    @property
    def in_use(self) -> bool:
        """Whether a container has it now, of any process."""
        with _disk(self._folder):
            lock = Lock.try_take(_lock_of(self._folder, self.name))
            if lock is None:
                return True
            lock.release()
            return False

    def usage(self) -> VolumeUsage:
        """What it takes on the disk; every file is looked at."""
        if is_privileged():
            from pycontain.runtime.filling import measure  # noqa: PLC0415 - few ask for it

            with _disk(self._folder):
                return VolumeUsage(*measure(self.path))
        with _unpacker() as unpacker:
            return VolumeUsage(*unpacker.measure(self.path))

    def inspect(self) -> dict[str, Any]:
        """Everything about it, as JSON values with the keys of ``docker volume inspect``."""
        record = self._record()
        return {
            "Name": self.name,
            "Driver": "local",
            "Mountpoint": self.path,
            "CreatedAt": record["created"],
            "Labels": record["labels"],
            "Anonymous": record["anonymous"],
            "InUse": self.in_use,
        }

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(read_file(f"{self._folder}/{self.name}/record"))
        except FileNotFoundError:
            raise VolumeNotFound(f"there is no volume {self.name}", volume=self.name) from None
        except (OSError, ValueError) as error:
            raise VolumeError(f"the volume {self.name} cannot be read: {error}", volume=self.name) from error
        return record

    # --- its end ----------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove it with all that is in it; :class:`VolumeInUse` while a container has it, :class:`VolumeNotFound`."""
        with _disk(self._folder):
            lock = Lock.try_take(_lock_of(self._folder, self.name))
            if lock is None:
                raise VolumeInUse(
                    f"the volume {self.name} is used by a container",
                    volume=self.name,
                    hint="end the container before",
                )
            with lock:
                with locked(self._folder):
                    if not os.path.isdir(f"{self._folder}/{self.name}"):
                        lock.remove()
                        raise VolumeNotFound(f"there is no volume {self.name}", volume=self.name)
                    os.rename(f"{self._folder}/{self.name}", f"{self._folder}/{_TRASH}{os.urandom(8).hex()}")
                lock.remove()
            _sweep(self._folder)


# --- on the disk ----------------------------------------------------------------------------------------


@contextmanager
def _disk(path: str) -> Iterator[None]:
    """Tell what the kernel says of the folder of volumes in our own words."""
    try:
        yield
    except PycontainError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise VolumeError(
            f"the folder of volumes {path} cannot be used: {error.strerror}{where}",
            hint="see its mode and its disk, or choose another one: PYCONTAIN_VOLUMES",
        ) from error


def _lock_of(place: str, name: str) -> str:
    return f"{place}/{_LOCKS}/{name}"


def _make_folder(place: str) -> None:
    """Have a folder that only this user can change: who could put files there could put them into containers."""
    os.makedirs(place, _PRIVATE, exist_ok=True)
    found = os.stat(place)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            errno.EPERM, "it must belong to this user, and others may not write to it", place
        )
    with suppress(FileExistsError):
        os.mkdir(f"{place}/{_LOCKS}", _PRIVATE)


def _create(place: str, name: str, labels: Mapping[str, str], *, anonymous: bool) -> bool:
    """Make a volume; False when it is there."""
    if os.path.isdir(f"{place}/{name}"):
        return False
    _make_folder(place)
    made = f"{place}/{_NEW}{os.urandom(8).hex()}"
    with locked(place):
        os.mkdir(made, _PRIVATE)
        os.mkdir(f"{made}/data", 0o755)
        os.chmod(f"{made}/data", 0o755)  # whatever the umask
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        record = {"created": now, "labels": dict(labels), "anonymous": anonymous}
        replace_file(f"{made}/record", json.dumps(record).encode(), f"{made}/record.new")
        try:
            os.rename(made, f"{place}/{name}")
        except OSError as error:
            remove_tree(made)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            return False
    return True


def _sweep(place: str) -> None:
    """Remove what was thrown away, by us or by one that was killed, and what was never finished."""
    with locked(place):  # so nobody is making one
        for name in os.listdir(place):
            if name.startswith(_NEW):
                os.rename(f"{place}/{name}", f"{place}/{_TRASH}{os.urandom(8).hex()}")
    for name in os.listdir(place):
        if name.startswith(_TRASH):
            _remove(f"{place}/{name}")


def _remove(path: str) -> None:
    try:
        remove_tree(path)
    except PermissionError:
        if is_privileged():
            raise
        with _unpacker() as unpacker:  # some of it belongs to subordinate ids
            unpacker.remove_tree(path)


@contextmanager
def _unpacker() -> Iterator[Any]:
    """A process that may look at and remove what a container's users have made."""
    from pycontain.runtime.engine import engine  # noqa: PLC0415 - only this needs a zygote
    from pycontain.runtime.unpack import Unpacker  # noqa: PLC0415 - as above

    with Unpacker(engine()) as unpacker:
        yield unpacker


# --- in a container -------------------------------------------------------------------------------------


def hold(compiled: Compiled, engine: Engine) -> tuple[Lock, ...]:
    """Have the volumes of a container that is about to start: made, filled, and in use until the locks are released."""
    held: list[Lock] = []
    try:
        for mount in compiled.sandbox.mounts:
            if mount.volume:
                held.append(_use(mount.volume))
                if mount.fill:
                    _fill(mount, compiled, engine)
    except BaseException:
        for lock in held:
            lock.release()
        raise
    return tuple(held)


def _use(name: str) -> Lock:
    place = folder()
    with _disk(place):
        _make_folder(place)
        try:
            lock = Lock.take(_lock_of(place, name), shared=True, timeout=_PATIENCE)
        except StoreBusy as error:
            raise VolumeInUse(f"the volume {name} is being removed", volume=name, hint="try again") from error
        try:
            _create(place, name, {}, anonymous=False)
        except BaseException:
            lock.release()
            raise
        return lock


def _fill(mount: Mount, compiled: Compiled, engine: Engine) -> None:
    """Give an empty volume what the image has at its place; what has nothing there, the container's user."""
    from pycontain.runtime.unpack import Unpacker  # noqa: PLC0415 - a volume is empty but once

    above = os.path.dirname(mount.source)
    with _disk(above):
        lower = tuple(map(str, compiled.image.rootfs.lowerdirs))
        key = json.dumps([lower, mount.target, compiled.sandbox.user]).encode()
        if not _is_empty(mount.source) or _was_asked(above, key):
            return
        with Lock.take(f"{above}/filling", timeout=None):
            if not _is_empty(mount.source) or _was_asked(above, key):
                return
            new = f"{above}/data.new"
            _remove(new)
            os.mkdir(new, 0o755)
            os.chmod(new, 0o755)
            with Unpacker(engine) as unpacker:
                unpacker.fill(new, lower, str(mount.target), compiled.sandbox.user)
            with suppress(
                OSError
            ):  # somebody of the host has put something there, which is then what it holds
                os.rename(new, mount.source)
            _remove(new)
            replace_file(f"{above}/asked", key, f"{above}/asked.new")


def _is_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except PermissionError:  # it belongs to one of the container's users already
        return False


def _was_asked(above: str, key: bytes) -> bool:
    with suppress(FileNotFoundError):
        return read_file(f"{above}/asked") == key
    return False


def names_of(mounts: Iterable[Mount]) -> tuple[str, ...]:
    """The volumes among *mounts*."""
    return tuple(mount.volume for mount in mounts if mount.volume)
