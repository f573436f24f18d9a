"""Every plan obeys every law, whatever the spec and the host; and no law is vacuous."""

import errno
import html
import marshal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontain.runtime import perform
from pycontain.sandbox import capabilities, laws, steps
from pycontain.sandbox.compile import compile_exec, compile_plan
from pycontain.sandbox.devices import Device
from pycontain.sandbox.host import HostFacts, IdRange
from pycontain.sandbox.limits import Cgroup, Limits, cgroup_of
from pycontain.sandbox.network import ALONE, Net
from pycontain.sandbox.paths import HostPath, RootPath, StagePath
from pycontain.sandbox.plan import Plan
from pycontain.sandbox.spec import File, Mount, Rootfs, SandboxSpec, Secret, Tmpfs, UserNamespace

# --- specs and hosts ------------------------------------------------------------------------------------

names = st.text("ab.-_ é\\\"',:\n", min_size=1, max_size=6).filter(lambda name: name not in {".", ".."})
tails = st.lists(names, min_size=1, max_size=4).map("/".join)
host_paths = tails.map(lambda tail: HostPath.parse(f"/{tail}"))
root_paths = tails.map(lambda tail: RootPath.parse(f"/{tail}"))
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
modes = st.integers(0, 0o7777)
contents = st.binary(max_size=20)
secrets = st.builds(
    File, tails.map(lambda tail: RootPath(f"/run/secrets/{tail}")), contents.map(Secret), st.just(0o400)
)
sandbox_specs = st.builds(
    SandboxSpec,
    rootfs=st.builds(
        Rootfs,
        st.lists(host_paths, min_size=1, max_size=3).map(tuple),
        st.lists(st.tuples(host_paths, root_paths), max_size=3).map(tuple),
        st.just(0o755) | modes,
        *(st.integers(0, 1) for _ in range(2)),
    ),
    argv=st.lists(words, min_size=1, max_size=3).map(tuple),
    env=st.lists(st.tuples(names, words), max_size=3).map(tuple),
    workdir=root_paths,
    user=st.sampled_from(["", "0", "root", "1000:1000", "name:group"]),
    hostname=st.sampled_from(["", "box"]),
    mounts=st.lists(st.builds(Mount, host_paths, root_paths, st.booleans()), max_size=3).map(tuple),
    tmpfs=st.lists(st.builds(Tmpfs, root_paths, st.none() | st.integers(0, 1 << 40), modes), max_size=3).map(
        tuple
    ),
    volumes=st.lists(root_paths, max_size=3, unique=True).map(tuple),
    files=st.lists(st.builds(File, root_paths, contents, modes) | secrets, max_size=3).map(tuple),
    read_only=st.booleans(),
    init=st.booleans(),
    restart=st.sampled_from([(), (True, -1, 15), (False, 3, 10)]),
    terminal=st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    privileged=st.booleans(),
    landlock=st.booleans(),
    capabilities=st.frozensets(st.sampled_from(capabilities.NAMES)),
    masked_paths=st.just(SandboxSpec(Rootfs(())).masked_paths),
    rlimits=st.lists(
        st.tuples(st.sampled_from(["nofile", "core"]), st.integers(0, 9), st.integers(9, 99)), max_size=2
    ).map(tuple),
    cgroup=st.builds(
        cgroup_of,
        st.builds(
            Limits,
            memory=st.none() | st.integers(6 << 20, 1 << 40),
            memory_high=st.none() | st.just(6 << 20),
            pids=st.none() | st.integers(1, 99),
            cpuset=st.none() | st.just("0-1"),
        ),
        st.dictionaries(st.sampled_from(["memory", "pids", "cpuset"]), st.sampled_from([1, 2])),
    ),
    scratch=st.lists(st.builds(Tmpfs, root_paths, st.just(1 << 20)), max_size=2).map(tuple),
    devices=st.lists(st.builds(Device, host_paths, root_paths), max_size=2).map(tuple),
    time_offset=st.none() | st.tuples(st.integers(-99, 1 << 60), st.integers(-99, 1 << 60)),
    layer_size=st.none() | st.integers(1 << 20, 1 << 40),
    sysctls=st.lists(
        st.sampled_from([("net.ipv4.ip_forward", "1"), ("kernel.domainname", "box")]), unique=True
    ).map(tuple),
    net=st.sampled_from(
        [ALONE, Net(shared=True), Net(connected=True, resolver="x"), Net(connected=True, live=True)]
    ),
    userns=st.builds(UserNamespace, st.booleans(), st.sampled_from(["", "a reason"])),
    seccomp=st.none() | st.just(bytes(16)),
    pretending=st.none() | st.just(bytes(8)),
)
single = (IdRange(0, 1000, 1),)
many = (IdRange(0, 1000, 1), IdRange(1, 100000, 65536))
hosts = st.builds(
    HostFacts,
    kernel=st.tuples(st.integers(5, 7), st.integers(0, 30)),
    rootless=st.booleans(),
    uid_map=st.sampled_from([single, many]),
    last_capability=st.integers(30, 63),
)

