"""``doctor()``: what this host can do, what is missing, why, and the exact fix.

The facts come from :mod:`pycontain.runtime.findings` and from a first container; each check below is a pure function
from them to a verdict. What was tried counts more than what a switch says: when a container has started, nothing
can have been in its way.
"""

from __future__ import annotations

import enum
import html
from typing import TYPE_CHECKING

import attrs

from pycontain.container import Container
from pycontain.errors import PycontainError
from pycontain.runtime import engine as engines
from pycontain.runtime.findings import CONTROLLERS, NAMESPACES, Findings, Trial, probe_findings
from pycontain.sandbox.host import CgroupLayout
from pycontain.sandbox.landlock import LEAST_VERSION
from pycontain.volume import folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.runtime.findings import Program

_MACHINES = ("x86_64", "aarch64")
_ENOUGH_IDS = 65_536  # images use ids up to nobody, 65534
_ENOUGH_SPACE = 1 << 30
_EVERY = "every container"
_SELINUX = "sudo ausearch -m avc -ts recent shows it; inside another container, start that one with --security-opt label=disable"
_FURTHER = frozenset({"cpuset", "hugetlb", "io"})  # controllers that few limits need


class Verdict(enum.Enum):
    """GOOD: as it should be. LIMITED: containers start, and something is less. MISSING: containers do not start."""

    GOOD = "good"
    LIMITED = "limited"
    MISSING = "missing"


@attrs.frozen
class Check:
    """One thing that was looked at: what was ``found``, and unless it is good, ``because`` and ``fix``."""

    name: str
    verdict: Verdict
    found: str
    because: str = ""
    fix: str = ""
    needed_for: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to fix."""
        return self.verdict is Verdict.GOOD


@attrs.frozen(repr=False)
class Report:
    """What the doctor says, check by check: iterable, printable, and a table in a notebook."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether containers start here, be it with limits."""
        return all(check.verdict is not Verdict.MISSING for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, name: str) -> Check:
        """The check of that name."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"<Report: {self._counts()}>"

    def __str__(self) -> str:
        marks = max(len(verdict.value) for verdict in Verdict)
        names = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.verdict.value:<{marks}}  {check.name:<{names}}  {check.found}")
            lines += [f"{'':{marks}}    {word:<8} {text}" for word, text in _remedy(check)]
        lines.append(
            f"\n{'Containers start here' if self.ok else 'No container starts here'}: {self._counts()}."
        )
        return "\n".join(lines)

    def _counts(self) -> str:
        verdicts = [check.verdict for check in self.checks]
        return ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{check.verdict.value}</td><td style='text-align:left'>{html.escape(check.name)}</td>"
            f"<td style='text-align:left'>{html.escape(check.found)}</td>"
            f"<td style='text-align:left'>{_remedy_html(check)}</td></tr>"
            for check in self.checks
        )
        head = "<tr><th>verdict</th><th>check</th><th>found</th><th>why, and the fix</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"

    def to_json(self) -> str:
        """The report for programs: ``ok``, and the fields of each check under their names here."""
        import json  # noqa: PLC0415 - only who wants JSON pays for it

        checks = [attrs.asdict(check) | {"verdict": check.verdict.value} for check in self.checks]
        return json.dumps({"ok": self.ok, "checks": checks}, indent=2)


def _remedy(check: Check) -> Iterator[tuple[str, str]]:
    if check.ok:
        return
    for word, text in (("because", check.because), ("fix", check.fix), ("for", check.needed_for)):
        if text:
            yield word, text


def _remedy_html(check: Check) -> str:
    return "<br>".join(f"{word}: {html.escape(text)}" for word, text in _remedy(check))


def doctor() -> Report:
    """Look at this host and start a container on it. Nothing is changed.

    >>> import pycontain
    >>> pycontain.doctor().ok
    True
    """
    return judge(probe_findings(try_container(), folder()))


def try_container() -> Trial:
    """Start the engine and run true(1) twice; the first pays for making the image."""
    host = None
    try:
        host = engines.engine().facts
        container = Container("host:")
        container.run("true", check=True)
        return Trial(host, container.run("true", check=True).duration)
    except PycontainError as error:
        return Trial(host, None, str(error), tuple(getattr(error, "__notes__", ())))


def judge(found: Findings) -> Report:
    """What the facts mean."""
    if found.system != "linux":
        return Report(
            (Check("Linux", Verdict.MISSING, found.system, "containers are made by Linux",
                   "run this program on Linux, for example in a virtual machine", _EVERY),)
        )  # fmt: skip
    return Report(
        (
            linux(found),
            machine(found),
            namespaces(found),
            user_namespaces(found),
            container_ids(found),
            subordinate_ids(found),
            overlay(found),
            state_folder(found),
            store_folder(found),
            volumes_folder(found),
            control_groups(found),
            seccomp(found),
            landlock(found),
            security_modules(found),
            nesting(found),
            networks(found),
            way_out(found),
            repositories(found),
            first_container(found),
        )
    )


# --- the machine ----------------------------------------------------------------------------------------


def linux(found: Findings) -> Check:
    """The kernel's version, and whether it has the calls that such a version has."""
    release = ".".join(map(str, found.kernel))
    if found.kernel < (5, 12):
        because, fix = "mount_setattr(2) came with Linux 5.12", "use Linux 5.12 or newer"
        return Check("Linux", Verdict.MISSING, release, because, fix, _EVERY)
    if found.absent:
        because = "the kernel is older than it says, or a filter of system calls around this process is older than it"
        fix = "inside another container, start that one with a newer runtime, or --security-opt seccomp=unconfined"
        return Check(
            "Linux", Verdict.MISSING, f"{release}, without {', '.join(found.absent)}", because, fix, _EVERY
        )
    return Check("Linux", Verdict.GOOD, release)


