"""User namespaces of root's containers: a range of ids for each, and trees of the host translated into it.

Each living container has a range that no other has, of this owner or another: a zygote holds a lock on the first id of
each range that it uses, in a file that all of root's zygotes share. So what the kernel counts or checks by uid never
mixes two containers, and none of the ids is anybody on the host.

A process in a user namespace cannot translate trees of the host, mount_setattr(2): the zygote does, and hands them over.

The zygote of root imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal
import socket
import stat

from pycontain.kernel import descriptors, syscalls
from pycontain.runtime import perform

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

COUNT = 65_536
_LOCKS = "/run/pycontain"
_AT_FDCWD = -100
_NAMESPACES = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET
_CONFINED = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


class Refused(OSError):
    """The kernel, or a lack of ids, refused what the step at *index* of the plan wants of the zygote."""

    index = 0


MAP_INDEX = 1  # of the step after the clone


class Ranges:
    """The ranges of ids that root's containers may have, *pool* as ``(first uid, first gid, how many ranges)``.

    *locks* is the file of :func:`open_locks`.
    """

    def __init__(self, pool: Sequence[tuple[int, int, int]], locks: int) -> None:
        self.pool = pool
        self.locks = locks
        self.count = sum(count for _, _, count in pool)
        # Every zygote begins elsewhere, so that they seldom ask for each other's.
        self.next = int.from_bytes(os.urandom(4), "big") % max(self.count, 1)
        self.free: list[tuple[int, int]] = []
        self.asked = 0

    def take(self) -> tuple[int, int]:
        """The first uid and gid of a range that is this zygote's until it ends; raises OSError EAGAIN when all are taken."""
        if self.free:
            return self.free.pop()
        # Once around: fcntl(2) gives a lock that we have already as often as we like.
        while self.asked < self.count:
            first = self._first(self.next)
            self.next = (self.next + 1) % self.count
            self.asked += 1
            try:
                # F_SETLK: the lock is the process's, whatever its children close, and goes with it.
                fcntl.lockf(self.locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, first[0])
            except (BlockingIOError, PermissionError):
                continue
            return first
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _first(self, number: int) -> tuple[int, int]:
        for uid, gid, count in self.pool:
            if number < count:
                return uid + number * COUNT, gid + number * COUNT
            number -= count
        raise IndexError(number)

    def give_back(self, first: tuple[int, int]) -> None:
        """Every process with these ids has ended. The lock stays: the next container will want a range, too."""
        self.free.append(first)


def open_locks(folder: str) -> int:
    """The file of locks; in *folder* where /run cannot be written, and then other folders are not looked at."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        os.makedirs(_LOCKS, 0o700, exist_ok=True)
        return os.open(f"{_LOCKS}/ids", flags, 0o600)
    except OSError:
        return os.open(f"{folder}/ids", flags, 0o600)


class Users:
    """The user namespace of one child, and its range."""

    __slots__ = ("first", "namespace", "nodes", "ranges")

    def __init__(self, ranges: Ranges, first: tuple[int, int], pidfd: int) -> None:
        self.ranges = ranges
        self.first = first
        try:
            self.namespace = os.open(f"{_process(pidfd)}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended already
            self.namespace = -1
        self.nodes: list[
            str
        ] = []  # of devices; an attached mount must have a name, so they stay as long as it may

    def give_pipes(self, fds: Iterable[int]) -> None:
        """Make the container's root the owner of those of *fds* that are pipes: nobody else inside could."""
        for fd in fds:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, *self.first)

    def clone_trees(self, trees: Iterable[Sequence[Any]]) -> list[int]:
        """Clone *trees*, as :meth:`Plan.trees` lists them; the caller closes them. A failure closes those before it."""
        cloned: list[int] = []
        try:
            for index, _, source, *how in trees:
                try:
                    if how:
                        cloned.append(clone_tree(source or ".", self.namespace, *how))
                    else:
                        cloned.append(self._clone_device(source))
                except OSError as error:
                    raise refused(index, error) from error
        except OSError:
            for fd in cloned:
                os.close(fd)
            raise
        return cloned

    def _clone_device(self, source: str) -> int:
        """A detached node for the device *source*, whose owner is the container's root."""
        found = os.stat(source)
        if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), source)
        if not os.path.ismount(perform.NODES):
            flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
            syscalls.mount("tmpfs", perform.NODES, "tmpfs", flags, "mode=0700")
        node = f"{perform.NODES}/{os.urandom(8).hex()}"
        os.mknod(node, found.st_mode, found.st_rdev)
        self.nodes.append(node)
        os.chown(node, *self.first)
        tree = syscalls.open_tree(_AT_FDCWD, node, syscalls.OPEN_TREE_CLONE)
        attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
        syscalls.mount_setattr(tree, set_=attributes, propagation=syscalls.MS_PRIVATE)
        return tree

    def close(self) -> None:
        """Let go of the namespace: nothing more will be translated into it."""
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1

    def end(self) -> None:
        """The child and all that it forked have ended, or it never lived."""
        self.close()
        for node in self.nodes:
            os.unlink(node)
        self.ranges.give_back(self.first)


