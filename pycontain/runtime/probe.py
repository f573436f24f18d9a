"""What this host can do, read from the host: facts for the compiler of plans, and reasons when it cannot.

Nothing is changed and nothing is cached here.
"""

from __future__ import annotations

import errno
import os
import pwd
from typing import TYPE_CHECKING

from pycontain.errors import HostUnsupported
from pycontain.sandbox.host import CgroupLayout, HostFacts, IdRange

if TYPE_CHECKING:
    from collections.abc import Iterator

_CAP_SYS_ADMIN = 21
_RANGE = 65_536
_PRIVATE = (0x4000_0000, 0x4000_0000, (0x6FFF_0000 - 0x4000_0000) // _RANGE)


def read_setting(path: str) -> str | None:
    """The text of a file of /proc or /sys without its newline, None where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def is_privileged() -> bool:
    """Whether this process may make namespaces as it is: root with CAP_SYS_ADMIN."""
    if os.geteuid() != 0:
        return False
    status = read_setting("/proc/self/status") or ""
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def kernel_version() -> tuple[int, int]:
    """The first two numbers of uname(2)'s release."""
    major, minor = os.uname().release.split("-")[0].split(".")[:2]
    return int(major), int("".join(mark for mark in minor if mark.isdigit()))


def cgroup_layout() -> CgroupLayout:
    """How control groups are mounted, by proc_mounts(5)."""
    mounts = read_setting("/proc/self/mounts") or ""
    kinds = {fields[2] for line in mounts.splitlines() if len(fields := line.split()) > 3}
    match ("cgroup" in kinds, "cgroup2" in kinds):
        case (True, True):
            return CgroupLayout.HYBRID
        case (True, False):
            return CgroupLayout.V1
        case (False, True):
            return CgroupLayout.V2
        case _:
            return CgroupLayout.NONE


def parse_id_map(text: str) -> tuple[IdRange, ...]:
    """A ``uid_map`` as user_namespaces(7) describes it."""
    return tuple(IdRange(*map(int, line.split())) for line in text.splitlines())


def subordinate_ids(path: str, uid: int) -> tuple[tuple[int, int], ...]:
    """The ``(start, count)`` ranges that subuid(5) grants to *uid*, by number or by name."""
    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:  # a uid without a name is an ordinary thing in a container
        names.discard("")
    found = []
    for line in (read_setting(path) or "").splitlines():
        fields = line.split(":")
        if (
            len(fields) == 3
            and fields[0] in names
            and fields[1].isdigit()
            and fields[2].isdigit()
            and int(fields[2])
        ):
            found.append((int(fields[1]), int(fields[2])))
    return tuple(found)


def id_pool() -> tuple[tuple[int, int, int], ...]:
    """Where root's containers may have ranges of 65,536 ids, each ``(first uid, first gid, how many ranges)``.

    Those that subuid(5) and subgid(5) grant to root; without any, numbers that nobody else gives away: above
    SUB_UID_MAX of login.defs(5), in the range that systemd leaves to containers. Empty where none of them is mapped.
    """
    granted = zip(subordinate_ids("/etc/subuid", 0), subordinate_ids("/etc/subgid", 0), strict=False)
    pool = tuple((uid, gid, min(uids, gids) // _RANGE) for (uid, uids), (gid, gids) in granted)
    maps = [parse_id_map(read_setting(f"/proc/self/{name}") or "") for name in ("uid_map", "gid_map")]
    return tuple(
        (uid, gid, count)
        for uid, gid, count in pool or (_PRIVATE,)
        if count and all(_covers(lines, first, count) for lines, first in zip(maps, (uid, gid), strict=True))
    )


def _covers(lines: tuple[IdRange, ...], first: int, count: int) -> bool:
    return any(line.inside <= first and first + count * _RANGE <= line.inside + line.count for line in lines)


def userns_refusal(tried: str, number: int) -> str:
    """Why root's containers have no user namespace of their own here: *tried* failed with errno *number*."""
    release = ".".join(map(str, kernel_version()))
    match tried:
        case "ids":
            return "this process has no ids to give away"
        case "proc" | "sysfs":
            return f"a user namespace may not mount {tried} here, because parts of it are covered"
        case "layers" if number == errno.EINVAL:
            return f"the file system of the state folder cannot be idmapped on Linux {release}"
        case "overlay":
            return f"the state folder cannot hold an overlay of idmapped layers on Linux {release} (it came with 5.19)"
        case "namespace" if number == errno.ENOSPC:
            return "no user namespace can be made: user.max_user_namespaces is reached"
    return f"no user namespace can be made: {os.strerror(number)}"


def find_program(name: str) -> str | None:
    """The first executable *name* in PATH, or in the places where set-user-ID tools lie."""
    for folder in (*os.get_exec_path(), "/usr/bin", "/bin", "/usr/sbin"):
        path = f"{folder}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def syncs_dearly(folder: str) -> bool:
    """Whether to write back the disk under *folder* costs more than to make a few files.

    Not on an ext4 without a journal: there is no commit to wait for, and an inode that was freed within the last seconds
    is passed over one by one (recently_deleted() in fs/ext4/ialloc.c), which containers in a row would feel.
    """
    device = os.stat(folder).st_dev
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    return read_setting(f"/sys/fs/ext4/{name}/journal_task") != "<none>"


def host_facts(
    *,
    rootless: bool,
    last_capability: int,
    layers_in_memory: bool,
    layers_volatile: bool,
    uid_map: str,
    gid_map: str,
    userns_refusal: str,
    memory_idmapped: bool,
    landlock: int,
) -> HostFacts:
    """This host, with what only the zygote can know."""
    return HostFacts(
        kernel=kernel_version(),
        machine=os.uname().machine,
        euid=os.geteuid(),
        rootless=rootless,
        uid_map=parse_id_map(uid_map),
        gid_map=parse_id_map(gid_map),
        cgroup=cgroup_layout(),
        last_capability=last_capability,
        landlock=landlock,
        layers_in_memory=layers_in_memory,
        layers_volatile=layers_volatile,
        userns_refusal=userns_refusal,
        memory_idmapped=memory_idmapped,
    )


def user_namespace_obstacles() -> Iterator[tuple[str, str]]:
    """Each known switch of this host that forbids user namespaces to ordinary users, with its fix."""
    if read_setting("/proc/self/ns/user") is None and not os.path.exists("/proc/self/ns/user"):
        yield "a kernel without user namespaces (CONFIG_USER_NS)", "use a kernel that has them"
    if read_setting("/proc/sys/user/max_user_namespaces") == "0":
        yield "user.max_user_namespaces = 0", "sudo sysctl user.max_user_namespaces=15000"
    if read_setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        yield "kernel.unprivileged_userns_clone = 0", "sudo sysctl kernel.unprivileged_userns_clone=1"
    if read_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        yield (
            "kernel.apparmor_restrict_unprivileged_userns = 1 (Ubuntu)",
            (
                "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
                "or an AppArmor profile with 'userns,' for this Python interpreter"
            ),
        )


def folder_refusal(number: int, path: str) -> HostUnsupported:
    """Why the zygote could not have its folder for writable layers at *path*."""
    found = f"{os.strerror(number)} at {path}"
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            hint = "free some space, or set PYCONTAIN_STATE to a folder on another disk"
        case errno.EPERM:
            hint = "remove others' right to write to it (chmod go-w), or set PYCONTAIN_STATE to a folder of your own"
        case _:
            hint = "set PYCONTAIN_STATE to a folder that this user can make and write"
    return HostUnsupported(
        "writable layers", needs="a state folder that only this user can write", found=found, hint=hint
    )


def refusal(number: int, *, rootless: bool) -> HostUnsupported:
    """Why the zygote could not get its namespaces, told from *number* and the host's switches."""
    found = os.strerror(number)
    if not rootless:
        return HostUnsupported(
            "namespaces",
            needs="CAP_SYS_ADMIN that is not masked by seccomp or an LSM",
            found=found,
            hint="inside another container, start that one with more rights, or run as an ordinary user",
        )
    for switch, fix in user_namespace_obstacles():
        return HostUnsupported(
            "user namespaces to ordinary users", needs="the switch to be on", found=switch, hint=fix
        )
    if number == errno.ENOSPC:
        return HostUnsupported(
            "one more user namespace",
            needs="a free one below user.max_user_namespaces",
            found=found,
            hint="end some, or sudo sysctl user.max_user_namespaces=15000",
        )
    if number == errno.EPERM:
        return HostUnsupported(
            "user namespaces and overlay mounts in them",
            needs="Linux 5.11, and no seccomp filter or LSM that forbids them",
            found=f"{found} on Linux {'.'.join(map(str, kernel_version()))}",
            hint="inside another container, start that one with --security-opt seccomp=unconfined",
        )
    return HostUnsupported(
        "user namespaces", needs="unshare(CLONE_NEWUSER)", found=found, hint="see pycontain.doctor()"
    )
