"""Applying layers in children of the zygote, which may chown: the same code for root and in a user namespace.

A layer comes from strangers. So the process that reads it first takes a root where there is nothing but the tree, the
trees below it, read-only, and a /proc of its own; keeps only the capabilities that a tree needs; and is given nothing
but the layer and the place for its report. What a defect in :mod:`pycontain.layers` could let through would stay inside.

For several layers there is one child of the zygote, the *unpacker*, which imports what reading a layer takes and forks
for each of them: 30 ms once, and 3 ms for each layer.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal
import socket
import stat
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import attrs

from pycontain import errors
from pycontain.errors import LayerError, PycontainError, SandboxError, StoreError
from pycontain.kernel import descriptors, privileges, syscalls, trees
from pycontain.layers.apply import Applied, Devices, Ownership, apply
from pycontain.layers.entries import DEFAULT_LIMITS, OVERLAY_XATTRS, Limits, Whiteouts
from pycontain.runtime import perform
from pycontain.sandbox import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pycontain.runtime.engine import Engine

_REQUESTS = 0  # in the unpacker
_INPUT, _REPORT = 0, 1  # in a child of it
_FURTHER, _FAR = 3, 16
_REQUEST_LIMIT = 1 << 16
_TREE, _BELOW = "/tree", "/below"
# chown, set-id bits, modes and times of others' files, device nodes, file capabilities; trusted.* attributes of an
# overlay's lower directory want CAP_SYS_ADMIN, which a user namespace has only over itself.
_KEPT = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOT_COPIED = (*OVERLAY_XATTRS, b"security.")  # the host's security modules label what is made
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINK = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


@attrs.frozen
class Unpacked:
    """What was applied, as :class:`pycontain.layers.apply.Applied` says; *lost* are ``(what, path, reason)``.

    *undescribed* are the directories that the layer uses and does not describe, the root among them.
    """

    diff_id: str
    size: int
    entries: int
    written: int
    squashed: int
    lost: tuple[tuple[str, bytes, str], ...]
    undescribed: tuple[bytes, ...]


# --- the owner's side -----------------------------------------------------------------------------------


class Unpacker:
    """A process that unpacks layers one after the other or at once; a context manager that ends it. Threads may share it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            engine.request(("apply",), (theirs.fileno(), served.fileno()))
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()
            served.close()

    def apply(
        self,
        layer: int,
        target: str,
        *,
        whiteouts: Whiteouts = Whiteouts.REMOVE,
        diff_id: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Unpacked:
        """Apply the layer that the descriptor *layer* reads to the directory *target*.

        Waits for it, in this thread; interrupted, the work ends with the unpacker. Errors are those of
        :func:`pycontain.layers.apply.apply`, or :class:`StoreError` when the disk is full, and then *target* is empty again. Where one id is mapped, files stay with
        the user; where devices cannot be made, they are left out.
        """
        ownership = Ownership.SQUASH if self._engine.facts.single_id else Ownership.KEEP
        devices = Devices.RECORD if self._engine.facts.rootless else Devices.MAKE
        choices = (whiteouts.value, ownership.value, devices.value, diff_id, attrs.asdict(limits))
        return Unpacked(*self._ask("apply", target, *choices, fds=(layer,)))

    def adopt(
        self, target: str, directories: Sequence[bytes], below: Sequence[str], whiteouts: Whiteouts
    ) -> None:
        """Give *directories* of the tree *target* what the trees say on which it will lie in an overlay.

        Those are *below*, the topmost first. A directory that a layer uses and does not describe, the root among them,
        would hide that otherwise: owner, mode, times, extended attributes.
        """
        with open(os.memfd_create("directories"), "w+b") as file:  # there may be more than a packet holds
            marshal.dump(tuple(directories), file)
            file.seek(0)
            self._ask("adopt", target, tuple(below), whiteouts.value, fds=(file.fileno(),))

    def empty(self, target: str) -> None:
        """Remove all that is in the directory *target*, whoever owns it."""
        self._ask("empty", target)

    def remove_tree(self, path: str) -> None:
        """Remove the directory *path* and all in it, whoever owns it; what :meth:`pycontain.store.store.Store.gc` wants."""
        with suppress(FileNotFoundError):
            self.empty(path)
            os.rmdir(path)

    def _ask(self, act: str, target: str, *arguments: Any, fds: tuple[int, ...] = ()) -> tuple[Any, ...]:
        with self.begin(act, target, *arguments, fds=fds) as answer:
            return self.finish(answer, target)

    def fill(self, target: str, below: Sequence[str], path: str, user: str) -> None:
        """Give the empty directory *target* what the trees *below*, the topmost first, have in *path*; else to *user*."""
        rootless = self._engine.facts.rootless
        ownership = Ownership.SQUASH if self._engine.facts.single_id else Ownership.KEEP
        devices = Devices.RECORD if rootless else Devices.MAKE
        whiteouts = Whiteouts.USER_OVERLAY if rootless else Whiteouts.OVERLAY
        with open(os.memfd_create("below"), "w+b") as file:  # there may be more than a packet holds
            marshal.dump(tuple(below), file)
            file.seek(0)
            choices = (whiteouts.value, path, user, ownership.value, devices.value)
            self._ask("fill", target, *choices, fds=(file.fileno(),))

    def measure(self, target: str) -> tuple[int, int]:
        """The bytes on the disk, and the number of entries, in the directory *target*."""
        size, entries = self._ask("measure", target)
        return size, entries

    def give(self, folder: str, name: str, uid: int, gid: int, mode: int) -> None:
        """Give *name* in the directory *folder*, or without one the directory, an owner and a mode; no link is followed."""
        self._ask("give", folder, name, uid, gid, mode)

    def begin(self, act: str, target: str, *arguments: Any, fds: tuple[int, ...] = ()) -> BinaryIO:
        """Have it do one of its acts, and return what :meth:`finish` reads and the caller closes."""
        report, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._send((act, target, *arguments), (write_end, *fds))
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(write_end)
        return open(report, "rb")

    def finish(self, answer: BinaryIO, target: str) -> tuple[Any, ...]:
        """Wait for the end of an act; what it said, or why it failed."""
        text = answer.read()
        if not text:
            raise SandboxError("the process that works on layers was killed") from self._engine.broken()
        return _read(text, target)

    def _send(self, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        packet = marshal.dumps(message)
        assert len(packet) <= _REQUEST_LIMIT, "an image has at most 127 layers, and paths are short"
        try:
            socket.send_fds(self._requests, [packet], fds)
        except OSError as error:
            raise self._engine.broken() from error

    def close(self) -> None:
        """End the unpacker, and what it is doing; may be repeated."""
        self._requests.close()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def unpack(engine: Engine, layer: int, target: str) -> Unpacked:
    """As :meth:`Unpacker.apply`, for a single layer."""
    with Unpacker(engine) as unpacker:
        return unpacker.apply(layer, target)


def _read(text: bytes, target: str) -> tuple[Any, ...]:
    kind, *content = marshal.loads(text)
    if kind == "done":
        return tuple(content)
    if kind == "broken":
        raise SandboxError("pycontain failed in a way that it does not know; this is a defect").with_hint(
            content[0]
        )
    if kind == "full":
        raise StoreError(
            f"a layer cannot be unpacked to {target}: {content[0]}",
            path=target,
            hint="free some, for instance with Store.gc(), or use another disk: PYCONTAIN_STORE, PYCONTAIN_STATE",
        )
    if kind == "missing":
        raise FileNotFoundError(*content)
    name, arguments, state = content
    error: PycontainError = getattr(errors, name).__new__(getattr(errors, name), *arguments)
    error.args = arguments
    for field, value in state.items():
        setattr(error, field, value)
    raise error


# --- the unpacker ---------------------------------------------------------------------------------------


def live(fds: list[int], last_capability: int) -> None:
    """The unpacker's life: fork for each request until the owner lets go. Never returns."""
    try:
        _, requests = fds
        os.dup2(requests, _REQUESTS)
        syscalls.close_range(3)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wait(2): children leave nothing to be waited for
        import isal.igzip  # noqa: F401, PLC0415 - before a child's root is nothing but the tree
        import zstandard  # noqa: F401, PLC0415 - as above

        with socket.socket(fileno=_REQUESTS) as line:
            while True:
                packet, given, _ = descriptors.receive(line, _REQUEST_LIMIT, 4)
                if not packet:
                    break
                if os.fork() == 0:
                    _serve(given, last_capability, *marshal.loads(packet))
                for fd in given:
                    os.close(fd)
    except BaseException:  # noqa: BLE001 - a defect of ours: the engine shows what is written here
        traceback.print_exc()
    finally:
        os._exit(0)


def _serve(fds: list[int], last_capability: int, act: str, target: str, *arguments: Any) -> None:
    """The life of a child of the unpacker, with what it was given at 0, and after it from 3 on. Never returns."""
    try:
        privileges.set_parent_death_signal()
        places = (_REPORT, _INPUT, *range(_FURTHER, _FURTHER + 2))[: len(fds)]
        far = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FAR) for fd in fds]
        for place, fd in zip(places, far, strict=True):
            os.dup2(fd, place, inheritable=False)
        syscalls.close_range(max(_FURTHER, places[-1] + 1))
        answer = _ACTS[act](last_capability, target, *arguments)
        _report(answer)
    except BaseException:  # noqa: BLE001 - a defect of ours, or no space: it must reach the owner, whatever it is
        _report(("broken", traceback.format_exc()))
    finally:
        os._exit(0)


