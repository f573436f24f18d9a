"""Limits of containers: the kernel keeps them, what was counted is known, and no control group stays."""

import os
import signal
import tempfile
from pathlib import Path

import control_groups
import pytest
from owners import comes_true, run_owner, start_owner

from pycontain import Container
from pycontain.errors import CommandNotExecutable, HostUnsupported, StepFailed
from pycontain.runtime import delegation
from pycontain.runtime.engine import engine
from pycontain.testing.leaks import cgroups_of_ours, own_groups

MIB = 1 << 20
EAT = ("python3", "-c", "bytearray(256 << 20)")


@pytest.fixture
def host():
    """The host's own programs, where memory, pids and cpu can be limited: then the library has to do it."""
    if not {"memory", "pids", "cpu"} <= control_groups.limitable().keys():
        pytest.skip("this user may not limit memory, pids and cpu")
    return Container("host:")


def group_of(running):
    """What the host sees of the groups that a container is in: ``{controllers: path}``."""
    with open(f"/proc/{running.pid}/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    return {
        names: path for _, names, path in lines if "pycontain-" in path and "owner" not in path.split("/")[-1]
    }


# --- what the kernel keeps ------------------------------------------------------------------------------


def test_who_takes_too_much_memory_is_killed_and_it_is_said(host):
    completed = host.limits(memory="48M").run(*EAT)
    assert completed.oom_killed
    assert completed.signal == signal.SIGKILL


def test_also_of_a_container_that_was_started(host):
    with host.limits(memory="48M").start(*EAT) as running:
        completed = running.wait()
    assert completed.oom_killed
    assert completed.signal == signal.SIGKILL


def test_without_an_init_too(host):
    completed = host.limits(memory="48M").init(False).run(*EAT)
    assert completed.oom_killed
    assert completed.signal == signal.SIGKILL


def test_who_stays_within_the_limit_is_not(host):
    completed = host.limits(memory="128M").run("python3", "-c", "bytearray(16 << 20)").check()
    assert not completed.oom_killed


def test_a_payload_that_kills_itself_is_no_oom_kill(host):
    completed = host.limits(memory="128M").run("sh", "-c", "kill -9 $$")
    assert completed.signal == signal.SIGKILL
    assert not completed.oom_killed


def test_the_peak_of_memory_is_that_of_the_whole_container(host):
    """A file in memory is not in the resident set of any process that reads none of it."""
    completed = (
        host.limits(memory="128M").run("sh", "-c", "head -c 40000000 /dev/zero > /dev/shm/file").check()
    )
    assert 40_000_000 < completed.usage.memory_peak <= 128 * MIB


def test_memory_is_taken_back_from_who_exceeds_memory_high(host):
    """And nobody is killed: here it is the page cache of a file that goes to the disk."""
    if delegation.Access.probe().versions()["memory"] == 1:
        pytest.skip("a thing of cgroup v2")
    if engine().facts.layers_in_memory:
        pytest.skip("the layer is in memory, which cannot be taken back")
    write = ("sh", "-c", "head -c 120000000 /dev/zero > /file")
    high = host.limits(memory="256M", memory_high="32M").run(*write, check=True)
    assert high.usage.memory_peak < 64 * MIB
    assert host.limits(memory="256M").run(*write, check=True).usage.memory_peak > 100 * MIB


def test_a_fork_bomb_ends_at_the_limit(host):
    code = "import os, signal\ncount = 0\ntry:\n while os.fork(): count += 1\n signal.pause()\nexcept OSError as error: print(count, error.errno)"
    count, number = host.limits(pids=12).run("python3", "-c", code).check().stdout.split()
    assert int(number) == 11
    assert 5 < int(count) < 12


def test_a_limit_that_leaves_no_place_for_the_payload_is_explained(host):
    """The init takes the only one."""
    with pytest.raises(CommandNotExecutable, match="limit on processes") as caught:
        host.limits(pids=1).run("true")
    assert "pids=" in caught.value.__notes__[0]