RICH = SandboxSpec(
    Rootfs((HostPath("/layer"),), ((HostPath("/usr"), RootPath("/usr")),), mode=0o711),
    argv=("true",),
    mounts=(Mount(HostPath("/src"), RootPath("/data"), read_only=True),),
    tmpfs=(Tmpfs(RootPath("/scratch"), 1 << 20),),
    volumes=(RootPath("/var/db"),),
    files=(File(RootPath("/etc/app"), b"x"), File(RootPath("/run/secrets/token"), Secret(b"y"), 0o400)),
    masked_paths=(*SandboxSpec(Rootfs(())).masked_paths, RootPath("/usr/local/etc")),
    terminal=(80, 24),
    read_only=True,
    rlimits=(("nofile", 10, 20),),
    cgroup=cgroup_of(Limits(memory=6 << 20, pids=9), {"memory": 1, "pids": 2}),
    seccomp=bytes(16),
)
LAWFUL = compile_plan(RICH, HostFacts())
OWN = compile_plan(attrs.evolve(RICH, userns=UserNamespace(own=True)), HostFacts())


# --- laws hold ------------------------------------------------------------------------------------------


@given(sandbox_specs, hosts)
def test_every_plan_obeys_every_law(spec, host):
    assert laws.violations(compile_plan(spec, host)) == []


@given(sandbox_specs, hosts)
def test_a_plan_travels(spec, host):
    """The wire form is as long as the plan, so that an index into one is an index into the other."""
    for plan in (compile_plan(spec, host), compile_exec(spec, host)):
        wire = plan.wire()
        assert marshal.loads(marshal.dumps(wire)) == wire
        assert [step[0] for step in wire] == [type(step).__name__ for step in plan.steps]


@given(sandbox_specs, hosts)
def test_compiling_is_a_function(spec, host):
    assert compile_plan(spec, host) == compile_plan(spec, host)


@given(sandbox_specs, hosts)
def test_a_plan_prints_one_line_for_each_step(spec, host):
    plan = compile_plan(spec, host)
    assert len(str(plan).split("\n")) == len(plan) + 1
    assert plan._repr_html_().count("<tr>") == len(plan) + 1


@given(sandbox_specs, hosts)
def test_what_a_table_shows_is_escaped(spec, host):
    plan = attrs.evolve(compile_plan(spec, host), title="<script>")
    assert "<script>" not in plan._repr_html_()
    assert html.escape("<script>") in plan._repr_html_()


@given(sandbox_specs, hosts)
def test_a_step_is_explained_or_not_but_never_fails_to_be(spec, host):
    for step in (*compile_plan(spec, host).steps, *compile_exec(spec, host).steps):
        assert str(step)
        for number in (1, 2, 3, 11, 12, 13, 16, 17, 20, 22, 28, 30, 40):
            known = step.explain(number, "")
            assert known is None or all(known)


@given(sandbox_specs, hosts, st.binary(min_size=6, max_size=20))
def test_contents_are_not_in_a_plan(spec, host, content):
    """Neither a secret's bytes nor a file's: they travel beside it."""
    marked = b"\xf0\x9f" + content
    files = (File(RootPath("/x"), marked), File(RootPath("/run/secrets/x"), Secret(marked), 0o400))
    spec = attrs.evolve(spec, files=files, seccomp=None)
    plan = compile_plan(spec, host)
    shown = (str(plan), plan._repr_html_(), repr(plan), repr(plan.steps), repr(spec), str(spec))
    assert not any(repr(marked)[2:-1] in text for text in shown)
    assert marked not in marshal.dumps(plan.wire())