def refused(index: int, error: OSError) -> Refused:
    """*error* as the refusal of a step."""
    one = Refused(error.errno, error.strerror, error.filename)
    one.index = index
    return one


def clone_tree(
    source: str,
    namespace: int,
    attributes: int,
    recursive: bool,  # noqa: FBT001 - the order of the fields of the step, here and below
    idmapped: bool = True,  # noqa: FBT001, FBT002
    fallback: bool = False,  # noqa: FBT001, FBT002
) -> int:
    """open_tree(2) and mount_setattr(2): a detached copy of the mount at *source*, translated into *namespace*.

    With *fallback* a file system that cannot be is left as it is: first those below the top, then the top too.
    """
    tree = syscalls.open_tree(
        _AT_FDCWD, source, syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
    )
    try:
        if not idmapped or not _idmap(tree, namespace, attributes, recursive=recursive, fallback=fallback):
            syscalls.mount_setattr(
                tree, set_=attributes, propagation=syscalls.MS_PRIVATE, recursive=recursive
            )
    except OSError as error:
        os.close(tree)
        error.filename = source
        raise
    return tree


def _idmap(tree: int, namespace: int, attributes: int, *, recursive: bool, fallback: bool) -> bool:
    """Whether the tree is translated and has its attributes; with *fallback* at least the top of it, if that can be."""
    idmapped = attributes | syscalls.MOUNT_ATTR_IDMAP
    for deep in (True, False) if recursive and fallback else (recursive,):
        try:
            syscalls.mount_setattr(
                tree, set_=idmapped, propagation=syscalls.MS_PRIVATE, userns=namespace, recursive=deep
            )
        except OSError as error:
            # mount_setattr(2): EINVAL of a file system that cannot, EPERM of a mount that is idmapped already.
            if not fallback or error.errno not in {errno.EINVAL, errno.EPERM}:
                raise
        else:
            return deep == recursive  # what is below its top has no attributes yet
    return False


