"""Where one id is mapped, what package managers do with ids succeeds, and changes nothing."""

import os
import sys

import pytest

from pycontain import Container
from pycontain.sandbox.steps import SetSeccomp

HOST = Container("host:")


@pytest.fixture(autouse=True)
def single(privilege):
    if privilege != "single":
        pytest.skip("more than one id is mapped")


def sh(script, container=HOST):
    return container.run("sh", "-c", script)


@pytest.mark.parametrize(
    "script",
    [
        "touch /x && chown 65534:5 /x && stat -c %u:%g /x",
        "touch /x && chgrp 5 /x && stat -c %u:%g /x",
        "ln -s y /x && chown -h 5 /x && stat -c %u:%g /x",
    ],
)
def test_a_file_can_be_given_away_and_stays(script):
    assert sh(script).check().stdout == "0:0\n"


@pytest.mark.parametrize(
    "call",
    [
        "setgroups([5])",
        "setresuid(5, 5, 5)",
        "setresgid(5, 5, 5)",
        "setuid(5)",
        "seteuid(5)",
        "setegid(5)",
        "setreuid(5, 5)",
    ],
)
def test_somebody_else_can_be_become_and_is_the_same(call):
    script = f"import os; os.{call}; print(os.getresuid(), os.getgroups())"
    assert HOST.run(sys.executable, "-c", script).check().stdout == "(0, 0, 0) [0]\n"


def test_a_device_node_can_be_made_and_is_not_there():
    done = sh("mknod /c c 1 3; mknod /b b 7 0; mknod /p p; ls /c /b /p")
    assert done.stdout == "/p\n"
    assert "mknod" not in done.stderr


def test_a_command_of_exec_has_it_too():
    with HOST.start("sleep", "infinity") as running:
        assert running.exec("sh", "-c", "touch /x && chown 5 /x").ok


def test_the_default_filter_is_as_strict_as_without():
    assert "not permitted" in sh("unshare -U true").stderr


def test_without_filters_the_kernel_answers():
    done = sh("touch /x && chown 5 /x", HOST.seccomp("unconfined"))
    assert "Invalid argument" in done.stderr


def test_the_plan_says_so():
    assert [step.name for step in HOST.plan("true").steps if isinstance(step, SetSeccomp)] == [
        "pretending",
        "default",
    ]


def test_an_image_without_apt_gets_no_folder_of_it():
    assert not sh("test -e /etc/apt").ok


def test_apt_is_told_that_there_is_nobody_to_become(tmp_path):
    tree = tmp_path / "etc" / "apt" / "apt.conf.d"
    tree.mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.glob("**")):
        folder.chmod(0o755)
    for name in ("usr", "bin", "lib", "lib64"):
        (tmp_path / name).mkdir() if not os.path.islink(f"/{name}") else (tmp_path / name).symlink_to(
            os.readlink(f"/{name}")
        )
    box = Container(f"rootfs:{tmp_path}").mount("/usr", "/usr", read_only=True)
    assert "Sandbox::User" in box.run("/usr/bin/cat", "/etc/apt/apt.conf.d/zz-pycontain").check().stdout
