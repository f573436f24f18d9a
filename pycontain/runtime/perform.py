"""The only functions that change the kernel's state for a container. Each does one kind of step.

They run in the child, between clone3(2) and execve(2), on plain tuples: ``(name, tolerate, *fields)`` with the
fields of the class of that name in :mod:`pycontain.sandbox.steps`. The first failure ends it; what was built
until then dies with the child's namespaces.

Places below the root are opened with openat2(2) from a descriptor of the root, and acted upon through that
descriptor: a path of the image is never given to the kernel to be walked from the host's root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
import struct
import sys
import time

from pycontain.kernel import landlock, netdevice, privileges, seccomp, syscalls
from pycontain.runtime import supervise
from pycontain.sandbox.accounts import UnknownAccount, resolve_user

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

# Where in the zygote's working directory every child mounts its trees: each has its own mount namespace.
ROOT, FILES, STAGE, NODES = "root", "files", "stage", "nodes"
INIT = "init"  # beside them, the lowest layer of every container

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_PLAIN = _IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
_AT_FDCWD = -100
DEVICE_ATTRIBUTES = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
"""Nobody changes mode or owner of the host's node through such a mount; writing to the device goes on."""
MASK_OPTIONS = "nr_inodes=1,mode=755"
_OWN_TREES = frozenset({"/dev/pts", "/dev/shm", "/dev/mqueue"})  # what a container has of its own
_OWN_NODES = frozenset({"/dev/ptmx", "/dev/console"})
_TREE = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
_PTMX = os.makedev(5, 2)
# ioctl_tty(2), <asm-generic/ioctls.h>
_TIOCSCTTY, _TIOCSWINSZ, _TIOCGPTPEER = 0x540E, 0x5414, 0x5441
_TIOCGPTN, _TIOCSPTLCK = 0x80045430, 0x40045431
CONNECTED = "connected"
"""The alias of lo when the network namespace has all that it shall have."""
_RTMGRP_LINK, _PAGE = 1, 4096
_MOST_LINKS = 40  # as path_resolution(7)
_ACCOUNT_FILE_LIMIT = 4 << 20


class StepRefused(Exception):
    """Step *index* of the plan failed with *errno*."""

    def __init__(self, index: int, number: int, text: str) -> None:
        super().__init__(index, number, text)
        self.index = index
        self.errno = number
        self.text = text


class Child:
    """What the steps of one plan share. A spare child learns at last whose it is: :meth:`belong`."""

    def __init__(self, last_capability: int, descriptors: int) -> None:
        self.last_capability = last_capability
        self.descriptors = descriptors  # the soft RLIMIT_NOFILE of the owner
        self.folder = ""
        self.root = -1  # the stage, until the overlay is mounted
        self.stage = -1
        self.files = -1
        self.trees: list[int] = []  # what the zygote has cloned, by number; -1 when it is attached and closed
        self.installed = 0
        self.layer = -1  # the upper directory, where it is in a file system of the container's own
        self.kernel_devices: set[int] = set()  # st_dev of the /proc and /sys that we mounted
        self.has_input = self.has_terminal = False
        self.secrets: list[int] = []
        self.uid = self.gid = 0
        self.groups: tuple[int, ...] = ()
        self.home = "/"
        self.ahead = 0.0  # seconds by which time.monotonic() of its time namespace is before the zygote's

    def adopt(self, stage: int, files: int) -> None:
        """Know the stage that is open at *stage*, with /proc and /sys on it, and the place of installed files."""
        self.root, self.files = stage, files
        self.kernel_devices = {os.stat(name, dir_fd=stage).st_dev for name in ("proc", "sys")}

    def limit_descriptors(self) -> None:
        """Give back what the zygote took for itself."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, most))

    def belong(self, ident: str, folder: str, contents: Sequence[bytes], *, has_input: bool) -> None:
        """Know the container's id, the folder of its writable layer, the bytes of its files, and whether 0 is open."""
        self.id = ident
        self.folder = folder
        if folder:  # an exec has none, and finds the name in the container's uts namespace
            self.hostname = ident[:12]
        self.contents = contents
        self.has_input = has_input