def machine(found: Findings) -> Check:
    """The architecture, of the kernel and of the interpreter."""
    text = f"{found.machine}, Python {'.'.join(map(str, found.python))}"
    known = " or ".join(_MACHINES)
    if found.machine not in _MACHINES:
        because = f"pycontain knows the system calls of {known}"
        return Check("machine", Verdict.MISSING, text, because, f"use {known}", _EVERY)
    if not found.wide:
        because = "a 32-bit program calls the kernel by other numbers"
        return Check("machine", Verdict.MISSING, f"{text} (32-bit)", because, "use a 64-bit Python", _EVERY)
    return Check("machine", Verdict.GOOD, text)


def namespaces(found: Findings) -> Check:
    """The kinds of namespaces(7) that every container has."""
    lacking = ", ".join(sorted(NAMESPACES - found.namespaces))
    if lacking:
        return Check(
            "namespaces", Verdict.MISSING, f"no {lacking}", "the kernel was built without",
            "use a kernel with CONFIG_NAMESPACES and all below it", _EVERY,
        )  # fmt: skip
    if "time" not in found.namespaces:
        return Check(
            "namespaces", Verdict.LIMITED, "no time", "the kernel was built without",
            "use a kernel with CONFIG_TIME_NS", ".time_offset()",
        )  # fmt: skip
    return Check("namespaces", Verdict.GOOD, ", ".join(sorted(NAMESPACES)))


# --- who may ----------------------------------------------------------------------------------------------


def user_namespaces(found: Findings) -> Check:
    """Whether ordinary users may make user_namespaces(7)."""
    if found.trial.host is not None and found.trial.host.rootless:
        return Check("user namespaces", Verdict.GOOD, "permitted to ordinary users")
    if not found.obstacles:
        return Check("user namespaces", Verdict.GOOD, "no switch forbids them")
    switches, fixes = zip(*found.obstacles, strict=True)
    return Check(
        "user namespaces",
        Verdict.LIMITED if found.privileged else Verdict.MISSING,
        "; ".join(switches),
        "this host forbids them to ordinary users",
        "; ".join(fixes),
        "containers of ordinary users",
    )


