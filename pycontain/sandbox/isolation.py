"""The effective isolation of a container as data: every wall, whether it stands on this host, and why not.

All of it is read from the plan, which is what is done: what no step puts up does not stand, whatever was asked for.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, TypeVar

import attrs

from pycontain.kernel import constants
from pycontain.sandbox import capabilities, steps
from pycontain.sandbox.spec import MASKED_PATHS
from pycontain.sandbox.steps import Namespaces, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pycontain.sandbox.network import Networking
    from pycontain.sandbox.plan import Plan

Kind = TypeVar("Kind", bound=Step)


@attrs.frozen
class Wall:
    """One wall: ``what`` it is here when it ``stands``, and ``because`` of what it does not."""

    name: str
    stands: bool
    what: str = ""
    because: str = ""


@attrs.frozen(repr=False)
class Isolation:
    """The walls of one container on this host: iterable, printable, and a table in a notebook.

    *refused* are those without which a start is refused, unless ``required=False`` was said; empty when it can start.
    """

    walls: tuple[Wall, ...]
    title: str = ""
    refused: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Wall]:
        return iter(self.walls)

    def __len__(self) -> int:
        return len(self.walls)

    def __getitem__(self, name: str) -> Wall:
        """The wall of that name."""
        for wall in self.walls:
            if wall.name == name:
                return wall
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"<Isolation: {self._counts()}>"

    def __str__(self) -> str:
        names = max(len(wall.name) for wall in self.walls)
        lines = [f"# {self.title}"]
        for wall in self.walls:
            lines.append(f"{_MARKS[wall.stands]:<6} {wall.name:<{names}}  {wall.what or wall.because}")
            if wall.what and wall.because:
                lines.append(f"{'':6} {'':{names}}  {wall.because}")
        return "\n".join((*lines, "", self._verdict()))

    def _counts(self) -> str:
        standing = sum(wall.stands for wall in self.walls)
        return f"{standing} walls stand, {len(self.walls) - standing} do not"

    def _verdict(self) -> str:
        if self.refused:
            return f"It does not start here, because this host cannot keep: {', '.join(self.refused)}."
        return f"{self._counts()}."

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_MARKS[wall.stands]}</td><td style='text-align:left'>{html.escape(wall.name)}</td>"
            f"<td style='text-align:left'>{html.escape(wall.what)}</td>"
            f"<td style='text-align:left'>{html.escape(wall.because)}</td></tr>"
            for wall in self.walls
        )
        head = "<tr><th></th><th>wall</th><th>what it is</th><th>why not</th></tr>"
        caption = html.escape(f"{self.title}: {self._verdict()}")
        return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>"

    def to_json(self) -> str:
        """The walls for programs: the fields of each under their names here, and ``refused``."""
        import json  # noqa: PLC0415 - only who wants JSON pays for it

        return json.dumps(
            {"refused": self.refused, "walls": [attrs.asdict(wall) for wall in self.walls]}, indent=2
        )


_MARKS = {True: "stands", False: "open"}


def isolation_of(plan: Plan, reasons: Mapping[str, str] | None = None) -> Isolation:
    """The walls that *plan* puts up. *reasons* say of what it has left out why this host cannot keep it."""
    view = _View(plan, reasons or {})
    groups = (namespaces, rights, kernel_surface, files, devices, limits, processes)
    return Isolation(tuple(wall for group in groups for wall in group(view)), plan.title or "plan")


def output_wall(most: int | None) -> Wall:
    """Whether the payload can fill the owner's memory with what it prints: the owner's own affair, and in no plan."""
    if most is not None:
        return Wall("output", stands=True, what=f"at most {most} bytes of each stream are kept")
    return Wall(
        "output",
        stands=False,
        because="as much as run(max_output=) says, 64M of each stream: .limits(output=)",
    )


def network_walls(networking: Networking) -> Iterator[Wall]:
    """Who else is on its networks, and which ports of the host lead inside: the owner's affair as well, and there when asked for."""
    if networking.networks:
        names = ", ".join(str(each.network.name) for each in networking.networks)
        internal = all(each.network.internal for each in networking.networks)
        others = f"{names}: the containers that are on it reach it, and it them"
        if internal:
            yield Wall("way out", stands=True, what=f"none, since its networks are internal; {others}")
        else:
            yield Wall("way out", stands=False, because=f"the world is reached by {others}")
    elif networking.mode == "private":
        yield Wall(
            "way out",
            stands=False,
            because='the world is reached, no container, and no port of the host: .network("none")',
        )
    if networking.published:
        ports = ", ".join(map(str, networking.published))
        yield Wall("published ports", stands=False, because=f"they lead inside: {ports}")