@pytest.mark.parametrize("count", [1, 300, 9000])
def test_each_file_has_room_for_a_page(count):
    """A byte in a tmpfs takes a page, which has 64 KiB on some kernels for aarch64."""
    files = tuple(File(RootPath(f"/srv/{number}"), b"x") for number in range(count))
    plan = compile_plan(attrs.evolve(RICH, files=files), HostFacts())
    (place,) = (step for step in plan.steps if isinstance(step, steps.MountFiles))
    assert int(place.options.rpartition("size=")[2]) >= count << 16


@given(sandbox_specs, hosts)
def test_no_capability_beyond_those_that_the_kernel_knows(spec, host):
    for step in compile_plan(spec, host).steps:
        if isinstance(step, steps.DropBoundingSet | steps.SetCapabilities):
            assert all(capabilities.NAMES.index(name) <= host.last_capability for name in step.keep)


@given(sandbox_specs, hosts)
def test_parents_are_mounted_before_children(spec, host):
    plan = compile_plan(spec, host)
    seen = [
        step.target
        for step in plan.steps
        if step.because in {".mount()", ".tmpfs()"} and hasattr(step, "target")
    ]
    for place, path in enumerate(seen):
        assert not any(path.startswith(f"{later}/") for later in seen[place + 1 :])


@given(sandbox_specs, hosts)
def test_devices_are_made_by_the_hosts_root_and_bound_by_others(spec, host):
    kinds = {
        type(step)
        for step in compile_plan(spec, host).steps
        if isinstance(getattr(step, "target", None) or getattr(step, "path", None), StagePath)
    }
    bound = host.rootless or spec.userns.own
    assert (steps.MakeDevice in kinds, steps.BindDevice in kinds) == (not bound, bound)


@given(sandbox_specs, hosts)
def test_groups_are_left_alone_where_setgroups_is_denied(spec, host):
    identity = next(step for step in compile_plan(spec, host).steps if isinstance(step, steps.SetIdentity))
    assert identity.setgroups == (not host.single_id)


@given(sandbox_specs, hosts)
def test_every_path_that_is_to_be_hidden_is_hidden(spec, host):
    plan = compile_plan(spec, host)
    groups = {RootPath("/sys/fs/cgroup")} if spec.net.shared and not spec.privileged else set()
    masked = {step.path for step in plan.steps if isinstance(step, steps.MaskPath)}
    assert masked == {*spec.masked_paths, *groups}
    assert {step.path for step in plan.steps if isinstance(step, steps.ReadOnlyPath)} == set(
        spec.read_only_paths
    )


@given(sandbox_specs, hosts)
def test_an_exec_has_the_walls_of_the_container(spec, host):
    walls = (
        steps.DropBoundingSet,
        steps.SetIdentity,
        steps.SetCapabilities,
        steps.SetNoNewPrivs,
        steps.SetSeccomp,
        steps.SetResourceLimit,
        steps.Execute,
    )

    def chosen(plan):
        return [step for step in plan.steps if isinstance(step, walls)]

    assert chosen(compile_exec(spec, host)) == chosen(compile_plan(spec, host))


@given(sandbox_specs, hosts)
def test_a_spare_has_no_limits_on_resources_yet(spec, host):
    """It has descriptors to take, and its own to give back, before it has those of the payload."""
    for plan in (compile_plan(spec, host), compile_exec(spec, host)):
        begun = plan.steps[: plan.prefix_length()]
        assert not any(isinstance(step, steps.SetResourceLimit) for step in begun)


@given(sandbox_specs, hosts)
def test_a_spare_serves_with_and_without_limits(spec, host):
    """What is done in advance is the same, so the first container with limits finds one too."""
    plain = attrs.evolve(spec, cgroup=Cgroup())
    for compiled in (compile_plan, compile_exec):
        limited, free = compiled(spec, host), compiled(plain, host)
        length = free.prefix_length()
        assert limited.prefix_length() == length
        assert limited.steps[:length] == free.steps[:length]


@given(sandbox_specs, hosts)
def test_a_plan_says_what_is_not_limited(spec, host):
    text = str(compile_plan(spec, host))
    assert all(name in text.split("\n", maxsplit=1)[0] for name in spec.cgroup.left_out)
    assert all(f'write("{file}", "{value}")' in text for _, file, value in spec.cgroup.writes)


