"""A payload arranges what its owner reads, writes and copies through ``Running.files``, before and meanwhile."""

import os
from pathlib import Path

import pytest

from pycontain import Container
from pycontain.errors import PathError, PycontainError

HOST = Container("host:")
SWAPS = (Path(__file__).parent / "swaps.py").read_text()
SECRET = "of the host alone"
LEASE = """
import fcntl, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open("/w/leased", "r+")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def outside(tmp_path):
    """A directory of the host that no attack may change or see into."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "canary").write_text(SECRET)
    yield place
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("canary", SECRET)]


@pytest.fixture(params=["walled", "unwalled"])
def container(request, unwalled):
    return HOST if request.param == "walled" else unwalled


def swapping(running, one, other):
    """Have the payload exchange two of its names until the container ends; returns once it does."""
    running.exec("sh", "-c", f'python3 -c "$0" {one} {other} >/dev/null 2>&1 & echo', SWAPS, check=True)


def attempt(act, *arguments, **options):
    """Whether *act* was done; what it refuses must be said in our own words."""
    try:
        act(*arguments, **options)
    except PycontainError:
        return False
    return True


@pytest.mark.parametrize("target", ["/", "/proc/1/root", "/proc/self/root", "/proc/thread-self/cwd", ".."])
def test_a_directory_that_is_now_a_link_while_files_are_written_cve_2019_14271_cve_2018_15664(
    container, outside, target
):
    """docker cp could be led out of the root by a link that was swapped in after the check."""
    above = str(outside.parent)
    with container.start("sleep", "infinity") as running:
        files = running.files
        for top in ("/w", f"/w/d{above}", f"{above}/outside"):
            files.mkdir(top, parents=True, exist_ok=True)
        files.mkdir(f"/w/d{above}/outside", exist_ok=True)
        dots = "/".join([".."] * 12)
        running.exec("ln", "-s", dots if target == ".." else target, "/w/l", check=True)
        swapping(running, "/w/d", "/w/l")
        for turn in range(150):
            path = f"/w/d{above}/outside"
            attempt(files.write_text, f"{path}/{turn}", "x")
            attempt(files.mkdir, f"{path}/d{turn}")
            attempt(files.remove, f"{path}/canary")
            attempt(files.read_text, f"{path}/canary")
            with pytest.raises(PathError):
                files.read_text(f"{path}/canary")


def test_reading_never_leads_out(container, outside):
    """Whatever the links say: the host's file is not there."""
    with container.start("sleep", "infinity") as running:
        names = []
        for number, top in enumerate(
            ["/", "/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/1/fd/0", "../../../../.."]
        ):
            running.exec("ln", "-s", f"{top}{outside}/canary", f"/l{number}", check=True)
            names.append(f"/l{number}")
        for name in names:
            with pytest.raises(PathError):
                running.files.read_text(name)


def test_links_of_one_copy_do_not_lead_the_next_one_out(container, outside, tmp_path):
    with container.start("sleep", "infinity") as running:
        running.exec(
            "sh", "-c", f"mkdir -p /one /two/x /two/y; ln -s {outside} /one/x; echo evil > /two/x/canary"
        )
        running.files.get("/one", tmp_path / "out")
        assert os.readlink(tmp_path / "out" / "x") == str(outside)
        with pytest.raises(PathError):
            running.files.get("/two", tmp_path / "out")


def test_links_of_one_copy_are_not_written_through(container, outside, tmp_path):
    with container.start("sleep", "infinity") as running:
        running.exec("sh", "-c", f"mkdir /one /two; ln -s {outside}/canary /one/f; echo evil > /two/f")
        running.files.get("/one", tmp_path / "out")
        running.files.get("/two", tmp_path / "out")
        assert (tmp_path / "out" / "f").read_text() == "evil\n"


def test_the_target_is_mounted_and_swapped_meanwhile(container, outside, tmp_path):
    """The payload has the target mounted, and puts a link to the host in the place of a directory there."""
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    target.chmod(0o777)
    os.symlink(outside, target / "l")
    with container.mount(target, "/target").start("sleep", "infinity") as running:
        running.exec(
            "sh", "-c", "mkdir -p /tree/d; for i in $(seq 30); do echo evil > /tree/d/$i; done", check=True
        )
        swapping(running, "/target/d", "/target/l")
        done = {attempt(running.files.get, "/tree", target) for _ in range(40)}
    assert done <= {True, False}


def test_the_source_is_mounted_and_swapped_meanwhile(container, outside, tmp_path):
    """The same with what goes in: the payload must not be given a file of the host that it chose."""
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    source.chmod(0o777)
    (source / "d" / "canary").write_text("harmless")
    (source / "f").write_text("harmless")
    os.symlink(outside, source / "l")
    os.symlink(outside / "canary", source / "m")
    with container.mount(source, "/source").start("sleep", "infinity") as running:
        swapping(running, "/source/d", "/source/l")
        swapping(running, "/source/f", "/source/m")
        for turn in range(60):
            attempt(running.files.put, source, f"/given{turn}")
        assert SECRET not in running.exec("sh", "-c", "cat /given*/d/canary /given*/f").stdout


def test_a_lease_does_not_hold_the_owner_up(container):
    """fcntl(2): who opens a leased file waits for 45 seconds, unless it asks not to."""
    with container.start("sh", "-c", "mkdir /w; echo x > /w/leased; sleep infinity") as running:
        running.exec("sh", "-c", "until [ -s /w/leased ]; do :; done", timeout=10)
        done = running.exec(
            "sh",
            "-c",
            'python3 -c "$0" > /w/out 2>&1 & until [ -s /w/out ]; do :; done; cat /w/out',
            LEASE,
            timeout=20,
        )
        if "held" not in done.stdout:
            pytest.skip(f"no lease here: {done.stdout}")
        attempt(running.files.read_text, "/w/leased")
        attempt(running.files.write_text, "/w/leased", "y")


def test_a_tree_that_is_filled_while_it_is_removed(container):
    script = "mkdir -p /w/d; i=0; while :; do : > /w/d/$i; i=$((i+1)); done"
    with container.start("sh", "-c", script) as running:
        for _ in range(3):
            attempt(running.files.remove, "/w", recursive=True)


def test_the_opener_cannot_be_traced_or_named(container):
    """It is in none of the container's PID namespaces; all that is there is ours to be seen anyway."""
    with container.start("sleep", "infinity") as running:
        running.files.list("/")
        seen = running.exec("sh", "-c", "for p in /proc/[0-9]*; do cat $p/comm; done").stdout.split()
        assert not [name for name in seen if "opene" in name]