def test_a_quota_of_processor_time_slows_down(host):
    """Two tenths of a second of work take longer than that with a tenth of a processor."""
    code = (
        "import time\nbegan, used = time.monotonic(), time.process_time()\n"
        "while time.process_time() < used + 0.2: pass\nprint(time.monotonic() - began)"
    )
    assert float(host.limits(cpus=0.1).run("python3", "-c", code).check().stdout) > 0.4


READ = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 1 << 20)
began = time.monotonic()
for place in range(3): os.preadv(fd, [page], place << 20)
print(time.monotonic() - began)
"""


@pytest.fixture
def on_disk():
    """A file of three MiB that is on a disk, and not in the page cache."""
    if "io" not in control_groups.limitable():
        pytest.skip("this user may not limit io")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "file")
        path.write_bytes(os.urandom(3 << 20))
        if not os.path.isdir(f"/sys/dev/block/{os.major(path.stat().st_dev)}:{os.minor(path.stat().st_dev)}"):
            pytest.skip("/var/tmp lies on no disk")
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        yield path


def test_a_rate_of_reading_slows_down(on_disk):
    """Three MiB at one in a second; the disk is named by a path on it."""
    box = Container("host:").mount(on_disk.parent, "/disk", read_only=True)
    limited = box.limits(io={str(on_disk.parent): {"read_bps": "1M"}})
    done = limited.run("python3", "-c", READ, "/disk/file").check()
    assert float(done.stdout) > 1.5
    if control_groups.limitable()["io"] == 2:
        assert done.usage.io_read >= 3 << 20


def test_a_rate_can_be_changed_while_it_runs(on_disk):
    box = Container("host:").mount(on_disk.parent, "/disk", read_only=True)
    with box.limits(io={str(on_disk.parent): {"read_bps": 1 << 16}}).start("sleep", "600") as running:
        running.update(io={str(on_disk.parent): {"read_bps": "1G"}})
        assert float(running.exec("python3", "-c", READ, "/disk/file", timeout=60).check().stdout) < 48


def test_a_rate_can_be_taken_away_while_it_runs(on_disk):
    box = Container("host:").mount(on_disk.parent, "/disk", read_only=True)
    with box.limits(io={str(on_disk): {"read_bps": 1 << 16}}).start("sleep", "600") as running:
        names = ("io.max", "blkio.throttle.read_bps_device")
        assert "65536" in "".join(control_groups.settings_of(running.pid, names).values())
        running.update(io={str(on_disk): "max"})
        assert control_groups.settings_of(running.pid, names) == {}
        assert running.spec == box.spec


def _heeded():
    texts = [path.read_text() for path in Path("/sys/block").glob("*/queue/scheduler")]
    return any("[bfq]" in text for text in texts)


def test_a_weight_of_io_is_written_where_a_disk_heeds_it(host):
    if "io" not in control_groups.limitable() or not _heeded():
        pytest.skip("no disk here heeds a weight that this user may set")
    with host.limits(io_weight=50).start("sleep", "600") as running:
        names = ("io.bfq.weight", "blkio.bfq.weight")
        assert [text.split()[-1] for text in control_groups.settings_of(running.pid, names).values()] == [
            "50"
        ]
        running.update(io_weight=100)
        assert [text.split()[-1] for text in control_groups.settings_of(running.pid, names).values()] == [
            "100"
        ]


def test_a_weight_of_io_is_refused_where_no_disk_heeds_it(host):
    """Though the kernel may have the file."""
    if "io" not in control_groups.limitable() or _heeded():
        pytest.skip("it would be written")
    with pytest.raises(HostUnsupported, match="bfq") as caught:
        host.limits(io_weight=50).run("true")
    assert "scheduler" in caught.value.__notes__[0]
    relaxed = host.limits(io_weight=50, required=False)
    assert "left out: io_weight" in str(relaxed.plan("true")).splitlines()[0]


def test_writing_to_a_disk_is_limited_where_it_can_be(on_disk):
    if control_groups.limitable()["io"] == 2:
        assert "wbps=1048576" in str(Container("host:").limits(io={str(on_disk): "1M"}).plan("true"))
        return
    with pytest.raises(HostUnsupported, match="limits on writing"):
        Container("host:").limits(io={str(on_disk): "1M"}).plan("true")


@pytest.mark.parametrize("path", ["/proc", "/nowhere"])
def test_a_path_without_a_disk_cannot_be_limited(on_disk, path):
    with pytest.raises(HostUnsupported, match="a limit on io at") as caught:
        Container("host:").limits(io={path: {"read_bps": "1M"}}).run("true")
    assert "lsblk" in caught.value.__notes__[0]


def test_a_path_may_lead_to_another_disk_at_the_next_start(on_disk):
    link = on_disk.with_name("link")
    link.symlink_to(on_disk)
    limited = Container("host:").limits(io={str(link): {"read_bps": "1M"}})
    assert limited.plan("true").steps
    link.unlink()
    link.symlink_to("/proc")
    with pytest.raises(HostUnsupported, match="a limit on io at"):
        limited.plan("true")


def test_the_nodes_of_memory_are_those_that_were_chosen(host):
    if "cpuset" not in control_groups.limitable():
        pytest.skip("no cpuset here")
    box = host.limits(cpuset_mems="0")
    assert box.run("grep", "Mems_allowed_list", "/proc/self/status").stdout.split()[1] == "0"
    with pytest.raises(HostUnsupported):
        host.limits(cpuset_mems="511").run("true")


def test_huge_pages_are_limited():
    sizes = os.listdir("/sys/kernel/mm/hugepages") if os.path.isdir("/sys/kernel/mm/hugepages") else []
    if "hugetlb" not in control_groups.limitable() or "hugepages-2048kB" not in sizes:
        pytest.skip("no huge pages of 2 MiB that this user may limit")
    box = Container("host:").limits(hugetlb={"2M": "4M"})
    assert box.run("true").ok
    assert "hugetlb.2MB." in str(box.plan("true"))
    with pytest.raises(HostUnsupported, match="huge pages of this size"):
        Container("host:").limits(hugetlb={"128k": "4M"}).run("true")


def test_files_are_a_limit_on_each_process(host):
    assert host.limits(files=123).run("sh", "-c", "ulimit -n").stdout == "123\n"


def test_limits_without_a_group_need_none():
    """``files`` is setrlimit(2) alone, which everybody may."""
    assert Container("host:").limits(files=99).run("sh", "-c", "ulimit -n").stdout == "99\n"


# --- where the group is ---------------------------------------------------------------------------------


def test_the_container_sees_its_own_group_as_the_root(host):
    """Whether its child was made for it or in advance."""
    for _ in range(3):
        text = host.limits(memory="128M", pids=50).run("cat", "/proc/self/cgroup").check().stdout
        assert "pycontain" not in text


def test_a_container_without_limits_has_no_group_and_its_own_view(host):
    with host.limits(pids=50).start("sleep", "600"), host.start("sleep", "600") as running:
        assert group_of(running) == {}
    lines = host.run("cat", "/proc/self/cgroup").check().stdout.splitlines()
    assert {line.split(":", 2)[2] for line in lines} == {"/"}


def test_what_is_executed_counts_in_the_same_group(host):
    """The first has a child of its own, the next ones spares."""
    with host.limits(memory="128M", pids=50).start("sleep", "600") as running:
        groups = group_of(running)
        with open(f"/proc/{running.pid}/cgroup") as file:
            seen_from_outside = file.read()
        assert groups
        for _ in range(3):
            assert (
                running.exec("cat", "/proc/self/cgroup").stdout
                == running.exec("cat", "/proc/1/cgroup").stdout
            )
        assert "pycontain-" in seen_from_outside


def test_who_is_executed_and_takes_too_much_is_killed(host):
    with host.limits(memory="48M").start("sleep", "600") as running:
        for _ in range(3):
            done = running.exec(*EAT)
            assert (done.signal, done.oom_killed) == (signal.SIGKILL, True)
        assert not running.exec("true").oom_killed
        assert running.status == "running"
        running.kill()
        assert running.wait().oom_killed


def test_executed_commands_count_as_processes(host):
    with host.limits(pids=3).start("sleep", "600") as running:
        for _ in range(2):
            # In v2 it is the fork of the supervisor that is refused: it is born into the group.
            with pytest.raises((CommandNotExecutable, StepFailed), match="limit on processes"):
                running.exec("true")


# --- what is said ---------------------------------------------------------------------------------------


def test_a_plan_shows_the_files_and_values(host):
    lines = str(host.limits(memory="64M", pids=7).plan("true")).splitlines()
    line = next(line for line in lines if "cgroup.procs" in line)
    assert "zygote" in line
    assert '"67108864"' in line
    assert 'write("pids.max", "7")' in line


def test_a_plan_makes_no_group(host):
    before = set(cgroups_of_ours())
    host.limits(memory="64M").plan("true")
    assert set(cgroups_of_ours()) == before


def test_a_plan_says_what_the_host_cannot_keep(host):
    if delegation.Access.probe().versions()["memory"] == 2:
        pytest.skip("this host can keep all of it")
    wanted = host.limits(memory="128M", memory_high="64M", required=False)
    assert "left out: memory_high" in str(wanted.plan("true")).splitlines()[0]
    assert wanted.run("true").ok


def test_a_limit_that_this_version_does_not_have_is_refused_before_anything_is_made(host):
    if delegation.Access.probe().versions()["memory"] == 2:
        pytest.skip("this host can keep all of it")
    with pytest.raises(HostUnsupported, match="memory_high"):
        host.limits(memory="128M", memory_high="64M").plan("true")


def test_what_the_kernel_refuses_is_told_with_the_next_step(host):
    access = delegation.Access.probe()
    if "cpuset" not in access.versions():
        pytest.skip("no cpuset here")
    with pytest.raises(HostUnsupported) as caught:
        host.limits(cpuset="8191").run("true")
    assert caught.value.__notes__
    assert host.limits(pids=50).run("true").ok


@pytest.mark.rootless
def test_a_user_without_a_group_is_told_what_to_do():
    if "memory" in delegation.Access.probe().versions():
        pytest.skip("this user has one")
    with pytest.raises(HostUnsupported, match="memory") as caught:
        Container("host:").limits(memory="64M").run("true")
    assert caught.value.needs
    assert caught.value.found
    assert caught.value.__notes__


@pytest.mark.rootless
def test_a_user_without_a_group_can_do_without():
    if "memory" in delegation.Access.probe().versions():
        pytest.skip("this user has one")
    wanted = Container("host:").limits(memory="64M", pids=9, required=False)
    assert "left out: memory, pids" in str(wanted.plan("true")).splitlines()[0]
    assert wanted.run("true").ok


# --- what is left ---------------------------------------------------------------------------------------


def test_no_group_stays_after_the_end_of_an_owner(host, tmp_path):
    before = set(cgroups_of_ours())
    code = "from pycontain import Container; Container('host:').limits(pids=50, memory='64M').run('true').check()"
    assert run_owner(code, state=tmp_path) == (0, "", "")
    assert set(cgroups_of_ours()) <= before
    assert os.listdir(tmp_path) == []


OWNER = """
    import time
    from pycontain import Container
    container = Container("host:").limits(pids=50, memory="64M")
    held = [container.start("sleep", "600") for _ in range(3)]
    container.run("true")
    print(held[0]._prepared.engine.pidfd, flush=True)
    time.sleep(600)