def perform(
    steps: Sequence[tuple[Any, ...]],
    child: Child,
    first: int,
    times: list[float] | None = None,
    before: int = 0,
) -> None:
    """Do *steps* in order, from the one at index *first*; raise :class:`StepRefused` at the first that fails.

    *before* is how many steps of the plan precede these; *times* collects the moment at which each was done.
    """
    for index in range(first, len(steps)):
        name, tolerate, *fields = steps[index]
        try:
            DOERS[name](child, *fields)
        except OSError as error:
            if error.errno not in tolerate:
                raise StepRefused(before + index, error.errno or 0, str(error.filename or "")) from error
        if times is not None:
            times.append(time.monotonic() - child.ahead)


def rehearse(child: Child) -> None:
    """Do once on the stage what every plan does later on the image.

    A process copies each page that it writes to first, and Python writes wherever it looks; after this the child has its
    own of most that it will need, before anybody waits for it. What is mounted here goes with the stage.
    """
    if child.root >= 0:  # for an exec there is no stage
        os.close(_mount_point(child, "/dev", directory=True, resolve=_PLAIN))
        install_file(child, "/rehearsal", 0, -1, 0o600, "resolver", read_only=False, secret=False)
    resolve_user("0", "", "")
    privileges.set_parent_death_signal()


# --- opening places below the root ----------------------------------------------------------------------


def _open(child: Child, path: str, flags: int = os.O_PATH, resolve: int = _IN_ROOT) -> int:
    return syscalls.openat2(child.root, path[1:] or ".", flags, resolve=resolve)


def _open_parent(child: Child, path: str) -> tuple[int, str]:
    parent, _, name = path.rpartition("/")
    return _open(child, parent or "/", os.O_PATH | os.O_DIRECTORY), name


def _mount_point(child: Child, path: str, *, directory: bool, resolve: int = _IN_ROOT) -> int:
    """Open the place *path*; when there is nothing, make it and its parents first."""
    try:
        return _open(child, path, resolve=resolve)
    except FileNotFoundError:
        _make(child, path, directory=directory)
    return _open(child, path, resolve=resolve)


