"""Steps that say who the payload is and what it may do; the last one executes it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

import attrs

from pycontain.sandbox import capabilities
from pycontain.sandbox.landlock import RIGHTS, SCOPES
from pycontain.sandbox.steps.step import MISSING, Role, Step, quoted, strings

if TYPE_CHECKING:
    from pycontain.sandbox.paths import RootPath


@attrs.frozen
class ResolveUser(Step):
    """Look the user up in the container's own /etc/passwd and /etc/group; nothing changes yet.

    ``user`` is ``name``, ``uid``, ``name:group`` or ``uid:gid``, as in the image configuration.
    """

    user: str

    def __str__(self) -> str:
        return f"getpwnam({quoted(self.user or '0')}) in ROOT/etc/passwd, getgrouplist() in ROOT/etc/group"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """ESRCH is how the doer says that the name is in neither file."""
        if number == errno.ESRCH:
            return (
                f"the container has no user or group {self.user!r}",
                "use a name from its /etc/passwd and /etc/group, or numbers: .user('1000:1000')",
            )
        if number == errno.EINVAL:
            return (
                f"the user {self.user!r} has an id that is not mapped in this user namespace",
                "use an id within the subordinate range, see pycontain.doctor()",
            )
        return None


@attrs.frozen
class ChangeDirectory(Step):
    """chdir(2) inside the new root."""

    path: RootPath

    def __str__(self) -> str:
        return f"chdir({quoted(self.path)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Unlike Docker we do not make it: a typing error would become a folder."""
        if number in MISSING:
            return (
                f"the working directory {self.path} does not exist in the container",
                "correct .workdir(), or make the directory in the image or with .mount() or .tmpfs()",
            )
        return None


@attrs.frozen
class AllowLimit(Step):
    """prlimit(2) of a hard limit by the zygote, which may raise it if the owner may; in a user namespace of its own nobody may.

    Where the zygote may not, all stays as it is, and the child's own setrlimit(2) says so.
    """

    resource: str
    hard: int

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        return f"prlimit(CHILD, RLIMIT_{self.resource.upper()}, {{, {self.hard}}})"


@attrs.frozen
class SetResourceLimit(Step):
    """setrlimit(2) of one resource."""

    resource: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"setrlimit(RLIMIT_{self.resource.upper()}, {{{self.soft}, {self.hard}}})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Raising a hard limit is a privilege."""
        if number == errno.EPERM:
            return (
                f"the limit {self.resource} cannot be raised to {self.hard} here",
                "ask for less, or raise the owner's own",
            )
        return None


@attrs.frozen
class DropBoundingSet(Step):
    """PR_CAPBSET_DROP of prctl(2) for every capability that is not granted."""

    keep: frozenset[str]

    def __str__(self) -> str:
        return f"prctl(PR_CAPBSET_DROP, each but {_names(self.keep)})"


@attrs.frozen
class SetIdentity(Step):
    """setgroups(2), setresgid(2), setresuid(2) to the user that was looked up."""

    setgroups: bool = True

    def __str__(self) -> str:
        groups = "setgroups(GROUPS); " if self.setgroups else ""
        return f"fchown(pipes and secrets, UID, GID); {groups}setresgid(GID); setresuid(UID)"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """An id outside of the map cannot be taken; and there is a limit, NGROUPS_MAX."""
        if number == errno.E2BIG:
            return (
                "the image puts the user into more groups than a process can have",
                "look at /etc/group of the image, or name the group: .user('name:group')",
            )
        if number == errno.EINVAL:
            return (
                "the user's ids are not mapped in this user namespace",
                "use one up to 65535 when root starts it; else get subordinate ids for this user, see pycontain.doctor()",
            )
        return None


@attrs.frozen
class SetCapabilities(Step):
    """capset(2): permitted and effective for root, none for others; nothing inheritable, nothing ambient."""

    keep: frozenset[str]

    def __str__(self) -> str:
        return f"capset(UID == 0 ? {_names(self.keep)} : 0)"


def _names(names: frozenset[str]) -> str:
    ordered = [name for name in capabilities.NAMES if name in names]
    return "{" + ", ".join(ordered) + "}"


@attrs.frozen
class SetNoNewPrivs(Step):
    """PR_SET_NO_NEW_PRIVS of prctl(2): no set-user-ID program gains anything."""

    def __str__(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS, 1)"


@attrs.frozen
class SetLandlock(Step):
    """landlock_restrict_self(2) with a ruleset that denies *handled* but where a rule allows it; *scoped* stays inside.

    A place that the payload's user cannot reach needs no rule.
    """

    handled: int
    scoped: int
    rules: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        scoped = _bits(self.scoped, SCOPES)
        rules = "; ".join(
            f"landlock_add_rule(PATH_BENEATH, {quoted(path)}, {_rights(allowed, self.handled)})"
            for path, allowed in self.rules
        )
        return (
            f"landlock_create_ruleset({{handled_access_fs={_bits(self.handled, RIGHTS)}, scoped={scoped}}}); "
            f"{rules}; landlock_restrict_self(RULESET)"
        )


def _rights(allowed: int, handled: int) -> str:
    """All of what is handled, or all but the few that are not allowed."""
    if allowed == handled:
        return "handled_access_fs"
    return f"handled_access_fs & ~({_bits(handled & ~allowed, RIGHTS)})"


def _bits(value: int, table: tuple[tuple[str, int], ...]) -> str:
    return "|".join(name for place, (name, _) in enumerate(table) if value >> place & 1) or "0"


@attrs.frozen
class SetSeccomp(Step):
    """seccomp(2) with a compiled filter."""

    program: bytes = attrs.field(repr=False)
    name: str = "default"

    def __str__(self) -> str:
        return f"seccomp(SECCOMP_SET_MODE_FILTER, {self.name}: {len(self.program) // 8} instructions)"


@attrs.frozen
class Execute(Step):
    """execve(2) of the payload, searched in the PATH of *env*.

    With *init* the child stays as PID 1, out of reach (not dumpable), forwards signals, reaps orphans, and starts
    the payload as its child in a session of its own; without, the payload itself is PID 1.

    *restart*: whether it is started again always, not only after a failure; how often at most, -1 for any number; and the signal
    from outside after which it is not. Nothing: never.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    init: bool = True
    restart: tuple[bool, int, int] | tuple[()] = ()

    def __str__(self) -> str:
        path = quoted(self.argv[0]) if self.argv else "NULL"
        env = "[" + ", ".join(quoted(f"{name}={value}") for name, value in self.env) + "]"
        call = f"execve({path}, {strings(self.argv)}, {env})"
        if not self.init:
            return call
        again = ""
        if self.restart:
            always, most, stop = self.restart
            times = f", at most {most} times" if most >= 0 else ""
            again = f"; again{'' if always else ' after a failure'}{times}, until signal {stop}"
        return f"prctl(PR_SET_DUMPABLE, 0); posix_spawn → setsid(); {call}{again}"
