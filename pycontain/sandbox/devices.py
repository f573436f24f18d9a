"""Devices of the host in a container, and the list of those that it may open.

Who can make a device node could reach every disk, so the list is kept by the kernel: by the devices controller of
cgroup v1 (cgroup-v1/devices.rst), or by a program that cgroup v2 asks at each open and mknod (:mod:`pycontain.sandbox.device_filter`).
It costs a control group, and is needed only where a node can come into reach that we did not put there: without
the capabilities in :data:`REACHING` there are but the nodes in our own /dev and those of ``.device()``, since every
other mount is nodev; and in a user namespace the kernel opens no node that was made there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pycontain.sandbox.device_filter import DEVICE_FILTER, compile_filter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycontain.sandbox.limits import Cgroup, Write
    from pycontain.sandbox.paths import HostPath, RootPath

_FULL = "rwm"

REACHING = frozenset({"DAC_READ_SEARCH", "MKNOD", "SYS_ADMIN"})
"""Capabilities by which the machine's root gets at other nodes: mknod(2), mount(2) of devtmpfs, open_by_handle_at(2)."""


@attrs.frozen
class Device:
    """A device node of the host inside the container; *access* is some of ``r``, ``w`` and ``m`` (mknod)."""

    source: HostPath
    target: RootPath
    access: str = _FULL


@attrs.frozen
class Rule:
    """Devices that may be used: *kind* ``c`` or ``b``, numbers of which None means every one, and the *access*."""

    kind: str
    major: int | None
    minor: int | None
    access: str = _FULL

    def __str__(self) -> str:
        major, minor = ("*" if number is None else number for number in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"


DEFAULT = (
    Rule("c", None, None, "m"),
    Rule("b", None, None, "m"),
    *(Rule("c", 1, minor) for minor in (3, 5, 7, 8, 9)),
    *(Rule("c", 5, minor) for minor in (0, 1, 2)),
    Rule("c", 136, None),
)
"""What Docker allows: every node may be made, and null, zero, full, random, urandom, tty, console, ptmx and pts be opened."""


def parse_access(access: str) -> str:
    """Some of ``r``, ``w`` and ``m``, in this order."""
    if (
        not isinstance(access, str)
        or not access
        or set(access) - set(_FULL)
        or len(set(access)) < len(access)
    ):
        raise ValueError(f"{access!r} is no access to a device; write some of r, w and m")
    return "".join(mark for mark in _FULL if mark in access)


def needs_list(capabilities: Iterable[str], devices: Iterable[Device], *, user_namespace: bool) -> bool:
    """Whether what may be opened has to be told to the kernel, see above."""
    if any(not {"r", "w"} <= set(device.access) for device in devices):
        return True
    return not user_namespace and not REACHING.isdisjoint(capabilities)


def with_list(group: Cgroup, rules: Iterable[Rule], version: int) -> Cgroup:
    """*group* with a list of what may be opened, in a hierarchy of this *version*."""
    writes = (v1_writes, v2_writes)[version - 1](rules)
    return attrs.evolve(group, controllers=(*group.controllers, "devices"), writes=(*group.writes, *writes))


def v1_writes(rules: Iterable[Rule]) -> tuple[Write, ...]:
    """The files of devices.rst: nothing, and then what *rules* allow."""
    return (
        ("devices", "devices.deny", "a"),
        *(("devices", "devices.allow", str(rule)) for rule in rules),
    )


def v2_writes(rules: Iterable[Rule]) -> tuple[Write, ...]:
    """The program for the group, in the place of a file."""
    return (("devices", DEVICE_FILTER, compile_filter(rules).hex()),)