def _make(child: Child, path: str, *, directory: bool, links: int = 0) -> None:
    """Make what is missing of *path*; a link that leads nowhere is made to lead somewhere, inside."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    for depth, name in enumerate(parts, 1):
        last = depth == len(parts)
        parent = _open(child, "/" + "/".join(parts[: depth - 1]), os.O_PATH | os.O_DIRECTORY)
        try:
            _make_entry(name, parent, directory=directory or not last)
        except FileExistsError:
            try:
                os.close(_open(child, "/" + "/".join(parts[:depth])))
                continue
            except FileNotFoundError:
                target = os.readlink(name, dir_fd=parent)
        else:
            continue
        finally:
            os.close(parent)
        if links == _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        base = "/" if target.startswith("/") else "/" + "/".join(parts[: depth - 1]) + "/"
        _make(child, "/".join((base + target, *parts[depth:])), directory=directory, links=links + 1)
        return


def _make_entry(name: str, parent: int, *, directory: bool) -> None:
    if directory:
        os.mkdir(name, 0o755, dir_fd=parent)
    else:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=parent))


def _make_directory(child: Child, path: str, mode: int) -> None:
    parent, name = _open_parent(child, path)
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return
    finally:
        os.close(parent)


def _refuse_kernel_files(child: Child, target: int) -> None:
    """A user's mount must not land in /proc or /sys by way of the image's links (CVE-2025-52565 and its kin)."""
    if os.fstat(target).st_dev in child.kernel_devices:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _attach(child: Child, tree: int, target: str, *, directory: bool) -> None:
    """move_mount(2) a detached tree to a place that the user chose, which is made when it is missing."""
    place = _mount_point(child, target, directory=directory)
    try:
        _refuse_kernel_files(child, place)
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)


def _through(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


# --- the root file system -------------------------------------------------------------------------------


def mount_layer(child: Child, options: str) -> None:
    """mount(2) a tmpfs over the folder of the writable layer."""
    syscalls.mount("tmpfs", child.folder, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    os.mkdir(f"{child.folder}/upper", 0o755)
    os.mkdir(f"{child.folder}/work", 0o755)
    child.layer = os.open(f"{child.folder}/upper", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def mount_overlay(
    child: Child,
    lowerdirs: Sequence[str],
    options: Sequence[str],
    layers: Sequence[tuple[int, str]] = (),
    layer: int = -1,
    init: bool = True,  # noqa: FBT001, FBT002 - as the step
) -> None:
    """mount(2) the root at :data:`ROOT` and open it.

    Names that overlayfs would have to unescape, and lists longer than a page, go as descriptors instead.

    Trees must be in our mount namespace before overlayfs takes them (clone_private_mount, until Linux 6.15). They are
    attached below the place of the root, and go with the old root when we pivot.
    """
    opened: list[int] = []
    beside = "" if layer < 0 else _through(child.trees[layer]) + "/"
    lowest = [beside + INIT] * init
    if layers:
        used = {tree for tree, _ in layers} | ({layer} if layer >= 0 else set())
        place = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for tree in used:
            syscalls.move_mount(child.trees[tree], place)
        os.close(place)
        lowerdirs = [f"{_through(child.trees[tree])}/{name}" for tree, name in layers]
    lowerdirs = [*lowerdirs, *lowest]
    text = ":".join(lowerdirs)
    if len(text) > 3800 or any(mark in path for path in lowerdirs for mark in ":,\\"):
        opened = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lowerdirs]
        text = ":".join(map(_through, opened))
    folder = beside + child.folder
    settings = ",".join((f"lowerdir={text}", f"upperdir={folder}/upper", f"workdir={folder}/work", *options))
    syscalls.mount("overlay", ROOT, "overlay", syscalls.MS_NODEV, settings)
    for fd in opened:
        os.close(fd)
    if layers:
        for tree in used:
            _close_tree(child, tree)
    child.stage = child.root
    child.root = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def set_root_status(child: Child, mode: int, uid: int, gid: int) -> None:
    """chown(2) and chmod(2), through the mount: so ids are those of the container, however the layer keeps them."""
    del child
    os.chown(ROOT, uid, gid)
    os.chmod(ROOT, mode)


def _close_tree(child: Child, tree: int) -> None:
    os.close(child.trees[tree])
    child.trees[tree] = -1


def attach_tree(child: Child, tree: int, target: str) -> None:
    """Attach a tree that the zygote has cloned."""
    fd = child.trees[tree]
    _attach(child, fd, target, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    _close_tree(child, tree)


def mount_stage(child: Child) -> None:
    """mount(2) the tmpfs at :data:`STAGE` and open it."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("tmpfs", STAGE, "tmpfs", flags, "mode=0755")
    child.root = os.open(STAGE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def move_mount(child: Child, path: str) -> None:
    """Move a tree from the stage; the image may have no link at the place (CVE-2025-31133 and its kin)."""
    staged = syscalls.openat2(child.stage, path[1:], os.O_PATH, resolve=_PLAIN)
    place = _mount_point(child, path, directory=True, resolve=_PLAIN)
    syscalls.move_mount(staged, place)
    os.close(staged)
    os.close(place)


def bind_mount(child: Child, source: str, target: str, read_only: bool, nosuid: bool, nodev: bool) -> None:  # noqa: FBT001 - the order of the fields of the step
    """Clone the tree at *source*, set its attributes while nobody sees it, and attach it."""
    tree = syscalls.open_tree(_AT_FDCWD, source, _TREE)
    try:
        attributes = (
            syscalls.MOUNT_ATTR_RDONLY * read_only
            | syscalls.MOUNT_ATTR_NOSUID * nosuid
            | syscalls.MOUNT_ATTR_NODEV * nodev
        )
        syscalls.mount_setattr(tree, set_=attributes, propagation=syscalls.MS_PRIVATE, recursive=True)
        _attach(child, tree, target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
    finally:
        os.close(tree)


def mount_filesystem(  # noqa: D103 - as the step says
    child: Child,
    fstype: str,
    target: str,
    flags: int,
    options: str | None,
    follow: bool,  # noqa: FBT001 - as above
) -> None:
    resolve = _IN_ROOT if follow else _PLAIN
    place = _mount_point(child, target, directory=True, resolve=resolve)
    try:
        if follow:
            _refuse_kernel_files(child, place)
        syscalls.mount(fstype, _through(place), fstype, flags, options)
    finally:
        os.close(place)
    if fstype in {"proc", "sysfs"}:
        mounted = _open(child, target, resolve=_PLAIN)
        child.kernel_devices.add(os.fstat(mounted).st_dev)
        os.close(mounted)


def make_directory(child: Child, path: str, mode: int) -> None:
    """mkdir(2), of its parents too; what exists is left as it is."""
    try:
        _make_directory(child, path, mode)
    except FileNotFoundError:
        _make(child, path, directory=True)


def make_device(child: Child, path: str, major: int, minor: int, mode: int) -> None:
    """mknod(2) of a character device."""
    parent, name = _open_parent(child, path)
    try:
        os.mknod(name, stat.S_IFCHR | mode, os.makedev(major, minor), dir_fd=parent)
    finally:
        os.close(parent)


def bind_device(child: Child, source: str, target: str) -> None:
    """Attach a device node of the host to a file made for it."""
    tree = _device_tree(source)
    try:
        _attach(child, tree, target, directory=False)
    finally:
        os.close(tree)


def _device_tree(source: str) -> int:
    tree = syscalls.open_tree(_AT_FDCWD, source, syscalls.OPEN_TREE_CLONE)
    mode = os.fstat(tree).st_mode
    if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
        os.close(tree)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), source)
    syscalls.mount_setattr(tree, set_=DEVICE_ATTRIBUTES, propagation=syscalls.MS_PRIVATE)
    return tree


