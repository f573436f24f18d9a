"""The same attacks on :meth:`Container.untrusted`, which is for whoever would make them."""

import errno
import json
import os
import signal
import socket
import sys

import pytest
import test_bombs as bombs
import test_kernel_calls as calls
import test_outside_processes as outside
import test_paths as paths
import test_runtime_files as files
from trees import busybox_tree

from pycontain import Container
from pycontain.errors import CommandTimeout, HostUnsupported, StepFailed

HOST = Container("host:")
STRICT = HOST.untrusted(required=False)  # so that it starts on every host
REFUSED = {errno.errorcode[number] for number in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT)}


def python(code, *argv, container=STRICT, **options):
    return container.run("python3", "-I", "-c", code, *argv, **options)


@pytest.fixture
def limited():
    """With its limits: 256 MiB, no swap, 64 processes."""
    strict = HOST.untrusted()
    try:
        strict.plan("true")
    except HostUnsupported as error:
        pytest.skip(str(error))
    return strict


# --- calls ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tried():
    """How every attempt ends, each in the same container."""
    groups = (calls.MOUNTS, calls.UNSHARES, calls.CLONES, calls.CLONES3, calls.KEYS, calls.OTHERS)
    names = [name for group in groups for name in group]
    return calls.attempts(STRICT, *names, *calls.DEVICES, *calls.KERNEL_FILES)


def test_every_call_that_would_lead_out_is_refused(tried):
    """clone3(2) is not there at all, so that clone(2) is asked."""
    wanted = {
        name: "ENOSYS" if name in calls.CLONES3 else "EPERM"
        for name in (
            *calls.MOUNTS,
            *calls.UNSHARES,
            *calls.CLONES,
            *calls.CLONES3,
            *calls.KEYS,
            *calls.OTHERS,
        )
    }
    assert {name: tried[name] for name in wanted} == wanted


def test_raw_devices_are_out_of_reach(tried):
    assert {tried[name] for name in calls.DEVICES} <= REFUSED


def test_no_file_of_the_kernel_can_be_written(tried):
    assert {tried[name] for name in calls.KERNEL_FILES} <= REFUSED


def test_release_agent_cve_2022_0492():
    box = STRICT.file("/attempts.py", calls.SOURCE)
    numbers = json.dumps(dict(calls.numbers_of(calls.NATIVE)))
    done = box.file("/numbers.json", numbers).env(PYTHONPATH="/").run("python3", "-c", calls.RELEASE_AGENT)
    found, results = json.loads(done.check().stdout)
    assert (found, set(results.values())) == ([], {"EPERM"})


def test_a_chroot_cannot_even_be_made():
    assert "PermissionError" in python(calls.CHROOT).stderr


# --- the runtime ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 2, 3, 7, 64])
def test_workdir_proc_self_fd_cve_2024_21626(number):
    with pytest.raises(StepFailed, match="chdir"):
        STRICT.workdir(f"/proc/self/fd/{number}").run("true")


def test_overwriting_the_runtime_through_proc_self_exe_cve_2019_5736():
    status = os.stat(sys.executable)
    found = files.through_proc_self_exe(STRICT)
    assert found["program"] == [status.st_ino, status.st_size]
    assert {found[name] for name in ("chmod", "utime", "setxattr")} == {"Read-only file system"}
    assert found["open"] == "refused"


def test_leaked_descriptors():
    assert (
        python("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))").stdout == "[0, 1, 2, 3]\n"
    )


def test_whoever_comes_for_an_exec_cannot_be_caught():
    with STRICT.start("python3", "-I", "-c", files.WATCH.replace("/stop", "/tmp/stop")) as running:
        for _ in range(10):
            running.exec("true")
        running.exec("touch", "/tmp/stop").check()
        opened = json.loads(running.wait(60).check().stdout)
    assert {place for _, place in opened if "python" in place or "socket" in place} == set()


# --- paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", paths.LINKS.values(), ids=paths.LINKS)
def test_mounts_of_the_runtime_through_links_cve_2019_16884_cve_2025_52881(tmp_path, links):
    tree = busybox_tree(tmp_path / "tree")
    (tree / "evil").mkdir()
    for name, target in links.items():
        os.symlink(target, tree / name)
    assert paths.is_walled(tree, lambda container: container.untrusted(required=False))


@pytest.mark.parametrize("name", ["tmp", "run", "var/tmp"])
def test_its_own_places_are_links_into_proc_cve_2025_52881(tmp_path, name):
    """What is mounted there lies below /proc, which comes later, and covers nothing of it."""
    tree = busybox_tree(tmp_path / "tree")
    (tree / "var").mkdir()
    os.symlink("/proc/sys/kernel", tree / name)
    strict = Container(f"rootfs:{tree}").untrusted(required=False)
    done = strict.run("sh", "-c", f"{paths.STATE}\ncat /proc/sys/kernel/ostype")
    assert (done.stdout, done.stderr) == ("Linux\n", "")


# --- other processes --------------------------------------------------------------------------------------


def test_signals_to_outside_processes():
    assert python(outside.KILL_ALL).stdout == "alive\n"


def test_ptrace_of_the_init():
    found = outside.ptrace(1, STRICT.run)
    assert set(found.values()) <= {"EPERM", "EACCES"}, found


def test_abstract_unix_sockets_cve_2020_15257():
    name = f"pycontain-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        assert python(outside.CONNECT, name).stdout == "Connection refused\n"


def test_terminal_injection_tiocsti_cve_2017_5226():
    code = outside.ON_A_TERMINAL.replace('("host:")', '("host:").untrusted(required=False)')
    shown = outside.on_a_terminal(sys.executable, "-c", code, outside.TIOCSTI)
    assert "/dev/tty No such device or address" in shown
    assert "typed" not in shown


# --- taking all there is ----------------------------------------------------------------------------------


def test_fork_bomb(limited):
    lines = python(bombs.FORKS, container=limited).stdout.split("\n")
    assert lines[0] == "Resource temporarily unavailable"
    assert int(lines[1]) < 64


def test_endless_fork_bomb(limited):
    with pytest.raises(CommandTimeout):
        python(bombs.ENDLESS, container=limited, timeout=1)


def test_memory_bomb(limited):
    done = python(bombs.EAT, container=limited)
    assert (done.oom_killed, done.stdout) == (True, "")


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp", "/run", "/dev/shm", "/dev"])
def test_memory_bomb_through_a_place_in_memory(place):
    """Limits or not, each has a size."""
    done = python(bombs.FILL, f"{place}/file")
    assert "ate it all" not in done.stdout
    assert (
        done.signal == signal.SIGKILL or "No space left" in done.stderr or "Permission denied" in done.stderr
    )


@pytest.mark.parametrize(
    "place", ["/file", "/etc/file", "/etc/hosts", "/usr/file", "/proc/file", "/sys/file"]
)
def test_filling_the_disk(place):
    """There is nothing to write to; the file that is in memory, Landlock or its size ends."""
    assert "ate it all" not in python(bombs.FILL, place).stdout


def test_a_hundred_thousand_descriptors():
    lines = python(bombs.DESCRIPTORS).stdout.split("\n")
    assert lines[0] == "Too many open files"
    assert int(lines[1]) < 1024


def test_a_flood_of_output():
    """16 MiB of each stream are kept, and the payload is not stopped."""
    done = python("import os\nfor _ in range(40): os.write(1, bytes(1 << 20))", text=False)
    assert (done.ok, done.truncated, len(done.stdout)) == (True, True, 16 << 20)
