"""The opener: a child of the zygote in a container's mount namespace, which opens there what the owner asks for.

Only from inside are a container's files what the payload sees, with its mounts, its tmpfs and its secrets; and there
nothing of the host can be reached, whatever links and races the payload prepares. So the opener joins the container's
namespaces, all but that of its processes, and holds nothing of the host but its line to the owner and the folder of its
own descriptors. It resolves a path once, from the container's root and without the magic links of proc(5), to a
descriptor that neither reads nor waits (O_PATH); sees what that is; and opens the very same thing again. What has
content is a regular file: fifos and devices are refused before anything could wait for them.

Content does not pass through here: the owner gets a descriptor of the file, and reads or writes that.

The payload cannot see the opener, which is in no PID namespace of the container's, nor trace it, as it is not dumpable
(CVE-2019-5736 and its kin); what the owner is given cannot be followed to the host (CVE-2024-21626). It does not stand
still with a container that is paused, and the zygote ends it with the container.

There is one for a container whose files are asked for. It answers requests one at a time:

=============================================  ===========================================================
request                                        answer
=============================================  ===========================================================
``open path…``                                 for each the file's status and the file, to be read; or why not
``stat path follow``                           its status; of a link also what it leads to
``list path``                                  of everything in a directory: name, status
``create follow path…``                        for each a number, the status of what is replaced or None, and a new file,
                                               to be written, which is beside that until it is committed; or why not
``commit (number mode uid gid times)…``        their attributes are set and they have their names, each in one instant
``discard number…``                            they are removed
``mkdir path mode uid gid parents``            whether it was made
``symlink path target uid gid times``          the link is there, in one instant
``link path first device inode``               the file *first*, which must be that inode, has this name too, in one instant
``settle path mode uid gid times``             a directory's attributes are set
``remove path recursive``                      it is gone; nothing that is mounted below is touched
``mounts``                                     the paths at which something is mounted
=============================================  ===========================================================
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import select
import signal
import socket
import stat
import sys

from pycontain.kernel import descriptors, privileges, syscalls
from pycontain.runtime import child, perform

TYPE_CHECKING = False  # as in the zygote, which this is a fork of
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from pycontain.runtime.engine import Engine

    Answer = tuple[tuple[Any, ...], tuple[int, ...]]  # the values, and descriptors
    Times = tuple[int, int] | None

_LINE, _CONTAINER, _OWN_FDS = 0, 1, 2
_LAST_PLACE = 2
AT_ONCE = 32  # files that one request may be about
_MOST_BESIDE = 64
_PACKET_LIMIT = 64 << 10  # well below net.core.wmem_default
_DEPTH = 32  # directories that are open at once while a tree is removed
_ROUNDS = 1000  # how often we look again into a directory that somebody fills while we empty it
_LAST_BREATH = 50  # milliseconds that an exiting process may need until that is known
_MOST_LINKS = 40  # path_resolution(7)
_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_NEXT = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
# O_NONBLOCK: some files of proc(5) wait for news, and fcntl(2) lets a payload delay who opens its files by a lease.
_CONTENT = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BESIDE = b".pycontain-"
_NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWCGROUP
)
# capabilities(7): to read and write what others own, and to give it to them.
_KEPT = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID
_STATUS = ("st_mode", "st_size", "st_mtime_ns", "st_atime_ns", "st_uid", "st_gid", "st_nlink", "st_dev")


class NotRegular(OSError):
    """What was to be read or written is of another type, which ``mode`` tells."""

    def __init__(self, mode: int) -> None:
        super().__init__(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.mode = mode


# --- the owner's side -----------------------------------------------------------------------------------


class Opener:
    """The owner's end of one, for the container *ident*. For one thread at a time."""

    def __init__(self, engine: Engine, ident: str) -> None:
        self._engine = engine
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                engine.request(("visit", ident), (theirs.fileno(),))
        except BaseException:
            self.line.close()
            raise

    def ask(self, *request: Any) -> Answer:
        """The values and the descriptors of the answer; the caller closes these.

        Raises what the kernel said as :class:`OSError`, :class:`NotRegular`, or :class:`EOFError` when the opener has ended.
        """
        packet = marshal.dumps(request)
        if len(packet) > _PACKET_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        try:
            self.line.send(packet)
            packet, fds, lost = descriptors.receive(self.line, _PACKET_LIMIT, AT_ONCE)
        except ConnectionError:
            raise EOFError from None
        if not packet:
            raise EOFError
        if lost:
            for fd in fds:
                os.close(fd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        verdict, *values = marshal.loads(packet)
        match verdict:
            case "long":
                with open(fds[0], "rb") as body:
                    return marshal.load(body), ()
            case "failed":
                raise OSError(values[0], os.strerror(values[0]))
            case "broken":
                raise RuntimeError(values[0])
        return tuple(values), tuple(fds)

    def close(self) -> None:
        """Let go of it, which ends it. May be repeated."""
        self.line.close()


# --- the opener's side ----------------------------------------------------------------------------------


def live(line: int, container: int, last_capability: int, *, own: bool) -> NoReturn:
    """The life of the opener for the container whose PID 1 *container* is a pidfd of. Never returns.

    *own*: the container has a user namespace of its own.
    """
    try:
        try:
            inside = _enter(line, container, last_capability, own=own)
        except OSError as error:
            if not _has_exited(_CONTAINER):  # then the owner sees that its line ends
                with socket.socket(fileno=_LINE) as channel:
                    channel.recv(_PACKET_LIMIT)  # who ends with a packet unread resets the socket
                    _say(channel, marshal.dumps(("failed", error.errno or 0)))
            os._exit(1)
        with socket.socket(fileno=_LINE) as channel:
            while packet := channel.recv(_PACKET_LIMIT):
                _answer(channel, inside, *marshal.loads(packet))
    finally:
        os._exit(0)


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(_LAST_BREATH))


