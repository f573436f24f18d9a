"""Steps that make the process: its namespaces, ids, control group and parent."""

from __future__ import annotations

import errno
from typing import ClassVar

import attrs

from pycontain.sandbox.device_filter import DEVICE_FILTER
from pycontain.sandbox.steps.step import Namespaces, Role, Step, flags_of, quoted


@attrs.frozen
class Clone(Step):
    """clone3(2): the child, in namespaces of its own."""

    flags: Namespaces

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return f"clone3({{flags=CLONE_PIDFD|{flags_of(self.flags)}, exit_signal=SIGCHLD}})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """ENOSPC is how the kernel says that a limit below /proc/sys/user is reached."""
        if number == errno.ENOSPC:
            return (
                "the kernel's limit on namespaces is reached",
                "raise it: sysctl user.max_mnt_namespaces user.max_pid_namespaces user.max_net_namespaces",
            )
        if number == errno.EAGAIN:
            return (
                "the limit on processes is reached",
                "raise ulimit -u, or pids.max of the cgroup, or end some",
            )
        return None


@attrs.frozen
class MapIds(Step):
    """The zygote gives the child's user namespace *count* ids that no other container has, user_namespaces(7).

    Before that the child waits; after it the child is root in that namespace, and nobody outside.
    """

    count: int

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        maps = "; ".join(
            f'write("/proc/CHILD/{name}", "0 IDS {self.count}")' for name in ("uid_map", "gid_map")
        )
        return f"{maps}; child: setgroups([]), setresgid(0, 0, 0), setresuid(0, 0, 0)"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """EAGAIN is what the zygote says when there is no range left."""
        del path
        if number == errno.EAGAIN:
            return (
                "no range of ids is left for another container",
                "end some, or grant root more in /etc/subuid and /etc/subgid",
            )
        return None


@attrs.frozen
class GivePipes(Step):
    """fchown(2) of the payload's pipes to the container's root, who may give them to the payload's user."""

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return "fchown(pipes, IDS, IDS)"


@attrs.frozen
class JoinSessionKeyring(Step):
    """keyctl(2): an empty session keyring, so that none of the owner's keys is there."""

    def __str__(self) -> str:
        return "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)"


@attrs.frozen
class Fork(Step):
    """setns(2) into the container's PID namespace for the next child alone, and that child."""

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return "setns(PIDFD, CLONE_NEWPID); clone3({flags=CLONE_PIDFD, exit_signal=SIGCHLD}); setns(OWN, CLONE_NEWPID)"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The container may end at any moment; a root without all its capabilities may lack the one for this."""
        if number == errno.ESRCH:
            return "the container has exited", "start it again"
        if number == errno.EPERM:
            return (
                "this process may not enter its containers",
                "give it CAP_SYS_PTRACE and CAP_SYS_ADMIN, or run it as an ordinary user",
            )
        if number == errno.EAGAIN:
            return "the limit on processes is reached", "end some in the container, or give it more pids="
        return None


def _limit(file: str, text: str) -> str:
    if file == DEVICE_FILTER:
        return f"bpf(BPF_PROG_ATTACH, {{attach_type={file}, {len(text) // 16} instructions}})"
    return f"write({quoted(file)}, {quoted(text)})"


@attrs.frozen
class JoinCgroup(Step):
    """The child becomes a member of the container's control group: clone3(2) with CLONE_INTO_CGROUP, or cgroup.procs.

    For a start the group is made, and the limits are set, before; for an exec it is there. Of what a spare child did in
    advance the group counts nothing.
    """

    controllers: tuple[str, ...]
    writes: tuple[tuple[str, str, str], ...] = ()
    make: bool = True

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        group = f"CGROUP/{{{','.join(self.controllers)}}}/{{n}}"
        acts = [f"mkdir({group}, 0o755)"] if self.make else []
        acts += [_limit(file, text) for _, file, text in self.writes]
        return "; ".join((*acts, 'write("cgroup.procs", CHILD)'))

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The group was made, so it is something special of this host."""
        del path
        if number in {errno.EPERM, errno.EACCES}:
            return (
                "the kernel lets no process into the container's control group",
                "see pycontain.doctor(); without .limits() there is no group",
            )
        if number == errno.EINVAL and "cpu" in self.controllers:
            return (
                "the kernel lets no process with a real-time policy into the container's control group",
                "cgroups(7): with CONFIG_RT_GROUP_SCHED the cpu controller wants SCHED_OTHER; start this program without chrt(1)",
            )
        return None


@attrs.frozen
class UnshareCgroup(Step):
    """unshare(2) of the cgroup namespace: the group that the child is in becomes the root of what it sees."""

    def __str__(self) -> str:
        return "unshare(CLONE_NEWCGROUP)"


@attrs.frozen
class SetTimeOffset(Step):
    """unshare(2) of the time namespace, its offsets as its file takes them, and setns(2) into it: time_namespaces(7).

    The unshare counts for children only, and posix_spawn(3) cannot enter a time namespace before Linux 6.3.
    """

    offsets: str

    def __str__(self) -> str:
        return (
            f'unshare(CLONE_NEWTIME); write("/proc/self/timens_offsets", {quoted(self.offsets)}); '
            'setns("/proc/self/ns/time_for_children", CLONE_NEWTIME)'
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """A clock begins at 0 and has an end, and not every kernel has such namespaces."""
        del path
        match number:
            case errno.ERANGE:
                return (
                    "with this .time_offset() a clock would be negative or beyond its end",
                    "choose a smaller one",
                )
            case errno.EINVAL:
                return (
                    "this kernel has no time namespaces",
                    "leave .time_offset() out, or use one with CONFIG_TIME_NS",
                )
        return None


@attrs.frozen
class JoinNamespaces(Step):
    """setns(2) into the namespaces of a running container, by the pidfd of its PID 1."""

    flags: Namespaces

    def __str__(self) -> str:
        root = "; setgroups([]); setresgid(0, 0, 0); setresuid(0, 0, 0)"
        return f"setns(PIDFD, {flags_of(self.flags)})" + root * (Namespaces.CLONE_NEWUSER in self.flags)

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The container may end at any moment."""
        if number == errno.ESRCH:
            return "the container has exited", "start it again"
        return None


@attrs.frozen
class SetParentDeathSignal(Step):
    """PR_SET_PDEATHSIG of prctl(2): the child dies with the zygote."""

    def __str__(self) -> str:
        return "prctl(PR_SET_PDEATHSIG, SIGKILL)"
