"""What the doctor makes of facts: each test states how a host differs from a healthy one."""

import json

import attrs
import pytest

from pycontain.diagnosis import Check, Report, Verdict, judge
from pycontain.runtime.findings import (
    CONTROLLERS,
    Cgroups,
    Findings,
    Program,
    SecurityModules,
    StateFolder,
    StoreFolder,
    SubordinateIds,
    Surroundings,
    Trial,
    file_system_of,
    first_free_id,
    mounts_on_proc,
    parse_hierarchies,
)
from pycontain.sandbox.host import CgroupLayout, HostFacts, IdRange

HEALTHY = Findings()
NOTHING_STARTED = Trial(None, None, "this host cannot provide user namespaces", ("see the switches",))
ROOT = attrs.evolve(HEALTHY, privileged=True, trial=Trial(HostFacts(), 0.002))
APPARMOR = ("kernel.apparmor_restrict_unprivileged_userns = 1 (Ubuntu)", "sudo sysctl …=0")


def check(name, **differences):
    return judge(attrs.evolve(HEALTHY, **differences))[name]


def test_root_of_a_container_is_nobody_outside():
    found = judge(ROOT)["container ids"]
    assert found.ok
    assert "idmapped" in found.found


def test_why_root_of_a_container_is_root_outside():
    refused = HostFacts(userns_refusal="no user namespace can be made: user.max_user_namespaces is reached")
    found = judge(attrs.evolve(ROOT, trial=Trial(refused, 0.002)))["container ids"]
    assert found.verdict is Verdict.LIMITED
    assert found.found == refused.userns_refusal
    assert "sysctl" in found.fix


def test_a_healthy_host_has_nothing_to_fix():
    assert [each.name for each in judge(HEALTHY) if not each.ok] == []


def test_root_on_a_healthy_host_has_nothing_to_fix():
    assert all(each.ok for each in judge(ROOT))


def test_rootless_on_5_10_with_the_switch_of_apparmor():
    """Three reasons at once: each has its line and its fix."""
    report = judge(attrs.evolve(HEALTHY, kernel=(5, 10), obstacles=(APPARMOR,), trial=NOTHING_STARTED))
    assert not report.ok
    missing = {each.name: each for each in report if each.verdict is Verdict.MISSING}
    assert missing.keys() == {"Linux", "user namespaces", "overlay", "first container"}
    assert missing["user namespaces"].fix == "sudo sysctl …=0"
    assert "5.11" in missing["overlay"].fix


def test_another_system_than_linux_gets_one_answer():
    report = judge(Findings(system="darwin"))
    assert [each.verdict for each in report] == [Verdict.MISSING]


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((5, 11), Verdict.MISSING), ((5, 12), Verdict.GOOD), ((7, 0), Verdict.GOOD)],
)
def test_the_kernel_is_judged_by_its_version(version, verdict):
    assert check("Linux", kernel=version).verdict is verdict


def test_a_call_that_is_absent_is_named():
    found = check("Linux", absent=("clone3", "mount_setattr"))
    assert found.verdict is Verdict.MISSING
    assert "clone3, mount_setattr" in found.found
    assert "seccomp" in found.fix


def test_an_unknown_machine_is_missing():
    assert check("machine", machine="riscv64").verdict is Verdict.MISSING


def test_a_32_bit_python_on_a_64_bit_kernel_is_missing():
    assert "32-bit" in check("machine", wide=False).found


def test_a_namespace_that_the_kernel_lacks_is_named():
    assert check("namespaces", namespaces=HEALTHY.namespaces - {"cgroup"}).found == "no cgroup"


def test_without_time_namespaces_the_clocks_cannot_be_shifted():
    found = check("namespaces", namespaces=HEALTHY.namespaces - {"time"})
    assert (found.verdict, found.needed_for) == (Verdict.LIMITED, ".time_offset()")


def test_a_switch_is_no_obstacle_when_a_container_has_started():
    """An AppArmor profile may allow what the switch forbids to others."""
    assert check("user namespaces", obstacles=(APPARMOR,)).ok