class _View:
    """A plan by the kinds of its steps."""

    def __init__(self, plan: Plan, reasons: Mapping[str, str]) -> None:
        self.plan = plan
        self.host = plan.host
        self.reasons = reasons

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [step for step in self.plan.steps if isinstance(step, kind)]

    def has(self, kind: type[Step]) -> bool:
        return bool(self.all(kind))

    @property
    def flags(self) -> Namespaces:
        return self.all(steps.Clone)[0].flags

    @property
    def granted(self) -> frozenset[str]:
        return self.all(steps.SetCapabilities)[0].keep

    @property
    def in_user_namespace(self) -> bool:
        return self.host.rootless or Namespaces.CLONE_NEWUSER in self.flags

    @property
    def filtered(self) -> bool:
        return any(step.name != "pretending" for step in self.all(steps.SetSeccomp))

    def wall(self, name: str, stands: bool, what: str, because: str) -> Wall:  # noqa: FBT001 - a row of a table
        """What is left out has its own reason."""
        if stands:
            return Wall(name, stands=True, what=what)
        return Wall(name, stands=False, because=self.reasons.get(name, because))


# --- one function for each kind of wall -----------------------------------------------------------------


def namespaces(view: _View) -> Iterator[Wall]:
    """namespaces(7)."""
    rows = (
        ("mnt namespace", Namespaces.CLONE_NEWNS, "own root; the host's tree is detached and has no name"),
        ("pid namespace", Namespaces.CLONE_NEWPID, "no process of the host is seen, or can be signalled"),
        (
            "net namespace",
            Namespaces.CLONE_NEWNET,
            f"{_reach(view)}; abstract sockets of the host are out of reach",
        ),
        ("ipc namespace", Namespaces.CLONE_NEWIPC, "own shared memory, semaphores and queues"),
        ("uts namespace", Namespaces.CLONE_NEWUTS, "own host name"),
    )
    for name, flag, what in rows:
        yield view.wall(name, flag in view.flags, what, "shared with the host")
    yield view.wall(
        "cgroup namespace",
        view.has(steps.UnshareCgroup),
        "its own control group looks like the top",
        "shared with the host",
    )
    yield view.wall(
        "time namespace",
        view.has(steps.SetTimeOffset),
        "monotonic and boot clock of its own",
        "the clocks are the host's, and cannot be set; .time_offset() gives own ones",
    )
    yield view.wall(
        "user namespace",
        view.in_user_namespace,
        _users(view),
        f"{view.plan.users or 'shared'}: root inside is root of the machine, behind the other walls; .user() makes it somebody else",
    )


def _reach(view: _View) -> str:
    if view.has(steps.AwaitNetwork):
        return "own addresses and a way out; what listens on the host is not reached, and nobody outside reaches in"
    return "nothing but lo"


def _users(view: _View) -> str:
    if Namespaces.CLONE_NEWUSER in view.flags:
        return "root inside is nobody outside, with a range of ids of its own"
    if view.host.single_id:
        return f"root inside is uid {view.host.euid} outside, and there is nobody else"
    return f"root inside is uid {view.host.euid} outside, others are subordinate ids"


def rights(view: _View) -> Iterator[Wall]:
    """capabilities(7), credentials(7)."""
    granted = [name for name in capabilities.NAMES if name in view.granted]
    known = capabilities.NAMES[: view.host.last_capability + 1]
    what = f"root has {' '.join(granted)}; others none" if granted else "nobody has any"
    yield view.wall("capabilities", len(granted) < len(known), what, "root has all of them")
    yield view.wall(
        "no_new_privs",
        view.has(steps.SetNoNewPrivs),
        "set-user-ID programs and file capabilities give nothing",
        ".privileged(): set-user-ID programs work",
    )


