"""What a running container uses, and how it is changed and paused while it runs."""

import os
import signal
import textwrap
import time

import control_groups
import pytest
from owners import comes_true, marked, new_mark, run_owner, start_owner

from pycontain import Container
from pycontain.errors import CommandTimeout, HostUnsupported, InvalidSpec, SandboxError

MIB = 1 << 20
COUNT = "import itertools, os\nfor n in itertools.count(): os.pwrite(1, b'%20d' % n, 0)"
HOST = Container("host:")


@pytest.fixture
def pausable():
    """Where control groups can be made."""
    if not control_groups.can_pause():
        pytest.skip("this user has no control group of its own")
    return HOST


@pytest.fixture
def limitable():
    """Where memory, processes and processors can be limited."""
    if not {"memory", "pids", "cpu"} <= control_groups.limitable().keys():
        pytest.skip("this user may not limit memory, pids and cpu")
    return HOST


@pytest.fixture
def counting(tmp_path):
    """A container whose payload writes ever higher numbers to a file, and a function that reads it."""
    tmp_path.chmod(0o777)
    box = HOST.mount(tmp_path, "/out")
    code = "import itertools, os\nfd = os.open('/out/n', os.O_CREAT | os.O_RDWR)\n"
    code += "for n in itertools.count(): os.pwrite(fd, b'%20d' % n, 0)"
    path = tmp_path / "n"

    def count():
        return int(path.read_bytes() or 0) if path.exists() else 0

    return box, ("python3", "-c", code), count


# --- stats and top --------------------------------------------------------------------------------------


def test_stats_of_a_container_without_limits_come_from_its_processes():
    code = "import time; kept = bytearray(40 << 20); print(1, flush=True); time.sleep(600)"
    with HOST.start("python3", "-c", code) as running:
        assert comes_true(lambda: running.stats().memory > 40 * MIB)
        stats = running.stats()
        assert stats.pids == 2  # an init of ours, and the payload
        assert stats.memory < 100 * MIB
        assert stats.memory_limit is None
        assert abs(stats.time - time.time()) < 600


def test_processor_time_grows_while_it_is_used():
    with HOST.start("sh", "-c", "while :; do :; done") as running:
        assert comes_true(lambda: running.stats().cpu > 0.05)
        earlier = running.stats()
        assert comes_true(lambda: running.stats().cpu > earlier.cpu)
        assert earlier.cpu == pytest.approx(earlier.cpu_user + earlier.cpu_system, abs=0.02)


def test_stats_of_a_container_with_limits_are_what_its_group_counts(limitable):
    """A file in memory is held by no process."""
    with limitable.limits(memory="128M", pids=20, cpus=4).start("sleep", "600") as running:
        running.exec("sh", "-c", "head -c 40000000 /dev/zero > /dev/shm/file").check()
        stats = running.stats()
    assert 40_000_000 < stats.memory <= stats.memory_limit == 128 * MIB
    assert (stats.pids, stats.pids_limit, stats.oom_kills) == (2, 20, 0)
    assert stats.cpu_throttled >= 0


def test_who_was_executed_counts_too():
    with HOST.start("sleep", "600") as running:
        before = running.stats().pids
        assert running.exec("sh", "-c", "sleep 600 & echo").ok
        assert running.stats().pids == before + 1


def test_top_shows_every_process_by_its_numbers_inside():
    with HOST.start("sh", "-c", "sleep 601 & exec sleep 602") as running:
        assert comes_true(lambda: {status.command[1:] for status in running.top()} >= {("601",), ("602",)})
        init, *others = running.top()
        seen = running.exec(
            "sh", "-c", "for n in 1 2 3; do tr '\\0' ' ' < /proc/$n/cmdline; echo; done"
        ).stdout
    assert (init.pid, init.host_pid, init.parent) == (1, running.pid, 0)
    assert [status.pid for status in others] == [2, 3]
    assert [" ".join(status.command) for status in others] == [line.strip() for line in seen.splitlines()[1:]]
    assert {status.uid for status in others} == {0}
    assert all(status.memory > 0 and status.state == "S" for status in others)


def test_top_has_the_users_of_the_container(privilege):
    if privilege == "single":
        pytest.skip("there is one user inside")
    with HOST.user("1000:1000").start("sleep", "600") as running:
        assert running.top()[-1].uid == 1000


@pytest.mark.parametrize("act", ["stats", "top", "pause"])
def test_nothing_is_known_of_a_container_that_has_exited(act):
    running = HOST.start("true")
    running.wait()
    with pytest.raises(SandboxError, match="has exited"):
        getattr(running, act)()
    running.close()


