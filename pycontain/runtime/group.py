"""The control group of one container, or of one command in it, in as many hierarchies as it needs.

The zygote makes it, by :mod:`pycontain.runtime.cgroups`, and keeps it until its processes have ended. The owner gets
descriptors of it to read what was used, to change limits and to pause.

The zygote imports this module.
"""

from __future__ import annotations

import errno
import os

from pycontain.errors import HostUnsupported
from pycontain.kernel import cgroupfs
from pycontain.runtime.delegation import IN_EVERY_GROUP

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SWAP_FILES = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})
_BY_DEVICE = ("io.max", "blkio.throttle.")
_SINCE_THE_START = {"memory_peak", "cpu", "cpu_user", "cpu_system", "io_read", "io_write"}
_ROUNDS = 100


class Part:
    """A group in one hierarchy, by a descriptor of its directory.

    The zygote has also its *procs* file open, so that a child can join when its root is another already. A part that
    is *borrowed* belongs to another group, which removes it; one that is *late* was made when its processes had already
    used something, which it has not counted.
    """

    __slots__ = ("above", "borrowed", "controllers", "fd", "late", "name", "procs", "version")

    def __init__(
        self,
        version: int,
        controllers: Iterable[str],
        fd: int,
        *,
        name: str = "",
        above: int = -1,
        procs: int = -1,
        borrowed: bool = False,
        late: bool = False,
    ) -> None:
        self.version = version
        self.controllers = frozenset(controllers) | (IN_EVERY_GROUP if version == 2 else frozenset())
        self.fd = fd
        self.name = name
        self.above = above  # the descriptor of the directory that it is in, which somebody else closes
        self.procs = procs
        self.borrowed = borrowed
        self.late = late

    @classmethod
    def make(cls, version: int, controllers: Iterable[str], above: int, name: str) -> Part:
        """mkdir(2) below *above*; when it fails nothing is there."""
        controllers = frozenset(controllers)
        fd = cgroupfs.make_group(name, above)
        try:
            if "cpuset" in controllers and version == 1:
                cgroupfs.fill_cpuset(above, fd)
            procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
        except BaseException:
            os.close(fd)
            cgroupfs.remove(name, above)
            raise
        return cls(version, controllers, fd, name=name, above=above, procs=procs)

    def close(self) -> None:
        """Close the descriptors; the directory stays."""
        for fd in (self.procs, self.fd):
            if fd >= 0:
                os.close(fd)