def open_terminal(child: Child, columns: int, rows: int, console: bool, lead: bool) -> None:  # noqa: FBT001 - as the step says
    """ioctl_tty(2)."""
    inside = child.root < 0  # an exec is in the container's root already
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = os.open("/dev/pts/ptmx", flags) if inside else _open(child, "/dev/pts/ptmx", flags)
    if os.fstat(master).st_rdev != _PTMX:  # root inside, with CAP_SYS_ADMIN, has put something else there
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "/dev/pts/ptmx")
    fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    fcntl.ioctl(master, _TIOCSPTLCK, bytes(4))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    if console:
        (number,) = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        place = _open(child, f"/dev/pts/{number}")
        tree = syscalls.open_tree(place, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        _attach(child, tree, "/dev/console", directory=False)
        os.close(tree)
        os.close(place)
    supervise.report("terminal", fds=(master, slave))
    os.close(master)
    for fd in range(3):
        os.dup2(slave, fd)
    os.close(slave)
    if lead:
        os.setsid()
        fcntl.ioctl(0, _TIOCSCTTY, 0)
    child.has_input = child.has_terminal = True


def make_host_devices(child: Child, bound: bool) -> None:  # noqa: FBT001 - as the step says
    """mknod(2), or bind, each node of the host's /dev."""
    _make_nodes(child, "/dev", bound=bound)


def _make_nodes(child: Child, folder: str, *, bound: bool) -> None:
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        try:
            found = os.lstat(path)
        except FileNotFoundError:  # devices come and go
            continue
        if stat.S_ISDIR(found.st_mode):
            if path not in _OWN_TREES and os.access(path, os.R_OK | os.X_OK):
                _make_directory(child, path, 0o755)
                _make_nodes(child, path, bound=bound)
        elif (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)) and path not in _OWN_NODES:
            if bound:
                bind_device(child, path, path)
            else:
                _copy_node(child, path, found)


def _copy_node(child: Child, path: str, found: os.stat_result) -> None:
    parent, name = _open_parent(child, path)
    try:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=parent)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=parent)
    except FileExistsError:
        pass  # one of the six that every container has
    finally:
        os.close(parent)


def write_sysctl(child: Child, path: str, value: str) -> None:
    """write(2) below the staged /proc/sys."""
    fd = _open(child, path, os.O_WRONLY, resolve=_PLAIN)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def make_link(child: Child, target: str, path: str) -> None:
    """symlink(2)."""
    parent, name = _open_parent(child, path)
    try:
        os.symlink(target, name, dir_fd=parent)
    finally:
        os.close(parent)


