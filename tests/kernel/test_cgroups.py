"""Control groups of the real kernel, v1 or v2, below the group in which the tests run."""

import errno
import os
import select
import signal
import sys

import pytest
from owners import comes_true

from pycontain.errors import HostUnsupported
from pycontain.kernel import cgroupfs, syscalls
from pycontain.runtime import cgroups, delegation
from pycontain.sandbox.limits import Limits, controllers_of, writes

MIB = 1 << 20
EAT = "bytearray(256 << 20)"
SLEEP = "import time; time.sleep(600)"
SPIN = "while True: pass"


class Member:
    """A process that was born in a group, or joined it first of all, as the zygote has it."""

    def __init__(self, group, code, **pipes):
        flags = syscalls.CLONE_INTO_CGROUP if group.into >= 0 else 0
        self.pid, self.pidfd = syscalls.clone3(flags, exit_signal=signal.SIGCHLD, cgroup=group.into)
        if self.pid == 0:
            try:
                group.join()
                for place, fd in pipes.items():
                    os.dup2(fd, {"stdout": 1}[place])
                os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
            finally:
                os._exit(127)
        assert comes_true(
            lambda: self.has_ended() or all(self.pid in cgroupfs.members(part.fd) for part in group.parts)
        )

    def wait(self):
        """Its exit code, or minus the number of the signal that ended it."""
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self):
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        return self.wait()

    def has_ended(self, patience=0.0):
        return bool(select.select([self.pidfd], [], [], patience)[0])


@pytest.fixture
def access():
    """What this process may use; where it may not use memory and pids, there is nothing to test."""
    access = delegation.Access.probe()
    if not {"memory", "pids"} <= access.versions().keys():
        pytest.skip(f"no control groups here: {access.refusal('memory')}")
    leaf = delegation.make_room(access)
    yield access
    if leaf:
        delegation.give_room_back(leaf)


@pytest.fixture
def journal(tmp_path):
    return str(tmp_path / "cgroups")


@pytest.fixture
def home(access, journal):
    home = cgroups.Home(os.urandom(6).hex(), journal)
    yield home
    assert home.remove()


@pytest.fixture
def make(access, home):
    """Make a group with these limits and controllers; it is removed at the end."""
    groups = []

    def make(*more, **limits):
        wanted = Limits(**limits)
        needed = controllers_of(wanted) | set(more)
        missing = needed - access.versions().keys()
        if missing:
            pytest.skip(str(access.refusal(min(missing))))
        groups.append(home.create(needed, writes(wanted, access.versions())))
        return groups[-1]

    yield make
    for group in groups:
        group.kill()
        group.remove()


def setting(group, *names):
    """The first of these files that the group has in any of its hierarchies."""
    return next(
        text for part in group.parts for name in names if (text := cgroupfs.read_or_empty(part.fd, name))
    )


# --- limits ---------------------------------------------------------------------------------------------


def test_who_takes_too_much_memory_is_killed_and_counted(make):
    group = make(memory=32 * MIB, swap=0)
    assert Member(group, EAT).wait() == -signal.SIGKILL
    assert group.usage()["oom_kills"] == 1


def test_the_peak_of_the_memory_is_known_and_within_the_limit(make):
    group = make(memory=64 * MIB)
    assert Member(group, "bytearray(20 << 20)").wait() == 0
    peak = group.usage().get("memory_peak")
    if peak is None:
        pytest.skip("memory.peak came with Linux 5.19")
    assert 20 * MIB < peak <= 64 * MIB


def test_who_stays_within_the_limit_is_not_counted_as_killed(make):
    group = make(memory=64 * MIB)
    assert Member(group, "pass").wait() == 0
    assert group.usage()["oom_kills"] == 0


def test_a_killed_process_is_no_oom_kill(make):
    group = make(memory=64 * MIB)
    assert Member(group, SLEEP).kill() == -signal.SIGKILL
    assert group.usage()["oom_kills"] == 0


def test_the_limit_on_processes_stops_a_fork(make):
    group = make(pids=2)
    forks = "import os\ntry:\n for _ in '123': os.fork() or os.pause()\nexcept OSError as error: os._exit(error.errno)"
    forks = forks.replace("os.pause()", "__import__('signal').pause()")
    assert Member(group, forks).wait() == errno.EAGAIN


def test_processes_are_counted(make):
    group = make("pids")
    member = Member(group, SLEEP)
    assert group.usage()["pids"] == 1
    member.kill()


