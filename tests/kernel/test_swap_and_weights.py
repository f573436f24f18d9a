"""What a machine must be set up for: swap to limit, and disks that heed a weight. Done where the machine is thrown away."""

import os
import subprocess
import tempfile
from pathlib import Path

import control_groups
import pytest

from pycontain import Container
from pycontain.errors import HostUnsupported

MIB = 1 << 20
HOST = Container("host:")
MAY_SET_UP = "PYCONTAIN_THROWAWAY" in os.environ and os.geteuid() == 0
# Not of zeros, which Linux 6.12 may take back without swapping.
TAKE = ("python3", "-I", "-c", "taken = b'x' * (64 << 20); print('took it')")
TAKE_AND_KEEP = (*TAKE[:3], f"{TAKE[3]}\nimport sys, time; sys.stdout.flush(); time.sleep(600)")


# --- swap -----------------------------------------------------------------------------------------------


def swap_of_the_machine():
    return Path("/proc/swaps").read_text().splitlines()[1:]


@pytest.fixture(scope="module")
def swap():
    """128 MiB of it, on a disk; or what the machine has."""
    if "memory" not in control_groups.limitable():
        pytest.skip("this user may not limit memory")
    if swap_of_the_machine():
        yield
        return
    if not MAY_SET_UP:
        pytest.skip("this machine has no swap, and is not ours to give it some")
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(bytes(128 * MIB))  # swapon(8): without holes
        file.flush()
        os.fsync(file.fileno())
        subprocess.run(["mkswap", file.name], check=True, capture_output=True)
        subprocess.run(["swapon", file.name], check=True, capture_output=True)
        assert swap_of_the_machine()
        yield
        subprocess.run(["swapoff", file.name], check=True, capture_output=True)


def in_memory_and_swap(running):
    """v1 counts both together."""
    files = ("memory.current", "memory.swap.current", "memory.memsw.usage_in_bytes")
    return sum(map(int, control_groups.settings_of(running.pid, files).values()))


def test_who_may_swap_nothing_dies_at_the_limit_on_memory(swap):
    """Though the machine has room for it."""
    done = HOST.limits(memory="32M", swap=0).run(*TAKE)
    assert (done.oom_killed, done.stdout) == (True, "")


def test_who_may_swap_goes_beyond_the_limit_on_memory(swap):
    with HOST.limits(memory="32M", swap="64M").start(*TAKE_AND_KEEP) as running:
        assert next(running.lines()).text == "took it"
        stats = running.stats()
        assert stats.memory <= 32 * MIB
        assert stats.oom_kills == 0
        assert in_memory_and_swap(running) > 64 * MIB


def test_who_may_swap_goes_beyond_it_by_that_much_and_no_further(swap):
    done = HOST.limits(memory="32M", swap="16M").run(*TAKE)
    assert (done.oom_killed, done.stdout) == (True, "")


def test_a_limit_on_swap_that_is_taken_away_is_met_no_more(swap):
    with HOST.limits(memory="32M", swap=0).start("sleep", "600") as running:
        assert running.exec(*TAKE).oom_killed
        running.update(swap="max")
        assert running.exec(*TAKE).stdout == "took it\n"


# --- weights --------------------------------------------------------------------------------------------


@pytest.fixture
def weighable():
    """A disk with a queue of requests, named as in /sys/block, where io can be limited."""
    if "io" not in control_groups.limitable():
        pytest.skip("this user may not limit io")
    if not MAY_SET_UP:
        pytest.skip("the disks of this machine are not ours to set up")
    disks = [path.parts[3] for path in Path("/sys/block").glob("*/queue/scheduler")]
    if not disks:
        pytest.skip("no disk here has a scheduler")
    return max(disks)


@pytest.fixture
def bfq(weighable):
    scheduler = Path("/sys/block", weighable, "queue/scheduler")
    before = scheduler.read_text().split("[")[1].split("]")[0]
    try:
        scheduler.write_text("bfq")
    except OSError as error:
        pytest.skip(f"no bfq for {weighable}: {error.strerror}")
    yield {1: "blkio.bfq.weight", 2: "io.bfq.weight"}[control_groups.limitable()["io"]]
    scheduler.write_text(before)


@pytest.fixture
def cost_model(weighable):
    qos = Path("/sys/fs/cgroup/io.cost.qos")
    if not qos.exists():
        pytest.skip("no io.cost here")
    number = Path("/sys/block", weighable, "dev").read_text().strip()
    qos.write_text(f"{number} enable=1")
    yield "io.weight"
    qos.write_text(f"{number} enable=0")


def weight_in(running, file):
    """A group has one for the disks that have none of their own: "default 50", in v1 of some kernels "50"."""
    return control_groups.settings_of(running.pid, (file,))[file].split()[-1]


@pytest.mark.parametrize("heeder", ["bfq", "cost_model"])
def test_a_weight_of_io_is_what_was_asked_for(heeder, request):
    """At the start, and after a change."""
    file = request.getfixturevalue(heeder)
    with HOST.limits(io_weight=50).start("sleep", "600") as running:
        assert weight_in(running, file) == "50"
        running.update(io_weight=700)
        assert weight_in(running, file) == "700"


def test_a_weight_of_io_is_refused_as_soon_as_no_disk_heeds_it(weighable, bfq):
    """Which may be so after a start of the same container."""
    assert HOST.limits(io_weight=50).run("true").ok
    Path("/sys/block", weighable, "queue/scheduler").write_text("none")
    with pytest.raises(HostUnsupported, match="io_weight"):
        HOST.limits(io_weight=50).run("true")
    assert HOST.limits(io_weight=50, required=False).run("true").ok
