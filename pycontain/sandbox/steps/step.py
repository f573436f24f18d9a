"""What every step is, and how the text of one is written."""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, ClassVar

import attrs

from pycontain.kernel import constants
from pycontain.sandbox.paths import StagePath

if TYPE_CHECKING:
    from pycontain.sandbox.paths import RootPath


DEVICE_ATTRIBUTES = "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC"
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


class Role(enum.Enum):
    """Who performs a step."""

    ZYGOTE = "zygote"
    CHILD = "child"


class Namespaces(enum.IntFlag):
    """The ``CLONE_NEW*`` flags of clone(2)."""

    CLONE_NEWTIME = constants.CLONE_NEWTIME
    CLONE_NEWNS = constants.CLONE_NEWNS
    CLONE_NEWCGROUP = constants.CLONE_NEWCGROUP
    CLONE_NEWUTS = constants.CLONE_NEWUTS
    CLONE_NEWIPC = constants.CLONE_NEWIPC
    CLONE_NEWUSER = constants.CLONE_NEWUSER
    CLONE_NEWPID = constants.CLONE_NEWPID
    CLONE_NEWNET = constants.CLONE_NEWNET


class MountFlags(enum.IntFlag):
    """The flags of mount(2) that plans use."""

    MS_RDONLY = constants.MS_RDONLY
    MS_NOSUID = constants.MS_NOSUID
    MS_NODEV = constants.MS_NODEV
    MS_NOEXEC = constants.MS_NOEXEC
    MS_STRICTATIME = constants.MS_STRICTATIME


def flags_of(value: enum.IntFlag) -> str:
    """The names of the flags, as strace(1) joins them."""
    return "|".join(str(flag.name) for flag in value) or "0"


def escaped(text: str) -> str:
    """One line, whatever the text: as strace(1), control characters are written in escapes."""
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode()
        for mark in text.replace("\\", r"\\")
    )


def quoted(text: str | None) -> str:
    """A C string, or NULL."""
    if text is None:
        return "NULL"
    return '"' + escaped(text).replace('"', '\\"') + '"'


def in_tree(path: RootPath) -> str:
    """Where *path* is, below the root or on the stage."""
    tree = "STAGE" if isinstance(path, StagePath) else "ROOT"
    return f"{tree}{escaped(path)}" if path != "/" else tree


def strings(values: tuple[str, ...]) -> str:
    """An array of C strings."""
    return "[" + ", ".join(map(quoted, values)) + "]"


@attrs.frozen(kw_only=True)
class Step:
    """One act of a plan."""

    because: str = attrs.field(default="", eq=False)
    tolerate: tuple[int, ...] = ()

    role: ClassVar[Role] = Role.CHILD

    def __str__(self) -> str:
        raise NotImplementedError

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """What errno *number*, said of *path*, means for the user at this step, and the next thing to do, if we know."""
        del number, path
        return None