def test_who_spins_against_its_quota_is_throttled(make):
    group = make(cpus=0.05)
    member = Member(group, SPIN)
    assert comes_true(lambda: group.usage()["cpu_throttled"] > 0)
    member.kill()


def test_processor_time_is_counted(make):
    group = make("cpuacct")
    member = Member(group, SPIN)
    assert comes_true(lambda: group.usage()["cpu_user"] > 0)
    member.kill()
    assert group.usage()["cpu"] > 0


def test_the_processors_are_those_that_were_chosen(make):
    one = min(os.sched_getaffinity(0))
    group = make(cpuset=str(one))
    assert Member(group, f"import os; os._exit(os.sched_getaffinity(0) == {{{one}}})").wait() == 1


def test_the_weight_is_set(make):
    assert setting(make(cpu_weight=200), "cpu.weight", "cpu.shares").strip() in {"200", "2048"}


# --- a running container --------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [32, 128], ids=["lower", "higher"])
def test_limits_on_memory_and_swap_can_be_changed_in_both_directions(access, make, memory):
    """In v1 the two files have to be written in the right order for each."""
    group = make(memory=64 * MIB, swap=0)
    group.update(writes(Limits(memory=memory * MIB, swap=0), access.versions()))
    assert int(setting(group, "memory.max", "memory.limit_in_bytes")) == memory * MIB


def test_a_limit_whose_controller_was_not_asked_for_is_refused(access, make):
    with pytest.raises(HostUnsupported, match="pids controller"):
        make("memory").update(writes(Limits(pids=5), access.versions()))


def test_frozen_processes_stand_still_until_they_are_thawed(make):
    group = make("freezer")
    readable, writable = os.pipe()
    member = Member(group, "import os\nwhile True: os.write(1, b'.')", stdout=writable)
    os.close(writable)
    assert os.read(readable, 1) == b"."
    assert group.freeze()
    while select.select([readable], [], [], 0.1)[0]:
        os.read(readable, 1 << 20)  # what it wrote before
    group.thaw()
    assert select.select([readable], [], [], 20)[0]
    member.kill()
    os.close(readable)


def test_frozen_processes_can_be_killed(make):
    group = make("freezer", "pids")
    member = Member(group, SLEEP)
    assert group.freeze()
    group.kill()
    assert member.wait() == -signal.SIGKILL


def test_killing_a_group_kills_all_of_it(make):
    group = make("pids")
    readable, writable = os.pipe()
    member = Member(
        group, "import os, time; os.fork(); os.fork(); os.write(1, b'.'); time.sleep(600)", stdout=writable
    )
    os.close(writable)
    for _ in range(4):
        os.read(readable, 1)
    group.kill()
    assert member.wait() == -signal.SIGKILL
    assert os.read(readable, 1) == b""  # nobody has the other end
    os.close(readable)


# --- refusals -------------------------------------------------------------------------------------------


def test_processors_that_do_not_exist_are_refused_and_nothing_is_left(make, home):
    with pytest.raises(HostUnsupported) as caught:
        make(cpuset="8191")
    assert caught.value.__notes__
    assert all(cgroupfs.read(place.fd, "cgroup.procs") == "" for place in home.places.values())
    assert [delegation.groups_in(place.path) for place in home.places.values()] == [[]]


def test_a_controller_that_the_host_does_not_have_is_refused(home):
    with pytest.raises(HostUnsupported, match="nonsense"):
        home.create(["nonsense"])
    assert home.places == {}


@pytest.mark.rootless
def test_without_a_group_of_its_own_a_user_is_told_what_to_do():
    access = delegation.Access.probe()
    if "memory" in access.versions():
        pytest.skip("this user has one")
    error = access.refusal("memory", "a limit on memory")
    assert str(error).startswith("this host cannot provide a limit on memory: it needs")
    assert error.found
    assert error.__notes__


@pytest.mark.rootless
def test_without_a_group_of_its_own_nothing_is_left_behind(journal):
    if "memory" in delegation.Access.probe().versions():
        pytest.skip("this user has one")
    with pytest.raises(HostUnsupported):
        cgroups.Home("0123456789ab", journal).create(["memory"])


# --- making room in v2 ----------------------------------------------------------------------------------