def container_ids(found: Findings) -> Check:
    """Whether the root of a container is nobody outside: what userns("auto") comes to here."""
    name, host = "container ids", found.trial.host
    if not found.privileged:
        alone = host is not None and host.single_id
        return Check(name, Verdict.GOOD, "your own alone" if alone else "yours, and your subordinate ids")
    if host is not None and not host.userns_refusal:
        return Check(name, Verdict.GOOD, "65536 of its own for each container, on idmapped layers")
    refusal = "not known, since the engine did not start" if host is None else host.userns_refusal
    because = 'root of a container is root of this host, as with userns("host")'
    fix = (
        "sudo sysctl user.max_user_namespaces=15000"
        if "max_user_namespaces" in refusal
        else "use Linux 5.19 or newer, with the state folder on ext4, xfs or btrfs; inside another container, "
        "start that one with unmasked /proc"
    )
    return Check(name, Verdict.LIMITED, refusal, because, fix, "containers that root starts")


def subordinate_ids(found: Findings) -> Check:
    """Ids for the users of a container, apart from the caller's own; see subuid(5) and newuidmap(1)."""
    name, needed_for = "subordinate ids", "images with files of several users"
    if found.privileged:
        return Check(name, Verdict.GOOD, "not needed by root")
    problems = list(_id_problems(found))
    if problems:
        texts, fixes = zip(*problems, strict=True)
        because = "only the own id can be mapped, so everything in a container belongs to its root"
        return Check(
            name, Verdict.LIMITED, "; ".join(texts), because, "; ".join(dict.fromkeys(fixes)), needed_for
        )
    ids = min(found.subordinate.uids, found.subordinate.gids)
    if ids < _ENOUGH_IDS:
        because = f"images expect {_ENOUGH_IDS}"
        return Check(name, Verdict.LIMITED, f"{ids} ids", because, _grant(found, "uid", "gid"), needed_for)
    return Check(name, Verdict.GOOD, f"{ids} for {found.subordinate.user}")


def _id_problems(found: Findings) -> Iterator[tuple[str, str]]:
    ids = found.subordinate
    lacking = [kind for kind, count in (("uid", ids.uids), ("gid", ids.gids)) if not count]
    if lacking:
        files = " and ".join(f"/etc/sub{kind}" for kind in lacking)
        yield f"none for {ids.user} in {files}", _grant(found, *lacking)
    yield from _program_problems("newuidmap", ids.newuidmap)
    yield from _program_problems("newgidmap", ids.newgidmap)
    if found.surroundings.no_new_privs:
        fix = "start this program without it (NoNewPrivileges= of systemd, --security-opt no-new-privileges)"
        yield "no_new_privs is set, so newuidmap gains nothing", fix
    host = found.trial.host
    if host is not None and host.single_id and not lacking and ids.newuidmap and ids.newuidmap.elevated:
        yield "newuidmap refused", f"{ids.newuidmap.path} says why: compare /etc/subuid with its manual page"


def _program_problems(name: str, program: Program | None) -> Iterator[tuple[str, str]]:
    if program is None:
        yield (
            f"no {name}",
            "sudo apt install uidmap (in other distributions the package shadow or shadow-utils)",
        )
    elif not program.elevated:
        yield f"{program.path} has no more rights than its caller", f"sudo chmod u+s {program.path}"


def _grant(found: Findings, *kinds: str) -> str:
    line = f"{found.subordinate.user}:{found.subordinate.free}:{_ENOUGH_IDS}"
    return f"echo {line} | sudo tee -a {' '.join(f'/etc/sub{kind}' for kind in kinds)}"


# --- file systems -----------------------------------------------------------------------------------------


def overlay(found: Findings) -> Check:
    """Image below, writable layer on top."""
    if found.trial.host is not None:
        return Check("overlay", Verdict.GOOD, "mounted by the engine")
    if not found.privileged and found.kernel < (5, 11):
        release = ".".join(map(str, found.kernel))
        because = "overlay mounts of ordinary users came with Linux 5.11"
        return Check(
            "overlay", Verdict.MISSING, f"Linux {release}", because, "use Linux 5.11, or root", _EVERY
        )
    if not found.overlay:
        because, fix = "it is not built in, and the module is not loaded", "sudo modprobe overlay"
        return Check("overlay", Verdict.LIMITED, "not among the file systems", because, fix, _EVERY)
    return Check("overlay", Verdict.GOOD, "among the file systems")


