"""Clocks of a container's own, and our own times that are not moved by them."""

import sys
import time

import pytest

from pycontain import Container
from pycontain.errors import InvalidSpec, StepFailed

HOST = Container("host:")
DAY = 86_400
AHEAD = HOST.time_offset(monotonic=DAY, boottime=2 * DAY)
CLOCKS = "import time; print(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())"


@pytest.fixture(autouse=True)
def possible():
    try:
        AHEAD.run("true").check()
    except StepFailed as error:
        pytest.skip(str(error))


def read(completed):
    return [float(text) for text in completed.check().stdout.split()]


@pytest.mark.parametrize("init", [True, False])
def test_both_clocks_are_ahead_and_the_time_of_day_is_not(init):
    now = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    inside = read(AHEAD.init(init).run(sys.executable, "-c", CLOCKS))
    assert [round((a - b) / DAY) for a, b in zip(inside, now, strict=True)] == [1, 2, 0]


def test_uptime_is_told_by_the_same_clock():
    uptime = float(AHEAD.run("cut", "-d", " ", "-f1", "/proc/uptime").check().stdout)
    assert uptime > 2 * DAY


def test_a_part_of_a_second_counts_and_a_clock_can_be_behind():
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    inside = read(HOST.time_offset(boottime=-2.5).run(sys.executable, "-c", CLOCKS))[1]
    assert inside < now


def test_a_command_of_exec_has_the_same_clocks():
    with AHEAD.start("sleep", "infinity") as running:
        inside = read(running.exec(sys.executable, "-c", CLOCKS))
        assert running.exec("true").timings.run < 60
    assert inside[1] - time.clock_gettime(time.CLOCK_BOOTTIME) > DAY


def test_our_own_times_are_the_owners():
    done = AHEAD.run("sleep", "0.05")
    assert 0.04 < done.timings.run < 60
    assert 0 <= done.timings.setup < 60


def test_the_next_container_has_the_hosts_clocks():
    AHEAD.run("true").check()
    assert abs(read(HOST.run(sys.executable, "-c", CLOCKS))[0] - time.monotonic()) < DAY / 2


def test_a_clock_cannot_be_negative():
    with pytest.raises(StepFailed, match="negative"):
        HOST.time_offset(boottime=-(1 << 32)).run("true")


@pytest.mark.parametrize("offset", ["1", None, True, float("nan"), float("inf"), 1 << 40])
def test_what_is_no_offset_is_refused_at_once(offset):
    with pytest.raises(InvalidSpec, match="no offset"):
        HOST.time_offset(monotonic=offset)