def fork(first: tuple[int, int], clone: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """*clone* into a user namespace, and give it the range from *first* on; the child is root of it when this returns.

    A child that cannot be given them is killed, and its parent has to reap it.
    """
    gate, key = os.pipe2(os.O_CLOEXEC)  # whose end the child sees when we are killed meanwhile
    pid = pidfd = -1
    try:
        pid, pidfd = clone()
        if pid == 0:
            _become_root(gate, key)
            return 0, -1
        _map(pidfd, first)
        os.write(key, b"x")
    except OSError as error:
        if pid < 0:
            raise
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        raise refused(MAP_INDEX, error) from error
    finally:
        os.close(gate)
        if pid:
            os.close(key)
    return pid, pidfd


def _map(pidfd: int, first: tuple[int, int]) -> None:
    """user_namespaces(7): write the maps of a child that has none yet."""
    process = _process(pidfd)
    for name, outside in zip(("uid_map", "gid_map"), first, strict=True):
        fd = os.open(f"{process}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"0 {outside} {COUNT}".encode())
        finally:
            os.close(fd)


def _process(pidfd: int) -> str:
    """Its folder in /proc, which is that of the host, as the number is."""
    return f"/proc/{descriptors.pid_of(pidfd)}"


def _become_root(gate: int, key: int) -> None:
    os.close(key)
    try:
        if not os.read(gate, 1):
            os._exit(127)  # who should have mapped our ids has ended
        perform.become_root()
    except OSError:
        os._exit(127)  # the zygote's own stack is above


# --- what this host can do ------------------------------------------------------------------------------


class Trial:
    """What can be had here, found out with a child that takes the steps which a host may refuse.

    ``refusal`` is empty when containers can have user namespaces of their own, else ``(what was tried, errno)``.
    """

    def __init__(
        self, ranges: Ranges, clone: Callable[[int], tuple[int, int]], new_child: Callable[[], perform.Child], layer: str
    ) -> None:  # fmt: skip
        self.namespace = -1  # in which nobody lives, with the ids of some range
        self.refusal: tuple[Any, ...] = ()
        if not ranges.count:
            self.refusal = ("ids", 0)
            return
        try:
            self._try(ranges, clone, new_child, layer)
        except Refused as error:
            self.refusal = ("layers", error.errno)
        except OSError as error:
            self.refusal = ("namespace", error.errno)

    def _try(
        self, ranges: Ranges, clone: Callable[[int], tuple[int, int]], new_child: Callable[[], perform.Child], layer: str
    ) -> None:  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            first = ranges.take()
            pid, pidfd = fork(first, lambda: clone(_NAMESPACES))
            if pid == 0:
                ours.close()
                _rehearse(theirs, new_child())
            theirs.close()
            users = Users(ranges, first, pidfd)
            try:
                trees = users.clone_trees(((0, 0, perform.FILES, 0, False), (0, 1, layer, 0, False)))
                socket.send_fds(ours, [b"trees"], trees)
                for fd in trees:
                    os.close(fd)
                said = ours.recv(64)
            finally:
                ours.close()
                os.waitpid(pid, 0)
                os.close(pidfd)
                self.namespace, users.namespace = users.namespace, -1
                users.end()  # the range is free, the namespace stays
        self.refusal = marshal.loads(said) if said else ("namespace", errno.EIO)

    def idmaps(self, path: str) -> bool:
        """Whether the file system at *path* can be a layer of a container with its own user namespace."""
        try:
            os.close(clone_tree(path, self.namespace, 0, False))
            os.getxattr(path, "user.overlay.opaque")
        except FileNotFoundError:
            pass  # a start will say so
        except OSError as error:
            # ENOTSUP: overlayfs could not mark there what is hidden. ENODATA: it could, and nothing is.
            return error.errno == errno.ENODATA
        return True


def _rehearse(line: socket.socket, child: perform.Child) -> NoReturn:
    """The child's part: mount what a user namespace may not mount on every host, and say what failed. Never returns."""
    steps = (
        ("MountStage", ()),
        ("MountFilesystem", (), "proc", "/proc", _CONFINED, None, False),
        ("MountFilesystem", (), "sysfs", "/sys", _CONFINED, None, False),
        ("MountOverlay", (), (perform.FILES,), ("userxattr",), ((0, ""),), 1, False),
    )
    try:
        _, child.trees, _ = descriptors.receive(line, 64, 2)
        refusal: tuple[Any, ...] = ()
        try:
            perform.perform(steps, child, 0)
        except perform.StepRefused as error:
            refusal = (("stage", "proc", "sysfs", "overlay")[error.index], error.errno)
        line.send(marshal.dumps(refusal))
    finally:
        os._exit(0)