@given(sandbox_specs, hosts)
def test_no_user_namespace_inside_unless_with_the_capability_for_it(spec, host):
    """A namespace of its own has the limit; in a shared one it would be the limit of others, too."""
    written = {step.path for step in compile_plan(spec, host).steps if isinstance(step, steps.WriteSysctl)}
    limited = "/proc/sys/user/max_user_namespaces" in written
    assert limited == (spec.userns.own and "SYS_ADMIN" not in spec.capabilities)


@given(sandbox_specs, hosts)
def test_a_plan_says_in_which_user_namespace_it_is(spec, host):
    caption = str(compile_plan(spec, host)).split("\n", maxsplit=1)[0]
    assert ("own user namespace" in caption) == spec.userns.own
    assert spec.userns.own or spec.userns.because in caption


@given(sandbox_specs, hosts)
def test_the_zygote_is_told_which_trees_to_clone(spec, host):
    plan = compile_plan(spec, host)
    trees = steps.CloneTree | steps.CloneDevice
    cloned = [place for place, step in enumerate(plan.steps) if isinstance(step, trees)]
    assert [index for index, *_ in plan.trees()] == cloned
    assert bool(cloned) == spec.userns.own


@given(sandbox_specs, hosts, st.lists(words, min_size=1, max_size=3).map(tuple))
def test_another_command_line_changes_the_last_step_alone(spec, host, argv):
    plan = compile_plan(spec, host)
    changed = plan.with_argv(argv)
    assert changed.steps[:-1] == plan.steps[:-1]
    assert changed.steps[-1].argv == argv


# --- laws are not vacuous -------------------------------------------------------------------------------


def of_kind(kind, plan=LAWFUL):
    return next(place for place, step in enumerate(plan.steps) if isinstance(step, kind))


def last_of_kind(kind, plan=LAWFUL):
    return max(place for place, step in enumerate(plan.steps) if isinstance(step, kind))


def without(kind, plan=LAWFUL):
    return Plan(tuple(step for step in plan.steps if not isinstance(step, kind)))


def moved(kind, place, plan=LAWFUL):
    """The last step of *kind* at *place* of the rest."""
    rest = list(plan.steps)
    step = rest.pop(last_of_kind(kind, plan))
    rest.insert(place if place >= 0 else len(rest) + 1 + place, step)
    return Plan(tuple(rest))


def repeated(kind, place=None):
    step = LAWFUL.steps[of_kind(kind)]
    rest = list(LAWFUL.steps)
    rest.insert(of_kind(kind) if place is None else place, step)
    return Plan(tuple(rest))


def inserted(step, place):
    rest = list(LAWFUL.steps)
    rest.insert(place, step)
    return Plan(tuple(rest))