def state_folder(found: Findings) -> Check:
    """Where writable layers lie."""
    name, state, needed_for = "state folder", found.state, "what containers write"
    text = f"{state.path} on {state.file_system}, {state.free / (1 << 30):.1f} GiB free"
    choose = "export PYCONTAIN_STATE=FOLDER"
    if not state.writable:
        because = f"it cannot be written by {found.subordinate.user}"
        return Check(name, Verdict.MISSING, state.path, because, choose, _EVERY)
    if found.trial.host is not None and found.trial.host.layers_in_memory:
        because = f"{state.file_system} cannot hold an overlay's upper directory, so layers are in memory"
        return Check(name, Verdict.LIMITED, text, because, f"{choose}, one on ext4, xfs or btrfs", needed_for)
    if state.free < _ENOUGH_SPACE:
        return Check(
            name, Verdict.LIMITED, text, "there is little room", f"make room, or {choose}", needed_for
        )
    return Check(name, Verdict.GOOD, text)


def store_folder(found: Findings) -> Check:
    """Where images lie, pulled and unpacked."""
    name, store, needed_for = "store", found.store, "images other than host: and rootfs:"
    text = f"{store.path} on {store.file_system}, {store.free / (1 << 30):.1f} GiB free"
    choose = "export PYCONTAIN_STORE=FOLDER"
    if not store.writable:
        because = f"it cannot be written by {found.subordinate.user}"
        return Check(name, Verdict.LIMITED, store.path, because, choose, needed_for)
    if store.file_system == "overlay":
        # ovl_mknod(): what means a whiteout to overlayfs cannot be made on an overlay.
        because = "an overlay cannot hold the layers of another one"
        return Check(
            name, Verdict.LIMITED, text, because, f"{choose}, one on ext4, xfs, btrfs or tmpfs", needed_for
        )
    if store.free < _ENOUGH_SPACE:
        return Check(
            name, Verdict.LIMITED, text, "there is little room", f"make room, or {choose}", needed_for
        )
    return Check(name, Verdict.GOOD, text)


def volumes_folder(found: Findings) -> Check:
    """Where named volumes lie. They are made at the first use, so that it need not be there yet."""
    name, volumes, needed_for = "volumes", found.volumes, "named volumes"
    text = f"{volumes.path} on {volumes.file_system}, {volumes.free / (1 << 30):.1f} GiB free"
    choose = "export PYCONTAIN_VOLUMES=FOLDER"
    if not volumes.writable:
        because = f"it cannot be written by {found.subordinate.user}"
        return Check(name, Verdict.LIMITED, volumes.path, because, choose, needed_for)
    if volumes.free < _ENOUGH_SPACE:
        fix = f"make room, or {choose}"
        return Check(name, Verdict.LIMITED, text, "there is little room", fix, needed_for)
    return Check(name, Verdict.GOOD, text)


# --- limits -------------------------------------------------------------------------------------------------


def control_groups(found: Findings) -> Check:
    """Whether cgroups(7) can limit a container, below the own group."""
    groups = found.cgroups
    usable = ", ".join(sorted(CONTROLLERS & groups.usable))
    more = ", ".join(sorted(_FURTHER & groups.usable))
    text = f"{groups.layout.value}: {usable or 'none usable'}{more and f' ({more} too)'}"
    if groups.usable >= CONTROLLERS and not groups.swap:
        because, fix = "this host swaps, and the kernel does not count what", "boot with swapaccount=1"
        needed_for = "limits on swap, and so .untrusted()"
        return Check("control groups", Verdict.LIMITED, text, because, fix, needed_for)
    if groups.usable >= CONTROLLERS:
        where = (
            f"in a scope that systemd makes below {groups.scope}" if groups.scope else f"below {groups.own}"
        )
        return Check("control groups", Verdict.GOOD, f"{text}, {where}")
    absent, closed = (", ".join(sorted(names)) for names in (
        CONTROLLERS - groups.present, (CONTROLLERS & groups.present) - groups.usable,
    ))  # fmt: skip
    reasons = [f"there is no {absent} here"] if absent else []
    where = f": {groups.obstacle}" if groups.obstacle else f" below {groups.own or 'the own one'}"
    reasons += [f"no group for {closed} can be made{where}"] if closed else []
    fix, needed_for = _cgroup_fix(found, closed=bool(closed)), "limits on memory, processes and CPU time"
    return Check("control groups", Verdict.LIMITED, text, "; ".join(reasons), fix, needed_for)


