"""The size limit of the writable layer: filling it is felt inside and nowhere else."""

import os

import pytest

from pycontain import Container
from pycontain.errors import HostUnsupported
from pycontain.runtime.engine import engine

SMALL = Container("host:").limits(disk="4M")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def possible():
    facts = engine().facts
    if facts.rootless and facts.kernel < (6, 6):
        with pytest.raises(HostUnsupported, match=r"disk=.*user namespace"):
            SMALL.run("true")
        pytest.skip("tmpfs holds no user attributes before Linux 6.6")


def test_what_is_written_beyond_the_limit_fails():
    done = SMALL.run("sh", "-c", "head -c 5000000 /dev/zero > /file; stat -c %s /file")
    assert "No space left on device" in done.stderr
    assert 3 * MIB < int(done.stdout) <= 4 * MIB


def test_space_comes_back_when_files_are_removed():
    script = "for i in 1 2 3; do head -c 3000000 /dev/zero > /file && rm /file || exit 1; done"
    assert SMALL.run("sh", "-c", script).ok


def test_empty_files_have_an_end_too():
    done = SMALL.run("sh", "-c", "i=0; while true > /f$i; do i=$((i+1)); done; echo $i")
    assert 0 < int(done.stdout) < 1024


def test_the_disk_of_the_host_is_not_touched(state_folder):
    with SMALL.start("sleep", "infinity") as running:
        running.exec("sh", "-c", "head -c 3000000 /dev/zero > /file").check()
        sizes = [
            os.lstat(os.path.join(folder, name)).st_size
            for folder, _, names in os.walk(state_folder)
            for name in names
        ]
    assert sum(sizes) < MIB


def test_files_of_the_image_can_be_changed_and_removed():
    """A directory that is made where one of the image was removed is opaque: overlayfs writes attributes for it."""
    done = SMALL.run("sh", "-c", "rm -r /etc && mkdir /etc && ls -A /etc; mv /opt /srv/opt && ls -d /srv/opt")
    assert done.check().stdout == "/srv/opt\n"


def test_two_containers_have_a_limit_each():
    script = ("sh", "-c", "head -c 3000000 /dev/zero > /file")
    assert [SMALL.run(*script).ok for _ in range(2)] == [True, True]


def test_an_exec_meets_the_same_limit():
    with SMALL.start("sleep", "infinity") as running:
        assert "No space" in running.exec("sh", "-c", "head -c 5000000 /dev/zero > /file").stderr


def test_it_goes_with_a_read_only_root():
    done = SMALL.read_only().tmpfs("/tmp").run("sh", "-c", "echo x > /tmp/x && echo x > /x")
    assert "Read-only" in done.stderr
