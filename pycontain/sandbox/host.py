"""What the compiler of plans must know of the host, as one value.

A test states "rootless on 5.10" by making this value; :mod:`pycontain.runtime.probe` makes it from the machine.
"""

from __future__ import annotations

import enum

import attrs


class CgroupLayout(enum.Enum):
    """How the host mounts its control groups, see cgroups(7)."""

    V2 = "v2"
    HYBRID = "hybrid"
    V1 = "v1"
    NONE = "none"


@attrs.frozen
class IdRange:
    """One line of a ``uid_map``, see user_namespaces(7): *count* ids from *inside* are *outside* on the host."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"

    def inside_of(self, outside: int) -> int | None:
        """Which id here the host's id *outside* is."""
        place = outside - self.outside
        return self.inside + place if 0 <= place < self.count else None


@attrs.frozen
class HostFacts:
    """The machine as seen from the zygote, which performs the plans.

    ``rootless``: the zygote runs in a user namespace that it made, because the owner lacks CAP_SYS_ADMIN;
    ``landlock``: the version that its kernel has, 0 for none;
    ``layers_in_memory``: the state folder's file system cannot hold an overlay's upper directory;
    ``layers_volatile``: the end of an overlay there should not write back the disk, which costs more than the three files
    by which overlayfs notes that it will not;
    ``userns_refusal``: why root's containers can have no user namespace of their own, empty when they can;
    ``memory_idmapped``: whether a tmpfs can be idmapped, and so the small trees that the owner makes.
    """

    kernel: tuple[int, int] = (6, 1)
    machine: str = "x86_64"
    euid: int = 0
    rootless: bool = False
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    cgroup: CgroupLayout = CgroupLayout.V2
    last_capability: int = 40
    landlock: int = 0
    layers_in_memory: bool = False
    layers_volatile: bool = True
    userns_refusal: str = ""
    memory_idmapped: bool = True

    @property
    def single_id(self) -> bool:
        """Whether only one id is mapped: there are no subordinate ids, or no newuidmap."""
        return self.rootless and len(self.uid_map) == 1 and self.uid_map[0].count == 1

    def __str__(self) -> str:
        release = ".".join(map(str, self.kernel))
        who = "root" if not self.rootless else f"rootless uid {self.euid}"
        ids = ", single id" if self.single_id else ""
        return f"Linux {release} {self.machine}, {who}{ids}, cgroup {self.cgroup.value}"