def mount_files(child: Child, options: str) -> None:
    """mount(2) the tmpfs of the installed files and open it."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmpfs", FILES, "tmpfs", flags, options)
    child.files = os.open(FILES, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def install_file(  # noqa: D103 - as the step says
    child: Child,
    path: str,
    size: int,
    place: int,
    mode: int,
    content: str,
    read_only: bool,  # noqa: FBT001 - as above
    secret: bool,  # noqa: FBT001 - as above
    parents: bool = True,  # noqa: FBT001, FBT002 - as above
    owner: Sequence[int] = (),
) -> None:
    del size  # for the reader of the plan
    if not parents:
        os.close(_open_parent(child, path)[0])
    name = str(child.installed)
    child.installed += 1
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=child.files)
        _write_all(fd, _content(child, content, place))
    except OSError as error:
        raise OSError(error.errno, error.strerror, FILES) from None
    if owner:
        os.fchown(fd, *owner)
    if secret:
        child.secrets.append(fd)  # to be given to the payload's user, who is not known yet
    else:
        os.close(fd)
    tree = syscalls.open_tree(child.files, name, syscalls.OPEN_TREE_CLONE)
    try:
        if read_only:
            syscalls.mount_setattr(tree, set_=syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOEXEC)
        _attach(child, tree, path, directory=False)
    finally:
        os.close(tree)


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _content(child: Child, content: str, place: int) -> bytes:
    match content:
        case "hostname":
            return f"{child.hostname}\n".encode()
        case "hosts":
            return (
                "127.0.0.1\tlocalhost\n"
                "::1\tlocalhost ip6-localhost ip6-loopback\n"
                f"127.0.1.1\t{child.hostname}\n"
            ).encode() + (child.contents[place] if place >= 0 else b"")
        case "resolver" if place < 0:
            return b"# This container has no network, so there is no name server to ask.\n"
        case "apt":
            return b'APT::Sandbox::User "root";  // there is one id, so no other user to become\n'
        case _:
            return child.contents[place]


def mask_path(child: Child, path: str) -> None:
    """Hide a directory below an empty tmpfs, anything else below the host's /dev/null.

    The host's, not the container's: that one could be something else by now (CVE-2025-31133).
    """
    target = _open(child, path, resolve=_PLAIN)
    try:
        if stat.S_ISDIR(os.fstat(target).st_mode):
            syscalls.mount("tmpfs", _through(target), "tmpfs", syscalls.MS_RDONLY, MASK_OPTIONS)
            return
        tree = _device_tree("/dev/null")
        syscalls.move_mount(tree, target)
        os.close(tree)
    finally:
        os.close(target)


def read_only_path(child: Child, path: str) -> None:
    """Bind a path over itself, read-only."""
    target = _open(child, path, resolve=_PLAIN)
    tree = syscalls.open_tree(target, "", _TREE | syscalls.AT_EMPTY_PATH)
    syscalls.mount_setattr(tree, set_=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
    syscalls.move_mount(tree, target)
    os.close(tree)
    os.close(target)


def writable_path(child: Child, path: str) -> None:
    """Bind a directory over itself, with what is mounted below."""
    target = _mount_point(child, path, directory=True)
    try:
        _refuse_kernel_files(child, target)
        tree = syscalls.open_tree(target, "", _TREE | syscalls.AT_EMPTY_PATH)
        syscalls.move_mount(tree, target)
        os.close(tree)
    finally:
        os.close(target)


def read_only_root(child: Child) -> None:
    """mount_setattr(2) of the root's own mount."""
    syscalls.mount_setattr(child.root, set_=syscalls.MOUNT_ATTR_RDONLY)


def pivot_root(child: Child) -> None:
    """Make the root the only tree that there is, and let go of every descriptor into the old one."""
    os.fchdir(child.root)
    syscalls.pivot_root(".", ".")
    # pivot_root(2), NOTES: old and new root are stacked at "." now, the old one on top.
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
    for fd in (child.root, child.stage, child.files, *child.trees):
        if fd >= 0:
            os.close(fd)
    child.root = child.stage = child.files = -1
    child.trees = []
    # From now on an import would execute what the image has in the place of a module.
    sys.meta_path.clear()
    _read_nothing(child)


def _read_nothing(child: Child) -> None:
    """Without an input the payload reads the container's own /dev/null."""
    if not child.has_input:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0, inheritable=True)
        os.close(null)


# --- who the payload is ---------------------------------------------------------------------------------


def set_hostname(child: Child, name: str) -> None:
    """sethostname(2)."""
    child.hostname = name or child.id[:12]
    socket.sethostname(child.hostname)


def set_domainname(child: Child, name: str) -> None:
    """setdomainname(2)."""
    del child
    syscalls.setdomainname(name)


def bring_loopback_up(child: Child) -> None:
    """Set IFF_UP on lo."""
    del child
    netdevice.bring_up("lo")


def bind_sysfs(child: Child, path: str) -> None:
    """Bind the host's /sys with what is mounted in it: a part of it could not be had without the rest."""
    _bind_unchangeable(child, "/sys", path, _TREE)
    mounted = _open(child, path, resolve=_PLAIN)
    child.kernel_devices.add(os.fstat(mounted).st_dev)
    os.close(mounted)