def _cgroup_fix(found: Findings, *, closed: bool) -> str:
    groups = found.cgroups
    if groups.layout is CgroupLayout.NONE:
        return "sudo mount -t cgroup2 none /sys/fs/cgroup"
    if found.privileged and not closed:
        return "boot with cgroup_enable=memory, on a kernel with CONFIG_MEMCG, CONFIG_CGROUP_PIDS, CONFIG_CFS_BANDWIDTH"
    if found.privileged and (groups.layout is not CgroupLayout.V2 or not groups.writable):
        return "mount the hierarchy writable; inside another container, start that one with --privileged"
    if groups.layout is not CgroupLayout.V2:
        return "boot with systemd.unified_cgroup_hierarchy=1, or use root: v1 cannot be delegated safely"
    if closed:
        return _own_group(found)
    return (
        "sudo mkdir -p /etc/systemd/system/user@.service.d && "
        "printf '[Service]\\nDelegate=cpu memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf "
        "&& sudo systemctl daemon-reload, then log in again"
    )


def _own_group(found: Findings) -> str:
    """How a program comes to be alone in a group of v2, and the group to belong to its user."""
    user = "" if found.privileged else "--user "
    if not found.cgroups.systemd:
        owner = f" && chown -R {found.subordinate.user} pycontain" if user else ""
        return (
            f"sudo sh -c 'cd /sys/fs/cgroup && echo +cpu +memory +pids >cgroup.subtree_control && mkdir pycontain{owner}'; "
            "sh -c 'echo $$ | sudo tee /sys/fs/cgroup/pycontain/cgroup.procs && exec PROGRAM'"
        )
    if not found.cgroups.bus:
        package = "dbus-user-session" if user else "dbus"
        return f"sudo apt install {package}, and log in again: then systemd can be asked for a group"
    return f"systemd-run {user}--scope -p Delegate=yes -- PROGRAM"


# --- walls ---------------------------------------------------------------------------------------------------


def seccomp(found: Findings) -> Check:
    """Filters of system calls, seccomp(2)."""
    if not found.seccomp >= {"allow", "errno"}:
        return Check(
            "seccomp", Verdict.MISSING, "no filters", "the kernel was built without",
            "use a kernel with CONFIG_SECCOMP_FILTER", _EVERY,
        )  # fmt: skip
    return Check(
        "seccomp", Verdict.GOOD, "filters; this process has one" * found.surroundings.filtered or "filters"
    )


def landlock(found: Findings) -> Check:
    """landlock(7)."""
    if found.landlock >= LEAST_VERSION:
        return Check("Landlock", Verdict.GOOD, f"version {found.landlock}")
    needed_for = ".landlock() and .untrusted()"
    if found.landlock:
        because, fix = "it forbids every move between directories", "use Linux 5.19 or newer"
        return Check("Landlock", Verdict.LIMITED, f"version {found.landlock}", because, fix, needed_for)
    because = "it is not built in (Linux 5.13), not switched on, or kept from this process"
    fix = "boot with lsm=landlock, before what lsm= names now"
    return Check("Landlock", Verdict.LIMITED, "not available", because, fix, needed_for)


def security_modules(found: Findings) -> Check:
    """Linux security modules: they count when they were in the way."""
    name, modules = "security modules", found.modules
    words = [", ".join(modules.active) or "none"]
    words[0] += "" if modules.listed else " (what shows without securityfs)"
    words += [f"AppArmor profile {modules.profile}"] if modules.profile else []
    words += ["SELinux enforces"] if modules.selinux_enforces else []
    words += [f"Yama ptrace_scope {modules.ptrace_scope}"] if modules.ptrace_scope is not None else []
    text = "; ".join(words)
    if found.trial.seconds is None and modules.profile not in {"", "unconfined"}:
        because = "the profile may forbid what a container needs"
        fix = "inside another container, start that one with --security-opt apparmor=unconfined"
        return Check(name, Verdict.LIMITED, text, because, fix, _EVERY)
    if found.trial.seconds is None and modules.selinux_enforces:
        because = "SELinux may forbid what a container needs"
        return Check(name, Verdict.LIMITED, text, because, _SELINUX, _EVERY)
    return Check(name, Verdict.GOOD, text)