BROKEN = {
    "a user is taken before he is looked up": (
        laws.preparations_come_first,
        moved(steps.SetIdentity, of_kind(steps.ResolveUser)),
    ),
    "Landlock without no_new_privs": (
        laws.landlock_comes_between,
        Plan((*without(steps.SetNoNewPrivs).steps[:-2], steps.SetLandlock(1, 0, ()), *LAWFUL.steps[-2:])),
    ),
    "Landlock with paths of the host": (
        laws.landlock_comes_between,
        inserted(steps.SetLandlock(1, 0, ()), 5),
    ),
    "Landlock behind seccomp": (laws.landlock_comes_between, inserted(steps.SetLandlock(1, 0, ()), -1)),
    "no pivot": (laws.exactly_one_pivot, without(steps.PivotRoot)),
    "two pivots": (laws.exactly_one_pivot, repeated(steps.PivotRoot)),
    "a mount after the pivot": (
        laws.no_mount_after_the_pivot,
        moved(steps.BindMount, of_kind(steps.PivotRoot)),
    ),
    "a file after the pivot": (
        laws.no_mount_after_the_pivot,
        moved(steps.InstallFile, of_kind(steps.PivotRoot)),
    ),
    "a mask after the pivot": (
        laws.no_mount_after_the_pivot,
        moved(steps.MaskPath, of_kind(steps.PivotRoot)),
    ),
    "a tree over a mask": (
        laws.nothing_covers_a_mask,
        inserted(steps.BindMount(HostPath("/x"), RootPath("/usr/local")), of_kind(steps.PivotRoot)),
    ),
    "a tmpfs over a mask": (
        laws.nothing_covers_a_mask,
        inserted(
            steps.MountFilesystem("tmpfs", RootPath("/proc"), steps.MountFlags.MS_NOSUID),
            of_kind(steps.PivotRoot),
        ),
    ),
    "a file over a mask": (
        laws.nothing_covers_a_mask,
        inserted(steps.InstallFile(RootPath("/proc/kcore"), 0), of_kind(steps.PivotRoot)),
    ),
    "no clone": (laws.one_clone_and_first, without(steps.Clone)),
    "a late clone": (laws.one_clone_and_first, moved(steps.Clone, 1)),
    "two clones": (laws.one_clone_and_first, repeated(steps.Clone)),
    "the zygote in the middle": (laws.one_clone_and_first, inserted(steps.Fork(), 5)),
    "ids that are mapped too late": (laws.ids_are_mapped_before_anything, moved(steps.MapIds, 5, OWN)),
    "ids without a namespace": (laws.ids_are_mapped_before_anything, inserted(steps.MapIds(9), 1)),
    "a tree that nobody attaches": (laws.every_tree_is_used_once, without(steps.AttachTree, OWN)),
    "a tree that nobody clones": (laws.every_tree_is_used_once, without(steps.CloneTree, OWN)),
    "a tree that is cloned too late": (
        laws.every_tree_is_used_once,
        moved(steps.CloneTree, of_kind(steps.MountOverlay, OWN), OWN),
    ),
    "a tree after the pivot": (
        laws.no_mount_after_the_pivot,
        moved(steps.AttachTree, of_kind(steps.PivotRoot, OWN), OWN),
    ),
    "the host's owners for who may mount": (
        laws.who_may_mount_has_nothing_of_the_host_idmapped,
        Plan((*OWN.steps, steps.SetCapabilities(frozenset({"SYS_ADMIN"})))),
    ),
    "no cgroup namespace": (
        laws.the_group_is_joined_before_it_becomes_the_view,
        without(steps.UnshareCgroup),
    ),
    "a group that is joined too late": (
        laws.the_group_is_joined_before_it_becomes_the_view,
        moved(steps.JoinCgroup, of_kind(steps.UnshareCgroup) + 1),
    ),
    "two groups": (laws.the_group_is_joined_before_it_becomes_the_view, repeated(steps.JoinCgroup)),
    "an image outside of the group": (
        laws.the_group_is_joined_before_it_becomes_the_view,
        moved(steps.MountOverlay, of_kind(steps.JoinCgroup)),
    ),
    "a tree before the root": (laws.the_root_is_mounted_before_anything_in_it, moved(steps.BindMount, 3)),
    "a file before the root": (laws.the_root_is_mounted_before_anything_in_it, moved(steps.InstallFile, 3)),
    "a mask before the root": (laws.the_root_is_mounted_before_anything_in_it, moved(steps.MaskPath, 3)),
    "what was staged is left behind": (laws.the_stage_is_left_with_the_root, without(steps.MoveMount)),
    "privileges to gain": (laws.no_new_privs_before_seccomp, without(steps.SetNoNewPrivs)),
    "no_new_privs after seccomp": (laws.no_new_privs_before_seccomp, moved(steps.SetNoNewPrivs, -2)),
    "seccomp too early": (laws.seccomp_is_last_before_execute, moved(steps.SetSeccomp, 5)),
    "seccomp twice": (laws.seccomp_is_last_before_execute, repeated(steps.SetSeccomp)),
    "no payload": (laws.execute_is_last, without(steps.Execute)),
    "something after the payload": (laws.execute_is_last, moved(steps.Execute, -2)),
    "users of the host": (laws.identity_is_taken_inside, moved(steps.ResolveUser, 5)),
    "a directory of the host": (laws.identity_is_taken_inside, moved(steps.ChangeDirectory, 5)),
    "ids before the pivot": (laws.identity_is_taken_inside, moved(steps.SetIdentity, 5)),
    "bounding set kept": (laws.capabilities_fall_in_order, without(steps.DropBoundingSet)),
    "identity kept": (laws.capabilities_fall_in_order, without(steps.SetIdentity)),
    "capabilities kept": (laws.capabilities_fall_in_order, without(steps.SetCapabilities)),
    "capabilities before ids": (
        laws.capabilities_fall_in_order,
        moved(steps.SetIdentity, of_kind(steps.SetCapabilities) + 1),
    ),
    "bounding set too late": (
        laws.capabilities_fall_in_order,
        moved(steps.DropBoundingSet, of_kind(steps.SetIdentity) + 1),
    ),
    "no death signal": (
        laws.the_death_signal_survives_the_change_of_identity,
        without(steps.SetParentDeathSignal),
    ),
    "death signal cleared": (
        laws.the_death_signal_survives_the_change_of_identity,
        moved(steps.SetParentDeathSignal, of_kind(steps.SetIdentity)),
    ),
    "a network that nobody waits for at the right time": (
        laws.a_network_is_awaited_where_there_is_one,
        Plan((*LAWFUL.steps, steps.AwaitNetwork())),
    ),
    "the host's interfaces": (
        laws.a_network_is_awaited_where_there_is_one,
        Plan((*LAWFUL.steps, steps.BindSysfs(StagePath("/sys")))),
    ),
    "the host's loopback": (
        laws.a_network_is_awaited_where_there_is_one,
        Plan((steps.Clone(steps.Namespaces.CLONE_NEWNS), *LAWFUL.steps[1:])),
    ),
    "no directory": (laws.the_working_directory_is_inside, without(steps.ChangeDirectory)),
}