def test_it_may_exit_at_any_moment():
    """Whatever is asked, the answer is a value or that it has exited."""
    for _ in range(20):
        with HOST.start("true") as running:
            try:
                while running.status == "running":
                    assert running.stats().pids >= 0
                    assert isinstance(running.top(), tuple)
            except SandboxError as error:
                assert "has exited" in str(error)  # noqa: PT017 - either is right


# --- pause and resume -----------------------------------------------------------------------------------


def test_who_is_paused_stands_still_until_it_is_resumed(counting, pausable):
    box, argv, count = counting
    with box.start(*argv) as running:
        assert comes_true(lambda: count() > 0)
        running.pause()
        assert running.status == "paused"
        stopped = count()
        assert pausable.run("true").ok  # as long as a container takes
        assert count() == stopped
        running.resume()
        assert running.status == "running"
        assert comes_true(lambda: count() > stopped)


def test_all_of_it_is_paused_also_what_was_executed(counting, pausable):
    box, argv, count = counting
    with box.start("sleep", "600") as running:
        running.exec("sh", "-c", '"$@" &', "-", *argv).check()
        assert comes_true(lambda: count() > 0)
        running.pause()
        stopped = count()
        assert pausable.run("true").ok
        assert count() == stopped


def test_pause_and_resume_may_be_repeated(pausable):
    with pausable.start("sleep", "600") as running:
        for act in (running.resume, running.pause, running.pause, running.resume, running.resume):
            act()
        assert running.exec("echo", "x").stdout == "x\n"


def test_a_container_with_limits_is_paused_in_its_own_group(limitable):
    with limitable.limits(pids=20).start("sleep", "600") as running:
        running.pause()
        groups = control_groups.groups_of(running.pid)
        assert groups
        running.resume()


def test_a_paused_container_executes_nothing(pausable):
    with pausable.start("sleep", "600") as running:
        running.pause()
        with pytest.raises(SandboxError, match="paused") as caught:
            running.exec("true")
        assert "resume" in caught.value.__notes__[0]


def test_a_paused_container_can_be_killed(pausable):
    with pausable.start("sleep", "600") as running:
        running.pause()
        running.kill()
        assert running.wait(60).signal == signal.SIGKILL
        assert running.status == "exited"


def test_a_paused_container_can_be_stopped_and_its_payload_hears_of_it(pausable):
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    with pausable.start("sh", "-c", script) as running:
        assert comes_true(lambda: "sh" in running.top()[-1].command[0] or running.stats().pids > 2)
        assert running.exec("true").ok
        running.pause()
        assert running.stop(timeout=60).exit_code in {7, None}
    assert running.status == "exited"


def test_leaving_the_block_ends_what_is_paused(pausable):
    mark = new_mark()
    with pausable.start("sleep", mark) as running:
        running.pause()
        assert marked(mark)
    assert not marked(mark)


def test_a_paused_container_is_looked_at_and_changed(limitable):
    with limitable.limits(pids=20).start("sleep", "600") as running:
        running.pause()
        running.update(pids=30)
        assert running.stats().pids_limit == 30
        assert len(running.top()) == 2


@pytest.mark.rootless
def test_without_a_group_of_its_own_a_user_is_told_what_a_pause_needs():
    if control_groups.can_pause():
        pytest.skip("this user has one")
    with HOST.start("sleep", "600") as running:
        with pytest.raises(HostUnsupported, match="freezer") as caught:
            running.pause()
        assert caught.value.__notes__
        assert running.status == "running"
        assert running.exec("true").ok


PAUSED = """
    import os, sys, time
    from pycontain import Container
    from pycontain.kernel import syscalls
    if {v1}:  # a host that has not mounted v2 beside v1
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split() for line in file]
        for fields in mounts:
            if fields[fields.index("-") + 1] == "cgroup2":
                syscalls.umount2(fields[4], syscalls.MNT_DETACH)
    running = Container("host:").start("sleep", "{mark}")
    running.pause()
    {then}
"""


def paused(mark, *, v1, then="print(1, flush=True); time.sleep(600)"):
    return textwrap.dedent(PAUSED).format(mark=mark, v1=v1, then=then)


def layouts():
    """v1 alone can be made where there is v1, by root: v2 is taken out of a private mount namespace."""
    has_v1 = os.path.isdir("/sys/fs/cgroup/freezer") and os.geteuid() == 0
    return pytest.mark.parametrize(
        "v1", [False, pytest.param(True, marks=[] if has_v1 else pytest.mark.skip("no v1"))]
    )


@layouts()
def test_an_owner_that_ends_takes_the_paused_ones_with_it(pausable, tmp_path, v1):
    mark = new_mark()
    code = paused(mark, v1=v1, then="print(running.status)")
    assert run_owner(code, state=tmp_path) == (0, "paused\n", "")
    assert not marked(mark)
    assert os.listdir(tmp_path) == []


