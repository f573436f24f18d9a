"""The first steps of a plan as the flat list of system calls that they come to: compiled once, made by every spare child.

A doer of :mod:`pycontain.runtime.perform` is written to be safe on an image: it resolves each place below the root and
asks what it finds. On the stage, which the child has just made and nobody else can see, that is not needed, and the
calls are the same every time, down to the numbers of the descriptors. So they are data here: numbers and addresses of
buffers that the forker has made and its children share with it. One loop makes them, which spares each child most of
the pages that it would copy by running Python.

What has no such form stays a step, done by its doer.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from pycontain.kernel import netdevice, privileges, syscalls
from pycontain.runtime import perform

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    # What a call must return (-1: whatever is no failure), its number and its arguments; number -1 stands for the doer.
    Call: TypeAlias = "tuple[int, int, int, int, int, int, int, int]"
    # The index of the step, the errno values that end it well, how many calls are left of it, and the call.
    Entry: TypeAlias = "tuple[int, tuple[int, ...], int, Call]"

_DOER: Call = (0, -1, 0, 0, 0, 0, 0, 0)
_AT_FDCWD = -100
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_TREE = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE | os.O_CLOEXEC
_ATTACH = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
_FROM_TREE = syscalls.MOVE_MOUNT_F_EMPTY_PATH
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
_PR_SET_NAME = 15


class Calls:
    """The calls for some *steps* from the second on, for a child whose lowest free descriptor is *free*."""

    def __init__(self, steps: tuple[tuple[Any, ...], ...], free: int) -> None:
        self.steps = steps
        self.free = free  # the lowest free descriptor at this moment
        self.stage = self.files = -1  # the descriptors of what the calls mount, for the doers that follow
        self._buffers: dict[bytes, Any] = {}
        self._made: set[str] = set()
        self.entries: list[Entry] = [(0, (), 0, self.call("prctl", _PR_SET_NAME, "pycontain-init"))]
        for index in range(1, len(steps)):
            name, tolerate, *fields = steps[index]
            calls = tuple(_COMPILERS.get(name, _by_doer)(self, *fields))
            for place, call in enumerate(calls, 1):
                self.entries.append((index, tolerate, len(calls) - place, call))

    def address(self, content: str | bytes) -> int:
        """Where *content* lies, ended by a zero."""
        key = os.fsencode(content)
        if key not in self._buffers:
            self._buffers[key] = ctypes.create_string_buffer(key)
        return ctypes.addressof(self._buffers[key])

    def make(self, child: perform.Child) -> None:
        """Make the calls, as :func:`perform.perform` does the steps."""
        place, entries, call = 0, self.entries, syscalls.raw
        while place < len(entries):
            index, tolerate, left, (expected, *arguments) = entries[place]
            place += 1
            if arguments[0] < 0:
                child.root = self.stage
                perform.perform(self.steps[: index + 1], child, index)
                continue
            result = call(*arguments)
            if result == expected or expected < 0 <= result:
                continue
            number = ctypes.get_errno()
            if result >= 0:
                raise RuntimeError(f"call {arguments} of step {index} returned {result}, not {expected}")
            if number not in tolerate:
                raise perform.StepRefused(index, number, "")
            place += left
        if self.stage >= 0:
            child.adopt(self.stage, self.files)

    # --- what calls are made of -----------------------------------------------------------------------------

    def call(self, name: str, *arguments: int | str | bytes | None, returns: int = 0) -> Call:
        """The call *name*; texts become addresses."""
        values = [
            0 if value is None else value if isinstance(value, int) else self.address(value)
            for value in arguments
        ]
        first, second, third, fourth, fifth, sixth = (*values, *(0,) * (6 - len(values)))
        return returns, syscalls.number_of(name), first, second, third, fourth, fifth, sixth

    def open(self, name: str, *arguments: int | str | bytes | None) -> Call:
        """The same for a call that returns a descriptor: the kernel gives the lowest that is free."""
        return self.call(name, *arguments, returns=self.free)

    def close(self) -> Call:
        """Close what the last :meth:`open` has opened."""
        return self.call("close", self.free)

    def attach(self, path: str, attributes: int, propagation: int = 0, flags: int = 0) -> Iterator[Call]:
        """Give the tree that is open its attributes, and attach it at *path* of the stage."""
        wanted = struct.pack("=4Q", attributes, 0, propagation, 0)
        yield self.call("mount_setattr", self.free, b"", syscalls.AT_EMPTY_PATH | flags, wanted, len(wanted))
        yield self.call("move_mount", self.free, b"", self.stage, path, _FROM_TREE)
        yield self.close()

    def directory(self, path: str, mode: int) -> Iterator[Call]:
        """Make a directory of the stage, unless these calls have made it already."""
        if path not in self._made:
            self._made.add(path)
            yield self.call("mkdirat", self.stage, path, mode)

    def device(self, source: str) -> Call:
        """Open a clone of a device node of the host."""
        return self.open("open_tree", _AT_FDCWD, source, syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC)

    def keep_open(self) -> int:
        """The descriptor of the last :meth:`open` stays open from now on."""
        self.free += 1
        return self.free - 1


def _by_doer(_: Calls, *_fields: object) -> Iterator[Call]:
    yield _DOER


# --- one function for each step -------------------------------------------------------------------------


def _set_parent_death_signal(calls: Calls) -> Iterator[Call]:
    yield calls.call("prctl", _PR_SET_PDEATHSIG, _SIGKILL)


def _map_ids(_: Calls, _count: int) -> Iterator[Call]:
    yield from ()  # it was done when we were forked


def _join_session_keyring(calls: Calls) -> Iterator[Call]:
    yield calls.call("keyctl", syscalls.KEYCTL_JOIN_SESSION_KEYRING, None, returns=-1)


def _write_sysctl(calls: Calls, path: str, value: str) -> Iterator[Call]:
    yield calls.open("openat", calls.stage, path[1:], os.O_WRONLY | os.O_CLOEXEC)
    yield calls.call("write", calls.free, value, len(value), returns=len(value))
    yield calls.close()


def _bring_loopback_up(calls: Calls) -> Iterator[Call]:
    yield calls.open("socket", *netdevice.SOCKET)
    yield calls.call("ioctl", calls.free, netdevice.SIOCSIFFLAGS, netdevice.up("lo"))
    yield calls.close()


def _mount_stage(calls: Calls) -> Iterator[Call]:
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    yield calls.call("mount", "tmpfs", perform.STAGE, "tmpfs", flags, "mode=0755")
    yield calls.open("openat", _AT_FDCWD, perform.STAGE, _FOLDER)
    calls.stage = calls.keep_open()


def _mount_filesystem(
    calls: Calls,
    fstype: str,
    target: str,
    flags: int,
    options: str | None,
    follow: bool,  # noqa: FBT001 - as the step
) -> Iterator[Call]:
    del follow  # on the stage there is nothing to follow
    yield from calls.directory(target[1:], 0o755)
    yield calls.call("mount", fstype, f"{perform.STAGE}{target}", fstype, flags, options)


def _mount_files(calls: Calls, options: str) -> Iterator[Call]:
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    yield calls.call("mount", "tmpfs", perform.FILES, "tmpfs", flags, options)
    yield calls.open("openat", _AT_FDCWD, perform.FILES, _FOLDER)
    calls.files = calls.keep_open()


def _drop_bounding_set(calls: Calls, keep: int) -> Iterator[Call]:
    for number in privileges.dropped(keep, privileges.last_capability()):
        yield calls.call("prctl", privileges.PR_CAPBSET_DROP, number)


def _make_directory(calls: Calls, path: str, mode: int) -> Iterator[Call]:
    yield from calls.directory(path[1:], mode)


def _make_device(calls: Calls, path: str, major: int, minor: int, mode: int) -> Iterator[Call]:
    yield calls.call("mknodat", calls.stage, path[1:], stat.S_IFCHR | mode, os.makedev(major, minor))


def _bind_device(calls: Calls, source: str, path: str) -> Iterator[Call]:
    yield calls.call("mknodat", calls.stage, path[1:], stat.S_IFREG | 0o644, 0)
    yield calls.device(source)
    yield from calls.attach(path[1:], perform.DEVICE_ATTRIBUTES, syscalls.MS_PRIVATE)


def _make_link(calls: Calls, target: str, path: str) -> Iterator[Call]:
    yield calls.call("symlinkat", target, calls.stage, path[1:])


def _read_only_path(calls: Calls, path: str) -> Iterator[Call]:
    yield calls.open("open_tree", calls.stage, path[1:], _TREE)
    yield from calls.attach(path[1:], syscalls.MOUNT_ATTR_RDONLY, flags=syscalls.AT_RECURSIVE)


def _mask_path(calls: Calls, path: str) -> Iterator[Call]:
    """What kind of thing it is, is asked now, and what is not there now is looked for again by every child."""
    try:
        found = os.stat(path)
    except OSError:
        yield calls.call("faccessat", calls.stage, path[1:], os.F_OK)
        yield _DOER
        return
    if stat.S_ISDIR(found.st_mode):
        yield calls.call(
            "mount", "tmpfs", f"{perform.STAGE}{path}", "tmpfs", syscalls.MS_RDONLY, perform.MASK_OPTIONS
        )
        return
    yield calls.device("/dev/null")
    yield from calls.attach(path[1:], perform.DEVICE_ATTRIBUTES, syscalls.MS_PRIVATE)


_COMPILERS: dict[str, Callable[..., Iterator[Call]]] = {
    "SetParentDeathSignal": _set_parent_death_signal,
    "MapIds": _map_ids,
    "JoinSessionKeyring": _join_session_keyring,
    "WriteSysctl": _write_sysctl,
    "BringLoopbackUp": _bring_loopback_up,
    "MountStage": _mount_stage,
    "MountFilesystem": _mount_filesystem,
    "MountFiles": _mount_files,
    "DropBoundingSet": _drop_bounding_set,
    "MakeDirectory": _make_directory,
    "MakeDevice": _make_device,
    "BindDevice": _bind_device,
    "MakeLink": _make_link,
    "ReadOnlyPath": _read_only_path,
    "MaskPath": _mask_path,
}
