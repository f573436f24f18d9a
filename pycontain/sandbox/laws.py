"""What holds for every plan, whatever the spec. The tests give these to Hypothesis; nothing calls them at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.sandbox import steps
from pycontain.sandbox.paths import StagePath
from pycontain.sandbox.steps import Role, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.sandbox.plan import Plan


_MOUNTING = (
    steps.MountStage,
    steps.MoveMount,
    steps.MountOverlay,
    steps.MountFilesystem,
    steps.BindMount,
    steps.AttachTree,
    steps.BindDevice,
    steps.OpenTerminal,
    steps.InstallFile,
    steps.MaskPath,
    steps.ReadOnlyPath,
    steps.WritablePath,
    steps.ReadOnlyRoot,
    steps.MountFiles,
    steps.BindSysfs,
    steps.BindHosts,
)


def _places(plan: Plan, kind: type[Step] | tuple[type[Step], ...]) -> list[int]:
    return [place for place, step in enumerate(plan.steps) if isinstance(step, kind)]


def _first(plan: Plan, kind: type[Step] | tuple[type[Step], ...]) -> int:
    """The place of the first such step, or the end of a plan that has none."""
    return next(iter(_places(plan, kind)), len(plan.steps))


def exactly_one_pivot(plan: Plan) -> Iterator[str]:
    """pivot_root(2) happens once."""
    if len(_places(plan, steps.PivotRoot)) != 1:
        yield "there is not exactly one pivot"


def no_mount_after_the_pivot(plan: Plan) -> Iterator[str]:
    """What is mounted is mounted while we hold the root by a descriptor."""
    pivot = _first(plan, steps.PivotRoot)
    yield from (f"step {place} mounts after the pivot" for place in _places(plan, _MOUNTING) if place > pivot)


def nothing_covers_a_mask(plan: Plan) -> Iterator[str]:
    """What is mounted after a mask lies neither at its path nor above it; what moves takes its masks along."""
    covering = (
        steps.MountFilesystem,
        steps.BindMount,
        steps.AttachTree,
        steps.BindDevice,
        steps.InstallFile,
        steps.WritablePath,
        steps.BindSysfs,
        steps.BindHosts,
    )
    for place in _places(plan, (steps.MaskPath, steps.ReadOnlyPath)):
        masked = _target(plan.steps[place])
        for later in _places(plan, covering):
            if later > place and f"{masked}/".startswith(f"{_target(plan.steps[later]).rstrip('/')}/"):
                yield f"step {later} covers the mask of {masked}"


def _target(step: Step) -> str:
    return str(getattr(step, "target", None) or getattr(step, "path", None) or "")


def the_stage_is_left_with_the_root(plan: Plan) -> Iterator[str]:
    """Steps below STAGE come before the overlay, and all that is mounted at its top moves to the root."""
    overlay = _first(plan, steps.MountOverlay)
    moved = {str(step.path) for step in plan.steps if isinstance(step, steps.MoveMount)}
    for place, step in enumerate(plan.steps):
        path = getattr(step, "target", None) or getattr(step, "path", None)
        if isinstance(path, StagePath) and place > overlay:
            yield f"step {place} builds on the stage after it was left"
        if isinstance(path, StagePath) and not any(f"{path}/".startswith(f"{tree}/") for tree in moved):
            yield f"what step {place} builds never reaches the root"


_FOR_THE_CHILD = (
    steps.MapIds,
    steps.GivePipes,
    steps.CloneTree,
    steps.CloneDevice,
    steps.JoinCgroup,
    steps.AllowLimit,
)


def one_clone_and_first(plan: Plan) -> Iterator[str]:
    """The zygote acts first; after the clone only the child does, but for what the zygote does for it."""
    if _places(plan, steps.Clone) != [0]:
        yield "the plan does not begin with its one clone"
    yield from (
        f"step {n} of the zygote after the clone"
        for n, s in enumerate(plan.steps)
        if n and s.role is Role.ZYGOTE and not isinstance(s, _FOR_THE_CHILD)
    )


def ids_are_mapped_before_anything(plan: Plan) -> Iterator[str]:
    """user_namespaces(7): until then the child is nobody, and what it makes would be nobody's."""
    flags = next((step.flags for step in plan.steps if isinstance(step, steps.Clone)), steps.Namespaces(0))
    if _places(plan, steps.MapIds) != [1] * (steps.Namespaces.CLONE_NEWUSER in flags):
        yield "a user namespace has no ids, or there are ids and no namespace"