def test_a_switch_against_ordinary_users_only_limits_root():
    report = judge(attrs.evolve(ROOT, obstacles=(APPARMOR,)))
    assert report["user namespaces"].verdict is Verdict.LIMITED
    assert report.ok


# --- subordinate ids ------------------------------------------------------------------------------------


def test_without_subordinate_ids_the_fix_grants_a_free_range_in_the_file_that_lacks_it():
    found = check("subordinate ids", subordinate=SubordinateIds(user="ann", uids=0, free=231_072))
    assert found.found == "none for ann in /etc/subuid"
    assert found.fix == "echo ann:231072:65536 | sudo tee -a /etc/subuid"


def test_both_files_without_the_user_are_fixed_by_one_command():
    fix = check("subordinate ids", subordinate=SubordinateIds(uids=0, gids=0)).fix
    assert fix.endswith("tee -a /etc/subuid /etc/subgid")


def test_a_range_that_is_too_short_is_a_limit():
    assert check("subordinate ids", subordinate=SubordinateIds(gids=1000)).found == "1000 ids"


def test_newuidmap_without_its_bit_is_given_it():
    ids = SubordinateIds(newuidmap=Program("/usr/bin/newuidmap", elevated=False))
    assert check("subordinate ids", subordinate=ids).fix == "sudo chmod u+s /usr/bin/newuidmap"


def test_both_programs_absent_are_one_package():
    ids = SubordinateIds(newuidmap=None, newgidmap=None)
    found = check("subordinate ids", subordinate=ids)
    assert found.found == "no newuidmap; no newgidmap"
    assert found.fix.count("apt install uidmap") == 1


def test_no_new_privs_makes_newuidmap_useless():
    found = check("subordinate ids", surroundings=Surroundings(no_new_privs=True))
    assert "no_new_privs" in found.found


def test_newuidmap_that_refuses_is_noticed_by_the_single_id():
    single = HostFacts(rootless=True, uid_map=(IdRange(0, 1000, 1),))
    assert check("subordinate ids", trial=Trial(single, 0.003)).found == "newuidmap refused"


def test_a_single_id_is_all_that_containers_have():
    single = HostFacts(euid=1000, rootless=True, uid_map=(IdRange(0, 1000, 1),))
    assert check("container ids", trial=Trial(single, 0.003)).found == "your own alone"


def test_a_free_range_is_above_all_others():
    assert first_free_id("a:100000:65536\nb:300000:10\n", "a:165536:65536") == 300_010


def test_a_free_range_begins_where_login_defs_says_when_there_is_no_other():
    assert first_free_id("", "# nonsense") == 100_000


# --- file systems ---------------------------------------------------------------------------------------


def test_layers_in_memory_are_a_limit_of_the_file_system():
    in_memory = Trial(HostFacts(layers_in_memory=True), 0.003)
    found = check("state folder", trial=in_memory, state=StateFolder("/s", "nfs4"))
    assert found.verdict is Verdict.LIMITED
    assert found.because.startswith("nfs4 cannot hold")


def test_a_state_folder_that_cannot_be_written_is_missing():
    assert check("state folder", state=StateFolder(writable=False)).verdict is Verdict.MISSING


def test_little_room_is_a_limit():
    assert check("state folder", state=StateFolder(free=1 << 20)).verdict is Verdict.LIMITED


def test_a_store_that_cannot_be_written_limits_images():
    found = check("store", store=StoreFolder(path="/store", writable=False))
    assert found.verdict is Verdict.LIMITED
    assert "PYCONTAIN_STORE" in found.fix


def test_a_store_on_an_overlay_holds_no_layers():
    """In a container of Docker, say."""
    assert check("store", store=StoreFolder(file_system="overlay")).verdict is Verdict.LIMITED


def test_a_store_with_little_room_is_a_limit():
    assert check("store", store=StoreFolder(free=1 << 20)).verdict is Verdict.LIMITED


def test_security_modules_that_nothing_lists_are_told_by_their_signs():
    found = check("security modules", modules=SecurityModules(active=("yama",), listed=False))
    assert found.found.startswith("yama (what shows without securityfs)")


def test_overlay_as_a_module_that_is_not_loaded():
    found = judge(attrs.evolve(ROOT, overlay=False, trial=NOTHING_STARTED))["overlay"]
    assert found.fix == "sudo modprobe overlay"