class Group:
    """The parts of one group, and what can be done with all of it."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts = list(parts)

    @property
    def into(self) -> int:
        """The descriptor for CLONE_INTO_CGROUP, -1 when the group is in v1 only. The group's own; do not close it."""
        return next((part.fd for part in self.parts if part.version == 2), -1)

    @property
    def controllers(self) -> frozenset[str]:
        """What it has been made for."""
        return frozenset[str]().union(*(part.controllers for part in self.parts))

    # --- who is in it -----------------------------------------------------------------------------------

    def join(self) -> None:
        """Be in the group, as far as it is in v1: for the child, first of all, and as long as it has one thread."""
        for part in self.parts:
            if part.version == 1:
                os.write(part.procs, b"0")  # cgroup.procs: 0 is the writer

    def admit(self, pid: int) -> None:
        """Move a process into the group."""
        for part in self.parts:
            os.write(part.procs, str(pid).encode())

    def branch(self, name: str) -> Group:
        """A group for one command below this one, which has the ``freezer``: that much can be killed by itself.

        It has no controllers of its own, so what is in it counts here.
        """
        trunk = self.with_("freezer")
        own = Part.make(trunk.version, ("freezer",), trunk.fd, name)
        return Group([own, *(_lent(part) for part in self.parts if part is not trunk)])

    # --- limits -----------------------------------------------------------------------------------------

    def update(self, writes: Iterable[tuple[str, str, str]]) -> None:
        """Set limits: all of them, or :class:`HostUnsupported` for the first that the kernel refuses, and all are as before."""
        before: list[tuple[int, str, str]] = []
        try:
            for controller, file, wanted in _in_order(tuple(writes), self._limit_with_swap):
                part = self.with_(controller)
                group, text = part.fd, _all_above(part.fd, file) if wanted == "\n" else wanted
                old = "" if controller == "devices" else _setting(group, file, text)  # it cannot be read
                if _write_limit(group, file, text) and controller != "devices":
                    before.append((group, file, old))
        except BaseException:
            for group, file, old in reversed(before):
                _write_back(group, file, old)
            raise

    def _limit_with_swap(self) -> int:
        text = cgroupfs.read_or_empty(self.with_("memory").fd, "memory.memsw.limit_in_bytes")
        return int(text or 0)

    def with_(self, controller: str) -> Part:
        """The part with *controller*, in v2 if there are two."""
        parts = [part for part in self.parts if controller in part.controllers]
        if parts:
            return max(parts, key=lambda part: part.version)
        raise HostUnsupported(
            f"the {controller} controller for this container",
            needs="that it was asked for before the start",
            found="a group without it",
            hint="give the container .limits() of this kind, and start it again",
        )

    # --- what was used ----------------------------------------------------------------------------------

    def usage(self) -> dict[str, int | float]:
        """What the processes of the group have used until now, as far as its controllers count it.

        ``memory``, ``memory_peak`` (bytes), ``cpu``, ``cpu_user``, ``cpu_system``, ``cpu_throttled`` (seconds),
        ``pids``, ``pids_peak``, ``io_read``, ``io_write`` (bytes), ``oom_kills``; and the limits ``memory_limit`` and ``pids_limit``.
        """
        found: dict[str, int | float] = {}
        for part in self.parts:
            for name in () if part.borrowed else part.controllers & cgroupfs.READERS.keys():
                read = cgroupfs.READERS[name](part.fd)
                found |= {
                    key: value for key, value in read.items() if not (part.late and key in _SINCE_THE_START)
                }
        return found

    def oom_kills(self) -> int:
        """How many processes have been killed for want of memory; 0 where the group has no ``memory``."""
        part = next((part for part in self.parts if "memory" in part.controllers), None)
        return 0 if part is None else cgroupfs.oom_kills(part.fd)

    # --- life and death ---------------------------------------------------------------------------------

    def freeze(self, patience: float = cgroupfs.PATIENCE) -> bool:
        """Pause every process; whether all stand still when *patience* seconds are over. The group has the ``freezer``."""
        return cgroupfs.freeze(self.with_("freezer").fd, patience)

    def thaw(self) -> None:
        """Resume every process. In v1 also needed before a frozen one can die."""
        cgroupfs.thaw(self.with_("freezer").fd)

    def let_die(self) -> None:
        """Thaw what v1 has frozen: it has a SIGKILL, and dies of it."""
        for part in self.parts:
            cgroupfs.let_die(part.fd)

    def kill(self, patience: float = cgroupfs.PATIENCE) -> None:
        """SIGKILL every process in the group, and return when they have ended, or after *patience* seconds."""
        for act in (cgroupfs.let_die, lambda fd: cgroupfs.kill(fd, patience)):
            for part in self.parts:
                if not part.borrowed:
                    act(part.fd)

    def remove(self, patience: float = cgroupfs.PATIENCE) -> None:
        """Remove the group, whose processes have ended, and close its descriptors.

        When somebody is still in it after *patience* seconds EBUSY is raised, and what is left can be removed later.
        """
        while self.parts:
            part = self.parts[-1]
            if not part.borrowed:
                cgroupfs.remove(part.name, part.above, patience)
                part.close()
            self.parts.pop()

    def close(self) -> None:
        """Close the descriptors."""
        for part in self.parts:
            part.close()
        self.parts.clear()


def _lent(part: Part) -> Part:
    return Part(part.version, part.controllers, part.fd, procs=part.procs, borrowed=True)


# --- limits ---------------------------------------------------------------------------------------------


def _in_order(
    writes: tuple[tuple[str, str, str], ...], limit_with_swap: Callable[[], int]
) -> Iterable[tuple[str, str, str]]:
    """memory.rst, 2.4: a limit on memory may at no moment exceed the one on memory and swap, so a rise begins with that."""
    files = [file for _, file, _ in writes]
    if "memory.memsw.limit_in_bytes" not in files:
        return writes
    place = files.index("memory.memsw.limit_in_bytes")
    wanted = int(writes[place][2])
    if wanted < 0 or wanted > limit_with_swap():  # -1 is no limit
        return (writes[place], *writes[:place], *writes[place + 1 :])
    return writes


def _all_above(group: int, file: str) -> str:
    """What to write so that a group has all processors, or nodes of memory, that it may.

    An empty list is none in v1, and in v2 what a group has that was never told; with processes in it neither takes one back
    (kernel/cgroup/cpuset.c, validate_change()).
    """
    return cgroupfs.read_or_empty(group, f"../{file}.effective") or cgroupfs.read(group, f"../{file}")