"""


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


@pytest.mark.parametrize("with_zygote", [False, True], ids=["owner", "owner and zygote"])
def test_no_group_stays_after_a_killed_owner_and_the_next_start(host, tmp_path, with_zygote):
    before = set(cgroups_of_ours())
    with start_owner(OWNER, state=tmp_path, python=()) as owner:
        said, made = owner.stdout.readline(), set(cgroups_of_ours()) - before
        for pid in [*(children_of(owner.pid) if with_zygote else []), owner.pid]:
            os.kill(pid, signal.SIGKILL)
        owner.communicate()
        assert said
        assert made
    assert run_owner("import pycontain; pycontain.prewarm()", state=tmp_path) == (0, "", "")
    assert comes_true(lambda: set(cgroups_of_ours()) <= before)
    assert comes_true(lambda: os.listdir(tmp_path) == [])


def test_many_containers_leave_no_group_below_that_of_the_zygote(host):
    """The fixture of every test sees groups that stay; this makes it look at more than one."""
    limited = host.limits(pids=50)
    with limited.start("sleep", "600"), limited.start("sleep", "600"):
        for _ in range(5):
            limited.run("true").check()


@pytest.mark.root
def test_a_real_time_owner_is_told_why_it_can_have_no_limit_on_cpus(tmp_path):
    """cgroups(7): with CONFIG_RT_GROUP_SCHED the cpu controller of v1 takes real-time processes only with a budget."""
    if not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("no cpu controller of v1 with CONFIG_RT_GROUP_SCHED here")
    code = """
        import os, sys
        from pycontain import Container
        from pycontain.errors import StepFailed
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except PermissionError:
            sys.exit(77)
        for _ in range(2):  # by a child of its own, and by a spare
            try:
                Container("host:").limits(cpus=1).run("true")
            except StepFailed as error:
                print(error, error.step.startswith("mkdir(CGROUP"))
    """
    told = "the kernel lets no process with a real-time policy into the container's control group True\n"
    ended = run_owner(code, state=tmp_path)
    if ended == (77, "", ""):
        pytest.skip("our own group has no budget for real-time processes")
    assert ended == (0, told * 2, "")


@pytest.mark.parametrize(
    "limit", [{"pids": 64}, {"hugetlb": {"2M": "4M"}}], ids=lambda limit: next(iter(limit))
)
def test_a_killed_zygote_leaves_the_owner_where_it_was(limit):
    """In v2 the owner has moved into a leaf of its own to make room."""
    if next(iter(limit)) not in control_groups.limitable():
        pytest.skip(f"this user may not limit {next(iter(limit))}")
    Container("host:").limits(**limit).run("true", check=True)
    killed = engine()
    if not killed._leaf:
        pytest.skip("nobody had to make room")
    signal.pidfd_send_signal(killed.pidfd, signal.SIGKILL)
    assert comes_true(lambda: not killed.alive)
    Container("host:").run("true", check=True)
    assert not Path(killed._leaf).exists()


def members(group):
    """The processes in one directory of a group; nobody is in one that has gone meanwhile."""
    try:
        return (group / "cgroup.procs").read_text().split()
    except OSError:  # ENOENT, or ENODEV between open(2) and read(2)
        return []


def ready_groups():
    """What the zygote has made in advance for the next container with limits."""
    name = f"pycontain-{Path(engine().folder).name}"
    return [path for top in own_groups() for path in Path(top, name).glob("[0-9]*")]


def wait_for_the_spare_in_its_group():
    assert comes_true(lambda: ready_groups() and all(len(members(group)) == 1 for group in ready_groups()))


@pytest.mark.parametrize(
    "following",
    [{"pids": 50}, {"pids": 60}, {"pids": 50, "memory": "64M"}, {}],
    ids=["the same", "other limits", "more limits", "none"],
)
def test_a_spare_waits_in_the_group_of_the_next_container(host, following):
    """After a rest it would take the kernel ten milliseconds to move it there; whoever comes then gets what he asked for."""
    host.limits(pids=50).run("true", check=True)
    wait_for_the_spare_in_its_group()
    container = host.limits(**following) if following else host
    with container.start("sleep", "1000") as running:
        limit = running.stats().pids_limit if following else None
        assert limit == following.get("pids")
        assert running.exec("true").ok


def test_a_spare_that_is_killed_in_its_group_is_in_nobodys_way(host):
    host.limits(pids=50).run("true", check=True)
    wait_for_the_spare_in_its_group()
    (spare,) = {pid for group in ready_groups() for pid in members(group)}
    os.kill(int(spare), signal.SIGKILL)
    assert comes_true(lambda: not Path(f"/proc/{spare}").exists())  # the zygote has seen it
    assert host.limits(pids=50).run("true", timeout=30).ok