def bind_hosts(child: Child, target: str) -> None:
    """Bind the file that the porter keeps for this container, in the folder of layers."""
    _bind_unchangeable(child, f"hosts/{child.id}", target, syscalls.OPEN_TREE_CLONE)


def _bind_unchangeable(child: Child, source: str, target: str, flags: int) -> None:
    tree = syscalls.open_tree(_AT_FDCWD, source, flags)
    try:
        attributes = DEVICE_ATTRIBUTES | syscalls.MOUNT_ATTR_NODEV
        syscalls.mount_setattr(tree, set_=attributes, propagation=syscalls.MS_PRIVATE, recursive=True)
        _attach(child, tree, target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
    finally:
        os.close(tree)


def await_network(child: Child) -> None:
    """Read the alias of lo, again after each change of an interface."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as changes:
        changes.bind((0, _RTMGRP_LINK))
        while True:
            alias = _open(child, "/sys/class/net/lo/ifalias", os.O_RDONLY)
            try:
                if os.read(alias, 64) == f"{CONNECTED}\n".encode():
                    return
            finally:
                os.close(alias)
            changes.recv(_PAGE)


def resolve_user_step(child: Child, user: str) -> None:
    """Read the container's own files; ESRCH says that they do not hold the name."""
    try:
        child.uid, child.gid, child.groups, child.home = resolve_user(
            user, _account_file("/etc/passwd"), _account_file("/etc/group")
        )
    except UnknownAccount:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH), user) from None


def _account_file(path: str) -> str:
    """The text of a regular file of at most 4 MiB, or nothing: the image chooses what lies there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # an image without accounts is an ordinary one
        return ""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return ""
        return os.read(fd, min(found.st_size, _ACCOUNT_FILE_LIMIT)).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def change_directory(child: Child, path: str) -> None:
    """chdir(2), and a proof that we are still inside (CVE-2024-21626)."""
    del child
    os.chdir(path)
    if not os.getcwd().startswith("/"):  # getcwd(2): "(unreachable)" comes first when it lies outside
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)


def set_resource_limit(child: Child, name: str, soft: int, hard: int) -> None:
    """setrlimit(2)."""
    del child
    try:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
    except ValueError:  # so it says that the hard limit cannot be raised
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None


def allow_limits(pid: int, limits: Iterable[tuple[str, int]]) -> None:
    """prlimit(2): give *pid*, 0 for ourselves, higher hard limits, as far as we may; what is refused stays as it is."""
    for name, hard in limits:
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        try:
            soft, most = resource.prlimit(pid, number)
            if most != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > most):
                resource.prlimit(pid, number, (soft, hard))
        except (
            PermissionError,
            ProcessLookupError,
        ):  # a spare that was killed is noticed when it is given its task
            continue


def drop_bounding_set(child: Child, keep: int) -> None:
    """PR_CAPBSET_DROP."""
    privileges.drop_bounding_set(keep, child.last_capability)


def set_identity(child: Child, setgroups: bool) -> None:  # noqa: FBT001 - as the step says
    """Become the user; pipes or the terminal become the user's, so that /dev/stdout can be opened again (as runc does)."""
    for fd in range(3):
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or child.has_terminal:
            os.fchown(fd, child.uid, -1)
    for fd in child.secrets:
        os.fchown(fd, child.uid, child.gid)
        os.close(fd)
    if setgroups:
        try:
            os.setgroups(child.groups)
        except ValueError:  # so Python says that they are more than NGROUPS_MAX
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG)) from None
    os.setresgid(child.gid, child.gid, child.gid)
    os.setresuid(child.uid, child.uid, child.uid)


def set_capabilities(child: Child, keep: int) -> None:
    """capset(2); for others than root the kernel cleared the sets when the id changed."""
    privileges.limit_capabilities(keep if child.uid == 0 else 0, child.last_capability)


def set_parent_death_signal(child: Child) -> None:
    """PR_SET_PDEATHSIG."""
    del child
    privileges.set_parent_death_signal()


def set_no_new_privs(child: Child) -> None:
    """PR_SET_NO_NEW_PRIVS."""
    del child
    privileges.set_no_new_privs()