@layouts()
@pytest.mark.parametrize("with_zygote", [False, True], ids=["owner", "owner and zygote"])
def test_a_killed_owner_takes_the_paused_ones_with_it(pausable, tmp_path, v1, with_zygote):
    """What v1 has frozen cannot die: if the zygote is killed at the same instant, the next one sweeps it."""
    mark = new_mark()
    with start_owner(paused(mark, v1=v1), state=tmp_path, python=()) as owner:
        said = owner.stdout.readline()
        with open(f"/proc/{owner.pid}/task/{owner.pid}/children") as file:
            children = list(map(int, file.read().split()))
        for pid in [*(children if with_zygote else []), owner.pid]:
            os.kill(pid, signal.SIGKILL)
        owner.communicate()
    assert said
    if not (v1 and with_zygote):
        assert comes_true(lambda: not marked(mark))
    assert run_owner("import pycontain; pycontain.prewarm()", state=tmp_path) == (0, "", "")
    assert comes_true(lambda: not marked(mark))
    assert comes_true(lambda: os.listdir(tmp_path) == [])


@layouts()
def test_a_killed_zygote_is_replaced_although_something_was_paused(pausable, tmp_path, v1):
    mark = new_mark()
    kill = "import signal; signal.pidfd_send_signal(running._prepared.engine.pidfd, 9); "
    then = kill + "print(running.wait(60).signal, Container('host:').run('true').exit_code)"
    code = paused(mark, v1=v1, then=then)
    assert run_owner(code, state=tmp_path) == (0, "9 0\n", "")
    assert comes_true(lambda: not marked(mark))


# --- update ---------------------------------------------------------------------------------------------


def test_a_limit_can_be_lowered_and_holds(limitable):
    with limitable.limits(memory="256M").start("sleep", "600") as running:
        eat = ("python3", "-c", "bytearray(100 << 20)")
        assert running.exec(*eat).ok
        running.update(memory="48M")
        assert running.exec(*eat).signal == signal.SIGKILL


def test_a_limit_can_be_raised_and_gives_room(limitable):
    with limitable.limits(pids=2).start("sleep", "600") as running:
        running.update(pids=20)
        assert running.exec("true").ok


def test_the_spec_says_what_holds_now(limitable):
    with limitable.limits(memory="128M", pids=20).start("sleep", "600") as running:
        running.update(pids=30)
        limits = running.spec.limits
        assert (limits.memory, limits.pids) == (128 * MIB, 30)
        assert running.stats().pids_limit == 30


def test_a_container_without_limits_gets_some(limitable):
    """And what runs in it already obeys them."""
    fork = "import os, sys, time\nwhile os.read(0, 1):\n try:\n  if not os.fork(): time.sleep(600)\n except OSError: os._exit(9)"
    with limitable.start("sleep", "600") as running:
        running.update(pids=5, memory="128M")
        stats = running.stats()
        assert (stats.pids_limit, stats.memory_limit) == (5, 128 * MIB)
        assert running.exec("python3", "-c", fork, input="12345").exit_code == 9


SOME = {"memory": "64M", "swap": 0, "pids": 20, "cpus": 0.5}
NONE = dict.fromkeys(SOME, "max")


def test_a_limit_can_be_taken_away_and_holds_no_more(limitable):
    with limitable.limits(**SOME).start("sleep", "600") as running:
        eat = ("python3", "-c", "bytearray(100 << 20)")
        assert running.exec(*eat).signal == signal.SIGKILL
        running.update(**NONE)
        assert running.exec(*eat).ok
        stats = running.stats()
        assert (stats.memory_limit, stats.pids_limit) == (None, None)
        assert running.spec.limits == limitable.spec.limits
        running.update(**NONE)  # is no change


def test_a_limit_that_was_taken_away_can_be_set_again(limitable):
    with limitable.limits(**SOME).start("sleep", "600") as running:
        for changed in (NONE, SOME):
            running.update(**changed)
        stats = running.stats()
        assert (stats.memory_limit, stats.pids_limit) == (64 * MIB, 20)


def test_the_kernel_is_told_that_there_is_no_limit(limitable):
    """Of a quota and of swap nothing is counted that could be asked for."""
    wanted = {
        "memory.swap.max": "max",
        "cpu.max": "max 100000",
        "cpu.cfs_quota_us": "-1",
        "cpu.weight": "100",
    }
    with limitable.limits(**SOME, cpu_weight=50).start("sleep", "600") as running:
        running.update(**NONE, cpu_weight=100)
        found = control_groups.settings_of(running.pid, wanted)
    assert found
    assert found == {name: wanted[name] for name in found}