def kernel_surface(view: _View) -> Iterator[Wall]:
    """seccomp(2), landlock(7), user_namespaces(7), keyrings(7)."""
    filters = [step.name for step in view.all(steps.SetSeccomp) if step.name != "pretending"]
    yield view.wall(
        "seccomp",
        view.filtered,
        f"profile: {', '.join(filters)}",
        "unconfined: every system call can be made",
    )
    walled = view.all(steps.SetLandlock)
    yield view.wall(
        "landlock",
        bool(walled),
        f"version {view.host.landlock}: no change of mounts, no nodes, changes only in {', '.join(path for path, _ in walled[0].rules)}"
        if walled
        else "",
        "not asked for: .landlock()" if view.host.landlock else "this host has none",
    )
    standard = "default" in filters and "SYS_ADMIN" not in view.granted
    standard |= any(
        step.path.endswith("/max_user_namespaces") and step.value == "0"
        for step in view.all(steps.WriteSysctl)
    )
    yield view.wall(
        "nested user namespaces",
        standard,
        "none can be made inside",
        "CAP_SYS_ADMIN or another filter permits them" if view.filtered else "no filter forbids them",
    )
    yield view.wall(
        "keyrings",
        "default" in filters,
        "keyctl(2), add_key(2) and request_key(2) are refused, and the session keyring is a new one",
        "no default filter refuses keyctl(2); the session keyring is a new one",
    )


def files(view: _View) -> Iterator[Wall]:
    """What is hidden, what cannot be written, and what of the host is shown."""
    masked = [step.path for step in view.all(steps.MaskPath)]
    of_the_kernel = not set(MASKED_PATHS).isdisjoint(masked)  # the image may have some of its own
    yield view.wall(
        "masked paths", of_the_kernel, ", ".join(masked), ".privileged(): nothing of the kernel is masked"
    )
    protected = [step.path for step in view.all(steps.ReadOnlyPath)]
    yield view.wall(
        "read-only paths", bool(protected), ", ".join(protected), ".privileged(): nothing is protected"
    )
    sysfs = next((step for step in view.all(steps.MountFilesystem) if step.fstype == "sysfs"), None)
    yield view.wall(
        "read-only /sys",
        sysfs is not None and bool(sysfs.flags & steps.MountFlags.MS_RDONLY),
        "nothing in it can be written",
        ".privileged()",
    )
    yield view.wall(
        "read-only root",
        view.has(steps.ReadOnlyRoot),
        "the image cannot be changed",
        "writable, in a layer of its own: .read_only()",
    )
    layer = view.all(steps.MountLayer)
    bounded = bool(layer) or view.has(steps.ReadOnlyRoot)
    size = (
        f"at most {_option(layer[0].options, 'size')} bytes, in memory"
        if layer
        else "nothing can be written to it"
    )
    yield view.wall(
        "disk", bounded, size, "no limit of its own, on the disk of the state folder: .limits(disk=)"
    )
    endless = [
        step.target
        for step in view.all(steps.MountFilesystem)
        if step.fstype == "tmpfs" and "size=" not in (step.options or "")
    ]
    yield view.wall(
        "tmpfs sizes", not endless, "each has one", f"{', '.join(endless)}: half of the memory; .tmpfs(size=)"
    )
    shown = list(_shown(view))
    writable = [target for target, read_only in shown if not read_only]
    remounts = bool(shown) and "SYS_ADMIN" in view.granted
    yield view.wall(
        "files of the host",
        not writable and not remounts,
        f"{len(shown)} mounts, read-only" if shown else "none but the image's",
        "who has CAP_SYS_ADMIN can make the mounts writable"
        if remounts
        else f"{', '.join(writable)} can be written: .mount(read_only=True)",
    )


def _shown(view: _View) -> Iterator[tuple[str, bool]]:
    """The targets of what the user mounts, each with whether it is read-only."""
    attributes = {step.number: step.attributes for step in view.all(steps.CloneTree)}
    for step in view.plan.steps:
        if step.because == ".mount()" and isinstance(step, steps.BindMount):
            yield step.target, step.read_only
        elif step.because == ".mount()" and isinstance(step, steps.AttachTree):
            yield step.target, bool(attributes[step.tree] & constants.MOUNT_ATTR_RDONLY)


