"""What the kernel does not clean up: an owner's folder of writable layers, and those of owners that were killed.

Below the state folder each zygote has one folder, locked with flock(2) as long as it lives::

    STATE/<name>/lock                held by the zygote
    STATE/<name>/cgroups             the journal of its control groups, when there are any
    STATE/<name>/networks            there when it has bridges in the host's network namespace
    STATE/<name>/images              a tmpfs of the zygote, for small trees that the owner makes
    STATE/<name>/layers/root, …      where each child mounts its trees, in its own mount namespace
    STATE/<name>/layers/init         the lowest layer of all: the places on which something is mounted in each container
    STATE/<name>/layers/<n>/upper    the writable layer of one container, and overlayfs's work beside it

A folder whose lock can be taken belongs to nobody any more. The next zygote of the same user removes it.
The lock of the state folder itself covers the moments when a folder exists and is not locked yet.

The zygote imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress

from pycontain.kernel import syscalls
from pycontain.kernel.trees import remove_tree

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Iterator

_SPARE_LAYERS = 2
_AT_ONCE = 256  # entries that the zygote removes itself; for more it forks
# The working directory of children, some of whom are not root any more; who is not below it already cannot come by.
_PASSABLE = 0o711
_INIT_FOLDERS = ("init", "init/dev", "init/etc", "init/proc", "init/sys")
_INIT_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
NETWORKS = "networks"
_MARK, _SIGNATURE, _JOURNAL = "lock", b"pycontain\n", "cgroups"


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the lock of the directory *folder* itself, flock(2): what comes into sight there and goes does so one at a time."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _make_private(state: str) -> None:
    """Have a folder that only this user can change: who could put files there could put them into containers."""
    os.makedirs(state, mode=0o700, exist_ok=True)
    found = os.stat(state)
    # In a folder like /tmp the sticky bit keeps others from what is ours.
    if not found.st_mode & stat.S_ISVTX and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        raise PermissionError(
            errno.EPERM, "it must belong to this user, and others may not write to it", state
        )


class OwnerFolder:
    """The folder of one zygote, whose working directory is ``layers`` in it. A layer is known by its name there."""

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self.layers = f"{path}/layers"
        self.images = f"{path}/images"
        self.journal = f"{path}/{_JOURNAL}"
        self.lock = lock
        self.in_memory = False
        self.made = 0
        self.spare: list[str] = []

    @classmethod
    def create(cls, state: str) -> OwnerFolder:
        """Make and lock a new folder below *state*."""
        _make_private(state)
        with locked(state):
            path = f"{state}/{os.urandom(6).hex()}"
            os.mkdir(path, 0o700)
            try:
                lock = os.open(f"{path}/{_MARK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.write(lock, _SIGNATURE)
            except OSError:
                remove_tree(path)
                raise
        folder = cls(path, lock)
        try:
            os.mkdir(folder.images, 0o700)
            os.mkdir(folder.layers)
            os.chmod(folder.layers, _PASSABLE)
            folder.make_places()
        except OSError:
            remove_tree(path)
            raise
        return folder

    def make_places(self) -> None:
        """Make the directories where children mount, in the caller's mount namespace, and the lowest layer."""
        for name in ("root", "files", "stage", "nodes"):
            os.mkdir(f"{self.layers}/{name}", 0o700)
        for name in _INIT_FOLDERS:
            os.mkdir(f"{self.layers}/{name}")
            os.chmod(f"{self.layers}/{name}", 0o755)
        for name in _INIT_FILES:
            with open(f"{self.layers}/init/{name}", "xb") as file:
                os.fchmod(file.fileno(), 0o644)

    def holds_layers(self, *, rootless: bool) -> bool:
        """Whether overlayfs takes an upper directory here; not on another overlay, nor on most network file systems."""
        layer = self.take_layer()
        options = f"lowerdir=files,upperdir={layer}/upper,workdir={layer}/work" + ",userxattr" * rootless
        try:
            syscalls.mount("overlay", "root", "overlay", 0, options)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.EREMOTE}:
                raise
            return False
        else:
            syscalls.umount2("root", syscalls.MNT_DETACH)
            return True
        finally:
            remove_tree(layer)

    def make_ready(self) -> None:
        """Have folders for the next containers: making them takes a tenth of a start."""
        while len(self.spare) < _SPARE_LAYERS:
            name = str(self.made)
            self.made += 1
            os.mkdir(name, 0o700)
            try:
                os.mkdir(f"{name}/upper", 0o755)
                os.mkdir(f"{name}/work", 0o755)
            except OSError:
                remove_tree(name)
                raise
            self.spare.append(name)

    def take_layer(self) -> str:
        """The name of a folder with an empty ``upper`` and ``work``."""
        if not self.spare:
            self.make_ready()
        return self.spare.pop()

    def give_back(self, name: str) -> int:
        """Remove a layer. Returns 0, or the pid of a child that is at it because it is large."""
        if remove_tree(name, _AT_ONCE):
            return 0
        pid = os.fork()
        if pid == 0:
            try:
                remove_tree(name)
            finally:
                os._exit(0)
        return pid

    def remove(self) -> None:
        """Unmount and remove the folder; the zygote is about to end."""
        os.chdir("/")
        for place in (self.images, f"{self.layers}/nodes", self.layers):
            try:
                syscalls.umount2(place, syscalls.MNT_DETACH)
            except OSError as error:
                if error.errno != errno.EINVAL:  # layers are on disk, usually, and there are no devices
                    raise
        remove_folder(self.path)