def nesting(found: Findings) -> Check:
    """Whether this process is in a container that holds something back."""
    around = found.surroundings
    text = f"inside {around.inside}" if around.inside else "not inside a container"
    if found.trial.seconds is not None:
        return Check("nesting", Verdict.GOOD, text)
    reasons, fixes = [], []
    if around.covered and not found.privileged:
        # fs/namespace.c, mount_too_revealing(): a new proc may show no more than the one that is there.
        reasons.append(
            f"parts of /proc are covered ({', '.join(around.covered)}), so it cannot be mounted again"
        )
        fixes.append("--security-opt systempaths=unconfined (Docker) or unmask=ALL (podman)")
    if around.filtered:
        reasons.append("a seccomp filter may forbid what a container needs")
        fixes.append("--security-opt seccomp=unconfined")
    if not reasons:
        return Check("nesting", Verdict.GOOD, text)
    fix = f"start the outer container with {' and '.join(fixes)}"
    return Check("nesting", Verdict.LIMITED, text, "; ".join(reasons), fix, _EVERY)


_NETWORKS = 'network("private"), Network()'


def networks(found: Findings) -> Check:
    """What root's networks need of the host: nftables, and that nobody else drops what is forwarded."""
    if not found.privileged:
        return Check("networks", Verdict.GOOD, "in a namespace of the user's own")
    if found.filters:
        because, fix = found.filters, "modprobe -a nf_tables nft_masq nft_ct bridge veth"
        return Check("networks", Verdict.LIMITED, "no nftables", because, fix, _NETWORKS)
    if not found.forwards:
        return Check("networks", Verdict.GOOD, "the host does not forward, so pasta is their way out")
    if found.droppers and found.pasta:
        what = f"{', '.join(found.droppers)} drops what is forwarded, so pasta is their way out"
        return Check("networks", Verdict.GOOD, what)
    if found.droppers:
        because = f"{', '.join(found.droppers)} drops what no rule there accepts, ours is dropped with it"
        fix = (
            "apt-get install passt, which needs no forwarding; or iptables -I DOCKER-USER -i pyc+ -j ACCEPT and "
            "iptables -I DOCKER-USER -o pyc+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT "
            "(without Docker: the chain FORWARD)"
        )
        return Check("networks", Verdict.LIMITED, "another firewall", because, fix, _NETWORKS)
    return Check("networks", Verdict.GOOD, "nftables, and the host forwards")


def way_out(found: Findings) -> Check:
    """pasta(1) connects network namespaces of an ordinary user, and those of root where the host does not forward."""
    if found.privileged and found.forwards:
        return Check("pasta", Verdict.GOOD, found.pasta or "not needed: root, and the host forwards")
    if not found.pasta:
        because = (
            "the host does not forward, and nothing else leads out"
            if found.privileged
            else "an ordinary user cannot make a veth(4) pair to the host"
        )
        fix = (
            "apt-get install passt, or sysctl -w net.ipv4.ip_forward=1"
            if found.privileged
            else "sudo apt install passt"
        )
        return Check("pasta", Verdict.LIMITED, "not in PATH", because, fix, _NETWORKS)
    if not found.tun:
        because = "pasta makes an interface with /dev/net/tun, which this user may not open"
        return Check(
            "pasta", Verdict.LIMITED, found.pasta, because, "sudo chmod 0666 /dev/net/tun", _NETWORKS
        )
    return Check("pasta", Verdict.GOOD, found.pasta)


def repositories(found: Findings) -> Check:
    """The program that fetches what ADD wants of a git repository."""
    if found.git is None:
        because, fix = "ADD of a repository is done by git(1)", "apt install git"
        return Check(
            "git", Verdict.LIMITED, "not in PATH", because, fix, "ADD of a git repository in a build"
        )
    return Check("git", Verdict.GOOD, found.git)


def first_container(found: Findings) -> Check:
    """The proof."""
    trial = found.trial
    if trial.seconds is not None:
        return Check("first container", Verdict.GOOD, f"ran in {trial.seconds * 1000:.1f} ms")
    what = (
        "the engine did not start" if trial.host is None else "the engine started, and the container failed"
    )
    return Check("first container", Verdict.MISSING, what, trial.error, "; ".join(trial.notes), _EVERY)