def test_all_processors_come_back(limitable):
    if "cpuset" not in control_groups.limitable():
        pytest.skip("no cpuset here")
    show = ("grep", "_allowed_list", "/proc/self/status")
    with limitable.start("sleep", "600") as running:
        before = running.exec(*show).stdout
        running.update(cpuset="0", cpuset_mems="0")
        assert running.exec("nproc").stdout == "1\n"
        running.update(cpuset="max", cpuset_mems="max")
        assert running.exec(*show).stdout == before


def test_what_was_left_out_needs_not_be_taken_away():
    """Where there are no control groups too."""
    with HOST.limits(**SOME, required=False).start("sleep", "600") as running:
        running.update(**NONE)
        assert running.spec.limits == HOST.spec.limits


def test_all_that_is_wrong_is_named_and_nothing_is_changed(limitable):
    with limitable.limits(pids=20).start("sleep", "600") as running:
        with pytest.raises(InvalidSpec) as caught:
            running.update(pids=0, cpus=-1, memory="x")
        assert len(caught.value.problems) == 3
        assert running.stats().pids_limit == 20


def test_what_the_kernel_refuses_leaves_all_as_it_was(limitable):
    if "cpuset" not in control_groups.limitable():
        pytest.skip("no cpuset here")
    with limitable.limits(memory="128M", pids=20, cpuset="0").start("sleep", "600") as running:
        with pytest.raises(HostUnsupported):
            running.update(memory="256M", cpuset="8191", pids=5)
        stats = running.stats()
        assert (stats.memory_limit, stats.pids_limit) == (128 * MIB, 20)
        assert running.spec.limits.pids == 20


def test_what_the_kernel_refuses_gives_all_processors_back(limitable):
    """A group of v2 that was never told which it has cannot be told so again."""
    if "cpuset" not in control_groups.limitable():
        pytest.skip("no cpuset here")
    with limitable.limits(pids=20).start("sleep", "600") as running:
        before = running.exec("nproc").stdout
        with pytest.raises(HostUnsupported, match="511"):
            running.update(cpuset="0", cpuset_mems="511")
        assert running.exec("nproc").stdout == before


def test_nothing_to_change_is_nothing_done():
    with HOST.start("sleep", "600") as running:
        running.update()
        assert control_groups.groups_of(running.pid) == {}


# --- a command that does not want to end ----------------------------------------------------------------


def test_a_command_that_kills_its_supervisor_ends_with_it(pausable):
    """Its children are then those of the container's init, and no tree shows whose they were."""
    mark = new_mark()
    with pausable.start("sleep", "600") as running:
        script = f"setsid sleep {mark} & setsid sleep {mark} & kill -9 $PPID; sleep {mark}"
        assert running.exec("sh", "-c", script, timeout=60).signal == signal.SIGKILL
        assert comes_true(lambda: not marked(mark))
        assert running.status == "running"


@pytest.mark.root
def test_so_it_does_where_there_is_v1_alone(tmp_path):
    """There the freezer names who is to be killed."""
    if not os.path.isdir("/sys/fs/cgroup/freezer"):
        pytest.skip("no v1")
    mark = new_mark()
    script = f"setsid sleep {mark} & setsid sleep {mark} & kill -9 $PPID; sleep {mark}"
    then = f"running.resume(); print(running.exec('sh', '-c', {script!r}, timeout=60).signal, running.status)"
    then += f"\ntry: running.exec('sh', '-c', 'setsid sleep {mark} & sleep {mark}', timeout=0.5)\nexcept TimeoutError: print(1)"
    then += f"\nimport subprocess; print(subprocess.run(['pgrep', '-fc', '^sleep {mark}'], stdout=-1).stdout)"
    done = run_owner(paused(new_mark(), v1=True, then="pass") + then, state=tmp_path)
    assert done == (0, "9 running\n1\nb'0\\n'\n", "")


def test_a_timeout_ends_the_command_and_nothing_else(pausable):
    mine, others = new_mark(), new_mark()
    with pausable.start("sleep", "600") as running:
        running.exec("sh", "-c", f"sleep {others} & true", timeout=60).check()
        with pytest.raises(CommandTimeout):
            running.exec("sh", "-c", f"sleep {mine} & setsid sleep {mine}", timeout=0.5)
        assert comes_true(lambda: not marked(mine))
        assert len(marked(others)) == 1


def test_commands_with_timeouts_leave_no_groups(pausable):
    with pausable.start("sleep", "600") as running:
        for _ in range(5):
            running.exec("true", timeout=60).check()
        inside = running.exec("cat", "/proc/self/cgroup", timeout=60).check().stdout
        assert "exec-" in inside
    # The rest is seen by the fixture of every test.
