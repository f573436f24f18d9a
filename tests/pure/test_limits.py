"""Limits from the user's words to the files of a control group, and where /proc says that this process is."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.kernel import cgroupfs
from pycontain.runtime import delegation
from pycontain.sandbox.limits import (
    LEAST_MEMORY,
    IoLimit,
    Limits,
    cgroup_of,
    controllers_of,
    difference,
    enforceable,
    parse_limits,
    v1_writes,
    v2_writes,
    writes,
)

MIB = 1 << 20
ALL_V1 = dict.fromkeys(("memory", "cpu", "cpuset", "pids"), 1)
ALL_V2 = dict.fromkeys(ALL_V1, 2)

any_limits = st.builds(
    Limits,
    memory=st.none() | st.integers(LEAST_MEMORY, 1 << 50),
    swap=st.none() | st.integers(0, 1 << 50),
    cpus=st.none() | st.floats(0.01, 1024),
    cpu_weight=st.none() | st.integers(1, 10_000),
    cpuset=st.none() | st.sampled_from(("0", "0-3", "1,4-5")),
    pids=st.none() | st.integers(1, 1 << 22),
)

# --- parsing --------------------------------------------------------------------------------------------


def test_sizes_and_numbers_are_read_at_the_door():
    assert parse_limits(memory="256M", swap=0, cpus=0.5, pids=64) == Limits(
        memory=256 * MIB, swap=0, cpus=0.5, pids=64
    )


def test_nothing_given_is_no_limit():
    assert controllers_of(parse_limits()) == frozenset()


def test_all_problems_are_named_at_once():
    with pytest.raises(InvalidSpec) as caught:
        parse_limits(memory="lots", cpus=0, cpu_weight=10_001, cpuset="3-1", pids=0)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "memory",
        "cpus",
        "cpu_weight",
        "cpuset",
        "pids",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": "1M"},
        {"memory": True},
        {"memory": [64 * MIB], "swap": 0},
        {"memory": 1.5e9},
        {"memory": -1},
        {"swap": "1G"},
        {"memory": "64M", "swap": -1},
        {"memory": "64M", "memory_high": "65M"},
        {"cpus": 0.001},
        {"cpus": "2"},
        {"cpus": float("inf")},
        {"cpus": float("nan")},
        {"cpus": True},
        {"cpu_weight": 0},
        {"cpu_weight": 1.5},
        {"cpuset": ""},
        {"cpuset": "0-"},
        {"cpuset": "0, 1"},
        {"cpuset": "0\n"},
        {"cpuset": 1},
        {"cpuset_mems": "x"},
        {"io": {}},
        {"io": "10M"},
        {"io": {"sda": "10M"}},
        {"io": {"/dev/sda": 0}},
        {"io": {"/dev/sda": {}}},
        {"io": {"/dev/sda": {"speed": "10M"}}},
        {"io": {"/dev/sda": {"read_bps": -1}}},
        {"io": {"/dev/sda": "max"}},
        {"io": {"/dev/sda": {"read_bps": "max"}}},
        {"io_weight": 0},
        {"io_weight": 1001},
        {"io_weight": "max"},
        {"cpu_weight": "max"},
        {"cpus": "most"},
        {"hugetlb": {}},
        {"hugetlb": {"3M": "64M"}},
        {"hugetlb": {"2M": "lots"}},
        {"pids": True},
        {"pids": 1 << 23},
    ],
    ids=str,
)
def test_what_no_kernel_would_keep_is_an_invalid_spec(wrong):
    with pytest.raises(InvalidSpec):
        parse_limits(**wrong)


# --- compiling ------------------------------------------------------------------------------------------

EVERYTHING = Limits(memory=256 * MIB, swap=64 * MIB, cpus=1.5, cpu_weight=200, cpuset="0-1", pids=64)


def test_the_files_of_v2():
    assert v2_writes(attrs.evolve(EVERYTHING, memory_high=128 * MIB)) == (
        ("memory", "memory.high", "134217728"),
        ("memory", "memory.max", "268435456"),
        ("memory", "memory.swap.max", "67108864"),
        ("cpu", "cpu.max", "150000 100000"),
        ("cpu", "cpu.weight", "200"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("pids", "pids.max", "64"),
    )


def test_the_files_of_v1():
    assert v1_writes(EVERYTHING) == (
        ("memory", "memory.limit_in_bytes", "268435456"),
        ("memory", "memory.memsw.limit_in_bytes", "335544320"),
        ("cpu", "cpu.cfs_quota_us", "150000"),
        ("cpu", "cpu.shares", "2048"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("pids", "pids.max", "64"),
    )


DISKS = {"8:0": "1M", "8:16": {"read_bps": "2M", "write_iops": 100}}


def test_one_rate_for_a_disk_counts_in_both_directions():
    assert parse_limits(io=DISKS).io == (
        IoLimit("8:0", read_bps=MIB, write_bps=MIB),
        IoLimit("8:16", read_bps=2 * MIB, write_iops=100),
    )


def test_a_disk_that_is_named_again_has_the_new_rates_and_others_keep_theirs():
    limits = parse_limits(parse_limits(io=DISKS), io={"8:0": {"read_iops": 5}})
    assert limits.io == (IoLimit("8:0", read_iops=5), IoLimit("8:16", read_bps=2 * MIB, write_iops=100))


def test_what_was_given_before_stays():
    assert parse_limits(Limits(memory=64 * MIB, pids=5), pids=7) == Limits(memory=64 * MIB, pids=7)


def test_the_files_of_disks_in_v2():
    assert v2_writes(parse_limits(io=DISKS)) == (
        ("io", "io.max", "8:0 rbps=1048576 wbps=1048576"),
        ("io", "io.max", "8:16 rbps=2097152 wiops=100"),
    )


def test_the_files_of_disks_in_v1():
    """Where only reading can be limited."""
    assert v1_writes(parse_limits(io={"8:0": {"read_bps": "1M", "read_iops": 9}})) == (
        ("io", "blkio.throttle.read_bps_device", "8:0 1048576"),
        ("io", "blkio.throttle.read_iops_device", "8:0 9"),
    )


def test_v1_cannot_limit_writing():
    limits = parse_limits(io=DISKS, pids=5)
    assert enforceable(limits, {"io": 1, "pids": 1}) == (Limits(pids=5), ("io",))
    with pytest.raises(HostUnsupported, match="limits on writing"):
        v1_writes(limits)


def test_the_files_of_huge_pages_and_memory_nodes():
    limits = parse_limits(hugetlb={"2M": "64M", 1 << 30: "1G"}, cpuset_mems="0")
    assert v2_writes(limits) == (
        ("cpuset", "cpuset.mems", "0"),
        ("hugetlb", "hugetlb.2MB.max", "67108864"),
        ("hugetlb", "hugetlb.1GB.max", "1073741824"),
    )
    assert v1_writes(limits)[1] == ("hugetlb", "hugetlb.2MB.limit_in_bytes", "67108864")


def test_a_group_of_v2_counts_what_is_not_limited():
    """And one of v1 does not, because there each controller costs a group."""
    assert cgroup_of(Limits(cpus=1), ALL_V2 | {"io": 2}).controllers == ("cpu", "io", "memory", "pids")
    assert cgroup_of(Limits(cpus=1), ALL_V1).controllers == ("cpu",)


def test_no_swap_is_a_limit_too():
    assert v2_writes(Limits(memory=64 * MIB, swap=0))[-1] == ("memory", "memory.swap.max", "0")
    assert v1_writes(Limits(memory=64 * MIB, swap=0))[-1] == (
        "memory",
        "memory.memsw.limit_in_bytes",
        "67108864",
    )


@pytest.mark.parametrize(("weight", "shares"), [(1, "10"), (100, "1024"), (10_000, "102400")])
def test_a_weight_of_v2_is_in_v1_the_same_share_against_everybody_else(weight, shares):
    assert v1_writes(Limits(cpu_weight=weight)) == (("cpu", "cpu.shares", shares),)


def test_v1_has_no_memory_high():
    with pytest.raises(HostUnsupported, match="memory_high"):
        v1_writes(Limits(memory_high=64 * MIB))


def test_a_hybrid_host_gets_each_file_in_the_version_of_its_controller():
    assert writes(Limits(memory=64 * MIB, pids=9, cpus=1), {"memory": 1, "pids": 2, "cpu": 2}) == (
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("cpu", "cpu.max", "100000 100000"),
        ("pids", "pids.max", "9"),
    )


def test_what_a_host_cannot_keep_is_named():
    limits = Limits(memory=64 * MIB, memory_high=32 * MIB, cpus=1, pids=9)
    assert enforceable(limits, {"memory": 1, "pids": 1}) == (
        Limits(memory=64 * MIB, pids=9),
        ("cpus", "memory_high"),
    )


@given(any_limits, st.sampled_from((ALL_V1, ALL_V2)))
def test_every_limit_becomes_exactly_one_file(limits, versions):
    """And none is written twice."""
    files = [file for _, file, _ in writes(limits, versions)]
    wanted = [value for value in attrs.astuple(limits) if value is not None]
    assert len(files) == len(set(files)) == len(wanted)


@given(any_limits, st.sampled_from((ALL_V1, ALL_V2)))
def test_the_files_belong_to_the_controllers_that_are_asked_for(limits, versions):
    compiled = writes(limits, versions)
    assert {controller for controller, _, _ in compiled} == controllers_of(limits)
    assert all(
        file.startswith(f"{controller}.") and text and "\n" not in text for controller, file, text in compiled
    )


@given(any_limits, st.sets(st.sampled_from(sorted(ALL_V1))))
def test_what_is_enforceable_and_what_is_not_make_up_the_whole(limits, controllers):
    versions = dict.fromkeys(controllers, 1)
    kept, left_out = enforceable(limits, versions)
    assert controllers_of(kept) <= controllers
    assert enforceable(kept, versions) == (kept, ())
    assert attrs.evolve(kept, **{name: getattr(limits, name) for name in left_out}) == limits


# --- taking a limit away --------------------------------------------------------------------------------


def test_max_takes_an_earlier_limit_away():
    limits = parse_limits(EVERYTHING, memory="max", swap="max", cpus="max", cpuset="max", pids="max")
    assert limits == Limits(cpu_weight=200)


def test_max_takes_one_disk_or_all_of_them_away():
    before = parse_limits(io=DISKS)
    assert parse_limits(before, io={"8:0": "max"}).io == (IoLimit("8:16", read_bps=2 * MIB, write_iops=100),)
    assert parse_limits(before, io={"8:0": "max", "8:16": "max"}).io is None
    assert parse_limits(before, io="max").io is None


def test_max_takes_one_size_of_huge_pages_or_all_of_them_away():
    before = parse_limits(hugetlb={"2M": "64M", "1G": "1G"})
    assert parse_limits(before, hugetlb={"2M": "max"}).hugetlb == ((1 << 30, 1 << 30),)
    assert parse_limits(before, hugetlb={"2M": "4M"}).hugetlb == ((2 * MIB, 4 * MIB), (1 << 30, 1 << 30))
    assert parse_limits(before, hugetlb="max").hugetlb is None


def test_swap_needs_a_limit_on_memory_so_both_go():
    before = parse_limits(memory="64M", swap=0)
    with pytest.raises(InvalidSpec, match='swap="max"'):
        parse_limits(before, memory="max")
    assert parse_limits(before, memory="max", swap="max") == Limits()


ALL_OF_IT = attrs.evolve(
    EVERYTHING,
    cpuset_mems="0",
    io_weight=50,
    hugetlb=((2 * MIB, 4 * MIB),),
    io=(IoLimit("8:0", read_bps=MIB),),
)
WIDE_V1, WIDE_V2 = (dict.fromkeys((*ALL_V1, "io", "hugetlb"), version) for version in (1, 2))


def test_what_is_written_to_v2_to_take_all_away():
    gone = difference(attrs.evolve(ALL_OF_IT, memory_high=MIB), Limits())
    assert writes(gone, WIDE_V2, ("io.bfq.weight",)) == (
        ("memory", "memory.high", "max"),
        ("memory", "memory.max", "max"),
        ("memory", "memory.swap.max", "max"),
        ("cpu", "cpu.max", "max 100000"),
        ("cpu", "cpu.weight", "100"),
        ("cpuset", "cpuset.cpus", "\n"),
        ("cpuset", "cpuset.mems", "\n"),
        ("pids", "pids.max", "max"),
        ("io", "io.max", "8:0 rbps=max"),
        ("io", "io.bfq.weight", "100"),
        ("hugetlb", "hugetlb.2MB.max", "max"),
    )


def test_what_is_written_to_v1_to_take_all_away():
    assert writes(difference(ALL_OF_IT, Limits()), WIDE_V1, ("blkio.bfq.weight",)) == (
        ("memory", "memory.limit_in_bytes", "-1"),
        ("memory", "memory.memsw.limit_in_bytes", "-1"),
        ("cpu", "cpu.cfs_quota_us", "-1"),
        ("cpu", "cpu.shares", "1024"),
        ("cpuset", "cpuset.cpus", "\n"),
        ("cpuset", "cpuset.mems", "\n"),
        ("pids", "pids.max", "max"),
        ("io", "blkio.throttle.read_bps_device", "8:0 0"),
        ("io", "blkio.bfq.weight", "100"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "-1"),
    )


def test_a_disk_that_is_named_again_loses_the_rates_that_it_had():
    before = parse_limits(io=DISKS)
    changed = difference(before, parse_limits(before, io={"8:16": {"read_iops": 5}}))
    assert v2_writes(changed) == (("io", "io.max", "8:16 rbps=max riops=5 wiops=max"),)


def test_the_end_of_a_limit_on_swap_is_no_end_of_that_on_memory():
    before = Limits(memory=64 * MIB, swap=0)
    assert v1_writes(difference(before, Limits(memory=64 * MIB))) == (
        ("memory", "memory.memsw.limit_in_bytes", "-1"),
    )


@given(any_limits, any_limits)
def test_what_differs_is_all_that_is_written(before, after):
    names = {name for name in attrs.asdict(before) if getattr(before, name) != getattr(after, name)}
    changed = {name for name, value in attrs.asdict(difference(before, after)).items() if value is not None}
    assert names <= changed <= names | {"memory", "swap"}
    assert difference(before, before) == Limits()


def test_a_weight_of_io_is_written_where_a_disk_heeds_it():
    limits = Limits(io_weight=50, pids=5)
    both = ("io.bfq.weight", "io.weight")
    assert writes(limits, WIDE_V2, both)[1:] == (("io", "io.bfq.weight", "50"), ("io", "io.weight", "50"))
    assert enforceable(limits, WIDE_V2) == (Limits(pids=5), ("io_weight",))


# --- where this process is ------------------------------------------------------------------------------

# The fields before and behind what matters, as Linux prints them.
V1 = "30 25 0:26 {root} {point} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,{options}\n"
V2 = "29 25 0:27 {root} {point} rw,nosuid,nodev,noexec,relatime shared:8 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER = (
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"
)


def v1(point, options, root="/"):
    return V1.format(root=root, point=point, options=options)


def v2(point="/sys/fs/cgroup", root="/"):
    return V2.format(root=root, point=point)


def located(memberships, mounts):
    return {
        ",".join(sorted(found.controllers)): (found.version, found.folder)
        for found in delegation.locate(memberships, OTHER + mounts)
    }


def test_v1_with_controllers_mounted_together():
    memberships = "12:cpu,cpuacct:/user.slice\n11:memory:/user.slice/u\n1:name=systemd:/user.slice/s\n"
    mounts = v1("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct") + v1("/sys/fs/cgroup/memory", "memory")
    mounts += v1("/sys/fs/cgroup/systemd", "xattr,name=systemd")
    assert located(memberships, mounts) == {
        "cpu,cpuacct": (1, "/sys/fs/cgroup/cpu,cpuacct/user.slice"),
        "memory": (1, "/sys/fs/cgroup/memory/user.slice/u"),
    }


def test_hybrid():
    mounts = v1("/sys/fs/cgroup/memory", "memory") + v2("/sys/fs/cgroup/unified")
    assert located("4:memory:/a\n0::/b\n", mounts) == {
        "memory": (1, "/sys/fs/cgroup/memory/a"),
        "": (2, "/sys/fs/cgroup/unified/b"),
    }


def test_v2_of_a_user_session():
    path = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope"
    assert located(f"0::{path}\n", v2()) == {"": (2, f"/sys/fs/cgroup{path}")}


def test_v2_at_the_root():
    assert located("0::/\n", v2()) == {"": (2, "/sys/fs/cgroup")}


def test_docker_without_a_cgroup_namespace_shows_a_part_of_the_hierarchy():
    mounts = v1("/sys/fs/cgroup/memory", "memory", root="/docker/c0ffee")
    assert located("4:memory:/docker/c0ffee/x\n", mounts) == {"memory": (1, "/sys/fs/cgroup/memory/x")}


def test_docker_with_a_cgroup_namespace():
    mounts = v2()
    assert located("0::/\n", mounts) == {"": (2, "/sys/fs/cgroup")}


def test_a_mount_from_outside_of_the_cgroup_namespace_does_not_show_where_we_are():
    """cgroup_namespaces(7): the root of such a mount is printed with "..", and the name below it is not to be known."""
    assert located("0::/\n", v2(root="/..")) == {}


def test_a_group_outside_of_the_cgroup_namespace_is_not_below_its_mount():
    assert located("0::/../other\n", v2()) == {}


def test_two_paths_outside_of_the_cgroup_namespace_can_be_compared():
    assert located("0::/../other\n", v2(root="/..")) == {"": (2, "/sys/fs/cgroup/other")}


def test_another_group_whose_name_only_begins_the_same_is_not_above():
    assert located("4:memory:/docker-2\n", v1("/m", "memory", root="/docker")) == {}


def test_the_mount_that_shows_this_process_is_chosen():
    mounts = v1("/elsewhere", "memory", root="/other") + v1("/sys/fs/cgroup/memory", "memory")
    assert located("4:memory:/a\n", mounts) == {"memory": (1, "/sys/fs/cgroup/memory/a")}


def test_a_colon_in_a_path_is_part_of_it():
    assert located("0::/a:b\n", v2()) == {"": (2, "/sys/fs/cgroup/a:b")}


def test_a_blank_in_a_mount_point_is_unescaped():
    assert located("0::/a\n", v2("/my\\040groups")) == {"": (2, "/my groups/a")}


def test_no_control_groups_are_no_hierarchies():
    assert located("", "") == {}


names = st.lists(st.text("abc-.:", min_size=1).filter(lambda name: name != ".."), max_size=4)


@given(names, names)
def test_the_folder_is_the_mount_point_and_what_is_below_the_mounts_root(above, below):
    root, path = "/" + "/".join(above), "/" + "/".join([*above, *below])
    found = delegation.locate(f"0::{path}\n", v2(root=root))
    assert [hierarchy.folder for hierarchy in found] == ["/".join(["/sys/fs/cgroup", *below])]


# --- the format of lists --------------------------------------------------------------------------------


def test_a_list_of_processors_is_a_set_of_numbers():
    assert cgroupfs.processors("0-2,7\n") == {0, 1, 2, 7}


def test_blkio_goes_by_its_name_in_v2():
    assert located("7:blkio:/a\n", v1("/b", "blkio")) == {"io": (1, "/b/a")}


def test_an_empty_list_of_processors_is_the_empty_set():
    assert cgroupfs.processors("\n") == set()