MOUNTS = """\
27 1 254:0 / / rw - ext4 /dev/vda rw
28 27 0:30 / /home rw - tmpfs tmpfs rw
29 27 0:31 / /home rw - xfs /dev/b rw
30 27 0:32 / /with\\040space rw - btrfs /dev/c rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/var", "ext4"), ("/", "ext4"), ("/home/ann", "xfs"), ("/homes", "ext4"), ("/with space/x", "btrfs")],
)
def test_a_file_system_is_that_of_the_last_mount_above(path, kind):
    assert file_system_of(path, MOUNTS) == kind


# --- control groups -------------------------------------------------------------------------------------


def test_v2_without_delegation_is_started_in_a_scope():
    found = check("control groups", cgroups=Cgroups(own="/sys/fs/cgroup/user.slice", usable=frozenset()))
    assert found.verdict is Verdict.LIMITED
    assert found.because == "no group for cpu, memory, pids can be made below /sys/fs/cgroup/user.slice"
    assert found.fix.startswith("systemd-run --user --scope -p Delegate=yes")


def test_v2_without_delegation_is_well_where_systemd_gives_a_scope():
    found = check(
        "control groups", cgroups=Cgroups(own="/sys/fs/cgroup/user.slice", scope="/sys/fs/cgroup/m")
    )
    assert found.verdict is Verdict.GOOD
    assert "in a scope that systemd makes below /sys/fs/cgroup/m" in found.found


CROWDED = Cgroups(own="/sys/fs/cgroup/login", usable=frozenset())


def test_what_keeps_the_engine_from_a_group_is_told():
    found = check("control groups", cgroups=attrs.evolve(CROWDED, obstacle="other processes in it (7)"))
    assert found.because == "no group for cpu, memory, pids can be made: other processes in it (7)"


def test_v2_without_a_bus_has_nobody_to_ask_for_a_scope():
    found = check("control groups", cgroups=attrs.evolve(CROWDED, bus=False))
    assert found.fix.startswith("sudo apt install dbus-user-session")


def test_v2_without_systemd_is_given_a_group_by_root():
    """Where the program then is alone."""
    found = check("control groups", cgroups=attrs.evolve(CROWDED, systemd=False, bus=False))
    assert "chown -R user pycontain" in found.fix
    assert found.fix.endswith("exec PROGRAM'")


def test_root_in_a_group_with_others_needs_another_and_no_remount():
    for groups, fix in (
        (CROWDED, "systemd-run --scope -p Delegate=yes -- PROGRAM"),
        (attrs.evolve(CROWDED, systemd=False), "sudo sh -c 'cd /sys/fs/cgroup"),
    ):
        found = judge(attrs.evolve(ROOT, cgroups=groups))["control groups"]
        assert found.fix.startswith(fix)
        assert "chown" not in found.fix


def test_controllers_that_few_limits_need_are_named_when_they_are_there():
    further = CONTROLLERS | {"io", "cpuset", "freezer"}
    assert "(cpuset, io too)" in check("control groups", cgroups=Cgroups(usable=further)).found


def test_swap_that_is_not_counted_is_a_limit():
    found = check("control groups", cgroups=Cgroups(swap=False))
    assert (found.verdict, found.fix) == (Verdict.LIMITED, "boot with swapaccount=1")


def test_v2_with_some_controllers_delegated_names_the_others():
    some = frozenset({"memory", "pids"})
    found = check("control groups", cgroups=Cgroups(present=some, usable=some))
    assert found.because == "there is no cpu here"
    assert "Delegate=cpu memory pids" in found.fix


def test_v1_cannot_be_delegated():
    found = check("control groups", cgroups=Cgroups(CgroupLayout.V1, usable=frozenset()))
    assert "systemd.unified_cgroup_hierarchy=1" in found.fix


def test_no_control_groups_are_mounted():
    nothing = Cgroups(CgroupLayout.NONE, "", frozenset(), frozenset())
    assert check("control groups", cgroups=nothing).fix == "sudo mount -t cgroup2 none /sys/fs/cgroup"


def test_root_with_a_read_only_hierarchy_is_told_to_mount_it_writable():
    closed = Cgroups(usable=frozenset(), writable=False)
    assert "writable" in judge(attrs.evolve(ROOT, cgroups=closed))["control groups"].fix


def test_root_with_a_controller_switched_off_is_told_how_to_boot():
    without = CONTROLLERS - {"memory"}
    found = judge(attrs.evolve(ROOT, cgroups=Cgroups(present=without, usable=without)))["control groups"]
    assert found.fix.startswith("boot with cgroup_enable=memory")


def directories(mountinfo, cgroup):
    return {
        "+".join(sorted(each.controllers)): each.directory for each in parse_hierarchies(mountinfo, cgroup)
    }


def test_the_own_group_of_v2_lies_below_its_mount():
    mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    assert directories(mountinfo, "0::/user.slice/a") == {"": "/sys/fs/cgroup/user.slice/a"}


def test_the_own_group_of_v1_is_one_for_each_hierarchy():
    mountinfo = (
        "32 31 0:29 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:30 / /cg/pids rw - cgroup cgroup rw,pids\n"
        "34 31 0:31 / /cg/unified rw - cgroup2 cgroup2 rw"
    )
    found = directories(mountinfo, "4:pids:/a\n3:cpu,cpuacct:/b\n0::/c")
    assert found == {"cpu+cpuacct": "/cg/cpu,cpuacct/b", "pids": "/cg/pids/a", "": "/cg/unified/c"}


def test_a_mount_of_a_part_of_the_hierarchy_shows_the_rest_of_the_path():
    """As Docker binds the container's own group to the mount point."""
    mountinfo = "33 31 0:30 /docker/x /cg/pids rw - cgroup cgroup rw,pids"
    assert directories(mountinfo, "4:pids:/docker/x/y") == {"pids": "/cg/pids/y"}