def _write_limit(group: int, file: str, text: str) -> bool:
    """Whether it was written: no swap is no limit on swap, where the host has none."""
    try:
        if file == cgroupfs.DEVICE_FILTER:
            cgroupfs.attach_device_filter(group, bytes.fromhex(text))
            return False  # there is nothing to write back
        cgroupfs.write(group, file, text)
    except OSError as error:
        if error.errno == errno.ENOENT and file in _SWAP_FILES and not _host_swaps():
            return False  # nothing is counted, and there is nothing to count
        if not os.access("cgroup.procs", os.F_OK, dir_fd=group):
            raise  # the group itself has gone
        raise _limit_refused(file, text, error) from error
    if file == "cpuset.cpus":
        _refuse_other_processors(group, text)
    return True


def _setting(group: int, file: str, text: str) -> str:
    """What *file* says now, in the form in which it can be written back after *text*."""
    now = cgroupfs.read_or_empty(group, file)
    if file.startswith("cpuset.") and not now.strip():
        return _all_above(group, file)
    if not file.startswith(_BY_DEVICE):
        return now
    device = text.split(" ", 1)[0]
    line = next((line for line in now.splitlines() if line.split(" ", 1)[0] == device), "")
    nothing = "rbps=max wbps=max riops=max wiops=max" if file == "io.max" else "0"
    return line or f"{device} {nothing}"


def _write_back(group: int, file: str, old: str) -> None:
    try:
        cgroupfs.write(group, file, old or "\n")
    except OSError as error:
        # The group has gone meanwhile, or a limit of v1 cannot go below what is used by now: the first error counts.
        if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EBUSY, errno.EINVAL}:
            raise


def _host_swaps() -> bool:
    with open("/proc/swaps", encoding="utf-8", errors="replace") as file:
        return len(file.readlines()) > 1  # proc_swaps(5): below the heading


def _refuse_other_processors(group: int, text: str) -> None:
    """In v2 a group that asks only for processors that it cannot have gets all of those above (cgroup-v2.rst, "Cpuset")."""
    effective = cgroupfs.read_or_empty(group, "cpuset.cpus.effective")
    if not cgroupfs.processors(effective) <= cgroupfs.processors(text):
        raise HostUnsupported(
            f"the processors {text}",
            needs="some of them for the use of this program",
            found=effective.strip(),
            hint="choose among those of nproc(1) and taskset -pc $$",
        )


def _limit_refused(file: str, text: str, error: OSError) -> HostUnsupported:
    found = os.strerror(error.errno or 0)
    if file == cgroupfs.DEVICE_FILTER:
        return HostUnsupported(
            "a list of the devices that may be opened",
            needs="bpf(2) of BPF_PROG_TYPE_CGROUP_DEVICE",
            found=found,
            hint="see whether the kernel has CONFIG_CGROUP_BPF; inside another container, leave out MKNOD and SYS_ADMIN",
        )
    match error.errno:
        case errno.ENOENT | errno.EOPNOTSUPP if file in _SWAP_FILES:
            return HostUnsupported(
                "a limit on swap",
                needs="a kernel that counts it",
                found=f"no {file}",
                hint="boot with swapaccount=1, or leave swap= out",
            )
        case errno.ENOENT if file.startswith("hugetlb."):
            return HostUnsupported(
                f"{file} = {text}",
                needs="huge pages of this size",
                found=f"no {file}",
                hint="choose one of: ls /sys/kernel/mm/hugepages",
            )
        case errno.ENODEV if file.startswith(_BY_DEVICE):
            return HostUnsupported(
                f"{file} = {text}",
                needs="a whole disk",
                found=found,
                hint="name one of: lsblk -d -o PATH,MAJ:MIN",
            )
        case errno.EBUSY:
            return HostUnsupported(
                f"{file} = {text}",
                needs="memory that can be taken back from the container",
                found=found,
                hint="choose a limit above what it uses, see stats()",
            )
        case errno.EINVAL | errno.ERANGE | errno.EACCES:
            return HostUnsupported(
                f"{file} = {text}",
                needs="a value that the kernel and the groups above allow",
                found=found,
                hint="choose one within what this program itself may use",
            )
        case _:
            return HostUnsupported(f"{file} = {text}", needs=f"the file {file}", found=found)


# --- those who are there already ------------------------------------------------------------------------


def gather(part: Part, processes: Callable[[], Iterable[int]]) -> None:
    """Move *processes* into a new *part* until no one is outside: a process that was moved has its children inside.

    :class:`HostUnsupported` when they multiply faster.
    """
    for _ in range(_ROUNDS):
        inside = set(cgroupfs.members(part.fd))
        outside = [pid for pid in processes() if pid not in inside]
        if not outside:
            return
        for pid in outside:
            try:
                os.write(part.procs, str(pid).encode())
            except ProcessLookupError:
                pass  # it has ended
    raise HostUnsupported(
        "a control group for a container that runs already",
        needs="processes that can be moved into it",
        found="more of them all the time",
        hint="start it with .limits(pids=…), then it has one from the beginning",
    )