@pytest.fixture
def unified():
    """The v2 hierarchy with all controllers, in which nobody has made room yet; a hybrid host may have a few there."""
    access = delegation.Access.probe()
    for hierarchy in access.hierarchies:
        inner = os.path.exists(f"{hierarchy.folder}/cgroup.events")
        room = not hierarchy.leaf  # which an engine of this session may have made
        whole = "memory" in delegation.passes_on(hierarchy)
        if whole and inner and room and access.obstacles[hierarchy] is None:
            return hierarchy
    pytest.skip("no v2 group of our own that must make room")


def test_the_owner_moves_into_a_leaf_and_back(unified):
    leaf = delegation.make_room(delegation.Access([unified]))
    assert [hierarchy.leaf for hierarchy in delegation.probe()] == [leaf]
    assert [hierarchy.folder for hierarchy in delegation.probe()] == [unified.folder]
    delegation.give_room_back(leaf)
    assert [hierarchy.leaf for hierarchy in delegation.probe()] == [""]


def test_who_has_room_does_not_make_it_again(access):
    assert delegation.make_room(delegation.Access.probe()) == ""


def test_a_group_with_other_processes_is_left_as_it_is(unified):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        access = delegation.Access.probe()
        assert delegation.make_room(access) == ""
        assert "memory" not in access.versions()
        error = access.refusal("memory")
        assert str(pid) in error.found
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert delegation.groups_in(unified.folder) == []


def test_the_zygote_and_what_is_below_it_move_with_the_owner(unified):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        leaf = delegation.make_room(delegation.Access.probe(zygote=pid))
        with open(f"{leaf}/cgroup.procs") as file:
            assert sorted(map(int, file)) == sorted((os.getpid(), pid))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    delegation.give_room_back(leaf)


# --- after a death --------------------------------------------------------------------------------------


def test_the_journal_names_what_is_made(make, home, journal):
    make("pids")
    with open(journal) as file:
        assert {place.path for place in home.places.values()} <= set(file.read().splitlines())


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_the_sweep_kills_and_removes_what_a_dead_zygote_had(access, journal, frozen):
    home = cgroups.Home(os.urandom(6).hex(), journal)
    group = home.create({"memory", "pids", "freezer"})
    paths = [place.path for place in home.places.values()]
    member = Member(group, SLEEP)
    if frozen:
        group.freeze()
    for part in group.parts:  # as the end of the zygote does
        os.close(part.fd)
        os.close(part.procs)
    for place in home.places.values():
        os.close(place.fd)
    assert cgroups.sweep(journal)
    assert member.wait() == -signal.SIGKILL
    assert not any(map(os.path.exists, paths))


def test_the_sweep_removes_nothing_else(access, home, make, journal, tmp_path):
    """A journal that was damaged names the owner's own group, and a torn line."""
    make("pids")
    other = tmp_path / "journal"
    folders = list(home.places)
    torn = [place.path for place in home.places.values()]
    other.write_text("".join(f"{path}\n" for path in folders) + torn[0])
    assert cgroups.sweep(str(other))
    assert all(map(os.path.isdir, folders + torn))


def test_a_journal_that_is_not_there_has_been_swept(journal):
    assert cgroups.sweep(journal)


def test_a_leaf_in_which_the_owner_still_is_survives_the_sweep(unified, journal, tmp_path):
    leaf = delegation.make_room(delegation.Access([unified]))
    with open(journal, "w") as file:
        file.write(f"{leaf}\n")
    assert cgroups.sweep(journal)
    assert os.path.isdir(leaf)
    delegation.give_room_back(leaf)


def test_an_empty_leaf_is_swept_and_its_parent_can_have_processes_again(unified, journal):
    folder = unified.folder
    leaf = f"{folder}/{delegation.LEAF}dead"
    os.mkdir(leaf)
    with open(journal, "w") as file:
        file.write(f"{leaf}\n")
    assert cgroups.sweep(journal)
    assert delegation.groups_in(folder) == []
    with open(f"{folder}/cgroup.subtree_control") as file:
        assert file.read().split() == []


# --- who is there -----------------------------------------------------------------------------------------


def test_who_has_ended_is_in_nobodys_way():
    """A spare or an init may end while it is looked at whose the processes of a group are."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    os.waitpid(pid, 0)
    assert delegation._is_ours(pid, zygote=os.getppid())
    assert delegation._is_ours(pid, zygote=0)


def test_a_process_is_ours_when_the_zygote_is_above_it():
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    try:
        assert delegation._is_ours(pid, zygote=os.getpid())
        assert not delegation._is_ours(os.getppid(), zygote=pid)
        assert not delegation._is_ours(pid, zygote=0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