def test_an_own_group_outside_of_what_is_mounted_has_no_directory():
    mountinfo = "33 31 0:30 /docker/x /cg/pids rw - cgroup cgroup rw,pids"
    assert directories(mountinfo, "4:pids:/docker/z") == {"pids": None}


# --- walls ----------------------------------------------------------------------------------------------


def test_a_kernel_without_seccomp_is_missing():
    assert check("seccomp", seccomp=frozenset()).verdict is Verdict.MISSING


@pytest.mark.parametrize("version", [0, 1])
def test_a_kernel_without_landlock_or_with_the_first_is_a_limit(version):
    assert check("Landlock", landlock=version).verdict is Verdict.LIMITED


def test_a_newer_landlock_is_good():
    assert check("Landlock", landlock=2).verdict is Verdict.GOOD


def test_a_profile_counts_only_when_a_container_failed():
    docker = SecurityModules(profile="docker-default (enforce)")
    assert check("security modules", modules=docker).ok
    assert "apparmor=unconfined" in check("security modules", modules=docker, trial=NOTHING_STARTED).fix


def test_selinux_is_suspected_when_a_container_failed():
    modules = SecurityModules(active=("selinux",), profile="", selinux_enforces=True)
    assert "ausearch" in check("security modules", modules=modules, trial=NOTHING_STARTED).fix


def test_a_masked_proc_is_in_the_way_of_an_ordinary_user():
    masked = Surroundings("docker", ("/proc/kcore", "/proc/keys"), filtered=True)
    found = check("nesting", surroundings=masked, trial=NOTHING_STARTED)
    assert "/proc/kcore, /proc/keys" in found.because
    assert "systempaths=unconfined" in found.fix
    assert "seccomp=unconfined" in found.fix


def test_a_masked_proc_is_not_in_the_way_of_root():
    masked = Surroundings("docker", ("/proc/kcore",))
    assert judge(attrs.evolve(ROOT, surroundings=masked, trial=NOTHING_STARTED))["nesting"].ok


def test_being_nested_is_no_fault_when_a_container_has_started():
    assert check("nesting", surroundings=Surroundings("podman", ("/proc/kcore",))).found == "inside podman"