def every_tree_is_used_once(plan: Plan) -> Iterator[str]:
    """What the zygote clones is there before the child begins with the image, and nothing of it is left over."""
    cloned = [step.number for step in plan.steps if isinstance(step, steps.CloneTree | steps.CloneDevice)]
    used: list[int] = []
    for step in plan.steps:
        if isinstance(step, steps.AttachTree):
            used.append(step.tree)
        elif isinstance(step, steps.MountOverlay):
            used += {tree for tree, _ in step.layers} | ({step.layer} - {-1})
    if sorted(used) != cloned or cloned != list(range(len(cloned))):
        yield f"the trees {cloned} are cloned and {sorted(used)} used"
    if max(_places(plan, (steps.CloneTree, steps.CloneDevice)), default=0) > _first(
        plan, steps.UnshareCgroup
    ):
        yield "a tree is cloned after the child has gone on"


def who_may_mount_has_nothing_of_the_host_idmapped(plan: Plan) -> Iterator[str]:
    """mount_setattr(2): with CAP_SYS_ADMIN a read-only tree can be made writable, and is written as its owner."""
    mounts = any("SYS_ADMIN" in step.keep for step in plan.steps if isinstance(step, steps.SetCapabilities))
    attached = {step.tree for step in plan.steps if isinstance(step, steps.AttachTree)}
    for place, step in enumerate(plan.steps):
        if isinstance(step, steps.CloneTree) and step.number in attached and step.idmapped and mounts:
            yield f"step {place} lets the container's root write as the host's"


def the_group_is_joined_before_it_becomes_the_view(plan: Plan) -> Iterator[str]:
    """cgroup_namespaces(7): the group at the unshare(2) is the root of the view; and nothing of the image comes before."""
    joined, unshared = _places(plan, steps.JoinCgroup), _places(plan, steps.UnshareCgroup)
    if len(unshared) != 1:
        yield "there is not exactly one cgroup namespace"
    if joined and joined != [place - 1 for place in unshared]:
        yield "the control group is not joined once, right before its namespace is made"
    if any(place > overlay for place in unshared for overlay in _places(plan, steps.MountOverlay)):
        yield "the image is mounted by a process that is not in its control group"


def the_root_is_mounted_before_anything_in_it(plan: Plan) -> Iterator[str]:
    """Only what is on the stage, or lies apart from both, comes before the overlay."""
    overlay = _first(plan, steps.MountOverlay)
    for place in _places(plan, _MOUNTING):
        path = getattr(plan.steps[place], "target", None) or getattr(plan.steps[place], "path", None)
        if (
            place < overlay
            and not isinstance(path, StagePath)
            and not isinstance(plan.steps[place], steps.MountStage | steps.MountFiles)
        ):
            yield f"step {place} mounts before there is a root"


def no_new_privs_before_seccomp(plan: Plan) -> Iterator[str]:
    """seccomp(2) asks for it, and it holds for everything that the payload executes."""
    if len(_places(plan, steps.SetNoNewPrivs)) != 1 and not _is_privileged(plan):
        yield "no_new_privs is not set exactly once"
    if _places(plan, steps.SetSeccomp) and _first(plan, steps.SetSeccomp) < _first(plan, steps.SetNoNewPrivs):
        yield "seccomp comes before no_new_privs"


def _is_privileged(plan: Plan) -> bool:
    return bool(_places(plan, steps.MakeHostDevices))


def landlock_comes_between(plan: Plan) -> Iterator[str]:
    """landlock_restrict_self(2) asks for no_new_privs, and its paths are the container's; a filter might forbid the calls."""
    for place in _places(plan, steps.SetLandlock):
        if not _places(plan, steps.SetNoNewPrivs) or place < _first(plan, steps.SetNoNewPrivs):
            yield "Landlock comes without or before no_new_privs"
        if place < _first(plan, steps.PivotRoot):
            yield "Landlock is told paths of the host"
        if place > _first(plan, steps.SetSeccomp):
            yield "Landlock comes after seccomp"


def seccomp_is_last_before_execute(plan: Plan) -> Iterator[str]:
    """Our own calls must not need what the payload may not have."""
    filters = _places(plan, steps.SetSeccomp)
    end = len(plan.steps) - 1
    names = [step.name for step in plan.steps if isinstance(step, steps.SetSeccomp)]
    if sum(name != "pretending" for name in names) > 1:
        yield "there is more than one seccomp filter"
    if filters != list(range(end - len(filters), end)):
        yield "seccomp is not the last step before execution"


def execute_is_last(plan: Plan) -> Iterator[str]:
    """A plan ends with the payload."""
    if _places(plan, steps.Execute) != [len(plan.steps) - 1]:
        yield "the plan does not end with its one Execute"