@pytest.mark.parametrize("plan", [LAWFUL, OWN], ids=["LAWFUL", "OWN"])
def test_the_plan_that_is_broken_below_is_lawful(plan):
    assert laws.violations(plan) == []


@pytest.mark.parametrize(("law", "plan"), BROKEN.values(), ids=BROKEN.keys())
def test_a_law_is_broken_by(law, plan):
    assert list(law(plan)) != []


def test_every_law_is_broken_by_something():
    assert {law for law, _ in BROKEN.values()} == set(laws.ALL)


@pytest.mark.parametrize(
    "kind", sorted({type(step) for step in LAWFUL.steps}, key=lambda kind: kind.__name__)
)
def test_the_laws_judge_a_plan_from_which_anything_is_missing(kind):
    """They tell what is wrong with it, instead of failing themselves."""
    assert isinstance(laws.violations(without(kind)), list)


@settings(max_examples=200)
@given(st.permutations(range(len(LAWFUL.steps))))
def test_the_laws_judge_a_plan_in_any_order(order):
    plan = Plan(tuple(LAWFUL.steps[place] for place in order))
    assert isinstance(laws.violations(plan), list)


# Neighbours whose order matters, and that a law should guard.
ORDERED = [
    (steps.ResolveUser, steps.SetIdentity),  # the ids are those that were looked up
    (steps.MountFiles, steps.InstallFile),  # the files lie on that tmpfs
    (steps.MountStage, steps.MountFilesystem),  # or it would be the host's /proc
    (steps.SetHostname, steps.InstallFile),  # two files name it
    (steps.SetResourceLimit, steps.SetIdentity),  # a hard limit is raised as root
    (steps.ChangeDirectory, steps.SetSeccomp),
    (steps.MountOverlay, steps.SetRootStatus),  # the ids are the container's only through the mount
    (steps.WritablePath, steps.ReadOnlyRoot),  # or the volume would be read-only too
]


@pytest.mark.parametrize(("first", "second"), ORDERED, ids=lambda kind: kind.__name__)
def test_an_order_that_matters_is_kept_and_guarded(first, second):
    assert last_of_kind(first) < of_kind(second)
    rest = list(LAWFUL.steps)
    step = rest.pop(last_of_kind(first))
    rest.insert(last_of_kind(second, Plan(tuple(rest))) + 1, step)
    assert laws.violations(Plan(tuple(rest))) != []


def test_the_root_becomes_read_only_after_all_that_needs_a_place_in_it():
    assert of_kind(steps.ReadOnlyRoot) > last_of_kind(
        (steps.BindMount, steps.InstallFile, steps.MoveMount, steps.MountFilesystem)
    )


def test_memory_that_is_full_is_not_told_as_a_full_writable_layer():
    step = steps.InstallFile(RootPath("/x"), 5)
    assert step.explain(errno.ENOSPC, perform.FILES)[0] == "no memory is left for the content of /x"
    assert "writable layer" in step.explain(errno.ENOSPC, "x")[0]
