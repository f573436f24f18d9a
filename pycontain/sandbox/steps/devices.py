"""Steps for devices, links beside them and the terminal."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

import attrs

from pycontain.sandbox.steps.mounts import target_problem
from pycontain.sandbox.steps.step import DEVICE_ATTRIBUTES, MISSING, Role, Step, in_tree, quoted

if TYPE_CHECKING:
    from pycontain.sandbox.paths import HostPath, RootPath


@attrs.frozen
class CloneDevice(Step):
    """mknod(2) by the zygote of a node for the device that *source* of the host is, owned by the container's root.

    The host's own node would be nobody's inside, and so be closed to all whom its mode does not let in.
    """

    number: int
    source: HostPath

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return (
            f"mknod(NODES/n, mode and device of {quoted(self.source)}); chown(NODES/n, IDS, IDS); "
            f"TREE{self.number} = open_tree(NODES/n, OPEN_TREE_CLONE); mount_setattr(TREE{self.number}, {{attr_set={DEVICE_ATTRIBUTES}}})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """As of a node that is bound."""
        return _device_problem(self.source, number)


def _device_problem(source: HostPath, number: int) -> tuple[str, str] | None:
    """ENODEV is how the doers say that it is something else; of a tree with mounts below, a user namespace gets EINVAL."""
    if number in MISSING:
        return f"the host has no device {source}", "correct the path, or load the driver's module"
    if number in {errno.ENODEV, errno.EINVAL}:
        return f"{source} of the host is no device node", "use .mount() for files and directories"
    return None


@attrs.frozen
class MakeDevice(Step):
    """mknod(2) of a character device below the root."""

    path: RootPath
    major: int
    minor: int
    mode: int = 0o666

    def __str__(self) -> str:
        return f"mknod({in_tree(self.path)}, S_IFCHR|{self.mode:#o}, makedev({self.major}, {self.minor}))"


@attrs.frozen
class BindDevice(Step):
    """A device node of the host at a place below the root: what a user namespace may do in place of mknod(2)."""

    source: HostPath
    target: RootPath

    def __str__(self) -> str:
        return (
            f"tree = open_tree({quoted(self.source)}, OPEN_TREE_CLONE); mount_setattr(tree, {{attr_set={DEVICE_ATTRIBUTES}}}); "
            f"move_mount(tree, {in_tree(self.target)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The source or the place."""
        if path != self.source:
            return target_problem(self.target, number)
        return _device_problem(self.source, number)


@attrs.frozen
class MakeHostDevices(Step):
    """Every device node in /dev of the host that is not there yet, made with its mode and owner or, in a user namespace, bound.

    What the zygote may not look at is left out.
    """

    bound: bool

    def __str__(self) -> str:
        act = (
            "move_mount(open_tree(NODE, OPEN_TREE_CLONE), STAGE/NODE)" if self.bound else "mknod(STAGE/NODE)"
        )
        return f'for NODE in "/dev", but pts, shm and mqueue: {act}'


@attrs.frozen
class OpenTerminal(Step):
    """A pseudo-terminal of the container's own devpts, pty(7): its slave is 0, 1 and 2 of the payload, its master the owner's.

    With *console* the slave is /dev/console as well; with *lead* the child itself begins the session that it controls.
    """

    columns: int
    rows: int
    console: bool = True
    lead: bool = False

    def __str__(self) -> str:
        calls = [
            'master = open("/dev/pts/ptmx")',
            f"ioctl(master, TIOCSWINSZ, {{{self.rows}, {self.columns}}})",
            "slave = ioctl(master, TIOCGPTPEER)",
        ]
        if self.console:
            calls.append("move_mount(open_tree(slave, OPEN_TREE_CLONE), ROOT/dev/console)")
        calls.append("sendmsg(OWNER, [master, slave])")
        calls += [f"dup2(slave, {fd})" for fd in range(3)]
        if self.lead:
            calls += ["setsid()", "ioctl(0, TIOCSCTTY)"]
        return "; ".join(calls)

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """There may be too many."""
        del path
        if number == errno.ENOSPC:
            return "the host has no pseudo-terminal left", "raise kernel.pty.max, or end some containers"
        return None


@attrs.frozen
class MakeLink(Step):
    """symlink(2) below the root."""

    target: str
    path: RootPath

    def __str__(self) -> str:
        return f"symlink({quoted(self.target)}, {in_tree(self.path)})"