def remove_folder(path: str) -> None:
    """Remove a zygote's folder, its mark last: who is killed meanwhile leaves what the next sweep knows as ours."""
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            elif entry.name != _MARK:
                os.unlink(entry.path)
    remove_tree(path)


def abandoned(state: str) -> list[tuple[str, int]]:
    """Folders of zygotes that are dead, each with its lock, which is the caller's now.

    Only what a zygote has signed is touched; one that was killed before it could sign has left an empty folder.
    """
    found = []
    with locked(state):
        for name in filter(_is_ours, os.listdir(state)):
            path = f"{state}/{name}"
            try:
                lock = os.open(f"{path}/{_MARK}", os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:  # not ours, or gone since it was listed
                _remove_if_empty(path)
                continue
            if _is_free(lock) and _is_signed(lock, path):
                found.append((path, lock))
            else:
                os.close(lock)
    return found


def _is_ours(name: str) -> bool:
    return len(name) == 12 and not name.strip("0123456789abcdef")


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_signed(lock: int, path: str) -> bool:
    """Whether a zygote wrote it, or was killed when it was about to and had made nothing else."""
    text = os.pread(lock, len(_SIGNATURE) + 1, 0)
    return text == _SIGNATURE or (not text and os.listdir(path) == [_MARK])


def _remove_if_empty(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:  # it is not empty, or no directory: somebody's
        return


def sweep(state: str) -> int:
    """Remove what dead zygotes left. Returns 0 when there was nothing, or the pid of the child that does it."""
    dead = abandoned(state)
    if not dead:
        return 0
    pid = os.fork()
    if pid == 0:
        try:
            for path, _ in dead:
                remove_bridges(path)
                if _groups_are_removed(f"{path}/{_JOURNAL}"):
                    remove_folder(path)
        finally:
            os._exit(0)
    for _, lock in dead:
        os.close(lock)  # the child has them
    return pid


def bridge_prefix(name: str) -> str:
    """How the bridges of the zygote with the folder *name* are called, before a number; netdevice(7) has 15 letters."""
    return f"pyc{name[:8]}-"


def remove_bridges(path: str) -> None:
    """Remove those of the zygote with the folder *path*, in the caller's network namespace.

    Its table went with its porter, and its links with the namespaces of containers.
    """
    if not os.path.exists(f"{path}/{NETWORKS}"):
        return
    from pycontain.kernel.links import Links  # noqa: PLC0415 - the zygote does without

    prefix = bridge_prefix(os.path.basename(path))
    with Links() as links, suppress(OSError):  # we may have lost the right to; then they stay, and are empty
        for name in links.names():
            if name.startswith(prefix):
                links.remove(name)


def _groups_are_removed(journal: str) -> bool:
    """Whether the control groups in the journal are gone; if not, it is needed again."""
    if not os.path.exists(journal):
        return True
    from pycontain.runtime import cgroups  # noqa: PLC0415 - the zygote does without as long as nobody wants limits

    return cgroups.sweep(journal)