def _option(options: str, name: str) -> str:
    return next(
        value for key, _, value in (part.partition("=") for part in options.split(",")) if key == name
    )


def devices(view: _View) -> Iterator[Wall]:
    """mknod(2), cgroups(7)."""
    nodes: list[steps.BindDevice | steps.AttachTree] = [
        *view.all(steps.BindDevice),
        *view.all(steps.AttachTree),
    ]
    given = [step.target for step in nodes if step.because == ".device()"]
    listed = any("devices" in step.controllers for step in view.all(steps.JoinCgroup))
    what = f"the usual six{''.join(f', {path}' for path in given)}"
    if listed:
        what += "; the kernel keeps a list of what may be opened"
    elif view.in_user_namespace:
        what += "; nodes that are made inside do not open"
    else:
        what += "; no capability to reach another node"
    open_ = view.has(steps.MakeHostDevices) or "devices" in view.plan.left_out
    yield view.wall("devices", not open_, what, ".privileged(): every device of the host")


def limits(view: _View) -> Iterator[Wall]:
    """cgroups(7), setrlimit(2)."""
    found = _limits_of(view)
    rows = (
        ("memory", "no limit but the machine's: .limits(memory=)"),
        ("swap", "no limit: .limits(memory=, swap=)"),
        ("pids", "no limit: .limits(pids=)"),
        ("cpus", "no limit: .limits(cpus=)"),
    )
    for name, because in rows:
        yield view.wall(name, name in found, found.get(name, ""), because)
    for name in view.plan.left_out:
        if name not in {*dict(rows), "disk", "devices", "landlock"}:
            yield view.wall(name, False, "", "this host cannot keep it")
    yield from (Wall(name, stands=True, what=what) for name, what in found.items() if name not in dict(rows))
    bounds = [f"{step.resource} {step.soft}" for step in view.all(steps.SetResourceLimit)]
    yield view.wall("rlimits", bool(bounds), ", ".join(bounds), "the owner's: .rlimit(), .limits(files=)")


_FILES = {
    "memory.max": "memory",
    "memory.limit_in_bytes": "memory",
    "memory.swap.max": "swap",
    "memory.memsw.limit_in_bytes": "swap",
    "pids.max": "pids",
    "cpu.max": "cpus",
    "cpu.cfs_quota_us": "cpus",
    "memory.high": "memory_high",
    "cpuset.cpus": "cpuset",
    "io.max": "io",
}


def _limits_of(view: _View) -> dict[str, str]:
    """What is written to bound something, by the name of the limit; a weight bounds nothing."""
    found: dict[str, str] = {}
    for step in view.all(steps.JoinCgroup):
        for controller, file, text in step.writes:
            several = file.startswith(("hugetlb.", "blkio.throttle."))
            name = controller if several else _FILES.get(file)
            if name is not None:
                found[name] = f"{found[name]}; {file} = {text}" if name in found else f"{file} = {text}"
    return found


def processes(view: _View) -> Iterator[Wall]:
    """Who is beside the payload, and what ends it."""
    init = view.all(steps.Execute)[0].init
    yield view.wall(
        "init",
        init,
        "PID 1 is ours: it forwards signals and reaps",
        ".init(False): the payload is PID 1, and reaps for itself",
    )
    own = bool(view.all(steps.OpenTerminal))
    terminal = (
        "on a terminal of its own: nothing can be typed into another"
        if own
        else "without a terminal: nothing can be typed into one"
    )
    yield Wall(
        "session",
        stands=init or own,
        what=f"its own, {terminal} (TIOCSTI)" if init or own else "",
        because="" if init or own else "the payload begins none by itself; there is no terminal either",
    )
    pipes = "terminal" if own else "pipes"
    yield Wall("descriptors", stands=True, what=f"0, 1 and 2, which are its own {pipes}, and no other")
    yield Wall("lifetime", stands=True, what="the kernel ends it with its owner, however that ends")