def test_mounts_on_proc_without_those_that_hide_nothing():
    lines = [
        f"1 2 0:1 / {place} rw - tmpfs t rw" for place in ("/proc", "/proc/kcore", "/proc/sys/fs/binfmt_misc")
    ]
    assert mounts_on_proc("\n".join(lines)) == ("/proc/kcore",)


def test_pasta_is_missed_where_nothing_else_leads_out():
    assert check("pasta", pasta=None).verdict is Verdict.LIMITED
    assert judge(attrs.evolve(ROOT, pasta=None))["pasta"].ok
    missed = judge(attrs.evolve(ROOT, pasta=None, forwards=False))["pasta"]
    assert not missed.ok
    assert "ip_forward" in missed.fix


def test_a_tun_device_that_cannot_be_opened_is_named():
    assert "chmod 0666 /dev/net/tun" in check("pasta", tun=False).fix


def test_another_firewall_is_named_with_the_rules_that_let_ours_pass():
    found = judge(attrs.evolve(ROOT, droppers=("ip filter FORWARD",), pasta=None))["networks"]
    assert "ip filter FORWARD" in found.because
    assert "DOCKER-USER -i pyc+" in found.fix


def test_another_firewall_is_nothing_to_fix_where_pasta_leads_out():
    found = judge(attrs.evolve(ROOT, droppers=("ip filter FORWARD",)))["networks"]
    assert found.ok
    assert "ip filter FORWARD" in found.found


def test_a_kernel_without_nftables_is_named():
    assert "modprobe" in judge(attrs.evolve(ROOT, filters="Protocol not supported"))["networks"].fix


def test_networks_without_root_ask_nothing_of_the_host():
    assert check("networks", filters="x", droppers=("y",)).ok


def test_an_engine_that_does_not_start_gives_its_error_and_its_notes():
    found = check("first container", trial=NOTHING_STARTED)
    assert (found.because, found.fix) == ("this host cannot provide user namespaces", "see the switches")


def test_a_container_that_fails_on_a_started_engine_is_told_apart():
    found = check("first container", trial=Trial(HostFacts(), None, "mount refused"))
    assert found.found == "the engine started, and the container failed"


# --- the report -----------------------------------------------------------------------------------------

REPORT = Report(
    (
        Check("Linux", Verdict.GOOD, "6.12"),
        Check("pasta", Verdict.LIMITED, "not in <PATH>", "it is absent", "apt install passt", "networks"),
    )
)


def test_a_report_prints_a_line_for_each_check_and_the_fix_below():
    assert str(REPORT) == (
        "good     Linux  6.12\n"
        "limited  pasta  not in <PATH>\n"
        "           because  it is absent\n"
        "           fix      apt install passt\n"
        "           for      networks\n"
        "\n"
        "Containers start here: 1 good, 1 limited, 0 missing."
    )


def test_a_report_is_found_by_name():
    assert REPORT["pasta"].fix == "apt install passt"
    with pytest.raises(KeyError):
        REPORT["nothing"]


def test_a_report_has_a_short_repr():
    assert repr(REPORT) == "<Report: 1 good, 1 limited, 0 missing>"


def test_a_report_is_a_table_in_a_notebook_and_escapes():
    table = REPORT._repr_html_()
    assert table.count("<tr>") == 3
    assert "not in &lt;PATH&gt;" in table


def test_a_report_for_programs():
    told = json.loads(REPORT.to_json())
    assert told["ok"] is True
    assert told["checks"][1]["verdict"] == "limited"
    assert told["checks"][1].keys() == {field.name for field in attrs.fields(Check)}


def test_what_is_missing_makes_the_report_bad():
    bad = Report((Check("Linux", Verdict.MISSING, "4.4"),))
    assert not bad.ok
    assert str(bad).endswith("No container starts here: 0 good, 0 limited, 1 missing.")


def test_volumes_that_cannot_be_written_are_a_limit():
    found = check("volumes", volumes=StoreFolder(path="/volumes", writable=False))
    assert found.verdict is Verdict.LIMITED
    assert "PYCONTAIN_VOLUMES" in found.fix
    assert check("volumes", volumes=StoreFolder(free=1 << 20)).verdict is Verdict.LIMITED


def test_git_is_missed_for_builds_only():
    assert check("git", git=None).needed_for == "ADD of a git repository in a build"