def _report(answer: tuple[Any, ...]) -> None:
    with open(_REPORT, "wb", closefd=False) as report:
        report.write(marshal.dumps(answer))


def _confine(
    last_capability: int,
    target: str,
    below: Sequence[str] = (),
    whiteouts: Whiteouts = Whiteouts.REMOVE,
    trees: Sequence[str] = (),
    *,
    recursive: bool = False,
) -> None:
    _enter(target, below, whiteouts, trees, recursive=recursive)
    keep = capabilities.bits(_KEPT)
    privileges.drop_bounding_set(keep, last_capability)
    privileges.limit_capabilities(keep, last_capability)
    privileges.set_no_new_privs()


def _enter(
    target: str,
    below: Sequence[str],
    whiteouts: Whiteouts,
    trees: Sequence[str] = (),
    *,
    recursive: bool = False,
) -> None:
    """pivot_root(2) to a tmpfs with the tree, what is below it, and proc(5), through which descriptors are reached.

    The tree is the directory *target*, or *trees* merged.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    syscalls.mount("tmpfs", perform.STAGE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755")
    os.chdir(perform.STAGE)
    for name in ("tree", "below", "nothing", "proc"):
        os.mkdir(name, 0o755)
    if target:
        syscalls.mount(target, "tree", None, syscalls.MS_BIND | syscalls.MS_REC * recursive, None)
    confined = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    for place, merged in (("below", below), ("tree", trees)):
        if merged:
            _mount_merged(place, (*merged, "nothing"), confined, whiteouts)
    syscalls.mount("proc", "proc", "proc", confined, None)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _mount_merged(place: str, trees: Sequence[str], flags: int, whiteouts: Whiteouts) -> None:
    """An overlay that cannot be written, as the kernel merges the trees; it wants two at least (overlayfs.rst).

    By descriptors, because the names of 127 layers are longer than mount(2) takes.
    """
    opened = [os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for tree in trees]
    lower = ":".join(f"/proc/self/fd/{fd}" for fd in opened)
    settings = f"lowerdir={lower}" + ",userxattr" * (whiteouts is Whiteouts.USER_OVERLAY)
    syscalls.mount("overlay", place, "overlay", flags | syscalls.MS_RDONLY, settings)
    for fd in opened:
        os.close(fd)


# --- its acts -------------------------------------------------------------------------------------------


def _empty(last_capability: int, target: str) -> tuple[Any, ...]:
    try:
        _confine(last_capability, target)
    except FileNotFoundError as error:  # somebody else removes trees, too
        return "missing", error.errno, error.strerror, error.filename
    _empty_tree()
    return ("done",)


def _empty_tree() -> None:
    top = os.open(_TREE, _FOLDER)
    trees.empty(top)
    os.close(top)


def _adopt(last_capability: int, target: str, below: Sequence[str], whiteouts: str) -> tuple[Any, ...]:
    _confine(last_capability, target, below, Whiteouts(whiteouts))
    with open(_INPUT, "rb", closefd=False) as file:
        _take_over(marshal.load(file))
    return ("done",)


def _apply(
    last_capability: int,
    target: str,
    whiteouts: str,
    ownership: str,
    devices: str,
    diff_id: str | None,
    limits: dict[str, int],
) -> tuple[Any, ...]:
    _confine(last_capability, target)
    try:
        with open(_INPUT, "rb", closefd=False) as stream:
            applied = apply(
                stream,
                _TREE,
                limits=Limits(**limits),
                whiteouts=Whiteouts(whiteouts),
                ownership=Ownership(ownership),
                devices=Devices(devices),
                diff_id=diff_id,
            )
    except (PycontainError, OSError) as error:
        _empty_tree()
        reason = error.__cause__ if isinstance(error, LayerError) else error
        if isinstance(reason, OSError) and reason.errno in _FULL:
            return "full", os.strerror(reason.errno)
        if not isinstance(error, PycontainError):
            raise
        return _refused(error)
    return ("done", *_plain(applied))


def _refused(error: PycontainError) -> tuple[Any, ...]:
    state = {name: value for name, value in vars(error).items() if isinstance(value, str | int | list)}
    return ("refused", type(error).__name__, tuple(map(str, error.args)), state)


def _plain(applied: Applied) -> tuple[Any, ...]:
    lost = tuple((loss.what.value, loss.entry.path, loss.reason) for loss in applied.recorded)
    counts = (applied.size, applied.entries, applied.written, applied.squashed)
    undescribed = applied.implied if applied.describes_root else (b"", *applied.implied)
    return applied.diff_id, *counts, lost, undescribed


def _changes(last_capability: int, target: str, act: str) -> tuple[Any, ...]:
    """List or write what a container has changed, see :mod:`pycontain.runtime.changes`."""
    from pycontain.runtime import changes  # noqa: PLC0415 - those who unpack do without; before the root has nothing to import

    with open(_INPUT, "rb", closefd=False) as file:
        survey = changes.Survey(*marshal.load(file))
    _confine(last_capability, target, survey.lower, Whiteouts(survey.lower_whiteouts))
    try:
        return ("done", *survey.do(act, _FURTHER, _FURTHER + 1, _BELOW))
    except PycontainError as error:
        return _refused(error)


def _fill(
    last_capability: int,
    target: str,
    whiteouts: str,
    path: str,
    user: str,
    ownership: str,
    devices: str,
) -> tuple[Any, ...]:
    from pycontain.runtime import filling  # noqa: PLC0415 - as above

    with open(_INPUT, "rb", closefd=False) as file:
        below = marshal.load(file)
    _confine(last_capability, target, below, Whiteouts(whiteouts))
    try:
        filling.fill(_BELOW, _TREE, path, user, Ownership(ownership), Devices(devices))
    except PycontainError as error:
        return _refused(error)
    return ("done",)


def _give(last_capability: int, target: str, name: str, uid: int, gid: int, mode: int) -> tuple[Any, ...]:
    _confine(last_capability, target)
    given = os.open(f"{_TREE}/{name}", os.O_PATH | os.O_NOFOLLOW)
    os.chown(f"/proc/self/fd/{given}", uid, gid)
    os.chmod(f"/proc/self/fd/{given}", mode)
    return ("done",)


def _measure(last_capability: int, target: str) -> tuple[Any, ...]:
    from pycontain.runtime import filling  # noqa: PLC0415 - as above

    _confine(last_capability, target)
    return ("done", *filling.measure(_TREE))


def _copy(last_capability: int, target: str, act: str) -> tuple[Any, ...]:
    """Write the layer that a COPY or ADD makes, or only its digest, see :mod:`pycontain.runtime.copying`."""
    from pycontain.runtime import copying  # noqa: PLC0415 - as above

    with open(_INPUT, "rb", closefd=False) as file:
        trees, below, whiteouts, *order = marshal.load(file)
    # mount_namespaces(7): in a user namespace what is mounted in the context cannot be left out.
    _confine(last_capability, target, below, Whiteouts(whiteouts), trees, recursive=True)
    try:
        return ("done", *copying.Copying(*order).do(act, _TREE, _BELOW, _FURTHER))
    except PycontainError as error:
        return _refused(error)


_ACTS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "copy": _copy,
    "apply": _apply,
    "adopt": _adopt,
    "empty": _empty,
    "changes": _changes,
    "fill": _fill,
    "give": _give,
    "measure": _measure,
}


# --- what the layers below say --------------------------------------------------------------------------


def _take_over(directories: Sequence[bytes]) -> None:
    """Give directories of the tree the owner, attributes, mode and times that they have in the trees below."""
    tree, below = os.open(_TREE, _FOLDER), os.open(_BELOW, _FOLDER)
    for path in directories:
        _copy_status(_find(below, path), _find(tree, path))
    os.close(tree)
    os.close(below)


def _find(top: int, path: bytes) -> int:
    """The directory at *path*, which holds no links; -1 when something else is there, or nothing."""
    try:
        return syscalls.openat2(top, path or b".", _FOLDER, resolve=_NO_LINK)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise
        return -1


def _copy_status(source: int, target: int) -> None:
    if source >= 0 and target >= 0:
        found = os.fstat(source)
        os.fchown(target, found.st_uid, found.st_gid)
        for name in os.listxattr(source):
            if not os.fsencode(name).startswith(_NOT_COPIED):
                os.setxattr(target, name, os.getxattr(source, name))
        os.fchmod(target, stat.S_IMODE(found.st_mode))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    for fd in (source, target):
        if fd >= 0:
            os.close(fd)
