"""Steps for what a container sees of its host and of its network: names, settings, addresses."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import attrs

from pycontain.sandbox.steps.step import Step, in_tree, quoted
from pycontain.sandbox.sysctl import swapped

if TYPE_CHECKING:
    from pycontain.sandbox.paths import RootPath, StagePath


@attrs.frozen
class WriteSysctl(Step):
    """write(2) of a setting of the own namespaces, in the staged /proc/sys."""

    path: StagePath
    value: str

    def __str__(self) -> str:
        return f"write({in_tree(self.path)}, {quoted(self.value)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Kernels differ in what they have, and in what they leave to a namespace."""
        del path
        name = swapped(self.path.removeprefix("/proc/sys/"))
        match number:
            case errno.ENOENT:
                return (
                    f"this kernel has no setting {name} for a namespace",
                    "leave it out, or load the module that has it",
                )
            case errno.EACCES | errno.EPERM:
                return (
                    f"this kernel lets nobody set {name} for this container alone",
                    "leave it out; in a user namespace the settings of System V IPC need Linux 5.19",
                )
            case errno.EINVAL | errno.ERANGE:
                return f"the kernel does not take {self.value!r} for {name}", "correct the value"
        return None


@attrs.frozen
class SetDomainname(Step):
    """setdomainname(2): kernel.domainname, whose file belongs to the machine's root whoever has the namespace."""

    name: str

    def __str__(self) -> str:
        return f"setdomainname({quoted(self.name)})"


@attrs.frozen
class SetHostname(Step):
    """sethostname(2); an empty name means the container's id."""

    name: str

    def __str__(self) -> str:
        return f"sethostname({quoted(self.name) if self.name else 'ID'})"


@attrs.frozen
class BringLoopbackUp(Step):
    """netdevice(7): ``lo`` of a new network namespace is down."""

    def __str__(self) -> str:
        return 'ioctl(SIOCSIFFLAGS, {ifr_name="lo", ifr_flags=IFF_UP})'

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """A root without all its capabilities may lack the one for this."""
        if number == errno.EPERM:
            return (
                "this process may not set up a network namespace",
                "give it CAP_NET_ADMIN, or run it as an ordinary user",
            )
        return None


@attrs.frozen
class BindSysfs(Step):
    """The host's /sys as it is there, read-only: sysfs shows a network namespace, and only who owns that may mount it."""

    path: StagePath

    def __str__(self) -> str:
        return (
            'tree = open_tree("/sys", OPEN_TREE_CLONE|AT_RECURSIVE); '
            "mount_setattr(tree, AT_RECURSIVE, {attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC}); "
            f"move_mount(tree, {in_tree(self.path)})"
        )


@attrs.frozen
class AwaitNetwork(Step):
    """Wait until the owner has connected the network namespace, which it tells by an alias of ``lo``, rtnetlink(7)."""

    def __str__(self) -> str:
        return 'recv(NETLINK_ROUTE, RTMGRP_LINK) until read("/sys/class/net/lo/ifalias") == "connected"'


@attrs.frozen
class BindHosts(Step):
    """The hosts file that the owner keeps for this container, read-only: names come and go while it runs."""

    target: RootPath

    def __str__(self) -> str:
        return (
            'tree = open_tree("hosts/{id}", OPEN_TREE_CLONE); '
            "mount_setattr(tree, {attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC}); "
            f"move_mount(tree, {in_tree(self.target)})"
        )
