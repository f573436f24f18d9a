"""What Landlock denies a container that asks for it: a second wall in front of what other walls keep already.

The rights are those of landlock(7) that change something. Who is given a right at a place has it below, and there is
no way to take it back for a part: so with a writable root every place can be written as far as other walls let it, and
what Landlock adds is that no mount can be changed, no device node be made, and no device outside of /dev be talked to. With
a read-only root it knows the places that can be written, and denies the rest, /proc and /sys with it.

It is not there by default, for one reason. A command that ``exec`` starts is not a descendant of the payload, so it has
rules of its own, equal ones: and the kernel lets nobody trace, look into (/proc/PID/exe, fd, environ) or, by
:data:`SCOPES`, signal a process of other rules. Debuggers, pidof(1) and kill(1) by ``exec`` are worth more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.sandbox.paths import RootPath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.sandbox.spec import SandboxSpec

# landlock(7), "Filesystem actions", in the order of their bits; the version that brought it.
RIGHTS = (
    ("EXECUTE", 1),
    ("WRITE_FILE", 1),
    ("READ_FILE", 1),
    ("READ_DIR", 1),
    ("REMOVE_DIR", 1),
    ("REMOVE_FILE", 1),
    ("MAKE_CHAR", 1),
    ("MAKE_DIR", 1),
    ("MAKE_REG", 1),
    ("MAKE_SOCK", 1),
    ("MAKE_FIFO", 1),
    ("MAKE_BLOCK", 1),
    ("MAKE_SYM", 1),
    ("REFER", 2),
    ("TRUNCATE", 3),
    ("IOCTL_DEV", 5),
)
LEAST_VERSION = 2
"""Version 1 denies every rename from one directory to another, which ordinary programs need."""

SCOPES = (("ABSTRACT_UNIX_SOCKET", 6), ("SIGNAL", 6))

_READING = frozenset({"EXECUTE", "READ_FILE", "READ_DIR"})
_NODES = frozenset({"MAKE_CHAR", "MAKE_BLOCK"})
_TALKING = frozenset({"IOCTL_DEV"})
_TOP, _DEV = RootPath("/"), RootPath("/dev")


def mask_of(names: frozenset[str], table: tuple[tuple[str, int], ...] = RIGHTS) -> int:
    """The names as the kernel's bits."""
    return sum(1 << place for place, (name, _) in enumerate(table) if name in names)


def handled(version: int) -> frozenset[str]:
    """What is denied where no rule allows it: every change that this version knows."""
    return frozenset(name for name, since in RIGHTS if since <= version) - _READING


def scopes(version: int) -> frozenset[str]:
    """What stays among the processes of one set of rules."""
    return frozenset(name for name, since in SCOPES if since <= version)


def rules(spec: SandboxSpec, version: int) -> Iterator[tuple[RootPath, frozenset[str]]]:
    """Places and what may be done there and below."""
    everything = handled(version)
    if "MKNOD" not in spec.capabilities:
        everything -= _NODES
    plain = everything - _TALKING
    yield _DEV, everything
    if not spec.read_only:
        yield _TOP, plain
        return
    for tmpfs in (*spec.scratch, *spec.tmpfs):
        yield tmpfs.target, plain
    for path in spec.writable_volumes:
        yield path, plain
    for mount in spec.mounts:
        if not mount.read_only:
            yield mount.target, plain
    for device in spec.devices:
        yield device.target, everything
    for file in spec.files:
        if not file.secret:
            yield file.path, plain
