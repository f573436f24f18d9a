"""Applying a layer in a child of the zygote, which may chown: the same code for root and in a user namespace.

A layer comes from strangers. So the child that reads it first takes a root where there is nothing but the tree and a
/proc of its own, keeps only the capabilities that a tree needs, and is given nothing but the layer and the place for
its report. What a defect in :mod:`pycontain.layers` could let through would stay inside.
"""

from __future__ import annotations

import marshal
import os
import socket
import traceback
from typing import TYPE_CHECKING, Any

import attrs

from pycontain import errors
from pycontain.errors import PycontainError, SandboxError
from pycontain.kernel import privileges, syscalls
from pycontain.layers.apply import Applied, Devices, Ownership, apply
from pycontain.layers.entries import DEFAULT_LIMITS, Limits, Whiteouts
from pycontain.runtime import perform, sweep
from pycontain.sandbox import capabilities

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine

_LAYER, _REPORT = 0, 1
_TREE = "/tree"
# chown, set-id bits, modes and times of others' files, device nodes, file capabilities; trusted.* attributes of an
# overlay's lower directory want CAP_SYS_ADMIN, which a user namespace has only over itself.
_KEPT = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")


@attrs.frozen
class Unpacked:
    """What was applied, as :class:`pycontain.layers.apply.Applied` says; *lost* are ``(what, path, reason)``."""

    diff_id: str
    digest: str
    size: int
    entries: int
    written: int
    squashed: int
    lost: tuple[tuple[str, bytes, str], ...]
    implied: tuple[bytes, ...]


def unpack(
    engine: Engine,
    layer: int,
    target: str,
    *,
    whiteouts: Whiteouts = Whiteouts.REMOVE,
    diff_id: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Unpacked:
    """Apply the layer that the descriptor *layer* reads to the directory *target*, in a child of *engine*'s zygote.

    Waits for it, in this thread; interrupted, it ends the child. Errors are those of
    :func:`pycontain.layers.apply.apply`, and then *target* is empty again.
    Where one id is mapped, files stay with the user; where devices cannot be made, they are left out.
    """
    ownership = Ownership.SQUASH if engine.facts.single_id else Ownership.KEEP
    devices = Devices.RECORD if engine.facts.rootless else Devices.MAKE
    choices = (whiteouts.value, ownership.value, devices.value, diff_id, attrs.asdict(limits))
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    report, write_end = os.pipe2(os.O_CLOEXEC)
    with channel, open(report, "rb") as answer:
        try:
            engine.request(("apply", target, *choices), (theirs.fileno(), layer, write_end))
        finally:
            theirs.close()
            os.close(write_end)
        text = answer.read()
    return _read(text, engine)


def _read(text: bytes, engine: Engine) -> Unpacked:
    if not text:
        raise SandboxError("the process that applied a layer was killed") from engine.broken()
    kind, *content = marshal.loads(text)
    if kind == "applied":
        return Unpacked(*content)
    if kind == "broken":
        raise SandboxError("pycontain failed in a way that it does not know; this is a defect").with_hint(
            content[0]
        )
    name, arguments, state = content
    error: PycontainError = getattr(errors, name).__new__(getattr(errors, name), *arguments)
    error.args = arguments
    for field, value in state.items():
        setattr(error, field, value)
    raise error


def live(fds: list[int], last_capability: int, target: str, *choices: Any) -> None:
    """The child's life. Never returns."""
    try:
        _confine(fds, target, last_capability)
        try:
            answer = _apply(*choices)
        except PycontainError as error:
            _empty_tree()
            state = {
                name: value for name, value in vars(error).items() if isinstance(value, str | int | list)
            }
            answer = ("refused", type(error).__name__, tuple(map(str, error.args)), state)
        with open(_REPORT, "wb", closefd=False) as report:
            report.write(marshal.dumps(answer))
    except BaseException:  # noqa: BLE001 - a defect of ours, or no space: it must reach the owner, whatever it is
        os.write(_REPORT, marshal.dumps(("broken", traceback.format_exc())))
    finally:
        os._exit(0)


def _confine(fds: list[int], target: str, last_capability: int) -> None:
    import isal.igzip  # noqa: F401, PLC0415 - now or never: the root is about to be the tree
    import zstandard  # noqa: F401, PLC0415 - as above

    _, layer, report = fds
    for place, fd in ((_LAYER, os.dup(layer)), (_REPORT, os.dup(report))):
        os.dup2(fd, place)
    syscalls.close_range(_REPORT + 2)
    _enter(target)
    keep = capabilities.bits(_KEPT)
    privileges.drop_bounding_set(keep, last_capability)
    privileges.limit_capabilities(keep, last_capability)
    privileges.set_no_new_privs()


def _enter(target: str) -> None:
    """pivot_root(2) to a tmpfs that holds the tree, and proc(5) because descriptors are reached through it."""
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    syscalls.mount("tmpfs", perform.STAGE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755")
    os.chdir(perform.STAGE)
    for name in ("tree", "proc"):
        os.mkdir(name, 0o755)
    syscalls.mount(target, "tree", None, syscalls.MS_BIND, None)
    confined = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "proc", "proc", confined, None)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _empty_tree() -> None:
    top = os.open(_TREE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sweep.empty(top)
    os.close(top)


def _apply(
    whiteouts: str, ownership: str, devices: str, diff_id: str | None, limits: dict[str, int]
) -> tuple[Any, ...]:
    with open(_LAYER, "rb", closefd=False) as stream:
        applied = apply(
            stream,
            _TREE,
            limits=Limits(**limits),
            whiteouts=Whiteouts(whiteouts),
            ownership=Ownership(ownership),
            devices=Devices(devices),
            diff_id=diff_id,
        )
    return ("applied", *_plain(applied))


def _plain(applied: Applied) -> tuple[Any, ...]:
    lost = tuple((loss.what.value, loss.entry.path, loss.reason) for loss in applied.recorded)
    counts = (applied.size, applied.entries, applied.written, applied.squashed)
    return applied.diff_id, applied.digest, *counts, lost, applied.implied