def set_landlock(child: Child, handled: int, scoped: int, rules: Sequence[tuple[str, int]]) -> None:
    """landlock_restrict_self(2)."""
    del child
    ruleset = landlock.create_ruleset(handled, scoped)
    try:
        for path, allowed in rules:
            try:
                landlock.add_rule(ruleset, path, allowed)
            except PermissionError:
                pass  # whoever cannot reach the place cannot change anything there
        landlock.restrict_self(ruleset)
    finally:
        os.close(ruleset)


def set_seccomp(child: Child, program: bytes, name: str) -> None:
    """seccomp(2)."""
    del child, name
    seccomp.set_filter(program)


def join_session_keyring(child: Child) -> None:
    """keyctl(2)."""
    del child
    syscalls.join_session_keyring()


def of_the_zygote(child: Child, *_: object) -> None:
    """Nothing: the zygote has done it, at the clone or before it gave a spare its task. The step keeps its place in the plan."""
    del child


def unshare_cgroup(child: Child) -> None:
    """unshare(2)."""
    del child
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)


def _write_time_offsets(offsets: str) -> None:
    with open("/proc/self/timens_offsets", "wb", buffering=0) as file:
        file.write(offsets.encode())


def set_time_offset(child: Child, offsets: str) -> None:
    """unshare(2) and setns(2)."""
    before = time.monotonic()
    syscalls.unshare(syscalls.CLONE_NEWTIME)
    try:
        _write_time_offsets(offsets)
    except PermissionError:
        # The files of who is not dumpable belong to the host's root, and in a user namespace of our own we are not root.
        privileges.set_dumpable()
        try:
            _write_time_offsets(offsets)
        finally:
            privileges.set_not_dumpable()
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWTIME)
    os.close(namespace)
    child.ahead = time.monotonic() - before


def become_root() -> None:
    """Take the ids 0 of the user namespace that we are in."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def join_namespaces(child: Child, flags: int) -> None:
    """setns(2) with the pidfd of the container's PID 1, which the zygote left at descriptor 4."""
    before = time.monotonic()
    syscalls.setns(4, flags)
    if flags & syscalls.CLONE_NEWTIME:
        child.ahead = time.monotonic() - before
    os.close(4)
    if flags & syscalls.CLONE_NEWUSER:  # we have all capabilities there, and are nobody until we take its ids
        become_root()
    child.hostname = os.uname().nodename
    _read_nothing(child)


DOERS: dict[str, Callable[..., None]] = {
    "MountStage": mount_stage,
    "MountLayer": mount_layer,
    "MountOverlay": mount_overlay,
    "SetRootStatus": set_root_status,
    "MoveMount": move_mount,
    "BindMount": bind_mount,
    "MountFilesystem": mount_filesystem,
    "MakeDirectory": make_directory,
    "MakeDevice": make_device,
    "BindDevice": bind_device,
    "MakeHostDevices": make_host_devices,
    "OpenTerminal": open_terminal,
    "MakeLink": make_link,
    "WriteSysctl": write_sysctl,
    "MountFiles": mount_files,
    "InstallFile": install_file,
    "MaskPath": mask_path,
    "ReadOnlyPath": read_only_path,
    "WritablePath": writable_path,
    "ReadOnlyRoot": read_only_root,
    "PivotRoot": pivot_root,
    "SetHostname": set_hostname,
    "SetDomainname": set_domainname,
    "BringLoopbackUp": bring_loopback_up,
    "BindSysfs": bind_sysfs,
    "BindHosts": bind_hosts,
    "AwaitNetwork": await_network,
    "ResolveUser": resolve_user_step,
    "ChangeDirectory": change_directory,
    "SetResourceLimit": set_resource_limit,
    "DropBoundingSet": drop_bounding_set,
    "SetIdentity": set_identity,
    "SetCapabilities": set_capabilities,
    "SetParentDeathSignal": set_parent_death_signal,
    "SetNoNewPrivs": set_no_new_privs,
    "SetLandlock": set_landlock,
    "SetSeccomp": set_seccomp,
    "JoinCgroup": of_the_zygote,
    "MapIds": of_the_zygote,
    "GivePipes": of_the_zygote,
    "AllowLimit": of_the_zygote,
    "CloneTree": of_the_zygote,
    "CloneDevice": of_the_zygote,
    "AttachTree": attach_tree,
    "JoinSessionKeyring": join_session_keyring,
    "UnshareCgroup": unshare_cgroup,
    "SetTimeOffset": set_time_offset,
    "JoinNamespaces": join_namespaces,
}
