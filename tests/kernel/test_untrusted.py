"""untrusted(): one word for the strictest useful set, and explain(), which says what of it stands here."""

import pytest

from pycontain import Container
from pycontain.errors import HostUnsupported
from pycontain.runtime.engine import engine

HOST = Container("host:")
STRICT = HOST.untrusted(required=False)  # so that it starts on every host


def sh(script, container=STRICT):
    return container.run("sh", "-c", script)


def can_limit():
    return {"memory", "pids"} <= engine().access().versions().keys()


# --- what it is -----------------------------------------------------------------------------------------


def test_an_ordinary_program_works():
    code = "import json, tempfile, subprocess; open(tempfile.mkstemp()[1], 'w').write('x'); print(subprocess.run(['echo', '1']).returncode)"
    assert STRICT.run("python3", "-c", code).check().stdout == "1\n0\n"


def test_nothing_of_the_image_can_be_written_and_the_places_in_memory_can():
    done = sh(
        "for d in / /etc /usr /opt /srv; do touch $d/x 2>&- && echo $d; done; touch /tmp/x ~/x /var/tmp/x /run/x"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_read_only_root_may_have_the_same_places():
    scratch = HOST.read_only(scratch=True)
    assert sh("touch /tmp/x /var/tmp/x /run/x", scratch).ok
    assert not sh("touch /x", scratch).ok
    assert scratch.read_only() == scratch
    assert scratch.read_only(scratch=False) == HOST.read_only()
    assert STRICT.read_only() == STRICT


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp", "/run", "/dev/shm", "/dev"])
def test_no_place_in_memory_is_endless(place):
    size = int(sh(f"df -k --output=size {place} | tail -1").stdout)
    assert size <= 64 << 10


@pytest.mark.parametrize("path", ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"])
def test_no_file_of_ours_is_endless(path):
    """Without Landlock they can be written: they lie on a small tmpfs."""
    done = sh(f"head -c 99000000 /dev/zero >> {path}", HOST.read_only())
    assert "No space left" in done.stderr


def test_nobody_has_a_capability_and_root_is_not_above_file_modes():
    lines = STRICT.run("cat", "/proc/self/status").check().stdout.splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_output_is_bounded_whatever_run_says():
    done = STRICT.limits(output="1k", required=False).run("head", "-c", "5000", "/dev/zero", max_output="64M")
    assert (len(done.stdout), done.truncated) == (1024, True)


def test_that_of_an_exec_too():
    with STRICT.limits(output="1k", required=False).start("sleep", "infinity") as running:
        assert len(running.exec("head", "-c", "5000", "/dev/zero").stdout) == 1024


def test_no_core_and_few_descriptors():
    assert sh("ulimit -c; ulimit -n").stdout == "0\n1024\n"


def test_a_fork_bomb_and_a_memory_bomb_end():
    if not can_limit():
        pytest.skip("no control groups here")
    strict = HOST.untrusted()
    code = "import os, signal\nn = 0\ntry:\n  while os.fork(): n += 1\n  signal.pause()\nexcept OSError: print(n < 64)"
    assert strict.run("python3", "-c", code).stdout == "True\n"
    assert strict.run("python3", "-c", "bytearray(1 << 30)").oom_killed
    assert (
        strict.run("sh", "-c", "cat /dev/zero > /dev/shm/a & cat /dev/zero > /tmp/a; wait; echo full").stdout
        == "full\n"
    )


# --- how it is changed ----------------------------------------------------------------------------------


def test_a_later_call_changes_what_it_names():
    assert sh("touch /x", STRICT.read_only(False).landlock(False)).ok
    assert sh("df -k --output=size /tmp | tail -1", STRICT.tmpfs("/tmp", size="1M")).stdout.strip() == "1024"
    assert sh("echo $HOME", STRICT.env(HOME="/opt")).stdout == "/opt\n"


def test_a_mount_takes_the_place_of_a_place_in_memory(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "x").write_text("mine")
    assert sh("cat /tmp/x", STRICT.mount(tmp_path, "/tmp", read_only=True)).stdout == "mine"


def test_what_was_said_before_it_is_overridden():
    assert HOST.privileged().seccomp("unconfined").untrusted().spec == HOST.untrusted().spec


def test_a_secret_and_a_file_are_there():
    box = STRICT.secret("token", "hunter2").file("/job.py", "print(1)")
    assert sh("cat /run/secrets/token /job.py", box).stdout == "hunter2print(1)"


# --- what of it stands ----------------------------------------------------------------------------------


def test_what_the_host_cannot_keep_is_refused_or_left_out_and_both_are_explained():
    missing = HOST.untrusted().explain().refused
    assert bool(missing) == (not can_limit() or engine().facts.landlock < 2)
    assert STRICT.explain().refused == ()
    for name in missing:
        wall = STRICT.explain()[name]
        assert not wall.stands
        assert "cannot" in wall.because
    if missing:
        with pytest.raises(HostUnsupported):
            HOST.untrusted().run("true")
    else:
        HOST.untrusted().run("true").check()


def test_the_explanation_is_what_the_kernel_says():
    found = STRICT.explain()
    status = STRICT.run("cat", "/proc/self/status").stdout
    assert found["seccomp"].stands == ("Seccomp:\t2" in status)
    assert found["no_new_privs"].stands == ("NoNewPrivs:\t1" in status)
    assert found["read-only root"].stands == (not sh("touch /x").ok)
    assert found["user namespace"].stands == (
        STRICT.run("cat", "/proc/self/uid_map").stdout.split()[1] != "0"
    )


def test_it_needs_no_command():
    assert HOST.entrypoint().explain()["mnt namespace"].stands