def _enter(line: int, container: int, last_capability: int, *, own: bool) -> Inside:
    privileges.set_parent_death_signal()
    privileges.set_name("pycontain-opener")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    own_fds = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    far = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_PLACE + 1) for fd in (line, container, own_fds)]
    for place, fd in enumerate(far):
        os.dup2(fd, place, inheritable=False)
    syscalls.close_range(_LAST_PLACE + 1)
    namespaces = _NAMESPACES | (syscalls.CLONE_NEWUSER if own else 0)
    try:
        syscalls.setns(_CONTAINER, namespaces)
    except PermissionError:
        # The host's network, in which we are, is not a user's to join; and whatever else is refused is refused again.
        syscalls.setns(_CONTAINER, namespaces & ~syscalls.CLONE_NEWNET)
    os.close(_CONTAINER)
    sys.meta_path.clear()  # an import would execute what the container has in the place of a module
    if own:
        perform.become_root()
    privileges.drop_bounding_set(_KEPT, last_capability)
    privileges.limit_capabilities(_KEPT, last_capability)
    privileges.set_no_new_privs()
    privileges.set_parent_death_signal()  # prctl(2): cleared by new credentials
    privileges.set_not_dumpable()
    return Inside(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def _answer(channel: socket.socket, inside: Inside, act: str, *arguments: Any) -> None:
    fds: tuple[int, ...] = ()
    try:
        values, fds = _ACTS[act](inside, *arguments)
        packet = marshal.dumps(("done", *values))
        if len(packet) <= _PACKET_LIMIT:
            _say(channel, packet, fds)
            return
        body = os.memfd_create("pycontain-answer", os.MFD_CLOEXEC)
        with open(body, "wb") as file:
            marshal.dump(values, file)
            file.flush()
            os.lseek(body, 0, os.SEEK_SET)
            _say(channel, marshal.dumps(("long",)), (body,))
    except OSError as error:
        _say(channel, marshal.dumps(("failed", error.errno or 0)))
    except Exception as error:  # noqa: BLE001 - a defect of ours: it must reach the owner, whatever it is
        _say(channel, marshal.dumps(("broken", child.trace(error)[-_PACKET_LIMIT // 2 :])))
    finally:
        for fd in fds:
            if all(fd != each.fd for each in inside.beside.values()):
                os.close(fd)


def _say(channel: socket.socket, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    try:
        if fds:
            socket.send_fds(channel, [packet], fds)
        else:
            channel.send(packet)
    except ConnectionError:
        os._exit(0)  # the owner has let go


def _each(act: Callable[[bytes], tuple[Any, int]], paths: tuple[bytes, ...]) -> Answer:
    """Do *act* for each path: what it says, or the errno and the mode of what it refuses, and the descriptors."""
    said: list[Any] = []
    fds = []
    for path in paths:
        try:
            one, fd = act(path)
        except OSError as error:
            said.append((error.errno or 0, error.mode if isinstance(error, NotRegular) else 0))
        else:
            said.append((0, one))
            fds.append(fd)
    return tuple(said), tuple(fds)


class _Beside:
    """A file that is being written: where it will be, as the directory and the name there, and where it is."""

    def __init__(self, fd: int, parent: int, name: bytes, beside: bytes) -> None:
        self.fd = fd
        self.parent = parent
        self.name = name
        self.beside = beside  # empty for one that is written in its place

    def close(self) -> None:
        for fd in (self.fd, self.parent):
            os.close(fd)


class Inside:
    """The acts, on the root that is open at *root*."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.beside: dict[int, _Beside] = {}
        self.made = 0

    # --- finding ----------------------------------------------------------------------------------------

    def _find(self, path: bytes, flags: int = os.O_PATH) -> int:
        return syscalls.openat2(self.root, path[1:] or b".", flags, resolve=_IN_ROOT)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """The directory of *path*, open, and its last name. The root has no name."""
        above, _, name = path.rpartition(b"/")
        if not name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return self._find(above, os.O_PATH | os.O_DIRECTORY), name

    def _place(self, path: bytes, *, follow: bool) -> tuple[int, bytes]:
        """The same, of where *path* leads when its last name is a link; what it leads to need not be there."""
        for _ in range(_MOST_LINKS):
            parent, name = self._parent(path)
            try:
                target = os.readlink(name, dir_fd=parent) if follow else None
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.ENOENT}:  # readlink(2): not a link
                    os.close(parent)
                    raise
                target = None
            if target is None:
                return parent, name
            os.close(parent)
            # The kernel goes through what is in front, links and ".." in it too, when it looks for the parent.
            path = target if target.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + target
            path = path.rstrip(b"/") or b"/"
            if path.endswith((b"/.", b"/..")):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _again(self, fd: int, flags: int) -> int:
        """Open what the descriptor *fd* has found, and nothing else."""
        return os.open(str(fd), flags | os.O_CLOEXEC, dir_fd=_OWN_FDS)

    # --- looking ----------------------------------------------------------------------------------------

    def open(self, *paths: bytes) -> Answer:
        """The content of regular files."""
        return _each(self._open, paths)

    def _open(self, path: bytes) -> tuple[Any, int]:
        found = self._find(path)
        try:
            status = os.fstat(found)
            _require_regular(status.st_mode)
            return _plain(status), self._again(found, os.O_RDONLY | _CONTENT)
        finally:
            os.close(found)

    def stat(self, path: bytes, follow: bool) -> Answer:  # noqa: FBT001 - the order of a request's fields, here and below
        """What is there."""
        fd = self._find(path, os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
            return (_plain(status, target),), ()
        finally:
            os.close(fd)

    def list(self, path: bytes) -> Answer:
        """What is in a directory."""
        fd = self._find(path, _FOLDER)
        found = []
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.EINVAL}:
                        raise
                    continue  # it was removed or replaced just now
                found.append((name, _plain(status, target)))
        finally:
            os.close(fd)
        return tuple(sorted(found)), ()

    # --- files ------------------------------------------------------------------------------------------

    def create(self, follow: bool, *paths: bytes) -> Answer:  # noqa: FBT001 - as above
        """Begin files, beside those that they will replace; in its place what is mounted there."""
        if len(self.beside) + len(paths) > _MOST_BESIDE:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return _each(lambda path: self._create(path, follow=follow), paths)

    def _create(self, path: bytes, *, follow: bool) -> tuple[Any, int]:
        parent, name = self._place(path, follow=follow)
        fd = -1
        try:
            old, mounted = self._replaced(parent, name)
            if mounted:  # rename(2): such a name cannot be given to another file
                beside = b""
                fd = self._again_in_place(parent, name)
            else:
                beside = _BESIDE + os.urandom(8).hex().encode()
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(beside, flags, 0o600, dir_fd=parent)
        except OSError:
            os.close(parent)
            raise
        self.made += 1
        self.beside[self.made] = _Beside(fd, parent, name, beside)
        return (self.made, old), fd

    def _replaced(self, parent: int, name: bytes) -> tuple[tuple[Any, ...] | None, bool]:
        """The status of the regular file that is there, if one is, and whether it is mounted there."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None, False
        if stat.S_ISLNK(status.st_mode):
            return None, False
        _require_regular(status.st_mode)
        try:
            os.close(syscalls.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_NEXT))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return _plain(status), True
        return _plain(status), False

    def _again_in_place(self, parent: int, name: bytes) -> int:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            _require_regular(os.fstat(found).st_mode)
            return self._again(found, os.O_WRONLY | os.O_TRUNC | _CONTENT)
        finally:
            os.close(found)

    def commit(self, *finished: tuple[int, int, int, int, Times]) -> Answer:
        """Give files their attributes and their names; those before one that fails have them."""
        for number, mode, uid, gid, times in finished:
            one = self.beside[number]
            _dress(one.fd, mode, uid, gid, times)
            if one.beside:
                os.rename(one.beside, one.name, src_dir_fd=one.parent, dst_dir_fd=one.parent)
            del self.beside[number]
            one.close()
        return (), ()

    def discard(self, *numbers: int) -> Answer:
        """Leave everything as it was; what is committed already stays."""
        for number in numbers:
            one = self.beside.pop(number, None)
            if one is not None:
                try:
                    if one.beside:
                        os.unlink(one.beside, dir_fd=one.parent)
                finally:
                    one.close()
        return (), ()

    # --- directories and links --------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int, uid: int, gid: int, parents: bool) -> Answer:  # noqa: FBT001 - as above
        """Make a directory, and with *parents* those above."""
        names = path.split(b"/")[1:]
        made = False
        for depth in range(1 if parents else len(names), len(names) + 1):
            last = depth == len(names)
            parent = self._find(b"/" + b"/".join(names[: depth - 1]), os.O_PATH | os.O_DIRECTORY)
            try:
                made = _make(parent, names[depth - 1], mode if last else 0o755, uid, gid)
            finally:
                os.close(parent)
        if not made:  # a link may lead to a directory, and anything else is in the way
            try:
                os.close(self._find(path, os.O_PATH | os.O_DIRECTORY))
            except (NotADirectoryError, FileNotFoundError):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        return (made,), ()

    def symlink(self, path: bytes, target: bytes, uid: int, gid: int, times: tuple[int, int]) -> Answer:
        """Make a link, in the place of what is no directory."""
        parent, name = self._parent(path)
        beside = _BESIDE + os.urandom(8).hex().encode()
        try:
            os.symlink(target, beside, dir_fd=parent)
            try:
                os.chown(beside, uid, gid, dir_fd=parent, follow_symlinks=False)
                os.utime(beside, ns=times, dir_fd=parent, follow_symlinks=False)
                os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError:
                os.unlink(beside, dir_fd=parent)
                raise
        finally:
            os.close(parent)
        return (), ()

    def link(self, path: bytes, first: bytes, device: int, inode: int) -> Answer:
        """Give a file one more name, in the place of what is no directory; ESTALE when it is another file by now."""
        parent, name = self._parent(path)
        beside = _BESIDE + os.urandom(8).hex().encode()
        try:
            _, mounted = self._replaced(parent, name)
            if mounted:  # as in _create
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            above, old = self._parent(first)
            try:
                os.link(old, beside, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(above)
            try:
                found = os.stat(beside, dir_fd=parent, follow_symlinks=False)
                if (found.st_dev, found.st_ino) != (device, inode):
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
                os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
            finally:
                try:
                    os.unlink(beside, dir_fd=parent)  # rename(2): it stays when both are the same file
                except FileNotFoundError:
                    pass
        finally:
            os.close(parent)
        return (), ()

    def settle(self, path: bytes, mode: int, uid: int, gid: int, times: Times) -> Answer:
        """Give a directory its attributes."""
        fd = self._find(path, _FOLDER)
        try:
            _dress(fd, mode, uid, gid, times)
        finally:
            os.close(fd)
        return (), ()

    def remove(self, path: bytes, recursive: bool) -> Answer:  # noqa: FBT001 - as above
        """Remove what has the name."""
        parent, name = self._parent(path)
        try:
            try:
                os.unlink(name, dir_fd=parent)
            except IsADirectoryError:
                if recursive:
                    fd = syscalls.openat2(parent, name, _FOLDER, resolve=_NEXT)
                    try:
                        _empty(fd, fd, 0)
                    finally:
                        os.close(fd)
                os.rmdir(name, dir_fd=parent)
        finally:
            os.close(parent)
        return (), ()

    def mounts(self) -> Answer:
        """Where something is mounted, proc_pid_mountinfo(5): of this namespace, since it is our own entry."""
        fd = os.open("../mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=_OWN_FDS)
        with open(fd, "rb") as file:
            return tuple(_unescaped(line.split(b" ")[4]) for line in file), ()


_ACTS: dict[str, Callable[..., Answer]] = {
    "open": Inside.open,
    "stat": Inside.stat,
    "list": Inside.list,
    "create": Inside.create,
    "commit": Inside.commit,
    "discard": Inside.discard,
    "mkdir": Inside.mkdir,
    "symlink": Inside.symlink,
    "link": Inside.link,
    "settle": Inside.settle,
    "remove": Inside.remove,
    "mounts": Inside.mounts,
}


def _plain(status: os.stat_result, target: bytes = b"") -> tuple[Any, ...]:
    return *(getattr(status, name) for name in _STATUS), target


def _unescaped(path: bytes) -> bytes:
    """proc_pid_mountinfo(5): a blank, a tab, a newline and a backslash are a backslash and three octal digits."""
    for octal in (b"\\040", b"\\011", b"\\012", b"\\134"):
        path = path.replace(octal, bytes([int(octal[1:], 8)]))
    return path


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise NotRegular(mode)


def _dress(fd: int, mode: int, uid: int, gid: int, times: Times) -> None:
    """Owner, mode and times, -1 and None leave them; chown(2) clears set-id bits, so it comes first."""
    if (uid, gid) != (-1, -1):
        os.fchown(fd, uid, gid)
    if mode >= 0:
        os.fchmod(fd, mode)
    if times is not None:
        os.utime(fd, ns=times)


def _make(parent: int, name: bytes, mode: int, uid: int, gid: int) -> bool:
    """Make a directory; False when something of the name is there."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    fd = syscalls.openat2(parent, name, _FOLDER, resolve=_NEXT)
    try:
        _dress(fd, mode, uid, gid, None)
    finally:
        os.close(fd)
    return True


def _empty(folder: int, top: int, depth: int) -> None:
    """Remove all that is in the open directory *folder*, following no link and crossing no mount.

    A tree may be deeper than descriptors or a stack can be, so below a certain depth a directory is moved to the top.
    """
    for _ in range(_ROUNDS):
        names = os.listdir(folder)
        if not names:
            return
        for name in names:
            try:
                _remove(os.fsencode(name), folder, top, depth)
            except FileNotFoundError:
                continue  # somebody inside was faster


def _remove(name: bytes, folder: int, top: int, depth: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        pass
    else:
        return
    if depth == _DEPTH:
        os.rename(name, _BESIDE + os.urandom(16).hex().encode(), src_dir_fd=folder, dst_dir_fd=top)
        return
    below = syscalls.openat2(folder, name, _FOLDER, resolve=_NEXT)
    try:
        _empty(below, top, depth + 1)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)