def identity_is_taken_inside(plan: Plan) -> Iterator[str]:
    """Users and directories are those of the container, so they come after the pivot."""
    pivot = _first(plan, steps.PivotRoot)
    inside = _places(plan, (steps.ResolveUser, steps.ChangeDirectory, steps.SetIdentity))
    yield from (f"step {place} looks at the host's files" for place in inside if place < pivot)


def capabilities_fall_in_order(plan: Plan) -> Iterator[str]:
    """The bounding set goes while CAP_SETPCAP is there, ids change while CAP_SETUID is."""
    order = [
        _places(plan, kind)
        for kind in (steps.DropBoundingSet, steps.SetIdentity, steps.SetCapabilities, steps.SetNoNewPrivs)
    ]
    order = [places for places in order if places or not _is_privileged(plan)]
    if any(len(places) != 1 for places in order) or sorted(order) != order:
        yield "bounding set, identity, capabilities and no_new_privs are not each there once and in this order"


def the_death_signal_survives_the_change_of_identity(plan: Plan) -> Iterator[str]:
    """prctl(2): it is cleared when credentials change, so it is set again after."""
    last = max(_places(plan, (steps.SetIdentity, steps.SetCapabilities)), default=len(plan.steps))
    if not any(place > last for place in _places(plan, steps.SetParentDeathSignal)):
        yield "no parent-death signal after the last change of credentials"


def the_working_directory_is_inside(plan: Plan) -> Iterator[str]:
    """CVE-2024-21626: the payload's directory is chosen after the host's tree is gone."""
    if not _places(plan, steps.ChangeDirectory):
        yield "nothing changes into a directory of the container"


# What must be done before what, and is told by no other law.
_ORDER = (
    (steps.MountStage, steps.MountFilesystem),
    (steps.MountFiles, steps.InstallFile),
    (steps.SetHostname, steps.InstallFile),
    (steps.ResolveUser, steps.SetIdentity),
    (steps.AllowLimit, steps.SetResourceLimit),
    (steps.SetResourceLimit, steps.SetIdentity),
    (steps.WriteSysctl, steps.ReadOnlyPath),
    (steps.MountLayer, steps.MountOverlay),
    (steps.MountOverlay, steps.SetRootStatus),
    (steps.WritablePath, steps.ReadOnlyRoot),
    (steps.MoveMount, steps.OpenTerminal),
    (steps.OpenTerminal, steps.SetIdentity),
)


def preparations_come_first(plan: Plan) -> Iterator[str]:
    """A doer finds what an earlier step has opened, looked up or may still do."""
    for early, late in _ORDER:
        if max(_places(plan, early), default=-1) > _first(plan, late):
            yield f"{late.__name__} comes before {early.__name__}"


def a_network_is_awaited_where_there_is_one(plan: Plan) -> Iterator[str]:
    """It is there before the payload, nobody waits in the host's, and that one has its own loopback already."""
    shared = any(
        steps.Namespaces.CLONE_NEWNET not in step.flags
        for step in plan.steps
        if isinstance(step, steps.Clone)
    )
    waits = _places(plan, steps.AwaitNetwork)
    if len(waits) > 1 or any(place > _first(plan, steps.PivotRoot) for place in waits):
        yield "the network is not awaited once, before the pivot"
    if shared and (waits or _places(plan, steps.BringLoopbackUp)):
        yield "something is done to the host's network"
    if not shared and _places(plan, steps.BindSysfs):
        yield "the host's interfaces are shown to who has its own"


ALL: tuple[Callable[[Plan], Iterator[str]], ...] = (
    exactly_one_pivot,
    no_mount_after_the_pivot,
    nothing_covers_a_mask,
    the_stage_is_left_with_the_root,
    one_clone_and_first,
    ids_are_mapped_before_anything,
    every_tree_is_used_once,
    who_may_mount_has_nothing_of_the_host_idmapped,
    the_group_is_joined_before_it_becomes_the_view,
    the_root_is_mounted_before_anything_in_it,
    no_new_privs_before_seccomp,
    landlock_comes_between,
    seccomp_is_last_before_execute,
    execute_is_last,
    preparations_come_first,
    a_network_is_awaited_where_there_is_one,
    identity_is_taken_inside,
    capabilities_fall_in_order,
    the_death_signal_survives_the_change_of_identity,
    the_working_directory_is_inside,
)


def violations(plan: Plan) -> list[str]:
    """Every breach of every law, in words; empty for a lawful plan."""
    return [breach for law in ALL for breach in law(plan)]
